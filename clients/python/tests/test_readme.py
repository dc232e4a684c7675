"""The examples of the README, as they stand there."""

import re
from pathlib import Path
from typing import Any

import pytest
from server import Server

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = re.findall(r"^## (.*?)$|^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


def examples() -> list[Any]:
    found: list[Any] = []
    title = ""
    for heading, code in EXAMPLES:
        title = heading or title
        if code:
            found.append(pytest.param(code, id=f"{title} {len(found)}"))
    return found


@pytest.mark.parametrize("code", examples())
async def test_example_runs(server: Server, code: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(code, README, "exec"), names)
    await names["main"](server.url)

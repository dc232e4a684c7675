"""How tests are run: each in a loop of its own, which it must leave as it was."""

import asyncio
import gc
import os
from collections.abc import Iterator
from typing import Any

import frames
import pytest
from server import Server

LONGEST = 240.0
"""Seconds that one test may take."""


@pytest.fixture(scope="session", autouse=True)
def _frames() -> Iterator[None]:
    folder = os.environ.get("INFOTAINER_TEST_FRAMES")
    if folder is None:
        yield
        return
    with frames.recorded(folder):
        yield


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not asyncio.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    complaints: list[dict[str, Any]] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, complaint: complaints.append(complaint))
        async with asyncio.timeout(LONGEST):
            await pyfuncitem.obj(**arguments)
        # What was dropped is let go in the next turns.
        gc.collect()
        for _ in range(3):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks are left: {left}"

    asyncio.run(run())
    gc.collect()
    assert not complaints, complaints
    return True

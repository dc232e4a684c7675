"""Requests made from docs/openapi.json against the server, each answer held to it, by schemathesis.

    python tests/http/run.py target/debug/infotainer

Every operation is asked with what the description allows and with what it does not: statuses, media types, headers and bodies of the
answers have to be those that are described, nothing may be an error of the server, and what is not allowed has to be refused. The stream
of events, which has no end, is left to the tests in Rust.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

DESCRIPTION = Path(__file__).parents[2] / "docs/openapi.json"
CONFIG = Path(__file__).with_name("schemathesis.toml")

# Seconds. What is generated is bounded by numbers, so that it takes the same on every machine; this is for one that hangs.
PATIENCE = 180

# For each operation. The seed makes two runs alike.
EXAMPLES = 30
SEED = 17


def main() -> int:
    server = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as directory:
        environment = os.environ | {"INFOTAINER_LISTEN": "127.0.0.1:0", "INFOTAINER_DURABILITY": "Written"}
        running = subprocess.Popen(
            [server],
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            assert running.stdout is not None
            said = running.stdout.readline()
            listens = re.search(r" listens on \w+://(\S+)/ws", said)
            assert listens, f"instead of where it listens: {said!r}"
            judged = subprocess.run(
                [
                    Path(sys.executable).with_name("schemathesis"),
                    f"--config-file={CONFIG}",
                    "run",
                    DESCRIPTION,
                    f"--url=http://{listens[1]}",
                    "--phases=examples,coverage,fuzzing",
                    f"--max-examples={EXAMPLES}",
                    f"--seed={SEED}",
                    "--exclude-operation-id=subscribe",
                    "--generation-database=none",
                    "--request-timeout=10",
                    "--suppress-health-check=all",
                    "--continue-on-failure",
                    # It says that it can't judge CBOR.
                    "--warnings=off",
                ],
                cwd=directory,
                timeout=PATIENCE,
                check=False,
            )
        finally:
            running.terminate()
            running.wait(30)
    return judged.returncode


if __name__ == "__main__":
    sys.exit(main())

"""The real server, as a child that can be killed."""

import os
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

_DEFAULT = Path(__file__).parents[3] / "target/debug/infotainer"
BINARY = Path(os.environ.get("INFOTAINER_BINARY", _DEFAULT))


class Server:
    """The program on a free port, with a fresh folder of its own. Where it was started once, it comes back."""

    def __init__(self, **variables: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="infotainer-")
        self._variables = {f"INFOTAINER_{name}": value for name, value in variables.items()}
        self._child: subprocess.Popen[str] | None = None
        self.port = 0
        try:
            self.start()
        except BaseException:
            self._folder.cleanup()
            raise

    def start(self) -> None:
        """Starts it, and waits until it says where it listens."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("INFOTAINER_")}
        listen = {
            "INFOTAINER_LISTEN": f"127.0.0.1:{self.port}",
            # The disk's syncs are not what is tested here.
            "INFOTAINER_DURABILITY": "Written",
            "INFOTAINER_WORKERS": "1",
        }
        said = Path(self._folder.name, "stderr")
        with said.open("a") as stderr:
            self._child = subprocess.Popen(
                [BINARY],
                cwd=self._folder.name,
                env=inherited | listen | self._variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if " listens on ws" not in line:
            self.kill()
            raise AssertionError(f"the server does not say where it listens: {line!r}\n{said.read_text()}")
        self.port = int(line.rpartition(":")[2].removesuffix("/ws\n"))

    @property
    def url(self) -> str:
        scheme = "wss" if "INFOTAINER_TLS_CERT" in self._variables else "ws"
        return f"{scheme}://127.0.0.1:{self.port}/ws"

    def kill(self) -> None:
        """Ends it as `kill -9` does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it in order."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._child is not None:
            self._child.send_signal(how)
            self._child.wait(30)
            assert self._child.stdout is not None
            self._child.stdout.close()
            self._child = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        if error is not None:
            print(Path(self._folder.name, "stderr").read_text())
        self._folder.cleanup()

"""Carries connections to a server, and cuts them where a test wants."""

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Self

NEVER = 1 << 62


@dataclass(frozen=True)
class Cut:
    """After how many bytes in each direction a connection is cut."""

    to_server: int = NEVER
    to_client: int = NEVER

    def halved(self) -> "Cut":
        def half(count: int) -> int:
            return count if count == NEVER else count // 2

        return Cut(half(self.to_server), half(self.to_client))


class Proxy:
    """`async with Proxy(port) as proxy:` listens on a port of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        # To the server, and to the client.
        self._flows = (asyncio.Event(), asyncio.Event())
        self.thaw()
        self._is_up = True
        self.cuts: deque[Cut] = deque()
        """For the next connections; those behind them are left alone."""
        self.connections = 0
        self.carried = [0, 0]
        """Bytes to the server, and to the client."""
        self.url = ""

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}/ws"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._listener is not None
        self._listener.close()
        await self.down()

    async def down(self) -> None:
        """Cuts every connection, and accepts none that lasts."""
        self._is_up = False
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    def up(self) -> None:
        """Takes connections again."""
        self._is_up = True

    def freeze(self) -> None:
        """Carries nothing, and cuts nothing."""
        for flows in self._flows:
            flows.clear()

    def freeze_to_client(self) -> None:
        """Carries nothing to the client."""
        self._flows[1].clear()

    def thaw(self) -> None:
        """Carries again."""
        for flows in self._flows:
            flows.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            self.connections += 1
            if self._is_up:
                await self._carry(reader, writer)
        except (OSError, asyncio.CancelledError):
            # The task is the stream protocol's own, which tells of a cancelled one.
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cut = self.cuts.popleft() if self.cuts else Cut()
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        directions = [
            asyncio.ensure_future(self._copy(reader, to_server, cut.to_server, 0)),
            asyncio.ensure_future(self._copy(from_server, writer, cut.to_client, 1)),
        ]
        try:
            # Either end, or a cut, ends both.
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            for ending in (to_server, writer):
                # What was carried before the end arrives: only what is behind it is lost.
                ending.close()
                with contextlib.suppress(OSError):
                    await ending.wait_closed()
        finally:
            to_server.transport.abort()
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int, direction: int
    ) -> None:
        carried = 0
        while carried < most:
            data = await reader.read(min(most - carried, 1 << 16))
            await self._flows[direction].wait()
            if not data:
                return
            carried += len(data)
            self.carried[direction] += len(data)
            writer.write(data)
            await writer.drain()

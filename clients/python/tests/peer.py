"""A made-up server, that says what a test wants."""

import asyncio
import uuid
from types import TracebackType
from typing import Any, Self

import cbor2
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from infotainer.protocol import SUBPROTOCOL


class Peer:
    """`async with Peer() as peer:` listens; a test takes the connections one by one, and talks on each."""

    def __init__(self) -> None:
        self._server: Server | None = None
        self._accepted: asyncio.Queue[ServerConnection] = asyncio.Queue()
        self.url = ""
        self.accepted = 0
        """How many connections there have been."""

    async def __aenter__(self) -> Self:
        async def handle(socket: ServerConnection) -> None:
            self.accepted += 1
            self._accepted.put_nowait(socket)
            await socket.wait_closed()

        self._server = await serve(
            handle,
            "127.0.0.1",
            0,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            ping_interval=None,
            close_timeout=1,
        )
        port = next(iter(self._server.sockets)).getsockname()[1]
        self.url = f"ws://127.0.0.1:{port}/ws"
        MADE_UP.add(port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def accept(self) -> ServerConnection:
        """The next connection, to which nothing was said yet."""
        return await self._accepted.get()

    async def welcome(
        self, interval: int = 60_000, resumed: bool = False, *restored: dict[str, Any]
    ) -> ServerConnection:
        """The next connection, welcomed."""
        socket = await self.accept()
        limits = {
            "max_message_size": 1 << 18,
            "max_subscriptions": 128,
            "heartbeat_interval": interval,
            "heartbeat_timeout": interval,
        }
        welcome = {
            "session_id": uuid.uuid4().bytes,
            "durable": resumed,
            "resumed": resumed,
            "subscriptions": list(restored),
            "server": "infotainer/made-up",
            "limits": limits,
        }
        await say(socket, {"Welcome": welcome})
        return socket


MADE_UP: set[int | None] = set()
"""Ports of made-up servers."""


async def say(socket: ServerConnection, item: object) -> None:
    """Sends one item."""
    await socket.send(cbor2.dumps(item))


async def heard(socket: ServerConnection) -> Any:
    """The next item."""
    message = await socket.recv()
    assert isinstance(message, bytes)
    return cbor2.loads(message)

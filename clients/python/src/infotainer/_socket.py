"""One WebSocket to the server: the URL, the handshake, whole messages, and what ended it.

Does not own what messages mean.
"""

import logging
from ssl import SSLContext
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_websocket
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    SecurityError,
)
from websockets.typing import Subprotocol

from .errors import (
    BadUrl,
    Broken,
    ClosedByPeer,
    ConnectionFailed,
    HandshakeRefused,
    NetworkFailed,
    NotTheProtocol,
)
from .protocol import SUBPROTOCOL

MAX_MESSAGE: Final = 32 << 20
"""No message of a server is longer: answers are cut at 4 MiB, and a publication was a message of at most 16 MiB before."""

CLOSE: Final = 2.0
"""Seconds that the goodbye may take."""


# The library tells every byte at the level DEBUG, and with the URL the session's id, which is a secret.
_log = logging.getLogger("infotainer.websocket")
_log.setLevel(logging.INFO)


class _Heard(ClientConnection):
    """A connection that notes when something was heard: a ping of the server counts, too."""

    heard = 0.0

    def data_received(self, data: bytes) -> None:
        self.heard = self.loop.time()
        super().data_received(data)


def endpoint(url: str, session: UUID | None) -> str:
    """Where to connect to: `url` is `ws://host:port/ws` or `wss://host:port/ws`; port 80 or 443 and the path `/ws` need not be said."""
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("ws", "wss") and parts.hostname and (parts.port or True)
    except ValueError:
        raise BadUrl(url) from None
    if not is_right or parts.query or parts.fragment or "@" in parts.netloc:
        raise BadUrl(url)
    path = parts.path.rstrip("/") or "/ws"
    return f"{parts.scheme}://{parts.netloc}{path}" + (f"/{session}" if session is not None else "")


class Socket:
    """Sends and receives whole messages; raises `ConnectionFailed`."""

    def __init__(self, connection: _Heard) -> None:
        self._connection = connection

    @classmethod
    async def open(cls, endpoint: str, token: str | None = None, tls: SSLContext | None = None) -> "Socket":
        """Connects and shakes hands. Over `wss://`, `tls` says whom to trust; without it, whom the system trusts."""
        options: dict[str, Any] = {
            "subprotocols": [Subprotocol(SUBPROTOCOL)],
            "compression": None,
            "proxy": None,
            "create_connection": _Heard,
            # The server pings, and the caller sets the time-out.
            "open_timeout": None,
            "ping_interval": None,
            "close_timeout": CLOSE,
            "max_size": MAX_MESSAGE,
            "logger": _log,
        }
        if token is not None:
            options["additional_headers"] = {"Authorization": f"Bearer {token}"}
        if tls is not None and endpoint.startswith("wss:"):
            options["ssl"] = tls
        try:
            connection = await connect_websocket(endpoint, **options)
        except (OSError, InvalidHandshake, InvalidURI, SecurityError) as error:
            raise _refused(error) from error
        assert isinstance(connection, _Heard)
        if connection.subprotocol != SUBPROTOCOL:
            connection.transport.abort()
            raise NotTheProtocol(f"it does not speak {SUBPROTOCOL}")
        return cls(connection)

    @property
    def heard(self) -> float:
        """When something was heard, by the loop's clock."""
        return self._connection.heard

    async def receive(self) -> bytes:
        """The next message. Nothing is lost if it is cancelled."""
        try:
            message = await self._connection.recv()
        except ConnectionClosed as closed:
            raise _closed(closed) from None
        if isinstance(message, str):
            raise NotTheProtocol("it sent a text message")
        return message

    async def send(self, message: bytes) -> None:
        """Hands a message over, as soon as there is room for it."""
        try:
            await self._connection.send(message)
        except ConnectionClosed as closed:
            raise _closed(closed) from None

    async def close(self) -> None:
        """Says goodbye, and waits for the server's. Somebody has to receive meanwhile."""
        await self._connection.close()

    def abort(self) -> None:
        """Ends it at once."""
        self._connection.transport.abort()


def _closed(closed: ConnectionClosed) -> ConnectionFailed:
    if closed.rcvd is not None:
        return ClosedByPeer(closed.rcvd.code, closed.rcvd.reason)
    # Nobody here closes with these codes but the library, when the peer breaks the rules.
    if closed.sent is not None and closed.sent.code in (1002, 1007, 1009):
        return NotTheProtocol(closed.sent.reason or "it breaks the rules of WebSocket")
    return Broken()


def _refused(error: Exception) -> ConnectionFailed:
    match error:
        case InvalidStatus():
            headers = error.response.headers
            seconds = headers.get("Retry-After", "")
            is_number = seconds.isascii() and seconds.isdigit()
            return HandshakeRefused(error.response.status_code, float(seconds) if is_number else 0.0)
        case InvalidMessage() if isinstance(error.__cause__, EOFError | OSError):
            return Broken()
        case OSError():
            return NetworkFailed(f"the connection failed: {error}")
        case _:
            return NotTheProtocol(f"the handshake failed: {error}")

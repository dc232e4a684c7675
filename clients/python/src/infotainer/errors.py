"""What can go wrong. One matches on the classes, and on `code` where the server refused.

```text
InfotainerError
├── ConnectionFailed       why there is no connection, or no longer one
│   ├── BadUrl, NetworkFailed, HandshakeRefused, TokenFailed, NotTheProtocol, ConnectTimedOut, Silent, ClosedByPeer, Broken
├── Closed                 the client has ended
│   ├── ClosedByClient, ClosedByServer, GaveUp
└── RequestFailed          one request failed
    ├── Refused, TooLarge, TimedOut, AlreadySubscribed, EpochEnded, AnswerNotUnderstood
```
"""

from typing import Final, Self
from uuid import UUID

from .protocol import ServerError

# Close codes of RFC 6455 by which a server says that the client broke the rules: it would break them again.
_FAULTS: Final = (1002, 1003, 1007, 1008, 1009)


class InfotainerError(Exception):
    """Everything that this package raises."""

    @property
    def code(self) -> str | None:
        """The server's code, if it refused: one of `ErrorCode`."""
        return None

    def _again(self) -> Self:
        """The same, to be raised once more: an exception that is raised twice collects tracebacks."""
        again = type(self)(*self.args)
        again.__cause__ = self.__cause__
        return again


class ConnectionFailed(InfotainerError):
    """Why there is no connection, or no longer one."""

    @property
    def is_final(self) -> bool:
        """Whether coming back would not help: a client does not do it by itself then."""
        return False

    @property
    def retry_after(self) -> float:
        """How many seconds the server wants to be left alone."""
        return 0.0


class BadUrl(ConnectionFailed, ValueError):
    """The URL is none that this client can use."""

    def __init__(self, url: str) -> None:
        super().__init__(url)

    def __str__(self) -> str:
        return f"the URL of a server looks like ws://host:port/ws, not like {self.args[0]!r}"

    @property
    def is_final(self) -> bool:
        """Always."""
        return True


class NetworkFailed(ConnectionFailed):
    """Nothing listens there, or the network failed; `__cause__` is the `OSError`."""


class HandshakeRefused(ConnectionFailed):
    """The handshake was answered with another status than 101."""

    def __init__(self, status: int, retry_after: float = 0.0) -> None:
        super().__init__(status, retry_after)
        self.status = status
        """The HTTP status."""
        self._retry_after = retry_after

    def __str__(self) -> str:
        return f"the server refused the connection with status {self.status}"

    @property
    def is_final(self) -> bool:
        """If the status says that the client is wrong."""
        return 400 <= self.status < 500 and self.status not in (408, 425, 429)

    @property
    def retry_after(self) -> float:
        """What the server's header says."""
        return self._retry_after


class TokenFailed(ConnectionFailed):
    """There was no token to give; `__cause__` is what `token` raised."""


class NotTheProtocol(ConnectionFailed):
    """The peer does not speak the protocol."""


class ConnectTimedOut(ConnectionFailed):
    """There was no `Welcome` within the connect time-out."""

    def __str__(self) -> str:
        return "the server did not answer in time"


class Silent(ConnectionFailed):
    """Nothing was heard from the server for longer than its heartbeats allow."""

    def __str__(self) -> str:
        return "nothing was heard from the server any more"


class ClosedByPeer(ConnectionFailed):
    """The server closed the connection."""

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(close_code, reason)
        self.close_code = close_code
        """The WebSocket close code (protocol, section 1)."""
        self.reason = reason
        """A sentence for a person; may be empty."""

    def __str__(self) -> str:
        behind = f": {self.reason}" if self.reason else ""
        return f"the server closed the connection with code {self.close_code}{behind}"

    @property
    def is_final(self) -> bool:
        """After 45xx, and after a fault of the client's."""
        return 4500 <= self.close_code < 5000 or self.close_code in _FAULTS


class Broken(ConnectionFailed):
    """The connection ended without a word."""

    def __str__(self) -> str:
        return "the connection broke"


class Closed(InfotainerError):
    """The client has ended for good."""


class ClosedByClient(Closed):
    """`Client.close` was called."""

    def __str__(self) -> str:
        return "the client was closed"


class ClosedByServer(Closed):
    """The server does not want this client back."""

    def __init__(self, why: ConnectionFailed) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"the client has ended: {self.why}"


class GaveUp(Closed):
    """As many attempts failed as `Reconnect.attempts` allows."""

    def __init__(self, why: ConnectionFailed) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return f"the client gave up connecting: {self.why}"


class RequestFailed(InfotainerError):
    """One request failed; the client goes on."""


class Refused(RequestFailed):
    """The server refused it, and it changed nothing; `code` says why."""

    def __init__(self, error: ServerError) -> None:
        super().__init__(error)
        self.error = error

    def __str__(self) -> str:
        return f"{self.error.code}: {self.error.message}"

    @property
    def code(self) -> str:
        """One of `ErrorCode`."""
        return self.error.code

    @property
    def temporary(self) -> bool:
        """Whether the same may succeed later."""
        return self.error.temporary


class TooLarge(RequestFailed):
    """It is longer than the server takes, and was not sent."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        """Bytes of the message."""
        self.limit = limit
        """Bytes that the server takes."""

    def __str__(self) -> str:
        return f"a message of {self.size} bytes is over the {self.limit} that the server takes"


class TimedOut(RequestFailed, TimeoutError):
    """There was no answer within the request time-out.

    A publication may be in the log, or come there yet: publishing the same with this `publication_id` adds it once.
    """

    def __init__(self, publication_id: UUID | None = None) -> None:
        super().__init__(publication_id)
        self.publication_id = publication_id

    def __str__(self) -> str:
        return "there was no answer in time"


class AlreadySubscribed(RequestFailed):
    """This client holds the subscription already; a session has one cursor in each."""

    def __str__(self) -> str:
        return "this client is subscribed to it already"


class EpochEnded(RequestFailed):
    """What was to be acknowledged is of an epoch that has ended."""

    def __str__(self) -> str:
        return "the sequence belongs to an epoch that has ended"


class AnswerNotUnderstood(RequestFailed):
    """The server answered with something that is no answer to this."""

"""How it stands with the connection."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from .errors import Closed, ConnectionFailed
from .protocol import Welcome


@dataclass(frozen=True, slots=True)
class Connecting:
    """The client tries to connect."""


@dataclass(frozen=True, slots=True)
class Connected:
    """There is a connection, and this is what the server said first."""

    welcome: Welcome


@dataclass(frozen=True, slots=True)
class Waiting:
    """The connection ended, or an attempt failed; the next one comes after the pause."""

    error: ConnectionFailed
    pause: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The client has ended."""

    closed: Closed


Status = Connecting | Connected | Waiting | Ended
"""How it stands with the connection."""


class StatusWatch:
    """The status now, and from now on."""

    def __init__(self) -> None:
        self.now: Status = Connecting()
        self._changed = asyncio.Event()

    def set(self, status: Status) -> None:
        """It is another one."""
        self.now = status
        self._changed.set()
        self._changed = asyncio.Event()

    async def settled(self) -> Connected | Ended:
        """Waits until there is a connection, or none any more."""
        while not isinstance(self.now, Connected | Ended):
            await self._changed.wait()
        return self.now

    async def changes(self) -> AsyncIterator[Status]:
        """The status now and whenever it changed; who is slow gets the last one. Ends behind `Ended`."""
        while True:
            changed, status = self._changed, self.now
            yield status
            if isinstance(status, Ended):
                return
            await changed.wait()

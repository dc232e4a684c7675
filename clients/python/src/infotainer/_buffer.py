"""What was delivered and not yet taken.

Owns the bound, the waking of either side, and what counts as done (an event is done when the next one is asked for). Does not own
what happens when it is full: that is `_subscriptions`'.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

from .errors import InfotainerError
from .events import Event, Place
from .protocol import Publication


@dataclass(frozen=True, slots=True)
class Bound:
    """How much a buffer holds. One publication always fits into an empty one."""

    count: int
    bytes: int


class Buffer:
    """Events in order, for the one reader there is."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._events: deque[tuple[Place, Event]] = deque()
        self._bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._taken: Place | None = None
        self.done: Place | None = None
        """The last publication with which the reader is done."""
        self.is_behind = False
        """Whether the reader is to tell when at least half is free."""
        self.has_ended = False
        self._error: InfotainerError | None = None

    @property
    def is_full(self) -> bool:
        """Whether the next publication has to wait."""
        return len(self._events) >= self._bound.count or (
            self._bytes >= self._bound.bytes and bool(self._events)
        )

    @property
    def is_low(self) -> bool:
        """Whether at least half is free."""
        return len(self._events) <= self._bound.count // 2 and self._bytes <= self._bound.bytes // 2

    def push(self, place: Place, event: Event) -> None:
        """Adds an event, also to a full buffer: whoever adds publications asks before."""
        self._bytes += _size(event)
        self._events.append((place, event))
        _wake(self._reader)

    def end(self, error: InfotainerError | None) -> None:
        """No more events after those that are in it."""
        if not self.has_ended:
            self.has_ended = True
            self._error = error
        _wake(self._reader)

    def take_error(self) -> InfotainerError | None:
        """Why it ended, once."""
        error, self._error = self._error, None
        return error

    def take(self) -> tuple[tuple[Place, Event] | None, bool]:
        """The next event, if there is one; and whether something is newly done, or there is room again."""
        tell = self._taken is not None
        if self._taken is not None:
            self.done, self._taken = self._taken, None
        if not self._events:
            return None, tell
        place, event = self._events.popleft()
        self._bytes -= _size(event)
        if isinstance(event, Publication):
            self._taken = place
        if self.is_behind and self.is_low:
            self.is_behind = False
            tell = True
        _wake(self._room)
        return (place, event), tell

    async def wait(self) -> None:
        """Waits until there is something to take, or the end."""
        if self._reader is not None:
            raise RuntimeError("another task waits for an event of this subscription already")
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    async def room(self) -> None:
        """Waits until something was taken."""
        self._room = asyncio.get_running_loop().create_future()
        try:
            await self._room
        finally:
            self._room = None

    def let_go(self) -> None:
        """Lets whoever waits for room look again."""
        _wake(self._room)


def _size(event: Event) -> int:
    return len(event.data) if isinstance(event, Publication) else 0


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)

"""A subscription: a stream of events that goes on by itself over reconnects."""

import asyncio
import weakref
from collections.abc import Generator
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from . import commands
from ._buffer import Buffer
from ._core import Core
from ._subscriber import Begun, Subscriber, Wanted
from .errors import AnswerNotUnderstood
from .events import Event, Place
from .protocol import Acknowledged, Unsubscribed, subscription_id


class Subscription:
    """An asynchronous iterator of events, which ends when the subscription was deleted or the client closed, or with an error.

    It begins when it is entered, awaited, or asked for its first event. After a reconnect it goes on by itself, behind the last event
    that came: each publication comes once and in sequence order, and what is missing is told by an event, never passed over in
    silence.

    When it is left, closed or dropped, a transient session unsubscribes; a durable one keeps the subscription and its cursor, for the
    next `Client.subscribe` of this client or another.

    Nothing is lost if waiting for an event is cancelled. One task at a time may wait.
    """

    def __init__(self, core: Core, keeps_alive: object, wanted: Wanted) -> None:
        self._core = core
        self._keeps_alive = keeps_alive
        self._wanted = wanted
        self._begun: Begun | None = None
        self._position: Place | None = None
        self._has_ended = False
        self._is_beginning = False
        self._release: weakref.finalize[..., Subscription] | None = None

    @property
    def id(self) -> UUID:
        """The subscription's id."""
        return subscription_id(self._wanted.reference)

    @property
    def epoch(self) -> UUID:
        """The epoch of the last event, or of the beginning."""
        return self._place.epoch

    @property
    def position(self) -> int:
        """The sequence of the last event, or the position behind which delivery began.

        With `epoch` it is what another `After` goes on from.
        """
        return self._place.sequence

    @property
    def _place(self) -> Place:
        if self._position is None:
            raise RuntimeError("the subscription has not begun")
        return self._position

    async def _begin(self) -> Begun:
        if self._is_beginning:
            raise RuntimeError("another task begins this subscription already")
        self._is_beginning = True
        try:
            begun = await self._core.subscribe(self._wanted)
        finally:
            self._is_beginning = False
        self._begun, self._position = begun, begun.place
        self._release = weakref.finalize(
            self, _release, asyncio.get_running_loop(), self._core, begun.subscriber, begun.buffer
        )
        self._release.atexit = False
        return begun

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
        if self._begun is None and not self._has_ended:
            await self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._has_ended:
            buffer = (self._begun or await self._begin()).buffer
            taken, tell = buffer.take()
            if tell and self._begun is not None:
                self._core.subscribers.taken(self._begun.subscriber)
            if taken is not None:
                self._position, event = taken
                return event
            if buffer.has_ended:
                self.close()
                error = buffer.take_error()
                if error is not None:
                    raise error._again()
                break
            await buffer.wait()
        raise StopAsyncIteration

    async def acknowledge(self, sequence: int) -> Acknowledged:
        """Acknowledges every publication of the current epoch up to `sequence`, so that a durable session resumes behind it."""
        command = commands.acknowledge(self._wanted.reference, sequence)
        answer = await self._core.request(command, self._place.epoch)
        if not isinstance(answer, Acknowledged):
            raise AnswerNotUnderstood(repr(answer))
        return answer

    async def unsubscribe(self) -> None:
        """Ends the subscription of this session, of a durable one too."""
        reply = await self._core.send(commands.unsubscribe(self._wanted.reference))
        self._has_ended = True
        answer = await self._core.wait(reply)
        if not isinstance(answer, Unsubscribed):
            raise AnswerNotUnderstood(repr(answer))

    def close(self) -> None:
        """Ends the iteration, as leaving and dropping do."""
        self._has_ended = True
        if self._begun is not None:
            self._begun.buffer.end(None)
        if self._release is not None:
            self._release.detach()
        if self._begun is not None:
            self._core.subscribers.release(self._begun.subscriber, self._begun.buffer)


def _release(loop: asyncio.AbstractEventLoop, core: Core, subscriber: Subscriber, buffer: Buffer) -> None:
    """The subscription was dropped, in whatever thread."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(core.subscribers.release, subscriber, buffer)

"""A subscription of a queue: a stream of deliveries that goes on by itself over reconnects."""

import asyncio
import weakref
from collections.abc import Generator, Iterable
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from . import commands, delivery
from ._core import Core
from ._queues import QueueSubscriber, WantedQueue
from .delivery import Delivery
from .errors import AnswerNotUnderstood
from .protocol import Acknowledged, Extended, Rejected, Unsubscribed, subscription_id


class QueueSubscription:
    """An asynchronous iterator of deliveries, which ends when the queue was deleted or the client closed, or with an error.

    It begins when it is entered, awaited, or asked for its first delivery. After a reconnect it subscribes again by itself; whatever
    was held is lost then, and comes again, to this client or to another one.

    When it is left, closed or dropped, this client unsubscribes, and what it held goes to others at once: the session of a durable
    client does not keep it. So do the work, and acknowledge it, inside of `async with`.

    Any number of tasks may iterate at once: each delivery goes to one of them. Nothing is lost if waiting for one is cancelled.
    """

    def __init__(self, core: Core, keeps_alive: object, wanted: WantedQueue) -> None:
        self._core = core
        self._keeps_alive = keeps_alive
        self._wanted = wanted
        self._begun: QueueSubscriber | None = None
        self._has_ended = False
        self._beginning = asyncio.Lock()
        self._release: weakref.finalize[..., QueueSubscription] | None = None

    @property
    def id(self) -> UUID:
        """The queue's id."""
        return subscription_id(self._wanted.reference)

    @property
    def prefetch(self) -> int | None:
        """How many deliveries this client holds at most at a time, once it has begun."""
        return None if self._begun is None else self._begun.prefetch

    @property
    def is_deleted(self) -> bool:
        """Whether it has ended because the queue was deleted."""
        return self._begun is not None and self._begun.is_deleted

    async def _begin(self) -> None:
        async with self._beginning:
            if self._begun is not None or self._has_ended:
                return
            begun = await self._core.work(self._wanted)
            if self._has_ended:
                self._core.queues.release(begun)
                return
            self._begun = begun
            self._release = weakref.finalize(self, _release, asyncio.get_running_loop(), self._core, begun)
            self._release.atexit = False

    def __await__(self) -> Generator[Any, None, Self]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Self:
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

    async def __anext__(self) -> Delivery:
        while not self._has_ended:
            if self._begun is None:
                await self._begin()
                continue
            inbox = self._begun.inbox
            taken = inbox.take()
            if taken is not None:
                return taken
            if inbox.has_ended:
                self.close()
                error = inbox.take_error()
                if error is not None:
                    raise error._again()
                break
            await inbox.wait()
        raise StopAsyncIteration

    async def acknowledge(self, deliveries: Iterable[Delivery]) -> Acknowledged:
        """The work of all of these is done. `count` says how many that were, and `lost` which came too late."""
        return await delivery.acknowledge(self.id, deliveries)

    async def reject(
        self, deliveries: Iterable[Delivery], *, delay: int | None = None, dead_letter: bool | None = None
    ) -> Rejected:
        """Gives all of these back, as `Delivery.reject` does with one."""
        return await delivery.reject(self.id, deliveries, delay, dead_letter)

    async def extend(self, deliveries: Iterable[Delivery]) -> Extended:
        """The `ack_timeout` of all of these begins anew."""
        return await delivery.extend(self.id, deliveries)

    async def unsubscribe(self) -> None:
        """Ends it, as `close` does, and waits until what was held can go to others."""
        if self._has_ended:
            return
        reply = await self._core.send(commands.unsubscribe(self._wanted.reference))
        self.close()
        answer = await self._core.wait(reply)
        if not isinstance(answer, Unsubscribed):
            raise AnswerNotUnderstood(repr(answer))

    def close(self) -> None:
        """Ends it, as leaving and dropping do."""
        self._has_ended = True
        if self._release is not None:
            self._release.detach()
        if self._begun is not None:
            self._core.queues.release(self._begun)


def _release(loop: asyncio.AbstractEventLoop, core: Core, subscriber: QueueSubscriber) -> None:
    """The subscription was dropped, in whatever thread."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(core.queues.release, subscriber)

"""What a client holds of its queues, and what of it was not yet taken.

Owns the leases and the inbox of deliveries. Does not own how the server is told (`_queues`), nor when a queue is subscribed.

A lease ends here as soon as the client knows that it has ended: the connection is gone, the queue was left, the publication came again,
or the server said so. One that timed out on the server is not known of until then: that is what `lost` is for.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final
from uuid import UUID
from weakref import WeakValueDictionary

from .errors import InfotainerError

if TYPE_CHECKING:
    from .delivery import Delivery

MAX_PREFETCH: Final = 65_535
"""The most that a server has in flight to one subscriber."""


class Tenure:
    """What one connection is given of one queue; it ends with the connection, and every lease with it."""

    def __init__(self) -> None:
        self.is_over = False
        # Weak: what the application has let go is of no interest any more, and so this grows no further than what it holds.
        self._newest: WeakValueDictionary[UUID, Lease] = WeakValueDictionary()

    def lease(self, publication_id: UUID) -> "Lease":
        """A new lease. The one before it of the same publication has ended, or the server would not have given this one."""
        self.end(publication_id)
        lease = Lease(self, publication_id)
        self._newest[publication_id] = lease
        return lease

    def end(self, publication_id: UUID) -> None:
        """Whatever lease of this publication there is has ended."""
        lease = self._newest.get(publication_id)
        if lease is not None:
            lease.end()


class Lease:
    """The right to settle one delivery."""

    __slots__ = ("__weakref__", "_has_ended", "publication_id", "tenure")

    def __init__(self, tenure: Tenure, publication_id: UUID) -> None:
        self.tenure = tenure
        self.publication_id = publication_id
        self._has_ended = False

    @property
    def is_over(self) -> bool:
        """Whether it is known that this lease has ended."""
        return self._has_ended or self.tenure.is_over

    def end(self) -> None:
        """It has ended."""
        self._has_ended = True


class Inbox:
    """Deliveries in the order in which they came. Any number of tasks may wait for them.

    What is over when it is asked for is not handed out, and what the server can't have in flight any more is dropped: so it is bounded
    by the prefetch, also if nobody takes anything.
    """

    def __init__(self) -> None:
        self.bound = MAX_PREFETCH
        self.has_ended = False
        self._deliveries: deque[Delivery] = deque()
        self._changed = asyncio.Event()
        self._error: InfotainerError | None = None

    def __len__(self) -> int:
        return len(self._deliveries)

    def push(self, delivery: "Delivery") -> None:
        """Adds a delivery."""
        self._deliveries.append(delivery)
        while len(self._deliveries) > self.bound:
            # The server has no more than so many in flight, and the oldest time out first.
            self._deliveries.popleft()._lease.end()
        self._changed.set()

    def clear(self) -> None:
        """Drops what was not taken."""
        self._deliveries.clear()

    def end(self, error: InfotainerError | None) -> None:
        """Nothing comes any more."""
        if not self.has_ended:
            self.has_ended, self._error = True, error
            self._deliveries.clear()
        self._changed.set()

    def take_error(self) -> InfotainerError | None:
        """Why it ended, once."""
        error, self._error = self._error, None
        return error

    def take(self) -> "Delivery | None":
        """The next one."""
        while self._deliveries:
            delivery = self._deliveries.popleft()
            if not delivery.is_lost:
                return delivery
        return None

    async def wait(self) -> None:
        """Waits until there may be something to take, or the end."""
        self._changed.clear()
        await self._changed.wait()

"""Where one subscription of the application stands.

```text
            Subscribed                      buffer full
 WAITING ──> ASKING ──────────────> LIVE ───────────────> BEHIND
    ^          ^ ^                   │                      │ half of the buffer is free
    │          │ └───────────────────┼──────────────────────┘
    └──────────┴── connection ends ──┘
```

A subscription that is behind gets nothing: what comes for it is dropped, and asked for again from its cursor when there is room. That
costs sending some twice, and means that a slow reader costs bounded memory, holds up no other subscription, no answer and no
heartbeat, and misses nothing. A transient session unsubscribes meanwhile. A durable one stays subscribed, at the end of the log,
with what was acknowledged acknowledged again, so that a crash loses nothing either.
"""

import asyncio
from dataclasses import dataclass
from enum import Enum, auto
from uuid import UUID

from ._buffer import Bound, Buffer
from .errors import ClosedByClient, InfotainerError
from .events import NotRecovered, Place
from .protocol import After, RestoredSubscription, Subscribed, SubscribeFrom, SubscriptionReference


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the application asked for."""

    reference: SubscriptionReference
    start: SubscribeFrom | None
    epoch: UUID | None
    bound: Bound
    acknowledges: bool
    """Whether what was taken is acknowledged by itself (durable sessions)."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A subscription that began."""

    subscriber: "Subscriber"
    place: Place
    buffer: Buffer


class State(Enum):
    """See the picture above."""

    WAITING = auto()
    ASKING = auto()
    LIVE = auto()
    BEHIND = auto()


class Subscriber:
    """One subscription of the application. The same subscription, begun again, is another one."""

    def __init__(self, id: UUID, wanted: Wanted, is_claimed: bool) -> None:
        self.id = id
        self.wanted = wanted
        self.is_claimed = is_claimed
        """Whether the application has the stream."""
        self.reply: asyncio.Future[Begun | InfotainerError] | None = None
        """Who waits for the first `Subscribed`."""
        self.state = State.WAITING
        self.retry_at: float | None = None
        """While waiting: for this time; None is for a connection."""
        self.asking: int | None = None
        """While asking: for the answer to this request."""
        self.place: Place | None = None
        """The last sequence that went into the buffer; None until the first `Subscribed`."""
        self.acknowledged = 0
        """Where a durable session resumes in the server's view, as far as this client knows."""
        self.is_acknowledging = False
        self.buffer = Buffer(wanted.bound)

    @property
    def is_given_up(self) -> bool:
        """Whether nobody waits for the beginning any more."""
        return self.reply is not None and self.reply.done()

    def disconnected(self) -> None:
        """The connection ended."""
        self.is_acknowledging = False
        if self.state is not State.BEHIND:
            self.wait(None)

    def wait(self, retry_at: float | None) -> None:
        """Waits for a connection, or until then."""
        self.state = State.WAITING
        self.retry_at = retry_at

    def end(self, error: InfotainerError | None) -> None:
        """Nothing comes any more."""
        if self.reply is None:
            self.buffer.end(error)
            return
        if not self.reply.done():
            self.reply.set_result(ClosedByClient() if error is None else error)
        self.reply = None

    def acknowledged_by_hand(self, epoch: UUID | None, sequence: int) -> bool:
        """Notes an acknowledgement of the application. False if it is of an epoch that has ended."""
        if self.place is None:
            return True
        if epoch is not None and epoch != self.place.epoch:
            return False
        # What is above the cursor the server refuses.
        if sequence <= self.place.sequence:
            self.acknowledged = max(self.acknowledged, sequence)
        return True

    def begin(self, place: Place) -> None:
        """Delivery begins there."""
        self.place = place
        self.acknowledged = place.sequence

    def take_up(self, restored: RestoredSubscription) -> None:
        """Begins where the server has taken a durable session up again: publications come from there without asking."""
        place = Place(restored.epoch, restored.cursor)
        self.state = State.LIVE
        if restored.recovered:
            self.begin(place)
        else:
            self.not_recovered(None, place)

    def answer(self) -> bool:
        """Tells the application, if it waits, that the subscription has begun. False if it does not want it any more."""
        if self.reply is None or self.place is None:
            return True
        reply, self.reply = self.reply, None
        if reply.done():
            return False
        # What is in the buffer follows what is acknowledged.
        reply.set_result(Begun(self, Place(self.place.epoch, self.acknowledged), self.buffer))
        return True

    def not_recovered(self, previous: Place | None, place: Place) -> None:
        """Goes on from `place`, which is not where the cursor was."""
        self.begin(place)
        self.buffer.push(place, NotRecovered(previous, place.epoch, place.sequence))

    def place_after(self, subscribed: Subscribed) -> bool:
        """Moves to where the server says that delivery begins. True if its epoch has ended."""
        cursor = subscribed.last_sequence if subscribed.cursor is None else subscribed.cursor
        place, previous = Place(subscribed.epoch, cursor), self.place
        # Recovered; or retention took something behind the cursor, of which a `Gap` tells next.
        if previous == place:
            return False
        if previous is not None:
            self.not_recovered(previous, place)
            return previous.epoch != place.epoch
        asked = None
        if isinstance(self.wanted.start, After):
            epoch = place.epoch if self.wanted.epoch is None else self.wanted.epoch
            asked = Place(epoch, self.wanted.start.position)
        if subscribed.recovered or asked == place:
            self.begin(place)
        else:
            self.not_recovered(asked, place)
        return False

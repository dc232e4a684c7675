"""How broadcast subscriptions begin, are delivered to, go on after a reconnect, and end.

Owns the subscribers and their cursors. Does not own requests, sockets nor time (`_core`, `_connection`), nor queues (`_queues`).

Invariant: a publication goes into a buffer only if it is the next one behind the subscriber's cursor, or behind a `Gap` that says what
is missing.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol
from uuid import UUID

from . import commands
from ._buffer import Bound, Buffer
from ._requests import Answer, InFlight, is_refusal
from ._subscriber import Begun, State, Subscriber, Wanted
from .errors import AlreadySubscribed, EpochEnded, InfotainerError, Refused
from .events import Gap, Place
from .protocol import (
    NEW,
    After,
    Command,
    Deleted,
    ErrorCode,
    GapCause,
    Kind,
    Publication,
    RestoredSubscription,
    ServerError,
    ServerGap,
    Subscribed,
    SubscriptionReference,
    Welcome,
    subscription_id,
)

RETRY: Final = 1.0
"""Seconds before a resumption is tried again that failed for a time, unless the server says another."""

log = logging.getLogger("infotainer")


class Sender(Protocol):
    """What this needs of the core."""

    is_connected: bool

    def ask(self, command: Command, answered: Callable[[Answer], None]) -> int:
        """Sends a request of the client's own on the connection that there is."""
        ...

    def refuse(self, is_refused: Callable[[InFlight], bool], error: InfotainerError) -> None:
        """Fails requests of callers."""
        ...

    def now(self) -> float:
        """The time."""
        ...


class Subscribers:
    """All broadcast subscriptions of a client."""

    def __init__(self, sender: Sender, is_durable: bool, unclaimed_bound: Bound) -> None:
        self._sender = sender
        self._is_durable = is_durable
        self._unclaimed_bound = unclaimed_bound
        self._all: dict[UUID, Subscriber] = {}
        self._stalled: tuple[Subscriber, Publication] | None = None
        self.has_delivered = False
        """Whether the connection was of use."""

    # ---- Beginning ---------------------------------------------------------------------------------------------------

    def subscribe(self, wanted: Wanted, reply: asyncio.Future[Begun | InfotainerError]) -> None:
        """Begins a subscription, or hands over the one that a durable session has already."""
        id = subscription_id(wanted.reference)
        held = self._all.get(id)
        if held is not None:
            if held.is_claimed and not held.is_given_up:
                reply.set_result(AlreadySubscribed())
                return
            if wanted.start is None and held.place is not None:
                held.is_claimed, held.wanted, held.reply = True, wanted, reply
                held.answer()
                return
        subscriber = Subscriber(id, wanted, is_claimed=True)
        subscriber.reply = reply
        self._all[id] = subscriber
        if self._sender.is_connected:
            self._ask(subscriber)

    def is_held(self, reference: SubscriptionReference) -> bool:
        """Whether the application or the session has this subscription, or is about to."""
        held = self._all.get(subscription_id(reference))
        return held is not None and not held.is_given_up

    def _ask(self, subscriber: Subscriber) -> None:
        """Sends the `Subscribe` that takes the subscription up where it stands."""
        wanted, place = subscriber.wanted, subscriber.place
        if place is None:
            command = commands.subscribe(wanted.reference, Kind.BROADCAST, wanted.start, wanted.epoch)
        else:
            start = After(place.sequence)
            command = commands.subscribe(wanted.reference, Kind.BROADCAST, start, place.epoch)

        def answered(response: Answer) -> None:
            if self._is_current(subscriber) and subscriber.asking == request:
                self._subscribed(subscriber, response)

        request = self._sender.ask(command, answered)
        # `from` made the server forget what was acknowledged.
        if place is not None:
            self._acknowledge_aside(wanted.reference, subscriber.acknowledged)
        subscriber.state, subscriber.asking = State.ASKING, request

    def _is_current(self, subscriber: Subscriber) -> bool:
        return self._all.get(subscriber.id) is subscriber

    def _subscribed(self, subscriber: Subscriber, response: Answer) -> None:
        subscriber.asking = None
        match response:
            case Subscribed():
                subscriber.state = State.LIVE
                has_ended = subscriber.place_after(response)
                if not subscriber.answer():
                    self.release(subscriber, subscriber.buffer)
                    return
                if has_ended:
                    self._epoch_ended(subscriber.id)
                self._acknowledge_done(subscriber)
            case ServerError():
                self._not_subscribed(subscriber, response)
            case _:
                log.warning("Subscribe was answered with %s", response)
                subscriber.wait(self._sender.now() + RETRY)

    def _not_subscribed(self, subscriber: Subscriber, error: ServerError) -> None:
        if error.code == ErrorCode.SHUTTING_DOWN:
            subscriber.wait(None)
        elif error.temporary and subscriber.reply is None:
            pause = RETRY if error.retry_after is None else error.retry_after / 1000
            subscriber.wait(self._sender.now() + pause)
        else:
            del self._all[subscriber.id]
            subscriber.end(Refused(error))

    def next_retry(self) -> float | None:
        """When something has to be tried again."""
        if not self._sender.is_connected:
            return None
        waiting = (one for one in self._all.values() if one.state is State.WAITING)
        return min((one.retry_at for one in waiting if one.retry_at is not None), default=None)

    def retry(self, now: float) -> None:
        """Tries again what has waited long enough."""
        for subscriber in list(self._all.values()):
            retry_at = subscriber.retry_at
            if subscriber.state is State.WAITING and retry_at is not None and retry_at <= now:
                self._ask(subscriber)

    # ---- Going on ----------------------------------------------------------------------------------------------------

    def resume(self, welcome: Welcome) -> None:
        """Takes every subscription up again on a connection that has just begun."""
        broadcasts = [one for one in welcome.subscriptions if one.kind == Kind.BROADCAST]
        restored = {one.subscription_id: one for one in broadcasts}
        for subscriber in list(self._all.values()):
            self._resume(subscriber, restored.get(subscriber.id), welcome.resumed)
        for one in broadcasts:
            self._hold_unclaimed(one)

    def _resume(
        self, subscriber: Subscriber, restored: RestoredSubscription | None, was_resumed: bool
    ) -> None:
        place = subscriber.place
        is_wanted = subscriber.state is not State.BEHIND or subscriber.buffer.is_low
        if place is None:
            if restored is not None and subscriber.wanted.start is None:
                subscriber.take_up(restored)
                if not subscriber.answer():
                    self.release(subscriber, subscriber.buffer)
                return
        elif restored is None:
            if self._is_durable and was_resumed:
                self.deleted(subscriber.id)
                return
            # Whether the epoch is still the same will be known too late to acknowledge in it.
            subscriber.acknowledged = 0
            self._epoch_ended(subscriber.id)
        elif restored.epoch != place.epoch:
            subscriber.acknowledged = 0
            self._epoch_ended(subscriber.id)
        elif restored.cursor <= place.sequence and is_wanted:
            subscriber.buffer.is_behind = False
            subscriber.state = State.LIVE
            self._acknowledge_done(subscriber)
            return
        if is_wanted:
            self._ask(subscriber)
        else:
            self._leave_the_stream(subscriber, is_held=restored is not None)

    def _hold_unclaimed(self, restored: RestoredSubscription) -> None:
        """Keeps what comes for a subscription that a durable session has and that nobody has asked for yet."""
        if restored.subscription_id in self._all:
            return
        wanted = Wanted(restored.subscription_id, None, None, self._unclaimed_bound, acknowledges=False)
        subscriber = Subscriber(restored.subscription_id, wanted, is_claimed=False)
        subscriber.take_up(restored)
        self._all[subscriber.id] = subscriber

    def disconnected(self) -> None:
        """The connection ended."""
        self._unstall(None)
        for subscriber in self._all.values():
            subscriber.disconnected()

    def _epoch_ended(self, id: UUID) -> None:
        """What was acknowledged in an epoch that has ended must not be acknowledged in the next one."""
        self._sender.refuse(
            lambda request: request.name == "Acknowledge" and request.subscription_id == id, EpochEnded()
        )

    # ---- Delivering --------------------------------------------------------------------------------------------------

    def publication(self, publication: Publication) -> None:
        """A publication came."""
        subscriber = self._all.get(publication.subscription_id)
        if subscriber is None or subscriber.place is None or subscriber.state is not State.LIVE:
            return
        last, sequence = subscriber.place.sequence, publication.sequence
        if sequence <= last:
            return
        if subscriber.buffer.is_full:
            if subscriber.is_claimed:
                self._stalled = subscriber, publication
            else:
                self._fall_behind(subscriber)
            return
        subscriber.place = Place(subscriber.place.epoch, sequence)
        if sequence > last + 1:
            # Nobody said why.
            gap = Gap(last + 1, sequence - 1, GapCause.UNEXPLAINED)
            subscriber.buffer.push(subscriber.place, gap)
        subscriber.buffer.push(subscriber.place, publication)
        self.has_delivered = True

    def gap(self, gap: ServerGap) -> None:
        """The server says that something is missing."""
        subscriber = self._all.get(gap.subscription_id)
        if subscriber is None or subscriber.place is None or subscriber.state is not State.LIVE:
            return
        last = subscriber.place.sequence
        if gap.to > last:
            subscriber.place = Place(subscriber.place.epoch, gap.to)
            subscriber.buffer.push(subscriber.place, Gap(max(gap.from_, last + 1), gap.to, gap.cause))

    @property
    def stalled(self) -> Buffer | None:
        """The buffer that has to get room before anything else is received."""
        return None if self._stalled is None else self._stalled[0].buffer

    def go_on(self) -> None:
        """There is room."""
        if self._stalled is not None:
            _, publication = self._stalled
            self._stalled = None
            self.publication(publication)

    def give_way(self) -> None:
        """There has been no room for too long."""
        if self._stalled is not None:
            subscriber, _ = self._stalled
            self._stalled = None
            self._fall_behind(subscriber)

    def _unstall(self, subscriber: Subscriber | None) -> None:
        """Drops the publication that waits for room, of this subscriber or of any."""
        if self._stalled is not None and subscriber in (None, self._stalled[0]):
            buffer = self._stalled[0].buffer
            self._stalled = None
            buffer.let_go()

    def _fall_behind(self, subscriber: Subscriber) -> None:
        if not self._is_current(subscriber):
            return
        log.debug("the reader of %s is slow: its buffer is full, and it goes on later", subscriber.id)
        subscriber.state = State.BEHIND
        subscriber.buffer.is_behind = True
        self._leave_the_stream(subscriber, is_held=True)
        # It may be low already: one large publication alone fills it.
        self.taken(subscriber)

    def _leave_the_stream(self, subscriber: Subscriber, is_held: bool) -> None:
        """Lets the server send as little as it can of a subscription that is behind."""
        if not is_held:
            return
        reference, acknowledged = subscriber.wanted.reference, subscriber.acknowledged
        if not self._is_durable:
            self._aside(commands.unsubscribe(reference))
        elif acknowledged > 0:
            self._aside(commands.subscribe(reference, start=NEW))
            self._acknowledge_aside(reference, acknowledged)
        # Position 0 can't be acknowledged, so a durable session whose reader has done with nothing yet stays where it is:
        # what comes is dropped.

    def taken(self, subscriber: Subscriber) -> None:
        """The application has done with events, or has taken so many that there is room again."""
        if not self._is_current(subscriber):
            return
        self._acknowledge_done(subscriber)
        if subscriber.state is State.BEHIND and subscriber.buffer.is_low:
            subscriber.buffer.is_behind = False
            subscriber.wait(None)
            if self._sender.is_connected:
                self._ask(subscriber)

    # ---- Acknowledging -----------------------------------------------------------------------------------------------

    def acknowledge_by_hand(self, id: UUID, epoch: UUID | None, sequence: int) -> bool:
        """Notes an acknowledgement of the application. False if it is of an epoch that has ended."""
        subscriber = self._all.get(id)
        return subscriber is None or subscriber.acknowledged_by_hand(epoch, sequence)

    def _acknowledge_done(self, subscriber: Subscriber) -> None:
        """Acknowledges what the application has done with; one at a time, so that a fast reader makes few."""
        if not self._is_durable or not self._sender.is_connected:
            return
        if not subscriber.wanted.acknowledges or subscriber.is_acknowledging:
            return
        done, place = subscriber.buffer.done, subscriber.place
        if done is None or place is None or done.epoch != place.epoch:
            return
        if done.sequence <= subscriber.acknowledged:
            return

        def answered(response: Answer) -> None:
            if isinstance(response, ServerError):
                log.warning("an acknowledgement failed: %s", response)
            if self._is_current(subscriber):
                subscriber.is_acknowledging = False
                self._acknowledge_done(subscriber)

        subscriber.acknowledged = done.sequence
        subscriber.is_acknowledging = True
        self._sender.ask(commands.acknowledge(subscriber.id, done.sequence), answered)

    def _acknowledge_aside(self, reference: SubscriptionReference, sequence: int) -> None:
        if self._is_durable and sequence > 0:
            self._aside(commands.acknowledge(subscription_id(reference), sequence))

    def _aside(self, command: Command) -> None:
        """Sends something from whose answer nothing follows."""
        self._sender.ask(command, aside_answered)

    # ---- Ending ------------------------------------------------------------------------------------------------------

    def deleted(self, id: UUID) -> None:
        """The subscription was deleted."""
        subscriber = self._all.get(id)
        # One that has not begun is made again by the `Subscribe` that is on its way.
        if subscriber is None or subscriber.reply is not None:
            return
        del self._all[id]
        self._unstall(subscriber)
        if subscriber.place is not None:
            subscriber.buffer.push(subscriber.place, Deleted(id))
        subscriber.end(None)

    def unsubscribed(self, id: UUID) -> None:
        """The application unsubscribes."""
        subscriber = self._all.pop(id, None)
        if subscriber is not None:
            self._unstall(subscriber)
            subscriber.end(None)

    def release(self, subscriber: Subscriber, buffer: Buffer) -> None:
        """Nobody reads the subscription any more. A durable session keeps it, for whoever asks for it next."""
        if not self._is_current(subscriber) or subscriber.buffer is not buffer:
            return
        self._unstall(subscriber)
        if self._is_durable:
            self._put_back(subscriber)
            return
        del self._all[subscriber.id]
        is_held = subscriber.state in (State.LIVE, State.ASKING)
        subscriber.end(None)
        if is_held and self._sender.is_connected:
            self._aside(commands.unsubscribe(subscriber.wanted.reference))

    def _put_back(self, subscriber: Subscriber) -> None:
        """Keeps the subscription as if it had just been restored: what is not acknowledged comes again."""
        reference = subscriber.wanted.reference
        # The acknowledgement under way may be behind what was done with.
        done, place = subscriber.buffer.done, subscriber.place
        if (
            subscriber.wanted.acknowledges
            and done is not None
            and place is not None
            and done.epoch == place.epoch
        ):
            subscriber.acknowledged = max(subscriber.acknowledged, done.sequence)
        wanted = Wanted(reference, None, None, self._unclaimed_bound, acknowledges=False)
        subscriber.is_claimed, subscriber.wanted = False, wanted
        subscriber.buffer.end(None)
        subscriber.buffer = Buffer(wanted.bound)
        if subscriber.place is not None:
            subscriber.place = Place(subscriber.place.epoch, subscriber.acknowledged)
            subscriber.wait(None)
            if self._sender.is_connected:
                self._ask(subscriber)

    def finish(self, error: InfotainerError | None) -> None:
        """The client has ended."""
        subscribers, self._all = list(self._all.values()), {}
        for subscriber in subscribers:
            subscriber.end(error)


def aside_answered(response: Answer) -> None:
    if isinstance(response, ServerError) and not is_refusal(response, ErrorCode.SHUTTING_DOWN):
        log.debug("the server says: %s", response)

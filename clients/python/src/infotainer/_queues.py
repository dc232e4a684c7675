"""How queues are subscribed, delivered to, subscribed again after a reconnect, and left.

Owns which queues are subscribed. Does not own leases nor deliveries that wait (`_leases`), nor broadcast subscriptions
(`_subscriptions`), which have cursors where queues have leases.

```text
            Subscribed
 WAITING ──> ASKING ───> LIVE        a queue that a durable session has again is LIVE with the connection
    ^          │          │
    └──────────┴──────────┴── connection ends: so do all leases
```

Invariant: a lease is only ever settled on the connection that it came by.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from . import commands
from ._leases import MAX_PREFETCH, Inbox, Tenure
from ._requests import Answer
from ._subscriptions import RETRY, Sender, aside_answered
from .delivery import Asker, Delivery
from .errors import AlreadySubscribed, ClosedByClient, InfotainerError, Refused
from .protocol import (
    ErrorCode,
    Kind,
    Publication,
    ServerError,
    Subscribed,
    SubscriptionReference,
    Welcome,
    subscription_id,
)

UNCLAIMED: Final = 1.0
"""Seconds that deliveries of a queue which a durable session has again wait for the application to ask for it. Longer would hold them
back from other subscribers; at once would have an application that comes back get all of them for the second time."""

log = logging.getLogger("infotainer")


@dataclass(frozen=True, slots=True)
class WantedQueue:
    """What the application asked for."""

    reference: SubscriptionReference
    prefetch: int | None


class QueueSubscriber:
    """One queue that is subscribed. The same queue, subscribed again after it was left, is another one."""

    def __init__(self, wanted: WantedQueue, is_claimed: bool) -> None:
        self.id = subscription_id(wanted.reference)
        self.wanted = wanted
        self.is_claimed = is_claimed
        """Whether the application has the stream."""
        self.reply: asyncio.Future[QueueSubscriber | InfotainerError] | None = None
        """Who waits for the first `Subscribed`."""
        self.has_begun = False
        """Whether there has been a `Subscribed`."""
        self.prefetch: int | None = None
        """As the server said."""
        self.is_deleted = False
        self.asking: int | None = None
        """The request whose answer is waited for."""
        self.retry_at: float | None = None
        """When to ask again, or to give up what nobody claims."""
        self.tenure: Tenure | None = None
        """While this connection may deliver."""
        self.inbox = Inbox()

    @property
    def is_given_up(self) -> bool:
        """Whether nobody waits for the beginning any more."""
        return self.reply is not None and self.reply.done()

    def go_live(self) -> None:
        """Deliveries may come."""
        if self.tenure is None:
            self.tenure = Tenure()

    def lose(self) -> None:
        """What was delivered is no longer held."""
        if self.tenure is not None:
            self.tenure.is_over = True
        self.tenure = None
        self.inbox.clear()

    def stop(self) -> None:
        """Nothing is asked, and nothing held."""
        self.lose()
        self.asking = self.retry_at = None

    def end(self, error: InfotainerError | None) -> None:
        """Nothing comes any more."""
        self.stop()
        self.inbox.end(error)
        if self.reply is not None and not self.reply.done():
            self.reply.set_result(ClosedByClient() if error is None else error)
        self.reply = None


class Queues:
    """All queues that a client subscribes."""

    def __init__(self, sender: Sender, asker: Asker, is_durable: bool) -> None:
        self._sender = sender
        self._asker = asker
        self._is_durable = is_durable
        self._all: dict[UUID, QueueSubscriber] = {}
        self.has_delivered = False
        """Whether the connection was of use."""

    # ---- Beginning ---------------------------------------------------------------------------------------------------

    def subscribe(
        self, wanted: WantedQueue, reply: "asyncio.Future[QueueSubscriber | InfotainerError]"
    ) -> None:
        """Subscribes a queue, or hands over the one that a durable session has already, with what it holds."""
        subscriber = self._all.get(subscription_id(wanted.reference))
        if subscriber is None:
            subscriber = QueueSubscriber(wanted, is_claimed=True)
            self._all[subscriber.id] = subscriber
        elif subscriber.is_claimed and not subscriber.is_given_up:
            reply.set_result(AlreadySubscribed())
            return
        subscriber.wanted, subscriber.reply, subscriber.is_claimed = wanted, reply, True
        subscriber.retry_at = None
        if self._sender.is_connected:
            self._ask(subscriber)

    def is_held(self, reference: SubscriptionReference) -> bool:
        """Whether the application or the session has this queue, or is about to."""
        held = self._all.get(subscription_id(reference))
        return held is not None and not held.is_given_up

    def _ask(self, subscriber: QueueSubscriber) -> None:
        wanted = subscriber.wanted

        def answered(response: Answer) -> None:
            if self._is_current(subscriber):
                self._subscribed(subscriber, response, is_last=subscriber.asking == request)

        request = self._sender.ask(
            commands.subscribe(wanted.reference, Kind.QUEUE, prefetch=wanted.prefetch), answered
        )
        subscriber.asking, subscriber.retry_at = request, None

    def _is_current(self, subscriber: QueueSubscriber) -> bool:
        return self._all.get(subscriber.id) is subscriber

    def _subscribed(self, subscriber: QueueSubscriber, response: Answer, is_last: bool) -> None:
        if isinstance(response, Subscribed):
            # What comes from now on is leased, whoever asked for it.
            subscriber.go_live()
            if not is_last:
                return
            subscriber.asking = None
            subscriber.has_begun = True
            self._note_prefetch(subscriber, response.prefetch)
            reply, subscriber.reply = subscriber.reply, None
            if reply is not None and reply.done():
                self.release(subscriber)
            elif reply is not None:
                reply.set_result(subscriber)
        elif is_last:
            subscriber.asking = None
            if isinstance(response, ServerError):
                self._not_subscribed(subscriber, response)
            else:
                log.warning("Subscribe was answered with %s", response)
                subscriber.retry_at = self._sender.now() + RETRY

    def _note_prefetch(self, subscriber: QueueSubscriber, prefetch: int | None) -> None:
        subscriber.prefetch = prefetch
        # With a smaller one than before, more may still be in flight.
        subscriber.inbox.bound = max(prefetch or MAX_PREFETCH, len(subscriber.inbox))

    def _not_subscribed(self, subscriber: QueueSubscriber, error: ServerError) -> None:
        if error.code == ErrorCode.SHUTTING_DOWN:
            return
        if error.temporary and subscriber.reply is None:
            pause = RETRY if error.retry_after is None else error.retry_after / 1000
            subscriber.retry_at = self._sender.now() + pause
        else:
            del self._all[subscriber.id]
            subscriber.end(Refused(error))

    def next_retry(self) -> float | None:
        """When something has to be done."""
        return min((one.retry_at for one in self._all.values() if one.retry_at is not None), default=None)

    def retry(self, now: float) -> None:
        """Does what has waited long enough."""
        for subscriber in list(self._all.values()):
            if subscriber.retry_at is None or subscriber.retry_at > now:
                continue
            if subscriber.is_claimed:
                self._ask(subscriber)
            else:
                log.info(
                    "nobody has asked for %s, which this session has again: it is given up", subscriber.id
                )
                self.release(subscriber)

    # ---- Going on ----------------------------------------------------------------------------------------------------

    def resume(self, welcome: Welcome) -> None:
        """Subscribes every queue again on a connection that has just begun."""
        restored = {one.subscription_id for one in welcome.subscriptions if one.kind == Kind.QUEUE}
        for subscriber in list(self._all.values()):
            if subscriber.is_given_up:
                del self._all[subscriber.id]
                subscriber.end(None)
                continue
            if subscriber.id in restored:
                subscriber.go_live()
            elif self._is_durable and welcome.resumed and subscriber.has_begun:
                self.deleted(subscriber.id)
                continue
            self._ask(subscriber)
        for id in restored - self._all.keys():
            subscriber = QueueSubscriber(WantedQueue(id, None), is_claimed=False)
            subscriber.has_begun = True
            subscriber.go_live()
            subscriber.retry_at = self._sender.now() + UNCLAIMED
            self._all[id] = subscriber

    def disconnected(self) -> None:
        """The connection ended, and with it every lease."""
        for subscriber in list(self._all.values()):
            subscriber.stop()
            if not subscriber.is_claimed:
                del self._all[subscriber.id]

    # ---- Delivering --------------------------------------------------------------------------------------------------

    def publication(self, publication: Publication) -> None:
        """A publication came."""
        subscriber = self._all.get(publication.subscription_id)
        # In front of `Subscribed` come those of a subscription that was left.
        if subscriber is None or subscriber.tenure is None or publication.delivery is None:
            return
        delivery = Delivery(
            publication.subscription_id,
            publication.publication_id,
            publication.sequence,
            publication.time,
            publication.data,
            publication.publisher,
            publication.delivery,
            publication.dead_letter,
            _lease=subscriber.tenure.lease(publication.publication_id),
            _asker=self._asker,
        )
        subscriber.inbox.push(delivery)
        self.has_delivered = True

    # ---- Ending ------------------------------------------------------------------------------------------------------

    def deleted(self, id: UUID) -> None:
        """The queue was deleted."""
        subscriber = self._all.get(id)
        if subscriber is None:
            return
        if subscriber.reply is not None:
            # It is made again by the `Subscribe` that is on its way.
            subscriber.lose()
            return
        del self._all[id]
        subscriber.is_deleted = True
        subscriber.end(None)

    def unsubscribed(self, id: UUID) -> None:
        """The application unsubscribes."""
        subscriber = self._all.pop(id, None)
        if subscriber is not None:
            subscriber.end(None)

    def release(self, subscriber: QueueSubscriber) -> None:
        """Nobody works at the queue any more: what it holds goes to others."""
        if not self._is_current(subscriber):
            return
        is_held = subscriber.tenure is not None or subscriber.asking is not None
        self.unsubscribed(subscriber.id)
        if is_held and self._sender.is_connected:
            self._sender.ask(commands.unsubscribe(subscriber.id), aside_answered)

    def finish(self, error: InfotainerError | None) -> None:
        """The client has ended."""
        subscribers, self._all = list(self._all.values()), {}
        for subscriber in subscribers:
            subscriber.end(error)

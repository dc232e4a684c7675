"""What a client knows and wants, without I/O.

Owns which requests wait for an answer, the sending again after a reconnect, and what has to be said on the connection that there is.
Does not own sockets, nor pauses between connections (`_connection`), nor how subscriptions go on (`_subscriptions`, `_queues`).

```text
 calls of the application ──> Core ──> outgoing messages
 messages received ─────────>      ──> answers to callers, events into buffers
```

Invariants:

* Requests are sent, and sent again, in the order of their ids, which is the order in which callers made them.
* A request that waits for its answer is sent again on every new connection until it is answered or nobody waits for it. All of them
  may come twice: publications carry their id, the others change nothing the second time. What settles leases is the exception: it
  ends with the connection, as they do.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar
from uuid import UUID

from . import commands
from ._buffer import Bound
from ._queues import Queues, QueueSubscriber, WantedQueue
from ._requests import (
    FOR_EVER,
    Answer,
    ConnectionLost,
    InFlight,
    Reply,
    Requests,
    answer,
    in_flight,
    is_refusal,
)
from ._subscriber import Begun, Wanted
from ._subscriptions import Subscribers, aside_answered
from .errors import (
    AnswerNotUnderstood,
    Closed,
    ClosedByClient,
    EpochEnded,
    InfotainerError,
    Refused,
    TimedOut,
)
from .protocol import (
    Command,
    Deleted,
    ErrorCode,
    Kind,
    Publication,
    Response,
    ServerError,
    ServerGap,
    SubscriptionReference,
    TokenExpiring,
    Welcome,
    subscription_id,
)

T = TypeVar("T")

BUFFER: Final = Bound(4096, 4 << 20)
"""What a subscription's buffer holds unless it says otherwise."""

log = logging.getLogger("infotainer")


class Core:
    """Everything of a client but its connection."""

    def __init__(self, is_durable: bool, in_flight: int, request_timeout: float) -> None:
        self.is_durable = is_durable
        self.is_connected = False
        self.is_closing = False
        self.closed: Closed | None = None
        """Why the client has ended."""
        self.outgoing: deque[bytes] = deque()
        self.changed: Callable[[], None] = lambda: None
        """Called when there may be something to send, or to end."""
        self.token_expiring = asyncio.Event()
        """Set when the server warns that the token is about to end."""
        self.subscribers = Subscribers(self, is_durable, BUFFER)
        self.queues = Queues(self, self, is_durable)
        self._loop = asyncio.get_running_loop()
        self._requests = Requests()
        self._requests.released = self._release_permit
        self._permits = asyncio.Semaphore(in_flight)
        self._request_timeout = min(request_timeout, FOR_EVER)
        self._expiry: asyncio.TimerHandle | None = None
        self._limit = 0
        self._has_progressed = False

    # ---- For the application -----------------------------------------------------------------------------------------

    async def send(self, command: Command, epoch: UUID | None = None) -> Reply:
        """Puts a request in line, as soon as fewer are under way than is allowed.

        `epoch` is the one that the sequence of an acknowledgement belongs to, if that is known.
        """
        request = in_flight(command, self._loop.create_future())
        request.deadline = self._loop.time() + self._request_timeout
        await self._permit(request.deadline)
        assert request.reply is not None
        error = self._unsendable(command, epoch)
        if error is not None:
            self._release_permit()
            raise error
        self._put(request, request.deadline)
        return request.reply

    async def request_here(self, make: Callable[[], Command | None]) -> Response | None:
        """Sends a request on the connection that there is, and on no other one; None if that ended before the answer.

        `make` is called when fewer are under way than is allowed; it gives None if there is nothing to be asked any more.
        """
        deadline = self._loop.time() + self._request_timeout
        await self._permit(deadline)
        error = self._ended()
        command = None if error is not None or not self.is_connected else make()
        if command is None:
            self._release_permit()
            if error is not None:
                raise error
            return None
        reply: Reply = self._loop.create_future()
        request = in_flight(command, reply)
        request.deadline, request.is_bound = deadline, True
        self._put(request, deadline)
        try:
            return await self.wait(reply)
        except ConnectionLost:
            return None

    def _put(self, request: InFlight, deadline: float) -> None:
        request_id = self._requests.insert(request)
        self._expect(deadline)
        self._send(request_id)

    async def _permit(self, deadline: float) -> None:
        if not self.is_connected:
            # Nobody answers those that nobody waits for any more.
            self._requests.drop_unwanted()
        if not self._permits.locked():
            # Does not wait.
            await self._permits.acquire()
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self._permits.acquire()
        except TimeoutError:
            raise TimedOut from None

    def _release_permit(self) -> None:
        self._permits.release()

    def _ended(self) -> Closed | None:
        """Why nothing is begun any more."""
        if self.closed is not None:
            return self.closed._again()
        return ClosedByClient() if self.is_closing else None

    def _unsendable(self, command: Command, epoch: UUID | None) -> InfotainerError | None:
        error = self._ended()
        if error is not None:
            return error
        id = command.subscription_id
        if id is not None and command.name == "Acknowledge" and "sequence" in command.fields:
            if not self.subscribers.acknowledge_by_hand(id, epoch, command.fields["sequence"]):
                return EpochEnded()
        elif id is not None and command.name == "Unsubscribe":
            self.subscribers.unsubscribed(id)
            self.queues.unsubscribed(id)
        return None

    async def wait(self, reply: Reply) -> Response:
        """The answer to a request that was sent. Whoever cancels this does not want it any more."""
        outcome = await reply
        if isinstance(outcome, InfotainerError):
            raise outcome._again()
        if isinstance(outcome, str):
            raise AnswerNotUnderstood(outcome)
        return outcome

    async def request(self, command: Command, epoch: UUID | None = None) -> Response:
        """Sends a request, and waits for its answer."""
        return await self.wait(await self.send(command, epoch))

    async def subscribe(self, wanted: Wanted) -> Begun:
        """Begins a broadcast subscription."""
        await self._ready_for(wanted.reference)
        if self.queues.is_held(wanted.reference):
            raise _other_kind(Kind.QUEUE, wanted.reference)
        return await self._begin(
            lambda reply: self.subscribers.subscribe(wanted, reply),
            lambda late: self.subscribers.release(late.subscriber, late.buffer),
        )

    async def work(self, wanted: WantedQueue) -> QueueSubscriber:
        """Begins a subscription of a queue."""
        await self._ready_for(wanted.reference)
        if self.subscribers.is_held(wanted.reference):
            raise _other_kind(Kind.BROADCAST, wanted.reference)
        return await self._begin(lambda reply: self.queues.subscribe(wanted, reply), self.queues.release)

    async def _ready_for(self, reference: SubscriptionReference) -> None:
        if self.subscribers.is_held(reference) or self.queues.is_held(reference):
            # One that was just dropped is given up in the next turn.
            await asyncio.sleep(0)
        error = self._ended()
        if error is not None:
            raise error

    async def _begin(
        self,
        begin: Callable[[asyncio.Future[T | InfotainerError]], None],
        release: Callable[[T], None],
    ) -> T:
        reply: asyncio.Future[T | InfotainerError] = self._loop.create_future()
        begin(reply)
        try:
            async with asyncio.timeout(self._request_timeout):
                outcome = await reply
        except BaseException as error:
            # It may have begun in the same moment.
            if reply.done() and not reply.cancelled():
                late = reply.result()
                if not isinstance(late, InfotainerError):
                    release(late)
            if isinstance(error, TimeoutError):
                raise TimedOut from None
            raise
        if isinstance(outcome, InfotainerError):
            raise outcome._again()
        return outcome

    # ---- Time-outs ---------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """The time."""
        return self._loop.time()

    def _expect(self, deadline: float) -> None:
        # All requests have the same time-out, so the timer of an earlier one is early enough.
        if self._expiry is None:
            self._expiry = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        now, rest = self.now(), FOR_EVER + self.now()
        for _, request in self._requests.of_callers():
            if request.deadline is None or request.reply is None or request.reply.done():
                continue
            if request.deadline <= now:
                answer(request.reply, TimedOut())
            else:
                rest = min(rest, request.deadline)
        if rest < FOR_EVER + now:
            self._expect(rest)
        self.changed()

    # ---- For subscriptions -------------------------------------------------------------------------------------------

    def ask(self, command: Command, answered: Callable[[Answer], None]) -> int:
        """Sends a request of the client's own on the connection that there is."""
        request_id = self._requests.insert(in_flight(command, answered=answered))
        self._send(request_id)
        return request_id

    def authenticate(self, token: str) -> None:
        """Goes on with another token."""
        self.ask(commands.authenticate(token), aside_answered)

    def refuse(self, is_refused: Callable[[InFlight], bool], error: InfotainerError) -> None:
        """Fails requests of callers."""
        self._requests.refuse(is_refused, error)

    # ---- For the connection ------------------------------------------------------------------------------------------

    def _send(self, request_id: int) -> None:
        if self.is_connected:
            message = self._requests.message(request_id, self._limit)
            if message is not None:
                self.outgoing.append(message)
                self.changed()

    def connected(self, welcome: Welcome) -> None:
        """A connection began."""
        self._limit = welcome.limits.max_message_size
        self.is_connected = True
        self.subscribers.resume(welcome)
        self.queues.resume(welcome)
        self._requests.drop_unwanted()
        for request_id, _ in self._requests.of_callers():
            self._send(request_id)

    def disconnected(self) -> None:
        """The connection ended."""
        self.is_connected = False
        self.outgoing.clear()
        self.token_expiring.clear()
        self._requests.forget_own()
        self._requests.drop_unwanted()
        self.subscribers.disconnected()
        self.queues.disconnected()
        self._requests.end_bound()

    def take_progress(self) -> bool:
        """Whether the last connections were of use, so that the next pause may be short again."""
        progress = self._has_progressed or self.subscribers.has_delivered or self.queues.has_delivered
        self._has_progressed = self.subscribers.has_delivered = self.queues.has_delivered = False
        return progress

    def is_idle(self) -> bool:
        """Whether nothing waits for an answer."""
        self._requests.drop_unwanted()
        return not self._requests and not self.outgoing

    def finish(self, closed: Closed) -> None:
        """The client has ended: everybody who waits is told."""
        self.closed = closed
        self.disconnected()
        self._requests.refuse(lambda _: True, closed)
        error = None if isinstance(closed, ClosedByClient) else closed
        self.subscribers.finish(error)
        self.queues.finish(error)
        if self._expiry is not None:
            self._expiry.cancel()

    def received(self, request_id: int | None, message: Answer) -> None:
        """A message came."""
        match message:
            case Publication(delivery=None):
                self.subscribers.publication(message)
            case Publication():
                self.queues.publication(message)
            case _ if request_id is not None:
                self._answered(request_id, message)
            case ServerGap():
                self.subscribers.gap(message)
            case Deleted():
                self._deleted(message.subscription_id)
            case TokenExpiring():
                self.token_expiring.set()
            case ServerError():
                log.warning("the server says: %s: %s", message.code, message.message)
            case _:
                log.debug("a message of no use here: %s", message)

    def _answered(self, request_id: int, response: Answer) -> None:
        request = self._requests.get(request_id)
        if request is None:
            log.debug("an answer to a request that nobody made: %s", response)
            return
        if request.reply is not None and is_refusal(response, ErrorCode.SHUTTING_DOWN):
            # It was not done. The connection is about to end, and the request goes out again on the next one.
            return
        self._requests.remove(request_id)
        self._has_progressed = True
        if request.answered is not None:
            request.answered(response)
        if request.reply is not None:
            if isinstance(response, Deleted):
                self._deleted(response.subscription_id)
            if isinstance(response, ServerError):
                answer(request.reply, _deleted_before(response, request))
            else:
                answer(request.reply, response)
        self.changed()

    def _deleted(self, id: UUID) -> None:
        self.subscribers.deleted(id)
        self.queues.deleted(id)

    # ---- Time for things to be tried again ---------------------------------------------------------------------------

    def next_retry(self) -> float | None:
        """When something has to be tried again."""
        times = (self.subscribers.next_retry(), self.queues.next_retry())
        return min((time for time in times if time is not None), default=None)

    def retry(self, now: float) -> None:
        """Tries again what has waited long enough."""
        self.subscribers.retry(now)
        self.queues.retry(now)


def _other_kind(kind: Kind, reference: SubscriptionReference) -> Refused:
    """What the server says, too, of a subscription that this session holds with another kind."""
    message = f"this session holds the subscription as a {kind}"
    error = ServerError(
        ErrorCode.KIND_MISMATCH, message, False, "Subscribe", None, subscription_id(reference)
    )
    return Refused(error)


def _deleted_before(error: ServerError, request: InFlight) -> Deleted | Refused:
    """A subscription that is gone when its deletion is sent again was deleted by the one whose answer was lost."""
    is_gone = request.name == "DeleteSubscription" and error.code == ErrorCode.NOT_FOUND
    if is_gone and request.sent > 1 and request.subscription_id is not None:
        return Deleted(request.subscription_id)
    return Refused(error)

"""A client: a cheap handle, and a task that keeps a connection."""

import asyncio
import warnings
from collections.abc import AsyncIterator, Generator, Iterable
from ssl import SSLContext
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload
from uuid import UUID

from . import commands
from ._buffer import Bound
from ._connection import Connection
from ._core import BUFFER, Core
from ._leases import MAX_PREFETCH
from ._queues import WantedQueue
from ._requests import Reply
from ._socket import endpoint
from ._subscriber import Wanted
from ._token import Token
from .errors import AnswerNotUnderstood, ClosedByServer, GaveUp, TimedOut
from .log import Log, entries
from .protocol import (
    MAX_ENTRIES,
    Acknowledged,
    Command,
    Data,
    Deleted,
    Kind,
    LogPage,
    Pong,
    Response,
    SettingsPatch,
    Submitted,
    SubscribeFrom,
    SubscriptionMeta,
    SubscriptionReference,
    Subscriptions,
    new_publication_id,
)
from .queue import QueueSubscription
from .reconnect import Reconnect
from .status import Ended, Status
from .subscription import Subscription

T = TypeVar("T")

# Subscriptions that are asked for at once.
_PAGE = 100


class Client:
    """A connection to a server that comes back by itself.

    Made by `connect` or `start`. All methods may be called from any task of the event loop that it was made in.
    """

    def __init__(
        self,
        url: str,
        *,
        session: UUID | None,
        token: Token | None,
        reconnect: Reconnect | None,
        in_flight: int,
        connect_timeout: float,
        request_timeout: float,
        tls: SSLContext | None,
        fails_first: bool,
    ) -> None:
        where = endpoint(url, session)
        self._core = Core(session is not None, max(1, in_flight), request_timeout)
        reconnect = Reconnect() if reconnect is None else reconnect
        self._connection = Connection(self._core, where, token, tls, reconnect, connect_timeout, fails_first)
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._connection.run(), name=f"infotainer {url}")

    def __del__(self) -> None:
        task: asyncio.Task[None] | None = getattr(self, "_task", None)
        if task is not None and not task.done() and not task.cancelling() and not self._loop.is_closed():
            warnings.warn(f"unclosed client {self!r}", ResourceWarning, stacklevel=2, source=self)
            self._loop.call_soon_threadsafe(task.cancel)

    @property
    def status(self) -> Status:
        """How it stands with the connection."""
        return self._connection.status.now

    def statuses(self) -> AsyncIterator[Status]:
        """How it stands with the connection, now and whenever it changes; who is slow gets the last one."""
        return self._connection.status.changes()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close(drain=error is None)

    async def close(self) -> None:
        """Closes in order.

        Takes no new requests, waits up to 10 s for the answers to those under way, and says goodbye to the server. Streams end. If
        there is no connection now, what is under way fails at once. Cancelled, it ends the connection without a goodbye.
        """
        await self._close(drain=True)

    async def _close(self, drain: bool) -> None:
        self._connection.close(drain)
        try:
            # Not the task itself: cancelling this must not look like its end.
            await asyncio.wait((self._task,))
        finally:
            self._task.cancel()
        if not self._task.cancelled():
            self._task.result()

    # ---- Publishing --------------------------------------------------------------------------------------------------

    async def publish(
        self,
        subscription: SubscriptionReference,
        data: Data,
        *,
        publication_id: UUID | None = None,
        expected_sequence: int | None = None,
        kind: Kind | None = None,
    ) -> Submitted:
        """Publishes, and returns when the publication is in the log, as durable as the subscription wants it.

        The subscription is made if it does not exist. Every publication has an id, a new one of version 7 unless one is given. If the
        connection ends before the answer, it is sent again with the same id on the next one, and so added once, as long as the log
        still holds it. With `expected_sequence` it is refused (`conflict`) unless this will be its sequence.

        If it is cancelled, the publication may be in the log or not, and is not sent again after a reconnect.
        """
        id = new_publication_id() if publication_id is None else publication_id
        command = commands.submit_publication(subscription, data, kind, id, expected_sequence)
        try:
            return _submitted(await self._core.request(command))
        except TimedOut:
            raise TimedOut(id) from None

    async def submit(
        self,
        subscription: SubscriptionReference,
        data: Data,
        *,
        publication_id: UUID | None = None,
        expected_sequence: int | None = None,
        kind: Kind | None = None,
    ) -> "Acknowledgement":
        """Puts a publication in line, and returns without waiting for the answer, which is awaited later.

        Returns as soon as fewer requests are under way than `in_flight` allows. Publications get their sequences in the order in
        which this returned.
        """
        id = new_publication_id() if publication_id is None else publication_id
        command = commands.submit_publication(subscription, data, kind, id, expected_sequence)
        try:
            return Acknowledgement(self, id, await self._core.send(command))
        except TimedOut:
            raise TimedOut(id) from None

    # ---- Subscribing -------------------------------------------------------------------------------------------------

    @overload
    def subscribe(
        self,
        subscription: SubscriptionReference,
        *,
        kind: Literal[Kind.BROADCAST] = Kind.BROADCAST,
        from_: SubscribeFrom | None = None,
        epoch: UUID | None = None,
        acknowledge_by_hand: bool = False,
        buffer: int = BUFFER.count,
        buffer_bytes: int = BUFFER.bytes,
    ) -> Subscription: ...

    @overload
    def subscribe(
        self,
        subscription: SubscriptionReference,
        *,
        kind: Literal[Kind.QUEUE],
        prefetch: int | None = None,
    ) -> QueueSubscription: ...

    def subscribe(
        self,
        subscription: SubscriptionReference,
        *,
        kind: Kind = Kind.BROADCAST,
        from_: SubscribeFrom | None = None,
        epoch: UUID | None = None,
        acknowledge_by_hand: bool = False,
        buffer: int = BUFFER.count,
        buffer_bytes: int = BUFFER.bytes,
        prefetch: int | None = None,
    ) -> Subscription | QueueSubscription:
        """A stream of events. It begins when it is iterated, entered or awaited; the subscription is made if it does not exist.

        `from_` says where delivery begins. Without it: where a durable session left off, or else with what is published from now on.
        `epoch` is the life of the log that the position of `After` belongs to; if it is of another, `NotRecovered` comes first.

        In a durable session a publication is acknowledged when the next event is asked for, unless `acknowledge_by_hand`. So what was
        taken and not done with comes again to the next client of the session.

        A reader that does not keep up costs a bounded buffer, of so many events and bytes of payload. When it is full, the client
        reads no more from its connection, and TCP holds the server back. If nothing at all is taken for 50 ms, the connection goes on
        for all others and this subscription falls behind: it takes up where it was when half of its buffer is free. Nothing is lost
        that the log still holds.

        With `kind=Kind.QUEUE` it is a stream of deliveries, each of which this client alone holds until it settles it. `prefetch` (1 to
        65535; 32 unless said) is how many it holds at most, those that wait to be taken among them: the other arguments are not for
        queues, whose subscribers share one position. A subscription has one kind for ever: the other one is `kind-mismatch`.
        """
        if kind == Kind.QUEUE:
            if from_ is not None or epoch is not None or acknowledge_by_hand:
                raise TypeError(
                    "a queue has no position to begin at, and every delivery is acknowledged by hand"
                )
            if prefetch is not None and not 1 <= prefetch <= MAX_PREFETCH:
                raise ValueError(f"prefetch is 1 to {MAX_PREFETCH}, not {prefetch}")
            return QueueSubscription(self._core, self, WantedQueue(subscription, prefetch))
        if prefetch is not None:
            raise TypeError("prefetch is for queues")
        bound = Bound(max(1, buffer), buffer_bytes)
        acknowledges = self._core.is_durable and not acknowledge_by_hand
        return Subscription(self._core, self, Wanted(subscription, from_, epoch, bound, acknowledges))

    async def acknowledge(self, subscription: SubscriptionReference, sequence: int) -> Acknowledged:
        """Acknowledges everything up to `sequence` of a broadcast. Deliveries of a queue are acknowledged by their own methods."""
        return await self._ask(commands.acknowledge(subscription, sequence), Acknowledged)

    # ---- Reading -----------------------------------------------------------------------------------------------------

    def log(self, subscription: SubscriptionReference, *, after: int = 0, page_size: int = 1000) -> Log:
        """What the log of a subscription holds behind a position, in pages of at most so many (and 4 MiB)."""
        return Log(self._core, self, subscription, after, min(max(1, page_size), MAX_ENTRIES))

    async def entries(self, subscription: SubscriptionReference, ids: Iterable[UUID]) -> LogPage:
        """The publications with these ids, in sequence order, and the ids that the log does not hold."""
        return await entries(self._core, subscription, ids)

    # ---- Subscriptions as such ---------------------------------------------------------------------------------------

    async def create(
        self,
        subscription: SubscriptionReference,
        kind: Kind | None = None,
        **settings: Unpack[SettingsPatch],
    ) -> SubscriptionMeta:
        """Makes a subscription with these settings. The same again is fine; `conflict` if it exists with others."""
        return await self._ask(commands.create(subscription, kind, settings), SubscriptionMeta)

    async def update(
        self, subscription: SubscriptionReference, **settings: Unpack[SettingsPatch]
    ) -> SubscriptionMeta:
        """Replaces the settings that are given; None sets the default again."""
        return await self._ask(commands.update(subscription, settings), SubscriptionMeta)

    async def get(self, subscription: SubscriptionReference) -> SubscriptionMeta:
        """What a subscription is like now."""
        return await self._ask(commands.get(subscription), SubscriptionMeta)

    async def list(self) -> AsyncIterator[SubscriptionMeta]:
        """Every subscription of the server, in order of their ids, asked for page by page."""
        after, more = None, True
        while more:
            page = await self._ask(commands.list_subscriptions(after, _PAGE), Subscriptions)
            more = page.more and bool(page.subscriptions)
            for meta in page.subscriptions:
                after = meta.subscription_id
                yield meta

    async def delete(self, subscription: SubscriptionReference) -> None:
        """Deletes a subscription with its log. Everybody who is subscribed is told."""
        await self._ask(commands.delete(subscription), Deleted)

    async def ping(self) -> int:
        """Waits until everything that was asked before is answered, and gives the server's time in milliseconds."""
        return (await self._ask(commands.ping(), Pong)).time

    async def _ask(self, command: Command, kind: type[T]) -> T:
        answer = await self._core.request(command)
        if not isinstance(answer, kind):
            raise AnswerNotUnderstood(repr(answer))
        return answer


class Acknowledgement:
    """The answer to a publication that is under way; await it, again if that was cancelled.

    Dropping it means that nobody waits: the publication is not sent again after a reconnect.
    """

    def __init__(self, client: Client, publication_id: UUID, reply: Reply) -> None:
        self._client = client
        self._reply = reply
        self.publication_id = publication_id
        """The publication's id."""

    def __await__(self) -> Generator[Any, None, Submitted]:
        return self._wait().__await__()

    async def _wait(self) -> Submitted:
        if not self._reply.done():
            # Who cancels this may ask again: only when nobody can does nobody wait.
            await asyncio.wait((self._reply,))
        try:
            return _submitted(await self._client._core.wait(self._reply))
        except TimedOut:
            raise TimedOut(self.publication_id) from None

    def __del__(self) -> None:
        if not self._reply.done() and not self._client._loop.is_closed():
            self._client._loop.call_soon_threadsafe(self._reply.cancel)


def _submitted(answer: Response) -> Submitted:
    if not isinstance(answer, Submitted):
        raise AnswerNotUnderstood(repr(answer))
    return answer


def start(
    url: str,
    *,
    session: UUID | None = None,
    token: Token | None = None,
    reconnect: Reconnect | None = None,
    in_flight: int = 256,
    connect_timeout: float = 10.0,
    request_timeout: float = 30.0,
    tls: SSLContext | None = None,
) -> Client:
    """Gives a client at once, which connects in the background and does not mind if the server is not there yet.

    Requests wait. The arguments are those of `connect`. Needs a running event loop.
    """
    return Client(
        url,
        session=session,
        token=token,
        reconnect=reconnect,
        in_flight=in_flight,
        connect_timeout=connect_timeout,
        request_timeout=request_timeout,
        tls=tls,
        fails_first=False,
    )


class connect:  # noqa: N801 (it is called like a function)
    """Connects to the server at `url`, such as `ws://127.0.0.1:8949/ws`; fails if the first attempt fails.

    `async with connect(url) as client:` closes the client at the end; `client = await connect(url)` leaves that to the caller.

    * `session`: opens, or resumes, the durable session with this id, so that its subscriptions and cursors outlive the client. The id is
      a secret, made by `uuid.uuid4()` and kept by the application. A second client with the same id takes over: the first one ends
      with 4502 and does not come back. Without it the session is transient.
    * `token`: proves for whom it speaks: a token (JWT or API key), or a function that gives one or an awaitable of one. A function is asked
      before each handshake, and again when the server warns that the token in use is about to end. A token that ends closes the
      connection with 4501, and the client does not come back.
    * `reconnect`: how it comes back when the connection ends. By default for ever, after pauses that grow from 100 ms to 30 s.
    * `in_flight`: how many requests wait for their answers at once, publications among them; further ones wait for their turn.
    * `connect_timeout`: seconds that one attempt to connect may take, from the look-up of the host to the server's `Welcome`.
    * `request_timeout`: seconds that one waits for the answer to a request, reconnects included.
    * `tls`: for `wss://`, whom to trust and which certificate to show; by default whom the system trusts, and none.
    """

    def __init__(
        self,
        url: str,
        *,
        session: UUID | None = None,
        token: Token | None = None,
        reconnect: Reconnect | None = None,
        in_flight: int = 256,
        connect_timeout: float = 10.0,
        request_timeout: float = 30.0,
        tls: SSLContext | None = None,
    ) -> None:
        self._arguments: dict[str, Any] = {
            "url": url,
            "session": session,
            "token": token,
            "reconnect": reconnect,
            "in_flight": in_flight,
            "connect_timeout": connect_timeout,
            "request_timeout": request_timeout,
            "tls": tls,
        }
        self._client: Client | None = None

    def __await__(self) -> Generator[Any, None, Client]:
        return self._connect().__await__()

    async def _connect(self) -> Client:
        client = Client(**self._arguments, fails_first=True)
        try:
            match await client._connection.status.settled():
                case Ended(ClosedByServer(why=why) | GaveUp(why=why)):
                    raise why._again()
                case Ended(closed):
                    raise closed._again()
        except BaseException:
            client._task.cancel()
            await asyncio.wait((client._task,))
            raise
        return client

    async def __aenter__(self) -> Client:
        self._client = await self._connect()
        return self._client

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._client is not None:
            await self._client.__aexit__(kind, error, traceback)

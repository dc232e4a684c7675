"""The core against a made-up server: every message is handed in by the test, and what the core says is decoded."""

import asyncio
import uuid
from typing import Any
from uuid import UUID

import cbor2
import pytest

from infotainer import (
    NEW,
    AlreadySubscribed,
    ClosedByPeer,
    ClosedByServer,
    Deleted,
    EpochEnded,
    Event,
    Gap,
    GapCause,
    InfotainerError,
    Last,
    Limits,
    NotRecovered,
    Place,
    Publication,
    Refused,
    RestoredSubscription,
    SubscribeFrom,
    TimedOut,
    TooLarge,
    Welcome,
    commands,
    subscription_id,
)
from infotainer._buffer import Bound
from infotainer._core import Core
from infotainer._subscriber import Begun, Wanted
from infotainer.protocol import (
    FIRST,
    Acknowledged,
    Command,
    Durability,
    Kind,
    Pong,
    Response,
    ServerError,
    ServerGap,
    Submitted,
    Subscribed,
)

NAME = "news"
ID = subscription_id(NAME)
OLD, ANEW = UUID(int=1), UUID(int=2)
Said = tuple[int, str, dict[str, Any]]


def restored(epoch: UUID, cursor: int) -> RestoredSubscription:
    return RestoredSubscription(ID, Kind.BROADCAST, epoch, cursor, recovered=True)


def refusal(code: str, temporary: bool = False) -> ServerError:
    return ServerError(code, "no", temporary)


def submitted(sequence: int = 1) -> Submitted:
    return Submitted(ID, uuid.uuid4(), sequence, duplicate=False, durability=Durability.SYNCED)


class Bench:
    def __init__(self, durable: bool = False, connected: bool = True, in_flight: int = 100) -> None:
        self.core = Core(durable, in_flight, request_timeout=60.0)
        if connected:
            self.connect()

    def connect(self, *subscriptions: RestoredSubscription) -> None:
        resumed = bool(subscriptions)
        limits = Limits(1000, 10, 1000, 1000)
        self.core.connected(Welcome(UUID(int=1), resumed, resumed, subscriptions, "infotainer/0", limits))

    def reconnect(self, *subscriptions: RestoredSubscription) -> None:
        self.core.disconnected()
        self.connect(*subscriptions)

    async def request(self, command: Command, epoch: UUID | None = None) -> asyncio.Task[Response]:
        task = asyncio.ensure_future(self.core.request(command, epoch))
        await asyncio.sleep(0)
        return task

    async def subscribe(
        self, start: SubscribeFrom | None = None, acknowledges: bool = False
    ) -> asyncio.Task[Begun]:
        wanted = Wanted(NAME, start, None, Bound(2, 1000), acknowledges)
        task = asyncio.ensure_future(self.core.subscribe(wanted))
        await asyncio.sleep(0)
        return task

    def said(self) -> list[Said]:
        """What it said since this was asked last."""
        found = []
        while self.core.outgoing:
            request_id, command = cbor2.loads(self.core.outgoing.popleft())
            [(name, fields)] = command.items() if isinstance(command, dict) else [(command, {})]
            found.append((request_id, name, fields))
        return found

    def answers(self, said: Said, response: Response) -> None:
        self.core.received(said[0], response)

    def subscribed(self, said: Said, epoch: UUID, cursor: int, recovered: bool) -> None:
        assert said[1] == "Subscribe"
        self.answers(said, Subscribed(ID, Kind.BROADCAST, epoch, 1, 100, recovered, cursor))

    async def subscribed_from_first(self, acknowledges: bool = False) -> Begun:
        beginning = await self.subscribe(FIRST, acknowledges)
        [said] = self.said()
        self.subscribed(said, OLD, 0, recovered=True)
        return await beginning

    def publish(self, *sequences: int) -> None:
        for sequence in sequences:
            publication = Publication(ID, UUID(int=sequence), sequence, 0, b"x")
            self.core.received(None, publication)

    def take(self, begun: Begun) -> Event | None:
        taken, tell = begun.buffer.take()
        if tell:
            self.core.subscribers.taken(begun.subscriber)
        return None if taken is None else taken[1]

    def take_sequences(self, begun: Begun) -> list[int]:
        sequences = []
        while (event := self.take(begun)) is not None:
            assert isinstance(event, Publication)
            sequences.append(event.sequence)
        return sequences


def after(said: Said) -> int:
    assert said[1] == "Subscribe"
    sequence = said[2]["from"]["After"]
    assert isinstance(sequence, int)
    return sequence


def acknowledged(said: Said) -> int:
    assert said[1] == "Acknowledge"
    sequence = said[2]["sequence"]
    assert isinstance(sequence, int)
    return sequence


async def result(task: asyncio.Task[Any]) -> Any:
    async with asyncio.timeout(5):
        return await task


async def error(task: asyncio.Task[Any]) -> InfotainerError:
    with pytest.raises(InfotainerError) as raised:
        await result(task)
    return raised.value


def submit(text: str) -> Command:
    return commands.submit_publication(NAME, text)


async def test_what_was_not_answered_is_sent_again_in_order_and_nothing_else() -> None:
    bench = Bench()
    tasks = [await bench.request(submit(text)) for text in "abcd"]
    first = bench.said()
    assert [said[2]["submission"] for said in first] == [b"a", b"b", b"c", b"d"]
    bench.answers(first[1], submitted())
    await result(tasks[1])
    tasks[2].cancel()
    await asyncio.sleep(0)
    bench.reconnect()
    again = bench.said()
    assert again == [first[0], first[3]]
    for said in again:
        bench.answers(said, submitted())
    await result(tasks[0])
    await result(tasks[3])
    bench.reconnect()
    assert bench.said() == []


async def test_server_that_shuts_down_is_asked_again_when_it_is_back() -> None:
    bench = Bench()
    task = await bench.request(submit("a"))
    [said] = bench.said()
    bench.answers(said, refusal("shutting-down", temporary=True))
    await asyncio.sleep(0)
    assert not task.done()
    bench.reconnect()
    assert bench.said() == [said]
    bench.answers(said, submitted())
    await result(task)


async def test_deletion_whose_answer_was_lost_is_no_error() -> None:
    bench = Bench()
    task = await bench.request(commands.delete(NAME))
    bench.answers(bench.said()[0], refusal("not-found"))
    assert isinstance(await error(task), Refused)
    task = await bench.request(commands.delete(NAME))
    bench.reconnect()
    bench.answers(bench.said()[-1], refusal("not-found"))
    assert await result(task) == Deleted(ID)


async def test_message_over_the_limit_is_not_sent() -> None:
    bench = Bench(connected=False)
    early = await bench.request(submit("x" * 2000))
    bench.connect()
    late = await bench.request(submit("x" * 2000))
    for task in (early, late):
        large = await error(task)
        assert isinstance(large, TooLarge)
        assert large.limit == 1000
    assert bench.said() == []


async def test_subscription_goes_on_behind_the_last_event_and_drops_what_it_has_seen() -> None:
    bench = Bench()
    begun = await bench.subscribed_from_first()
    bench.publish(1, 2)
    bench.reconnect()
    [said] = bench.said()
    assert after(said) == 2
    # What comes before `Subscribed` is the old cursor's.
    bench.publish(9)
    bench.subscribed(said, OLD, 2, recovered=True)
    bench.publish(1, 2)
    assert bench.take_sequences(begun) == [1, 2]
    bench.publish(3)
    assert bench.take_sequences(begun) == [3]


async def test_subscription_that_had_no_answer_yet_is_asked_for_as_it_was() -> None:
    bench = Bench(connected=False)
    beginning = await bench.subscribe(Last(3))
    for _ in range(2):
        bench.connect()
        assert bench.said()[0][2]["from"] == {"Last": 3}
        bench.core.disconnected()
    bench.connect()
    bench.subscribed(bench.said()[0], OLD, 4, recovered=True)
    assert (await result(beginning)).place.sequence == 4


async def test_missing_publications_are_told_even_if_the_server_does_not() -> None:
    bench = Bench()
    begun = await bench.subscribed_from_first()
    bench.core.received(None, ServerGap(ID, 1, 3, GapCause.RETENTION))
    assert bench.take(begun) == Gap(1, 3, GapCause.RETENTION)
    bench.publish(4)
    assert bench.take_sequences(begun) == [4]
    bench.publish(7)
    assert bench.take(begun) == Gap(5, 6, GapCause.UNEXPLAINED)
    assert bench.take_sequences(begun) == [7]


async def test_log_of_another_epoch_is_told_and_delivered_from_its_oldest() -> None:
    bench = Bench()
    begun = await bench.subscribed_from_first()
    bench.publish(1, 2)
    assert bench.take_sequences(begun) == [1, 2]
    bench.reconnect()
    bench.subscribed(bench.said()[0], ANEW, 0, recovered=False)
    bench.publish(1)
    assert bench.take(begun) == NotRecovered(Place(OLD, 2), ANEW, 0)
    assert bench.take_sequences(begun) == [1]


async def test_position_below_the_oldest_kept_is_told_by_the_gap_alone() -> None:
    bench = Bench()
    begun = await bench.subscribed_from_first()
    bench.reconnect()
    bench.subscribed(bench.said()[0], OLD, 0, recovered=False)
    assert bench.take(begun) is None


async def test_full_buffer_stalls_first_and_then_its_subscription_falls_behind() -> None:
    bench = Bench()
    begun = await bench.subscribed_from_first()
    subscribers = bench.core.subscribers
    bench.publish(1, 2)
    assert subscribers.stalled is None
    bench.publish(3)
    assert subscribers.stalled is begun.buffer
    assert isinstance(bench.take(begun), Publication)
    subscribers.go_on()
    assert subscribers.stalled is None

    bench.publish(4)
    subscribers.give_way()
    assert [said[1] for said in bench.said()] == ["Unsubscribe"]
    bench.publish(5, 6)
    assert bench.said() == []

    # Half of two is free again when one was taken.
    assert isinstance(bench.take(begun), Publication)
    [said] = bench.said()
    assert after(said) == 3
    bench.publish(7)
    bench.subscribed(said, OLD, 3, recovered=True)
    assert bench.take_sequences(begun) == [3]
    bench.publish(4, 5)
    assert bench.take_sequences(begun) == [4, 5]


async def test_subscription_that_is_behind_stays_so_over_a_reconnect() -> None:
    bench = Bench()
    begun = await bench.subscribed_from_first()
    bench.publish(1, 2, 3)
    bench.core.subscribers.give_way()
    bench.reconnect()
    bench.said()
    bench.take(begun)
    assert after(bench.said()[0]) == 2


async def test_durable_session_that_falls_behind_keeps_what_it_acknowledged() -> None:
    bench = Bench(durable=True)
    begun = await bench.subscribed_from_first(acknowledges=True)
    bench.publish(1, 2)
    assert bench.take_sequences(begun) == [1, 2]
    [said] = bench.said()
    assert acknowledged(said) == 1
    bench.answers(said, Acknowledged(ID, 1))
    assert acknowledged(bench.said()[0]) == 2

    bench.publish(3, 4, 5)
    bench.core.subscribers.give_way()
    said, aside = bench.said()
    assert said[2]["from"] == "New"
    assert acknowledged(aside) == 2
    bench.take(begun)
    said, aside = bench.said()
    assert after(said) == 4
    assert acknowledged(aside) == 2


async def test_acknowledgements_come_one_at_a_time_and_again_after_a_reconnect() -> None:
    bench = Bench(durable=True)
    begun = await bench.subscribed_from_first(acknowledges=True)
    bench.publish(1, 2)
    assert bench.take_sequences(begun) == [1, 2]
    bench.publish(3, 4)
    assert bench.take_sequences(begun) == [3, 4]
    assert len(bench.said()) == 1
    # The server resumes behind what it has: nothing, since the acknowledgement was lost.
    bench.reconnect(restored(OLD, 0))
    [said] = bench.said()
    assert acknowledged(said) == 4
    bench.publish(1, 2, 3, 4, 5)
    assert bench.take_sequences(begun) == [5]


async def test_durable_session_whose_cursor_went_further_goes_back_to_where_the_reader_is() -> None:
    bench = Bench(durable=True)
    begun = await bench.subscribed_from_first()
    bench.publish(1)
    bench.reconnect(restored(OLD, 3))
    [said] = bench.said()
    assert after(said) == 1
    bench.publish(4)
    bench.subscribed(said, OLD, 1, recovered=True)
    bench.publish(2)
    assert bench.take_sequences(begun) == [1, 2]


async def test_acknowledgement_of_an_ended_epoch_is_never_sent_in_the_next() -> None:
    bench = Bench(durable=True)
    await bench.subscribed_from_first()
    bench.publish(1, 2)
    task = await bench.request(commands.acknowledge(NAME, 2), OLD)
    bench.said()
    bench.reconnect(restored(ANEW, 0))
    assert isinstance(await error(task), EpochEnded)
    [said] = bench.said()
    bench.subscribed(said, ANEW, 0, recovered=False)
    task = await bench.request(commands.acknowledge(NAME, 2), OLD)
    assert isinstance(await error(task), EpochEnded)
    assert bench.said() == []


async def test_restored_subscription_waits_for_whoever_asks_for_it() -> None:
    bench = Bench(durable=True, connected=False)
    bench.connect(restored(OLD, 5))
    bench.publish(6, 7)
    begun = await result(await bench.subscribe())
    assert begun.place == Place(OLD, 5)
    assert bench.said() == []
    bench.publish(8)
    assert bench.take_sequences(begun) == [6, 7, 8]


async def test_subscription_asked_for_before_the_session_was_resumed_takes_up_its_cursor() -> None:
    bench = Bench(durable=True, connected=False)
    beginning = await bench.subscribe()
    bench.connect(restored(OLD, 5))
    bench.publish(6)
    assert bench.take_sequences(await result(beginning)) == [6]
    assert bench.said() == []


async def test_what_a_dropped_reader_has_not_done_with_comes_again_to_the_next() -> None:
    bench = Bench(durable=True)
    begun = await bench.subscribed_from_first(acknowledges=True)
    bench.publish(1, 2)
    bench.take(begun)
    bench.take(begun)
    assert acknowledged(bench.said()[0]) == 1
    bench.core.subscribers.release(begun.subscriber, begun.buffer)
    said, aside = bench.said()
    assert after(said) == 1
    assert acknowledged(aside) == 1
    bench.subscribed(said, OLD, 1, recovered=True)
    bench.publish(2)
    begun = await result(await bench.subscribe(acknowledges=True))
    assert begun.place.sequence == 1
    assert bench.take_sequences(begun) == [2]


async def test_what_a_dropped_reader_has_done_with_does_not_come_again() -> None:
    bench = Bench(durable=True)
    begun = await bench.subscribed_from_first(acknowledges=True)
    bench.publish(1, 2)
    assert bench.take_sequences(begun) == [1, 2]
    bench.publish(3)
    bench.take(begun)
    # The answer to this one is still to come.
    assert acknowledged(bench.said()[0]) == 1
    bench.core.subscribers.release(begun.subscriber, begun.buffer)
    said, aside = bench.said()
    assert after(said) == 2
    assert acknowledged(aside) == 2


async def test_resumption_that_fails_for_a_time_is_tried_again_and_one_that_fails_for_good_is_told() -> None:
    bench = Bench()
    begun = await bench.subscribed_from_first()
    subscribers = bench.core.subscribers
    bench.reconnect()
    bench.answers(bench.said()[0], refusal("log-unavailable", temporary=True))
    retry_at = subscribers.next_retry()
    assert retry_at is not None
    assert retry_at > bench.core.now()
    subscribers.retry(bench.core.now())
    assert bench.said() == []
    subscribers.retry(retry_at)
    bench.answers(bench.said()[0], refusal("not-authorized"))
    assert subscribers.next_retry() is None
    assert begun.buffer.has_ended
    told = begun.buffer.take_error()
    assert isinstance(told, Refused)
    assert told.code == "not-authorized"


async def test_subscription_that_nobody_waits_for_any_more_can_be_asked_for_again() -> None:
    bench = Bench(connected=False)
    given_up = await bench.subscribe()
    given_up.cancel()
    await asyncio.wait((given_up,))
    again = await bench.subscribe()
    assert not again.done()
    assert isinstance(await error(await bench.subscribe()), AlreadySubscribed)
    bench.connect()
    bench.subscribed(bench.said()[0], OLD, 0, recovered=True)
    await result(again)


async def test_subscription_given_up_while_it_was_asked_for_is_given_back() -> None:
    bench = Bench()
    given_up = await bench.subscribe()
    [said] = bench.said()
    # In the same turn in which the answer comes, and before it.
    for cancel_first in (True, False):
        if cancel_first:
            given_up.cancel()
            await asyncio.wait((given_up,))
        bench.subscribed(said, OLD, 0, recovered=True)
        given_up.cancel()
        await asyncio.wait((given_up,))
        assert [said[1] for said in bench.said()] == ["Unsubscribe"]
        given_up = await bench.subscribe(NEW)
        [said] = bench.said()
    given_up.cancel()
    await asyncio.wait((given_up,))


async def test_deletion_ends_the_stream_behind_what_was_delivered() -> None:
    bench = Bench()
    begun = await bench.subscribed_from_first()
    bench.publish(1)
    bench.core.received(None, Deleted(ID))
    assert isinstance(bench.take(begun), Publication)
    assert bench.take(begun) == Deleted(ID)
    assert begun.buffer.has_ended
    bench.reconnect()
    assert bench.said() == []


async def test_end_of_the_client_is_told_to_everybody() -> None:
    bench = Bench(in_flight=1)
    begun = await bench.subscribed_from_first()
    tasks = [await bench.request(submit("a")) for _ in range(3)]
    bench.core.finish(ClosedByServer(ClosedByPeer(4502, "")))
    for task in tasks:
        assert isinstance(await error(task), ClosedByServer)
    assert begun.buffer.has_ended
    assert isinstance(begun.buffer.take_error(), ClosedByServer)


async def test_requests_that_nobody_waits_for_hold_nobody_up_while_there_is_no_connection() -> None:
    bench = Bench(connected=False, in_flight=1)
    given_up = await bench.request(submit("a"))
    waiting = await bench.request(submit("b"))
    given_up.cancel()
    await asyncio.wait((given_up,))
    late = await bench.request(submit("c"))
    await asyncio.sleep(0)
    bench.connect()
    [said] = bench.said()
    assert said[2]["submission"] == b"b"
    bench.answers(said, submitted())
    await result(waiting)
    await asyncio.sleep(0)
    bench.answers(bench.said()[0], submitted())
    await result(late)


async def test_answer_that_comes_too_late_or_makes_no_sense_harms_nobody() -> None:
    bench = Bench()
    bench.core._request_timeout = 0.01
    late = await bench.request(submit("a"))
    assert isinstance(await error(late), TimedOut)
    [said] = bench.said()
    bench.answers(said, submitted())
    bench.answers(said, submitted())
    bench.core.received(77, Pong(1))
    bench.core.received(None, Pong(1))
    bench.core.received(None, "Dance")
    task = await bench.request(commands.ping())
    bench.core.received(bench.said()[0][0], "Dance")
    with pytest.raises(InfotainerError):
        await task

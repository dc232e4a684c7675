"""Queues in the core, against a made-up server: leases, what follows a reconnect, and what is said on it."""

import asyncio
import uuid
from uuid import UUID

import pytest
from test_core import ID, NAME, OLD, Bench, Said, error, refusal, result

from infotainer import AlreadySubscribed, Delivery, Kind, Refused, RestoredSubscription, commands
from infotainer._queues import UNCLAIMED, QueueSubscriber, WantedQueue
from infotainer.delivery import acknowledge, extend, reject
from infotainer.protocol import Acknowledged, Deleted, Pong, Publication, Rejected, Subscribed


def restored() -> RestoredSubscription:
    return RestoredSubscription(ID, Kind.QUEUE, OLD, 0, recovered=True)


class QueueBench(Bench):
    async def begin(self, prefetch: int | None = None) -> "asyncio.Task[QueueSubscriber]":
        task = asyncio.ensure_future(self.core.work(WantedQueue(NAME, prefetch)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return task

    def subscribed_queue(self, said: Said, prefetch: int = 2) -> None:
        assert said[1] == "Subscribe"
        assert (said[2]["kind"], "from" in said[2], "epoch" in said[2]) == ("Queue", False, False)
        self.answers(said, Subscribed(ID, Kind.QUEUE, OLD, 1, 100, True, None, prefetch))

    async def begun(self, prefetch: int = 2) -> QueueSubscriber:
        beginning = await self.begin(prefetch)
        [said] = self.said()
        assert said[2]["prefetch"] == prefetch
        self.subscribed_queue(said, prefetch)
        return await result(beginning)  # type: ignore[no-any-return]

    def deliver(self, sequence: int, delivery: int = 1) -> None:
        self.core.received(None, Publication(ID, UUID(int=sequence), sequence, 0, b"x", delivery=delivery))

    def take(self, subscriber: QueueSubscriber) -> list[Delivery]:  # type: ignore[override]
        taken = []
        while (one := subscriber.inbox.take()) is not None:
            taken.append(one)
        return taken


def told(deliveries: list[Delivery]) -> list[tuple[int, int | None]]:
    return [(one.sequence, one.delivery) for one in deliveries]


async def test_what_settles_leases_ends_with_the_connection_and_is_not_sent_again() -> None:
    bench = QueueBench()
    subscriber = await bench.begun()
    bench.deliver(1)
    bench.deliver(2)
    held = bench.take(subscriber)
    under_way = asyncio.ensure_future(held[0].acknowledge())
    await asyncio.sleep(0)
    [said] = bench.said()
    assert (said[1], said[2]["publication_ids"]) == ("Acknowledge", [held[0].publication_id.bytes])
    bench.core.disconnected()
    assert (await result(under_way)) == Acknowledged(ID, 0, (held[0].publication_id,))
    late = await held[1].reject()
    assert late == Rejected(ID, 0, (held[1].publication_id,))
    bench.connect()
    [said] = bench.said()
    bench.subscribed_queue(said)
    # Here it is again, and what the earlier delivery is told does not touch it.
    bench.deliver(1, delivery=2)
    [again] = bench.take(subscriber)
    assert (await acknowledge(ID, held)).count == 0
    assert bench.said() == []
    assert not again.is_lost
    under_way = asyncio.ensure_future(acknowledge(ID, [again, *held]))
    await asyncio.sleep(0)
    [said] = bench.said()
    assert said[2]["publication_ids"] == [again.publication_id.bytes]
    bench.answers(said, Acknowledged(ID, 1, ()))
    assert (await result(under_way)) == Acknowledged(ID, 1, (held[1].publication_id,))


async def test_what_waits_for_its_turn_when_the_connection_ends_is_never_said() -> None:
    bench = QueueBench(in_flight=1)
    subscriber = await bench.begun()
    bench.deliver(1)
    [held] = bench.take(subscriber)
    ping = await bench.request(commands.ping())
    settling = [asyncio.ensure_future(one) for one in (held.extend(), held.acknowledge(), held.reject())]
    await asyncio.sleep(0)
    assert [said[1] for said in bench.said()] == ["Ping"]
    bench.reconnect()
    again, pinged = bench.said()
    bench.subscribed_queue(again)
    bench.answers(pinged, Pong(7))
    await result(ping)
    for one in settling:
        assert (await result(one)).lost == (held.publication_id,)
    assert bench.said() == []


async def test_refused_for_the_shutdown_is_lost_when_the_connection_ends() -> None:
    bench = QueueBench()
    subscriber = await bench.begun()
    bench.deliver(1)
    [held] = bench.take(subscriber)
    under_way = asyncio.ensure_future(held.acknowledge())
    await asyncio.sleep(0)
    [said] = bench.said()
    bench.answers(said, refusal("shutting-down", temporary=True))
    await asyncio.sleep(0)
    assert not under_way.done()
    bench.reconnect()
    assert (await result(under_way)).lost == (held.publication_id,)
    assert [said[1] for said in bench.said()] == ["Subscribe"]


async def test_refusals_are_raised_and_leave_the_lease_but_of_a_queue_that_is_gone_all_is_lost() -> None:
    bench = QueueBench()
    subscriber = await bench.begun()
    bench.deliver(1)
    [held] = bench.take(subscriber)
    for code in ("log-unavailable", "not-found"):
        under_way = asyncio.ensure_future(held.acknowledge())
        await asyncio.sleep(0)
        [said] = bench.said()
        bench.answers(said, refusal(code))
        if code == "not-found":
            assert (await result(under_way)).lost == (held.publication_id,)
        else:
            assert isinstance(await error(under_way), Refused)
            assert not held.is_lost


async def test_lower_sequences_come_again_and_end_the_delivery_before() -> None:
    bench = QueueBench()
    subscriber = await bench.begun(prefetch=10)
    for sequence, delivery in ((3, 1), (1, 4), (2, 1), (1, 6)):
        bench.deliver(sequence, delivery)
    # The first of the two is over and is not handed out.
    assert told(bench.take(subscriber)) == [(3, 1), (2, 1), (1, 6)]
    bench.deliver(3, 2)
    assert told(bench.take(subscriber)) == [(3, 2)]


async def test_acknowledgement_of_what_came_again_meanwhile_takes_it_back() -> None:
    bench = QueueBench()
    subscriber = await bench.begun()
    bench.deliver(1)
    [held] = bench.take(subscriber)
    under_way = asyncio.ensure_future(held.acknowledge())
    await asyncio.sleep(0)
    [said] = bench.said()
    # It timed out before the server read the acknowledgement, and was leased to the same connection.
    bench.deliver(1, delivery=2)
    bench.answers(said, Acknowledged(ID, 1, ()))
    assert (await result(under_way)).count == 1
    assert bench.take(subscriber) == []


async def test_reader_that_takes_nothing_costs_no_more_than_the_prefetch() -> None:
    bench = QueueBench()
    subscriber = await bench.begun(prefetch=3)
    for sequence in range(1, 1001):
        bench.deliver(sequence)
        assert len(subscriber.inbox) <= 3
    assert told(bench.take(subscriber)) == [(998, 1), (999, 1), (1000, 1)]
    # The same over and over.
    for delivery in range(2, 1000):
        bench.deliver(1, delivery)
    assert len(subscriber.inbox) <= 3
    assert told(bench.take(subscriber)) == [(1, 999)]


async def test_what_was_not_taken_when_the_connection_ends_is_forgotten() -> None:
    bench = QueueBench()
    subscriber = await bench.begun()
    bench.deliver(1)
    bench.reconnect()
    assert bench.take(subscriber) == []
    [said] = bench.said()
    # Nothing is leased to this connection before it is subscribed.
    bench.deliver(2)
    assert bench.take(subscriber) == []
    bench.subscribed_queue(said)
    bench.deliver(1, 2)
    assert told(bench.take(subscriber)) == [(1, 2)]


async def test_deliveries_of_a_restored_queue_wait_for_the_application() -> None:
    bench = QueueBench(durable=True, connected=False)
    bench.connect(restored())
    bench.deliver(1)
    beginning = await bench.begin(prefetch=5)
    bench.deliver(2)
    [said] = bench.said()
    assert said[2]["prefetch"] == 5
    bench.subscribed_queue(said, prefetch=5)
    subscriber = await result(beginning)
    assert told(bench.take(subscriber)) == [(1, 1), (2, 1)]
    assert bench.core.next_retry() is None
    # After a reconnect they come at once, too.
    bench.reconnect(restored())
    bench.deliver(1, 2)
    assert told(bench.take(subscriber)) == [(1, 2)]
    [said] = bench.said()
    bench.subscribed_queue(said, prefetch=5)
    bench.deliver(2, 2)
    assert told(bench.take(subscriber)) == [(2, 2)]
    # It is held, and it is no broadcast.
    assert isinstance(await error(await bench.begin()), AlreadySubscribed)
    assert isinstance(await error(await bench.subscribe()), Refused)


async def test_restored_queue_that_nobody_asks_for_is_left() -> None:
    bench = QueueBench(durable=True, connected=False)
    bench.connect(restored())
    bench.deliver(1)
    retry_at = bench.core.next_retry()
    assert retry_at is not None
    assert retry_at <= bench.core.now() + UNCLAIMED
    bench.core.retry(retry_at - 0.01)
    assert bench.said() == []
    bench.core.retry(retry_at)
    assert [said[1] for said in bench.said()] == ["Unsubscribe"]
    assert bench.core.next_retry() is None
    # What was sent before the server read it is not held.
    beginning = await bench.begin(prefetch=2)
    bench.deliver(1, 2)
    [said] = bench.said()
    bench.subscribed_queue(said)
    assert bench.take(await result(beginning)) == []


async def test_queue_that_was_deleted_meanwhile_ends_for_a_durable_session_and_is_made_again_for_others() -> (
    None
):
    bench = QueueBench(durable=True)
    subscriber = await bench.begun()
    other = RestoredSubscription(uuid.uuid4(), Kind.BROADCAST, OLD, 0, recovered=True)
    bench.reconnect(other)
    assert subscriber.inbox.has_ended
    assert subscriber.is_deleted
    assert bench.said() == []
    bench = QueueBench()
    subscriber = await bench.begun()
    bench.reconnect()
    [said] = bench.said()
    bench.subscribed_queue(said)
    bench.deliver(1)
    [held] = bench.take(subscriber)
    bench.core.received(None, Deleted(ID))
    assert held.is_lost
    assert subscriber.is_deleted
    assert subscriber.inbox.has_ended


async def test_leaving_says_so_once_and_only_while_there_is_a_connection() -> None:
    bench = QueueBench()
    subscriber = await bench.begun()
    bench.deliver(1)
    [held] = bench.take(subscriber)
    bench.core.queues.release(subscriber)
    bench.core.queues.release(subscriber)
    assert [said[1] for said in bench.said()] == ["Unsubscribe"]
    assert held.is_lost
    assert (await extend(ID, [held])).lost == (held.publication_id,)
    subscriber = await bench.begun()
    bench.core.disconnected()
    bench.core.queues.release(subscriber)
    bench.connect()
    assert bench.said() == []


async def test_beginning_that_nobody_waits_for_any_more_is_left_or_taken_over() -> None:
    bench = QueueBench()
    first = await bench.begin()
    [said] = bench.said()
    first.cancel()
    await asyncio.sleep(0)
    second = await bench.begin()
    [again] = bench.said()
    # What the first one leased is the second one's.
    bench.subscribed_queue(said)
    bench.deliver(1)
    bench.subscribed_queue(again)
    subscriber = await result(second)
    assert told(bench.take(subscriber)) == [(1, 1)]
    bench.core.queues.release(subscriber)
    bench.said()
    third = await bench.begin()
    [said] = bench.said()
    third.cancel()
    await asyncio.sleep(0)
    bench.subscribed_queue(said)
    assert [said[1] for said in bench.said()] == ["Unsubscribe"]


async def test_refused_resumption_is_tried_again_if_that_may_help_and_ends_the_stream_if_not() -> None:
    bench = QueueBench()
    subscriber = await bench.begun()
    bench.reconnect()
    [said] = bench.said()
    bench.answers(said, refusal("log-unavailable", temporary=True))
    retry_at = bench.core.next_retry()
    assert retry_at is not None
    bench.core.retry(retry_at)
    [said] = bench.said()
    bench.answers(said, refusal("kind-mismatch"))
    assert subscriber.inbox.has_ended
    assert isinstance(subscriber.inbox.take_error(), Refused)
    beginning = await bench.begin()
    [said] = bench.said()
    bench.answers(said, refusal("log-unavailable", temporary=True))
    assert isinstance(await error(beginning), Refused)


async def test_what_is_known_to_be_lost_waits_for_nothing() -> None:
    bench = QueueBench(in_flight=1)
    subscriber = await bench.begun()
    bench.deliver(1)
    [held] = bench.take(subscriber)
    ping = await bench.request(commands.ping())
    bench.core.disconnected()
    assert (await result(asyncio.ensure_future(held.acknowledge()))).lost == (held.publication_id,)
    ping.cancel()


async def test_queue_that_is_deleted_while_it_is_taken_over_begins_anew() -> None:
    bench = QueueBench(durable=True, connected=False)
    bench.connect(restored())
    bench.deliver(1)
    beginning = await bench.begin()
    [said] = bench.said()
    bench.core.received(None, Deleted(ID))
    bench.subscribed_queue(said)
    subscriber = await result(beginning)
    bench.deliver(2)
    assert told(bench.take(subscriber)) == [(2, 1)]


async def test_deliveries_of_other_queues_and_clients_are_not_settled_here() -> None:
    bench = QueueBench()
    subscriber = await bench.begun()
    bench.deliver(1)
    [held] = bench.take(subscriber)
    with pytest.raises(TypeError):
        await reject(uuid.uuid4(), [held], None, None)
    other = QueueBench()
    other_subscriber = await other.begun()
    other.deliver(2)
    with pytest.raises(TypeError):
        await acknowledge(ID, [held, *other.take(other_subscriber)])
    assert (await acknowledge(ID, [])) == Acknowledged(ID, 0, ())
    assert bench.said() == []

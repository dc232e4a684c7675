"""Queues of the real server: who gets what, what settles it, what brings it back, and what the end of a connection takes."""

import asyncio
import gc
import time
import uuid

import pytest
from proxy import Proxy
from server import Server
from stepping import run_cancelled_at
from waiting import EAGER, eventually, within

from infotainer import (
    AlreadySubscribed,
    Client,
    ClosedByClient,
    DeadLetterReason,
    Delivery,
    ErrorCode,
    Kind,
    Publication,
    QueueSubscription,
    Refused,
    connect,
    subscription_id,
)

ACK_TIMEOUT = 1000
"""Milliseconds: long enough that a busy machine does what a test does in it, short enough to wait for."""


async def take(jobs: QueueSubscription, count: int) -> list[Delivery]:
    return [await within(anext(jobs)) for _ in range(count)]


def told(deliveries: list[Delivery]) -> list[tuple[int, int]]:
    return [(one.sequence, one.delivery) for one in deliveries]


async def publish(client: Client, count: int) -> list[uuid.UUID]:
    under_way = [await client.submit("jobs", str(n), kind=Kind.QUEUE) for n in range(count)]
    return [(await one).publication_id for one in under_way]


async def counts(client: Client) -> tuple[int | None, int | None]:
    meta = await client.get("jobs")
    return meta.pending, meta.in_flight


async def test_each_publication_goes_to_one_subscriber_and_what_is_acknowledged_never_comes_again(
    server: Server,
) -> None:
    async with (
        connect(server.url) as client,
        connect(server.url) as other,
        client.subscribe("jobs", kind=Kind.QUEUE, prefetch=2) as jobs,
        other.subscribe("jobs", kind=Kind.QUEUE, prefetch=3) as other_jobs,
    ):
        ids = await publish(client, 10)
        mine, others = await take(jobs, 2), await take(other_jobs, 3)
        assert sorted(told(mine + others)) == [(n, 1) for n in range(1, 6)]
        assert {one.publication_id for one in mine + others} == set(ids[:5])
        assert [one.data for one in mine] == [str(one.sequence - 1).encode() for one in mine]
        # No more than that is in flight.
        assert await counts(client) == (5, 5)
        assert (jobs.prefetch, other_jobs.prefetch) == (2, 3)
        for one in mine:
            assert not one.is_lost
            answer = await one.acknowledge()
            assert (answer.count, answer.lost) == (1, ())
            assert one.is_lost
            assert (await one.acknowledge()).lost == (one.publication_id,)
        answer = await other_jobs.acknowledge(others)
        assert (answer.count, answer.lost) == (3, ())
        rest = await take(jobs, 2) + await take(other_jobs, 3)
        assert sorted(told(rest)) == [(n, 1) for n in range(6, 11)]
        for one in rest:
            await one.acknowledge()
        assert await counts(client) == (0, 0)


async def test_prefetch_is_what_the_server_says_unless_it_is_given(server: Server) -> None:
    async with connect(server.url) as client, client.subscribe("jobs", kind=Kind.QUEUE) as jobs:
        assert jobs.prefetch == 32
        await publish(client, 40)
        held = await take(jobs, 32)
        assert await counts(client) == (8, 32)
        await jobs.acknowledge(held[:8])
        assert told(await take(jobs, 8)) == [(n, 1) for n in range(33, 41)]


async def test_what_is_rejected_comes_again_at_once_or_later_or_as_a_dead_letter(server: Server) -> None:
    async with connect(server.url) as client, client.subscribe("jobs", kind=Kind.QUEUE, prefetch=3) as jobs:
        await publish(client, 5)
        first, second, third = await take(jobs, 3)
        answer = await jobs.reject([third, first])
        assert (answer.count, answer.lost) == (2, ())
        assert first.is_lost
        assert not second.is_lost
        first, third = await take(jobs, 2)
        assert told([first, third]) == [(1, 2), (3, 2)]
        begun = time.monotonic()
        await first.reject(delay=200)
        assert told(await take(jobs, 1)) == [(4, 1)]
        await second.acknowledge()
        assert told(await take(jobs, 1)) == [(5, 1)]
        await third.acknowledge()
        [first] = await take(jobs, 1)
        assert told([first]) == [(1, 3)]
        assert time.monotonic() - begun >= 0.2
        assert (await first.reject(dead_letter=True)).count == 1

        async def is_moved() -> bool:
            return await counts(client) == (0, 2)

        await eventually(is_moved)
        [letter] = [one async for one in client.log("jobs.dead-letter")]
        assert (letter.publication_id, letter.data, letter.sequence) == (first.publication_id, b"0", 1)
        assert letter.dead_letter is not None
        assert letter.dead_letter.subscription_id == jobs.id
        assert letter.dead_letter.epoch == (await client.get("jobs")).epoch
        assert (letter.dead_letter.sequence, letter.dead_letter.deliveries) == (1, 3)
        assert letter.dead_letter.reason == DeadLetterReason.REJECTED


async def test_delivery_that_is_neither_extended_nor_settled_in_time_goes_to_another(server: Server) -> None:
    async with (
        connect(server.url) as client,
        connect(server.url) as other,
    ):
        await client.create("jobs", Kind.QUEUE, ack_timeout=ACK_TIMEOUT)
        async with client.subscribe("jobs", kind=Kind.QUEUE, prefetch=2) as jobs:
            await publish(client, 2)
            extended, late = await take(jobs, 2)
            async with other.subscribe("jobs", kind=Kind.QUEUE, prefetch=1) as other_jobs:
                coming = asyncio.ensure_future(anext(other_jobs))
                begun = time.monotonic()
                while time.monotonic() - begun < 1.5 * ACK_TIMEOUT / 1000 or not coming.done():
                    answer = await extended.extend()
                    assert (answer.count, answer.lost) == (1, ())
                    await asyncio.sleep(0.05)
                assert told([await coming]) == [(2, 2)]
                # The client can't know before it asks.
                assert not late.is_lost
                answer = await jobs.extend([late, extended])
                assert (answer.count, answer.lost) == (1, (late.publication_id,))
                assert late.is_lost
                for lost in (await late.acknowledge(), await late.reject(), await late.extend()):
                    assert (lost.count, lost.lost) == (0, (late.publication_id,))
                answer_to_all = await jobs.acknowledge([late, extended])
                assert (answer_to_all.count, answer_to_all.lost) == (1, (late.publication_id,))
                assert await counts(client) == (0, 1)


async def test_what_comes_again_on_the_same_connection_is_another_delivery(server: Server) -> None:
    async with connect(server.url) as client:
        await client.create("jobs", Kind.QUEUE, ack_timeout=ACK_TIMEOUT // 2)
        async with client.subscribe("jobs", kind=Kind.QUEUE) as jobs:
            await publish(client, 1)
            first, second = await take(jobs, 2)
            assert told([first, second]) == [(1, 1), (1, 2)]
            assert first.is_lost
            assert not second.is_lost
            # Rejecting the first must not take the second one away.
            assert (await first.reject()).lost == (first.publication_id,)
            assert (await second.acknowledge()).count == 1


async def test_publications_that_nobody_does_become_dead_letters(server: Server) -> None:
    async with connect(server.url) as client:
        settings = await client.create("jobs", Kind.QUEUE, max_deliveries=2, dead_letter="graveyard")
        assert settings.settings.max_deliveries == 2
        async with (
            client.subscribe("graveyard") as graveyard,
            client.subscribe("jobs", kind=Kind.QUEUE) as jobs,
        ):
            [id] = await publish(client, 1)
            for delivery in (1, 2):
                [one] = await take(jobs, 1)
                assert one.delivery == delivery
                assert one.dead_letter is None
                await one.reject()
            letter = await within(anext(graveyard))
            assert isinstance(letter, Publication)
            assert letter.publication_id == id
            assert letter.dead_letter is not None
            assert letter.dead_letter.reason == DeadLetterReason.MAX_DELIVERIES
            assert letter.dead_letter.deliveries == 2


async def test_queue_of_dead_letters_delivers_them(server: Server) -> None:
    async with connect(server.url) as client:
        await client.create("graveyard", Kind.QUEUE)
        await client.create("jobs", Kind.QUEUE, dead_letter="graveyard")
        async with client.subscribe("jobs", kind=Kind.QUEUE) as jobs:
            await publish(client, 1)
            await (await anext(jobs)).reject(dead_letter=True)
        async with client.subscribe("graveyard", kind=Kind.QUEUE) as graveyard:
            [letter] = await take(graveyard, 1)
            assert letter.delivery == 1
            assert letter.dead_letter is not None
            assert letter.dead_letter.subscription_id == jobs.id
            await letter.acknowledge()


async def test_settings_of_queues_are_set_changed_and_set_back(server: Server) -> None:
    async with connect(server.url) as client:
        meta = await client.create("jobs", Kind.QUEUE, ack_timeout=5000, max_deliveries=0, dead_letter="bad")
        assert (meta.kind, meta.pending, meta.in_flight) == (Kind.QUEUE, 0, 0)
        assert (meta.settings.ack_timeout, meta.settings.max_deliveries) == (5000, 0)
        assert meta.settings.dead_letter == subscription_id("bad")
        meta = await client.update("jobs", ack_timeout=None, max_deliveries=3)
        assert (meta.settings.ack_timeout, meta.settings.max_deliveries) == (30_000, 3)
        meta = await client.update("jobs", dead_letter=None, max_deliveries=None)
        assert meta.settings.dead_letter == subscription_id("jobs.dead-letter")
        assert meta.settings.max_deliveries == 10
        for create in (client.create("news", ack_timeout=1), client.update("jobs", dead_letter="jobs")):
            with pytest.raises(Refused) as refused:
                await create
            assert refused.value.code == ErrorCode.INVALID_ARGUMENT


async def test_subscription_has_one_kind(server: Server) -> None:
    async with connect(server.url) as client:
        await client.publish("news", "x")
        await client.publish("jobs", "x", kind=Kind.QUEUE)
        for beginning in (client.subscribe("jobs"), client.subscribe("news", kind=Kind.QUEUE)):
            with pytest.raises(Refused) as refused:
                await within(anext(beginning))
            assert refused.value.code == ErrorCode.KIND_MISMATCH
        async with client.subscribe("jobs", kind=Kind.QUEUE) as jobs, client.subscribe("news"):
            for again in (client.subscribe("jobs", kind=Kind.QUEUE), client.subscribe("jobs")):
                with pytest.raises((AlreadySubscribed, Refused)):
                    await again
            with pytest.raises(Refused):
                await client.subscribe("news", kind=Kind.QUEUE)
            [one] = await take(jobs, 1)
            with pytest.raises(Refused):
                await client.acknowledge("jobs", one.sequence)
            with pytest.raises(TypeError):
                client.subscribe("jobs", kind=Kind.QUEUE, from_="First")  # type: ignore[call-overload]
            with pytest.raises(TypeError):
                client.subscribe("jobs", prefetch=3)  # type: ignore[call-overload]
            with pytest.raises(TypeError):
                await jobs.acknowledge([one.publication_id])  # type: ignore[list-item]
        for prefetch in (0, 65_536):
            with pytest.raises(ValueError, match="prefetch"):
                client.subscribe("jobs", kind=Kind.QUEUE, prefetch=prefetch)


@pytest.mark.parametrize("durable", [False, True], ids=["transient", "durable"])
async def test_what_is_held_when_the_connection_ends_is_lost_and_comes_again(
    server: Server, durable: bool
) -> None:
    session = uuid.uuid4() if durable else None
    async with (
        Proxy(server.port) as proxy,
        connect(proxy.url, session=session, reconnect=EAGER) as client,
        client.subscribe("jobs", kind=Kind.QUEUE, prefetch=3) as jobs,
    ):
        await publish(client, 6)
        held = await take(jobs, 2)
        # The third waits to be taken.
        await proxy.down()

        async def is_noticed() -> bool:
            return all(one.is_lost for one in held)

        await eventually(is_noticed)
        answer = await within(jobs.acknowledge(held))
        assert (answer.count, answer.lost) == (0, tuple(one.publication_id for one in held))
        proxy.up()
        again = await take(jobs, 3)
        assert [one.sequence for one in again] == [1, 2, 3]
        # A delivery is counted when the lease begins, also if the connection ends before it is sent.
        assert all(one.delivery >= 2 for one in again)
        # On the new connection nothing of the old one is said, although this client holds the same publications again.
        for lost in (await held[0].acknowledge(), await held[0].reject(dead_letter=True)):
            assert lost.lost == (held[0].publication_id,)
        assert await counts(client) == (3, 3)
        both = await jobs.acknowledge(held + again)
        assert (both.count, both.lost) == (3, ())
        assert [one.sequence for one in await take(jobs, 3)] == [4, 5, 6]


async def test_leaving_gives_back_what_is_held(server: Server) -> None:
    for session in (None, uuid.uuid4()):
        async with connect(server.url, session=session) as client, connect(server.url) as other:
            async with client.subscribe("jobs", kind=Kind.QUEUE) as jobs:
                await publish(client, 1)
                [one] = await take(jobs, 1)
            assert one.is_lost
            assert (await one.acknowledge()).lost == (one.publication_id,)
            async with other.subscribe("jobs", kind=Kind.QUEUE) as other_jobs:
                [again] = await take(other_jobs, 1)
                assert (again.publication_id, again.delivery) == (one.publication_id, 2)
                await again.acknowledge()
            # By the drop of the subscription, and by asking for it, too.
            await publish(client, 1)
            one = await within(anext(client.subscribe("jobs", kind=Kind.QUEUE)))
            gc.collect()
            async with client.subscribe("jobs", kind=Kind.QUEUE) as jobs:
                [again] = await take(jobs, 1)
                assert (again.publication_id, again.delivery) == (one.publication_id, 2)
                assert one.is_lost
                await jobs.unsubscribe()
                assert again.is_lost
                assert await counts(client) == (1, 0)
                with pytest.raises(StopAsyncIteration):
                    await anext(jobs)
            await client.delete("jobs")


async def test_durable_session_has_its_queue_again_with_its_prefetch(server: Server) -> None:
    session = uuid.uuid4()
    client = await connect(server.url, session=session)
    jobs = await client.subscribe("jobs", kind=Kind.QUEUE, prefetch=2)
    await publish(client, 4)
    held = await take(jobs, 2)
    await held[1].acknowledge()
    await client.close()
    assert (await held[0].acknowledge()).lost == (held[0].publication_id,)
    async with connect(server.url, session=session) as again:
        # What comes before it is asked for waits.
        async def is_delivered() -> bool:
            return await counts(again) == (1, 2)

        await eventually(is_delivered)
        async with again.subscribe("jobs", kind=Kind.QUEUE) as restored:
            assert restored.prefetch == 2
            first, third = await take(restored, 2)
            assert (first.sequence, third.sequence) == (1, 3)
            assert first.delivery >= 2
            assert (await restored.acknowledge([first, third])).count == 2
            assert [one.sequence for one in await take(restored, 1)] == [4]


async def test_queue_that_a_durable_session_has_again_and_nobody_asks_for_is_given_up(server: Server) -> None:
    session = uuid.uuid4()
    client = await connect(server.url, session=session)
    await client.subscribe("jobs", kind=Kind.QUEUE)._begin()
    client._task.cancel()
    await asyncio.wait((client._task,))
    async with connect(server.url, session=session) as again, connect(server.url) as other:
        await publish(other, 1)
        async with other.subscribe("jobs", kind=Kind.QUEUE) as jobs:
            [one] = await take(jobs, 1)
            await one.acknowledge()

        async def is_left() -> bool:
            return (await other.get("jobs")).subscribers == 0

        await eventually(is_left)
        # And is begun anew.
        await publish(other, 1)
        async with again.subscribe("jobs", kind=Kind.QUEUE) as jobs:
            await take(jobs, 1)


async def test_many_tasks_work_at_one_subscription(server: Server) -> None:
    count = 300
    done: list[int] = []
    async with connect(server.url) as client:
        async with client.subscribe("jobs", kind=Kind.QUEUE, prefetch=16) as jobs:

            async def work() -> None:
                async for one in jobs:
                    await asyncio.sleep(0)
                    assert (await one.acknowledge()).count == 1
                    done.append(one.sequence)
                    if len(done) == count:
                        jobs.close()

            async with asyncio.TaskGroup() as group:
                for _ in range(8):
                    group.create_task(work())
                await publish(client, count)
        assert sorted(done) == list(range(1, count + 1))
        assert await counts(client) == (0, 0)


async def test_stream_ends_when_the_queue_is_deleted_or_the_client_closed(server: Server) -> None:
    async with connect(server.url) as client, connect(server.url) as other:
        async with client.subscribe("jobs", kind=Kind.QUEUE) as jobs:
            await publish(client, 2)
            [one] = await take(jobs, 1)
            await other.delete("jobs")
            assert [one async for one in jobs] in ([], [one])
            assert jobs.is_deleted
            assert (await one.acknowledge()).lost == (one.publication_id,)
        jobs = await client.subscribe("jobs", kind=Kind.QUEUE)
        waiting = asyncio.ensure_future(anext(jobs))
        await client.close()
        with pytest.raises(StopAsyncIteration):
            await within(waiting)
        assert not jobs.is_deleted
        with pytest.raises(ClosedByClient):
            await anext(client.subscribe("jobs", kind=Kind.QUEUE))


async def test_cancelling_wherever_it_waits_loses_no_delivery(server: Server) -> None:
    async with connect(server.url, in_flight=1) as client:
        jobs: list[QueueSubscription] = []

        async def begin() -> None:
            jobs.append(await client.subscribe("jobs", kind=Kind.QUEUE))

        at = 0
        while await run_cancelled_at(begin(), at):
            at += 1
        [subscription] = jobs
        taken: list[Delivery] = []
        waiting = asyncio.ensure_future(anext(subscription))
        for _ in range(3):
            await asyncio.sleep(0)
            waiting.cancel()
            waiting = asyncio.ensure_future(anext(subscription))
        await publish(client, 40)
        taken = [await within(waiting), *await take(subscription, 31)]
        assert told(taken) == [(n, 1) for n in range(1, 33)]
        for settling in (Delivery.extend, Delivery.acknowledge):
            for at in range(4):
                one = taken[at]
                filling = asyncio.ensure_future(client.ping())
                await asyncio.sleep(0)
                await run_cancelled_at(settling(one), at)
                await filling
        # What was cancelled may have been done.
        rest = await subscription.acknowledge(taken)
        assert rest.lost is not None
        assert rest.count + len(rest.lost) == 32
        assert set(rest.lost) <= {one.publication_id for one in taken[:4]}
        assert told(await take(subscription, 8)) == [(n, 1) for n in range(33, 41)]
        subscription.close()


async def test_more_than_one_request_takes_is_settled_in_parts(server: Server) -> None:
    count = 12_000
    async with connect(server.url, in_flight=2000) as client:
        await client.create("jobs", Kind.QUEUE, durability=None)
        await publish(client, count)
        async with client.subscribe("jobs", kind=Kind.QUEUE, prefetch=count) as jobs:
            held = await take(jobs, count)
            answer = await jobs.acknowledge([*held, held[0]])
            assert (answer.count, answer.lost) == (count, ())
        assert await counts(client) == (0, 0)

"""What the client promises, against the real server."""

import asyncio
import time
import uuid

import pytest
from proxy import Proxy
from server import Server
from waiting import EAGER, eventually, next_event, next_sequence, within

from infotainer import (
    FIRST,
    NEW,
    After,
    AlreadySubscribed,
    BadUrl,
    Client,
    Closed,
    ClosedByClient,
    ClosedByPeer,
    ClosedByServer,
    Connected,
    Deleted,
    Durability,
    Ended,
    ErrorCode,
    Gap,
    GapCause,
    GaveUp,
    HandshakeRefused,
    Kind,
    Last,
    NetworkFailed,
    NotRecovered,
    Place,
    Publication,
    Reconnect,
    Refused,
    Retention,
    Since,
    SubscribeFrom,
    TimedOut,
    TooLarge,
    Waiting,
    connect,
    start,
    subscription_id,
)


async def publish(client: Client, name: str, numbers: range) -> None:
    await asyncio.gather(*(client.publish(name, str(n)) for n in numbers))


async def test_what_is_published_is_delivered_as_it_was(server: Server) -> None:
    before = time.time_ns() // 1_000_000
    async with connect(server.url) as client:
        assert isinstance(client.status, Connected)
        submitted = await client.publish("news", b"\x00\xff")
        assert submitted.subscription_id == subscription_id("news")
        assert (submitted.sequence, submitted.duplicate) == (1, False)
        assert submitted.durability == Durability.WRITTEN
        assert submitted.publication_id.version == 7
        async for event in client.subscribe("news", from_=FIRST):
            assert isinstance(event, Publication)
            assert (event.data, event.sequence) == (b"\x00\xff", 1)
            assert event.publication_id == submitted.publication_id
            assert (event.publisher, event.delivery) == (None, None)
            assert before <= event.time <= time.time_ns() // 1_000_000
            break
        assert before <= await client.ping()
    assert isinstance(client.status, Ended)


async def test_every_form_of_data_and_reference_is_taken(server: Server) -> None:
    async with connect(server.url) as client:
        await client.publish("news", "späße")
        await client.publish(subscription_id("news"), bytearray(b"two"))
        await client.publish(str(subscription_id("news")).upper(), memoryview(b"three"))
        data = [one.data async for one in client.log("news")]
        assert data == ["späße".encode(), b"two", b"three"]
        with pytest.raises(TypeError):
            await client.publish(7, b"")  # type: ignore[arg-type]


async def test_publications_under_way_at_once_get_their_sequences_in_order(server: Server) -> None:
    async with connect(server.url, in_flight=8) as client:
        submitted = await asyncio.gather(*(client.publish("news", str(n)) for n in range(500)))
        assert [one.sequence for one in submitted] == list(range(1, 501))
        under_way = [await client.submit("news", str(n)) for n in range(8)]
        assert [(await one).sequence for one in under_way] == list(range(501, 509))


async def test_no_more_requests_are_under_way_than_allowed(server: Server) -> None:
    async with Proxy(server.port) as proxy, connect(proxy.url, in_flight=3) as client:
        proxy.freeze()
        under_way = [await client.submit("news", str(n)) for n in range(3)]
        fourth = asyncio.ensure_future(client.submit("news", "4"))
        done, _ = await asyncio.wait((fourth,), timeout=0.05)
        assert not done
        proxy.thaw()
        assert [(await one).sequence for one in [*under_way, await fourth]] == [1, 2, 3, 4]


async def test_the_same_publication_id_is_added_once(server: Server) -> None:
    async with connect(server.url) as client:
        id = uuid.uuid4()
        first = await client.publish("news", "one", publication_id=id)
        again = await client.publish("news", "one", publication_id=id)
        assert (first.duplicate, again.duplicate) == (False, True)
        assert again.sequence == first.sequence


@pytest.mark.parametrize(
    ("start_at", "expected"),
    [
        (FIRST, [1, 2, 3, 4]),
        (After(2), [3, 4]),
        (Last(1), [4]),
        (Since(0), [1, 2, 3, 4]),
        (NEW, [5]),
        (None, [5]),
    ],
)
async def test_delivery_begins_where_it_is_asked_to(
    server: Server, start_at: SubscribeFrom | None, expected: list[int]
) -> None:
    async with connect(server.url) as client:
        await publish(client, "news", range(4))
        subscription = await client.subscribe("news", from_=start_at)
        assert subscription.position == expected[0] - 1
        await client.publish("news", "5")
        for sequence in expected:
            assert await next_sequence(subscription) == sequence
            assert subscription.position == sequence
        subscription.close()


async def test_what_a_durable_session_has_not_done_with_comes_again_to_its_next_client(
    server: Server,
) -> None:
    session = uuid.uuid4()
    async with connect(server.url, session=session) as client:
        subscription = await client.subscribe("news")
        await publish(client, "news", range(1, 6))
        assert [await next_sequence(subscription) for _ in range(3)] == [1, 2, 3]
    # Three were taken, and asking for the third has done with two.
    async with connect(server.url, session=session) as client:
        subscription = await client.subscribe("news")
        assert subscription.position == 2
        assert [await next_sequence(subscription) for _ in range(2)] == [3, 4]
    # By hand nothing is acknowledged, so the same come again.
    for _ in range(2):
        async with connect(server.url, session=session) as client:
            subscription = await client.subscribe("news", acknowledge_by_hand=True)
            assert [await next_sequence(subscription) for _ in range(2)] == [4, 5]
    async with connect(server.url, session=session) as client:
        subscription = await client.subscribe("news", acknowledge_by_hand=True)
        assert [await next_sequence(subscription) for _ in range(2)] == [4, 5]
        assert (await subscription.acknowledge(5)).subscription_id == subscription.id
    async with connect(server.url, session=session) as client:
        subscription = await client.subscribe("news")
        await client.publish("news", "6")
        assert await next_sequence(subscription) == 6


async def test_client_that_was_taken_over_does_not_come_back(server: Server) -> None:
    session = uuid.uuid4()
    async with Proxy(server.port) as proxy, connect(proxy.url, session=session, reconnect=EAGER) as first:
        subscription = await first.subscribe("news")
        async with connect(server.url, session=session) as second:
            with pytest.raises(ClosedByServer) as closed:
                await next_event(subscription)
            assert isinstance(closed.value.why, ClosedByPeer)
            assert closed.value.why.close_code == 4502
            with pytest.raises(StopAsyncIteration):
                await next_event(subscription)
            for _ in range(2):
                with pytest.raises(ClosedByServer):
                    await first.publish("news", "x")
            assert isinstance(first.status, Ended)
            assert proxy.connections == 1
            await second.ping()


async def test_what_retention_took_is_told_as_a_gap(server: Server) -> None:
    async with connect(server.url) as client:
        meta = await client.create("news", retention=Retention(max_publications=2))
        await publish(client, "news", range(6))

        async def is_trimmed() -> bool:
            return (await client.get("news")).first_sequence == 5

        await eventually(is_trimmed)
        async with client.subscribe("news", from_=After(1), epoch=meta.epoch) as subscription:
            assert await next_event(subscription) == Gap(2, 4, GapCause.RETENTION)
            assert [await next_sequence(subscription) for _ in range(2)] == [5, 6]


async def test_log_that_began_anew_meanwhile_is_told_as_not_recovered(server: Server) -> None:
    async with (
        connect(server.url) as direct,
        Proxy(server.port) as proxy,
        connect(proxy.url, reconnect=EAGER) as client,
        client.subscribe("news") as subscription,
    ):
        await direct.publish("news", "old")
        assert await next_sequence(subscription) == 1
        epoch = subscription.epoch
        await proxy.down()
        await direct.delete("news")
        await direct.publish("news", "new")
        proxy.up()
        event = await next_event(subscription)
        assert event == NotRecovered(Place(epoch, 1), (await direct.get("news")).epoch, 0)
        assert await next_sequence(subscription) == 1
        assert subscription.epoch != epoch


async def test_position_of_another_epoch_is_told_as_not_recovered(server: Server) -> None:
    async with connect(server.url) as client:
        await client.publish("news", "one")
        async with client.subscribe("news", from_=After(1), epoch=uuid.uuid4()) as subscription:
            event = await next_event(subscription)
            assert isinstance(event, NotRecovered)
            assert event.cursor == 0
            assert await next_sequence(subscription) == 1


async def test_deletion_is_told_at_once_and_ends_the_stream(server: Server) -> None:
    async with connect(server.url) as client, connect(server.url) as other:
        for deleting in (client, other):
            subscription = await client.subscribe("news")
            await deleting.delete("news")
            assert [event async for event in subscription] == [Deleted(subscription_id("news"))]


async def test_deletion_is_told_to_a_durable_session_that_was_away(server: Server) -> None:
    async with (
        connect(server.url) as direct,
        Proxy(server.port) as proxy,
        connect(proxy.url, session=uuid.uuid4(), reconnect=EAGER) as client,
        client.subscribe("news") as subscription,
        # A session that holds nothing is forgotten.
        client.subscribe("other"),
    ):
        await proxy.down()
        await direct.delete("news")
        await direct.publish("news", "new")
        proxy.up()
        assert [event async for event in subscription] == [Deleted(subscription_id("news"))]


async def test_deletion_whose_answer_was_lost_succeeds(server: Server) -> None:
    async with (
        connect(server.url) as direct,
        Proxy(server.port) as proxy,
        connect(proxy.url, reconnect=EAGER) as client,
    ):
        await client.publish("news", "one")
        proxy.freeze_to_client()
        deleting = asyncio.ensure_future(client.delete("news"))

        async def is_gone() -> bool:
            try:
                await direct.get("news")
            except Refused:
                return True
            return False

        await eventually(is_gone)
        await proxy.down()
        proxy.thaw()
        proxy.up()
        await within(deleting)


async def test_refusals_say_their_code(server: Server) -> None:
    async with connect(server.url) as client:
        for request in (client.get("nothing"), client.delete("nothing")):
            with pytest.raises(Refused) as refused:
                await request
            assert refused.value.code == ErrorCode.NOT_FOUND
            assert refused.value.error.command in ("GetSubscription", "DeleteSubscription")
        await client.publish("news", "one")
        with pytest.raises(Refused) as refused:
            await client.publish("news", "x", expected_sequence=7)
        assert refused.value.code == ErrorCode.CONFLICT
        assert not refused.value.temporary
        with pytest.raises(Refused) as refused:
            await client.acknowledge("news", 1)
        assert refused.value.code == ErrorCode.INVALID_ARGUMENT
        with pytest.raises(Refused) as refused:
            await client.create("news", Kind.BROADCAST, durability=Durability.MEMORY)
        assert refused.value.code == ErrorCode.CONFLICT
        async with client.subscribe("news"):
            with pytest.raises(AlreadySubscribed):
                await client.subscribe("news")


async def test_publication_that_the_server_would_not_take_is_not_sent(server: Server) -> None:
    async with Proxy(server.port) as proxy, connect(proxy.url) as client:
        with pytest.raises(TooLarge) as large:
            await client.publish("news", bytes(300 << 10))
        assert large.value.size > large.value.limit == 256 << 10
        await client.publish("news", "small")
        assert proxy.connections == 1


async def test_failure_to_connect_says_what_failed(server: Server) -> None:
    elsewhere = f"ws://127.0.0.1:{server.port}/elsewhere"
    with pytest.raises(HandshakeRefused) as refused:
        await connect(elsewhere)
    assert refused.value.status == 404
    # It is not tried again in the background either.
    client = start(elsewhere, reconnect=EAGER)
    with pytest.raises(ClosedByServer):
        await client.ping()
    await client.close()
    server.stop()
    with pytest.raises(NetworkFailed) as failed:
        await connect(server.url)
    assert isinstance(failed.value.__cause__, ConnectionRefusedError)
    client = start(server.url, reconnect=Reconnect(first_pause=0.001, longest_pause=0.001, attempts=3))
    with pytest.raises(GaveUp) as gave_up:
        await client.ping()
    assert isinstance(gave_up.value.why, NetworkFailed)
    await client.close()
    for url in ("", "localhost:8949", "http://a/ws", "wss:///ws", "ws://", "ws:///ws", "ws://a:99999/ws"):
        with pytest.raises(BadUrl):
            await connect(url)


async def test_request_without_an_answer_ends_in_time(server: Server) -> None:
    async with Proxy(server.port) as proxy, connect(proxy.url, request_timeout=0.05, in_flight=1) as client:
        await proxy.down()
        id = uuid.uuid4()
        with pytest.raises(TimedOut) as timed_out:
            await client.publish("news", "x", publication_id=id)
        assert timed_out.value.publication_id == id
        with pytest.raises(TimedOut):
            await client.ping()
        with pytest.raises(TimeoutError):
            await client.subscribe("news")


async def test_log_is_read_in_pages_ids_and_all_at_once(server: Server) -> None:
    async with connect(server.url) as client:
        await publish(client, "news", range(25))
        pages = [len(page.publications) async for page in client.log("news", after=3, page_size=10).pages()]
        assert pages == [10, 10, 2]
        ids = [one.publication_id async for one in client.log("news")]
        index = [index.entries async for index in client.log("news", page_size=10).index()]
        assert [id for entries in index for id in entries] == ids
        unknown = uuid.uuid4()
        page = await client.entries("news", [ids[4], unknown, ids[1], ids[4]])
        assert [one.sequence for one in page.publications] == [2, 5]
        assert page.missing == (unknown,)
        assert (await client.entries("news", [])).publications == ()
        with pytest.raises(Refused) as refused:
            await anext(aiter(client.log("nothing")))
        assert refused.value.code == ErrorCode.NOT_FOUND


async def test_log_of_many_megabytes_comes_whole(server: Server) -> None:
    async with connect(server.url) as client:
        for n in range(25):
            await client.publish("news", bytes([n]) * 220_000)
        # About 5.5 MB: the answers are cut at 4 MiB.
        found = [one.data async for one in client.log("news")]
        assert found == [bytes([n]) * 220_000 for n in range(25)]
        ids = [one.publication_id async for one in client.log("news")]
        page = await client.entries("news", reversed(ids))
        assert [one.publication_id for one in page.publications] == ids


async def test_subscriptions_are_made_changed_listed_and_deleted(server: Server) -> None:
    async with connect(server.url) as client:
        await asyncio.gather(*(client.create(f"s{n}") for n in range(150)))
        meta = await client.update("s7", retention=Retention(max_age=60_000))
        assert meta.settings.retention == Retention(max_age=60_000)
        assert await client.get("s7") == meta
        meta = await client.update("s7", retention=None)
        assert meta.settings.retention == Retention()
        await client.delete("s8")
        names = {meta.settings.name async for meta in client.list()}
        assert names == {f"s{n}" for n in range(150)} - {"s8"}


async def test_closing_waits_for_the_answers_under_way(server: Server) -> None:
    client = await connect(server.url)
    subscription = await client.subscribe("news")
    under_way = [await client.submit("news", str(n)) for n in range(100)]
    await client.close()
    assert [(await one).sequence for one in under_way] == list(range(1, 101))
    # What was delivered before the goodbye can still be taken.
    taken = [event.sequence async for event in subscription if isinstance(event, Publication)]
    assert taken == list(range(1, len(taken) + 1))
    with pytest.raises(ClosedByClient):
        await client.publish("news", "late")
    with pytest.raises(Closed):
        await client.subscribe("news")
    await client.close()


async def test_subscription_that_is_left_or_dropped_is_given_up_by_a_transient_session(
    server: Server,
) -> None:
    async with connect(server.url) as client, connect(server.url) as other:

        async def subscribers() -> int:
            await client.ping()
            return (await other.get("news")).subscribers

        async with client.subscribe("news"):
            assert await subscribers() == 1
        assert await subscribers() == 0
        subscription = await client.subscribe("news")
        assert await subscribers() == 1
        del subscription
        await asyncio.sleep(0)
        assert await subscribers() == 0
        await client.publish("news", "x")
        async for _ in client.subscribe("news", from_=FIRST):
            assert await subscribers() == 1
            break
        await asyncio.sleep(0)
        assert await subscribers() == 0
        subscription = await client.subscribe("news")
        await subscription.unsubscribe()
        assert await subscribers() == 0
        assert [event async for event in subscription] == []


async def test_status_tells_how_it_stands(server: Server) -> None:
    async with (
        Proxy(server.port) as proxy,
        connect(proxy.url, reconnect=Reconnect(first_pause=0.2)) as client,
    ):
        seen: list[type] = []

        async def watch() -> None:
            async for status in client.statuses():
                seen.append(type(status))

        watching = asyncio.ensure_future(watch())
        await proxy.down()
        await eventually(lambda: answer(Waiting in seen))
        proxy.up()
        await client.ping()
        await client.close()
        await watching
        assert seen[0] is Connected
        assert seen[-1] is Ended


async def answer(value: bool) -> bool:
    return value

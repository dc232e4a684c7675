"""Readers that do not keep up: they miss nothing, hold up nobody, and cost bounded memory."""

import asyncio
import gc
import time
import uuid
from pathlib import Path

import pytest
from server import Server
from waiting import EAGER, next_event, next_sequence, within

from infotainer import FIRST, Last, Publication, connect

KIB, MIB = 1 << 10, 1 << 20


def memory() -> int:
    """What this process has now, in bytes."""
    gc.collect()
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line]
    return int(line.split()[1]) * KIB


@pytest.mark.parametrize("durable", [False, True], ids=["transient", "durable"])
async def test_slow_reader_misses_nothing_and_holds_up_no_answer(server: Server, durable: bool) -> None:
    count = 2000
    session = uuid.uuid4() if durable else None
    async with connect(server.url, session=session, reconnect=EAGER) as client:
        slow = await client.subscribe("news", from_=FIRST, buffer=64, buffer_bytes=256 * KIB)
        payload = bytes(4 * KIB)
        # Nothing is read meanwhile: what is answered is not held up by what waits to be read.
        await within(asyncio.gather(*(client.publish("news", payload) for _ in range(count))))
        assert len(slow._begun.buffer._events) <= 64  # type: ignore[union-attr]
        for sequence in range(1, count + 1):
            assert await next_sequence(slow) == sequence
            # Now and then it waits for an answer itself.
            if sequence % 500 == 0:
                await within(client.ping())
        slow.close()


async def test_reader_that_is_a_little_slow_sets_the_pace(server: Server) -> None:
    async with connect(server.url) as client, connect(server.url) as publisher:
        for n in range(200):
            await publisher.publish("news", str(n))
        async with client.subscribe("news", from_=FIRST, buffer=2) as slow:
            for sequence in range(1, 201):
                assert await next_sequence(slow) == sequence
                await asyncio.sleep(0.002)


async def test_one_slow_subscription_does_not_hold_up_another(server: Server) -> None:
    async with (
        connect(server.url) as client,
        client.subscribe("news", buffer=1) as slow,
        client.subscribe("news too", buffer=1) as fast,
    ):
        for n in range(1, 301):
            await asyncio.gather(client.publish("news", "x"), client.publish("news too", "x"))
            assert await next_sequence(fast) == n
        for n in range(1, 301):
            assert await next_sequence(slow) == n


async def test_memory_of_a_reader_that_does_not_read_is_bounded(server: Server) -> None:
    async with connect(server.url, in_flight=16) as publisher, connect(server.url) as client:
        subscription = await client.subscribe("news", buffer_bytes=MIB)
        payload = bytes(64 * KIB)
        await publisher.publish("news", payload)
        before = memory()
        for _ in range(10):
            await asyncio.gather(*(publisher.publish("news", payload) for _ in range(64)))
        await client.ping()
        # 40 MiB were published.
        assert memory() - before < 16 * MIB
        for sequence in range(1, 10 * 64 + 2):
            assert await next_sequence(subscription) == sequence
        assert memory() - before < 16 * MIB
        subscription.close()


async def test_memory_does_not_grow_with_what_was_done(server: Server) -> None:
    async with connect(server.url, reconnect=EAGER) as client:

        async def work() -> None:
            for _ in range(200):
                await asyncio.gather(*(client.publish("news", str(n)) for n in range(10)))
                async for _ in client.subscribe("news", from_=Last(1)):
                    break
                waiting = asyncio.ensure_future(client.ping())
                await asyncio.sleep(0)
                waiting.cancel()

        await work()
        before = len(gc.get_objects())
        await work()
        await client.ping()
        gc.collect()
        assert len(gc.get_objects()) - before < 500


async def test_publication_that_alone_is_larger_than_the_buffer_comes(server: Server) -> None:
    async with connect(server.url) as client, client.subscribe("news", buffer_bytes=10) as subscription:
        await asyncio.gather(*(client.publish("news", bytes(1000)) for _ in range(20)))
        for n in range(1, 21):
            event = await next_event(subscription)
            assert isinstance(event, Publication)
            assert (event.sequence, len(event.data)) == (n, 1000)


async def test_reader_that_blocks_the_loop_is_not_taken_for_silence(server: Server) -> None:
    server.kill()
    server._variables |= {"INFOTAINER_HEARTBEAT_INTERVAL": "100ms", "INFOTAINER_HEARTBEAT_TIMEOUT": "2s"}
    server.start()
    async with connect(server.url) as client, client.subscribe("news", buffer=1) as subscription:
        seen = []
        await asyncio.gather(*(client.publish("news", "x") for _ in range(20)))
        for _ in range(20):
            seen.append(await next_sequence(subscription))
            time.sleep(0.15)  # noqa: ASYNC251 (that is the point)
        assert seen == list(range(1, 21))

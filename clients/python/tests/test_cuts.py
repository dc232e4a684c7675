"""Conversations whose connections are cut: at every byte if `INFOTAINER_TEST_ALL_CUTS` is set, else at some, others each time."""

import asyncio
import os
import random
import uuid
from uuid import UUID

import pytest
from proxy import Cut, Proxy
from server import Server
from waiting import EAGER, within

from infotainer import FIRST, Client, Delivery, Kind, Publication, QueueSubscription, connect, start

PUBLICATIONS = 3
AT_ONCE = 16
STRIDE = 13
"""Bytes from one cut to the next, unless there are all of them."""


def new_client(url: str, session: UUID | None) -> Client:
    return start(url, session=session, reconnect=EAGER, request_timeout=120)


async def conversation(client: Client, name: str) -> list[UUID]:
    """Subscribes, publishes pipelined, takes what comes, and closes."""
    async with client, client.subscribe(name, from_=FIRST) as subscription:
        under_way = [await client.submit(name, f"publication {n}") for n in range(PUBLICATIONS)]
        ids = [acknowledgement.publication_id for acknowledgement in under_way]
        for n, acknowledgement in enumerate(under_way, 1):
            submitted = await acknowledgement
            assert (submitted.publication_id, submitted.sequence) == (ids[n - 1], n)
        for n in range(1, PUBLICATIONS + 1):
            event = await anext(subscription)
            assert isinstance(event, Publication), event
            assert (event.sequence, event.publication_id) == (n, ids[n - 1])
    return ids


async def work(client: Client, name: str) -> list[UUID]:
    """Works at a queue, publishes pipelined, does each publication until nothing of it was lost, and closes."""
    done: list[UUID] = []
    async with client, client.subscribe(name, kind=Kind.QUEUE, prefetch=2) as jobs:
        under_way = [
            await client.submit(name, f"publication {n}", kind=Kind.QUEUE) for n in range(PUBLICATIONS)
        ]
        ids = [acknowledgement.publication_id for acknowledgement in under_way]
        for acknowledgement in under_way:
            await acknowledgement
        seen: set[tuple[int, int]] = set()
        while len(done) < PUBLICATIONS:
            delivery = await within(_next_or_none(client, jobs, name))
            if delivery is None:
                # What was told as lost was heard all the same.
                break
            assert (delivery.sequence, delivery.delivery) not in seen
            assert delivery.publication_id == ids[delivery.sequence - 1]
            assert delivery.publication_id not in done
            seen.add((delivery.sequence, delivery.delivery))
            answer = await delivery.acknowledge()
            assert answer.lost is not None
            assert answer.count + len(answer.lost) == 1
            done += [delivery.publication_id] * answer.count
    return ids


async def _next_or_none(client: Client, jobs: QueueSubscription, name: str) -> Delivery | None:
    """The next delivery, or None if there will be none."""
    coming = asyncio.ensure_future(anext(jobs))
    while not coming.done():
        await asyncio.wait((coming,), timeout=0.05)
        meta = await client.get(name)
        if not coming.done() and (meta.pending, meta.in_flight) == (0, 0):
            coming.cancel()
            await asyncio.wait((coming,))
            return None
    return await coming


def chosen(cuts: list[Cut]) -> list[Cut]:
    """All of them, if INFOTAINER_TEST_ALL_CUTS is set; else every so manyeth, beginning anywhere."""
    if "INFOTAINER_TEST_ALL_CUTS" in os.environ:
        return cuts
    begin = random.randrange(STRIDE)
    print(f"every {STRIDE}th cut, from {begin} on")
    return cuts[begin::STRIDE]


@pytest.mark.parametrize("how", ["transient", "durable", "queue"])
async def test_publications_are_logged_and_delivered_once_wherever_a_connection_is_cut(
    server: Server, how: str
) -> None:
    talk = work if how == "queue" else conversation

    def session() -> UUID | None:
        return uuid.uuid4() if how == "durable" else None

    async with Proxy(server.port) as proxy:
        await talk(new_client(proxy.url, session()), "undisturbed")
        whole = Cut(*proxy.carried)
    cuts = [Cut(to_server=at) for at in range(whole.to_server)]
    cuts += [Cut(to_client=at) for at in range(whole.to_client)]
    left = iter(chosen(cuts))

    async with connect(server.url) as direct:

        async def cut_and_check() -> None:
            for cut in left:
                name = f"cut {cut}"
                async with Proxy(server.port) as proxy:
                    # The second connection is cut elsewhere, so that what is sent again is cut too.
                    proxy.cuts += [cut, cut.halved()]
                    ids = await talk(new_client(proxy.url, session()), name)
                assert [one.publication_id async for one in direct.log(name)] == ids, name
                meta = await direct.get(name)
                assert not meta.pending, name
                assert not meta.in_flight, name

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(cut_and_check())

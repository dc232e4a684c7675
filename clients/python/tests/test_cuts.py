"""Conversations whose connections are cut, at every byte, and servers that are killed."""

import asyncio
import uuid
from uuid import UUID

import pytest
from proxy import Cut, Proxy
from server import Server
from waiting import EAGER

from infotainer import FIRST, Client, Publication, connect, start

PUBLICATIONS = 3
AT_ONCE = 16


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


@pytest.mark.parametrize("durable", [False, True], ids=["transient", "durable"])
async def test_publications_are_logged_and_delivered_once_wherever_a_connection_is_cut(
    server: Server, durable: bool
) -> None:
    def session() -> UUID | None:
        return uuid.uuid4() if durable else None

    async with Proxy(server.port) as proxy:
        await conversation(new_client(proxy.url, session()), "undisturbed")
        whole = Cut(*proxy.carried)
    cuts = [Cut(to_server=at) for at in range(whole.to_server)]
    cuts += [Cut(to_client=at) for at in range(whole.to_client)]
    left = iter(cuts)

    async with connect(server.url) as direct:

        async def work() -> None:
            for cut in left:
                name = f"cut {cut}"
                async with Proxy(server.port) as proxy:
                    # The second connection is cut elsewhere, so that what is sent again is cut too.
                    proxy.cuts += [cut, cut.halved()]
                    ids = await conversation(new_client(proxy.url, session()), name)
                assert [one.publication_id async for one in direct.log(name)] == ids, name

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())

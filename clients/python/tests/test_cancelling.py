"""Everything is cancelled wherever it waits, and leaves nothing behind."""

import asyncio
import gc
import uuid
import warnings
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import patch

import pytest
from proxy import Proxy
from server import Server
from stepping import cancelled_at, run_cancelled_at
from waiting import EAGER, next_sequence, within

from infotainer import FIRST, Client, Closed, Publication, Subscription, connect, start
from infotainer._connection import Connection

MOST = 200


async def publish(client: Client, name: str) -> None:
    await client.publish(name, "one")


async def submit(client: Client, name: str) -> None:
    acknowledgements = [await client.submit(name, str(n)) for n in range(5)]
    for acknowledgement in acknowledgements:
        await acknowledgement


async def gather(client: Client, name: str) -> None:
    await asyncio.gather(*(client.publish(name, str(n)) for n in range(5)))


async def iterate(client: Client, name: str) -> None:
    await client.publish(name, "one")
    async for _ in client.subscribe(name, from_=FIRST):
        break


async def enter(client: Client, name: str) -> None:
    async with client.subscribe(name) as subscription:
        await client.publish(name, "one")
        await anext(subscription)
        await subscription.unsubscribe()


async def read(client: Client, name: str) -> None:
    await client.publish(name, "one")
    assert [one async for one in client.log(name)]
    assert [one async for one in client.list()]


@pytest.mark.parametrize("do", [publish, submit, gather, iterate, enter, read])
@pytest.mark.parametrize("in_flight", [1, 100])
async def test_requests_may_be_cancelled_wherever_they_wait(
    server: Server, do: Callable[[Client, str], Any], in_flight: int
) -> None:
    async with connect(server.url, in_flight=in_flight) as client:
        for at in range(MOST):
            if not await within(run_cancelled_at(do(client, f"news {at}"), at)):
                break
            # Whatever it did, the client goes on, and the next one is not held up.
            await within(do(client, f"news {at}"))
        else:
            raise AssertionError("it never ended")
        assert at > 0
        await client.ping()
        assert client._core._permits._value == in_flight
        assert not client._core.subscribers._all
        assert len(client._core._requests) == 0


@pytest.mark.parametrize("do", [publish, iterate, enter])
async def test_requests_may_be_cancelled_while_there_is_no_server(
    server: Server, do: Callable[[Client, str], Any]
) -> None:
    server.kill()
    client = start(server.url, reconnect=EAGER, in_flight=2)
    for at in range(5):
        task = asyncio.ensure_future(do(client, "news"))
        for _ in range(at):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()
    server.start()
    await within(do(client, "news"))
    await client.close()


async def test_waiting_for_an_event_may_be_cancelled_without_losing_one(server: Server) -> None:
    async with connect(server.url) as client, client.subscribe("news") as subscription:
        publishing = asyncio.ensure_future(
            asyncio.gather(*(client.publish("news", str(n)) for n in range(500)))
        )
        seen: list[int] = []
        patience = 0
        while len(seen) < 500:
            task = asyncio.ensure_future(anext(subscription))
            for _ in range(patience := (patience + 1) % 4):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
            if not task.cancelled():
                event: Any = task.result()
                seen.append(event.sequence)
        assert seen == list(range(1, 501))
        await publishing


async def test_connecting_may_be_cancelled_wherever_it_waits(server: Server) -> None:
    async def use() -> None:
        async with connect(server.url) as client:
            await client.ping()

    for at in range(MOST):
        if not await within(run_cancelled_at(use(), at)):
            return
    raise AssertionError("it never ended")


async def test_closing_may_be_cancelled_and_still_ends_the_client(server: Server) -> None:
    async with Proxy(server.port) as proxy:
        for turns in range(1, 12):
            client = await connect(proxy.url)
            proxy.freeze()
            under_way = await client.submit("news", "one")
            closing = asyncio.ensure_future(client.close())
            for _ in range(turns):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait((closing,))
            assert closing.cancelled()
            with pytest.raises(Closed):
                await within(under_way, 1)
            await asyncio.wait((client._task,), timeout=1)
            assert client._task.done()
            proxy.thaw()


async def test_client_ends_in_order_wherever_its_task_is_cancelled(server: Server) -> None:
    run = Connection.run
    at, came_so_far = 0, True

    async def cancelled(connection: Connection) -> None:
        nonlocal came_so_far
        try:
            await cancelled_at(run(connection), at)
            came_so_far = False
        except asyncio.CancelledError:
            came_so_far = True
            raise

    with patch.object(Connection, "run", cancelled):
        async with Proxy(server.port) as proxy:
            for at in range(MOST):
                client = start(proxy.url, reconnect=EAGER)
                publishing = asyncio.gather(
                    *(client.publish("news", str(n)) for n in range(3)), return_exceptions=True
                )
                event = asyncio.ensure_future(anext(client.subscribe("news", from_=FIRST)))
                await asyncio.wait((publishing, event), timeout=0.2 if at < 3 else 0.02)
                await proxy.down()
                proxy.up()
                await asyncio.wait((client._task,), timeout=0.02)
                closing = asyncio.ensure_future(client.close())
                await within(asyncio.wait((closing,)))
                for outcome in await within(publishing):
                    assert not isinstance(outcome, Exception) or isinstance(outcome, Closed), outcome
                await within(asyncio.wait((event,)))
                assert event.exception() is None or isinstance(event.exception(), Closed | StopAsyncIteration)
                if not came_so_far:
                    break
            else:
                raise AssertionError("it never ended")


def test_loop_that_ends_before_its_clients_leaves_nothing(server: Server) -> None:
    async def main(do: Callable[[Client], Awaitable[Any]]) -> None:
        client = start(server.url, session=uuid.uuid4())
        await do(client)
        kept.append(client)

    async def nothing(client: Client) -> None:
        pass

    async def ping(client: Client) -> None:
        await client.ping()

    async def some(client: Client) -> None:
        kept.append(await client.submit("news", "one"))
        subscription = client.subscribe("news", from_=FIRST)
        await anext(subscription)
        kept.append(subscription)
        kept.append(await client.submit("news", "two"))

    kept: list[Any] = []
    for do in (nothing, ping, some):
        asyncio.run(main(do), debug=True)
        kept.clear()
        gc.collect()


async def test_client_that_was_forgotten_ends_with_a_warning(server: Server) -> None:
    client = await connect(server.url)
    task = client._task
    with pytest.warns(ResourceWarning, match="unclosed client"):
        del client
    await asyncio.wait((task,))
    # One that is still used by what was made of it is not forgotten.
    subscription = await connect_and_subscribe(server.url)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()
        assert await next_sequence(subscription) == 1
    kept_alive = subscription._keeps_alive
    assert isinstance(kept_alive, Client)
    await kept_alive.close()


async def connect_and_subscribe(url: str) -> Subscription:
    client = await connect(url)
    await client.publish("news", "one")
    return await client.subscribe("news", from_=FIRST)


async def test_subscription_that_is_left_may_be_begun_again_at_once(server: Server) -> None:
    async with connect(server.url) as client:
        await client.publish("news", "one")
        for _ in range(3):
            async for event in client.subscribe("news", from_=FIRST):
                assert isinstance(event, Publication)
                break


async def test_acknowledgement_may_be_awaited_again(server: Server) -> None:
    async with Proxy(server.port) as proxy, connect(proxy.url) as client:
        proxy.freeze()
        under_way = await client.submit("news", "one")
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(under_way, 0.01)
        proxy.thaw()
        assert await within(under_way) == await under_way


async def test_dropped_acknowledgement_is_not_sent_again(server: Server) -> None:
    async with Proxy(server.port) as proxy, connect(proxy.url, reconnect=EAGER) as client:
        await proxy.down()
        dropped = await client.submit("news", "dropped")
        kept = await client.submit("news", "kept")
        del dropped
        proxy.up()
        assert (await within(kept)).sequence == 1
        assert [one.data async for one in client.log("news")] == [b"kept"]


async def test_iteration_goes_on_in_one_task_at_a_time(server: Server) -> None:
    async with connect(server.url) as client, client.subscribe("news") as subscription:
        first = asyncio.ensure_future(anext(subscription))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await anext(subscription)
        await client.publish("news", "one")
        event: Any = await within(first)
        assert isinstance(event, Publication)
        waiting = asyncio.ensure_future(anext(subscription, None))
        await asyncio.sleep(0)
        subscription.close()
        assert await within(waiting) is None

"""Servers that are killed, stopped, away for long, or that say what no server should."""

import asyncio
import time
import uuid
from urllib.parse import urlsplit

import cbor2
import pytest
from peer import MADE_UP, Peer, heard, say
from proxy import Proxy
from server import Server
from waiting import EAGER, eventually, next_event, next_sequence, within
from websockets.exceptions import ConnectionClosed

from infotainer import (
    FIRST,
    ClosedByPeer,
    ClosedByServer,
    ConnectTimedOut,
    GaveUp,
    NotRecovered,
    NotTheProtocol,
    Reconnect,
    Refused,
    Silent,
    TimedOut,
    Waiting,
    connect,
    start,
)


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_publications_under_way_survive_servers_that_end(server: Server, how: str) -> None:
    count = 3000
    async with connect(server.url, reconnect=EAGER) as client, client.subscribe("news") as subscription:

        async def publish(n: int) -> int:
            return (await client.publish("news", str(n))).sequence

        publishing = asyncio.gather(*(publish(n) for n in range(count)))
        for sequence in range(1, count + 1):
            if sequence in (300, 1000, 2000):
                # The client has to answer the goodbye meanwhile, or the server waits for that.
                await asyncio.to_thread(getattr(server, how))
                server.start()
            event = await next_event(subscription)
            if isinstance(event, NotRecovered):
                # What was written and not synced may be missing in the server's view, so it begins a new life of the log.
                assert how == "kill"
                event = await next_event(subscription)
            assert event.sequence == sequence  # type: ignore[union-attr]
        assert sorted(await within(publishing)) == list(range(1, count + 1))
        assert len([one async for one in client.log("news")]) == count


async def test_durable_session_goes_on_after_kill_9(server: Server) -> None:
    session = uuid.uuid4()
    async with (
        connect(server.url, reconnect=EAGER) as publisher,
        connect(server.url, session=session, reconnect=EAGER) as client,
        client.subscribe("news") as subscription,
    ):
        await publisher.create("news", durability=None)
        await asyncio.gather(*(publisher.publish("news", str(n)) for n in range(10)))
        assert [await next_sequence(subscription) for _ in range(5)] == [1, 2, 3, 4, 5]
        server.kill()
        server.start()
        await asyncio.gather(*(publisher.publish("news", str(n)) for n in range(10)))
        seen: list[int] = []
        while 20 not in seen:
            event = await next_event(subscription)
            seen += [] if isinstance(event, NotRecovered) else [event.sequence]  # type: ignore[union-attr]
        assert sorted(set(seen)) == list(range(6 if 1 not in seen else 1, 21))


async def test_client_waits_for_a_server_that_is_away_for_long(server: Server) -> None:
    server.kill()
    pauses = Reconnect(first_pause=0.01, longest_pause=0.05)
    client = start(server.url, reconnect=pauses, request_timeout=0.3, in_flight=4)
    given_up = 0
    beginning = asyncio.ensure_future(anext(client.subscribe("news", from_=FIRST)))
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        results = await asyncio.gather(*(client.ping() for _ in range(8)), return_exceptions=True)
        assert all(isinstance(result, TimedOut) for result in results), results
        given_up += len(results)
    with pytest.raises(TimedOut):
        await beginning

    async def waits() -> bool:
        return isinstance(client.status, Waiting) and client.status.pause <= 0.05

    await eventually(waits)
    server.start()
    await client.publish("news", "one")
    async for _ in client.subscribe("news", from_=FIRST):
        break
    await client.close()


async def test_client_comes_back_after_a_close_that_asks_for_it_and_after_silence() -> None:
    async with Peer() as peer:
        client = start(peer.url, reconnect=EAGER)
        ping = asyncio.ensure_future(client.ping())
        for code in (4000, 4008, 4499, 1001, 1011, 1012):
            socket = await within(peer.welcome())
            await socket.close(code, "come back")
        socket = await within(peer.welcome())
        socket.transport.abort()
        # Says nothing, not even a heartbeat.
        silent = await within(peer.welcome(interval=10))
        socket = await within(peer.welcome())
        request_id, command = await within(heard(socket))
        assert command == "Ping"
        await say(socket, [request_id, {"Pong": {"time": 7}}])
        assert await within(ping) == 7
        silent.transport.abort()
        closing = asyncio.ensure_future(client.close())
        await within(socket.wait_closed())
        await within(closing)
        assert socket.close_code == 1000


async def test_heartbeats_keep_a_connection() -> None:
    async with Peer() as peer:
        client = start(peer.url, reconnect=Reconnect(attempts=0))
        socket = await within(peer.welcome(interval=500))
        for _ in range(12):
            await (await socket.ping())
            await asyncio.sleep(0.1)
        ping = asyncio.ensure_future(client.ping())
        request_id, _ = await within(heard(socket))
        await say(socket, [request_id, {"Pong": {"time": 7}}])
        assert await within(ping) == 7
        # And without them it does not stay.
        with pytest.raises(GaveUp) as gave_up:
            await within(client.ping())
        assert isinstance(gave_up.value.why, Silent)
        await client.close()


@pytest.mark.parametrize("code", [4500, 4501, 4502, 4503, 4999, 1002, 1007, 1009])
async def test_client_that_is_not_wanted_does_not_come_back(code: int) -> None:
    async with Peer() as peer:
        client = start(peer.url, reconnect=EAGER)
        ping = asyncio.ensure_future(client.ping())
        waiting = asyncio.ensure_future(anext(client.subscribe("news")))
        socket = await within(peer.welcome())
        await heard(socket)
        await socket.close(code, "stay away")
        for request in (ping, waiting):
            with pytest.raises(ClosedByServer) as closed:
                await within(request)
            assert isinstance(closed.value.why, ClosedByPeer)
            assert closed.value.why.close_code == code
            assert closed.value.why.reason == "stay away"
        with pytest.raises(ClosedByServer):
            await client.publish("news", "x")
        await client.close()
        assert peer.accepted == 1


@pytest.mark.parametrize(
    "message",
    [
        "hello",
        b"\xff",
        b"",
        cbor2.dumps({"Pong": {"time": 7}}),
        cbor2.dumps([1, {"Welcome": {}}]),
        cbor2.dumps([]),
    ],
)
async def test_peer_that_speaks_something_else_is_told_apart(message: str | bytes) -> None:
    async with Peer() as peer:
        connecting = asyncio.ensure_future(connect(peer.url)._connect())
        socket = await within(peer.accept())
        await socket.send(message)
        with pytest.raises(NotTheProtocol):
            await within(connecting)
        # And so is one that begins to later: the client tries again.
        client = start(peer.url, reconnect=EAGER)
        socket = await within(peer.welcome())
        await socket.send(message if isinstance(message, str) else b"\xff")
        await within(peer.welcome())
        await client.close()


async def test_peer_that_says_nothing_at_all_is_given_up() -> None:
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            writer.close()

    listener = await asyncio.start_server(nothing, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(ConnectTimedOut):
            await connect(f"ws://127.0.0.1:{port}", connect_timeout=0.05)
    async with Peer() as peer:
        with pytest.raises(ConnectTimedOut):
            await connect(peer.url, connect_timeout=0.05)


@pytest.mark.parametrize(
    ("status", "is_final"), [(400, True), (403, True), (404, True), (429, False), (503, False), (302, False)]
)
async def test_refused_handshakes_say_whether_to_come_back(status: int, is_final: bool) -> None:
    connections = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} No\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        client = start(f"ws://127.0.0.1:{port}", reconnect=Reconnect(first_pause=0.001, attempts=2))
        with pytest.raises(ClosedByServer if is_final else GaveUp):
            await within(client.ping())
        assert connections == (1 if is_final else 3)
        await client.close()


async def test_server_asks_for_a_pause() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Later\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        client = start(f"ws://127.0.0.1:{port}", reconnect=EAGER)

        async def is_waiting() -> bool:
            return isinstance(client.status, Waiting)

        await eventually(is_waiting)
        assert isinstance(client.status, Waiting)
        assert client.status.pause == 3600
        await within(client.close(), 1)


async def test_server_that_does_not_read_does_not_hold_up_the_end() -> None:
    async with Peer() as peer:
        client = start(peer.url, reconnect=EAGER, in_flight=1000)
        socket = await within(peer.welcome())
        socket.transport.pause_reading()
        under_way = [await client.submit("news", bytes(200_000)) for _ in range(100)]
        async with asyncio.timeout(10):
            await client._close(drain=False)
        results = await asyncio.gather(*under_way, return_exceptions=True)
        assert {type(result).__name__ for result in results} == {"ClosedByClient"}
        socket.transport.abort()


async def test_last_words_of_a_server_are_heard_before_its_end(server: Server) -> None:
    async with Proxy(server.port) as proxy:
        # What is wrong on purpose is not written down.
        MADE_UP.add(urlsplit(proxy.url).port)
        client = start(proxy.url, reconnect=EAGER)
        await client.ping()
        for _ in range(20):
            client._core.outgoing.append(b"\xff" * 3)
        client._core.changed()
        with pytest.raises(ClosedByServer) as closed:
            await asyncio.gather(*(client.ping() for _ in range(1000)))
        assert isinstance(closed.value.why, ClosedByPeer)
        assert closed.value.why.close_code == 4503
        assert proxy.connections == 1
        await client.close()


async def test_refused_resumption_ends_the_stream() -> None:
    async with Peer() as peer:
        client = start(peer.url, reconnect=EAGER)
        waiting = asyncio.ensure_future(anext(client.subscribe("news")))
        socket = await within(peer.welcome())
        request_id, command = await within(heard(socket))
        assert list(command) == ["Subscribe"]
        error = {"code": "not-authorized", "message": "no", "temporary": False}
        await say(socket, [request_id, {"Error": error}])
        with pytest.raises(Refused) as refused:
            await within(waiting)
        assert refused.value.code == "not-authorized"
        with pytest.raises(ConnectionClosed):
            await asyncio.gather(within(socket.recv()), client.close())

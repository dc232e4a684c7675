"""The protocol as a client sees it that shares no code with the server: the packages websockets and cbor2.

Run as `conversation.py HOST:PORT` against a server with default limits. Ends with 0 if everything was as the protocol says; else
with a traceback that tells what was not.
"""

import asyncio
import sys
import uuid

import cbor2
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

SUBPROTOCOL = "infotainer.v1.cbor"
PATIENCE = 30


class Connection:
    """A WebSocket with request ids."""

    def __init__(self, socket):
        self.socket = socket
        self.last_id = 0
        self.said = []
        self.welcome = None

    @classmethod
    async def open(cls, address, path="/ws", **options):
        options.setdefault("subprotocols", [SUBPROTOCOL])
        socket = await websockets.connect(f"ws://{address}{path}", max_size=None, **options)
        connection = cls(socket)
        connection.welcome = named(await connection.receive(), "Welcome")
        return connection

    async def receive(self):
        message = await asyncio.wait_for(self.socket.recv(), PATIENCE)
        assert isinstance(message, bytes), message
        return cbor2.loads(message)

    async def send(self, item):
        await self.socket.send(cbor2.dumps(item))

    async def ask(self, command, **fields):
        """Sends a command, gives its answer; what the server says on its own meanwhile is kept."""
        self.last_id += 1
        await self.send([self.last_id, {command: fields}])
        return await self.answer(self.last_id)

    async def answer(self, request):
        while True:
            said = await self.receive()
            if isinstance(said, list):
                assert said[0] == request, said
                return said[1]
            self.said.append(said)

    async def call(self, command, answer, **fields):
        return named(await self.ask(command, **fields), answer)

    async def fail(self, command, code, **fields):
        error = named(await self.ask(command, **fields), "Error")
        assert error["code"] == code, error
        assert error["message"] and isinstance(error["temporary"], bool), error
        return error

    async def next(self, name):
        """What the server says next on its own."""
        said = self.said.pop(0) if self.said else await self.receive()
        return named(said, name)

    async def hears_nothing(self):
        await self.call("Ping", "Pong")
        assert not self.said, self.said

    async def closed(self):
        try:
            while True:
                self.said.append(await self.receive())
        except ConnectionClosed as closed:
            return closed.rcvd.code

    async def close(self):
        await self.socket.close()
        assert self.socket.close_code == 1000


def named(response, name):
    """The fields of a response, which has to have this name."""
    assert isinstance(response, dict) and list(response) == [name], response
    return response[name]


async def handshake(address):
    connection = await Connection.open(address)
    assert connection.socket.subprotocol == SUBPROTOCOL
    welcome = connection.welcome
    assert welcome["durable"] is False and welcome["resumed"] is False, welcome
    assert len(welcome["session_id"]) == 16 and welcome["subscriptions"] == []
    assert welcome["server"].startswith("infotainer/")
    await connection.close()

    without = await Connection.open(address, subprotocols=None)
    assert without.socket.subprotocol is None
    await without.close()

    refusals = [
        (400, "/ws", {"subprotocols": ["mqtt"]}),
        (403, "/ws", {"origin": "https://evil.example"}),
        (404, "/other", {}),
        (404, "/ws/not-a-uuid", {}),
        (404, f"/ws/{uuid.UUID(int=0)}", {}),
    ]
    for status, path, options in refusals:
        try:
            await Connection.open(address, path, **options)
        except InvalidStatus as refused:
            assert refused.response.status_code == status, (path, refused)
        else:
            raise AssertionError(f"{path} was accepted with {options}")


async def publish_and_subscribe(address):
    subscriber, publisher = await Connection.open(address), await Connection.open(address)
    name = f"python/{uuid.uuid4()}"
    subscribed = await subscriber.call("Subscribe", "Subscribed", subscription_id=name)
    assert (subscribed["cursor"], subscribed["recovered"]) == (0, True), subscribed
    expected = uuid.uuid5(uuid.NAMESPACE_URL, f"infotainer:{name}")
    assert subscribed["subscription_id"] == expected.bytes

    payloads = [b"", b"\x00", "ünïcode".encode(), bytes(range(256)), b"x" * 70_000]
    for sequence, payload in enumerate(payloads, 1):
        submitted = await publisher.call("SubmitPublication", "Submitted", subscription_id=name, submission=payload)
        assert submitted["sequence"] == sequence and submitted["durability"] == "Synced", submitted
        publication = await subscriber.next("Publication")
        assert publication["data"] == payload and publication["sequence"] == sequence
        assert publication["publication_id"] == submitted["publication_id"]
        assert uuid.UUID(bytes=publication["publication_id"]).version == 7

    # Silence, and the barrier.
    await publisher.send({"SubmitPublication": {"subscription_id": name, "submission": b"bare"}})
    await publisher.hears_nothing()
    assert (await subscriber.next("Publication"))["data"] == b"bare"
    await publisher.send("Ping")
    named(await publisher.receive(), "Pong")
    await subscriber.close()
    await publisher.close()


async def forms_that_cbor2_makes(address):
    connection = await Connection.open(address)
    subscription = uuid.uuid4()
    # cbor2 writes uuid.UUID as tag 37.
    assert cbor2.dumps(subscription)[:2] == b"\xd8\x25"
    await connection.call("Subscribe", "Subscribed", subscription_id=subscription)
    sequence = 0
    submissions = [
        b"abc",
        bytearray(b"abc"),
        [97, 98, 99],
        cbor2.CBORTag(64, b"abc"),
        cbor2.CBORTag(24, b"abc"),
    ]
    for submission in submissions:
        for form in (subscription, subscription.bytes, str(subscription), str(subscription).upper()):
            sequence += 1
            publication = uuid.uuid4()
            await connection.call(
                "SubmitPublication", "Submitted", subscription_id=form, submission=submission, publication_id=publication
            )
            delivered = await connection.next("Publication")
            assert delivered["data"] == b"abc" and delivered["sequence"] == sequence, delivered
            assert delivered["publication_id"] == publication.bytes

    command = [7, {"GetLogIndex": {"log_id": subscription, "limit": 3, "after": 2}}]
    forms = [cbor2.dumps(command), cbor2.dumps(command, canonical=True), cbor2.dumps(cbor2.CBORTag(55799, command))]
    # Everything that can be of indefinite length is.
    key = lambda text: b"\x7f" + cbor2.dumps(text[:3]) + cbor2.dumps(text[3:]) + b"\xff"
    half = subscription.bytes[:8], subscription.bytes[8:]
    reference = b"\x5f" + cbor2.dumps(half[0]) + cbor2.dumps(half[1]) + b"\xff"
    fields = b"\xbf" + key("log_id") + reference + key("limit") + b"\x1b" + (3).to_bytes(8, "big")
    fields += key("after") + b"\x19\x00\x02" + b"\xff"
    forms.append(b"\x9f\x18\x07\xbf" + key("GetLogIndex") + fields + b"\xff\xff")
    for form in forms:
        await connection.socket.send(form)
        index = named(await connection.answer(7), "LogIndex")
        assert len(index["entries"]) == 3 and index["more"] is True, index
        assert index["last_sequence"] == sequence

    for wrong in (1.0, -1, "1", 2**53):
        await connection.fail("GetLogIndex", "invalid-argument", log_id=subscription, after=wrong)
    await connection.close()


async def fragments_and_errors(address):
    connection = await Connection.open(address)
    name = f"python/{uuid.uuid4()}"
    command = cbor2.dumps([1, {"SubmitPublication": {"subscription_id": name, "submission": b"f" * 5000}}])
    # An iterable is sent as one fragmented message.
    await connection.socket.send(command[at : at + 700] for at in range(0, len(command), 700))
    assert named(await connection.answer(1), "Submitted")["sequence"] == 1
    pong = await connection.socket.ping(b"are you there")
    await asyncio.wait_for(pong, PATIENCE)

    await connection.socket.send("text")
    assert (await connection.next("Error"))["code"] == "unsupported-format"
    await connection.socket.send(cbor2.dumps([9, 5]))
    assert named(await connection.answer(9), "Error")["code"] == "malformed"
    await connection.fail("Dance", "unknown-command")
    await connection.fail("GetSubscription", "not-found", subscription_id=f"{name}/other")
    await connection.fail("Subscribe", "invalid-argument", subscription_id=name, **{"from": "Yesterday"})
    await connection.fail("Subscribe", "kind-mismatch", subscription_id=name, kind="Queue")
    await connection.fail("SubmitPublication", "conflict", subscription_id=name, submission=b"", expected_sequence=9)
    await connection.call("Ping", "Pong")

    for _ in range(16):
        await connection.socket.send(b"\xff")
    assert await connection.closed() == 4503
    assert [named(said, "Error")["code"] for said in connection.said] == ["malformed"] * 16

    large = await Connection.open(address)
    await large.socket.send(b"\x00" * (256 * 1024 + 1))
    assert await large.closed() == 1009


async def a_queue_and_its_dead_letters(address):
    first, second = await Connection.open(address), await Connection.open(address)
    name = f"python/{uuid.uuid4()}"
    subscribed = await first.call("Subscribe", "Subscribed", subscription_id=name, kind="Queue", prefetch=2)
    assert (subscribed["prefetch"], "cursor" in subscribed) == (2, False), subscribed
    for number in range(4):
        await second.call("SubmitPublication", "Submitted", subscription_id=name, submission=bytes([number]))
    held = [await first.next("Publication") for _ in range(2)]
    assert [(one["sequence"], one["delivery"]) for one in held] == [(1, 1), (2, 1)], held
    ids = [one["publication_id"] for one in held]
    lost = await second.call("Acknowledge", "Acknowledged", subscription_id=name, publication_ids=ids)
    assert (lost["count"], lost["lost"]) == (0, ids), lost
    done = await first.call("Acknowledge", "Acknowledged", subscription_id=name, publication_ids=ids[:1])
    assert (done["count"], done["lost"]) == (1, []), done
    await first.call("Reject", "Rejected", subscription_id=name, publication_ids=ids[1:], dead_letter=True)
    rest = [await first.next("Publication") for _ in range(2)]
    assert [one["sequence"] for one in rest] == [3, 4], rest
    await second.call("Subscribe", "Subscribed", subscription_id=name)
    await first.close()
    again = [await second.next("Publication") for _ in range(2)]
    assert [(one["sequence"], one["delivery"]) for one in again] == [(3, 2), (4, 2)], again

    await second.call("Subscribe", "Subscribed", subscription_id=f"{name}.dead-letter", **{"from": "First"})
    letter = await second.next("Publication")
    assert letter["publication_id"] == ids[1] and letter["data"] == bytes([1]) and "delivery" not in letter
    told = letter["dead_letter"]
    assert (told["subscription_id"], told["epoch"]) == (subscribed["subscription_id"], subscribed["epoch"]), told
    assert (told["sequence"], told["deliveries"], told["reason"]) == (2, 1, "rejected"), told
    await second.close()


async def logs_page_by_page(address):
    connection = await Connection.open(address)
    name = f"python/{uuid.uuid4()}"
    ids = []
    for number in range(25):
        submitted = await connection.call(
            "SubmitPublication", "Submitted", subscription_id=name, submission=bytes([number]) * 220_000
        )
        ids.append(submitted["publication_id"])
    # About 5.5 MB: the answers are cut at 4 MiB.
    publications, after, pages = [], 0, 0
    while True:
        page = await connection.call("GetLogEntries", "DataLogEntry", log_id=name, after=after)
        publications += page["publications"]
        pages += 1
        if not page["more"]:
            break
        after = publications[-1]["sequence"]
    assert pages == 2 and [found["publication_id"] for found in publications] == ids
    assert all(found["data"] == bytes([number]) * 220_000 for number, found in enumerate(publications))

    stranger = uuid.uuid4()
    some = await connection.call(
        "GetLogEntries", "DataLogEntry", log_id=name, entries=[uuid.UUID(bytes=ids[7]), stranger, ids[3], ids[7]]
    )
    assert [found["sequence"] for found in some["publications"]] == [4, 8], some
    assert some["missing"] == [stranger.bytes] and some["more"] is False

    again = await connection.call(
        "SubmitPublication", "Submitted", subscription_id=name, submission=b"", publication_id=ids[4]
    )
    assert again["duplicate"] is True and again["sequence"] == 5, again
    meta = await connection.call("GetSubscription", "SubscriptionMeta", subscription_id=name)
    assert (meta["first_sequence"], meta["last_sequence"], meta["bytes"]) == (1, 25, 25 * 220_000)
    assert meta["settings"]["name"] == name and meta["kind"] == "Broadcast"
    deleted = await connection.call("DeleteSubscription", "Deleted", subscription_id=name)
    assert deleted == {"subscription_id": meta["subscription_id"]}
    await connection.close()


async def durable_session(address):
    session, name = uuid.uuid4(), f"python/{uuid.uuid4()}"
    publisher = await Connection.open(address)
    for number in range(6):
        await publisher.call("SubmitPublication", "Submitted", subscription_id=name, submission=bytes([number]))
    client = await Connection.open(address, f"/ws/{session}")
    assert client.welcome["durable"] and not client.welcome["resumed"]
    assert client.welcome["session_id"] == session.bytes
    await client.call("Subscribe", "Subscribed", subscription_id=name, **{"from": {"After": 1}})
    for sequence in range(2, 7):
        assert (await client.next("Publication"))["sequence"] == sequence
    acknowledged = await client.call("Acknowledge", "Acknowledged", subscription_id=name, sequence=4)
    assert acknowledged["count"] == 4, acknowledged
    await client.close()

    client = await Connection.open(address, f"/ws/{session}")
    assert client.welcome["resumed"]
    (restored,) = client.welcome["subscriptions"]
    assert restored["cursor"] == 4 and restored["recovered"] is True, restored
    for sequence in (5, 6):
        assert (await client.next("Publication"))["sequence"] == sequence

    second = await Connection.open(address, f"/ws/{session}")
    assert await client.closed() == 4502
    await publisher.call("DeleteSubscription", "Deleted", subscription_id=name)
    while "Deleted" not in (said := await second.receive()):
        named(said, "Publication")
    await second.close()
    await publisher.close()


async def main(address):
    for part in (
        handshake,
        publish_and_subscribe,
        forms_that_cbor2_makes,
        fragments_and_errors,
        a_queue_and_its_dead_letters,
        logs_page_by_page,
        durable_session,
    ):
        print(f"{part.__name__} ...", flush=True)
        await part(address)
    print("all as the protocol says")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

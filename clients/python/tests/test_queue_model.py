"""The real server's queues against what its clients know.

Random steps of several workers, connections that end, kill -9, time-outs and dead letters. Seeds are printed: `INFOTAINER_TEST_SEED`
repeats a run as far as timing lets it.

What is checked: nothing is in flight to two at once, nothing that was acknowledged comes again, nothing is lost, first deliveries come in
order, `delivery` is right, and `lost` is told of what is lost and of nothing else.
"""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Self
from uuid import UUID

import pytest
from proxy import Proxy
from server import Server
from waiting import EAGER, eventually, within

from infotainer import (
    Acknowledged,
    Client,
    Connected,
    Delivery,
    Durability,
    Extended,
    Kind,
    QueueSubscription,
    Rejected,
    connect,
)

WORKERS = 4
STEPS = 150
FOR_EVER = 3_600_000
SHORT = 300
"""Milliseconds after which leases end in the runs with time-outs."""


@dataclass
class Known:
    """What is known of one publication."""

    id: UUID
    free_since: float
    """No lease can have begun before."""
    deliveries: int = 0
    holder: "Worker | None" = None
    held: Delivery | None = None
    is_blurred: bool = False
    """A delivery may have been counted that nobody saw: its connection ended, or its time."""
    is_settled: bool = False
    is_uncertain: bool = False
    """The acknowledgement was under way when the connection ended."""
    is_dead: bool = False


@dataclass(eq=False)
class Worker:
    """A client with a connection of its own that can be cut."""

    proxy: Proxy
    client: Client
    jobs: QueueSubscription | None = None
    newest_first: int = 0
    """The sequence of the last that came for the first time."""
    left: list[Delivery] = field(default_factory=list)
    """What it held when it lost everything."""

    @classmethod
    async def new(cls, server: Server) -> Self:
        proxy = await Proxy(server.port).__aenter__()
        return cls(proxy, await connect(proxy.url, reconnect=EAGER))

    async def close(self) -> None:
        await self.client.close()
        await self.proxy.__aexit__(None, None, None)

    def come(self) -> list[Delivery]:
        """What has come and was not taken."""
        found = []
        begun = None if self.jobs is None else self.jobs._begun
        while begun is not None and (delivery := begun.inbox.take()) is not None:
            found.append(delivery)
        return found


class Model:
    def __init__(self, server: Server, seed: int, ack_timeout: int) -> None:
        self.server = server
        self.random = random.Random(seed)
        self.ack_timeout = ack_timeout
        self.times_out = ack_timeout < FOR_EVER
        self.known: dict[int, Known] = {}
        self.workers: list[Worker] = []

    async def begin(self, durability: Durability) -> None:
        self.publisher = await connect(self.server.url, reconnect=EAGER)
        self.workers = [await Worker.new(self.server) for _ in range(WORKERS)]
        await self.publisher.create(
            "work", Kind.QUEUE, durability=durability, max_deliveries=0, ack_timeout=self.ack_timeout
        )

    async def end(self) -> None:
        await self.publisher.close()
        for worker in self.workers:
            await worker.close()

    # ---- What is known -----------------------------------------------------------------------------------------------

    def saw(self, worker: Worker, delivery: Delivery) -> None:
        number, known = delivery.delivery, self.known[delivery.sequence]
        assert delivery.publication_id == known.id
        if self.times_out and number < known.deliveries:
            # It lay in the socket while its time ended.
            return
        assert not known.is_settled and not known.is_dead, f"{delivery} came again: {known}"  # noqa: PT018
        if known.holder is not None:
            assert self.may_have_timed_out(known), f"{delivery} is in flight twice: {known}"
            known.is_blurred = True
        assert number > known.deliveries, f"{delivery}: {known}"
        if not known.is_blurred and not self.times_out:
            assert number == known.deliveries + 1, f"{delivery}: {known}"
        if number == 1:
            assert delivery.sequence > worker.newest_first, "first deliveries are not in order"
            worker.newest_first = delivery.sequence
        known.deliveries, known.holder, known.held = number, worker, delivery
        known.is_blurred = known.is_uncertain = False

    def may_have_timed_out(self, known: Known) -> bool:
        return self.times_out and time.monotonic() >= known.free_since + self.ack_timeout / 1000

    def freed(self, known: Known) -> None:
        known.holder = known.held = None

    def ended(self, worker: Worker) -> None:
        """The worker's leases ended, and what was under way to it was not seen."""
        for known in self.known.values():
            if known.holder is worker:
                self.freed(known)
            if known.holder is None:
                known.is_blurred = True

    def held_by(self, worker: Worker) -> list[Known]:
        return [known for known in self.known.values() if known.holder is worker]

    def read(self) -> None:
        for worker in self.workers:
            for delivery in worker.come():
                self.saw(worker, delivery)

    # ---- Steps -------------------------------------------------------------------------------------------------------

    async def submit(self) -> None:
        now = time.monotonic()
        under_way = [await self.publisher.submit("work", "x") for _ in range(self.random.randint(1, 20))]
        for one in under_way:
            submitted = await within(one._wait())
            self.known[submitted.sequence] = Known(submitted.publication_id, now)

    async def subscribe(self) -> None:
        worker = self.random.choice(self.workers)
        if worker.jobs is None:
            prefetch = self.random.randint(1, 12)
            worker.jobs = await worker.client.subscribe("work", kind=Kind.QUEUE, prefetch=prefetch)

    async def leave(self) -> None:
        worker = self.random.choice(self.workers)
        if worker.jobs is not None:
            held = [known.held for known in self.held_by(worker) if known.held is not None]
            await worker.jobs.unsubscribe()
            self.left(worker, held)
            worker.jobs = None

    async def disconnect(self) -> None:
        worker = self.random.choice(self.workers)
        held = [known.held for known in self.held_by(worker) if known.held is not None]
        await worker.proxy.down()

        async def is_noticed() -> bool:
            return not isinstance(worker.client.status, Connected)

        await eventually(is_noticed)
        self.left(worker, held)
        worker.proxy.up()
        await within(worker.client.ping())

    def left(self, worker: Worker, held: list[Delivery]) -> None:
        assert all(one.is_lost for one in held)
        worker.left = held
        self.ended(worker)

    async def settle(self, how: str) -> None:
        worker = self.random.choice(self.workers)
        if worker.jobs is None:
            return
        held = self.held_by(worker)
        chosen = self.random.sample(held, self.random.randint(0, len(held)))
        deliveries = [known.held for known in chosen if known.held is not None]
        # What was lost with an earlier connection is lost for ever, also if this worker holds the publication again.
        lost_before = {one.publication_id for one in worker.left} - {known.id for known in chosen}
        given = deliveries + worker.left
        dead_letter = how == "reject" and self.random.random() < 0.15
        begun = time.monotonic()
        if how == "acknowledge":
            answer: Acknowledged | Rejected | Extended = await within(worker.jobs.acknowledge(given))
        elif how == "reject":
            delay = self.random.choice((None, None, self.random.randint(1, 50)))
            answer = await within(worker.jobs.reject(given, delay=delay, dead_letter=dead_letter))
        else:
            answer = await within(worker.jobs.extend(given))
        count, told = answer.count, set(answer.lost or ())
        assert told >= lost_before
        lost = told - lost_before
        assert count == len(chosen) - len(lost)
        for known in chosen:
            if known.id in lost:
                assert self.may_have_timed_out(known), f"{known} was not lost"
                self.freed(known)
                known.is_blurred = True
            elif how == "acknowledge":
                known.is_settled = True
                self.freed(known)
            elif how == "reject":
                known.is_dead = dead_letter
                self.freed(known)
                known.free_since = begun
            else:
                known.free_since = begun

    async def restart(self) -> None:
        # An acknowledgement may be under way.
        worker = self.random.choice(self.workers)
        chosen = self.held_by(worker)
        under_way = None
        if worker.jobs is not None and chosen:
            deliveries = [known.held for known in chosen if known.held is not None]
            under_way = asyncio.ensure_future(worker.jobs.acknowledge(deliveries))
            for _ in range(self.random.randint(0, 3)):
                await asyncio.sleep(0)
        if self.random.random() < 0.7:
            self.server.kill()
        else:
            # The clients have to answer the goodbye meanwhile.
            await asyncio.to_thread(self.server.stop)
        self.server.start()
        if under_way is not None:
            answer = await within(under_way)
            for known in chosen:
                if answer.lost is not None and known.id in answer.lost:
                    known.is_uncertain = True
                else:
                    known.is_settled = True
        for one in self.workers:
            self.ended(one)
            one.left = []
        for one in self.workers:
            await within(one.client.ping())
        await within(self.publisher.ping())

    async def time_out(self) -> None:
        await asyncio.sleep(self.ack_timeout / 1000 if self.times_out else 0)

    async def step(self) -> None:
        steps: dict[Callable[[], Awaitable[None]], int] = {
            self.submit: 20,
            self.subscribe: 15,
            self.leave: 4,
            self.disconnect: 4,
            self.restart: 2,
            self.time_out: 4,
            partial(self.settle, "acknowledge"): 25,
            partial(self.settle, "reject"): 12,
            partial(self.settle, "extend"): 6,
        }
        [step] = self.random.choices(list(steps), list(steps.values()))
        await step()
        for worker in self.workers:
            await within(worker.client.ping())
        self.read()
        await self.check_numbers()

    # ---- The end -----------------------------------------------------------------------------------------------------

    async def open(self) -> int:
        meta = await within(self.publisher.get("work"))
        assert meta.pending is not None
        assert meta.in_flight is not None
        return meta.pending + meta.in_flight

    async def check_numbers(self) -> None:
        possible = [known for known in self.known.values() if not known.is_settled]
        certain = [known for known in possible if not known.is_dead and not known.is_uncertain]
        found = await self.open()
        assert len(certain) <= found <= len(possible)

    async def drain(self) -> None:
        """All that is left goes to one, who acknowledges it."""
        for worker in self.workers:
            if worker.jobs is not None:
                await worker.jobs.unsubscribe()
                worker.jobs = None
            self.ended(worker)
        worker = self.workers[0]
        worker.jobs = await worker.client.subscribe("work", kind=Kind.QUEUE, prefetch=7)
        while await self.open() > 0:
            deliveries = worker.come()
            for delivery in deliveries:
                self.saw(worker, delivery)
            answer = await worker.jobs.acknowledge(deliveries)
            assert self.times_out or answer.lost == ()
            for delivery in deliveries:
                if delivery.publication_id not in (answer.lost or ()):
                    self.known[delivery.sequence].is_settled = True
                self.freed(self.known[delivery.sequence])
        for sequence, known in self.known.items():
            assert known.is_settled or known.is_dead or known.is_uncertain, f"{sequence} is lost: {known}"
        dead = {known.id for known in self.known.values() if known.is_dead}
        if not dead:
            return
        letters = [one async for one in self.publisher.log("work.dead-letter")]
        assert len(letters) == len(dead)
        assert {one.publication_id for one in letters} == dead
        for letter in letters:
            assert letter.dead_letter is not None
            known = self.known[letter.dead_letter.sequence]
            assert known.id == letter.publication_id
            assert letter.dead_letter.deliveries >= known.deliveries


@pytest.mark.parametrize(
    ("durability", "ack_timeout"),
    [(Durability.WRITTEN, FOR_EVER), (Durability.SYNCED, FOR_EVER), (Durability.WRITTEN, SHORT)],
    ids=["written", "synced", "time-outs"],
)
async def test_workers_crashes_and_time_outs_in_any_order_leave_nothing_out_and_nothing_twice(
    server: Server, durability: Durability, ack_timeout: int
) -> None:
    seed = int(os.environ.get("INFOTAINER_TEST_SEED", random.randrange(1 << 32)))
    print(f"INFOTAINER_TEST_SEED={seed}")
    model = Model(server, seed, ack_timeout)
    await model.begin(durability)
    try:
        for _ in range(STEPS):
            await model.step()
        await model.drain()
    finally:
        await model.end()


class Crew:
    """Eight workers of one queue, who go on over restarts of the server, and what they saw."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seen: set[tuple[int, int]] = set()
        """Sequences with the number of the delivery."""
        self.settled: set[int] = set()
        """Acknowledged, and answered so."""
        self.asked: set[int] = set()
        """Acknowledged, and told as lost because the connection ended, or not answered yet."""
        self.is_over = False

    def saw(self, delivery: Delivery) -> None:
        sequence = delivery.sequence
        assert sequence not in self.settled, f"{sequence} came again"
        assert (sequence, delivery.delivery) not in self.seen, f"{sequence} is in flight twice"
        self.seen.add((sequence, delivery.delivery))

    async def work(self, url: str) -> None:
        held: list[Delivery] = []
        async with (
            connect(url, reconnect=EAGER) as client,
            client.subscribe("work", kind=Kind.QUEUE, prefetch=50) as jobs,
        ):
            async for delivery in jobs:
                if self.is_over:
                    return
                self.saw(delivery)
                held.append(delivery)
                if len(held) < 20:
                    continue
                self.random.shuffle(held)
                kept = self.random.randrange(20)
                done, held = held[kept:], held[:kept]
                await self.acknowledge(jobs, done)
                held = [one for one in held if not one.is_lost]

    async def acknowledge(self, jobs: QueueSubscription, done: list[Delivery]) -> None:
        # The same publication may be among them twice: as it was held on an earlier connection, and as it is now.
        live = {one.publication_id: one.sequence for one in done if not one.is_lost}
        known_lost = {one.publication_id for one in done} - live.keys()
        asked = set(live.values()) - self.asked
        self.asked |= asked
        answer = await within(jobs.acknowledge(done))
        lost = set(answer.lost or ())
        assert known_lost <= lost <= known_lost | live.keys()
        assert answer.count == len(live.keys() - lost)
        settled = {live[id] for id in live.keys() - lost}
        self.settled |= settled
        self.asked -= asked & settled


@pytest.mark.parametrize("durability", [Durability.WRITTEN, Durability.SYNCED])
async def test_kill_9_while_workers_work_brings_nothing_again_that_was_acknowledged_and_all_else(
    server: Server, durability: Durability
) -> None:
    seed = int(os.environ.get("INFOTAINER_TEST_SEED", random.randrange(1 << 32)))
    print(f"INFOTAINER_TEST_SEED={seed}")
    crew = Crew(seed)
    async with connect(server.url, reconnect=EAGER) as publisher:
        await publisher.create("work", Kind.QUEUE, durability=durability, max_deliveries=0)
        ids: dict[int, UUID] = {}

        async def publish() -> None:
            under_way = [await publisher.submit("work", bytes(50)) for _ in range(100)]
            for one in under_way:
                submitted = await within(one._wait())
                ids[submitted.sequence] = submitted.publication_id

        workers = [asyncio.ensure_future(crew.work(server.url)) for _ in range(8)]
        for _ in range(3):
            enough = len(crew.settled) + crew.random.randint(200, 800)
            while len(crew.settled) < enough:
                await publish()
            publishing = asyncio.ensure_future(publish())
            for _ in range(crew.random.randint(0, 5)):
                await asyncio.sleep(0)
            server.kill()
            server.start()
            await publishing
        crew.is_over = True
        await publish()
        for worker in workers:
            worker.cancel()
        results = await asyncio.gather(*workers, return_exceptions=True)
        assert [one for one in results if not isinstance(one, asyncio.CancelledError | None)] == []
        # What is left comes to the last one, in order.
        last = max(ids)
        assert len(ids) == last
        left: list[int] = []

        async def is_free() -> bool:
            return (await publisher.get("work")).in_flight == 0

        await eventually(is_free)
        async with publisher.subscribe("work", kind=Kind.QUEUE, prefetch=65_535) as jobs:
            meta = await publisher.get("work")
            for _ in range((meta.pending or 0) + (meta.in_flight or 0)):
                delivery = await within(anext(jobs))
                crew.saw(delivery)
                assert delivery.publication_id == ids[delivery.sequence]
                left.append(delivery.sequence)
            assert left == sorted(set(left))
            assert (await publisher.get("work")).pending == 0
        assert set(left) | crew.settled | crew.asked == set(range(1, last + 1))
        assert not set(left) & crew.settled
        assert crew.settled
        print(
            f"{durability}: {len(crew.settled)} settled, {len(crew.asked - set(left))} unsure, {len(left)} left"
        )

// A model of a Queue, and workers that crash with their server: whatever happens, nothing is in flight twice, nothing is lost, what
// was acknowledged does not come again, order holds, and `delivery` is right.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Delivery, QueueSubscription } from "infotainer";
import { type Chance, chances, cleanUp, Client, eager, eventually, Proxy, TestServer, within } from "./support.js";

after(cleanUp);

const NAME = "jobs";
/** So long that no lease of the model ends by itself. */
const LONG = 600_000;
const SHORT = 30;

/** A worker with a connection that can be cut, and what it has on lease. */
class Worker {
  readonly held = new Map<string, Delivery>();
  /** What it held on connections that have ended. */
  stale: Delivery[] = [];
  isAway = false;

  private constructor(
    readonly proxy: Proxy,
    readonly client: Client,
    readonly jobs: QueueSubscription,
    readonly prefetch: number,
  ) {}

  static async start(server: TestServer, prefetch: number, deliver: (worker: Worker, job: Delivery) => void): Promise<Worker> {
    const proxy = await Proxy.start(server);
    const client = new Client(proxy.url, eager);
    const jobs = client.subscribe(NAME, { kind: "Queue", prefetch });
    await within("a beginning", jobs.subscribed);
    const worker = new Worker(proxy, client, jobs, prefetch);
    void (async () => {
      for await (const job of jobs) deliver(worker, job);
    })();
    return worker;
  }

  /** What is on lease is not any more. */
  forget(): void {
    this.stale.push(...this.held.values());
    this.held.clear();
  }
}

class Model {
  readonly workers: Worker[] = [];
  /** What is not settled, in order of the sequences, with how often it was delivered. */
  readonly unsettled = new Map<string, number>();
  readonly dead = new Set<string>();
  /** A delivery that should not have been. */
  fault: Error | undefined;
  #last = 0;
  readonly #steps: string[] = [];
  /** Those that may have been leased to a connection that ended before they were sent. */
  #skipped = new Set<string>();
  /** Its leases end by time, which it may do before it is taken. */
  #late: string | undefined;

  private constructor(
    readonly server: TestServer,
    readonly client: Client,
    readonly chance: Chance,
  ) {}

  static async start(chance: Chance): Promise<Model> {
    const server = await TestServer.start();
    const client = await Client.connect(server.url, eager);
    await client.create(NAME, { kind: "Queue", settings: { ackTimeout: LONG, maxDeliveries: 0 } });
    await client.create(`${NAME}.dead-letter`);
    const model = new Model(server, client, chance);
    for (const prefetch of [1, 3, 4]) {
      model.workers.push(await Worker.start(server, prefetch, (worker, job) => model.#delivered(worker, job)));
    }
    return model;
  }

  #delivered(worker: Worker, job: Delivery): void {
    try {
      const id = job.publicationId;
      const before = this.unsettled.get(id);
      // The answer to its acknowledgement may go in front of a delivery that was under way.
      if (id === this.#late && before === undefined) return;
      assert.ok(before !== undefined, `${job.sequence} came again behind its end`);
      const expected = `delivery ${job.delivery} of ${job.sequence} comes behind ${before}`;
      assert.ok(this.#skipped.delete(id) || id === this.#late ? job.delivery > before : job.delivery === before + 1, expected);
      if (id === this.#late) for (const other of this.workers) other.held.delete(id);
      for (const other of this.workers) assert.ok(!other.held.has(id), `${job.sequence} is in flight twice`);
      this.unsettled.set(id, job.delivery);
      worker.held.set(id, job);
    } catch (error) {
      this.fault ??= error as Error;
    }
  }

  get present(): Worker[] {
    return this.workers.filter((worker) => !worker.isAway);
  }

  /** How much more the workers have room for. */
  get room(): number {
    return this.present.reduce((room, { prefetch, held }) => room + prefetch - held.size, 0);
  }

  /** Waits until the workers have on lease what they have room for, and looks whether it is what has to be first. */
  async settles(): Promise<void> {
    const leased = () => this.workers.reduce((sum, { held }) => sum + held.size, 0);
    await eventually("what there is room for", () => {
      if (this.fault) throw this.fault;
      return this.room === 0 || leased() === this.unsettled.size;
    });
    const { pending, inFlight } = await this.client.get(NAME);
    assert.deepEqual({ pending, inFlight }, { pending: this.unsettled.size - leased(), inFlight: leased() });
    if (this.fault) throw this.fault;
    if (this.present.length < this.workers.length) return;
    const first = [...this.unsettled.keys()].slice(0, leased());
    assert.deepEqual(new Set(this.workers.flatMap(({ held }) => [...held.keys()])), new Set(first), "not in order");
  }

  async submit(count: number): Promise<void> {
    const publishing = Array.from({ length: count }, () => this.client.publish(NAME, "job"));
    // Workers may hear of it before the answer comes.
    for (const { publicationId } of publishing) this.unsettled.set(publicationId, 0);
    for (const { sequence } of await within("answers", Promise.all(publishing))) assert.equal(sequence, ++this.#last);
  }

  /** Some of what a worker holds. */
  #some(worker: Worker): Delivery[] {
    return [...worker.held.values()].filter(() => this.chance.below(2) === 0);
  }

  async acknowledge(worker: Worker): Promise<void> {
    const jobs = this.#some(worker);
    for (const { publicationId } of jobs) {
      worker.held.delete(publicationId);
      this.unsettled.delete(publicationId);
    }
    const { count, lost } = await within("an answer", worker.jobs.acknowledge([...jobs, ...worker.stale]));
    assert.deepEqual([count, lost], [jobs.length, worker.stale.map((job) => job.publicationId)]);
  }

  async reject(worker: Worker, deadLetter: boolean): Promise<void> {
    const jobs = this.#some(worker);
    for (const { publicationId } of jobs) {
      worker.held.delete(publicationId);
      if (!deadLetter) continue;
      this.unsettled.delete(publicationId);
      this.dead.add(publicationId);
    }
    const { count, lost } = await within("an answer", worker.jobs.reject([...jobs, ...worker.stale], { deadLetter }));
    assert.deepEqual([count, lost], [jobs.length, worker.stale.map((job) => job.publicationId)]);
    // Until it is moved, it is pending.
    const moved = async () => (await this.client.get(`${NAME}.dead-letter`)).lastSequence === this.dead.size;
    if (deadLetter && jobs.length > 0) await eventually("dead letters", moved);
  }

  async extend(worker: Worker): Promise<void> {
    const jobs = this.#some(worker);
    const { count, lost } = await within("an answer", worker.jobs.extend([...jobs, ...worker.stale]));
    assert.deepEqual([count, lost], [jobs.length, worker.stale.map((job) => job.publicationId)]);
  }

  /** One lease ends by time, and its publication comes again. */
  async timeOut(): Promise<void> {
    if (this.room === 0) return;
    await this.client.update(NAME, { ackTimeout: SHORT });
    const { publicationId: id } = this.client.publish(NAME, "late");
    this.#late = id;
    this.#last += 1;
    this.unsettled.set(id, 0);
    for (let isSettled = false; !isSettled; ) {
      await eventually("the third delivery", () => this.fault !== undefined || this.unsettled.get(id)! >= 3);
      if (this.fault) throw this.fault;
      // The time of this one may be out, too.
      const worker = this.workers.find(({ held }) => held.has(id))!;
      isSettled = (await within("an answer", worker.jobs.acknowledge([worker.held.get(id)!]))).count === 1;
    }
    for (const { held } of this.workers) held.delete(id);
    this.unsettled.delete(id);
    await this.client.update(NAME, { ackTimeout: LONG });
  }

  async disconnect(worker: Worker): Promise<void> {
    worker.forget();
    worker.isAway = true;
    worker.proxy.down();
    await this.settles();
    worker.isAway = false;
    worker.proxy.up();
  }

  async restart(isOrderly: boolean): Promise<void> {
    for (const worker of this.workers) worker.forget();
    await (isOrderly ? this.server.stop() : this.server.kill());
    if (isOrderly) {
      // Connections end one after the other, and those that are left may be delivered to.
      await eventually("the end of the connections", () => this.workers.every(({ client }) => client.status.state !== "connected"));
      for (const worker of this.workers) worker.forget();
      this.#skipped = new Set(this.unsettled.keys());
    }
    await this.server.startAgain();
  }

  async step(): Promise<void> {
    const { chance } = this;
    const worker = chance.of(this.workers);
    const operations = {
      submit: () => this.submit(chance.below(6)),
      "submit more": () => this.submit(chance.below(6)),
      acknowledge: () => this.acknowledge(worker),
      "acknowledge more": () => this.acknowledge(worker),
      "acknowledge still more": () => this.acknowledge(worker),
      reject: () => this.reject(worker, false),
      "dead letter": () => this.reject(worker, true),
      extend: () => this.extend(worker),
      "time out": () => this.timeOut(),
      disconnect: () => this.disconnect(worker),
      stop: () => this.restart(true),
      "kill -9": () => this.restart(false),
    };
    const name = chance.of(Object.keys(operations) as (keyof typeof operations)[]);
    this.#steps.push(name);
    try {
      await operations[name]();
      await this.settles();
    } catch (error) {
      throw new Error(`behind ${this.#steps.join(", ")}`, { cause: error });
    }
  }

  /** Works off what is left, and looks where everything went. */
  async finish(): Promise<void> {
    while (this.unsettled.size > 0) {
      for (const worker of this.workers) await this.acknowledge(worker);
      await this.settles();
    }
    const letters = new Set<string>();
    for await (const letter of this.client.log(`${NAME}.dead-letter`)) {
      assert.equal(letter.deadLetter?.reason, "rejected");
      letters.add(letter.publicationId);
    }
    assert.deepEqual(letters, this.dead);
    const { pending, inFlight, lastSequence } = await this.client.get(NAME);
    assert.deepEqual([pending, inFlight, lastSequence], [0, 0, this.#last]);
    await Promise.all([this.client, ...this.workers.map(({ client }) => client)].map((client) => client.close()));
    await this.server.remove();
  }
}

test("a Queue does what its model does", async () => {
  const chance = chances("queue model");
  for (let round = 0; round < 2; round++) {
    const model = await Model.start(chance);
    for (let step = 0; step < 45; step++) await model.step();
    await model.finish();
  }
});

test("no acknowledged publication comes again after kill -9, and every other does", async () => {
  const JOBS = 3_000;
  const server = await TestServer.start();
  const publisher = await Client.connect(server.url, eager);
  await publisher.create(NAME, { kind: "Queue", settings: { maxDeliveries: 0 } });
  const ids = new Set<string>();
  const publishing = Array.from({ length: JOBS }, () => publisher.publish(NAME, "job"));

  /** Those whose acknowledgement was answered. */
  const acknowledged = new Set<string>();
  /** Those whose acknowledgement was under way when the connection ended: they may come again, and need not. */
  const unsure = new Set<string>();
  const deliveries = new Map<string, number>();
  let fault: Error | undefined;
  const clients = await Promise.all(Array.from({ length: 8 }, () => Client.connect(server.url, eager)));
  const workers = clients.map(async (client) => {
    const jobs = client.subscribe(NAME, { kind: "Queue", prefetch: 16 });
    const batch: Delivery[] = [];
    for await (const job of jobs) {
      const id = job.publicationId;
      if (acknowledged.has(id)) fault ??= new Error(`${job.sequence} came again`);
      if (job.delivery <= (deliveries.get(id) ?? 0)) fault ??= new Error(`${job.sequence}: delivery ${job.delivery} again`);
      deliveries.set(id, job.delivery);
      unsure.delete(id);
      batch.push(job);
      // The last of all are no whole batch.
      if (batch.length < 8 && acknowledged.size + unsure.size < JOBS - 200) continue;
      const asked = batch.splice(0);
      const lost = new Set((await jobs.acknowledge(asked)).lost);
      for (const { publicationId, delivery } of asked) {
        if (!lost.has(publicationId)) acknowledged.add(publicationId);
        // Unless it came again in the meantime.
        else if (deliveries.get(publicationId) === delivery) unsure.add(publicationId);
      }
    }
  });
  for (const share of [0.2, 0.5, 0.8]) {
    await eventually(`${share} of the work`, () => fault !== undefined || acknowledged.size >= JOBS * share);
    await server.kill();
    await server.startAgain();
  }
  for (const { publicationId } of await within("answers", Promise.all(publishing))) ids.add(publicationId);
  await eventually("the end of the work", async () => {
    const { pending, inFlight } = await publisher.get(NAME);
    return fault !== undefined || (pending === 0 && inFlight === 0);
  });
  if (fault) throw fault;
  await Promise.all(clients.map((client) => client.close()));
  await within("the workers", Promise.all(workers));
  assert.deepEqual(new Set(deliveries.keys()), ids);
  assert.equal(acknowledged.size + [...unsure].filter((id) => !acknowledged.has(id)).length, JOBS);
  await publisher.close();
  await server.remove();
});

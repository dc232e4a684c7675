// Queues with the real server: how a worker's subscription begins, goes on after a reconnect, and ends.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";
import { type Delivery, newSession, type QueueSubscription, RequestError, subscriptionId } from "infotainer";
import { cleanUp, Client, eager, eventually, failure, PlainSocket, Proxy, TestServer, within } from "./support.js";

let server: TestServer;
before(async () => (server = await TestServer.start()));
after(cleanUp);

const connect = (options = {}) => Client.connect(server.url, { ...eager, ...options });
const unique = () => `jobs ${randomUUID()}`;

/** The next delivery, which has to be of this sequence, and for the so manyeth time. */
async function delivered(jobs: QueueSubscription, sequence: number, delivery: number): Promise<Delivery> {
  const result = await within(`delivery of ${sequence}`, jobs.next());
  assert.ok(!result.done);
  assert.deepEqual([result.value.sequence, result.value.delivery], [sequence, delivery]);
  return result.value;
}

async function publish(client: Client, name: string, count: number): Promise<void> {
  await Promise.all(Array.from({ length: count }, (_, n) => client.publish(name, `job ${n + 1}`)));
}

async function counts(client: Client, name: string): Promise<[number | undefined, number | undefined]> {
  const { pending, inFlight } = await client.get(name);
  return [pending, inFlight];
}

async function countsAre(client: Client, name: string, pending: number, inFlight: number): Promise<void> {
  await eventually(`${pending} are pending, and ${inFlight} in flight`, async () => {
    const [waiting, leased] = await counts(client, name);
    return waiting === pending && leased === inFlight;
  });
}

test("no more than the prefetch is on lease, and settling makes room", async () => {
  const client = await connect();
  const name = unique();
  const jobs = client.subscribe(name, { kind: "Queue", prefetch: 2 });
  await jobs.subscribed;
  assert.equal(jobs.prefetch, 2);
  assert.equal(jobs.id, subscriptionId(name));
  await publish(client, name, 5);
  const held = [await delivered(jobs, 1, 1), await delivered(jobs, 2, 1)];
  assert.deepEqual(await counts(client, name), [3, 2]);
  const settled = { subscriptionId: jobs.id, lost: [] };
  assert.deepEqual(await jobs.extend(held), { ...settled, count: 2 });
  assert.deepEqual(await jobs.acknowledge(held), { ...settled, count: 2 });
  assert.deepEqual(await jobs.acknowledge([]), { ...settled, count: 0 });
  await delivered(jobs, 3, 1);
  await delivered(jobs, 4, 1);
  const again = await jobs.acknowledge(held);
  assert.deepEqual([again.count, again.lost], [0, held.map((job) => job.publicationId)]);
  assert.deepEqual(await counts(client, name), [1, 2]);
  await client.close();
  assert.deepEqual(await jobs.next(), { done: true, value: undefined });
});

test("rejected ones come again behind later ones that were seen, and not before their delay", async () => {
  const client = await connect();
  const name = unique();
  const jobs = client.subscribe(name, { kind: "Queue", prefetch: 3 });
  await publish(client, name, 3);
  const first = await delivered(jobs, 1, 1);
  const second = await delivered(jobs, 2, 1);
  await delivered(jobs, 3, 1);
  await jobs.reject([first]);
  await delivered(jobs, 1, 2);
  const begun = Date.now();
  await jobs.reject([second], { delay: 200 });
  await delivered(jobs, 2, 2);
  // The server's clock counts in whole milliseconds.
  assert.ok(Date.now() - begun >= 199);
  await client.close();
});

test("dead letters say where they come from", async () => {
  const client = await connect();
  const name = unique();
  const settings = { maxDeliveries: 2, ackTimeout: 60_000, deadLetter: `${name} bin` };
  const meta = await client.create(name, { kind: "Queue", settings });
  assert.equal(meta.kind, "Queue");
  assert.equal(meta.settings.deadLetter, subscriptionId(`${name} bin`));
  const jobs = client.subscribe(name, { kind: "Queue" });
  const bin = client.subscribe(`${name} bin`, { from: "First" });
  await publish(client, name, 2);
  const [first, second] = [await delivered(jobs, 1, 1), await delivered(jobs, 2, 1)];
  await jobs.reject([first], { deadLetter: true });
  await jobs.reject([second]);
  await jobs.reject([await delivered(jobs, 2, 2)]);
  for (const [job, deliveries, reason] of [[first, 1, "rejected"], [second, 2, "max-deliveries"]] as const) {
    const { value } = await within("a dead letter", bin.next());
    assert.ok(value?.type === "Publication");
    assert.equal(value.publicationId, job.publicationId);
    const { epoch } = await client.get(name);
    assert.deepEqual(value.deadLetter, { subscriptionId: jobs.id, epoch, sequence: job.sequence, deliveries, reason });
  }
  const changed = await client.update(name, { ackTimeout: null, maxDeliveries: 0 });
  assert.deepEqual([changed.settings.ackTimeout, changed.settings.maxDeliveries], [30_000, 0]);
  await client.close();
});

test("what is held when a connection ends is told as lost, and comes again", async () => {
  const proxy = await Proxy.start(server);
  const client = await Client.connect(proxy.url, eager);
  const direct = await connect();
  const name = unique();
  const jobs = client.subscribe(name, { kind: "Queue", prefetch: 3 });
  await jobs.subscribed;
  await publish(direct, name, 3);
  // The other two wait to be taken.
  const held = await delivered(jobs, 1, 1);
  await countsAre(direct, name, 0, 3);
  proxy.down();
  await countsAre(direct, name, 3, 0);
  const lost = { subscriptionId: jobs.id, count: 0, lost: [held.publicationId] };
  assert.deepEqual(await jobs.acknowledge([held]), lost);
  proxy.up();
  const again = [await delivered(jobs, 1, 2), await delivered(jobs, 2, 2), await delivered(jobs, 3, 2)];
  // It is on lease to the same worker, but not by that delivery.
  assert.deepEqual(await jobs.acknowledge([held]), lost);
  assert.deepEqual(await jobs.reject([held]), lost);
  await countsAre(direct, name, 0, 3);
  const mixed = await jobs.acknowledge([held, ...again]);
  assert.deepEqual([mixed.count, mixed.lost], [3, [held.publicationId]]);
  await countsAre(direct, name, 0, 0);
  await Promise.all([client.close(), direct.close()]);
  proxy.close();
});

test("leaving the loop gives back what is not settled", async () => {
  const client = await connect({ session: newSession() });
  const other = await connect();
  const name = unique();
  const jobs = client.subscribe(name, { kind: "Queue", prefetch: 2 });
  await publish(client, name, 3);
  let held: Delivery | undefined;
  for await (const job of jobs) {
    held = job;
    break;
  }
  assert.deepEqual((await jobs.acknowledge([held!])).lost, [held!.publicationId]);
  const others = other.subscribe(name, { kind: "Queue" });
  await delivered(others, 1, 2);
  await others.unsubscribe();
  assert.deepEqual(await others.next(), { done: true, value: undefined });
  await countsAre(client, name, 3, 0);
  assert.equal((await client.get(name)).subscribers, 0);
  await Promise.all([client.close(), other.close()]);
});

test("durable session that comes back has its Queue again, with new deliveries", async () => {
  const session = newSession();
  const name = unique();
  const first = await connect({ session });
  const jobs = first.subscribe(name, { kind: "Queue", prefetch: 2 });
  await publish(first, name, 3);
  await jobs.acknowledge([await delivered(jobs, 1, 1)]);
  await delivered(jobs, 2, 1);
  await delivered(jobs, 3, 1);
  await first.close();

  const second = await connect({ session });
  // They may be there before anybody has asked.
  await countsAre(second, name, 0, 2);
  const again = second.subscribe(name, { kind: "Queue", prefetch: 5 });
  const held = [await delivered(again, 2, 2), await delivered(again, 3, 2)];
  assert.equal((await again.acknowledge(held)).count, 2);
  await second.ping();
  assert.equal(again.prefetch, 5);
  await second.close();
});

test("Queue that a session has again and nobody asks for is given up", async () => {
  const session = newSession();
  const name = unique();
  const first = await connect({ session });
  const jobs = first.subscribe(name, { kind: "Queue" });
  await publish(first, name, 2);
  await delivered(jobs, 1, 1);
  await first.close();
  const second = await connect({ session });
  const other = await connect();
  const others = other.subscribe(name, { kind: "Queue" });
  // What the session was not served yet when the other came goes to that at once, before what is given up.
  const sequences = [];
  for (let n = 0; n < 2; n++) sequences.push((await within("a delivery", others.next())).value?.sequence);
  assert.deepEqual(sequences.sort(), [1, 2]);
  await Promise.all([second.close(), other.close()]);
});

test("deletion, the other kind and a second subscription are told", async () => {
  const client = await connect();
  const name = unique();
  const jobs = client.subscribe(name, { kind: "Queue" });
  await jobs.subscribed;
  assert.throws(() => client.subscribe(name, { kind: "Queue" }), { kind: "AlreadySubscribed" });
  // Its commands are not to be held to the grammar, which has no such prefetch.
  const other = await connect({ WebSocket: PlainSocket });
  assert.equal((await failure(other.subscribe(name).next())).code, "kind-mismatch");
  assert.equal((await failure(other.subscribe(name, { kind: "Queue", prefetch: 0 }).subscribed)).code, "invalid-argument");
  await other.publish(`${name} news`, "x");
  assert.equal((await failure(other.subscribe(`${name} news`, { kind: "Queue" }).next())).code, "kind-mismatch");
  const end = failure(jobs.next());
  await other.delete(name);
  const error = await end;
  assert.ok(error instanceof RequestError && error.kind === "Deleted");
  assert.deepEqual(await jobs.next(), { done: true, value: undefined });
  await Promise.all([client.close(), other.close()]);
});

// The client against the real server, through a proxy that cuts connections where the test wants.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import {
  ClosedError,
  ConnectionError,
  newPublicationId,
  newSession,
  RequestError,
  type Status,
  subscriptionId,
} from "infotainer";
import { cleanUp, Client, eager, eventually, failure, next, nextSequence, PlainSocket, Proxy, stored, TestServer, within } from "./support.js";

let server: TestServer;
before(async () => (server = await TestServer.start()));
after(cleanUp);

const connect = (options = {}) => Client.connect(server.url, { ...eager, ...options });
const unique = () => `test ${randomUUID()}`;

/** What may be under way when a test ends must not keep it. */
async function withProxy(body: (proxy: Proxy) => Promise<void>): Promise<void> {
  const proxy = await Proxy.start(server);
  try {
    await body(proxy);
  } finally {
    proxy.close();
  }
}

test("what is published comes to who is subscribed", async () => {
  const client = await connect();
  const name = unique();
  const seen: string[] = [];
  const subscription = client.subscribe(name, { from: "First" });
  await client.publish(name, "text");
  await client.publish(name, new Uint8Array([1, 2, 3]));
  await client.publish(name, new Uint8Array([9, 1, 2, 9]).subarray(1, 3));
  await client.publish(name, new Uint8Array([4]).buffer);
  for await (const event of subscription) {
    assert.equal(event.type, "Publication");
    if (event.type !== "Publication") return;
    assert.equal(event.subscriptionId, subscriptionId(name));
    assert.ok(Math.abs(event.time - Date.now()) < 600_000);
    seen.push(Buffer.from(event.data).toString("hex"));
    if (seen.length === 4) break;
  }
  assert.deepEqual(seen, [Buffer.from("text").toString("hex"), "010203", "0102", "04"]);
  // Leaving the loop has unsubscribed.
  assert.equal((await client.get(name)).subscribers, 0);
  await client.close();
});

test("what is published is copied at once", async () => {
  const client = await connect();
  const name = unique();
  const data = new Uint8Array(10_000).fill(1);
  const publishing = client.publish(name, data);
  data.fill(2);
  await publishing;
  for await (const publication of client.log(name)) assert.ok(publication.data.every((byte) => byte === 1));
  await client.close();
});

test("publications under way survive kill -9 and a restart of the server", async () => {
  const own = await TestServer.start();
  const client = await Client.connect(own.url, eager);
  const subscription = client.subscribe("news");
  await subscription.subscribed;
  const publishing = Array.from({ length: 3_000 }, (_, n) => client.publish("news", `${n}`));
  for (let n = 1; n <= 500; n++) assert.equal(await nextSequence(subscription), n);
  await own.kill();
  await own.startAgain();
  const submitted = await within("all answers", Promise.all(publishing));
  assert.deepEqual(
    submitted.map((one) => one.sequence),
    Array.from({ length: 3_000 }, (_, n) => n + 1),
  );
  // The end of the log may be missing after kill -9 of the server, as far as it knows; then it says so, and begins at the oldest.
  let last = 500;
  while (last < 3_000) {
    const event = await next(subscription);
    if (event.type === "NotRecovered") {
      last = event.cursor;
    } else {
      assert.equal(event.type === "Publication" && event.sequence, last + 1);
      last += 1;
    }
  }
  assert.equal((await stored(client, "news")).length, 3_000);
  await client.close();
  await own.remove();
});

test("order of the calls is the order of the sequences, whatever is under way", async () => {
  const client = new Client(server.url, { ...eager, inFlight: 3 });
  const name = unique();
  const publishing = Array.from({ length: 200 }, (_, n) => client.publish(name, `${n}`));
  const submitted = await Promise.all(publishing);
  submitted.forEach((one, at) => assert.equal(one.sequence, at + 1));
  await client.close();
});

test("no more is in flight than allowed, and the rest waits in line", () =>
  withProxy(async (proxy) => {
    const client = await Client.connect(proxy.url, { ...eager, inFlight: 2 });
    proxy.down();
    const name = unique();
    const [first, second, third] = ["one", "two", "three"].map((text) => client.publish(name, text));
    await within("two in line", Promise.all([first!.inLine(), second!.inLine()]));
    let isInLine = false;
    void third!.inLine().then(() => (isInLine = true));
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(isInLine, false);
    proxy.up();
    await within("three in line", third!.inLine());
    assert.equal((await third!).sequence, 3);
    await client.close();
  }));

test("publication with the same id is added once", async () => {
  const client = await connect();
  const name = unique();
  const publicationId = newPublicationId();
  const first = await client.publish(name, "x", { publicationId });
  const second = await client.publish(name, "x", { publicationId });
  assert.deepEqual([first.duplicate, second.duplicate], [false, true]);
  assert.equal(second.sequence, first.sequence);
  assert.deepEqual(await stored(client, name), [publicationId]);
  await client.close();
});

test("what a durable session has not done with comes again to its next client", async () => {
  const name = unique();
  const session = newSession();
  const first = await connect({ session });
  let subscription = first.subscribe(name);
  for (let n = 1; n <= 5; n++) await first.publish(name, `${n}`);
  for (let n = 1; n <= 3; n++) assert.equal(await nextSequence(subscription), n);
  await first.close();

  // Three were taken, and asking for the third has done with two.
  const second = await connect({ session });
  subscription = second.subscribe(name);
  await subscription.subscribed;
  assert.equal(subscription.position, 2);
  assert.equal(await nextSequence(subscription), 3);
  assert.equal(await nextSequence(subscription), 4);
  await second.close();

  const third = await connect({ session });
  subscription = third.subscribe(name, { acknowledgeByHand: true });
  for (let n = 4; n <= 5; n++) assert.equal(await nextSequence(subscription), n);
  await third.close();

  // Nothing was acknowledged, so the same come again.
  const fourth = await connect({ session });
  subscription = fourth.subscribe(name, { acknowledgeByHand: true });
  for (let n = 4; n <= 5; n++) assert.equal(await nextSequence(subscription), n);
  const settled = await subscription.acknowledge(5);
  assert.equal(settled.subscriptionId, subscription.id);
  await fourth.close();

  const fifth = await connect({ session });
  subscription = fifth.subscribe(name);
  await fifth.publish(name, "6");
  assert.equal(await nextSequence(subscription), 6);
  await subscription.unsubscribe();
  assert.equal((await fifth.get(name)).subscribers, 0);
  await fifth.close();
});

test("durable session keeps what a loop left, for the next loop of the same client", async () => {
  const name = unique();
  const client = await connect({ session: newSession() });
  const first = client.subscribe(name);
  for (let n = 1; n <= 5; n++) await client.publish(name, `${n}`);
  const seen: number[] = [];
  for await (const event of first) {
    if (event.type === "Publication") seen.push(event.sequence);
    if (seen.length === 3) break;
  }
  // The third was taken, but the next one was never asked for.
  for await (const event of client.subscribe(name)) {
    if (event.type === "Publication") seen.push(event.sequence);
    if (seen.length === 6) break;
  }
  assert.deepEqual(seen, [1, 2, 3, 3, 4, 5]);
  await client.close();
});

test("client that was taken over does not come back", () =>
  withProxy(async (proxy) => {
    const name = unique();
    const session = newSession();
    const first = await Client.connect(proxy.url, { ...eager, session });
    const subscription = first.subscribe(name);
    await subscription.subscribed;
    const second = await connect({ session });
    const error = await failure(subscription.next());
    assert.ok(error instanceof RequestError && error.kind === "Closed");
    assert.ok(error.cause instanceof ClosedError && error.cause.kind === "ByServer");
    assert.ok(error.cause.cause instanceof ConnectionError);
    assert.deepEqual([error.cause.cause.kind, error.cause.cause.code], ["Closed", 4502]);
    assert.deepEqual(await subscription.next(), { done: true, value: undefined });
    assert.equal((await failure(first.publish(name, "x"))).cause.cause.code, 4502);
    assert.equal(first.status.state, "closed");
    assert.throws(() => first.subscribe(name), { kind: "Closed" });
    assert.equal(proxy.connections, 1);
    await first.close();
    await second.ping();
    await second.close();
  }));

test("what retention took is told as a gap", async () => {
  const name = unique();
  const client = await connect();
  await client.create(name, { settings: { retention: { maxPublications: 2 } } });
  for (let n = 1; n <= 6; n++) await client.publish(name, `${n}`);
  await eventually("retention", async () => (await client.get(name)).firstSequence === 5);
  const { epoch } = await client.get(name);
  const subscription = client.subscribe(name, { from: { After: 1 }, epoch });
  assert.deepEqual(await next(subscription), { type: "Gap", from: 2, to: 4, cause: "retention" });
  assert.equal(await nextSequence(subscription), 5);
  assert.equal(await nextSequence(subscription), 6);
  await client.close();
});

test("log that began anew meanwhile is told as not recovered", () =>
  withProxy(async (proxy) => {
    const name = unique();
    const direct = await connect();
    const client = await Client.connect(proxy.url, eager);
    const subscription = client.subscribe(name);
    await subscription.subscribed;
    await direct.publish(name, "old");
    assert.equal(await nextSequence(subscription), 1);
    const { epoch } = subscription;
    proxy.down();
    await direct.delete(name);
    await direct.publish(name, "new");
    proxy.up();
    const event = await next(subscription);
    const now = (await direct.get(name)).epoch;
    assert.notEqual(now, epoch);
    assert.deepEqual(event, { type: "NotRecovered", previous: { epoch, sequence: 1 }, epoch: now, cursor: 0 });
    assert.equal(await nextSequence(subscription), 1);
    assert.equal(subscription.epoch, now);
    await Promise.all([client.close(), direct.close()]);
  }));

test("position of another epoch is told as not recovered", async () => {
  const name = unique();
  const client = await connect();
  await client.publish(name, "one");
  const subscription = client.subscribe(name, { from: { After: 1 }, epoch: randomUUID() });
  const event = await next(subscription);
  assert.equal(event.type === "NotRecovered" && event.cursor, 0);
  assert.equal(await nextSequence(subscription), 1);
  await client.close();
});

test("deletion is told at once and ends the iteration", async () => {
  const name = unique();
  const client = await connect();
  const other = await connect();
  for (const deleting of [client, other]) {
    const subscription = client.subscribe(name);
    await subscription.subscribed;
    await deleting.delete(name);
    assert.deepEqual(await next(subscription), { type: "Deleted" });
    assert.equal((await within("the end", subscription.next())).done, true);
  }
  await Promise.all([client.close(), other.close()]);
});

test("deletion is told to a durable session that was away", () =>
  withProxy(async (proxy) => {
    const name = unique();
    const direct = await connect();
    const client = await Client.connect(proxy.url, { ...eager, session: newSession() });
    const subscription = client.subscribe(name);
    await subscription.subscribed;
    // A session that holds nothing is forgotten.
    await client.subscribe(unique()).subscribed;
    proxy.down();
    await direct.delete(name);
    await direct.publish(name, "new");
    proxy.up();
    assert.deepEqual(await next(subscription), { type: "Deleted" });
    assert.equal((await within("the end", subscription.next())).done, true);
    await Promise.all([client.close(), direct.close()]);
  }));

test("refusals say their code", async () => {
  const name = unique();
  // What is wrong on purpose is not noted.
  const client = await connect({ WebSocket: PlainSocket });
  const nothing = await failure(client.get(unique()));
  assert.ok(nothing instanceof RequestError);
  assert.deepEqual([nothing.kind, nothing.code, nothing.command, nothing.temporary], [
    "Refused",
    "not-found",
    "GetSubscription",
    false,
  ]);
  assert.ok(nothing.message.length > 0);
  assert.equal((await failure(client.delete(unique()))).code, "not-found");
  await client.publish(name, "one");
  assert.equal((await failure(client.publish(name, "x", { expectedSequence: 7 }))).code, "conflict");
  assert.equal((await failure(client.publish(name, "x", { publicationId: "no id" }))).code, "invalid-argument");
  assert.equal((await failure(client.acknowledge(name, 1))).code, "invalid-argument");
  const settings = { durability: "Memory" } as const;
  assert.equal((await failure(client.create(name, { kind: "Broadcast", settings }))).code, "conflict");
  assert.equal((await failure(client.subscribe("\u007f").next())).code, "invalid-argument");
  const held = client.subscribe(name);
  assert.throws(() => client.subscribe(name), { kind: "AlreadySubscribed" });
  assert.throws(() => client.subscribe(subscriptionId(name)), { kind: "AlreadySubscribed" });
  await held.subscribed;
  await held.return();
  await client.subscribe(name).subscribed;
  await client.close();
});

test("message that the server would not take is not sent", () =>
  withProxy(async (proxy) => {
    const client = await Client.connect(proxy.url, eager);
    const name = unique();
    assert.equal((await failure(client.publish(name, new Uint8Array(300 << 10)))).kind, "TooLarge");
    assert.equal((await failure(client.subscribe("n".repeat(300 << 10)).next())).kind, "TooLarge");
    await client.publish(name, "small");
    assert.equal(proxy.connections, 1);
    await client.close();
  }));

test("failure to connect says what failed", async () => {
  const own = await TestServer.start();
  const elsewhere = `ws://${own.address}/elsewhere`;
  const refused = await failure(Client.connect(elsewhere, eager));
  assert.ok(refused instanceof ConnectionError);
  assert.deepEqual([refused.kind, refused.code, refused.isFinal], ["Refused", 404, true]);
  // It is not tried again in the background either.
  const client = new Client(elsewhere, eager);
  const closed = await failure(client.ping());
  assert.deepEqual([closed.kind, closed.cause.kind, closed.cause.cause.code], ["Closed", "ByServer", 404]);
  await client.close();
  await own.stop();
  assert.equal((await failure(Client.connect(own.url, eager))).kind, "Io");
  const gaveUp = new Client(own.url, { ...eager, reconnect: { firstPause: 1, attempts: 3 } });
  const error = await failure(gaveUp.ping());
  assert.deepEqual([error.cause.kind, error.cause.cause.kind], ["GaveUp", "Io"]);
  for (const url of ["nonsense", "http://127.0.0.1/ws"]) assert.throws(() => new Client(url, eager), { kind: "Url" });
  assert.throws(() => new Client(own.url, { ...eager, session: "no id" }), { kind: "Url" });
  await own.remove();
});

test("request without an answer ends in time", () =>
  withProxy(async (proxy) => {
    const client = await Client.connect(proxy.url, { ...eager, requestTimeout: 20 });
    proxy.down();
    const publicationId = newPublicationId();
    const error = await failure(client.publish(unique(), "x", { publicationId }));
    assert.deepEqual([error.kind, error.publicationId], ["TimedOut", publicationId]);
    assert.equal((await failure(client.ping())).kind, "TimedOut");
    assert.equal((await failure(client.subscribe(unique()).next())).kind, "TimedOut");
    await client.close();
  }));

/** A reader that does not read, on a connection that has other things to do. */
async function slowReader(session?: string): Promise<void> {
  const COUNT = 3_000;
  const name = unique();
  const client = await connect(session ? { session } : {});
  const slow = client.subscribe(name, { buffer: { events: 16 } });
  const payload = new Uint8Array(2_000);
  // The answers come although nobody reads what they stand behind.
  await Promise.all(Array.from({ length: COUNT }, () => client.publish(name, payload)));
  for (let n = 1; n <= COUNT; n++) {
    assert.equal(await nextSequence(slow), n);
    // Now and then it waits for an answer itself.
    if (n % 500 === 0) await client.ping();
  }
  await client.close();
}

test("slow reader misses nothing and holds up no answer", () => slowReader());

test("slow reader of a durable session misses nothing and holds up no answer", () => slowReader(newSession()));

test("slow reader costs bounded memory", async () => {
  setFlagsFromString("--expose-gc");
  const gc: () => void = runInNewContext("gc");
  const name = unique();
  const client = await connect();
  const slow = client.subscribe(name, { buffer: { bytes: 1 << 20 } });
  const payload = new Uint8Array(100_000);
  const round = async () => {
    for (let n = 0; n < 500; n++) await client.publish(name, payload);
    await client.ping();
    gc();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    return heapUsed + arrayBuffers;
  };
  const before = await round();
  const behind = await round();
  // 50 MB were published meanwhile.
  assert.ok(behind - before < 10 << 20, `${before} ${behind}`);
  for (let n = 1; n <= 1_000; n++) assert.equal(await nextSequence(slow), n);
  await client.close();
});

test("log is read in pages, ids and all at once", async () => {
  const name = unique();
  const client = await connect();
  for (let n = 1; n <= 25; n++) await client.publish(name, `${n}`);
  const pages: number[] = [];
  for await (const page of client.log(name, { after: 3, pageSize: 10 }).pages()) pages.push(page.publications.length);
  assert.deepEqual(pages, [10, 10, 2]);
  const ids = await stored(client, name);
  const index: string[] = [];
  for await (const page of client.log(name, { pageSize: 10 }).index()) index.push(...page.entries);
  assert.deepEqual(index, ids);
  const unknown = randomUUID();
  const found = await client.entries(name, [ids[4]!, unknown, ids[1]!.toUpperCase(), ids[4]!]);
  assert.deepEqual(
    found.publications.map((one) => one.sequence),
    [2, 5],
  );
  assert.deepEqual(found.missing, [unknown]);
  assert.deepEqual(await client.entries(name, []), { publications: [], missing: [] });
  assert.equal((await failure(client.log(unique())[Symbol.asyncIterator]().next())).code, "not-found");
  await client.create(unique());
  const empty = unique();
  await client.create(empty);
  for await (const _ of client.log(empty)) assert.fail();
  await client.close();
});

test("ids are looked up as often as it takes", async () => {
  const name = unique();
  const client = await connect();
  const payload = new Uint8Array(200_000);
  const ids = (await Promise.all(Array.from({ length: 30 }, () => client.publish(name, payload)))).map(
    (one) => one.publicationId,
  );
  // The answer is cut at 4 MiB, and so many ids don't go into one request.
  const unknown = Array.from({ length: 10_050 }, () => randomUUID());
  const found = await client.entries(name, [...unknown, ...ids]);
  assert.equal(found.publications.length, 30);
  assert.deepEqual(new Set(found.missing), new Set(unknown));
  let pages = 0;
  for await (const _ of client.log(name).pages()) pages += 1;
  assert.ok(pages > 1);
  await client.close();
});

test("subscriptions are made, changed, listed and deleted", async () => {
  const own = await TestServer.start();
  const client = await Client.connect(own.url, eager);
  await Promise.all(Array.from({ length: 150 }, (_, n) => client.create(`s${n}`)));
  const meta = await client.update("s7", { retention: { maxAge: 60_000 } });
  assert.deepEqual(meta.settings, { name: "s7", retention: { maxAge: 60_000 }, durability: "Written" });
  assert.deepEqual(await client.get("s7"), meta);
  assert.deepEqual((await client.update("s7", { retention: null })).settings.retention, {});
  await client.delete("s8");
  const names = new Set<string>();
  for await (const one of client.list()) names.add(one.settings.name!);
  assert.equal(names.size, 149);
  assert.ok(names.has("s7") && !names.has("s8"));
  assert.ok(Math.abs((await client.ping()) - Date.now()) < 600_000);
  await client.close();
  await own.remove();
});

test("closing waits for the answers under way", async () => {
  const name = unique();
  const client = await connect();
  const subscription = client.subscribe(name);
  const underWay = Array.from({ length: 1_000 }, (_, n) => client.publish(name, `${n}`));
  const closing = [client.close(), client.close()];
  assert.equal((await failure(client.publish(name, "late"))).cause.kind, "ByClient");
  await within("all", Promise.all([...closing, ...underWay]));
  assert.equal(client.status.state, "closed");
  // What was delivered before the goodbye can still be taken.
  let last = 0;
  for await (const event of subscription) assert.equal(event.type === "Publication" && event.sequence, (last += 1));
  await client.close();
});

test("closing fails what is under way if there is no connection", () =>
  withProxy(async (proxy) => {
    const client = await Client.connect(proxy.url, eager);
    const subscription = client.subscribe(unique());
    await subscription.subscribed;
    proxy.down();
    await eventually("the end of the connection", () => client.status.state !== "connected");
    const publishing = client.publish(unique(), "x");
    const begun = client.subscribe(unique());
    const failed = failure(publishing);
    await within("the end", client.close());
    assert.equal((await failed).cause.kind, "ByClient");
    assert.deepEqual(await subscription.next(), { done: true, value: undefined });
    assert.deepEqual(await begun.next(), { done: true, value: undefined });
    assert.equal((await failure(begun.subscribed)).kind, "Closed");
  }));

test("status is told as it changes", () =>
  withProxy(async (proxy) => {
    const states: string[] = [];
    const client = new Client(proxy.url, eager);
    const stop = client.onStatus((status: Status) => states.push(status.state));
    const status = (): Status => client.status;
    assert.equal(status().state, "connecting");
    await client.ping();
    const connected = status();
    assert.equal(connected.state === "connected" && connected.welcome.durable, false);
    proxy.down();
    await eventually("the pause", () => states.includes("waiting"));
    proxy.up();
    await client.ping();
    await client.close();
    await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual([...new Set(states)], ["connected", "waiting", "connecting", "closed"]);
    stop();
  }));

test("several may wait for the events of one subscription", async () => {
  const name = unique();
  const client = await connect();
  const subscription = client.subscribe(name);
  const waiting = [subscription.next(), subscription.next(), subscription.next()];
  await client.publish(name, "1");
  await client.publish(name, "2");
  assert.deepEqual(
    (await Promise.all(waiting.slice(0, 2))).map((one) => one.value?.type === "Publication" && one.value.sequence),
    [1, 2],
  );
  await subscription.return();
  assert.equal((await waiting[2]!).done, true);
  await client.close();
});

test("rejections that nobody waits for are the application's own alone", () =>
  withProxy(async (proxy) => {
    const unhandled: unknown[] = [];
    const note = (error: unknown) => unhandled.push(error);
    process.on("unhandledRejection", note);
    const client = await Client.connect(proxy.url, { ...eager, WebSocket: PlainSocket });
    client.subscribe("\u007f");
    client.subscribe(unique());
    const publishing = client.publish(unique(), "x", { expectedSequence: 7 });
    await publishing.inLine();
    await client.ping();
    proxy.down();
    await eventually("the end of the connection", () => client.status.state !== "connected");
    client.subscribe(unique());
    const left = client.publish(unique(), "x");
    await left.inLine();
    await client.close();
    await new Promise((resolve) => setTimeout(resolve, 0));
    process.off("unhandledRejection", note);
    assert.deepEqual(unhandled, []);
    assert.equal((await failure(publishing)).code, "conflict");
    assert.equal((await failure(left)).kind, "Closed");
  }));

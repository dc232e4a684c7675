// The client against peers that say what the test wants: silence, garbage, close codes, gaps that nobody tells.

import assert from "node:assert/strict";
import { once } from "node:events";
import { after, test } from "node:test";
import { decode, encode } from "cborg";
import { WebSocketServer, type WebSocket as PeerSocket } from "ws";
import { ConnectionError, type Delivery, type QueueSubscription, subscriptionId } from "infotainer";
import { uuidBytes } from "../dist/uuid.js";
import { cleanUp, Client, eager, eventually, failure, next, nextSequence, PlainSocket, within } from "./support.js";

const options = { ...eager, WebSocket: PlainSocket };
const listening: WebSocketServer[] = [];
after(async () => {
  for (const peer of listening) {
    peer.close();
    for (const socket of peer.clients) socket.terminate();
  }
  await cleanUp();
});

/** A server whose connections the test serves. */
class Peer {
  readonly #server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  readonly #connections: PeerSocket[] = [];

  private constructor() {
    listening.push(this.#server);
    this.#server.on("connection", (socket) => this.#connections.push(socket));
  }

  static async start(): Promise<Peer> {
    const peer = new Peer();
    await once(peer.#server, "listening");
    return peer;
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.#server.address() as { port: number }).port}/ws`;
  }

  async accept(): Promise<Connection> {
    await eventually("a connection", () => this.#connections.length > 0);
    return new Connection(this.#connections.shift()!);
  }

  /** The next connection, which has had a `Welcome` with a heartbeat of so many milliseconds. */
  async welcome(heartbeat = 60_000): Promise<Connection> {
    const connection = await this.accept();
    connection.say({
      Welcome: {
        session_id: new Uint8Array(16),
        durable: false,
        resumed: false,
        subscriptions: [],
        server: "infotainer/0",
        limits: {
          max_message_size: 1 << 20,
          max_subscriptions: 10,
          heartbeat_interval: heartbeat,
          heartbeat_timeout: heartbeat,
        },
      },
    });
    return connection;
  }
}

class Connection {
  readonly #received: unknown[] = [];

  constructor(readonly socket: PeerSocket) {
    socket.on("message", (data: Buffer) => this.#received.push(decode(data)));
  }

  say(message: unknown): void {
    this.socket.send(encode(message));
  }

  /** The next message of the client. */
  async hear(): Promise<any> {
    await eventually("a message", () => this.#received.length > 0);
    return this.#received.shift();
  }
}

test("client comes back after a close that asks for it, and after silence", async () => {
  const peer = await Peer.start();
  const client = new Client(peer.url, options);
  const errors: ConnectionError[] = [];
  client.onStatus((status) => {
    if (status.state === "waiting") errors.push(status.error);
  });
  const ping = client.ping();
  (await peer.welcome()).socket.close(4008, "nothing heard");
  // Says nothing, not even an answer.
  await peer.welcome(5);
  const connection = await peer.welcome();
  assert.deepEqual(await connection.hear(), [0, { Ping: {} }]);
  connection.say([0, { Pong: { time: 7 } }]);
  assert.equal(await within("Pong", ping), 7);
  assert.deepEqual(
    errors.map((error) => [error.kind, error.code]),
    [
      ["Closed", 4008],
      ["Silent", 0],
    ],
  );
  await client.close();
});

test("server that says nothing but answers is not taken for silent", async () => {
  const peer = await Peer.start();
  const client = new Client(peer.url, options);
  const connection = await peer.welcome(500);
  for (let n = 0; n < 2; n++) {
    const [id, command] = await connection.hear();
    assert.deepEqual(command, { Ping: {} });
    connection.say([id, { Pong: { time: n } }]);
  }
  assert.equal(client.status.state, "connected");
  await client.close();
});

test("nobody comes back after 45xx or a fault of his own", async () => {
  for (const code of [4500, 4501, 4999, 1002, 1007, 1009]) {
    const peer = await Peer.start();
    const client = new Client(peer.url, options);
    (await peer.welcome()).socket.close(code, "go away");
    const error = await failure(client.ping());
    assert.deepEqual([error.cause.kind, error.cause.cause.code], ["ByServer", code]);
    assert.match(error.message, /go away/);
  }
  for (const code of [1000, 1001, 1011, 4000, 4009, 4499]) {
    const peer = await Peer.start();
    const client = new Client(peer.url, options);
    (await peer.welcome()).socket.close(code);
    await peer.welcome();
    await client.close();
  }
});

test("peer that speaks something else is told apart", async () => {
  for (const message of ["hello", Buffer.from("ff", "hex"), encode({ Pong: { time: 7 } }), encode([1, 2, 3])]) {
    const peer = await Peer.start();
    const connecting = failure(Client.connect(peer.url, options));
    (await peer.accept()).socket.send(message);
    assert.equal((await connecting).kind, "Protocol");
  }
});

test("garbage ends a connection but not the client", async () => {
  const peer = await Peer.start();
  const client = new Client(peer.url, options);
  for (const garbage of [
    Buffer.from("a164506f6e67a16474696d65ff", "hex"),
    encode({ Pong: { time: 1.5 } }),
    encode({ Welcome: 7 }),
    encode({}),
  ]) {
    (await peer.welcome()).socket.send(garbage);
  }
  await peer.welcome();
  await client.close();
});

test("first message that lacks what a Welcome has ends the connection, not the process", async () => {
  const peer = await Peer.start();
  const connecting = failure(Client.connect(peer.url, options));
  (await peer.accept()).say({ Welcome: {} });
  assert.equal((await connecting).kind, "Protocol");
});

test("no Welcome in time is a failure", async () => {
  const peer = await Peer.start();
  assert.equal((await failure(Client.connect(peer.url, { ...options, connectTimeout: 20 }))).kind, "TimedOut");
});

const ID = uuidBytes(subscriptionId("news"));
const EPOCH = new Uint8Array(16).fill(7);
const publication = (sequence: number) => ({
  Publication: {
    subscription_id: ID,
    publication_id: new Uint8Array(16).fill(sequence),
    sequence,
    time: 1,
    data: new Uint8Array([sequence]),
  },
});
const subscribed = (cursor: number) => ({
  Subscribed: {
    subscription_id: ID,
    kind: "Broadcast",
    epoch: EPOCH,
    first_sequence: 1,
    last_sequence: 9,
    recovered: true,
    cursor,
  },
});

test("missing publications are told even if the server does not, and seen ones are dropped", async () => {
  const peer = await Peer.start();
  const client = new Client(peer.url, options);
  const news = client.subscribe("news");
  const connection = await peer.welcome();
  const [id] = await connection.hear();
  connection.say([id, subscribed(0)]);
  for (const sequence of [1, 1, 4, 3]) connection.say(publication(sequence));
  assert.equal(await nextSequence(news), 1);
  assert.deepEqual(await next(news), { type: "Gap", from: 2, to: 3, cause: "unexplained" });
  assert.equal(await nextSequence(news), 4);
  // It goes on behind the last event.
  connection.socket.terminate();
  const again = await peer.welcome();
  const [resumed, command] = await again.hear();
  assert.deepEqual(command, { Subscribe: { subscription_id: "news", kind: "Broadcast", from: { After: 4 }, epoch: EPOCH } });
  again.say([resumed, subscribed(4)]);
  again.say({ Gap: { subscription_id: ID, from: 3, to: 6, cause: "damage" } });
  again.say(publication(7));
  assert.deepEqual(await next(news), { type: "Gap", from: 5, to: 6, cause: "damage" });
  assert.equal(await nextSequence(news), 7);
  await client.close();
});

test("full buffer lets a subscription fall behind, and half an empty one takes it up again", async () => {
  const peer = await Peer.start();
  const client = new Client(peer.url, options);
  const news = client.subscribe("news", { buffer: { events: 2 } });
  const connection = await peer.welcome();
  connection.say([(await connection.hear())[0], subscribed(0)]);
  for (const sequence of [1, 2, 3, 4]) connection.say(publication(sequence));
  const [left, leaves] = await connection.hear();
  assert.deepEqual(leaves, { Unsubscribe: { subscription_id: "news" } });
  connection.say([left, { Unsubscribed: { subscription_id: ID } }]);
  assert.equal(await nextSequence(news), 1);
  const [id, command] = await connection.hear();
  assert.deepEqual(command, { Subscribe: { subscription_id: "news", kind: "Broadcast", from: { After: 2 }, epoch: EPOCH } });
  connection.say([id, subscribed(2)]);
  connection.say(publication(3));
  assert.equal(await nextSequence(news), 2);
  assert.equal(await nextSequence(news), 3);
  await client.close();
});

test("what was not answered is sent again in order, and nothing else", async () => {
  const peer = await Peer.start();
  const client = new Client(peer.url, { ...options, inFlight: 3 });
  const time = client.ping();
  const sent = ["a", "b", "c"].map((text) => client.publish("news", text));
  const first = await peer.welcome();
  const [id] = await first.hear();
  first.say([id, { Pong: { time: 1 } }]);
  await time;
  for (let n = 0; n < 3; n++) await first.hear();
  first.socket.terminate();
  const second = await peer.welcome();
  for (const [at, { publicationId }] of sent.entries()) {
    const [again, { SubmitPublication: command }] = await second.hear();
    assert.deepEqual(command.publication_id, uuidBytes(publicationId));
    const submitted = { subscription_id: ID, publication_id: command.publication_id, sequence: at + 1, duplicate: at === 0 };
    // A server that shuts down is asked again when it is back.
    second.say(
      at === 2
        ? [again, { Error: { code: "shutting-down", message: "", temporary: true } }]
        : [again, { Submitted: { ...submitted, durability: "Synced" } }],
    );
  }
  assert.equal((await sent[1]!).sequence, 2);
  second.socket.close(1001);
  const third = await peer.welcome();
  const [last, { SubmitPublication: command }] = await third.hear();
  const submitted = { subscription_id: ID, publication_id: command.publication_id, sequence: 3, duplicate: false };
  third.say([last, { Submitted: { ...submitted, durability: "Synced" } }]);
  assert.equal((await sent[2]!).sequence, 3);
  await client.close();
});

const JOBS = uuidBytes(subscriptionId("jobs"));

/** An answer, and a delivery, of the Queue "jobs". */
const begun = { Subscribed: { ...subscribed(0).Subscribed, subscription_id: JOBS, kind: "Queue", prefetch: 2 } };
const delivery = (sequence: number, delivery: number) => {
  const { Publication } = publication(sequence);
  return { Publication: { ...Publication, subscription_id: JOBS, delivery } };
};

async function taken(jobs: QueueSubscription): Promise<Delivery> {
  const { value } = await within("a delivery", jobs.next());
  assert.ok(value);
  return value;
}

test("what settles deliveries is said as the protocol has it, and on their connection alone", async () => {
  const peer = await Peer.start();
  const client = new Client(peer.url, options);
  const jobs = client.subscribe("jobs", { kind: "Queue", prefetch: 2 });
  const subscribe = { Subscribe: { subscription_id: "jobs", kind: "Queue", prefetch: 2 } };
  const first = await peer.welcome();
  const [request, command] = await first.hear();
  assert.deepEqual(command, subscribe);
  first.say([request, begun]);
  first.say(delivery(1, 3));
  const job = await taken(jobs);
  const id = uuidBytes(job.publicationId);
  const asked = [
    [jobs.acknowledge([job]), "Acknowledge", "Acknowledged", {}],
    [jobs.reject([job], { delay: 5, deadLetter: true }), "Reject", "Rejected", { delay: 5, dead_letter: true }],
    [jobs.extend([job]), "Extend", "Extended", {}],
  ] as const;
  for (const [settled, name, answer, more] of asked) {
    const [request, command] = await first.hear();
    assert.deepEqual(command, { [name]: { subscription_id: "jobs", publication_ids: [id], ...more } });
    first.say([request, { [answer]: { subscription_id: JOBS, count: 0, lost: [id] } }]);
    assert.deepEqual(await settled, { subscriptionId: jobs.id, count: 0, lost: [job.publicationId] });
  }
  // What is not answered when the connection ends is lost, and not said again. Nor is what comes later.
  const underWay = jobs.acknowledge([job]);
  await first.hear();
  const lost = { subscriptionId: jobs.id, count: 0, lost: [job.publicationId] };
  first.socket.close(1001);
  assert.deepEqual(await within("the answer", underWay), lost);
  const second = await peer.welcome();
  const [again, anew] = await second.hear();
  assert.deepEqual(anew, subscribe);
  second.say([again, begun]);
  second.say(delivery(1, 4));
  const redelivered = await taken(jobs);
  assert.deepEqual(await jobs.acknowledge([job]), lost);
  void jobs.acknowledge([redelivered]);
  assert.deepEqual(Object.keys((await second.hear())[1]), ["Acknowledge"]);
  await client.close();
});

test("what is not taken before its time is out costs no more than the prefetch", async () => {
  const peer = await Peer.start();
  const client = new Client(peer.url, options);
  const jobs = client.subscribe("jobs", { kind: "Queue", prefetch: 2 });
  const connection = await peer.welcome();
  const [request] = await connection.hear();
  connection.say([request, begun]);
  for (const [sequence, count] of [[1, 1], [2, 1], [1, 2], [2, 2], [3, 1], [4, 1], [3, 2]] as const) {
    connection.say(delivery(sequence, count));
  }
  const ping = client.ping();
  const [asked] = await connection.hear();
  connection.say([asked, { Pong: { time: 1 } }]);
  await ping;
  const waiting = [await taken(jobs), await taken(jobs)];
  assert.deepEqual(waiting.map((job) => [job.sequence, job.delivery]), [[4, 1], [3, 2]]);
  connection.say(delivery(5, 1));
  assert.equal((await taken(jobs)).sequence, 5);
  await client.close();
});

// A server of one test (the real program, as a child that can be killed), a proxy in front of it that cuts, and WebSockets that write
// down what they carry. Every wait is bounded; nothing paces itself by sleeping.

import { type ChildProcess, spawn } from "node:child_process";
import { randomInt, webcrypto } from "node:crypto";
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createConnection, createServer, type Server as NetServer, type Socket as NetSocket } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { Client as BareClient, type ClientOptions, type Event, type SocketConstructor, type Subscription } from "infotainer";
import { WebSocket as WsSocket } from "ws";

// Node 18 has it, but not among its globals.
globalThis.crypto ??= webcrypto as Crypto;

/** How long a test waits for what has to come, in milliseconds. Only a failing test ever waits for so long. */
export const PATIENCE = 60_000;

/** Waits for `promise`, but not for ever. */
export async function within<T>(what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`did not come within ${PATIENCE} ms: ${what}`)), PATIENCE);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Asks again and again until `condition` holds. */
export async function eventually(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + PATIENCE;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`did not come within ${PATIENCE} ms: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

// ---- What was said (docs/vectors/README.md) ----

/** What is longer, or comes behind so many, says nothing new. */
const NOTED = { bytes: 1_024, messages: 20_000 };

const said: string[] = [];
const FRAMES = process.env.INFOTAINER_TEST_FRAMES;

if (FRAMES) {
  process.on("exit", () => {
    if (said.length === 0) return;
    mkdirSync(FRAMES, { recursive: true });
    writeFileSync(join(FRAMES, `typescript-${process.pid}-${Date.now()}.hex`), said.join(""));
  });
}

function note(direction: "<" | ">", data: ArrayBuffer | ArrayBufferView): void {
  if (!FRAMES || data.byteLength > NOTED.bytes || said.length >= NOTED.messages) return;
  const bytes = ArrayBuffer.isView(data) ? Buffer.from(data.buffer, data.byteOffset, data.byteLength) : Buffer.from(data);
  said.push(`${direction} ${bytes.toString("hex")}\n`);
}

/** The WebSocket of `ws`, which writes down what a real server and its client say. */
class NotingSocket extends WsSocket {
  constructor(url: string, protocols: string[]) {
    super(url, protocols, { perMessageDeflate: false });
    this.on("message", (data, isBinary) => {
      if (isBinary) note("<", data as ArrayBuffer);
    });
  }

  override send(data: Uint8Array): void {
    note(">", data);
    super.send(data);
  }
}

export const WebSocket = NotingSocket as unknown as SocketConstructor;
/** For peers that say what no server does. */
export const PlainSocket = WsSocket as unknown as SocketConstructor;

/** Options of a client that comes back at once. */
export const eager: ClientOptions = {
  WebSocket,
  reconnect: { firstPause: 1, longestPause: 4 },
  requestTimeout: PATIENCE,
};

const clients = new Set<BareClient>();
const servers = new Set<TestServer>();
const proxies = new Set<Proxy>();

/** A client that `cleanUp` closes, should a test fail before it does. */
export class Client extends BareClient {
  constructor(url: string | URL, options: ClientOptions) {
    super(url, options);
    clients.add(this);
  }
}

/** Ends what the tests of a file have left. */
export async function cleanUp(): Promise<void> {
  for (const proxy of proxies) proxy.close();
  await Promise.all([...servers].map((server) => server.remove()));
  await Promise.all([...clients].map((client) => client.close()));
}

// ---- The server ----

const BINARY = resolve(process.env.INFOTAINER_BINARY ?? "../../target/debug/infotainer");

/** A server with a data directory of its own. */
export class TestServer {
  readonly directory = mkdtempSync(join(tmpdir(), "infotainer-ts-"));
  readonly #variables: Record<string, string>;
  #child!: ChildProcess;
  address = "127.0.0.1:0";

  private constructor(variables: Record<string, string>) {
    this.#variables = variables;
  }

  static async start(variables: Record<string, string> = {}): Promise<TestServer> {
    const server = new TestServer(variables);
    servers.add(server);
    await server.startAgain();
    return server;
  }

  get url(): string {
    return `ws://${this.address}/ws`;
  }

  get port(): number {
    return Number(this.address.split(":")[1]);
  }

  /** Starts it on the same folder, after it ended; where it was, if it was. */
  async startAgain(): Promise<void> {
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("INFOTAINER_")));
    const stderr = openSync(join(this.directory, "stderr"), "a");
    const child = spawn(BINARY, [], {
      cwd: this.directory,
      env: {
        ...env,
        INFOTAINER_LISTEN: this.address,
        INFOTAINER_MAX_CONNECTIONS: "500",
        INFOTAINER_WORKERS: "1",
        // The disk's syncs are not what is tested here.
        INFOTAINER_DURABILITY: "Written",
        ...this.#variables,
      },
      stdio: ["ignore", "pipe", stderr],
    });
    this.#child = child;
    const line = await within(
      "the server's address",
      new Promise<string>((resolve, reject) => {
        createInterface(child.stdout!).once("line", resolve);
        child.once("error", reject);
        child.once("exit", () => reject(new Error(`the server ended:\n${this.log()}`)));
      }),
    );
    const address = / listens on ws:\/\/(.*)\/ws$/.exec(line)?.[1];
    if (!address) throw new Error(`the server does not say where it listens: ${line}\n${this.log()}`);
    this.address = address;
    child.stdout!.resume();
  }

  log(): string {
    return readFileSync(join(this.directory, "stderr"), "utf8");
  }

  /** Ends it as `kill -9` does. */
  kill(): Promise<void> {
    return this.#end("SIGKILL");
  }

  /** Ends it in order. */
  stop(): Promise<void> {
    return this.#end("SIGTERM");
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    await within("the server's end", ended);
  }

  async remove(): Promise<void> {
    await this.kill();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

// ---- The proxy ----

/** After how many bytes in each direction a connection is cut. */
export interface Cut {
  toServer: number;
  toClient: number;
}

const NEVER: Cut = { toServer: Infinity, toClient: Infinity };

/** Carries connections to a server, and cuts them. */
export class Proxy {
  readonly #listener: NetServer;
  readonly #server: { address: string };
  readonly #open = new Set<NetSocket>();
  /** For the next connections. */
  readonly #cuts: Cut[] = [];
  #isUp = true;
  connections = 0;
  readonly carried: Cut = { toServer: 0, toClient: 0 };
  port = 0;

  private constructor(server: { address: string }) {
    this.#server = server;
    this.#listener = createServer((socket) => this.#accept(socket));
  }

  static async start(server: { address: string }): Promise<Proxy> {
    const proxy = new Proxy(server);
    proxies.add(proxy);
    await new Promise<void>((resolve) => proxy.#listener.listen(0, "127.0.0.1", resolve));
    proxy.port = (proxy.#listener.address() as { port: number }).port;
    return proxy;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}/ws`;
  }

  /** Cuts the next connections there; those behind them are left alone. */
  cut(...cuts: Cut[]): void {
    this.#cuts.push(...cuts);
  }

  /** Cuts every connection, and accepts none that lasts. */
  down(): void {
    this.#isUp = false;
    for (const socket of this.#open) socket.destroy();
  }

  up(): void {
    this.#isUp = true;
  }

  close(): void {
    this.down();
    this.#listener.close();
  }

  #accept(client: NetSocket): void {
    client.on("error", () => {});
    if (!this.#isUp) {
      client.destroy();
      return;
    }
    this.connections += 1;
    const cut = this.#cuts.shift() ?? NEVER;
    const [host, port] = this.#server.address.split(":");
    const server = createConnection(Number(port), host);
    server.on("error", () => {});
    const end = () => {
      client.destroy();
      server.destroy();
    };
    for (const socket of [client, server]) {
      this.#open.add(socket);
      socket.setNoDelay(true);
      socket.on("close", () => {
        this.#open.delete(socket);
        end();
      });
    }
    const pump = (from: NetSocket, to: NetSocket, direction: keyof Cut) => {
      let left = cut[direction];
      if (left === 0) end();
      from.on("data", (chunk: Buffer) => {
        const carried = chunk.subarray(0, Math.min(chunk.length, left));
        left -= carried.length;
        this.carried[direction] += carried.length;
        const isTaken = to.write(carried, () => {
          if (left <= 0) end();
        });
        if (!isTaken) {
          from.pause();
          to.once("drain", () => from.resume());
        }
      });
    };
    pump(client, server, "toServer");
    pump(server, client, "toClient");
  }
}

// ---- Events ----

export async function next(subscription: Subscription): Promise<Event> {
  const result = await within("an event", subscription.next());
  if (result.done) throw new Error("the iteration has ended");
  return result.value;
}

/** The sequence of the next event, which is a publication. */
export async function nextSequence(subscription: Subscription): Promise<number> {
  const event = await next(subscription);
  if (event.type !== "Publication") throw new Error(`no publication: ${JSON.stringify(event)}`);
  return event.sequence;
}

/** The ids that a log holds; its sequences are those from 1 on. */
export async function stored(client: BareClient, name: string): Promise<string[]> {
  const ids: string[] = [];
  for await (const publication of client.log(name)) {
    ids.push(publication.publicationId);
    if (publication.sequence !== ids.length) throw new Error(`sequence ${publication.sequence} is the ${ids.length}th`);
  }
  return ids;
}

/** What a promise rejects with. */
export async function failure(promise: Promise<unknown>): Promise<any> {
  try {
    await within("a failure", promise);
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
}

// ---- Chance ----

export interface Chance {
  /** A natural number below `limit`. */
  below(limit: number): number;
  /** One of these. */
  of<T>(choices: readonly T[]): T;
}

/** Always the same for a seed, which is printed; another one is `INFOTAINER_TEST_SEED`. (xorshift, Marsaglia 2003.) */
export function chances(what: string, seed = Number(process.env.INFOTAINER_TEST_SEED ?? randomInt(1, 2 ** 31))): Chance {
  console.log(`${what}: INFOTAINER_TEST_SEED=${seed}`);
  let state = seed | 1;
  const below = (limit: number) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
  return { below, of: (choices) => choices[below(choices.length)]! };
}

// What an application has of a client: `Client`. Everything that is asked goes through `Requests`, everything that comes through
// `Core`; what is here only puts words to it.

import { Connection, type SocketConstructor, type Status, type Token } from "./connection.js";
import { Core } from "./core.js";
import { ConnectionError } from "./errors.js";
import { Log, lookUp, pages, type LogOptions } from "./log.js";
import type { Reconnect } from "./backoff.js";
import type {
  Kind,
  LogPage,
  Responses,
  Settled,
  SettingsPatch,
  Submitted,
  SubscribeFrom,
  SubscriptionMeta,
  SubscriptionReference,
  Uuid,
} from "./protocol.js";
import type { QueueSubscription } from "./queue.js";
import { BOUND, type Bound, type Subscription } from "./subscriber.js";
import { isUuid, newPublicationId, subscriptionId, textBytes } from "./uuid.js";

/** How a client is made. Times are in milliseconds. */
export interface ClientOptions {
  /**
   * Opens, or resumes, the durable session with this id, so that its subscriptions and cursors outlive the client. Without it the
   * session is transient. The id is a secret, made by `newSession()` and kept by the application. A second client with the same id
   * takes over: the first one ends with 4502 and does not come back.
   */
  session?: Uuid;
  /**
   * Proves for whom the client speaks: a token (JWT or API key), or a function that gives one. A function is asked before each connection, and
   * again when the server warns that the token in use is about to end. A token that ends closes the connection with 4501, and the
   * client does not come back.
   */
  token?: Token;
  /** The constructor of WebSockets. By default the platform's own (browsers, Node from 22 on). */
  WebSocket?: SocketConstructor;
  /** How it comes back when the connection ends. By default for ever, after pauses that grow from 100 ms to 30 s. */
  reconnect?: Reconnect;
  /**
   * How many requests wait for their answers at once, publications among them; further ones wait for their turn. Default 256. Each costs
   * the memory of its message until it is answered.
   */
  inFlight?: number;
  /** How long one attempt to connect may take, up to the server's `Welcome`. Default 10,000. */
  connectTimeout?: number;
  /** How long one waits for the answer to a request, reconnects included. Default 30,000. */
  requestTimeout?: number;
  /** After how long in the background a page makes no more attempts to connect, until it is seen again. Default 60,000. */
  hiddenAfter?: number;
}

/** How something is published. */
export interface PublishOptions {
  /** Its id. Publishing with the same id again adds nothing, and is answered with `duplicate`. By default a new one. */
  publicationId?: Uuid;
  /** Refuses it with `conflict` unless this will be its sequence. */
  expectedSequence?: number;
  /** Makes the subscription with this kind if it does not exist, and refuses the publication if it exists with another. */
  kind?: Kind;
}

/** A publication that is under way. */
export interface Publishing extends Promise<Submitted> {
  /** The publication's id. */
  readonly publicationId: Uuid;
  /**
   * Resolves when it is in line: when fewer requests are under way than `inFlight` allows. Who publishes much awaits this before the
   * next one, and the answers later; an answer that fails in the meantime is no unhandled rejection then.
   */
  inLine(): Promise<void>;
}

/** How a subscription of a Queue begins. */
export interface QueueOptions {
  kind: "Queue";
  /** How many deliveries may be on lease to it at once, 1 to 65,535. By default 32. */
  prefetch?: number;
}

/** How a subscription begins. */
export interface SubscribeOptions {
  kind?: "Broadcast";
  /** Where delivery begins. Without it: where a durable session left off, or else with what is published from now on. */
  from?: SubscribeFrom;
  /** The life of the log that the position of `After` belongs to. Of another epoch: a `NotRecovered` event. */
  epoch?: Uuid;
  /** How much may wait to be taken. Default 4,096 events and 4 MiB of payload. */
  buffer?: Partial<Bound>;
  /** Acknowledges nothing by itself: the application calls `acknowledge`. Only matters in a durable session. */
  acknowledgeByHand?: boolean;
}

/** A client of one server, over one connection that comes back by itself. */
export class Client {
  readonly #core: Core;
  readonly #connection: Connection;
  readonly #listeners = new Set<(status: Status) => void>();

  /**
   * Gives the client at once, which connects in the background and does not mind if the server is not there yet. Requests wait.
   * Throws a `ConnectionError` of kind `Url` if the URL or the session id is none that can be used.
   */
  constructor(url: string | URL, options: ClientOptions = {}) {
    const { session, inFlight = 256, requestTimeout = 30_000 } = options;
    const WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (!WebSocket) throw new TypeError("the option WebSocket is needed here");
    this.#core = new Core(session !== undefined, inFlight, requestTimeout);
    // What the connection says while it is being made reaches nobody yet.
    this.#connection = new Connection(
      { ...options, url: endpoint(url, session), WebSocket },
      this.#core,
      (status) => {
        // What listeners do, or throw, must not meet the client half-way through something.
        for (const listener of this.#listeners) queueMicrotask(() => listener(status));
      },
    );
  }

  /** Connects, and gives the client when the server has said `Welcome`. Rejects with a `ConnectionError` if this first attempt fails. */
  static connect(url: string | URL, options: ClientOptions = {}): Promise<Client> {
    return new Promise((resolve, reject) => {
      const client = new this(url, options);
      const settle = (status: Status) => {
        if (status.state === "connecting") return;
        stop();
        if (status.state === "connected") return resolve(client);
        reject(status.state === "closed" ? status.error.cause : status.error);
        void client.close();
      };
      const stop = client.onStatus(settle);
      settle(client.status);
    });
  }

  // ---- The connection ----

  /** How it stands with the connection now. */
  get status(): Status {
    return this.#connection.status;
  }

  /** Calls `listener` after every change of the status. Gives a function that ends it. */
  onStatus(listener: (status: Status) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Closes it, in order: takes no new requests, waits up to 10 s for the answers to those under way, and says goodbye to the server.
   * Subscriptions end. If there is no connection now, what is under way fails at once.
   */
  close(): Promise<void> {
    return this.#connection.close();
  }

  // ---- Publishing ----

  /**
   * Publishes. Resolves when the publication is in the log, as durable as the subscription wants it; the subscription is made if it
   * does not exist. Publications get their sequences in the order of the calls.
   *
   * Every publication has an id. If the connection ends before the answer, it is sent again with the same id on the next one, and so
   * added once, as long as the log still holds it.
   */
  publish(
    subscription: SubscriptionReference,
    data: string | ArrayBuffer | ArrayBufferView,
    { publicationId = newPublicationId(), expectedSequence, kind }: PublishOptions = {},
  ): Publishing {
    let inLine!: () => void;
    const line = new Promise<void>((resolve) => (inLine = resolve));
    // What is published is copied when it is encoded, which is now.
    const command = { subscriptionId: subscription, submission: bytesOf(data), kind, publicationId, expectedSequence };
    const submitted = this.#core.ask("SubmitPublication", command, "Submitted", { publicationId, inLine });
    return Object.assign(submitted, {
      publicationId,
      inLine: () => {
        submitted.catch(inLine);
        return line;
      },
    });
  }

  // ---- Subscribing ----

  /**
   * Subscribes, and gives the events to iterate over. The subscription is made if it does not exist.
   *
   * It goes on by itself after a reconnect, behind the last event that came: each publication comes once and in the order of the
   * sequences, and what is missing is told by an event, never passed over in silence.
   *
   * In a durable session, delivery begins where the session left off, unless `from` says otherwise; and a publication is
   * acknowledged when the next event is asked for, unless that is done by hand. So what was taken and not done with comes again to
   * the next client of the session.
   *
   * A reader that does not keep up costs a bounded buffer. When it is full, the subscription falls behind: the connection goes on for all
   * others, and it takes up where it was, from the log, when half of its buffer is free.
   */
  subscribe(subscription: SubscriptionReference, options?: SubscribeOptions): Subscription;

  /**
   * Takes part in a Queue, and gives the deliveries to iterate over. The Queue is made if it does not exist. Each publication is on
   * lease to one subscriber at a time, who says what became of it with the subscription's `acknowledge`, `reject` and `extend`.
   *
   * It goes on by itself after a reconnect, which ends all leases: what had come and was not taken is dropped, since it comes again, and
   * what was taken is told as `lost` when it is settled.
   */
  subscribe(subscription: SubscriptionReference, options: QueueOptions): QueueSubscription;

  subscribe(
    subscription: SubscriptionReference,
    options: SubscribeOptions | QueueOptions = {},
  ): Subscription | QueueSubscription {
    if (options.kind === "Queue") return this.#core.subscribeQueue(subscription, options.prefetch);
    const { from, epoch, buffer, acknowledgeByHand } = options;
    return this.#core.subscribe(subscription, {
      from,
      epoch,
      bound: { ...BOUND, ...buffer },
      acknowledges: this.#core.isDurable && !acknowledgeByHand,
    });
  }

  /** Acknowledges every publication of a Broadcast up to a sequence, so that this durable session resumes behind it. */
  acknowledge(subscription: SubscriptionReference, sequence: number): Promise<Settled> {
    return this.#core.acknowledge(subscription, sequence);
  }

  // ---- Logs ----

  /** What the log of a subscription holds: iterate over it, its `pages` or its `index`. */
  log(subscription: SubscriptionReference, options: LogOptions = {}): Log {
    return new Log(this.#core, subscription, options);
  }

  /** The publications with these ids, in the order of their sequences, and the ids that the log does not hold. */
  entries(subscription: SubscriptionReference, ids: Iterable<Uuid>): Promise<Omit<LogPage, "logId" | "more">> {
    return lookUp(this.#core, subscription, ids);
  }

  // ---- Subscriptions as such ----

  /** Makes a subscription with these settings. The same again is fine; `conflict` if it exists with other ones or another kind. */
  create(
    subscription: SubscriptionReference,
    { kind, settings }: { kind?: Kind; settings?: SettingsPatch } = {},
  ): Promise<SubscriptionMeta> {
    return this.#core.ask("CreateSubscription", { subscriptionId: subscription, kind, settings }, "SubscriptionMeta");
  }

  /** Replaces the settings that are given; `null` sets the default again. */
  update(subscription: SubscriptionReference, settings: SettingsPatch): Promise<SubscriptionMeta> {
    return this.#core.ask("UpdateSubscription", { subscriptionId: subscription, settings }, "SubscriptionMeta");
  }

  /** What a subscription is like now. */
  get(subscription: SubscriptionReference): Promise<SubscriptionMeta> {
    return this.#core.ask("GetSubscription", { subscriptionId: subscription }, "SubscriptionMeta");
  }

  /** Every subscription of the server, in order of their ids, asked for page by page. */
  async *list(): AsyncGenerator<SubscriptionMeta, void> {
    const last = (page: Responses["Subscriptions"]) => page.subscriptions.at(-1)?.subscriptionId;
    for await (const page of pages(this.#core, "ListSubscriptions", {}, "Subscriptions", last)) yield* page.subscriptions;
  }

  /** Deletes a subscription with its log. Everybody who is subscribed is told. */
  async delete(subscription: SubscriptionReference): Promise<void> {
    const about = { subscription: subscriptionId(subscription) };
    await this.#core.ask("DeleteSubscription", { subscriptionId: subscription }, "Deleted", about);
  }

  /** Waits until everything that was asked before is answered, and gives the server's time, in milliseconds since 1970-01-01 UTC. */
  async ping(): Promise<number> {
    return (await this.#core.ask("Ping", {}, "Pong")).time;
  }
}

function endpoint(given: string | URL, session: Uuid | undefined): URL {
  let url: URL | undefined;
  try {
    url = new URL(given);
  } catch {
    // Told below.
  }
  if (!url || !/^wss?:$/.test(url.protocol) || url.hash) {
    throw new ConnectionError("Url", `not like ws://host:port/ws: ${given}`);
  }
  if (session === undefined) return url;
  if (!isUuid(session)) throw new ConnectionError("Url", "the session is no UUID");
  url.pathname = `${url.pathname.replace(/\/$/, "")}/${session}`;
  return url;
}

function bytesOf(data: string | ArrayBuffer | ArrayBufferView): Uint8Array {
  if (typeof data === "string") return textBytes(data);
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  throw new TypeError("neither text nor bytes");
}

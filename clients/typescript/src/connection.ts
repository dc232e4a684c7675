// The connection behind a client: connects, serves the connection, waits, connects again.
//
// Owns the socket, the pauses and the heartbeat. Does not own what messages mean (`core`).
//
//  connecting ──> connected ──> ended ──> waiting ──┐
//     ^                           │                 │ the pause is over, and the page is neither hidden nor offline
//     │                           └─ 45xx: closed   │
//     └─────────────────────────────────────────────┘

import { pauseAfter, type Reconnect } from "./backoff.js";
import { decodeResponse } from "./codec.js";
import type { Core } from "./core.js";
import { ClosedError, ConnectionError } from "./errors.js";
import { type Paused, watchPage } from "./page.js";
import { SUBPROTOCOL, type Welcome } from "./protocol.js";
import { after } from "./timer.js";

/** How long the goodbye may take, in milliseconds. */
const CLOSE = 2_000;

/** How long requests may wait for their answers while the client closes, in milliseconds. */
const DRAIN = 10_000;

/** How it stands with the connection. */
export type Status =
  /** The client tries to connect. */
  | { state: "connecting" }
  /** There is a connection, and this is what the server said first. */
  | { state: "connected"; welcome: Welcome }
  /**
   * The connection ended, or an attempt failed, because of `error`. The next one comes after `pause` milliseconds; or, if the page is
   * `paused`, when it is back.
   */
  | { state: "waiting"; error: ConnectionError; pause: number; paused: Paused | undefined }
  /** The client has ended. */
  | { state: "closed"; error: ClosedError };

/** What is used of a WebSocket: the browser's, Node's, or that of the package `ws`. */
export interface Socket {
  binaryType: string;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number): void;
  /** Only in `ws`. */
  terminate?(): void;
}

/** The constructor of a WebSocket. */
export type SocketConstructor = new (url: string, protocols: string[]) => Socket;

/** What a connection needs to know. */
export interface ConnectionOptions {
  url: URL;
  WebSocket: SocketConstructor;
  reconnect?: Reconnect;
  connectTimeout?: number;
  hiddenAfter?: number;
  token?: Token;
}

/** A token (JWT or API key), or a function that gives one. */
export type Token = string | (() => string | Promise<string>);

export class Connection {
  status: Status = { state: "connecting" };
  #socket: Socket | undefined;
  /** How many attempts failed in a row. */
  #failed = 0;
  readonly #page;
  /** Whether anything came since that was asked last. */
  #isHeard = false;
  /** Ends what is waited for: a `Welcome`, the end of a pause, a sign of life, the last answers. */
  #stopTimer: (() => void) | undefined;
  /** Resolves when the client has ended. */
  readonly #end: Promise<void>;
  #ended!: () => void;

  readonly #options: ConnectionOptions;
  readonly #core: Core;
  readonly #tell: (status: Status) => void;

  constructor(options: ConnectionOptions, core: Core, tell: (status: Status) => void) {
    this.#options = options;
    this.#core = core;
    this.#tell = tell;
    this.#end = new Promise((resolve) => (this.#ended = resolve));
    this.#page = watchPage(options, () => this.#pageChanged());
    this.#connect();
  }

  /** In order: waits for the answers to what is under way, and says goodbye. */
  close(): Promise<void> {
    const core = this.#core;
    if (!core.closed) {
      core.closed = new ClosedError("ByClient");
      if (this.status.state === "connected") {
        this.#wait(DRAIN, () => this.#goodbye(true));
        this.#goodbye();
      } else {
        this.#finish(core.closed);
      }
    }
    return this.#end;
  }

  #wait(pause: number, then: () => void): void {
    this.#stopTimer?.();
    this.#stopTimer = after(pause, then);
  }

  #setStatus(status: Status): void {
    this.status = status;
    this.#tell(status);
  }

  // ---- The way to a connection ----

  #connect(): void {
    this.#setStatus({ state: "connecting" });
    const { connectTimeout = 10_000 } = this.#options;
    this.#wait(connectTimeout, () => this.#lost("TimedOut", "there was no answer in time"));
    this.#withToken();
  }

  /** Gets a token for the connection that is to be made, or another one for the one that is there: as long as it is the same. */
  #withToken(): void {
    const { status } = this;
    const { token } = this.#options;
    const isNew = status.state === "connecting";
    if (typeof token !== "function") {
      if (isNew) this.#open(token);
      return;
    }
    const then = (token?: string | void, cause?: unknown) => {
      if (this.status !== status) return;
      if (token) isNew ? this.#open(token) : this.#core.requests.askAside("Authenticate", { token });
      else if (isNew) this.#lost("Token", "there was no token", 0, cause);
      else after(1_000, () => this.status === status && this.#withToken());
    };
    void Promise.resolve()
      .then(token)
      .then(then, (cause) => then(void 0, cause));
  }

  #open(token?: string): void {
    const { url, WebSocket } = this.#options;
    let socket: Socket;
    try {
      // A browser can set no header. The letters of a token never need the two in which base64url differs.
      const bearer = token ? ["infotainer.bearer." + btoa(token).replace(/=/g, "")] : [];
      socket = new WebSocket(url.href, [SUBPROTOCOL, ...bearer]);
    } catch (cause) {
      this.#lost("Url", "the URL can't be used", 0, cause);
      return;
    }
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    let isOpen = false;
    let failure: { message?: string; error?: unknown } = {};
    socket.onopen = () => (isOpen = true);
    socket.onmessage = ({ data }: { data: string | ArrayBuffer }) => this.#message(data);
    // Node's sockets end a process with an error that nobody listens to.
    socket.onerror = (event) => (failure = event);
    socket.onclose = ({ code, reason }: { code: number; reason: string }) => {
      if (isOpen) {
        if (code === 1005 || code === 1006) this.#lost("Broken", "the connection broke");
        else this.#lost("Closed", `the connection was closed with code ${code} ${reason}`.trim(), code);
        return;
      }
      // Browsers don't tell why, and `ws` puts the status into a sentence.
      const { message = "", error } = failure;
      const [, status] = /response: (\d{3})/.exec(message) ?? [];
      this.#lost(status ? "Refused" : "Io", `the connection failed ${message}`.trim(), Number(status ?? 0), error);
    };
  }

  #lost(...why: ConstructorParameters<typeof ConnectionError>): void {
    const error = new ConnectionError(...why);
    this.#drop();
    if (this.#core.disconnected()) this.#failed = 0;
    const pause = pauseAfter(this.#failed++, this.#options.reconnect);
    if (error.isFinal) this.#finish(new ClosedError("ByServer", error));
    else if (this.#core.closed) this.#finish(this.#core.closed);
    else if (pause === undefined) this.#finish(new ClosedError("GaveUp", error));
    else this.#pause(error, pause);
  }

  #pause(error: ConnectionError, pause: number): void {
    const paused = this.#page.paused();
    if (!paused) this.#wait(pause, () => (this.#page.paused() ? this.#pause(error, pause) : this.#connect()));
    this.#setStatus({ state: "waiting", error, pause, paused });
  }

  #pageChanged(): void {
    const { state } = this.status;
    // Whether there still is a connection is known only by asking.
    if (state === "connected") {
      this.#probe();
    } else if (state === "waiting" && !this.#page.paused()) {
      this.#failed = 0;
      this.#stopTimer?.();
      this.#connect();
    }
  }

  #drop(): void {
    const socket = this.#socket;
    this.#stopTimer?.();
    if (!socket) return;
    socket.onmessage = socket.onclose = null;
    // A peer that is gone would be waited for.
    if (socket.terminate) socket.terminate();
    else socket.close();
  }

  #finish(closed: ClosedError): void {
    this.#drop();
    this.#page.stop();
    this.#core.finish(closed);
    this.#setStatus({ state: "closed", error: closed });
    this.#ended();
  }

  // ---- A connection ----

  #message(data: string | ArrayBuffer): void {
    this.#isHeard = true;
    try {
      const received = decodeResponse(data);
      if (received.response.name === "TokenExpiring") this.#withToken();
      if (this.status.state === "connected") this.#core.received(received);
      else if (received.response.name === "Welcome") this.#welcome(received.response.fields);
      else throw new TypeError("no Welcome");
    } catch (cause) {
      this.#lost("Protocol", `not the protocol: ${(cause as Error).message}`, 0, cause);
    }
    this.#goodbye();
  }

  #welcome(welcome: Welcome): void {
    const socket = this.#socket!;
    this.#core.connected(welcome, {
      limit: welcome.limits.maxMessageSize,
      send: (message) => socket.send(message as Uint8Array<ArrayBuffer>),
    });
    this.#setStatus({ state: "connected", welcome });
    this.#watch(false);
  }

  /** Looks whether the server is heard. Its pings can't be seen here, so a silent one is asked; one that `wasAsked` has gone. */
  #watch(wasAsked: boolean): void {
    if (this.status.state !== "connected" || this.#core.closed) return;
    this.#isHeard = false;
    this.#wait(this.status.welcome.limits.heartbeatTimeout, () => {
      if (this.#isHeard) this.#watch(false);
      else if (wasAsked) this.#lost("Silent", "the server is silent");
      else this.#probe();
    });
  }

  #probe(): void {
    this.#core.requests.askAside("Ping", {});
    this.#watch(true);
  }

  // ---- The end ----

  /** Ends the connection of a client that closes, if nothing is waited for, or it is time. */
  #goodbye(isTime = this.#core.requests.isIdle): void {
    const socket = this.#socket;
    if (!this.#core.closed || !isTime || this.status.state !== "connected") return;
    this.#wait(CLOSE, () => this.#finish(this.#core.closed!));
    socket!.onmessage = null;
    socket!.close(1000);
  }
}

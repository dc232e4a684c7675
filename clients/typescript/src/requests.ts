// The requests that wait for their answers, or for their turn.
//
// Owns request ids, the bound on what is in flight, and the sending again after a reconnect. Invariants: what callers ask is sent,
// and sent again, in the order in which they asked; all of it may come twice, since publications carry their id and the others
// change nothing the second time. What settles leases ends with its connection, as they do.

import { encodeCommand, type Response } from "./codec.js";
import { ended, RequestError, timedOut, type ClosedError } from "./errors.js";
import type { Commands, Uuid } from "./protocol.js";
import { after } from "./timer.js";

/** What a caller says beside the command. */
export interface About {
  /** The subscription that it is about, where that matters. */
  subscription?: Uuid;
  publicationId?: Uuid;
  /** What answers it if the connection ends before the server does: it means nothing on another one. */
  otherwise?: Response;
  /** Told when it is in line, or never will be. */
  inLine?: () => void;
}

interface Request extends About {
  id: number;
  name: keyof Commands;
  message: Uint8Array;
  /** How many times it was handed to a connection. */
  sent: number;
  /** Of the client itself: on the next connection it begins anew. */
  isOwn?: boolean;
  stopTimer?: () => void;
  settle: (outcome: Response | RequestError) => void;
}

/** A connection that messages can be sent on. */
export interface Line {
  /** The longest message that the server takes. */
  limit: number;
  send(message: Uint8Array): void;
}

export class Requests {
  line: Line | undefined;
  #nextId = 0;
  readonly #inFlight = new Map<number, Request>();
  readonly #waiting = new Set<Request>();
  // A set's iterator goes on with what is added, so that the oldest is found in constant time.
  #oldest = this.#waiting.values();
  /** Whether those that wait have to go on waiting for the moment. */
  #isHeld = false;

  readonly #most: number;

  constructor(
    most: number,
    readonly timeout: number,
  ) {
    this.#most = most;
  }

  get isIdle(): boolean {
    return this.#inFlight.size + this.#waiting.size === 0;
  }

  /** Asks, and again on each new connection until there is an answer. Throws if the command can't be encoded. */
  ask<Name extends keyof Commands>(name: Name, fields: Commands[Name], about: About): Promise<Response | RequestError> {
    return new Promise((settle) => {
      const request: Request = {
        ...this.#request(name, fields),
        ...about,
        stopTimer: after(this.timeout, () => this.#settle(request, timedOut(about.publicationId))),
        settle,
      };
      this.#waiting.add(request);
      this.#fill();
    });
  }

  /** Asks for the client itself, on this connection alone. */
  askAside<Name extends keyof Commands>(
    name: Name,
    fields: Commands[Name],
    settle: (outcome: Response | RequestError) => void = () => {},
  ): void {
    const request = { ...this.#request(name, fields), isOwn: true, settle };
    if (this.line) {
      this.#inFlight.set(request.id, request);
      this.#send(request);
    }
  }

  #request<Name extends keyof Commands>(name: Name, fields: Commands[Name]) {
    const id = this.#nextId++;
    return { id, name, sent: 0, message: encodeCommand(name, fields, id) };
  }

  /** A connection has begun. What callers asked is held back until `resend`, but what the client asks for itself is sent. */
  connected(line: Line): void {
    this.line = line;
    this.#isHeld = true;
  }

  /** Sends what was in flight, and then what waits. */
  resend(): void {
    for (const request of [...this.#inFlight.values()]) if (!request.isOwn) this.#send(request);
    this.#isHeld = false;
    this.#fill();
  }

  disconnected(): void {
    this.line = undefined;
    this.#isHeld = false;
    for (const request of [...this.#inFlight.values(), ...this.#waiting]) {
      if (request.isOwn) this.#inFlight.delete(request.id);
      else if (request.otherwise) this.#settle(request, request.otherwise);
    }
  }

  /** Whether anybody had asked. */
  answered(id: number, response: Response): boolean {
    const request = this.#inFlight.get(id);
    if (!request) return false;
    let outcome: Response | RequestError = response;
    if (response.name === "Error") {
      const { code, message } = response.fields;
      // It was not done. The connection is about to end, and the request goes out again on the next one.
      if (code === "shutting-down" && !request.isOwn) return true;
      outcome =
        code === "not-found" && request.name === "DeleteSubscription" && request.sent > 1
          ? // It was deleted by the one whose answer was lost.
            { name: "Deleted", fields: { subscriptionId: request.subscription! } }
          : new RequestError("Refused", message, response.fields);
    }
    this.#settle(request, outcome);
    return true;
  }

  /** Fails what was asked, if `isMeant`. */
  fail(error: RequestError, isMeant: (name: keyof Commands, subscription?: Uuid) => boolean): void {
    for (const request of [...this.#inFlight.values(), ...this.#waiting]) {
      if (isMeant(request.name, request.subscription)) this.#settle(request, error);
    }
  }

  finish(closed: ClosedError): void {
    this.disconnected();
    this.fail(ended(closed), () => true);
  }

  /** Lets those that wait have what room there is. */
  #fill(): void {
    // Settling one that is too large leads here again.
    if (this.#isHeld) return;
    this.#isHeld = true;
    while (this.#waiting.size > 0 && this.#inFlight.size < this.#most) {
      const { value } = this.#oldest.next();
      if (value) {
        this.#waiting.delete(value);
        this.#inFlight.set(value.id, value);
        value.inLine?.();
        if (this.line) this.#send(value);
      } else {
        this.#oldest = this.#waiting.values();
      }
    }
    this.#isHeld = false;
  }

  #send(request: Request): void {
    const { limit, send } = this.line!;
    const size = request.message.length;
    if (size > limit) {
      this.#settle(
        request,
        new RequestError("TooLarge", `${size} bytes are over the limit of ${limit}`),
      );
    } else {
      request.sent += 1;
      send(request.message);
    }
  }

  #settle(request: Request, outcome: Response | RequestError): void {
    if (!this.#inFlight.delete(request.id) && !this.#waiting.delete(request)) return;
    request.stopTimer?.();
    request.inLine?.();
    request.settle(outcome);
    this.#fill();
  }
}

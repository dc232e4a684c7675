// What can go wrong: one matches on `kind`, and on the server's `code` where it refused.

import type { ErrorCode, ServerError, Uuid } from "./protocol.js";

/**
 * The kinds and codes that coming back would not help: an unusable URL; a refusal of the client's doing; close codes by which a server
 * says that it does not want it (4500 to 4999), or that it broke the rules (of RFC 6455), as it would again.
 */
const FINAL = /^(Url|Refused4(?!08|25|29)|Closed(4[5-9]|100[23789]))/;

/**
 * Why there is no connection, or no longer one.
 *
 * * `Url`: the URL or the session id is none that this client can use.
 * * `Io`: nothing listens there, the network failed, or (in a browser, which does not tell) the server refused the handshake.
 * * `Refused`: the handshake was answered with another status; `code` is the status.
 * * `Protocol`: the peer does not speak the protocol.
 * * `TimedOut`: there was no `Welcome` in time.
 * * `Silent`: nothing was heard from the server for longer than its heartbeats allow.
 * * `Closed`: the server closed the connection; `code` is the close code.
 * * `Broken`: the connection ended without a word.
 * * `Token`: there was no token to give; `cause` is why.
 */
export type ConnectionErrorKind =
  | "Url"
  | "Io"
  | "Refused"
  | "Protocol"
  | "TimedOut"
  | "Silent"
  | "Closed"
  | "Broken"
  | "Token";

/** Why there is no connection, or no longer one. */
export class ConnectionError extends Error {
  constructor(
    readonly kind: ConnectionErrorKind,
    message: string,
    /** The HTTP status of a refusal, or the WebSocket close code. */
    readonly code = 0,
    cause?: unknown,
  ) {
    super(message, { cause });
    this.name = "ConnectionError";
  }

  /** Whether coming back would not help: a client does not do it by itself then. */
  get isFinal(): boolean {
    return FINAL.test(this.kind + this.code);
  }
}

/** Why a client has ended for good. */
export class ClosedError extends Error {
  /** What ended it, unless it was closed by the application. */
  declare readonly cause?: ConnectionError;

  constructor(
    /** `ByClient`: `close` was called. `ByServer`: the server does not want it back. `GaveUp`: too many attempts failed. */
    readonly kind: "ByClient" | "ByServer" | "GaveUp",
    cause?: ConnectionError,
  ) {
    super(`the client was closed${cause ? `: ${cause.message}` : ""}`, { cause });
    this.name = "ClosedError";
  }
}

/**
 * Why a request, a publication or a subscription failed.
 *
 * * `Refused`: the server refused it, and it changed nothing; `code` says why.
 * * `TooLarge`: it is longer than the server takes, and was not sent.
 * * `TimedOut`: there was no answer within `requestTimeout`.
 * * `AlreadySubscribed`: this client holds the subscription already; a session has one cursor in each.
 * * `Deleted`: the Queue that was subscribed was deleted. (A Broadcast has an event for it.)
 * * `EpochEnded`: what was to be acknowledged is of an epoch that has ended.
 * * `Answer`: the server answered with something that is no answer to this.
 * * `Closed`: the client has ended; `cause` says why. A publication that was sent may be in the log.
 */
export type RequestErrorKind =
  | "Refused"
  | "TooLarge"
  | "TimedOut"
  | "AlreadySubscribed"
  | "Deleted"
  | "EpochEnded"
  | "Answer"
  | "Closed";

/** What a `RequestError` says beside its kind. */
export interface RequestErrorDetails extends Partial<ServerError> {
  publicationId?: Uuid | undefined;
  cause?: ClosedError;
}

/** Why a request, a publication or a subscription failed. */
export class RequestError extends Error {
  /** `Refused`: why. */
  declare readonly code?: ErrorCode;
  /** `Refused`: the command's name, where the server knew it. */
  declare readonly command?: string;
  /** `Refused`: whether the same may succeed later. */
  declare readonly temporary?: boolean;
  /** `Refused`: when, in milliseconds. */
  declare readonly retryAfter?: number;
  /** `Refused`: what it was about. */
  declare readonly subscriptionId?: Uuid;
  /** `TimedOut`: of a publication. It may be in the log, or come there yet; publishing the same with this id adds it once. */
  declare readonly publicationId?: Uuid;
  /** `Closed`: why the client has ended. */
  declare readonly cause?: ClosedError;

  constructor(
    readonly kind: RequestErrorKind,
    message: string,
    details?: RequestErrorDetails,
  ) {
    super(message);
    this.name = "RequestError";
    Object.assign(this, details);
  }
}

export function ended(cause: ClosedError): RequestError {
  return new RequestError("Closed", cause.message, { cause });
}

export function timedOut(publicationId?: Uuid): RequestError {
  return new RequestError("TimedOut", "there was no answer in time", { publicationId });
}

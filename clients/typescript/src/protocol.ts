// The words of the wire protocol, version 1 (docs/protocol.md), as this client spells them: the fields in camelCase, everything
// else as it is on the wire.
//
// UUIDs are text in lower case. Sequences, times (milliseconds since 1970-01-01 UTC), durations (milliseconds) and counts are numbers:
// the protocol keeps all of them below 2^53, and a message with a larger one is not understood.

/** What the client offers as WebSocket subprotocol. */
export const SUBPROTOCOL = "infotainer.v1.cbor";

/** A UUID, 36 characters. */
export type Uuid = string;

/** A subscription: by its UUID (36 characters), or by any other text of 1 to 255 bytes, its name. */
export type SubscriptionReference = string;

/** Who gets a publication: every subscriber, or one at a time. */
export type Kind = "Broadcast" | "Queue";

/** What an acknowledged publication survives: nothing, `kill -9` of the server, a power cut. */
export type Durability = "Memory" | "Written" | "Synced";

/** Where delivery begins. `After` is a position (a sequence, or 0), `Since` a time, `Last` a number of publications. */
export type SubscribeFrom = "New" | "First" | { After: number } | { Since: number } | { Last: number };

/** The codes of the server's errors. */
export type ErrorCode =
  | "malformed"
  | "unknown-command"
  | "unsupported-format"
  | "invalid-argument"
  | "not-found"
  | "kind-mismatch"
  | "conflict"
  | "not-authorized"
  | "too-large"
  | "rate-limited"
  | "limit-reached"
  | "log-full"
  | "log-unavailable"
  | "shutting-down"
  | "internal";

/** Limits of what is kept; each that is left out is the server's default. */
export interface Retention {
  maxPublications?: number;
  maxBytes?: number;
  /** Milliseconds. */
  maxAge?: number;
}

/** Settings to be made or changed: only those that are given. `null` sets the default again. */
export interface SettingsPatch {
  retention?: Retention | null;
  durability?: Durability | null;
  /** Queue: milliseconds. */
  ackTimeout?: number | null;
  /** Queue: 0 is without limit. */
  maxDeliveries?: number | null;
  /** Queue. */
  deadLetter?: SubscriptionReference | null;
}

/** The settings in force. */
export interface Settings {
  name?: string;
  retention: Retention;
  durability: Durability;
  ackTimeout?: number;
  maxDeliveries?: number;
  deadLetter?: Uuid;
}

/** What a subscription is like. */
export interface SubscriptionMeta {
  subscriptionId: Uuid;
  kind: Kind;
  epoch: Uuid;
  settings: Settings;
  /** A time. */
  created: number;
  firstSequence: number;
  lastSequence: number;
  /** Of payload kept. */
  bytes: number;
  /** Sessions that hold it. */
  subscribers: number;
  /** Of these now. */
  connected: number;
  /** Queue: neither settled nor in flight. */
  pending?: number;
  /** Queue. */
  inFlight?: number;
}

/** Where a dead letter comes from, how often it was delivered there, and why it was given up. */
export interface DeadLetter {
  /** The Queue. */
  subscriptionId: Uuid;
  epoch: Uuid;
  sequence: number;
  deliveries: number;
  reason: "max-deliveries" | "rejected";
}

/** One publication. */
export interface Publication {
  subscriptionId: Uuid;
  publicationId: Uuid;
  sequence: number;
  /** Milliseconds since 1970-01-01 UTC. */
  time: number;
  /** Only where the publisher was authenticated. */
  publisher?: string;
  /** Only of what a Queue gave up. */
  deadLetter?: DeadLetter;
  data: Uint8Array;
  /** Queue: the how-many-th delivery this is, from 1. */
  delivery?: number;
}

/** A publication that is in the log. */
export interface Submitted {
  subscriptionId: Uuid;
  publicationId: Uuid;
  sequence: number;
  /** Whether the log held this id already: nothing was added, and the sequence is the first one's. */
  duplicate: boolean;
  /** The level reached. */
  durability: Durability;
}

/** The answer to `Acknowledge`, `Reject` and `Extend`. */
export interface Settled {
  subscriptionId: Uuid;
  count: number;
  /** Queue: ids that this connection did not hold. */
  lost?: Uuid[];
}

/** The ids of some publications of a log, in the order of their sequences. */
export interface LogIndex {
  logId: Uuid;
  entries: Uuid[];
  firstSequence: number;
  lastSequence: number;
  more: boolean;
}

/** A subscription that a durable session has again. */
export interface RestoredSubscription {
  subscriptionId: Uuid;
  kind: Kind;
  epoch: Uuid;
  cursor: number;
  recovered: boolean;
}

/** What the server says first on every connection. */
export interface Welcome {
  sessionId: Uuid;
  durable: boolean;
  resumed: boolean;
  subscriptions: RestoredSubscription[];
  /** `infotainer/<version>` */
  server: string;
  limits: {
    maxMessageSize: number;
    maxSubscriptions: number;
    heartbeatInterval: number;
    heartbeatTimeout: number;
  };
}

/** The answer to `Subscribe`. */
export interface Subscribed {
  subscriptionId: Uuid;
  kind: Kind;
  epoch: Uuid;
  firstSequence: number;
  lastSequence: number;
  recovered: boolean;
  /** Broadcast. */
  cursor?: number;
  /** Queue. */
  prefetch?: number;
}

/** Some publications of a log, in the order of their sequences. */
export interface LogPage {
  logId: Uuid;
  publications: Publication[];
  /** Ids that were looked up and can't be read: not in the log, or damaged. */
  missing: Uuid[];
  /** Whether there are more behind the last. */
  more: boolean;
}

/** Publications that are not delivered; the cursor is now `to`. */
export interface Gap {
  subscriptionId: Uuid;
  from: number;
  to: number;
  cause: "retention" | "damage";
}

/** Why the server refused. */
export interface ServerError {
  code: ErrorCode;
  message: string;
  command?: string;
  temporary: boolean;
  /** Milliseconds. */
  retryAfter?: number;
  subscriptionId?: Uuid;
}

/** Every response, by its name. */
export interface Responses {
  Welcome: Welcome;
  Subscribed: Subscribed;
  Unsubscribed: { subscriptionId: Uuid };
  Deleted: { subscriptionId: Uuid };
  Submitted: Submitted;
  Acknowledged: Settled;
  Rejected: Settled;
  Extended: Settled;
  Publication: Publication;
  LogIndex: LogIndex;
  DataLogEntry: LogPage;
  SubscriptionMeta: SubscriptionMeta;
  Subscriptions: { subscriptions: SubscriptionMeta[]; more: boolean };
  Gap: Gap;
  Pong: { time: number };
  /** Whom the connection speaks for; nothing of it where the server asks nobody. */
  Authenticated: { name?: string; expires?: number };
  TokenExpiring: { expires: number };
  Error: ServerError;
}

type Range = { logId: SubscriptionReference; after?: number | undefined; limit?: number | undefined };

/** Every command, by its name. */
export interface Commands {
  Subscribe: {
    subscriptionId: SubscriptionReference;
    kind?: Kind | undefined;
    from?: SubscribeFrom | undefined;
    epoch?: Uuid | undefined;
    prefetch?: number | undefined;
  };
  Unsubscribe: { subscriptionId: SubscriptionReference };
  SubmitPublication: {
    subscriptionId: SubscriptionReference;
    submission: Uint8Array;
    kind?: Kind | undefined;
    publicationId?: Uuid | undefined;
    expectedSequence?: number | undefined;
  };
  Acknowledge: { subscriptionId: SubscriptionReference; sequence?: number | undefined; publicationIds?: Uuid[] | undefined };
  Reject: {
    subscriptionId: SubscriptionReference;
    publicationIds: Uuid[];
    delay?: number | undefined;
    deadLetter?: boolean | undefined;
  };
  Extend: { subscriptionId: SubscriptionReference; publicationIds: Uuid[] };
  GetLogIndex: Range;
  GetLogEntries: Range | { logId: SubscriptionReference; entries: Uuid[] };
  CreateSubscription: { subscriptionId: SubscriptionReference; kind?: Kind | undefined; settings?: SettingsPatch | undefined };
  UpdateSubscription: { subscriptionId: SubscriptionReference; settings: SettingsPatch };
  GetSubscription: { subscriptionId: SubscriptionReference };
  ListSubscriptions: { after?: Uuid | undefined; limit?: number | undefined };
  DeleteSubscription: { subscriptionId: SubscriptionReference };
  Authenticate: { token: string };
  Ping: Record<never, never>;
}

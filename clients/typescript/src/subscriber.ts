// One subscription of a Broadcast: what the application sees of it (`Subscription`), and where it stands.
//
//             Subscribed                      buffer full
//  waiting ──> asking ──────────────> live ───────────────> behind
//     ^          ^ ^                   │                      │ half of the buffer is free
//     │          │ └───────────────────┼──────────────────────┘
//     └──────────┴── connection ends ──┘
//
// A subscription that is behind gets nothing: what comes for it is dropped, and asked for again from its cursor when there is room.
// That costs sending some twice, and means that a slow reader costs bounded memory, holds up no other subscription, no answer and no
// heartbeat, and misses nothing. (A WebSocket of a browser can't be read more slowly.)
//
// Owns what counts as full, and as done: an event is done when the next one is asked for. Does not own what is said to the server:
// that is the core's.

import type {
  Commands,
  Gap,
  Publication,
  Settled,
  Subscribed,
  SubscribeFrom,
  Uuid,
} from "./protocol.js";
import { Stream } from "./stream.js";

/** A publication, as an event of a subscription. */
export interface PublicationEvent extends Publication {
  type: "Publication";
}

/** `from` to `to` will not be delivered. */
export interface GapEvent {
  type: "Gap";
  from: number;
  to: number;
  /** `unexplained`: the server left them out without a word, which is a defect. */
  cause: Gap["cause"] | "unexplained";
}

/**
 * The log is not the one that the position was of, or ends before it: it was deleted and made again, restored, or is a `Memory` one
 * of a server that restarted. Delivery goes on with the oldest publication that it holds.
 */
export interface NotRecoveredEvent {
  type: "NotRecovered";
  /** Where delivery was to go on, where this client knows it. */
  previous: Place | undefined;
  /** The log's epoch. */
  epoch: Uuid;
  /** The position behind which delivery goes on. */
  cursor: number;
}

/** The subscription was deleted; nothing follows. */
export interface DeletedEvent {
  type: "Deleted";
}

/** What a subscription yields. */
export type Event = PublicationEvent | GapEvent | NotRecoveredEvent | DeletedEvent;

/** A sequence in one life of the log. */
export interface Place {
  epoch: Uuid;
  sequence: number;
}

/** How much a buffer holds: so many events (at least one), and bytes of payload. */
export interface Bound {
  events: number;
  bytes: number;
}

export const BOUND: Bound = { events: 4096, bytes: 4 << 20 };

/**
 * The events of one subscription, for `for await`. It ends when the subscription was deleted or the client closed, or throws why it
 * ended.
 *
 * Leaving the loop unsubscribes a transient session. A durable one keeps the subscription and its cursor, for the next `subscribe`
 * of this client or another. An object that is never iterated is held by the client until `unsubscribe` or `return`.
 */
export interface Subscription extends AsyncIterableIterator<Event, undefined> {
  /** Resolves when the subscription has begun. If it does not, the error is thrown by the iteration too. */
  readonly subscribed: Promise<void>;
  /** The subscription's id. */
  readonly id: Uuid;
  /** The epoch of the last event, or of the beginning; `undefined` until it has begun. */
  readonly epoch: Uuid | undefined;
  /**
   * The sequence of the last event, or the position behind which delivery began; `undefined` until it has begun. With `epoch` it is
   * what another `{ After: position }` goes on from.
   */
  readonly position: number | undefined;
  [Symbol.asyncIterator](): this;
  /** The next event. With the one before, the reader is done: a durable session acknowledges it. */
  next(): Promise<IteratorResult<Event, undefined>>;
  /** Ends the iteration, as leaving a `for await` does. What was taken last comes again to a durable session. */
  return(): Promise<IteratorResult<Event, undefined>>;
  /** Acknowledges every publication of the current epoch up to `sequence`, so that a durable session resumes behind it. */
  acknowledge(sequence: number): Promise<Settled>;
  /** Ends the subscription of this session, of a durable one too. */
  unsubscribe(): Promise<void>;
}

/** What the application asked for. */
export interface Wanted {
  from?: SubscribeFrom | undefined;
  epoch?: Uuid | undefined;
  bound: Bound;
  /** Whether what was taken is acknowledged by itself (durable sessions). */
  acknowledges?: boolean;
}

export class Subscriber extends Stream<[Place, Event], Event, Wanted> implements Subscription {
  /** The last sequence that went into the buffer; `undefined` until the first `Subscribed`. */
  place: Place | undefined;
  /** Where a durable session resumes in the server's view, as far as this client knows. */
  acknowledged = 0;
  isAcknowledging = false;
  /** The last publication with which the reader is done. */
  done: Place | undefined;

  /** Of the last event, or of the beginning. */
  #at: Place | undefined;
  #bytes = 0;
  /** The publication that was taken last. */
  #taken: Place | undefined;

  command(): Commands["Subscribe"] {
    const { place, wanted } = this;
    const { from, epoch } = place ? { from: { After: place.sequence }, epoch: place.epoch } : wanted;
    // What a Queue delivers would be leased, and never settled.
    return { subscriptionId: this.reference, kind: "Broadcast", from, epoch };
  }

  // ---- For the application ----

  get epoch(): Uuid | undefined {
    return this.#at?.epoch;
  }

  get position(): number | undefined {
    return this.#at?.sequence;
  }

  override next(): Promise<IteratorResult<Event, undefined>> {
    this.done = this.#taken ?? this.done;
    this.#taken = undefined;
    const next = super.next();
    this.core.taken(this);
    return next;
  }

  acknowledge(sequence: number): Promise<Settled> {
    return this.core.acknowledge(this.id, sequence, this.epoch);
  }

  // ---- The buffer ----

  get isFull(): boolean {
    const { events, bytes } = this.wanted.bound;
    const { length } = this.items;
    return length > 0 && (length >= events || this.#bytes >= bytes);
  }

  /** Whether at least half is free. */
  get isLow(): boolean {
    const { events, bytes } = this.wanted.bound;
    return this.items.length * 2 <= events && this.#bytes * 2 <= bytes;
  }

  /** Adds an event that leads up to `sequence`, also to a full buffer: whoever adds publications asks before. */
  add(event: Event, sequence = this.place!.sequence): void {
    this.place = { epoch: this.place!.epoch, sequence };
    this.#bytes += size(event);
    this.push([this.place, event]);
  }

  /** Whether it is live, and has yet to get what has this sequence. */
  isBefore(sequence: number): boolean {
    return this.state === "live" && sequence > this.place!.sequence;
  }

  gap({ from, to, cause }: Omit<GapEvent, "type">): void {
    if (this.isBefore(to)) this.add({ type: "Gap", from: Math.max(from, this.place!.sequence + 1), to, cause }, to);
  }

  protected take([place, event]: [Place, Event]): Event {
    this.#bytes -= size(event);
    this.#at = place;
    if (event.type === "Publication") this.#taken = place;
    return event;
  }

  // ---- Where it stands ----

  begin(place: Place): void {
    this.place = place;
    this.acknowledged = place.sequence;
    if (!this.isAnswered) this.#at = place;
  }

  /** Goes on where the server says that delivery begins, and tells if that is elsewhere. `true` if the epoch has ended. */
  live({ epoch, cursor = 0, recovered }: Pick<Subscribed, "epoch" | "cursor" | "recovered">): boolean {
    const { place, wanted } = this;
    const { from } = wanted;
    const asked =
      typeof from === "object" && "After" in from ? { epoch: wanted.epoch ?? epoch, sequence: from.After } : undefined;
    const previous = place ?? asked;
    // Where it is the same, retention may have taken something behind the cursor, of which a `Gap` tells next.
    const isSame = previous?.epoch === epoch && previous.sequence === cursor;
    this.state = "live";
    if (!place || !isSame) this.begin({ epoch, sequence: cursor });
    if (!isSame && (place || !recovered)) this.add({ type: "NotRecovered", previous, epoch, cursor });
    this.answer();
    return place !== undefined && place.epoch !== epoch;
  }
}

function size(event: Event): number {
  return event.type === "Publication" ? event.data.length : 0;
}

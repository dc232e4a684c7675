// One subscription of a Queue: what the application sees of it (`QueueSubscription`), and what it has on lease.
//
//               Subscribed, or restored
//  not served ──────────────────────────> served: deliveries are leased to this connection
//      ^                                    │
//      └── connection ends, Unsubscribe ────┘ every lease ends; what waits to be taken is dropped
//
// Owns the leases. Invariants: what was delivered on one connection is never settled on another; what is waiting to be taken is on
// lease, as far as one can tell without the server's clock, and is no more than the prefetch.

import type { Response } from "./codec.js";
import type { RequestError } from "./errors.js";
import type { Commands, Publication, Settled, Subscribed, Uuid } from "./protocol.js";
import { Stream } from "./stream.js";

/** One delivery of a publication. It is on lease until it is settled, until its time is out, or until the connection ends. */
export interface Delivery extends Publication {
  /** The how-many-th delivery of this publication it is, from 1. It may skip numbers. */
  delivery: number;
}

/** What became of deliveries. */
export interface Leases extends Settled {
  /** How many were held, and are settled or extended. */
  count: number;
  /**
   * The ids of those that are not this connection's any more: their time was out, or they are of a connection that has ended. They come
   * again, to this or another subscriber, unless they were settled in the moment in which the connection ended.
   */
  lost: Uuid[];
}

/**
 * The deliveries of a Queue, for `for await`. It goes on by itself after a reconnect, and then without what it held before. It ends when
 * the client is closed, or throws why it ended: `Deleted`, if the Queue was.
 *
 * Leaving the loop unsubscribes, in a durable session too, and gives back what is not settled: settle first.
 */
export interface QueueSubscription extends AsyncIterableIterator<Delivery, undefined> {
  /** Resolves when the subscription has begun. If it does not, the error is thrown by the iteration too. */
  readonly subscribed: Promise<void>;
  /** The subscription's id. */
  readonly id: Uuid;
  /** How many deliveries may be on lease to this subscriber at once; `undefined` until the server has said so. */
  readonly prefetch: number | undefined;
  [Symbol.asyncIterator](): this;
  next(): Promise<IteratorResult<Delivery, undefined>>;
  return(): Promise<IteratorResult<Delivery, undefined>>;
  /** Their work is done, and they never come again. At most 10,000 at once, as with the other two. */
  acknowledge(deliveries: Iterable<Delivery>): Promise<Leases>;
  /** They come again, not before `delay` milliseconds; or, with `deadLetter`, go to the dead letters at once. */
  reject(deliveries: Iterable<Delivery>, options?: RejectOptions): Promise<Leases>;
  /** Their ack time-out begins anew. */
  extend(deliveries: Iterable<Delivery>): Promise<Leases>;
  /** Ends the subscription of this session, and gives back what it holds. */
  unsubscribe(): Promise<void>;
}

/** How deliveries are rejected. */
export interface RejectOptions {
  delay?: number;
  deadLetter?: boolean;
}

/** What answers each. */
const ANSWERS = { Acknowledge: "Acknowledged", Reject: "Rejected", Extend: "Extended" } as const;

export class QueueSubscriber extends Stream<Delivery, Delivery, number | undefined> implements QueueSubscription {
  /** Whether deliveries that come are this subscriber's. */
  isServed = false;
  prefetch: number | undefined;
  /** What was delivered on this connection. */
  #leased = new WeakSet<Delivery>();

  command(): Commands["Subscribe"] {
    return { subscriptionId: this.reference, kind: "Queue", prefetch: this.wanted };
  }

  protected take(delivery: Delivery): Delivery {
    return delivery;
  }

  live({ prefetch }: Pick<Subscribed, "prefetch">): void {
    this.state = "live";
    this.isServed = true;
    this.prefetch = prefetch;
    this.answer();
  }

  deliver(delivery: Delivery): void {
    if (!this.isServed) return;
    // What is not taken before its time is out comes again behind what waits. So it is the oldest that are not leased any more.
    if (delivery.delivery > 1) this.items = this.items.filter((one) => one.publicationId !== delivery.publicationId);
    if (this.items.length >= (this.prefetch ?? Infinity)) this.items.shift();
    this.#leased.add(delivery);
    this.push(delivery);
  }

  /** The leases have ended. */
  leave(): void {
    this.isServed = false;
    this.items = [];
    this.#leased = new WeakSet();
  }

  override end(error?: RequestError): void {
    this.stopTimer?.();
    this.leave();
    super.end(error);
  }

  acknowledge(deliveries: Iterable<Delivery>): Promise<Leases> {
    return this.#settle("Acknowledge", deliveries);
  }

  reject(deliveries: Iterable<Delivery>, options?: RejectOptions): Promise<Leases> {
    return this.#settle("Reject", deliveries, options);
  }

  extend(deliveries: Iterable<Delivery>): Promise<Leases> {
    return this.#settle("Extend", deliveries);
  }

  async #settle(name: keyof typeof ANSWERS, deliveries: Iterable<Delivery>, options?: RejectOptions): Promise<Leases> {
    const publicationIds: Uuid[] = [];
    const lost: Uuid[] = [];
    for (const delivery of deliveries) {
      (this.#leased.has(delivery) ? publicationIds : lost).push(delivery.publicationId);
    }
    const none = { subscriptionId: this.id, count: 0, lost: publicationIds };
    const settled = publicationIds.length
      ? await this.core.ask(name, { subscriptionId: this.reference, publicationIds, ...options }, ANSWERS[name], {
          otherwise: { name: ANSWERS[name], fields: none } as Response,
        })
      : none;
    return { ...settled, lost: [...lost, ...(settled.lost ?? [])] };
  }
}

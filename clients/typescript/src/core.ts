// What a client knows and wants, without I/O: where each subscription stands, how it goes on after a reconnect, and what comes for it.
//
// Owns the subscribers, and the cursors of those of Broadcasts. Does not own sockets, nor pauses between connections (`connection`), nor
// the requests of callers (`requests`), nor leases (`queue`). Invariant: a publication of a Broadcast goes into a buffer only if it is the
// next one behind the subscriber's cursor, or behind a `Gap` that says what is missing.

import { encodeCommand, type Received, type Response } from "./codec.js";
import { type ClosedError, ended, RequestError, timedOut } from "./errors.js";
import type {
  Commands,
  Publication,
  Responses,
  RestoredSubscription,
  Settled,
  SubscriptionReference,
  Uuid,
  Welcome,
} from "./protocol.js";
import { type Delivery, QueueSubscriber } from "./queue.js";
import { type About, type Line, Requests } from "./requests.js";
import { Stream } from "./stream.js";
import { BOUND, Subscriber, type Wanted } from "./subscriber.js";
import { after } from "./timer.js";
import { subscriptionId } from "./uuid.js";

/** The pause before a resumption is tried again that failed for a time, unless the server says another. In milliseconds. */
const RETRY = 1000;

/**
 * How long what a Queue delivers to a session that has it again waits for the application to subscribe. Then it is given up, so that
 * others get what nobody works on here. In milliseconds.
 */
const UNCLAIMED = 1000;

type Any = Subscriber | QueueSubscriber;

export class Core {
  readonly requests: Requests;
  /** Why there are no new requests any more. */
  closed: ClosedError | undefined;
  #hasProgressed = false;
  readonly #subscribers = new Map<Uuid, Any>();

  constructor(
    readonly isDurable: boolean,
    inFlight: number,
    requestTimeout: number,
  ) {
    this.requests = new Requests(Math.max(inFlight, 1), requestTimeout);
  }

  /** Asks, and gives the fields of the answer. */
  async ask<Name extends keyof Commands, Answer extends keyof Responses>(
    name: Name,
    fields: Commands[Name],
    answer: Answer,
    about: About = {},
  ): Promise<Responses[Answer]> {
    if (this.closed) throw ended(this.closed);
    const outcome = await this.requests.ask(name, fields, about);
    if (outcome instanceof RequestError) throw outcome;
    if (outcome.name !== answer) throw new RequestError("Answer", `${outcome.name} is no answer to this`);
    return outcome.fields as Responses[Answer];
  }

  /** The client has ended: everybody who waits is told. */
  finish(closed: ClosedError): void {
    this.closed = closed;
    this.requests.finish(closed);
    for (const subscriber of this.#subscribers.values()) subscriber.end(closed.cause && ended(closed));
    this.#subscribers.clear();
  }

  // ---- Connections ----

  connected(welcome: Welcome, line: Line): void {
    this.requests.connected(line);
    const restored = new Map(welcome.subscriptions.map((one) => [one.subscriptionId, one]));
    for (const subscriber of [...this.#subscribers.values()]) {
      let one = restored.get(subscriber.id);
      const wasDeleted = !one && this.isDurable && welcome.resumed;
      const isQueue = subscriber instanceof QueueSubscriber;
      if (one && isQueue !== (one.kind === "Queue")) {
        // Nobody works on what that leases.
        if (!isQueue) this.#leave(subscriber);
        one = undefined;
      }
      if (wasDeleted && subscriber.isAnswered) {
        this.#deleted(subscriber.id);
      } else if (isQueue) {
        // Deliveries come at once, and it may have had another prefetch.
        subscriber.isServed = one !== undefined;
        this.#ask(subscriber);
      } else {
        this.#resume(subscriber, one);
      }
    }
    for (const [id, one] of restored) {
      // Nobody has asked for it yet. Its publications come all the same, so they are kept for whoever will.
      if (this.#subscribers.has(id)) continue;
      if (one.kind === "Broadcast") {
        this.#add(new Subscriber(this, id, id, { bound: BOUND }, false)).live(one);
      } else {
        const queue = this.#add(new QueueSubscriber(this, id, id, undefined, false));
        queue.live({});
        queue.stopTimer = after(UNCLAIMED, () => this.release(queue));
      }
    }
    this.requests.resend();
  }

  /** Gives whether the connection was of use. */
  disconnected(): boolean {
    const wasOfUse = this.#hasProgressed;
    this.#hasProgressed = false;
    this.requests.disconnected();
    for (const subscriber of this.#subscribers.values()) {
      if (subscriber.state !== "behind") subscriber.state = "waiting";
      if (subscriber instanceof Subscriber) subscriber.isAcknowledging = false;
      else if (subscriber.isClaimed) subscriber.leave();
      else this.release(subscriber);
    }
    return wasOfUse;
  }

  received({ id, response }: Received): void {
    const { name, fields } = response;
    if (name === "Publication") this.#publication(fields);
    else if (name === "Gap") this.#broadcast(fields.subscriptionId)?.gap(fields);
    else if (name === "Deleted") this.#deleted(fields.subscriptionId);
    if (id !== undefined && this.requests.answered(id, response)) this.#hasProgressed = true;
  }

  // ---- Subscribing ----

  /** Begins a subscription, or takes one up that a durable session has. */
  subscribe(reference: SubscriptionReference, wanted: Wanted): Subscriber {
    const id = subscriptionId(reference);
    const held = this.#unclaimed(id);
    if (held instanceof QueueSubscriber) {
      // It is of the other kind, as the server will say.
      this.release(held);
    } else if (held?.place && wanted.from === undefined) {
      held.isClaimed = true;
      held.wanted = wanted;
      return held;
    }
    return this.#begin(new Subscriber(this, id, reference, wanted, true));
  }

  /** Begins a subscription of a Queue, or takes one up that a durable session has, with what has come for it. */
  subscribeQueue(reference: SubscriptionReference, prefetch?: number): QueueSubscriber {
    const id = subscriptionId(reference);
    const held = this.#unclaimed(id);
    const queue = held instanceof QueueSubscriber ? held : new QueueSubscriber(this, id, reference, prefetch, true);
    queue.wanted = prefetch;
    queue.isClaimed = true;
    queue.stopTimer?.();
    return this.#begin(queue);
  }

  #unclaimed(id: Uuid): Any | undefined {
    if (this.closed) throw ended(this.closed);
    const held = this.#subscribers.get(id);
    if (held?.isClaimed) throw new RequestError("AlreadySubscribed", "already subscribed");
    return held;
  }

  #begin<One extends Any>(subscriber: One): One {
    // What can't be encoded is told here, not when there is a connection.
    encodeCommand("Subscribe", subscriber.command());
    this.#add(subscriber);
    if (!subscriber.isAnswered) {
      subscriber.stopTimer = after(this.requests.timeout, () => {
        subscriber.end(timedOut());
        this.release(subscriber);
      });
    }
    this.#ask(subscriber);
    return subscriber;
  }

  #add<One extends Any>(subscriber: One): One {
    this.#subscribers.set(subscriber.id, subscriber);
    return subscriber;
  }

  #broadcast(id: Uuid): Subscriber | undefined {
    const subscriber = this.#subscribers.get(id);
    return subscriber instanceof Subscriber ? subscriber : undefined;
  }

  #holds(subscriber: Stream<any, any, any>): boolean {
    return this.#subscribers.get(subscriber.id) === subscriber;
  }

  /**
   * Nobody reads the subscription any more. A durable session keeps it, for whoever asks for it next; but not a Queue, since there is no
   * position in it to come back to, and others want what is leased.
   */
  release(held: Stream<any, any, any>): void {
    if (!this.#holds(held)) return;
    const { id, reference, state } = held;
    if (this.isDurable && held instanceof Subscriber) {
      const { wanted, place, done, acknowledged } = held;
      // As if it had just been restored: what is not acknowledged comes again.
      const kept = this.#add(new Subscriber(this, id, reference, { ...wanted, acknowledges: false, bound: BOUND }, false));
      if (place) {
        // An acknowledgement under way may have kept the last ones back.
        const isDone = wanted.acknowledges && done?.epoch === place.epoch && done.sequence > acknowledged;
        kept.begin({ ...place, sequence: isDone ? done.sequence : acknowledged });
        kept.answer();
      }
      this.#ask(kept);
    } else {
      this.forget(id);
      if (state === "live" || state === "asking") this.#leave(held);
    }
  }

  #leave({ reference }: Stream<any, any, any>): void {
    this.requests.askAside("Unsubscribe", { subscriptionId: reference });
  }

  /** The application ends the subscription of this session. */
  forget(id: Uuid): void {
    this.#subscribers.get(id)?.end();
    this.#subscribers.delete(id);
  }

  /** Sends the `Subscribe` that takes the subscription up where it stands, if there is a connection. */
  #ask(subscriber: Any): void {
    if (!this.requests.line) return;
    subscriber.state = "asking";
    // One at a time; what a connection leaves unanswered is forgotten with it.
    this.requests.askAside("Subscribe", subscriber.command(), (outcome) => {
      if (this.#holds(subscriber)) this.#subscribed(subscriber, outcome);
    });
    // `from` made the server forget what was acknowledged.
    if (subscriber instanceof Subscriber) this.#acknowledgeAside(subscriber);
  }

  #acknowledgeAside({ id, acknowledged: sequence }: Subscriber, then?: () => void): void {
    if (this.isDurable && sequence > 0) {
      this.requests.askAside("Acknowledge", { subscriptionId: id, sequence }, then);
    }
  }

  #subscribed(subscriber: Any, outcome: Response | RequestError): void {
    if (outcome instanceof RequestError) {
      subscriber.state = "waiting";
      if (outcome.code === "shutting-down") return;
      if (outcome.temporary && subscriber.isAnswered) {
        after(outcome.retryAfter ?? RETRY, () => {
          if (this.#holds(subscriber) && subscriber.state === "waiting") this.#ask(subscriber);
        });
      } else {
        this.#subscribers.delete(subscriber.id);
        // A session that had the Queue before has it still.
        if (subscriber instanceof QueueSubscriber && subscriber.isServed) this.#leave(subscriber);
        subscriber.end(outcome);
      }
    } else if (outcome.name === "Subscribed") {
      if (subscriber instanceof QueueSubscriber) return subscriber.live(outcome.fields);
      if (subscriber.live(outcome.fields)) this.#epochEnded(subscriber.id);
      this.#acknowledgeDone(subscriber);
    }
  }

  /** Takes a subscription up again on a connection that has just begun. */
  #resume(subscriber: Subscriber, restored?: RestoredSubscription): void {
    const { id, place } = subscriber;
    const isWanted = subscriber.state !== "behind" || subscriber.isLow;
    if (!place && restored && subscriber.wanted.from === undefined) {
      subscriber.live(restored);
    } else if (place && restored?.epoch === place.epoch && restored.cursor <= place.sequence && isWanted) {
      subscriber.state = "live";
      this.#acknowledgeDone(subscriber);
    } else {
      if (place && restored?.epoch !== place.epoch) {
        // Whether the epoch is still the same may be known too late to acknowledge in it.
        subscriber.acknowledged = 0;
        this.#epochEnded(id);
      }
      if (isWanted) this.#ask(subscriber);
      else if (restored) this.#leaveTheStream(subscriber);
    }
  }

  /** What was acknowledged in an epoch that has ended must not be acknowledged in the next one. */
  #epochEnded(id: Uuid): void {
    this.requests.fail(epochEnded(), (name, subscription) => name === "Acknowledge" && subscription === id);
  }

  #deleted(id: Uuid): void {
    const subscriber = this.#subscribers.get(id);
    // One that has not begun is made again by the `Subscribe` that is on its way.
    if (!subscriber?.isAnswered) return;
    if (subscriber instanceof QueueSubscriber) subscriber.end(new RequestError("Deleted", "the Queue was deleted"));
    else subscriber.add({ type: "Deleted" });
    this.forget(id);
  }

  // ---- Delivery ----

  #publication(publication: Publication): void {
    const { subscriptionId, sequence } = publication;
    const subscriber = this.#subscribers.get(subscriptionId);
    if (subscriber instanceof QueueSubscriber) {
      subscriber.deliver(publication as Delivery);
    } else if (!subscriber?.isBefore(sequence)) {
      return;
    } else if (subscriber.isFull) {
      subscriber.state = "behind";
      this.#leaveTheStream(subscriber);
      return;
    } else {
      subscriber.gap({ from: 0, to: sequence - 1, cause: "unexplained" });
      subscriber.add({ type: "Publication", ...publication }, sequence);
    }
    this.#hasProgressed = true;
  }

  /** Lets the server send as little as it can of a subscription that is behind. */
  #leaveTheStream(subscriber: Subscriber): void {
    if (!this.isDurable) {
      this.#leave(subscriber);
    } else if (subscriber.acknowledged > 0) {
      this.requests.askAside("Subscribe", { subscriptionId: subscriber.reference, from: "New" });
      this.#acknowledgeAside(subscriber);
    }
    // Position 0 can't be acknowledged, so a durable session whose reader has done with nothing yet stays where it is: what comes is
    // dropped.
  }

  /** The reader has taken something. */
  taken(subscriber: Subscriber): void {
    if (!this.#holds(subscriber)) return;
    this.#acknowledgeDone(subscriber);
    if (subscriber.state === "behind" && subscriber.isLow) {
      subscriber.state = "waiting";
      this.#ask(subscriber);
    }
  }

  /** Acknowledges what the application has done with, if it is new; one at a time, so that a fast reader makes few. */
  #acknowledgeDone(subscriber: Subscriber): void {
    const { done, place, wanted, acknowledged } = subscriber;
    if (!wanted.acknowledges || !this.requests.line || subscriber.isAcknowledging) return;
    if (!done || done.epoch !== place?.epoch || done.sequence <= acknowledged) return;
    subscriber.acknowledged = done.sequence;
    subscriber.isAcknowledging = true;
    this.#acknowledgeAside(subscriber, () => {
      subscriber.isAcknowledging = false;
      if (this.#holds(subscriber)) this.#acknowledgeDone(subscriber);
    });
  }

  /** Acknowledges for the application. */
  async acknowledge(reference: string, sequence: number, epoch?: Uuid): Promise<Settled> {
    const subscription = subscriptionId(reference);
    const subscriber = this.#broadcast(subscription);
    const place = subscriber?.place;
    if (place) {
      if (epoch !== undefined && epoch !== place.epoch) throw epochEnded();
      // What is above the cursor the server refuses.
      if (sequence <= place.sequence) subscriber.acknowledged = Math.max(subscriber.acknowledged, sequence);
    }
    return this.ask("Acknowledge", { subscriptionId: reference, sequence }, "Acknowledged", { subscription });
  }
}

function epochEnded(): RequestError {
  return new RequestError("EpochEnded", "the epoch has ended");
}

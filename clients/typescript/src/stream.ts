// What comes for an application and waits to be taken: the part that subscriptions of both kinds have in common.
//
// Owns the items that wait, or the readers that wait for items, and how both end. Does not own what is said to the server (`core`), nor
// what an item is.

import type { Core } from "./core.js";
import { ClosedError, ended, type RequestError } from "./errors.js";
import type { Commands, SubscriptionReference, Uuid } from "./protocol.js";

const END = { done: true, value: undefined } as const;

export abstract class Stream<Item, Value, Wanted> implements AsyncIterableIterator<Value, undefined> {
  readonly subscribed: Promise<void>;

  /** `waiting` is for a connection, or for the time to try again; `asking` for the answer to a request. */
  state: "waiting" | "asking" | "live" | "behind" = "waiting";
  /** Whether the application was told that it began, or that it will not. */
  isAnswered = false;
  /** Ends the patience with the first `Subscribed`, or with who might ask for it. */
  stopTimer: (() => void) | undefined;
  protected items: Item[] = [];

  #answer!: (how?: Promise<never>) => void;
  readonly #readers: ((result: IteratorResult<Value, undefined> | Promise<never>) => void)[] = [];
  /** That nothing follows, and why, until that is told. */
  #end: { error?: RequestError | undefined } | undefined;

  constructor(
    readonly core: Core,
    readonly id: Uuid,
    readonly reference: SubscriptionReference,
    /** What the application asked for. */
    public wanted: Wanted,
    /** Whether the application has it. */
    public isClaimed: boolean,
  ) {
    this.subscribed = new Promise((resolve) => (this.#answer = resolve));
    // Whoever iterates is told as well.
    this.subscribed.catch(() => {});
  }

  /** What takes it up where it stands. */
  abstract command(): Commands["Subscribe"];

  /** Hands an item to the application. */
  protected abstract take(item: Item): Value;

  // ---- For the application ----

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<Value, undefined>> {
    const item = this.items.shift();
    if (item !== undefined) return Promise.resolve({ done: false, value: this.take(item) });
    return new Promise((reader) => {
      this.#readers.push(reader);
      this.#tellEnd();
    });
  }

  return(): Promise<IteratorResult<Value, undefined>> {
    this.items = [];
    this.end();
    this.#end = {};
    this.core.release(this);
    return Promise.resolve(END);
  }

  async unsubscribe(): Promise<void> {
    this.core.forget(this.id);
    this.items = [];
    await this.core.ask("Unsubscribe", { subscriptionId: this.reference }, "Unsubscribed");
  }

  // ---- For the core ----

  push(item: Item): void {
    const reader = this.#readers.shift();
    if (reader) reader({ done: false, value: this.take(item) });
    else this.items.push(item);
  }

  /** Nothing comes after what waits. */
  end(error?: RequestError): void {
    this.answer(error ?? ended(new ClosedError("ByClient")));
    this.#end ??= { error };
    this.#tellEnd();
  }

  #tellEnd(): void {
    if (!this.#end) return;
    for (const reader of this.#readers.splice(0)) {
      reader(failed(this.#end.error) ?? END);
      // Once is enough.
      this.#end = {};
    }
  }

  /** Tells the application that the subscription has begun, or why it will not. */
  answer(error?: RequestError): void {
    if (this.isAnswered) return;
    this.isAnswered = true;
    this.stopTimer?.();
    this.#answer(failed(error));
  }
}

function failed(error?: RequestError): Promise<never> | undefined {
  return error && Promise.reject(error);
}

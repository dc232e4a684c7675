// Reading a log: what is stored, without subscribing.

import type { Core } from "./core.js";
import { RequestError } from "./errors.js";
import type { Commands, LogIndex, LogPage, Publication, Responses, SubscriptionReference, Uuid } from "./protocol.js";

/** The most publications of one page, and ids of one request. */
const MOST = 10_000;

/** What to read of a log. */
export interface LogOptions {
  /** From behind this position; from the oldest kept if it is not said. */
  after?: number;
  /** The most publications of a page, 1 to 10,000. Default 1,000. A page is also cut at 4 MiB. */
  pageSize?: number;
}

/** The publications that a log holds, one by one; or by `pages`, or only their ids by `index`. */
export class Log implements AsyncIterable<Publication> {
  readonly #core: Core;
  readonly #range: { logId: SubscriptionReference; after: number; limit: number };

  constructor(core: Core, logId: SubscriptionReference, { after = 0, pageSize = 1_000 }: LogOptions) {
    this.#core = core;
    this.#range = { logId, after, limit: Math.min(Math.max(pageSize, 1), MOST) };
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Publication, void> {
    for await (const page of this.pages()) yield* page.publications;
  }

  /** The pages up to the end that the log has when the last is read. One is asked for when it is wanted, so a slow reader costs one. */
  pages(): AsyncGenerator<LogPage, void> {
    return pages(this.#core, "GetLogEntries", this.#range, "DataLogEntry", (page) => page.publications.at(-1)?.sequence);
  }

  /** The ids of the publications, page by page, without their payloads. */
  index(): AsyncGenerator<LogIndex, void> {
    // What is kept has no holes, so the ids are those of the sequences that follow.
    return pages(
      this.#core,
      "GetLogIndex",
      this.#range,
      "LogIndex",
      ({ entries, firstSequence }, { after }) => entries.length && Math.max(after, firstSequence - 1) + entries.length,
    );
  }
}

/** Asks page by page, each behind what `last` says of the one before. */
export async function* pages<
  Name extends keyof Commands,
  Answer extends "DataLogEntry" | "LogIndex" | "Subscriptions",
  Range extends Commands[Name],
>(
  core: Core,
  name: Name,
  range: Range,
  answer: Answer,
  last: (page: Responses[Answer], range: Range) => unknown,
): AsyncGenerator<Responses[Answer], void> {
  for (let more = true; more; ) {
    const page = await core.ask(name, range, answer);
    const after = last(page, range);
    more = progressed(page.more, after);
    range = { ...range, after };
    yield page;
  }
}

/** Looks ids up, as often as it takes. */
export async function lookUp(core: Core, logId: SubscriptionReference, ids: Iterable<Uuid>): Promise<Omit<LogPage, "logId" | "more">> {
  const wanted = new Set([...ids].map((id) => id.toLowerCase()));
  const publications: Publication[] = [];
  const missing: Uuid[] = [];
  while (wanted.size > 0) {
    const entries = [...wanted].slice(0, MOST);
    const page = await core.ask("GetLogEntries", { logId, entries }, "DataLogEntry");
    const told = [...page.missing, ...page.publications.map((one) => one.publicationId)];
    // An answer without more has settled all that was asked.
    for (const id of progressed(page.more, told.length) ? told : entries) wanted.delete(id);
    publications.push(...page.publications);
    missing.push(...page.missing);
  }
  publications.sort((one, other) => one.sequence - other.sequence);
  return { publications, missing };
}

/** Whether there is more, which a page of nothing must not say. */
function progressed(more: boolean, by: unknown): boolean {
  if (more && !by) throw new RequestError("Answer", "a page without progress");
  return more;
}

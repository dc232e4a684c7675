// Whether the page is in the background or without a network, so that attempts to connect are in vain or a waste. Outside of a
// browser nothing of this is there, and nothing ever pauses.

/** Why no attempts are made. */
export type Paused = "hidden" | "offline";

/** The parts of a page's globals that are used here. */
interface Globals extends Partial<EventTarget> {
  document?: Partial<EventTarget> & { visibilityState?: string };
  navigator?: { onLine?: boolean };
}

export interface Page {
  /** Why no attempt should be made now. */
  paused(): Paused | undefined;
  /** Listens no more. */
  stop(): void;
}

/** `changed` is told when the page comes into view, and when its network comes or goes. */
export function watchPage({ url, hiddenAfter = 60_000 }: { url: URL; hiddenAfter?: number }, changed: () => void): Page {
  const page = globalThis as Globals;
  const { document } = page;
  // A server on this machine is reached without a network.
  const isLocal = /^(localhost|127\.|\[::1)/.test(url.hostname);
  let hiddenSince = Infinity;
  const look = (event?: unknown) => {
    if (document?.visibilityState === "hidden") {
      hiddenSince = Math.min(hiddenSince, Date.now());
    } else {
      hiddenSince = Infinity;
      if (event) changed();
    }
  };
  const listen = (how: "addEventListener" | "removeEventListener") => {
    document?.[how]?.("visibilitychange", look);
    page[how]?.("online", changed);
    page[how]?.("offline", changed);
  };
  look();
  listen("addEventListener");
  return {
    paused() {
      if (!isLocal && page.navigator?.onLine === false) return "offline";
      return Date.now() - hiddenSince >= hiddenAfter ? "hidden" : undefined;
    },
    stop: () => listen("removeEventListener"),
  };
}

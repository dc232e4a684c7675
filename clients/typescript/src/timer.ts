// Timers.

/** The longest that timers can be, 24 days; they fire at once for more. */
const MOST = 2 ** 31 - 1;

/** Calls `then` after so many milliseconds, unless the function that this gives is called before. */
export function after(pause: number, then: () => void): () => void {
  const timer = setTimeout(then, Math.min(pause, MOST));
  return () => clearTimeout(timer);
}

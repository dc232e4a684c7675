// How long to wait before the next attempt to connect: growing, and jittered, so that many clients of a server that restarts do
// not come back at once.

/** How a client comes back when its connection has ended. */
export interface Reconnect {
  /** The first pause is at the most this, in milliseconds. Default 100. */
  firstPause?: number;
  /** Each pause is at the most twice as long as the one before, and never longer than this, in milliseconds. Default 30,000. */
  longestPause?: number;
  /** How many attempts may fail in a row before the client gives up. Default any number; 0 does not come back at all. */
  attempts?: number;
}

/** The pause after so many attempts that failed in a row, in milliseconds; `undefined` if there is to be none. */
export function pauseAfter(
  failed: number,
  { firstPause = 100, longestPause = 30_000, attempts = Infinity }: Reconnect = {},
  chance = Math.random(),
): number | undefined {
  // The lower half is left out: a pause of next to nothing is none.
  return failed < attempts ? Math.min(firstPause * 2 ** failed, longestPause) * (0.5 + 0.5 * chance) : undefined;
}

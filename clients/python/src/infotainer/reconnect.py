"""How long to wait before the next attempt to connect.

The pauses grow, and are jittered, so that many clients of a server that restarts do not come back at once.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """How a client comes back when its connection has ended. By default for ever."""

    first_pause: float = 0.1
    """The first pause is at the most this, in seconds."""
    longest_pause: float = 30.0
    """Each pause is at the most twice as long as the one before, and never longer than this, in seconds."""
    attempts: int | None = None
    """How many attempts may fail in a row before the client gives up; 0 does not come back at all."""


class Backoff:
    """Counts attempts that failed in a row."""

    # Beyond this the doubling changes nothing, and a float has an end.
    _MOST_DOUBLINGS = 64

    def __init__(self, policy: Reconnect) -> None:
        self._policy = policy
        self._failed = 0

    def reset(self) -> None:
        """A connection was of use."""
        self._failed = 0

    def next(self, chance: float) -> float | None:
        """The pause before the next attempt, `chance` being random in 0 to 1; None if there is to be none."""
        policy = self._policy
        if policy.attempts is not None and self._failed >= policy.attempts:
            return None
        most = min(policy.first_pause * 2.0 ** min(self._failed, self._MOST_DOUBLINGS), policy.longest_pause)
        self._failed += 1
        # The lower half is left out: a pause of next to nothing is none.
        return most * (0.5 + 0.5 * chance)

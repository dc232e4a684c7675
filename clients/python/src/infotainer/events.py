"""What a subscription yields, besides publications."""

from dataclasses import dataclass
from uuid import UUID

from .protocol import Deleted, GapCause, Publication


@dataclass(frozen=True, slots=True)
class Gap:
    """The publications from `from_` to `to` will not come."""

    from_: int
    to: int
    cause: GapCause


@dataclass(frozen=True, slots=True)
class Place:
    """A position in one life of a log."""

    epoch: UUID
    sequence: int


@dataclass(frozen=True, slots=True)
class NotRecovered:
    """Delivery could not go on where it was, and goes on with the oldest publication that the log holds.

    The log is not the one that the position was of, or ends before it: it was deleted and made again, restored, or is a `Memory` one of
    a server that restarted.
    """

    previous: Place | None
    """What delivery was to go on from, where this client knows it."""
    epoch: UUID
    """The log's epoch."""
    cursor: int
    """The position behind which delivery goes on."""


Event = Publication | Gap | NotRecovered | Deleted
"""What a subscription yields."""

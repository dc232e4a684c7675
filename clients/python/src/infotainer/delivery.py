"""What a queue yields: publications that are leased."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar
from uuid import UUID

from . import commands
from ._leases import Lease
from .errors import AnswerNotUnderstood, Refused
from .protocol import (
    MAX_ENTRIES,
    Acknowledged,
    Command,
    ErrorCode,
    Extended,
    Publication,
    Rejected,
    Response,
)

Settling = TypeVar("Settling", Acknowledged, Rejected, Extended)


class Asker(Protocol):
    """What this needs of the core."""

    async def request_here(self, make: Callable[[], Command | None]) -> Response | None:
        """Sends a request on the connection that there is, and on no other one."""
        ...


@dataclass(frozen=True, slots=True)
class Delivery(Publication):
    """A publication of a queue that this client holds: nobody else gets it meanwhile.

    It is held until it is acknowledged or rejected, until the queue's `ack_timeout` has passed since it came or was extended, until the
    connection ends, or until the subscription is left. Then it goes to somebody, this client perhaps, unless it was acknowledged.

    Each of the three methods tells in `lost` whether it was too late. If the connection ended after this client had asked and before
    the server answered, that is too late as well, although the server may have heard it.
    """

    delivery: int = 1
    """Which delivery of the publication this is, from 1. Numbers may be left out: a delivery may end before it arrives."""
    _lease: Lease = field(kw_only=True, repr=False, compare=False)
    _asker: Asker = field(kw_only=True, repr=False, compare=False)

    @property
    def is_lost(self) -> bool:
        """Whether this client knows that it does not hold it any more: settled, delivered again, or from an earlier connection."""
        return self._lease.is_over

    async def acknowledge(self) -> Acknowledged:
        """The work is done: the publication never comes again."""
        return await acknowledge(self.subscription_id, (self,))

    async def reject(self, *, delay: int | None = None, dead_letter: bool | None = None) -> Rejected:
        """Gives it back, to be delivered again not before `delay` milliseconds; or, with `dead_letter`, never."""
        return await reject(self.subscription_id, (self,), delay, dead_letter)

    async def extend(self) -> Extended:
        """The queue's `ack_timeout` begins anew."""
        return await extend(self.subscription_id, (self,))


async def acknowledge(id: UUID, deliveries: Iterable[Delivery]) -> Acknowledged:
    """Acknowledges all of these, of one queue."""

    def done(lease: Lease) -> None:
        lease.end()
        # It may have timed out and come again while the acknowledgement was under way: then that was acknowledged.
        lease.tenure.end(lease.publication_id)

    return await _settle(id, deliveries, lambda ids: commands.acknowledge_ids(id, ids), Acknowledged, done)


async def reject(
    id: UUID, deliveries: Iterable[Delivery], delay: int | None, dead_letter: bool | None
) -> Rejected:
    """Rejects all of these, of one queue."""
    return await _settle(
        id, deliveries, lambda ids: commands.reject(id, ids, delay, dead_letter), Rejected, Lease.end
    )


async def extend(id: UUID, deliveries: Iterable[Delivery]) -> Extended:
    """Extends all of these, of one queue."""
    return await _settle(id, deliveries, lambda ids: commands.extend(id, ids), Extended, _nothing)


def _nothing(lease: Lease) -> None:
    """The lease goes on."""


async def _settle(
    queue: UUID,
    deliveries: Iterable[Delivery],
    make: Callable[[list[UUID]], Command],
    kind: type[Settling],
    done: Callable[[Lease], None],
) -> Settling:
    # Each counts once.
    given = list({id(delivery): delivery for delivery in deliveries}.values())
    for delivery in given:
        if not isinstance(delivery, Delivery) or delivery.subscription_id != queue:
            raise TypeError(f"no delivery of this queue: {delivery!r}")
        if delivery._asker is not given[0]._asker:
            raise TypeError("deliveries of more than one client")
    count, lost = 0, dict[UUID, None]()
    for start in range(0, len(given), MAX_ENTRIES):
        part = given[start : start + MAX_ENTRIES]
        settled = await _settle_part(part, make, kind, done)
        count += settled.count
        lost.update(dict.fromkeys(settled.lost or ()))
    return kind(queue, count, tuple(lost))


async def _settle_part(
    part: list[Delivery],
    make: Callable[[list[UUID]], Command],
    kind: type[Settling],
    done: Callable[[Lease], None],
) -> Settling:
    asked: dict[UUID, Lease] = {}

    # Called when it is this request's turn: what was lost while it waited is not asked for.
    def command() -> Command | None:
        asked.update({one.publication_id: one._lease for one in part if not one.is_lost})
        return make(list(asked)) if asked else None

    # What is known to be lost needs no turn, nor a connection.
    is_known = all(one.is_lost for one in part)
    answer = None if is_known else await _answer(part[0]._asker, command, kind)
    lost: dict[UUID, None] = dict.fromkeys(
        one.publication_id for one in part if one.publication_id not in asked
    )
    if answer is None:
        return kind(part[0].subscription_id, 0, (*lost, *asked))
    lost.update(dict.fromkeys(answer.lost or ()))
    for publication_id, lease in asked.items():
        if publication_id in lost:
            lease.end()
        else:
            done(lease)
    return kind(answer.subscription_id, answer.count, tuple(lost))


async def _answer(asker: Asker, make: Callable[[], Command | None], kind: type[Settling]) -> Settling | None:
    try:
        answer = await asker.request_here(make)
    except Refused as refused:
        if refused.code == ErrorCode.NOT_FOUND:
            # The queue was deleted, and nobody holds anything of it.
            return None
        raise
    if answer is None or isinstance(answer, kind):
        return answer
    raise AnswerNotUnderstood(repr(answer))

"""The requests that wait for their answers.

Owns request ids and the order of requests, which is the order in which callers made them. Does not own what follows from an answer.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from .codec import encode_command, encode_request
from .errors import InfotainerError, TooLarge
from .protocol import Command, Response, ServerError

# An unexpected answer is told by its name alone.
Answer = Response | str
# Failures are results, not exceptions: a future whose caller has gone would complain about those.
Outcome = Answer | InfotainerError
Reply = asyncio.Future[Outcome]


class ConnectionLost(InfotainerError):
    """The connection ended before the answer to a request that means nothing on another. Not for applications."""


@dataclass(slots=True, eq=False)
class InFlight:
    """One request."""

    name: str
    """The command's."""
    subscription_id: UUID | None
    """The subscription that it is about."""
    encoded: bytes
    reply: Reply | None
    """Of a caller, who waits for the answer."""
    answered: Callable[[Answer], None] | None
    """Of what the client asks for itself: what follows from the answer."""
    is_bound: bool = False
    """Whether it means something on the connection on which it is sent alone, and so ends with it."""
    deadline: float | None = None
    sent: int = 0
    """How many times it was handed to a connection."""

    @property
    def is_unwanted(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.reply is not None and self.reply.done()


class Requests:
    """All of them, by their ids."""

    def __init__(self) -> None:
        self._next_id = 0
        self._in_flight: dict[int, InFlight] = {}
        self.released: Callable[[], None] = lambda: None
        """Called whenever a caller's request is gone."""

    def __len__(self) -> int:
        return len(self._in_flight)

    def insert(self, request: InFlight) -> int:
        """Notes a request, and gives its id."""
        request_id = self._next_id
        self._next_id += 1
        self._in_flight[request_id] = request
        return request_id

    def get(self, request_id: int) -> InFlight | None:
        """The request with this id."""
        return self._in_flight.get(request_id)

    def remove(self, request_id: int) -> InFlight | None:
        """Takes it out."""
        request = self._in_flight.pop(request_id, None)
        if request is not None and request.reply is not None:
            self.released()
        return request

    def message(self, request_id: int, limit: int) -> bytes | None:
        """What to send; None if it is longer than `limit`, and then who waits for it has been told."""
        request = self._in_flight[request_id]
        message = encode_request(request_id, request.encoded)
        if len(message) > limit and request.reply is not None:
            self.remove(request_id)
            answer(request.reply, TooLarge(len(message), limit))
            return None
        request.sent += 1
        return message

    def of_callers(self) -> Iterator[tuple[int, InFlight]]:
        """Those of callers, in order. Any may be removed meanwhile."""
        requests = list(self._in_flight.items())
        return ((request_id, request) for request_id, request in requests if request.reply is not None)

    def forget_own(self) -> None:
        """Drops what the client asked for itself: on the next connection it begins anew."""
        self._in_flight = {
            request_id: request
            for request_id, request in self._in_flight.items()
            if request.reply is not None
        }

    def end_bound(self) -> None:
        """Tells the callers of those that end with their connection."""
        for request_id, request in self.of_callers():
            if request.is_bound and request.reply is not None:
                self.remove(request_id)
                answer(request.reply, ConnectionLost())

    def drop_unwanted(self) -> None:
        """Drops what nobody waits for any more."""
        for request_id, request in self.of_callers():
            if request.is_unwanted:
                self.remove(request_id)

    def refuse(self, is_refused: Callable[[InFlight], bool], error: InfotainerError) -> None:
        """Fails the callers of those for which `is_refused`."""
        for request_id, request in self.of_callers():
            if is_refused(request) and request.reply is not None:
                self.remove(request_id)
                answer(request.reply, error)


FOR_EVER: Final = 60.0 * 60 * 24 * 365


def in_flight(
    command: Command, reply: Reply | None = None, answered: Callable[[Answer], None] | None = None
) -> InFlight:
    """A request that has not been sent."""
    return InFlight(command.name, command.subscription_id, encode_command(command), reply, answered)


def answer(reply: Reply, outcome: Outcome) -> None:
    """Whoever asked may have gone."""
    if not reply.done():
        reply.set_result(outcome)


def is_refusal(response: Answer, code: str) -> bool:
    """Whether the server refused with this code."""
    return isinstance(response, ServerError) and response.code == code

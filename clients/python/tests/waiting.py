"""Waiting for what has to come, but not for ever."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from infotainer import Event, Publication, Reconnect, Subscription

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds. Only a failing test ever waits for so long."""

EAGER = Reconnect(first_pause=0.001, longest_pause=0.004)
"""Comes back at once."""


async def within(awaitable: Awaitable[T], seconds: float = PATIENCE) -> T:
    """What it gives, in time."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Waits until a condition holds, asking again and again."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 (the condition is the server's)
            await asyncio.sleep(0.01)


async def next_event(subscription: Subscription) -> Event:
    """The next event."""
    return await within(anext(subscription))


async def next_sequence(subscription: Subscription) -> int:
    """The sequence of the next event, which is a publication."""
    event = await next_event(subscription)
    assert isinstance(event, Publication), event
    return event.sequence

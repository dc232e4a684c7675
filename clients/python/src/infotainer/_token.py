"""Where a client has its token from: given once, or fetched whenever one is needed."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from .errors import TokenFailed

Token = str | Callable[[], str | Awaitable[str]]
"""A token, or a function that gives one, or an awaitable of one."""

PAUSE: Final = 1.0
"""Seconds before another attempt to fetch a token for a connection that is there."""

log = logging.getLogger("infotainer")


async def fetched(token: Token | None) -> str | None:
    """The token for the next connection."""
    if token is None or isinstance(token, str):
        return token
    try:
        given = token()
        return await given if inspect.isawaitable(given) else given
    except Exception as error:
        raise TokenFailed(f"the token could not be fetched: {error}") from error


async def renewed(token: Token | None) -> str | None:
    """Another token for a connection whose own is about to end; None if there is no other."""
    if token is None or isinstance(token, str):
        return None
    while True:
        try:
            return await fetched(token)
        except TokenFailed as error:
            log.warning("%s; trying again in %.0f s", error, PAUSE)
        await asyncio.sleep(PAUSE)

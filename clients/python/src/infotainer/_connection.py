"""The task behind every client: connects, serves the connection, waits, connects again.

Owns the socket, the pauses and the clock. Does not own what messages mean (`_core`).

```text
 connect ──> Welcome ──> serve ──> ended ──> pause ──┐
    ^                                 │              │
    │                                 └─ 45xx: end   │
    └────────────────────────────────────────────────┘
```
"""

import asyncio
import logging
import random
from ssl import SSLContext
from typing import Any, Final

from ._core import Core
from ._socket import CLOSE, Socket
from ._token import Token, fetched, renewed
from .codec import DecodeError, decode_response
from .errors import (
    Closed,
    ClosedByClient,
    ClosedByServer,
    ConnectionFailed,
    ConnectTimedOut,
    GaveUp,
    NotTheProtocol,
    Silent,
)
from .protocol import Response, Welcome
from .reconnect import Backoff, Reconnect
from .status import Connected, Connecting, Ended, StatusWatch, Waiting

STALL: Final = 0.05
"""Seconds that a full buffer may hold up the whole connection, so that TCP holds the server back, before its subscription falls
behind. Only a reader that takes nothing for so long is passed over; one that is merely slow sets the pace."""

DRAIN: Final = 10.0
"""Seconds that requests may wait for their answers while the client closes."""

BATCH: Final = 64
"""Messages that are received in one turn, so that everybody else gets theirs."""

log = logging.getLogger("infotainer")


class Connection:
    """The one task of a client."""

    def __init__(
        self,
        core: Core,
        endpoint: str,
        token: Token | None,
        tls: SSLContext | None,
        reconnect: Reconnect,
        connect_timeout: float,
        fails_first: bool,
    ) -> None:
        self._core = core
        self._endpoint = endpoint
        self._token = token
        self._tls = tls
        self._backoff = Backoff(reconnect)
        self._connect_timeout = connect_timeout
        self._fails_first = fails_first
        self.status = StatusWatch()
        self._closing = asyncio.Event()
        self._changed = asyncio.Event()
        self._drain_until: float | None = None
        self._resumed_at = 0.0
        core.changed = self._changed.set

    def close(self, drain: bool = True) -> None:
        """Lets the task end in order: what is under way is waited for, if `drain` and there is a connection."""
        self._core.is_closing = True
        until = self._core.now() + (DRAIN if drain else 0.0)
        self._drain_until = until if self._drain_until is None else min(until, self._drain_until)
        self._closing.set()
        self._changed.set()

    async def run(self) -> None:
        """Lives until the client has ended."""
        closed: Closed = ClosedByClient()
        try:
            closed = await self._live()
        finally:
            self._core.finish(closed)
            self.status.set(Ended(closed))

    async def _live(self) -> Closed:
        while True:
            try:
                ended = await self._connect_and_serve()
            except ConnectionFailed as error:
                ended = error
            if ended is None:
                return ClosedByClient()
            if self._fails_first:
                return GaveUp(ended)
            if ended.is_final:
                return ClosedByServer(ended)
            if self._closing.is_set():
                return ClosedByClient()
            if self._core.take_progress():
                self._backoff.reset()
            pause = self._backoff.next(random.random())
            if pause is None:
                return GaveUp(ended)
            pause = max(pause, ended.retry_after)
            log.info("%s; connecting again in %.3f s", ended, pause)
            self.status.set(Waiting(ended, pause))
            try:
                async with asyncio.timeout(pause):
                    await self._closing.wait()
                return ClosedByClient()
            except TimeoutError:
                self.status.set(Connecting())

    async def _connect_and_serve(self) -> ConnectionFailed | None:
        """Has one connection. None is an end that the client wanted."""
        opened = await self._open_unless_closing()
        if opened is None:
            return None
        socket, welcome = opened
        try:
            self._fails_first = False
            self._core.connected(welcome)
            self.status.set(Connected(welcome))
            return await self._serve(socket, welcome)
        finally:
            socket.abort()
            self._core.disconnected()

    async def _open_unless_closing(self) -> tuple[Socket, Welcome] | None:
        opening = asyncio.ensure_future(self._open())
        closing = asyncio.ensure_future(self._closing.wait())
        is_handed_over = False
        try:
            await asyncio.wait((opening, closing), return_when=asyncio.FIRST_COMPLETED)
            is_handed_over = opening.done()
            return opening.result() if is_handed_over else None
        finally:
            await _end(opening, closing)
            if not is_handed_over and not opening.cancelled() and opening.exception() is None:
                opening.result()[0].abort()

    async def _open(self) -> tuple[Socket, Welcome]:
        """Connects, shakes hands, and waits for the `Welcome`."""
        socket = None
        scope = asyncio.timeout(self._connect_timeout)
        try:
            async with scope:
                socket = await Socket.open(self._endpoint, await fetched(self._token), self._tls)
                _, welcome = _decode(await socket.receive())
            if not isinstance(welcome, Welcome):
                raise NotTheProtocol("its first message is no Welcome")
            return socket, welcome
        except BaseException as error:
            if socket is not None:
                socket.abort()
            if isinstance(error, TimeoutError) and scope.expired():
                raise ConnectTimedOut from None
            raise

    async def _serve(self, socket: Socket, welcome: Welcome) -> ConnectionFailed | None:
        reading = asyncio.ensure_future(self._read(socket))
        writing = asyncio.ensure_future(self._write(socket, welcome))
        renewing = asyncio.ensure_future(self._renew())
        try:
            await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                return reading.result()
            ended = writing.result()
            if ended is None:
                # What comes now is read, or the goodbye would wait behind it.
                async with asyncio.timeout(CLOSE):
                    await socket.close()
            return ended
        except TimeoutError:
            return None
        finally:
            await _end(reading, writing, renewing)

    async def _read(self, socket: Socket) -> ConnectionFailed:
        """Reads until the connection ends."""
        core = self._core
        try:
            while True:
                for _ in range(BATCH):
                    core.received(*_decode(await socket.receive()))
                    if core.subscribers.stalled is not None:
                        await self._stalled()
                await asyncio.sleep(0)
        except ConnectionFailed as error:
            return error

    async def _renew(self) -> None:
        """Gives the server another token whenever it warns that the one in use is about to end."""
        while True:
            await self._core.token_expiring.wait()
            self._core.token_expiring.clear()
            token = await renewed(self._token)
            if token is not None:
                self._core.authenticate(token)

    async def _stalled(self) -> None:
        """A buffer is full: lets its reader catch up, but not for long."""
        subscribers = self._core.subscribers
        try:
            async with asyncio.timeout(STALL):
                while (buffer := subscribers.stalled) is not None:
                    if buffer.is_full:
                        await buffer.room()
                    else:
                        subscribers.go_on()
        except TimeoutError:
            subscribers.give_way()
        # Time in which nothing is read is no silence of the server's.
        self._resumed_at = self._core.now()

    async def _write(self, socket: Socket, welcome: Welcome) -> ConnectionFailed | None:
        """Writes what there is to write, and does what its time has come for.

        Never waits for reading, nor reading for this, or client and server could both wait for ever. Ends when the client is to
        say goodbye (None), or when the server has been silent for too long.
        """
        core, outgoing = self._core, self._core.outgoing
        silence = (welcome.limits.heartbeat_interval + welcome.limits.heartbeat_timeout) / 1000
        is_broken = False
        while True:
            self._changed.clear()
            now = core.now()
            core.retry(now)
            if self._drain_until is not None and (core.is_idle() or now >= self._drain_until):
                return None
            silent_at = max(socket.heard, self._resumed_at) + silence
            if now >= silent_at:
                return Silent()
            wakes = (silent_at, self._drain_until, core.next_retry())
            try:
                async with asyncio.timeout_at(min(wake for wake in wakes if wake is not None)):
                    while outgoing and not is_broken:
                        await socket.send(outgoing.popleft())
                    if is_broken or self._drain_until is None or not core.is_idle():
                        await self._changed.wait()
            except TimeoutError:
                pass
            except ConnectionFailed as error:
                # What the server said before has still to be read: it may say why.
                log.debug("the connection can't be written to: %s", error)
                is_broken = True


def _decode(message: bytes) -> tuple[int | None, Response | str]:
    try:
        return decode_response(message)
    except DecodeError as error:
        raise NotTheProtocol(str(error)) from error


async def _end(*tasks: asyncio.Task[Any]) -> None:
    """Cancels those that are not done, and waits for all."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

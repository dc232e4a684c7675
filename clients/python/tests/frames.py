"""Writes down what the tests send to a real server and receive from it (`docs/vectors/README.md`)."""

import os
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from ssl import SSLContext
from typing import TextIO
from unittest.mock import patch
from urllib.parse import urlsplit

from peer import MADE_UP

from infotainer._socket import Socket

LONG = 1 << 10
"""Bytes from which a message is mostly payload."""

BUDGET = 2 << 20
"""Bytes of long messages that are written down: the grammar learns nothing from more of them, and they fill the disk."""


class Frames:
    """One file of messages."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._budget = BUDGET

    def write(self, direction: str, message: bytes) -> None:
        if len(message) >= LONG:
            if len(message) > self._budget:
                return
            self._budget -= len(message)
        self._file.write(f"{direction} {message.hex()}\n")


@contextmanager
def recorded(folder: str) -> Iterator[None]:
    """Every socket that opens meanwhile writes into a file in `folder`."""
    path = Path(folder, f"python-{os.getpid()}-{uuid.uuid4()}.hex")
    path.parent.mkdir(parents=True, exist_ok=True)
    real = Socket.open, Socket.send, Socket.receive
    made_up: weakref.WeakSet[Socket] = weakref.WeakSet()

    async def opened(endpoint: str, token: str | None = None, tls: SSLContext | None = None) -> Socket:
        socket = await real[0](endpoint, token, tls)
        if urlsplit(endpoint).port in MADE_UP:
            made_up.add(socket)
        return socket

    async def send(socket: Socket, message: bytes) -> None:
        if socket not in made_up:
            frames.write(">", message)
        await real[1](socket, message)

    async def receive(socket: Socket) -> bytes:
        message = await real[2](socket)
        if socket not in made_up:
            frames.write("<", message)
        return message

    with (
        path.open("w", encoding="ascii") as file,
        patch.multiple(Socket, open=opened, send=send, receive=receive),
    ):
        frames = Frames(file)
        yield

"""Tokens: given, fetched, renewed on the living connection, and refused."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator

import pytest
from server import Server
from waiting import EAGER, eventually, within

from infotainer import (
    Client,
    ClosedByPeer,
    ClosedByServer,
    Connected,
    Ended,
    HandshakeRefused,
    TokenFailed,
    connect,
)

SECRET = "a secret of more than thirty-two bytes"
ALL = {name: ["*"] for name in ("subscribe", "publish", "read", "acknowledge", "manage")}


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    with Server(JWT_SECRET=SECRET) as server:
        yield server


def token(seconds: float) -> str:
    claims = {"sub": "alice", "exp": time.time() + seconds, "infotainer": ALL}
    parts = [{"alg": "HS256", "typ": "JWT"}, claims]
    said = b".".join(_base64(json.dumps(part).encode()) for part in parts)
    return (said + b"." + _base64(hmac.digest(SECRET.encode(), said, hashlib.sha256))).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


async def test_a_token_that_is_given_gets_in_and_another_does_not(guarded: Server) -> None:
    async with connect(guarded.url, token=token(3600)) as client:
        await client.publish("news", b"x")
    with pytest.raises(HandshakeRefused) as refused:
        await connect(guarded.url, token="nonsense")
    assert refused.value.status == 401


async def test_a_token_is_renewed_before_it_ends(guarded: Server) -> None:
    fetched = 0

    async def fetch() -> str:
        nonlocal fetched
        fetched += 1
        return token(2 if fetched == 1 else 3600)

    async def is_renewed() -> bool:
        return fetched == 2

    async with connect(guarded.url, token=fetch, reconnect=EAGER) as client:
        await eventually(is_renewed)
        # Longer than the first one was good.
        await asyncio.sleep(2.5)
        await client.publish("news", b"x")
        assert fetched == 2
        assert isinstance(client.status, Connected)


async def test_a_client_whose_token_ended_does_not_come_back(guarded: Server) -> None:
    async with connect(guarded.url, token=token(1), reconnect=EAGER) as client:
        await within(_ended(client))
        match client.status:
            case Ended(ClosedByServer(why=ClosedByPeer() as why)):
                assert why.close_code == 4501
            case other:
                raise AssertionError(other)


async def _ended(client: Client) -> None:
    async for status in client.statuses():
        if isinstance(status, Ended):
            return


async def test_a_token_that_can_not_be_fetched_is_an_attempt_that_failed(guarded: Server) -> None:
    def fetch() -> str:
        raise LookupError("it is Sunday")

    with pytest.raises(TokenFailed, match="it is Sunday"):
        await connect(guarded.url, token=fetch)

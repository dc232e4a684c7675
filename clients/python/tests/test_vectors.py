"""The shared vectors (`docs/vectors`), every one of them."""

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import cbor2
import pytest

from infotainer import FIRST, NEW, After, Durability, Kind, Last, Retention, Since, commands, subscription_id
from infotainer.codec import DecodeError, decode_response, encode_command, encode_request
from infotainer.protocol import Command, LogPage, ServerError, ServerGap

VECTORS = Path(__file__).parents[3] / "docs/vectors"

Vector = dict[str, Any]


def vectors(direction: str, has: str = "name") -> list[Any]:
    """Those of a direction that say `has`."""
    files = [json.loads(path.read_text()) for path in sorted(VECTORS.glob("*.json"))]
    assert all(file["protocol"] == 1 for file in files)
    found = [vector for file in files if file["direction"] == direction for vector in file["vectors"]]
    chosen = [pytest.param(vector, id=vector["name"]) for vector in found if has in vector]
    assert chosen
    return chosen


def ids(values: list[str]) -> list[UUID]:
    return [UUID(value) for value in values]


def start(value: Any) -> Any:
    match value:
        case "New":
            return NEW
        case "First":
            return FIRST
        case {"After": position}:
            return After(position)
        case {"Since": time}:
            return Since(time)
        case {"Last": count}:
            return Last(count)
    raise AssertionError(value)


def retention(value: Any) -> Any:
    return None if value is None else Retention(**value)


def settings(value: dict[str, Any]) -> dict[str, Any]:
    patch = dict(value)
    if "retention" in patch:
        patch["retention"] = retention(patch["retention"])
    if patch.get("durability") is not None:
        patch["durability"] = Durability(patch["durability"])
    return patch


# How each field of a vector is said in Python, and under which name.
ARGUMENTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "subscription_id": ("reference", str),
    "log_id": ("reference", str),
    "submission": ("data", bytes.fromhex),
    "kind": ("kind", Kind),
    "from": ("start", start),
    "epoch": ("epoch", UUID),
    "publication_id": ("publication_id", UUID),
    "publication_ids": ("ids", ids),
    "entries": ("ids", ids),
    "settings": ("settings", settings),
}

MAKERS: dict[str, Callable[..., Command]] = {
    "Subscribe": commands.subscribe,
    "Unsubscribe": commands.unsubscribe,
    "SubmitPublication": commands.submit_publication,
    "Acknowledge": commands.acknowledge,
    "Acknowledge by ids": commands.acknowledge_ids,
    "Reject": commands.reject,
    "Extend": commands.extend,
    "GetLogIndex": commands.log_index,
    "GetLogEntries": commands.log_entries,
    "GetLogEntries by ids": commands.log_entries_of,
    "CreateSubscription": commands.create,
    "UpdateSubscription": commands.update,
    "GetSubscription": commands.get,
    "DeleteSubscription": commands.delete,
    "Authenticate": commands.authenticate,
    "Ping": commands.ping,
}


def made(vector: Vector) -> Command:
    """The vector's command, by the functions that the client makes commands with."""
    name, said = vector["command"], vector["fields"]
    if name == "ListSubscriptions":
        after = UUID(said["after"]) if "after" in said else None
        return commands.list_subscriptions(after, said.get("limit"))
    arguments = {}
    for key, value in said.items():
        argument, convert = ARGUMENTS.get(key, (key, lambda value: value))
        arguments[argument] = convert(value)
    if name in ("Acknowledge", "GetLogEntries"):
        name += " by ids" if "ids" in arguments else ""
    return MAKERS[name](**arguments)


@pytest.mark.parametrize("vector", vectors("client-to-server", "command"))
def test_commands_are_encoded_as_the_vector_says(vector: Vector) -> None:
    command = encode_command(made(vector))
    message = command if "request_id" not in vector else encode_request(vector["request_id"], command)
    wanted = bytes.fromhex(vector["hex"])
    if vector.get("exact") and vector["fields"]:
        assert message == wanted
    # A command without fields is its bare name here, where the vectors have an empty map, too. Others are decoded.
    item = cbor2.loads(message)
    if "request_id" in vector:
        assert item[0] == vector["request_id"]
        item = item[1]
    name, fields = next(iter(item.items())) if isinstance(item, dict) else (item, {})
    assert name == vector["command"]
    assert {key: in_json(key, value) for key, value in fields.items()} == vector["fields"]


def in_json(key: str, value: Any) -> Any:
    """A field that was encoded, as the vectors' JSON says it."""
    match value:
        case bytes():
            return value.hex() if key == "submission" else str(UUID(bytes=value))
        case list():
            return [in_json(key, element) for element in value]
        case dict():
            return {name: in_json(name, element) for name, element in value.items()}
    return value


@pytest.mark.parametrize("vector", vectors("client-to-server", "uuid"))
def test_names_stand_for_the_uuid_that_the_vector_says(vector: Vector) -> None:
    [reference] = vector["fields"].values()
    assert subscription_id(reference) == UUID(vector["uuid"])


def said(value: Any) -> Any:
    """A response as the vectors' JSON says it: what is not there is left out."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [said(element) for element in value]
    if is_dataclass(value):
        pairs = [(field.name.rstrip("_"), getattr(value, field.name)) for field in fields(value)]
        return {name: said(element) for name, element in pairs if element is not None}
    return value


NAMES = {ServerError: "Error", ServerGap: "Gap", LogPage: "DataLogEntry"}


@pytest.mark.parametrize("vector", vectors("server-to-client"))
def test_responses_are_decoded_as_the_vector_says(vector: Vector) -> None:
    request_id, response = decode_response(bytes.fromhex(vector["hex"]))
    assert request_id == vector.get("request_id")
    assert not isinstance(response, str)
    assert NAMES.get(type(response), type(response).__name__) == vector["response"]
    assert said(response) == vector["fields"]


@pytest.mark.parametrize("vector", vectors("server-to-client"))
def test_responses_that_end_early_or_late_are_refused(vector: Vector) -> None:
    whole = bytes.fromhex(vector["hex"])
    for length in range(len(whole)):
        with pytest.raises(DecodeError):
            decode_response(whole[:length])
    with pytest.raises(DecodeError):
        decode_response(whole + b"\x00")


@pytest.mark.parametrize("vector", vectors("server-to-client"))
def test_fields_of_a_wrong_type_are_refused_and_unknown_ones_ignored(vector: Vector) -> None:
    item = cbor2.loads(bytes.fromhex(vector["hex"]))
    [(name, known)] = (item[1] if isinstance(item, list) else item).items()
    for key in known:
        with pytest.raises(DecodeError):
            decode_response(cbor2.dumps({name: known | {key: 1.5}}))
    _, response = decode_response(cbor2.dumps({name: known | {"unknown": 1.5}}))
    assert response == decode_response(bytes.fromhex(vector["hex"]))[1]


def test_malformed_messages_are_refused_and_unknown_responses_are_not() -> None:
    for vector in vectors("client-to-server"):
        message = bytes.fromhex(vector.values[0]["hex"])
        if vector.values[0]["diagnostic"] is None and len(message) < 1000:
            with pytest.raises(DecodeError):
                decode_response(message)
    assert decode_response(cbor2.dumps([3, {"Dance": {}}])) == (3, "Dance")

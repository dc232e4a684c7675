"""Messages to bytes and back: one CBOR item (RFC 8949) for each.

Owns the envelopes and the types of fields. Trusts nothing that comes: what does not have the form of the protocol is a `DecodeError`.
Fields that are not known are ignored, so that a newer server is understood.
"""

from collections.abc import Callable
from io import BytesIO
from typing import Any, Final, TypeVar
from uuid import UUID

import cbor2

from .protocol import (
    Acknowledged,
    Authenticated,
    Command,
    DeadLetter,
    DeadLetterReason,
    Deleted,
    Durability,
    Extended,
    GapCause,
    Kind,
    Limits,
    LogIndex,
    LogPage,
    Pong,
    Publication,
    Rejected,
    Response,
    RestoredSubscription,
    Retention,
    ServerError,
    ServerGap,
    Settings,
    Submitted,
    Subscribed,
    SubscriptionMeta,
    Subscriptions,
    TokenExpiring,
    Unsubscribed,
    Welcome,
)

_LIMIT: Final = 1 << 53

T = TypeVar("T")
Settling = TypeVar("Settling", Acknowledged, Rejected, Extended)


class DecodeError(ValueError):
    """A message that does not have the form of the protocol."""


def encode_command(command: Command) -> bytes:
    """A bare command: a map of one pair, or the name alone if it has no fields."""
    return cbor2.dumps({command.name: dict(command.fields)} if command.fields else command.name)


def encode_request(request_id: int, command: bytes) -> bytes:
    """An encoded command with the id under which its answer is expected."""
    return b"\x82" + cbor2.dumps(request_id) + command


def decode_response(message: bytes) -> tuple[int | None, Response | str]:
    """The request id, if there is one, and the response; only its name if this client does not know it."""
    stream = BytesIO(message)
    try:
        item = cbor2.CBORDecoder(stream).decode()
    except Exception as error:
        # Each version of the decoder has errors of its own.
        raise DecodeError(f"not one well-formed item: {error}") from error
    if stream.read(1):
        raise DecodeError("something behind the item")
    request_id = None
    if isinstance(item, list):
        if len(item) != 2:
            raise DecodeError("an array of other than two")
        request_id = _natural(item[0], "the request id")
        item = item[1]
    if not isinstance(item, dict) or len(item) != 1:
        raise DecodeError("no map of one pair")
    [(name, fields)] = item.items()
    if not isinstance(name, str) or not isinstance(fields, dict):
        raise DecodeError("no name with a map of fields")
    decode = _RESPONSES.get(name)
    return request_id, name if decode is None else decode(_Fields(name, fields))


def _natural(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value < _LIMIT:
        raise DecodeError(f"{what} is no natural number: {value!r}")
    return value


def _uuid(value: Any, what: str) -> UUID:
    if type(value) is not bytes or len(value) != 16:
        raise DecodeError(f"{what} is no UUID: {value!r}")
    return UUID(bytes=value)


class _Fields:
    """The fields of one map."""

    __slots__ = ("fields", "name")

    def __init__(self, name: str, fields: Any) -> None:
        if not isinstance(fields, dict):
            raise DecodeError(f"{name} is no map: {fields!r}")
        self.name = name
        self.fields = fields

    def get(self, key: str, check: Callable[[Any, str], T]) -> T:
        try:
            value = self.fields[key]
        except KeyError:
            raise DecodeError(f"{self.name} without {key}") from None
        return check(value, key)

    def optional(self, key: str, check: Callable[[Any, str], T]) -> T | None:
        value = self.fields.get(key)
        return None if value is None else check(value, key)

    def map(self, key: str) -> "_Fields":
        return _Fields(key, self.get(key, _any))

    def array(self, key: str, check: Callable[[Any, str], T]) -> tuple[T, ...]:
        return tuple(check(value, key) for value in self.get(key, _list))


def _any(value: Any, what: str) -> Any:
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise DecodeError(f"{what} is no array: {value!r}")
    return value


def _bool(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise DecodeError(f"{what} is no bool: {value!r}")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise DecodeError(f"{what} is no text: {value!r}")
    return value


def _bytes(value: Any, what: str) -> bytes:
    if type(value) is not bytes:
        raise DecodeError(f"{what} is no byte string: {value!r}")
    return value


def _sequence(value: Any, what: str) -> int:
    if _natural(value, what) == 0:
        raise DecodeError(f"{what} is 0")
    return int(value)


def _kind(value: Any, what: str) -> Kind:
    try:
        return Kind(value)
    except ValueError:
        raise DecodeError(f"{what} is unknown: {value!r}") from None


def _durability(value: Any, what: str) -> Durability:
    try:
        return Durability(value)
    except ValueError:
        raise DecodeError(f"{what} is unknown: {value!r}") from None


def _cause(value: Any, what: str) -> GapCause:
    if value not in ("retention", "damage"):
        raise DecodeError(f"{what} is unknown: {value!r}")
    return GapCause(value)


def _reason(value: Any, what: str) -> DeadLetterReason:
    try:
        return DeadLetterReason(value)
    except ValueError:
        raise DecodeError(f"{what} is unknown: {value!r}") from None


def _dead_letter(value: Any, what: str) -> DeadLetter:
    fields = _Fields(what, value)
    return DeadLetter(
        fields.get("subscription_id", _uuid),
        fields.get("epoch", _uuid),
        fields.get("sequence", _sequence),
        fields.get("deliveries", _sequence),
        fields.get("reason", _reason),
    )


def _publication_of(value: Any, what: str) -> Publication:
    return _publication(_Fields(what, value))


def _publication(fields: _Fields) -> Publication:
    return Publication(
        fields.get("subscription_id", _uuid),
        fields.get("publication_id", _uuid),
        fields.get("sequence", _sequence),
        fields.get("time", _natural),
        fields.get("data", _bytes),
        fields.optional("publisher", _text),
        fields.optional("delivery", _sequence),
        fields.optional("dead_letter", _dead_letter),
    )


def _restored(value: Any, what: str) -> RestoredSubscription:
    fields = _Fields(what, value)
    return RestoredSubscription(
        fields.get("subscription_id", _uuid),
        fields.get("kind", _kind),
        fields.get("epoch", _uuid),
        fields.get("cursor", _natural),
        fields.get("recovered", _bool),
    )


def _welcome(fields: _Fields) -> Welcome:
    limits = fields.map("limits")
    return Welcome(
        fields.get("session_id", _uuid),
        fields.get("durable", _bool),
        fields.get("resumed", _bool),
        fields.array("subscriptions", _restored),
        fields.get("server", _text),
        Limits(
            limits.get("max_message_size", _natural),
            limits.get("max_subscriptions", _natural),
            limits.get("heartbeat_interval", _natural),
            limits.get("heartbeat_timeout", _natural),
        ),
    )


def _subscribed(fields: _Fields) -> Subscribed:
    return Subscribed(
        fields.get("subscription_id", _uuid),
        fields.get("kind", _kind),
        fields.get("epoch", _uuid),
        fields.get("first_sequence", _sequence),
        fields.get("last_sequence", _natural),
        fields.get("recovered", _bool),
        fields.optional("cursor", _natural),
        fields.optional("prefetch", _sequence),
    )


def _submitted(fields: _Fields) -> Submitted:
    return Submitted(
        fields.get("subscription_id", _uuid),
        fields.get("publication_id", _uuid),
        fields.get("sequence", _sequence),
        fields.get("duplicate", _bool),
        fields.get("durability", _durability),
    )


def _settled(settled: type[Settling]) -> Callable[[_Fields], Settling]:
    def decode(fields: _Fields) -> Settling:
        return settled(
            fields.get("subscription_id", _uuid),
            fields.get("count", _natural),
            fields.array("lost", _uuid) if "lost" in fields.fields else None,
        )

    return decode


def _log_index(fields: _Fields) -> LogIndex:
    return LogIndex(
        fields.get("log_id", _uuid),
        fields.array("entries", _uuid),
        fields.get("first_sequence", _sequence),
        fields.get("last_sequence", _natural),
        fields.get("more", _bool),
    )


def _log_page(fields: _Fields) -> LogPage:
    return LogPage(
        fields.get("log_id", _uuid),
        fields.array("publications", _publication_of),
        fields.array("missing", _uuid),
        fields.get("more", _bool),
    )


def _settings(fields: _Fields) -> Settings:
    retention = fields.map("retention")
    return Settings(
        Retention(
            retention.optional("max_publications", _natural),
            retention.optional("max_bytes", _natural),
            retention.optional("max_age", _natural),
        ),
        fields.get("durability", _durability),
        fields.optional("name", _text),
        fields.optional("ack_timeout", _natural),
        fields.optional("max_deliveries", _natural),
        fields.optional("dead_letter", _uuid),
    )


def _meta_of(value: Any, what: str) -> SubscriptionMeta:
    return _meta(_Fields(what, value))


def _meta(fields: _Fields) -> SubscriptionMeta:
    return SubscriptionMeta(
        fields.get("subscription_id", _uuid),
        fields.get("kind", _kind),
        fields.get("epoch", _uuid),
        _settings(fields.map("settings")),
        fields.get("created", _natural),
        fields.get("first_sequence", _sequence),
        fields.get("last_sequence", _natural),
        fields.get("bytes", _natural),
        fields.get("subscribers", _natural),
        fields.get("connected", _natural),
        fields.optional("pending", _natural),
        fields.optional("in_flight", _natural),
    )


def _subscriptions(fields: _Fields) -> Subscriptions:
    return Subscriptions(fields.array("subscriptions", _meta_of), fields.get("more", _bool))


def _gap(fields: _Fields) -> ServerGap:
    return ServerGap(
        fields.get("subscription_id", _uuid),
        fields.get("from", _sequence),
        fields.get("to", _sequence),
        fields.get("cause", _cause),
    )


def _error(fields: _Fields) -> ServerError:
    return ServerError(
        fields.get("code", _text),
        fields.get("message", _text),
        fields.get("temporary", _bool),
        fields.optional("command", _text),
        fields.optional("retry_after", _natural),
        fields.optional("subscription_id", _uuid),
    )


_RESPONSES: Final[dict[str, Callable[[_Fields], Response]]] = {
    "Welcome": _welcome,
    "Subscribed": _subscribed,
    "Unsubscribed": lambda fields: Unsubscribed(fields.get("subscription_id", _uuid)),
    "Deleted": lambda fields: Deleted(fields.get("subscription_id", _uuid)),
    "Submitted": _submitted,
    "Acknowledged": _settled(Acknowledged),
    "Rejected": _settled(Rejected),
    "Extended": _settled(Extended),
    "Publication": _publication,
    "LogIndex": _log_index,
    "DataLogEntry": _log_page,
    "SubscriptionMeta": _meta,
    "Subscriptions": _subscriptions,
    "Gap": _gap,
    "Pong": lambda fields: Pong(fields.get("time", _natural)),
    "Authenticated": lambda fields: Authenticated(
        fields.optional("name", _text), fields.optional("expires", _natural)
    ),
    "TokenExpiring": lambda fields: TokenExpiring(fields.get("expires", _natural)),
    "Error": _error,
}

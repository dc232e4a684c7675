"""The words of the protocol: what is asked for, and what the server says.

Owns the types. Does not own how they are encoded (`codec`), nor when they are sent (`_core`).

Numbers are as on the wire: times are milliseconds since 1970-01-01 UTC, durations milliseconds, sequences begin at 1, and a
position is a sequence or 0, in front of the first.
"""

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Final, TypedDict
from uuid import NAMESPACE_URL, UUID, uuid5

SUBPROTOCOL: Final = "infotainer.v1.cbor"

MAX_ENTRIES: Final = 10_000
"""Entries that one read of a log may ask for, and the most ids that a list holds."""

SubscriptionReference = UUID | str
"""How a subscription is named: by its UUID, or by a name that stands for one."""

Data = bytes | bytearray | memoryview | str
"""What is published. Text goes as UTF-8."""

_UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)


def subscription_id(reference: SubscriptionReference) -> UUID:
    """The UUID of a subscription: a text of the 36 characters of one is that UUID, any other is a name."""
    if isinstance(reference, UUID):
        return reference
    if _UUID_TEXT.fullmatch(reference):
        return UUID(reference)
    return uuid5(NAMESPACE_URL, "infotainer:" + reference)


def new_publication_id() -> UUID:
    """A UUID of version 7 (RFC 9562, section 5.7): the time in milliseconds, then chance."""
    milliseconds = time.time_ns() // 1_000_000
    chance = int.from_bytes(os.urandom(10), "big")
    number = (milliseconds & (1 << 48) - 1) << 80 | chance
    number = number & ~(0xF << 76) | 0x7 << 76
    return UUID(int=number & ~(0x3 << 62) | 0x2 << 62)


class Kind(StrEnum):
    """What a subscription does with its publications."""

    BROADCAST = "Broadcast"
    """Every subscriber gets every publication."""
    QUEUE = "Queue"
    """Every publication goes to one subscriber at a time."""


class Durability(StrEnum):
    """When a publication is acknowledged and served."""

    MEMORY = "Memory"
    """At once; it is never written."""
    WRITTEN = "Written"
    """When the operating system has it: survives kill -9 of the server."""
    SYNCED = "Synced"
    """When it is on disk and synced: survives a power cut."""


class GapCause(StrEnum):
    """Why publications are missing."""

    RETENTION = "retention"
    """Removed before this subscriber got them."""
    DAMAGE = "damage"
    """Unreadable on the server's disk."""
    UNEXPLAINED = "unexplained"
    """The server left them out without a word, which is a defect. Never on the wire."""


class DeadLetterReason(StrEnum):
    """Why a queue gave a publication up."""

    MAX_DELIVERIES = "max-deliveries"
    """It was delivered as often as the queue's settings allow, and never acknowledged."""
    REJECTED = "rejected"
    """A subscriber said so."""


class ErrorCode(StrEnum):
    """Why a command failed."""

    MALFORMED = "malformed"
    UNKNOWN_COMMAND = "unknown-command"
    UNSUPPORTED_FORMAT = "unsupported-format"
    INVALID_ARGUMENT = "invalid-argument"
    NOT_FOUND = "not-found"
    KIND_MISMATCH = "kind-mismatch"
    CONFLICT = "conflict"
    NOT_AUTHORIZED = "not-authorized"
    TOO_LARGE = "too-large"
    RATE_LIMITED = "rate-limited"
    LIMIT_REACHED = "limit-reached"
    LOG_FULL = "log-full"
    LOG_UNAVAILABLE = "log-unavailable"
    SHUTTING_DOWN = "shutting-down"
    INTERNAL = "internal"


class _Start(Enum):
    NEW = "New"
    FIRST = "First"


NEW: Final = _Start.NEW
"""Delivery begins with what is published from now on."""
FIRST: Final = _Start.FIRST
"""Delivery begins with the oldest publication that is kept."""


@dataclass(frozen=True, slots=True)
class After:
    """Delivery begins with what follows this position."""

    position: int


@dataclass(frozen=True, slots=True)
class Since:
    """Delivery begins with what was published at this time or later."""

    time: int


@dataclass(frozen=True, slots=True)
class Last:
    """Delivery begins with the last so many."""

    count: int


SubscribeFrom = _Start | After | Since | Last
"""Where delivery begins: `NEW`, `FIRST`, or one of `After`, `Since` and `Last`."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of a log is kept. None is no limit, or the server's default where settings are given."""

    max_publications: int | None = None
    max_bytes: int | None = None
    max_age: int | None = None
    """Milliseconds."""


class SettingsPatch(TypedDict, total=False):
    """Settings that a command gives: what is left out stays as it is, and None is the default again."""

    retention: Retention | None
    durability: Durability | None
    ack_timeout: int | None
    """Of a queue: milliseconds."""
    max_deliveries: int | None
    """Of a queue; 0 is no limit."""
    dead_letter: SubscriptionReference | None
    """Of a queue: where it puts what it gives up."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its name, and its fields as they are encoded."""

    name: str
    fields: Mapping[str, Any]
    subscription_id: UUID | None = None
    """The subscription that it is about."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server holds its clients to."""

    max_message_size: int
    max_subscriptions: int
    heartbeat_interval: int
    heartbeat_timeout: int


@dataclass(frozen=True, slots=True)
class RestoredSubscription:
    """A subscription that a resumed session has again."""

    subscription_id: UUID
    kind: Kind
    epoch: UUID
    cursor: int
    recovered: bool


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the server says first on every connection."""

    session_id: UUID
    durable: bool
    resumed: bool
    subscriptions: tuple[RestoredSubscription, ...]
    server: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The answer to Subscribe."""

    subscription_id: UUID
    kind: Kind
    epoch: UUID
    first_sequence: int
    last_sequence: int
    recovered: bool
    cursor: int | None = None
    prefetch: int | None = None


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """The answer to Unsubscribe."""

    subscription_id: UUID


@dataclass(frozen=True, slots=True)
class Deleted:
    """The subscription was deleted; as an event of a subscription, nothing follows it."""

    subscription_id: UUID


@dataclass(frozen=True, slots=True)
class Submitted:
    """A publication is in the log."""

    subscription_id: UUID
    publication_id: UUID
    sequence: int
    duplicate: bool
    """The log held this id already: nothing was added, and the sequence is the first one's."""
    durability: Durability


@dataclass(frozen=True, slots=True)
class Settled:
    """What an acknowledgement, a rejection or an extension did."""

    subscription_id: UUID
    count: int
    lost: tuple[UUID, ...] | None = None
    """Of a queue: those that this client does not hold, or not any more."""


@dataclass(frozen=True, slots=True)
class Acknowledged(Settled):
    """The answer to Acknowledge."""


@dataclass(frozen=True, slots=True)
class Rejected(Settled):
    """The answer to Reject."""


@dataclass(frozen=True, slots=True)
class Extended(Settled):
    """The answer to Extend."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Where a publication comes from that a queue gave up."""

    subscription_id: UUID
    """The queue."""
    epoch: UUID
    sequence: int
    """Its place in the queue's log."""
    deliveries: int
    """How often it was delivered there."""
    reason: DeadLetterReason


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication, delivered or out of a log."""

    subscription_id: UUID
    publication_id: UUID
    sequence: int
    time: int
    data: bytes
    publisher: str | None = None
    delivery: int | None = None
    """Which delivery this is, from 1 (of a queue)."""
    dead_letter: DeadLetter | None = None
    """Of what a queue gave up."""


@dataclass(frozen=True, slots=True)
class LogIndex:
    """Ids of publications of a log, in the order of their sequences."""

    log_id: UUID
    entries: tuple[UUID, ...]
    first_sequence: int
    last_sequence: int
    more: bool


@dataclass(frozen=True, slots=True)
class LogPage:
    """Some publications of a log, in sequence order."""

    log_id: UUID
    publications: tuple[Publication, ...]
    missing: tuple[UUID, ...]
    """Ids that were looked up and can't be read: not in the log, or damaged."""
    more: bool
    """Whether there are more behind the last."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force, defaults included."""

    retention: Retention
    durability: Durability
    name: str | None = None
    ack_timeout: int | None = None
    max_deliveries: int | None = None
    dead_letter: UUID | None = None


@dataclass(frozen=True, slots=True)
class SubscriptionMeta:
    """What a subscription is like now."""

    subscription_id: UUID
    kind: Kind
    epoch: UUID
    settings: Settings
    created: int
    first_sequence: int
    last_sequence: int
    bytes: int
    """Of payload kept."""
    subscribers: int
    """Sessions that hold it."""
    connected: int
    """Of these now."""
    pending: int | None = None
    """Of a queue: publications that are neither settled nor with a subscriber."""
    in_flight: int | None = None
    """Of a queue: publications that are with a subscriber."""


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """A page of subscriptions, in order of their ids."""

    subscriptions: tuple[SubscriptionMeta, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class ServerGap:
    """The server says that these will not be delivered."""

    subscription_id: UUID
    from_: int
    to: int
    cause: GapCause


@dataclass(frozen=True, slots=True)
class Pong:
    """The server's time."""

    time: int


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Whom the connection speaks for from now on."""

    name: str | None = None
    """None where the server asks nobody."""
    expires: int | None = None
    """When that ends."""


@dataclass(frozen=True, slots=True)
class TokenExpiring:
    """The server closes the connection then, unless it is given another token."""

    expires: int


@dataclass(frozen=True, slots=True)
class ServerError:
    """What the server says where something failed."""

    code: str
    """One of `ErrorCode`, unless the server is newer than this client."""
    message: str
    temporary: bool
    command: str | None = None
    retry_after: int | None = None
    """Milliseconds."""
    subscription_id: UUID | None = None


Response = (
    Welcome
    | Subscribed
    | Unsubscribed
    | Deleted
    | Submitted
    | Acknowledged
    | Rejected
    | Extended
    | Publication
    | LogIndex
    | LogPage
    | SubscriptionMeta
    | Subscriptions
    | ServerGap
    | Pong
    | Authenticated
    | TokenExpiring
    | ServerError
)

"""Every command of protocol 1, made of Python values.

Owns which fields a command has and in what order they are written. What is None is left out.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from .protocol import (
    After,
    Command,
    Data,
    Durability,
    Kind,
    Last,
    Retention,
    SettingsPatch,
    Since,
    SubscribeFrom,
    SubscriptionReference,
    subscription_id,
)


def _reference(reference: SubscriptionReference) -> bytes | str:
    if isinstance(reference, UUID):
        return reference.bytes
    if not isinstance(reference, str):
        raise TypeError(f"a subscription is named by a UUID or a text, not by {reference!r}")
    # Text of the form of a UUID goes as its bytes, and any other as the name that it is, which the server judges.
    id = subscription_id(reference)
    return id.bytes if str(id) == reference.lower() else reference


def _ids(ids: Iterable[UUID]) -> list[bytes]:
    return [id.bytes for id in ids]


def _optional(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _id(id: UUID | None) -> bytes | None:
    return None if id is None else id.bytes


def _kind(kind: Kind | None) -> str | None:
    return None if kind is None else Kind(kind).value


def _from(start: SubscribeFrom) -> str | dict[str, int]:
    match start:
        case After(position):
            return {"After": position}
        case Since(time):
            return {"Since": time}
        case Last(count):
            return {"Last": count}
        case _:
            return start.value


def _about(name: str, reference: SubscriptionReference, **fields: Any) -> Command:
    about = {"subscription_id": _reference(reference)}
    return Command(name, about | _optional(**fields), subscription_id(reference))


def subscribe(
    reference: SubscriptionReference,
    kind: Kind | None = None,
    start: SubscribeFrom | None = None,
    epoch: UUID | None = None,
    prefetch: int | None = None,
) -> Command:
    """Makes the session a subscriber."""
    optional = {"from": None if start is None else _from(start)}
    return _about("Subscribe", reference, kind=_kind(kind), **optional, epoch=_id(epoch), prefetch=prefetch)


def unsubscribe(reference: SubscriptionReference) -> Command:
    """Ends that."""
    return _about("Unsubscribe", reference)


def submit_publication(
    reference: SubscriptionReference,
    data: Data,
    kind: Kind | None = None,
    publication_id: UUID | None = None,
    expected_sequence: int | None = None,
) -> Command:
    """Appends to a log."""
    return _about(
        "SubmitPublication",
        reference,
        submission=data.encode() if isinstance(data, str) else bytes(data),
        kind=_kind(kind),
        publication_id=_id(publication_id),
        expected_sequence=expected_sequence,
    )


def acknowledge(reference: SubscriptionReference, sequence: int) -> Command:
    """Settles everything up to a sequence of a broadcast."""
    return _about("Acknowledge", reference, sequence=sequence)


def acknowledge_ids(reference: SubscriptionReference, ids: Iterable[UUID]) -> Command:
    """Settles publications of a queue."""
    return _about("Acknowledge", reference, publication_ids=_ids(ids))


def reject(
    reference: SubscriptionReference,
    ids: Iterable[UUID],
    delay: int | None = None,
    dead_letter: bool | None = None,
) -> Command:
    """Gives publications of a queue back."""
    return _about("Reject", reference, publication_ids=_ids(ids), delay=delay, dead_letter=dead_letter)


def extend(reference: SubscriptionReference, ids: Iterable[UUID]) -> Command:
    """Lets the ack time-out of these begin anew."""
    return _about("Extend", reference, publication_ids=_ids(ids))


def _log(name: str, reference: SubscriptionReference, **fields: Any) -> Command:
    return Command(name, {"log_id": _reference(reference)} | _optional(**fields), subscription_id(reference))


def log_index(
    reference: SubscriptionReference, after: int | None = None, limit: int | None = None
) -> Command:
    """Reads the ids of a range of a log."""
    return _log("GetLogIndex", reference, after=after, limit=limit)


def log_entries(
    reference: SubscriptionReference, after: int | None = None, limit: int | None = None
) -> Command:
    """Reads the publications of a range of a log."""
    return _log("GetLogEntries", reference, after=after, limit=limit)


def log_entries_of(reference: SubscriptionReference, ids: Iterable[UUID]) -> Command:
    """Reads the publications with these ids."""
    return _log("GetLogEntries", reference, entries=_ids(ids))


def create(
    reference: SubscriptionReference, kind: Kind | None = None, settings: SettingsPatch | None = None
) -> Command:
    """Makes a subscription."""
    return _about(
        "CreateSubscription",
        reference,
        kind=_kind(kind),
        settings=None if settings is None else _settings(settings),
    )


def update(reference: SubscriptionReference, settings: SettingsPatch) -> Command:
    """Replaces settings."""
    return _about("UpdateSubscription", reference, settings=_settings(settings))


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    encoded: dict[str, Any] = {}
    for name, value in settings.items():
        match name, value:
            case "retention", Retention():
                encoded[name] = _optional(
                    max_publications=value.max_publications,
                    max_bytes=value.max_bytes,
                    max_age=value.max_age,
                )
            case "durability", str():
                encoded[name] = Durability(value).value
            case "dead_letter", UUID() | str():
                encoded[name] = _reference(value)
            case _:
                encoded[name] = value
    return encoded


def get(reference: SubscriptionReference) -> Command:
    """Asks what a subscription is like."""
    return _about("GetSubscription", reference)


def list_subscriptions(after: UUID | None = None, limit: int | None = None) -> Command:
    """Asks for many subscriptions."""
    return Command("ListSubscriptions", _optional(after=_id(after), limit=limit))


def delete(reference: SubscriptionReference) -> Command:
    """Removes a subscription with its log."""
    return _about("DeleteSubscription", reference)


def ping() -> Command:
    """Asks for the server's time, behind everything before."""
    return Command("Ping", {})


def authenticate(token: str) -> Command:
    """Proves for whom the connection speaks."""
    return Command("Authenticate", {"token": token})

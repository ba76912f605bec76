"""What Segment's pipeline makes of a message after the 200: the reason it is dropped for, or how it is delivered.

Source of the reasons: https://segment.com/docs/connections/integration_error_codes/ and the discards table of
Delivery Overview. Reasons of our own, where Segment documents a loss but no code, are marked (ours).
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from pydantic_core import to_json

from segment_tools.spec import limits

Fields = Mapping[str, Any]

TYPES = ("identify", "track", "page", "screen", "group", "alias")

REASONS = {
    "no_user_anon_id": "The message has neither userId nor anonymousId. Send one of them.",
    "id_not_string": "An id is empty or not text. Send ids as non-empty strings.",
    "event_not_defined": "A track without an event name. Send `event`.",
    "event_not_string": "The event name is not text. Send `event` as a string.",
    "properties_not_object": "`properties` is not an object.",
    "traits_not_object": "`traits` is not an object.",
    "name_not_string": "`name` is present but empty or not text. Send text or leave it out.",
    "category_not_string": "`category` is present but empty or not text. Send text or leave it out.",
    "device_advertisingid_should_be_string": "`context.device.advertisingId` is not text.",
    "consent_categorypreferences_should_exist": "`context.consent` has no `categoryPreferences`.",
    "consent_categorypreferences_fields_should_be_object": "`context.consent.categoryPreferences` is not an object.",
    "consent_categorypreferences_fields_should_be_bool": "A category in `context.consent` is neither true nor false.",
    "consent_version_should_be_number": "`context.consent.version` is not a number. [?] The field's place is a guess.",
    "bad_request": "The message is not an object, or its type is none of Segment's six.",
    "empty_batch": "The batch holds no messages.",
    "unknown_source": "No source has this write key.",
    "duplicate": "(ours) A message with this messageId arrived within the last 24 hours.",
    "group_id_required": "(ours) A group call without groupId. Send `groupId`.",
    "previous_id_required": "(ours) An alias without previousId. Send `previousId`.",
    "user_id_required": "(ours) An alias without userId. Send `userId`.",
    "context_not_object": "(ours) `context` is not an object.",
    "integrations_not_object": "(ours) `integrations` is not an object.",
    "too_large": "(ours) A batch item above 32 KB.",
    "too_many_messages": "(ours) A batch of more than 2,500 messages: all of it is rejected.",
}
"""Every reason, what it means and how to mend it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One message as it came, with the request's share in it, and why it would be dropped."""

    sent: object
    discarded: str | None


def verdicts(body: Fields, kind: str | None) -> list[Verdict]:
    """The messages of one request and the verdict on each; `kind` is the path's type, None for a batch.

    Siblings of a bad batch item are kept. A batch over 2,500 is lost whole: [?] the documents do not say which part.
    """
    if kind is not None:
        message = {**body, "type": kind}
        message.pop("sentAt", None)
        return [Verdict(_without_key(message), discard_reason(message))]
    items: object = body.get("batch")
    if not isinstance(items, list):
        return [Verdict(_without_key(body), "bad_request")]
    listed = cast("list[object]", items)
    if not listed:
        return [Verdict(_without_key(body), "empty_batch")]
    if len(listed) > limits.BATCH_MESSAGES:
        return [Verdict(_without_key(as_fields(item)), "too_many_messages") for item in listed]
    return [_item(item, body) for item in listed]


def _item(item: object, request: Fields) -> Verdict:
    if not isinstance(item, dict):
        return Verdict(item, "bad_request")
    message = merged(cast("Fields", item), request)
    reason = "too_large" if _size(cast("object", item)) > limits.MESSAGE_BYTES else discard_reason(message)
    return Verdict(_without_key(message), reason)


def _size(item: object) -> int:
    """Bytes of the item as compact JSON: whatever white space and escapes it came with are not held against it."""
    try:
        return len(to_json(item))
    except ValueError:  # half a character, which came as an escape
        return len(json.dumps(item, separators=(",", ":")))


def as_fields(message: object) -> Fields:
    """The message's fields; none, where it is no object."""
    return cast("Fields", message) if isinstance(message, dict) else {}


def _without_key(message: Fields) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != "writeKey"}


def discard_reason(message: object) -> str | None:
    """Why Segment would drop the message, or None."""
    if not isinstance(message, dict):
        return "bad_request"
    fields = cast("dict[str, Any]", message)
    if fields.get("type") not in TYPES:
        return "bad_request"
    return _ids(fields) or _shape(fields) or _OWN[fields["type"]](fields) or _context(fields.get("context") or {})


def _absent(value: object) -> bool:
    return value is None


def _text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _ids(fields: Fields) -> str | None:
    given = [fields[name] for name in ("userId", "anonymousId") if not _absent(fields.get(name))]
    if not given:
        return "user_id_required" if fields["type"] == "alias" else "no_user_anon_id"
    named = [fields[name] for name in ("groupId", "previousId") if not _absent(fields.get(name))]
    return None if all(_text(value) for value in (*given, *named)) else "id_not_string"


def _shape(fields: Fields) -> str | None:
    for name in ("properties", "traits", "context", "integrations"):
        if not isinstance(fields.get(name), dict | None):
            return f"{name}_not_object"
    return None


def _track(fields: Fields) -> str | None:
    event = fields.get("event")
    if _absent(event) or event == "":
        return "event_not_defined"
    return None if _text(event) else "event_not_string"


def _view(fields: Fields) -> str | None:
    for name in ("name", "category"):
        if not (_absent(fields.get(name)) or _text(fields[name])):
            return f"{name}_not_string"
    return None


def _group(fields: Fields) -> str | None:
    return "group_id_required" if _absent(fields.get("groupId")) else None


def _alias(fields: Fields) -> str | None:
    if _absent(fields.get("userId")):
        return "user_id_required"
    return "previous_id_required" if _absent(fields.get("previousId")) else None


def _identify(_: Fields) -> str | None:
    return None


_OWN = {"track": _track, "identify": _identify, "page": _view, "screen": _view, "group": _group, "alias": _alias}


def _context(context: Fields) -> str | None:
    device, consent = context.get("device"), context.get("consent")
    if isinstance(device, dict) and not isinstance(cast("Fields", device).get("advertisingId"), str | None):
        return "device_advertisingid_should_be_string"
    if not consent:
        return None
    if not isinstance(consent, dict) or "categoryPreferences" not in consent:
        return "consent_categorypreferences_should_exist"
    chosen: object = cast("Fields", consent)["categoryPreferences"]
    if not isinstance(chosen, dict):
        return "consent_categorypreferences_fields_should_be_object"
    if not all(isinstance(value, bool) for value in cast("Fields", chosen).values()):
        return "consent_categorypreferences_fields_should_be_bool"
    version = cast("Fields", consent).get("version", 0)
    return (
        None
        if isinstance(version, int | float) and not isinstance(version, bool)
        else "consent_version_should_be_number"
    )


def merged(item: Fields, request: Fields) -> dict[str, Any]:
    """A batch item with the request's `context` and `integrations` in it; the item's own value wins.

    [?] How deep Segment merges is not documented: context at every depth, integrations one level.
    """
    found = dict(item)
    for name, merge in (("context", _deep), ("integrations", _flat)):
        shared, own = request.get(name), item.get(name)
        if isinstance(shared, dict) and isinstance(own, dict | None):
            found[name] = merge(cast("Fields", own or {}), cast("Fields", shared))
    return found


def _flat(own: Fields, shared: Fields) -> dict[str, Any]:
    return {**shared, **own}


def _deep(own: Fields, shared: Fields) -> dict[str, Any]:
    both = {
        name: _deep(own[name], shared[name])
        for name in own
        if name != "categoryPreferences" and isinstance(own[name], dict) and isinstance(shared.get(name), dict)
    }
    return {**shared, **own, **both}


def delivered(message: Fields, sent_at: object, received_at: str) -> dict[str, Any]:
    """The message as destinations get it: nulls at the top dropped, ids and times filled in."""
    kept = {name: value for name, value in message.items() if value is not None}
    original = kept.get("timestamp") or received_at
    return {
        **kept,
        "messageId": kept.get("messageId") or f"sandbox-{uuid.uuid4()}",
        "timestamp": _corrected(original, sent_at, received_at),
        "originalTimestamp": original,
        "sentAt": sent_at or received_at,
        "receivedAt": received_at,
        "channel": kept.get("channel") or "server",
        "version": 2,
    }


def _corrected(original: object, sent_at: object, received_at: str) -> object:
    """When it happened by Segment's clock: the sender's may be wrong, but the time between its two stamps is right.

    `receivedAt - (sentAt - originalTimestamp)`; without a `sentAt` the original stands.
    Source: https://segment.com/docs/connections/spec/common/#timestamps.
    """
    then, sent, received = (_moment(value) for value in (original, sent_at, received_at))
    if then is None or sent is None or received is None:
        return original
    try:
        return iso(received - (sent - then))
    except OverflowError:
        return original


def _moment(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found and found.tzinfo is None else found


def iso(moment: datetime) -> str:
    """The moment in UTC with milliseconds, as Segment stamps it."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"

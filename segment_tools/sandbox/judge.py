"""What Segment's pipeline makes of a message after the 200: the reason it is dropped for, or how it is delivered.

Source of the reasons: https://segment.com/docs/connections/integration_error_codes/ and the discards table of
Delivery Overview. Reasons of our own, where Segment documents a loss but no code, are marked (ours).
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, cast

import msgspec

from segment_tools.sandbox.json_text import Body, encoded, item_of
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
    "too_large": "(ours) A batch item above 32 KB, with the request's context and integrations in it.",
    "too_many_messages": "(ours) A batch of more than 2,500 messages: all of it is rejected.",
}
"""Every reason, what it means and how to mend it."""


class Verdict(NamedTuple):
    """One message as it came, with the request's share in it and without the write key; and why it would be dropped."""

    type: str | None
    user_id: str | None
    anonymous_id: str | None
    name: str | None
    """What a list calls it: its event, its name, or the group or id it is about."""
    message_id: str | None
    discarded: str | None
    text: bytes | bytearray
    """The message as JSON."""


_Text = Annotated[str, msgspec.Meta(min_length=1)]


_USUAL_LEVELS = 4
"""Below a field; what is deeper is looked at closely. Each level doubles the time to make the parser: 10 take 0.3 s."""


def _nested(levels: int) -> Any:
    """The type of JSON's values with so many levels at most: the parser counts them at no cost."""
    value: Any = str | int | float | bool | None
    for _ in range(levels):
        value = str | int | float | bool | list[value] | dict[str, value] | None  # pyright: ignore[reportInvalidTypeForm]
    return value


if TYPE_CHECKING:
    _Value = object
else:
    _Value = _nested(_USUAL_LEVELS)
_Object = dict[str, _Value] | None


class _Usual(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A batch item without anything unusual in it: what the parser alone finds good, at a third of the time."""

    type: Literal["identify", "track", "page", "screen", "group", "alias"]
    userId: _Text | None = None  # noqa: N815 - as on the wire, like the rest
    anonymousId: _Text | None = None  # noqa: N815
    messageId: str | None = None  # noqa: N815
    event: _Text | None = None
    name: _Text | None = None
    category: _Text | None = None
    groupId: _Text | None = None  # noqa: N815
    previousId: _Text | None = None  # noqa: N815
    timestamp: _Value = None
    originalTimestamp: _Value = None  # noqa: N815
    sentAt: _Value = None  # noqa: N815
    properties: _Object = None
    traits: _Object = None
    context: _Object = None
    integrations: _Object = None
    channel: _Value = None
    version: _Value = None
    _metadata: _Value = None


_decode_usual = msgspec.json.Decoder(_Usual).decode


def verdicts(body: Body, kind: str | None) -> list[Verdict]:
    """The messages of one request and the verdict on each; `kind` is the path's type, None for a batch.

    Siblings of a bad batch item are kept. A batch over 2,500 is lost whole: [?] the documents do not say which part.

    Raises:
        ValueError: an item is no JSON.
    """
    fields = body.fields
    if kind is not None:
        own = {name: value for name, value in fields.items() if name not in ("writeKey", "sentAt")}
        return [_judged({**own, "type": kind})]
    if body.items is None:
        return [_verdict(_without_key(fields), "bad_request")]
    if not body.items:
        return [_verdict({**_without_key(fields), "batch": []}, "empty_batch")]
    if len(body.items) > limits.BATCH_MESSAGES:
        return [_verdict(_without_key(as_fields(item_of(text)[0])), "too_many_messages") for text in body.items]
    shared = {name: fields[name] for name in ("context", "integrations") if isinstance(fields.get(name), dict)}
    if shared:
        return [_item(text, shared) for text in body.items]
    return [_usual(text) or _item(text, {}) for text in body.items]


def _usual(text: bytes | bytearray) -> Verdict | None:
    """The verdict on an item that is as most are: accepted; None where the item has to be looked at closely."""
    try:
        item = _decode_usual(text)
    except (ValueError, RecursionError):
        return None
    kind, user_id, anonymous_id, context = item.type, item.userId, item.anonymousId, item.context
    if (
        (user_id is None and anonymous_id is None)
        or (kind == "track" and item.event is None)
        or (kind == "group" and item.groupId is None)
        or (kind == "alias" and (user_id is None or item.previousId is None))
        or (context and ("device" in context or "consent" in context) and _context(context))
        or len(text) > limits.MESSAGE_BYTES
        or (b"\\" in text and b"\\u" in text)  # one byte is found ten times faster than two
    ):
        return None
    name = item.event or item.name or item.groupId or item.previousId
    # A third of the time that calling the class takes.
    return tuple.__new__(Verdict, (kind, user_id, anonymous_id, name, item.messageId, None, text))  # pyright: ignore[reportUnknownMemberType]


def _item(text: bytes | bytearray, shared: Fields) -> Verdict:
    """White space and escapes that an item came with are not held against its size."""
    item, text = item_of(text)
    if not isinstance(item, dict):
        return _verdict(item, "bad_request", text)
    own = cast("Fields", item)
    if "writeKey" in own:
        own = _without_key(own)
        text = encoded(own)
    if len(text) > limits.MESSAGE_BYTES and len(encoded(own)) > limits.MESSAGE_BYTES:
        return _verdict(own, "too_large", text)
    if not shared:
        return _verdict(own, discard_reason(own), text)
    whole = _judged(merged(own, shared))
    return whole if len(whole.text) <= limits.MESSAGE_BYTES else _verdict(own, "too_large", text)


def _judged(message: Fields) -> Verdict:
    return _verdict(message, discard_reason(message))


def _verdict(sent: object, discarded: str | None, text: bytes | bytearray | None = None) -> Verdict:
    fields = as_fields(sent)
    return Verdict(
        column(fields.get("type")),
        column(fields.get("userId")),
        column(fields.get("anonymousId")),
        _name(fields),
        column(fields.get("messageId")),
        discarded,
        text or encoded(sent),
    )


def _name(fields: Fields) -> str | None:
    for field in ("event", "name", "groupId", "previousId"):
        if field in fields and (name := column(fields[field])):
            return name
    return None


def column(value: object) -> str | None:
    """The value to look for; half a character, which no database holds, becomes a question mark."""
    if not isinstance(value, str):
        return None
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def as_fields(message: object) -> Fields:
    """The message's fields; none, where it is no object."""
    return cast("Fields", message) if isinstance(message, dict) else {}


def _without_key(message: Fields) -> Fields:
    if "writeKey" not in message:
        return message
    return {name: value for name, value in message.items() if name != "writeKey"}


def discard_reason(fields: Fields) -> str | None:
    """Why Segment would drop the message, or None."""
    kind: object = fields.get("type")
    if kind not in TYPES:
        return "bad_request"
    reason = _ids(fields) or _shape(fields) or _OWN[kind](fields)
    context = fields.get("context")
    return reason or (_context(context) if context else None)


def _text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _ids(fields: Fields) -> str | None:
    if fields.get("userId") is None and fields.get("anonymousId") is None:
        return "user_id_required" if fields["type"] == "alias" else "no_user_anon_id"
    for name in ("userId", "anonymousId", "groupId", "previousId"):
        value = fields.get(name)
        if value is not None and not _text(value):
            return "id_not_string"
    return None


def _shape(fields: Fields) -> str | None:
    for name in ("properties", "traits", "context", "integrations"):
        value = fields.get(name)
        if value is not None and not isinstance(value, dict):
            return f"{name}_not_object"
    return None


def _track(fields: Fields) -> str | None:
    event = fields.get("event")
    if event is None or event == "":
        return "event_not_defined"
    return None if _text(event) else "event_not_string"


def _view(fields: Fields) -> str | None:
    for name in ("name", "category"):
        value = fields.get(name)
        if value is not None and not _text(value):
            return f"{name}_not_string"
    return None


def _group(fields: Fields) -> str | None:
    return "group_id_required" if fields.get("groupId") is None else None


def _alias(fields: Fields) -> str | None:
    if fields.get("userId") is None:
        return "user_id_required"
    return "previous_id_required" if fields.get("previousId") is None else None


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


def delivered(message: Fields, message_id: str, sent_at: object, received_at: str) -> dict[str, Any]:
    """The message as destinations get it: nulls at the top dropped, ids and times filled in."""
    kept = {name: value for name, value in message.items() if value is not None}
    original = kept.get("timestamp") or received_at
    return {
        **kept,
        "messageId": kept.get("messageId") or message_id,
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
    then, sent, received = (moment_of(value) for value in (original, sent_at, received_at))
    if then is None or sent is None or received is None:
        return original
    try:
        return iso(received - (sent - then))
    except OverflowError:
        return original


def moment_of(value: object) -> datetime | None:
    """The moment that an ISO-8601 text names; without a zone it is in UTC."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def iso(moment: datetime) -> str:
    """The moment in UTC with milliseconds, as Segment stamps it."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"

"""What is worth saying of a message that Segment will take: the warnings, each with a stable code."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from segment_tools.receipt import Warned
from segment_tools.spec import limits
from segment_tools.spec.context import context_faults
from segment_tools.spec.integrations import misspelt_destination
from segment_tools.spec.json_objects import depth_of
from segment_tools.spec.messages import Alias, AnyMessage, Group
from segment_tools.spec.names import printable
from segment_tools.spec.timestamps import has_zone, parse_timestamp

TEXTS = {
    "timestamp_without_zone": "{field} has no time zone and was taken as UTC; end it with Z or an offset like -08:00.",
    "timestamp_in_future": "{field} lies more than a day ahead; Segment passes it on as it is.",
    "timestamp_before_1970": "{field} lies before 1970; Segment's Engage may not take the message.",
    "message_id_at_limit": "{field} has exactly 100 characters; one of Segment's pages asks for fewer than 100.",
    "short_message_id": "{field} is short; Segment drops a message whose id anyone used within a day: use a UUID.",
    "long_group_id": "{field} is over 500 characters long; Segment's Unify drops the message.",
    "too_many_fields": "{field} has more than 300 entries; Segment's Unify drops such a message.",
    "deep_nesting": "{field} is nested more than 3 levels deep; many destinations drop what is deeper.",
    "alias_to_itself": "{field} is the same as userId, so the alias joins nothing.",
    "context_type": "{field} is not of the type that Segment documents; destinations may ignore it.",
    "empty_group_id": "{field} is empty; Segment's Unify drops the message: leave it out.",
    "destination_spelling": "{field} differs from Segment's spelling in letter case and has no effect: use {known!r}.",
    "destination_value": "{field} is neither true, false nor an object of options; Segment may still deliver to it.",
}
"""Every warning, by code."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def warnings(message: AnyMessage, now: datetime, index: int | None = None) -> tuple[Warned, ...]:
    """Everything that may not come out as the caller expects, in a fixed order; nothing, for most messages."""
    found = [*_of_time(message, now), *_of_ids(message), *_of_objects(message), *_of_integrations(message)]
    return tuple(
        Warned(code, TEXTS[code].format(field=field, known=known), field, index) for code, field, known in found
    )


_Found = Iterator[tuple[str, str, str]]
"""Code, field, and what is meant instead."""


def _of_time(message: AnyMessage, now: datetime) -> _Found:
    moment = parse_timestamp(message.timestamp) if message.timestamp else None
    if message.timestamp is None or moment is None:
        return
    if not has_zone(message.timestamp):
        yield "timestamp_without_zone", "timestamp", ""
    if moment > now + timedelta(seconds=limits.FUTURE_SECONDS):
        yield "timestamp_in_future", "timestamp", ""
    if moment < _EPOCH:
        yield "timestamp_before_1970", "timestamp", ""


def _of_ids(message: AnyMessage) -> _Found:
    chosen = message.message_id
    if chosen is not None and len(chosen) == limits.MESSAGE_ID_CHARACTERS:
        yield "message_id_at_limit", "messageId", ""
    if chosen is not None and len(chosen) < limits.SHORT_MESSAGE_ID:
        yield "short_message_id", "messageId", ""
    if isinstance(message, Alias) and message.previous_id == message.user_id:
        yield "alias_to_itself", "previousId", ""
    if isinstance(message, Group) and len(message.group_id or "") > limits.GROUP_ID_CHARACTERS:
        yield "long_group_id", "groupId", ""


def _of_objects(message: AnyMessage) -> _Found:
    context = message.context or {}
    for name in ("properties", "traits"):
        fields: Mapping[str, Any] = getattr(message, name, None) or {}
        if len(fields) > limits.UNIFY_FIELDS:
            yield "too_many_fields", name, ""
        if depth_of(fields) > limits.RECOMMENDED_DEPTH:
            yield "deep_nesting", name, ""
    if depth_of(context) > limits.RECOMMENDED_DEPTH:
        yield "deep_nesting", "context", ""
    for path in context_faults(context) if context else ():
        yield "context_type", f"context.{path}", ""
    if context.get("groupId") == "":
        yield "empty_group_id", "context.groupId", ""


def _of_integrations(message: AnyMessage) -> _Found:
    for name, value in (message.integrations or {}).items():
        field = f"integrations.{printable(name)}"
        if known := misspelt_destination(name):
            yield "destination_spelling", field, known
        if not isinstance(value, bool | dict):
            yield "destination_value", field, ""

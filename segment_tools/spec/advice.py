"""What is worth saying of a message that Segment will take: the warnings, each with a stable code."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from segment_tools.receipt import Warned
from segment_tools.remarks import REMARKS
from segment_tools.spec import limits
from segment_tools.spec.context import context_faults
from segment_tools.spec.integrations import misspelt_destination
from segment_tools.spec.json_objects import depth_of
from segment_tools.spec.messages import Alias, AnyMessage, Group
from segment_tools.spec.names import printable
from segment_tools.spec.practice import Found, of_practice
from segment_tools.spec.timestamps import has_zone, parse_timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Quiet:
    """What is not remarked on: warnings by code, and how the customer's plan names events and their properties."""

    codes: Collection[str] = ()
    events: Collection[str] = ()


def warnings(
    message: AnyMessage, now: datetime, index: int | None = None, quiet: Quiet = Quiet()
) -> tuple[Warned, ...]:
    """Everything that may not come out as the caller expects, in a fixed order; nothing, for most messages."""
    found = [
        *_of_time(message, now),
        *_of_ids(message),
        *_of_objects(message),
        *_of_integrations(message),
        *of_practice(message, quiet.events),
    ]
    return tuple(
        Warned(code, REMARKS[code].format(field=field, known=known), field, index)
        for code, field, known in found
        if code not in quiet.codes
    )


def _of_time(message: AnyMessage, now: datetime) -> Found:
    moment = parse_timestamp(message.timestamp) if message.timestamp else None
    if message.timestamp is None or moment is None:
        return
    if not has_zone(message.timestamp):
        yield "timestamp_without_zone", "timestamp", ""
    if moment > now + timedelta(seconds=limits.FUTURE_SECONDS):
        yield "timestamp_in_future", "timestamp", ""
    if moment < _EPOCH:
        yield "timestamp_before_1970", "timestamp", ""


def _of_ids(message: AnyMessage) -> Found:
    chosen = message.message_id
    if chosen is not None and len(chosen) == limits.MESSAGE_ID_CHARACTERS:
        yield "message_id_at_limit", "messageId", ""
    if chosen is not None and len(chosen) < limits.SHORT_MESSAGE_ID:
        yield "short_message_id", "messageId", ""
    if isinstance(message, Alias) and message.previous_id == message.user_id:
        yield "alias_to_itself", "previousId", ""
    if isinstance(message, Group) and len(message.group_id or "") > limits.GROUP_ID_CHARACTERS:
        yield "long_group_id", "groupId", ""


def _of_objects(message: AnyMessage) -> Found:
    context = message.context or {}
    for name in ("properties", "traits"):
        fields: Mapping[str, Any] = message.__dict__.get(name) or {}
        if not fields:
            continue
        if len(fields) > limits.UNIFY_FIELDS:
            yield "too_many_fields", name, ""
        if depth_of(fields) > limits.RECOMMENDED_DEPTH:
            yield "deep_nesting", name, ""
    if not context:
        return
    if depth_of(context) > limits.RECOMMENDED_DEPTH:
        yield "deep_nesting", "context", ""
    for path in context_faults(context):
        yield "context_type", f"context.{path}", ""
    if context.get("groupId") == "":
        yield "empty_group_id", "context.groupId", ""


def _of_integrations(message: AnyMessage) -> Found:
    for name, value in (message.integrations or {}).items():
        field = f"integrations.{printable(name)}"
        if known := misspelt_destination(name):
            yield "destination_spelling", field, known
        if not isinstance(value, bool | dict):
            yield "destination_value", field, ""

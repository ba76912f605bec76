"""The kinds of value a message is made of: ids, names, JSON objects and timestamps, read leniently, kept strictly.

Hosts and models send objects as JSON text, ids as numbers and `null` or `""` for what is absent. All of that is
understood here. What cannot be understood is refused with a sentence that says what to pass instead; a refusal
never repeats the value, which may be somebody's data.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, NamedTuple, cast

from pydantic import BaseModel, BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from segment_tools.spec import limits

_COMPLETE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
SHOWN_CHARACTERS = 80
"""How much of a name from outside an error repeats."""

_ISO_HINT = "Pass ISO 8601, such as 2024-01-15T10:30:00Z or 2024-01-15T10:30:00-08:00."


def refusal(message: str, hint: str = "", *, code: str = "invalid_value", field: str = "") -> PydanticCustomError:
    """A refusal for pydantic to carry; `{field}` in the texts becomes the field's name, `field` a path below it."""
    return PydanticCustomError("refusal", "{message}", {"message": message, "hint": hint, "code": code, "below": field})


def _id(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise refusal("{field} must be text.", "Pass the id as a string.")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise refusal("{field} must be text.", "Pass the id as a string.")
        value = int(value) if value.is_integer() else value
    if isinstance(value, int) and abs(value) > limits.ENCODABLE_INTEGER:
        raise refusal("{field} is too large a number.", "Pass the id as a string.")
    return _not_blank(str(value))


def _name(value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise refusal("{field} must be text.", "Pass a string: Segment drops a message whose {field} is anything else.")
    return _not_blank(value)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise refusal("{field} is blank.", "Pass real text or leave {field} out: Segment drops a blank one.")
    if not _is_encodable_text(text):
        raise refusal("{field} holds half a character.", "Pass valid Unicode.")
    return text


def _message_id(value: object) -> str | None:
    text = _id(value)
    if text is not None and len(text) > limits.MESSAGE_ID_CHARACTERS:
        raise refusal(
            f"{{field}} is {len(text)} characters long; Segment takes {limits.MESSAGE_ID_CHARACTERS}.",
            "Pass a shorter one, such as a UUID, or leave it out and one is made.",
        )
    return text


def json_value(value: object) -> object:
    """What the value means where an object or list belongs: JSON text is read, a model is written out, `""` is absent.

    Text that is not JSON stays as it is, for the caller to refuse.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True, exclude_unset=True)
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return cast("object", json.loads(value))
    except (ValueError, RecursionError):
        return value


def _object(value: object) -> dict[str, Any] | None:
    found = json_value(value)
    if found is None:
        return None
    if isinstance(found, str):
        raise refusal("{field} is text that is not a JSON object.", "Pass a JSON object, not prose.")
    if not isinstance(found, Mapping):
        raise refusal("{field} must be an object.", 'Pass a JSON object, such as {"plan": "pro"}.')
    return cast("dict[str, Any]", found if isinstance(found, dict) else dict(cast("Mapping[str, Any]", found)))


def _properties(value: object) -> dict[str, Any] | None:
    found = _object(value)
    if found is not None:
        check_json(found)
    return found


def _timestamp(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        return iso_utc(value) if value.tzinfo else value.isoformat()
    if isinstance(value, int | float):
        raise refusal("{field} is a number.", _ISO_HINT)
    if not isinstance(value, str) or parse_timestamp(value) is None:
        raise refusal("{field} is not an ISO 8601 date and time.", _ISO_HINT)
    return value


def has_zone(text: str) -> bool:
    """Whether a timestamp says which time zone it means."""
    moment = _moment(text)
    return moment is None or moment.tzinfo is not None


def wire_timestamp(text: str) -> str:
    """A valid timestamp as it is sent: as given where it is complete, else written out in UTC.

    Complete is `YYYY-MM-DDTHH:MM:SS` with an optional fraction and `Z` or an offset. Segment documents no grammar
    beyond "ISO 8601", so rarer forms (a date alone, a week date, no colons) are not left to it.
    """
    moment = parse_timestamp(text)
    return text if _COMPLETE.fullmatch(text) or moment is None else iso_utc(moment)


def parse_timestamp(text: str) -> datetime | None:
    """The moment an ISO 8601 text means, one without a zone taken as UTC; None if it is not ISO 8601.

    Source: https://segment.com/docs/connections/spec/common/#timestamps.
    """
    moment = _moment(text)
    if moment is None:
        return None
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:  # the first or last hours of the calendar, moved across its edge by the zone
        return None


def _moment(text: str) -> datetime | None:
    if not text.isascii():
        return None
    try:
        return datetime.fromisoformat(text.strip().upper())
    except ValueError:
        return None


def iso_utc(moment: datetime) -> str:
    """The moment as Segment's own Node library writes it: UTC, milliseconds, `Z`."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def plain_depth(root: Mapping[str, Any]) -> int | None:
    """How many levels of objects and lists the object has, a flat one 1; None where something needs a closer look.

    One pass without a path for every value: nearly all objects are plain, and this is what each message pays.
    """
    deepest = 0
    stack: list[tuple[Any, int]] = [(root, 1)]
    while stack:
        holder, depth = stack.pop()
        deepest = max(deepest, depth)
        keyed = type(holder) is dict
        if depth > limits.ENCODABLE_DEPTH or (keyed and not all(map(_is_plain_text, cast("Any", holder)))):
            return None
        for value in cast("Iterable[object]", holder.values() if keyed else holder):
            kind = type(value)
            if kind is dict or kind is list:
                stack.append((value, depth + 1))
            elif not _PLAIN.get(kind, _never)(value):
                return None
    return deepest


def _is_plain_text(value: object) -> bool:
    return type(value) is str and value.isascii()


def _is_encodable_integer(value: int) -> bool:
    return -limits.ENCODABLE_INTEGER <= value <= limits.ENCODABLE_INTEGER


def _is_encodable_text(value: str) -> bool:
    return value.isascii() or not _HALF.search(value)


def _always(_: object) -> bool:
    return True


def _never(_: object) -> bool:
    return False


_HALF = re.compile("[\ud800-\udfff]")
_PLAIN: dict[type, Callable[[Any], bool]] = {
    str: _is_encodable_text,
    int: _is_encodable_integer,
    float: math.isfinite,
    bool: _always,
    type(None): _always,
}


class Leaf(NamedTuple):
    """A value inside a JSON object: its path, how many objects and lists enclose it, and itself."""

    path: str
    depth: int
    value: object


def leaves(root: Mapping[str, Any]) -> Iterator[Leaf]:
    """Every value inside the object that is neither an object nor a list, or is one that is too deep to follow.

    A key that is not text, or not encodable, comes as a leaf of its own, at the path of what holds it.
    """
    stack = [Leaf("", 0, root)]
    while stack:
        leaf = stack.pop()
        held: object = leaf.value
        if leaf.depth > limits.ENCODABLE_DEPTH or not isinstance(held, dict | list | tuple):
            yield leaf
            continue
        entries = list(_entries(cast("dict[object, object] | list[object]", held)))
        if isinstance(held, dict):
            yield from (
                Leaf(leaf.path, leaf.depth + 1, key if isinstance(key, str) else object()) for key, _ in entries
            )
        stack.extend(Leaf(f"{leaf.path}.{key!s:.40}", leaf.depth + 1, value) for key, value in entries)


def _entries(held: dict[object, object] | list[object]) -> Iterable[tuple[object, object]]:
    return held.items() if isinstance(held, dict) else enumerate(held)


def check_json(root: Mapping[str, Any]) -> None:
    """Refuse an object that JSON cannot carry: NaN, infinity, other types, broken text, endless nesting."""
    if plain_depth(root) is not None:
        return
    for leaf in leaves(root):
        if fault := _fault(leaf.value):
            raise refusal(*fault, field=_shown(leaf.path))


def _fault(value: object) -> tuple[str, str] | None:  # noqa: PLR0911 - one return for each kind of value
    """What keeps a single value from being carried by JSON, and the mend."""
    match value:
        case None | bool():
            return None
        case str():
            return None if _is_encodable_text(value) else ("{field} holds half a character.", "Pass valid Unicode.")
        case int():
            return None if _is_encodable_integer(value) else ("{field} is too large a number.", "Pass it as text.")
        case float():
            mend = "Pass a number, or leave it out: JSON has no NaN or infinity."
            return None if math.isfinite(value) else ("{field} is not a finite number.", mend)
        case dict() | list() | tuple():
            mend = f"Keep within {limits.RECOMMENDED_DEPTH} levels; over {limits.ENCODABLE_DEPTH} cannot be sent."
            return "{field} is nested too deeply.", mend
        case date():
            return "{field} is a date object.", "Pass its ISO 8601 text: value.isoformat()."
        case _:
            mend = "Pass text, numbers, booleans, null, lists and objects with text keys."
            return "{field} is not a JSON value.", mend


def _shown(path: str) -> str:
    return printable(".".join(path.split(".")[1:5]))


def printable(name: str) -> str:
    """A name from outside, fit to be shown: short and without control characters."""
    return "".join(char if char.isprintable() else "?" for char in name[:SHOWN_CHARACTERS])


def depth_of(root: Mapping[str, Any]) -> int:
    """How many levels of objects and lists the object has; a flat one has 1."""
    return plain_depth(root) or max((leaf.depth for leaf in leaves(root)), default=1)


def as_given(value: object) -> object:
    """For pydantic: serialise the value as it stands."""
    return value


_TEXT = WithJsonSchema({"type": "string"})
_FREE = WithJsonSchema({"type": "object", "additionalProperties": True})

Id = Annotated[str | None, BeforeValidator(_id), _TEXT]
"""An id: text, or a number that becomes its text; `""` and null are absent."""

Name = Annotated[str | None, BeforeValidator(_name), _TEXT]
"""An event, page or category name: text; `""` and null are absent."""

MessageId = Annotated[
    str | None,
    BeforeValidator(_message_id),
    WithJsonSchema({"type": "string", "maxLength": limits.MESSAGE_ID_CHARACTERS}),
]
"""A message's id, the key of Segment's de-duplication."""

Timestamp = Annotated[str | None, BeforeValidator(_timestamp), _TEXT]
"""A moment in ISO 8601, kept as given where it is complete, else written out in UTC."""

JsonObject = Annotated[dict[str, Any] | None, BeforeValidator(_properties), PlainSerializer(as_given), _FREE]
"""A free-form JSON object, or JSON text that holds one."""

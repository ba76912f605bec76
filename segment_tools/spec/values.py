"""The kinds of value a message is made of: ids, names, JSON objects and timestamps, read leniently, kept strictly.

Hosts and models send objects as JSON text, ids as numbers and `null` or `""` for what is absent. All of that is
understood here. What cannot be understood is refused with a sentence that says what to pass instead; a refusal
never repeats the value, which may be somebody's data.
"""

import json
import math
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from segment_tools.spec import limits
from segment_tools.spec.json_objects import fault_in, is_encodable_text
from segment_tools.spec.timestamps import parse_timestamp

_ISO_HINT = "Pass ISO 8601, such as 2024-01-15T10:30:00Z or 2024-01-15T10:30:00-08:00."


def refusal(message: str, hint: str = "", *, code: str = "invalid_value", field: str = "") -> PydanticCustomError:
    """A refusal for pydantic to carry.

    In the texts `{field}` becomes the field's name and `{example}` an example of its value; `field` is a path below it.
    """
    said = f"{message} {hint}".replace("{field}", field or "The value").rstrip()
    return PydanticCustomError(
        "refusal", "{said}", {"said": said, "message": message, "hint": hint, "code": code, "below": field}
    )


def id_text(value: object) -> str | None:
    """The text of an id, None where it is absent; raises a refusal, for validators."""
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
    if not is_encodable_text(text):
        raise refusal("{field} holds half a character.", "Pass valid Unicode.")
    return text


def _message_id(value: object, hint: str) -> str | None:
    text = id_text(value)
    if text is not None and len(text) > limits.MESSAGE_ID_CHARACTERS:
        raise refusal(f"{{field}} is {len(text)} characters long; Segment takes {limits.MESSAGE_ID_CHARACTERS}.", hint)
    return text


def json_value(value: object) -> object:
    """What the value means where an object or list belongs: JSON text is read, a model is written out, `""` is absent.

    Text that is not JSON stays as it is, for the caller to refuse.

    Raises:
        KeyTwice: an object in the text names a key twice.
    """
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True, exclude_unset=True)
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return cast("object", json.loads(value, object_pairs_hook=unique))
    except (ValueError, RecursionError):
        return value


class KeyTwice(Exception):
    """An object in JSON text names a key twice: Python would keep the last and lose the others."""

    message = "{field} names a key twice."
    hint = "Name every key once: only one value of it would arrive."


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads`: the object of these pairs; raises `KeyTwice` where one would be lost."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise KeyTwice
    return found


def read(value: object) -> object:
    """`json_value` for validators: what it raises becomes a refusal."""
    try:
        return json_value(value)
    except KeyTwice:
        raise refusal(KeyTwice.message, KeyTwice.hint) from None


def _object(value: object) -> dict[str, Any] | None:
    found = read(value)
    if found is None:
        return None
    if isinstance(found, str):
        raise refusal("{field} is text that is not a JSON object.", "Pass a JSON object, such as {example}.")
    if not isinstance(found, Mapping):
        raise refusal("{field} must be an object.", "Pass a JSON object, such as {example}.")
    return cast("dict[str, Any]", found if isinstance(found, dict) else dict(cast("Mapping[str, Any]", found)))


def _properties(value: object) -> dict[str, Any] | None:
    found = _object(value)
    if found is not None and (fault := fault_in(found)):
        raise refusal(fault.message, fault.hint, field=fault.path)
    return found


def _timestamp(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        value = value.isoformat()
    if isinstance(value, int | float):
        raise refusal("{field} is a number.", _ISO_HINT)
    if not isinstance(value, str) or parse_timestamp(value) is None:
        raise refusal("{field} is not an ISO 8601 date and time.", _ISO_HINT)
    return value


def as_given(value: object) -> object:
    """For pydantic: serialise the value as it stands."""
    return value


_TEXT = WithJsonSchema({"type": "string"})
_FREE = WithJsonSchema({"type": "object", "additionalProperties": True})

Id = Annotated[str | None, BeforeValidator(id_text), _TEXT]
"""An id: text, or a number that becomes its text; `""` and null are absent."""

Name = Annotated[str | None, BeforeValidator(_name), _TEXT]
"""An event, page or category name: text; `""` and null are absent."""

_SHORTER = "Pass a shorter one, such as a UUID, or leave it out and one is made."
_AS_ANSWERED = "No message has it: pass the messageId as the answer that sent the message gave it."

MessageId = Annotated[str | None, BeforeValidator(partial(_message_id, hint=_SHORTER)), _TEXT]
"""A message's id, the key of Segment's de-duplication."""

KnownMessageId = Annotated[str | None, BeforeValidator(partial(_message_id, hint=_AS_ANSWERED)), _TEXT]
"""The id of a message that was sent before."""

Timestamp = Annotated[str | None, BeforeValidator(_timestamp), _TEXT]
"""A moment in ISO 8601, kept as given where it is complete, else written out in UTC."""

JsonObject = Annotated[dict[str, Any] | None, BeforeValidator(_properties), PlainSerializer(as_given), _FREE]
"""A free-form JSON object, or JSON text that holds one."""

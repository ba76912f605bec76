"""The kinds of argument that tools take besides messages: read leniently, kept strictly, refused with a mend."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema

from segment_tools.spec.values import read, refusal


class Arguments(BaseModel):
    """What a tool takes, in camelCase; nothing else is taken."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)


def whole(least: int, most: int) -> Any:
    """A whole number within bounds; text of one is read, null and "" are absent."""
    return _annotated(int, partial(_whole, least=least, most=most), type="integer", minimum=least, maximum=most)


def one_of(*choices: str) -> Any:
    """One of some words, in any case; null and "" are absent."""
    return _annotated(str, partial(_choice, choices=choices), type="string", enum=list(choices))


def some_of(*choices: str) -> Any:
    """A list of some words, or text with commas between them, in any case; null, "" and an empty list are absent."""
    listed = {"type": "array", "items": {"type": "string", "enum": list(choices)}}
    return Annotated[
        tuple[str, ...] | None, BeforeValidator(partial(_choices, choices=choices)), WithJsonSchema(listed)
    ]


def _annotated(kind: type, validator: Callable[[object], object], **schema: Any) -> Any:
    return Annotated[kind | None, BeforeValidator(validator), WithJsonSchema(schema)]  # type: ignore[valid-type]


def _whole(value: object, least: int, most: int) -> int | None:
    if value in (None, ""):
        return None
    text = str(value).strip().removesuffix(".0")
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or len(text) > len(str(most)):
        raise refusal("{field} is not a number that is taken.", f"Pass a whole number from {least} to {most}.")
    if not least <= int(text) <= most:
        raise refusal("{field} is out of its range.", f"Pass a whole number from {least} to {most}.")
    return int(text)


def _choice(value: object, choices: Sequence[str]) -> str | None:
    if value in (None, ""):
        return None
    found = next((choice for choice in choices if isinstance(value, str) and choice == value.strip().lower()), None)
    if found is None:
        raise refusal("{field} is none of what it may be.", f"Pass one of {', '.join(choices)}.")
    return found


def _choices(value: object, choices: Sequence[str]) -> tuple[str, ...] | None:
    named = tuple(dict.fromkeys(name.lower() for name in _names(value) or ()))
    if not set(named) <= set(choices):
        raise refusal("{field} holds what it may not.", f"Pass some of {', '.join(choices)}.")
    return named or None


def _flag(value: object) -> bool | None:
    if value in (None, ""):
        return None
    words = {"true": True, "false": False}
    found = words.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise refusal("{field} must be true or false.", "Pass true or false.")
    return found


def _names(value: object) -> tuple[str, ...] | None:
    found = read(value)
    if found is None:
        return None
    listed: list[Any] = found.split(",") if isinstance(found, str) else found  # type: ignore[assignment]
    if not isinstance(cast("object", listed), list | tuple) or not all(isinstance(name, str) for name in listed):
        raise refusal("{field} must be a list of names.", 'Pass a list of strings, such as ["plan", "email"].')
    return tuple(name.strip() for name in cast("list[str]", listed) if name.strip()) or None


Flag = Annotated[bool | None, BeforeValidator(_flag), WithJsonSchema({"type": "boolean"})]
"""True or false, or the words; null and "" are absent."""

Names = Annotated[
    tuple[str, ...] | None,
    BeforeValidator(_names),
    WithJsonSchema({"type": "array", "items": {"type": "string"}}),
]
"""A list of names, or text with commas between them; null, "" and an empty list are absent."""

"""What the arguments of every tool have in common, and kinds beside a message's: read leniently, kept strictly."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Any, ClassVar, Self, cast
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel, to_snake
from pydantic_core import CoreSchema, core_schema

from segment_tools.spec.json_objects import is_encodable_text
from segment_tools.spec.values import id_text, read, refusal


class Arguments(BaseModel):
    """What a tool takes, in camelCase; nothing else is taken."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
        defer_build=True,
    )

    REQUIRED: ClassVar[Mapping[str, str]] = {}
    """What the tool, or Segment, cannot do without, and what to pass."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if missing := [name for name in self.REQUIRED if getattr(self, _snake(name)) is None]:
            raise refusal(
                f"{missing[0]} is required.", self.REQUIRED[missing[0]], code="missing_field", field=missing[0]
            )
        return self


_snake = cache(to_snake)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of argument, for `Annotated`: how it is read, and its schema."""

    read: Callable[[object], object]
    schema: Mapping[str, Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.read, handler(source))

    def __get_pydantic_json_schema__(self, _: CoreSchema, __: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(self.schema)


def whole(least: int, most: int) -> Kind:
    """A whole number within bounds; text of one is read, null and "" are absent."""
    schema = {"type": "integer", "minimum": least, "maximum": most}
    return Kind(partial(_whole, least=least, most=most), schema)


def one_of(*choices: str) -> Kind:
    """One of some words, in any case; null and "" are absent."""
    return Kind(partial(_choice, choices=choices), {"type": "string", "enum": list(choices)})


def some_of(*choices: str) -> Kind:
    """A list of some words, or text with commas between them, in any case; null, "" and an empty list are absent."""
    listed = {"type": "array", "items": {"type": "string", "enum": list(choices)}}
    return Kind(partial(_choices, choices=choices), listed)


def _whole(value: object, least: int, most: int) -> int | None:
    if value in (None, ""):
        return None
    text = str(value).strip().removesuffix(".0")
    digits = text.removeprefix("-")
    hint = f"Pass a whole number from {least} to {most}."
    if isinstance(value, bool) or not digits.isascii() or not digits.isdigit():
        raise refusal("{field} is not a whole number.", hint)
    if len(text) > len(str(most)) or not least <= int(text) <= most:
        raise refusal(f"{{field}} is out of its range, {least} to {most}.", hint)
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
    names = tuple(name.strip() for name in cast("list[str]", listed) if name.strip())
    for name in names:
        _encodable(name)
    return names or None


def _pairs(value: object) -> tuple[str, ...] | None:
    found = read(value)
    pairs = list(_joined(cast("Mapping[object, object]", found))) if isinstance(found, Mapping) else found
    if isinstance(pairs, list) and not all(isinstance(each, str) for each in cast("list[object]", pairs)):
        raise refusal("{field} must be a list of FIELD=VALUE.", 'Pass a list such as ["userId=customer_id"].')
    return _names(cast("object", pairs))


def _joined(pairs: Mapping[object, object], above: str = "") -> Iterator[object]:
    """Each pair as one text, an object below by its path; what is neither text nor number stays, to be refused."""
    for name, value in pairs.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping):
            yield from _joined(cast("Mapping[object, object]", value), f"{path}.")
        else:
            text = json.dumps(value) if isinstance(value, bool | int | float) else value
            yield f"{path}={text}" if isinstance(text, str) else value


def _sought_names(value: object) -> tuple[str, ...] | None:
    names = _names(value)
    _within_url(",".join(names or ()))
    return names


def _sought(value: object) -> str | None:
    text = _text(value, "Pass real text, or leave {field} out.")
    if text is not None:
        _within_url(text)
    return text


def _text(value: object, instead_of_blank: str) -> str | None:
    if value in (None, ""):
        return None
    if not isinstance(value, str):
        raise refusal("{field} must be text.", "Pass a string.")
    if not value.strip():
        raise refusal("{field} is blank.", instead_of_blank)
    return value


QUESTION_CHARACTERS = 500
"""Ours: who asks for more than a sentence or two asks for several things."""


def _question(value: object) -> str | None:
    text = _text(value, "Pass it in words.")
    if text is not None and len(text) > QUESTION_CHARACTERS:
        hint = f"Ask for one thing in a sentence, of at most {QUESTION_CHARACTERS} characters."
        raise refusal("{field} is too long.", hint, code="too_large")
    return text


def _sought_id(value: object) -> str | None:
    return _sought(value if isinstance(value, str) else id_text(value))


LONGEST = 8_000
"""Ours, in bytes as a URL has them: with three such arguments a URL is still one that HTTP libraries take."""


def _within_url(text: str) -> None:
    """Refuse what cannot be asked for in a URL."""
    _encodable(text)
    if len(text) > LONGEST or len(quote(text, safe="")) > LONGEST:
        raise refusal("{field} is too long.", f"Pass at most {LONGEST:,} bytes, as a URL has them.", code="too_large")


Flag = Annotated[bool | None, Kind(_flag, {"type": "boolean"})]
"""True or false, or the words; null and "" are absent."""


def _encodable(text: str) -> None:
    if not is_encodable_text(text):
        raise refusal("{field} holds half a character.", "Pass valid Unicode.")


Pairs = Annotated[tuple[str, ...] | None, Kind(_pairs, {"type": "array", "items": {"type": "string"}})]
"""A list of texts such as userId=customer_id; an object of the same is read; null, "" and an empty list are absent."""

SoughtNames = Annotated[tuple[str, ...] | None, Kind(_sought_names, {"type": "array", "items": {"type": "string"}})]
"""As `Names`, to look for."""

Sought = Annotated[str | None, Kind(_sought, {"type": "string"})]
"""Text to look for, or a cursor; null and "" are absent."""

Question = Annotated[str | None, Kind(_question, {"type": "string", "maxLength": QUESTION_CHARACTERS})]
"""What somebody wants to know, in words; null and "" are absent."""

SoughtId = Annotated[str | None, Kind(_sought_id, {"type": "string"})]
"""An id to look for: text, or a number that becomes its text; null and "" are absent."""

Names = Annotated[tuple[str, ...] | None, Kind(_names, {"type": "array", "items": {"type": "string"}})]
"""A list of names, or text with commas between them; null, "" and an empty list are absent."""

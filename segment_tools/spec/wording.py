"""Violations of a tracking plan: in Segment's words, and how to mend each.

Source of the words: https://segment.com/docs/protocols/validate/forward-violations/; where Segment's pages have no
example, those of the Go library whose words its examples are [?]. None repeats what stands in a message.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from segment_tools.spec.names import Nearest, nearest, printable

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError

_SHOWN_NAMES, _SHOWN_CHARACTERS = 20, 300
"""Ours: how many of a plan's names or permitted values a text lists, and how long they may be."""

_MENDS = {
    "string": "Pass text",
    "integer": "Pass a whole number",
    "number": "Pass a number",
    "boolean": "Pass true or false",
    "array": "Pass a list",
    "object": "Pass an object",
    "null": "Pass null",
}
_FORMATS = {
    "date-time": "Pass a date and time such as 2024-01-15T10:30:00Z.",
    "date": "Pass a date such as 2024-01-15.",
    "time": "Pass a time such as 10:30:00Z.",
    "email": "Pass an e-mail address.",
    "uri": "Pass a whole address, such as https://example.com/.",
    "uuid": "Pass a UUID.",
}
_QUOTED = ("integer", "number", "boolean", "array", "object")


@dataclass(frozen=True, slots=True)
class Violation:
    """One departure from a plan."""

    type: str
    """In Segment's words: `Required`, `Invalid Type`, `Unplanned Event`, `Unplanned Property`, `Enum`, `Pattern` …"""
    field: str
    """Dotted path in Segment's names, with a list's places as numbers; `(root)` is the whole message."""
    description: str
    mend: str

    @property
    def text(self) -> str:
        """The description with the field in it, as one sentence."""
        named = self.field == "event" or self.description.startswith(self.field)
        described = self.description.rstrip(".").replace(". Expected:", ", expected:")
        return f"{described if named else f'{self.field}: {described}'}."


Words = tuple[str, str, str]
"""Type, description, mend."""


def violation_of(
    error: "ValidationError", schema: Mapping[str, Any], message: Mapping[str, Any], near: Nearest = nearest
) -> Iterator[Violation]:
    """The violations that an error of the validator is: one, but for names that are not allowed."""
    path, keyword = tuple(error.instance_path), error.kind.name
    node, value = _walked(schema, error.schema_path[:-1]), _walked(message, path)
    if keyword == "required":
        yield _required(path, str(error.kind.value), node, value, near)
    elif keyword == "additionalProperties":
        yield from (_additional(path, name, node, near) for name in cast("list[str]", error.kind.value))
    else:
        field = _dotted(path)
        wording = _WORDS.get(keyword, _other)
        kind, description, mend = wording(error.kind.value if keyword in _WITH_LIMIT else None, node, value)
        yield Violation(kind, field, description.replace("{field}", field), mend)


def listed(names: Collection[object]) -> str:
    """Names or values of a plan, as many as there is room for."""
    shown: list[str] = []
    for name in islice(names, _SHOWN_NAMES):
        text = repr(name) if isinstance(name, str) else json.dumps(name, ensure_ascii=False)
        if shown and sum(map(len, shown)) + len(text) > _SHOWN_CHARACTERS:
            break
        shown.append(printable(text))
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _required(path: tuple[str | int, ...], name: str, node: object, value: object, near: Nearest) -> Violation:
    field = _dotted((*path, name))
    planned = _below(node, "properties")
    given = [key for key in _mapping(value) if key not in planned]
    if misnamed := near(name, given):
        mend = f"You passed {printable(misnamed)!r}: call it {name!r}."
    else:
        mend = expected(_mapping(planned.get(name))) or f"Pass {name!r}."
    return Violation("Required", field, f"{field} is required", mend)


def _additional(path: tuple[str | int, ...], name: str, node: object, near: Nearest) -> Violation:
    planned = _below(node, "properties")
    meant = near(name[:_SHOWN_CHARACTERS], planned)
    mend = (
        f"Did you mean {meant!r}?"
        if meant
        else "Leave it out" + (f"; there are {listed(planned)}." if planned else ".")
    )
    text = f"Additional property {printable(name)} is not allowed"
    return Violation("Additional Property Not Allowed", _dotted((*path, name)), text, mend)


def expected(schema: Mapping[str, Any]) -> str:
    """What to pass where this is planned; empty where it may be anything."""
    if isinstance(schema.get("enum"), list):
        return f"Pass {_one_of(cast('list[object]', schema['enum']))}."
    if permitted := _choices(schema.get("pattern")):
        return f"Pass {_one_of(permitted)}."
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    return f"{' or '.join(_typed(schema.get('type')))}." if schema.get("type") else ""


def _invalid_type(limit: object, node: Mapping[str, Any], value: object) -> Words:
    wanted, given = _types(node.get("type", limit)), kind_of(value)
    mend = expected({"type": limit, **node})
    if given == "string" and wanted[0] in _QUOTED and not isinstance(node.get("enum"), list):
        mend = f"{mend.rstrip('.')}, not text."
    return "Invalid Type", f"Invalid type. Expected: {'/'.join(wanted)}, given: {given}", mend


def _enum(limit: object, _: Mapping[str, Any], value: object) -> Words:
    options = cast("list[object]", limit)
    return "Enum", f"{{field}} must be one of the following: {listed(options)}", _permitted(options, value)


def _const(limit: object, _: Mapping[str, Any], __: object) -> Words:
    only = listed([limit])
    return "Const", f"{{field}} does not match: {only}", f"Pass {only}."


def _pattern(limit: object, node: Mapping[str, Any], value: object) -> Words:
    pattern = str(node.get("pattern", limit))
    options = _choices(pattern)
    mend = _permitted(options, value) if options else "Pass text of that pattern."
    return "Pattern", f"Does not match pattern '{pattern[:_SHOWN_CHARACTERS]}'", mend


def _format(limit: object, _: Mapping[str, Any], __: object) -> Words:
    name = str(limit)
    return "Format", f"Does not match format '{printable(name)}'", _FORMATS.get(name, "Pass text of that format.")


def _not(*_: object) -> Words:
    return "Number Not", "Must not validate the schema (not)", "The plan rules this out: pass something else."


def _false(*_: object) -> Words:
    return "False", "False always fails validation", "The plan rules this out: leave it out."


def _any_of(*_: object) -> Words:
    return "Number Any Of", "Must validate at least one schema (anyOf)", "It fits none of the plan's alternatives."


def _one_schema(*_: object) -> Words:
    text = "It fits none of the plan's alternatives, or more than one."
    return "Number One Of", "Must validate one and only one schema (oneOf)", text


def _unique(*_: object) -> Words:
    return "Unique", "array items must be unique", "Pass each item once."


def _contains(*_: object) -> Words:
    return "Contains", "At least one of the items must match", "Pass an item that fits the plan."


def _property_name(*_: object) -> Words:
    return "Invalid Property Name", "A property's name does not match the schema", "Name it as the plan says."


def _other(*_: object) -> Words:
    return "Schema", "Does not match the schema", "See the tracking plan for what it takes."


def _limit(kind: str, text: str, mend: str) -> Callable[[object, Mapping[str, Any], object], Words]:
    def words(limit: object, _: Mapping[str, Any], __: object) -> Words:
        return kind, text.format(limit), mend.format(limit)

    return words


_LIMITS = {
    "minimum": ("Number Gte", "Must be greater than or equal to {}", "Pass {} or more."),
    "maximum": ("Number Lte", "Must be less than or equal to {}", "Pass {} or less."),
    "exclusiveMinimum": ("Number Gt", "Must be greater than {}", "Pass more than {}."),
    "exclusiveMaximum": ("Number Lt", "Must be less than {}", "Pass less than {}."),
    "multipleOf": ("Multiple Of", "Must be a multiple of {}", "Pass a multiple of {}."),
    "minLength": ("String Gte", "String length must be greater than or equal to {}", "Pass at least {} characters."),
    "maxLength": ("String Lte", "String length must be less than or equal to {}", "Pass at most {} characters."),
    "minItems": ("Array Min Items", "Array must have at least {} items", "Pass at least {} items."),
    "maxItems": ("Array Max Items", "Array must have at most {} items", "Pass at most {} items."),
    "minProperties": ("Array Min Properties", "Must have at least {} properties", "Pass at least {}."),
    "maxProperties": ("Array Max Properties", "Must have at most {} properties", "Pass at most {}."),
    "additionalItems": ("Array No Additional Items", "No additional items allowed on array", "Pass at most {} items."),
}
_WITH_LIMIT = frozenset({*_LIMITS, "type", "enum", "const", "pattern", "format"})
_WORDS: dict[str, Callable[[object, Mapping[str, Any], object], Words]] = {
    "type": _invalid_type,
    "enum": _enum,
    "const": _const,
    "pattern": _pattern,
    "format": _format,
    "not": _not,
    "falseSchema": _false,
    "anyOf": _any_of,
    "oneOf": _one_schema,
    "uniqueItems": _unique,
    "contains": _contains,
    "propertyNames": _property_name,
    **{keyword: _limit(*words) for keyword, words in _LIMITS.items()},
}


def kind_of(value: object) -> str:
    """JSON Schema's word for the kind of value."""
    if isinstance(value, bool) or value is None:
        return "null" if value is None else "boolean"
    if isinstance(value, int | float):
        return "integer" if isinstance(value, int) or value.is_integer() else "number"
    return "string" if isinstance(value, str) else "object" if isinstance(value, dict) else "array"


def _types(given: object) -> list[str]:
    return [str(each) for each in cast("list[object]", given)] if isinstance(given, list) else [str(given)]


def _typed(given: object) -> Iterator[str]:
    """How to pass a value of these types: null, which stands for nothing, last."""
    for place, name in enumerate(sorted(_types(given), key=lambda each: each == "null")):
        text = _MENDS.get(name, "Pass another value")
        yield text if place == 0 else text.removeprefix("Pass ")


def _choices(pattern: object) -> list[str]:
    """The values that a pattern of Segment's own form permits: words with bars between them; empty for any other."""
    simple = re.fullmatch(r"\^?\(?((?:[\w &/-]+\|)+[\w &/-]+)\)?\$?", pattern) if isinstance(pattern, str) else None
    return simple.group(1).split("|") if simple else []


def _one_of(options: Sequence[object]) -> str:
    return listed(options) if len(options) == 1 else f"one of {listed(options)}"


def _permitted(options: Sequence[object], value: object) -> str:
    texts = [option for option in options if isinstance(option, str)]
    meant = nearest(value[:_SHOWN_CHARACTERS], texts[:_NEAR]) if isinstance(value, str) else None
    return f"Did you mean {meant!r}?" if meant else f"Pass {_one_of(options)}."


_NEAR = 500
"""Ours: among so many permitted values the one that is meant is looked for."""


def _walked(root: object, path: Sequence[str | int]) -> Any:
    """What stands at the path; an empty object where nothing does."""
    for step in path:
        try:
            root = cast("Any", root)[step]
        except (KeyError, IndexError, TypeError):
            return {}
    return root


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _below(node: object, word: str) -> Mapping[str, Any]:
    return _mapping(_mapping(node).get(word))


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(printable(str(step)) for step in path) or "(root)"

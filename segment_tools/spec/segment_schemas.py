"""JSON Schema as Segment takes it, in the words that the schema library takes.

Segment's engine is Go's: regular expressions are RE2's, where the library wants ECMAScript's; and old plans are of
draft-04, whose `id` and `required` Segment writes in its own way.
Source: https://github.com/google/re2/wiki/Syntax; https://docs.segmentapis.com/tag/Tracking-Plans.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

_BY_NAME = ("properties", "patternProperties", "definitions", "dependencies")
_ONE = ("additionalItems", "additionalProperties", "contains", "else", "if", "not", "propertyNames", "then")
_SEVERAL = ("allOf", "anyOf", "items", "oneOf")
"""The words below which there are schemas; `items` may be one or several."""


def adapted(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with Segment's own forms put as the library takes them; what it does not know stays as it is."""
    return {
        word: _adapted_word(word, value) for word, value in schema.items() if not (word == "required" and not value)
    }


def _adapted_word(word: str, value: Any) -> Any:
    if word == "pattern" and isinstance(value, str):
        return as_ecmascript(value)
    if word in _BY_NAME and isinstance(value, dict):
        names = cast("dict[str, Any]", value).items()
        renamed = as_ecmascript if word == "patternProperties" else str
        return {renamed(name): _below(found) for name, found in names}
    if word in _SEVERAL and isinstance(value, list):
        return [_below(each) for each in cast("list[Any]", value)]
    return _below(value) if word in _ONE or word in _SEVERAL else value


def _below(value: Any) -> Any:
    """The schema that stands inside another. Its `id` is Segment's note of its place, and would be an address."""
    if not isinstance(value, dict):
        return value
    return adapted({word: found for word, found in cast("dict[str, Any]", value).items() if word != "id"})


_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7F",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-\/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": r"0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}

_FLAGS = re.compile(r"\(\?([ims]+)\)")
_ESCAPED = r"\\x\{(?P<code>[0-9A-Fa-f]+)\}|\\(?P<category>[pP][A-Z])|\\(?P<bell>a)"
_OUTSIDE = re.compile(
    rf"\\Q(?P<quoted>.*?)(?:\\E|\Z)|\\(?P<start>A)|\\(?P<end>z)|{_ESCAPED}|\\."
    r"|\(\?P(?P<named><)|(?P<open>\[\^?)(?P<bracket>\])?|.",
    re.DOTALL,
)
_INSIDE = re.compile(rf"\[:(?P<posix>[a-z]+):\]|{_ESCAPED}|\\.|(?P<close>\])|.", re.DOTALL)


def as_ecmascript(pattern: str) -> str:
    """The regular expression of RE2's syntax in ECMAScript's; what that has no word for stays as it is."""
    flags = _FLAGS.match(pattern)
    if flags is None:
        return _rewritten(pattern, lines=False)
    return f"(?{flags[1]}:{_rewritten(pattern[flags.end() :], lines='m' in flags[1])})"


def _rewritten(pattern: str, *, lines: bool) -> str:
    """Where ^ and $ are those of `lines`, nothing says where the text begins and ends."""
    place, inside, written = 0, False, list[str]()
    while token := (_INSIDE if inside else _OUTSIDE).match(pattern, place):
        found = {name: text for name, text in token.groupdict().items() if text is not None}
        inside = (inside or "open" in found) and "close" not in found
        written.append(token[0] if lines and found.keys() & {"start", "end"} else _token(token[0], found))
        place = token.end()
    return "".join(written)


def _token(text: str, found: Mapping[str, str]) -> str:
    match found:
        case {"quoted": literal}:
            return re.sub(r"[\\^$.*+?()[\]{}|/]", r"\\\g<0>", literal)
        case {"code": digits}:
            return f"\\u{{{digits}}}"
        case {"category": name}:
            return f"\\{name[0]}{{{name[1]}}}"
        case {"open": opening, "bracket": _}:
            return f"{opening}\\]"
        case {"posix": name}:
            return _POSIX.get(name, text)
        case _:
            plain = {"start": "^", "end": "$", "bell": r"\x07", "named": "(?<"}
            return next((plain[name] for name in found if name in plain), text)

"""Somebody's data made fit to be shown: traits masked that are to be hidden, values cut that are long."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

MOST_BYTES, MOST_BYTES_WHOLE = 40_000, 100_000
"""Ours: what an answer's data may have, about 10,000 and 25,000 tokens; the second when values are wanted whole."""

LONGEST, _SHORTER = 2_000, (500, 120)
"""How many characters of a value are shown, and fewer where many are long."""

_NAME = 200
HIDDEN = "[hidden]"


def masked(value: Any, patterns: Sequence[str]) -> Any:
    """The value with everything masked whose name, or path of names, is like one of the patterns, at any depth.

    An external id's type counts as its name.
    """
    return _masked(value, [pattern.lower() for pattern in patterns], ()) if patterns else value


def _masked(value: Any, patterns: Sequence[str], path: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        found = {name: _below(name, below, patterns, path) for name, below in fields.items()}
        for named, content in _PAIRS:
            name = fields.get(named)
            if content in found and isinstance(name, str):
                found[content] = _below(name, found[content], patterns, path)
        return found
    if isinstance(value, list):
        return [_masked(below, patterns, path) for below in cast("list[Any]", value)]
    return value


_PAIRS = (("type", "id"), ("key", "value"))
"""Where one field is the name of what is in another: external ids, and properties."""


def _below(name: str, value: Any, patterns: Sequence[str], path: tuple[str, ...]) -> Any:
    if is_hidden((*path, name), patterns):
        return HIDDEN
    # With details, a trait's value is a level deeper, in `value`.
    return _masked(value, patterns, path if name == "value" else (*path, name))


def is_hidden(path: tuple[str, ...], patterns: Sequence[str]) -> bool:
    """Whether the last name of the path, or any end of the path, is like one of the patterns."""
    names = [name.lower() for name in path]
    ends = [".".join(names[start:]) for start in range(len(names))]
    return any(fnmatchcase(end, pattern.lower()) for end in ends for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Fitted:
    """Items within their bound: those that fit, and whether any value was cut."""

    items: list[Any]
    cut: bool


def fitted(items: Sequence[Any], most_bytes: int, whole: bool) -> Fitted:
    """As many of the items as fit, from the first on, their values cut only as far as that needs."""
    shown: list[Any] = []
    for longest in (*((most_bytes,) if whole else ()), LONGEST, *_SHORTER):
        shown = [shortened(item, longest) for item in items]
        if size(shown) <= most_bytes:
            return Fitted(shown, shown != list(items))
    used, fits = 2, 0
    for item in shown:
        used += size(item) + 1
        if used > most_bytes:
            break
        fits += 1
    return Fitted(shown[: max(1, fits)], True)


def size(value: Any) -> int:
    """How many bytes the value has as JSON."""
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace"))


def shortened(value: Any, longest: int) -> Any:
    """The value with long texts in it cut, and what is still too long written as text that is cut."""
    if isinstance(value, str):
        return value if len(value) <= longest else f"{value[:longest]}... [cut: {len(value):,} characters]"
    if isinstance(value, dict):
        fields = cast("Mapping[str, Any]", value)
        found: Any = {shortened(name, _NAME): _contained(below, longest) for name, below in fields.items()}
        return found
    if isinstance(value, list | tuple):
        return [_contained(below, longest) for below in cast("Sequence[Any]", value)]
    return value


def _contained(value: Any, longest: int) -> Any:
    found: Any = shortened(value, longest)
    if not isinstance(found, dict | list) or size(found) <= 2 * longest:
        return cast("Any", found)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return f"{text[:longest]}... [cut: JSON of {len(text):,} characters]"

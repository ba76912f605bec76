"""What JSON can carry: finite numbers, whole characters, text keys, and no endless nesting."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from typing import Any, NamedTuple, cast

from segment_tools.spec import limits
from segment_tools.spec.names import printable


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
        if depth > limits.ENCODABLE_DEPTH or (keyed and not _are_plain_texts(cast("Any", holder))):
            return None
        for value in cast("Iterable[object]", holder.values() if keyed else holder):
            kind = type(value)
            if kind is str:
                if not (cast("str", value).isascii() or is_encodable_text(cast("str", value))):
                    return None
            elif kind is dict or kind is list:
                stack.append((value, depth + 1))
            elif not _PLAIN.get(kind, _never)(value):
                return None
    return deepest


def _are_plain_texts(values: Iterable[Any]) -> bool:
    try:
        return "".join(values).isascii()
    except TypeError:
        return False


def _is_encodable_integer(value: int) -> bool:
    return -limits.ENCODABLE_INTEGER <= value <= limits.ENCODABLE_INTEGER


def is_encodable_text(value: str) -> bool:
    """Whether UTF-8 can carry the text: half of a surrogate pair it cannot."""
    return value.isascii() or not _HALF.search(value)


def _always(_: object) -> bool:
    return True


def _never(_: object) -> bool:
    return False


_HALF = re.compile("[\ud800-\udfff]")
_SCALARS = frozenset([str, int, float, bool, type(None)])
_PLAIN: dict[type, Callable[[Any], bool]] = {
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


_TOO_DEEP, _TOO_LARGE = "[nested too deeply]", "[number too large]"
_REPLACED = "\ufffd"


def carried(value: object, depth: int = 1) -> Any:
    """The value of a foreign JSON text with a mark for each thing in it that JSON cannot carry on."""
    if isinstance(value, str):
        return value if is_encodable_text(value) else _HALF.sub(_REPLACED, value)
    if isinstance(value, dict | list):
        if depth > limits.ENCODABLE_DEPTH:
            return _TOO_DEEP
        if isinstance(value, dict):
            fields = cast("dict[str, object]", value)
            return {carried(name): carried(below, depth + 1) for name, below in fields.items()}
        return [carried(below, depth + 1) for below in cast("list[object]", value)]
    return _TOO_LARGE if _fault(value) else value


def foreign_integer(text: str) -> int | str:
    """For `json.loads`: the integer, or a mark for one that is longer than Python reads."""
    return int(text) if len(text) <= _MOST_DIGITS else _TOO_LARGE


_MOST_DIGITS = len(str(limits.ENCODABLE_INTEGER)) + 1


class Fault(NamedTuple):
    """What JSON cannot carry: where it stands in the object, what is wrong, how to mend it."""

    path: str
    message: str
    hint: str


def fault_in(root: Mapping[str, Any]) -> Fault | None:
    """The first thing in the object that JSON cannot carry; `{field}` in the texts stands for its place."""
    if plain_depth(root) is not None:
        return None
    faults = (Fault(_shown(leaf.path), *fault) for leaf in leaves(root) if (fault := _fault(leaf.value)))
    return next(faults, None)


def _fault(value: object) -> tuple[str, str] | None:  # noqa: PLR0911 - one return for each kind of value
    """What keeps a single value from being carried by JSON, and the mend."""
    match value:
        case None | bool():
            return None
        case str():
            return None if is_encodable_text(value) else ("{field} holds half a character.", "Pass valid Unicode.")
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


def depth_of(root: Mapping[str, Any]) -> int:
    """How many levels of objects and lists the object has; a flat one has 1."""
    if _SCALARS.issuperset(map(type, root.values())):
        return 1
    return plain_depth(root) or max((leaf.depth for leaf in leaves(root)), default=1)

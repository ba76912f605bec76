"""JSON as strictly as Segment reads it: an object of finite numbers, nested within reason."""

import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn, cast

_MOST_LEVELS = 250
"""Ours: deeper JSON is refused, before Python's own limit makes trouble. Segment documents none."""


def object_of(text: bytes | str) -> dict[str, Any]:
    """The object that the text holds.

    Raises:
        ValueError: it holds none.
    """
    try:
        found: object = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        found = None
    if not isinstance(found, dict) or _too_deep(cast("dict[str, Any]", found)):
        raise ValueError("malformed JSON")
    return cast("dict[str, Any]", found)


def _no_constant(name: str) -> NoReturn:
    """NaN and Infinity are no JSON, although Python reads them."""
    raise ValueError(name)


def _finite(text: str) -> float:
    """The number, unless it is beyond what JSON's readers hold: Python would make it infinite."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _too_deep(found: dict[str, Any]) -> bool:
    level: list[object] = [found]
    for _ in range(_MOST_LEVELS):
        level = [below for holder in level for below in _held(holder) if isinstance(below, dict | list)]
        if not level:
            return False
    return True


def _held(holder: object) -> Iterable[object]:
    return cast("dict[str, object]", holder).values() if isinstance(holder, dict) else cast("list[object]", holder)

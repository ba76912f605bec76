"""JSON as JavaScript's `JSON.stringify` writes what `JSON.parse` read: what Segment signs and delivers."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

_EXACT = 2**53
"""Beyond it a double cannot tell two neighbouring integers apart."""

_POINT, _LEAST_POINT = 21, -6
"""JavaScript writes numbers with an exponent from 1e21 on, and below 1e-6."""

_HALF = re.compile("[\ud800-\udfff]")
_INDEX = re.compile("0|[1-9][0-9]{0,9}")
_MOST_INDEX = 2**32 - 2


def stringify(value: object) -> str:
    """The value as JSON text that UTF-8 can hold: half characters are escapes."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, dict):
        fields = _ordered(cast("dict[str, Any]", value))
        return f"{{{','.join([f'{_text(name)}:{stringify(below)}' for name, below in fields.items()])}}}"
    return f"[{','.join([stringify(below) for below in cast('Sequence[object]', value)])}]"


def _text(text: str) -> str:
    written = json.dumps(text, ensure_ascii=False)
    return written if written.isascii() else _HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", written)


def _ordered(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Names that are an array's indexes go first, by number; so do JavaScript's objects keep them."""
    indexes = sorted(int(name) for name in fields if _INDEX.fullmatch(name) and int(name) <= _MOST_INDEX)
    if not indexes:
        return fields
    first = {str(index): fields[str(index)] for index in indexes}
    return {**first, **{name: value for name, value in fields.items() if name not in first}}


def _number(value: float) -> str:
    """The shortest digits that mean the same double, as ECMAScript's Number::toString places them."""
    if isinstance(value, int) and -_EXACT <= value <= _EXACT:
        return str(value)
    try:
        double = float(value)
    except OverflowError:
        return "null"
    if not math.isfinite(double) or double == 0:
        return "0" if double == 0 else "null"
    sign, digits, exponent = Decimal(repr(double)).normalize().as_tuple()
    return ("-" if sign else "") + _placed("".join(map(str, digits)), len(digits) + int(exponent))


def _placed(digits: str, point: int) -> str:
    """The digits with their decimal point after so many of them."""
    if len(digits) <= point <= _POINT:
        return digits + "0" * (point - len(digits))
    if 0 < point <= _POINT:
        return f"{digits[:point]}.{digits[point:]}"
    if _LEAST_POINT < point <= 0:
        return f"0.{'0' * -point}{digits}"
    mantissa = digits if len(digits) == 1 else f"{digits[0]}.{digits[1:]}"
    return f"{mantissa}e{point - 1:+d}"

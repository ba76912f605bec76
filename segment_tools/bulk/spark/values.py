"""From the values of Spark's rows to those of JSON, exactly or not at all."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, cast

from segment_tools.errors import Problem
from segment_tools.spec.names import printable
from segment_tools.spec.timestamps import iso_utc

PLAIN = frozenset((str, int, bool, type(None)))
"""The types of what is the same in JSON."""

_ELEMENT = "element"
"""What Spark calls what is in an array; `value` what is in a map."""


class Unfit(Exception):
    """A value that JSON cannot carry as it is."""

    def __init__(self, path: str, what: str, hint: str) -> None:
        self.problem = Problem("invalid_value", f"Column {printable(path)!r} {what}.", hint, path)
        super().__init__(what)


def json_value(value: Any, path: str, clocks: frozenset[str] = frozenset()) -> Any:
    """The value as JSON has it; `path` is its column, and `clocks` are the paths of timestamps without a zone.

    Raises:
        Unfit: JSON has no such value, or would change it.
    """
    if value.__class__ in PLAIN:
        return value
    if isinstance(value, tuple | list | dict):
        return _nested(cast("Any", value), path, clocks)
    if isinstance(value, datetime):
        return _moment(value, path, clocks)
    if reader := _READERS.get(value.__class__):
        return reader(value, path)
    kind = type(value).__name__
    if kind == "VariantVal":
        return json_value(value.toPython(), path, clocks)
    raise Unfit(path, f"holds a {kind}, which JSON has not", "Cast it to a string, or select what is in it.")


def _nested(value: Any, path: str, clocks: frozenset[str]) -> Any:
    """Structs and maps as objects, arrays as arrays."""
    if isinstance(value, dict):
        items = cast("Mapping[Any, Any]", value).items()
        return {_name(name, path): json_value(below, f"{path}.value", clocks) for name, below in items}
    if names := getattr(value, "__fields__", None):
        each = zip(cast("list[str]", names), cast("Sequence[Any]", value), strict=True)
        return {name: json_value(below, f"{path}.{name}", clocks) for name, below in each}
    return [json_value(below, f"{path}.{_ELEMENT}", clocks) for below in cast("Sequence[Any]", value)]


def _moment(value: datetime, path: str, clocks: frozenset[str]) -> str:
    """In UTC. Spark hands a timestamp over in the zone of the worker's process, and does not say so in the value."""
    try:
        return iso_utc(value.replace(tzinfo=UTC) if value.tzinfo is None and path in clocks else value)
    except (OverflowError, ValueError, OSError):
        raise Unfit(path, "is a moment outside of the calendar", "Set it to null, or leave the row out.") from None


def _float(value: float, path: str) -> float:
    if math.isfinite(value):
        return value
    what = "is NaN" if math.isnan(value) else "is infinite"
    raise Unfit(path, f"{what}, which JSON has not", "Make it null (nanvl, when), or leave the row out.")


def _decimal(value: Decimal, path: str) -> int | float:
    if not value.is_finite():
        return _float(float(value), path)
    if value == value.to_integral_value():
        return int(value)
    number = float(value)
    if Decimal(repr(number)) == value:
        return number
    hint = "Cast it to a string to keep them, or round it: cast it to double."
    raise Unfit(path, "has more digits than a number of JSON keeps", hint)


def _binary(_: bytes, path: str) -> str:
    raise Unfit(path, "is binary, which JSON has not", "Cast it to a string, or encode it: base64(), hex().")


_READERS: Mapping[type[Any], Callable[[Any, str], Any]] = {
    float: _float,
    Decimal: _decimal,
    date: lambda value, _: value.isoformat(),
    time: lambda value, _: value.isoformat(),
    bytes: _binary,
    bytearray: _binary,
}


def _name(name: Any, path: str) -> str:
    """A map's key as a property's name."""
    if isinstance(name, str):
        return name
    if isinstance(name, int) and not isinstance(name, bool):
        return str(name)
    raise Unfit(path, "has keys that are no text", "Cast the map's keys to strings.")


def clocks_of(schema: Any) -> frozenset[str]:
    """The paths of a DataFrame's schema that are timestamps without a zone, which are taken as UTC."""
    return frozenset(path for field in schema.fields for path in _clocks(field.dataType, field.name))


def _clocks(kind: Any, path: str) -> list[str]:
    match kind.typeName():
        case "timestamp_ntz":
            return [path]
        case "struct":
            return [found for field in kind.fields for found in _clocks(field.dataType, f"{path}.{field.name}")]
        case "array":
            return _clocks(kind.elementType, f"{path}.{_ELEMENT}")
        case "map":
            return _clocks(kind.valueType, f"{path}.value")
        case _:
            return []

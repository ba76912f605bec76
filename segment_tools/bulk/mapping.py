"""From the columns of a table to the fields of a message."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, cast

from segment_tools.errors import InvalidMessage, NotConfigured, Problem
from segment_tools.spec.messages import KINDS, ORDER
from segment_tools.spec.names import nearest, printable
from segment_tools.spec.timestamps import iso_utc

OBJECTS = ("properties", "traits", "context", "integrations")
_TYPES = ("text", "number", "boolean", "json", "epoch")
_FIELDS = tuple(name for name in ORDER if name != "email")
_REST = "*"
_MILLISECONDS = 1e11
"""From when on a number of seconds since 1970 is one of milliseconds."""


@dataclass(frozen=True, slots=True)
class Target:
    """A field of the message by its path, and as what a column's value is read."""

    path: tuple[str, ...]
    type: str = ""

    def __str__(self) -> str:
        return ".".join(self.path)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column becomes which field, and which fields are the same in all messages."""

    columns: tuple[tuple[Target, str], ...] = ()
    constants: tuple[tuple[Target, str], ...] = ()

    @property
    def given(self) -> bool:
        """Whether there is anything to map."""
        return bool(self.columns or self.constants)

    @property
    def typed(self) -> bool:
        """Whether a column or a constant says what a row becomes."""
        return any(target.path == ("type",) for target, _ in (*self.columns, *self.constants))

    def __str__(self) -> str:
        """The same text for the same mapping."""
        both = (self.columns, self.constants)
        return json.dumps([[[str(target), target.type, value] for target, value in each] for each in both])

    def for_columns(self, columns: Sequence[str]) -> "Columns":
        """The mapping for a table with these columns: those that are named as fields map themselves.

        Raises:
            NotConfigured: a column that is mapped is not there.
        """
        if missing := self.missing(columns):
            near = nearest(missing[0], columns)
            hint = f"Did you mean {near!r}?" if near else f"The columns are {', '.join(map(printable, columns[:30]))}."
            raise NotConfigured("--map", f"There is no column {printable(missing[0])!r}.", hint=hint)
        return self._for(columns)

    def for_objects(self, columns: Sequence[str]) -> "Columns":
        """The same for a row whose columns may hold objects, and that need not have all that are mapped.

        What is named as an object of a message is that object.
        """
        objects = [(Target((name,)), name) for name in columns if name in OBJECTS and name not in self._mapped]
        whole = self._for([name for name in columns if (Target((name,)), name) not in objects])
        return Columns((*objects, *whole.columns), whole.constants)

    def missing(self, columns: Iterable[str]) -> list[str]:
        """What is mapped and not among these columns."""
        return sorted(self._mapped.difference(columns))

    @property
    def _mapped(self) -> set[str]:
        return {column for _, column in self.columns if column != _REST}

    def _for(self, columns: Sequence[str]) -> "Columns":
        mapped = self._mapped
        taken = {target.path for target, _ in (*self.columns, *self.constants)}
        own = [
            (target, column)
            for column in columns
            if column not in mapped and (target := _named(column)) and target.path not in taken
        ]
        used = {*mapped, *(column for _, column in own)}
        plain = [(target, column) for target, column in self.columns if column != _REST]
        rest = [
            (Target((*target.path, column), target.type), column)
            for target, wanted in self.columns
            if wanted == _REST
            for column in columns
            if column not in used
        ]
        return Columns((*own, *plain, *rest), self.constants)

    def unused(self, columns: Sequence[str]) -> list[str]:
        """The columns that become nothing."""
        used = {column for _, column in self.columns}
        return [column for column in columns if column not in used]

    def message(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The message's fields that the row stands for; what is empty is left out.

        Raises:
            InvalidMessage: a value is not what the mapping says that it is.
        """
        fields: dict[str, Any] = {}
        for target, text in self.constants:
            _put(fields, target, _read(target, text, ""))
        for target, column in self.columns:
            value = row.get(column)
            if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
                continue
            _put(fields, target, _read(target, value, column))
        return fields


NO_COLUMNS = Columns()

_MOST_SHAPES = 1000


class ByNames:
    """The mapping of rows each of which has its own names, as JSON Lines have."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._known: dict[tuple[str, ...], Columns] = {}
        self._seen: dict[str, None] = {}
        self.unused: list[str] = []
        """What became nothing in any row so far."""

    @property
    def missing(self) -> list[str]:
        """What is mapped, and no row has had so far."""
        return self._columns.missing(self._seen)

    def message(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """See `Columns.message`."""
        names = tuple(row)
        if names not in self._known:
            if len(self._known) >= _MOST_SHAPES:
                self._known.clear()
            self._known[names] = whole = self._columns.for_objects(names)
            self._note(names, whole)
        return self._known[names].message(row)

    def _note(self, names: Sequence[str], whole: Columns) -> None:
        if len(self._seen) < _MOST_SHAPES:
            self._seen.update(dict.fromkeys(names))
            self.unused += [name for name in whole.unused(names) if name not in self.unused]


def mapping_of(maps: Sequence[str] = (), sets: Sequence[str] = (), kind: str | None = None) -> Columns:
    """The mapping that the texts say, each `FIELD=COLUMN` or `FIELD=VALUE`.

    Raises:
        NotConfigured: one says none.
    """
    columns = tuple(_pair(text, "--map", "userId=customer_id") for text in maps)
    constants = [_pair(text, "--set", 'event="Order Completed"') for text in sets]
    if kind is not None:
        constants.insert(0, (Target(("type",)), kind))
    named = [target.path for target, _ in (*columns, *constants)]
    if twice := next(
        (
            path
            for path in named
            if named.count(path) > 1 and not any(value == _REST for target, value in columns if target.path == path)
        ),
        None,
    ):
        raise NotConfigured("--map", f"{'.'.join(twice)} is given twice.", hint="Give it once.")
    return Columns(columns, tuple(constants))


def _pair(text: str, option: str, example: str) -> tuple[Target, str]:
    named, separator, value = text.partition("=")
    path, _, kind = named.strip().partition(":")
    if not (separator and path and value):
        raise NotConfigured(option, f"{option} {printable(text)!r} is not FIELD=…", hint=f"Write {option} {example}.")
    if kind and kind not in _TYPES:
        raise NotConfigured(
            option, f"There is no type {printable(kind)!r}.", hint=f"The types are {', '.join(_TYPES)}."
        )
    target = _named(path)
    if target is None and path in OBJECTS and value == _REST:
        target = Target((path,))
    if target is None:
        first, *below = path.split(".")
        near = nearest(first, _FIELDS)
        meant = ".".join([near, *below]) if near in OBJECTS else near
        hint = f"The fields are {', '.join(_FIELDS)}."
        if meant and near != first:
            hint = f"Did you mean {printable(meant)!r}?"
        if first in OBJECTS:
            hint = f"Write {first}.NAME, or {first}=* for every column that nothing else takes."
        raise NotConfigured(option, f"{printable(path)!r} is not a field of a message.", hint=hint)
    return Target(target.path, kind), value


def _named(name: str) -> Target | None:
    """The field of this name, be it a path below properties, traits, context or integrations."""
    first, *below = name.split(".")
    if first in OBJECTS:
        return Target((first, *below)) if below and all(below) else None
    return Target((first,)) if first in _FIELDS and not below else None


def _put(fields: dict[str, Any], target: Target, value: Any) -> None:
    holder = fields
    for name in target.path[:-1]:
        below = holder.setdefault(name, {})
        if not isinstance(below, dict):
            return
        holder = cast("dict[str, Any]", below)
    name = target.path[-1]
    holder[name] = _joined(value, holder[name]) if name in holder else value


def _joined(value: Any, before: Any) -> Any:
    """An object below what was put into it before; anything else is replaced."""
    if not (isinstance(value, dict) and isinstance(before, dict)):
        return cast("Any", value)
    joined = dict(cast("dict[str, Any]", value))
    for name, below in cast("dict[str, Any]", before).items():
        joined[name] = _joined(joined[name], below) if name in joined else below
    return joined


def _read(target: Target, value: Any, column: str) -> Any:
    try:
        return _READERS[target.type](value)
    except (ArithmeticError, RecursionError, TypeError, ValueError):
        where = f"column {printable(column)!r}" if column else "the value of --set"
        text = f"{target} is no {target.type or 'value that JSON has'}, in {where}."
        raise InvalidMessage(
            [Problem("invalid_value", text, "Mend the cell, or map it as text.", str(target))]
        ) from None


_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?\s*", re.ASCII)


def _number(value: Any) -> Any:
    if isinstance(value, int | float):
        return int(value) if isinstance(value, bool) else _finite(value)
    text = str(value)
    if not _NUMBER.fullmatch(text):
        raise ValueError
    number = _finite(float(text))
    whole = re.fullmatch(r"\s*[+-]?\d{1,300}\s*", text, re.ASCII)
    return int(text) if whole else number


def _finite(value: float) -> float:
    """The number; ValueError for one that JSON has not, which would become null."""
    if not isinstance(value, int) and not math.isfinite(value):
        raise ValueError
    return value


def _boolean(value: Any) -> Any:
    words = {"true": True, "t": True, "yes": True, "1": True, "false": False, "f": False, "no": False, "0": False}
    if isinstance(value, bool):
        return value
    found = words.get(str(value).strip().lower())
    if found is None:
        raise ValueError
    return found


def _json(value: Any) -> Any:
    return _plain(json.loads(value) if isinstance(value, str) else value)


def _text(value: Any) -> str:
    plain = _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain)


def _epoch(value: Any) -> str:
    seconds = _finite(float(value))
    return iso_utc(datetime.fromtimestamp(seconds / 1000 if abs(seconds) >= _MILLISECONDS else seconds, UTC))


def _plain(value: Any) -> Any:
    """The value as JSON has it: moments as ISO 8601, one without a zone as UTC; decimals as numbers."""
    match value:
        case date():
            return _moment(value)
        case Decimal() if value == value.to_integral_value():
            return int(value)
        case dict():
            return {str(name): _plain(below) for name, below in cast("dict[Any, Any]", value).items()}
        case list() | tuple():
            return [_plain(below) for below in cast("list[Any]", value)]
        case float() | Decimal():
            return _finite(float(value))
        case str() | int() | None:
            return cast("Any", value)
        case _:
            raise ValueError


def _moment(value: date) -> str:
    if not isinstance(value, datetime):
        return value.isoformat()
    return iso_utc(value if value.tzinfo else value.replace(tzinfo=UTC))


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "number": _number,
    "boolean": _boolean,
    "json": _json,
    "epoch": _epoch,
    "text": _text,
    "": _plain,
}


def kinds() -> tuple[str, ...]:
    """The types of message."""
    return tuple(KINDS)

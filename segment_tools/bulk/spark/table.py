"""The rows of a partition as messages: by the mapping of `import`, with objects as columns, and ids made of columns."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from typing import Any, cast

import msgspec

from segment_tools.bulk.mapping import Columns, Target, mapping_of
from segment_tools.bulk.rows import Block
from segment_tools.bulk.spark.values import PLAIN, Unfit, clocks_of, json_value
from segment_tools.bulk.tables import Row, blocks_of_table
from segment_tools.errors import NotConfigured, Problem
from segment_tools.spec.names import printable

_MESSAGE_ID = Target(("messageId",))
_MADE = "\0messageId"
"""Stands for a column that no table has."""

_STRANGER = Problem(
    "invalid_row", "The row has other columns than the first of its partition.", "Pass the rows of one DataFrame."
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What rows become."""

    columns: Columns
    ids: tuple[str, ...] = ()
    """The columns whose values tell a row from all others."""
    clocks: frozenset[str] = field(default_factory=frozenset[str])

    @property
    def own_ids(self) -> bool:
        """Whether the messageIds are known before the rows are counted, wherever they stand."""
        return bool(self.ids) or any(target == _MESSAGE_ID for target, _ in self.columns.columns)

    def __str__(self) -> str:
        """The same text for the same shape."""
        return json.dumps([str(self.columns), self.ids, sorted(self.clocks)])

    def for_columns(self, names: Sequence[str]) -> Columns:
        """The mapping for rows of these columns; those that are named as an object of a message are that object.

        Raises:
            NotConfigured: a column that is mapped is missing, or there are two of the name.
        """
        self.columns.for_columns(names)  # for what it raises
        whole = self.columns.for_objects(list(dict.fromkeys(names)))
        if missing := [name for name in self.ids if name not in names]:
            hint = f"The columns are {', '.join(map(printable, names[:30]))}."
            raise NotConfigured("id", f"There is no column {printable(missing[0])!r}.", hint=hint)
        own = [(_MESSAGE_ID, _MADE)] if self.ids else []
        found = whole.columns
        if self.ids and any(target == _MESSAGE_ID for target, _ in found):
            hint = "Leave id= out, or rename the column."
            raise NotConfigured("id", "The rows have messageIds, and id= would make others.", hint=hint)
        if twice := [name for name in {*self.ids, *(name for _, name in found)} if names.count(name) > 1]:
            raise NotConfigured(
                "map", f"Two columns are named {printable(min(twice))!r}.", hint="Rename one, or select one."
            )
        return Columns((*found, *own), whole.constants)


def shape_of(
    maps: Mapping[str, str], constants: Mapping[str, Any], kind: str | None, ids: Sequence[str], schema: Any
) -> Shape:
    """The shape that the arguments of `write_segment` say; with a schema, one that fits it.

    Raises:
        NotConfigured: they say none.
    """
    sets = [
        f"{name}={value}" if isinstance(value, str) else f"{name}:json={json.dumps(value)}"
        for name, value in constants.items()
    ]
    columns = mapping_of([f"{name}={column}" for name, column in maps.items()], sets, kind)
    shape = Shape(columns, tuple(ids), clocks_of(schema) if schema is not None else frozenset())
    if schema is not None:
        shape.for_columns(list(schema.names))
    return shape


class Table:
    """The rows of one partition. `name` and `write_key` are what the ids that are made of columns belong to."""

    def __init__(self, shape: Shape, name: str, write_key: str = "") -> None:
        self._shape = shape
        said = [[str(target), value] for target, value in shape.columns.constants if str(target) in ("type", "event")]
        self._salt = f"{name}\0{write_key}\0{json.dumps(said)}\0".encode(errors="surrogatepass")
        self.unused: tuple[str, ...] = ()
        """The columns that become nothing, once the first row was read."""

    def blocks(self, rows: Iterable[Any]) -> Iterator[Block]:
        """The rows as the JSON of messages, numbered from 1.

        Raises:
            NotConfigured: the mapping does not fit their columns.
        """
        left = iter(rows)
        first = next(left, None)
        if first is None:
            return
        names = _names(first)
        columns = self._shape.for_columns(names)
        self.unused = tuple(name for name in columns.unused(names) if name not in self._shape.ids)
        used = dict.fromkeys((*self._shape.ids, *(name for _, name in columns.columns if name != _MADE)))
        wanted = [(names.index(name), name) for name in used]
        yield from blocks_of_table(self._read(names, wanted, chain([first], left)), columns)

    def _read(self, names: Sequence[str], wanted: Sequence[tuple[int, str]], rows: Iterable[Any]) -> Iterator[Row]:
        ids, clocks = self._shape.ids, self._shape.clocks
        for number, row in enumerate(rows, 1):
            if row.__fields__ is not names and _names(row) != list(names):
                yield number, _STRANGER, ""
                continue
            try:
                values = {
                    name: value if (value := row[at]).__class__ in PLAIN else json_value(value, name, clocks)
                    for at, name in wanted
                }
                if ids:
                    values[_MADE] = self._id(values)
            except Unfit as error:
                yield number, error.problem, _shown(row, wanted, clocks)
            else:
                yield number, values, ""

    def _id(self, values: Mapping[str, Any]) -> str:
        """The messageId that the row's columns make.

        Raises:
            Unfit: one of them is empty.
        """
        own = [values[name] for name in self._shape.ids]
        if None in own:
            name = self._shape.ids[own.index(None)]
            raise Unfit(name, "is null, and the messageId is made of it", "Fill it, or name other columns in id=.")
        text = msgspec.json.encode(own)
        return f"spark-{blake2b(self._salt + text, digest_size=16).hexdigest()}"


def _names(row: Any) -> list[str]:
    """The columns of a row.

    Raises:
        NotConfigured: it is no row of a DataFrame.
    """
    names = getattr(row, "__fields__", None)
    if names is None:
        text = f"The rows are of the type {type(row).__name__}, not those of a DataFrame."
        raise NotConfigured("rows", text, hint="Make a DataFrame of them: rdd.toDF().")
    return cast("list[str]", names)


def _shown(row: Any, wanted: Sequence[tuple[int, str]], clocks: frozenset[str]) -> str:
    """A row that could not be read, as far as JSON can show it."""
    found: dict[str, Any] = {}
    for at, name in wanted:
        try:
            found[name] = json_value(row[at], name, clocks)
        except Unfit:
            found[name] = str(row[at])
    return json.dumps(found, ensure_ascii=False)

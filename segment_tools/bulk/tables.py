"""Tables, CSV and Parquet: their rows as dictionaries, a few at a time."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from importlib import import_module
from itertools import chain
from typing import Any, BinaryIO, cast

import msgspec

from segment_tools.bulk.damage import Damaged
from segment_tools.bulk.lines import Stream, blocks_of_lines
from segment_tools.bulk.mapping import ByNames, Columns
from segment_tools.bulk.rows import MOST_ROW_BYTES, Block, read_row, too_long
from segment_tools.errors import InvalidMessage, NotConfigured, Problem

_AT_ONCE = 500
"""Rows in a block."""

_BLOCK_BYTES = 4 * MOST_ROW_BYTES
"""Ours: a block that has so much is not filled further."""

_DELIMITERS = ",;\t|"

Row = tuple[int, Mapping[str, Any] | Problem, str]
"""Its number, its values by column or what keeps it from being read, and in that case its text."""


@dataclass(slots=True)
class _Filling:
    """A block that is being filled."""

    given: list[Row] = field(default_factory=list[Row])
    texts: list[bytes] = field(default_factory=list[bytes])
    unread: dict[int, Problem] = field(default_factory=dict[int, Problem])
    size: int = 0

    @property
    def full(self) -> bool:
        return len(self.texts) >= _AT_ONCE or self.size >= _BLOCK_BYTES

    def add(self, given: Row, text: bytes, problem: Problem | None) -> None:
        if problem is None and len(text) > MOST_ROW_BYTES:
            problem = too_long()
        if problem:
            self.unread[len(self.texts)] = problem
            text = text[: MOST_ROW_BYTES + 1]
        self.given.append(given)
        self.texts.append(text)
        self.size += len(text)

    def block(self) -> Iterator[Block]:
        if self.texts:
            numbers = [number for number, _, _ in self.given]
            yield Block(numbers[0], self.texts, numbers, self.unread, partial(_original, self.given))


def blocks_of_table(rows: Iterable[Row], columns: Columns | ByNames) -> Iterator[Block]:
    """The rows as the JSON of the messages that they stand for; those before a place that ends it all, too."""
    filling = _Filling()
    try:
        for number, values, text in rows:
            filling.add((number, values, text), *_mapped(values, text, columns))
            if filling.full:
                yield from filling.block()
                filling = _Filling()
    except NotConfigured:
        yield from filling.block()
        raise
    yield from filling.block()


def _original(rows: Sequence[Row], at: int) -> bytes:
    _, values, text = rows[at]
    return text.encode(errors="replace") if isinstance(values, Problem) else _shown(values)


def _mapped(values: Mapping[str, Any] | Problem, text: str, columns: Columns | ByNames) -> tuple[bytes, Problem | None]:
    if isinstance(values, Problem):
        return text.encode(errors="replace"), values
    try:
        return _encode(columns.message(values)), None
    except InvalidMessage as error:
        return _shown(values), error.problems[0]


def blocks_of_rows(rows: Iterable[Mapping[str, Any]], columns: Columns, first: int = 1) -> Iterator[Block]:
    """The rows of any source, such as a partition of an engine, numbered from `first`; shown as their messages."""
    numbered = ((number, row, "") for number, row in enumerate(rows, first))
    return (replace(block, originals=None) for block in blocks_of_table(numbered, columns))


def _encode(message: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(message)
    except (UnicodeEncodeError, msgspec.MsgspecError, RecursionError, TypeError, OverflowError):
        raise InvalidMessage.of("invalid_value", "The row holds what JSON cannot carry.", "Pass UTF-8 text.") from None


def _shown(values: Mapping[str, Any]) -> bytes:
    """A row that could not be mapped, as far as JSON can show it."""
    texts = {
        _whole(name): value if isinstance(value, int | float | None) else _whole(str(value))
        for name, value in values.items()
    }
    return msgspec.json.encode(texts)


def _whole(text: str) -> str:
    """The text, with a question mark for what is no character of UTF-8."""
    return text.encode(errors="replace").decode()


def rows_of_lines(stream: Stream) -> Iterator[Row]:
    """The rows of JSON Lines, by the names of their fields."""
    for block in blocks_of_lines(stream):
        for at, row in enumerate(block.rows):
            if not row or row.isspace():
                continue
            try:
                found: Mapping[str, Any] | Problem = block.unread.get(at) or read_row(row)
            except InvalidMessage as error:
                found = error.problems[0]
            yield block.number(at), found, row.decode(errors="replace")


class CsvTable:
    """A CSV text with a header; the delimiter is the one that its header has."""

    def __init__(self, stream: Stream) -> None:
        """Raises NotConfigured where there is no header, or it names a column twice."""
        self._lines = _Lines(stream)
        try:
            header = next(self._lines, "")
            self._delimiter = max(_DELIMITERS, key=header.count)
            cells = next(self._reader(chain([header], self._lines)), list[str]())
        except csv.Error:
            raise _no_header("The table's header is not CSV, or is too long.") from None
        self.columns = [name.strip() for name in cells]
        if not any(self.columns):
            raise _no_header("The table has no header.")
        if len(set(self.columns)) < len(self.columns):
            raise NotConfigured("FILE", "The table's header names a column twice.", hint="Give each its own name.")

    def _reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """Strict: a quote that is not closed is no cell that holds the rows after it."""
        return csv.reader(lines, delimiter=self._delimiter, strict=True)

    def rows(self) -> Iterator[Row]:
        """Each row, by the number of the line that it begins in.

        Raises:
            Damaged: a row does not end.
        """
        lines = self._lines
        reader = self._reader(lines)
        while True:
            number = lines.begin()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                text = lines.text
                self._skip(number, text)
                yield number, _unread(text, number, lines.number), text
                reader = self._reader(lines)
                continue
            if len(cells) == len(self.columns):
                yield number, dict(zip(self.columns, cells, strict=True)), ""
            elif not lines.text.isspace():
                yield number, self._uneven(cells), lines.text.rstrip("\r\n")

    def _skip(self, number: int, text: str) -> None:
        """Read on to the end of the row that began so: what is within its quotes are not rows."""
        place, ended, left = _place_after(text, self._delimiter, _Place.CELL), _ends_line(text), _MOST_SKIPPED
        while (place is _Place.QUOTED or not ended) and (piece := self._lines.piece()):
            place, ended, left = _place_after(piece, self._delimiter, place), _ends_line(piece), left - len(piece)
            if left < 0:
                found = f"The row that begins in line {number:,} does not end: what is before it was read."
                raise Damaged(found, hint="Close the quote that is open there, and import with --again.")

    def _uneven(self, cells: Sequence[str]) -> Problem:
        text = f"The row has {len(cells)} cells, the header {len(self.columns)}."
        return Problem("invalid_row", text, "Put cells that hold the delimiter or a line's end in double quotes.")


_MOST_SKIPPED = 16 * MOST_ROW_BYTES
"""Ours: where a row that cannot be read goes on for so long, nothing after it can be told from it."""


def _no_header(text: str) -> NotConfigured:
    return NotConfigured("FILE", text, hint="Write the columns' names into its first line.")


def _unread(text: str, number: int, last: int) -> Problem:
    """What keeps the row of these lines from being read."""
    row = "The row" if last <= number else f"The row of the lines {number:,} to {last:,}"
    if len(text) > (most := csv.field_size_limit()):
        long = f"{row} is too long: a cell may have {most:,} characters, a row {MOST_ROW_BYTES:,}."
        return Problem("too_large", long, "Shorten it, or close its quote, if one is not closed.")
    return Problem("invalid_row", f"{row} is not CSV.", "Look for a quote that is not closed or not doubled.")


class _Place(Enum):
    """Where in a row of CSV a text ends."""

    CELL = "before a cell"
    PLAIN = "in a cell without quotes"
    QUOTED = "in a cell's quotes"
    QUOTE = "after a quote in them"


def _place_after(text: str, delimiter: str, place: _Place) -> _Place:
    at = 0
    while at < len(text):
        if place is _Place.CELL:
            place = _Place.QUOTED if text[at] == '"' else _Place.PLAIN
            at += place is _Place.QUOTED
        elif place is _Place.QUOTE:
            place = {'"': _Place.QUOTED, delimiter: _Place.CELL}.get(text[at], _Place.PLAIN)
            at += 1
        else:
            found = text.find('"' if place is _Place.QUOTED else delimiter, at)
            if found < 0:
                return place
            place = _Place.QUOTE if place is _Place.QUOTED else _Place.CELL
            at = found + 1
    return place


def _ends_line(text: str) -> bool:
    return text.endswith(("\n", "\r"))


class _Lines:
    """The lines of a stream as text, numbered; a row of them is not longer than a row may be."""

    def __init__(self, stream: Stream) -> None:
        raw = io.BufferedReader(_Raw(stream))
        self._text = io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="")
        self._taken: list[str] = []
        self._size = 0
        self._last = "\n"
        self.number = 0
        """Of the line that was read last."""

    def __iter__(self) -> Iterator[str]:
        return self

    def begin(self) -> int:
        """Begin a row; the number of its first line."""
        self._taken.clear()
        self._size = 0
        return self.number + 1

    @property
    def text(self) -> str:
        """The row's lines so far."""
        return "".join(self._taken)

    def __next__(self) -> str:
        """The next line of the row; csv.Error where the row gets too long."""
        piece = self.piece()
        if not piece:
            raise StopIteration
        self._taken.append(piece)
        self._size += len(piece)
        if self._size > MOST_ROW_BYTES:
            raise csv.Error
        return piece

    def piece(self) -> str:
        """The next line, or of one that is too long the next piece; empty at the end."""
        piece = self._text.readline(MOST_ROW_BYTES + 1)
        if piece == "\n" and self._last == "\r":  # parted by the longest that is read at once
            piece = self._text.readline(MOST_ROW_BYTES + 1)
        self.number += bool(piece) and _ends_line(self._last)
        self._last = piece[-1:]
        return piece


class _Raw(io.RawIOBase):
    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class ParquetTable:
    """A Parquet file, read a row group at a time."""

    def __init__(self, file: BinaryIO) -> None:
        """Raises NotConfigured where pyarrow is not installed, or the file is none."""
        try:
            arrow, parquet = cast("Any", import_module("pyarrow")), cast("Any", import_module("pyarrow.parquet"))
        except ImportError:
            hint = "pip install 'segment-tools[parquet]'"
            raise NotConfigured("FILE", "The package that reads Parquet is not installed.", hint=hint) from None
        self._arrow, self._number = arrow, 0
        self._errors = (arrow.ArrowException, OSError)
        self._unreadable = (*self._errors, ArithmeticError, LookupError, ValueError)
        try:
            texts = _texts(parquet.ParquetFile(file, pre_buffer=False).schema)
            self._file: Any = parquet.ParquetFile(
                file, pre_buffer=False, coerce_int96_timestamp_unit="us", read_dictionary=texts
            )
            self.columns: list[str] = list(self._file.schema_arrow.names)
        except (*self._errors, UnicodeDecodeError):
            raise NotConfigured("FILE", "The file is not Parquet.", hint="Name its format with --format.") from None
        if len(set(self.columns)) < len(self.columns):
            raise NotConfigured("FILE", "The table names a column twice.", hint="Give each its own name.")

    def rows(self) -> Iterator[Row]:
        """Each row, numbered from 1; a value that cannot be read is UNREADABLE.

        Raises:
            Damaged: the file is.
        """
        for batch in self._batches():
            for row in self._read(batch):
                self._number += 1
                yield self._number, row, ""

    @property
    def share(self) -> float:
        """Which share of all rows was read."""
        return self._number / max(1, self._file.metadata.num_rows)

    def _batches(self) -> Iterator[Any]:
        try:
            yield from self._file.iter_batches(batch_size=_AT_ONCE)
        except self._errors:
            text = "The Parquet file is damaged: what is before that place was read."
            hint = "Get the whole file, and import it with --again: rows that are the same keep their messageIds."
            raise Damaged(text, hint=hint) from None

    def _read(self, batch: Any) -> Iterator[dict[str, Any]]:
        columns = [self._values(self._exact(column)) for column in batch.columns]
        for values in zip(*columns, strict=True):
            yield dict(zip(self.columns, values, strict=True))

    def _values(self, column: Any) -> Iterable[Any]:
        """The column's values: all at once where they are known to be small or shared, else one after the other."""
        types = self._arrow.types
        texts = types.is_dictionary(column.type)
        if types.is_nested(column.type) or (texts and len(column.dictionary) > _AT_ONCE):
            return map(self._value, column)
        try:
            if not texts:
                return column.to_pylist()
            known = column.dictionary.to_pylist()
            return [None if at is None else known[at] for at in column.indices.to_pylist()]
        except self._unreadable:
            return map(self._value, column)

    def _exact(self, column: Any) -> Any:
        """Moments in microseconds and in UTC, as Python and JSON have them, whatever the file has them in."""
        types = self._arrow.types
        if not types.is_timestamp(column.type):
            return column
        wanted = self._arrow.timestamp("us", "UTC" if column.type.tz else None)
        try:
            return column.cast(wanted, safe=False)
        except self._errors:
            return column

    def _value(self, cell: Any) -> Any:
        try:
            return cell.as_py()
        except self._unreadable:
            return UNREADABLE


def _texts(schema: Any) -> list[str]:
    """The columns of text: read as dictionaries, one that a file has once for all its rows is in memory once."""
    columns = [schema.column(at) for at in range(len(schema))]
    return [each.path for each in columns if each.physical_type == "BYTE_ARRAY" and each.logical_type.type in _TEXTS]


_TEXTS = ("STRING", "JSON", "ENUM", "NONE")


class _Unreadable:
    """A value that Python has no like of, or that is damaged: no reader of a mapping takes it."""

    def __str__(self) -> str:
        return "(cannot be read)"


UNREADABLE = _Unreadable()

"""Tables, CSV and Parquet: their rows as dictionaries, a few at a time."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import islice
from typing import Any, BinaryIO, cast

import msgspec

from segment_tools.bulk.lines import Stream, blocks_of_lines
from segment_tools.bulk.mapping import Columns
from segment_tools.bulk.rows import MOST_ROW_BYTES, Block, read_row, too_long
from segment_tools.errors import InvalidMessage, NotConfigured, Problem

_AT_ONCE = 500
"""Rows in a block."""

_DELIMITERS = ",;\t|"

Row = tuple[int, Mapping[str, Any] | Problem, str]
"""Its number, its values by column or what keeps it from being read, and in that case its text."""


def blocks_of_table(rows: Iterable[Row], columns: Columns) -> Iterator[Block]:
    """The rows as the JSON of the messages that they stand for."""
    left = iter(rows)
    while taken := list(islice(left, _AT_ONCE)):
        texts: list[bytes] = []
        unread: dict[int, Problem] = {}
        for at, (_, values, text) in enumerate(taken):
            if isinstance(values, Problem):
                unread[at] = values
                texts.append(text.encode(errors="replace"))
                continue
            try:
                texts.append(_encode(columns.message(values)))
            except InvalidMessage as error:
                unread[at] = error.problems[0]
                texts.append(_shown(values))
        numbers = [number for number, _, _ in taken]
        yield Block(taken[0][0], texts, numbers, unread, partial(_original, taken))


def _original(rows: Sequence[Row], at: int) -> bytes:
    _, values, text = rows[at]
    return text.encode(errors="replace") if isinstance(values, Problem) else _shown(values)


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
        header = next(self._lines, "")
        self._delimiter = max(_DELIMITERS, key=header.count)
        self.columns = [name.strip() for name in next(csv.reader([header], delimiter=self._delimiter), list[str]())]
        if not any(self.columns):
            raise NotConfigured(
                "FILE", "The table has no header.", hint="Write the columns' names into its first line."
            )
        if len(set(self.columns)) < len(self.columns):
            raise NotConfigured("FILE", "The table's header names a column twice.", hint="Give each its own name.")

    def rows(self) -> Iterator[Row]:
        """Each row, by the number of the line that it begins in."""
        reader = csv.reader(self._lines, delimiter=self._delimiter)
        while True:
            number = self._lines.number + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                yield number, too_long() if self._lines.cut else _UNREAD, ""
                reader = csv.reader(self._lines, delimiter=self._delimiter)
                continue
            if cells:
                yield number, self._named(cells), self._delimiter.join(cells)

    def _named(self, cells: Sequence[str]) -> Mapping[str, Any] | Problem:
        if len(cells) == len(self.columns):
            return dict(zip(self.columns, cells, strict=True))
        text = f"The row has {len(cells)} cells, the header {len(self.columns)}."
        return Problem("invalid_row", text, "Put cells that hold the delimiter or a line's end in double quotes.")


_UNREAD = Problem("invalid_row", "The row is not CSV.", "Look for a quote that is not closed, or a byte 0.")


class _Lines:
    """The lines of a stream as text, numbered, none longer than a row may be."""

    def __init__(self, stream: Stream) -> None:
        raw = io.BufferedReader(_Raw(stream))
        self._text = io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="")
        self.number = 0
        self.cut = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MOST_ROW_BYTES)
        if not line:
            raise StopIteration
        self.number += 1
        self.cut = len(line) >= MOST_ROW_BYTES
        if self.cut:
            while (more := self._text.readline(MOST_ROW_BYTES)) and not more.endswith("\n"):
                pass
            raise csv.Error
        return line


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
        try:
            self._file: Any = parquet.ParquetFile(file, pre_buffer=False)
        except (arrow.ArrowException, OSError):
            raise NotConfigured("FILE", "The file is not Parquet.", hint="Name its format with --format.") from None
        self.columns: list[str] = list(self._file.schema_arrow.names)

    def rows(self) -> Iterator[Row]:
        """Each row, numbered from 1."""
        number = 0
        for batch in self._file.iter_batches(batch_size=_AT_ONCE):
            for row in batch.to_pylist():
                number += 1
                yield number, row, ""

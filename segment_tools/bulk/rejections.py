"""The file of refused rows: for each its number, the reason, and the row itself, to be mended and imported again."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydantic_core import to_json

from segment_tools.bulk.rows import Rejection
from segment_tools.errors import NotConfigured, Problem

_MOST_QUOTED_BYTES = 128 * 1024
"""Ours: of a longer row only the beginning is quoted. A message may have 32 KB, and white space beside."""


class RejectedRows:
    """Writes the file, which is made with the first row; only its owner may read it, since rows are people's data.

    `kept` is how many bytes of an earlier run stay: what an import wrote after its last checkpoint it writes again.
    """

    def __init__(self, path: Path, kept: int = 0) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._kept = kept
        if kept:
            self._opened()
        else:
            self._path_gone()

    def add(self, rejections: Iterable[Rejection]) -> int:
        """Write the rows; how long the file is then.

        Raises:
            NotConfigured: it cannot be written.
        """
        text = b"".join(to_json(as_json(each)) + b"\n" for each in rejections)
        try:
            file = self._file or self._opened()
            file.write(text)
            file.flush()
            return file.tell()
        except OSError as error:
            raise self._unwritten(error) from None

    def _opened(self) -> BinaryIO:
        try:
            number = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
            file = self._file = os.fdopen(number, "r+b")
            file.truncate(self._kept)
            file.seek(0, os.SEEK_END)
        except OSError as error:
            raise self._unwritten(error) from None
        return file

    def _path_gone(self) -> None:
        """An import that begins anew has no rejections yet."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritten(error) from None

    def _unwritten(self, error: OSError) -> NotConfigured:
        text = f"The rejected rows cannot be written to {self.path} ({error.strerror})."
        return NotConfigured("--rejected", text, hint="Name another file in --rejected.")

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()


def as_json(rejection: Rejection) -> dict[str, Any]:
    """The refused row as a line of the file has it."""
    first, *more = rejection.problems
    found: dict[str, Any] = {"line": rejection.number, "reason": reason(first)}
    if more:
        found["more"] = [reason(each) for each in more]
    if len(rejection.row) > _MOST_QUOTED_BYTES:
        found["rowIsCut"] = True
    return {**found, "row": _row(rejection.row)}


def reason(problem: Problem) -> dict[str, str]:
    """Why, by a stable code, in words, and how to mend it."""
    named = {"code": problem.code, "field": problem.field, "message": problem.message, "hint": problem.hint}
    return {name: value for name, value in named.items() if value}


def _row(row: bytes) -> Any:
    """The row as JSON where it is an object of JSON, else as text; of a long one the beginning."""
    text = row[:_MOST_QUOTED_BYTES].decode("utf-8", "replace").rstrip("\r")
    try:
        found: object = json.loads(text, parse_constant=_refused)
        to_json(found)
    except (ValueError, RecursionError):
        return text
    return cast("Any", found) if isinstance(found, dict) else text


def _refused(_: str) -> Any:
    raise ValueError

"""The file of refused rows: for each its number, the reason, and the row itself, to be mended and imported again."""

import json
import os
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydantic_core import to_json

from segment_tools.bulk.rows import Rejection
from segment_tools.errors import NotConfigured, Problem

if sys.platform != "win32":
    import fcntl

_OURS = {"line", "reason", "row"}
_MOST_QUOTED_BYTES = 128 * 1024
"""Ours: of a longer row only the beginning is quoted. A message may have 32 KB, and white space beside."""

REJECTED = ".rejected.jsonl"
LEFT = (".checkpoint", REJECTED)
"""How the names of files end that an import leaves."""

MEND_ROWS = (
    "Mend the rows in the file that was imported, and import that with --again: rows that are the same keep their "
    "messageIds."
)


class RejectedRows:
    """Writes the file, which is made with the first row; only its owner may read it, since rows are people's data.

    `kept` is how many bytes of an earlier run stay: what an import wrote after its last checkpoint it writes again.
    Several imports may name the same place: each line begins with the fields of `whose`, and only lines that do so are
    ever taken out. Nobody else writes there meanwhile.

    Raises:
        NotConfigured: it cannot be written, or is a file of something else.
    """

    def __init__(self, path: Path, kept: int = 0, whose: dict[str, Any] | None = None) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._kept, self._whose = kept, whose or {}
        if kept or os.path.lexists(path):
            self._opened()

    def add(self, rejections: Iterable[Rejection]) -> int:
        """Write the rows; how long the file is then.

        Raises:
            NotConfigured: it cannot be written.
        """
        text = b"".join(to_json({**self._whose, **as_json(each)}) + b"\n" for each in rejections)
        try:
            file = self._file or self._opened()
            file.write(text)
            file.flush()
            return file.tell()
        except OSError as error:
            raise self._unwritten(error.strerror) from None

    def _opened(self) -> BinaryIO:
        quiet = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            number = os.open(self.path, os.O_RDWR | os.O_CREAT | quiet, 0o600)
            if not stat.S_ISREG(os.fstat(number).st_mode):
                os.close(number)
                raise self._unwritten("it is no file")
            file = self._file = os.fdopen(number, "r+b")
            self._locked(file)
            self._recognised(file)
            _taken_out(file, to_json(self._whose)[:-1], self._kept)
        except OSError as error:
            self._let_go()
            raise self._unwritten(error.strerror) from None
        except NotConfigured:
            self._let_go()
            raise
        return file

    def _locked(self, file: BinaryIO) -> None:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._unwritten("another import writes there") from None

    def _recognised(self, file: BinaryIO) -> None:
        """Return if the file is empty, or one of rejected rows."""
        line = file.readline()
        if line and not _is_ours(line) and not (self._whose and line.startswith(to_json(self._whose)[:-1])):
            raise self._unwritten("it is a file of something else, and was left as it is")

    def _unwritten(self, why: str | None) -> NotConfigured:
        text = f"The rejected rows cannot be written to {self.path.name} ({why})."
        return NotConfigured("--rejected", text, hint="Name another file in --rejected.")

    def close(self) -> None:
        """Close the file, which is not left there empty."""
        if self._file:
            with suppress(OSError):
                if not os.fstat(self._file.fileno()).st_size:
                    self.path.unlink()
        self._let_go()

    def _let_go(self) -> None:
        if self._file:
            self._file.close()
            self._file = None


def _taken_out(file: BinaryIO, own: bytes, start: int) -> None:
    """Leave only lines of others after this place, and stand at the end."""
    end = read = file.seek(min(start, file.seek(0, os.SEEK_END)))
    while line := file.readline():
        read += len(line)
        if line.startswith(own):
            continue
        if end + len(line) < read:
            file.seek(end)
            file.write(line)
            file.seek(read)
        end += len(line)
    file.truncate(end)
    file.seek(0, os.SEEK_END)


def _is_ours(line: bytes) -> bool:
    try:
        found: object = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and set(cast("dict[str, Any]", found)) >= _OURS


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

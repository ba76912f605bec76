"""Whether a SQLite file that is open is still the one that its name leads to."""

import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_BESIDE = ("-wal", "-shm")
"""What stands beside the database while it is open: its log, and what those who have it open share.

Source: https://www.sqlite.org/tempfiles.html.
"""

_Identity = tuple[int, int] | None
"""The numbers of the device and the file; None where there is none. An open file's are given to no other."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A connection's files as they were when it was opened.

    SQLite goes on working on them when they are deleted, replaced or emptied: what it says is on disk is lost then.
    """

    path: Path
    identity: _Identity
    beside: tuple[tuple[Path, _Identity], ...]

    @classmethod
    def of(cls, path: str) -> "OpenFile":
        """The file at the path, which a connection was just opened to."""
        real = Path(path).resolve()
        names = [real.with_name(real.name + each) for each in _BESIDE]
        return cls(real, _identity(real), tuple((name, _identity(name)) for name in names))

    def is_there(self) -> bool:
        """Whether all of it stands where it did, and the database is not empty."""
        stands = _identity(self.path) == self.identity and all(_identity(name) == each for name, each in self.beside)
        return stands and not self._is_empty()

    def let_go(self, database: sqlite3.Connection) -> None:
        """Close the connection to this file, once that is no longer there.

        One that was only moved, or lost its log, is made whole. A log that stayed would be read with whatever database
        has the name next, and closing would write it into an emptied one, of which it may hold a part: both go.
        """
        ours = _identity(self.path) == self.identity
        emptied = ours and self._is_empty()
        if emptied:
            _remove(self.path)
        else:
            with suppress(sqlite3.Error):
                database.execute("PRAGMA wal_checkpoint")
        if emptied or not ours:
            for name, identity in self.beside:
                if identity and _identity(name) == identity:
                    _remove(name)
        with suppress(sqlite3.Error):
            database.close()

    def _is_empty(self) -> bool:
        try:
            return self.path.stat().st_size == 0
        except OSError:
            return False


def _identity(path: Path) -> _Identity:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()

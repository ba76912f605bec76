"""How far imports have come, in a SQLite file: what was acknowledged is not sent again, whatever ends the process."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec

from segment_tools.bulk.counts import Counts
from segment_tools.bulk.lanes import LANES
from segment_tools.errors import NotConfigured
from segment_tools.storage.kind import Kind
from segment_tools.storage.sqlite_file import Schema, WrongFile, cure, opened

_KIND = Kind("checkpoint", "--checkpoint")
_SCHEMA = Schema(0x53434B50, [["CREATE TABLE imports (name TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID"]])


@dataclass(slots=True)
class State:
    """How far one import has come."""

    began: str
    """When it did: the time of rows that have none."""
    read: int = 0
    """All rows up to this number were judged, and those refused are in the file of rejections."""
    lanes: list[int] = field(default_factory=lambda: [0] * LANES)
    """Of each lane, all rows up to this number are done with."""
    counts: Counts = field(default_factory=Counts)
    rejected_bytes: int = 0
    """How long the file of rejections was then."""
    finished: bool = False

    @property
    def done(self) -> int:
        """All rows up to this number are done with."""
        return min(self.lanes)

    def as_dict(self) -> dict[str, Any]:
        """As JSON, for a checkpoint."""
        return {**{name: getattr(self, name) for name in _FIELDS}, "counts": self.counts.as_dict()}

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """What `as_dict` was made of."""
        return cls(**{name: given[name] for name in _FIELDS}, counts=Counts.of(given["counts"]))


_FIELDS = ("began", "read", "lanes", "rejected_bytes", "finished")


class Checkpoint:
    """A file of checkpoints, which no other process can use meanwhile.

    Raises:
        NotConfigured: the file cannot be one, or another process has it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            _check_place(path)
            self._database = opened(str(path), _KIND, _SCHEMA, patience=0)  # calls of others would wait, too
            # Rows sent again after the power failed have the same ids: the disk need not be waited for.
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("CREATE TABLE IF NOT EXISTS held (at INTEGER)")
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("DELETE FROM held")
            self._database.execute("COMMIT")
        except WrongFile as error:
            raise NotConfigured("--checkpoint", str(error)) from None
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from None

    def known(self, name: str) -> tuple[dict[str, Any], State] | None:
        """What an import was of, and how far it has come; None where there was none."""
        try:
            row = self._database.execute("SELECT state FROM imports WHERE name = ?", (name,)).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        if row is None:
            return None
        found = json.loads(row[0])
        return found["of"], State.of(found["state"])

    def keep(self, name: str, of: Mapping[str, Any], state: State) -> None:
        """Note how far the import has come; it is known after the process was killed."""
        text = msgspec.json.encode({"of": of, "state": state.as_dict()}).decode()
        try:
            self._database.execute("INSERT OR REPLACE INTO imports VALUES (?, ?)", (name, text))
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def close(self) -> None:
        """Let others have the file."""
        self._database.close()

    def _unusable(self, error: sqlite3.Error | OSError) -> NotConfigured:
        busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        hint = "Wait until it has ended." if busy else cure(error, _KIND) or "Name another place in --checkpoint."
        what = "is used by another import" if busy else f"cannot be written ({type(error).__name__})"
        return NotConfigured("--checkpoint", f"The checkpoint {self._path.name} {what}.", hint=hint)


def _check_place(path: Path) -> None:
    """Return if the path is no link: who made that may want the file elsewhere."""
    if path.is_symlink():
        raise NotConfigured("--checkpoint", f"The checkpoint {path.name} is a link.", hint="Name the file itself.")

"""A SQLite file: how it is opened, made and recognised, and what its troubles mean."""

import errno
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segment_tools.storage.kind import Kind

MEMORY = ":memory:"
"""In place of a file: nothing is kept."""

_BUSY_SECONDS = 5.0
"""How long SQLite waits for another process's lock."""

_AGAIN_SECONDS = 0.05
"""Between two tries to open the file."""

_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL)
"""What SQLite says for a moment where another process makes the file, or is the last to close it."""

_READ_ONLY = "It may only be read: let this process write to it and its folder, or name another place in {setting}."
_DAMAGED = "It is damaged, and was left as it is: put it aside to save it, or name another place in {setting}."
_LOCKED = "Another process keeps it locked: end that one, or try again."
_CURES = {
    sqlite3.SQLITE_FULL: "Its disk is full: make room there, and try again.",
    sqlite3.SQLITE_IOERR: "Its disk failed: look whether that is full, or gone, and try again.",
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: "It cannot be opened: see that its folder is there, or name another place in {setting}.",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
}


class WrongFile(ValueError):
    """The file holds something else, which is left as it is."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What a kind of file holds."""

    application: int
    """Ours, in the file's header, so that no other database is taken for this kind."""
    migrations: Sequence[Sequence[str]]
    """Each step brings a file one version further; the version is SQLite's own `user_version`."""


def opened(path: str, kind: Kind, schema: Schema, patience: float = _BUSY_SECONDS) -> sqlite3.Connection:
    """A connection to the file, which is made where there is none; for this thread, without transactions of its own.

    Another process's lock is waited for as long as there is patience.

    Raises:
        WrongFile: the file is none of this kind, or one of a later version.
        OSError, sqlite3.Error: it cannot be read or written just now.
    """
    if path != MEMORY:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(path).touch(mode=0o600)  # messages are people's data
    end = time.monotonic() + patience
    while True:
        try:
            return _connected(path, kind, schema, patience)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _PASSING or time.monotonic() > end:
                raise
        time.sleep(_AGAIN_SECONDS)


def cure(error: sqlite3.Error | OSError, kind: Kind) -> str:
    """What the error of a file means, and what helps; empty where that is not known."""
    return _CURES.get(_code(error), "").format(setting=kind.setting)


def _code(error: sqlite3.Error | OSError) -> int:
    """SQLite's code for it, without the details; what Python raises by itself has none."""
    if not isinstance(error, OSError):
        return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)) & 0xFF
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return sqlite3.SQLITE_FULL
    return sqlite3.SQLITE_READONLY if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else sqlite3.SQLITE_OK


def _connected(path: str, kind: Kind, schema: Schema, patience: float) -> sqlite3.Connection:
    database = sqlite3.connect(path, patience, isolation_level=None)
    try:
        _prepare(database, kind, schema)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, kind: Kind, schema: Schema) -> None:
    try:
        database.execute("BEGIN")  # one look: another process may be making the file meanwhile
        with database:
            _recognise(database, kind, schema)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            text = f"The {kind.name}'s file is no SQLite database. Name another in {kind.setting}."
            raise WrongFile(text) from None
        raise
    database.execute("PRAGMA journal_mode = WAL")  # others read beside the writer
    database.execute("PRAGMA synchronous = FULL")  # else what was answered is lost with the power
    _migrate(database, kind, schema)


def _recognise(database: sqlite3.Connection, kind: Kind, schema: Schema) -> int:
    """The file's version, 0 for an empty file."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != schema.application and (application or version or tables):
        raise WrongFile(f"The {kind.name}'s file is a database of something else. Name another in {kind.setting}.")
    if version > len(schema.migrations):
        raise WrongFile(f"The {kind.name}'s file was made by a later version of segment-tools. Update this one.")
    return int(version)


def _migrate(database: sqlite3.Connection, kind: Kind, schema: Schema) -> None:
    """Bring the file up to date, one process at a time: another may have made the same file just now."""
    database.execute("BEGIN IMMEDIATE")
    with database:
        version = _recognise(database, kind, schema)
        if not version:
            database.execute(f"PRAGMA application_id = {schema.application}")
        for number, step in enumerate(schema.migrations[version:], start=version + 1):
            for statement in step:
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {number}")

"""An inbox's SQLite file: how it is opened, made and recognised."""

import sqlite3
import time
from pathlib import Path

MEMORY = ":memory:"
"""In place of a file: nothing is kept."""

_APPLICATION = 0x5E91B0
"""Ours, in the file's header, so that no other database is taken for an inbox."""

_BUSY_SECONDS = 5.0
"""How long SQLite waits for another process's lock."""

_AGAIN_SECONDS = 0.05
"""Between two tries to open the file."""

_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL)
"""What SQLite says for a moment where another process makes the file, or is the last to close it."""

_MIGRATIONS = (
    (
        # Bodies stand apart, so that looking for something reads only what it looks at.
        """
    CREATE TABLE deliveries (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL,
        received_at INTEGER NOT NULL,
        type TEXT,
        event TEXT,
        user_id TEXT,
        channel TEXT
    )
    """,
        "CREATE UNIQUE INDEX deliveries_by_key ON deliveries (key)",
        "CREATE INDEX deliveries_by_age ON deliveries (received_at)",
        "CREATE TABLE bodies (sequence INTEGER PRIMARY KEY, body TEXT NOT NULL)",
        """
    CREATE TRIGGER delivery_gone AFTER DELETE ON deliveries
    BEGIN DELETE FROM bodies WHERE sequence = old.sequence; END
    """,
        "CREATE TABLE positions (name TEXT PRIMARY KEY, sequence INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until INTEGER NOT NULL) WITHOUT ROWID",
        f"PRAGMA application_id = {_APPLICATION}",
    ),
)
"""Each step brings a file one version further; the version is SQLite's own `user_version`."""


def opened(path: str) -> sqlite3.Connection:
    """A connection to the file, which is made where there is none; for this thread, without transactions of its own.

    Raises:
        ValueError: the file is no inbox, or one of a later version.
        OSError, sqlite3.Error: it cannot be read or written just now.
    """
    if path != MEMORY:
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(path).touch(mode=0o600)  # messages are people's data
    end = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            return _connected(path)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _PASSING or time.monotonic() > end:
                raise
        time.sleep(_AGAIN_SECONDS)


def _connected(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, _BUSY_SECONDS, isolation_level=None)
    try:
        _prepare(database)
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection) -> None:
    try:
        database.execute("BEGIN")  # one look: another process may be making the file meanwhile
        with database:
            _recognise(database)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise ValueError("The inbox's file is no SQLite database. Name another in SEGMENT_INBOX.") from None
        raise
    database.execute("PRAGMA journal_mode = WAL")  # others read beside the writer
    database.execute("PRAGMA synchronous = FULL")  # else what was answered is lost with the power
    _migrate(database)


def _recognise(database: sqlite3.Connection) -> int:
    """The file's version, 0 for an empty file."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application != _APPLICATION and (application or version or tables):
        raise ValueError("The inbox's file is a database of something else. Name another in SEGMENT_INBOX.")
    if version > len(_MIGRATIONS):
        raise ValueError("The inbox's file was made by a later version of segment-tools. Update this one.")
    return int(version)


def _migrate(database: sqlite3.Connection) -> None:
    """Bring the file up to date, one process at a time: another may have made the same file just now."""
    database.execute("BEGIN IMMEDIATE")
    with database:
        version = _recognise(database)
        for number, step in enumerate(_MIGRATIONS[version:], start=version + 1):
            for statement in step:
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {number}")

"""A sandbox's SQLite file: how it is opened, and brought up to date."""

import sqlite3
import time
from pathlib import Path

MEMORY = ":memory:"
"""In place of a file: nothing is kept."""

_WAL_PAGES = 4000
"""Of 4 KB, until the log is copied into the file; writing stands still meanwhile, at SQLite's own 1,000 often."""

BUSY_MS = 5000
"""How long SQLite waits for another process's lock."""

_MIGRATIONS = (
    (
        """
    CREATE TABLE messages (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        received_at TEXT NOT NULL,
        path TEXT NOT NULL,
        source TEXT NOT NULL,
        type TEXT,
        user_id TEXT,
        event TEXT,
        message_id TEXT,
        discarded TEXT,
        sent TEXT NOT NULL,
        message TEXT
    )
    """,
        "CREATE INDEX messages_by_message_id ON messages (message_id, received_at)",
    ),
    (
        "ALTER TABLE messages RENAME COLUMN event TO name",
        "DROP INDEX messages_by_message_id",
        "ALTER TABLE messages ADD COLUMN anonymous_id TEXT",
        "ALTER TABLE messages ADD COLUMN sent_at TEXT",
        """
    UPDATE messages SET sent_at =
        CASE json_type(message, '$.sentAt') WHEN 'text' THEN json_extract(message, '$.sentAt') END
    """,
        "ALTER TABLE messages DROP COLUMN message",
        """
    CREATE TABLE counts (
        minute TEXT NOT NULL,
        type TEXT NOT NULL,
        discarded TEXT NOT NULL,
        total INTEGER NOT NULL,
        PRIMARY KEY (minute, type, discarded)
    ) WITHOUT ROWID
    """,
        """
    INSERT INTO counts SELECT
        substr(received_at, 1, 16),
        CASE WHEN type IN ('identify', 'track', 'page', 'screen', 'group', 'alias') THEN type ELSE '' END,
        coalesce(discarded, ''),
        count(*)
    FROM messages GROUP BY 1, 2, 3
    """,
    ),
    (
        """
    CREATE TABLE deliveries (
        sequence INTEGER NOT NULL,
        webhook TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'pending',
        attempts INTEGER NOT NULL DEFAULT 0,
        first_at TEXT,
        due_at TEXT,
        last_status,
        PRIMARY KEY (sequence, webhook)
    ) WITHOUT ROWID
    """,
        "CREATE INDEX deliveries_due ON deliveries (webhook, due_at) WHERE state = 'pending'",
    ),
)
"""Each step brings a store one version further; the version is SQLite's own `user_version`."""

_LOCK_TRIES, _LOCK_SECONDS = 100, 0.05
"""As long as SQLite itself waits for a lock: five seconds."""


def opened(path: str) -> sqlite3.Connection:
    """The connection that writes to the file, which is made where there is none, and brought up to date.

    Raises:
        OSError, sqlite3.Error: it cannot be written, or is no such file.
    """
    if path != MEMORY:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch(mode=0o600)  # messages are people's data
    database = connected(path)
    _use_wal(database)
    database.execute("PRAGMA synchronous = FULL")
    database.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
    _migrate(database)
    return database


def connected(path: str) -> sqlite3.Connection:
    """A further connection to the file, for any thread, that begins no transaction by itself."""
    return sqlite3.connect(path, BUSY_MS / 1000, check_same_thread=False, isolation_level=None)


def _use_wal(database: sqlite3.Connection) -> None:
    """Let readers read beside the writer. SQLite waits for every lock but the one that this needs, so we do."""
    for patience in range(_LOCK_TRIES, 0, -1):
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if patience == 1:
                raise
            time.sleep(_LOCK_SECONDS)
        else:
            return


def _migrate(database: sqlite3.Connection) -> None:
    """Bring the file up to date, one process at a time: another may have made the same file just now."""
    database.execute("BEGIN IMMEDIATE")
    with database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        for number, step in enumerate(_MIGRATIONS[version:], start=version + 1):
            for statement in step:
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {number}")

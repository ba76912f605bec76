"""What an outbox's SQLite file holds."""

from segment_tools.outbox._outbox import ENTRY_OVERHEAD
from segment_tools.storage.sqlite import LEASES
from segment_tools.storage.sqlite_file import Schema


def _counted(table: str, column: str) -> tuple[str, str]:
    """What keeps the totals up with the table."""
    return _counting(table, column, "INSERT", "+", "new"), _counting(table, column, "DELETE", "-", "old")


def _counting(table: str, column: str, event: str, sign: str, row: str) -> str:
    # No value is in these texts but names and a number of this package's own.
    size = f"(length({row}.body) + {ENTRY_OVERHEAD})"
    change = f"UPDATE totals SET {column} = {column} {sign} 1, bytes = bytes {sign} {size}"  # noqa: S608
    return f"CREATE TRIGGER {table}_{event} AFTER {event} ON {table} BEGIN {change}; END"


_ACCEPTED = "CREATE TRIGGER known_{0} AFTER {0} ON known BEGIN UPDATE totals SET accepted = accepted {1}; END"

SCHEMA = Schema(
    0x5E91B1,
    (
        (
            """
    CREATE TABLE waiting (
        cursor INTEGER PRIMARY KEY AUTOINCREMENT,
        accepted_at INTEGER NOT NULL,
        message_id TEXT NOT NULL,
        lane TEXT NOT NULL,
        source TEXT NOT NULL,
        digest TEXT NOT NULL,
        timestamp TEXT NOT NULL,
        body BLOB NOT NULL
    )
    """,
            "CREATE UNIQUE INDEX waiting_by_id ON waiting (message_id)",
            "CREATE INDEX waiting_by_lane ON waiting (lane)",
            # So that passing over a lane reads no bodies.
            "CREATE INDEX waiting_in_order ON waiting (cursor, lane)",
            """
    CREATE TABLE dead (
        cursor INTEGER PRIMARY KEY AUTOINCREMENT,
        died_at INTEGER NOT NULL,
        reason TEXT NOT NULL,
        text TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        accepted_at INTEGER NOT NULL,
        message_id TEXT NOT NULL,
        lane TEXT NOT NULL,
        source TEXT NOT NULL,
        digest TEXT NOT NULL,
        timestamp TEXT NOT NULL,
        body BLOB NOT NULL
    )
    """,
            "CREATE INDEX dead_by_id ON dead (message_id)",
            """
    CREATE TABLE known (
        message_id TEXT PRIMARY KEY,
        digest TEXT NOT NULL,
        status TEXT NOT NULL,
        timestamp TEXT NOT NULL,
        at INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
            "CREATE INDEX known_by_age ON known (at) WHERE status = 'accepted'",
            "CREATE TABLE totals (pending INTEGER NOT NULL, bytes INTEGER NOT NULL, dead INTEGER NOT NULL)",
            "INSERT INTO totals VALUES (0, 0, 0)",
            *_counted("waiting", "pending"),
            *_counted("dead", "dead"),
            LEASES,
        ),
        (
            "ALTER TABLE totals ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0",
            "UPDATE totals SET accepted = (SELECT count(*) FROM known WHERE status = 'accepted')",
            _ACCEPTED.format("INSERT", "+ (new.status = 'accepted')"),
            _ACCEPTED.format("DELETE", "- (old.status = 'accepted')"),
            _ACCEPTED.format("UPDATE", "+ (new.status = 'accepted') - (old.status = 'accepted')"),
        ),
    ),
)

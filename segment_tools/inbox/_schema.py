"""What an inbox's SQLite file holds."""

from segment_tools.storage.sqlite import LEASES
from segment_tools.storage.sqlite_file import Schema

SCHEMA = Schema(
    0x5E91B0,
    (
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
            LEASES,
        ),
    ),
)

"""What arrived at the sandbox, kept in SQLite: an answered message is on disk."""

import json
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from segment_tools.sandbox.judge import Verdict, as_fields, delivered, iso

DEDUPLICATION_HOURS = 24
"""Source: https://segment.com/docs/guides/duplicate-data/: at least 24 hours of messageIds, whatever the source."""

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
)
"""Each step brings a store one version further; the version is SQLite's own `user_version`."""

_LOCK_TRIES, _LOCK_SECONDS = 100, 0.05
"""As long as SQLite itself waits for a lock: five seconds."""

FILTERS = {"type": "type", "userId": "user_id", "event": "event", "messageId": "message_id"}


@dataclass(frozen=True, slots=True)
class Arrival:
    """When, where and from which source a request came."""

    at: datetime
    path: str
    source: str


class Store:
    """A sandbox's messages. One connection and one lock: requests are short and come from one event loop."""

    def __init__(self, path: str | Path) -> None:
        if str(path) != ":memory:":
            Path(path).expanduser().parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(
            Path(path).expanduser() if str(path) != ":memory:" else path, check_same_thread=False
        )
        self._use_wal()
        self._database.execute("PRAGMA synchronous = FULL")
        self._migrate()

    def _use_wal(self) -> None:
        """Let readers read beside the writer. SQLite waits for every lock but the one that this needs, so we do."""
        for patience in range(_LOCK_TRIES, 0, -1):
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                if patience == 1:
                    raise
                time.sleep(_LOCK_SECONDS)
            else:
                return

    def _migrate(self) -> None:
        """Bring the file up to date, one process at a time: another may have made the same file just now."""
        self._database.execute("BEGIN IMMEDIATE")
        with self._database:
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            for number, step in enumerate(_MIGRATIONS[version:], start=version + 1):
                for statement in step:
                    self._database.execute(statement)
                self._database.execute(f"PRAGMA user_version = {number}")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def add(self, arrival: Arrival, found: Sequence[Verdict], sent_at: object) -> None:
        """Keep the messages of one request, all or none, the repeats among them as such."""
        with self._lock, self._database:
            for verdict in found:
                self._database.execute(
                    "INSERT INTO messages (received_at, path, source, type, user_id, event, message_id, discarded,"
                    " sent, message) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    self._row(arrival, verdict, sent_at),
                )

    def _row(self, arrival: Arrival, verdict: Verdict, sent_at: object) -> tuple[str | None, ...]:
        sent = as_fields(verdict.sent)
        reason = verdict.discarded or ("duplicate" if self._seen(sent.get("messageId"), arrival.at) else None)
        message = delivered(sent, sent_at, iso(arrival.at)) if reason is None else None
        fields = message or sent
        columns = [_column(fields.get(name)) for name in FILTERS]
        kept = None if message is None else json.dumps(message)
        return (iso(arrival.at), arrival.path, arrival.source, *columns, reason, json.dumps(verdict.sent), kept)

    def _seen(self, message_id: object, now: datetime) -> bool:
        """Whether a message of this id was kept within the hours of de-duplication."""
        known = _column(message_id)
        if known is None:
            return False
        query = "SELECT 1 FROM messages WHERE message_id = ? AND received_at >= ? AND discarded IS NULL LIMIT 1"
        since = iso(now - timedelta(hours=DEDUPLICATION_HOURS))
        return self._database.execute(query, (known, since)).fetchone() is not None

    def messages(self, filters: Mapping[str, str], discarded: bool | None, limit: int) -> list[dict[str, Any]]:
        """The newest first; `filters` compares the fields of `FILTERS` for equality."""
        clauses = [f"{FILTERS[name]} = ?" for name in filters]
        if discarded is not None:
            clauses.append(f"discarded IS {'NOT ' if discarded else ''}NULL")
        where = f"WHERE {' AND '.join(clauses)}" if clauses else ""
        columns = "sequence, received_at, path, source, discarded, sent, message"
        # The names in `where` come from FILTERS alone.
        query = f"SELECT {columns} FROM messages {where} ORDER BY sequence DESC LIMIT ?"  # noqa: S608
        with self._lock:
            found = self._database.execute(query, (*filters.values(), limit)).fetchall()
        return [_shown(row) for row in found]

    def clear(self) -> int:
        """Forget everything; how many messages that were."""
        with self._lock, self._database:
            return self._database.execute("DELETE FROM messages").rowcount


def _column(value: object) -> str | None:
    """The value to filter by; half a character, which SQLite cannot hold, becomes a question mark."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def _shown(row: tuple[Any, ...]) -> dict[str, Any]:
    sequence, received_at, path, source, discarded, sent, message = row
    return {
        "sequence": sequence,
        "receivedAt": received_at,
        "path": path,
        "source": source,
        "discarded": discarded,
        "message": None if message is None else json.loads(message),
        "sent": json.loads(sent),
    }

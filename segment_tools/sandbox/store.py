"""What arrived at the sandbox, kept in SQLite: an answered message is on disk.

One thread writes. What waits for it at the same time shares a transaction, so that many requests cost one
synchronisation with the disk. Reading goes on beside it, on a connection of its own.
"""

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from segment_tools.sandbox.judge import Verdict, delivered, iso
from segment_tools.sandbox.repeats import HOURS, Repeats

KEEP_MESSAGES = 1_000_000
"""How many messages a sandbox keeps unless told otherwise: about a gigabyte of ordinary ones."""

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
        "CREATE TABLE counted (through INTEGER NOT NULL)",
        "INSERT INTO counted VALUES (0)",
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

_ROWS, _MOST_ROWS = 500, 2_500
"""Requests share a transaction until they have so many rows; the most in one statement. SQLite takes 32,766 values."""

_COLUMNS = (
    "received_at", "path", "source", "type", "user_id", "anonymous_id", "name", "message_id", "discarded", "sent_at",
    "sent",
)  # fmt: skip

_MESSAGE_ID, _DISCARDED = _COLUMNS.index("message_id"), _COLUMNS.index("discarded")

_SUMMARY = "sequence, received_at, path, source, type, user_id, anonymous_id, name, message_id, discarded"

_FILTERS = {
    "type": "type = ?",
    "userId": "user_id = ?",
    "anonymousId": "anonymous_id = ?",
    "event": "type = 'track' AND name = ?",
    "name": "name = ?",
    "messageId": "message_id = ?",
    "source": "source = ?",
    "reason": "discarded = ?",
    "text": "CAST(sent AS TEXT) LIKE '%' || ? || '%' ESCAPE '\\'",
}
FILTERS = tuple(_FILTERS)
"""What messages can be looked for by: equality, but `text`, which is anywhere in the message, in any ASCII case."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """When, where and from which source a request came, and when its sender says it was sent."""

    at: datetime
    path: str
    source: str
    sent_at: str | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept: the newest `messages`, no older than `days`; None is without bound."""

    messages: int | None = KEEP_MESSAGES
    days: float | None = None


@dataclass(slots=True)
class _Waiting:
    at: datetime
    rows: list[list[Any]]
    done: Future[None]


class Store:
    """A sandbox's messages, in a file or in memory (`:memory:`)."""

    def __init__(self, path: str | Path, retention: Retention = Retention()) -> None:
        self._path = str(path) if str(path) == ":memory:" else str(Path(path).expanduser())
        self._retention = retention
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._listeners: list[Callable[[], None]] = []
        self._writing = threading.Lock()
        self._reading = self._writing
        self._writer = self._reader = self._opened()
        if self._path != ":memory:":
            self._reader, self._reading = self._connected(), threading.Lock()
        self._uncounted = 0
        self._repeats = Repeats()
        self._known: int | None = None
        self._caught_up = 0.0
        with self._writing:
            self._keep_up()
        self._thread = threading.Thread(target=self._write_on, name="segment-sandbox-store", daemon=True)
        self._thread.start()

    def _opened(self) -> sqlite3.Connection:
        if self._path != ":memory:":
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        database = self._connected()
        _use_wal(database)
        database.execute("PRAGMA synchronous = FULL")
        _migrate(database)
        return database

    def _connected(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)

    def close(self) -> None:
        """Write what waits, and close the file."""
        self._queue.put(None)
        self._thread.join()
        with self._writing:
            self._writer.close()
        if self._reader is not self._writer:
            with self._reading:
                self._reader.close()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call back, in another thread, after whatever changes what is stored; returns what ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def add(self, arrival: Arrival, found: Sequence[Verdict]) -> Future[None]:
        """Keep the messages of one request, all or none, the repeats among them as such; done once on disk.

        The future raises sqlite3.OperationalError where the file is locked or full, and nothing is kept.
        """
        received_at = iso(arrival.at)
        waiting = _Waiting(arrival.at, [_row(arrival, received_at, verdict) for verdict in found], Future())
        self._queue.put(waiting)
        return waiting.done

    def _write_on(self) -> None:
        while first := self._queue.get():
            group, rows, last = [first], len(first.rows), False
            with suppress(Empty):
                while rows < _ROWS and not last:
                    waiting = self._queue.get_nowait()
                    last = waiting is None
                    if waiting:
                        group.append(waiting)
                        rows += len(waiting.rows)
            self._write_group(group)
            if last:
                return

    def _write_group(self, group: Sequence[_Waiting]) -> None:
        try:
            with self._writing:
                self._insert(group)
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            self._repeats.forget()
            self._known = None
            for waiting in group:
                waiting.done.set_exception(error)
            return
        for waiting in group:
            waiting.done.set_result(None)
        self._tell()

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def _insert(self, group: Sequence[_Waiting]) -> None:
        self._catch_up()
        for waiting in group:
            self._mark_repeats(waiting.rows, waiting.at)
        rows = [row for waiting in group for row in waiting.rows]
        parts = [rows[start : start + _MOST_ROWS] for start in range(0, len(rows), _MOST_ROWS)]
        # One statement is a transaction of its own. Each has to win back Python's lock, which may take long.
        with nullcontext() if len(parts) == 1 else self._transaction():
            for part in parts:
                done = self._writer.execute(_insertion(len(part)), list(chain.from_iterable(part)))
                self._known = done.lastrowid
        self._uncounted += len(rows)
        if self._uncounted >= _UPKEEP_EVERY:
            self._keep_up()

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """The connection that writes, in a transaction of its own, for what is kept beside the messages."""
        with self._writing, self._transaction():
            yield self._writer

    def query(self, text: str, values: Sequence[object]) -> list[Any]:
        """The rows of a query, for what is kept beside the messages."""
        return self._read(text, values)

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._writer.execute("BEGIN IMMEDIATE")
        with self._writer:
            yield

    def _keep_up(self) -> None:
        """Count what was not yet counted, and forget what is beyond the retention; the counts stay."""
        with self._transaction():
            self._writer.execute(_COUNT_UP)
            self._writer.execute("UPDATE counted SET through = coalesce((SELECT seq FROM sqlite_sequence), 0)")
            self._trim()
        self._uncounted = 0

    def _catch_up(self) -> None:
        """Remember the ids that stand in the file: of before this start, or of another process."""
        if self._known is not None and time.monotonic() < self._caught_up + _CATCH_UP_SECONDS:
            return
        self._caught_up = time.monotonic()
        if self._known is None:
            since = iso(datetime.now(UTC) - timedelta(hours=HOURS))
            query = "SELECT sequence FROM messages WHERE received_at < ? ORDER BY sequence DESC LIMIT 1"
            found = self._writer.execute(query, (since,)).fetchone()
            self._known = found[0] if found else 0
        fresh = self._writer.execute(
            "SELECT sequence, message_id, received_at FROM messages WHERE sequence > ? AND discarded IS NULL"
            " ORDER BY sequence",
            (self._known,),
        )
        for sequence, message_id, received_at in fresh:
            self._repeats.remember(message_id, datetime.fromisoformat(received_at))
            self._known = sequence

    def _mark_repeats(self, rows: Sequence[list[Any]], now: datetime) -> None:
        for row in rows:
            message_id = row[_MESSAGE_ID]
            if row[_DISCARDED]:
                continue
            if self._repeats.is_repeat(message_id, now):
                row[_DISCARDED] = "duplicate"
            else:
                self._repeats.remember(message_id, now)

    def _trim(self) -> None:
        if self._retention.messages is not None:
            self._writer.execute(
                "DELETE FROM messages WHERE sequence <= (SELECT max(sequence) FROM messages) - ?",
                (self._retention.messages,),
            )
        if self._retention.days is not None:
            since = iso(datetime.now(UTC) - timedelta(days=self._retention.days))
            newest = "SELECT max(sequence) FROM messages WHERE received_at < ?"
            self._writer.execute(f"DELETE FROM messages WHERE sequence <= ({newest})", (since,))  # noqa: S608

    def messages(
        self,
        filters: Mapping[str, str] | None = None,
        discarded: bool | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[dict[str, Any]]:
        """The newest first, whole; `filters` are of `FILTERS`, `before` a sequence number."""
        where, values = _where(filters or {}, discarded, before, None)
        query = f"SELECT {_SUMMARY}, sent_at, sent FROM messages {where} ORDER BY sequence DESC LIMIT ?"  # noqa: S608
        return [_shown(row) for row in self._read(query, (*values, limit))]

    def message(self, sequence: int) -> dict[str, Any] | None:
        """One message, whole."""
        found = self._read(f"SELECT {_SUMMARY}, sent_at, sent FROM messages WHERE sequence = ?", (sequence,))  # noqa: S608
        return _shown(found[0]) if found else None

    def summaries(
        self,
        filters: Mapping[str, str],
        discarded: bool | None,
        limit: int,
        before: int | None = None,
        after: int | None = None,
    ) -> list[dict[str, Any]]:
        """What a list shows of each message, the newest first."""
        where, values = _where(filters, discarded, before, after)
        query = f"SELECT {_SUMMARY} FROM messages {where} ORDER BY sequence DESC LIMIT ?"  # noqa: S608
        return [_summary(row) for row in self._read(query, (*values, limit))]

    def since(self, sequence: int, limit: int) -> list[tuple[int, str, str, Any, Any, Any]]:
        """Accepted messages after one, the oldest first: sequence, receivedAt, source, messageId, sentAt and JSON."""
        return self._read(
            "SELECT sequence, received_at, source, message_id, sent_at, sent FROM messages"
            " WHERE sequence > ? AND discarded IS NULL ORDER BY sequence LIMIT ?",
            (sequence, limit),
        )

    def counts(self) -> list[tuple[str, str, str, int]]:
        """How many arrived, by minute (ISO-8601, UTC), type and reason; empty texts where there is none."""
        with self._writing:
            if self._uncounted:
                self._keep_up()
        return self._read("SELECT minute, type, discarded, total FROM counts ORDER BY minute", ())

    def sources(self) -> list[str]:
        """The sources that sent something; kept with the counts' cheapness in mind: those of the newest messages."""
        return [
            name
            for (name,) in self._read(
                "SELECT DISTINCT source FROM (SELECT source FROM messages ORDER BY sequence DESC LIMIT 10000)"
                " ORDER BY source",
                (),
            )
        ]

    def last(self) -> int:
        """The newest message's sequence number; 0 where there was none."""
        found = self._read("SELECT seq FROM sqlite_sequence WHERE name = 'messages'", ())
        return found[0][0] if found else 0

    def _read(self, query: str, values: Sequence[object]) -> list[Any]:
        with self._reading:
            return self._reader.execute(query, values).fetchall()

    def clear(self) -> int:
        """Forget everything; how many messages that were."""
        with self._writing, self._transaction():
            self._repeats.forget()
            self._writer.execute("DELETE FROM counts")
            self._writer.execute("UPDATE counted SET through = coalesce((SELECT seq FROM sqlite_sequence), 0)")
            count = self._writer.execute("DELETE FROM messages").rowcount
        self._tell()
        return count


_COUNT_UP = """
    INSERT INTO counts SELECT
        substr(received_at, 1, 16),
        CASE WHEN type IN ('identify', 'track', 'page', 'screen', 'group', 'alias') THEN type ELSE '' END,
        coalesce(discarded, ''),
        count(*)
    FROM messages WHERE sequence > (SELECT through FROM counted) GROUP BY 1, 2, 3
    ON CONFLICT (minute, type, discarded) DO UPDATE SET total = total + excluded.total
"""

_CATCH_UP_SECONDS = 1.0
"""Between two looks at what another process may have written to the same file."""

_UPKEEP_EVERY = 10_000
"""Messages between two upkeeps: they count, and look at the retention."""


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


@cache
def _insertion(rows: int) -> str:
    row = f"({', '.join('?' * len(_COLUMNS))})"
    return f"INSERT INTO messages ({', '.join(_COLUMNS)}) VALUES {', '.join([row] * rows)}"  # noqa: S608


def _row(arrival: Arrival, received_at: str, verdict: Verdict) -> list[Any]:
    message_id = verdict.message_id
    if not message_id and not verdict.discarded:
        message_id = f"sandbox-{uuid.uuid4()}"
    return [
        received_at,
        arrival.path,
        arrival.source,
        verdict.type,
        verdict.user_id,
        verdict.anonymous_id,
        verdict.name,
        message_id,
        verdict.discarded,
        arrival.sent_at,
        verdict.text,
    ]


def _where(
    filters: Mapping[str, str], discarded: bool | None, before: int | None, after: int | None
) -> tuple[str, list[object]]:
    """The clause and its values; its text comes from `_FILTERS` alone."""
    clauses = [_FILTERS[name] for name in filters]
    values: list[object] = [_escaped(value) if name == "text" else value for name, value in filters.items()]
    if discarded is not None:
        clauses.append(f"discarded IS {'NOT ' if discarded else ''}NULL")
    for bound, clause in ((before, "sequence < ?"), (after, "sequence > ?")):
        if bound is not None:
            clauses.append(clause)
            values.append(bound)
    return (f"WHERE {' AND '.join(clauses)}" if clauses else ""), values


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _summary(row: tuple[Any, ...]) -> dict[str, Any]:
    sequence, received_at, path, source, kind, user_id, anonymous_id, name, message_id, discarded = row
    return {
        "sequence": sequence,
        "receivedAt": received_at,
        "path": path,
        "source": source,
        "type": kind,
        "userId": user_id,
        "anonymousId": anonymous_id,
        "name": name,
        "messageId": message_id,
        "discarded": discarded,
    }


def _shown(row: tuple[Any, ...]) -> dict[str, Any]:
    *columns, sent_at, text = row
    found = _summary(tuple(columns))
    sent = json.loads(text)
    kept = None if found["discarded"] else delivered(sent, found["messageId"], sent_at, found["receivedAt"])
    wanted = ("sequence", "receivedAt", "path", "source", "discarded")
    return {**{name: found[name] for name in wanted}, "message": kept, "sent": sent}

"""What arrived at the sandbox, kept in SQLite: an answered message is on disk.

One thread commits, and one synchronisation with the disk serves a whole group of requests. Reading goes on beside it,
on a connection of its own.
"""

import json
import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from segment_tools.sandbox.database import BUSY_MS, MEMORY, connected, opened
from segment_tools.sandbox.judge import TYPES, Verdict, delivered, iso
from segment_tools.sandbox.repeats import HOURS, Repeats

KEEP_MESSAGES = 1_000_000
"""How many messages a sandbox keeps unless told otherwise: about a gigabyte of ordinary ones."""

_LOG = logging.getLogger(__name__)

_MOST_ROWS = 2_500
"""In one statement: SQLite takes 32,766 values."""

_SHARED = ("received_at", "path", "source", "sent_at")
_OWN = ("type", "user_id", "anonymous_id", "name", "message_id", "discarded", "sent")
"""What a request's messages share, and what a `Verdict` has."""

_SUMMARY = "sequence, received_at, path, source, type, user_id, anonymous_id, name, message_id, discarded"

_NUMBERED = "WHERE sequence IN (SELECT value FROM json_each(?))"

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


@dataclass(frozen=True, slots=True)
class Parcel:
    """One request's messages, to be kept."""

    arrival: Arrival
    found: Sequence[Verdict]


class Store:
    """A sandbox's messages, in a file or in memory (`:memory:`)."""

    def __init__(self, path: str | Path, retention: Retention = Retention()) -> None:
        self._path = str(path) if str(path) == MEMORY else str(Path(path).expanduser())
        self._retention = retention
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._listeners: list[Callable[[], None]] = []
        self._writing = threading.Lock()
        self._reading = self._writing
        self._writer = self._worker = opened(self._path)
        if self._path != MEMORY:
            self._worker, self._reading = connected(self._path), threading.Lock()
        self._untrimmed = 0
        self._order, self._waiting = threading.Lock(), 0
        self._upkeep_every = min(_UPKEEP_EVERY, (retention.messages or _UPKEEP_EVERY) // 10 + 1)
        self.generation = 0
        """How often everything was forgotten."""
        self._repeats = Repeats()
        self._known: int | None = None
        with self._writing:
            self._keep_up()
        self._thread = threading.Thread(target=self._write_on, name="segment-sandbox-store", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and close the file."""
        self._queue.put(None)
        self._thread.join()
        with self._writing:
            self._writer.close()
        if self._worker is not self._writer:
            with self._reading:
                self._worker.close()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call back, in another thread, after whatever changes what is stored; returns what ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def add(self, arrival: Arrival, found: Sequence[Verdict]) -> Future[None]:
        """Keep the messages of one request, all or none, the repeats among them as such; done once on disk.

        The future raises sqlite3.OperationalError where the file is locked or full, and nothing is kept.
        """
        done: Future[None] = Future()
        self.write(
            [Parcel(arrival, found)], lambda error: done.set_exception(error) if error else done.set_result(None)
        )
        return done

    def write(self, group: Sequence[Parcel], told: Callable[[Exception | None], None], patient: bool = True) -> None:
        """Keep the messages of some requests, all or none; `told` in another thread, once on disk or not to be.

        Not patient, it puts them together right here, unless that takes waiting, and leaves the disk to the other
        thread: that one would have to win back Python's lock from this one after every step.
        """
        with self._order:
            # Never before what waits already: that would wait for the lock, and this for that.
            begun = not patient and self._waiting == 0 and self._begun_at_once(group)
            self._waiting += 1
            self._queue.put(lambda: self._finish(group, begun, told))

    def _write_on(self) -> None:
        while True:
            try:
                work = self._queue.get(timeout=_UPKEEP_SECONDS)
            except Empty:
                work = self._keep_up_idle
            if work is None:
                return
            work()

    def _keep_up_idle(self) -> None:
        with self._writing:
            self._keep_up_if_possible()

    def _keep_up_if_possible(self) -> None:
        try:
            self._keep_up()
        except sqlite3.Error:
            _LOG.warning("the sandbox's file is locked or full: what is beyond the retention stays for now")

    def _begun_at_once(self, group: Sequence[Parcel]) -> bool:
        """Whether the messages are in a transaction that only has to be committed, the lock held."""
        if not self._writing.acquire(blocking=False):
            return False
        begun = False
        try:
            if self._begun_without_waiting():
                if begun := self._known == self._last_written():
                    self._insert(group)
                else:  # much may have to be read
                    self._writer.execute("ROLLBACK")
        except Exception:  # noqa: BLE001 - the patient way finds it again, and says it
            begun = False
            self._undo()
        finally:
            if not begun:
                self._writing.release()
        return begun

    def _begun_without_waiting(self) -> bool:
        self._writer.execute("PRAGMA busy_timeout = 0")
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        finally:
            self._writer.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        return True

    def _finish(self, group: Sequence[Parcel], begun: bool, told: Callable[[Exception | None], None]) -> None:
        if not begun:
            self._writing.acquire()
        try:
            if not begun:
                self._writer.execute("BEGIN IMMEDIATE")
                self._catch_up()
                self._insert(group)
            self._writer.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            self._undo()
            self._written()
            told(error)
            return
        self._untrimmed += sum(len(parcel.found) for parcel in group)
        if self._untrimmed >= self._upkeep_every:
            self._keep_up_if_possible()
        self._written()
        told(None)
        self._tell()

    def _written(self) -> None:
        """Before anybody is told, who may want to write at once."""
        self._writing.release()
        with self._order:
            self._waiting -= 1

    def _undo(self) -> None:
        """Where the disk is full, SQLite has ended the transaction by itself."""
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")
        self._repeats.forget()
        self._known = None

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def _insert(self, group: Sequence[Parcel]) -> None:
        counted: Counter[tuple[str, str, str]] = Counter()
        for arrival, found in ((parcel.arrival, parcel.found) for parcel in group):
            received_at = iso(arrival.at)
            shared = (received_at, arrival.path, arrival.source, arrival.sent_at)
            rows = self._repeats.marked(found, arrival.at)
            for start in range(0, len(rows), _MOST_ROWS):
                part = rows[start : start + _MOST_ROWS]
                done = self._writer.execute(_insertion(len(part)), [*shared, *chain.from_iterable(part)])
                self._known = done.lastrowid
            kinds = Counter((row.type, row.discarded) for row in rows)
            for (kind, discarded), total in kinds.items():
                counted[received_at[:16], kind if kind in TYPES else "", discarded or ""] += total
        values = [value for key, total in counted.items() for value in (*key, total)]
        self._writer.execute(_counting(len(counted)), values)

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """The connection that writes, in a transaction of its own, for what is kept beside the messages."""
        with self._writing, self._transaction():
            yield self._writer

    @contextmanager
    def _transaction(self) -> Generator[None]:
        self._writer.execute("BEGIN IMMEDIATE")
        with self._writer:
            yield

    def _keep_up(self) -> None:
        """Forget what is beyond the retention; the counts stay."""
        with self._transaction():
            self._trim()
        self._untrimmed = 0

    def _last_written(self) -> int:
        """The last message's number, whoever wrote it."""
        found = self._writer.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
        return found[0] if found else 0

    def _catch_up(self) -> None:
        """Remember the ids that stand in the file: of before this start, or of another process."""
        last = self._last_written()
        if self._known == last:
            return
        if self._known is None:
            since = iso(datetime.now(UTC) - timedelta(hours=HOURS))
            query = "SELECT sequence FROM messages WHERE received_at < ? ORDER BY sequence DESC LIMIT 1"
            found = self._writer.execute(query, (since,)).fetchone()
            self._known = found[0] if found else 0
        fresh = self._writer.execute(
            "SELECT message_id, received_at FROM messages WHERE sequence > ? AND discarded IS NULL ORDER BY sequence",
            (self._known,),
        )
        for message_id, received_at in fresh:
            self._repeats.remember(message_id, datetime.fromisoformat(received_at))
        self._known = last

    def _trim(self) -> None:
        if self._retention.messages is not None:
            self._writer.execute(
                "DELETE FROM messages WHERE sequence <= (SELECT max(sequence) FROM messages) - ?",
                (self._retention.messages,),
            )
        if self._retention.days is not None:
            since = iso(datetime.now(UTC) - timedelta(days=self._retention.days))
            first = "SELECT sequence FROM messages WHERE received_at >= ? ORDER BY sequence LIMIT 1"
            after = "SELECT max(sequence) + 1 FROM messages"
            self._writer.execute(
                f"DELETE FROM messages WHERE sequence < coalesce(({first}), ({after}))",  # noqa: S608
                (since,),
            )

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
        return [_shown(row) for row in self.query(query, (*values, limit))]

    def message(self, sequence: int) -> dict[str, Any] | None:
        """One message, whole."""
        found = self.query(f"SELECT {_SUMMARY}, sent_at, sent FROM messages WHERE sequence = ?", (sequence,))  # noqa: S608
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
        return [_summary(row) for row in self.query(query, (*values, limit))]

    def numbered(self, sequences: Sequence[int]) -> list[dict[str, Any]]:
        """Those messages of these numbers that are still kept, whole."""
        query = f"SELECT {_SUMMARY}, sent_at, sent FROM messages {_NUMBERED}"  # noqa: S608
        return [_shown(row) for row in self.query(query, (json.dumps(sequences),))]

    def summaries_of(self, sequences: Sequence[int]) -> list[dict[str, Any]]:
        """What a list shows of those messages of these numbers that are still kept."""
        query = f"SELECT {_SUMMARY} FROM messages {_NUMBERED}"  # noqa: S608
        return [_summary(row) for row in self.query(query, (json.dumps(sequences),))]

    def since(self, sequence: int, limit: int) -> list[tuple[int, str, str, Any, Any, Any]]:
        """Accepted messages after one, the oldest first: sequence, receivedAt, source, messageId, sentAt and JSON."""
        return self.query(
            "SELECT sequence, received_at, source, message_id, sent_at, sent FROM messages"
            " WHERE sequence > ? AND discarded IS NULL ORDER BY sequence LIMIT ?",
            (sequence, limit),
        )

    def counts(self, since: str = "") -> list[tuple[str, str, str, int]]:
        """How many arrived, by minute (ISO-8601, UTC), type and reason; empty texts where there is none.

        Minutes before `since` are added up under an empty text: there may be many.
        """
        return self.query(
            "SELECT '', type, discarded, sum(total) FROM counts WHERE minute < ? GROUP BY 2, 3"
            " UNION ALL SELECT minute, type, discarded, total FROM counts WHERE minute >= ?",
            (since, since),
        )

    def sources(self) -> list[str]:
        """The sources of the newest 10,000 messages, by name."""
        return [
            name
            for (name,) in self.query(
                "SELECT DISTINCT source FROM (SELECT source FROM messages ORDER BY sequence DESC LIMIT 10000)"
                " ORDER BY source",
                (),
            )
        ]

    def last(self) -> int:
        """The newest message's sequence number; 0 where there was none."""
        found = self.query("SELECT seq FROM sqlite_sequence WHERE name = 'messages'", ())
        return found[0][0] if found else 0

    def query(self, text: str, values: Sequence[object]) -> list[Any]:
        """The rows of a query."""
        with self._reading:
            return self._worker.execute(text, values).fetchall()

    def clear(self) -> int:
        """Forget everything; how many messages that were."""
        with self._writing:
            with self._transaction():
                self._repeats.forget()
                self._writer.execute("DELETE FROM counts")
                count = self._writer.execute("DELETE FROM messages").rowcount
            self.generation += 1  # whoever reads it now finds nothing
        self._tell()
        return count


_UPKEEP_SECONDS = 60.0
"""Between two upkeeps of a sandbox that gets no messages."""

_UPKEEP_EVERY = 10_000
"""Messages between two looks at the retention, at most."""


@cache
def _insertion(rows: int) -> str:
    """All rows in one statement; what they share is bound once, which halves the time it takes."""
    row = f"({', '.join('?' * len(_OWN))})"
    shared, values = ", ".join("?" * len(_SHARED)), ", ".join([row] * rows)
    return f"INSERT INTO messages ({', '.join((*_SHARED, *_OWN))}) SELECT {shared}, * FROM (VALUES {values})"  # noqa: S608


@cache
def _counting(rows: int) -> str:
    values = ", ".join(["(?, ?, ?, ?)"] * rows)
    conflict = "ON CONFLICT (minute, type, discarded) DO UPDATE SET total = total + excluded.total"
    return f"INSERT INTO counts VALUES {values} {conflict}"  # noqa: S608


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

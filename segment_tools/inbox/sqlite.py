"""An inbox in a SQLite file, for the processes of one machine."""

import re
import sqlite3
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from segment_tools.inbox._inbox import INBOX, Page, Query, Retention, Stored, page_of
from segment_tools.inbox._schema import SCHEMA
from segment_tools.spec.webhooks import Delivery
from segment_tools.storage.moments import Clock, microseconds, moment_of, now
from segment_tools.storage.sqlite import SqliteStore

_LOOK_SECONDS = 0.4
"""How often to look whether another process has added something."""

_LEAST_TRIMMED = 1000
"""How many deliveries one adding may forget; twice as many as it adds, where that is more."""

_CURSOR = re.compile("[0-9]{1,18}")


class SqliteInbox(SqliteStore):
    """An `Inbox` in a file that several processes may share, or in memory (`:memory:`).

    The file is opened when it is first needed; one that is no inbox raises ValueError then, from every method. Looking
    for something that is rare reads the head of every delivery, which takes some 10 ms for 100,000 of them.
    """

    def __init__(self, path: str | Path, retention: Retention = Retention(), clock: Clock = now) -> None:
        super().__init__(path, INBOX, SCHEMA, clock)
        self._retention = retention

    async def add(self, deliveries: Sequence[Delivery], received_at: datetime) -> int:
        """See `Inbox.add`."""
        if not deliveries:
            return 0
        at, oldest, count = microseconds(received_at), self._oldest(), self._retention.count
        added = await self._worker.write(lambda database: _added(database, deliveries, at, oldest, count))
        if added:
            self._wake()
        return added

    async def page(self, query: Query) -> Page:
        """See `Inbox.page`."""
        text, values = _selection(query, self._oldest(), self._retention.count)
        rows = await self._worker.read(lambda database: database.execute(text, values).fetchall())
        return page_of([_stored(*row) for row in rows], query.limit)

    async def last(self) -> str | None:
        """See `Inbox.last`."""
        newest = (await self.page(Query(newest_first=True, limit=1, most_bytes=0))).items
        return newest[0].cursor if newest else None

    async def changed(self, after: str | None, seconds: float) -> bool:
        """See `Inbox.changed`."""

        async def look() -> bool:
            return bool((await self.page(Query(after=after, limit=1, most_bytes=0))).items)

        return await self._found(look, seconds, _LOOK_SECONDS)

    async def position(self, name: str) -> str | None:
        """See `Inbox.position`."""
        text = "SELECT sequence FROM positions WHERE name = ?"
        row = await self._worker.read(lambda database: database.execute(text, (name,)).fetchone())
        return str(row[0]) if row else None

    async def advance(self, name: str, cursor: str) -> None:
        """See `Inbox.advance`."""
        values = (name, _sequence(cursor))
        await self._worker.write(lambda database: database.execute(_ADVANCE, values).rowcount)

    async def lease(self, name: str, holder: str, seconds: float) -> bool:
        """See `Inbox.lease`."""
        return await self._leased(name, holder, seconds)

    def _oldest(self) -> int:
        return self._retention.oldest(self._clock())


# Not INSERT OR IGNORE, which uses up a number for what it ignores: they are counted to know how many are kept.
_ADD = """
    INSERT INTO deliveries (key, received_at, type, event, user_id, channel)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE NOT EXISTS (SELECT 1 FROM deliveries WHERE key = ?1)
"""

_ADVANCE = """
    INSERT INTO positions (name, sequence) VALUES (?, ?)
    ON CONFLICT (name) DO UPDATE SET sequence = max(sequence, excluded.sequence)
"""

# An index on the time would be the wrong way in, since the order is another's; hence the `+`.
_HEADS = "SELECT d.sequence, d.received_at, d.type, d.event, d.user_id, d.channel, '', 0 FROM deliveries d"
_WITH_BODIES = """
    SELECT d.sequence, d.received_at, d.type, d.event, d.user_id, d.channel,
        CASE WHEN length(CAST(b.body AS BLOB)) <= ? THEN b.body ELSE '' END, length(CAST(b.body AS BLOB))
    FROM deliveries d CROSS JOIN bodies b ON b.sequence = d.sequence
"""
_KEPT = """
    WHERE +d.received_at >= ? AND d.sequence > (SELECT coalesce(max(sequence), 0) FROM deliveries) - ?
"""


def _added(
    database: sqlite3.Connection, deliveries: Sequence[Delivery], received_at: int, oldest: int, count: int
) -> int:
    """How many were new."""
    added = 0
    for each in deliveries:
        row = (each.key, received_at, each.type, each.event, each.user_id, each.channel)
        written = database.execute(_ADD, row)
        if written.rowcount == 1:
            database.execute("INSERT INTO bodies (sequence, body) VALUES (?, ?)", (written.lastrowid, each.body))
            added += 1
    _trim(database, oldest, count, max(_LEAST_TRIMMED, 2 * added))
    return added


def _trim(database: sqlite3.Connection, oldest: int, count: int, most: int) -> None:
    """Forget what is beyond the retention, a bounded number at a time."""
    for beyond, value in (
        ("received_at < ?", oldest),
        ("sequence <= (SELECT max(sequence) FROM deliveries) - ?", count),
    ):
        chosen = f"SELECT sequence FROM deliveries WHERE {beyond} LIMIT ?"  # noqa: S608 - of the texts above
        database.execute(f"DELETE FROM deliveries WHERE sequence IN ({chosen})", (value, most))  # noqa: S608


def _selection(query: Query, oldest: int, count: int) -> tuple[str, Sequence[object]]:
    """The statement and its values; nothing of the query is in its text."""
    bodies = query.most_bytes != 0
    text = (_WITH_BODIES if bodies else _HEADS) + _KEPT
    most = sys.maxsize if query.most_bytes is None else query.most_bytes
    values: list[object] = [*([most] if bodies else []), oldest, count]
    for clause, value in (
        ("+d.received_at >= ?", None if query.since is None else microseconds(query.since)),
        ("d.sequence > ?", None if query.after is None else _sequence(query.after)),
        ("d.sequence < ?", None if query.before is None else _sequence(query.before)),
        ("d.channel = ?", query.channel),
        ("d.event = ?", query.event),
        ("d.user_id = ?", query.user_id),
    ):
        if value is not None:
            text += f" AND {clause}"
            values.append(value)
    if query.types:
        text += f" AND d.type IN ({', '.join('?' * len(query.types))})"
        values.extend(query.types)
    text += f" ORDER BY d.sequence {'DESC' if query.newest_first else 'ASC'} LIMIT ?"
    return text, [*values, query.limit + 1]


def _sequence(cursor: str) -> int:
    if not _CURSOR.fullmatch(cursor):
        raise INBOX.bad_cursor()
    return int(cursor)


def _stored(
    sequence: int,
    received_at: int,
    kind: str | None,
    event: str | None,
    user_id: str | None,
    channel: str | None,
    body: str,
    bytes_: int,
) -> Stored:
    return Stored(str(sequence), moment_of(received_at), body, kind, event, user_id, channel, bytes_)

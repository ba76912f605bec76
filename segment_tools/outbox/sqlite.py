"""An outbox in a SQLite file, for the processes of one machine."""

import json
import re
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

from segment_tools.errors import Unavailable
from segment_tools.outbox._outbox import (
    KNOWN_FOR,
    LEASE,
    LEAST_FORGOTTEN,
    MOST_BYTES,
    MOST_KNOWN,
    OUTBOX,
    Dead,
    DeadPage,
    Death,
    Depth,
    Entry,
    Known,
    Waiting,
    check_accepted,
    check_limit,
    full,
)
from segment_tools.outbox._schema import SCHEMA
from segment_tools.storage.moments import Clock, microseconds, moment_of, now
from segment_tools.storage.sqlite import SqliteStore
from segment_tools.storage.sqlite_file import MEMORY, WrongFile

_LOOK_SECONDS = 0.4
"""How often to look whether another process has added something."""

_CURSOR = re.compile("[0-9]{1,18}")


class SqliteOutbox(SqliteStore):
    """An `Outbox` in a file that several processes may share, or in memory (`:memory:`).

    The file is opened when it is first needed. One that is damaged, or of something else, is left as it is.
    """

    def __init__(self, path: str | Path, most_bytes: int = MOST_BYTES, clock: Clock = now) -> None:
        super().__init__(path, OUTBOX, SCHEMA, clock)
        self._most_bytes = most_bytes
        self._seen = 0

    async def add(self, entries: Sequence[Entry], accepted_at: datetime) -> tuple[Known | None, ...]:
        """See `Outbox.add`."""
        asked = _Add(entries, microseconds(accepted_at), self._oldest(), self._most_bytes)
        results = await self._worker.join(_added, asked)
        if None in results:
            self._wake()
        return results

    async def look(
        self, message_ids: Sequence[str], lanes: Collection[str]
    ) -> tuple[Mapping[str, Known], frozenset[str]]:
        """See `Outbox.look`."""
        oldest = self._oldest()
        return await self._worker.read(lambda database: _looked(database, message_ids, lanes, oldest))

    async def remember(self, known: Sequence[Known], at: datetime) -> None:
        """See `Outbox.remember`."""
        check_accepted(known)
        moment, oldest = microseconds(at), self._oldest()
        await self._worker.write(lambda database: _remember(database, known, moment, oldest))

    async def page(
        self, after: str | None, limit: int, most_bytes: int, without: Collection[str] = ()
    ) -> Sequence[Waiting]:
        """See `Outbox.page`."""
        check_limit(limit)
        values = (_number(after), json.dumps(list(without)), limit)
        return await self._worker.read(lambda database: _within(database.execute(_PAGE, values), most_bytes))

    async def settle(self, delivered: Sequence[Waiting], dead: Sequence[Death]) -> None:
        """See `Outbox.settle`."""
        at = microseconds(self._clock())
        await self._worker.write(lambda database: _settle(database, delivered, dead, at))

    async def lease(self, holder: str, seconds: float) -> bool:
        """See `Outbox.lease`."""
        return await self._leased(LEASE, holder, seconds)

    async def changed(self, seconds: float) -> bool:
        """See `Outbox.changed`."""
        seen = self._seen

        async def look() -> bool:
            newest = await self._worker.read(_newest)
            if newest == seen:
                return False
            self._seen = newest
            return True

        return await self._found(look, seconds, _LOOK_SECONDS)

    async def depth(self) -> Depth:
        """See `Outbox.depth`."""
        pending, size, dead, oldest = await self._worker.read(lambda database: database.execute(_DEPTH).fetchone())
        return Depth(pending, size, None if oldest is None else moment_of(oldest), dead)

    async def dead(self, after: str | None, limit: int, message_ids: Sequence[str] | None = None) -> DeadPage:
        """See `Outbox.dead`."""
        check_limit(limit)
        number = _number(after)
        rows = await self._worker.read(lambda database: _dead(database, number, limit + 1, message_ids))
        items = tuple(_letter(*row) for row in rows[:limit])
        return DeadPage(items, items[-1].cursor if len(rows) > limit else None)

    async def retry(self, message_ids: Sequence[str] | None) -> int:
        """See `Outbox.retry`."""
        at, oldest = microseconds(self._clock()), self._oldest()
        retried = await self._worker.write(lambda database: _retried(database, message_ids, at, oldest))
        if retried:
            self._wake()
        return retried

    async def discard(self, message_ids: Sequence[str]) -> int:
        """See `Outbox.discard`."""
        return await self._worker.write(lambda database: _discarded(database, message_ids))

    async def remarks(self) -> Sequence[str]:
        """See `Outbox.remarks`."""
        return ("What waits is lost with this process.",) if self._place == MEMORY else ()

    def _opened(self) -> sqlite3.Connection:
        self._seen = 0  # a file that is made anew counts from the first again
        try:
            return super()._opened()
        except WrongFile as error:
            raise Unavailable(str(error), code=OUTBOX.unavailable("").code) from None

    def _oldest(self) -> int:
        return microseconds(self._clock() - KNOWN_FOR)


_PUT = """
    INSERT INTO waiting (accepted_at, message_id, lane, source, digest, timestamp, body) VALUES {}
"""

# Not REPLACE, which sets off no trigger for what it deletes.
_NOTE = """
    INSERT INTO known (message_id, digest, status, timestamp, at) VALUES {}
    ON CONFLICT (message_id) DO UPDATE
    SET digest = excluded.digest, status = excluded.status, timestamp = excluded.timestamp, at = excluded.at
"""

# What waits is known for as long as it does.
_KNOWN = """
    SELECT message_id, digest, status, timestamp FROM known WHERE message_id = ? AND (status = 'queued' OR at > ?)
"""

_KNOWN_OF = "SELECT message_id, digest, status, timestamp, at FROM known WHERE message_id IN ({})"

_FORGET = """
    DELETE FROM known WHERE message_id IN (
        SELECT message_id FROM known WHERE status = 'accepted' AND at <= ? ORDER BY at LIMIT ?
    )
"""

_FORGET_OLDEST = """
    DELETE FROM known WHERE message_id IN (
        SELECT message_id FROM known WHERE status = 'accepted' ORDER BY at LIMIT ?
    )
"""

_PAGE = """
    SELECT w.cursor, w.accepted_at, w.message_id, w.lane, w.source, w.body, w.digest, w.timestamp
    FROM waiting o INDEXED BY waiting_in_order CROSS JOIN waiting w ON w.cursor = o.cursor
    WHERE o.cursor > ? AND o.lane NOT IN (SELECT value FROM json_each(?)) ORDER BY o.cursor LIMIT ?
"""

_STILL = "SELECT 1 FROM waiting WHERE cursor = ? AND message_id = ?"

_DIE = """
    INSERT INTO dead (
        died_at, reason, text, attempts, accepted_at, message_id, lane, source, digest, timestamp, body
    )
    SELECT ?, ?, ?, ?, accepted_at, message_id, lane, source, digest, timestamp, body FROM waiting WHERE cursor = ?
"""

_DEPTH = """
    SELECT pending, bytes, dead, (SELECT accepted_at FROM waiting ORDER BY cursor LIMIT 1) FROM totals
"""

_DEAD = """
    SELECT cursor, died_at, reason, text, attempts, accepted_at, message_id, source, body
    FROM dead WHERE cursor > ? ORDER BY cursor LIMIT ?
"""

_LETTER = """
    SELECT cursor, died_at, reason, text, attempts, accepted_at, message_id, source, body FROM dead WHERE cursor = ?
"""

_PLACES = "SELECT cursor FROM dead WHERE message_id = ? AND cursor > ? ORDER BY cursor LIMIT ?"

_LAST_LETTERS = "SELECT max(cursor), message_id FROM dead GROUP BY message_id ORDER BY 1"

_LAST_LETTER = "SELECT max(cursor), message_id FROM dead WHERE message_id = ? GROUP BY message_id"

_RISE = """
    INSERT INTO waiting (accepted_at, message_id, lane, source, digest, timestamp, body)
    SELECT ?, message_id, lane, source, digest, timestamp, body FROM dead WHERE cursor = ?
"""

_NOTE_RISEN = """
    INSERT INTO known (message_id, digest, status, timestamp, at)
    SELECT message_id, digest, 'queued', timestamp, ? FROM dead WHERE cursor = ?
    ON CONFLICT (message_id) DO UPDATE
    SET digest = excluded.digest, status = excluded.status, timestamp = excluded.timestamp, at = excluded.at
"""


@dataclass(frozen=True, slots=True)
class _Add:
    """What one caller wants added."""

    entries: Sequence[Entry]
    at: int
    oldest: int
    most_bytes: int


def _added(database: sqlite3.Connection, adds: Sequence[_Add]) -> list[tuple[Known | None, ...] | Exception]:
    """For each caller what `Outbox.add` returns or raises, one after the other."""
    asked = [entry.message_id for add in adds for entry in add.entries]
    before = _noted(database, asked)
    (held,) = database.execute("SELECT bytes FROM totals").fetchone()
    fresh: dict[str, tuple[int, Entry]] = {}
    outcomes: list[tuple[Known | None, ...] | Exception] = []
    for add in adds:
        results, new = _sorted_out(add, before, fresh)
        size = sum(entry.size for entry in new.values())
        if new and held + size > add.most_bytes:
            outcomes.append(full(add.most_bytes))
            continue
        held += size
        fresh.update((message_id, (add.at, entry)) for message_id, entry in new.items())
        outcomes.append(results)
    _put(database, fresh.values())
    known = [(_queued(entry), at) for at, entry in fresh.values()]
    _note(database, known, max(add.oldest for add in adds))
    return outcomes


def _sorted_out(
    add: _Add, before: Mapping[str, tuple[Known, int]], fresh: Mapping[str, tuple[int, Entry]]
) -> tuple[tuple[Known | None, ...], dict[str, Entry]]:
    """What is known of each id, from before or from earlier among these; and what is new."""
    results: list[Known | None] = []
    new: dict[str, Entry] = {}
    for entry in add.entries:
        earlier = new.get(entry.message_id) or fresh.get(entry.message_id, (0, None))[1]
        noted, at = before.get(entry.message_id, (None, 0))
        if noted and noted.status != "queued" and at <= add.oldest:
            noted = None
        results.append(_queued(earlier) if earlier else noted)
        if results[-1] is None:
            new[entry.message_id] = entry
    return tuple(results), new


_ROWS = 100
"""How many rows a statement has: SQLite takes 999 values at least."""


def _noted(database: sqlite3.Connection, message_ids: Sequence[str]) -> dict[str, tuple[Known, int]]:
    """What was ever known of these ids, and since when."""
    found: dict[str, tuple[Known, int]] = {}
    for start in range(0, len(message_ids), _ROWS):
        some = message_ids[start : start + _ROWS]
        asked = _KNOWN_OF.format(",".join("?" * len(some)))
        found.update((row[0], (Known(*row[:4]), row[4])) for row in database.execute(asked, some))
    return found


def _put(database: sqlite3.Connection, entries: Iterable[tuple[int, Entry]]) -> None:
    rows = [(at, e.message_id, e.lane, e.source, e.digest, e.timestamp, e.body) for at, e in entries]
    _insert(database, _PUT, rows)


def _insert(database: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        places = ",".join([f"({','.join('?' * len(some[0]))})"] * len(some))
        database.execute(statement.format(places), list(chain.from_iterable(some)))


def _note(database: sqlite3.Connection, known: Sequence[tuple[Known, int]], oldest: int) -> None:
    """Note what is known from when on, and forget as much at least of what is too old, or too much."""
    _insert(database, _NOTE, [(k.message_id, k.digest, k.status, k.timestamp, at) for k, at in known])
    most = max(LEAST_FORGOTTEN, 2 * len(known))
    database.execute(_FORGET, (oldest, most))
    (accepted,) = database.execute("SELECT accepted FROM totals").fetchone()
    if accepted > MOST_KNOWN:
        database.execute(_FORGET_OLDEST, (min(accepted - MOST_KNOWN, most),))


def _queued(entry: Entry) -> Known:
    return Known(entry.message_id, entry.digest, "queued", entry.timestamp)


def _known(database: sqlite3.Connection, message_id: str, oldest: int) -> Known | None:
    row = database.execute(_KNOWN, (message_id, oldest)).fetchone()
    return Known(*row) if row else None


def _looked(
    database: sqlite3.Connection, message_ids: Sequence[str], lanes: Collection[str], oldest: int
) -> tuple[Mapping[str, Known], frozenset[str]]:
    known = (_known(database, each, oldest) for each in message_ids)
    waiting = "SELECT 1 FROM waiting WHERE lane = ? LIMIT 1"
    return (
        {each.message_id: each for each in known if each},
        frozenset(lane for lane in lanes if database.execute(waiting, (lane,)).fetchone()),
    )


def _remember(database: sqlite3.Connection, known: Sequence[Known], at: int, oldest: int) -> None:
    first = {each.message_id: each for each in reversed(known)}
    fresh = [each for each in first.values() if _known(database, each.message_id, oldest) is None]
    _note(database, [(each, at) for each in fresh], oldest)


def _within(rows: Iterable[Sequence[Any]], most_bytes: int) -> Sequence[Waiting]:
    """As many as have room, and one at least."""
    found: list[Waiting] = []
    size = 0
    for cursor, accepted_at, *fields in rows:
        entry = Entry(*fields)
        size += len(entry.body)
        if found and size > most_bytes:
            break
        found.append(Waiting(str(cursor), moment_of(accepted_at), entry))
    return found


def _settle(database: sqlite3.Connection, delivered: Sequence[Waiting], dead: Sequence[Death], at: int) -> None:
    gone = _still_waiting(database, delivered)
    accepted = "UPDATE known SET status = 'accepted', at = ? WHERE message_id = ?"
    database.executemany(accepted, [(at, message_id) for _, message_id in gone])
    database.executemany("DELETE FROM waiting WHERE cursor = ?", [(cursor,) for cursor, _ in gone])
    for waiting, reason, text, attempts in dead:
        for cursor, message_id in _still_waiting(database, [waiting]):
            database.execute(_DIE, (at, reason, text, attempts, cursor))
            database.execute("DELETE FROM waiting WHERE cursor = ?", (cursor,))
            database.execute("DELETE FROM known WHERE message_id = ?", (message_id,))


def _still_waiting(database: sqlite3.Connection, entries: Sequence[Waiting]) -> Sequence[tuple[int, str]]:
    places = dict.fromkeys((_number(each.cursor), each.entry.message_id) for each in entries)
    return [place for place in places if database.execute(_STILL, place).fetchone()]


def _dead(
    database: sqlite3.Connection, after: int, limit: int, message_ids: Sequence[str] | None
) -> Sequence[Sequence[Any]]:
    if message_ids is None:
        return database.execute(_DEAD, (after, limit)).fetchall()
    found = (database.execute(_PLACES, (each, after, limit)) for each in dict.fromkeys(message_ids))
    places = sorted(chain.from_iterable(found))[:limit]
    rows = (database.execute(_LETTER, place).fetchone() for place in places)
    return [row for row in rows if row]  # another process may have discarded one meanwhile


def _retried(database: sqlite3.Connection, message_ids: Sequence[str] | None, at: int, oldest: int) -> int:
    if message_ids is None:
        last = database.execute(_LAST_LETTERS).fetchall()
    else:
        found = (database.execute(_LAST_LETTER, (each,)).fetchone() for each in dict.fromkeys(message_ids))
        last = sorted(row for row in found if row)
    rising = [cursor for cursor, message_id in last if _known(database, message_id, oldest) is None]
    for statement in (_RISE, _NOTE_RISEN):
        database.executemany(statement, [(at, cursor) for cursor in rising])
    database.executemany("DELETE FROM dead WHERE cursor = ?", [(cursor,) for cursor in rising])
    return len(rising)


def _discarded(database: sqlite3.Connection, message_ids: Sequence[str]) -> int:
    return sum(_discard(database, each) for each in dict.fromkeys(message_ids))


def _discard(database: sqlite3.Connection, message_id: str) -> int:
    """How many are gone: its dead letters, or else what waits."""
    if letters := database.execute("DELETE FROM dead WHERE message_id = ?", (message_id,)).rowcount:
        return letters
    database.execute("DELETE FROM known WHERE message_id = ? AND status = 'queued'", (message_id,))
    return database.execute("DELETE FROM waiting WHERE message_id = ?", (message_id,)).rowcount


def _newest(database: sqlite3.Connection) -> int:
    """The last place that was ever given."""
    row = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'waiting'").fetchone()
    return int(row[0]) if row else 0


def _number(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not _CURSOR.fullmatch(cursor):
        raise OUTBOX.bad_cursor()
    return int(cursor)


def _letter(
    cursor: int,
    died_at: int,
    reason: str,
    text: str,
    attempts: int,
    accepted_at: int,
    message_id: str,
    source: str,
    body: bytes,
) -> Dead:
    times = (moment_of(accepted_at), moment_of(died_at))
    return Dead(message_id, source, body, reason, text, attempts, *times, str(cursor))

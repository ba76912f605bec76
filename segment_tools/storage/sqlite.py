"""What an inbox and an outbox in a SQLite file have in common: the thread that works on it, leases, and waiting."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from segment_tools.storage.kind import Kind
from segment_tools.storage.moments import LONGEST_LEASE_SECONDS, Clock, microseconds
from segment_tools.storage.sqlite_file import MEMORY, Schema, opened
from segment_tools.storage.worker import Worker

LEASES = "CREATE TABLE leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until INTEGER NOT NULL) WITHOUT ROWID"
"""Of the schema of every kind."""

_LEASE = """
    INSERT INTO leases (name, holder, until) VALUES (?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
    WHERE holder = excluded.holder OR until NOT BETWEEN ? AND ?
"""


class SqliteStore:
    """A SQLite file that several processes may share, or memory (`:memory:`); opened when it is first needed."""

    def __init__(self, path: str | Path, kind: Kind, schema: Schema, clock: Clock) -> None:
        self._place = str(path) if str(path) == MEMORY else str(Path(path).expanduser())
        self._kind = kind
        self._schema = schema
        self._clock = clock
        self._worker = Worker(self._opened, self._place, kind)
        self._waiters: set[asyncio.Event] = set()

    async def aclose(self) -> None:
        """Wake who waits, do what was begun, and let go of the file."""
        self._worker.end()
        self._wake()
        await self._worker.ended()

    def _opened(self) -> sqlite3.Connection:
        """In the worker's thread: what it raises, whoever waits gets."""
        return opened(self._place, self._kind, self._schema)

    async def _leased(self, name: str, holder: str, seconds: float) -> bool:
        at = microseconds(self._clock())
        longest = at + round(LONGEST_LEASE_SECONDS * 1e6)
        values = (name, holder, min(at + round(seconds * 1e6), longest), at + 1, longest)
        return await self._worker.write(lambda database: database.execute(_LEASE, values).rowcount == 1)

    async def _found(self, look: Callable[[], Awaitable[bool]], seconds: float, between: float) -> bool:
        """Whether looking finds something before the time is up, looking again when woken and every so often."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not self._worker.closed:
            event = asyncio.Event()
            self._waiters.add(event)  # before looking, so that nothing falls in between
            try:
                if await look():
                    return True
                left = end - loop.time()
                if left <= 0:
                    return False
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left, between)):
                        await event.wait()
            finally:
                self._waiters.discard(event)
        return False

    def _wake(self) -> None:
        for event in self._waiters:
            event.set()

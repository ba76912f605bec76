"""How one thread works on a SQLite file: it commits together what waits to be written, and tells each afterwards."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from segment_tools.errors import Unavailable
from segment_tools.storage.kind import Kind
from segment_tools.storage.open_file import OpenFile
from segment_tools.storage.sqlite_file import MEMORY, cure

_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item")
Work = Callable[[sqlite3.Connection], _Answer]

_GONE = "It was deleted, replaced or emptied while it was in use. Try again: it is opened anew, or made."


Joined = Callable[[sqlite3.Connection, Sequence[_Item]], Sequence[_Answer | Exception]]
"""Does for several, in order, what each asked for: every statement makes the thread wait for the interpreter."""


@dataclass(frozen=True, slots=True)
class _Job:
    work: Work[Any]
    writes: bool
    told: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    joined: Joined[Any, Any] | None = None
    item: Any = None


class Worker:
    """One thread, begun when it is first needed, with a connection of its own that nobody else touches.

    Where the file at the path is no longer the one that was opened, those who wait are told so, and the next opens it
    anew. Nobody is told that something is kept in a file that is gone.
    """

    def __init__(self, opened: Callable[[], sqlite3.Connection], path: str, kind: Kind) -> None:
        self._opened = opened
        self._path = path
        self._kind = kind
        self._file: OpenFile | None = None
        self._database: sqlite3.Connection | None = None
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._end: Future[None] = Future()
        self.closed = False

    async def read(self, work: Work[_Answer]) -> _Answer:
        """What the work finds."""
        return await self._done(_Job(work, writes=False))

    async def write(self, work: Work[_Answer]) -> _Answer:
        """What the work comes to, once it is on disk. Where it raises, nothing of it is kept."""
        return await self._done(_Job(work, writes=True))

    async def join(self, joined: Joined[_Item, _Answer], item: _Item) -> _Answer:
        """As `write`, in one go with those who wait with the same function meanwhile."""
        job = _Job(partial(_alone, joined, item), writes=True, joined=joined, item=item)
        return await self._done(job)

    def end(self) -> None:
        """Take nothing more; what waits is still done, and then the file closed."""
        if not self.closed:
            self.closed = True
            self._queue.put(None)
            self._begin()

    async def ended(self) -> None:
        """Wait for the end that was asked for."""
        await asyncio.shield(asyncio.wrap_future(self._end))

    async def _done(self, job: _Job) -> Any:
        if self.closed:
            raise self._kind.unavailable("file, which was let go of,")
        self._queue.put(job)
        self._begin()
        try:
            return await job.told
        except (sqlite3.Error, OSError) as error:
            raise self._kind.unavailable("file", cure(error, self._kind)) from error

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"segment-{self._kind.name}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        open_ = True
        while open_:
            taken = list(self._taken())
            open_ = None not in taken
            self._do([job for job in taken if job and not job.told.cancelled()])
        if self._database:
            self._database.close()
        self._end.set_result(None)

    def _taken(self) -> Iterator[_Job | None]:
        """Everything that waits, and something at least."""
        yield self._queue.get()
        try:
            while True:
                yield self._queue.get_nowait()
        except Empty:
            return

    def _do(self, jobs: Sequence[_Job]) -> None:
        if not jobs:
            return
        try:
            database = self._connection()
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            _tell(jobs, [error] * len(jobs))
            return
        reads, writes = ([job for job in jobs if job.writes is kind] for kind in (False, True))
        for job in reads:
            _tell([job], [_outcome(database, job)])
        if writes:
            _tell(writes, self._kept(database, writes))

    def _connection(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = self._opened()
            self._file = None if self._path == MEMORY else OpenFile.of(self._path)
        self._see_the_file(self._database)
        return self._database

    def _kept(self, database: sqlite3.Connection, jobs: Sequence[_Job]) -> Sequence[Any]:
        outcomes = _committed(database, jobs)
        try:
            self._see_the_file(database)
        except Unavailable as error:
            return [error] * len(jobs)
        return outcomes

    def _see_the_file(self, database: sqlite3.Connection) -> None:
        if self._file and not self._file.is_there():
            self._database = None
            self._file.let_go(database)
            raise self._kind.unavailable("file", _GONE)


def _tell(jobs: Sequence[_Job], outcomes: Sequence[Any]) -> None:
    """Wake each event loop once, for all in it who waited."""
    told: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for job, outcome in zip(jobs, outcomes, strict=True):
        told.setdefault(job.told.get_loop(), []).append((job.told, outcome))
    for loop, answers in told.items():
        with suppress(RuntimeError):  # a loop that is closed has nobody who waits
            loop.call_soon_threadsafe(_answer, answers)


def _answer(answers: Sequence[tuple["asyncio.Future[Any]", Any]]) -> None:
    for future, outcome in answers:
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _outcome(database: sqlite3.Connection, job: _Job) -> Any:
    try:
        return job.work(database)
    except Exception as error:  # noqa: BLE001 - whoever waits gets it
        return error


def _committed(database: sqlite3.Connection, jobs: Sequence[_Job]) -> Sequence[Any]:
    """What each comes to, all of them in one transaction: a commit waits for the disk, however much is in it."""
    try:
        database.execute("BEGIN IMMEDIATE")
        outcomes = [outcome for group in _groups(jobs) for outcome in _together(database, group)]
        database.execute("COMMIT")
    except sqlite3.Error as error:
        if database.in_transaction:
            database.execute("ROLLBACK")
        return [error] * len(jobs)
    return outcomes


def _groups(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Those that follow each other and may be done in one go."""
    for joined, group in groupby(jobs, lambda job: job.joined):
        if joined is None:
            yield from ([job] for job in group)
        else:
            yield list(group)


def _together(database: sqlite3.Connection, jobs: Sequence[_Job]) -> Sequence[Any]:
    """What each comes to; where one of several fails them all, each is done by itself."""
    joined = jobs[0].joined
    if joined is not None and len(jobs) > 1:
        items = [job.item for job in jobs]
        outcomes = _apart(database, _Job(lambda found: joined(found, items), writes=True, told=jobs[0].told))
        if not isinstance(outcomes, Exception):
            return outcomes
    return [_apart(database, job) for job in jobs]


def _alone(joined: Joined[_Item, _Answer], item: _Item, database: sqlite3.Connection) -> _Answer:
    (outcome,) = joined(database, [item])
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _apart(database: sqlite3.Connection, job: _Job) -> Any:
    """What it comes to within the transaction, where its failing must not undo the others."""
    database.execute("SAVEPOINT job")
    outcome = _outcome(database, job)
    if isinstance(outcome, Exception):
        # Where the disk is full, SQLite has undone everything by itself, and this raises.
        database.execute("ROLLBACK TO job")
    database.execute("RELEASE job")
    return outcome

"""The rows of one partition written to Segment, in the process where Spark runs the task."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from traceback import extract_tb
from typing import Any

import msgspec

from segment_tools.bulk.checkpoint import State
from segment_tools.bulk.lanes import LANES
from segment_tools.bulk.naming import Naming
from segment_tools.bulk.partition import Manner, Partition
from segment_tools.bulk.reading import aside
from segment_tools.bulk.rows import Block, Judge, Rejection
from segment_tools.bulk.spark.engine import partition_id
from segment_tools.bulk.spark.fingerprint import Fingerprint, Mark
from segment_tools.bulk.spark.progress import Known, Progress
from segment_tools.bulk.spark.refused import RefusedRows
from segment_tools.bulk.spark.report import MOST_REJECTIONS, RejectedRow, Report, Totals
from segment_tools.bulk.spark.table import Shape, Table, shape_of
from segment_tools.client import Segment
from segment_tools.errors import InvalidMessage, NotConfigured, SegmentError
from segment_tools.sending import Means, Route, route_of
from segment_tools.settings import Settings
from segment_tools.spec.timestamps import iso_utc


def write_segment(
    name: str,
    settings: Settings | None = None,
    *,
    env_file: str | None = None,
    source: str | None = None,
    map: Mapping[str, str] | None = None,  # noqa: A002 - as the command calls it
    type: str | None = None,  # noqa: A002 - as the command calls it
    constants: Mapping[str, Any] | None = None,
    id: str | Sequence[str] | None = None,  # noqa: A002 - what it is
    schema: Any = None,
    ordered: bool = True,
    dry_run: bool = False,
    checkpoints: str | Path | None = None,
    rejected: str | Path | None = None,
    report: Report | None = None,
) -> "Writer":
    """What `df.foreachPartition` takes to send the DataFrame's rows as messages.

    `name` is the import's: rows that are sent again under the same name have the same messageIds. Without `settings`
    the executors read those of their own environment, or of `env_file` there; given ones travel with the task.
    `map`, `type` and `constants` are `--map`, `--type` and `--set` of `segment-tools import`; columns that are named as
    fields, `properties` and the other objects among them, map themselves. `id` names the columns that tell a row from
    all others, to make its messageId of. `schema` is the DataFrame's: with it columns are looked for here, and
    timestamps without a zone are known as such. `checkpoints` and `rejected` are folders that all executors share, of
    this import alone. `report` tells in the end what became of the rows.

    Raises:
        NotConfigured: something of this is wrong.
    """
    if not name.strip():
        raise NotConfigured("name", "The import has no name.", hint='Name it, such as "orders-2026-11".')
    if settings is not None and env_file is not None:
        hint = "Pass settings=Settings.from_env(FILE) for a file of the driver, or env_file= for one of the executors."
        raise NotConfigured("env_file", "settings= and env_file= exclude each other.", hint=hint)
    shape = shape_of(map or {}, constants or {}, type, [id] if isinstance(id, str) else (id or ()), schema)
    manner = Manner(ordered=ordered, dry_run=dry_run)
    taken = None if settings is None else _travelling(settings)
    writer = Writer(
        name,
        shape,
        manner,
        source,
        _folder("checkpoints", checkpoints),
        _folder("rejected", rejected),
        env_file,
        taken,
        report.totals if report else None,
    )
    if taken is not None:
        _route(taken, source, manner)
    return writer


@dataclass(frozen=True, slots=True)
class Writer:
    """Sends the rows that it is called with as those of the running task's partition."""

    name: str
    shape: Shape
    manner: Manner
    source: str | None
    checkpoints: Path | None
    rejected: Path | None
    env_file: str | None
    settings: Settings | None = field(repr=False)
    """None: the executor's own."""
    totals: Any = field(repr=False)
    """The accumulator of a report."""

    def __call__(self, rows: Iterable[Any]) -> None:
        """Return once all rows were answered.

        Raises:
            SegmentError: they could not be sent; without keys and people's data in its text.
        """
        partition = partition_id()
        try:
            totals = asyncio.run(self._write(_from_spark(rows), partition))
        except _Upstream as error:
            raise error.cause from None
        except SegmentError as error:
            raise error from None
        except Exception as error:  # noqa: BLE001 - Spark shows whatever ends a task
            raise _unforeseen(error, partition) from None
        if self.totals is not None:
            self.totals.add(totals)

    def preview(self, rows: Iterable[Any], count: int = 3) -> list[dict[str, Any]]:
        """The first rows as messages, on the driver: `preview(df.take(3))`; nothing is judged or sent.

        Raises:
            NotConfigured: the mapping does not fit the rows.
            InvalidMessage: a row has a value that no message can have.
        """
        found: list[dict[str, Any]] = []
        for block in Table(self.shape, self.name).blocks(islice(rows, count)):
            for at, row in enumerate(block.rows):
                if problem := block.unread.get(at):
                    raise InvalidMessage([replace(problem, index=block.number(at) - 1)])
                found.append(msgspec.json.decode(row))
        return found

    async def _write(self, rows: Iterator[Any], partition: int) -> Totals:
        settings = self.settings or Settings.from_env(self.env_file)
        manner = replace(self.manner, dry_run=self.manner.dry_run or settings.dry_run)
        route = _route(settings, self.source, manner)
        segment = Segment(settings)
        try:
            task = _Task(self, segment.means, route, manner, partition)
            return await task.run(rows)
        finally:
            await segment.aclose()


class _Task:
    """One attempt at one partition."""

    def __init__(self, writer: Writer, means: Means, route: Route, manner: Manner, partition: int) -> None:
        self._writer, self._means, self._route = writer, means, route
        self._manner, self._partition = manner, partition
        self._table = Table(writer.shape, writer.name, route.write_key)
        kept = writer.checkpoints if not manner.dry_run else None
        self._progress = Progress(kept, partition) if kept else None
        self._of = _identity(writer, means, route, manner, partition)
        self._print = Fingerprint()
        self._marks = deque([Mark()])
        """At the ends of blocks: first that of all rows that are done with, or a few more, last that of all so far."""
        self._due: dict[int, Mark] = {}
        """Those that the checkpoint has, by their numbers of rows."""
        self._first: list[RejectedRow] = []
        self._refused: RefusedRows | None = None

    async def run(self, rows: Iterator[Any]) -> Totals:
        """Send the rows that no earlier attempt has sent; what became of all."""
        known = self._known()
        if known and known.state.finished:
            return await asyncio.to_thread(self._before, known, rows)
        state = known.state if known else State(iso_utc(self._means.outside.now()))
        resumed = state.counts.accepted + state.counts.rejected
        if self._writer.rejected:
            before = known.refused if known else ""
            self._refused = RefusedRows(self._writer.rejected, self._partition, before, state.rejected_bytes)
        ended = False
        try:
            await self._partition_of(state).run(self._blocks(rows))
            if self._refused:
                self._refused.finish()
            state.finished = ended = True
            self._keep(state)
        finally:
            if self._refused and not ended:
                self._refused.leave(known=self._progress is not None)
            if self._progress:
                self._progress.write()
        return self._totals(state, resumed)

    def _known(self) -> Known | None:
        known = self._progress.known() if self._progress else None
        if known is None or self._progress is None:
            return None
        if changed := [text for name, text in _CHANGES.items() if known.of.get(name) != self._of[name]]:
            hint = "Name another folder in checkpoints=, or delete this one to begin anew."
            raise NotConfigured("checkpoints", f"{self._progress.path}: {changed[0]}.", hint=hint)
        self._first = [RejectedRow(**each) for each in known.first]
        self._due = {mark.rows: mark for mark in (known.early, known.mark)}
        return known

    def _partition_of(self, state: State) -> Partition:
        means, route = self._means, self._route
        naming = Naming(_name_of(self._writer.name, self._partition), route.write_key)
        judge = Judge(means.settings, means.outside, means.sender, means.guard, naming, state.began)
        return Partition(means, route, judge, state, reject=self._reject, keep=self._keep, manner=self._manner)

    async def _reject(self, more: Sequence[Rejection]) -> int:
        length = await aside(partial(self._refused.add, more)) if self._refused else 0
        room = MOST_REJECTIONS - len(self._first)
        self._first += [RejectedRow.of(self._partition, each) for each in more[:room]]
        return length

    def _keep(self, state: State) -> None:
        marks = self._marks
        while len(marks) > 1 and marks[0].rows < max(1, state.done):
            marks.popleft()
        # Until all that the state speaks of was seen to be the same, what is sent on need not be so.
        if self._progress and marks[-1].rows >= max(self._due, default=0):
            first = [msgspec.to_builtins(each) for each in self._first]
            refused = self._refused.name if self._refused else ""
            self._progress.keep(Known(self._of, state, marks[0], marks[-1], first, refused))

    async def _blocks(self, rows: Iterator[Any]) -> AsyncGenerator[Block]:
        """The rows, read beside what else goes on; Spark may take its time with each."""
        marked = self._marked(rows)
        while found := await asyncio.to_thread(next, marked, None):
            block, mark = found
            self._marks.append(mark)
            yield block

    def _marked(self, rows: Iterator[Any]) -> Iterator[tuple[Block, Mark]]:
        """The rows, with the mark of all up to their end.

        Raises:
            NotConfigured: they are not those that the checkpoint speaks of, or come in another order.
        """
        due = self._due
        for block in self._table.blocks(rows):
            for row in block.rows:
                self._print.add(row)
                if self._print.rows in due and self._print.mark != due[self._print.rows]:
                    raise self._other_rows()
            yield block, self._print.mark
        if self._print.rows < max(due, default=0):
            raise self._other_rows()

    def _before(self, known: Known, rows: Iterator[Any]) -> Totals:
        """Of a partition that an earlier task has sent whole, if it was these rows, in whatever order."""
        for block in self._table.blocks(rows):
            for row in block.rows:
                self._print.add(row)
        mark = self._print.mark
        if (mark.rows, mark.content) != (known.mark.rows, known.mark.content):
            raise self._other_rows(finished=True)
        counts = known.state.counts
        return replace(self._totals(known.state, counts.accepted + counts.rejected), before=1)

    def _other_rows(self, *, finished: bool = False) -> NotConfigured:
        where = f"Partition {self._partition}"
        if finished:
            text = f"{where} was sent before, and its rows were others."
            hint = "Pass the DataFrame of then, partitioned in the same way, or another name and folder of checkpoints."
            return NotConfigured("checkpoints", text, hint=hint)
        text = f"{where} does not begin with the rows that were sent before, or has them in another order."
        if self._progress and self._writer.shape.own_ids:
            self._progress.forget()
            hint = "Its checkpoint is dropped: the next attempt begins anew, and each row keeps its messageId."
        else:
            hint = (
                "Sort the rows (sortWithinPartitions) or name the columns that tell them apart in id=, and begin "
                "anew: delete the folder of checkpoints=."
            )
        return NotConfigured("checkpoints", text, hint=hint)

    def _totals(self, state: State, resumed: int) -> Totals:
        unused = frozenset(self._table.unused)
        return Totals(1, 0, resumed, state.counts, tuple(sorted(self._first)), unused)


class _Upstream(Exception):
    """What Spark, or a function of its user's, met with while it made the rows."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


def _from_spark(rows: Iterable[Any]) -> Iterator[Any]:
    """The rows; what keeps them from coming is not ours, and told as it is."""
    try:
        yield from rows
    except Exception as error:  # noqa: BLE001 - it is raised again
        raise _Upstream(error) from None


def _unforeseen(error: Exception, partition: int) -> SegmentError:
    """An error that nobody foresaw, by its kind and place: its text may have somebody's data in it."""
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in extract_tb(error.__traceback__)[-4:]]
    text = f"Partition {partition} ended by {type(error).__name__} at {' > '.join(places)}."
    return SegmentError(text, hint="This is a fault of segment-tools: please report it.")


def _route(settings: Settings, source: str | None, manner: Manner) -> Route:
    if settings.read_only:
        raise NotConfigured("SEGMENT_READ_ONLY", "SEGMENT_READ_ONLY is on: nothing is sent.", hint="Switch it off.")
    try:
        return route_of(settings, source, None)
    except InvalidMessage as error:
        raise NotConfigured("source", error.message, hint=error.hint) from None
    except NotConfigured:
        if manner.dry_run:
            return Route("", "")
        hint = "Set it in the executors' environment, or pass settings=Settings.from_env() to send the driver's along."
        raise NotConfigured("SEGMENT_WRITE_KEY", "No write key is configured.", hint=hint) from None


def _travelling(settings: Settings) -> Settings:
    """The settings without the secrets that nothing here needs."""
    unneeded: dict[str, Any] = {"profile_token": None, "webhook_secret": None}
    if not (settings.segment_plan and settings.checks_plan):
        unneeded["public_api_token"] = None
    return settings.model_copy(update=unneeded)


def _folder(argument: str, given: str | Path | None) -> Path | None:
    """Where the executors see the folder.

    Raises:
        NotConfigured: it is an address, which is no path.
    """
    if given is None:
        return None
    scheme, separator, rest = str(given).partition("://")
    if separator and scheme != "file":
        hint = "Pass the path at which executors have it mounted, such as /dbfs/... or /mnt/...."
        raise NotConfigured(argument, f"{argument}= is an address ({scheme}://), not a folder.", hint=hint)
    return Path(rest if separator else given)


def _name_of(name: str, partition: int) -> str:
    """What names the rows of a partition; a path in the import's name counts whole."""
    return f"spark-{blake2b(name.encode(errors='surrogatepass'), digest_size=16).hexdigest()}-{partition}"


def _identity(writer: Writer, means: Means, route: Route, manner: Manner, partition: int) -> dict[str, Any]:
    """What a partition is, and under which ids and in which order its rows are sent."""
    where = f"{means.settings.endpoint if not manner.dry_run else ''}\0{route.write_key}"
    return {
        "name": _digest(_name_of(writer.name, partition)),
        "shape": _digest(str(writer.shape)),
        "source": _digest(where),
        "ordered": manner.ordered,
        "lanes": LANES,
    }


def _digest(text: str) -> str:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()


_CHANGES = {
    "name": "it is of an import with another name",
    "shape": "it began with another mapping",
    "source": "it began with another source or data plane",
    "ordered": "it began with another order (ordered=)",
    "lanes": "it was begun by another version of segment-tools",
}

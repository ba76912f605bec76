"""Files imported: each with its checkpoint and its file of refused rows, from where an earlier run stopped."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from segment_tools.bulk.checkpoint import Checkpoint, State
from segment_tools.bulk.counts import Counts
from segment_tools.bulk.lanes import LANES
from segment_tools.bulk.lines import blocks_of_lines
from segment_tools.bulk.mapping import NO_COLUMNS, Columns
from segment_tools.bulk.naming import Naming, plain_name
from segment_tools.bulk.opening import Format, Opened, opened
from segment_tools.bulk.partition import ORDERED, Manner, Partition
from segment_tools.bulk.reading import Reading, at_once
from segment_tools.bulk.rejections import RejectedRows
from segment_tools.bulk.rows import Block, Judge, Rejection
from segment_tools.bulk.tables import CsvTable, ParquetTable, blocks_of_table, rows_of_lines
from segment_tools.errors import NotConfigured
from segment_tools.sending import Means, Route
from segment_tools.spec.timestamps import iso_utc

FIRST_REJECTIONS = 10
"""How many refused rows a result repeats."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How files are imported."""

    route: Route
    columns: Columns = NO_COLUMNS
    format: Format | None = None
    manner: Manner = ORDERED
    limit: int | None = None
    """To how many rows of each file; None: all."""
    again: bool = False
    """Whether to begin anew, whatever was imported before."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where an import leaves what belongs to it; None: nowhere."""

    checkpoint: Path | None
    rejected: Path | None
    name: str
    """What the checkpoint calls the file: beside it, its own name, so that both may be moved together."""

    @staticmethod
    def beside(file: Path) -> "Places":
        """Beside the file."""
        return Places(
            file.with_name(f"{file.name}.checkpoint"),
            file.with_name(f"{plain_name(file.name)}.rejected.jsonl"),
            file.name,
        )


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one file."""

    counts: Counts
    first: tuple[Rejection, ...]
    """The first rows that this run refused."""
    rejected: Path | None
    """The file of all of them; None where there is none."""
    resumed: int = 0
    """How many rows an earlier run had done with."""
    before: bool = False
    """Whether all of it was imported before, so that nothing was done."""


Watch = Callable[[Partition, Opened], None]
"""Told of an import that begins, to look at it now and then."""


def unwatched(_: Partition, __: Opened) -> None:
    """For who does not look."""


async def import_file(
    means: Means,
    name: str,
    file: BinaryIO,
    plan: Plan,
    places: Places,
    watch: Watch = unwatched,
    reading: Reading = at_once,
) -> Imported:
    """Send the rows of an open file as messages; `reading` says where they are read.

    Whatever ends it, the same call goes on where this one stopped, if there is a checkpoint: what was under way is sent
    again with the same messageIds.

    Raises:
        NotConfigured: the file, the mapping or the checkpoint cannot be used, or do not fit together.
        InvalidMessage: the first refused row, where the plan is strict.
        Unauthorized, Rejected, Unavailable: Segment does not take the messages.
    """
    with opened(name, file, plan.format) as source:
        rows, _ = table_of(source, plan.columns)
        settings = means.settings
        kept = places.checkpoint if not (plan.manner.dry_run or settings.dry_run) else None
        checkpoint = Checkpoint(kept) if kept else None
        try:
            return await _imported(means, source, rows, _dry(plan, means), places, checkpoint, watch, reading)
        finally:
            if checkpoint:
                checkpoint.close()


def _dry(plan: Plan, means: Means) -> Plan:
    return replace(plan, manner=replace(plan.manner, dry_run=True)) if means.settings.dry_run else plan


async def _imported(
    means: Means,
    source: Opened,
    rows: Iterator[Block],
    plan: Plan,
    places: Places,
    checkpoint: Checkpoint | None,
    watch: Watch,
    reading: Reading,
) -> Imported:
    of, key = _identity(source, plan, means), places.name
    known = checkpoint.known(key) if checkpoint and not plan.again else None
    if known:
        _check_same(known[0], of, source)
    state = known[1] if known else State(iso_utc(means.outside.now()))
    if state.finished:
        return Imported(state.counts, (), _if_any(places, state), state.read, before=True)
    resumed = state.done
    refused = RejectedRows(places.rejected, state.rejected_bytes) if places.rejected else None
    first: list[Rejection] = []

    def reject(more: Sequence[Rejection]) -> int:
        first.extend(more[: FIRST_REJECTIONS - len(first)])
        return refused.add(more) if refused else 0

    def keep(now: State) -> None:
        if checkpoint:
            checkpoint.keep(key, of, now)

    naming = Naming(source.name, plan.route.write_key)
    judge = Judge(means.settings, means.outside, means.sender, means.guard, naming, state.began)
    partition = Partition(means, plan.route, judge, state, reject=reject, keep=keep, manner=plan.manner)
    watch(partition, source)
    try:
        await partition.run(reading(_limited(rows, plan.limit)))
        state.finished = plan.limit is None
        keep(state)
    finally:
        if refused:
            refused.close()
    return Imported(state.counts, tuple(first), _if_any(places, state), resumed)


def table_of(source: Opened, columns: Columns) -> tuple[Iterator[Block], list[str]]:
    """The file's rows as messages, and the columns of a table that become nothing.

    Raises:
        NotConfigured: the file is none, or lacks a column that is mapped.
    """
    if source.format == "jsonl":
        if not columns.given:
            return blocks_of_lines(source.stream), []
        return blocks_of_table(rows_of_lines(source.stream), columns), []
    table = CsvTable(source.stream) if source.format == "csv" else ParquetTable(source.raw)
    whole = columns.for_columns(table.columns)
    return blocks_of_table(table.rows(), whole), whole.unused(table.columns)


def _limited(blocks: Iterator[Block], most: int | None) -> Iterator[Block]:
    """The blocks, up to so many rows."""
    left = most
    for block in blocks:
        if left is None:
            yield block
            continue
        if left <= 0:
            return
        if len(block.rows) > left:
            numbers = block.numbers[:left] if block.numbers is not None else None
            block = replace(block, rows=block.rows[:left], numbers=numbers)  # noqa: PLW2901 - the last of them
        left -= len(block.rows)
        yield block


def preview(name: str, file: BinaryIO, plan: Plan, count: int) -> tuple[list[tuple[int, bytes]], list[str]]:
    """The first rows as messages, by number, and the table's columns that become nothing.

    Raises:
        NotConfigured: as `import_file`.
    """
    with opened(name, file, plan.format) as source:
        rows, unused = table_of(source, plan.columns)
        found = ((block.number(at), row) for block in rows for at, row in enumerate(block.rows))
        return list(islice(found, count)), unused


def _identity(source: Opened, plan: Plan, means: Means) -> dict[str, Any]:
    """What an import is of: what is sent under the same ids, and in which order."""
    where = f"{means.settings.endpoint if not plan.manner.dry_run else ''}\0{plan.route.write_key}"
    return {
        "file": source.print,
        "mapping": str(plan.columns),
        "source": blake2b(where.encode(errors="surrogatepass"), digest_size=16).hexdigest(),
        "ordered": plan.manner.ordered,
        "lanes": LANES,
    }


_CHANGES = {
    "file": "The file has changed since its import began",
    "mapping": "The mapping is not the one that the import began with",
    "source": "The import began with another source or data plane",
    "ordered": "The import began with another order (--unordered)",
    "lanes": "The import was begun by another version of segment-tools",
}


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], source: Opened) -> None:
    changed = [text for name, text in _CHANGES.items() if before.get(name) != now[name]]
    if changed:
        hint = "Import it with --again from its beginning: rows that are the same keep their messageIds."
        raise NotConfigured("--again", f"{source.name}: {changed[0]}.", hint=hint)


def _if_any(places: Places, state: State) -> Path | None:
    return places.rejected if state.counts.rejected else None

"""Files imported: each with its checkpoint and its file of refused rows, from where an earlier run stopped."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from os.path import samestat
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from segment_tools.bulk.checkpoint import Checkpoint, State
from segment_tools.bulk.counts import Counts
from segment_tools.bulk.damage import Damaged
from segment_tools.bulk.lanes import LANES
from segment_tools.bulk.lines import blocks_of_lines
from segment_tools.bulk.mapping import NO_COLUMNS, ByNames, Columns, kinds
from segment_tools.bulk.naming import Naming
from segment_tools.bulk.opening import Format, Opened, opened
from segment_tools.bulk.partition import ORDERED, Manner, Partition
from segment_tools.bulk.reading import Reading, aside, at_once
from segment_tools.bulk.rejections import REJECTED, RejectedRows
from segment_tools.bulk.rows import Block, Judge, Rejection
from segment_tools.bulk.tables import CsvTable, ParquetTable, blocks_of_table, rows_of_lines
from segment_tools.bulk.underway import UnderWay
from segment_tools.errors import InvalidMessage, NotConfigured, Problem
from segment_tools.sending import Means, Route
from segment_tools.spec.timestamps import iso_utc

FIRST_MESSAGES = 3
"""How many messages the result of a dry run shows."""

_INPUT_CHARACTERS = 12
"""Ours: of a digest, as many as tell one person's inputs apart."""

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
    told: str = ""
    """What the file of rejected rows calls it, if not so."""
    folders: str = ""
    """What tells its rows from those of another file of its name: they are named by it, too."""

    @staticmethod
    def beside(file: Path, *, dry_run: bool = False) -> "Places":
        """Beside the file; a dry run leaves what an import wrote there."""
        rejected = f"{file.name}{'.dry-run' if dry_run else ''}{REJECTED}"
        return Places(file.with_name(f"{file.name}.checkpoint"), file.with_name(rejected), file.name)

    def check(self, file: BinaryIO) -> None:
        """Return if what is left behind is not written over the file, nor over each other.

        Raises:
            NotConfigured: it would be.
        """
        for setting, path in (("--checkpoint", self.checkpoint), ("--rejected", self.rejected)):
            if path and _is_same(path, file):
                raise NotConfigured(setting, f"{path.name} is the file to be imported.", hint=_elsewhere(setting))
        if self.checkpoint and self.rejected and self.rejected.resolve() in _files_of(self.checkpoint.resolve()):
            raise NotConfigured(
                "--rejected", f"{self.rejected.name} belongs to the checkpoint.", hint=_elsewhere("--rejected")
            )


def _elsewhere(setting: str) -> str:
    return f"Name another place in {setting}."


def _is_same(path: Path, file: BinaryIO) -> bool:
    with suppress(OSError):
        return samestat(path.stat(), os.fstat(file.fileno()))
    return False


def _files_of(checkpoint: Path) -> list[Path]:
    """What SQLite may keep it in."""
    return [checkpoint.with_name(checkpoint.name + end) for end in ("", "-wal", "-shm", "-journal")]


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
    messages: tuple[tuple[int, bytes], ...] = ()
    """Of a dry run, the first messages as they would be sent, each with its row's number."""
    unused: tuple[str, ...] = ()
    """The columns that became nothing."""
    missing: tuple[str, ...] = ()
    """What is mapped, and no row had."""


Watch = Callable[[UnderWay], None]
"""Told of an import that begins, to look at it now and then."""


def unwatched(_: UnderWay) -> None:
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
        Damaged: the file cannot be read to its end; what is before that place was sent.
        StoppedAt: the first refused row, where the plan is strict.
        Unauthorized, Rejected, Unavailable: Segment does not take the messages.
    """
    places.check(file)
    with opened(name, file, plan.format) as source:
        table = table_of(source, plan.columns)
        _check_typed(table)
        settings = means.settings
        kept = places.checkpoint if not (plan.manner.dry_run or settings.dry_run) else None
        checkpoint = Checkpoint(kept) if kept else None
        try:
            return await _imported(means, source, table, _dry(plan, means), places, checkpoint, watch, reading)
        finally:
            if checkpoint:
                checkpoint.close()


def _dry(plan: Plan, means: Means) -> Plan:
    return replace(plan, manner=replace(plan.manner, dry_run=True)) if means.settings.dry_run else plan


async def _imported(
    means: Means,
    source: Opened,
    table: "Table",
    plan: Plan,
    places: Places,
    checkpoint: Checkpoint | None,
    watch: Watch,
    reading: Reading,
) -> Imported:
    key = places.name
    before = checkpoint.known(key) if checkpoint else None
    of = _identity(source, plan, means) | {"folders": _folders(places, before)}
    known = before if not plan.again else None
    if known and known[1].counts.accepted == 0 and known[0] != of:
        known = None  # Segment has nothing of it: what was wrong then binds nobody
    if known:
        _check_same(known[0], of)
    state = known[1] if known else State(iso_utc(means.outside.now()))
    if state.finished:
        return Imported(state.counts, (), _if_any(places, state.counts), state.read, before=True)
    resumed = state.done
    whose = _whose(source, plan, places)
    refused = RejectedRows(places.rejected, state.rejected_bytes, whose) if places.rejected else None
    first: list[Rejection] = []

    async def reject(more: Sequence[Rejection]) -> int:
        length = await aside(partial(refused.add, more)) if refused else 0
        first.extend(more[: FIRST_REJECTIONS - len(first)])
        return length

    def keep(now: State) -> None:
        if checkpoint:
            checkpoint.keep(key, of, now)

    naming = Naming(source.known_as, plan.route.write_key, of["folders"])
    judge = Judge(means.settings, means.outside, means.sender, means.guard, naming, state.began)
    partition = Partition(means, plan.route, judge, state, reject=reject, keep=keep, manner=plan.manner)
    under_way = UnderWay(partition, source.size if plan.limit is None else None)
    watch(under_way)
    begun: list[Block] = []
    blocks = _noted(_limited(table.rows, plan.limit), begun)
    try:
        await partition.run(reading(under_way.followed(blocks, table.position)))
        _check_unchanged(of, source)
        state.finished = plan.limit is None
        keep(state)
    finally:
        if refused:
            refused.close()
    done = replace(so_far(state.counts, places), first=tuple(first), resumed=resumed)
    done = replace(done, unused=tuple(table.unused), missing=tuple(table.missing()))
    return replace(done, messages=await _first_messages(judge, begun)) if plan.manner.dry_run else done


def _folders(places: Places, before: tuple[Mapping[str, Any], State] | None) -> str:
    """What the rows are named by beside the file's name: once Segment has any of them, what it was then."""
    return before[0].get("folders", "") if before and before[1].counts.accepted else places.folders


def _whose(source: Opened, plan: Plan, places: Places) -> dict[str, Any]:
    """How the lines of its rejected rows begin: what is read once only may be something else the next time."""
    which = {"input": source.head[:_INPUT_CHARACTERS]} if source.known_as != source.name else {}
    return {"file": places.told or places.name, **which, **({"dryRun": True} if plan.manner.dry_run else {})}


def _noted(blocks: Iterator[Block], begun: list[Block]) -> Iterator[Block]:
    """The blocks; the first of them is kept."""
    for block in blocks:
        if not begun:
            begun.append(block)
        yield block


async def _first_messages(judge: Judge, begun: Sequence[Block]) -> tuple[tuple[int, bytes], ...]:
    found: list[tuple[int, bytes]] = []
    for block in begun:
        for at in range(len(block.rows)):
            message, _ = await _judged(judge, block, at)
            if message is not None:
                found.append((block.number(at), message))
            if len(found) == FIRST_MESSAGES:
                break
    return tuple(found)


async def _judged(judge: Judge, block: Block, at: int) -> tuple[bytes | None, Problem | None]:
    """The row as it would be sent, or why it would be refused."""
    if problem := block.unread.get(at):
        return None, problem
    try:
        return (await judge.full(block.number(at), block.rows[at]))[1], None
    except InvalidMessage as error:
        return None, error.problems[0]


@dataclass(frozen=True, slots=True)
class Table:
    """A file's rows as messages."""

    rows: Iterator[Block]
    unused: list[str]
    """The columns that become nothing."""
    position: Callable[[], int]
    """How many bytes of the file were read."""
    typed: bool = True
    """Whether anything says what the rows become."""
    missing: Callable[[], list[str]] = list
    """What is mapped, and no row has had so far; of a table with a header, nothing."""


def table_of(source: Opened, columns: Columns) -> Table:
    """The file's rows as messages.

    Raises:
        NotConfigured: the file is none, or lacks a column that is mapped.
    """
    if source.format == "jsonl":
        if not columns.given:
            return Table(blocks_of_lines(source.stream), [], source.position)
        named = ByNames(columns)
        blocks = blocks_of_table(rows_of_lines(source.stream), named)
        return Table(blocks, named.unused, source.position, missing=lambda: named.missing)
    if source.format == "csv":
        table, position = CsvTable(source.stream), source.position
    else:
        table = parquet = ParquetTable(source.raw)

        def position() -> int:
            return int(parquet.share * (source.size or 0))

    whole = columns.for_columns(table.columns)
    return Table(blocks_of_table(table.rows(), whole), whole.unused(table.columns), position, whole.typed)


def _check_typed(table: Table) -> None:
    if not table.typed:
        first, *others = kinds()
        hint = f"Pass --type {first} (or {', '.join(others)}), or name the column that says it: --map type=COLUMN."
        raise NotConfigured("--type", "Nothing says what a row of the table becomes.", hint=hint)


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


@dataclass(frozen=True, slots=True)
class Preview:
    """A file's first rows as messages."""

    rows: list[tuple[int, bytes, Problem | None]]
    """Each with its number, and with why it would be refused."""
    unused: list[str]
    """The columns that become nothing."""
    missing: list[str]
    """What is mapped, and none of them has."""
    typed: bool
    """Whether anything says what the rows become."""
    damage: Damaged | None = None
    """Why there are no more of them."""


async def preview(means: Means, name: str, file: BinaryIO, plan: Plan, count: int) -> Preview:
    """The first rows of an open file.

    Raises:
        NotConfigured: as `import_file`.
    """
    with opened(name, file, plan.format) as source:
        table = table_of(source, plan.columns)
        naming = Naming(source.known_as, plan.route.write_key)
        began = iso_utc(means.outside.now())
        judge = Judge(means.settings, means.outside, means.sender, means.guard, naming, began)
        seen: list[tuple[int, bytes, Problem | None]] = []
        damage = None
        try:
            for block in _limited(table.rows, count):
                seen += [
                    (block.number(at), row, (await _judged(judge, block, at))[1])
                    for at, row in enumerate(block.rows)
                    if row and not row.isspace()
                ]
        except Damaged as error:
            damage = error
        return Preview(seen, table.unused, table.missing(), table.typed, damage)


def _identity(source: Opened, plan: Plan, means: Means) -> dict[str, Any]:
    """What an import is of: what is sent under the same ids, and in which order."""
    endpoint = means.settings.endpoint if not plan.manner.dry_run else ""
    where = f"{endpoint}\0{plan.route.write_key}"
    return {
        "at": urlsplit(endpoint).netloc.rpartition("@")[2],
        "file": source.print,
        "mapping": str(plan.columns),
        "source": blake2b(where.encode(errors="surrogatepass"), digest_size=16).hexdigest(),
        "ordered": plan.manner.ordered,
        "lanes": LANES,
    }


def _check_unchanged(began: Mapping[str, Any], source: Opened) -> None:
    if source.print != began["file"]:
        hint = "Import it with --again once it is whole: rows that are the same keep their messageIds."
        raise NotConfigured("FILE", "The file has changed while it was imported.", hint=hint)


_CHANGES = {
    "file": "The file has changed since its import began",
    "mapping": "The mapping is not the one that the import began with",
    "source": "The import began with another source or data plane",
    "ordered": "The import began with another order (--unordered)",
    "lanes": "The import was begun by another version of segment-tools",
}


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [name for name in _CHANGES if before.get(name) != now[name]]
    if changed:
        text = _CHANGES[changed[0]]
        if changed[0] == "source" and (began := before.get("at")) and began != now["at"]:
            text = f"The import began at {began}, and this one is for {now['at']}"
        hint = "Import it with --again from its beginning: rows that are the same keep their messageIds."
        raise NotConfigured("--again", f"{text}.", hint=hint)


def _if_any(places: Places, counts: Counts) -> Path | None:
    return places.rejected if counts.rejected else None


def so_far(counts: Counts, places: Places) -> Imported:
    """What has become of a file, of whose import these are the counts."""
    return Imported(counts, (), _if_any(places, counts))

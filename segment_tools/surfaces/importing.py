"""The command that imports files: shows what would be sent, asks, sends, and says what became of it."""

import asyncio
import gc
import glob
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from segment_tools.bulk.counts import Counts
from segment_tools.bulk.files import Imported, Places, Plan, import_file, preview
from segment_tools.bulk.mapping import mapping_of
from segment_tools.bulk.partition import Manner
from segment_tools.bulk.results import numbers, shown
from segment_tools.bulk.rows import StoppedAt
from segment_tools.client import Segment
from segment_tools.errors import InvalidMessage, NotConfigured, SegmentError
from segment_tools.sending import Route, route_of
from segment_tools.settings import Settings
from segment_tools.surfaces.import_progress import watching

STDIN = "-"
SHOWN_ROWS = 3
_GOES_ON = "The same command goes on there."
DONE, SOME_REJECTED, NOT_RUN, INTERRUPTED = 0, 1, 2, 130


def run(given: Namespace, settings: Settings, say: Callable[[str], None]) -> int:
    """Import the files; the process's exit code."""
    if settings.read_only:
        raise NotConfigured("SEGMENT_READ_ONLY", "SEGMENT_READ_ONLY is on: nothing is imported.", hint="Switch it off.")
    if settings.dry_run and not given.dry_run:
        say("SEGMENT_DRY_RUN is on: rows are checked, and not sent")
    names = _names(given.files)
    plan = _plan(given, settings)
    if given.preview or plan.columns.given or _any_table(names, plan):
        _previewed(names, plan, say, sys.stdout if given.preview else sys.stderr)
        if given.preview:
            return DONE
        if not (given.yes or plan.manner.dry_run):
            _agreed(names)
    gc.freeze()  # what is loaded stays: it need not be looked at again and again
    return asyncio.run(_all(names, plan, given, settings, say))


def _names(given: Sequence[str]) -> list[str]:
    """The files; a name with * or ? is a pattern, where the shell has left it."""
    found: list[str] = []
    for name in given:
        if name == STDIN or Path(name).exists() or not glob.has_magic(name):
            found.append(name)
            continue
        matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - absolute patterns too
        own = [match for match in matches if not match.endswith((".checkpoint", ".rejected.jsonl"))]
        if not own:
            raise NotConfigured("FILE", f"No file is like {name}.", hint="Name files that are there.")
        found += own
    return list(dict.fromkeys(found))


def _plan(given: Namespace, settings: Settings) -> Plan:
    dry_run = given.dry_run or settings.dry_run
    try:
        route = route_of(settings, given.source, None)
    except InvalidMessage as error:
        raise NotConfigured("--source", error.message, hint=error.hint) from None
    except NotConfigured:
        if not dry_run and not given.preview:
            raise
        route = Route("", "")
    manner = Manner(ordered=not given.unordered, strict=given.strict, dry_run=dry_run)
    columns = mapping_of(given.map, given.set, given.type)
    return Plan(route, columns, given.format, manner, given.limit, given.again)


def _any_table(names: Sequence[str], plan: Plan) -> bool:
    if plan.format:
        return plan.format != "jsonl"
    return any(part in Path(name).suffixes for name in names for part in (".csv", ".tsv", ".parquet", ".pq"))


@contextmanager
def _file(name: str) -> Generator[BinaryIO]:
    if name == STDIN:
        yield sys.stdin.buffer
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - its own errors are not those of what is done with it
    except OSError as error:
        hint = "Name a file that can be read, or - for standard input."
        raise NotConfigured("FILE", f"{name} cannot be read ({error.strerror}).", hint=hint) from None
    with file:
        yield file


def _previewed(names: Sequence[str], plan: Plan, say: Callable[[str], None], to: TextIO) -> None:
    """Show the first rows of the first file as messages."""
    name = names[0]
    if name == STDIN:
        say("what comes from standard input cannot be shown first")
        return
    with _file(name) as file:
        rows, unused = preview(name, file, plan, SHOWN_ROWS)
    print(f"{name}, its first rows as messages:", file=to)
    for number, row in rows:
        print(f"  {number}: {row.decode(errors='replace')}", file=to)
    if unused:
        print(f"  not sent: {', '.join(unused)} (map them, or all that is left with --map properties=*)", file=to)
    to.flush()


def _agreed(names: Sequence[str]) -> None:
    """Return once a person at the terminal has agreed.

    Raises:
        NotConfigured: they have not, or there is none.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()) or STDIN in names:
        hint = "Look at them with --preview, then pass --yes."
        raise NotConfigured("--yes", "Rows of a table are sent once somebody has seen them as messages.", hint=hint)
    print("Send them? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise NotConfigured("--yes", "Nothing was sent.", hint="Change the mapping, or pass --yes.")


async def _all(
    names: Sequence[str], plan: Plan, given: Namespace, settings: Settings, say: Callable[[str], None]
) -> int:
    segment = Segment(settings)
    counts, code, reports = Counts(), DONE, list[dict[str, object]]()
    try:
        for name in names:
            done, error = await _one(segment, name, plan, given, say)
            counts = counts.plus(done.counts) if done else counts
            reports.append(_report(name, done, error))
            if error:
                say(f"{name}: {error}")
                code = SOME_REJECTED if isinstance(error, InvalidMessage) else NOT_RUN
                break
            code = SOME_REJECTED if done and done.counts.rejected else code
    finally:
        await segment.aclose()
    if given.json:
        print(json.dumps(_summary(counts, reports), indent=2, ensure_ascii=False), flush=True)
    return code


async def _one(
    segment: Segment, name: str, plan: Plan, given: Namespace, say: Callable[[str], None]
) -> tuple[Imported | None, SegmentError | None]:
    places = _places(name, given, plan)
    with _file(name) as file, watching(name, say, dry_run=plan.manner.dry_run) as watched:
        try:
            done = await import_file(segment.means, name, file, plan, places, watched.begin)
        except asyncio.CancelledError:
            watched.end()
            how = "the same command goes on there" if places.checkpoint else "without a checkpoint it begins anew"
            say(f"{name}: stopped after {watched.counts.accepted:,} messages; {how}")
            raise
        except SegmentError as error:
            watched.end()
            damaged = isinstance(error, NotConfigured) and error.setting == "FILE"
            goes_on = places.checkpoint and watched.counts.rows and not damaged
            return Imported(watched.counts, (), None), error.with_hint(_GOES_ON) if goes_on else error
    for line in _lines(name, done, plan):
        say(line)
    return done, None


def _places(name: str, given: Namespace, plan: Plan) -> Places:
    dry_run, file = plan.manner.dry_run, Path(name)
    beside = (
        Places(None, Path("stdin.rejected.jsonl"), STDIN) if name == STDIN else Places.beside(file, dry_run=dry_run)
    )
    whole = STDIN if name == STDIN else str(file.resolve())
    return Places(
        Path(given.checkpoint) if given.checkpoint else beside.checkpoint,
        Path(given.rejected) if given.rejected else beside.rejected,
        whole if given.checkpoint else beside.name,
        whole if given.rejected else beside.name,
    )


def _lines(name: str, done: Imported, plan: Plan) -> Iterator[str]:
    counts = done.counts
    if done.before:
        yield f"{name}: imported before, {counts.accepted:,} messages; --again sends it once more"
        return
    what = "would be sent" if plan.manner.dry_run else "accepted"
    resumed = f", the first {done.resumed:,} rows before" if done.resumed else ""
    yield f"{name}: {counts.rows:,} rows, {counts.accepted:,} {what}, {counts.rejected:,} rejected{resumed}"
    for (kind, event), number in counts.kinds.most_common():
        yield f"  {number:>12,}  {kind} {event}".rstrip()
    for code, number in counts.warnings.most_common():
        yield f"  {number:>12,}  warning {code}"
    for each in done.first[:SHOWN_ROWS]:
        yield f"  row {each.number:,}: {each.problems[0]}"
    if done.rejected:
        yield f"  all rejected rows, with reasons: {done.rejected}"


def _report(name: str, done: Imported | None, error: SegmentError | None) -> dict[str, object]:
    found: dict[str, object] = {"file": name}
    if done:
        found |= shown(done)
    if error:
        at = {"row": error.row} if isinstance(error, StoppedAt) else {}
        found["error"] = {"code": error.code, **at, "message": str(error)}
    return found


def _summary(counts: Counts, reports: Sequence[dict[str, object]]) -> dict[str, object]:
    return {**numbers(counts), "files": list(reports)}

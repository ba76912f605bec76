"""The command that imports files: shows what would be sent, asks, sends, and says what became of it."""

import asyncio
import gc
import glob
import sys
from argparse import Namespace
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, TextIO

from segment_tools.bulk.counts import Counts
from segment_tools.bulk.files import Imported, Places, Plan, Preview, import_file, preview, so_far
from segment_tools.bulk.mapping import mapping_of
from segment_tools.bulk.partition import Manner
from segment_tools.bulk.rejections import LEFT, MEND_ROWS, REJECTED
from segment_tools.bulk.twins import folders, twins
from segment_tools.client import Segment
from segment_tools.errors import InvalidMessage, NotConfigured, Refused, SegmentError
from segment_tools.guard import Origin
from segment_tools.sending import Route, route_of
from segment_tools.settings import Settings
from segment_tools.surfaces.import_progress import watching
from segment_tools.surfaces.import_report import STDIN, Report, fault, left, lines, printed, summary

_CLIENT = "segment-tools import"
"""What the audit log calls this command."""
_PREVIEWED_ROWS = 3
_GOES_ON = "The same command goes on there."
DONE, SOMEREJECTED, NOT_RUN, INTERRUPTED = 0, 1, 2, 130


def run(given: Namespace, settings: Settings, say: Callable[[str], None]) -> int:
    """Import the files; the process's exit code. With `--json` there is a summary, whatever becomes of it."""
    try:
        return _run(given, settings, say)
    except NotConfigured as error:
        if given.json:
            printed(summary([], dry_run=_is_dry(given, settings)) | {"error": fault(error)})
        raise


def _run(given: Namespace, settings: Settings, say: Callable[[str], None]) -> int:
    if settings.read_only:
        raise NotConfigured("SEGMENT_READ_ONLY", "SEGMENT_READ_ONLY is on: nothing is imported.", hint="Switch it off.")
    if settings.dry_run and not given.dry_run:
        say("SEGMENT_DRY_RUN is on: rows are checked, and not sent")
    names = _not_left(_names(given.files), say)
    for name in names:
        _check(name)
    apart = _told_apart(names, say)
    plan = _plan(given, settings)
    if given.preview or plan.columns.given or _any_table(names, plan):
        seen = asyncio.run(_previewed(names, plan, settings, say, sys.stdout if given.preview else sys.stderr))
        if given.preview:
            return DONE
        if not (given.yes or plan.manner.dry_run):
            _agreed(names, seen)
    gc.freeze()  # what is loaded stays: it need not be looked at again and again
    return asyncio.run(_all(names, apart, plan, given, settings, say))


def _names(given: Sequence[str]) -> list[str]:
    """The files; a name with * or ? is a pattern, where the shell has left it."""
    found: list[str] = []
    for name in given:
        if name == STDIN or Path(name).exists() or not glob.has_magic(name):
            found.append(name)
            continue
        matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - absolute patterns too
        if not matches:
            raise NotConfigured("FILE", f"No file is like {name}.", hint="Name files that are there.")
        found += matches
    return list(dict.fromkeys(found))


def _not_left(names: Sequence[str], say: Callable[[str], None]) -> list[str]:
    """The files but for those that an import left, which are no messages.

    Raises:
        NotConfigured: there are no others.
    """
    left = [name for name in names if name.endswith(LEFT)]
    if left and len(left) == len(names):
        raise NotConfigured("FILE", f"{left[0]} is what an import left, not a file of messages.", hint=MEND_ROWS)
    for name in left:
        if name.endswith(REJECTED):
            say(f"{name}: left out, an import wrote it")
    return [name for name in names if name not in left]


def _told_apart(names: Sequence[str], say: Callable[[str], None]) -> Mapping[str, str]:
    """Of the files of one name, the folders that tell them apart."""
    apart: dict[str, str] = {}
    for alike in twins(names):
        found = folders(alike)
        apart |= found
        if any(found.values()):
            say(f"{' and '.join(alike)}: named alike; their messageIds are made of their folders, too")
        for folder in dict.fromkeys(found.values()):
            if len(beside := [name for name in alike if found[name] == folder]) > 1:
                both = "what is the same in both, at the same line, gets the same messageId"
                say(f"{' and '.join(beside)}: named alike; {both}")
    return apart


def _check(name: str) -> None:
    """Nothing is sent before all files are there; what can be read once only is not opened for that."""
    if name == STDIN or (Path(name).exists() and not Path(name).is_file() and not Path(name).is_dir()):
        return
    with _file(name):
        pass


def _plan(given: Namespace, settings: Settings) -> Plan:
    dry_run = given.dry_run or settings.dry_run
    try:
        route = route_of(settings, given.source, None)
    except InvalidMessage as error:
        raise NotConfigured("--source", error.message, hint=error.hint) from None
    except NotConfigured as error:
        if not dry_run and not given.preview:
            hint = "Set SEGMENT_WRITE_KEY, or SEGMENT_DATA_PLANE_URL=sandbox to try it without Segment."
            raise NotConfigured(error.setting, error.message, hint=hint) from None
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


async def _previewed(
    names: Sequence[str], plan: Plan, settings: Settings, say: Callable[[str], None], to: TextIO
) -> Preview | None:
    """Show the first rows of the first file as messages."""
    name = names[0]
    if name == STDIN:
        say("what comes from standard input cannot be shown first")
        return None
    segment = Segment(settings)
    try:
        with _file(name) as file:
            seen = await preview(segment.means, name, file, plan, _PREVIEWED_ROWS)
    except NotConfigured as error:
        raise NotConfigured(error.setting, f"{name}: {error.message}", hint=error.hint) from None
    finally:
        await segment.aclose()
    print(f"{name}, its first rows as messages:", file=to)
    for number, row, problem in seen.rows:
        print(f"  {number}: {row.decode(errors='replace')}", file=to)
        if problem and seen.typed:
            print(f"     would be rejected: {problem}", file=to)
    if seen.damage:
        print(f"  {seen.damage.message}", file=to)
    if not seen.typed:
        print("  all would be rejected: nothing says what a row becomes (--type track, or --map type=COLUMN)", file=to)
    if seen.missing:
        print(f"  mapped, and in none of these rows: {', '.join(seen.missing)}", file=to)
    if seen.unused:
        print(f"  not sent: {', '.join(seen.unused)} (map them, or all that is left with --map properties=*)", file=to)
    to.flush()
    return seen


def _agreed(names: Sequence[str], seen: Preview | None) -> None:
    """Return once a person at the terminal has agreed.

    Raises:
        NotConfigured: they have not, or there is none.
    """
    if seen and seen.rows and all(problem for _, __, problem in seen.rows):
        if not seen.typed:
            hint = "Pass --type, or name the column that says it: --map type=COLUMN."
            raise NotConfigured("--type", "Nothing says what a row of the table becomes.", hint=hint)
        hint = "Change the mapping, or pass --yes to send the rows that pass."
        raise NotConfigured("--map", "Every row that was shown would be rejected.", hint=hint)
    if not (sys.stdin.isatty() and sys.stderr.isatty()) or STDIN in names:
        hint = "Look at them with --preview, then pass --yes."
        raise NotConfigured("--yes", "Rows of a table are sent once somebody has seen them as messages.", hint=hint)
    print("Send them? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise NotConfigured("--yes", "Nothing was sent.", hint="Change the mapping, or pass --yes.")


async def _all(
    names: Sequence[str],
    apart: Mapping[str, str],
    plan: Plan,
    given: Namespace,
    settings: Settings,
    say: Callable[[str], None],
) -> int:
    segment = Segment(settings)
    reports, code = list[Report](), DONE
    files = _Files(segment, apart, plan, given, say, reports.append)
    try:
        for at, name in enumerate(names):
            reports.append(await files.noted(name))
            done, error = reports[-1].done, reports[-1].error
            if error:
                say(f"{name}: {error}")
                if done.counts.rows:
                    say(f"{name}: until then {done.counts.told}")
                for line in left(done):
                    say(line)
                code = SOMEREJECTED if isinstance(error, InvalidMessage) else NOT_RUN
                for other in names[at + 1 :]:
                    say(f"{other}: not begun")
                break
            code = SOMEREJECTED if done.counts.rejected else code
    finally:
        await segment.aclose()
        if given.json:
            printed(summary(reports, dry_run=_is_dry(given, settings)))
    return code


def _is_dry(given: Namespace, settings: Settings) -> bool:
    return bool(given.dry_run or settings.dry_run)


@dataclass(frozen=True, slots=True)
class _Files:
    """Imports the files of one call, one after the other."""

    segment: Segment
    apart: Mapping[str, str]
    """Of files that have a name in common, the folders that tell them apart."""
    plan: Plan
    given: Namespace
    say: Callable[[str], None]
    stopped: Callable[[Report], None]
    """Told what became of the file that was being imported when a person stopped it all."""

    async def noted(self, name: str) -> Report:
        """What became of the file; with a line in the audit log where there is one."""
        if self.segment.settings.audit_log is None:
            return await self._imported(name)
        from segment_tools.tools._audited import audited
        from segment_tools.tools.importing import segment_import_file

        try:
            with audited(segment_import_file, {"file": name}, self.segment, Origin(client=_CLIENT)) as noting:
                report = await self._imported(name)
                noting({"success": False, "error": fault(report.error)} if report.error else {"success": True})
                return report
        except SegmentError as error:
            return Report(name, Imported(Counts(), (), None), error)

    async def _imported(self, name: str) -> Report:
        plan, say = self.plan, self.say
        places = replace(_places(name, self.given, plan), folders=self.apart.get(name, ""))
        with _file(name) as file, watching(name, say, dry_run=plan.manner.dry_run) as watched:
            try:
                done = await import_file(self.segment.means, name, file, plan, places, watched.begin)
            except asyncio.CancelledError:
                watched.end()
                how = "the same command goes on there" if places.checkpoint else "without a checkpoint it begins anew"
                done = so_far(watched.counts, places)
                say(f"{name}: stopped: {done.counts.told}; {how}")
                for line in left(done):
                    say(line)
                error = Refused("interrupted", "The import was stopped.", hint=f"{how[0].upper()}{how[1:]}.")
                self.stopped(Report(name, done, error))
                raise
            except SegmentError as error:
                watched.end()
                damaged = isinstance(error, NotConfigured) and error.setting == "FILE"
                goes_on = places.checkpoint and watched.counts.rows and not damaged
                told = error.with_hint(_GOES_ON) if goes_on else error
                return Report(name, so_far(watched.counts, places), told)
        for line in lines(name, done, dry_run=plan.manner.dry_run):
            say(line)
        return Report(name, done)


def _places(name: str, given: Namespace, plan: Plan) -> Places:
    beside = Places.beside(Path("stdin" if name == STDIN else name), dry_run=plan.manner.dry_run)
    if name == STDIN:
        beside = Places(None, beside.rejected, STDIN)
    whole = STDIN if name == STDIN else str(Path(name).resolve())
    return Places(
        Path(given.checkpoint) if given.checkpoint else beside.checkpoint,
        Path(given.rejected) if given.rejected else beside.rejected,
        whole if given.checkpoint else beside.name,
        whole if given.rejected else beside.name,
    )

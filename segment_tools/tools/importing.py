"""The tool that imports a file of the one folder that it may read."""

import asyncio
import os
import re
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

from pydantic import Field

from segment_tools.client import Segment
from segment_tools.errors import InvalidMessage, NotConfigured, SegmentError, Unavailable
from segment_tools.guard import agreed
from segment_tools.sending import Route, route_of
from segment_tools.setting_types import TYPES
from segment_tools.spec.arguments import Arguments, Flag, Pairs, SoughtId, one_of, whole
from segment_tools.spec.names import printable
from segment_tools.tools._answer import Answer, Progress
from segment_tools.tools._tool import Caller, tool

if TYPE_CHECKING:
    from segment_tools.bulk.files import Imported, Plan
    from segment_tools.bulk.underway import UnderWay

_PROGRESS_SECONDS = 1.0
_LEAST_STEP = 0.001
"""Ours, in bytes: so much the number grows by what is told while nothing moves."""
_MOST_ROWS = 10**12
_running: set[Path] = set()
"""What this process imports just now."""


class ImportArguments(Arguments):
    """Which file, and what its rows become."""

    REQUIRED = {"file": "Pass the path of a file in the import folder, such as 'orders.jsonl'."}  # noqa: RUF012

    file: SoughtId = Field(default=None, description="Path within the import folder")
    format: Annotated[Literal["jsonl", "csv", "parquet"] | None, one_of("jsonl", "csv", "parquet")] = Field(
        default=None, description="If the file's name does not say so"
    )
    type: Annotated[Literal["track", "identify", "page", "screen", "group", "alias"] | None, one_of(*TYPES)] = Field(
        default=None, description="For tables: what each row becomes"
    )
    map: Pairs = Field(
        default=None,
        description="For tables: FIELD=COLUMN, such as 'userId=customer_id', 'properties.total:number=amount', "
        "'properties=*' for all other columns",
    )
    set: Pairs = Field(default=None, description="FIELD=VALUE for every row, such as 'event=Order Completed'")
    limit: Annotated[int | None, whole(1, _MOST_ROWS)] = Field(default=None, description="Only so many rows")
    dry_run: Flag = Field(default=None, alias="dryRun", description="Check all rows, send nothing")
    strict: Flag = Field(default=None, description="Stop at the first rejected row")
    again: Flag = Field(default=None, description="Send anew what was imported before")
    source: SoughtId = Field(default=None, description="Which source, where several are configured")


class ImportedFile(Answer):
    """What became of a file."""

    dry_run: bool
    rows: int
    accepted: int
    rejected: int
    requests: int
    resumed_at: int
    imported_before: bool
    messages: list[dict[str, Any]]
    warnings: dict[str, Any]
    rejected_file: str | None = None
    first_rejections: list[dict[str, Any]] | None = None
    first_messages: list[dict[str, Any]] | None = None
    not_sent: list[str] | None = None
    not_found: list[str] | None = None
    note: str | None = None


@tool(title="Import a file", toolset="bulk")
async def segment_import_file(asked: ImportArguments, segment: Segment, caller: Caller) -> ImportedFile:
    """Send the messages of a file in the server's import folder to Segment.

    JSON Lines hold whole messages; CSV and Parquet need type, map and set: try dryRun first, which shows the
    first messages and the columns that are not sent. Rows that
    Segment would drop are left out and told in firstRejections, all of them in rejectedFile. The same call again goes
    on where one stopped or was cancelled. For messages that you have yourself: segment_batch. 'accepted' is no proof
    that Segment keeps them.
    """
    from segment_tools.bulk.files import Plan
    from segment_tools.bulk.mapping import mapping_of
    from segment_tools.bulk.partition import Manner
    from segment_tools.bulk.rejections import LEFT, MEND_ROWS
    from segment_tools.bulk.results import shown

    settings = segment.settings
    dry_run = bool(asked.dry_run or settings.dry_run)
    route = _route(segment, asked, dry_run=dry_run)
    manner = Manner(strict=bool(asked.strict), dry_run=dry_run)
    with _as_arguments():
        if str(asked.file).endswith(LEFT):
            raise NotConfigured("FILE", "That file is what an import left, not one of messages.", hint=MEND_ROWS)
        columns = mapping_of(asked.map or (), asked.set or (), asked.type)
    plan = Plan(route, columns, asked.format, manner, asked.limit, bool(asked.again))
    with _opened(segment, str(asked.file)) as (path, file), _as_arguments():
        if settings.confirm and not dry_run:  # whether it holds what a person must agree to is not known
            await agreed(_question(asked, route, file), caller.confirm)
        done = await _imported(segment, path, file, plan, caller.progress)
    found = shown(done)
    folder = PurePath(str(asked.file)).parent
    rejected = str(folder / done.rejected.name) if done.rejected else None
    note = _BEFORE if done.before else None
    return ImportedFile.model_validate({**found, "dryRun": dry_run, "rejectedFile": rejected, "note": note})


_BEFORE = "Nothing was sent now: all of it was imported before, with these counts. again: true sends it anew."


_ARGUMENTS = {"FILE": "file", **{f"--{name}": name for name in ("again", "type", "map", "set")}}


@contextmanager
def _as_arguments() -> Generator[None]:
    """What the command says of its options, said of the tool's arguments."""
    try:
        yield
    except NotConfigured as error:
        if error.setting not in _ARGUMENTS:
            raise
        code = "import_changed" if error.setting == "--again" else "invalid_value"
        message, hint = _in_arguments(error.message), _in_arguments(error.hint)
        raise InvalidMessage.of(code, message, hint, _ARGUMENTS[error.setting]) from None


def _in_arguments(text: str) -> str:
    listed = re.sub(r"--(map|set) ([^\s=]+=(?:\"[^\"]*\"|[^\s.,]+))", _listed, text)
    return re.sub(r"--([a-z]+)", r"\1", listed.replace("--again", "again: true"))


def _listed(found: re.Match[str]) -> str:
    value = found[2].replace('"', "")
    return f'{found[1]}: ["{value}"]'


def _route(segment: Segment, asked: ImportArguments, *, dry_run: bool) -> Route:
    try:
        return route_of(segment.settings, asked.source, None)
    except NotConfigured:
        if not dry_run:
            raise
        return Route("", "")


def _question(asked: ImportArguments, route: Route, file: BinaryIO) -> str:
    size = os.fstat(file.fileno()).st_size
    where = f", source {printable(route.name)}" if route.name else ""
    return f"Import the file {printable(str(asked.file))!r} ({size:,} bytes) into Segment{where}?"


async def _imported(segment: Segment, path: Path, file: BinaryIO, plan: "Plan", progress: Progress) -> "Imported":
    from segment_tools.bulk.files import Places, import_file
    from segment_tools.bulk.reading import in_thread

    if path in _running:
        hint = "Wait until that call has ended."
        raise Unavailable("The file is being imported already.", hint=hint, code="import_running", sent=False)
    telling: list[asyncio.Task[None]] = []
    begun: list[UnderWay] = []

    def watch(under_way: "UnderWay") -> None:
        begun.append(under_way)
        telling.append(asyncio.create_task(_told(under_way, progress)))

    _running.add(path)
    try:
        places = Places.beside(path, dry_run=plan.manner.dry_run)
        return await import_file(segment.means, path.name, file, plan, places, watch, in_thread)
    except InvalidMessage:
        raise  # it says where it stopped
    except SegmentError as error:
        raise error.with_hint(_until_then(error, begun)) from None
    finally:
        _running.discard(path)
        for task in telling:
            task.cancel()
        await asyncio.gather(*telling, return_exceptions=True)


def _until_then(error: SegmentError, begun: "list[UnderWay]") -> str:
    """What was done before the error, and whether the same call goes on there."""
    counts = begun[0].counts if begun else None
    if counts is None or not counts.rows:
        return ""
    goes_on = "" if isinstance(error, NotConfigured) and error.setting == "FILE" else "; the same call goes on there"
    return f"Until then {counts.told}{goes_on}."


async def _told(under_way: "UnderWay", progress: Progress) -> None:
    """Tell now and then how much of the file is done with, or why nothing moves.

    MCP wants each number to be above the one before, where nothing moves, too.
    """
    from segment_tools.bulk.trouble import News

    told, size, news = -1.0, float(under_way.size or 0) or None, News()
    while True:
        if text := news.of(under_way.trouble, time.monotonic()):
            told = max(told, 0.0) + _LEAST_STEP
            await progress(told, size, text)
        counts, done = under_way.counts, float(under_way.done)
        if done > told:
            told = done
            await progress(done, size, counts.told)
        await asyncio.sleep(_PROGRESS_SECONDS)


@contextmanager
def _opened(segment: Segment, name: str) -> Generator[tuple[Path, BinaryIO]]:
    """The file in the import folder, and where it is without links.

    Raises:
        InvalidMessage: there is none; the same for what lies elsewhere, be it there or not.
    """
    folder = segment.settings.import_dir
    root = folder.resolve() if folder else None
    if root is None or not root.is_dir():
        hint = "Ask whoever runs this server to set SEGMENT_IMPORT_DIR to the folder with the files."
        raise NotConfigured("SEGMENT_IMPORT_DIR", "There is no import folder.", hint=hint)
    try:
        path = (root / name).resolve(strict=True)
        inside = path.relative_to(root)
        number = _walked(root, inside)
    except (OSError, ValueError, RuntimeError):
        raise _none_such() from None
    try:
        _check_file(number, inside)
        file = os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise
    with file:
        yield path, file


def _check_file(number: int, inside: Path) -> None:
    mode = os.fstat(number).st_mode
    if stat.S_ISDIR(mode) and inside.parts:
        hint = "Pass the path of a file in it."
        raise InvalidMessage.of("invalid_value", f"{printable(inside.as_posix())!r} is a folder.", hint, "file")
    if not stat.S_ISREG(mode):
        raise _none_such()


def _none_such() -> InvalidMessage:
    hint = "Pass the path of a file within it, such as 'orders.jsonl'."
    return InvalidMessage.of("invalid_value", "There is no such file in the import folder.", hint, "file")


def _walked(root: Path, inside: Path) -> int:
    """The file opened step by step: a link that was put into the path since it was resolved is not followed."""
    quiet = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if os.open not in os.supports_dir_fd:
        return os.open(root / inside, os.O_RDONLY | quiet)
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in inside.parts[:-1]:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            with suppress(OSError):
                os.close(at)
            at = below
        return os.open(inside.name, os.O_RDONLY | os.O_NOFOLLOW | quiet, dir_fd=at)
    finally:
        os.close(at)


TOOLS = (segment_import_file,)

"""What became of the files that the command imported, for people and as JSON."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

from segment_tools.bulk.counts import Counts
from segment_tools.bulk.files import Imported
from segment_tools.bulk.results import numbers, shown
from segment_tools.bulk.rows import StoppedAt
from segment_tools.errors import SegmentError

STDIN = "-"
_SHOWN_ROWS = 3
"""How many rejected rows are told of at once."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a file, and why it ended before its end."""

    name: str
    done: Imported
    error: SegmentError | None = None

    def as_dict(self) -> dict[str, object]:
        """As JSON."""
        error = {"error": fault(self.error)} if self.error else {}
        return {"file": self.name, **shown(self.done), **error}


def lines(name: str, done: Imported, *, dry_run: bool) -> Iterator[str]:
    """What became of a file that was imported to its end."""
    counts = done.counts
    if done.before:
        yield f"{name}: imported before, {counts.accepted:,} messages; --again sends it once more"
        return
    what = "would be sent" if dry_run else "accepted"
    resumed = f", the first {done.resumed:,} rows before" if done.resumed else ""
    yield f"{name}: {counts.rows:,} rows, {counts.accepted:,} {what}, {counts.rejected:,} rejected{resumed}"
    yield from counts.lines()
    for each in done.first[:_SHOWN_ROWS]:
        yield f"  row {each.number:,}: {each.problems[0]}"
    yield from left(done)
    if done.rejected and name != STDIN and not dry_run:
        yield f"  mend them in {name}, and import it with --again: rows that are the same keep their messageIds"


def left(done: Imported) -> Iterator[str]:
    """Where its rejected rows are, if there are any."""
    if done.rejected:
        yield f"  all rejected rows, with reasons: {done.rejected}"


def fault(error: SegmentError) -> dict[str, object]:
    """An error as JSON."""
    at = {"row": error.row} if isinstance(error, StoppedAt) else {}
    return {"code": error.code, **at, "message": str(error)}


def summary(reports: Sequence[Report], *, dry_run: bool) -> dict[str, object]:
    """All files together, and each."""
    total = reduce(Counts.plus, (each.done.counts for each in reports), Counts())
    said = {"dryRun": True} if dry_run else {}
    return {**said, **numbers(total), "files": [each.as_dict() for each in reports]}


def printed(found: dict[str, object]) -> None:
    """Print it on standard output."""
    print(json.dumps(found, indent=2, ensure_ascii=False), flush=True)

"""The audit log for people: the lines that are asked for, as they come, and how many calls went how."""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

from segment_tools.audit import digested, entries, files, key_of

LOOK_SECONDS = 0.5
"""Ours: how often a followed log is looked at."""

_NEVER = "0001-01-01T00:00:00Z"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are asked for; what is None does not matter."""

    tool: str | None = None
    verdict: str | None = None
    since: datetime | None = None
    message_id: str | None = None
    user: str | None = field(default=None, repr=False)

    def has(self, entry: dict[str, Any], key: bytes | None) -> bool:
        """Whether the line is one of them."""
        person = self.user is None or (key is not None and digested(key, self.user) in entry.get("people", []))
        return (
            person
            and (self.tool is None or entry.get("tool") == f"segment_{self.tool.removeprefix('segment_')}")
            and (self.verdict is None or self.verdict in (entry.get("verdict"), entry.get("code")))
            and (self.message_id is None or entry.get("messageId") in self._ids(key))
            and (self.since is None or _moment(str(entry.get("time", _NEVER))) >= self.since)
        )

    def _ids(self, key: bytes | None) -> tuple[str, ...]:
        """The messageId, and what stands for it where it may tell who somebody is."""
        given = self.message_id or ""
        return (given,) if key is None else (given, digested(key, given))


@dataclass(slots=True)
class Tally:
    """How many calls went how, and how many lines were none of the log's."""

    verdicts: Counter[str] = field(default_factory=Counter[str])
    unreadable: int = 0

    def lines(self) -> list[str]:
        """For people."""
        counts = ", ".join(f"{verdict} {count:,}" for verdict, count in self.verdicts.most_common())
        number = self.verdicts.total()
        found = [f"{number:,} call{'s' if number != 1 else ''}{': ' if counts else ''}{counts}"]
        if self.unreadable:
            found.append(f"{self.unreadable:,} line{'s' if self.unreadable != 1 else ''} could not be read")
        return found


def selected(lines: Iterator[bytes], wanted: Wanted, path: Path, tally: Tally) -> Iterator[dict[str, Any]]:
    """The lines that are asked for; the tally is kept of them."""
    key = key_of(path)
    for entry in entries(lines):
        if entry is None:
            tally.unreadable += 1
        elif wanted.has(entry, key):
            tally.verdicts[_verdict(entry)] += 1
            yield entry


def all_lines(path: Path) -> Iterator[bytes]:
    """The lines of every file of the log, the oldest first."""
    for each in files(path):
        with each.open("rb") as file:
            yield from file


def followed(path: Path, wait: Callable[[float], None] = time.sleep) -> Iterator[bytes]:
    """Those, and then each line as it is written, for ever; none is lost when a file is put aside meanwhile."""
    opened = _newer(path, None)
    try:
        while True:
            for file in opened:
                yield from _whole(file)
            if newer := _newer(path, opened[-1] if opened else None):
                for file in opened:
                    yield from _whole(file)  # what was written until it was put aside
                    file.close()
                opened = newer
            else:
                wait(LOOK_SECONDS)
    finally:
        for file in opened:
            file.close()


def _whole(file: BinaryIO) -> Iterator[bytes]:
    """The lines that are complete; of the last, the rest may come."""
    while line := file.readline():
        if not line.endswith(b"\n"):
            file.seek(-len(line), 1)
            return
        yield line


def _newer(path: Path, last: BinaryIO | None) -> list[BinaryIO]:
    """The files that came after the one that was read last, opened."""
    found: list[BinaryIO] = [each.open("rb") for each in files(path)]
    marks = [_mark(each) for each in found]
    place = marks.index(_mark(last)) + 1 if last and _mark(last) in marks else 0
    for each in found[:place]:
        each.close()
    return found[place:]


def _mark(file: BinaryIO) -> tuple[int, int]:
    stat = os.fstat(file.fileno())
    return stat.st_dev, stat.st_ino


def shown(entry: dict[str, Any]) -> str:
    """A line for people."""
    count = f" and {entry['count'] - 1:,} more" if entry.get("count", 1) > 1 else ""
    return "  ".join(
        part
        for part in (
            str(entry.get("time", "")),
            str(entry.get("tool", "no such tool")).removeprefix("segment_").ljust(14),
            _verdict(entry).ljust(12),
            f"{entry.get('messageId', '')}{count}",
            f"{entry.get('ms', 0):g} ms",
            str(entry.get("client", "")),
        )
        if part
    )


def _verdict(entry: dict[str, Any]) -> str:
    return f"{entry['verdict']}:{entry['code']}" if "code" in entry else str(entry["verdict"])


def since(text: str, now: datetime) -> datetime:
    """A moment: ISO 8601, or how long ago, such as `90s`, `15m`, `2h`, `7d`.

    Raises:
        ValueError: neither of them.
    """
    if ago := re.fullmatch(r"([0-9]{1,6})([smhd])", text):
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    return _moment(text)


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)

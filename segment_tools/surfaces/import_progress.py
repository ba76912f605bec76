"""How far an import is, while it is: bars on a terminal, else a line now and then."""

import asyncio
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from segment_tools.bulk.counts import Counts
from segment_tools.bulk.trouble import News, Trouble
from segment_tools.bulk.underway import UnderWay

_BAR_SECONDS, _LOOK_SECONDS, _LINE_SECONDS = 0.2, 1.0, 10.0


class Watched:
    """Looks at an import now and then, and shows it."""

    def __init__(self, name: str, say: Callable[[str], None], bar: Any) -> None:
        self._name, self._say, self._bar = name, say, bar
        self._under_way: UnderWay | None = None
        self._task: asyncio.Task[None] | None = None
        self._began, self._rows = time.monotonic(), 0
        self._news, self._said = News(), self._began

    @property
    def counts(self) -> Counts:
        """Of the import so far."""
        return self._under_way.counts if self._under_way else Counts()

    def begin(self, under_way: UnderWay) -> None:
        """Show this import from now on."""
        self._under_way, self._rows = under_way, under_way.counts.done
        self._task = asyncio.create_task(self._shown())

    def end(self) -> None:
        """Stop."""
        if self._task:
            self._task.cancel()
        if self._bar:
            self._update()
        else:
            self._tell(time.monotonic())

    async def _shown(self) -> None:
        while True:
            await asyncio.sleep(_BAR_SECONDS if self._bar else _LOOK_SECONDS)
            if self._bar:
                self._update()
            else:
                self._look(time.monotonic())

    def _look(self, now: float) -> None:
        """Say how far it is, where that was long ago; while nothing is taken, only that, now and then."""
        if self._tell(now) or now - self._said < _LINE_SECONDS or self._trouble:
            return
        self._said, counts = now, self.counts
        self._say(
            f"{self._name}: {counts.rows:,} rows, {self._rate:,.0f} a second, {counts.accepted:,} accepted, "
            f"{counts.rejected:,} rejected, {counts.requests:,} requests, {counts.bytes / 1e6:,.0f} MB{self._left(now)}"
        )

    def _left(self, now: float) -> str:
        left = self._under_way.seconds_left(now - self._began) if self._under_way else None
        return "" if left is None else f", about {timedelta(seconds=round(left))} left"

    def _tell(self, now: float) -> bool:
        news = self._news.of(self._trouble, now)
        if news:
            self._say(f"{self._name}: {news}")
        return bool(news)

    def _update(self) -> None:
        done, total = (self._under_way.done, self._under_way.size) if self._under_way else (0, None)
        self._bar.show(done, total, str(self._trouble or _counted(self.counts, self._rate)))

    @property
    def _trouble(self) -> Trouble | None:
        return self._under_way.trouble if self._under_way else None

    @property
    def _rate(self) -> float:
        return (self.counts.done - self._rows) / max(0.001, time.monotonic() - self._began)


def _counted(counts: Counts, rate: float) -> str:
    return (
        f"{counts.rows:,} rows, {rate:,.0f}/s, {counts.requests:,} requests, {counts.rejected:,} rejected, "
        f"{counts.bytes / 1e6:,.0f} MB accepted"
    )


@contextmanager
def watching(name: str, say: Callable[[str], None], *, dry_run: bool) -> Generator[Watched]:
    """What shows the import of the file; to be told when it begins."""
    bar = _bar(name, dry_run=dry_run) if sys.stderr.isatty() else None
    watched = Watched(name, say, bar)
    try:
        yield watched
    finally:
        watched.end()
        if bar:
            bar.close()


def _bar(name: str, *, dry_run: bool) -> Any:
    """A bar of rich; None where that is not installed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        return None
    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=Console(stderr=True), auto_refresh=False)
    return _Bar(progress, f"{'checking' if dry_run else 'sending'} {name}")


class _Bar:
    def __init__(self, progress: Any, description: str) -> None:
        self._progress = progress
        progress.start()
        self._task = progress.add_task(description, total=None, told="", markup=False)

    def show(self, done: int, total: int | None, told: str) -> None:
        self._progress.update(self._task, completed=done, total=total, told=told, refresh=True)

    def close(self) -> None:
        self._progress.stop()

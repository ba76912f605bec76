"""What 1 to 64 writers achieve that share a rate: where Segment's own limit is the bound, and not this program.

    python benchmarks/scale.py [--seconds S] [--limit N] [--bytes N] [--writers N,...] [--redis URL] [--results FILE]

Segment asks a workspace for no more than 1,000 requests a second. That is scaled down here, to 50 unless told
otherwise, since all writers and the receiver share this machine; the receiver answers what is above it with 429, as
Segment does. A writer is what `write_segment` gives to a partition of a DataFrame, with a client and a checkpoint of
its own, called with rows for as long as the time lasts: what judges, packs and sends them is what does so under Spark,
which alone is not here. It is scaled down, too, to one request at a time, each answered after 200 ms: alone it sends
less than 5 a second. Rows are large, so that few of them fill the 500 KB of a request, and 64 writers find room on one
machine. The rate is shared through a Redis server, as with `SEGMENT_RATE_LIMIT`; beside it, the same writers without
one. A share is that of what so many writers could send each as fast as one alone, or of the limit where that is less.
"""

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from processes import cores, on
from receiver import Receiving, receiving
from single import chosen

WRITERS = (1, 2, 4, 8, 16, 32, 64)
PROCESSES = 4
"""How many processes the writers are spread over; each has threads and a client of its own all the same."""
ANSWER_MS = 200
READY_SECONDS = 120
"""How long it may take until every writer asks for its first row."""
LEAD_SECONDS = 4.0
"""Before anything is counted, so long the writers take to begin one after the other, as tasks of a cluster do."""
USERS = 1000
SEGMENTS_LIMIT = 1000
"""Requests a second of a workspace. Source: https://segment.com/docs/connections/rate-limits/."""
RESULTS = Path(__file__).parent / "results" / "scale.json"


@dataclass(frozen=True)
class Asked:
    """What writers are told."""

    writers: int
    url: str
    redis: str
    """The server that they share the rate through; empty where each keeps to it for itself."""
    limit: int
    bytes: int
    """Of a row, or a few more."""
    seconds: float
    folder: str
    """Where their checkpoints go."""


@dataclass(frozen=True)
class Wrote:
    """What a writer did, from its first row until all were answered."""

    requests: int
    messages: int
    seconds: float


@dataclass(frozen=True)
class Run:
    """What so many writers achieved together."""

    writers: int
    shared: bool
    requests_per_second: float
    messages_per_second: float
    slowest: float
    """Requests a second of the writer that had the least, until all its rows were answered."""
    refused: int
    """Answers with 429."""
    lost: int
    """Messages that were said to be accepted and did not arrive, or arrived twice."""


class Row(tuple[Any, ...]):
    """A row as Spark hands it over."""

    __slots__ = ()
    __fields__ = ("userId", "number", "note")


class Totals:
    """In place of Spark's accumulator."""

    def add(self, totals: Any) -> None:
        """What a writer tells in the end."""
        self.counts = totals.counts


def writer(number: int, asked: Asked, ready: Callable[[], object]) -> Wrote:
    """Write rows, from when all writers are ready and this one's turn has come until the time is up."""
    from segment_tools import Settings
    from segment_tools.bulk.spark import write_segment

    pace = {"SEGMENT_REQUESTS_PER_SECOND": str(asked.limit), "SEGMENT_CONCURRENCY": "1"}
    shared = {"SEGMENT_RATE_LIMIT": asked.redis} if asked.redis else {}
    write = write_segment(
        f"writer-{number}",
        Settings.from_env(environ={**chosen(asked.url), **pace, **shared}),
        type="track",
        constants={"event": "Row Written"},
        map={"properties.number": "number", "properties.note": "note"},
        checkpoints=f"{asked.folder}/{number}",
    )
    totals, began = Totals(), list[float]()

    def rows() -> Iterator[Row]:
        ready()
        end = time.monotonic() + LEAD_SECONDS + asked.seconds
        time.sleep(LEAD_SECONDS * number / asked.writers)
        began.append(time.monotonic())
        note = "x" * asked.bytes
        for each in count():
            if time.monotonic() >= end:
                return
            yield Row((f"user-{each % USERS}", each, note))

    replace(write, totals=totals)(rows())
    return Wrote(totals.counts.requests, totals.counts.accepted, time.monotonic() - began[0])


def some(numbers: Sequence[int], asked: Asked) -> list[Wrote]:
    """What those writers did that share a process."""
    ready = partial(_all_ready.wait, READY_SECONDS)
    with ThreadPoolExecutor(len(numbers)) as threads:
        return list(threads.map(partial(writer, asked=asked, ready=ready), numbers))


def ran(writers: int, redis: str, given: argparse.Namespace) -> Run:
    """What so many writers achieve together."""
    usable = cores()
    with (
        on(usable[1:2]),
        receiving(ANSWER_MS, given.limit) as receiver,
        on(usable),
        tempfile.TemporaryDirectory() as folder,
    ):
        asked = Asked(writers, receiver.url, redis, given.limit, given.bytes, given.seconds, folder)
        parts = [range(writers)[first::PROCESSES] for first in range(min(writers, PROCESSES))]
        fork = multiprocessing.get_context("fork")
        ready = fork.Barrier(writers + 1)
        with ProcessPoolExecutor(len(parts), fork, initializer=_meet, initargs=(ready,)) as pool:
            writing = [pool.submit(some, part, asked) for part in parts]
            ready.wait(READY_SECONDS)
            time.sleep(LEAD_SECONDS)
            rate = per_second(receiver, given.seconds)
            wrote = [each for part in writing for each in part.result()]
        return told(asked, rate, wrote, receiver)


def per_second(receiver: Receiving, seconds: float) -> float:
    """How many requests a second come within so many from now."""
    before, began = receiver.count(), time.monotonic()
    time.sleep(seconds)
    return (receiver.count() - before) / (time.monotonic() - began)


def _meet(barrier: Any) -> None:
    global _all_ready  # noqa: PLW0603 - a process of the pool is given it when it starts, and in no other way
    _all_ready = barrier


_all_ready: Any = None


def told(asked: Asked, rate: float, wrote: Sequence[Wrote], receiver: Receiving) -> Run:
    """What those writers achieved together, with so many requests a second while the time lasted."""
    came = receiver.found()
    return Run(
        writers=len(wrote),
        shared=bool(asked.redis),
        requests_per_second=rate,
        messages_per_second=rate * came.messages / max(1, came.requests),
        slowest=min(each.requests / each.seconds for each in wrote),
        refused=came.refused,
        lost=abs(sum(each.messages for each in wrote) - came.distinct) + came.messages - came.distinct,
    )


def share(run: Run, runs: Sequence[Run], limit: int) -> float:
    """Of what the writers could send each as fast as one alone, or of the limit where that is less."""
    alone = next(each.requests_per_second for each in runs if each.shared == run.shared) / runs[0].writers
    return run.requests_per_second / min(limit, run.writers * alone)


@contextmanager
def redis_server() -> Generator[str]:
    """The address of a Redis server of its own.

    Raises:
        SystemExit: there is none on this machine.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("there is no redis-server on the path: install one, or name one with --redis")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            if not any("Ready to accept connections" in line for line in process.stdout):
                raise SystemExit("the Redis server did not start")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.communicate()


def table(runs: Sequence[Run], limit: int) -> str:
    """A line for each run."""
    lines = [
        f"At most {limit} requests a second, for Segment's {SEGMENTS_LIMIT:,}; answers after {ANSWER_MS} ms.",
        "rate     writers  requests/s  messages/s  share  least   429  lost",
    ]
    return "\n".join([*lines, *(_line(run, share(run, runs, limit)) for run in runs)])


def _line(run: Run, of_possible: float) -> str:
    return (
        f"{'shared' if run.shared else 'alone':8}{run.writers:>8}{run.requests_per_second:>12.1f}"
        f"{run.messages_per_second:>12,.0f}{of_possible:>7.2f}{run.slowest:>7.1f}{run.refused:>6}"
        f"  {run.lost}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What many writers that share a rate achieve together.")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--bytes", type=int, default=2_000, help="of a row; Segment takes 32 KB a message")
    writers = "how many, one after the other, least first"
    parser.add_argument("--writers", type=_numbers, default=WRITERS, metavar="N,...", help=writers)
    parser.add_argument("--redis", metavar="URL", help="a server to share the rate through (default: one of its own)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    server: AbstractContextManager[str] = nullcontext(given.redis) if given.redis else redis_server()
    with server as redis:
        runs = [ran(writers, way, given) for way in (redis, "") for writers in given.writers]
    print(table(runs, given.limit))
    about: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "limit": given.limit,
        "segments_limit": SEGMENTS_LIMIT,
        "seconds": given.seconds,
        "bytes": given.bytes,
        "answer_ms": ANSWER_MS,
    }
    given.results.parent.mkdir(parents=True, exist_ok=True)
    given.results.write_text(json.dumps({**about, "runs": [asdict(run) for run in runs]}, indent=1) + "\n")


def _numbers(text: str) -> list[int]:
    return sorted(int(number) for number in text.split(","))


if __name__ == "__main__":
    main()

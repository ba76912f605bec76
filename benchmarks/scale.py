"""What 1 to 64 writers achieve that share a rate: where Segment's own limit is the bound, and not this program.

    python benchmarks/scale.py [--seconds S] [--limit N] [--batch N] [--writers N,...] [--redis URL] [--results FILE]

Segment asks a workspace for no more than 1,000 requests a second. That is scaled down here, to 50 unless told
otherwise, since all writers and the receiver share this machine; the receiver answers what is above it with 429, as
Segment does. A writer is a client of its own that sends one batch after the other, each answered after 200 ms: alone it
sends less than 5 requests a second. Batches are small, so that 64 writers find room on one machine. The rate is shared
through a Redis server, as with `SEGMENT_RATE_LIMIT`; beside it, the same writers without one. A share is that of what
so many writers could send each as fast as one alone, or of the limit where that is less.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from events import events
from processes import cores, on
from receiver import Receiving, receiving
from single import chosen

WRITERS = (1, 2, 4, 8, 16, 32, 64)
PROCESSES = 4
"""How many processes the writers are spread over; each is a client of its own all the same."""
ANSWER_MS = 200
READY_SECONDS = 120
"""How long it may take until every writer has sent its first batch."""
SEGMENTS_LIMIT = 1000
"""Requests a second of a workspace. Source: https://segment.com/docs/connections/rate-limits/."""
RESULTS = Path(__file__).parent / "results" / "scale.json"


@dataclass(frozen=True)
class Asked:
    """What writers are told."""

    url: str
    redis: str
    """The server that they share the rate through; empty where each keeps to it for itself."""
    limit: int
    batch: int
    seconds: float


@dataclass(frozen=True)
class Wrote:
    """What a writer did: batches that were accepted in time, all messages that were, and batches that it gave up."""

    in_time: int
    messages: int
    failed: int


@dataclass(frozen=True)
class Run:
    """What so many writers achieved together."""

    writers: int
    shared: bool
    requests_per_second: float
    messages_per_second: float
    slowest: float
    """Requests a second of the writer that had the least."""
    refused: int
    """Answers with 429."""
    failed: int
    lost: int
    """Messages that were said to be accepted and did not arrive, or arrived twice."""


async def writer(number: int, asked: Asked, turn: asyncio.Lock, ready: Callable[[], Awaitable[float]]) -> Wrote:
    """Send a batch, and once all have, one after the other until the time is up."""
    from segment_tools import Segment, SegmentError, Settings, Track

    environ = {**chosen(asked.url), "SEGMENT_REQUESTS_PER_SECOND": str(asked.limit)}
    if asked.redis:
        environ["SEGMENT_RATE_LIMIT"] = asked.redis
    rows = [Track.model_validate({**each, "userId": f"writer-{number}"}) for each in islice(events(), asked.batch)]
    async with Segment(Settings.from_env(environ=environ)) as segment:
        async with turn:  # what a client loads and opens first would hold up those beside it
            messages = (await segment.send_batch(rows)).accepted
        in_time, failed, end = 0, 0, await ready() + asked.seconds
        while time.monotonic() < end:
            try:
                messages += (await segment.send_batch(rows)).accepted
                in_time += time.monotonic() < end
            except SegmentError:
                failed += 1
    return Wrote(in_time, messages, failed)


def some(numbers: Sequence[int], asked: Asked) -> list[Wrote]:
    """What those writers did that share a process."""

    async def all_of_them() -> list[Wrote]:
        here, turn, others = asyncio.Barrier(len(numbers)), asyncio.Lock(), asyncio.get_running_loop().create_future()

        async def ready() -> float:
            if await here.wait() == 0:
                await asyncio.to_thread(_all_ready.wait, READY_SECONDS)
                others.set_result(time.monotonic())
            return await others

        return await asyncio.gather(*(writer(number, asked, turn, ready) for number in numbers))

    return asyncio.run(all_of_them())


def ran(writers: int, redis: str, given: argparse.Namespace) -> Run:
    """What so many writers achieve together."""
    usable = cores()
    with on(usable[1:2]), receiving(ANSWER_MS, given.limit) as receiver, on(usable):
        asked = Asked(receiver.url, redis, given.limit, given.batch, given.seconds)
        parts = [range(writers)[first::PROCESSES] for first in range(min(writers, PROCESSES))]
        fork = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(len(parts), fork, initializer=_meet, initargs=(fork.Barrier(len(parts)),)) as pool:
            wrote = [each for part in pool.map(some, parts, [asked] * len(parts)) for each in part]
        return told(asked, wrote, receiver)


def _meet(barrier: Any) -> None:
    global _all_ready  # noqa: PLW0603 - a process of the pool is given it when it starts, and in no other way
    _all_ready = barrier


_all_ready: Any = None


def told(asked: Asked, wrote: Sequence[Wrote], receiver: Receiving) -> Run:
    """What those writers achieved together."""
    came = receiver.found()
    rate = sum(each.in_time for each in wrote) / asked.seconds
    return Run(
        writers=len(wrote),
        shared=bool(asked.redis),
        requests_per_second=rate,
        messages_per_second=rate * asked.batch,
        slowest=min(each.in_time for each in wrote) / asked.seconds,
        refused=came.refused,
        failed=sum(each.failed for each in wrote),
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
        "rate     writers  requests/s  messages/s  share  least   429  given up, lost",
    ]
    return "\n".join([*lines, *(_line(run, share(run, runs, limit)) for run in runs)])


def _line(run: Run, of_possible: float) -> str:
    return (
        f"{'shared' if run.shared else 'alone':8}{run.writers:>8}{run.requests_per_second:>12.1f}"
        f"{run.messages_per_second:>12,.0f}{of_possible:>7.2f}{run.slowest:>7.1f}{run.refused:>6}"
        f"  {run.failed}, {run.lost}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What many writers that share a rate achieve together.")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--batch", type=int, default=10, help="messages a request")
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
        "batch": given.batch,
        "answer_ms": ANSWER_MS,
    }
    given.results.parent.mkdir(parents=True, exist_ok=True)
    given.results.write_text(json.dumps({**about, "runs": [asdict(run) for run in runs]}, indent=1) + "\n")


def _numbers(text: str) -> list[int]:
    return sorted(int(number) for number in text.split(","))


if __name__ == "__main__":
    main()

"""How fast tool calls are answered, directly or by the outbox, beside a bare httpx loop and Segment's own library.

    python benchmarks/delivery.py [--rounds N] [--seconds S] [--queue N] [--results FILE]

Every round measures each side once, in turn, so that a slow hour slows all; figures are medians of the rounds, with the
least and the most, and ratios are those within a round. Each side is a process of its own. Calls go through `dispatch`,
the function that every surface calls, without a surface. What receives is one process that reads whole requests and
no more; its own ceiling, asked by a plain socket loop on eight connections, is measured beside the others. The
limit of 1,000 requests a second, which is Segment's own, is raised: it is not what is measured.
"""

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
from calls import Figures, arguments, hammered, latencies
from processes import apart
from receiver import receiving
from sandbox import rate
from single import KEY, bare, chosen

from segment_tools import Segment, Settings
from segment_tools.functions import dispatch
from segment_tools.outbox import Entry, open_outbox
from segment_tools.storage.moments import now

IN_FLIGHT, DELAYS_MS = (1, 32), (0, 30)
SIDES = ("direct", "direct, outbox", "queued", "bare httpx", "library, sync", "library, queue")
PAIRS = 4
SLOW_COMMITS = 1000
"""Commits a second below which the disk, and not the processor, is what they wait for."""
RESULTS = Path(__file__).parent / "results" / "delivery.json"


async def ours(side: str, url: str, in_flight: int, seconds: float) -> Figures:
    """Tool calls, and for what goes by way of the outbox how many a second have arrived once it is empty."""
    with tempfile.TemporaryDirectory() as folder:
        settings = chosen(url)
        if side != "direct":
            settings["SEGMENT_OUTBOX"] = f"sqlite:///{folder}/outbox.db"
        if side == "queued":
            settings["SEGMENT_DELIVERY"] = "queued"
        async with Segment(Settings.from_env(environ=settings)) as segment:

            async def call(number: int) -> None:
                result = await dispatch("segment_track", arguments(number), segment)
                if not result["success"]:
                    raise SystemExit(result["errorMessage"])

            start = time.perf_counter()
            figures = await hammered(call, in_flight, seconds)
            if side == "queued":
                await _emptied(segment)
                figures["delivered_per_second"] = figures["per_second"] * seconds / (time.perf_counter() - start)
            return figures


async def _emptied(segment: Segment) -> None:
    assert segment.courier is not None
    while (await segment.courier.outbox.depth()).pending:  # noqa: ASYNC110 - the outbox tells nobody that it is empty
        await asyncio.sleep(0.005)


def library(url: str, side: str, seconds: float, queue: int) -> Figures:
    """Segment's own library: each call sent at once, or all put into its queue, in memory, and flushed."""
    analytics: Any = import_module("segment.analytics.client")  # it has no types
    client = analytics.Client(KEY, host=url, sync_mode=side == "library, sync")
    took = list[float]()
    start = time.perf_counter()
    while len(took) < queue if side == "library, queue" else time.perf_counter() < start + seconds:
        begun = time.perf_counter()
        given = arguments(len(took))
        client.track(given["userId"], given["event"], given["properties"])
        took.append(time.perf_counter() - begun)
    client.flush()
    return {"per_second": len(took) / (time.perf_counter() - start), **latencies(took)}


def side_of(side: str, url: str, in_flight: int, seconds: float, queue: int) -> Figures:
    if side.startswith("library"):
        return library(url, side, seconds, queue)
    return asyncio.run(bare(url, in_flight, seconds) if side == "bare httpx" else ours(side, url, in_flight, seconds))


def one_by_one(seconds: float) -> float:
    """Messages a second, each in a transaction of its own that waits for the disk: one table, one index, no more."""
    with tempfile.TemporaryDirectory() as folder:
        database = sqlite3.connect(Path(folder) / "plain.db", isolation_level=None)
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"):
            database.execute(statement)
        database.execute("CREATE TABLE waiting (cursor INTEGER PRIMARY KEY, message_id TEXT UNIQUE, body BLOB)")
        body, done, start = json.dumps(arguments(1)).encode(), 0, time.perf_counter()
        while (now_ := time.perf_counter()) < start + seconds:
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO waiting (message_id, body) VALUES (?, ?)", (f"{done:036}", body))
            database.execute("COMMIT")
            done += 1
        database.close()
        return done / (now_ - start)


def durable(in_flight: int, seconds: float) -> float:
    """Messages a second that the outbox has taken for good, from so many callers who each wait."""

    async def add() -> float:
        with tempfile.TemporaryDirectory() as folder:
            outbox = open_outbox(f"sqlite:///{folder}/outbox.db", 2**30, now)
            body = json.dumps(arguments(1)).encode()

            async def call(number: int) -> None:
                await outbox.add([Entry(f"{number:036}", f"{number}", "", body, "0" * 32, "2026")], now())

            figures = await hammered(call, in_flight, seconds)
            await outbox.aclose()
            return figures["per_second"]

    return asyncio.run(add())


def cells() -> list[tuple[str, int, int]]:
    """Every side, with how many calls in flight, and how late the answers."""
    return [
        (side, in_flight, delay)
        for delay in DELAYS_MS
        for in_flight in IN_FLIGHT
        for side in SIDES
        if in_flight == 1 or not side.startswith("library")
    ]


def measured(rounds: int, seconds: float, queue: int) -> dict[str, Any]:
    found: dict[str, list[Figures]] = {name_of(*cell): [] for cell in cells()}
    more: dict[str, list[float]] = {"ceiling": [], "one_by_one": [], "durable": []}
    for _ in range(rounds):
        for delay in DELAYS_MS:
            with receiving(delay) as receiver:
                for side, in_flight, _ in (cell for cell in cells() if cell[2] == delay):
                    figures = apart(side_of, side, receiver.url, in_flight, seconds, queue)
                    found[name_of(side, in_flight, delay)].append(figures)
                if not delay:
                    more["ceiling"].append(rate(receiver.port, "/v1/track", 1, seconds))
        for _ in range(PAIRS):  # one right after the other: what a commit costs on a shared disk changes by the second
            more["one_by_one"].append(apart(one_by_one, seconds / PAIRS))
            more["durable"].append(apart(durable, 32, seconds / PAIRS))
    return {"sides": found, **more}


def name_of(side: str, in_flight: int, delay: int) -> str:
    return f"{side}; {in_flight} in flight; {delay} ms"


def shown(values: list[float], digits: int = 0) -> str:
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def report(found: dict[str, Any]) -> None:
    sides: dict[str, list[Figures]] = found["sides"]
    for delay in DELAYS_MS:
        for in_flight in IN_FLIGHT:
            print(f"\n{in_flight} in flight, answers after {delay} ms")
            print(f"  {'':15}{'calls a second':>28}{'of bare':>22}{'p50 ms':>9}{'p99 ms':>9}")
            base = [each["per_second"] for each in sides[name_of("bare httpx", in_flight, delay)]]
            for side, _, _ in (cell for cell in cells() if cell[1:] == (in_flight, delay)):
                figures = sides[name_of(side, in_flight, delay)]
                rates = [each["per_second"] for each in figures]
                ratios = [mine / theirs for mine, theirs in zip(rates, base, strict=True)]
                p50, p99 = (statistics.median(each[cut] for each in figures) for cut in ("p50_ms", "p99_ms"))
                line = f"  {side:15}{shown(rates):>28}{shown(ratios, 2):>22}{p50:>9.2f}{p99:>9.2f}"
                arrived = [each["delivered_per_second"] for each in figures if "delivered_per_second" in each]
                print(line + (f"   delivered a second: {shown(arrived)}" if arrived else ""))
    ratios = [mine / theirs for mine, theirs in zip(found["durable"], found["one_by_one"], strict=True)]
    print(f"\nWhat receives takes at most {shown(found['ceiling'])} requests a second")
    print(f"Kept for good a second, 32 in flight: {shown(found['durable'])}")
    print(f"  one SQLite transaction for each:    {shown(found['one_by_one'])}; ratio {shown(ratios, 1)}")
    slow = [ratio for ratio, rate_ in zip(ratios, found["one_by_one"], strict=True) if rate_ < SLOW_COMMITS]
    if slow:
        print(f"  where a commit took over 1 ms, {len(slow)} times of {len(ratios)}: ratio {shown(slow, 1)}")


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast tool calls are answered and delivered.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    told = "how many messages Segment's library is given before it is told to flush"
    parser.add_argument("--queue", type=int, default=2000, help=told)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    about = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "machine": platform.platform(),
        "sqlite": sqlite3.sqlite_version,
        "httpx": httpx.__version__,
        "rounds": given.rounds,
        "seconds": given.seconds,
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    found = measured(given.rounds, given.seconds, given.queue)
    given.results.parent.mkdir(parents=True, exist_ok=True)
    given.results.write_text(json.dumps({**about, **found}, indent=1) + "\n")
    report(found)


if __name__ == "__main__":
    sys.exit(main())

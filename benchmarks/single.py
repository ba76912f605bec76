"""One side that makes single calls, as a process of its own: prints its figures as JSON.

    python benchmarks/single.py SIDE URL IN_FLIGHT SECONDS

`ours` is `await segment.send(Track(...))`. `httpx` is one shared client that posts the bytes which such a call makes,
and looks at the status. `library` is Segment's own, each call sent before it returns (`sync_mode`).
"""

import asyncio
import json
import sys
import time
from importlib import import_module
from itertools import count
from typing import Any

from calls import Clock, Figures, arguments, hammered

KEY = "benchmark"
UNLIMITED = "100000"
"""Requests a second: Segment's own limit, 1,000, is not what is measured."""


def chosen(url: str) -> dict[str, str]:
    """The settings under which this project is measured: its defaults, but for where it sends and how often it may."""
    return {"SEGMENT_DATA_PLANE_URL": url, "SEGMENT_WRITE_KEY": KEY, "SEGMENT_REQUESTS_PER_SECOND": UNLIMITED}


async def ours(url: str, in_flight: int, seconds: float) -> Figures:
    """What this project's client does."""
    from segment_tools import Segment, Settings, Track

    async with Segment(Settings.from_env(environ=chosen(url))) as segment:

        async def call(number: int) -> None:
            given = arguments(number)
            await segment.send(Track(event=given["event"], user_id=given["userId"], properties=given["properties"]))

        return await hammered(call, in_flight, seconds)


async def bare(url: str, in_flight: int, seconds: float) -> Figures:
    """One shared httpx client."""
    import httpx

    from segment_tools import wire

    message = {"type": "track", **arguments(1)}
    body = wire.single(wire.stamped(message, "0" * 36, "2026-11-23T12:00:00.123Z"), "2026-11-23T12:00:00.123Z").body
    headers = wire.headers(KEY, 0)
    async with httpx.AsyncClient(timeout=30) as client:

        async def call(_: int) -> None:
            (await client.post(f"{url}/v1/track", content=body, headers=headers)).raise_for_status()

        return await hammered(call, in_flight, seconds)


def library(url: str, seconds: float) -> Figures:
    """Segment's own library, one call at a time: it has no other way to wait for an answer."""
    analytics: Any = import_module("segment.analytics.client")  # it has no types
    client, numbers = analytics.Client(KEY, host=url, sync_mode=True), count()

    def call() -> None:
        given = arguments(next(numbers))
        client.track(given["userId"], given["event"], given["properties"])

    call()
    clock = Clock()
    while (begun := time.perf_counter()) < clock.start + seconds:
        call()
        clock.took.append(time.perf_counter() - begun)
    return clock.figures()


def main() -> None:
    side, url, in_flight, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    if side == "library":
        figures = library(url, seconds)
    else:
        figures = asyncio.run({"ours": ours, "httpx": bare}[side](url, in_flight, seconds))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

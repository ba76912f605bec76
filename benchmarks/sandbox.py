"""How fast the sandbox takes messages, beside a bare Starlette route that keeps nothing; and its debugger when full.

    python benchmarks/sandbox.py [--rounds N] [--seconds S] [--messages N]

Every round measures each side once, in turn, so that a slow hour slows all; figures are medians of the rounds, with the
least and the most. Servers are processes of their own, asked over loopback by one process on eight connections.
"""

import argparse
import json
import os
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from calls import Figures, post, posted
from processes import apart, serving

CONNECTIONS = 8
BATCH = 100
START_SECONDS = 30


def message(number: int) -> dict[str, Any]:
    """A purchase as a shop's server sends it: about 530 bytes."""
    return {
        "type": "track",
        "event": "Order Completed",
        "userId": f"user-{number % 1000}",
        "anonymousId": f"8d7a4c1f-{number % 1000:08}",
        "messageId": f"{number:032x}",
        "timestamp": "2026-11-23T12:00:00.123Z",
        "properties": {
            "orderId": f"order-{number}",
            "revenue": 19.99,
            "currency": "USD",
            "products": [{"product_id": "p1", "name": "Mug", "price": 9.99, "quantity": 2}],
        },
        "context": {
            "library": {"name": "analytics-python", "version": "2.4.0"},
            "ip": "10.0.0.1",
            "page": {"url": "https://example.com/checkout", "title": "Checkout"},
        },
        "integrations": {},
    }


def bare(listener: socket.socket, parses: bool) -> None:
    """A route that reads, in one form also parses, and keeps nothing."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    async def take(request: Request) -> Response:
        await (request.json() if parses else request.body())
        return JSONResponse({"success": True})

    routes = [Route(path, take, methods=["POST"]) for path in ("/v1/track", "/v1/batch")]
    config = uvicorn.Config(Starlette(routes=routes), log_level="error", access_log=False, lifespan="off", ws="none")
    uvicorn.Server(config).run(sockets=[listener])


def sandbox(listener: socket.socket, folder: str) -> None:
    """The sandbox as its command starts it, with a file on disk: a new one where there is none in the folder."""
    from segment_tools.sandbox.options import Options
    from segment_tools.sandbox.run import server, settle
    from segment_tools.sandbox.store import Store

    store = Store(Path(folder) / "sandbox.db")
    settle()
    server(store, Options()).run(sockets=[listener])


def _requests(port: int, path: str, batch: int, first: int) -> Iterator[bytes]:
    """Requests whose messages have ids of their own, so that none is a repeat."""
    items = [{**message(index), "messageId": "%032x"} for index in range(batch)]
    body = json.dumps({"batch": items, "sentAt": "2026-11-23T12:00:00.123Z"} if batch > 1 else items[0])
    # `post` is not asked each time: what is asked with must cost little.
    length = len(body % tuple(range(batch)))
    head = post(port, path, b"0" * length)[:-length].decode()
    number = first
    while True:
        # Multiplied by an odd number every id stays one of its own, and they come in no order, as real ones do.
        yield (head + body % tuple((each * _ODD) % 2**128 for each in range(number, number + batch))).encode()
        number += batch


_ODD = 0x9E3779B97F4A7C15F39CC0605CEDC835


def rate(port: int, path: str, batch: int, seconds: float) -> float:
    """Requests a second."""
    requests = _requests(port, path, batch, time.time_ns())
    found: Figures = apart(posted, port, requests, CONNECTIONS, seconds)
    return found["per_second"]


def spread(values: list[float], unit: str) -> str:
    """The median, and the least and the most."""
    return f"{statistics.median(values):>10,.0f} {unit} ({min(values):,.0f} to {max(values):,.0f})"


def measure(rounds: int, seconds: float) -> None:
    """Print requests and messages a second of each side, and the ratios. Each time the sandbox begins a new file."""
    sides: dict[str, Callable[[socket.socket, str], None]] = {
        "bare route, body read": lambda listener, _: bare(listener, parses=False),
        "bare route, JSON parsed": lambda listener, _: bare(listener, parses=True),
        "sandbox": sandbox,
    }
    for path, batch in (("/v1/batch", BATCH), ("/v1/track", 1)):
        found: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, serve in sides.items():
                with tempfile.TemporaryDirectory() as folder, serving(serve, folder) as port:
                    rate(port, path, batch, 0.5)
                    found[side].append(rate(port, path, batch, seconds))
        print(f"\n{path}, {batch} message{'s' * (batch > 1)} a request, {rounds} rounds of {seconds:g} s")
        for side, rates in found.items():
            ratios = [ours / theirs for ours, theirs in zip(found["sandbox"], rates, strict=True)]
            print(f"  {side:24}{spread(rates, 'requests/s')}; sandbox is {statistics.median(ratios):.2f} of it")
        stored = [each * batch for each in found["sandbox"]]
        print(f"  {'messages stored':24}{spread(stored, 'messages/s')}")


def fill(db: Path, messages: int) -> None:
    """Store so many messages, through the store itself."""
    from segment_tools.sandbox.json_text import Body, encoded
    from segment_tools.sandbox.judge import verdicts
    from segment_tools.sandbox.store import Arrival, Retention, Store

    store = Store(db, Retention(None))
    now = datetime.now(UTC)
    for first in range(0, messages, 1000):
        items = [message(number) for number in range(first, first + 1000)]
        arrival = Arrival(now - timedelta(seconds=(messages - first) / 1000), "/v1/batch", "web")
        store.add(arrival, verdicts(Body({}, [encoded(item) for item in items]), None))
    store.close()


def debugger(messages: int, rounds: int) -> None:
    """Print how long the debugger's first page takes, with so many messages stored."""
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / "sandbox.db"
        fill(db, messages)
        with serving(sandbox, folder) as port:
            paths = FIRST_PAGE
            took: list[float] = []
            _get(port, paths[0])
            for _ in range(rounds):
                start = time.perf_counter()
                for path in paths:
                    _get(port, path)
                took.append((time.perf_counter() - start) * 1000)
        print(f"\nThe debugger's first page with {messages:,} messages stored, {rounds} times")
        print(f"  {len(paths)} requests, one after the other:{spread(took, 'ms for all of them')}")


FIRST_PAGE = (
    "/",
    "/_sandbox/debugger.css",
    "/_sandbox/debugger.js",
    *(
        f"/_sandbox/debugger/{module}.js"
        for module in (
            "api",
            "counts",
            "details",
            "dom",
            "feed",
            "json",
            "list",
            "messages",
            "profiles",
            "verdict",
        )
    ),
    "/_sandbox/sources",
    "/_sandbox/summaries?limit=200",
    "/_sandbox/counts",
)


def _get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=START_SECONDS) as answer:
        return answer.read()


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast the sandbox is.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--messages", type=int, default=1_000_000)
    given = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    measure(given.rounds, given.seconds)
    if given.messages:
        debugger(given.messages, 20)


if __name__ == "__main__":
    main()

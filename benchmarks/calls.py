"""Calls that somebody waits for: how many a second, and how long each took."""

import asyncio
import json
import math
import re
import selectors
import socket
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

ANSWER_SECONDS = 30
Figures = dict[str, float]
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


def latencies(took: list[float]) -> Figures:
    """The median and the 99th percentile, in milliseconds."""
    cuts = statistics.quantiles(took, n=100, method="inclusive") if len(took) > 1 else took * 99
    return {"p50_ms": cuts[49] * 1000, "p99_ms": cuts[98] * 1000}


@dataclass
class Clock:
    """What is measured of calls, from when it is made to when it is asked."""

    cpu_of: Callable[[], float] = time.process_time
    """The processor time so far of the process that is measured; this one's unless told otherwise."""
    took: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        self._cpu = self.cpu_of()
        self.start = time.perf_counter()

    def figures(self) -> Figures:
        """Calls a second, how long they took, and what processor time each cost."""
        seconds, cpu = time.perf_counter() - self.start, self.cpu_of() - self._cpu
        done = len(self.took)
        cost = {} if math.isnan(cpu) else {"cpu_us": cpu / done * 1e6}
        return {"per_second": done / seconds, **latencies(self.took), **cost, "calls": done}


async def hammered(call: Callable[[int], Awaitable[object]], in_flight: int, seconds: float) -> Figures:
    """The figures of so many callers who each wait for their answer; each has called once before that."""
    numbers = count()
    await asyncio.gather(*(call(number) for number in islice(numbers, in_flight)))
    clock = Clock()

    async def caller() -> None:
        while (begun := time.perf_counter()) < clock.start + seconds:
            await call(next(numbers))
            clock.took.append(time.perf_counter() - begun)

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return clock.figures()


@dataclass
class _Connection:
    socket: socket.socket
    begun: float = 0
    got: bytes = b""

    def ask(self, request: bytes) -> None:
        self.begun = time.perf_counter()
        self.socket.sendall(request)

    def answered(self) -> bool:
        """Take what came; whether the answer is whole.

        Raises:
            SystemExit: it is an error.
        """
        self.got += self.socket.recv(65536) or _closed()
        head = self.got.find(b"\r\n\r\n")
        if head < 0:
            return False
        length = _LENGTH.search(self.got, 0, head)
        if length is None or len(self.got) < head + 4 + int(length[1]):
            return False
        if not self.got.startswith(b"HTTP/1.1 200 ") or refused(self.got[head + 4 :]):
            raise SystemExit(self.got.decode(errors="replace"))
        self.got = b""
        return True


def _closed() -> bytes:
    raise SystemExit("the server closed a connection in the middle of an answer")


def refused(answer: bytes) -> bool:
    """Whether an answer over MCP says that the call failed."""
    return b'"isError":true' in answer or b'"error":{' in answer


def posted(
    port: int,
    requests: Iterator[bytes],
    in_flight: int,
    seconds: float,
    cpu_of: Callable[[], float] = time.process_time,
) -> Figures:
    """The figures of plain sockets, each of which is sent the next request as soon as it was answered."""
    waiting, open_ = selectors.DefaultSelector(), list[_Connection]()
    for _ in range(in_flight):
        plain = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        open_.append(_Connection(plain))
        waiting.register(plain, selectors.EVENT_READ, open_[-1])
        open_[-1].ask(next(requests))
        while not open_[-1].answered():
            pass
    clock = Clock(cpu_of)
    for each in open_:
        each.ask(next(requests))
    left = in_flight
    while left:
        ready = waiting.select(ANSWER_SECONDS) or _late()
        for key, _ in ready:
            connection: _Connection = key.data
            if not connection.answered():
                continue
            now = time.perf_counter()
            clock.took.append(now - connection.begun)
            if now < clock.start + seconds:
                connection.ask(next(requests))
            else:
                left -= 1
    for each in open_:
        each.socket.close()
    return clock.figures()


def _late() -> Any:
    raise SystemExit(f"no answer for {ANSWER_SECONDS} seconds")


def post(port: int, path: str, body: bytes, more: str = "") -> bytes:
    """A whole request."""
    lines = (
        f"POST {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Authorization: Basic azo=",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    return ("\r\n".join(lines) + f"\r\n{more}\r\n").encode() + body


def arguments(number: int) -> dict[str, Any]:
    """A purchase, as an agent reports it: about 400 bytes on the wire."""
    properties = {"orderId": f"order-{number}", "revenue": 19.99, "currency": "USD", "coupon": "AUTUMN"}
    return {"event": "Order Completed", "userId": f"user-{number}", "properties": properties}


def tool_call(number: int, tool: str) -> bytes:
    """The call of a tool with a purchase, as one line of JSON-RPC."""
    params = {"name": tool, "arguments": arguments(number)}
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode()

"""Whether servers under steady calls stay as small as they were while the data plane comes and goes.

    python benchmarks/soak.py [--minutes M] [--rate CALLS]

Two servers, one in each mode, share an outbox in a SQLite file. Calls come at a steady rate, each for one of a thousand
users; the data plane, a sandbox in this process, has a fault half of the time. Resident memory and open files are read
from /proc once a second; what counts is how large a server is when it has come to rest, after a warm-up of a quarter of
the time and at the end: the data plane is well then, and the outbox has emptied itself. Exits with 1 where something
grew beyond its tolerance, was given up, or stayed in the outbox.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any

import httpx

from segment_tools.environment import environment
from segment_tools.outbox import MOST_BYTES, Outbox, open_outbox
from segment_tools.sandbox.options import Options
from segment_tools.sandbox.run import Sandbox
from segment_tools.sandbox.store import Retention
from segment_tools.storage.moments import now

MOST_GROWTH_MB = 8.0
"""Beyond what is remembered on purpose, for allocators and caches that have not seen everything after a quarter."""
REMEMBERED_BYTES = 700
"""For each call: a messageId and its first result are known for 24 hours, 100,000 of them at most."""
MOST_FILES = 24
"""More of them: idle connections that are kept for the next request."""
EMPTY_SECONDS = 120
WARM_UP = 0.25
USERS = 1000
FAULTS: Sequence[dict[str, Any]] = (
    {"kind": "drop"},
    {"kind": "reset"},
    {"kind": "hang"},
    {"kind": "slow", "seconds": 1},
    {"status": 429, "headers": {"Retry-After": "1"}},
    *({"status": status} for status in (408, 500, 502, 503, 504)),
)


@dataclass
class Server:
    """One of them, and what was seen of it."""

    mode: str
    process: "subprocess.Popen[str]"
    url: str
    megabytes: list[float] = field(default_factory=list[float])
    files: list[int] = field(default_factory=list[int])

    def look(self) -> None:
        """Note how large it is."""
        place = Path(f"/proc/{self.process.pid}")
        pages = int((place / "statm").read_text().split()[1])
        self.megabytes.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        self.files.append(len(list((place / "fd").iterdir())))


@contextmanager
def serving(mode: str, outbox: str, url: str) -> Generator[Server]:
    settings = {
        "SEGMENT_WRITE_KEY": "soak",
        "SEGMENT_DATA_PLANE_URL": url,
        "SEGMENT_OUTBOX": outbox,
        "SEGMENT_DELIVERY": mode,
        "SEGMENT_TIMEOUT_SECONDS": "2",
    }
    command = [sys.executable, "-m", "segment_tools", "--log-level", "error", "http", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(**settings)) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        try:
            yield Server(mode, process, line.split(" at ")[1].split(",")[0])
        finally:
            process.terminate()
            process.communicate()


@dataclass
class Soak:
    """What goes on until the time is up."""

    servers: Sequence[Server]
    sandbox: Sandbox
    outbox: Outbox
    client: httpx.AsyncClient
    rate: float
    chance: random.Random = field(default_factory=lambda: random.Random(11))
    told: Counter[str] = field(default_factory=Counter[str])
    waiting: list[int] = field(default_factory=list[int])

    async def call(self, server: Server, number: int) -> None:
        """Make a call, and count what was answered."""
        given = {"event": "Order Completed", "userId": f"user-{number % USERS}", "properties": {"number": number}}
        asked = {"name": "segment_track", "arguments": given}
        answer = await self.client.post(
            server.url, json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": asked}
        )
        result = answer.json()["result"]["structuredContent"]
        self.told[result["status"] if result["success"] else result["error"]["code"]] += 1

    async def steadily(self, seconds: float) -> None:
        """A call each time one is due, whether or not those before are answered."""
        start, servers = time.monotonic(), cycle(self.servers)
        async with asyncio.TaskGroup() as group:
            for number in count():
                due = start + number / self.rate
                if due > start + seconds:
                    return
                await asyncio.sleep(due - time.monotonic())
                group.create_task(self.call(next(servers), number))

    async def flap(self) -> None:
        """Half of the time all is well, half of the time there is a fault."""
        while True:
            await asyncio.sleep(self.chance.uniform(0.5, 3))
            self.sandbox.fault(**self.chance.choice(FAULTS), share=self.chance.choice((1, 0.5, 0.2)))
            await asyncio.sleep(self.chance.uniform(0.5, 3))
            self.sandbox.clear_faults()

    async def watch(self) -> None:
        """Look at everything once a second."""
        while True:
            for server in self.servers:
                server.look()
            self.waiting.append((await self.outbox.depth()).pending)
            await asyncio.sleep(1)

    async def storm(self, seconds: float) -> float:
        """Calls and faults for so long; how many seconds the outbox then took to empty itself."""
        doing = [asyncio.create_task(each) for each in (self.watch(), self.flap())]
        await self.steadily(seconds)
        for task in doing:
            task.cancel()
        await asyncio.gather(*doing, return_exceptions=True)
        self.sandbox.clear_faults()
        begun = time.monotonic()
        while (await self.outbox.depth()).pending and time.monotonic() < begun + EMPTY_SECONDS:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        for server in self.servers:
            server.look()
        return time.monotonic() - begun


async def soaked(seconds: float, rate: float) -> list[str]:
    """What is wrong, if anything; prints the figures."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        address = f"sqlite:///{folder}/outbox.db"
        sandbox = stack.enter_context(Sandbox(options=Options(retention=Retention(10_000))))
        servers = [stack.enter_context(serving(mode, address, sandbox.url)) for mode in ("direct", "queued")]
        outbox = open_outbox(address, MOST_BYTES, now)
        headers = {"Accept": "application/json, text/event-stream"}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        async with httpx.AsyncClient(headers=headers, timeout=60, limits=limits) as client:
            soak = Soak(servers, sandbox, outbox, client, rate)
            await soak.storm(seconds * WARM_UP)
            warm = [(server.megabytes[-1], server.files[-1]) for server in servers]
            emptied = await soak.storm(seconds * (1 - WARM_UP))
        left = await outbox.depth()
        await outbox.aclose()
        return report(soak, warm, emptied, left.pending, left.dead)


def report(soak: Soak, warm: Sequence[tuple[float, int]], emptied: float, pending: int, dead: int) -> list[str]:
    calls = soak.told.total()
    allowed = MOST_GROWTH_MB + calls / len(soak.servers) * REMEMBERED_BYTES / 2**20
    wrong: list[str] = []
    print(f"{calls} calls: {', '.join(f'{name} {n}' for name, n in soak.told.most_common())}")
    print(f"memory may grow by {allowed:.1f} MB, open files by {MOST_FILES}")
    print(f"{'server':8}{'MB, warm':>10}{'end':>7}{'most':>7}{'files, warm':>14}{'end':>5}{'most':>6}")
    for server, (size, files) in zip(soak.servers, warm, strict=True):
        sizes, opened = server.megabytes, server.files
        print(f"{server.mode:8}{size:>10.1f}{sizes[-1]:>7.1f}{max(sizes):>7.1f}", end="")
        print(f"{files:>14}{opened[-1]:>5}{max(opened):>6}")
        if sizes[-1] > size + allowed:
            wrong.append(f"{server.mode}: memory grew by {sizes[-1] - size:.1f} MB")
        if opened[-1] > files + MOST_FILES:
            wrong.append(f"{server.mode}: open files grew from {files} to {opened[-1]}")
    print(f"outbox: at most {max(soak.waiting)} waiting, {pending} {emptied:.1f} s after the end, {dead} given up")
    wrong += [f"{pending} messages stayed in the outbox"] if pending else []
    wrong += [f"{dead} messages were given up"] if dead else []
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description="Whether servers stay small under steady calls.")
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--rate", type=float, default=40, help="calls a second")
    given = parser.parse_args()
    wrong = asyncio.run(soaked(given.minutes * 60, given.rate))
    print("\n".join(wrong) or "Nothing grew, nothing was lost.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

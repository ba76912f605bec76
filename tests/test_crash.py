"""Nothing that was answered accepted or queued is lost, and nobody's order, however often servers are killed.

Two servers, in any of the two modes, share an outbox and are killed with SIGKILL 100 times between them for each kind
of outbox, half of the times at a random moment, half of them just as the data plane has taken something, while the data
plane meets with faults of every kind. Whoever calls does as agents do: it makes its calls one after the other, and
where it gets no answer it tries again with the same messageId, or leaves it.
"""

import asyncio
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from starter import Starter, starting
from support import KEY, WAIT, emptied, rows, until

from segment_tools.outbox import MOST_BYTES, open_outbox
from segment_tools.sandbox.run import Sandbox
from segment_tools.storage.moments import now

pytestmark = pytest.mark.anyio

KILLS = 100
USERS_AT_ONCE = 8
LONGEST_LIFE = 0.4
"""Seconds that a server lives at most once it is up: about 20 requests."""

ACCEPT = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18"}

PASSING: tuple[dict[str, Any], ...] = (
    {"kind": "drop"},
    {"kind": "reset"},
    {"kind": "hang"},
    {"kind": "slow", "seconds": 0.3},
    *({"status": status} for status in (408, 410, 460, 500, 502, 503, 504)),
    {"status": 429, "headers": {"X-RateLimit-Reset": "1"}},
    {"status": 503, "headers": {"Retry-After": "1", "Content-Type": "text/html"}, "body": "<h1>Sorry</h1>"},
    {"status": 403},
    {"status": 501},
)
"""Faults after which a message is still good: what Segment refuses for good becomes a dead letter, and is no loss."""


@dataclass
class Server:
    """One that is killed and started anew, on the same port, in any of the two modes."""

    starter: Starter
    environ: dict[str, str]
    log: Path
    port: int
    client: httpx.AsyncClient
    pid: int = 0
    up: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, mode: str) -> None:
        environ = {**self.environ, "SEGMENT_DELIVERY": mode}
        self.pid = self.starter.start(["http", "--port", str(self.port)], environ, str(self.log))
        await until(self._answers, 0.01)
        self.up = True

    async def _answers(self) -> bool:
        with suppress(httpx.TransportError):
            return (await self.client.get(f"{self.url}/healthz")).status_code == 200
        return False

    def kill(self) -> None:
        if self.pid:
            self.starter.kill(self.pid)
        self.pid, self.up = 0, False


@contextmanager
def port_kept() -> Iterator[int]:
    """A port that nobody else is given meanwhile, and that a server may listen on."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


@dataclass
class Storm:
    """What goes on at the same time, and what was answered."""

    sandbox: Sandbox
    servers: list[Server]
    chance: random.Random
    over: bool = False
    answered: dict[str, list[str]] = field(default_factory=dict)
    """For each user, the ids of what was answered accepted or queued, in that order."""
    told: Counter[str] = field(default_factory=Counter)
    users: Iterator[int] = field(default_factory=count)

    async def kill_over_and_over(self, server: Server) -> None:
        for _ in range(KILLS // len(self.servers)):
            await server.start(self.chance.choice(("direct", "queued")))
            await self._moment()
            server.kill()

    async def _moment(self) -> None:
        """A random moment, or the one at which the data plane has just taken something."""
        seconds = self.chance.uniform(0, LONGEST_LIFE)
        if self.chance.random() < 0.5:
            await asyncio.sleep(seconds)
            return
        taken, loop = asyncio.Event(), asyncio.get_running_loop()
        end = self.sandbox.store.listen(lambda: loop.call_soon_threadsafe(taken.set))
        try:
            async with asyncio.timeout(LONGEST_LIFE + seconds):
                await asyncio.sleep(seconds)
                taken.clear()
                await taken.wait()
        except TimeoutError:
            pass
        finally:
            end()

    async def flap(self) -> None:
        """Faults come and go, two good moments for each bad one."""
        while True:
            self.sandbox.clear_faults()
            await asyncio.sleep(self.chance.uniform(0, 0.4))
            share = self.chance.choice((1, 0.5, 0.25))
            self.sandbox.fault(**self.chance.choice(PASSING), share=share)
            await asyncio.sleep(self.chance.uniform(0, 0.2))

    async def call_on(self) -> None:
        """One user after the other, each with some calls, until the storm is over."""
        while not self.over:
            user = f"user-{next(self.users)}"
            self.answered[user] = []
            for number in range(self.chance.randint(1, 8)):
                await self._see_through(user, number)

    async def _see_through(self, user: str, number: int) -> None:
        """A call, made until it is answered, or left after a while."""
        messages = [
            {"type": "track", "event": "Order Completed", "userId": user, "messageId": f"{user}-{number}-{part}"}
            for part in range(self.chance.choice((1, 1, 1, 3)))
        ]
        while True:
            status = await self._call(messages)
            self.told[status] += 1
            if status in ("accepted", "queued"):
                self.answered[user] += [message["messageId"] for message in messages]
                return
            if self.chance.random() < 0.3:
                return

    async def _call(self, messages: list[dict[str, Any]]) -> str:
        server = await self._somebody()
        name, arguments = "segment_batch", {"batch": messages}
        if len(messages) == 1:
            name, arguments = "segment_track", {key: messages[0][key] for key in ("event", "userId", "messageId")}
        asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
        try:
            result = (await server.client.post(f"{server.url}/mcp", json=asked)).json()["result"]["structuredContent"]
        except httpx.TransportError:
            return "unanswered"
        return result["status"] if result["success"] else result["error"]["code"]

    async def _somebody(self) -> Server:
        await until(lambda: any(server.up for server in self.servers), 0.005)
        return self.chance.choice([server for server in self.servers if server.up])

    async def rage(self) -> None:
        """Until every server was killed as often as it shall be, and stands again."""
        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(self.call_on()) for _ in range(USERS_AT_ONCE)]
            flapping = group.create_task(self.flap())
            await asyncio.gather(*(self.kill_over_and_over(server) for server in self.servers))
            self.over = True
            for server, mode in zip(self.servers, ("direct", "queued"), strict=True):
                await server.start(mode)
            await asyncio.wait(callers, timeout=WAIT)
            flapping.cancel()
        self.sandbox.clear_faults()


@asynccontextmanager
async def storm(sandbox: Sandbox, outbox: str, environ: dict[str, str], folder: Path) -> AsyncIterator[Storm]:
    chosen = {
        **environ,
        "SEGMENT_WRITE_KEY": KEY,
        "SEGMENT_DATA_PLANE_URL": sandbox.url,
        "SEGMENT_OUTBOX": outbox,
        "SEGMENT_TIMEOUT_SECONDS": "0.5",
    }
    # Each call on a connection of its own: one that is kept may be to a server that is gone.
    once = httpx.Limits(max_keepalive_connections=0)
    with starting(chosen) as starter, port_kept() as one, port_kept() as other:
        async with httpx.AsyncClient(headers=ACCEPT, timeout=WAIT, limits=once) as client:
            servers = [Server(starter, chosen, folder / f"{port}.log", port, client) for port in (one, other)]
            yield Storm(sandbox, servers, random.Random(5))
            for server in servers:
                server.kill()


async def emptied_itself(address: str) -> None:
    """Wait until nothing waits in the outbox any more; nothing may have been given up."""
    outbox = open_outbox(address, MOST_BYTES, now)

    async def empty() -> bool:
        return (await outbox.depth()).pending == 0

    try:
        await until(empty, 0.05)
        assert (await outbox.depth()).dead == 0
    finally:
        await outbox.aclose()


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_what_was_answered_arrives_once_and_in_order_though_servers_are_killed_100_times(
    kind: str, sandbox: Sandbox, environ: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    address = f"sqlite:///{tmp_path}/outbox.db"
    if kind == "redis":
        address = str(request.getfixturevalue("redis_server"))
        emptied(address)
    async with storm(sandbox, address, environ, tmp_path) as raging:
        await raging.rage()
        await emptied_itself(address)
    came = [message["messageId"] for message in sandbox.messages()]
    assert len(came) == len(set(came))
    order = {message_id: place for place, message_id in enumerate(came)}
    answered = [message_id for ids in raging.answered.values() for message_id in ids]
    assert [message_id for message_id in answered if message_id not in order] == []
    for ids in raging.answered.values():
        assert ids == sorted(ids, key=lambda message_id: order[message_id])
    again = len(rows(sandbox)) - len(came)
    print(f"{kind}: {len(answered)} messages answered, {raging.told}, {again} arrived again")
    assert min(raging.told["accepted"], raging.told["queued"], raging.told["unanswered"], again) > 0

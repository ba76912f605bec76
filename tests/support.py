"""What the tests share: the tools as an MCP client calls them, upstreams that fail, a clock that stands."""

import asyncio
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
import redis as redis_client
from mcp import Client
from mcp.types import CallToolResult

from segment_tools import Segment, Settings, Transport
from segment_tools.attempts import Surroundings
from segment_tools.sandbox.run import Sandbox
from segment_tools.surfaces.mcp_server import build

WAIT = 60
"""Seconds that nothing here takes: what does, hangs."""

ROOT = Path(__file__).parent.parent
KEY = "wk-RECOGNISABLE-4f9c2b71d0"
"""A write key that no other text contains."""

TRACK: dict[str, Any] = {"type": "track", "event": "Order Completed", "userId": "u1", "properties": {"revenue": 9.5}}
MIXED: list[dict[str, Any]] = [
    TRACK,
    {"type": "page", "anonymousId": "a1", "name": "Home"},
    {"type": "track", "userId": "u2"},
    {"type": "purchase", "userId": "u3"},
    {"type": "identify", "userId": "u4", "messageId": "m1"},
    {"type": "identify", "userId": "u4", "messageId": "m1"},
]
"""Accepted, accepted, without an event, of no type, accepted, and the same once more."""

NOW = datetime(2026, 11, 23, 12, 0, 0, 123000, tzinfo=UTC)
SENT_AT = "2026-11-23T12:00:00.123Z"


def arrived(sandbox: Sandbox) -> list[dict[str, Any]]:
    """What the sandbox would deliver, in the order of arrival."""
    return [row["message"] for row in reversed(sandbox.store.messages({}, False, 10_000))]


def rows(sandbox: Sandbox) -> list[dict[str, Any]]:
    """Everything the sandbox took, discarded or not, in the order of arrival."""
    return list(reversed(sandbox.store.messages({}, None, 10_000)))


_STAMPED = (
    "messageId", "timestamp", "receivedAt", "sentAt", "originalTimestamp", "channel", "version", "projectId",
    "writeKey", "_metadata",
)  # fmt: skip


def comparable(message: Mapping[str, Any]) -> dict[str, Any]:
    """A delivered message without what Segment's own end-to-end tester leaves out of its comparison."""
    context = {key: value for key, value in message.get("context", {}).items() if key != "library"}
    kept = {key: value for key, value in {**message, "context": context}.items() if key not in _STAMPED}
    return {key: value for key, value in kept.items() if value != {}}


def settings(**values: Any) -> Settings:
    """Settings as the environment would give them: names in lower case, without the prefix."""
    environ = {f"SEGMENT_{name.upper()}": str(value) for name, value in values.items()}
    return Settings.from_env(environ={"SEGMENT_WRITE_KEY": KEY, **environ})


@dataclass
class Time:
    """A clock that stands until somebody waits."""

    now: datetime = NOW
    waits: list[float] = field(default_factory=list)
    _ids: Iterator[int] = field(default_factory=lambda: count(1))

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.pass_by(seconds)

    def pass_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def surroundings(self, jitter: float = 1.0) -> Surroundings:
        return Surroundings(
            now=lambda: self.now,
            monotonic=lambda: (self.now - NOW).total_seconds(),  # noqa: PLW0108 - `now` moves
            sleep=self.sleep,
            new_id=lambda: f"id-{next(self._ids):08}",
            jitter=lambda: jitter,
        )


Answer = Callable[[httpx.Request], httpx.Response]


@dataclass
class Upstream:
    """A data plane that answers as told, one answer after the other, the last one for ever."""

    answers: list[httpx.Response | Exception]
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    def transport(self, base_url: str = "https://api.segment.io") -> Transport:
        return Transport(base_url, httpx.MockTransport(self))


def accepting() -> Upstream:
    return Upstream([httpx.Response(200, json={"success": True})])


def answering(*answers: httpx.Response | Exception) -> Upstream:
    return Upstream(list(answers))


@asynccontextmanager
async def mcp(chosen: Settings, transport: Transport | None = None, mode: str = "auto") -> AsyncIterator[Client]:
    """An MCP client of the tools under these settings, in this process; `mode` "legacy" speaks the 2025 revisions."""
    segment = Segment(chosen, transport=transport or Transport(chosen.endpoint))
    async with Client(build(segment), raise_exceptions=True, mode=mode) as client:  # type: ignore[arg-type]
        yield client


def facts(result: CallToolResult) -> dict[str, Any]:
    """The structured result, which the text must equal and the error flag must match."""
    found = result.structured_content
    assert [json.loads(block.text) for block in result.content] == [found]  # type: ignore[union-attr]
    assert result.is_error is not found["success"]
    return found


def work(function: Callable[[], object]) -> int:
    """How many calls of Python functions the function makes: what a bound on its work can be told by, unlike time."""
    made = 0

    def counted(_: object, what: str, __: object) -> None:
        nonlocal made
        made += what == "call"

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        function()
    finally:
        sys.setprofile(before)
    return made


Caller = Callable[..., Any]


@contextmanager
def running(environ: Mapping[str, str], *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The program once it has said on standard error where it listens, and that address; ended at the end."""
    process = subprocess.Popen(
        program(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(environ)
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert " at http://" in line, line
        yield process, re.split(r"/mcp|,", line.split(" at ")[1])[0]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=WAIT)


def program(*arguments: str) -> list[str]:
    """The command line of the installed program."""
    return [sys.executable, "-P", "-m", "segment_tools", *arguments]


def acknowledged(command: Sequence[str], environ: dict[str, str], lines: int) -> set[str]:
    """What a process has acknowledged once it is killed, after so many lines."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        try:
            read = [process.stdout.readline() for _ in range(lines)]
        finally:
            process.kill()
        read += process.stdout.readlines()
    return {each for line in read if line.endswith("\n") for each in line.split()}


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool], between: float = 0) -> None:
    """Wait until the condition holds, which nobody tells us of; looked at so many seconds apart."""
    async with asyncio.timeout(WAIT):
        while True:
            found = condition()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(between)


def foreign(path: Path, *statements: str) -> None:
    """What another program does to the SQLite file."""
    database = sqlite3.connect(path)
    for statement in statements:
        database.execute(statement)
    database.close()


def emptied(server: str) -> None:
    """Delete all that the Redis server holds."""
    with redis_client.Redis.from_url(server) as client:
        client.flushall()


@contextmanager
def redis_running(folder: Path, port: int = 0, **options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A Redis server of the tests' own, and its port: this one, or a free one."""
    with socket.create_server(("127.0.0.1", port)) as free:
        port = free.getsockname()[1]
    chosen = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": folder, **options}
    command = [redis_program(), *(text for name, value in chosen.items() for text in (f"--{name}", str(value)))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any("Ready to accept connections" in line for line in process.stdout)
        yield process, port
    finally:
        process.terminate()
        process.communicate(timeout=WAIT)


def redis_program() -> str:
    """Where the Redis server is; without one, the test is skipped, but never in CI."""
    return shutil.which("redis-server") or absent("there is no redis-server on the path")


def absent(reason: str) -> NoReturn:
    """End the test for want of something that is to be there: visibly, and as a failure in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)

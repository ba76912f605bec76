"""Deliveries sent on to a workflow: each once, in order, signed, whatever the workflow answers and whoever sends."""

import asyncio
import hashlib
import hmac
import json
import logging
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx
import pytest
import redis as redis_client
from support import KEY, WAIT, Time, program, running, settings

from segment_tools import Segment
from segment_tools.surfaces.mcp_server import http_app

pytestmark = pytest.mark.anyio
SECRET = "wh-RECOGNISABLE-secret-7d1c"
PATH = "/webhooks/segment"


def sign(body: bytes) -> dict[str, str]:
    return {"X-Signature": hmac.new(SECRET.encode(), body, hashlib.sha1).hexdigest()}


@dataclass
class Workflow:
    """What deliveries are sent on to: it answers as `answer` says, by the messageId and how often that one came."""

    answer: Callable[[str, int], tuple[int, str]] = lambda _, __: (200, "")
    came: list[str] = field(default_factory=list)
    bodies: list[dict[str, str]] = field(default_factory=list)
    genuine: bool = True
    address: str = ""

    @property
    def taken(self) -> list[str]:
        """The ids that it answered with 200, in order."""
        return [
            name for at, name in enumerate(self.came) if self.answer(name, self.came[: at + 1].count(name))[0] == 200
        ]

    async def until(self, done: Callable[[], bool]) -> None:
        with anyio.fail_after(WAIT):
            while not done():  # noqa: ASYNC110 - bounded, and told by a socket
                await asyncio.sleep(0.02)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(found["content-length"]))
        self.genuine &= found["x-signature"] == sign(body)["X-Signature"]
        self.bodies.append(json.loads(body))
        name = self.bodies[-1]["messageId"]
        self.came.append(name)
        status, more = self.answer(name, self.came.count(name))
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n{more}Connection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()


def named(address: str) -> str:
    """The address as logs show it: its path may be a credential."""
    return f"{address.rpartition('/')[0]} (#{hashlib.sha256(address.encode()).hexdigest()[:8]})"


@asynccontextmanager
async def working(workflow: Workflow) -> AsyncIterator[Workflow]:
    server = await asyncio.start_server(workflow.serve, "127.0.0.1", 0)
    workflow.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/flow?key=1"
    try:
        yield workflow
    finally:
        server.close()


@asynccontextmanager
async def replicas(
    count: int, inbox: str, forward: str, time: Time | None = None, **values: str
) -> AsyncIterator[list[httpx.AsyncClient]]:
    """Clients of so many receivers on one inbox, each of which would send on."""
    async with AsyncExitStack() as stack:
        found: list[httpx.AsyncClient] = []
        for _ in range(count):
            chosen = settings(dry_run=True, webhook_secret=SECRET, inbox=inbox, **values)
            app = http_app(Segment(chosen, surroundings=time.surroundings() if time else None), "x", forward=[forward])
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app)
            found.append(await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://x")))
        yield found


async def deliver(http: httpx.AsyncClient, name: str, url: str = PATH) -> None:
    body = json.dumps({"type": "track", "event": "Order Completed", "userId": "u1", "messageId": name}).encode()
    assert (await http.post(url, content=body, headers=sign(body))).status_code == 200


@pytest.fixture(params=["file", "redis"])
def inbox(request: pytest.FixtureRequest) -> str:
    if request.param == "file":
        return f"sqlite:///{request.getfixturevalue('tmp_path')}/inbox.db"
    server = str(request.getfixturevalue("redis_server"))
    with redis_client.Redis.from_url(server) as client:
        client.flushall()
    return server


async def test_what_is_sent_on_is_whole_whatever_is_hidden(tmp_path: Path) -> None:
    hidden = {"profile_hide_traits": "event,user_id"}
    async with (
        working(Workflow()) as workflow,
        replicas(1, f"sqlite:///{tmp_path}/a.db", workflow.address, **hidden) as [http],
    ):
        await deliver(http, "m1")
        await workflow.until(lambda: bool(workflow.taken))
    assert workflow.bodies == [{"type": "track", "event": "Order Completed", "userId": "u1", "messageId": "m1"}]


async def test_two_replicas_send_each_delivery_on_once_and_in_order(inbox: str) -> None:
    names = [f"m{number}" for number in range(60)]
    async with working(Workflow()) as workflow, replicas(2, inbox, workflow.address) as receivers:
        for number, name in enumerate(names):
            await deliver(receivers[number % 2], name)
        await workflow.until(lambda: len(workflow.came) >= len(names))
    assert workflow.came == names
    assert workflow.genuine


async def test_the_other_replica_goes_on_when_the_sender_ends(inbox: str) -> None:
    async with working(Workflow()) as workflow:
        async with replicas(2, inbox, workflow.address) as [first, _]:
            await deliver(first, "m1")
            await workflow.until(lambda: workflow.came == ["m1"])
        async with replicas(1, inbox, workflow.address) as [second]:
            await deliver(second, "m2")
            await workflow.until(lambda: workflow.came == ["m1", "m2"])


async def test_a_delivery_is_given_up_after_four_hours_and_the_next_one_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    time = Time()
    workflow = Workflow(lambda name, _: (500, "") if name == "m1" else (200, ""))
    async with working(workflow), replicas(1, f"sqlite:///{tmp_path}/a.db", workflow.address, time) as [http]:
        await deliver(http, "m1")
        await deliver(http, "m2")
        await workflow.until(lambda: workflow.came[-1:] == ["m2"])
    assert sum(time.waits) == pytest.approx(4 * 3600, abs=60)
    assert max(time.waits) <= 30
    assert [record.levelno for record in caplog.records if "is skipped" in record.message] == [logging.ERROR]


async def test_a_wait_that_the_workflow_asks_for_is_kept(tmp_path: Path) -> None:
    time = Time()
    workflow = Workflow(lambda _, times: (200, "") if times > 2 else (429, "Retry-After: 17\r\n"))
    async with working(workflow), replicas(1, f"sqlite:///{tmp_path}/a.db", workflow.address, time) as [http]:
        await deliver(http, "m1")
        await workflow.until(lambda: len(workflow.taken) == 1)
    assert time.waits == [17, 17]


async def test_what_a_workflow_refuses_is_skipped_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workflow = Workflow(lambda name, _: (422, "") if name == "m1" else (200, ""))
    async with working(workflow), replicas(1, f"sqlite:///{tmp_path}/a.db", workflow.address) as [http]:
        await deliver(http, "m1")
        await deliver(http, "m2")
        await workflow.until(lambda: workflow.taken == ["m2"])
    assert workflow.came == ["m1", "m2"]
    said = [record.getMessage() for record in caplog.records if "skipped" in record.message]
    assert len(said) == 1
    assert "422" in said[0]
    assert named(workflow.address) in said[0]
    assert "flow" not in said[0]


@pytest.mark.parametrize("status", [307, 401, 403, 404, 408, 410, 425, 500])
async def test_what_may_pass_is_tried_again(status: int, tmp_path: Path) -> None:
    time = Time()
    workflow = Workflow(lambda _, times: (200, "") if times > 2 else (status, "Location: http://127.0.0.1:1/\r\n"))
    async with working(workflow), replicas(1, f"sqlite:///{tmp_path}/a.db", workflow.address, time) as [http]:
        await deliver(http, "m1")
        await workflow.until(lambda: workflow.taken == ["m1"])
    assert workflow.came == ["m1"] * 3


async def test_an_accident_does_not_end_sending_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, calls = httpx.AsyncHTTPTransport.handle_async_request, []

    async def failing(transport: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        calls.append(request)
        if len(calls) == 1:
            raise ZeroDivisionError("about somebody")
        return await real(transport, request)

    monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", failing)
    async with (
        working(Workflow()) as workflow,
        replicas(1, f"sqlite:///{tmp_path}/a.db", workflow.address, Time()) as [http],
    ):
        await deliver(http, "m1")
        await workflow.until(lambda: workflow.taken == ["m1"])
    assert "ZeroDivisionError" in caplog.text
    assert "about somebody" not in caplog.text


@pytest.mark.parametrize(
    "address", ["http://999.1.1.1/hidden-word", "http://xn--a/hidden-word", f"http://a/{'x' * 70_000}"]
)
def test_an_address_that_nothing_can_be_sent_to_is_refused_at_the_start(address: str, environ: dict[str, str]) -> None:
    command = program("http", "--port", "0", "--forward", address)
    chosen = {**environ, "SEGMENT_WEBHOOK_SECRET": SECRET}
    done = subprocess.run(command, env=chosen, capture_output=True, text=True, timeout=WAIT, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is no address to send to" in done.stderr
    assert "hidden-word" not in done.stderr
    assert len(done.stderr) < 300


@pytest.mark.parametrize(
    "address", ["http://me:hidden-word@127.0.0.1/", "ftp://127.0.0.1/", "127.0.0.1", "http://a b/"]
)
def test_an_address_that_cannot_be_sent_to_is_refused_in_one_line(address: str, environ: dict[str, str]) -> None:
    command = program("http", "--forward", address)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=WAIT, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--forward" in done.stderr
    assert "hidden-word" not in done.stderr


async def test_what_came_while_nobody_sent_goes_on_after_a_restart(environ: dict[str, str], tmp_path: Path) -> None:
    inbox = f"sqlite:///{tmp_path / 'inbox.db'}"
    chosen = {**environ, "SEGMENT_WRITE_KEY": KEY, "SEGMENT_WEBHOOK_SECRET": SECRET, "SEGMENT_INBOX": inbox}
    workflow = Workflow(lambda name, times: (503, "") if (name, times) == ("m1", 1) else (200, ""))
    async with working(workflow), httpx.AsyncClient() as http:
        forwarding = ("http", "--port", "0", "--forward", workflow.address)
        with running(chosen, *forwarding) as (process, url):
            await deliver(http, "m1", f"{url}{PATH}")
            await workflow.until(lambda: workflow.taken == ["m1"])
            process.terminate()
            await asyncio.to_thread(process.wait, WAIT)
        with running(chosen, "http", "--port", "0") as (_, url):
            await deliver(http, "m2", f"{url}{PATH}")
            await deliver(http, "m3", f"{url}{PATH}")
        with running(chosen, *forwarding):
            await workflow.until(lambda: workflow.taken == ["m1", "m2", "m3"])
    assert workflow.genuine


async def test_an_address_that_fails_and_works_again_is_warned_of_once_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workflow = Workflow(lambda name, times: (503, "") if name == "m1" and times < 4 else (200, ""))
    inbox = f"sqlite:///{tmp_path}/a.db"
    async with working(workflow), replicas(1, inbox, workflow.address, Time()) as [http]:
        for name in ("m1", "m2"):
            await deliver(http, name)
        await workflow.until(lambda: workflow.taken == ["m1", "m2"])
    shown = named(workflow.address)
    said = [record.getMessage() for record in caplog.records if record.name == "segment_tools.forwarding"]
    assert said == [
        f"{shown} answered 503; deliveries wait, and are tried again for four hours",
        f"{shown} takes deliveries again",
    ]


async def test_an_address_where_nothing_listens_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    address = "http://127.0.0.1:9/flow?key=1"
    async with replicas(1, f"sqlite:///{tmp_path}/a.db", address, Time()) as [http]:
        await deliver(http, "m1")
        await Workflow().until(lambda: "did not answer" in caplog.text)
    assert f"{named(address)} did not answer (ConnectError)" in caplog.text
    assert "flow?" not in caplog.text


def test_the_start_line_names_where_deliveries_go(environ: dict[str, str], tmp_path: Path) -> None:
    chosen = {**environ, "SEGMENT_WEBHOOK_SECRET": SECRET, "SEGMENT_INBOX": f"sqlite:///{tmp_path}/a.db"}
    addresses = ("http://127.0.0.1:9/flow?key=1", "https://flow.example/b")
    options = [text for address in addresses for text in ("--forward", address)]
    command = program("stdio", *options)
    over_stdio = subprocess.run(
        command, env=chosen, input="", capture_output=True, text=True, timeout=WAIT, check=False
    )
    assert f"deliveries go on to {' and '.join(map(named, addresses))}" in over_stdio.stderr
    assert "key=1" not in over_stdio.stderr

"""MCP over streamable HTTP: stateless, both eras, and closed to pages from elsewhere."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client
from support import KEY, WAIT, arrived, facts, program, running, settings

from segment_tools import Segment, Settings
from segment_tools.sandbox.run import Sandbox
from segment_tools.surfaces.mcp_server import http_app
from segment_tools.tools import offered

pytestmark = pytest.mark.anyio
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@asynccontextmanager
async def web(host: str = "127.0.0.1", **names: list[str]) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the application itself."""
    app = http_app(Segment(settings(dry_run=True)), host, **names)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080", headers=ACCEPT) as client:
            yield client


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_mcp_client_calls_the_tools_and_the_messages_arrive(
    mode: str, environ: dict[str, str], sandbox: Sandbox
) -> None:
    chosen = {**environ, "SEGMENT_DATA_PLANE_URL": sandbox.url, "SEGMENT_WRITE_KEY": KEY}
    with running(chosen, "http", "--port", "0") as (_, url):
        async with Client(f"{url}/mcp", mode=mode) as client:
            assert len((await client.list_tools()).tools) == len(offered(Settings()))
            good = facts(await client.call_tool("segment_track", {"event": "Order Completed", "userId": "u1"}))
            bad = facts(await client.call_tool("segment_track", {"event": "Order Completed"}))
    assert [message["messageId"] for message in arrived(sandbox)] == [good["messageId"]]
    assert bad["error"]["field"] == "userId"


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_every_handshake_revision_is_served(version: str) -> None:
    initialize = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}},
    }
    async with web() as client:
        answer = await client.post("/mcp", json=initialize)
        listed = await client.post("/mcp", json=LIST, headers={"MCP-Protocol-Version": version})
    assert answer.json()["result"]["protocolVersion"] == version
    assert len(listed.json()["result"]["tools"]) == len(offered(Settings()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_cleanly(number: signal.Signals, environ: dict[str, str]) -> None:
    with running(environ, "http", "--port", "0") as (process, url):
        assert httpx.get(f"{url}/healthz", timeout=WAIT).json()["status"] == "ok"
        process.send_signal(number)
        out, error = process.communicate(timeout=WAIT)
        assert (out, error) == ("", "")
        assert process.returncode in (0, -number, 128 + number)


async def test_answers_are_json_and_need_no_session() -> None:
    async with web() as client:
        answer = await client.post("/mcp", json=LIST)
    assert answer.headers["content-type"].startswith("application/json")
    assert "mcp-session-id" not in answer.headers
    assert len(answer.json()["result"]["tools"]) == len(offered(Settings()))


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost:9", "[::1]:8080", "localhost"])
async def test_this_machines_names_are_accepted(host: str) -> None:
    async with web() as client:
        assert (await client.post("/mcp", json=LIST, headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("listening", ["127.0.0.1", "0.0.0.0"])
async def test_a_foreign_host_or_origin_is_refused_wherever_it_listens(listening: str) -> None:
    async with web(listening) as client:
        assert (await client.post("/mcp", json=LIST, headers={"Host": "evil.example:80"})).status_code == 421
        assert (await client.post("/mcp", json=LIST, headers={"Origin": "https://evil.example"})).status_code == 403


async def test_a_host_and_an_origin_can_be_allowed() -> None:
    async with web("0.0.0.0", names=["mcp.example.com"], origins=["https://app.example.com"]) as client:
        headers = {"Host": "mcp.example.com", "Origin": "https://app.example.com"}
        assert (await client.post("/mcp", json=LIST, headers=headers)).status_code == 200


async def test_broken_json_is_a_protocol_error() -> None:
    async with web() as client:
        answer = await client.post("/mcp", content=b"{", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32700)


def test_a_taken_port_is_named(environ: dict[str, str]) -> None:
    with running(environ, "http", "--port", "0") as (_, url):
        port = url.rsplit(":", 1)[1]
        done = subprocess.run(
            program("http", "--port", port), env=environ, capture_output=True, text=True, timeout=WAIT, check=False
        )
    assert done.returncode == 2
    assert f"port {port}" in done.stderr


REVISIONS = {"2025-11-25": {}, "2026-07-28": {"io.modelcontextprotocol/clientCapabilities": {}}}


def calling(name: str, version: str, arguments: dict[str, Any], *, progress: bool = False) -> dict[str, Any]:
    """The body and headers of a tool's call in a revision."""
    meta = {**REVISIONS[version], "io.modelcontextprotocol/protocolVersion": version}
    params = {"name": name, "arguments": arguments, "_meta": {**meta, **({"progressToken": 1} if progress else {})}}
    headers = {**ACCEPT, "MCP-Protocol-Version": version, "Mcp-Method": "tools/call", "Mcp-Name": name}
    return {"json": {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, "headers": headers}


@pytest.mark.parametrize("version", REVISIONS)
@pytest.mark.parametrize("progress", [False, True], ids=["plain", "progress"])
async def test_waits_that_nobody_waits_for_end_and_so_does_the_server(
    version: str, progress: bool, environ: dict[str, str], tmp_path: Path
) -> None:
    chosen = {**environ, "SEGMENT_WEBHOOK_SECRET": "s", "SEGMENT_INBOX": f"sqlite:///{tmp_path}/a.db"}
    wait = calling("segment_wait_for_delivery", version, {"timeoutSeconds": 600}, progress=progress)
    look = calling("segment_wait_for_delivery", version, {"timeoutSeconds": 1})
    with running(chosen, "http", "--port", "0") as (process, url):
        async with httpx.AsyncClient(timeout=WAIT, limits=httpx.Limits(max_connections=None)) as client:
            asked = [asyncio.create_task(client.post(f"{url}/mcp", **wait)) for _ in range(103)]
            while sum(task.done() for task in asked) < 3:
                await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED, timeout=0.1)
            (refused, *_) = [task.result() for task in asked if task.done()]
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            async with asyncio.timeout(WAIT):
                while "too_many_waiting" in (again := await client.post(f"{url}/mcp", **look)).text:  # noqa: ASYNC110 - bounded
                    await asyncio.sleep(0.1)
            left = asyncio.create_task(client.post(f"{url}/mcp", **wait))
            assert (await client.get(f"{url}/healthz")).status_code == 200
            process.send_signal(signal.SIGTERM)
            out, error = await asyncio.to_thread(process.communicate, timeout=WAIT)
            await asyncio.gather(left, return_exceptions=True)
    assert "too_many_waiting" in refused.text
    assert again.json()["result"]["structuredContent"]["found"] is False
    assert (out, error) == ("", "")


@pytest.mark.parametrize("version", REVISIONS)
async def test_what_is_sent_arrives_although_the_client_is_gone(
    version: str, environ: dict[str, str], sandbox: Sandbox
) -> None:
    chosen = {**environ, "SEGMENT_DATA_PLANE_URL": sandbox.url, "SEGMENT_WRITE_KEY": KEY}
    send = calling("segment_track", version, {"event": "Order Completed", "userId": "u1"})
    with running(chosen, "http", "--port", "0") as (_, url):
        async with httpx.AsyncClient(timeout=WAIT) as client, asyncio.timeout(WAIT):
            faults = f"{sandbox.url}/_sandbox/faults"
            await client.post(faults, json={"status": 503, "times": 2})
            sending = asyncio.create_task(client.post(f"{url}/mcp", **send))
            while (await client.get(faults)).json()["faults"][-1]["used"] < 1:  # noqa: ASYNC110 - bounded
                await asyncio.sleep(0.01)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            while not arrived(sandbox):  # noqa: ASYNC110 - bounded
                await asyncio.sleep(0.05)

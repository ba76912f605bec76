"""MCP over streamable HTTP: stateless, both eras, and closed to pages from elsewhere."""

import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from mcp import Client
from support import KEY, WAIT, arrived, facts, program, running, settings

from segment_tools import Segment
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
            assert len((await client.list_tools()).tools) == len(offered(settings()))
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
    assert len(listed.json()["result"]["tools"]) == len(offered(settings()))


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
    assert len(answer.json()["result"]["tools"]) == len(offered(settings()))


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

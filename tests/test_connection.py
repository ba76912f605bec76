"""The connection test: over MCP and as `segment-tools doctor`; against the sandbox, and against what is none."""

import json
import logging
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from support import KEY, WAIT, accepting, facts, mcp, program, settings
from support import running as started

from segment_tools import Sandbox
from segment_tools.sandbox.options import Options, Spaces
from segment_tools.sandbox.sources import Sources

pytestmark = pytest.mark.anyio
TOKEN = "profile-token-RECOGNISABLE-77c1"


@contextmanager
def segment(**options: Any) -> Iterator[Sandbox]:
    known = Options(
        sources=Sources({KEY: "web"}),
        destinations=("Mixpanel", "Amplitude"),
        spaces=Spaces({"spa_1": TOKEN}),
        **options,
    )
    with Sandbox(options=known) as running:
        yield running


@contextmanager
def web(status: int, kind: str, body: str) -> Iterator[str]:
    """A server that answers everything the same."""

    class Same(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Same)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join(WAIT)
        server.server_close()


async def check(level: str = "probe", **chosen: Any) -> dict[str, Any]:
    async with mcp(settings(**chosen)) as client:
        found = facts(await client.call_tool("segment_test_connection", {"level": level}))
    assert KEY not in json.dumps(found)
    assert TOKEN not in json.dumps(found)
    return found


async def test_what_works_is_said_with_its_destinations_and_nothing_is_written() -> None:
    with segment() as running:
        found = await check(data_plane_url=running.url, profile_token=TOKEN, space_id="spa_1")
        assert running.store.messages({}, None, 10) == []
    assert (found["ready"], found["keyVerified"], found["keyStatus"]) == (True, True, "known")
    assert found["destinations"] == ["Amplitude", "Mixpanel"]
    assert all(each["milliseconds"] >= 0 for each in found["checks"] if each.get("reachable"))


async def test_an_unknown_key_is_found_although_segment_answers_200() -> None:
    with segment() as running:
        found = await check(data_plane_url=running.url, write_key="an-unknown-key-of-32-characters")
    assert (found["ready"], found["keyVerified"], found["keyStatus"]) == (False, False, "unknown_key")
    assert found["problems"]


@pytest.mark.parametrize(("token", "space"), [("another-token-123456", "spa_1"), (TOKEN, "spa_2")])
async def test_a_token_that_does_not_read_the_space_is_found(token: str, space: str) -> None:
    with segment() as running:
        found = await check(data_plane_url=running.url, profile_token=token, space_id=space)
    assert found["ready"] is False
    assert "SEGMENT_PROFILE_TOKEN" in json.dumps(found["checks"])


async def test_a_data_plane_that_is_not_there_is_found() -> None:
    found = await check(data_plane_url="http://127.0.0.1:9")
    assert (found["ready"], found["keyStatus"]) == (False, "unknown")
    assert "keyVerified" not in found
    assert "SEGMENT_CDN_URL" not in json.dumps(found)


@pytest.mark.parametrize("status", [401, 503])
async def test_only_an_address_that_is_set_is_blamed_where_a_key_cannot_be_looked_up(status: int) -> None:
    with web(status, "text/plain", "no") as url:
        hints = [
            next(each["hint"] for each in found["checks"] if each["name"] == "write key")
            for found in (await check(data_plane_url=url), await check(data_plane_url=url, cdn_url=url))
        ]
    assert hints == ["See what answers at SEGMENT_DATA_PLANE_URL.", "Check the network and SEGMENT_CDN_URL."]


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [(200, "text/html", "<html></html>"), (404, "text/html", "<html></html>"), (503, "text/plain", "no")],
)
async def test_what_is_no_settings_endpoint_leaves_the_key_unknown(status: int, kind: str, body: str) -> None:
    with segment() as running, web(status, kind, body) as url:
        found = await check(data_plane_url=running.url, cdn_url=url)
    assert (found["keyStatus"], "keyVerified" in found) == ("unknown", False)


@pytest.mark.parametrize("host", ["//[", "", 7, None])
async def test_a_broken_region_in_the_settings_does_no_harm(host: Any) -> None:
    body = json.dumps({"integrations": {"Segment.io": {"apiHost": host}, "Mixpanel": {}}})
    with segment() as running, web(200, "application/json", body) as url:
        found = await check(data_plane_url=running.url, cdn_url=url)
    assert (found["ready"], found["destinations"]) == (True, ["Mixpanel"])


async def test_a_key_of_the_other_region_is_a_problem() -> None:
    body = json.dumps({"integrations": {"Segment.io": {"apiHost": "events.eu1.segmentapis.com/v1"}}})
    with web(200, "application/json", body) as url:
        async with mcp(settings(cdn_url=url), accepting().transport()) as client:
            found = facts(await client.call_tool("segment_test_connection", {}))
        async with mcp(settings(cdn_url=url, region="eu"), accepting().transport()) as client:
            right = facts(await client.call_tool("segment_test_connection", {}))
    assert (found["ready"], right["ready"]) == (False, True)
    assert "set SEGMENT_REGION=eu" in found["problems"][0]


async def test_send_writes_one_test_event_and_read_only_refuses_it() -> None:
    with segment() as running:
        found = await check("send", data_plane_url=running.url)
        (row,) = running.store.messages({}, None, 10)
        refused = await check("send", data_plane_url=running.url, read_only=True)
        assert len(running.store.messages({}, None, 10)) == 1
    assert row["message"]["messageId"] == found["messageId"]
    assert (row["message"]["event"], row["message"]["userId"]) == ("App Sync Test", "test")
    assert "SEGMENT_READ_ONLY" in refused["errorMessage"]


async def test_config_asks_nobody() -> None:
    found = await check("config", data_plane_url="http://127.0.0.1:9", region="eu")
    assert (found["region"], found["keyStatus"]) == ("eu", "unknown")
    assert not [each for each in found["checks"] if "reachable" in each]


async def test_without_a_key_it_is_not_ready_and_says_what_to_set() -> None:
    found = await check("config", write_key="")
    assert found["ready"] is False
    assert "SEGMENT_WRITE_KEY" in json.dumps(found)


def doctor(environ: dict[str, str], *arguments: str, **chosen: str) -> subprocess.CompletedProcess[str]:
    given = {**environ, **{f"SEGMENT_{name.upper()}": value for name, value in chosen.items()}}
    return subprocess.run(
        program("doctor", *arguments), env=given, capture_output=True, text=True, timeout=WAIT, check=False
    )


def test_doctor_prints_the_report_and_exits_by_it(environ: dict[str, str]) -> None:
    with segment() as running:
        good = doctor(environ, data_plane_url=running.url, write_key=KEY)
        bad = doctor(environ, data_plane_url=running.url, write_key="an-unknown-key-of-32-characters")
        data = doctor(environ, "--json", data_plane_url=running.url, write_key=KEY)
    assert (good.returncode, bad.returncode, data.returncode) == (0, 1, 0)
    assert "\nready (level probe, region us)" in good.stdout
    assert "Amplitude, Mixpanel" in good.stdout
    assert "not ready" in bad.stdout
    assert "problem" in bad.stdout
    assert json.loads(data.stdout)["ready"] is True
    assert KEY not in good.stdout + data.stdout + good.stderr


async def test_no_key_and_nobodys_id_is_in_any_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with segment() as running:
        chosen = {"data_plane_url": running.url, "profile_token": TOKEN, "space_id": "spa_1"}
        await check(**chosen)
        async with mcp(settings(**chosen)) as client:
            for tool, arguments in (
                ("segment_find_message", {"event": "A", "userId": "jane-in-the-logs"}),
                ("segment_get_profile", {"id": "jane-in-the-logs"}),
            ):
                facts(await client.call_tool(tool, arguments))
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name != "mcp.client")
    assert "jane-in-the-logs" not in ours
    assert KEY not in ours
    assert TOKEN not in ours


async def test_several_sources_are_looked_up_each_by_itself() -> None:
    with segment() as running:
        sources = json.dumps({"web": KEY, "ios": "an-unknown-key-of-32-characters"})
        found = await check(data_plane_url=running.url, write_key="", sources=sources)
    known = {each["name"]: each.get("keyVerified") for each in found["checks"] if each["name"].startswith("source")}
    assert known == {"source web": True, "source ios": False}
    assert (found["ready"], found["keyStatus"]) == (False, "unknown_key")


async def test_what_does_not_answer_in_time_is_unknown() -> None:
    with segment() as running, socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        found = await check(data_plane_url=running.url, cdn_url=url, timeout_seconds=1)
    assert (found["keyStatus"], "keyVerified" in found) == ("unknown", False)
    assert "did not answer within 1 seconds" in json.dumps(found)


@pytest.mark.parametrize(
    ("url", "says"), [("", "configured: data plane, write key"), ("https://events.eu1.segmentapis.com", "WARNING")]
)
def test_the_server_says_in_one_line_what_is_configured(url: str, says: str, environ: dict[str, str]) -> None:
    given = {**environ, "SEGMENT_WRITE_KEY": KEY, "SEGMENT_DATA_PLANE_URL": url}
    done = subprocess.run(
        program("--log-level", "info"), env=given, input="", capture_output=True, text=True, timeout=WAIT, check=False
    )
    (line,) = [line for line in done.stderr.splitlines() if "configured:" in line]
    assert says in line
    assert KEY not in done.stderr


SECRET = "wh-RECOGNISABLE-secret-7d1c"


@pytest.mark.parametrize("level", ["config", "probe"])
async def test_webhooks_that_nobody_receives_over_stdio_are_remarked(level: str, tmp_path: Path) -> None:
    with segment() as running:
        chosen = {"data_plane_url": running.url, "webhook_secret": SECRET, "inbox": f"sqlite:///{tmp_path}/a.db"}
        unheard = await check(level, **chosen)
        heard = await check(level, **chosen, webhook_port=0)
    assert (unheard["ready"], heard["ready"]) == (True, True)
    assert "without SEGMENT_WEBHOOK_PORT" in json.dumps(unheard["remarks"])
    assert "SEGMENT_WEBHOOK_PORT" not in json.dumps(heard["remarks"])


async def test_a_webhook_port_without_a_secret_is_a_problem() -> None:
    found = await check("config", webhook_port=8123)
    assert found["ready"] is False
    assert "SEGMENT_WEBHOOK_SECRET" in found["problems"][0]


@pytest.mark.parametrize("address", ["redis://me:hidden-word@127.0.0.1:1/0?db=0", "sqlite:///{folder}/file/x.db"])
async def test_an_inbox_that_cannot_be_used_is_a_problem(address: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with segment() as running:
        inbox = address.format(folder=tmp_path)
        found = await check(data_plane_url=running.url, webhook_secret=SECRET, webhook_port=0, inbox=inbox)
    (inbox_check,) = [each for each in found["checks"] if each["name"] == "inbox"]
    assert (found["ready"], inbox_check["ok"]) == (False, False)
    assert "SEGMENT_INBOX" in found["problems"][0]
    assert "hidden-word" not in json.dumps(found)


async def test_an_inbox_that_works_is_told_with_its_address(tmp_path: Path) -> None:
    with segment() as running:
        inbox = f"sqlite:///{tmp_path}/a.db"
        found = await check(data_plane_url=running.url, webhook_secret=SECRET, webhook_port=0, inbox=inbox)
    (inbox_check,) = [each for each in found["checks"] if each["name"] == "inbox"]
    assert (inbox_check["ok"], inbox_check["address"]) == (True, inbox)


def test_a_server_whose_inbox_cannot_be_used_says_so_at_its_start(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    inbox = f"sqlite:///{tmp_path}/file/x.db"
    chosen = {**environ, "SEGMENT_WRITE_KEY": KEY, "SEGMENT_WEBHOOK_SECRET": SECRET, "SEGMENT_INBOX": inbox}
    with started(chosen, "http", "--port", "0") as (process, _):
        assert process.stderr is not None
        line = process.stderr.readline()
    assert "WARNING" in line
    assert "SEGMENT_INBOX" in line


@pytest.mark.parametrize(("status", "says"), [(429, "too many look-ups"), (503, "unavailable just now")])
async def test_a_profile_api_in_trouble_is_no_fault_of_the_settings(status: int, says: str) -> None:
    with segment() as running, web(status, "application/json", "{}") as url:
        found = await check(data_plane_url=running.url, profile_token=TOKEN, space_id="spa_1", profile_url=url)
    (problem,) = found["problems"]
    assert says in problem
    assert "try again" in problem
    assert "SEGMENT_" not in problem


async def test_cloud_mode_is_spoken_of_only_where_destinations_are() -> None:
    with segment() as running:
        some = await check(data_plane_url=running.url)
    with Sandbox(options=Options(sources=Sources({KEY: "web"}))) as running:
        none = await check(data_plane_url=running.url)
    assert [len(found["remarks"]) for found in (some, none)] == [1, 0]


def test_doctor_says_nothing_twice(environ: dict[str, str]) -> None:
    done = doctor(environ, data_plane_url="http://127.0.0.1:9", write_key=KEY)
    assert done.stdout.count("No connection to http://127.0.0.1:9.") <= 2  # the data plane, and the key's settings
    assert done.stdout.count("Check the network and SEGMENT_DATA_PLANE_URL") == 1

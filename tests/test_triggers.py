"""Webhooks in: received, kept, listed, waited for and told of, through the doors that users have."""

import asyncio
import hashlib
import hmac
import json
import re
import socket
import subprocess
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.types import ResourceUpdatedNotification
from support import KEY, ROOT, WAIT, Time, facts, program, running, settings

from segment_tools import Segment
from segment_tools.inbox import open_inbox
from segment_tools.sandbox.options import Options
from segment_tools.sandbox.run import Sandbox
from segment_tools.sandbox.webhooks import Pace, Webhooks, webhook_of
from segment_tools.spec.webhooks import deliveries_of
from segment_tools.surfaces.mcp_server import build, http_app
from segment_tools.tools.triggers import DEFAULT_SECONDS

pytestmark = pytest.mark.anyio
SECRET = "wh-RECOGNISABLE-secret-7d1c"
PATH = "/webhooks/segment"
TYPES = ("track", "identify", "page", "screen", "group", "alias", "delete")
eras = pytest.mark.parametrize("mode", ["auto", "legacy"])


def sign(body: bytes, secret: str = SECRET) -> dict[str, str]:
    """As Segment's documentation says it."""
    return {"X-Signature": hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()}


def message(number: int = 1, **fields: Any) -> dict[str, Any]:
    return {"type": "track", "event": "Order Completed", "userId": "u1", "messageId": f"m{number}", **fields}


@asynccontextmanager
async def receiver(inbox: Path, **values: Any) -> AsyncIterator[tuple[Client, httpx.AsyncClient]]:
    """An MCP client, and an HTTP client of the receiver, of two servers on one inbox."""
    chosen = settings(dry_run=True, webhook_secret=SECRET, inbox=f"sqlite:///{inbox}", **values)
    app = http_app(Segment(chosen), "127.0.0.1")
    async with (
        app.router.lifespan_context(app),
        Client(build(Segment(chosen)), raise_exceptions=True) as client,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hooks.example") as http,
    ):
        yield client, http


async def deliver(http: httpx.AsyncClient, *messages: dict[str, Any], url: str = PATH) -> httpx.Response:
    body = json.dumps(messages[0] if len(messages) == 1 else messages).encode()
    return await http.post(url, content=body, headers=sign(json.dumps(messages[0]).encode()))


async def listed(client: Client, **arguments: Any) -> dict[str, Any]:
    return facts(await client.call_tool("segment_list_deliveries", arguments))


async def waited(client: Client, **arguments: Any) -> dict[str, Any]:
    return facts(await client.call_tool("segment_wait_for_delivery", arguments))


async def read(client: Client, uri: str) -> dict[str, Any]:
    return json.loads((await client.read_resource(uri)).contents[0].text)  # type: ignore[union-attr]


def ids(found: dict[str, Any]) -> list[str]:
    return [delivery["messageId"] for delivery in found["deliveries"]]


async def test_every_type_is_kept_and_listed_and_a_repeat_is_not(tmp_path: Path) -> None:
    async with receiver(tmp_path / "a.db") as (client, http):
        for number, kind in enumerate(TYPES):
            answer = await deliver(http, message(number, type=kind))
            assert (answer.status_code, answer.json()) == (200, {"success": True, "stored": 1})
        again = await deliver(http, message(0, type="track"))
        found = await listed(client, order="oldest")
    assert again.json() == {"success": True, "stored": 0}
    assert [delivery["type"] for delivery in found["deliveries"]] == list(TYPES)
    assert found["deliveries"][0]["message"] == message(0)


async def test_a_notice_of_deletion_is_found_by_its_user(tmp_path: Path) -> None:
    notice = {"type": "delete", "userID": "gone", "timestamp": "2026-01-01T00:00:00Z"}
    async with receiver(tmp_path / "a.db") as (client, http):
        await deliver(http, notice)
        found = await listed(client, types=["delete"], userId="gone")
    assert [delivery["message"] for delivery in found["deliveries"]] == [notice]


@pytest.mark.parametrize(
    "headers", [{}, {"X-Signature": ""}, {"X-Signature": "0" * 40}, sign(b"other"), sign(b"{}", "x")]
)
async def test_a_wrong_or_missing_signature_is_refused_and_nothing_kept(
    headers: dict[str, str], tmp_path: Path
) -> None:
    async with receiver(tmp_path / "a.db") as (client, http):
        answer = await http.post(PATH, json=message(), headers=headers)
        found = await listed(client)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "wrong_signature"
    assert found["count"] == 0
    assert "Order" not in answer.text


async def test_what_is_no_message_too_large_or_no_post_is_refused(tmp_path: Path) -> None:
    large = b'"' + b"a" * (16 * 1024 * 1024) + b'"'

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 1024 * 1024

    async with receiver(tmp_path / "a.db") as (_, http):
        assert (await http.post(PATH, content=b"[{},1]", headers=sign(b"{}"))).status_code == 400
        assert (await http.post(PATH, content=large, headers=sign(large))).status_code == 413
        assert (await http.post(PATH, content=endless(), headers=sign(b"1"))).status_code == 413
        assert (await http.get(PATH)).status_code == 405


NESTED = b'{"a":[' + b"[]," * 2_000_000 + b"[]]}"
WIDE = b'{"a":"' + b"x" * 1024 * 1024 + b'"}'


@pytest.mark.parametrize(
    ("body", "signed", "status"),
    [
        (b"[" + b"{}," * 9_999 + b"{}]", b"{}", 200),
        (b"[" + b"{}," * 10_000 + b"{}]", b"{}", 413),
        (b"[" + b"{}," * 5_000_000 + b"{}]", b"other", 401),
        (WIDE, WIDE, 413),
        (b"[{}," + WIDE + b"]", b"{}", 413),
        (b"[" + WIDE + b"]", WIDE, 413),
        (b"[" + NESTED + b"]", b"other", 401),
        (b'[{"a":"' + rb"\"" * 7_000_000, b"other", 401),
        (b"[" * 16_000_000, b"other", 401),
    ],
    ids=["most", "too many", "many unsigned", "wide", "wide second", "wide first", "nested", "quotes", "open"],
)
async def test_whatever_stands_in_a_body_is_judged_in_time(
    body: bytes, signed: bytes, status: int, tmp_path: Path
) -> None:
    async with receiver(tmp_path / "a.db") as (_, http):
        assert [(await http.post(PATH, content=body, headers=sign(signed))).status_code for _ in "ab"] == [status] * 2


@pytest.mark.parametrize("signature", ["", "no", "0" * 39, "Z" * 40, "sha1=" + "0" * 40])
async def test_what_is_no_signature_is_refused_before_the_body_is_read(signature: str, tmp_path: Path) -> None:
    async def unread() -> AsyncIterator[bytes]:
        pytest.fail("the body was read")
        yield b""

    async with receiver(tmp_path / "a.db") as (_, http):
        answer = await http.post(PATH, content=unread(), headers={"X-Signature": signature})
    assert answer.status_code == 401


async def test_an_inbox_that_is_none_is_answered_503_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("this is no database, whatever it is called" * 50)
    async with receiver(tmp_path / "a.db") as (client, http):
        assert (await deliver(http, message())).status_code == 503
        error = (await listed(client))["error"]
    assert error["code"] == "not_configured"
    assert "SEGMENT_INBOX" in error["message"]


async def test_filters_choose_and_pages_follow(tmp_path: Path) -> None:
    many = [
        message(n, event=f"E{n % 2}", userId=f"u{n % 3}", channel="server" if n % 4 else "browser") for n in range(12)
    ]
    async with receiver(tmp_path / "a.db") as (client, http):
        await deliver(http, *many)
        assert ids(await listed(client, event="E1", order="oldest")) == ["m1", "m3", "m5", "m7", "m9", "m11"]
        assert ids(await listed(client, userId="u0", channel="browser")) == ["m0"]
        assert ids(await listed(client, types="identify,page")) == []
        assert ids(await listed(client, since="2020-01-01T00:00:00Z", limit=1)) == ["m11"]
        assert ids(await listed(client, since="2999-01-01")) == []
        seen: list[str] = []
        cursor = None
        while True:
            page = await listed(client, limit=5, **({"cursor": cursor} if cursor else {}))
            seen += ids(page)
            if (cursor := page.get("nextCursor")) is None:
                break
        assert seen == [f"m{n}" for n in reversed(range(12))]
        newest = page["cursor"]
        await deliver(http, message(99))
        assert ids(await listed(client, since=newest)) == ["m99"]


async def test_an_answer_is_bounded_and_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    large = [message(n, properties={"text": "x" * 9_000}) for n in range(10)]
    huge = message(10, properties={"text": "y" * 60_000, "none": None, "half": "\ud83d"})
    async with receiver(tmp_path / "a.db") as (client, http):
        await deliver(http, *large, huge)
        seen: list[str] = []
        pages: list[dict[str, Any]] = []
        while not pages or pages[-1].get("nextCursor"):
            after = {"cursor": pages[-1]["nextCursor"]} if pages else {}
            pages.append(await listed(client, order="oldest", **after))
            seen += ids(pages[-1])
        last = pages[-1]["deliveries"][-1]
        whole = (await client.read_resource(last["messageResource"])).contents[0]
    assert seen == [f"m{n}" for n in range(11)]
    assert pages[0]["truncated"] is True
    assert all(len(json.dumps(page)) < 42_000 for page in pages)
    assert "message" not in last
    assert last["messageBytes"] > 60_000
    assert json.loads(whole.text)["properties"] == {**huge["properties"], "half": "�"}  # type: ignore[union-attr]


async def test_nulls_and_large_numbers_of_a_message_are_kept(tmp_path: Path) -> None:
    odd = message(properties={"none": None, "large": 10**30, "half": "a\ud83d"})
    async with receiver(tmp_path / "a.db") as (client, http):
        await deliver(http, odd)
        (delivery,) = (await listed(client))["deliveries"]
    assert delivery["message"]["properties"] == {"none": None, "large": 10**30, "half": "a�"}


async def test_a_message_that_is_far_too_large_is_not_looked_at(tmp_path: Path) -> None:
    bodies = [json.dumps(message(n, properties={"text": ["\ud83d", 0] * 70_000})).encode() for n in range(12)]
    inbox = open_inbox(f"sqlite:///{tmp_path}/a.db")
    await inbox.add([deliveries_of(body)[0] for body in bodies], datetime.now(UTC))
    await inbox.aclose()
    async with receiver(tmp_path / "a.db") as (client, _):
        waits = asyncio.create_task(waited(client, since="2020-01-01T00:00:00Z"))
        found, resource = await listed(client), await read(client, "segment://deliveries")
    for answer in (found, resource, await waits):
        sizes = [delivery["messageBytes"] for delivery in answer["deliveries"]]
        assert sorted(sizes) == sorted(len(body) for body in bodies)
        assert not any("message" in delivery for delivery in answer["deliveries"])


HIDDEN = "HIDE-ME"
TOLD_OF = message(
    userId=HIDDEN,
    anonymousId="a1",
    traits={"home phone": HIDDEN, "plan": "pro"},
    properties={"Address": {"type": "home", "street": HIDDEN}, "list": [{"key": "email", "value": HIDDEN}]},
    context={"traits": {"email": HIDDEN}, "externalIds": [{"type": "email", "id": HIDDEN}]},
)


async def test_hidden_traits_are_hidden_in_deliveries(tmp_path: Path) -> None:
    hide = "home phone,*email*,address.street,user_id"
    async with receiver(tmp_path / "a.db", profile_hide_traits=hide) as (client, http):
        await deliver(http, TOLD_OF)
        await deliver(http, {**TOLD_OF, "messageId": "m2", "context": {"large": "x" * 60_000, **TOLD_OF["context"]}})
        found = await listed(client)
        answers = [
            found,
            await waited(client, since="2020-01-01T00:00:00Z"),
            await read(client, "segment://deliveries"),
            await read(client, "segment://deliveries/track"),
            await read(client, found["deliveries"][0]["messageResource"]),
        ]
    assert HIDDEN not in json.dumps(answers)
    shown = found["deliveries"][1]
    assert (shown["userId"], shown["message"]["userId"]) == ("[hidden]", "[hidden]")
    assert shown["message"]["anonymousId"] == "a1"
    assert shown["message"]["traits"] == {"home phone": "[hidden]", "plan": "pro"}


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"cursor": "nonsense"}, "cursor"),
        ({"since": "nonsense"}, "since"),
        ({"since": "2026-99-99"}, "since"),
        ({"types": ["purchase"]}, "types"),
        ({"limit": 101}, "limit"),
        ({"order": "random"}, "order"),
    ],
)
async def test_a_wrong_argument_is_named(arguments: dict[str, Any], field: str, tmp_path: Path) -> None:
    async with receiver(tmp_path / "a.db") as (client, _):
        found = await listed(client, **arguments)
    assert found["error"]["field"] == field
    assert found["error"]["hint"]


async def test_waiting_answers_at_once_when_it_already_came(tmp_path: Path) -> None:
    async with receiver(tmp_path / "a.db") as (client, http):
        await deliver(http, message(1))
        start = (await listed(client))["cursor"]
        await deliver(http, message(2, event="Other"), message(3))
        arguments = {"since": start, "event": "Order Completed"}
        found = facts(await client.call_tool("segment_wait_for_delivery", arguments))
        none = facts(
            await client.call_tool("segment_wait_for_delivery", {"since": found["cursor"], "timeoutSeconds": 1})
        )
    assert (found["found"], ids(found)) == (True, ["m3"])
    assert (none["success"], none["found"], none["count"], none["cursor"]) == (True, False, 0, found["cursor"])
    assert 1 <= none["waitedSeconds"] < 5


@pytest.fixture
def hooks(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """An environment whose webhooks are taken."""
    inbox = f"sqlite:///{tmp_path / 'inbox.db'}"
    return {**environ, "SEGMENT_WRITE_KEY": KEY, "SEGMENT_WEBHOOK_SECRET": SECRET, "SEGMENT_INBOX": inbox}


@asynccontextmanager
async def at(door: str, mode: str, environ: dict[str, str]) -> AsyncIterator[tuple[Client, str]]:
    """An MCP client of a process of its own, over stdio or HTTP, and where that takes webhooks."""
    if door == "http":
        with running(environ, "http", "--port", "0") as (_, url):
            async with Client(f"{url}/mcp", mode=mode) as client:  # type: ignore[arg-type]
                yield client, f"{url}{PATH}"
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    chosen = {**environ, "SEGMENT_WEBHOOK_PORT": str(port)}
    parameters = StdioServerParameters(command=program()[0], args=program()[1:], env=chosen)
    async with Client(stdio_client(parameters), mode=mode) as client:  # type: ignore[arg-type]
        yield client, f"http://127.0.0.1:{port}{PATH}"


doors = pytest.mark.parametrize("door", ["stdio", "http"])


@doors
@eras
async def test_waiting_says_so_and_is_woken_by_a_webhook(door: str, mode: str, hooks: dict[str, str]) -> None:
    told: list[tuple[float, float | None]] = []
    begun = anyio.Event()

    async def progress(done: float, total: float | None, _: str | None) -> None:
        told.append((done, total))
        begun.set()

    found: dict[str, Any] = {}
    async with at(door, mode, hooks) as (client, url), httpx.AsyncClient() as http:

        async def wait() -> None:
            arguments = {"event": "Order Completed", "timeoutSeconds": 50}
            done = await client.call_tool("segment_wait_for_delivery", arguments, progress_callback=progress)
            found.update(facts(done))

        with anyio.fail_after(WAIT):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await begun.wait()
                assert (await deliver(http, message(1, event="Other"), url=url)).status_code == 200
                assert (await deliver(http, message(2), url=url)).status_code == 200
    assert (found["found"], ids(found)) == (True, ["m2"])
    assert told[0][0] < 5
    assert told[0][1] == 50


@doors
@eras
async def test_waiting_can_be_cancelled_and_the_server_goes_on(door: str, mode: str, hooks: dict[str, str]) -> None:
    begun = anyio.Event()

    async def progress(*_: object) -> None:
        begun.set()

    async with at(door, mode, hooks) as (client, _):
        with anyio.fail_after(WAIT):
            async with anyio.create_task_group() as tasks:

                async def wait() -> None:
                    arguments = {"timeoutSeconds": 600}
                    await client.call_tool("segment_wait_for_delivery", arguments, progress_callback=progress)

                tasks.start_soon(wait)
                await begun.wait()
                tasks.cancel_scope.cancel()
            assert (await listed(client))["count"] == 0


@doors
@eras
async def test_resources_are_listed_and_read(door: str, mode: str, hooks: dict[str, str]) -> None:
    async with at(door, mode, hooks) as (client, url), httpx.AsyncClient() as http:
        await deliver(http, message(1), message(2, type="page"), url=url)
        uris = [str(resource.uri) for resource in (await client.list_resources()).resources]
        templates = [found.uri_template for found in (await client.list_resource_templates()).resource_templates]
        everything = json.loads((await client.read_resource(uris[0])).contents[0].text)  # type: ignore[union-attr]
        pages = json.loads((await client.read_resource(f"{uris[0]}/page")).contents[0].text)  # type: ignore[union-attr]
        with pytest.raises(MCPError) as unknown:
            await client.read_resource(f"{uris[0]}/purchase")
    assert uris[0] == "segment://deliveries"
    assert templates[:2] == ["segment://deliveries/{type}", "segment://deliveries/message/{cursor}"]
    assert (ids(everything), ids(pages)) == (["m2", "m1"], ["m2"])
    assert unknown.value.error.code == -32602


@doors
async def test_listeners_are_told_of_what_arrives(door: str, hooks: dict[str, str]) -> None:
    uris = ["segment://deliveries", "segment://deliveries/page"]
    async with at(door, "auto", hooks) as (client, url), httpx.AsyncClient() as http:
        with anyio.fail_after(WAIT):
            async with client.listen(resource_subscriptions=uris) as subscription:
                await deliver(http, message(1, type="page"), url=url)
                told = [(await anext(subscription)).uri for _ in uris]  # type: ignore[union-attr]
    assert told == uris


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_subscribers_of_older_revisions_are_told(tmp_path: Path) -> None:
    told: list[str] = []
    changed = anyio.Event()

    async def heard(notification: object) -> None:
        if isinstance(notification, ResourceUpdatedNotification):
            told.append(str(notification.params.uri))
            changed.set()

    inbox = f"sqlite:///{tmp_path / 'a.db'}"
    chosen = settings(dry_run=True, webhook_secret=SECRET, inbox=inbox)
    async with (
        receiver(tmp_path / "a.db") as (_, http),
        Client(build(Segment(chosen)), mode="legacy", message_handler=heard) as client,
    ):
        assert client.server_capabilities.resources.subscribe  # type: ignore[union-attr]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            await client.subscribe_resource("segment://deliveries")
        await deliver(http, message(1))
        with anyio.fail_after(WAIT):
            await changed.wait()
    assert told == ["segment://deliveries"]


async def test_without_a_secret_there_are_no_triggers() -> None:
    app = http_app(Segment(settings(dry_run=True)), "127.0.0.1")
    async with app.router.lifespan_context(app), Client(build(Segment(settings(dry_run=True)))) as client:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as http:
            assert (await http.post(PATH, json={})).status_code == 404
        resources = (await client.list_resources()).resources
        assert not [found for found in resources if "deliveries" in str(found.uri)]
        error = (await listed(client))["error"]
    assert "SEGMENT_WEBHOOK_SECRET" in error["message"]


def test_a_taken_port_is_said_in_one_line(hooks: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        chosen = {**hooks, "SEGMENT_WEBHOOK_PORT": str(taken.getsockname()[1])}
        done = subprocess.run(program(), env=chosen, input=b"", capture_output=True, timeout=WAIT, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert re.fullmatch(rb"segment-tools: .*port \d+.*SEGMENT_WEBHOOK_PORT.*\n", done.stderr)


async def test_none_of_2000_deliveries_is_lost_or_twice_when_the_receiver_is_killed(hooks: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    webhook = webhook_of(f"http://127.0.0.1:{port}{PATH}")
    pace = Pace(first_wait=0.1, most_wait=0.5)
    batches = [[message(100 * part + n) for n in range(100)] for part in range(20)]
    expected = {message["messageId"] for batch in batches for message in batch}
    with Sandbox(options=Options(webhooks=Webhooks((webhook,), SECRET, None, pace))) as sandbox:
        with running(hooks, "http", "--port", port) as (process, url):
            async with httpx.AsyncClient(auth=("any", "")) as http:
                for batch in batches:
                    assert (await http.post(f"{sandbox.url}/v1/batch", json={"batch": batch})).status_code == 200
            async with Client(f"{url}/mcp") as client:
                with anyio.fail_after(WAIT):
                    while (await listed(client, limit=100))["count"] < 20:  # noqa: ASYNC110 - bounded
                        await asyncio.sleep(0.05)
            process.kill()
            process.wait(WAIT)
        with running(hooks, "http", "--port", port) as (_, url):
            async with Client(f"{url}/mcp") as client:
                found: list[str] = []
                cursor = None
                with anyio.fail_after(WAIT):
                    while len(found) < len(expected):
                        more = {"since": cursor} if cursor else {}
                        page = await listed(client, order="oldest", limit=100, **more)
                        found += ids(page)
                        cursor = page.get("cursor")
                        if not page["count"]:
                            await asyncio.sleep(0.1)
    assert len(found) == len(set(found))
    assert set(found) == expected


async def test_an_empty_inbox_gives_a_cursor_that_misses_nothing(tmp_path: Path) -> None:
    async with receiver(tmp_path / "a.db") as (client, http):
        empty = await listed(client)
        waited = facts(await client.call_tool("segment_wait_for_delivery", {"timeoutSeconds": 1}))
        await deliver(http, message(1))
        for cursor in (empty["cursor"], waited["cursor"]):
            found = facts(
                await client.call_tool("segment_wait_for_delivery", {"since": cursor, "timeoutSeconds": WAIT})
            )
            assert ids(found) == ["m1"]


async def test_wrong_signatures_are_logged_now_and_then_and_told_by_the_tools(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    time = Time()
    chosen = settings(dry_run=True, webhook_secret=SECRET, inbox=f"sqlite:///{tmp_path / 'a.db'}")
    segment = Segment(chosen, surroundings=time.surroundings())
    app = http_app(segment, "127.0.0.1")
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        Client(build(segment)) as client,
        httpx.AsyncClient(transport=transport, base_url="http://hooks.example") as http,
    ):
        before = await listed(client)
        for _ in range(50):
            await http.post(PATH, json=message(), headers=sign(b"{}", "another-secret"))
        await time.sleep(61)
        await http.post(PATH, json=message(), headers=sign(b"{}", "another-secret"))
        empty = await listed(client)
        waited = facts(await client.call_tool("segment_wait_for_delivery", {"timeoutSeconds": 1}))
        checked = facts(await client.call_tool("segment_test_connection", {"level": "config"}))
        await deliver(http, message())
        found = await listed(client)
    assert "refused" not in before["hint"]
    for text in (empty["hint"], waited["hint"], str(checked["remarks"])):
        assert "51 webhooks were refused" in text
    assert (found["count"], "hint" in found) == (1, False)
    said = [record.getMessage() for record in caplog.records if "wrong signature" in record.getMessage()]
    assert len(said) == 2
    assert said[0].startswith("a webhook was refused: wrong signature")
    assert SECRET not in caplog.text


async def test_an_empty_answer_says_how_to_go_on_and_what_is_not_set(tmp_path: Path) -> None:
    inbox = f"sqlite:///{tmp_path / 'a.db'}"
    async with Client(build(Segment(settings(dry_run=True, webhook_secret=SECRET, inbox=inbox)))) as client:
        empty = await listed(client)
    assert "pass cursor as since" in empty["hint"]
    assert "SEGMENT_WEBHOOK_PORT" in empty["hint"]


async def test_a_since_that_is_no_time_is_told_what_one_is(tmp_path: Path) -> None:
    async with receiver(tmp_path / "a.db") as (client, _):
        found = await listed(client, since="yesterday")
    assert found["error"]["field"] == "since"
    assert "ISO 8601" in found["error"]["hint"]


def test_a_wait_is_by_default_shorter_than_a_hosts_own_time_out() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (seconds,) = re.findall(r"client_session_timeout_seconds=(\d+)", readme)
    assert int(seconds) > DEFAULT_SECONDS


async def watch(client: Client, mode: str, uri: str) -> None:
    """Subscribe as clients of the revision do."""
    if mode == "legacy":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            await client.subscribe_resource(uri)
        return
    async with client.listen(resource_subscriptions=[uri]):
        pass


@eras
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_type_that_cannot_be_is_no_resource_to_read_or_to_watch(mode: str, tmp_path: Path) -> None:
    chosen = settings(dry_run=True, webhook_secret=SECRET, inbox=f"sqlite:///{tmp_path / 'a.db'}")
    wrong = "segment://deliveries/tracks"
    async with Client(build(Segment(chosen)), mode=mode) as client:  # type: ignore[arg-type]
        with pytest.raises(MCPError) as unread:
            await client.read_resource(wrong)
        with pytest.raises(MCPError) as unwatched, anyio.fail_after(WAIT):
            await watch(client, mode, wrong)
    for raised in (unread, unwatched):
        assert raised.value.error.code == -32602
        assert "track, identify, page" in raised.value.error.message

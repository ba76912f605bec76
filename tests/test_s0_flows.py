"""What the first document promises: track, identify and page from a workflow app."""

import json
import logging

import httpx
import pytest
from support import KEY, SENT_AT, Caller, Time, accepting, answering, arrived, facts, mcp, settings

from segment_tools import Segment, Transport, dispatch
from segment_tools.errors import NotConfigured
from segment_tools.sandbox.run import Sandbox
from segment_tools.tools import TOOLS, input_schema

pytestmark = pytest.mark.anyio
statement = pytest.mark.statement
LIBRARY = {"library": {"name": "segment-tools", "version": "0.1.0"}}


def takes(tool: str) -> set[str]:
    return set(input_schema(next(known for known in TOOLS if known.name == tool), settings())["properties"])


@statement("S0.1", "S0.21")
async def test_the_write_key_is_configuration_and_secret(caplog: pytest.LogCaptureFixture, sandbox: Sandbox) -> None:
    caplog.set_level(logging.DEBUG)
    chosen = settings(data_plane_url=sandbox.url)
    async with mcp(chosen) as client:
        results = [
            facts(await client.call_tool("segment_track", {"event": "A", "userId": "jane@example.com"})),
            facts(await client.call_tool("segment_track", {"event": "A", "userId": {"ssn": "078-05-1120"}})),
            facts(await client.call_tool("segment_track", {"event": "A", "writeKey": KEY})),
        ]
        listed = await client.list_tools()
    shown = f"{results}{listed!r}{chosen!r}{chosen}{caplog.text}"
    assert KEY not in shown
    assert "078-05-1120" not in shown
    assert "jane@example.com" not in caplog.text
    assert [result["success"] for result in results] == [True, False, False]


@statement("S0.2")
@pytest.mark.parametrize(
    ("given", "base"),
    [
        (None, "https://api.segment.io"),
        ("api.segment.io", "https://api.segment.io"),
        ("proxy.example.com:8443", "https://proxy.example.com:8443"),
        ("https://api.segment.io/v1/", "https://api.segment.io"),
        ("https://api.segment.io/v1", "https://api.segment.io"),
        ("https://example.com/segment/", "https://example.com/segment"),
    ],
)
async def test_the_data_plane_is_a_host_or_a_url(given: str | None, base: str) -> None:
    chosen = settings(**({} if given is None else {"data_plane_url": given}))
    upstream = accepting()
    async with Segment(chosen, transport=upstream.transport(chosen.endpoint)) as segment:
        await dispatch("segment_page", {"userId": "u1"}, segment)
    assert [str(request.url) for request in upstream.requests] == [f"{base}/v1/page"]


@statement("S0.3")
@pytest.mark.parametrize(
    "local", ["http://127.0.0.1:8765", "http://localhost:1/v1", "http://[::1]:80", "127.0.0.1:8765"]
)
def test_http_is_for_this_machine(local: str) -> None:
    assert settings(data_plane_url=local).endpoint.startswith("http://")


@statement("S0.3")
@pytest.mark.parametrize("remote", ["http://api.segment.io", "ftp://api.segment.io", "http://127.0.0.1.example.com"])
def test_anything_else_is_https(remote: str) -> None:
    with pytest.raises(NotConfigured, match="SEGMENT_DATA_PLANE_URL must be https"):
        settings(data_plane_url=remote)


@statement("S0.4")
async def test_requests_are_json_posts_with_basic_authentication(time: Time) -> None:
    upstream = accepting()
    segment = Segment(settings(), transport=upstream.transport(), surroundings=time.surroundings())
    await dispatch("segment_track", {"event": "A", "userId": "u1"}, segment)
    (request,) = upstream.requests
    assert request.method == "POST"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == "Basic d2stUkVDT0dOSVNBQkxFLTRmOWMyYjcxZDA6"


@statement("S0.6", "S0.7", "S0.8")
def test_the_documents_inputs_are_arguments() -> None:
    assert takes("segment_track") >= {"userId", "anonymousId", "event", "properties", "context", "timestamp"}
    assert takes("segment_identify") >= {"userId", "anonymousId", "traits", "context", "timestamp"}
    assert takes("segment_page") >= {"userId", "anonymousId", "name", "category", "properties", "context", "timestamp"}


@statement("S0.9")
@pytest.mark.parametrize(
    "tool", ["segment_track", "segment_identify", "segment_page", "segment_screen", "segment_group"]
)
async def test_neither_id_is_an_error_and_no_request(tool: str, call: Caller, sandbox: Sandbox) -> None:
    own = {"segment_track": {"event": "A"}, "segment_group": {"groupId": "g"}}.get(tool, {})
    result = await call(tool, own)
    assert "Either userId or anonymousId must be provided" in result["errorMessage"]
    assert (result["statusCode"], result["sent"], result["error"]["field"]) == (-1, False, "userId")
    assert sandbox.store.messages({}, None, 10) == []


@statement("S0.10")
async def test_both_ids_are_sent(call: Caller, sandbox: Sandbox) -> None:
    await call("segment_page", {"userId": "u1", "anonymousId": "a1"})
    (message,) = arrived(sandbox)
    assert (message["userId"], message["anonymousId"]) == ("u1", "a1")


@statement("S0.11")
async def test_absent_fields_are_not_sent(call: Caller) -> None:
    result = await call("segment_page", {"userId": "u1"}, dry_run=True)
    assert set(result["request"]) == {"userId", "context", "timestamp", "messageId", "sentAt"}


@statement("S0.12")
@pytest.mark.parametrize(
    "wrong", ["yesterday", "2024-13-01T00:00:00Z", "15/01/2024", "2024-01-15T25:00:00Z", 1705314600, True]
)
async def test_an_invalid_timestamp_is_found_before_sending(wrong: object, call: Caller, sandbox: Sandbox) -> None:
    result = await call("segment_track", {"event": "A", "userId": "u1", "timestamp": wrong})
    assert (result["error"]["field"], result["statusCode"]) == ("timestamp", -1)
    assert "2024-01-15T10:30:00Z" in result["error"]["hint"]
    assert sandbox.store.messages({}, None, 10) == []


@statement("S0.13")
async def test_an_api_error_gives_status_and_segments_text() -> None:
    refused = httpx.Response(400, json={"success": False, "message": "Exceed payload limit", "code": "invalid_request"})
    async with mcp(settings(), answering(refused).transport()) as client:
        result = facts(await client.call_tool("segment_track", {"event": "A", "userId": "u1"}))
    assert "400" in result["errorMessage"]
    assert "Exceed payload limit" in result["errorMessage"]
    assert result["error"]["code"] == "invalid_request"


@statement("S0.14")
async def test_a_network_error_is_clear(time: Time) -> None:
    upstream = answering(httpx.ConnectError("[Errno 111] refused"))
    segment = Segment(settings(), transport=upstream.transport(), surroundings=time.surroundings())
    result = await dispatch("segment_track", {"event": "A", "userId": "u1"}, segment)
    assert result["error"]["code"] == "no_connection"
    assert result["error"]["retryable"] is True
    assert "No connection to https://api.segment.io" in result["errorMessage"]
    assert (result["sent"], result["statusCode"]) == (False, 500)


@statement("S0.15")
async def test_track_answers_what_it_sent(time: Time) -> None:
    segment = Segment(settings(), transport=accepting().transport(), surroundings=time.surroundings())
    result = await dispatch("segment_track", {"event": "A", "userId": "u1", "anonymousId": "a1"}, segment)
    assert {name: result[name] for name in ("success", "event", "userId", "anonymousId", "timestamp")} == {
        "success": True,
        "event": "A",
        "userId": "u1",
        "anonymousId": "a1",
        "timestamp": SENT_AT,
    }
    given = "2024-01-15T10:30:00-08:00"
    result = await dispatch("segment_track", {"event": "A", "userId": "u1", "timestamp": given}, segment)
    assert result["timestamp"] == given


@statement("S0.16")
async def test_identify_answers_its_traits(call: Caller) -> None:
    result = await call("segment_identify", {"userId": "u1", "traits": {"plan": "pro"}})
    assert (result["success"], result["userId"], result["traits"]) == (True, "u1", {"plan": "pro"})
    result = await call("segment_identify", {"anonymousId": "a1"})
    assert (result["anonymousId"], result["traits"]) == ("a1", {})
    assert "timestamp" in result


@statement("S0.17", "S0.18")
async def test_page_answers_name_and_category_and_leaves_out_what_is_absent(call: Caller) -> None:
    result = await call("segment_page", {"userId": "u1", "name": "Home", "category": "Docs"})
    assert (result["success"], result["name"], result["category"], result["userId"]) == (True, "Home", "Docs", "u1")
    assert "timestamp" in result
    bare = await call("segment_page", {"anonymousId": "a1"})
    assert not {"name", "category", "userId"} & set(bare)
    assert None not in bare.values()


EXAMPLES = {
    "segment_track": {
        "userId": "user123",
        "event": "Order Completed",
        "properties": {"orderId": "order456", "revenue": 99.99, "currency": "USD", "products": ["shirt", "pants"]},
    },
    "segment_identify": {
        "userId": "user123",
        "traits": {"name": "John Doe", "email": "john@example.com", "company": "Acme Corp", "plan": "premium"},
    },
    "segment_page": {
        "userId": "user123",
        "name": "Product Page",
        "category": "E-commerce",
        "properties": {
            "url": "https://example.com/products/123",
            "title": "Amazing Product - Acme Store",
            "referrer": "https://google.com",
        },
    },
}


@statement("S0.19")
@pytest.mark.parametrize("tool", EXAMPLES)
async def test_the_documents_payloads_are_sent_as_they_stand(tool: str, time: Time) -> None:
    upstream = accepting()
    segment = Segment(settings(), transport=upstream.transport(), surroundings=time.surroundings())
    await dispatch(tool, EXAMPLES[tool], segment)
    stamps = {"messageId": "id-00000001", "timestamp": SENT_AT, "sentAt": SENT_AT, "context": LIBRARY}
    assert json.loads(upstream.requests[0].content) == {**EXAMPLES[tool], **stamps}


@statement("S0.20")
async def test_screen_views_have_their_own_tool(call: Caller, sandbox: Sandbox) -> None:
    result = await call("segment_screen", {"userId": "u1", "name": "Checkout", "category": "Shop"})
    assert (result["name"], result["category"]) == ("Checkout", "Shop")
    assert [row["path"] for row in sandbox.store.messages({}, None, 10)] == ["/v1/screen"]


@statement("S0.22")
async def test_all_calls_share_one_client(sandbox: Sandbox) -> None:
    opened: list[int] = []

    class Counted(httpx.AsyncHTTPTransport):
        def __init__(self) -> None:
            super().__init__()
            opened.append(1)

    chosen = settings(data_plane_url=sandbox.url)
    async with mcp(chosen, Transport(chosen.endpoint, Counted())) as client:
        for name in ("segment_identify", "segment_page", "segment_screen"):
            await client.call_tool(name, {"userId": "u1"})
    assert opened == [1]
    assert [row["path"] for row in sandbox.store.messages({}, None, 10)] == ["/v1/screen", "/v1/page", "/v1/identify"]


@statement("S0.5")
@pytest.mark.parametrize(("level", "written"), [("config", 0), ("probe", 0), ("send", 1)])
async def test_a_connection_test_writes_its_event_only_when_asked(
    level: str, written: int, call: Caller, sandbox: Sandbox
) -> None:
    found = await call("segment_test_connection", {"level": level})
    assert (found["ready"], found["level"]) == (True, level)
    events = arrived(sandbox)
    assert len(events) == written
    for event in events:
        assert (event["type"], event["userId"], event["event"]) == ("track", "test", "App Sync Test")
        assert event["properties"] == {"test": True}
        assert event["messageId"] == found["messageId"]

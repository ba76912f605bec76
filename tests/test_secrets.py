"""The write key is in no output, error, log line or representation, whatever fails."""

import json
import logging
import re
from base64 import b64encode
from collections.abc import Mapping

import httpx
import pytest
from mcp import Client
from support import KEY, Time, Upstream, answering, settings

from segment_tools import Segment, SegmentError, Settings, Track
from segment_tools.surfaces.mcp_server import build

pytestmark = pytest.mark.anyio
BASIC = b64encode(f"{KEY}:".encode()).decode()
ECHO = {"success": False, "message": f"key {KEY} is wrong", "code": KEY, "seen": {KEY: [BASIC, KEY]}}

ESCAPED = "".join(f"\\u{ord(letter):04x}" for letter in KEY)

FAILURES: Mapping[str, list[httpx.Response | Exception]] = {
    "accepted, and the key repeated": [
        httpx.Response(200, json={"success": True, "writeKey": KEY, "auth": f"Basic {BASIC}"})
    ],
    "200 with success false": [httpx.Response(200, json=ECHO)],
    **{
        f"status {status}": [httpx.Response(status, json=ECHO)]
        for status in (301, 400, 401, 403, 404, 413, 429, 500, 503)
    },
    "accepted, and the key repeated with escapes": [
        httpx.Response(200, text=f'{{"success": true, "echo": "{ESCAPED}"}}')
    ],
    "refused, and the key repeated with escapes": [
        httpx.Response(400, text=f'{{"message": "{ESCAPED} is wrong", "{ESCAPED}": "{BASIC}"}}')
    ],
    "text that repeats the request": [httpx.Response(400, text=f"Authorization: Basic {BASIC} {KEY}")],
    "HTML that repeats the request": [httpx.Response(502, text=f"<html>{KEY}</html>")],
    "a header that repeats the key": [httpx.Response(302, headers={"Location": f"https://x.example/{KEY}"})],
    "no connection": [httpx.ConnectError(f"cannot reach {KEY}")],
    "no answer": [httpx.ReadTimeout(f"{KEY} timed out")],
    "a protocol error": [httpx.RemoteProtocolError(f"illegal {KEY}")],
    "an accident": [RuntimeError(f"unforeseen {KEY}")],
    "an accident of another kind": [KeyError(KEY)],
}

CALLS = (
    ("segment_track", {"event": "A", "userId": "u1"}),
    ("segment_batch", {"batch": [{"type": "page", "userId": "u1"}]}),
)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("failure", FAILURES)
async def test_no_failure_shows_the_key(failure: str, mode: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name, arguments in CALLS:
        upstream = Upstream(list(FAILURES[failure]))
        segment = Segment(settings(), transport=upstream.transport(), surroundings=Time().surroundings())
        async with Client(build(segment), mode=mode) as client:
            result = await client.call_tool(name, arguments)
        assert upstream.requests, "the failure was not driven"
        assert upstream.requests[0].headers["authorization"] == f"Basic {BASIC}"
        for shown in (repr(result), caplog.text, repr(segment)):
            assert KEY not in shown
            assert BASIC not in shown
        if failure.startswith("an accident"):
            assert "unforeseen" not in f"{result!r}{caplog.text}"
            assert (result.structured_content or {})["error"]["code"] == "internal_error"


@pytest.mark.parametrize(
    "arguments",
    [
        {"event": "A", "userId": "u1", "writeKey": KEY},
        {"event": "A", "userId": "u1", "writekey": KEY},
        {"event": "A", "userId": "u1", "writeKey": [KEY]},
        {"event": "A", "userId": "u1", "source": KEY},
        {"event": [KEY], "userId": "u1"},
        {"event": "A", "userId": {"key": KEY}},
        {"event": "A", "timestamp": KEY},
        {"event": "A", "properties": KEY},
        {"event": "A", KEY: "u1"},
        {"event": "A", "type": KEY},
    ],
)
@pytest.mark.parametrize("sources", [{}, {"write_key": "", "sources": f'{{"web": "{KEY}", "ios": "other-key"}}'}])
async def test_no_refusal_repeats_the_key(
    arguments: dict[str, object], sources: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Client(build(Segment(settings(**sources)))) as client:
        result = await client.call_tool("segment_track", arguments)
    assert result.is_error
    assert KEY not in f"{result!r}{caplog.text}"


@pytest.mark.parametrize("failure", ["status 400", "status 503", "no connection", "text that repeats the request"])
async def test_no_exception_or_its_chain_shows_the_key(failure: str) -> None:
    upstream = Upstream(list(FAILURES[failure]))
    segment = Segment(settings(), transport=upstream.transport(), surroundings=Time().surroundings())
    with pytest.raises(SegmentError) as raised:
        await segment.send(Track(event="A", user_id="u1"))
    error: BaseException | None = raised.value
    assert KEY not in f"{raised.value.receipt!r}{vars(raised.value)}"
    while error is not None:
        assert KEY not in f"{error}{error!r}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_no_representation_shows_a_persons_data() -> None:
    upstream = answering(httpx.Response(200))
    assert "jane" not in repr(Segment(settings(), transport=upstream.transport()))
    assert KEY not in repr(Settings(write_key=KEY))  # type: ignore[arg-type]


async def test_a_receipt_shows_no_message() -> None:
    upstream = answering(httpx.Response(200, json={"success": True}))
    segment = Segment(settings(), transport=upstream.transport())
    receipt = await segment.send(Track(event="A", user_id="jane@example.com"))
    assert "jane" not in repr(receipt)


LONG, SHORT = "KEYKEYKEREST1234", "KEYKEYKE"


@pytest.mark.parametrize(
    ("keys", "body"),
    [
        ([SHORT, LONG], json.dumps({"message": f"m {LONG}"})),
        (["abcdefghijklmnopq"], '["bad key \\u0061bcdefghijklmnopq"]'),
        (["abcd/efgh+ijklmnop=="], r"not ok: abcd\/efgh+ijklmnop=="),
        (["abcd/efgh+ijklmnop=="], "not ok: abcd%2Fefgh%2Bijklmnop%3D%3D"),
    ],
)
async def test_keys_in_other_forms_are_hidden_too(keys: list[str], body: str) -> None:
    named = json.dumps({f"source{number}": key for number, key in enumerate(keys)})
    upstream = answering(httpx.Response(400, text=body))
    segment = Segment(settings(write_key=keys[0], sources=named), transport=upstream.transport())
    with pytest.raises(SegmentError) as raised:
        await segment.send(Track(event="A", user_id="u1"))
    assert not re.search("REST1234|bcdefghijklm|efgh", f"{raised.value}{vars(raised.value)}")


async def test_a_number_like_the_key_does_not_spoil_an_answer() -> None:
    upstream = answering(httpx.Response(200, json={"success": True, "id": 1234567890}))
    segment = Segment(settings(write_key="1234567890"), transport=upstream.transport())
    receipt = await segment.send(Track(event="A", user_id="u1"))
    assert (receipt.status, receipt.response_body["success"]) == ("accepted", True)

"""Segment's own Python library and these tools, given the same arguments, leave the same messages with the sandbox."""

import atexit
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from datetime import datetime
from typing import Any

import pytest
from anyio import fail_after, to_thread
from pydantic.alias_generators import to_snake
from segment.analytics import request as library_http
from segment.analytics.client import Client as Library
from support import KEY, Caller, arrived, comparable, rows

from segment_tools.sandbox.run import Sandbox

pytestmark = pytest.mark.anyio

LEAST: dict[str, dict[str, Any]] = {
    "identify": {"anonymousId": "visitor-1"},
    "track": {"userId": "user-1", "event": "Order Completed"},
    "page": {"userId": "user-1"},
    "screen": {"anonymousId": "visitor-1"},
    "group": {"userId": "user-1", "groupId": "company-42"},
    "alias": {"userId": "user-1", "previousId": "visitor-1"},
}
PLAIN: dict[str, dict[str, Any]] = {
    "identify": {"userId": "user-1", "anonymousId": "visitor-1", "traits": {"email": "ada@example.com", "plan": "pro"}},
    "track": {**LEAST["track"], "anonymousId": "visitor-1", "properties": {"revenue": 19.5, "currency": "EUR"}},
    "page": {**LEAST["page"], "name": "Pricing", "category": "Docs", "properties": {"url": "https://example.com/"}},
    "screen": {**LEAST["screen"], "name": "Checkout", "category": "Shop", "properties": {"step": 2}},
    "group": {**LEAST["group"], "traits": {"industry": "Technology", "employees": 329}},
    "alias": LEAST["alias"],
}
OWN_OBJECT = {
    "identify": "traits",
    "track": "properties",
    "page": "properties",
    "screen": "properties",
    "group": "traits",
}

ADDED: dict[str, dict[str, Any]] = {
    "plain": {},
    "nested context": {
        "context": {
            "ip": "8.8.8.8",
            "active": False,
            "app": {"name": "Shop", "version": "5.2.1", "build": {"channel": {"beta": [1, {"deep": None}]}}},
            "device": {"id": "B5372DB0", "advertisingId": "7A3CBEA0", "adTrackingEnabled": True},
            "consent": {"categoryPreferences": {"Advertising": True, "Analytics": False}},
            "traits": {"email": "", "age": 0},
            "empty": {},
            "none": [],
        }
    },
    "integrations with empty values": {"integrations": {"Google Analytics": {}, "All": False, "Mixpanel": []}},
    "integrations with options": {"integrations": {"All": True, "Amplitude": {"session_id": 1542400000, "on": {}}}},
    "number as id": {"userId": 4711},
    "message id and time": {"messageId": "library-and-tools-0001", "timestamp": "2026-01-15T10:30:00.250+01:00"},
}
INSIDE: dict[str, dict[str, Any]] = {
    "unicode": {
        "emoji": "👩‍👩‍👧 🇫🇷",
        "漢字": "分析 データ 분석",
        "combining": ["e\u0301", "é", "Z\u0351\u036b"],
        "rtl": "\u202eمرحبا",
        "control": "\x00\x1f\x7f\u2028\ufeff",
        "escapes": '"\\/\b\f\n\r\t</script>',
    },
    "empty values": {
        "zero": 0,
        "minus": -0.0,
        "false": False,
        "text": "",
        "null": None,
        "list": [],
        "object": {},
        "inside": {"zero": 0, "false": False, "text": "", "null": None, "list": [0, False, "", None, [], {}]},
    },
    "numbers": {
        "integers": [1, -1, 2**31, 2**53 + 1, 2**63, -(2**64) - 1, 10**40],
        "floats": [0.1, 1.0, 1e16, 1e22, -1e-7, 5e-324, 1.7976931348623157e308, 123456789.123456789],
    },
}


def exactly(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The messages as texts that differ where `1`, `1.0` and `true` do."""
    return [json.dumps(comparable(message), sort_keys=True, indent=1) for message in messages]


def by_library(client: Library, kind: str, arguments: Mapping[str, Any]) -> None:
    named = {to_snake(name): deepcopy(value) for name, value in arguments.items()}
    if "timestamp" in named:
        named["timestamp"] = datetime.fromisoformat(named["timestamp"])
    taken, _ = getattr(client, kind)(**named)
    assert taken


def taken_from(sandbox: Sandbox) -> list[dict[str, Any]]:
    """What arrived, nothing of it discarded, after which the sandbox is as new."""
    assert {row["discarded"] for row in rows(sandbox)} == {None}
    found = arrived(sandbox)
    sandbox.store.clear()
    return found


@pytest.fixture(autouse=True)
def _local_connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    library_http._session.close()


async def assert_same(sandbox: Sandbox, call: Caller, kind: str, arguments: Mapping[str, Any]) -> None:
    by_library(Library(KEY, host=sandbox.url, sync_mode=True, timeout=10), kind, arguments)
    (theirs,) = taken_from(sandbox)
    assert (await call(f"segment_{kind}", arguments))["success"]
    (ours,) = taken_from(sandbox)
    assert exactly([ours]) == exactly([theirs])
    assert ours["type"] == kind
    if "timestamp" in arguments:
        moments = {datetime.fromisoformat(message["originalTimestamp"]) for message in (ours, theirs)}
        assert moments == {datetime.fromisoformat(arguments["timestamp"])}
        assert ours["messageId"] == theirs["messageId"] == arguments["messageId"]


@pytest.mark.parametrize("kind", LEAST)
async def test_the_least_that_a_message_needs_is_the_same(kind: str, sandbox: Sandbox, call: Caller) -> None:
    await assert_same(sandbox, call, kind, LEAST[kind])


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("case", ADDED)
async def test_a_message_with_fields_of_every_type_is_the_same(
    kind: str, case: str, sandbox: Sandbox, call: Caller
) -> None:
    await assert_same(sandbox, call, kind, {**PLAIN[kind], **ADDED[case]})


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("case", INSIDE)
async def test_values_inside_properties_traits_and_context_are_the_same(
    kind: str, case: str, sandbox: Sandbox, call: Caller
) -> None:
    holders = ("context", *([OWN_OBJECT[kind]] if kind in OWN_OBJECT else []))
    await assert_same(sandbox, call, kind, {**PLAIN[kind], **dict.fromkeys(holders, INSIDE[case])})


@pytest.mark.parametrize("kind", ["track", "page", "screen", "group"])
async def test_names_and_ids_beyond_ascii_are_the_same(kind: str, sandbox: Sandbox, call: Caller) -> None:
    names = {name: f"{value} 完了 🎉 e\u0301" for name, value in PLAIN[kind].items() if isinstance(value, str)}
    await assert_same(sandbox, call, kind, {**PLAIN[kind], **names})


async def test_a_batch_is_the_same_as_the_one_the_librarys_thread_sends(sandbox: Sandbox, call: Caller) -> None:
    added = [{**ADDED["nested context"], **ADDED["integrations with empty values"]}, {}]
    messages = [(kind, {**PLAIN[kind], **more}) for more in added for kind in PLAIN]
    messages += [
        (kind, {**PLAIN[kind], holder: INSIDE[case]}) for case in INSIDE for kind, holder in OWN_OBJECT.items()
    ]
    failures: list[Exception] = []
    client = Library(
        KEY,
        host=sandbox.url,
        max_retries=0,
        timeout=10,
        upload_size=len(messages),
        upload_interval=1,
        on_error=lambda error, _: failures.append(error),
    )
    try:
        for kind, arguments in messages:
            by_library(client, kind, arguments)
    finally:
        with fail_after(30):
            await to_thread.run_sync(client.shutdown, abandon_on_cancel=True)
        atexit.unregister(client.join)
    assert failures == []
    assert not any(consumer.is_alive() for consumer in client.consumers)
    assert {row["path"] for row in rows(sandbox)} == {"/v1/batch"}
    theirs = taken_from(sandbox)

    result = await call("segment_batch", {"batch": [{"type": kind, **arguments} for kind, arguments in messages]})
    assert result["count"] == len(messages)
    assert {row["path"] for row in rows(sandbox)} == {"/v1/batch"}
    assert exactly(taken_from(sandbox)) == exactly(theirs)
    assert [message["type"] for message in theirs] == [kind for kind, _ in messages]

"""Segment's own Node library and this project send the same messages, as the sandbox sees them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from node import INSTALLED, run
from support import KEY, WAIT, Caller, arrived, comparable

from segment_tools.sandbox.run import Sandbox

pytestmark = pytest.mark.anyio
SCRIPT = Path(__file__).parent / "conformance" / "analytics-node.cjs"

OBJECT: dict[str, Any] = {
    "zero": 0,
    "no": False,
    "text": "",
    "null": None,
    "漢字": "👩\u200d👩\u200d👧",
    "deep": {"list": [1, {"x": 1.5}]},
}
COMMON: dict[str, Any] = {
    "userId": "user-1",
    "context": {"ip": "8.8.8.8", "page": {"url": "https://example.com/"}, "own": {"empty": {}}},
    "integrations": {"All": False, "Google Analytics": {}, "Amplitude": {"session_id": 5}},
}
MESSAGES: dict[str, dict[str, Any]] = {
    "identify": {**COMMON, "anonymousId": "visitor-1", "traits": OBJECT},
    "track": {**COMMON, "event": "Order Completed", "properties": OBJECT},
    "page": {**COMMON, "name": "Pricing", "properties": OBJECT},
    "screen": {**COMMON, "name": "Checkout", "category": "Shop", "properties": OBJECT},
    "group": {**COMMON, "groupId": "company-42", "traits": OBJECT},
    "alias": {**COMMON, "previousId": "visitor-1"},
}


def by_library(node: list[str], sandbox: Sandbox, messages: list[Mapping[str, Any]], environ: dict[str, str]) -> None:
    arguments = [str(SCRIPT), str(INSTALLED), sandbox.url, KEY, json.dumps(messages)]
    done = run([*node, *arguments], INSTALLED, WAIT, environ)
    assert done.returncode == 0, done.stderr


async def test_all_six_types_are_the_same(
    node: list[str], sandbox: Sandbox, call: Caller, environ: dict[str, str]
) -> None:
    by_library(node, sandbox, [{"type": kind, **fields} for kind, fields in MESSAGES.items()], environ)
    theirs = {message["type"]: comparable(message) for message in arrived(sandbox)}
    sandbox.store.clear()
    for kind, fields in MESSAGES.items():
        assert (await call(f"segment_{kind}", fields))["success"]
    ours = {message["type"]: comparable(message) for message in arrived(sandbox)}
    assert set(ours) == set(MESSAGES)
    assert json.dumps(ours, sort_keys=True) == json.dumps({kind: theirs[kind] for kind in ours}, sort_keys=True)


async def test_what_the_library_sends_is_what_the_sandbox_keeps(
    node: list[str], sandbox: Sandbox, environ: dict[str, str]
) -> None:
    by_library(node, sandbox, [{"type": "track", **MESSAGES["track"], "messageId": "node-library-0001"}], environ)
    (row,) = sandbox.store.messages({}, None, 10)
    assert (row["discarded"], row["path"], row["message"]["messageId"]) == (None, "/v1/batch", "node-library-0001")
    assert row["message"]["properties"] == OBJECT
    assert KEY not in json.dumps(row)

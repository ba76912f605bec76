"""The main job on real input: every tool over MCP, against a sandbox, and what arrived there."""

import json
import sys
from typing import Any, TextIO

from mcp import Client, StdioServerParameters, stdio_client
from mcp.types import CallToolResult

from segment_tools.environment import environment
from segment_tools.sandbox.run import Sandbox

CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "segment_identify",
        {
            "userId": "user123",
            "email": "john@example.com",
            "name": "John Doe",
            "traits": {"company": "Acme Corp", "plan": "premium"},
        },
    ),
    (
        "segment_track",
        {
            "userId": "user123",
            "event": "Order Completed",
            "properties": {
                "order_id": "ord_987",
                "total": 99.00,
                "currency": "USD",
                "products": [{"product_id": "prod_1", "sku": "sku_abc", "price": 99.00}],
            },
        },
    ),
    (
        "segment_page",
        {
            "userId": "user123",
            "name": "Product Page",
            "category": "E-commerce",
            "properties": {
                "url": "https://example.com/products/123",
                "title": "Amazing Product - Acme Store",
                "referrer": "https://google.com",
            },
        },
    ),
    ("segment_screen", {"anonymousId": "visitor-42", "name": "Checkout"}),
    (
        "segment_group",
        {
            "userId": "user123",
            "groupId": "company_42",
            "traits": {
                "name": "Acme Inc",
                "industry": "Technology",
                "employees": 50,
                "plan": "enterprise",
                "website": "https://acme.com",
            },
            "context": {
                "ip": "192.168.1.1",
                "locale": "en-US",
                "timezone": "America/New_York",
                "campaign": {"source": "google", "medium": "cpc"},
            },
        },
    ),
    ("segment_alias", {"previousId": "visitor-42", "userId": "user123"}),
    (
        "segment_batch",
        {
            "batch": [
                {"type": "track", "event": "Product Viewed", "userId": "user123"},
                {"type": "page", "name": "Pricing", "anonymousId": "visitor-43"},
            ],
            "context": {"locale": "en-US"},
        },
    ),
    ("segment_test_connection", {"level": "probe"}),
    ("segment_check_message", {"type": "track", "event": "Order Completed", "userId": "user123"}),
    ("segment_find_message", {"event": "Order Completed", "userId": "user123"}),
    ("segment_get_profile", {"id": "user123"}),
    ("segment_find_event", {"query": "somebody signed up"}),
    ("segment_track", {"event": "Button Clicked", "propertes": {"button": "buy"}}),
)
"""What is called: the documents' own examples, and one call as models get it wrong."""

_HOW_ON = """
Try next, with the segment-tools that runs this demo ({program}):

  a sandbox that keeps what it gets      segment-tools sandbox
  what arrives there, live               open http://127.0.0.1:8765 in a browser
  point the tools at it                  export SEGMENT_DATA_PLANE_URL=127.0.0.1:8765 SEGMENT_WRITE_KEY=any
  one call                               segment-tools call segment_track '{{"event": "Signed Up", "userId": "u1"}}'
  the same for a program                 curl 'http://127.0.0.1:8765/_sandbox/messages?limit=5'
  what a model sees                      segment-tools tools --json
  the tools over HTTP                    segment-tools http --port 8080
  your own Segment source                SEGMENT_WRITE_KEY=... segment-tools call segment_track '...'"""


async def demo(out: TextIO) -> bool:
    """Run the calls and print them as a table; whether all went as they should."""
    with Sandbox() as sandbox:
        print(f"A sandbox runs at {sandbox.url}. Starting the MCP server against it, over stdio.\n", file=out)
        results = await _results(sandbox.url)
        arrived = {row["message"]["messageId"]: row for row in sandbox.store.messages({}, False, 100)}
        print("CALLED, AND WHAT THE TOOL ANSWERED\n", file=out)
        _table(
            [
                ("tool", "arguments", "answer"),
                *(_called(call, result) for call, result in zip(CALLS, results, strict=True)),
            ],
            out,
        )
        print("\nARRIVED AT SEGMENT (the sandbox), in order\n", file=out)
        _table(
            [
                ("path", "type", "who", "what", "messageId"),
                *(_arrived(row) for row in reversed(list(arrived.values()))),
            ],
            out,
        )
        print(_HOW_ON.format(program=sys.argv[0]), file=out)
        return _as_promised(results, set(arrived))


_PROFILES = {"SEGMENT_PROFILE_TOKEN": "demo", "SEGMENT_SPACE_ID": "demo"}


async def _results(url: str) -> list[CallToolResult]:
    chosen = environment(SEGMENT_DATA_PLANE_URL=url, SEGMENT_WRITE_KEY="demo", **_PROFILES)
    server = StdioServerParameters(command=sys.executable, args=["-m", "segment_tools"], env=chosen)
    async with Client(stdio_client(server)) as client:
        return [await client.call_tool(name, arguments) for name, arguments in CALLS]


def _facts(result: CallToolResult) -> dict[str, Any]:
    return dict(result.structured_content or {})


def _ids(result: CallToolResult) -> set[str]:
    facts = _facts(result)
    return set(facts.get("messageIds", [])) | ({facts["messageId"]} if "messageId" in facts else set())


def _as_promised(results: list[CallToolResult], arrived: set[str]) -> bool:
    """All but the wrong call are accepted and arrived; the wrong one left nothing."""
    *right, wrong = results
    accepted = all(_facts(result)["success"] for result in right) and not _facts(wrong)["success"]
    return accepted and arrived == {message_id for result in results for message_id in _ids(result)}


def _called(call: tuple[str, dict[str, Any]], result: CallToolResult) -> tuple[str, ...]:
    name, arguments = call
    facts = _facts(result)
    return name, _cut(json.dumps(arguments, ensure_ascii=False), 60), _cut(_answer(facts), 110)


def _answer(facts: dict[str, Any]) -> str:
    if not facts["success"]:
        return f"refused: {facts['errorMessage']}"
    if "traits" in facts and "found" in facts:
        events = ", ".join(event["event"] for event in facts["events"])
        return f"found: {len(facts['traits'])} traits, {len(facts['externalIds'])} external ids, events {events}"
    if "found" in facts and "events" in facts:
        return f"found: {', '.join(event['event'] for event in facts['events'])}"
    if "ready" in facts:
        return "ready" if facts["ready"] else f"not ready: {' '.join(facts['problems'])}"
    if "valid" in facts:
        return f"valid, {facts['bytes']} bytes" if facts["valid"] else f"not valid: {len(facts['errors'])} errors"
    return str(facts["status"])


def _arrived(row: dict[str, Any]) -> tuple[str, ...]:
    message = row["message"]
    who = message.get("userId") or message.get("anonymousId")
    what = message.get("event") or message.get("name") or message.get("groupId") or message.get("previousId") or ""
    what = what or ", ".join(message.get("traits", {}))
    return row["path"], message["type"], who, _cut(what, 36), message["messageId"]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _table(rows: list[tuple[str, ...]], out: TextIO) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), file=out)
        if number == 0:
            print("  ".join("-" * width for width in widths), file=out)

"""The warnings: what each is given for and what not, that right calls get none, and how to switch one off."""

import json
from timeit import repeat
from typing import Any

import pytest
from support import NOW, ROOT, Caller, settings

from segment_tools import NotConfigured, Segment, Track, Transport, Warned, parse_message
from segment_tools.remarks import REMARKS
from segment_tools.spec.advice import warnings
from segment_tools.spec.known_events import PLAN, KnownEvent, KnownProperty
from segment_tools.spec.practice import of_practice

pytestmark = pytest.mark.anyio
CASES: dict[str, dict[str, list[dict[str, Any]]]] = json.loads(
    (ROOT / "tests/data/warnings.json").read_text(encoding="utf-8")
)
RIGHT: list[dict[str, Any]] = json.loads((ROOT / "tests/data/right_calls.json").read_text(encoding="utf-8"))
PER_MESSAGE_SECONDS = 10e-6


def given(message: dict[str, Any]) -> tuple[Warned, ...]:
    return warnings(parse_message(message, identity=True), NOW)


def cases(kind: str) -> list[Any]:
    return [
        pytest.param(code, message, id=f"{code}-{number}")
        for code, both in CASES.items()
        for number, message in enumerate(both[kind])
    ]


@pytest.mark.parametrize(("code", "message"), cases("wrong"))
def test_a_warning_is_given_alone_and_says_where_and_what_to_do(code: str, message: dict[str, Any]) -> None:
    (warning,) = given(message)
    assert warning.code == code
    assert warning.field
    assert warning.message.startswith(warning.field)


@pytest.mark.parametrize(("code", "message"), cases("fine"))
def test_a_near_miss_gets_no_warning(code: str, message: dict[str, Any]) -> None:
    assert given(message) == ()


def test_every_warning_has_two_wrong_examples_and_two_near_misses() -> None:
    assert list(CASES) == list(REMARKS)
    assert all(len(both[kind]) >= 2 for both in CASES.values() for kind in ("wrong", "fine"))


def test_of_right_calls_none_is_refused_and_at_most_2_in_100_are_remarked_on() -> None:
    assert len(RIGHT) >= 150
    assert len({json.dumps(message, sort_keys=True) for message in RIGHT}) == len(RIGHT)
    remarked = {message.get("event") or message["type"]: found for message in RIGHT if (found := given(message))}
    print(f"\nright calls: {len(RIGHT)}, with a warning {len(remarked)}: {remarked}")
    assert len(remarked) <= 0.02 * len(RIGHT)


MENDED = {
    "order_completed": "Order Completed",
    "Order Complete": "Order Completed",
    "orderCompleted": "Order Completed",
    "Viewed Promotion": "Promotion Viewed",
    "sign_up": "Signed Up",
    "video_watched": "Video Watched",
    "Viewed Pricing Page": "Pricing Page Viewed",
    "APIKeyRotated": "API Key Rotated",
    "user_signed_up": "Signed Up",
    "USER SIGNED UP": "Signed Up",
    "Add to Cart": "Product Added",
    "add_to_cart": "Product Added",
    "purchase": "Order Completed",
    "login": "Signed In",
    "Order Compelted": "Order Completed",
}


@pytest.mark.parametrize("event", MENDED)
def test_the_better_name_is_told_and_is_fine_itself(event: str) -> None:
    (warning,) = given({"type": "track", "event": event, "userId": "u1"})
    assert f"use {MENDED[event]!r}" in warning.message
    assert given({"type": "track", "event": MENDED[event], "userId": "u1"}) == ()


async def test_a_warning_never_blocks_and_stands_in_the_answer(call: Caller) -> None:
    given = {"event": "order_completed", "userId": "jane@example.com", "properties": {"orderId": "o1", "revenue": "9"}}
    answer = await call("segment_track", given)
    assert answer["success"] is True
    assert {warning["code"] for warning in answer["warnings"]} == {
        "email_as_user_id",
        "semantic_event_spelling",
        "number_as_text",
    }


async def test_a_warning_is_switched_off_by_its_code(call: Caller) -> None:
    given = {"event": "order_completed", "userId": "jane@example.com"}
    answer = await call("segment_track", given, warnings_off="email_as_user_id, semantic_event_spelling")
    assert "warnings" not in answer


async def test_names_of_the_plan_are_not_remarked_on() -> None:
    planned = KnownEvent("order_completed", "Ours.", (KnownProperty("orderId", "string"),), PLAN)
    sent = Track(event="order_completed", user_id="u1", properties={"orderId": "o1", "revenue": "9.50"})
    for events, codes in (((), ["semantic_event_spelling", "number_as_text"]), ((planned,), ["number_as_text"])):
        transport = Transport("https://example.com")
        async with Segment(settings(dry_run=True), transport=transport, planned_events=events) as segment:
            receipt = await segment.send(sent)
        assert [warning.code for warning in receipt.warnings] == codes


def test_an_unknown_code_is_refused_with_the_near_one() -> None:
    with pytest.raises(NotConfigured, match=r"SEGMENT_WARNINGS_OFF .*did you mean email_as_user_id\?"):
        settings(warnings_off="email_as_userid")


COMMON = [
    {"type": "track", "event": "Invoice Downloaded", "userId": "u1", "properties": {"plan": "pro", "seats": 3}},
    {
        "type": "track",
        "event": "Order Completed",
        "userId": "u1",
        "properties": {"order_id": "o1", "revenue": 9.5, "currency": "USD", "products": [{"product_id": "p1"}]},
    },
    {"type": "identify", "userId": "u1", "traits": {"email": "a@b.co", "firstName": "A", "createdAt": "2024-01-15"}},
    {"type": "page", "anonymousId": "a1", "name": "Home"},
]


def test_what_is_looked_for_on_every_message_costs_microseconds() -> None:
    for fields in COMMON:
        message = parse_message(fields)
        seconds = min(repeat(lambda message=message: list(of_practice(message)), number=500, repeat=20)) / 500
        print(f"\n{fields['type']}: {seconds * 1e6:.1f} µs")
        assert seconds < PER_MESSAGE_SECONDS


@pytest.mark.parametrize("name", ["a" * 30_000, "a_" * 45 + "!", "Aa" * 15_000, "a" + "A" * 90 + "!", "ab " * 30 + "!"])
def test_a_name_of_any_size_is_judged_in_time(name: str) -> None:
    who = f"{name}@{'.a' * 99}"
    track = {"type": "track", "event": name, "userId": who, "properties": {name: 1}}
    identify = {"type": "identify", "userId": who, "traits": {name: 1}}
    for message in map(parse_message, (track, identify)):
        assert min(repeat(lambda message=message: list(of_practice(message)), number=1, repeat=1)) < 1

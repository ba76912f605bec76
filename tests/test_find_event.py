"""Which event is meant by a question: the tool, its answers, and how often it is right."""

import json
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from support import NOW, ROOT, Caller, facts, settings, work

from segment_tools import Segment, Settings, Transport, parse_message
from segment_tools.spec.advice import warnings
from segment_tools.spec.event_search import find_events
from segment_tools.spec.known_events import PLAN, KnownEvent, KnownProperty, example
from segment_tools.spec.semantic_events import semantic_events
from segment_tools.surfaces.mcp_server import build

pytestmark = pytest.mark.anyio
QUESTIONS: dict[str, list[Any]] = json.loads((ROOT / "tests/data/event_questions.json").read_text(encoding="utf-8"))
RENEWED = KnownEvent(
    "Subscription Renewed",
    "A paying customer renews.",
    (KnownProperty("plan", "string", "Which plan.", required=True), KnownProperty("months", "integer")),
    PLAN,
)


def answers(part: str) -> list[tuple[str, list[str]]]:
    return [(event, [found.name for found in find_events(question)]) for question, event in QUESTIONS[part]]


@pytest.mark.parametrize("part", ["tuned", "held_back"])
def test_the_right_event_is_found_for_what_people_ask(part: str) -> None:
    found = answers(part)
    first = sum(names[:1] == [event] for event, names in found)
    print(f"\n{part}: first for {first} of {len(found)}, {sum(event in names for event, names in found)} among three")
    assert first >= 0.8 * len(found)


def test_of_60_questions_95_in_100_have_the_right_event_among_three() -> None:
    found = answers("tuned") + answers("held_back")
    assert len(found) == 60
    assert sum(event in names for event, names in found) >= 0.95 * len(found)


@pytest.mark.parametrize("question", QUESTIONS["nothing"])
def test_nothing_is_found_where_nothing_fits(question: str) -> None:
    assert find_events(question) == ()


@pytest.mark.parametrize("name", semantic_events())
def test_an_event_is_found_by_its_own_name_in_any_spelling(name: str) -> None:
    for spelling in (name, name.lower(), name.replace(" ", "_").lower()):
        assert find_events(spelling)[0].name == name


@pytest.mark.parametrize("name", semantic_events())
def test_an_example_is_a_call_that_is_accepted_without_a_remark(name: str) -> None:
    message = parse_message({"type": "track", **example(semantic_events()[name])}, identity=True)
    assert warnings(message, NOW) == ()


def test_the_catalogue_is_segments() -> None:
    events = semantic_events()
    assert (len(events), sum(len(event.properties) for event in events.values())) == (88, 603)
    assert all(event.url.startswith("https://segment.com/docs/") for event in events.values() if event.url)


async def test_the_tool_answers_with_properties_and_a_call_to_send(call: Caller) -> None:
    found = await call("segment_find_event", {"query": "custmer bougt something in the shop"})
    best = found["events"][0]
    assert (found["found"], best["event"], best["origin"]) == (True, "Order Completed", "semantic spec")
    assert best["url"] == "https://segment.com/docs/connections/spec/ecommerce/v2/"
    kinds = {each["name"]: each["type"] for each in best["properties"]}
    assert (kinds["order_id"], kinds["revenue"], kinds["products"]) == ("string", "number", "array")
    assert {"score", "said"} & set(best) == set()
    sent = await call(best["example"]["tool"], best["example"]["arguments"])
    assert (sent["success"], "warnings" in sent) == (True, False)


async def test_where_nothing_fits_the_tool_says_how_to_name_an_event(call: Caller) -> None:
    found = await call("segment_find_event", {"query": "invoice exported as PDF"})
    assert (found["success"], found["found"], found["events"]) == (True, False, [])
    assert "Object + past-tense verb" in found["hint"]


async def test_a_question_is_required(call: Caller) -> None:
    refused = await call("segment_find_event", {"query": ""})
    assert (refused["error"]["code"], refused["error"]["field"]) == ("missing_field", "query")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (5, "query must be text; pass a string."),
        (["bought"], "query must be text; pass a string."),
        (" ", "query is blank; pass it in words."),
        ("x" * 501, "query is too long; ask for one thing in a sentence, of at most 500 characters."),
    ],
)
async def test_what_is_no_question_is_refused_as_one(query: object, said: str, call: Caller) -> None:
    assert (await call("segment_find_event", {"query": query}))["errorMessage"] == said


def test_a_question_of_strange_words_costs_little_more_than_a_short_one() -> None:
    find_events("order")
    few, many = (" ".join(f"zq{number}wk" for number in range(count)) for count in (8, 64))
    assert work(lambda: find_events(many)) < 2 * work(lambda: find_events(few))


async def test_the_plan_is_searched_first() -> None:
    own = KnownEvent("Order Completed", "Ours.", (KnownProperty("shop", "string"),), PLAN)
    segment = Segment(settings(), transport=Transport("https://example.com"), planned_events=(RENEWED, own))
    async with Client(build(segment)) as client:
        renewed = facts(await client.call_tool("segment_find_event", {"query": "renewing a subscription"}))
        bought = facts(await client.call_tool("segment_find_event", {"query": "purchase"}))
    (event,) = renewed["events"]
    assert (event["event"], event["origin"], "url" in event) == ("Subscription Renewed", "plan", False)
    assert event["properties"][0] == {
        "name": "plan",
        "type": "string",
        "description": "Which plan.",
        "required": True,
    }
    names = [(each["event"], each["origin"]) for each in bought["events"]]
    assert names[0] == ("Order Completed", "plan")
    assert ("Order Completed", "semantic spec") not in names


async def test_it_is_offered_without_any_settings_and_can_be_switched_off() -> None:
    for chosen, offered in (
        (Settings(), True),
        (Settings(read_only=True), True),
        (settings(toolsets="tracking"), False),
    ):
        async with Client(build(Segment(chosen))) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
        assert ("segment_find_event" in names) is offered


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("user deleted account", "Account Deleted"),
        ("clicked an ad", "Video Ad Started"),
        ("user watched video to the end", "Video Playback Completed"),
        ("unsubscribed", "Unsubscribed"),
    ],
)
def test_what_is_done_counts_and_not_who_does_it(query: str, first: str) -> None:
    assert find_events(query)[0].name == first


@pytest.mark.parametrize(
    ("query", "never", "first"),
    [
        ("payment failed", "Order Completed", None),
        ("user did not complete the order", "Order Completed", None),
        ("the customer didn't complete the order", "Order Completed", None),
        ("login failed", "Signed In", None),
        ("user unable to sign in", "Signed In", None),
        ("left without logging in", "Signed In", None),
        ("order was not refunded", "Order Refunded", None),
        ("cart abandoned", "Cart Viewed", None),
        ("free trial expired", "Trial Started", "Trial Ended"),
        ("search with no results", "Product Clicked", None),
        ("order shipped", "Order Completed", None),
        ("coupon was not accepted", "Coupon Applied", None),
        ("coupon rejected", "Coupon Applied", "Coupon Denied"),
        ("app crashed", "Application Opened", "Application Crashed"),
        ("email bounced", "Email Delivered", "Email Bounced"),
    ],
)
def test_what_failed_or_never_came_about_is_not_what_did(query: str, never: str, first: str | None) -> None:
    names = [event.name for event in find_events(query)]
    assert never not in names
    assert first is None or names[0] == first


def test_an_event_of_the_plan_for_what_failed_is_found() -> None:
    planned = tuple(KnownEvent(name, "", (), PLAN) for name in ("Payment Failed", "Payment Completed"))
    assert [each.name for each in find_events("the card payment failed", planned)] == ["Payment Failed"]
    assert find_events("payment is complete", planned)[0].name == "Payment Completed"


def test_the_opposite_is_no_likeness() -> None:
    assert find_events("newsletter subscribe") == find_events("subscribed") == ()


def test_an_event_of_the_plan_is_found_by_its_own_description() -> None:
    planned = (KnownEvent("Gizmo Twirled", "A customer rotates the turntable", (), PLAN),)
    assert [each.name for each in find_events("customer rotates the turntable", planned)] == ["Gizmo Twirled"]


async def test_only_what_may_be_sent_is_found(call: Caller, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"Order Completed": {"description": "An order was paid", "properties": {}}}))
    strict = {"tracking_plan": plan, "tracking_plan_policy": "block"}
    none = await call("segment_find_event", {"query": "invoice downloaded"}, **strict)
    other = await call("segment_find_event", {"query": "product added to the cart"}, **strict)
    paid = await call("segment_find_event", {"query": "order paid"}, **strict)
    assert (none["found"], other["found"]) == (False, False)
    assert "Send none of your own" in none["hint"]
    assert [(each["event"], each["description"]) for each in paid["events"]] == [
        ("Order Completed", "An order was paid")
    ]
    lenient = await call("segment_find_event", {"query": "invoice downloaded"}, tracking_plan=plan)
    assert lenient["hint"].startswith("No event of the tracking plan fits: tell the user")
    denied = await call("segment_find_event", {"query": "refunded"}, deny_events="order refunded")
    assert all(each["event"] != "Order Refunded" for each in denied["events"])
    allowed = await call("segment_find_event", {"query": "refunded"}, allow_events="Order Completed")
    assert (allowed["found"], "SEGMENT_ALLOW_EVENTS" in allowed["hint"]) == (False, True)

"""What becomes of messages against a tracking plan, by policy; and of a file that is no plan."""

import json
from pathlib import Path

import pytest
from support import Caller
from test_tracking_plan import JANE, RULES, WRONG_PLANS

from segment_tools import NotConfigured, PlanViolation, Segment, Settings, Track
from segment_tools.sandbox.run import Sandbox


@pytest.fixture
def plan(tmp_path: Path) -> str:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"rules": RULES}), encoding="utf-8")
    return str(file)


LOCALE = {"locale": "en-US"}
BAD = {"event": "Order Complete", "userId": JANE, "properties": {"orderId": "o1"}, "context": LOCALE}
GOOD = {"event": "Order Completed", "userId": JANE, "properties": {"order_id": "o1"}, "context": LOCALE}


@pytest.mark.anyio
async def test_by_default_a_message_against_the_plan_is_sent_with_warnings(
    call: Caller, plan: str, sandbox: Sandbox
) -> None:
    result = await call("segment_track", BAD, tracking_plan=plan)
    assert (result["success"], result["status"]) == (True, "accepted")
    text = "The event is not in the tracking plan; did you mean 'Order Completed'?"
    assert result["warnings"] == [{"code": "plan_violation", "message": text, "field": "event"}]
    assert "warnings" not in await call("segment_track", GOOD, tracking_plan=plan)
    assert len(sandbox.store.messages({}, False, 10)) == 2


@pytest.mark.anyio
async def test_to_block_is_to_refuse_and_what_is_said_mends_it(call: Caller, plan: str, sandbox: Sandbox) -> None:
    chosen = {"tracking_plan": plan, "tracking_plan_policy": "block"}
    first = await call("segment_track", BAD, **chosen)
    assert (first["success"], first["sent"], first["statusCode"]) == (False, False, -1)
    assert (first["error"]["code"], first["error"]["field"], first["error"]["retryable"]) == (
        "plan_violation",
        "event",
        False,
    )
    assert first["errorMessage"] == "The event is not in the tracking plan; did you mean 'Order Completed'?"
    second = await call("segment_track", {**BAD, "event": "Order Completed"}, **chosen)
    assert [each["hint"] for each in second["error"]["problems"]] == [
        "You passed 'orderId': call it 'order_id'.",
        "Did you mean 'order_id'?",
    ]
    assert JANE not in f"{first}{second}"
    assert sandbox.store.messages({}, None, 10) == []
    assert (await call("segment_track", GOOD, **chosen))["success"]


@pytest.mark.anyio
async def test_one_message_against_the_plan_refuses_its_batch(call: Caller, plan: str, sandbox: Sandbox) -> None:
    batch = [
        {"type": "track", **GOOD},
        {"type": "track", **BAD},
        {"type": "identify", "userId": JANE, "traits": {"email": 5}},
    ]
    refused = await call("segment_batch", {"batch": batch}, tracking_plan=plan, tracking_plan_policy="block")
    assert [(each["index"], each["field"], each["code"]) for each in refused["error"]["problems"]] == [
        (1, "event", "plan_violation"),
        (2, "traits.email", "plan_violation"),
        (2, "context.locale", "plan_violation"),
    ]
    assert refused["errorMessage"].startswith("batch[1]: The event is not in the tracking plan; did you mean")
    assert sandbox.store.messages({}, None, 10) == []
    sent = await call("segment_batch", {"batch": [*batch, {"type": "track", **BAD}]}, tracking_plan=plan)
    assert sent["count"] == 4
    assert [(each["field"], each["index"], each.get("count")) for each in sent["warnings"]] == [
        ("event", 1, 2),
        ("traits.email", 2, None),
        ("context.locale", 2, None),
    ]


@pytest.mark.anyio
async def test_two_events_of_a_batch_have_a_warning_each(call: Caller, plan: str) -> None:
    batch = [{"type": "track", **BAD}, {"type": "track", **BAD, "event": "Order Refund"}]
    sent = await call("segment_batch", {"batch": batch}, tracking_plan=plan)
    assert [each["message"].split("mean ")[1] for each in sent["warnings"]] == [
        "'Order Completed'?",
        "'Order Refunded'?",
    ]


@pytest.mark.anyio
async def test_a_dry_run_is_held_to_the_plan_too(call: Caller, plan: str) -> None:
    warned = await call("segment_track", BAD, tracking_plan=plan, dry_run=True)
    assert (warned["status"], warned["warnings"][0]["code"]) == ("dry_run", "plan_violation")
    refused = await call("segment_track", BAD, tracking_plan=plan, dry_run=True, tracking_plan_policy="block")
    assert refused["error"]["code"] == "plan_violation"


@pytest.mark.anyio
async def test_off_is_not_to_look(call: Caller, plan: str) -> None:
    found = await call("segment_track", BAD, tracking_plan=plan, tracking_plan_policy="off")
    assert "plan_violation" not in [warning["code"] for warning in found["warnings"]]


@pytest.mark.anyio
async def test_what_is_blocked_is_not_put_into_the_outbox_either(plan: str) -> None:
    chosen = {"SEGMENT_TRACKING_PLAN": plan, "SEGMENT_TRACKING_PLAN_POLICY": "block", "SEGMENT_WRITE_KEY": "k"}
    queued = {"SEGMENT_OUTBOX": "memory:", "SEGMENT_DELIVERY": "queued"}
    segment = Segment(Settings.from_env(environ={**chosen, **queued}))
    with pytest.raises(PlanViolation) as raised:
        await segment.send(Track(event="Order Complete", user_id=JANE, context=LOCALE))
    assert raised.value.problems[0].field == "event"
    assert segment.courier is not None
    assert (await segment.courier.outbox.depth()).pending == 0
    await segment.aclose()


@pytest.mark.parametrize("case", WRONG_PLANS)
def test_a_file_that_is_no_plan_is_named_at_the_start_with_the_place(case: str, tmp_path: Path) -> None:
    document, said = WRONG_PLANS[case]
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(NotConfigured) as raised:
        Segment(Settings.from_env(environ={"SEGMENT_TRACKING_PLAN": str(file)}))
    assert raised.value.setting == "SEGMENT_TRACKING_PLAN"
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"A": {},\n "B": }', "line 2, column 7"),
        ('{"A": {}, "A": {}}', "names a key twice"),
        ("\xff", "JSON in UTF-8"),
    ],
)
def test_a_file_that_is_no_json_says_where(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(NotConfigured, match=said):
        Segment(Settings.from_env(environ={"SEGMENT_TRACKING_PLAN": str(file)}))
    Segment(Settings.from_env(environ={"SEGMENT_TRACKING_PLAN": str(file), "SEGMENT_TRACKING_PLAN_POLICY": "off"}))


def test_without_the_package_that_checks_it_says_which(plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment_tools.plan_source.find_spec", lambda _: None)
    with pytest.raises(NotConfigured, match=r"pip install 'segment-tools\[plan\]'"):
        Segment(Settings.from_env(environ={"SEGMENT_TRACKING_PLAN": plan}))


@pytest.mark.anyio
async def test_the_plans_events_are_found_with_their_properties(call: Caller, tmp_path: Path) -> None:
    own = {
        "Course Finished": {
            "description": "A pupil came to the end of a course",
            "properties": {
                "course_id": "string",
                "score": {"type": ["number", "null"], "description": "From 0 to 100"},
                "grade": {"enum": ["A", "B"], "type": "string"},
                "lessons": {"type": "array", "items": {"type": "object", "properties": {"title": {"type": "string"}}}},
            },
            "required": ["course_id"],
        }
    }
    file = tmp_path / "own.json"
    file.write_text(json.dumps(own), encoding="utf-8")
    found = await call("segment_find_event", {"query": "a pupil finished the course"}, tracking_plan=str(file))
    event = found["events"][0]
    assert (event["event"], event["origin"]) == ("Course Finished", "plan")
    assert event["properties"] == [
        {"name": "course_id", "type": "string", "required": True},
        {"name": "score", "type": "number or null", "description": "From 0 to 100"},
        {"name": "grade", "type": "string", "enum": ["A", "B"]},
        {"name": "lessons", "type": "array", "fields": [{"name": "title", "type": "string"}]},
    ]
    call_ = event["example"]
    sent = await call(call_["tool"], call_["arguments"], tracking_plan=str(file), tracking_plan_policy="block")
    assert sent["success"], sent["errorMessage"]

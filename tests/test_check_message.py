"""segment_check_message: what would be sent and what is wrong with it, without sending it."""

import json
from pathlib import Path
from typing import Any

import pytest
from support import KEY, MIXED, TRACK, Time, accepting, answering, facts, mcp, settings
from test_malformed_calls import REFUSED, UNDERSTOOD

from segment_tools import Segment, Settings
from segment_tools.functions import dispatch

pytestmark = pytest.mark.anyio
CHECK = "segment_check_message"
CARD = "4111 1111 1111 1111"


async def checked(arguments: dict[str, Any], **chosen: Any) -> dict[str, Any]:
    upstream = answering(AssertionError("something was sent"))
    segment = Segment(settings(**chosen), transport=upstream.transport(), surroundings=Time().surroundings())
    async with segment:
        answer = await dispatch(CHECK, arguments, segment)
    assert upstream.requests == []
    assert answer["success"], answer
    return answer


async def sent(tool: str, arguments: dict[str, Any], **chosen: Any) -> tuple[dict[str, Any], list[Any]]:
    upstream = accepting()
    segment = Segment(settings(**chosen), transport=upstream.transport(), surroundings=Time().surroundings())
    async with segment:
        answer = await dispatch(tool, arguments, segment)
    return answer, [request.content for request in upstream.requests]


@pytest.mark.parametrize("name", UNDERSTOOD)
async def test_the_body_is_the_one_that_would_leave(name: str) -> None:
    tool, arguments, *_ = UNDERSTOOD[name]
    single = {} if tool == "segment_batch" else {"type": tool.removeprefix("segment_")}
    answer = await checked({**arguments, **single})
    _, bodies = await sent(tool, arguments)
    shown = answer.get("requests") or [answer["request"]]
    assert (answer["valid"], answer["errors"]) == (True, [])
    assert shown == [json.loads(body) for body in bodies]
    assert answer["bytes"] == sum(map(len, bodies))


TYPELESS = [
    name
    for name, (tool, arguments, *_) in REFUSED.items()
    if (tool == "segment_batch") is ("batch" in arguments) and "type" not in arguments
]
"""What is wrong with a message, and not with what tells which tool it is for."""


@pytest.mark.parametrize("name", TYPELESS)
async def test_the_errors_are_those_of_sending(name: str) -> None:
    tool, arguments, *_ = REFUSED[name]
    if tool != "segment_batch":
        arguments = {**arguments, "type": tool.removeprefix("segment_")}
    answer = await checked(arguments)
    refused, _ = await sent(tool, REFUSED[name][1])
    wanted = refused["error"].get("problems") or [refused["error"]]
    assert answer["valid"] is False
    assert [(each["code"], each.get("field"), each.get("index")) for each in answer["errors"]][: len(wanted)] == [
        (each["code"], each.get("field"), each.get("index")) for each in wanted
    ]
    assert "request" not in answer


async def test_every_error_of_a_batch_is_told_by_index_with_the_warnings_of_the_rest() -> None:
    large = {**TRACK, "properties": {"text": "x" * 40_000}}
    secret = {**TRACK, "properties": {"note": CARD}}
    zoneless = {**TRACK, "timestamp": "2026-01-01T00:00:00"}
    answer = await checked({"batch": [large, *MIXED, secret, zoneless]})
    assert [(error["index"], error["code"]) for error in answer["errors"]] == [
        (0, "too_large"),
        (3, "missing_field"),
        (4, "invalid_value"),
        (6, "duplicate_message_id"),
        (7, "secret_in_message"),
    ]
    assert [(warning["index"], warning["code"]) for warning in answer["warnings"]] == [
        (5, "short_message_id"),
        (8, "timestamp_without_zone"),
    ]
    assert CARD not in json.dumps(answer)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "type"),
        ({"type": "purchase", "userId": "u1"}, "type"),
        ({"batch": []}, "batch"),
        ({"batch": 5}, "batch"),
        ({"batch": [TRACK], "event": "A"}, "event"),
        ({"type": "track", "event": "A", "userId": "u1", "propertes": {}}, "propertes"),
        ({"batch": [TRACK], "context": "prose"}, "context"),
    ],
)
async def test_what_is_no_message_is_an_error_in_the_answer(arguments: dict[str, Any], field: str) -> None:
    answer = await checked(arguments)
    assert answer["valid"] is False
    assert answer["errors"][0]["field"] == field


async def test_a_large_batch_is_shown_as_its_requests() -> None:
    answer = await checked({"batch": [{**TRACK, "properties": {"text": "x" * 20_000}}] * 60})
    assert len(answer["requests"]) == 3
    assert answer["bytes"] > 1_200_000


async def test_it_needs_neither_key_nor_network_and_is_there_in_read_only_mode() -> None:
    async with mcp(Settings(read_only=True)) as client:
        answer = facts(await client.call_tool(CHECK, TRACK))
        assert answer["valid"]
        assert CHECK in [tool.name for tool in (await client.list_tools()).tools]


TWO = {"sources": '{"web": "key-of-web", "app": "key-of-app"}', "allow_write_key_arg": "true"}


async def test_where_it_would_go_is_checked_and_left_out() -> None:
    for routing in ({"source": "web"}, {"writeKey": "other-key"}, {"source": "", "writeKey": None, "batch": None}):
        assert (await checked({**TRACK, **routing}, **TWO))["valid"]
        assert (await checked({**routing, "batch": [TRACK], "type": None}, **TWO))["valid"]


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        ({"groupId": ""}, {}),
        ({"traits": None, "email": ""}, {}),
        ({"foo": None}, {}),
        ({"source": "zzz"}, {}),
        ({"source": "zzz"}, TWO),
        ({"source": 5}, TWO),
        ({"writeKey": "other-key"}, {}),
        ({"writeKey": 5}, TWO),
    ],
)
async def test_a_check_and_a_sending_take_and_refuse_the_same(
    arguments: dict[str, Any], chosen: dict[str, Any]
) -> None:
    fields = {name: value for name, value in TRACK.items() if name != "type"}
    answer, bodies = await sent("segment_track", {**fields, **arguments}, **chosen)
    looked = await checked({**TRACK, **arguments}, **chosen)
    assert looked["valid"] is answer["success"] is bool(bodies)
    if bodies:
        assert looked["request"].keys() == json.loads(bodies[0]).keys()
    else:
        assert [each["message"] for each in looked["errors"]] == [answer["error"]["message"]]


@pytest.mark.parametrize("inside", [{"type": "track", **TRACK}, {"event": "A", "userId": "u1"}, '{"event": "A"}'])
async def test_a_message_in_a_wrapper_is_told_to_come_out(inside: object) -> None:
    for around in ({"message": inside}, {"message": inside, "type": "track"}, {"batch": [{"message": inside}]}):
        first = (await checked(around))["errors"][0]
        assert (first["field"], first["hint"]) == ("message", "Move what is inside 'message' to the top level.")


@pytest.mark.parametrize("batch", [[], [TRACK]])
async def test_type_and_batch_exclude_each_other(batch: list[Any]) -> None:
    (error,) = (await checked({"batch": batch, "type": "track"}))["errors"]
    assert error["message"] == "type and batch exclude each other."


async def test_the_servers_keys_are_hidden_and_what_is_redacted_is_shown_so() -> None:
    shown = await checked(
        {**TRACK, "properties": {"k": KEY, "email": "a"}}, block_secrets="false", redact='{"email": "drop"}'
    )
    assert shown["request"]["properties"] == {"k": "[secret]"}
    refused = await checked({**TRACK, "properties": {"k": KEY}})
    assert refused["errors"][0]["code"] == "secret_in_message"
    assert KEY not in json.dumps(refused)


async def test_a_check_is_no_first_sending() -> None:
    upstream = accepting()
    message = {**TRACK, "messageId": "message-0001"}
    async with Segment(settings(), transport=upstream.transport()) as segment:
        assert (await dispatch(CHECK, message, segment))["valid"]
        fields = {name: value for name, value in message.items() if name != "type"}
        answer = await dispatch("segment_track", fields, segment)
    assert (answer["attempts"], len(upstream.requests)) == (1, 1)
    assert "warnings" not in answer


async def test_departures_from_the_plan_are_told_by_the_policy(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"Order Completed": {"required": ["order_id"]}}), encoding="utf-8")
    warned = await checked(TRACK, tracking_plan=plan)
    assert warned["valid"]
    assert "plan_violation" in [warning["code"] for warning in warned["warnings"]]
    batch = [TRACK, {"type": "track", "userId": "u2"}, {**TRACK, "properties": {"order_id": "1", "revenue": 1}}]
    blocked = await checked({"batch": batch}, tracking_plan=plan, tracking_plan_policy="block")
    assert [(error["index"], error["code"]) for error in blocked["errors"]] == [
        (0, "plan_violation"),
        (1, "missing_field"),
    ]


async def test_what_an_agent_may_not_send_is_an_error_and_the_check_counts_for_nothing() -> None:
    other = {**TRACK, "event": "Other"}
    single = await checked(other, deny_events="Other")
    assert [(error["code"], error.get("index")) for error in single["errors"]] == [("not_allowed", None)]
    many = await checked({"batch": [{"type": "track", "userId": "u2"}, TRACK, other]}, deny_events="Other")
    assert [(error["index"], error["code"]) for error in many["errors"]] == [(0, "missing_field"), (2, "not_allowed")]
    segment = Segment(settings(agent_rate=1), transport=accepting().transport())
    for _ in range(3):
        assert (await dispatch(CHECK, TRACK, segment))["valid"]


async def test_that_a_person_is_asked_is_told() -> None:
    chosen = {"confirm": "alias,batch"}
    assert (await checked({"type": "alias", "userId": "u1", "previousId": "a1"}, **chosen))["needsConfirmation"] is True
    assert (await checked({"batch": [{"type": "track", **TRACK}]}, **chosen))["needsConfirmation"] is True
    assert "needsConfirmation" not in await checked({"type": "track", **TRACK}, **chosen)

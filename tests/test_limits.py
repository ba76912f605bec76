"""Segment's limits at their edges, and what is warned of."""

import json

import pytest
from support import Caller, Time, accepting, answering, arrived, settings

from segment_tools import InvalidMessage, Segment, TooLarge, Track, dispatch, parse_message
from segment_tools.remarks import REMARKS
from segment_tools.sandbox.run import Sandbox
from segment_tools.spec import limits

pytestmark = pytest.mark.anyio
U = {"userId": "u1"}


def client(time: Time) -> tuple[Segment, list[bytes]]:
    upstream = accepting()
    segment = Segment(settings(), transport=upstream.transport(), surroundings=time.surroundings())
    return segment, [request.content for request in upstream.requests]


async def size_of(arguments: dict[str, object]) -> int:
    upstream = accepting()
    segment = Segment(settings(), transport=upstream.transport(), surroundings=Time().surroundings())
    await dispatch("segment_track", arguments, segment)
    return len(upstream.requests[0].content)


@pytest.mark.parametrize("character", ["x", "é", "日", "😀"])
async def test_a_message_of_32_kb_on_the_wire_passes_and_a_byte_more_does_not(character: str, time: Time) -> None:
    empty = await size_of({"event": "A", **U, "properties": {"text": "", "pad": ""}})
    width = len(character.encode())
    count, rest = divmod(limits.MESSAGE_BYTES - empty, width)
    properties = {"text": character * count, "pad": "." * rest}
    upstream = accepting()
    segment = Segment(settings(), transport=upstream.transport(), surroundings=time.surroundings())
    fits = await dispatch("segment_track", {"event": "A", **U, "properties": properties}, segment)
    over = await dispatch(
        "segment_track", {"event": "A", **U, "properties": {**properties, "pad": "." * (rest + 1)}}, segment
    )
    assert fits["success"] is True
    assert [len(request.content) for request in upstream.requests] == [limits.MESSAGE_BYTES]
    assert (over["error"]["code"], over["error"]["field"]) == ("too_large", "properties.text")
    assert "32,769 bytes on the wire; Segment takes 32,768" in over["errorMessage"]


async def test_a_message_of_32_kb_is_taken_by_the_sandbox(call: Caller, sandbox: Sandbox) -> None:
    result = await call("segment_track", {"event": "A", **U, "properties": {"text": "x" * 32_000}})
    assert result["success"] is True
    assert len(arrived(sandbox)) == 1


async def test_one_message_too_large_refuses_the_batch(call: Caller, sandbox: Sandbox) -> None:
    big = {"type": "identify", **U, "traits": {"bio": "x" * 40_000}}
    result = await call("segment_batch", {"batch": [{"type": "page", **U}, big, {"type": "page", **U}, big]})
    assert [(problem["index"], problem["field"]) for problem in result["error"]["problems"]] == [
        (1, "traits.bio"),
        (3, "traits.bio"),
    ]
    assert sandbox.store.messages({}, None, 10) == []


async def test_too_large_is_an_invalid_message(time: Time) -> None:
    segment, _ = client(time)
    with pytest.raises(TooLarge) as raised:
        await segment.send(Track(event="A", user_id="u", properties={"x": "y" * 40_000}))
    assert isinstance(raised.value, InvalidMessage)


@pytest.mark.parametrize(("count", "requests"), [(2500, 1), (2501, 2), (5001, 3)])
async def test_a_batch_is_split_by_number(count: int, requests: int, time: Time) -> None:
    upstream = accepting()
    segment = Segment(settings(loop_limit=0), transport=upstream.transport(), surroundings=time.surroundings())
    items = [{"type": "page", "userId": "u", "messageId": f"message-{number}"} for number in range(count)]
    result = await dispatch("segment_batch", {"batch": items}, segment)
    bodies = [json.loads(request.content) for request in upstream.requests]
    assert result["count"] == count
    assert len(bodies) == requests
    sent = [message["messageId"] for body in bodies for message in body["batch"]]
    assert sent == result["messageIds"] == [item["messageId"] for item in items]


async def test_a_batch_over_500_kb_is_split_and_arrives_in_order(call: Caller, sandbox: Sandbox) -> None:
    items = [
        {"type": "track", "event": f"Event {number}", **U, "properties": {"text": "x" * 20_000}} for number in range(60)
    ]
    result = await call("segment_batch", {"batch": items})
    assert (result["success"], result["count"]) == (True, 60)
    assert [message["event"] for message in arrived(sandbox)] == [item["event"] for item in items]
    assert [message["messageId"] for message in arrived(sandbox)] == result["messageIds"]


async def test_no_request_is_over_500_kb_and_none_is_smaller_than_it_need_be(time: Time) -> None:
    upstream = accepting()
    segment = Segment(settings(), transport=upstream.transport(), surroundings=time.surroundings())
    messages = [
        Track(event="A", user_id="u", properties={"text": "x" * (500 + number * 7 % 900)}) for number in range(2000)
    ]
    await segment.send_batch(messages)
    sizes = [len(request.content) for request in upstream.requests]
    assert max(sizes) <= limits.BATCH_BYTES
    assert min(sizes[:-1]) > limits.BATCH_BYTES - 2_000


@pytest.mark.parametrize(("length", "success"), [(100, True), (101, False)])
async def test_a_message_id_has_at_most_100_characters(length: int, success: bool, call: Caller) -> None:
    result = await call("segment_page", {**U, "messageId": "m" * length})
    assert result["success"] is success


WARNED = {
    "timestamp_without_zone": {"timestamp": "2024-01-15T10:30:00"},
    "timestamp_in_future": {"timestamp": "2999-01-01T00:00:00Z"},
    "timestamp_before_1970": {"timestamp": "1969-12-31T23:59:59Z"},
    "message_id_at_limit": {"messageId": "m" * 100},
    "short_message_id": {"messageId": "1"},
    "long_group_id": {"type": "group", "groupId": "g" * 501},
    "too_many_fields": {"properties": {f"p{number}": 1 for number in range(301)}},
    "deep_nesting": {"properties": {"a": {"b": {"c": {"d": 1}}}}},
    "alias_to_itself": {"type": "alias", "previousId": "u1"},
    "context_type": {"context": {"ip": 5}},
    "empty_group_id": {"context": {"groupId": ""}},
    "destination_spelling": {"integrations": {"all": False}},
    "destination_value": {"integrations": {"All": "false"}},
    "semantic_event_spelling": {"type": "track", "event": "order_completed"},
    "event_name_form": {"type": "track", "event": "Click Button"},
    "semantic_property_spelling": {"type": "track", "event": "Order Completed", "properties": {"orderId": "o1"}},
    "number_as_text": {"type": "track", "event": "Order Completed", "properties": {"revenue": "9.50"}},
    "currency_code": {"type": "track", "event": "Order Completed", "properties": {"currency": "usd"}},
    "email_as_user_id": {"userId": "jane@example.com"},
    "created_at_not_a_date": {"type": "identify", "traits": {"createdAt": "yesterday"}},
    "local_time_without_zone": {"properties": {"starts_at": "2024-01-15T10:30:00"}},
    "mixed_trait_names": {"type": "identify", "traits": {"firstName": "Jane", "last_name": "Doe"}},
    "alias_reversed": {"type": "alias", "previousId": "jane@example.com", "userId": "anon-7"},
}


@pytest.mark.parametrize("code", WARNED)
async def test_what_segment_takes_but_others_may_not_is_warned_of_and_sent(
    code: str, call: Caller, sandbox: Sandbox
) -> None:
    message = {"type": "page", **U, **WARNED[code]}
    result = await call("segment_batch", {"batch": [message]})
    (warning,) = result["warnings"]
    assert (warning["code"], warning["index"]) == (code, 0)
    assert warning["message"].startswith(warning["field"])
    assert len(arrived(sandbox)) == 1


def test_every_warning_is_in_the_table() -> None:
    assert set(WARNED) == set(REMARKS)


FINE = [
    {"timestamp": "2024-01-15T10:30:00Z"},
    {"messageId": "m" * 99},
    {"properties": {f"p{number}": 1 for number in range(300)}},
    {"properties": {"products": [{"product_id": "1", "price": 5}], "a": {"b": {"c": 1}}}},
    {"integrations": {"All": False, "Google Analytics": {}, "My Own Function (Workspace)": True}},
    {"context": {"ip": "1.2.3.4", "app": {"version": 2, "build": "5"}, "screen": {"width": 100}, "own": {"x": 1}}},
    {"context": {"device": {"advertisingId": "a", "adTrackingEnabled": True}, "os": {"version": 17}, "ip": None}},
    {"context": {"consent": {"categoryPreferences": {"Ads": False}}}},
    {"context": {"externalIds": [{"id": "1", "type": "phone", "collection": "users", "encoding": "none"}]}},
    {"context": {"protocols": {"event_version": 2}, "active": False, "traits": {"email": "a@example.com"}}},
]


@pytest.mark.parametrize("fields", FINE)
async def test_what_is_fine_is_not_warned_of(fields: dict[str, object], call: Caller) -> None:
    result = await call("segment_page", {**U, **fields})
    assert result["success"] is True
    assert "warnings" not in result


async def test_equal_warnings_of_a_batch_are_counted_not_repeated(call: Caller) -> None:
    batch = [{"type": "page", **U, "integrations": {"all": False}} for _ in range(50)]
    (warning,) = (await call("segment_batch", {"batch": batch}, loop_limit=0))["warnings"]
    assert (warning["index"], warning["count"]) == (0, 50)


async def test_a_dry_run_shows_each_request_of_a_split_batch(call: Caller, sandbox: Sandbox) -> None:
    batch = [{"type": "page", **U} for _ in range(2501)]
    result = await call("segment_batch", {"batch": batch}, dry_run=True, loop_limit=0)
    assert [len(request["batch"]) for request in result["requests"]] == [2500, 1]
    assert (result["status"], result["sent"], result["count"]) == ("dry_run", False, 2501)
    assert sandbox.store.messages({}, None, 10) == []


async def test_a_dry_run_shows_exactly_what_would_leave_without_a_key(time: Time) -> None:
    upstream = answering(ConnectionError("nothing may leave"))
    dry = Segment(
        settings(dry_run=True, write_key=""), transport=upstream.transport(), surroundings=time.surroundings()
    )
    result = await dispatch("segment_track", {"event": "A", **U}, dry)
    real = accepting()
    wet = Segment(settings(), transport=real.transport(), surroundings=Time().surroundings())
    await dispatch("segment_track", {"event": "A", **U}, wet)
    assert result["request"] == json.loads(real.requests[0].content)
    assert upstream.requests == []


def test_messages_are_built_by_python_names_and_by_segments() -> None:
    by_name = Track(event="A", user_id="u1", properties={"n": 1})
    by_alias = parse_message({"type": "track", "event": "A", "userId": "u1", "properties": {"n": 1}})
    assert by_name == by_alias
    assert by_name.as_dict() == {"type": "track", "event": "A", "userId": "u1", "properties": {"n": 1}}

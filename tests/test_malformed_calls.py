"""Calls as hosts and models really make them, each with what must come of it."""

import pytest
from support import Caller, arrived, work

from segment_tools import InvalidMessage, parse_message
from segment_tools.errors import LISTED_PROBLEMS
from segment_tools.sandbox.run import Sandbox

pytestmark = pytest.mark.anyio
U = {"userId": "u1"}

UNDERSTOOD = {
    "objects as JSON text": ("segment_track", {"event": "A", **U, "properties": '{"n": 1}'}, {"properties": {"n": 1}}),
    "JSON text with spaces": (
        "segment_track",
        {"event": "A", **U, "properties": ' {"n": 1}\n'},
        {"properties": {"n": 1}},
    ),
    "traits as JSON text": ("segment_identify", {**U, "traits": '{"plan": "pro"}'}, {"traits": {"plan": "pro"}}),
    "the JSON text null": ("segment_page", {**U, "properties": "null"}, {}),
    "an integer id": ("segment_page", {"userId": 97980}, {"userId": "97980"}),
    "an integer id as a float": ("segment_page", {"userId": 97980.0}, {"userId": "97980"}),
    "zero as an id": ("segment_page", {"userId": 0}, {"userId": "0"}),
    "a negative id": ("segment_page", {"userId": -5}, {"userId": "-5"}),
    "a fractional id": ("segment_page", {"userId": 1.5}, {"userId": "1.5"}),
    "a long integer id": ("segment_page", {"userId": 2**64}, {"userId": str(2**64)}),
    "a numeric group id": ("segment_group", {**U, "groupId": 42}, {"groupId": "42"}),
    "a numeric message id": ("segment_page", {**U, "messageId": 1234567890}, {"messageId": "1234567890"}),
    "null for absent": ("segment_page", {**U, "anonymousId": None, "properties": None, "name": None}, {}),
    "null for every optional argument": (
        "segment_identify",
        {**U, **dict.fromkeys(("traits", "context", "integrations", "timestamp", "messageId", "email", "name"))},
        {},
    ),
    "the string null kept as an id": ("segment_page", {"userId": "null"}, {"userId": "null"}),
    "the string null kept as a name": ("segment_page", {**U, "name": "null"}, {"name": "null"}),
    "JSON-like text kept as an id": ("segment_page", {"userId": '{"a": 1}'}, {"userId": '{"a": 1}'}),
    "JSON-like text kept as an event": ("segment_track", {**U, "event": "[1]"}, {"event": "[1]"}),
    "the tool's own type": ("segment_track", {"event": "A", **U, "type": "track"}, {"event": "A"}),
    "a batch as JSON text": ("segment_batch", {"batch": '[{"type": "page", "userId": "u1"}]'}, {"type": "page"}),
    "batch items as JSON text": ("segment_batch", {"batch": ['{"type": "page", "userId": "u1"}']}, {"type": "page"}),
    "objects as JSON text in a batch": (
        "segment_batch",
        {"batch": [{"type": "identify", **U, "traits": '{"a": 1}'}], "context": '{"ip": "1.2.3.4"}'},
        {"traits": {"a": 1}},
    ),
    "a batch of one message without a list": ("segment_batch", {"batch": {"type": "page", **U}}, {"type": "page"}),
    "shortcuts in a batch": (
        "segment_batch",
        {"batch": [{"type": "identify", **U, "email": "a@example.com"}]},
        {"traits": {"email": "a@example.com"}},
    ),
    "null and empty fields of another type": (
        "segment_batch",
        {"batch": [{"type": "page", **U, "event": "", "groupId": None, "traits": None, "email": None}]},
        {"type": "page"},
    ),
    "outer spaces kept": ("segment_page", {"userId": " u1 "}, {"userId": " u1 "}),
}


@pytest.mark.parametrize("case", UNDERSTOOD)
async def test_what_can_be_understood_arrives(case: str, call: Caller, sandbox: Sandbox) -> None:
    tool, arguments, expected = UNDERSTOOD[case]
    result = await call(tool, arguments)
    assert result["success"] is True, result
    (message,) = arrived(sandbox)
    assert expected.items() <= message.items()
    assert None not in message.values()
    if not expected:
        assert set(message) <= {
            "userId", "type", "messageId", "timestamp", "context", "sentAt", "receivedAt", "originalTimestamp",
            "channel", "version",
        }  # fmt: skip


REFUSED = {
    "a typo": ("segment_track", {"event": "A", **U, "propertes": {}}, "propertes", "Did you mean 'properties'?"),
    "snake case": ("segment_track", {"event": "A", "user_id": "u1"}, "user_id", "Did you mean 'userId'?"),
    "another's name for an id": ("segment_page", {"anonymous_id": "a1"}, "anonymous_id", "Did you mean 'anonymousId'?"),
    "upper case": ("segment_page", {"UserID": "u1"}, "UserID", "Did you mean 'userId'?"),
    "arguments one level too deep": ("segment_track", {"input": {"event": "A", **U}}, "input", "to the top level"),
    "a message inside a message": ("segment_track", {"track": {"event": "A", **U}}, "track", "to the top level"),
    "a property at the top": ("segment_track", {"event": "A", **U, "revenue": 5}, "revenue", "Move it into properties"),
    "a trait at the top": ("segment_group", {"groupId": "g", **U, "industry": "x"}, "industry", "Move it into traits"),
    "another tool's type": ("segment_track", {"event": "A", **U, "type": "page"}, "type", "segment_page"),
    "an event that is a number": ("segment_track", {"event": 5, **U}, "event", "Pass a string"),
    "an event that is a list": ("segment_track", {"event": ["A"], **U}, "event", "Pass a string"),
    "a blank event": ("segment_track", {"event": "  ", **U}, "event", "drops a blank one"),
    "a page name that is a number": ("segment_page", {**U, "name": 5}, "name", "Pass a string"),
    "a blank page name": ("segment_page", {**U, "name": " "}, "name", "drops a blank one"),
    "a blank category": ("segment_screen", {**U, "category": "\t"}, "category", "drops a blank one"),
    "a blank group": ("segment_group", {**U, "groupId": " "}, "groupId", "drops a blank one"),
    "a blank id": ("segment_page", {"userId": " "}, "userId", "drops a blank one"),
    "an id that is true": ("segment_page", {"userId": True}, "userId", "as a string"),
    "an id that is an object": ("segment_page", {"userId": {"id": 1}}, "userId", "as a string"),
    "properties as a list": ("segment_track", {"event": "A", **U, "properties": [1]}, "properties", "JSON object"),
    "properties as prose": ("segment_track", {"event": "A", **U, "properties": "blue"}, "properties", "JSON object"),
    "properties as a number": ("segment_track", {"event": "A", **U, "properties": 5}, "properties", "JSON object"),
    "properties as false": ("segment_track", {"event": "A", **U, "properties": False}, "properties", "JSON object"),
    "JSON text of a list": ("segment_track", {"event": "A", **U, "properties": "[1]"}, "properties", "JSON object"),
    "traits as a list": ("segment_identify", {**U, "traits": []}, "traits", "JSON object"),
    "a context that is text": ("segment_page", {**U, "context": "web"}, "context", "JSON object"),
    "integrations that are a list": (
        "segment_page",
        {**U, "integrations": ["All"]},
        "integrations",
        '{"Mixpanel": true}',
    ),
    "a message id too long": ("segment_page", {**U, "messageId": "x" * 101}, "messageId", "shorter"),
    "a timestamp in words": ("segment_page", {**U, "timestamp": "yesterday"}, "timestamp", "2024-01-15T10:30:00Z"),
    "epoch milliseconds as text": ("segment_page", {**U, "timestamp": "1712011212345"}, "timestamp", "ISO 8601"),
    "a key twice in JSON text": ("segment_page", {**U, "properties": '{"a": 1, "a": 2}'}, "properties", "once"),
    "a consent version that is null": (
        "segment_page",
        {**U, "context": {"consent": {"version": None, "categoryPreferences": {"Ads": True}}}},
        "context.consent.version",
        "number",
    ),
    "a key twice in a message of a batch": (
        "segment_batch",
        {"batch": ['{"type": "page", "type": "track", "userId": "u1"}']},
        "batch",
        "once",
    ),
    "a consent version that is text": (
        "segment_page",
        {**U, "context": {"consent": {"version": "2", "categoryPreferences": {"Ads": True}}}},
        "context.consent.version",
        "number",
    ),
    "another API's word for a batch": ("segment_batch", {"messages": [{"type": "page", **U}]}, "messages", "'batch'"),
    "properties for traits": ("segment_identify", {**U, "properties": {"a": 1}}, "properties", "'traits'"),
    "a name for an event": ("segment_track", {"name": "A", **U}, "name", "'event'"),
    "epoch seconds": ("segment_page", {**U, "timestamp": 1705314600}, "timestamp", "2024-01-15T10:30:00Z"),
    "an advertising id that is a number": (
        "segment_page",
        {**U, "context": {"device": {"advertisingId": 5}}},
        "context.device.advertisingId",
        "as text",
    ),
    "consent that is no map": (
        "segment_page",
        {**U, "context": {"consent": {"categoryPreferences": {"Ads": "yes"}}}},
        "context.consent.categoryPreferences.Ads",
        "categoryPreferences",
    ),
    "endless nesting": (
        "segment_page",
        {**U, "properties": '{"a":' * 150 + "1" + "}" * 150},
        "properties.a.a.a.a",
        "3 levels",
    ),
    "nesting that no parser follows": (
        "segment_page",
        {**U, "properties": '{"a":' * 99_999 + "1" + "}" * 99_999},
        "properties",
        "JSON object",
    ),
    "NaN in JSON text": ("segment_page", {**U, "properties": '{"a": NaN}'}, "properties.a", "NaN"),
    "infinity in JSON text": ("segment_page", {**U, "properties": '{"a": [-Infinity]}'}, "properties.a.0", "infinity"),
    "an overflowing number": ("segment_page", {**U, "properties": '{"a": 1e999}'}, "properties.a", "infinity"),
    "a number of a thousand digits": ("segment_page", {**U, "properties": {"a": 10**1000}}, "properties.a", "text"),
    "half a character in JSON text": (
        "segment_page",
        {**U, "properties": '{"a": "\\ud83d"}'},
        "properties.a",
        "Unicode",
    ),
    "half a character in a key": ("segment_page", {**U, "properties": '{"\\ud83d": 1}'}, "properties", "Unicode"),
    "a batch that is text": ("segment_batch", {"batch": "two events"}, "batch", "such as ["),
    "a batch that is a number": ("segment_batch", {"batch": 5}, "batch", "such as ["),
    "an empty batch": ("segment_batch", {"batch": []}, "batch", "at least one"),
    "events for batch": ("segment_batch", {"events": [{"type": "page", **U}]}, "events", "Did you mean 'batch'?"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_would_be_lost_is_refused_with_a_mend(case: str, call: Caller, sandbox: Sandbox) -> None:
    tool, arguments, field, mend = REFUSED[case]
    result = await call(tool, arguments)
    error = result["error"]
    problems = error.get("problems", [error])
    (problem,) = [found for found in problems if found["field"] == field]
    assert mend in f"{problem['message']} {problem['hint']}"
    assert (result["success"], result["statusCode"], result["sent"]) == (False, -1, False)
    assert error["retryable"] is False
    assert sandbox.store.messages({}, None, 10) == []


async def test_a_batch_names_every_bad_message_by_index_and_sends_none(call: Caller, sandbox: Sandbox) -> None:
    batch = [
        {"type": "track", "event": "Good", **U},
        {"type": "track", **U},
        {"type": "tack", **U},
        "prose",
        {"type": "group", "groupId": "g"},
        {"event": "A", **U},
        {"type": "page", **U, "nam": "Home"},
        {"type": "alias", "userId": "u1"},
    ]
    result = await call("segment_batch", {"batch": batch})
    assert [(problem["index"], problem["field"]) for problem in result["error"]["problems"]] == [
        (1, "event"),
        (2, "type"),
        (3, "batch"),
        (4, "userId"),
        (5, "type"),
        (6, "nam"),
        (7, "previousId"),
    ]
    assert all(problem["message"] and problem["hint"] for problem in result["error"]["problems"])
    assert "batch[1]: event is required;" in result["errorMessage"]
    assert "And 2 more." in result["errorMessage"]
    assert sandbox.store.messages({}, None, 10) == []


async def test_a_repeated_message_id_in_a_batch_is_refused(call: Caller, sandbox: Sandbox) -> None:
    item = {"type": "page", **U, "messageId": "the-same-one"}
    result = await call("segment_batch", {"batch": [item, {"type": "page", **U}, item]})
    (problem,) = result["error"]["problems"]
    assert (problem["index"], problem["code"]) == (2, "duplicate_message_id")
    assert sandbox.store.messages({}, None, 10) == []


@pytest.mark.parametrize("name", ["segment_trak", "track", "", "x" * 500, "segment_track\n"])
async def test_an_unknown_tool_is_named_with_the_nearest(name: str, call: Caller) -> None:
    result = await call(name, {})
    assert result["error"]["code"] == "unknown_tool"
    assert len(result["errorMessage"]) < 400
    assert "segment_track" in result["error"]["hint"]


@pytest.mark.parametrize("number", [101, 1_000, 10**30, -5, "1000", 0])
async def test_a_number_out_of_range_is_told_its_range(number: object, call: Caller) -> None:
    error = (await call("segment_get_profile_events", {"id": "u1", "limit": number}, profile_token="any"))["error"]
    assert (error["field"], error["message"]) == ("limit", "limit is out of its range, 1 to 100.")


async def test_of_very_many_problems_the_first_are_listed_and_the_others_counted(call: Caller) -> None:
    wide = {"event": "A", **U, **{f"k{number}": 1 for number in range(500)}}
    single = await call("segment_track", wide)
    many = await call("segment_batch", {"batch": [{"type": "track"}] * 300 + [{"type": "track", **wide}]})
    for result, more in ((single, 480), (many, 1_080)):
        *listed, last = result["error"]["problems"]
        assert (len(listed), last) == (LISTED_PROBLEMS, {"code": "more_problems", "message": f"And {more} more."})
        assert f"And {more + 15} more." in result["errorMessage"]
        assert len(str(result)) < 10_000
    checked = await call("segment_check_message", {"type": "track", **wide})
    assert (len(checked["errors"]), checked["errors"][-1]["message"]) == (LISTED_PROBLEMS + 1, "And 480 more.")
    batch = await call("segment_check_message", {"batch": [{"type": "track"}] * 300})
    assert (len(batch["errors"]), batch["errors"][-1]["message"]) == (LISTED_PROBLEMS + 1, "And 580 more.")


async def test_of_very_many_warnings_the_first_are_listed_and_the_others_counted(call: Caller) -> None:
    batch = [{"type": "page", **U, "integrations": {f"google_analytics{number}": 1}} for number in range(50)]
    result = await call("segment_batch", {"batch": batch})
    assert len(result["warnings"]) == LISTED_PROBLEMS + 1
    assert result["warnings"][-1] == {"code": "more_warnings", "message": "And 30 more."}


def test_what_it_takes_to_refuse_a_message_grows_no_faster_than_the_message() -> None:
    def refused(fields: int) -> None:
        with pytest.raises(InvalidMessage):
            parse_message({"type": "track", "event": "A", **U, **{f"k{number}": 1 for number in range(fields)}})

    refused(1)
    assert work(lambda: refused(4_000)) < 5 * work(lambda: refused(1_000))

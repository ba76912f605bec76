"""What the third document promises: four operations with their options, outputs and status codes."""

import json
import uuid

import httpx
import pytest
from support import NOW, SENT_AT, Caller, Time, accepting, answering, arrived, settings

from segment_tools import Segment, dispatch
from segment_tools.sandbox.run import Sandbox
from segment_tools.tools import TOOLS, input_schema

pytestmark = pytest.mark.anyio
statement = pytest.mark.statement
SINGLE = ("segment_track", "segment_identify", "segment_page", "segment_screen", "segment_group")
OWN = {"segment_track": {"event": "A"}, "segment_group": {"groupId": "g1"}}


def tool_named(name: str) -> tuple[str, dict[str, dict[str, str]]]:
    found = next(known for known in TOOLS if known.name == name)
    return found.description, input_schema(found, settings())["properties"]


async def answer_to(name: str, arguments: dict[str, object], *answers: httpx.Response | Exception) -> dict[str, object]:
    upstream = answering(*answers)
    segment = Segment(settings(), transport=upstream.transport(), surroundings=Time().surroundings())
    return await dispatch(name, arguments, segment)


@statement("S2.34", "S2.43", "S2.46", "S2.51")
@pytest.mark.parametrize(
    ("tool", "options", "required"),
    [
        ("segment_track", "event userId properties context anonymousId timestamp messageId", ["event"]),
        ("segment_group", "groupId userId traits context", ["groupId"]),
        ("segment_identify", "userId email name traits context timestamp messageId", None),
        ("segment_page", "userId anonymousId name properties context", None),
    ],
)
def test_each_operation_has_the_documents_options(tool: str, options: str, required: list[str] | None) -> None:
    schema = input_schema(next(known for known in TOOLS if known.name == tool), settings())
    assert set(options.split()) <= set(schema["properties"])
    assert schema.get("required") == required


@statement("S2.35", "S2.43", "S2.46", "S2.51")
@pytest.mark.parametrize("tool", SINGLE)
async def test_an_anonymous_id_is_made_where_that_is_asked_for(tool: str, call: Caller, sandbox: Sandbox) -> None:
    first = await call(tool, OWN.get(tool, {}), anonymous_id="generate")
    second = await call(tool, OWN.get(tool, {}), anonymous_id="generate")
    assert first["success"] is True
    assert uuid.UUID(first["anonymousId"]) != uuid.UUID(second["anonymousId"])
    assert [message["anonymousId"] for message in arrived(sandbox)] == [first["anonymousId"], second["anonymousId"]]
    assert [warning["code"] for warning in first["warnings"]] == ["anonymous_id_generated"]


@statement("S2.35")
async def test_a_given_id_is_not_replaced_where_ids_are_made(call: Caller, sandbox: Sandbox) -> None:
    result = await call("segment_track", {"event": "A", "userId": "u1"}, anonymous_id="generate")
    assert "anonymousId" not in result
    assert "warnings" not in result
    assert "anonymousId" not in arrived(sandbox)[0]


@statement("S2.35")
async def test_every_message_of_a_batch_gets_an_id_of_its_own(call: Caller, sandbox: Sandbox) -> None:
    result = await call("segment_batch", {"batch": [{"type": "page"}, {"type": "page"}]}, anonymous_id="generate")
    ids = {message["anonymousId"] for message in arrived(sandbox)}
    assert len(ids) == 2
    assert [(warning["index"], warning["count"]) for warning in result["warnings"]] == [(0, 2)]


@statement("S2.36")
@pytest.mark.parametrize(
    "given",
    [
        "2024-01-15T10:30:00.000Z",
        "2024-01-15T10:30:00Z",
        "2024-01-15T10:30:00-08:00",
        "2024-01-15T10:30:00+05:30",
        "2024-01-15T10:30:00.123456+00:00",
    ],
)
async def test_a_complete_timestamp_is_sent_as_given(given: str, call: Caller, sandbox: Sandbox) -> None:
    result = await call("segment_track", {"event": "A", "userId": "u1", "timestamp": given})
    assert (result["timestamp"], arrived(sandbox)[0]["originalTimestamp"]) == (given, given)
    assert "warnings" not in result


@statement("S2.36")
@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("2024-01-15T10:30:00", "2024-01-15T10:30:00.000Z"),
        ("2024-01-15 10:30", "2024-01-15T10:30:00.000Z"),
        ("2024-01-15", "2024-01-15T00:00:00.000Z"),
    ],
)
async def test_a_timestamp_without_a_zone_is_utc_and_warned_of(given: str, sent: str, call: Caller) -> None:
    result = await call("segment_track", {"event": "A", "userId": "u1", "timestamp": given})
    assert result["timestamp"] == sent
    assert [warning["code"] for warning in result["warnings"]] == ["timestamp_without_zone"]


@statement("S2.36")
async def test_an_absent_timestamp_is_now(time: Time) -> None:
    segment = Segment(settings(), transport=accepting().transport(), surroundings=time.surroundings())
    assert time.now == NOW
    assert (await dispatch("segment_track", {"event": "A", "userId": "u1"}, segment))["timestamp"] == SENT_AT


@statement("S2.37")
async def test_a_message_id_is_made_or_passed_unchanged(call: Caller, sandbox: Sandbox) -> None:
    made = await call("segment_track", {"event": "A", "userId": "u1"})
    given = await call("segment_track", {"event": "A", "userId": "u1", "messageId": "order-ord_987-completed"})
    assert str(uuid.UUID(made["messageId"])) == made["messageId"]
    assert given["messageId"] == "order-ord_987-completed"
    assert [message["messageId"] for message in arrived(sandbox)] == [made["messageId"], given["messageId"]]


@statement("S2.38", "S2.40", "S2.41", "S2.42", "S2.50")
@pytest.mark.parametrize("tool", SINGLE)
async def test_success_has_the_documents_outputs(tool: str, call: Caller) -> None:
    result = await call(tool, {"userId": "u1", **OWN.get(tool, {})})
    names = ("responseBody", "originalStatusCode", "statusCode", "errorMessage", "sent")
    assert [result[name] for name in names] == [{"success": True}, 200, 200, "", True]


@statement("S2.39", "S2.40", "S2.50")
@pytest.mark.parametrize(
    ("answer", "status", "original", "sent"),
    [
        (httpx.Response(400), 200, 400, True),
        (httpx.Response(401), 200, 401, True),
        (httpx.Response(302), 200, 302, True),
        (httpx.Response(429), 500, 429, True),
        (httpx.Response(503), 500, 503, True),
        (httpx.ReadTimeout(""), 500, None, True),
        (httpx.ConnectError(""), 500, None, False),
    ],
)
async def test_status_codes_tell_who_failed(
    answer: httpx.Response | Exception, status: int, original: int | None, sent: bool
) -> None:
    result = await answer_to("segment_track", {"event": "A", "userId": "u1"}, answer)
    assert (result["statusCode"], result.get("originalStatusCode"), result["sent"]) == (status, original, sent)
    assert result["success"] is False
    assert result["errorMessage"]


@statement("S2.39", "S2.50")
async def test_a_refusal_before_sending_is_minus_one(call: Caller) -> None:
    result = await call("segment_track", {"userId": "u1"})
    assert (result["statusCode"], result["sent"]) == (-1, False)
    assert "originalStatusCode" not in result


@statement("S2.42")
@pytest.mark.parametrize("body", [b"", b"OK", b"<html>", b"[1]", b'"x"', b"{", b"[" * 2000])
async def test_an_answer_that_is_no_json_object_gives_an_empty_body(body: bytes) -> None:
    accepted = await answer_to("segment_page", {"userId": "u1"}, httpx.Response(200, content=body))
    assert (accepted["success"], accepted["responseBody"]) == (True, {})
    refused = await answer_to("segment_page", {"userId": "u1"}, httpx.Response(400, content=body))
    assert (refused["success"], refused["responseBody"]) == (False, {})


BODIES = {
    "segment_group": {"code": "missing_field", "message": "groupId is missing", "field": "groupId"},
    "segment_identify": {"success": False, "message": "Invalid writeKey", "code": "invalid_writekey"},
    "segment_page": {"error": {"code": "invalid_request_error", "message": "userId or anonymousId is required"}},
}


@statement("S2.44", "S2.49", "S2.52")
@pytest.mark.parametrize("tool", BODIES)
async def test_error_bodies_pass_through_and_are_read(tool: str) -> None:
    body = BODIES[tool]
    result = await answer_to(tool, {"userId": "u1", **OWN.get(tool, {})}, httpx.Response(400, json=body))
    said = body.get("error", body)
    assert result["responseBody"] == body
    assert result["error"]["code"] == said["code"]
    assert said["message"] in result["errorMessage"]


@statement("S2.45")
async def test_the_groups_traits_and_context_pass_unchanged(call: Caller, sandbox: Sandbox) -> None:
    traits = {
        "name": "Acme Inc",
        "industry": "Technology",
        "employees": 50,
        "plan": "enterprise",
        "website": "https://acme.com",
    }
    context = {
        "ip": "192.168.1.1",
        "locale": "en-US",
        "timezone": "America/New_York",
        "campaign": {"source": "google", "medium": "cpc"},
    }
    result = await call("segment_group", {"groupId": "g1", "userId": "u1", "traits": traits, "context": context})
    (message,) = arrived(sandbox)
    assert message["traits"] == traits
    assert {name: message["context"][name] for name in context} == context
    assert "warnings" not in result


@statement("S2.47")
async def test_email_and_name_become_traits(call: Caller, sandbox: Sandbox) -> None:
    given = {"userId": "u1", "email": "user@example.com", "name": "John Doe", "traits": {"plan": "pro"}}
    result = await call("segment_identify", given)
    expected = {"plan": "pro", "email": "user@example.com", "name": "John Doe"}
    assert (result["traits"], arrived(sandbox)[0]["traits"]) == (expected, expected)
    assert not {"email", "name"} & set(arrived(sandbox)[0])


@statement("S2.48")
async def test_values_may_be_of_any_type(call: Caller, sandbox: Sandbox) -> None:
    traits = {"a": "s", "b": 1, "c": 1.5, "d": True, "e": None, "f": {"g": {"h": 1}}, "i": [1, "x", None, {"j": 2}]}
    result = await call("segment_identify", {"userId": "u1", "traits": traits})
    assert arrived(sandbox)[0]["traits"] == traits
    assert "warnings" not in result


@statement("S2.48")
async def test_nesting_beyond_three_levels_warns_and_is_sent(call: Caller, sandbox: Sandbox) -> None:
    traits = {"a": {"b": {"c": {"d": 1}}}}
    result = await call("segment_identify", {"userId": "u1", "traits": traits})
    assert [(warning["code"], warning["field"]) for warning in result["warnings"]] == [("deep_nesting", "traits")]
    assert arrived(sandbox)[0]["traits"] == traits


@statement("S2.53")
def test_the_schema_describes_page_properties_and_context() -> None:
    _, fields = tool_named("segment_page")
    assert all(name in fields["properties"]["description"] for name in ("url", "title", "path", "referrer", "search"))
    named = ("ip", "locale", "timezone", "userAgent", "campaign{name,source,medium,term,content}")
    assert all(name in fields["context"]["description"] for name in named)


@statement("S2.54")
def test_descriptions_advise_object_and_past_tense_verb() -> None:
    description, fields = tool_named("segment_track")
    assert "Object + past-tense verb" in fields["event"]["description"]
    examples = ("Product Viewed", "Product Added", "Order Completed", "Email Opened")
    assert all(example in description for example in examples)


@statement("S2.55")
@pytest.mark.parametrize("tool", ["segment_track", "segment_page"])
def test_descriptions_say_that_a_server_passes_what_a_browser_would(tool: str) -> None:
    description, _ = tool_named(tool)
    assert "pass ip, locale and timezone in context yourself" in description


@statement("S2.56")
async def test_the_worked_example_works(call: Caller, sandbox: Sandbox) -> None:
    text = """{"order_id": "ord_987", "total": 99.00, "currency": "USD",
               "products": [{"product_id": "prod_1", "sku": "sku_abc", "price": 99.00}]}"""
    result = await call(
        "segment_track", {"event": "Order Completed", "userId": "user_12345", "properties": json.loads(text)}
    )
    assert (result["statusCode"], result["responseBody"]) == (200, {"success": True})
    assert arrived(sandbox)[0]["properties"] == json.loads(text)


@statement("S2.57")
@pytest.mark.parametrize("group", ["company_42", "0b9f0c1e-7b1c-4c2d-9d60-9d3f6b1f6d11", 42, "ACME Inc / Berlin"])
async def test_group_ids_follow_any_convention(group: object, call: Caller, sandbox: Sandbox) -> None:
    result = await call("segment_group", {"groupId": group, "userId": "u1"})
    assert result["groupId"] == arrived(sandbox)[0]["groupId"] == str(group)

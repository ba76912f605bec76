"""What the second document promises: six tools with an optional write key of their own."""

import pytest
from support import KEY, Caller, accepting, arrived, facts, mcp, settings

from segment_tools import Settings
from segment_tools.sandbox.run import Sandbox
from segment_tools.tools import TOOLS, input_schema

pytestmark = pytest.mark.anyio
statement = pytest.mark.statement
KEYLESS = Settings()

INPUTS = {
    "segment_track": "writeKey event userId anonymousId properties context timestamp integrations",
    "segment_identify": "writeKey userId anonymousId traits context timestamp",
    "segment_page": "writeKey userId anonymousId name category properties context timestamp",
    "segment_group": "writeKey groupId userId anonymousId traits context timestamp",
    "segment_alias": "writeKey userId previousId context timestamp",
    "segment_batch": "writeKey batch context",
}
OUTPUTS = {
    "segment_track": {"event": "A", "userId": "u1", "anonymousId": "a1"},
    "segment_identify": {"userId": "u1", "anonymousId": "a1"},
    "segment_page": {"name": "Home", "userId": "u1", "anonymousId": "a1"},
    "segment_group": {"groupId": "g1", "userId": "u1", "anonymousId": "a1"},
    "segment_alias": {"userId": "u1", "previousId": "p1"},
}


def schema(tool: str, chosen: Settings = KEYLESS) -> dict[str, dict[str, object]]:
    return input_schema(next(known for known in TOOLS if known.name == tool), chosen)["properties"]


@statement("S1.23")
async def test_the_tools_have_the_documents_names() -> None:
    async with mcp(settings()) as client:
        listed = [tool.name for tool in (await client.list_tools()).tools]
    assert [name for name in listed if name != "segment_screen"][: len(INPUTS)] == list(INPUTS)


@statement("S1.24", "S1.25", "S1.26", "S1.27", "S1.28", "S1.29")
@pytest.mark.parametrize("tool", INPUTS)
def test_each_tool_takes_the_documents_inputs(tool: str) -> None:
    assert set(INPUTS[tool].split()) <= set(schema(tool))


@statement("S1.24", "S1.25", "S1.26", "S1.27", "S1.28")
@pytest.mark.parametrize("tool", OUTPUTS)
async def test_each_tool_answers_the_documents_outputs(tool: str, call: Caller, sandbox: Sandbox) -> None:
    result = await call(tool, OUTPUTS[tool])
    assert result["success"] is True
    assert {name: result[name] for name in OUTPUTS[tool]} == OUTPUTS[tool]
    assert OUTPUTS[tool].items() <= arrived(sandbox)[0].items()


@statement("S1.24")
async def test_a_write_key_of_the_call_is_used_where_the_server_has_none() -> None:
    upstream = accepting()
    async with mcp(KEYLESS, upstream.transport()) as client:
        arguments = {"event": "A", "userId": "u1", "writeKey": KEY}
        result = facts(await client.call_tool("segment_track", arguments))
    assert result["success"] is True
    assert KEY not in str(result)
    assert upstream.requests[0].headers["authorization"] == "Basic d2stUkVDT0dOSVNBQkxFLTRmOWMyYjcxZDA6"
    assert KEY.encode() not in upstream.requests[0].content


@statement("S1.24")
async def test_a_write_key_of_the_call_is_refused_where_the_server_has_one(call: Caller, sandbox: Sandbox) -> None:
    assert "writeKey" not in schema("segment_track", settings())
    result = await call("segment_track", {"event": "A", "userId": "u1", "writeKey": "another-key"})
    assert (result["success"], result["error"]["field"]) == (False, "writeKey")
    assert "another-key" not in str(result)
    assert arrived(sandbox) == []


@statement("S1.24")
async def test_a_write_key_of_the_call_wins_where_the_server_allows_it() -> None:
    upstream = accepting()
    async with mcp(settings(allow_write_key_arg=True), upstream.transport()) as client:
        await client.call_tool("segment_track", {"event": "A", "userId": "u1", "writeKey": "another-key"})
        await client.call_tool("segment_track", {"event": "A", "userId": "u1"})
    sent = [request.headers["authorization"] for request in upstream.requests]
    assert sent == ["Basic YW5vdGhlci1rZXk6", "Basic d2stUkVDT0dOSVNBQkxFLTRmOWMyYjcxZDA6"]


@pytest.mark.parametrize("wrong", ["with space", 'quo"te', "colon:", 5, ["k"], "schlüssel"])
async def test_a_write_key_that_is_none_is_refused_and_not_repeated(wrong: object) -> None:
    upstream = accepting()
    async with mcp(KEYLESS, upstream.transport()) as client:
        result = facts(await client.call_tool("segment_page", {"userId": "u1", "writeKey": wrong}))
    assert (result["error"]["field"], upstream.requests) == ("writeKey", [])
    assert not isinstance(wrong, str) or wrong not in str(result)


@statement("S1.29", "S1.33")
async def test_batch_answers_how_many_it_sent(call: Caller, sandbox: Sandbox) -> None:
    batch = [{"type": "track", "event": "A", "userId": "u1"}, {"type": "page", "anonymousId": "a1"}]
    result = await call("segment_batch", {"batch": batch, "context": {"locale": "en-US"}})
    assert (result["success"], result["count"]) == (True, 2)
    assert [message["messageId"] for message in arrived(sandbox)] == result["messageIds"]
    assert [message["context"]["locale"] for message in arrived(sandbox)] == ["en-US", "en-US"]


@statement("S1.29")
async def test_a_messages_own_context_and_integrations_win_over_the_batchs(call: Caller, sandbox: Sandbox) -> None:
    own = {"context": {"page": {"url": "own"}}, "integrations": {"Mixpanel": False}}
    await call(
        "segment_batch",
        {
            "batch": [{"type": "page", "userId": "u1", **own}],
            "context": {"page": {"url": "shared", "title": "T"}, "ip": "1.2.3.4"},
            "integrations": {"Mixpanel": True, "All": False},
        },
    )
    (message,) = arrived(sandbox)
    assert message["context"]["page"] == {"url": "own", "title": "T"}
    assert message["context"]["ip"] == "1.2.3.4"
    assert message["integrations"] == {"Mixpanel": False, "All": False}


@statement("S1.29")
async def test_a_batchs_consent_does_not_add_to_a_messages_own(call: Caller, sandbox: Sandbox) -> None:
    refused = {"consent": {"categoryPreferences": {}}}
    shared = {"consent": {"categoryPreferences": {"Ads": True}}}
    await call("segment_batch", {"batch": [{"type": "page", "userId": "u1", "context": refused}], "context": shared})
    assert arrived(sandbox)[0]["context"]["consent"] == {"categoryPreferences": {}}


@statement("S1.30")
@pytest.mark.parametrize("tool", INPUTS)
def test_no_id_is_required_by_the_schema(tool: str) -> None:
    found = input_schema(next(known for known in TOOLS if known.name == tool), KEYLESS)
    optional = {"writeKey", "anonymousId", "context", "timestamp", "properties", "traits"}
    assert not optional & set(found.get("required", []))
    if "anonymousId" in found["properties"] and tool != "segment_alias":
        assert "without userId" in str(found["properties"]["anonymousId"]["description"])


@statement("S1.31")
async def test_batch_takes_all_six_types(call: Caller, sandbox: Sandbox) -> None:
    batch = [
        {"type": "track", "event": "A", "userId": "u1"},
        {"type": "identify", "userId": "u1"},
        {"type": "page", "userId": "u1"},
        {"type": "screen", "userId": "u1"},
        {"type": "group", "userId": "u1", "groupId": "g1"},
        {"type": "alias", "userId": "u1", "previousId": "p1"},
    ]
    assert (await call("segment_batch", {"batch": batch}))["count"] == 6
    assert [message["type"] for message in arrived(sandbox)] == [item["type"] for item in batch]


@statement("S1.32")
async def test_integrations_arrive_as_given(call: Caller, sandbox: Sandbox) -> None:
    chosen = {"All": False, "Mixpanel": True, "Google Analytics": {}, "Amplitude": {"session_id": 5}}
    result = await call("segment_track", {"event": "A", "userId": "u1", "integrations": chosen})
    assert arrived(sandbox)[0]["integrations"] == chosen
    assert "warnings" not in result


@statement("S1.33")
async def test_json_text_stands_for_an_object(call: Caller, sandbox: Sandbox) -> None:
    texts = {"properties": '{"total": 99.0}', "context": '{"ip": "1.2.3.4"}', "integrations": '{"All": false}'}
    result = await call("segment_track", {"event": "A", "userId": "u1", **texts})
    (message,) = arrived(sandbox)
    assert isinstance(result["success"], bool)
    assert (message["properties"], message["integrations"]) == ({"total": 99.0}, {"All": False})
    assert message["context"]["ip"] == "1.2.3.4"

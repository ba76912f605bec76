"""What the fifth document promises: the Tray connector's operations, profiles and trigger."""

from pathlib import Path
from typing import Any

import pytest
from mcp import MCPError
from support import Caller, accepting, facts, mcp, settings
from test_triggers import deliver, ids, listed, message, receiver

pytestmark = pytest.mark.anyio
statement = pytest.mark.statement
READING = {"profile_token": "profile-token-1", "space_id": "spa_1"}


@statement("S4.66")
async def test_the_profile_token_is_optional_and_named_when_it_is_missing(call: Caller) -> None:
    assert (await call("segment_track", {"event": "A", "userId": "u1"}))["success"] is True
    for leaf in ("events", "external_ids", "properties", "traits"):
        failed = await call(f"segment_get_profile_{leaf}", {"id": "u1"})
        assert "SEGMENT_PROFILE_TOKEN" in failed["errorMessage"]


@statement("S4.67", "S4.68")
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("alias", {"previousId": "a", "userId": "b"}),
        ("batch", {"batch": [{"type": "track", "event": "A", "userId": "u1"}]}),
        ("group", {"groupId": "g", "userId": "u1"}),
        ("identify", {"userId": "u1"}),
        ("track", {"event": "A", "userId": "u1"}),
        ("page", {"userId": "u1"}),
    ],
)
async def test_the_documents_operations_go_to_the_documents_url(tool: str, arguments: dict[str, Any]) -> None:
    upstream = accepting()
    async with mcp(settings(), upstream.transport()) as client:
        assert facts(await client.call_tool(f"segment_{tool}", arguments))["success"] is True
    assert [str(request.url) for request in upstream.requests] == [f"https://api.segment.io/v1/{tool}"]


@statement("S4.69", "S4.71")
async def test_profiles_are_read_by_space_collection_and_identifier_page_by_page(call: Caller) -> None:
    await call("segment_identify", {"userId": "u1", "traits": {"a": 1, "b": 2, "email": "jane@example.com"}})
    await call("segment_group", {"userId": "u1", "groupId": "acme", "traits": {"plan": "pro"}})
    await call("segment_track", {"userId": "u1", "event": "Signed Up"})
    found = {
        leaf: await call(f"segment_get_profile_{leaf}", {"id": "email:jane@example.com", "limit": 1}, **READING)
        for leaf in ("events", "external_ids", "properties", "traits")
    }
    assert found["events"]["events"][0]["event"] == "Signed Up"
    assert len(found["external_ids"]["externalIds"]) == len(found["properties"]["properties"]) == 1
    assert found["traits"]["traits"] == {"a": 1}
    following = {"id": "u1", "limit": 1, "cursor": found["traits"]["nextCursor"]}
    assert (await call("segment_get_profile_traits", following, **READING))["traits"] == {"b": 2}
    account = {"id": "acme", "collection": "accounts", "spaceId": "spa_2"}
    assert (await call("segment_get_profile_traits", account, **READING))["traits"] == {"plan": "pro"}


@statement("S4.70")
async def test_a_user_that_does_not_exist_is_an_answer_or_an_error(call: Caller) -> None:
    empty = await call("segment_get_profile_traits", {"id": "nobody"}, **READING)
    failed = await call("segment_get_profile_traits", {"id": "nobody", "errorIfMissing": True}, **READING)
    assert (empty["success"], empty["found"]) == (True, False)
    assert (failed["success"], failed["error"]["code"]) == (False, "profile_not_found")


@statement("S4.74")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_prompt_helps_to_set_segment_up(mode: str) -> None:
    async with mcp(settings(), mode=mode) as client:
        (prompt, *_) = (await client.list_prompts()).prompts
        (told,) = (await client.get_prompt(prompt.name)).messages
        with pytest.raises(MCPError, match="There is no such prompt"):
            await client.get_prompt("other")
    for wanted in ("source", "destination", "SEGMENT_WRITE_KEY", "SEGMENT_PROFILE_TOKEN", "SEGMENT_WEBHOOK_SECRET"):
        assert wanted in told.content.text  # type: ignore[union-attr]


@statement("S4.72")
async def test_a_trigger_takes_all_messages_or_allowed_types_or_a_channel(tmp_path: Path) -> None:
    async with receiver(tmp_path / "a.db") as (client, http):
        await deliver(
            http,
            message(1, channel="server"),
            message(2, type="identify", channel="browser"),
            message(3, type="page", channel="mobile"),
            {"type": "delete", "userID": "u1", "timestamp": "2026-01-01T00:00:00Z", "messageId": "m4"},
        )
        assert ids(await listed(client, order="oldest")) == ["m1", "m2", "m3", "m4"]
        assert ids(await listed(client, order="oldest", types=["identify", "page"])) == ["m2", "m3"]
        assert ids(await listed(client, channel="mobile")) == ["m3"]
        assert ids(await listed(client, types=["delete"], userId="u1")) == ["m4"]


@statement("S4.73")
async def test_a_webhook_is_checked_and_kept_and_the_tools_say_that_they_only_read(tmp_path: Path) -> None:
    async with receiver(tmp_path / "a.db") as (client, http):
        assert (await http.post("/webhooks/segment", json=message(1))).status_code == 401
        assert (await deliver(http, message(2))).status_code == 200
        assert ids(await listed(client)) == ["m2"]
        texts = {tool.name: tool.description or "" for tool in (await client.list_tools()).tools}
    for name in ("segment_list_deliveries", "segment_wait_for_delivery"):
        assert "A tool cannot be pushed to a model" in texts[name]

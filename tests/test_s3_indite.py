"""What the fourth document promises: identify, alias, track and page from a chat flow."""

import pytest
from support import Caller, arrived, settings

from segment_tools import Segment, dispatch
from segment_tools.sandbox.run import Sandbox

pytestmark = pytest.mark.anyio
statement = pytest.mark.statement


@statement("S3.58", "S3.63")
@pytest.mark.parametrize(
    ("tool", "arguments", "path"),
    [
        ("segment_identify", {"userId": "u1", "email": "jane@example.com"}, "/v1/identify"),
        ("segment_alias", {"previousId": "visitor-1", "userId": "u1"}, "/v1/alias"),
        ("segment_track", {"event": "Clicked Button", "userId": "u1"}, "/v1/track"),
        ("segment_page", {"name": "Support Bot", "category": "Home", "userId": "u1"}, "/v1/page"),
    ],
)
async def test_a_call_is_delivered_before_it_ends(
    tool: str, arguments: dict[str, str], path: str, sandbox: Sandbox
) -> None:
    async with Segment(settings(data_plane_url=sandbox.url)) as segment:
        result = await dispatch(tool, arguments, segment)
        (row,) = sandbox.store.messages({}, None, 10)
    assert result["success"] is True
    assert (row["path"], row["discarded"], row["message"]["messageId"]) == (path, None, result["messageId"])


@statement("S3.59")
async def test_email_wins_over_a_differing_trait_and_says_so(call: Caller, sandbox: Sandbox) -> None:
    given = {"userId": "u1", "email": "new@example.com", "traits": {"email": "old@example.com", "plan": "pro"}}
    result = await call("segment_identify", given)
    assert arrived(sandbox)[0]["traits"] == {"email": "new@example.com", "plan": "pro"}
    (warning,) = result["warnings"]
    assert (warning["code"], warning["field"]) == ("shortcut_overrules_trait", "traits.email")
    assert "example.com" not in warning["message"]


@statement("S3.59")
async def test_an_equal_trait_is_no_conflict(call: Caller) -> None:
    given = {"userId": "u1", "email": "a@example.com", "traits": {"email": "a@example.com"}}
    assert "warnings" not in await call("segment_identify", given)


@statement("S3.60")
async def test_alias_names_both_ids(call: Caller, sandbox: Sandbox) -> None:
    result = await call("segment_alias", {"previousId": "visitor-1", "userId": "u1"})
    (message,) = arrived(sandbox)
    assert (message["previousId"], message["userId"]) == ("visitor-1", "u1")
    assert (result["previousId"], result["userId"]) == ("visitor-1", "u1")


@statement("S3.61")
async def test_track_takes_properties_or_none(call: Caller, sandbox: Sandbox) -> None:
    await call("segment_track", {"event": "Clicked Button", "userId": "u1", "properties": {"page": "Home"}})
    await call("segment_track", {"event": "Clicked Button", "userId": "u1"})
    assert [message.get("properties") for message in arrived(sandbox)] == [{"page": "Home"}, None]


@statement("S3.62")
async def test_page_takes_name_category_and_properties(call: Caller, sandbox: Sandbox) -> None:
    given = {"name": "Support Bot", "category": "Settings", "properties": {"load_time": 0.4}, "anonymousId": "v1"}
    await call("segment_page", given)
    assert given.items() <= arrived(sandbox)[0].items()


@statement("S3.64")
@pytest.mark.parametrize(
    ("tool", "arguments", "missing"),
    [
        ("segment_track", {"userId": "u1"}, ["event"]),
        ("segment_track", {}, ["event", "userId"]),
        ("segment_alias", {}, ["userId", "previousId"]),
        ("segment_alias", {"userId": "u1"}, ["previousId"]),
        ("segment_alias", {"previousId": "p1", "anonymousId": "a1"}, ["userId"]),
        ("segment_group", {"userId": "u1", "groupId": ""}, ["groupId"]),
        ("segment_identify", {"email": "a@example.com"}, ["userId"]),
        ("segment_batch", {}, ["batch"]),
    ],
)
async def test_what_is_missing_is_named(
    tool: str, arguments: dict[str, str], missing: list[str], call: Caller, sandbox: Sandbox
) -> None:
    result = await call(tool, arguments)
    error = result["error"]
    named = [problem["field"] for problem in error.get("problems", [error])]
    assert (named, error["code"]) == (missing, "missing_field")
    assert sandbox.store.messages({}, None, 10) == []


@statement("S3.65")
async def test_empty_optional_values_are_dropped(call: Caller, sandbox: Sandbox) -> None:
    empty = {
        "anonymousId": "",
        "category": "",
        "name": "",
        "timestamp": "",
        "messageId": "",
        "properties": "",
        "context": "",
    }
    result = await call("segment_page", {"userId": "u1", **empty})
    assert result["success"] is True
    assert not {"anonymousId", "category", "name", "properties"} & set(arrived(sandbox)[0])

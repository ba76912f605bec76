"""segment_find_message: what became of a message after Segment's 200."""

from typing import Any

import httpx
import pytest
from mcp import Client
from support import KEY, Caller, Time, answering, facts, settings

from segment_tools import Sandbox, Segment, Transport, dispatch
from segment_tools.services import PROFILES
from segment_tools.surfaces.mcp_server import build

pytestmark = pytest.mark.anyio
EVENT = {"event": "Signed Up", "type": "track", "message_id": "m-1", "timestamp": "2026-11-23T12:00:00Z"}
NONE = httpx.Response(404, json={"error": {"code": "not_found", "message": "Profile was not found."}})


def events(*found: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json={"data": list(found), "cursor": {"has_more": False, "next": ""}})


async def find(*answers: httpx.Response | Exception, **arguments: Any) -> tuple[dict[str, Any], Time, int]:
    time, up = Time(), answering(*answers)
    profiles = Transport("https://profiles.segment.com", httpx.MockTransport(up), PROFILES)
    chosen = settings(profile_token="profile-token-1", space_id="spa_1")
    async with Segment(chosen, profiles=profiles, surroundings=time.surroundings()) as segment:
        return await dispatch("segment_find_message", arguments, segment), time, len(up.requests)


async def test_a_tracking_answer_points_to_it_and_the_sandbox_tells(call: Caller) -> None:
    sent = await call("segment_track", {"event": "Signed Up", "userId": "u1"})
    found = await call(sent["verifyWith"], {"messageId": sent["messageId"]})
    assert (found["status"], found["knownFrom"], found["event"]) == ("kept", "sandbox", "Signed Up")


async def test_a_discarded_message_comes_with_its_reason_and_mend(call: Caller, sandbox: Sandbox) -> None:
    async with httpx.AsyncClient(auth=(KEY, ""), trust_env=False) as http:
        await http.post(f"{sandbox.url}/v1/track", json={"userId": "u1", "messageId": "m-1"})
    found = await call("segment_find_message", {"messageId": "m-1"})
    assert (found["status"], found["reason"]) == ("discarded", "event_not_defined")
    assert "Send `event`" in found["explanation"]


async def test_a_repeat_does_not_hide_that_the_first_was_kept(call: Caller) -> None:
    for _ in range(2):
        await call("segment_track", {"event": "Signed Up", "userId": "u1", "messageId": "message-0001"})
    assert (await call("segment_find_message", {"messageId": "message-0001"}))["status"] == "kept"


async def test_a_profile_tells_what_segment_kept() -> None:
    found, _, _ = await find(events({**EVENT, "message_id": "m-0"}, EVENT), messageId="m-1", userId="U1")
    assert (found["status"], found["knownFrom"], found["messageId"]) == ("kept", "profile", "m-1")
    by_event, _, _ = await find(events(EVENT), event="Signed Up", anonymousId="a1")
    assert by_event["messageId"] == "m-1"


@pytest.mark.parametrize("field", ["event", "userId", "anonymousId"])
async def test_what_is_too_long_to_ask_for_is_named(field: str) -> None:
    found, _, asked = await find(NONE, **{"event": "A", "userId": "u1", field: "x" * 70_000})
    assert (found["success"], found["error"]["field"], asked) == (False, field, 0)


async def test_it_waits_until_it_is_there() -> None:
    found, time, asked = await find(NONE, events(), events(EVENT), messageId="m-1", userId="u1", waitSeconds=60)
    assert (found["status"], asked, time.waits) == ("kept", 3, [1, 2])
    assert found["waitedSeconds"] == 3


async def test_it_gives_up_at_its_deadline() -> None:
    found, time, _ = await find(events(), messageId="m-1", userId="u1", waitSeconds=10)
    assert (found["status"], sum(time.waits), found["waitedSeconds"]) == ("unknown", 10, 10)
    assert "debugger" in found["explanation"]


async def test_progress_is_told_while_it_waits() -> None:
    time, up = Time(), answering(events(), events(EVENT))
    profiles = Transport("https://profiles.segment.com", httpx.MockTransport(up), PROFILES)
    chosen = settings(profile_token="profile-token-1", space_id="spa_1")
    told: list[tuple[float, float | None]] = []

    async def progress(done: float, total: float | None, _: str) -> None:
        told.append((done, total))

    async with Segment(chosen, profiles=profiles, surroundings=time.surroundings()) as segment:
        arguments = {"messageId": "m-1", "userId": "u1", "waitSeconds": 5}
        await dispatch("segment_find_message", arguments, segment, progress)
    assert told == [(0, 5)]


@pytest.mark.parametrize(
    ("arguments", "chosen", "says"),
    [
        ({"messageId": "m-1", "userId": "u1"}, {}, "SEGMENT_PROFILE_TOKEN"),
        ({"messageId": "m-1", "userId": "u1"}, {"profile_token": "t-12345678"}, "SEGMENT_SPACE_ID"),
        ({"messageId": "m-1"}, {"profile_token": "t-12345678", "space_id": "spa_1"}, "userId or anonymousId"),
    ],
)
async def test_what_cannot_be_known_says_why(arguments: dict[str, str], chosen: dict[str, str], says: str) -> None:
    async with Segment(settings(**chosen)) as segment:
        found = await dispatch("segment_find_message", arguments, segment)
    assert (found["success"], found["status"]) == (True, "unknown")
    assert says in found["explanation"]
    assert "waitedSeconds" not in found


async def test_a_profile_that_cannot_be_read_is_told_without_what_it_said() -> None:
    refused = httpx.Response(401, json={"error": {"code": "authentication_error", "message": "u1 secret"}})
    found, _, asked = await find(refused, messageId="m-1", userId="u1", waitSeconds=30)
    assert (found["status"], asked) == ("unknown", 1)
    assert "SEGMENT_PROFILE_TOKEN" in found["explanation"]
    assert "secret" not in found["explanation"]


@pytest.mark.parametrize("arguments", [{}, {"event": "A"}, {"userId": "u1"}])
async def test_which_message_must_be_said(arguments: dict[str, str]) -> None:
    async with Client(build(Segment(settings())), raise_exceptions=True) as client:
        found = facts(await client.call_tool("segment_find_message", arguments))
    assert found["error"]["field"] == "messageId"


async def test_a_sandbox_that_has_no_such_message_says_so_and_is_waited_for(sandbox: Sandbox) -> None:
    time = Time()
    async with Segment(settings(data_plane_url=sandbox.url), surroundings=time.surroundings()) as segment:
        found = await dispatch("segment_find_message", {"messageId": "not-sent-yet", "waitSeconds": 3}, segment)
    assert (found["status"], found["knownFrom"], sum(time.waits)) == ("unknown", "sandbox", 3)
    assert "SEGMENT_PROFILE_TOKEN" not in found["explanation"]


SENT = {"messageId": "message-0001", "userId": "u1"}


async def test_a_sandbox_that_is_not_there_is_named_and_waited_for() -> None:
    time = Time()
    async with Segment(settings(data_plane_url="http://127.0.0.1:9"), surroundings=time.surroundings()) as segment:
        found = await dispatch("segment_find_message", {**SENT, "waitSeconds": 3}, segment)
    assert (found["status"], sum(time.waits)) == ("unknown", 3)
    assert "No connection to http://127.0.0.1:9" in found["explanation"]
    assert "SEGMENT_PROFILE_TOKEN" not in found["explanation"]


@pytest.mark.parametrize("more", [{}, {"profile_token": "any-token-123", "space_id": "spa_1"}])
async def test_a_dry_run_has_nothing_to_look_up(more: dict[str, str], call: Caller) -> None:
    found = await call("segment_find_message", SENT, dry_run=True, **more)
    assert found["status"] == "unknown"
    assert "dry run" in found["explanation"]
    assert "sends nothing" in found["explanation"]


async def test_token_and_space_are_missed_together() -> None:
    async with Segment(settings()) as segment:
        found = await dispatch("segment_find_message", SENT, segment)
    assert "SEGMENT_PROFILE_TOKEN and SEGMENT_SPACE_ID" in found["explanation"]


async def test_a_message_id_that_is_too_long_is_refused_with_a_readers_hint(call: Caller) -> None:
    error = (await call("segment_find_message", {"messageId": "m" * 101}))["error"]
    assert error["field"] == "messageId"
    assert "as the answer that sent the message gave it" in error["hint"]


async def test_what_is_said_of_a_message_and_is_not_so_is_warned_of(call: Caller) -> None:
    await call("segment_track", {**SENT, "event": "Signed Up"})
    right = await call("segment_find_message", {**SENT, "event": "Signed Up"})
    wrong = await call("segment_find_message", {**SENT, "userId": "u2", "event": "Signed In"})
    assert (right["status"], "warnings" in right) == ("kept", False)
    assert (wrong["status"], [each["field"] for each in wrong["warnings"]]) == ("kept", ["event", "userId"])


async def test_an_unknown_message_comes_with_a_next_step(call: Caller) -> None:
    found = await call("segment_find_message", {"messageId": "never-sent-here"})
    assert all(text in found["explanation"] for text in ("Check the id", "waitSeconds", "send it again"))

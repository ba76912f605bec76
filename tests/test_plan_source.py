"""A tracking plan that Segment has: read page by page, again now and then, and kept for when the API is away."""

import asyncio
import logging
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client
from support import KEY, NOW, WAIT, Time, Upstream, accepting, answering, facts, settings
from test_tracking_plan import rule, whole

from segment_tools import Receipt, Segment, SegmentError, Settings, Track, Transport, Unavailable, transport
from segment_tools.checking import Check, Level
from segment_tools.network import StandIn
from segment_tools.plan_source import REFRESH_SECONDS
from segment_tools.services import PUBLIC_API
from segment_tools.surfaces.mcp_server import build

pytestmark = pytest.mark.anyio
TOKEN = "sgp_RECOGNISABLE-7c1d0e92"
HOST = "https://api.segmentapis.com"


READ = f'"readAt": "2026-11-23T12:00:00.000Z", "from": "{HOST}"'
RULES_5, EMPTY = f'{{{READ}, "rules": 5}}', f'{{{READ}, "rules": []}}'
"""Copies of the plan that are damaged within."""


def page(*names: str, following: str | None = None) -> httpx.Response:
    rules = [rule(name, whole({"type": "object"})) for name in names]
    return httpx.Response(200, json={"data": {"rules": rules, "pagination": {"current": "MA==", "next": following}}})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path


def chosen(**values: Any) -> Settings:
    return settings(tracking_plan="segment:tp_1", public_api_token=TOKEN, **values)


def client(api: Upstream, time: Time, read: Settings | None = None, data: Upstream | None = None) -> Segment:
    transport = Transport(HOST, httpx.MockTransport(api), PUBLIC_API)
    return Segment(
        read or chosen(),
        transport=(data or accepting()).transport(),
        public_api=transport,
        surroundings=time.surroundings(),
    )


async def sent(segment: Segment, event: str = "A") -> Receipt:
    return await segment.send(Track(event=event, user_id="u1"))


def the_copy(folder: Path) -> Path:
    (kept,) = folder.rglob("tp_1.json")
    return kept


def warned(receipt: Receipt) -> list[str]:
    return [warning.code for warning in receipt.warnings]


async def settled(segment: Segment) -> None:
    """Until what is read in the background has been."""
    if reading := segment._plans._reading:
        await asyncio.wait([reading], timeout=10)


async def test_a_plan_is_read_page_by_page_with_the_token(time: Time) -> None:
    api = answering(page("A", following="Mg=="), page("B", following="NA=="), page("C"))
    segment = client(api, time)
    assert [warned(await sent(segment, event)) for event in "ABCD"] == [[], [], [], ["plan_violation"]]
    assert [str(request.url) for request in api.requests] == [
        f"{HOST}/tracking-plans/tp_1/rules?pagination.count=200",
        f"{HOST}/tracking-plans/tp_1/rules?pagination.count=200&pagination.cursor=Mg%3D%3D",
        f"{HOST}/tracking-plans/tp_1/rules?pagination.count=200&pagination.cursor=NA%3D%3D",
    ]
    assert {request.headers["authorization"] for request in api.requests} == {f"Bearer {TOKEN}"}
    assert {request.headers["accept"] for request in api.requests} == {"application/vnd.segment.v1+json"}


@pytest.mark.parametrize(("region", "host"), [("us", "api.segmentapis.com"), ("eu", "eu1.api.segmentapis.com")])
async def test_the_region_has_its_host(region: str, host: str, monkeypatch: pytest.MonkeyPatch, time: Time) -> None:
    api = answering(page("A"))
    monkeypatch.setattr(transport, "Connections", lambda url: StandIn(url, httpx.MockTransport(api)))
    segment = Segment(
        chosen(region=region, data_plane_url="https://x.example"),
        transport=accepting().transport(),
        surroundings=time.surroundings(),
    )
    await sent(segment)
    assert [request.url.host for request in api.requests if "tracking-plans" in request.url.path] == [host]


async def test_one_reading_serves_all_who_ask_meanwhile(time: Time) -> None:
    api = answering(page("A"))
    segment = client(api, time)
    await asyncio.gather(*(sent(segment) for _ in range(5)))
    assert len(api.requests) == 1


async def test_a_plan_is_read_at_the_start_and_not_by_who_has_none(time: Time) -> None:
    api = answering(page("A"))
    async with client(api, time) as segment:
        await settled(segment)
        assert len(api.requests) == 1
    for read in (settings(), chosen(tracking_plan_policy="off")):
        async with client(api, time, read) as segment:
            await sent(segment, "Z")
    assert len(api.requests) == 1


async def test_an_old_plan_is_used_and_read_again_in_the_background(time: Time) -> None:
    api = answering(page("A"), page("A", "B"))
    segment = client(api, time)
    assert warned(await sent(segment, "B")) == ["plan_violation"]
    await time.sleep(REFRESH_SECONDS)
    assert warned(await sent(segment, "B")) == ["plan_violation"]
    await settled(segment)
    assert warned(await sent(segment, "B")) == []
    assert len(api.requests) == 2


async def test_while_the_api_is_away_the_plan_that_there_is_holds(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    api = answering(page("A"), httpx.Response(401, json={"errors": [{"message": f"bad {TOKEN}"}]}))
    segment = client(api, time, chosen(tracking_plan_policy="block"))
    await sent(segment)
    await time.sleep(REFRESH_SECONDS)
    for _ in range(3):
        await sent(segment)
        await settled(segment)
    assert len(api.requests) == 2, "it was not asked again at once"
    assert "The last good copy is used." in caplog.text
    with pytest.raises(SegmentError, match="not in the tracking plan"):
        await sent(segment, "Z")


async def test_a_good_copy_outlives_the_process_for_its_owner_alone(time: Time, folder: Path) -> None:
    first = client(answering(page("A")), time)
    await sent(first)
    await settled(first)
    kept = the_copy(folder)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert TOKEN not in kept.read_text(encoding="utf-8")
    away = answering(httpx.ConnectError("away"))
    later = Time(now=NOW)
    segment = client(away, later, chosen(tracking_plan_policy="block"))
    await sent(segment)
    assert away.requests == []
    await later.sleep(REFRESH_SECONDS)
    await sent(segment)
    with pytest.raises(SegmentError, match="not in the tracking plan"):
        await sent(segment, "Z")


@pytest.mark.usefixtures("offline")
async def test_a_rule_that_cannot_be_used_costs_what_it_says_alone(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    strict = whole({"type": "object", "properties": {"b": {"type": "string", "pattern": "(?!x)"}}, "required": ["b"]})
    rules = [
        rule("Bad", strict),
        rule("Good", whole({"type": "object", "required": ["c"]})),
        rule("Worse", 5),  # type: ignore[arg-type]
        {"type": "NEW"},
        7,
        rule("Good", whole({})),
    ]
    api = answering(httpx.Response(200, json={"data": {"rules": rules, "pagination": {"next": None}}}))
    segment = client(api, time)
    assert [warned(await sent(segment, event)) for event in ("Bad", "Worse", "Good", "Other")] == [
        [], [], ["plan_violation"], ["plan_violation"],
    ]  # fmt: skip
    told = (await plan_check(segment)).message
    place = "rules[0].jsonSchema.properties.properties.properties.b.pattern: is no pattern that Segment takes"
    assert told.startswith("3 rules; the policy is warn. Not checked, for faults of their rules in Segment: rules[0]")
    for text in (told, caplog.text):
        assert place in text
        assert text.rstrip().endswith("rules[3].type: must be one of COMMON, TRACK, IDENTIFY, GROUP, PAGE, SCREEN, "
                                      "and 2 more.")  # fmt: skip
    again = client(answering(httpx.ConnectError("away")), Time(now=NOW))
    assert [warned(await sent(again, event)) for event in ("Bad", "Other")] == [[], ["plan_violation"]]


BROKEN: dict[str, dict[str, Any]] = {
    "no rules any more": {"rules": [], "pagination": {"next": None}},
    "no rules and no paging": {"rules": []},
    "a next page that is no text": {"rules": [rule("B", {})], "pagination": {"next": 7}},
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_strange_answer_does_not_replace_the_rules_there_are(
    case: str, time: Time, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api = answering(page("A"), httpx.Response(200, json={"data": BROKEN[case]}), page("A", "B"))
    segment = client(api, time, chosen(tracking_plan_policy="block"))
    await sent(segment)
    await settled(segment)
    kept = the_copy(folder).read_bytes()
    await time.sleep(REFRESH_SECONDS)
    await sent(segment)
    await settled(segment)
    assert "The last good copy is used." in caplog.text
    await sent(segment)
    assert the_copy(folder).read_bytes() == kept
    await time.sleep(REFRESH_SECONDS)
    await sent(segment)
    await settled(segment)
    await sent(segment, "B")


async def test_a_copy_of_the_future_is_read_again(time: Time) -> None:
    late = Time()
    late.pass_by(10 * REFRESH_SECONDS)
    first = client(answering(page("A")), late)
    await sent(first)
    await settled(first)
    api = answering(page("A", "B"))
    segment = client(api, time)
    await sent(segment)
    await settled(segment)
    assert warned(await sent(segment, "B")) == []
    await settled(segment)
    assert len(api.requests) == 1


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"rules": [1]}', RULES_5, EMPTY, "\x00", "[" * 100_000])
async def test_a_copy_that_is_damaged_is_read_anew(damage: str, time: Time, folder: Path) -> None:
    first = client(answering(page("A")), time)
    await sent(first)
    await settled(first)
    kept = the_copy(folder)
    kept.write_text(damage, encoding="utf-8")
    api = answering(page("A", "B"))
    assert warned(await sent(client(api, time), "B")) == []
    assert len(api.requests) == 1


async def test_a_folder_that_cannot_be_written_stops_nothing(
    time: Time, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "segment-tools").write_text("a file where a folder belongs", encoding="utf-8")
    segment = client(answering(page("A")), time)
    assert warned(await sent(segment)) == []
    await settled(segment)
    assert "not kept on disk" in caplog.text


ANSWERS: dict[str, tuple[Sequence[httpx.Response | Exception], str]] = {
    "a wrong token": ([httpx.Response(401, json={"errors": [{"message": TOKEN}]})], "SEGMENT_PUBLIC_API_TOKEN"),
    "a token without permission": ([httpx.Response(403, text=TOKEN)], "SEGMENT_PUBLIC_API_TOKEN"),
    "no such plan": ([httpx.Response(404, json={"errors": []})], "SEGMENT_TRACKING_PLAN"),
    "a redirect": ([httpx.Response(302, headers={"Location": f"https://x.example/{TOKEN}"})], "SEGMENT_PUBLIC_API_URL"),
    "something else": ([httpx.Response(200, json={"success": True})], "SEGMENT_PUBLIC_API_URL"),
    "a page of HTML": ([httpx.Response(200, text=f"<html>{TOKEN}")], "SEGMENT_PUBLIC_API_URL"),
    "pages without end": ([page("A", following="Mg==")], "pages that do not end"),
    "rules of which none can be used": (
        [httpx.Response(200, json={"data": {"rules": [{"type": "TRACK", "jsonSchema": {}}]}})],
        "rules[0].key: must be the event's name; mend that rule in Segment.",
    ),
    "a next page that is no text": (
        [httpx.Response(200, json={"data": {"rules": [], "pagination": {"next": 5}}})],
        "without saying where the next page is",
    ),
    "paging that is no object": (
        [httpx.Response(200, json={"data": {"rules": [], "pagination": []}})],
        "without saying where the next page is",
    ),
    "no connection": ([httpx.ConnectError(f"no {TOKEN}")], "No connection to https://api.segmentapis.com"),
    "trouble": ([httpx.Response(503, text=TOKEN)], "try again later"),
    "too many requests": ([httpx.Response(429, headers={"Retry-After": "300"})], "200 times a minute"),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_without_any_plan_blocking_refuses_and_warning_warns(
    case: str, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answers, said = ANSWERS[case]
    data = accepting()
    blocked = client(answering(*answers), time, chosen(tracking_plan_policy="block"), data)
    async with Client(build(blocked), raise_exceptions=True) as host:
        refused = await host.call_tool("segment_track", {"event": "A", "userId": "u1"})
    result = facts(refused)
    assert (result["success"], result["sent"], data.requests) == (False, False, [])
    assert result["errorMessage"].startswith("The tracking plan could not be read: ")
    assert said in result["errorMessage"]
    api = answering(*answers)
    receipt = await sent(client(api, time, data=data))
    assert (receipt.status, warned(receipt)) == ("accepted", ["plan_unavailable"])
    assert said in receipt.warnings[0].message
    for shown in (repr(refused), repr(receipt.warnings), caplog.text, repr(vars(blocked)), repr(vars(blocked._plans))):
        assert TOKEN not in shown
        assert KEY not in shown


async def test_what_may_pass_is_tried_again_and_what_failed_not_at_once(time: Time) -> None:
    api = answering(httpx.Response(503), httpx.Response(429, headers={"Retry-After": "2"}), page("A"))
    assert warned(await sent(client(api, time), "A")) == []
    assert len(api.requests) == 3
    assert 2.0 in time.waits
    broken = answering(httpx.Response(401))
    segment = client(broken, time, chosen(public_api_url="https://other.example"))
    for _ in range(3):
        assert warned(await sent(segment)) == ["plan_unavailable"]
    assert len(broken.requests) == 1
    await time.sleep(60)
    await sent(segment)
    assert len(broken.requests) == 2


async def test_a_call_does_not_wait_long_for_a_slow_api(time: Time) -> None:
    held = asyncio.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        await held.wait()
        return page("A")

    transport = Transport(HOST, httpx.MockTransport(slow), PUBLIC_API)
    read = chosen(tracking_plan_policy="block", timeout_seconds=0.05)
    segment = Segment(read, transport=accepting().transport(), public_api=transport, surroundings=time.surroundings())
    with pytest.raises(Unavailable, match="not read within") as raised:
        await sent(segment)
    assert (raised.value.sent, raised.value.retryable) == (False, True)
    held.set()
    await settled(segment)
    assert warned(await sent(segment)) == []
    await segment.aclose()


async def test_a_plan_that_another_address_gave_is_not_used(time: Time) -> None:
    first = client(answering(page("A")), time)
    await sent(first)
    await settled(first)
    api = answering(page("B"))
    assert warned(await sent(client(api, time, chosen(region="eu")), "B")) == []
    assert len(api.requests) == 1


async def test_the_end_cancels_a_reading(time: Time) -> None:
    async def never(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    transport = Transport(HOST, httpx.MockTransport(never), PUBLIC_API)
    segment = Segment(
        chosen(), transport=accepting().transport(), public_api=transport, surroundings=time.surroundings()
    )
    async with segment:
        await asyncio.sleep(0)


async def never_again(_: float) -> None:
    await asyncio.Event().wait()


async def test_a_call_says_what_the_attempts_met_and_the_next_do_not_wait_again(
    time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = answering(httpx.ConnectError("refused"))
    read = chosen(tracking_plan_policy="block", public_api_url="http://127.0.0.1:1")
    transport = Transport("http://127.0.0.1:1", httpx.MockTransport(api), PUBLIC_API)
    outside = replace(time.surroundings(), sleep=never_again)
    async with Segment(read, transport=accepting().transport(), public_api=transport, surroundings=outside) as segment:
        for seconds in (0.05, 1000.0):
            monkeypatch.setattr("segment_tools.plan_source._WAIT_SECONDS", seconds)
            async with asyncio.timeout(WAIT):
                with pytest.raises(Unavailable, match="could not be read: No connection to http:") as raised:
                    await sent(segment)
            assert (raised.value.code, raised.value.sent) == ("no_connection", False)
            assert "SEGMENT_PUBLIC_API_URL" in raised.value.hint
    assert len(api.requests) == 1


async def plan_check(segment: Segment, level: Level = "probe") -> Check:
    report = await segment.check(level)
    return next(check for check in report.checks if check.name == "tracking plan")


@pytest.mark.usefixtures("offline")
async def test_the_connection_test_counts_the_rules_and_names_the_policy(time: Time, tmp_path: Path) -> None:
    segment = client(answering(page("A", "B")), time)
    told = await plan_check(segment, "config")
    assert (told.ok, told.message, told.address) == (None, "Set. The policy is warn.", HOST)
    proved = await plan_check(segment)
    assert (proved.ok, proved.message) == (True, "2 rules; the policy is warn.")
    file = tmp_path / "plan.json"
    file.write_text('{"A": {}}', encoding="utf-8")
    own = settings(tracking_plan=file, tracking_plan_policy="block")
    assert (await plan_check(client(answering(), time, own))).message == "1 rule; the policy is block."
    off = settings(tracking_plan=file, tracking_plan_policy="off")
    assert (await plan_check(client(answering(), time, off))).message == "Not read: the policy is off."
    assert "tracking plan" not in [check.name for check in (await client(answering(), time, settings()).check()).checks]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("policy", "instead"),
    [("block", "There is no copy: messages are refused."), ("warn", "sent unchecked, with a warning.")],
)
async def test_the_connection_test_says_at_once_why_a_plan_cannot_be_read_and_what_is_used(
    policy: str, instead: str, time: Time
) -> None:
    read = chosen(tracking_plan_policy=policy)
    away = answering(httpx.ConnectError("refused"))
    found = await plan_check(client(away, time, read))
    assert (found.ok, time.waits) == (False, [])
    assert found.message.startswith(f"The tracking plan could not be read: No connection to {HOST}.")
    assert found.message.endswith(instead)
    assert "SEGMENT_PUBLIC_API_URL" in found.hint
    first = client(answering(page("A")), time, read)
    await sent(first)
    await settled(first)
    refused = await client(answering(httpx.Response(401)), time, read).check()
    assert not refused.ready
    (problem,) = (each for each in refused.problems if "tracking plan" in each)
    assert "SEGMENT_PUBLIC_API_TOKEN" in problem
    assert "The copy of 20" in problem
    assert "is used: 1 rule; " in problem


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network: what the connection test opens for itself answers 404."""
    network = httpx.AsyncClient
    nobody = httpx.MockTransport(answering(httpx.Response(404)))
    monkeypatch.setattr(
        httpx, "AsyncClient", lambda **given: network(**{**given, "transport": given["transport"] or nobody})
    )

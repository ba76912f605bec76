"""What an agent may send: rates, loops, allowed and denied messages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from support import TRACK, WAIT, Time, Upstream, accepting, answering, facts, httpx, settings

from segment_tools import NotConfigured, Segment, dispatch
from segment_tools.guard import Origin
from segment_tools.surfaces.mcp_server import build, http_app

pytestmark = pytest.mark.anyio
ORDER = {"event": "Order Completed", "userId": "u1"}
OTHER = {"event": "Order Cancelled", "userId": "u1"}


class Agent:
    """One who calls tools, in a session of its own if it likes."""

    def __init__(self, time: Time, upstream: Upstream | None = None, **chosen: Any) -> None:
        self.upstream = upstream or accepting()
        self.segment = Segment(
            settings(**chosen), transport=self.upstream.transport(), surroundings=time.surroundings()
        )

    async def __call__(self, tool: str, arguments: dict[str, Any], session: str = "") -> dict[str, Any]:
        return await dispatch(f"segment_{tool}", arguments, self.segment, origin=Origin(session))

    async def track(self, number: int, session: str = "") -> str:
        """The code of the failure, or nothing."""
        result = await self("track", {"event": f"Event {number}", "userId": "u1"}, session)
        return "" if result["success"] else result["error"]["code"]


def batch(count: int) -> dict[str, Any]:
    return {"batch": [{"type": "track", "event": f"Event {number}", "userId": "u1"} for number in range(count)]}


async def test_a_session_sends_so_many_messages_a_minute_and_is_told_when_more(time: Time) -> None:
    agent = Agent(time, agent_rate=3)
    assert [await agent.track(1), await agent.track(2)] == ["", ""]
    await time.sleep(10)
    assert await agent.track(3) == ""
    result = await agent("track", ORDER)
    assert result["error"]["code"] == "agent_rate_limited"
    assert (result["error"]["retryable"], result["error"]["retryAfterSeconds"]) == (True, 50)
    assert (result["statusCode"], result["sent"], len(agent.upstream.requests)) == (-1, False, 3)
    await time.sleep(49.999)
    assert await agent.track(4) == "agent_rate_limited"
    await time.sleep(0.001)
    assert [await agent.track(5), await agent.track(6), await agent.track(7)] == ["", "", "agent_rate_limited"]


async def test_a_batch_counts_its_messages_and_is_refused_whole(time: Time) -> None:
    agent = Agent(time, agent_rate=10)
    assert (await agent("batch", batch(8)))["success"]
    refused = await agent("batch", batch(3))
    assert (refused["error"]["code"], refused["error"]["retryAfterSeconds"]) == ("agent_rate_limited", 60)
    assert len(agent.upstream.requests) == 1
    assert (await agent("batch", batch(2)))["success"]


async def test_a_batch_over_the_rate_is_never_worth_a_retry(time: Time) -> None:
    agent = Agent(time, agent_rate=10)
    result = await agent("batch", batch(11))
    assert (result["error"]["code"], result["error"]["retryable"]) == ("agent_rate_limited", False)
    assert "at most 10 messages a call" in result["error"]["hint"]


async def test_sessions_have_a_rate_each_and_the_server_one_for_all(time: Time) -> None:
    agent = Agent(time, agent_rate=2, server_rate=3)
    assert [await agent.track(1, "a"), await agent.track(2, "a"), await agent.track(3, "a")] == [
        "",
        "",
        "agent_rate_limited",
    ]
    assert [await agent.track(4, "b"), await agent.track(5, "b")] == ["", "agent_rate_limited"]
    refused = await agent("track", OTHER, "c")
    assert "all sessions" in refused["error"]["message"]


async def test_a_server_sends_ten_times_the_rate_of_a_session(time: Time) -> None:
    agent = Agent(time, agent_rate=1)
    assert [await agent.track(1, f"session {number}") for number in range(11)] == [""] * 10 + ["agent_rate_limited"]


async def test_what_was_refused_does_not_count(time: Time) -> None:
    agent = Agent(time, agent_rate=1, deny_events="Secret *")
    assert (await agent("track", {"event": "Secret Told", "userId": "u1"}))["error"]["code"] == "not_allowed"
    assert (await agent("track", {"event": "A"}))["error"]["code"] == "missing_field"
    assert await agent.track(1) == ""


async def test_the_same_message_in_a_row_is_a_loop_after_so_many(time: Time) -> None:
    agent = Agent(time, loop_limit=3)
    for number in range(3):
        assert (await agent("track", {**ORDER, "timestamp": f"2026-11-23T10:00:0{number}Z"}))["success"]
    refused = await agent("track", {**ORDER, "messageId": "new"})
    assert (refused["error"]["code"], refused["error"]["retryable"]) == ("repeated_message", False)
    assert "3 times in a row (SEGMENT_LOOP_LIMIT)" in refused["error"]["message"]
    assert "messageId" in refused["error"]["hint"]
    assert (await agent("track", ORDER))["error"]["code"] == "repeated_message"
    assert len(agent.upstream.requests) == 3
    assert (await agent("track", OTHER))["success"]
    assert (await agent("track", ORDER))["success"]


async def test_a_call_that_cannot_be_sent_is_stopped_too_once_it_comes_again_and_again(time: Time) -> None:
    agent = Agent(time, loop_limit=2)
    large = {**ORDER, "properties": {"text": "x" * 40_000}}
    found = [(await agent("track", large))["error"]["code"] for _ in range(3)]
    assert found == ["too_large", "too_large", "repeated_message"]


@pytest.mark.parametrize(
    "other",
    [
        {"properties": {"b": {"y": 2, "x": [1]}, "a": 1}},
        {"properties": {"a": 1.0, "b": {"x": [1.0], "y": 2}}},
        {"properties": {"a": 1, "b": {"x": [1], "y": 2}, "c": {}}, "context": {}},
        {"event": "Order Completed ", "properties": {"a": 1, "b": {"x": [1], "y": 2}}},
    ],
)
async def test_a_message_written_another_way_is_the_same(other: dict[str, Any], time: Time) -> None:
    agent = Agent(time, loop_limit=1)
    assert (await agent("track", {**ORDER, "properties": {"a": 1, "b": {"x": [1], "y": 2}}}))["success"]
    assert (await agent("track", {**ORDER, **other}))["error"]["code"] == "repeated_message"


async def test_traits_that_are_removed_are_no_less_different(time: Time) -> None:
    agent = Agent(time, loop_limit=1)
    for name in ("plan", "email", "phone"):
        assert (await agent("identify", {"userId": "u1", "traits": {name: None}}))["success"]


@pytest.mark.parametrize("count", [2, 3])
async def test_messages_that_come_in_turn_are_a_loop(count: int, time: Time) -> None:
    agent = Agent(time, loop_limit=3)
    codes = [await agent.track(number % count) for number in range(4 * count)]
    assert codes == [""] * (4 * count - 1) + ["repeated_message"]
    assert await agent.track(99) == ""
    items = [item for _ in range(4) for item in batch(count)["batch"]]
    refused = await Agent(time, loop_limit=3)("batch", {"batch": items})
    assert f"The same {count} messages came in turn more than 3 times" in refused["error"]["message"]


async def test_a_history_of_events_in_turn_is_no_loop(time: Time) -> None:
    kinds = batch(2)["batch"]
    history = [{**kinds[minute % 2], "timestamp": f"2026-11-23T10:{minute:02}:00Z"} for minute in range(30)]
    assert (await Agent(time, loop_limit=2)("batch", {"batch": history}))["success"]


async def test_five_in_a_row_are_the_default_and_zero_is_no_limit(time: Time) -> None:
    assert [(await Agent(time)("batch", {"batch": [TRACK] * number}))["success"] for number in (5, 6)] == [True, False]
    assert (await Agent(time, loop_limit=0)("batch", {"batch": [TRACK] * 2500}))["success"]


async def test_repeats_under_one_message_id_are_retries_and_no_loop(time: Time) -> None:
    agent = Agent(time, answering(httpx.Response(400, json={})), loop_limit=2)
    results = [await agent("track", {**ORDER, "messageId": "m1"}) for _ in range(6)]
    assert {result["error"]["code"] for result in results} == {"rejected"}
    assert (await agent("track", {**ORDER, "messageId": "m2"}))["error"]["code"] == "rejected"
    assert (await agent("track", {**ORDER, "messageId": "m3"}))["error"]["code"] == "repeated_message"


async def test_other_sessions_are_no_part_of_a_loop(time: Time) -> None:
    agent = Agent(time, loop_limit=1)
    assert [(await agent("track", ORDER, session))["success"] for session in "aba"] == [True, True, False]


async def test_a_loop_in_a_batch_is_told_by_index_and_goes_on_from_the_call_before(time: Time) -> None:
    agent = Agent(time, loop_limit=3)
    assert (await agent("track", {key: TRACK[key] for key in ("event", "userId", "properties")}))["success"]
    refused = await agent("batch", {"batch": [TRACK, TRACK, TRACK]})
    assert [problem["index"] for problem in refused["error"]["problems"]] == [2]
    assert len(agent.upstream.requests) == 1


async def test_the_same_batch_in_a_row_is_a_loop_but_its_retry_is_none(time: Time) -> None:
    agent = Agent(time, loop_limit=2)
    assert [(await agent("batch", batch(3)))["success"] for _ in range(3)] == [True, True, False]
    named = {"batch": [{**each, "messageId": f"m{at}"} for at, each in enumerate(batch(3)["batch"])]}
    other = Agent(time, loop_limit=2)
    assert all([(await other("batch", named))["success"] for _ in range(5)])


async def test_a_history_of_the_same_event_in_one_batch_is_no_loop(time: Time) -> None:
    history = [{**TRACK, "timestamp": f"2026-11-23T10:{minute:02}:00Z"} for minute in range(30)]
    assert (await Agent(time, loop_limit=2)("batch", {"batch": history}))["success"]
    assert not (await Agent(time, loop_limit=2)("batch", {"batch": [history[0]] * 3}))["success"]


@pytest.mark.parametrize(
    ("allowed", "denied", "passing", "refused"),
    [
        ("Order *", "", ["Order Completed"], ["Orders", "Product Viewed", "order completed"]),
        ("Order *", "Order Refunded", ["Order Completed"], ["Order Refunded", "ORDER  refunded"]),
        ("", "*secret*", ["Order Completed"], ["A SECRET\nthing"]),
        ("[Beta] ?", "", ["[Beta] 1"], ["B 1", "[Beta] 12"]),
        ("*", "", ["anything at all"], []),
        ("type:track", "", ["anything at all"], []),
        ("type:identify", "", [], ["Order Completed"]),
    ],
)
async def test_patterns_say_which_events_may_be_sent(
    allowed: str, denied: str, passing: list[str], refused: list[str], time: Time
) -> None:
    agent = Agent(time, allow_events=allowed, deny_events=denied)
    for event in passing:
        assert (await agent("track", {"event": event, "userId": "u1"}))["success"], event
    for event in refused:
        result = await agent("track", {"event": event, "userId": "u1"})
        assert (result["error"]["code"], result["error"]["field"]) == ("not_allowed", "event"), event
    assert len(agent.upstream.requests) == len(passing)


LOOKALIKES = [
    "Order Refunded\u200b",
    "Order\u200b Refunded",
    "\u041erder Refunded",
    "\uff2frder Refunded",
    "order_refunded",
    "order-refunded",
    "OrderRefunded",
    "Order Refunded.",
    "Order\u00a0Refunded",
    " Order  Refunded ",
]


@pytest.mark.parametrize("pattern", ["Order Refunded", "order *ed", "*r refunde?", "\u041erder Refunded"])
@pytest.mark.parametrize("event", LOOKALIKES)
async def test_what_reads_like_a_denied_event_is_denied_and_confirmed_too(pattern: str, event: str, time: Time) -> None:
    track = {"event": event, "userId": "u1"}
    assert (await Agent(time, deny_events=pattern)("track", track))["error"]["code"] == "not_allowed"
    assert (await Agent(time, confirm=pattern)("track", track))["error"]["code"] == "confirmation_unavailable"


@pytest.mark.parametrize(
    ("pattern", "event"),
    [
        ("test_*", "Test Started"),
        ("test.*", "Test Started"),
        ("app:*", "App Opened"),
        ("Order Refunded", "Order Refund Requested"),
        ("Order *", "Orders Exported"),
        ("!!!", "Order Completed"),
        (
            "\u0417\u0430\u043a\u0430\u0437 \u0432\u043e\u0437\u0432\u0440\u0430\u0449\u0451\u043d",
            "\u0417\u0430\u043a\u0430\u0437 \u0441\u043e\u0437\u0434\u0430\u043d",
        ),
    ],
)
async def test_what_only_begins_like_a_denied_event_is_sent(pattern: str, event: str, time: Time) -> None:
    assert (await Agent(time, deny_events=pattern)("track", {"event": event, "userId": "u1"}))["success"]


@pytest.mark.parametrize("setting", ["allow_events", "deny_events"])
@pytest.mark.parametrize(
    ("pattern", "event"),
    [("*order*refund*", "order" * 6000), ("*a*a*a*a*b", "a" * 30_000), ("*?*?*?*\u017f", "a" * 9000)],
)
async def test_no_event_takes_long(setting: str, pattern: str, event: str, time: Time) -> None:
    async with asyncio.timeout(WAIT):
        result = await Agent(time, **{setting: pattern})("track", {"event": event, "userId": "u1"})
    assert result["success"] is (setting == "deny_events")


async def test_what_may_not_be_sent_is_told_before_what_it_would_take_to_send_it(time: Time) -> None:
    agent = Agent(time, deny_events="Order*", write_key="")
    assert (await agent("track", ORDER))["error"]["code"] == "not_allowed"
    assert (await agent("track", {**ORDER, "event": "Other"}))["error"]["code"] == "not_configured"


async def test_types_are_allowed_and_denied_by_name(time: Time) -> None:
    alias = {"userId": "u1", "previousId": "a1"}
    denying = Agent(time, deny_events="type:alias")
    assert (await denying("alias", alias))["error"]["field"] == "type"
    assert (await denying("track", ORDER))["success"]
    allowing = Agent(time, allow_events="Order *,type:identify")
    assert (await allowing("identify", {"userId": "u1"}))["success"]
    assert (await allowing("alias", alias))["error"]["hint"] == "Allowed are Order *, type:identify."


async def test_the_allowed_name_that_was_meant_is_told(time: Time) -> None:
    agent = Agent(time, allow_events="Order Completed,Product Viewed")
    assert (await agent("track", {"event": "order_completed", "userId": "u1"}))["error"][
        "hint"
    ] == "Did you mean 'Order Completed'?"


async def test_a_batch_names_every_message_that_is_not_allowed(time: Time) -> None:
    agent = Agent(time, allow_events="Event *", deny_events="Event 1")
    items = [*batch(3)["batch"], {"type": "page", "userId": "u1"}]
    refused = await agent("batch", {"batch": items})
    assert [(each["index"], each["code"], each["field"]) for each in refused["error"]["problems"]] == [
        (1, "not_allowed", "event"),
        (3, "not_allowed", "type"),
    ]
    assert agent.upstream.requests == []


async def test_the_connection_tests_event_is_held_to_the_limits_too(time: Time) -> None:
    agent = Agent(time, allow_events="Order *")
    assert (await agent("test_connection", {"level": "send"}))["error"]["code"] == "not_allowed"


async def test_the_programs_own_messages_are_not_held_back(time: Time) -> None:
    from segment_tools import Track

    agent = Agent(time, agent_rate=1, allow_events="Order *")
    for _ in range(8):
        assert (await agent.segment.send(Track(event="A", user_id="u1"))).status == "accepted"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_mcp_connection_is_a_session(mode: Any, time: Time) -> None:
    agent = Agent(time, agent_rate=1, server_rate=2)
    async with AsyncExitStack() as stack:
        first, second, third = [
            await stack.enter_async_context(Client(build(agent.segment), mode=mode)) for _ in range(3)
        ]
        codes = [
            facts(await client.call_tool("segment_track", ORDER)).get("error", {}).get("message", "")
            for client in (first, first, second, third)
        ]
    assert ["one session" in codes[1], "all sessions" in codes[3], codes[0], codes[2]] == [True, True, "", ""]


@asynccontextmanager
async def over_http(app: Any, agent: str, mode: Any) -> AsyncIterator[Client]:
    http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), headers={"User-Agent": agent})
    transport = streamable_http_client("http://127.0.0.1/mcp", http_client=http)
    async with http, Client(transport, mode=mode) as client:
        yield client


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_over_http_a_client_is_a_session_whatever_its_connections(mode: Any, time: Time) -> None:
    agent = Agent(time, agent_rate=1)
    app = http_app(agent.segment, "127.0.0.1")
    successes: list[bool] = []
    async with app.router.lifespan_context(app):
        for name in ("agent-a", "agent-a", "agent-b"):
            async with over_http(app, name, mode) as client:
                successes.append(facts(await client.call_tool("segment_track", ORDER))["success"])
    assert successes == [True, False, True]


@pytest.mark.parametrize("setting", ["deny_events", "allow_events"])
async def test_the_bare_name_of_a_type_is_the_type(setting: str, time: Time) -> None:
    result = await Agent(time, **{setting: "alias"})("alias", {"userId": "u1", "previousId": "a1"})
    assert result["success"] is (setting == "allow_events")


@pytest.mark.parametrize("setting", ["deny_events", "allow_events", "confirm"])
def test_a_slip_in_a_types_name_is_refused_at_the_start(setting: str) -> None:
    with pytest.raises(NotConfigured, match=r"has alais: did you mean alias\? An event of that name is written alai\?"):
        settings(**{setting: "alais"})

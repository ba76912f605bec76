"""The profile tools over MCP: against the sandbox, and against upstreams that fail."""

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from mcp import Client
from support import KEY, Time, Upstream, answering, facts, settings

from segment_tools import RateLimited, Sandbox, Segment, Transport, dispatch
from segment_tools.services import PROFILES
from segment_tools.surfaces.mcp_server import build
from segment_tools.tools import refused

pytestmark = pytest.mark.anyio
TOKEN = "profile-token-RECOGNISABLE-77c1"
SPACE = "spa_1"


def chosen(sandbox: Sandbox | None = None, **values: Any) -> Any:
    url = {"data_plane_url": sandbox.url} if sandbox else {}
    return settings(**{"profile_token": TOKEN, "space_id": SPACE, **url, **values})


@asynccontextmanager
async def tools(sandbox: Sandbox, **values: Any) -> AsyncIterator[Callable[..., Any]]:
    """Call a tool over one MCP client."""
    segment = Segment(chosen(sandbox, **values))
    async with Client(build(segment), raise_exceptions=True) as client:

        async def call(name: str, **arguments: Any) -> dict[str, Any]:
            return facts(await client.call_tool(name, arguments))

        yield call


def send(sandbox: Sandbox, *messages: dict[str, Any]) -> None:
    answer = httpx.post(f"{sandbox.url}/v1/batch", json={"batch": messages}, auth=(KEY, ""), trust_env=False)
    assert answer.status_code == 200


def jane(sandbox: Sandbox) -> None:
    send(
        sandbox,
        {"type": "identify", "userId": "u1", "traits": {"email": "jane@example.com", "plan": "pro", "age": 40}},
        {"type": "group", "userId": "u1", "groupId": "acme", "traits": {"name": "Acme", "seats": 9}},
        *({"type": "track", "userId": "u1", "event": f"Step {n}", "properties": {"n": n}} for n in range(7)),
    )


async def test_one_call_answers_who_somebody_is(sandbox: Sandbox) -> None:
    jane(sandbox)
    async with tools(sandbox) as call:
        found = await call("segment_get_profile", id="u1")
    assert found["traits"] == {"email": "jane@example.com", "plan": "pro", "age": 40}
    assert {(each["type"], each["id"]) for each in found["externalIds"]} >= {
        ("user_id", "u1"),
        ("email", "jane@example.com"),
    }
    assert [event["event"] for event in found["events"]] == [f"Step {n}" for n in reversed(range(7))]
    assert (found["found"], "truncated" in found) == (True, False)


async def test_every_leaf_answers_in_documented_fields(sandbox: Sandbox) -> None:
    jane(sandbox)
    async with tools(sandbox) as call:
        traits = await call("segment_get_profile_traits", id="u1", include="plan,age")
        verbose = await call("segment_get_profile_traits", id="u1", include=["plan"], verbose=True)
        ids = await call("segment_get_profile_external_ids", id="email:Jane@Example.com", include=["user_id"])
        events = await call("segment_get_profile_events", id="u1", include=["Step 3"], sort="asc", verbose=True)
        others = await call("segment_get_profile_events", id="u1", exclude=["Step 3"], start="2020-01-01T00:00:00Z")
        properties = await call("segment_get_profile_properties", id="u1", include=["plan"])
        metadata = await call("segment_get_profile_metadata", id="u1")
        links = await call("segment_get_profile_links", id="u1")
        account = await call("segment_get_profile_traits", id="acme", collection="accounts")
        none = await call("segment_get_profile_traits", id="u1", **{"class": "audience"})
    assert traits["traits"] == {"plan": "pro", "age": 40}
    assert set(verbose["traits"]["plan"]) == {"value", "sourceId", "updatedAt"}
    assert [each["id"] for each in ids["externalIds"]] == ["u1"]
    assert ids["warnings"][0]["code"] == "id_lowered"
    (event,) = events["events"]
    assert (event["event"], event["properties"], "context" in event) == ("Step 3", {"n": 3}, True)
    assert others["count"] == 6
    assert properties["properties"] == [{"key": "plan", "value": "pro"}]
    assert {"createdAt", "updatedAt", "firstMessageId", "lastMessageId"} <= set(metadata["metadata"])
    assert links["links"][0]["toCollection"] == "accounts"
    assert links["links"][0]["externalIds"][0]["id"] == "acme"
    assert (account["traits"], account["idType"]) == ({"name": "Acme", "seats": 9}, "group_id")
    assert none["traits"] == {}


@pytest.mark.parametrize(
    ("leaf", "key", "limit"), [("traits", "traits", 2), ("external_ids", "externalIds", 1), ("events", "events", 3)]
)
async def test_pages_lead_to_the_end_and_all_reads_the_same(leaf: str, key: str, limit: int, sandbox: Sandbox) -> None:
    jane(sandbox)
    found: list[Any] = []
    cursor: dict[str, str] = {}
    async with tools(sandbox) as call:
        for _ in range(20):
            page = await call(f"segment_get_profile_{leaf}", id="u1", limit=limit, **cursor)
            assert page["count"] == len(page[key]) <= limit
            found += list(page[key])
            if "nextCursor" not in page:
                break
            cursor = {"cursor": page["nextCursor"]}
        every = await call(f"segment_get_profile_{leaf}", id="u1", limit=limit, all=True)
    assert found == list(every[key])
    assert len(found) == {"traits": 3, "external_ids": 2, "events": 7}[leaf]
    assert not {"nextCursor", "truncated"} & set(every)


async def test_all_stops_at_its_bound_and_says_where_to_go_on(sandbox: Sandbox) -> None:
    send(sandbox, *({"type": "track", "userId": "u1", "event": f"Event {n}"} for n in range(1_250)))
    async with tools(sandbox) as call:
        every = await call("segment_get_profile_events", id="u1", all=True)
        rest = await call("segment_get_profile_events", id="u1", cursor=every["nextCursor"], limit=1)
    assert every["truncated"] is True
    assert every["count"] <= 1_000
    names = [event["event"] for event in every["events"]]
    assert names == [f"Event {1_249 - n}" for n in range(every["count"])]
    assert rest["events"][0]["event"] == f"Event {1_249 - every['count']}"


async def test_not_found_is_data_unless_it_is_to_be_an_error(sandbox: Sandbox) -> None:
    names = ["", "_traits", "_events", "_external_ids", "_properties", "_metadata", "_links"]
    async with tools(sandbox) as call:
        for name in names:
            found = await call(f"segment_get_profile{name}", id="nobody-at-all")
            assert (found["success"], found["found"]) == (True, False)
            failed = await call(f"segment_get_profile{name}", id="nobody-at-all", errorIfMissing="true")
            assert failed["error"]["code"] == "profile_not_found"
            assert "nobody" not in failed["errorMessage"]


LARGE = "".join(f"{n:05}-" for n in range(1_700))[:10_000]


async def test_200_traits_of_10_kb_each_stay_within_the_bound(sandbox: Sandbox) -> None:
    for n in range(100):
        traits = {f"trait_{2 * n + half:03}": LARGE for half in (0, 1)}
        send(sandbox, {"type": "identify", "userId": "big", "traits": traits})
    async with tools(sandbox) as call:
        page = await call("segment_get_profile_traits", id="big", limit=200)
        every = await call("segment_get_profile_traits", id="big", all=True)
        whole = await call("segment_get_profile", id="big")
        one = await call("segment_get_profile_traits", id="big", include=["trait_007"], whole=True)
        cut = await call("segment_get_profile_traits", id="big", include=["trait_007"])
    for answer in (page, every, whole):
        assert len(json.dumps(answer, separators=(",", ":")).encode()) < 42_000
        assert answer["warnings"][0]["code"] == "values_cut"
    assert len(page["traits"]) == 200
    assert one["traits"] == {"trait_007": LARGE}
    assert cut["traits"]["trait_007"].endswith("[cut: 10,000 characters]")


async def test_what_does_not_fit_is_on_the_next_page(sandbox: Sandbox) -> None:
    names = [f"{n:03}{'x' * 400}" for n in range(150)]
    for n in range(0, 150, 50):
        send(sandbox, {"type": "identify", "userId": "u1", "traits": dict.fromkeys(names[n : n + 50], "y" * 190)})
    seen: list[str] = []
    cursor: dict[str, str] = {}
    async with tools(sandbox) as call:
        for _ in range(20):
            page = await call("segment_get_profile_traits", id="u1", limit=150, **cursor)
            seen += page["traits"]
            if "nextCursor" not in page:
                break
            assert page["truncated"] is True or len(page["traits"]) == 150
            cursor = {"cursor": page["nextCursor"]}
    assert [name[:3] for name in seen] == [f"{n:03}" for n in range(150)]


async def test_hidden_traits_do_not_leave(sandbox: Sandbox) -> None:
    secret = "jane@example.com"
    send(
        sandbox,
        {"type": "identify", "userId": "u1", "traits": {"Email": secret, "plan": "pro", "home": {"phone": "0123456"}}},
        {"type": "identify", "userId": "u1", "traits": {"email": secret}},
        {"type": "track", "userId": "u1", "event": "A", "context": {"traits": {"email": secret}}, "properties": {}},
    )
    names = ["", "_traits", "_events", "_external_ids", "_properties", "_links"]
    async with tools(sandbox, profile_hide_traits="*email*,home.phone") as call:
        for name in names:
            more = {"verbose": True} if name in ("_traits", "_events", "_external_ids") else {}
            answer = json.dumps(await call(f"segment_get_profile{name}", id="u1", **more))
            assert secret not in answer
            assert "0123456" not in answer
        traits = (await call("segment_get_profile_traits", id="u1"))["traits"]
    assert traits == {"Email": "[hidden]", "email": "[hidden]", "plan": "pro", "home": {"phone": "[hidden]"}}


@pytest.mark.parametrize("hide", ["address.id", "*id*", "id, value", "Home Address, address.id"])
async def test_what_names_another_does_not_uncover_it(hide: str) -> None:
    traits = {"address": {"type": "home", "id": "HIDEME"}, "pin": {"key": "pin", "value": "HIDEME-TOO"}}
    shown = "HIDEME-TOO" if "value" not in hide else "[hidden]"
    async with upstream(httpx.Response(200, json={"traits": traits}), profile_hide_traits=hide) as (call, _, _):
        found = (await call())["traits"]
    assert (found["address"]["id"], found["pin"]["value"]) == ("[hidden]", shown)


async def test_a_hidden_name_may_have_spaces() -> None:
    answer = httpx.Response(200, json={"traits": {"home phone": "HIDEME", "home": "Rome", "phone": "1", "email": "e"}})
    async with upstream(answer, profile_hide_traits=" home phone,email ,") as (call, _, _):
        found = (await call())["traits"]
    assert found == {"home phone": "[hidden]", "home": "Rome", "phone": "1", "email": "[hidden]"}


ids = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20).filter(
    # What consists of zeros and dashes, the sandbox blocks as Segment does.
    lambda text: text.lower() == text and ":" not in text and set(text) - set("0-")
)


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(st.one_of(ids, st.sampled_from(["..", "../..", "a/b", "a+b", "a b", "%2e%2e", "a%2fb", "?x=1", "#x", "a;b"])))
async def test_an_identifier_reaches_its_own_profile_alone(sandbox: Sandbox, user: str) -> None:
    sandbox.store.clear()
    others = [f"{user}x", "a", "b", "traits"]
    send(
        sandbox,
        *({"type": "identify", "userId": each, "traits": {"whose": each}} for each in others if each != user),
        {"type": "identify", "userId": user, "traits": {"whose": user}},
    )
    async with Segment(chosen(sandbox)) as segment:
        found = await dispatch("segment_get_profile_traits", {"id": user, "idType": "user_id"}, segment)
    assert found.get("traits") == {"whose": user}, found


@asynccontextmanager
async def upstream(*answers: httpx.Response | Exception, **values: Any) -> AsyncIterator[Any]:
    time, up = Time(), answering(*answers)
    transport = Transport("https://profiles.segment.com", httpx.MockTransport(up), PROFILES)
    async with Segment(chosen(**values), profiles=transport, surroundings=time.surroundings()) as segment:

        async def call(name: str = "segment_get_profile_traits", **arguments: Any) -> dict[str, Any]:
            return await dispatch(name, {"id": "jane@example.com", "idType": "email", **arguments}, segment)

        yield call, up, time


def refusal(status: int, code: str, message: str = "about jane@example.com", **headers: str) -> httpx.Response:
    body = {"error": {"code": code, "message": message}}
    return httpx.Response(status, json=body, headers={"Request-Id": "req-42", **headers})


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (refusal(400, "validation_error"), "rejected", "check the arguments"),
        (refusal(401, "authentication_error"), "unauthorized", "SEGMENT_PROFILE_TOKEN"),
        (refusal(403, "forbidden"), "unauthorized", "SEGMENT_SPACE_ID"),
        (refusal(404, "not_found", "no such route"), "not_found", "SEGMENT_SPACE_ID"),
        (refusal(429, "rate_limit_error", **{"Retry-After": "7"}), "rate_limited", "wait"),
        (refusal(500, "internal"), "unavailable", "try again later"),
        (refusal(503, "internal"), "unavailable", "try again later"),
    ],
)
async def test_each_failure_is_an_error_of_its_own_with_the_request_id(
    answer: httpx.Response, code: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with upstream(answer) as (call, up, time):
        found = await call()
    assert (found["success"], found["error"]["code"], found["requestId"]) == (False, code, "req-42")
    assert found["originalStatusCode"] == answer.status_code
    assert says in found["errorMessage"]
    assert "req-42" in found["errorMessage"]
    assert "jane" not in json.dumps(found) + caplog.text
    if answer.status_code == 429:
        assert time.waits == [7, 7, 7, 7]
        assert found["error"]["retryAfterSeconds"] == 7
    assert all(request.url.host == "profiles.segment.com" for request in up.requests)


@pytest.mark.parametrize(("asked", "told"), [(29.99702264899679, 29.997), (7, 7), (0, 0), (None, None)])
async def test_a_wait_is_told_to_the_millisecond(asked: float | None, told: float | None) -> None:
    error = refused(RateLimited("Held back.", retry_after_seconds=asked)).as_dict()["error"]
    assert error.get("retryAfterSeconds") == told


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, html="<html>jane</html>"),
        httpx.Response(200, json={"traits": ["jane"]}),
        httpx.Response(200, json=["jane"]),
        httpx.Response(200, text="{"),
    ],
)
async def test_what_is_no_profile_is_a_clear_error(answer: httpx.Response) -> None:
    async with upstream(answer) as (call, _, _):
        found = await call()
    assert found["error"]["code"] == "unexpected_answer"
    assert "SEGMENT_PROFILE_URL" in found["errorMessage"]
    assert "jane" not in json.dumps(found)


@pytest.mark.parametrize(
    ("odd", "shown"),
    [
        (r'"caf\ud83d"', "caf\ufffd"),
        (r'{"\ud83d": [1, "\udc00"]}', {"\ufffd": [1, "\ufffd"]}),
        ("1e999", "[number too large]"),
        ("-Infinity", "[number too large]"),
        ("NaN", "[number too large]"),
        ("9" * 400, "[number too large]"),
        ("9" * 5_000, "[number too large]"),
        ("[" * 150 + "]" * 150, None),
    ],
    ids=["half", "half in a name", "overflow", "infinity", "nan", "long", "very long", "deep"],
)
async def test_one_odd_value_does_not_hide_the_others(odd: str, shown: object) -> None:
    async with upstream(httpx.Response(200, text=f'{{"traits": {{"a": {odd}, "plan": "pro"}}}}')) as (call, _, _):
        traits = (await call())["traits"]
    assert traits["plan"] == "pro"
    assert shown is None or traits["a"] == shown


async def test_no_answer_is_a_clear_error() -> None:
    async with upstream(httpx.ReadTimeout("x")) as (call, up, _):
        found = await call()
    assert (found["error"]["code"], found["error"]["retryable"], len(up.requests)) == ("timeout", True, 6)
    assert "reading changes nothing" in found["errorMessage"]


async def test_a_passing_failure_is_ridden_over() -> None:
    good = httpx.Response(200, json={"traits": {"plan": "pro"}, "cursor": {"has_more": False, "next": ""}})
    async with upstream(refusal(503, "x"), good) as (call, _, time):
        assert (await call())["traits"] == {"plan": "pro"}
    assert len(time.waits) == 1


async def test_properties_answer_from_traits_where_their_route_is_gone() -> None:
    good = httpx.Response(200, json={"traits": {"plan": "pro"}, "cursor": {"has_more": False}})
    async with upstream(refusal(404, "not_found", "no such route"), good) as (call, up, _):
        found = await call("segment_get_profile_properties")
    assert found["properties"] == [{"key": "plan", "value": "pro"}]
    assert [warning["code"] for warning in found["warnings"]] == ["answered_from_traits"]
    assert [request.url.path.rsplit("/", 1)[1] for request in up.requests] == ["properties", "traits"]


async def test_a_cursor_that_leads_in_a_circle_ends() -> None:
    page = httpx.Response(200, json={"traits": {"a": 1}, "cursor": {"has_more": True, "next": "again"}})
    async with upstream(page) as (call, up, _):
        found = await call(all=True)
    assert found["success"] is False
    assert len(up.requests) == 2


async def test_an_endless_answer_is_not_read_to_the_end() -> None:
    endless = httpx.Response(200, content=b'{"traits": {"a": "' + b"x" * (9 * 1024 * 1024))
    async with upstream(endless) as (call, _, _):
        found = await call()
    assert found["error"]["code"] == "too_large"


async def test_look_ups_are_logged_with_a_digest(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "segment_tools")
    jane(sandbox)
    async with tools(sandbox) as call:
        await call("segment_get_profile_traits", id="email:jane@example.com")
        await call("segment_get_profile_traits", id="email:jane@example.com")
    lines = [record.getMessage() for record in caplog.records if "profile looked up" in record.getMessage()]
    assert len({line.split("id=")[1].split()[0] for line in lines}) == 1
    assert len(lines) == 2
    assert "jane" not in caplog.text
    assert TOKEN not in caplog.text


async def test_without_a_token_the_tools_are_not_listed_and_a_call_names_it() -> None:
    segment = Segment(settings())
    async with Client(build(segment), raise_exceptions=True) as client:
        assert not [tool for tool in (await client.list_tools()).tools if "profile" in tool.name]
        failed = facts(await client.call_tool("segment_get_profile", {"id": "u1"}))
    assert failed["error"]["code"] == "not_configured"
    assert "SEGMENT_PROFILE_TOKEN" in failed["errorMessage"]


async def test_without_a_space_a_call_says_so_and_may_bring_one(sandbox: Sandbox) -> None:
    jane(sandbox)
    async with tools(sandbox, space_id="") as call:
        failed = await call("segment_get_profile_traits", id="u1")
        wrong = await call("segment_get_profile_traits", id="u1", spaceId="../x")
        good = await call("segment_get_profile_traits", id="u1", spaceId="spa_2")
    assert "SEGMENT_SPACE_ID" in failed["errorMessage"]
    assert wrong["error"]["field"] == "spaceId"
    assert good["found"] is True


async def test_all_profile_tools_are_read_only_and_offered_in_read_only_mode(sandbox: Sandbox) -> None:
    segment = Segment(chosen(sandbox, read_only=True))
    async with Client(build(segment), raise_exceptions=True) as client:
        listed = [tool for tool in (await client.list_tools()).tools if "profile" in tool.name]
    assert len(listed) == 7
    assert all(tool.annotations and tool.annotations.read_only_hint for tool in listed)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "id"),
        ({"id": ""}, "id"),
        ({"id": "u1", "collection": "people"}, "collection"),
        ({"id": "u1", "limit": 201}, "limit"),
        ({"id": "u1", "limit": "many"}, "limit"),
        ({"id": "u1", "all": "perhaps"}, "all"),
        ({"id": "u1", "include": ["a,b"]}, "include"),
        ({"id": "u1", "include": [1]}, "include"),
        ({"id": "u1", "include": ["\ud800"]}, "include"),
        ({"id": "u1", "include": [f"trait {n}" for n in range(10_000)]}, "include"),
        ({"id": "u1", "cursor": "x" * 70_000}, "cursor"),
        ({"id": "u1", "cursor": "ü" * 3_000}, "cursor"),
        ({"id": "u1", "cursor": 5}, "cursor"),
        ({"id": "u1", "idType": "\ud800"}, "idType"),
        ({"id": "u1", "class": "other"}, "class"),
        ({"id": "x" * 2_000}, "id"),
        ({"id": "u1", "userId": "u1"}, "userId"),
    ],
)
async def test_wrong_arguments_are_named_and_nothing_is_asked(arguments: dict[str, Any], field: str) -> None:
    time, up = Time(), Upstream([httpx.Response(500)])
    transport = Transport("https://profiles.segment.com", httpx.MockTransport(up), PROFILES)
    async with Segment(chosen(), profiles=transport, surroundings=time.surroundings()) as segment:
        found = await dispatch("segment_get_profile_traits", arguments, segment)
    assert (found["error"]["field"], up.requests) == (field, [])
    assert "drops a message" not in found["errorMessage"]


@pytest.mark.parametrize("given", ["email: jane@example.com", " Email :jane@example.com "])
async def test_spaces_around_an_id_behind_its_type_do_not_count(given: str) -> None:
    good = httpx.Response(200, json={"traits": {}})
    async with upstream(good) as (call, up, _):
        assert (await call(id=given))["id"] == "jane@example.com"
    assert "/email:jane%40example.com/" in str(up.requests[0].url)


async def test_links_with_odd_ids_are_shown_all_the_same() -> None:
    links = [{"to_collection": "accounts", "external_ids": 5}, {"to_collection": "accounts"}, 7]
    async with upstream(httpx.Response(200, json={"data": links})) as (call, _, _):
        found = await call("segment_get_profile_links")
    assert [link["externalIds"] for link in found["links"]] == [[], [], []]


async def test_metadata_stay_within_their_bound() -> None:
    large = {"created_at": "2026-01-01", **{f"more_{n}": ["x" * 300] * 20 for n in range(1_000)}}
    async with upstream(httpx.Response(200, json={"metadata": large})) as (call, _, _):
        found = await call("segment_get_profile_metadata", verbose=True)
    assert len(json.dumps(found)) < 42_000
    assert (found["truncated"], found["metadata"]["createdAt"]) == (True, "2026-01-01")


async def test_an_accident_while_reading_does_not_say_that_something_was_sent() -> None:
    async with upstream(ZeroDivisionError("about jane")) as (call, _, _):  # type: ignore[arg-type]
        found = await call()
    assert (found["error"]["code"], "sent" in found["errorMessage"]) == ("internal_error", False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"id": "jane@example.com"}, 'put "email:" before it'),
        ({"id": "jane@example.com", "idType": "emial"}, 'Did you mean idType: "email"?'),
        ({"id": "emial:jane@example.com"}, 'did you mean "email:"?'),
        ({"id": "email:jane@example.com", "idType": "user_id"}, "leave idType out"),
        ({"id": "group_id:acme"}, 'collection: "accounts"'),
        ({"id": "acme", "idType": "group_id"}, 'collection: "accounts"'),
        ({"id": "user_id:u1", "collection": "accounts"}, 'collection: "users"'),
        ({"id": "foo:bar"}, "looked up whole as a user_id: for a type of the space's own pass it as idType"),
        ({"id": "https://example.com/u1"}, "the type the id was sent as"),
        ({"id": "u1"}, "the type the id was sent as"),
    ],
)
async def test_nobody_found_comes_with_the_likeliest_mend(
    arguments: dict[str, str], says: str, sandbox: Sandbox
) -> None:
    async with tools(sandbox) as call:
        found = await call("segment_get_profile", **arguments)
        failed = await call("segment_get_profile", **arguments, errorIfMissing=True)
    assert found["found"] is False
    assert says in found["hint"]
    assert "jane" not in failed["errorMessage"]


@pytest.mark.parametrize("arguments", [{"id": "user_id:"}, {"id": "email: "}, {"id": "crm:", "idType": "crm"}])
async def test_a_type_without_a_value_is_refused(arguments: dict[str, str], sandbox: Sandbox) -> None:
    async with tools(sandbox) as call:
        error = (await call("segment_get_profile", **arguments))["error"]
    assert (error["field"], error["message"]) == ("id", "id has a type and no value.")


async def test_a_cursor_that_was_not_given_out_is_named(sandbox: Sandbox) -> None:
    jane(sandbox)
    async with tools(sandbox) as call:
        error = (await call("segment_get_profile_traits", id="u1", cursor="made-up"))["error"]
    assert error["field"] == "cursor"
    assert "nextCursor of the page before" in error["hint"]


async def test_a_whole_profile_that_is_cut_says_where_to_go_on(sandbox: Sandbox) -> None:
    for part in range(3):
        traits = {f"trait_{part}_{n}": n for n in range(90)}
        send(sandbox, {"type": "identify", "userId": "u1", "traits": traits})
    async with tools(sandbox) as call:
        found = await call("segment_get_profile", id="u1")
    assert (found["truncated"], found["hint"]) == (
        True,
        "There are more traits: go on with segment_get_profile_traits.",
    )


async def test_names_that_are_not_there_are_named(sandbox: Sandbox) -> None:
    jane(sandbox)
    async with tools(sandbox) as call:
        traits = await call("segment_get_profile_traits", id="u1", include=["plan", "nope"])
        events = await call("segment_get_profile_events", id="u1", include=["Step 1", "step 2"])
        properties = await call("segment_get_profile_properties", id="u1", include=["nope"])
        ids = await call("segment_get_profile_external_ids", id="u1", include=["phone"])
        page = await call("segment_get_profile_events", id="u1", include=["Step 1", "Step 2"], limit=1)
    for found, name in ((traits, "nope"), (events, "step 2"), (properties, "nope"), (ids, "phone")):
        (warning,) = found["warnings"]
        assert (warning["code"], warning["field"]) == ("not_found", "include")
        assert f"Not there: {name}." in warning["message"]
    assert "warnings" not in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"start": "2026-01-02", "end": "2026-01-01"}, "not before end"),
        ({"start": "2999-01-01"}, "in the future"),
    ],
)
async def test_a_time_in_which_nothing_can_be_is_warned_of(
    arguments: dict[str, str], says: str, sandbox: Sandbox
) -> None:
    jane(sandbox)
    async with tools(sandbox) as call:
        found = await call("segment_get_profile_events", id="u1", **arguments)
    (warning,) = found["warnings"]
    assert (found["count"], warning["field"]) == (0, "start")
    assert says in warning["message"]

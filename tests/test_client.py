"""Delivery: what leaves, how often, and what a failure says."""

import json

import httpx
import pytest
from support import KEY, NOW, SENT_AT, Time, Upstream, accepting, answering, settings

from segment_tools import (
    Group,
    Identify,
    InvalidMessage,
    NotConfigured,
    NotFound,
    RateLimited,
    Rejected,
    Segment,
    Track,
    Transport,
    Unauthorized,
    Unavailable,
)

pytestmark = pytest.mark.anyio
OK = httpx.Response(200, json={"success": True})
MESSAGE = Track(event="Order Completed", user_id="u1")


def client(upstream: Upstream, time: Time, jitter: float = 1.0, **chosen: object) -> Segment:
    return Segment(settings(**chosen), transport=upstream.transport(), surroundings=time.surroundings(jitter))


async def test_a_message_goes_to_the_path_of_its_type_with_basic_authentication(time: Time) -> None:
    upstream = accepting()
    await client(upstream, time).send(MESSAGE)
    (request,) = upstream.requests
    assert (request.method, str(request.url)) == ("POST", "https://api.segment.io/v1/track")
    assert request.headers["authorization"] == httpx.BasicAuth(KEY, "")._auth_header
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == {
        "messageId": "id-00000001",
        "event": "Order Completed",
        "userId": "u1",
        "timestamp": SENT_AT,
        "sentAt": SENT_AT,
        "context": {"library": {"name": "segment-tools", "version": "0.1.0"}},
    }


async def test_every_attempt_carries_the_same_bytes_and_says_which_it_is(time: Time) -> None:
    upstream = answering(httpx.ConnectError("down"), httpx.Response(503), OK)
    receipt = await client(upstream, time).send(MESSAGE)
    assert receipt.status == "accepted"
    assert len({request.content for request in upstream.requests}) == 1
    assert [request.headers.get("x-retry-count") for request in upstream.requests] == [None, "1", "2"]
    assert time.waits == [0.5, 1.0]


@pytest.mark.parametrize("status", [408, 410, 429, 460, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_until_the_deadline(status: int, time: Time) -> None:
    upstream = answering(httpx.Response(status))
    with pytest.raises((Unavailable, RateLimited)) as raised:
        await client(upstream, time).send(MESSAGE)
    assert raised.value.retryable
    assert raised.value.status_code == status
    assert time.waits == [0.5, 1, 2, 4, 8]  # 16 more would be beyond the 30 seconds of a call
    assert raised.value.receipt is not None
    assert raised.value.receipt.attempts == len(upstream.requests) == 6


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 501, 505, 511])
async def test_what_will_not_pass_is_tried_once(status: int, time: Time) -> None:
    upstream = answering(httpx.Response(status))
    with pytest.raises(Rejected) as raised:
        await client(upstream, time).send(MESSAGE)
    assert not raised.value.retryable
    assert len(upstream.requests) == 1


async def test_each_refusal_has_its_own_type(time: Time) -> None:
    for status, kind in ((401, Unauthorized), (403, Unauthorized), (404, NotFound), (429, RateLimited)):
        with pytest.raises(kind):
            await client(answering(httpx.Response(status)), time).send(MESSAGE)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "Mon, 23 Nov 2026 12:00:10 GMT"}, 9.877),
        ({"Retry-After": "Mon, 23 Nov 2026 11:00:00 GMT"}, 0.5),
        ({"Retry-After": "soon"}, 0.5),
        ({"Retry-After": "0"}, 0.5),
        ({"X-RateLimit-Reset": "4"}, 4.0),
        ({}, 0.5),
    ],
)
async def test_the_wait_that_segment_asks_for_is_kept(headers: dict[str, str], wait: float, time: Time) -> None:
    await client(answering(httpx.Response(429, headers=headers), OK), time).send(MESSAGE)
    assert time.waits == [pytest.approx(wait)]


async def test_a_wait_beyond_the_deadline_ends_the_call_and_is_passed_on(time: Time) -> None:
    upstream = answering(httpx.Response(429, headers={"Retry-After": "120"}))
    with pytest.raises(RateLimited) as raised:
        await client(upstream, time, timeout_seconds=30).send(MESSAGE)
    assert raised.value.retry_after_seconds == 120
    assert (len(upstream.requests), time.waits) == (1, [])


async def test_backoff_is_shortened_by_chance(time: Time) -> None:
    with pytest.raises(Unavailable):
        await client(answering(httpx.Response(500)), time, jitter=0.5).send(MESSAGE)
    assert time.waits == [0.25, 0.5, 1, 2, 4, 8]


async def test_no_answer_in_time_says_that_the_message_may_have_arrived(time: Time) -> None:
    with pytest.raises(Unavailable, match="may have arrived") as raised:
        await client(answering(httpx.ReadTimeout("slow")), time).send(MESSAGE)
    assert (raised.value.code, raised.value.status_code) == ("timeout", None)
    assert raised.value.receipt is not None
    assert raised.value.receipt.sent


async def test_no_connection_says_that_nothing_was_sent(time: Time) -> None:
    with pytest.raises(Unavailable, match=r"No connection to https://api\.segment\.io") as raised:
        await client(answering(httpx.ConnectError("refused")), time).send(MESSAGE)
    assert raised.value.receipt is not None
    assert not raised.value.receipt.sent


async def test_a_hanging_data_plane_is_given_up_at_the_deadline() -> None:
    import asyncio

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    chosen = settings(data_plane_url=f"127.0.0.1:{port}", timeout_seconds=0.3)
    async with server, Segment(chosen) as segment, asyncio.timeout(10):
        with pytest.raises(Unavailable, match="did not answer within"):
            await segment.send(MESSAGE)


async def test_an_endless_answer_is_cut(time: Time) -> None:
    upstream = answering(httpx.Response(400, text="x" * 10_000_000))
    with pytest.raises(Rejected) as raised:
        await client(upstream, time).send(MESSAGE)
    assert len(str(raised.value)) < 500


async def test_redirects_are_not_followed(time: Time) -> None:
    upstream = answering(httpx.Response(302, headers={"Location": "https://elsewhere.example/v1/track"}))
    with pytest.raises(Rejected, match="Redirects are not followed"):
        await client(upstream, time).send(MESSAGE)
    assert [request.url.host for request in upstream.requests] == ["api.segment.io"]


async def test_success_false_in_a_200_is_no_success(time: Time) -> None:
    upstream = answering(
        httpx.Response(200, json={"success": False, "message": "Invalid writeKey", "code": "invalid_writekey"})
    )
    with pytest.raises(Rejected, match="Invalid writeKey") as raised:
        await client(upstream, time).send(MESSAGE)
    assert raised.value.code == "invalid_writekey"


async def test_a_failed_message_can_be_repeated_with_its_id(time: Time) -> None:
    with pytest.raises(Unavailable) as raised:
        await client(answering(httpx.Response(500)), time).send(MESSAGE)
    assert raised.value.receipt is not None
    assert raised.value.receipt.message_ids == ("id-00000001",)


async def test_a_batch_that_fails_midway_says_how_far_it_came(time: Time) -> None:
    upstream = answering(OK, httpx.Response(400, json={"message": "no"}))
    messages = [Track(event="A", user_id="u", properties={"n": "x" * 300}) for _ in range(2501)]
    with pytest.raises(Rejected) as raised:
        await client(upstream, time).send_batch(messages)
    receipt = raised.value.receipt
    assert receipt is not None
    first = json.loads(upstream.requests[0].content)["batch"]
    assert receipt.accepted == len(first)
    assert len(receipt.message_ids) == 2501
    assert len(upstream.requests) == 2


async def test_an_empty_batch_is_refused(time: Time) -> None:
    with pytest.raises(InvalidMessage, match="batch is empty"):
        await client(accepting(), time).send_batch([])


async def test_a_message_built_without_any_id_is_refused_by_the_client_too(time: Time) -> None:
    upstream = accepting()
    with pytest.raises(InvalidMessage, match="Either userId or anonymousId must be provided"):
        await client(upstream, time).send(Identify(traits={"a": 1}))
    assert upstream.requests == []


async def test_without_a_key_nothing_is_sent_and_the_setting_is_named(time: Time) -> None:
    upstream = accepting()
    segment = Segment(settings(write_key=""), transport=upstream.transport(), surroundings=time.surroundings())
    with pytest.raises(NotConfigured, match="SEGMENT_WRITE_KEY"):
        await segment.send(MESSAGE)
    assert upstream.requests == []


async def test_the_callers_values_are_not_changed(time: Time) -> None:
    properties, context = {"a": {"b": [1]}}, {"ip": "1.2.3.4"}
    message = Track(event="A", user_id="u", properties=properties, context=context)
    receipt = await client(accepting(), time).send(message)
    assert (properties, context) == ({"a": {"b": [1]}}, {"ip": "1.2.3.4"})
    assert receipt.messages[0]["context"] == {"ip": "1.2.3.4", "library": {"name": "segment-tools", "version": "0.1.0"}}


async def test_a_library_that_the_caller_names_is_kept(time: Time) -> None:
    receipt = await client(accepting(), time).send(Track(event="A", user_id="u", context={"library": {"name": "mine"}}))
    assert receipt.messages[0]["context"] == {"library": {"name": "mine"}}


async def test_named_sources_have_their_own_keys(time: Time) -> None:
    upstream = accepting()
    segment = client(upstream, time, write_key="", sources='{"web": "key-of-web", "ios": "key-of-ios"}')
    await segment.send(MESSAGE, source="ios")
    assert upstream.requests[0].headers["authorization"] == httpx.BasicAuth("key-of-ios", "")._auth_header
    with pytest.raises(InvalidMessage, match=r"source is required: several are configured\. Pass one of web, ios"):
        await segment.send(MESSAGE)
    with pytest.raises(InvalidMessage, match="source is not a configured one"):
        await segment.send(MESSAGE, source="android")
    single = client(upstream, time, write_key="", sources='{"web": "key-of-web"}')
    await single.send(MESSAGE)
    assert upstream.requests[-1].headers["authorization"] == httpx.BasicAuth("key-of-web", "")._auth_header


async def test_connections_open_again_after_closing(time: Time) -> None:
    upstream = accepting()
    segment = client(upstream, time)
    await segment.send(MESSAGE)
    await segment.aclose()
    await segment.aclose()
    await segment.send(MESSAGE)
    assert len(upstream.requests) == 2


async def test_a_group_needs_no_more_than_its_ids(time: Time) -> None:
    receipt = await client(accepting(), time).send(Group(group_id="company_42", anonymous_id="v"))
    assert set(receipt.messages[0]) == {"type", "messageId", "groupId", "anonymousId", "timestamp", "context"}
    assert receipt.messages[0]["timestamp"] == NOW.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize(
    "nonsense",
    ["Mon, 01 Jan 99999999999 00:00:00 GMT", "Mon, 23 Nov 2026 12:00:10 +99999999999999", "9" * 400, "-1", "²", "1.5"],
)
async def test_a_nonsense_retry_after_is_no_accident(nonsense: str, time: Time) -> None:
    upstream = answering(httpx.Response(503, headers=[(b"Retry-After", nonsense.encode())]))
    with pytest.raises(Unavailable) as raised:
        await client(upstream, time).send(MESSAGE)
    assert raised.value.receipt is not None


@pytest.mark.parametrize("first", [httpx.Response(503), httpx.ReadError("reset")])
async def test_what_reached_segment_once_counts_as_sent(first: httpx.Response | Exception, time: Time) -> None:
    upstream = answering(first, httpx.ConnectError("refused"))
    with pytest.raises(Unavailable) as raised:
        await client(upstream, time).send(MESSAGE)
    assert raised.value.receipt is not None
    assert raised.value.receipt.sent


async def test_an_answer_cannot_deny_that_it_was_sent(time: Time) -> None:
    upstream = answering(httpx.Response(503, json={"code": "no_connection"}))
    with pytest.raises(Unavailable) as raised:
        await client(upstream, time).send(MESSAGE)
    assert raised.value.receipt is not None
    assert raised.value.receipt.sent


@pytest.mark.parametrize("body", ['{"x": "\\ud800"}', '{"x": NaN}', '{"x": ' + "[" * 300 + "]" * 300 + "}"])
async def test_an_answer_that_json_cannot_carry_on_is_left_out(body: str, time: Time) -> None:
    receipt = await client(answering(httpx.Response(200, text=body)), time).send(MESSAGE)
    assert (receipt.status, receipt.response_body) == ("accepted", {})


async def test_a_compressed_answer_is_not_inflated(time: Time) -> None:
    import gzip

    bomb = httpx.Response(
        200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(gzip.compress(b"0" * 10**8))
    )

    async def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept-encoding"] == "identity"
        return bomb

    transport = Transport("https://api.segment.io", httpx.MockTransport(answer))
    receipt = await Segment(settings(), transport=transport, surroundings=time.surroundings()).send(MESSAGE)
    assert (receipt.status, receipt.response_body) == ("accepted", {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "ftp://127.0.0.1:9"),
        ("HTTPS_PROXY", "http://127.0.0.1:9x"),
        ("HTTPS_PROXY", "http://127.0.0.1:99999"),
        ("SSL_CERT_FILE", "/no/such/file"),
    ],
)
async def test_an_unusable_environment_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    async with Segment(settings()) as segment:
        with pytest.raises(NotConfigured, match=name):
            await segment.send(MESSAGE)

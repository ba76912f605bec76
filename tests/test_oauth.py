"""OAuth: how a token is got, kept and renewed, and what a request with one looks like."""

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support import KEY, SENT_AT, TRACK, WAIT, Time, Upstream, rows, settings

from segment_tools import NotConfigured, Segment, Settings, Track, Transport, wire
from segment_tools.errors import NotFound, RateLimited, Rejected, Unauthorized, Unavailable, Undelivered
from segment_tools.oauth import Tokens
from segment_tools.sandbox.oauth import OAuth, load_key
from segment_tools.sandbox.options import Options
from segment_tools.sandbox.run import Sandbox
from segment_tools.sandbox.sources import Sources
from segment_tools.services import AUTHORIZATION
from segment_tools.spec import limits

pytestmark = pytest.mark.anyio

APP, KID = "app-1", "key-1"
TOKEN, OTHER = "tok-RECOGNISABLE-0001", "tok-RECOGNISABLE-0002"
SERVER = "https://oauth2.segment.io"
IDS = count(1)
"""One sandbox takes no id twice."""


def pem(private: Any, password: bytes | None = None) -> str:
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how).decode()


def public_pem(private: Any) -> bytes:
    return private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


KEYS = rsa.generate_private_key(65537, 2048)
PRIVATE, PUBLIC = pem(KEYS), public_pem(KEYS)
STRANGE = pem(rsa.generate_private_key(65537, 2048))


def app(**chosen: Any) -> Settings:
    given = {"oauth_client_id": APP, "oauth_key_id": KID, "oauth_private_key": PRIVATE, **chosen}
    return settings(**{name: value for name, value in given.items() if value is not None})


def answer(status: int = 200, body: Any = None, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): text for name, text in headers.items()})


def granted(token: str = TOKEN, **more: Any) -> httpx.Response:
    return answer(200, {"access_token": token, "token_type": "Bearer", "expires_in": 3600, **more})


def refused(code: str, description: str = "no", status: int = 400, **headers: str) -> httpx.Response:
    return answer(status, {"error": code, "error_description": description}, **headers)


@asynccontextmanager
async def tokens(
    answers: Upstream | Callable[[httpx.Request], Any], time: Time, chosen: Settings | None = None
) -> AsyncIterator[Tokens]:
    made = Tokens(chosen or app(), time.surroundings(), Transport(SERVER, httpx.MockTransport(answers), AUTHORIZATION))
    try:
        async with asyncio.timeout(WAIT):
            yield made
    finally:
        await made.aclose()


def form(request: httpx.Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.content.decode(), strict_parsing=True).items()}


def claims(request: httpx.Request) -> dict[str, Any]:
    options: Any = {"verify_exp": False, "verify_iat": False}
    return jwt.decode(form(request)["client_assertion"], PUBLIC, ["RS256"], audience=SERVER, options=options)


async def test_an_app_proves_itself_as_segment_asks(time: Time) -> None:
    upstream = Upstream([granted()])
    async with tokens(upstream, time) as kept:
        assert await kept.token(10) == TOKEN
    [request] = upstream.requests
    assert (request.method, str(request.url)) == ("POST", f"{SERVER}/token")
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert "authorization" not in request.headers
    sent = form(request)
    assertion = sent.pop("client_assertion")
    assert sent == {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "scope": "tracking_api:write",
    }
    assert jwt.get_unverified_header(assertion) == {"alg": "RS256", "typ": "JWT", "kid": KID}
    now = int(time.now.timestamp())
    assert claims(request) == {
        "iss": APP, "sub": APP, "aud": SERVER, "iat": now - 5, "exp": now + 55, "jti": "id-00000001",
    }  # fmt: skip


async def test_a_token_is_used_until_half_its_life_and_then_renewed_behind_the_call(time: Time) -> None:
    upstream = Upstream([granted(), granted(OTHER)])
    async with tokens(upstream, time) as kept:
        await kept.token(10)
        await time.sleep(1799)
        assert [await kept.token(10) for _ in range(3)] == [TOKEN] * 3
        assert len(upstream.requests) == 1
        await time.sleep(2)
        assert [await kept.token(10) for _ in range(3)] == [TOKEN] * 3
        await until(lambda: kept._current is not None and kept._current.text == OTHER)
        assert await kept.token(10) == OTHER
        assert len(upstream.requests) == 2


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not happened():  # noqa: ASYNC110 - what happens has no event to wait for
            await asyncio.sleep(0)


async def test_shortly_before_its_end_a_token_is_not_used(time: Time) -> None:
    upstream = Upstream([granted(), granted(OTHER)])
    async with tokens(upstream, time) as kept:
        await kept.token(10)
        await time.sleep(3591)
        assert await kept.token(10) == OTHER


@pytest.mark.parametrize("life", [None, "soon", True, 0, -5, [], 1e300])
async def test_a_token_that_does_not_say_how_long_it_lives_lives_a_minute(life: Any, time: Time) -> None:
    upstream = Upstream([granted(expires_in=life), granted(OTHER)])
    async with tokens(upstream, time) as kept:
        await kept.token(10)
        await time.sleep(49)
        assert await kept.token(10) == TOKEN
        await time.sleep(2)
        await until(lambda: len(upstream.requests) == 2)
        assert await kept.token(10) == OTHER


async def test_a_renewal_that_fails_leaves_the_old_token_and_waits(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = Upstream([granted(), refused("invalid_client", PRIVATE, 401)])
    async with tokens(upstream, time) as kept:
        await kept.token(10)
        await time.sleep(1801)
        for _ in range(10):
            assert await kept.token(10) == TOKEN
            await until(lambda: kept._fetching is not None and kept._fetching.done())
        assert len(upstream.requests) == 2
        assert "the OAuth token could not be renewed yet" in caplog.text
        await time.sleep(31)
        await kept.token(10)
        await until(lambda: len(upstream.requests) == 3)
    assert "PRIVATE KEY" not in caplog.text


async def test_all_who_wait_share_one_request(time: Time) -> None:
    upstream = Upstream([granted()])
    async with tokens(upstream, time) as kept:
        assert set(await asyncio.gather(*(kept.token(10) for _ in range(50)))) == {TOKEN}
    assert len(upstream.requests) == 1


async def test_all_who_wait_get_an_error_of_their_own(time: Time) -> None:
    async with tokens(Upstream([refused("invalid_client", status=401)]), time) as kept:
        found = await asyncio.gather(*(kept.token(10) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in found] == [Unauthorized] * 3
    assert len({id(error) for error in found}) == 3
    assert {str(error) for error in found} == {str(found[0])}


class Slow:
    """Answers when it is told."""

    def __init__(self) -> None:
        self.asked, self.free = asyncio.Event(), asyncio.Event()

    async def __call__(self, _: httpx.Request) -> httpx.Response:
        self.asked.set()
        await self.free.wait()
        return granted()


async def test_who_is_cancelled_takes_no_token_from_the_others(time: Time) -> None:
    slow = Slow()
    async with tokens(slow, time) as kept:
        first, second = asyncio.create_task(kept.token(10)), asyncio.create_task(kept.token(10))
        await slow.asked.wait()
        first.cancel()
        await asyncio.wait([first])
        slow.free.set()
        assert (first.cancelled(), await second) == (True, TOKEN)


async def test_a_token_that_does_not_come_in_time_is_unavailable(time: Time) -> None:
    slow = Slow()
    async with tokens(slow, time) as kept:
        first = asyncio.create_task(kept.token(10))
        await slow.asked.wait()
        with pytest.raises(Unavailable, match="OAuth server") as raised:
            await kept.token(0.01)
        assert (raised.value.code, raised.value.sent, raised.value.retryable) == ("timeout", False, True)
        slow.free.set()
        assert await first == TOKEN


async def test_closing_ends_what_is_under_way(time: Time) -> None:
    slow = Slow()
    async with tokens(slow, time) as kept:
        waiting = asyncio.create_task(kept.token(10))
        await slow.asked.wait()
        await kept.aclose()
        with pytest.raises(Unavailable):
            await waiting


async def test_a_dropped_token_is_fetched_anew_and_a_late_drop_changes_nothing(time: Time) -> None:
    upstream = Upstream([granted(), granted(OTHER)])
    async with tokens(upstream, time) as kept:
        kept.drop("none yet")
        kept.drop(await kept.token(10))
        assert await kept.token(10) == OTHER
        kept.drop(TOKEN)
        assert await kept.token(10) == OTHER
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("ahead", [-7200, 7200])
@pytest.mark.parametrize("said", ["Token is expired", "Token used before issued"])
async def test_a_wrong_clock_is_corrected_by_the_answers_date_at_once(ahead: int, said: str, time: Time) -> None:
    there = time.now.replace(microsecond=0) - timedelta(seconds=ahead)
    date = format_datetime(there.astimezone(UTC), usegmt=True)
    upstream = Upstream([refused("invalid_request", said, date=date), granted()])
    async with tokens(upstream, time) as kept:
        assert await kept.token(10) == TOKEN
    wrong, right = map(claims, upstream.requests)
    assert wrong["iat"] == int(time.now.timestamp()) - 5
    assert abs(right["iat"] - (there.timestamp() - 5)) <= 1
    assert right["exp"] - right["iat"] == 60
    assert wrong["jti"] != right["jti"]
    assert time.waits == []


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 23 Nov 2026 12:00:00 -0000", "Mon, 23 Nov 99999999 12:00:00"])
async def test_a_clock_that_stays_wrong_is_told(date: str, time: Time) -> None:
    upstream = Upstream([refused("invalid_request", "Token is expired", date=date)])
    async with tokens(upstream, time) as kept:
        with pytest.raises(Unauthorized) as raised:
            await kept.token(10)
    assert raised.value.hint == "Set this machine's clock."
    assert len(upstream.requests) == 2


@pytest.mark.parametrize(
    ("headers", "waited"),
    [
        ({"x_ratelimit_reset": "7"}, 7),
        ({"retry_after": "3"}, 3),
        ({"retry_after": "3", "x_ratelimit_reset": "7"}, 3),
        ({}, 5),
    ],
)
async def test_a_rate_limit_is_waited_for(headers: dict[str, str], waited: float, time: Time) -> None:
    upstream = Upstream([answer(429, {}, **headers), granted()])
    async with tokens(upstream, time) as kept:
        assert await kept.token(30) == TOKEN
    assert time.waits == [waited]


async def test_a_rate_limit_beyond_the_time_is_told(time: Time) -> None:
    async with tokens(Upstream([answer(429, {}, retry_after="60")]), time) as kept:
        with pytest.raises(RateLimited) as raised:
            await kept.token(30)
    assert (raised.value.retry_after_seconds, raised.value.sent, time.waits) == (60, False, [])


@pytest.mark.parametrize("fault", [answer(503), answer(408), httpx.ConnectError("x"), httpx.ReadError("x")])
async def test_a_passing_fault_is_tried_again(fault: Any, time: Time) -> None:
    async with tokens(Upstream([fault, fault, granted()]), time) as kept:
        assert await kept.token(30) == TOKEN
    assert len(time.waits) == 2


@pytest.mark.parametrize("fault", [answer(503), httpx.ConnectError("x"), httpx.ReadError("x")])
async def test_a_fault_that_stays_is_unavailable_and_says_that_nothing_was_sent(fault: Any, time: Time) -> None:
    async with tokens(Upstream([fault]), time) as kept:
        with pytest.raises(Unavailable) as raised:
            await kept.token(30)
    assert (raised.value.sent, raised.value.retryable) == (False, True)
    assert "message" not in raised.value.hint or "no message was sent" in raised.value.hint


@pytest.mark.parametrize(
    ("status", "code", "names"),
    [
        (401, "invalid_client", ["SEGMENT_OAUTH_CLIENT_ID", "SEGMENT_OAUTH_KEY_ID", "SEGMENT_OAUTH_PRIVATE_KEY"]),
        (400, "invalid_scope", ["SEGMENT_OAUTH_SCOPE"]),
        (400, "invalid_request", ["SEGMENT_OAUTH_CLIENT_ID", "SEGMENT_REGION"]),
        (403, "whatever", ["SEGMENT_OAUTH_CLIENT_ID", "SEGMENT_REGION"]),
        (415, "", ["SEGMENT_OAUTH_CLIENT_ID"]),
    ],
)
async def test_a_refusal_names_the_settings_and_repeats_nothing(
    status: int, code: str, names: list[str], time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assertions: list[str] = []

    def echo(request: httpx.Request) -> httpx.Response:
        assertions.append(form(request)["client_assertion"])
        said = f"{assertions[-1]} {PRIVATE} {TOKEN}"
        return httpx.Response(status, json={"error": code, "error_description": said, "access_token": TOKEN})

    async with tokens(echo, time) as kept:
        with pytest.raises(Unauthorized) as raised:
            await kept.token(30)
    error = raised.value
    assert (error.status_code, error.code, error.sent, error.retryable) == (status, "unauthorized", False, False)
    assert all(name in error.hint for name in names)
    assert len(assertions) == 1
    assert_untold(shown(error) + caplog.text, *assertions)


def shown(error: Undelivered) -> str:
    return f"{error} {error!r} {vars(error)} {error.__cause__!r}"


def assert_untold(text: str, *more: str) -> None:
    for secret in (TOKEN, OTHER, PRIVATE, PRIVATE.splitlines()[3], "BEGIN PRIVATE", *more):
        assert secret not in text


@pytest.mark.parametrize(
    "body",
    [{}, [], {"access_token": ""}, {"access_token": 5}, {"access_token": "a b"}, {"access_token": "a\r\nX-Evil: 1"}],
)
async def test_an_answer_without_a_token_is_refused(body: Any, time: Time) -> None:
    async with tokens(Upstream([answer(200, body)]), time) as kept:
        with pytest.raises(Rejected, match="answered 200 without a token") as raised:
            await kept.token(10)
    assert (raised.value.sent, raised.value.code) == (False, "unexpected_answer")
    assert "SEGMENT_OAUTH_URL" in raised.value.hint


@pytest.mark.parametrize(("status", "kind"), [(404, NotFound), (302, Rejected), (418, Rejected), (501, Rejected)])
async def test_what_is_no_oauth_server_is_told(status: int, kind: type[Exception], time: Time) -> None:
    async with tokens(Upstream([answer(status)]), time) as kept:
        with pytest.raises(kind, match="SEGMENT_OAUTH_URL"):
            await kept.token(10)


async def test_nothing_shows_a_token_or_a_key(time: Time, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    upstream = Upstream([granted()])
    async with tokens(upstream, time) as kept:
        await kept.token(10)
        seen = caplog.text + repr(kept) + repr(vars(kept)) + repr(app())
    assert_untold(seen, form(upstream.requests[0])["client_assertion"])


async def test_without_an_app_there_is_no_token(time: Time) -> None:
    async with tokens(Upstream([granted()]), time, settings()) as kept:
        with pytest.raises(NotConfigured) as raised:
            await kept.token(10)
    assert raised.value.setting == "SEGMENT_OAUTH_PRIVATE_KEY"


@dataclass
class Source:
    """A sandbox whose source takes nothing without a token."""

    sandbox: Sandbox

    @asynccontextmanager
    async def tokens(self, time: Time, **chosen: Any) -> AsyncIterator[Tokens]:
        made = Tokens(app(data_plane_url=self.sandbox.url, **chosen), time.surroundings())
        try:
            yield made
        finally:
            await made.aclose()

    async def post(self, request: wire.Request, headers: dict[str, str]) -> int:
        transport = Transport(self.sandbox.url)
        try:
            return (await transport.post(request.path, request.body, headers, 10)).status
        finally:
            await transport.aclose()


@pytest.fixture(scope="module")
def _running() -> Iterator[Sandbox]:
    oauth = OAuth(keys={(APP, KID): load_key(PUBLIC)}, sources=frozenset({"server"}), token_seconds=3600)
    with Sandbox(options=Options(sources=Sources({KEY: "server"}), oauth=oauth)) as running:
        yield running


@pytest.fixture
def source(_running: Sandbox) -> Source:
    _running.store.clear()
    return Source(_running)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (settings, "; a source that enforces OAuth needs SEGMENT_OAUTH_CLIENT_ID, SEGMENT_OAUTH_KEY_ID and "),
        (partial(app, oauth_scope="functions:write"), ", and SEGMENT_OAUTH_CLIENT_ID, SEGMENT_OAUTH_KEY_ID and "),
    ],
    ids=["without OAuth", "with a token that is refused"],
)
async def test_a_401_names_the_settings_of_oauth(chosen: Callable[..., Settings], said: str, source: Source) -> None:
    async with Segment(chosen(data_plane_url=source.sandbox.url)) as segment:
        with pytest.raises(Unauthorized, match=f"check the write key .*{said}SEGMENT_OAUTH_PRIVATE_KEY"):
            await segment.send(Track(event="Order Completed", user_id="u1"))


@pytest.fixture
def today() -> Time:
    """A clock that stands at the real time, which is the sandbox's."""
    return Time(now=datetime.now(UTC), _ids=IDS)


async def test_a_request_with_a_token_names_its_source_in_the_body(source: Source, today: Time) -> None:
    async with source.tokens(today) as kept:
        token = await kept.token(10)
    headers = wire.headers(KEY, 1, token)
    assert headers["Authorization"] == f"Bearer {token}"
    assert headers["X-Retry-Count"] == "1"
    [batch] = wire.batches([TRACK, TRACK], SENT_AT, KEY)
    assert json.loads(batch.body) == {"batch": [TRACK, TRACK], "sentAt": SENT_AT, "writeKey": KEY}
    assert await source.post(wire.single(TRACK, SENT_AT, KEY), headers) == 200
    assert await source.post(batch, headers) == 200
    assert {(row["source"], row["discarded"]) for row in rows(source.sandbox)} == {("server", None)}
    assert len(rows(source.sandbox)) == 3
    assert await source.post(wire.single(TRACK, SENT_AT), headers) == 400
    assert await source.post(wire.single(TRACK, SENT_AT, KEY), wire.headers(KEY, 0)) == 401


def test_batches_with_a_write_key_keep_to_segments_size() -> None:
    message = {**TRACK, "properties": {"text": "x" * 30_000}}
    requests = wire.batches([message] * 40, SENT_AT, KEY)
    assert sum(request.count for request in requests) == 40
    assert max(len(request.body) for request in requests) <= limits.BATCH_BYTES
    assert all(json.loads(request.body)["writeKey"] == KEY for request in requests)


@pytest.mark.parametrize("hours", [-3, 3])
async def test_the_sandbox_gives_a_token_over_a_wrong_clock(hours: int, source: Source, today: Time) -> None:
    today.now += timedelta(hours=hours)
    async with source.tokens(today) as kept:
        assert await kept.token(10)


@pytest.mark.parametrize(
    ("changed", "status", "name"),
    [
        ({"oauth_private_key": STRANGE}, 401, "SEGMENT_OAUTH_PRIVATE_KEY"),
        ({"oauth_client_id": "app-9"}, 401, "SEGMENT_OAUTH_CLIENT_ID"),
        ({"oauth_key_id": "key-9"}, 401, "SEGMENT_OAUTH_KEY_ID"),
        ({"oauth_scope": "everything"}, 400, "SEGMENT_OAUTH_SCOPE"),
    ],
)
async def test_the_sandbox_refuses_a_wrong_app(
    changed: dict[str, str], status: int, name: str, source: Source, today: Time
) -> None:
    async with source.tokens(today, **changed) as kept:
        with pytest.raises(Unauthorized, match="nothing was sent") as raised:
            await kept.token(10)
    assert (raised.value.status_code, name in raised.value.hint) == (status, True)


async def test_the_sandboxes_fault_is_ridden_over(source: Source, today: Time) -> None:
    source.sandbox.fault(status=503, path="/token")
    async with source.tokens(today) as kept:
        assert await kept.token(10)


@pytest.mark.parametrize("kind", ["text", "one line", "file"])
def test_the_key_is_text_or_a_file(kind: str, tmp_path: Path) -> None:
    (tmp_path / "private.pem").write_text(PRIVATE)
    given = {"text": PRIVATE, "one line": PRIVATE.replace("\n", "\\n"), "file": str(tmp_path / "private.pem")}[kind]
    found = app(oauth_private_key=given)
    assert found.oauth_private_key is not None
    assert found.oauth_private_key.get_secret_value().strip() == PRIVATE.strip()
    assert found.uses_oauth
    assert_untold(repr(found))


@pytest.mark.parametrize(
    "key",
    [
        pem(rsa.generate_private_key(65537, 1024)),
        pem(ec.generate_private_key(ec.SECP256R1())),
        pem(KEYS, b"password"),
        PUBLIC.decode(),
        PRIVATE[:200],
    ],
    ids=["short", "elliptic", "password", "public", "cut"],
)
@pytest.mark.parametrize("in_file", [True, False], ids=["file", "text"])
def test_another_key_is_refused_without_showing_it(key: str, in_file: bool, tmp_path: Path) -> None:
    (tmp_path / "private.pem").write_text(key)
    with pytest.raises(NotConfigured, match=r"holds no RSA private key of 2048 bits") as raised:
        app(oauth_private_key=str(tmp_path / "private.pem") if in_file else key)
    assert raised.value.setting == "SEGMENT_OAUTH_PRIVATE_KEY"
    assert key.splitlines()[1] not in str(raised.value)
    assert "BEGIN" not in str(raised.value)


@pytest.mark.parametrize("missing", ["oauth_client_id", "oauth_key_id", "oauth_private_key"])
def test_part_of_an_app_is_refused_by_what_it_lacks(missing: str) -> None:
    with pytest.raises(NotConfigured) as raised:
        app(**{missing: None})
    assert raised.value.setting == f"SEGMENT_{missing.upper()}"
    assert str(raised.value) == f"OAuth lacks {raised.value.setting}; set all three, or none."


@pytest.mark.parametrize(
    ("chosen", "url"),
    [
        ({}, SERVER),
        ({"region": "eu"}, "https://oauth2.eu1.segmentapis.com"),
        ({"data_plane_url": "http://127.0.0.1:8765"}, "http://127.0.0.1:8765"),
        ({"data_plane_url": "https://proxy.example.com"}, SERVER),
        ({"oauth_url": "https://oauth2.segment.io/token"}, SERVER),
        ({"oauth_url": "localhost:9", "data_plane_url": "http://127.0.0.1:8765"}, "http://localhost:9"),
    ],
)
def test_tokens_come_from_the_regions_server_or_the_sandbox(chosen: dict[str, str], url: str) -> None:
    assert app(**chosen).oauth_endpoint == url


def test_the_key_is_among_the_secrets() -> None:
    assert PRIVATE.strip() in [secret.strip() for secret in app().secrets]


def test_without_oauth_nothing_of_it_is_loaded(environ: dict[str, str]) -> None:
    check = (
        "import sys; from segment_tools.oauth import Tokens; from segment_tools import Settings\n"
        "Settings.from_env(); print(sorted({'jwt', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, env=environ, timeout=WAIT, check=True
    )
    assert done.stdout == "[]\n"

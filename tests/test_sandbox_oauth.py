"""OAuth for sources: who gets a token, which requests need one, and Segment's own libraries with it."""

import atexit
import hashlib
import hmac
import json
import logging
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from node import INSTALLED
from node import run as run_node
from segment.analytics import oauth_manager
from segment.analytics import request as library_http
from segment.analytics.client import Client as Library
from support import KEY, WAIT, program, rows, running

from segment_tools.sandbox.oauth import OAuth, load_key
from segment_tools.sandbox.options import Options
from segment_tools.sandbox.run import Sandbox
from segment_tools.sandbox.sources import Sources

APP, KID, OTHER_APP = "app-1", "key-1", "app-2"
ENFORCED, FREE = KEY, "wk-free-0001"
TRACK = {"userId": "u1", "event": "Order Completed"}
ACCEPTED = {"success": True}
SCOPE = "tracking_api:write"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SCRIPT = Path(__file__).parent / "conformance" / "analytics-node-oauth.cjs"


def pem_of(private: Any) -> tuple[str, bytes]:
    """The private key as PKCS 8 and the public one, both in PEM."""
    own = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return own.decode(), public


PRIVATE, PUBLIC = pem_of(rsa.generate_private_key(65537, 2048))
OTHER_PRIVATE, OTHER_PUBLIC = pem_of(rsa.generate_private_key(65537, 2048))


@dataclass
class Clock:
    """The real time, and more."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Client:
    """A caller with a key, and the sandbox it calls."""

    sandbox: Sandbox
    clock: Clock
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.sandbox.url, trust_env=False, timeout=20)

    def claims(self, **changed: Any) -> dict[str, Any]:
        now = int(self.clock())
        made = {
            "iss": APP,
            "sub": APP,
            "aud": self.sandbox.url,
            "iat": now - 5,
            "exp": now + 55,
            "jti": str(uuid.uuid4()),
        }
        return {name: value for name, value in {**made, **changed}.items() if value is not None}

    def form(self, assertion: str, **changed: Any) -> dict[str, Any]:
        made = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION,
            "client_assertion": assertion,
            "scope": SCOPE,
        }
        return {name: value for name, value in {**made, **changed}.items() if value is not None}

    def ask(self, assertion: str, **changed: Any) -> httpx.Response:
        return self.http.post("/token", data=self.form(assertion, **changed))

    def token(self, scope: str = SCOPE) -> str:
        response = self.ask(signed(self.claims()), scope=scope)
        assert response.status_code == 200, response.text
        return response.json()["access_token"]

    def send(
        self, token: str | None, key: str | None = ENFORCED, path: str = "/v1/track", **fields: Any
    ) -> httpx.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        body = {**TRACK, **fields, **({} if key is None else {"writeKey": key})}
        return self.http.post(path, json={**body, "batch": [{"type": "track", **TRACK}]}, headers=headers)


def signed(claims: Mapping[str, Any], key: Any = PRIVATE, alg: str = "RS256", **header: Any) -> str:
    return jwt.encode(dict(claims), key, algorithm=alg, headers={"kid": KID, **header})


def options(clock: Clock, **changed: Any) -> Options:
    keys = {(APP, KID): load_key(PUBLIC), (OTHER_APP, "key-2"): load_key(OTHER_PUBLIC)}
    return Options(
        sources=Sources({ENFORCED: "server", FREE: "web"}),
        oauth=OAuth(
            **{"keys": keys, "sources": frozenset({"server"}), "token_seconds": 3600, "clock": clock, **changed}
        ),
    )


@pytest.fixture(scope="module")
def _running() -> Iterator[Client]:
    clock = Clock()
    with Sandbox(options=options(clock)) as sandbox:
        client = Client(sandbox, clock)
        yield client
        client.http.close()


@pytest.fixture
def client(_running: Client) -> Client:
    """A caller of a sandbox that has had no messages yet, whose source `server` enforces OAuth."""
    _running.sandbox.store.clear()
    _running.clock.ahead = 0
    return _running


def test_an_app_gets_a_token_that_its_source_takes(client: Client) -> None:
    response = client.ask(signed(client.claims()))
    answer = response.json()
    assert (response.status_code, set(answer)) == (200, {"access_token", "token_type", "expires_in"})
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3600)
    assert response.headers["cache-control"] == "no-store"
    assert "date" in response.headers
    assert "access-control-allow-origin" not in response.headers
    assert client.send(answer["access_token"]).json() == ACCEPTED
    assert [(row["source"], row["discarded"]) for row in rows(client.sandbox)] == [("server", None)]


@pytest.mark.parametrize("path", ["/v1/track", "/v1/t", "/v1/batch", "/v1/import"])
def test_a_source_that_enforces_oauth_takes_nothing_without_a_token(path: str, client: Client) -> None:
    basic = client.http.post(path, json={**TRACK, "batch": [TRACK]}, auth=(ENFORCED, ""))
    for response in (client.send(None, path=path), client.send("made-up", path=path), basic):
        assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
        assert response.json()["success"] is False
    assert rows(client.sandbox) == []
    assert client.send(client.token(), path=path).json() == ACCEPTED


def test_a_pixel_of_such_a_source_is_answered_and_not_kept(client: Client) -> None:
    response = client.http.get("/v1/pixel/track", params={**TRACK, "writeKey": ENFORCED})
    assert (response.status_code, response.headers["content-type"]) == (200, "image/gif")
    assert rows(client.sandbox) == []


def test_another_source_takes_messages_with_and_without_a_token_but_not_with_a_wrong_one(client: Client) -> None:
    assert client.send(None, FREE).status_code == 200
    assert client.send(client.token(), FREE, messageId="x").status_code == 200
    assert client.send("made-up", FREE).status_code == 401
    assert [row["source"] for row in rows(client.sandbox)] == ["web", "web"]


def test_with_a_token_the_write_key_in_the_body_is_required(client: Client) -> None:
    assert client.send(client.token(), None).status_code == 400
    assert rows(client.sandbox) == []


def test_a_sandbox_without_apps_knows_no_token(sandbox: Sandbox) -> None:
    response = httpx.post(
        f"{sandbox.url}/v1/track",
        json={**TRACK, "writeKey": KEY},
        headers={"Authorization": "Bearer some-token"},
        trust_env=False,
    )
    assert response.status_code == 401
    assert rows(sandbox) == []


def test_a_token_expires(client: Client) -> None:
    token = client.token()
    client.clock.ahead = 3599
    assert client.send(token).status_code == 200
    client.clock.ahead = 3601
    assert client.send(token).status_code == 401


def test_a_restart_revokes_every_token(client: Client) -> None:
    token = client.token()
    with Sandbox(options=options(client.clock)) as restarted:
        again = Client(restarted, client.clock)
        assert again.send(token).status_code == 401
        assert again.send(again.token()).status_code == 200
        again.http.close()


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        (SCOPE, 200),
        (f"functions:write {SCOPE}", 200),
        ("functions:write", 401),
        ("public_api:read_write", 401),
    ],
)
def test_a_token_must_be_for_tracking(scope: str, status: int, client: Client) -> None:
    assert client.send(client.token(scope)).status_code == status


@pytest.mark.parametrize("spelling", ["{url}", "{url}/", "http://localhost:{port}", "http://localhost:{port}/"])
def test_the_audience_is_this_sandbox_however_its_address_is_written(spelling: str, client: Client) -> None:
    aud = spelling.format(url=client.sandbox.url, port=client.sandbox.url.rpartition(":")[2])
    assert client.ask(signed(client.claims(aud=aud))).status_code == 200


@pytest.mark.parametrize("aud", ["http://sandbox:8765", "https://sandbox:8765/"])
def test_the_audience_may_be_the_name_by_which_others_reach_the_sandbox(aud: str) -> None:
    shared = replace(options(Clock()), token="let-others-in")
    with Sandbox(options=shared) as sandbox:
        other = Client(sandbox, Clock())
        other.http.headers["Host"] = "sandbox:8765"
        assert other.ask(signed(other.claims(aud=aud))).status_code == 200
        assert other.ask(signed(other.claims(aud="http://elsewhere:8765"))).status_code == 400
        other.http.close()


@pytest.mark.parametrize("iss", [None, "https://oauth2.segment.io", APP, "whoever"])
def test_any_issuer_will_do(iss: str | None, client: Client) -> None:
    assert client.ask(signed(client.claims(iss=iss))).status_code == 200


@pytest.mark.parametrize(("iat", "exp"), [(-5, 56), (-64, -4), (4, 60), (-5.25, 54.75)])
def test_clocks_may_differ_a_little(iat: float, exp: float, client: Client) -> None:
    now = int(client.clock())
    assert client.ask(signed(client.claims(iat=now + iat, exp=now + exp))).status_code == 200


Change = Callable[[Client], tuple[str, dict[str, Any]]]


def with_claims(**changed: Any) -> Change:
    return lambda client: (signed(client.claims(**changed)), {})


def with_times(iat: float, exp: float) -> Change:
    return lambda client: (signed(client.claims(iat=time.time() + iat, exp=time.time() + exp)), {})


def with_fields(**changed: Any) -> Change:
    return lambda client: (signed(client.claims()), changed)


def with_header(**header: Any) -> Change:
    return lambda client: (signed(client.claims(), **header), {})


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hand(header: Mapping[str, Any], payload: bytes | None = None, signature: bytes = b"x") -> Change:
    def make(client: Client) -> tuple[str, dict[str, Any]]:
        content = json.dumps(client.claims()).encode() if payload is None else payload
        return f"{b64(json.dumps(header).encode())}.{b64(content)}.{b64(signature)}", {}

    return make


def with_the_public_key_as_secret(client: Client) -> tuple[str, dict[str, Any]]:
    text = f"{b64(json.dumps({'alg': 'HS256', 'kid': KID}).encode())}.{b64(json.dumps(client.claims()).encode())}"
    return f"{text}.{b64(hmac.new(PUBLIC, text.encode(), hashlib.sha256).digest())}", {}


def tampered(client: Client) -> tuple[str, dict[str, Any]]:
    header, _, signature = signed(client.claims(sub="somebody")).split(".")
    return f"{header}.{b64(json.dumps(client.claims()).encode())}.{signature}", {}


REFUSED: dict[str, tuple[Change, int, str, str]] = {
    "no grant type": (with_fields(grant_type=None), 400, "invalid_request", "grant_type is missing"),
    "another grant type": (with_fields(grant_type="password"), 400, "unsupported_grant_type", "client_credentials"),
    "no assertion type": (with_fields(client_assertion_type=None), 400, "invalid_request", "client_assertion_type"),
    "another assertion type": (with_fields(client_assertion_type="x"), 400, "invalid_request", ASSERTION),
    "no assertion": (with_fields(client_assertion=""), 400, "invalid_request", "client_assertion is missing"),
    "no scope": (with_fields(scope=None), 400, "invalid_request", "scope is missing"),
    "a blank scope": (with_fields(scope=" "), 400, "invalid_scope", "scope must be of tracking_api:write"),
    "an unknown scope": (with_fields(scope=f"{SCOPE} all"), 400, "invalid_scope", "scope must be of"),
    "no JWT": (with_fields(client_assertion="e30.e30"), 400, "invalid_request", "not a JWT"),
    "a JWT without claims": (by_hand({"alg": "RS256", "kid": KID}, b"[]"), 400, "invalid_request", "not a JWT"),
    "claims of no JSON": (by_hand({"alg": "RS256", "kid": KID}, b'{"exp": NaN}'), 400, "invalid_request", "not a"),
    "claims without a bottom": (by_hand({"alg": "RS256"}, b"[" * 9000), 400, "invalid_request", "not a JWT"),
    "no algorithm": (by_hand({"alg": "none", "kid": KID}, signature=b""), 400, "invalid_request", "RS256"),
    "the public key as a secret": (with_the_public_key_as_secret, 400, "invalid_request", "RS256"),
    "another RSA algorithm": (with_header(alg="RS512"), 400, "invalid_request", "RS256"),
    "no kid": (by_hand({"alg": "RS256"}), 401, "invalid_client", "no app has this sub with a key of this kid"),
    "an unknown kid": (with_header(kid="key-9"), 401, "invalid_client", "no app has this sub"),
    "another app's kid": (with_header(kid="key-2"), 401, "invalid_client", "no app has this sub"),
    "a kid that is a number": (by_hand({"alg": "RS256", "kid": 1}), 400, "invalid_request", "not a JWT"),
    "no sub": (with_claims(sub=None), 401, "invalid_client", "no app has this sub"),
    "an unknown app": (with_claims(sub="app-9"), 401, "invalid_client", "no app has this sub"),
    "another app": (with_claims(sub=OTHER_APP), 401, "invalid_client", "no app has this sub"),
    "a sub that is a list": (with_claims(sub=[APP]), 401, "invalid_client", "no app has this sub"),
    "another's signature": (
        lambda client: (signed(client.claims(), OTHER_PRIVATE), {}), 401, "invalid_client", "not by the app's key",
    ),
    "no signature": (by_hand({"alg": "RS256", "kid": KID}, signature=b""), 401, "invalid_client", "not by the app's"),
    "other claims than were signed": (tampered, 401, "invalid_client", "not by the app's key"),
    "no aud": (with_claims(aud=None), 400, "invalid_request", "aud must be"),
    "Segment's own aud": (with_claims(aud="https://oauth2.segment.io"), 400, "invalid_request", "aud must be"),
    "another port's aud": (with_claims(aud="http://127.0.0.1:1"), 400, "invalid_request", "aud must be"),
    "an aud that is a list": (with_claims(aud=["http://127.0.0.1"]), 400, "invalid_request", "aud must be"),
    "no iat": (with_claims(iat=None), 400, "invalid_request", "iat must be a number"),
    "no exp": (with_claims(exp=None), 400, "invalid_request", "exp must be a number"),
    "an exp that is true": (with_claims(exp=True), 400, "invalid_request", "exp must be a number"),
    "expired": (with_times(-70, -10), 400, "invalid_request", "Token is expired"),
    "not yet issued": (with_times(10, 70), 400, "invalid_request", "Token used before issued"),
    "a long life": (with_times(-5, 600), 400, "invalid_request", "by 60 seconds at most"),
    "an end before its start": (with_times(3, -3), 400, "invalid_request", "exp must be after iat"),
    "an endless life": (with_claims(exp=10**400), 400, "invalid_request", "exp must be a number"),
    "a beginning before time": (with_claims(iat=-(10**400), exp=1.5), 400, "invalid_request", "iat must be a number"),
    "no jti": (with_claims(jti=None), 400, "invalid_request", "jti must be a text"),
    "a jti that is a number": (with_claims(jti=7), 400, "invalid_request", "jti must be a text"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_proves_nothing_gets_no_token(case: str, client: Client) -> None:
    change, status, error, said = REFUSED[case]
    assertion, fields = change(client)
    response = client.ask(assertion, **fields)
    assert (response.status_code, response.json()["error"]) == (status, error)
    assert said in response.json()["error_description"]
    assert set(response.json()) == {"error", "error_description"}
    assert assertion not in response.text


def test_an_assertion_is_good_for_one_token(client: Client) -> None:
    assertion = signed(client.claims())
    assert client.ask(assertion).status_code == 200
    again = client.ask(assertion)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_request")
    assert "jti was used before" in again.json()["error_description"]


def test_a_refused_assertion_does_not_use_up_its_jti(client: Client) -> None:
    claims = client.claims()
    assert client.ask(signed({**claims, "aud": "x"})).status_code == 400
    assert client.ask(signed(claims, OTHER_PRIVATE)).status_code == 401
    assert client.ask(signed(claims)).status_code == 200


def test_an_assertion_that_many_threads_send_at_once_is_good_for_one(client: Client) -> None:
    assertion = signed(client.claims())
    with ThreadPoolExecutor(16) as pool:
        found = [response.status_code for response in pool.map(client.ask, [assertion] * 32)]
    assert sorted(found) == [200] + [400] * 31


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/form-data; boundary=x", None])
def test_another_content_type_is_refused(content_type: str | None, client: Client) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    content = str(httpx.QueryParams(client.form(signed(client.claims()))))
    response = client.http.post("/token", content=content, headers=headers)
    assert (response.status_code, response.json()["error"]) == (415, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        b"scope=a&scope=b",
        b"\xff=1",
        b"&".join(b"a%d=1" % number for number in range(50)),
        b"client_assertion=" + b"x" * 70_000,
        b"",
    ],
)
def test_a_form_that_cannot_be_read_is_refused(body: bytes, client: Client) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    response = client.http.post("/token", content=body, headers=headers)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


def test_the_token_path_takes_nothing_but_a_post(client: Client) -> None:
    assert client.http.get("/token").status_code == 405
    assert client.http.post("/v1/token").status_code == 404


def test_a_fault_may_befall_the_token_path(client: Client) -> None:
    client.sandbox.fault(status=503, path="/token")
    response = client.ask(signed(client.claims()))
    assert (response.status_code, set(response.json())) == (503, {"error", "error_description"})
    assert client.ask(signed(client.claims())).status_code == 200


def test_no_token_assertion_or_key_is_logged_or_shown(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "segment_tools")
    caplog.set_level(logging.DEBUG, "uvicorn")
    assertion = signed(client.claims())
    token = client.ask(assertion).json()["access_token"]
    client.send(token)
    wrong = client.send("wrong-token-0001")
    seen = caplog.text + wrong.text + client.http.get("/_sandbox/messages").text + repr(options(client.clock))
    for secret in (token, assertion, "wrong-token-0001", "BEGIN PUBLIC", "RSAPublicKey"):
        assert secret not in seen


def test_every_source_may_enforce_oauth() -> None:
    with Sandbox(options=options(Clock(), sources=frozenset("*"))) as sandbox:
        every = Client(sandbox, Clock())
        assert [every.send(None, key).status_code for key in (ENFORCED, FREE, "unknown")] == [401] * 3
        assert every.send(every.token(), FREE).status_code == 200
        every.http.close()


@pytest.fixture
def library(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[Library, list[Exception]]]]:
    """Makes Segment's own Python library with OAuth, and the failures that it tells of."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    made: list[Library] = []

    def make(**changed: Any) -> tuple[Library, list[Exception]]:
        failures: list[Exception] = []
        made.append(
            Library(
                **{
                    "write_key": ENFORCED,
                    "host": client.sandbox.url,
                    "timeout": 10,
                    "max_retries": 1,
                    "upload_interval": 0.1,
                    "oauth_client_id": APP,
                    "oauth_client_key": PRIVATE,
                    "oauth_key_id": KID,
                    "oauth_auth_server": client.sandbox.url,
                    "oauth_scope": SCOPE,
                    "on_error": lambda error, _: failures.append(error),
                    **changed,
                }
            )
        )
        return made[-1], failures

    yield make
    for used in made:
        atexit.unregister(used.join)
        if used.oauth_manager.thread:
            used.oauth_manager.thread.cancel()
    library_http._session.close()
    oauth_manager._session.close()


def test_segments_python_library_sends_with_oauth(client: Client, library: Any) -> None:
    sender, failures = library()
    for number in range(20):
        assert sender.track("u1", "Order Completed", {"number": number})[0]
    sender.shutdown()
    assert failures == []
    found = rows(client.sandbox)
    assert {(row["source"], row["discarded"]) for row in found} == {("server", None)}
    assert [row["message"]["properties"]["number"] for row in found] == list(range(20))


def test_segments_python_library_sends_from_many_threads(client: Client, library: Any) -> None:
    sender, failures = library(thread=8, upload_size=5)
    assert sender.oauth_manager.get_token()  # the library's own threads race for their first one
    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(lambda number: sender.track(f"u{number}", "Order Completed")[0], range(400)))
    sender.shutdown()
    assert (failures, all(taken)) == ([], True)
    assert {row["message"]["userId"] for row in rows(client.sandbox)} == {f"u{number}" for number in range(400)}


@pytest.mark.parametrize("hours", [-3, 3])
def test_segments_python_library_gets_over_a_wrong_clock(
    hours: int, client: Client, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = timedelta(hours=hours)
    clock = SimpleNamespace(time=lambda: time.time() + wrong.total_seconds(), sleep=time.sleep)
    now = SimpleNamespace(strptime=datetime.strptime, utcnow=lambda: datetime.now(UTC).replace(tzinfo=None) + wrong)
    monkeypatch.setattr(oauth_manager, "time", clock)
    monkeypatch.setattr(oauth_manager, "datetime", now)
    sender, failures = library()
    assert sender.track("u1", "Order Completed")[0]
    sender.shutdown()
    assert (failures, len(rows(client.sandbox))) == ([], 1)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"oauth_client_key": OTHER_PRIVATE}, "invalid_client"),
        ({"oauth_client_id": "app-9"}, "invalid_client"),
        ({"oauth_key_id": "key-9"}, "invalid_client"),
        ({"oauth_scope": "everything"}, "invalid_scope"),
    ],
)
def test_segments_python_library_tells_why_it_got_no_token(
    changed: dict[str, str], code: str, client: Client, library: Any
) -> None:
    sender, failures = library(**changed)
    assert sender.track("u1", "Order Completed")[0]
    sender.shutdown()
    assert [getattr(failure, "code", None) for failure in failures] == [code]
    assert rows(client.sandbox) == []


def test_segments_node_library_sends_with_oauth(client: Client, node: list[str], environ: dict[str, str]) -> None:
    settings = {"clientId": APP, "clientKey": PRIVATE, "keyId": KID, "authServer": client.sandbox.url}
    messages = [{"type": "track", **TRACK, "properties": {"number": number}} for number in range(5)]
    given = [str(INSTALLED), client.sandbox.url, ENFORCED, json.dumps(settings), json.dumps(messages)]
    done = run_node([*node, str(SCRIPT), *given], INSTALLED, WAIT, environ)
    assert done.returncode == 0, done.stderr
    found = rows(client.sandbox)
    assert {row["discarded"] for row in found} == {None}
    assert {row["message"]["properties"]["number"] for row in found} == set(range(5))


def test_the_command_takes_apps_and_sources(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "public.pem").write_bytes(PUBLIC)
    given = ["--write-key", f"server={ENFORCED}", "--write-key", f"web={FREE}", "--oauth-source", "server"]
    given += ["--oauth-app", f"{APP}:{KID}={tmp_path / 'public.pem'}", "--oauth-token-seconds", "120"]
    with running(environ, "sandbox", "--port", "0", "--db", ":memory:", *given) as (_, url):
        caller = Client(SimpleNamespace(url=url), Clock())  # type: ignore[arg-type]
        answer = caller.ask(signed(caller.claims())).json()
        assert answer["expires_in"] == 120
        found = [caller.send(None), caller.send(answer["access_token"]), caller.send(None, FREE)]
        assert [response.status_code for response in found] == [401, 200, 200]
        caller.http.close()


EC_PUBLIC = pem_of(ec.generate_private_key(ec.SECP256R1()))[1]
SHORT_PUBLIC = pem_of(rsa.generate_private_key(65537, 1024))[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"", "holds no RSA public key"),
        (PRIVATE.encode(), "holds no RSA public key"),
        (EC_PUBLIC, "holds no RSA public key"),
        (SHORT_PUBLIC, "of 2048 bits or more"),
    ],
    ids=["no file", "empty", "private", "elliptic", "short"],
)
def test_the_command_refuses_a_file_without_a_key(
    content: bytes | None, said: str, environ: dict[str, str], tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "key.pem").write_bytes(content)
    assert_refused(["--oauth-app", f"{APP}:{KID}={tmp_path / 'key.pem'}"], said, environ)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--oauth-app", "app-1=public.pem"], "an app is given as APP_ID:KEY_ID=FILE"),
        (["--oauth-app", "app-1:key-1"], "an app is given as APP_ID:KEY_ID=FILE"),
        (["--oauth-source", "server"], "names a source that no --write-key does"),
        (["--oauth-source", "*"], "nobody could get a token"),
        (["--oauth-token-seconds", "0"], "a token lives from 1 to 2592000 seconds"),
        (["--oauth-token-seconds", "2592001"], "a token lives from"),
        (["--oauth-token-seconds", "x"], "a token lives from"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(given: list[str], said: str, environ: dict[str, str]) -> None:
    assert_refused(given, said, environ)


def assert_refused(given: list[str], said: str, environ: dict[str, str]) -> None:
    command = program("sandbox", "--port", "0", "--db", ":memory:", *given)
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=WAIT, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sandbox_without_apps_loads_no_cryptography(environ: dict[str, str]) -> None:
    check = (
        "import sys; from segment_tools.sandbox.run import Sandbox\n"
        "with Sandbox(): print('jwt' in sys.modules, 'cryptography' in sys.modules)"
    )
    done = subprocess.run(
        [*program()[:1], "-c", check], capture_output=True, text=True, env=environ, timeout=WAIT, check=True
    )
    assert done.stdout == "False False\n"

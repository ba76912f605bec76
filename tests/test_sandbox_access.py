"""Others than this machine reach a sandbox only where it was told so, and read it only with its token."""

import subprocess
from collections.abc import Iterator

import httpx
import pytest
from support import WAIT, program, running

from segment_tools.sandbox.options import Options, Spaces
from segment_tools.sandbox.run import Sandbox

TOKEN = "token-RECOGNISABLE-31"
WATCHED = ("/", "/_sandbox/messages", "/_sandbox/reasons", "/_sandbox/profiles", "/_sandbox/nothing")


@pytest.fixture(scope="module")
def guarded() -> Iterator[httpx.Client]:
    with Sandbox(options=Options(token=TOKEN)) as sandbox, httpx.Client(base_url=sandbox.url, trust_env=False) as http:
        yield http


@pytest.mark.parametrize("path", WATCHED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer \u00e4".encode("latin-1")},
        {"Cookie": f"segment_sandbox={TOKEN}"},
        {"Cookie": "segment_sandbox=wrong"},
        {"Cookie": "[]=;;\\"},
    ],
)
def test_without_the_token_nothing_is_shown(path: str, headers: dict[str, str | bytes], guarded: httpx.Client) -> None:
    response = guarded.get(path, headers=headers)
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert TOKEN not in response.text


def test_nothing_is_deleted_without_the_token(guarded: httpx.Client) -> None:
    assert guarded.delete("/_sandbox/messages").status_code == 401


def test_the_token_opens_everything(guarded: httpx.Client) -> None:
    response = guarded.get("/_sandbox/messages", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 200


def test_a_browser_is_given_a_cookie_and_an_address_without_the_token(guarded: httpx.Client) -> None:
    assert guarded.get("/", params={"token": "wrong"}).status_code == 401
    response = guarded.get("/", params={"token": TOKEN})
    assert (response.status_code, response.headers["Location"]) == (303, "/")
    cookie = response.headers["Set-Cookie"]
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    name_and_value = cookie.split(";")[0]
    guarded.cookies.clear()
    assert guarded.get("/_sandbox/messages", headers={"Cookie": name_and_value}).status_code == 200


def test_a_browser_without_the_cookie_is_asked_for_the_token(guarded: httpx.Client) -> None:
    guarded.cookies.clear()
    response = guarded.get("/", headers={"Accept": "text/html,*/*"})
    assert response.status_code == 401
    assert 'name="token"' in response.text
    assert "script" not in response.text


def test_segments_own_paths_are_open_to_any_name(guarded: httpx.Client) -> None:
    headers = {"Host": "sandbox.internal:8765"}
    message = {"event": "A", "userId": "u"}
    assert guarded.post("/v1/track", json=message, auth=("key", ""), headers=headers).status_code == 200


def test_another_address_wants_a_token(environ: dict[str, str]) -> None:
    command = program("sandbox", "--host", "0.0.0.0", "--port", "0", "--db", ":memory:")
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 2
    assert "--token" in done.stderr


@pytest.mark.parametrize("way", ["option", "environment"])
def test_with_a_token_another_address_is_listened_on(way: str, environ: dict[str, str]) -> None:
    options = ["--token", TOKEN] if way == "option" else []
    given = environ if way == "option" else {**environ, "SEGMENT_SANDBOX_TOKEN": TOKEN}
    with running(given, "sandbox", "--host", "0.0.0.0", "--port", "0", "--db", ":memory:", *options) as (_, url):
        there = url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{there}/_sandbox/messages", trust_env=False).status_code == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.get(f"{there}/_sandbox/messages", headers=headers, trust_env=False).status_code == 200


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--space", "spa_1"], "ID=TOKEN"),
        (["--space", "=x"], "ID=TOKEN"),
        (["--keep-days", "0"], "days"),
        (["--keep-days", "nan"], "days"),
        (["--keep-messages", "-1"], "number"),
        (["--profile-rate", "many"], "number"),
        (["--host", "no.such.host.invalid"], "Cannot listen"),
        (["--webhook-secret", "s"], "add --webhook URL"),
        (["--webhook-batch", "5"], "add --webhook URL"),
    ],
)
def test_a_wrong_option_says_what_is_wanted(options: list[str], named: str, environ: dict[str, str]) -> None:
    command = program("sandbox", "--port", "0", "--db", ":memory:", "--token", TOKEN, *options)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 2
    assert named in done.stderr
    assert TOKEN not in done.stderr


def test_profiles_want_the_token_too_unless_their_spaces_have_their_own(guarded: httpx.Client) -> None:
    guarded.post("/v1/identify", json={"userId": "u1", "traits": {"plan": "pro"}}, auth=("key", ""))
    path = "/v1/spaces/any/collections/users/profiles/user_id:u1/traits"
    assert guarded.get(path, auth=("anything", "")).status_code == 401
    assert guarded.get(path, auth=(TOKEN, "")).json()["traits"] == {"plan": "pro"}
    with Sandbox(options=Options(token=TOKEN, spaces=Spaces({"spa_1": "its-own"}))) as sandbox:
        answers = [
            httpx.get(f"{sandbox.url}{path.replace('any', 'spa_1')}", auth=(token, "")).status_code
            for token in (TOKEN, "its-own")
        ]
    assert answers == [401, 404]


def test_this_machines_ipv6_address_is_its_own(environ: dict[str, str]) -> None:
    with running(environ, "sandbox", "--host", "::1", "--port", "0", "--db", ":memory:") as (_, url):
        assert url.startswith("http://[::1]:")
        assert httpx.post(f"{url}/v1/track", json={"event": "A", "userId": "u"}, auth=("k", "")).status_code == 200
        assert len(httpx.get(f"{url}/_sandbox/messages").json()["messages"]) == 1


def test_odd_questions_are_refused_and_answered(guarded: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert guarded.delete(f"/_sandbox/faults/{'9' * 5000}", headers=headers).status_code == 404
    assert guarded.get("/_sandbox/messages", params={"text": "a" * 1001}, headers=headers).status_code == 400

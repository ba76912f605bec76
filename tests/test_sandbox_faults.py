"""Faults on request: what a caller of the sandbox meets with, and that nothing else of it changes."""

import atexit
import json
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from segment.analytics import request as library_http
from segment.analytics.client import Client as Library
from support import KEY, WAIT, Caller, program, rows, running

from segment_tools.sandbox.faults import fault_in
from segment_tools.sandbox.options import Options
from segment_tools.sandbox.run import Sandbox

TRACK = {"userId": "u1", "event": "Order Completed"}
ACCEPTED = {"success": True}
SAID = "the sandbox was asked for this fault"


@pytest.fixture
def own(sandbox: Sandbox) -> Iterator[Sandbox]:
    """A sandbox without a fault, before and after."""
    sandbox.clear_faults()
    yield sandbox
    sandbox.clear_faults()


def connection(sandbox: Sandbox, seconds: float = 20) -> httpx.Client:
    return httpx.Client(base_url=sandbox.url, auth=httpx.BasicAuth(KEY, ""), trust_env=False, timeout=seconds)


@pytest.fixture
def http(own: Sandbox) -> Iterator[httpx.Client]:
    with connection(own) as client:
        yield client


def send(http: httpx.Client, path: str = "/v1/track") -> httpx.Response:
    return http.post(path, json=TRACK)


def statuses(http: httpx.Client, count: int) -> list[int]:
    return [send(http).status_code for _ in range(count)]


def faults(http: httpx.Client) -> list[dict[str, Any]]:
    return http.get("/_sandbox/faults").json()["faults"]


def test_a_fault_is_listed_as_it_is_answered(http: httpx.Client) -> None:
    asked = {"status": 503, "headers": {"Retry-After": "3"}, "times": 3, "path": "/v1/t"}
    response = http.post("/_sandbox/faults", json=asked)
    shown = {"id": response.json()["id"], "kind": "answer", "share": None, "left": 3, "used": 0, "seen": 0, **asked}
    assert (response.status_code, response.json()) == (201, shown)
    assert statuses(http, 2) == [503, 503]
    assert faults(http) == [{**shown, "left": 1, "used": 2, "seen": 2}]


def test_a_spent_fault_is_listed_and_has_no_effect(http: httpx.Client) -> None:
    http.post("/_sandbox/faults", json={"status": 500})
    assert statuses(http, 3) == [500, 200, 200]
    (fault,) = faults(http)
    assert (fault["times"], fault["left"], fault["used"], fault["seen"]) == (1, 0, 1, 1)


def test_an_answer_has_the_status_the_headers_and_the_body_that_were_asked_for(http: httpx.Client) -> None:
    body = [{"a": None}, "half \ud83d", 1.5]
    asked = {"kind": "answer", "status": 429, "headers": {"Retry-After": "7", "X-RateLimit-Reset": "7"}, "body": body}
    assert http.post("/_sandbox/faults", content=json.dumps(asked)).json()["body"] == body
    response = send(http)
    assert (response.status_code, response.json()) == (429, body)
    assert (response.headers["retry-after"], response.headers["x-ratelimit-reset"]) == ("7", "7")
    assert response.headers["content-type"] == "application/json"


def test_an_answer_may_be_another_servers_page(http: httpx.Client, own: Sandbox) -> None:
    own.fault(status=502, headers={"content-type": "text/html"}, body="<h1>Bad gateway</h1>")
    response = send(http)
    assert (response.text, response.headers["content-type"]) == ("<h1>Bad gateway</h1>", "text/html")


def test_an_answer_may_have_no_body_at_all(http: httpx.Client, own: Sandbox) -> None:
    own.fault(status=204)
    response = send(http)
    assert (response.status_code, response.content) == (204, b"")
    assert send(http).json() == ACCEPTED


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/batch", {"success": False, "message": SAID, "code": "unavailable"}),
        ("/v1/m", {"success": False, "message": SAID, "code": "unavailable"}),
        ("/v1/spaces/s/collections/users/profiles", {"error": {"code": "unavailable", "message": SAID}}),
        ("/v1/namespaces/s/collections/users/profiles", {"error": {"code": "unavailable", "message": SAID}}),
    ],
)
def test_without_a_body_an_answer_has_the_apis_own_error(
    path: str, body: dict[str, Any], http: httpx.Client, own: Sandbox
) -> None:
    own.fault(status=503)
    response = send(http, path)
    assert (response.status_code, response.json()) == (503, body)


def test_what_is_answered_with_a_fault_is_not_kept(http: httpx.Client, own: Sandbox) -> None:
    own.fault(status=500, times=2)
    assert statuses(http, 3) == [500, 500, 200]
    assert len(rows(own)) == 1


def test_a_large_body_is_read_before_the_answer_and_the_connection_lives_on(http: httpx.Client, own: Sandbox) -> None:
    own.fault(status=413)
    assert http.post("/v1/batch", content=b"x" * 3_000_000).status_code == 413
    assert send(http).status_code == 200


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"share": 0.25}, [200, 200, 200, 500] * 3),
        ({"share": 0.4}, [200, 200, 500, 200, 500] * 2),
        ({"share": 1}, [500] * 6),
        ({"share": 0.5, "times": 2}, [200, 500, 200, 500, 200, 200, 200, 200]),
        ({"times": 2}, [500, 500, 200, 200]),
        ({}, [500, 200, 200]),
    ],
)
def test_a_share_is_spread_evenly_and_times_end_it(
    fault: dict[str, Any], expected: list[int], http: httpx.Client, own: Sandbox
) -> None:
    own.fault(status=500, **fault)
    assert statuses(http, len(expected)) == expected


def test_a_share_is_kept_to_exactly_over_many_requests(own: Sandbox) -> None:
    own.fault(status=500, share=0.29)
    with connection(own) as http:
        assert statuses(http, 100).count(500) == 29


def test_the_oldest_fault_that_applies_wins(http: httpx.Client, own: Sandbox) -> None:
    own.fault(status=501, path="/v1/batch")
    own.fault(status=502, times=2)
    own.fault(status=503)
    found = [send(http, path).status_code for path in ("/v1/track", "/v1/batch", "/v1/track", "/v1/track", "/v1/t")]
    assert found == [502, 501, 502, 503, 200]


def test_only_segments_own_paths_meet_with_faults(http: httpx.Client, own: Sandbox) -> None:
    own.fault(status=500, share=1)
    assert {http.get(path).status_code for path in ("/_sandbox/messages", "/_sandbox/faults", "/_sandbox/reasons")} == {
        200
    }
    assert http.get("/").status_code == 200
    assert http.get("/v1/projects/key/settings").status_code == 500
    assert http.get("/v1/pixel/track").status_code == 500


def test_a_request_in_another_hosts_name_uses_no_fault(http: httpx.Client, own: Sandbox) -> None:
    own.fault(status=500)
    assert http.post("/v1/track", json=TRACK, headers={"Host": "example.com"}).status_code == 400
    assert send(http).status_code == 500


def test_a_browser_may_read_a_fault_and_its_question_before_uses_none(http: httpx.Client, own: Sandbox) -> None:
    own.fault(status=500)
    origin = {"Origin": "https://shop.example"}
    asked = http.options("/v1/t", headers={**origin, "Access-Control-Request-Method": "POST"})
    response = http.post("/v1/t", json=TRACK, headers=origin)
    assert (asked.status_code, response.status_code) == (200, 500)
    assert response.headers["access-control-allow-origin"] == "*"


def test_faults_are_forgotten_together_and_one_by_one(http: httpx.Client, own: Sandbox) -> None:
    first, _, last = (own.fault(status=status, times=9)["id"] for status in (500, 501, 502))
    assert http.delete(f"/_sandbox/faults/{first}").json() == {"deleted": 1}
    assert http.delete(f"/_sandbox/faults/{first}").status_code == 404
    assert [fault["status"] for fault in faults(http)] == [501, 502]
    assert send(http).status_code == 501
    assert http.delete("/_sandbox/faults").json() == {"deleted": 2}
    assert faults(http) == []
    assert send(http).status_code == 200
    own.fault(status=503)
    assert [fault["id"] for fault in faults(http)] == [last + 1]
    own.clear_faults()
    assert send(http).status_code == 200


WRONG: dict[str, tuple[Any, str]] = {
    "a list": ([], "a fault is a JSON object"),
    "nothing": ({}, "kind must be one of answer, slow, hang, reset, drop"),
    "an unknown kind": ({"kind": "explode"}, "kind must be one of"),
    "a kind that is no text": ({"kind": ["answer"]}, "kind must be one of"),
    "an unknown field": ({"status": 500, "stauts": 1}, "unknown field 'stauts'"),
    "another kind's field": ({"kind": "hang", "seconds": 1}, "unknown field 'seconds': the kind hang takes kind, path"),
    "no status": ({"kind": "answer"}, "status must be a whole number"),
    "a status that is text": ({"status": "503"}, "status must be a whole number from 200 to 599"),
    "a status that is true": ({"status": True}, "status must be"),
    "a status beyond all": ({"status": 600}, "status must be"),
    "an interim status": ({"status": 100}, "status must be"),
    "a body where there is none": ({"status": 204, "body": {}}, "leave body out"),
    "headers that are a list": ({"status": 500, "headers": []}, "headers must be an object"),
    "a header that is a number": ({"status": 500, "headers": {"Retry-After": 3}}, "headers must be an object of texts"),
    "a header with a line break": ({"status": 500, "headers": {"A": "b\r\nc: d"}}, "headers must be an object"),
    "a header with a wrong name": ({"status": 500, "headers": {"a b": "c"}}, "headers must be an object"),
    "a header beyond ASCII": ({"status": 500, "headers": {"a": "é"}}, "headers must be an object"),
    "a length": ({"status": 500, "headers": {"Content-Length": "3"}}, "headers must not have Content-Length"),
    "no seconds": ({"kind": "slow"}, "seconds must be"),
    "seconds below 0": ({"kind": "slow", "seconds": -1}, "seconds must be"),
    "seconds without end": ({"kind": "slow", "seconds": 1e9}, "seconds must be"),
    "times 0": ({"status": 500, "times": 0}, "times must be"),
    "half a time": ({"status": 500, "times": 1.5}, "times must be"),
    "times true": ({"status": 500, "times": True}, "times must be"),
    "share 0": ({"status": 500, "share": 0}, "share must be"),
    "a share above 1": ({"status": 500, "share": 1.1}, "share must be"),
    "a share that is text": ({"status": 500, "share": "0.5"}, "share must be"),
    "the sandbox's own path": ({"status": 500, "path": "/_sandbox"}, "path must begin with /v1/ or /token"),
    "a path that is no text": ({"status": 500, "path": 5}, "path must begin with"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_fault_is_refused_with_what_would_be_right(case: str, http: httpx.Client) -> None:
    wrong, said = WRONG[case]
    response = http.post("/_sandbox/faults", json=wrong)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
    assert said in response.json()["message"]
    assert faults(http) == []


def test_a_wrong_fault_is_refused_from_python_too(own: Sandbox) -> None:
    with pytest.raises(ValueError, match="unknown field 'stauts'"):
        own.fault(status=500, stauts=500)
    with pytest.raises(ValueError, match="body must be JSON"):
        own.fault(status=500, body={1, 2})


def test_a_slow_answer_is_right_and_late(http: httpx.Client, own: Sandbox) -> None:
    own.fault(kind="slow", seconds=0.3)
    before = time.monotonic()
    assert send(http).json() == ACCEPTED
    assert time.monotonic() - before >= 0.3
    assert len(rows(own)) == 1


def test_what_a_caller_does_not_wait_for_is_kept_all_the_same(own: Sandbox) -> None:
    own.fault(kind="slow", seconds=WAIT)
    with connection(own, 0.5) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/track", json={**TRACK, "messageId": "late-0001"})
        assert http.post("/v1/track", json={**TRACK, "messageId": "late-0001"}).json() == ACCEPTED
    assert [row["discarded"] for row in rows(own)] == [None, "duplicate"]


def test_a_hanging_request_is_never_answered_and_not_kept(own: Sandbox) -> None:
    own.fault(kind="hang")
    with connection(own, 0.3) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.post("/v1/batch", content=b"x" * 3_000_000)
        assert send(http).json() == ACCEPTED
    assert len(rows(own)) == 1


@pytest.mark.parametrize("fault", [{"kind": "hang"}, {"kind": "slow", "seconds": 600}])
def test_a_request_that_is_held_does_not_hold_up_the_end(
    fault: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with ThreadPoolExecutor() as pool:
        sandbox = Sandbox(options=Options(faults=(fault_in(json.dumps({**fault, "times": 3})),)))
        http = connection(sandbox)
        held = [pool.submit(send, http) for _ in range(3)]
        deadline = time.monotonic() + WAIT
        while faults(http)[0]["used"] < 3:
            assert time.monotonic() < deadline
        before = time.monotonic()
        sandbox.close()
        assert time.monotonic() - before < 2
        assert {type(future.exception(WAIT)) for future in held} == {httpx.RemoteProtocolError}
        http.close()
    assert caplog.records == []


def test_a_reset_is_one_and_nothing_is_kept(own: Sandbox) -> None:
    own.fault(kind="reset")
    with socket.create_connection(("127.0.0.1", int(own.url.rpartition(":")[2])), timeout=WAIT) as raw:
        raw.sendall(b"POST /v1/track HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
        with pytest.raises(ConnectionResetError):
            raw.recv(1)
    assert rows(own) == []


def test_a_dropped_request_is_kept_and_its_connection_closed_without_an_answer(own: Sandbox) -> None:
    own.fault(kind="drop")
    body = json.dumps({**TRACK, "writeKey": KEY}).encode()
    with socket.create_connection(("127.0.0.1", int(own.url.rpartition(":")[2])), timeout=WAIT) as raw:
        raw.sendall(b"POST /v1/track HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        assert raw.recv(1) == b""
    assert [row["discarded"] for row in rows(own)] == [None]


def test_no_fault_is_an_error_of_the_sandboxs(own: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    for kind in ("reset", "drop", "hang"):
        own.fault(kind=kind)
    with connection(own, 0.3) as http:
        for _ in range(3):
            with pytest.raises(httpx.TransportError):
                send(http)
        assert send(http).json() == ACCEPTED
    assert caplog.records == []


def test_a_client_that_resets_a_hanging_request_ends_it(own: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    own.fault(kind="hang")
    with socket.create_connection(("127.0.0.1", int(own.url.rpartition(":")[2])), timeout=WAIT) as raw:
        raw.sendall(b"POST /v1/track HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with connection(own) as http:
        assert send(http).status_code in (200, 500)
    assert caplog.records == []


def test_every_request_of_many_threads_counts_once(own: Sandbox) -> None:
    own.fault(status=500, times=40)
    with connection(own) as http, ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: send(http).status_code, range(100)))
    assert (found.count(500), found.count(200)) == (40, 60)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503, "headers": {"Retry-After": "0"}, "times": 2},
        {"status": 429, "headers": {"Retry-After": "0", "X-RateLimit-Reset": "0"}},
        {"kind": "reset"},
        {"kind": "drop"},
    ],
)
def test_segments_own_library_gets_over_a_fault(
    fault: dict[str, Any], own: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    own.fault(**fault)
    failures: list[Exception] = []
    client = Library(
        KEY, host=own.url, timeout=10, upload_interval=0.1, on_error=lambda error, _: failures.append(error)
    )
    assert client.track("u1", "Order Completed")[0]
    client.shutdown()
    atexit.unregister(client.join)
    library_http._session.close()
    assert (failures, next(row["discarded"] for row in rows(own))) == ([], None)


@pytest.mark.anyio
async def test_the_tools_get_over_a_dropped_answer_and_the_message_counts_once(sandbox: Sandbox, call: Caller) -> None:
    sandbox.fault(kind="drop")
    result = await call("segment_track", TRACK)
    sandbox.clear_faults()
    assert result["success"]
    assert [row["discarded"] for row in rows(sandbox)] == [None, "duplicate"]


def test_faults_may_be_options_from_the_start() -> None:
    options = Options(faults=(fault_in('{"status": 503}'), fault_in('{"status": 502}')))
    with Sandbox(options=options) as sandbox, connection(sandbox) as http:
        assert statuses(http, 3) == [503, 502, 200]


def test_the_command_takes_faults(environ: dict[str, str]) -> None:
    given = ["--fault", '{"status": 503}', "--fault", '{"kind": "drop"}']
    with running(environ, "sandbox", "--port", "0", "--db", ":memory:", *given) as (_, url):
        listed = httpx.get(f"{url}/_sandbox/faults", timeout=WAIT).json()["faults"]
    assert [fault["kind"] for fault in listed] == ["answer", "drop"]


@pytest.mark.parametrize(
    ("fault", "said"), [("{", "a fault is a JSON object"), ('{"times": 1}', "kind must be one of")]
)
def test_the_command_refuses_a_wrong_fault(fault: str, said: str, environ: dict[str, str]) -> None:
    command = program("sandbox", "--port", "0", "--db", ":memory:", "--fault", fault)
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=WAIT, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--fault: {said}" in done.stderr

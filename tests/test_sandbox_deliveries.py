"""Deliveries out: what the sandbox sends on to webhooks, as they get it over real HTTP, and how often."""

import hashlib
import hmac
import json
import logging
import math
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from node import run as run_node
from support import KEY, WAIT, program, running

from segment_tools.sandbox.javascript_json import stringify
from segment_tools.sandbox.options import Options
from segment_tools.sandbox.run import Sandbox
from segment_tools.sandbox.webhooks import Outcome, Pace, Webhooks, next_attempt, webhook_of

SECRET = "wh-RECOGNISABLE-secret-7d1c"
TRACK: dict[str, Any] = {"type": "track", "userId": "u1", "event": "Order Completed"}
QUICK = Pace(first_wait=0.02, most_wait=0.05)


@dataclass
class Request:
    path: str
    headers: Mapping[str, str]
    body: bytes


Answer = int | tuple[int, dict[str, str]] | str
"""A status, a status with headers, or `hang` or `close`."""


@dataclass
class Receiver:
    """A webhook that answers as told, one answer after the other, the last one for ever."""

    answers: list[Answer] = field(default_factory=lambda: [200])
    requests: list[Request] = field(default_factory=list)
    _change: threading.Condition = field(default_factory=threading.Condition)
    _released: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def take(self, request: Request) -> Answer:
        with self._change:
            self.requests.append(request)
            self._change.notify_all()
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def wait_for(self, done: Callable[[], bool]) -> None:
        with self._change:
            assert self._change.wait_for(done, WAIT), f"{len(self.requests)} requests"

    def got(self, count: int) -> list[Request]:
        """The requests, once there are so many."""
        self.wait_for(lambda: len(self.requests) >= count)
        return list(self.requests)

    def messages(self) -> list[dict[str, Any]]:
        bodies = [json.loads(request.body) for request in self.requests]
        return [message for body in bodies for message in (body if isinstance(body, list) else [body])]


@contextmanager
def receiving(*answers: Answer) -> Iterator[Receiver]:
    receiver = Receiver(list(answers) or [200])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:
                return  # the sender was killed
            answer = receiver.take(Request(self.path, dict(self.headers), body))
            if answer == "hang":
                receiver._released.wait(WAIT)
            if isinstance(answer, str):
                self.close_connection = True
                return
            status, headers = answer if isinstance(answer, tuple) else (answer, {})
            self.send_response(status)
            for name, value in {**headers, "Content-Length": "2"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *args: Any) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            """The client went."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        receiver.url = f"http://127.0.0.1:{server.server_port}/segment"
        yield receiver
        receiver._released.set()
        server.shutdown()
        thread.join(WAIT)


@contextmanager
def sending(*urls: str, db: str | Path = ":memory:", **chosen: Any) -> Iterator[httpx.Client]:
    """A client of a sandbox that sends on to these addresses."""
    webhooks = Webhooks(tuple(map(webhook_of, urls)), **{"secret": SECRET, "pace": QUICK, **chosen})
    with (
        Sandbox(db, options=Options(webhooks=webhooks)) as sandbox,
        httpx.Client(base_url=sandbox.url, auth=httpx.BasicAuth(KEY, ""), trust_env=False, timeout=WAIT) as http,
    ):
        yield http


def batch(http: httpx.Client, *messages: Mapping[str, Any]) -> None:
    assert http.post("/v1/batch", json={"batch": [{**TRACK, **message} for message in messages]}).status_code == 200


def deliveries(http: httpx.Client, **query: str) -> dict[str, Any]:
    response = http.get("/_sandbox/deliveries", params=query)
    assert response.status_code == 200
    return response.json()


def settled(http: httpx.Client, done: Callable[[dict[str, Any]], bool] | None = None) -> dict[str, Any]:
    """What is listed, once nothing is pending, or what is asked for is so."""
    deadline = time.monotonic() + WAIT
    while not (done or (lambda listed: listed["totals"]["pending"] == 0))(listed := deliveries(http)):
        assert time.monotonic() < deadline, listed
    return listed


def signature(secret: str, signed: bytes) -> str:
    return hmac.new(secret.encode(), signed, hashlib.sha1).hexdigest()


def test_an_accepted_message_is_sent_on_in_the_form_it_is_delivered_in() -> None:
    odd = '{ "price": 1.0, "name": "Caf\\u00e9" }'
    with receiving() as receiver, sending(receiver.url) as http:
        sent = f'{{"batch":[{{"type":"track","userId":"u1","event":"A","messageId":"m-0001","properties":{odd}}}]}}'
        assert http.post("/v1/batch", content=sent).status_code == 200
        (request,) = receiver.got(1)
        (row,) = http.get("/_sandbox/messages").json()["messages"]
        assert json.loads(request.body) == row["message"]
        assert b'"messageId":"m-0001","properties":{"price":1,"name":"Caf\xc3\xa9"}' in request.body
        assert (request.headers["Content-Type"], request.headers["User-Agent"]) == (
            "application/json",
            "Segment.io/1.0",
        )
        assert request.headers["X-Signature"] == signature(SECRET, request.body)
        listed = settled(http)
    shown = {
        "webhook": receiver.url,
        "sequence": 1,
        "attempts": 1,
        "state": "delivered",
        "lastStatus": 200,
        "dueAt": None,
    }
    assert listed == {"deliveries": [shown], "totals": {"pending": 0, "delivered": 1, "failed": 0}}


def test_what_segment_drops_is_not_sent_on() -> None:
    with receiving() as receiver, sending(receiver.url) as http:
        batch(http, {"messageId": "m-0001"}, {"event": ""}, {"userId": None}, {"messageId": "m-0001"}, {"event": "B"})
        assert {message["event"] for message in (receiver.got(2), receiver.messages())[1]} == {"Order Completed", "B"}
        assert settled(http)["totals"] == {"pending": 0, "delivered": 2, "failed": 0}
        assert len(receiver.requests) == 2


def test_without_a_secret_nothing_is_signed() -> None:
    with receiving() as receiver, sending(receiver.url, secret="") as http:
        batch(http, {})
        (request,) = receiver.got(1)
        assert "X-Signature" not in request.headers


def test_a_batch_is_an_array_signed_by_its_first_message() -> None:
    with receiving() as receiver, sending(receiver.url, batch=3) as http:
        batch(http, *({"properties": {"number": number}} for number in range(5)))
        first, second = sorted(receiver.got(2), key=lambda request: -len(request.body))
        assert settled(http)["totals"]["delivered"] == 5
    assert [len(json.loads(request.body)) for request in (first, second)] == [3, 2]
    assert [message["properties"]["number"] for message in json.loads(first.body)] == [0, 1, 2]
    assert first.headers["User-Agent"] == "Segment (Actions)"
    head = json.dumps(json.loads(first.body)[0], separators=(",", ":"), ensure_ascii=False).encode()
    assert first.body.startswith(b"[" + head + b",")
    assert first.headers["X-Signature"] == signature(SECRET, head)


def test_every_webhook_gets_every_message() -> None:
    with (
        receiving() as one,
        receiving(500, 200) as two,
        sending(one.url, f"{two.url}?key=1", f"{two.url}?key=2") as http,
    ):
        batch(http, {})
        one.got(1)
        two.got(3)
        listed = settled(http)
    assert sorted({request.path for request in two.requests}) == ["/segment?key=1", "/segment?key=2"]
    assert sorted(row["webhook"] for row in listed["deliveries"]) == sorted([one.url, two.url, two.url])


RETRIED: dict[str, tuple[list[Answer], list[Any]]] = {
    "500": ([500, 200], [500]),
    "503 thrice": ([503, 503, 503, 204], [503]),
    "429": ([(429, {"Retry-After": "0"}), 200], [429]),
    "429 with a date that has passed": ([(429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), 200], [429]),
    "a header that is no time": ([(503, {"Retry-After": "soon"}), 200], [503]),
    "a closed connection": (["close", 200], ["ECONNRESET"]),
    "no answer": (["hang", 200], ["ETIMEDOUT"]),
}


@pytest.mark.parametrize("case", RETRIED)
def test_what_may_pass_is_tried_again(case: str) -> None:
    answers, _ = RETRIED[case]
    tries = len(answers)
    pace = Pace(single=0.3, first_wait=0.02, most_wait=0.05)
    with receiving(*answers) as receiver, sending(receiver.url, pace=pace) as http:
        batch(http, {"messageId": "m-0001"})
        requests = receiver.got(tries)
        (row,) = settled(http)["deliveries"]
    assert (row["state"], row["attempts"], row["lastStatus"]) == ("delivered", tries, answers[-1])
    assert len({request.body for request in requests}) == 1
    assert len({request.headers["X-Signature"] for request in requests}) == 1


@pytest.mark.parametrize("case", RETRIED)
def test_what_was_tried_in_vain_says_what_it_came_to(case: str) -> None:
    answers, expected = RETRIED[case]
    pace = Pace(single=0.3, first_wait=WAIT * 10)
    first = (answers[0][0], {}) if isinstance(answers[0], tuple) else answers[0]
    with receiving(first) as receiver, sending(receiver.url, pace=pace) as http:
        batch(http, {})
        receiver.got(1)
        (row,) = settled(http, lambda listed: listed["deliveries"][0]["attempts"] == 1)["deliveries"]
    assert ([row["lastStatus"]], row["state"]) == (expected, "pending")


@pytest.mark.parametrize(
    "answer", [400, 401, 404, 410, 422, (302, {"Location": "/elsewhere"}), (307, {"Location": "/"})]
)
def test_what_will_not_pass_ends_it(answer: Answer) -> None:
    with receiving(answer) as receiver, sending(receiver.url) as http:
        batch(http, {})
        (row,) = settled(http)["deliveries"]
        assert len(receiver.requests) == 1
    status = answer[0] if isinstance(answer, tuple) else answer
    assert (row["state"], row["attempts"], row["lastStatus"], row["dueAt"]) == ("failed", 1, status, None)


def test_nobody_there_is_tried_again() -> None:
    with receiving() as receiver:
        gone = receiver.url
    with sending(gone) as http:
        batch(http, {})
        (row,) = settled(http, lambda listed: listed["deliveries"][0]["attempts"] >= 2)["deliveries"]
    assert (row["state"], row["lastStatus"]) == ("pending", "ECONNREFUSED")


@dataclass
class Clock:
    """The real time, and more."""

    ahead: float = 0.0

    def __call__(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead)


def test_a_webhook_is_left_alone_as_long_as_it_asks() -> None:
    clock = Clock()
    with (
        receiving((429, {"Retry-After": "3600"}), 200) as receiver,
        sending(receiver.url, pace=Pace(first_wait=0.02, most_wait=0.05, clock=clock)) as http,
    ):
        batch(http, {"messageId": "m-0001"})
        (row,) = settled(http, lambda listed: listed["deliveries"][0]["attempts"] == 1)["deliveries"]
        due = datetime.fromisoformat(row["dueAt"])
        assert timedelta(minutes=59) < due - datetime.now(UTC) <= timedelta(hours=1)
        batch(http, {"messageId": "m-0002"})
        receiver.got(2)
        settled(http, lambda listed: listed["totals"]["delivered"] == 1)
        assert [message["messageId"] for message in receiver.messages()] == ["m-0001", "m-0002"]
        clock.ahead = 3601
        batch(http, {"messageId": "m-0003"})
        settled(http)
        assert sorted(message["messageId"] for message in receiver.messages()[2:]) == ["m-0001", "m-0003"]


def test_after_four_hours_it_is_given_up() -> None:
    clock = Clock()
    with (
        receiving(503) as receiver,
        sending(receiver.url, pace=Pace(first_wait=0.02, most_wait=0.05, clock=clock)) as http,
    ):
        batch(http, {})
        receiver.got(3)
        clock.ahead = 4 * 3600 + 1
        (row,) = settled(http)["deliveries"]
    assert (row["state"], row["lastStatus"], row["dueAt"]) == ("failed", 503, None)


NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_waits_double_up_to_ten_minutes_with_some_chance(spread: float) -> None:
    pace = Pace(spread=lambda: spread)
    share = 0.5 + spread / 2
    assert [pace.wait(attempts) / share for attempts in (1, 2, 3, 10, 11, 1000)] == [1, 2, 4, 512, 600, 600]


@pytest.mark.parametrize(
    ("status", "headers", "hours", "seconds"),
    [
        (500, {}, 0, 1),
        ("ETIMEDOUT", {}, 0, 1),
        (429, {"retry-after": "7"}, 0, 7),
        (503, {"retry-after": "Mon, 23 Nov 2026 12:00:09 GMT"}, 0, 9),
        (503, {"retry-after": "Mon, 23 Nov 2026 12:00:09 -0000"}, 0, 9),
        (503, {"retry-after": "Mon, 23 Nov 2026 11:00:00 GMT"}, 0, 1),
        (503, {"retry-after": "-7"}, 0, 1),
        (503, {}, 3.9, 1),
        (503, {}, 4, None),
        (503, {"retry-after": "0"}, 0, 1),
        (503, {"retry-after": "999999999"}, 0, 4 * 3600),
        (503, {"retry-after": "999999999"}, 3, 3600),
        (503, {"retry-after": "7"}, 4, None),
        (503, {"retry-after": "Fri, 31 Dec 9999 23:59:59 -0100"}, 0, 4 * 3600),
        (404, {"retry-after": "7"}, 0, None),
        (304, {}, 0, None),
    ],
)
def test_the_next_attempt(status: int | str, headers: dict[str, str], hours: float, seconds: float | None) -> None:
    found = next_attempt(Pace(spread=lambda: 1.0), Outcome(status, headers), 1, NOW - timedelta(hours=hours), NOW)
    assert found == (None if seconds is None else NOW + timedelta(seconds=seconds))


NUMBERS = {
    "0": "0",
    "-0": "0",
    "-0.0": "0",
    "0e5": "0",
    "1.0": "1",
    "-1.50": "-1.5",
    "1E2": "100",
    "0.1": "0.1",
    "0.30000000000000004": "0.30000000000000004",
    "1e-6": "0.000001",
    "0.00000123": "0.00000123",
    "1e-7": "1e-7",
    "1.25e-7": "1.25e-7",
    "5e-324": "5e-324",
    "123456789.123456789": "123456789.12345679",
    "1e20": "100000000000000000000",
    "123456789012345680000": "123456789012345680000",
    "1e21": "1e+21",
    "1.5e300": "1.5e+300",
    "1.7976931348623157e308": "1.7976931348623157e+308",
    "9007199254740992": "9007199254740992",
    "9007199254740993": "9007199254740992",
    "-9007199254740993": "-9007199254740992",
    "9223372036854775807": "9223372036854776000",
    "18446744073709551616": "18446744073709552000",
    "1" + "0" * 40: "1e+40",
    "9" * 400: "null",
    "-" + "9" * 400: "null",
}
TEXTS = (
    '"plain"',
    '"Caf\u00e9 \u6f22\u5b57 \U0001f469"',
    '"\\u0000\\u001f\\u007f\\u2028\\u2029\\ufeff"',
    '"\\b\\f\\n\\r\\t\\"\\\\\\/"',
    '"\\ud83d"',
    '"\\uDE00 \\uD83D"',
    '"\\ud83d\\ude00"',
    '{"\\ud83d": 1, "b": [{}, [], null, true, false, ""]}',
    '{"b": 1, "10": 2, "9": 3, "a": 4, "01": 5, "-1": 6, "4294967294": 7, "4294967295": 8}',
    '{"a": 1, "b": 2, "a": 3}',
    '{ "spaced" : [ 1 , 2.50 ] }',
)


@pytest.mark.parametrize("text", NUMBERS)
def test_a_number_is_written_as_javascript_writes_it(text: str) -> None:
    assert stringify(json.loads(text)) == NUMBERS[text]


def test_what_json_has_no_number_for_is_null() -> None:
    assert stringify([math.inf, -math.inf, math.nan]) == "[null,null,null]"


def test_javascript_itself_writes_the_same(node: list[str], environ: dict[str, str], tmp_path: Path) -> None:
    doubles = [
        repr(sign * base * 10.0**power) for sign in (1, -1) for base in (1, 1.5, 7.1) for power in range(-30, 31)
    ]
    texts = [*NUMBERS, *TEXTS, *doubles]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    script = (
        "const texts = JSON.parse(require('fs').readFileSync('texts.json', 'utf8'));"
        "process.stdout.write(texts.map((text) => JSON.stringify(JSON.parse(text))).join('\\n'))"
    )
    done = run_node([*node, "-e", script], tmp_path, WAIT, environ)
    assert done.returncode == 0, done.stderr
    assert [stringify(json.loads(text)) for text in texts] == done.stdout.split("\n")


def test_any_message_reaches_the_webhook_as_utf_8() -> None:
    numbers = '"2":-0.0,"1":1e21,"x":12345678901234567890'
    odd = f'{{"userId":"u1","event":"E \\ud83d","properties":{{{numbers},"\\uDE00":"\\u2028"}}}}'
    with receiving() as receiver, sending(receiver.url) as http:
        assert http.post("/v1/track", content=odd).status_code == 200
        (request,) = receiver.got(1)
    wanted = '"event":"E \\ud83d","properties":{"1":1e+21,"2":0,"x":12345678901234567000,"\\ude00":"\u2028"}'
    assert wanted.encode() in request.body
    assert request.headers["X-Signature"] == signature(SECRET, request.body)


def test_two_thousand_messages_arrive_each_of_them(tmp_path: Path) -> None:
    with receiving(500, 503, "close", 200) as receiver, sending(receiver.url, db=tmp_path / "sandbox.db") as http:
        for part in range(20):
            batch(http, *({"messageId": f"message-{part * 100 + number:04}"} for number in range(100)))
        assert settled(http)["totals"] == {"pending": 0, "delivered": 2000, "failed": 0}
    assert {message["messageId"] for message in receiver.messages()} == {f"message-{n:04}" for n in range(2000)}


def test_no_more_than_sixteen_requests_are_under_way_at_once() -> None:
    with receiving("hang") as receiver, sending(receiver.url, pace=Pace(single=WAIT)) as http:
        batch(http, *({} for _ in range(100)))
        receiver.got(16)
        assert deliveries(http)["totals"]["pending"] == 100
        batch(http, {})
        assert len(receiver.requests) == 16
        before = time.monotonic()
    assert time.monotonic() - before < 3


def test_a_webhook_that_hangs_does_not_hold_up_another() -> None:
    with receiving("hang") as slow, receiving() as quick, sending(slow.url, quick.url, pace=Pace(single=WAIT)) as http:
        batch(http, *({} for _ in range(50)))
        quick.got(50)
        slow.got(16)


def test_what_is_pending_is_sent_after_a_restart_and_only_that(tmp_path: Path) -> None:
    db = tmp_path / "sandbox.db"
    with receiving(200, 503) as receiver:
        with sending(receiver.url, db=db, batch=None) as http:
            batch(http, {"messageId": "m-0001"})
            settled(http)
            batch(http, {"messageId": "m-0002"})
            receiver.got(2)
        with sending(db=db) as http:
            batch(http, {"messageId": "m-0003"})
        receiver.answers = [200]
        seen = len(receiver.requests)
        with sending(receiver.url, db=db) as http:
            assert settled(http)["totals"]["delivered"] == 2
    assert {message["messageId"] for message in receiver.messages()[seen:]} == {"m-0002"}


def test_a_killed_sandbox_goes_on_where_it_was(environ: dict[str, str], tmp_path: Path) -> None:
    secretly = {**environ, "SEGMENT_SANDBOX_WEBHOOK_SECRET": SECRET}
    arguments = ["sandbox", "--port", "0", "--db", str(tmp_path / "sandbox.db")]
    with receiving(503) as receiver:
        arguments += ["--webhook", receiver.url]
        with running(secretly, *arguments) as (process, url):
            for part in range(5):
                items = [{**TRACK, "messageId": f"message-{part * 40 + number:04}"} for number in range(40)]
                sent = httpx.post(f"{url}/v1/batch", json={"batch": items, "writeKey": KEY}, timeout=WAIT)
                assert sent.status_code == 200
            receiver.got(10)
            process.kill()
            process.wait(WAIT)
        receiver.answers = [200]
        with running(secretly, *arguments) as (_, url), closing(httpx.Client(base_url=url, timeout=WAIT)) as http:
            assert settled(http)["totals"] == {"pending": 0, "delivered": 200, "failed": 0}
    assert {message["messageId"] for message in receiver.messages()} == {f"message-{n:04}" for n in range(200)}
    assert {request.headers["X-Signature"] == signature(SECRET, request.body) for request in receiver.requests} == {
        True
    }


def test_forgotten_messages_are_not_sent_on() -> None:
    with receiving(503) as receiver, sending(receiver.url, pace=Pace(first_wait=WAIT * 10)) as http:
        batch(http, {}, {})
        receiver.got(2)
        assert http.delete("/_sandbox/messages").json() == {"deleted": 2}
        assert deliveries(http) == {"deliveries": [], "totals": {"pending": 0, "delivered": 0, "failed": 0}}


def test_deliveries_are_listed_newest_first_and_by_state() -> None:
    with receiving(200, 400) as receiver, sending(receiver.url) as http:
        batch(http, {})
        settled(http)
        batch(http, {}, {})
        listed = settled(http)["deliveries"]
        assert [(row["sequence"], row["state"]) for row in listed] == [(3, "failed"), (2, "failed"), (1, "delivered")]
        assert [row["sequence"] for row in deliveries(http, state="failed", limit="1")["deliveries"]] == [3]
        for wrong in ("state=lost", "limit=0", "userId=1"):
            assert http.get(f"/_sandbox/deliveries?{wrong}").status_code == 400


def test_no_secret_is_in_anything_that_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with receiving(500, 200) as receiver:
        url = receiver.url.replace("http://", "http://user%40:pass-5f2a@") + "?token=query-9b1d"
        webhooks = Webhooks((webhook_of(url),), SECRET)
        with sending(url) as http:
            batch(http, {})
            first, _ = receiver.got(2)
            seen = json.dumps(settled(http)) + http.get("/_sandbox/messages").text
    assert first.path == "/segment?token=query-9b1d"
    assert first.headers["Authorization"] == httpx.BasicAuth("user@", "pass-5f2a")._auth_header
    logged = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("asyncio"))
    for secret in (SECRET, "pass-5f2a", "query-9b1d"):
        assert secret not in seen + logged + repr(webhooks) + repr(Options(webhooks=webhooks))


def test_a_sandbox_without_webhooks_keeps_no_deliveries_and_loads_no_client(environ: dict[str, str]) -> None:
    check = "import sys; from segment_tools.sandbox.run import Sandbox\nwith Sandbox(): print('httpx' in sys.modules)"
    done = subprocess.run(
        [*program()[:1], "-c", check], capture_output=True, text=True, env=environ, timeout=WAIT, check=True
    )
    assert done.stdout == "False\n"
    with sending() as http:
        batch(http, {})
        assert deliveries(http) == {"deliveries": [], "totals": {"pending": 0, "delivered": 0, "failed": 0}}


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com",
        "example.com/segment",
        "https://",
        "http://[::1",
        "http://host:99999/",
        "http://ho st/",
        "http://höst/",
        "http://host/#part",
        "javascript:alert(1)",
        "http://user:SECRETPASS@:80/",
    ],
)
def test_the_command_refuses_what_is_no_address_without_repeating_it(url: str, environ: dict[str, str]) -> None:
    done = refused(environ, "--webhook", url)
    assert re.search(r"--webhook (is|must) ", done.stderr)
    assert "SECRETPASS" not in done.stderr


def test_the_command_takes_five_webhooks_and_batches_within_reason(environ: dict[str, str]) -> None:
    six = [part for number in range(6) for part in ("--webhook", f"http://127.0.0.1:9/{number}")]
    assert "5 at most" in refused(environ, *six).stderr
    for wrong in ("0", "4001", "x"):
        assert "from 1 to 4000 messages" in refused(environ, "--webhook-batch", wrong).stderr


def refused(environ: dict[str, str], *given: str) -> subprocess.CompletedProcess[str]:
    command = program("sandbox", "--port", "0", "--db", ":memory:", *given)
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=WAIT, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    return done


def test_the_command_sends_batches_signed_with_the_secret_it_is_given(environ: dict[str, str]) -> None:
    with receiving() as receiver:
        given = ["--webhook", receiver.url, "--webhook-secret", SECRET, "--webhook-batch", "10"]
        with running(environ, "sandbox", "--port", "0", "--db", ":memory:", *given) as (_, url):
            items = [TRACK, TRACK]
            assert (
                httpx.post(f"{url}/v1/batch", json={"batch": items, "writeKey": KEY}, timeout=WAIT).status_code == 200
            )
            (request,) = receiver.got(1)
    assert len(json.loads(request.body)) == 2
    head = request.body[1 : request.body.index(b'},{"type"') + 1]
    assert request.headers["X-Signature"] == signature(SECRET, head)

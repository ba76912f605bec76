"""The debugger's routes over real HTTP: the page's files, what its list and details ask, and the stream."""

import json
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import KEY, MIXED, TRACK, WAIT, Caller, comparable

from segment_tools.sandbox.counts import counts
from segment_tools.sandbox.json_text import Body
from segment_tools.sandbox.judge import REASONS, TYPES, verdicts
from segment_tools.sandbox.run import Sandbox
from segment_tools.sandbox.store import FILTERS, Arrival

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
VERDICTS = [None, None, "event_not_defined", "bad_request", None, "duplicate"]


@pytest.fixture
def http(sandbox: Sandbox) -> Iterator[httpx.Client]:
    """A connection that sends the key by Basic authentication."""
    with httpx.Client(base_url=sandbox.url, auth=(KEY, ""), trust_env=False, timeout=WAIT) as client:
        yield client


def unkeyed(sandbox: Sandbox) -> httpx.Client:
    return httpx.Client(base_url=sandbox.url, trust_env=False, timeout=WAIT)


def send(http: httpx.Client, *messages: Any) -> None:
    """Have the messages taken, in one batch."""
    assert http.post("/v1/batch", json={"batch": messages}).json() == {"success": True}


def summaries(http: httpx.Client, **query: str) -> list[dict[str, Any]]:
    response = http.get("/_sandbox/summaries", params=query)
    assert response.status_code == 200, response.text
    return response.json()["messages"]


def newest(http: httpx.Client) -> dict[str, Any]:
    """The newest message, whole."""
    (row,) = summaries(http, limit="1")
    return http.get(f"/_sandbox/messages/{row['sequence']}").json()


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("/", "text/html"), ("/_sandbox/debugger.css", "text/css"), ("/_sandbox/debugger.js", "text/javascript")],
)
def test_a_file_of_the_page_may_do_nothing_but_its_work(path: str, media_type: str, http: httpx.Client) -> None:
    response = http.get(path)
    assert (response.status_code, response.headers["content-type"]) == (200, f"{media_type}; charset=utf-8")
    assert response.headers["content-security-policy"] == POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-cache"
    again = http.get(path, headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_every_script_that_the_page_imports_is_served(http: httpx.Client) -> None:
    found, waiting = set[str](), ["/_sandbox/debugger.js"]
    while waiting:
        path = waiting.pop()
        response = http.get(path)
        assert response.status_code == 200, path
        found.add(path)
        for line in response.text.splitlines():
            if line.startswith(("import ", "} from ")):
                there = httpx.URL(http.base_url.join(path)).join(shlex.split(line.rstrip(";"))[-1]).path
                waiting += [there] if there not in found else []
    assert len(found) > 3


def test_a_summary_says_what_a_list_shows(http: httpx.Client) -> None:
    send(http, {**TRACK, "messageId": "m1"})
    response = http.get("/_sandbox/summaries")
    (row,) = response.json()["messages"]
    assert response.json()["last"] == row.pop("sequence")
    assert row.pop("source").startswith("source-")
    assert abs(datetime.fromisoformat(row.pop("receivedAt")) - datetime.now(UTC)) < timedelta(minutes=1)
    assert row == {
        "path": "/v1/batch",
        "type": "track",
        "userId": "u1",
        "anonymousId": None,
        "name": "Order Completed",
        "messageId": "m1",
        "discarded": None,
    }


@pytest.mark.parametrize(
    ("query", "places"),
    [
        ({}, [5, 4, 3, 2, 1, 0]),
        ({"type": "track"}, [2, 0]),
        ({"discarded": "true"}, [5, 3, 2]),
        ({"discarded": "false"}, [4, 1, 0]),
        ({"reason": "duplicate"}, [5]),
        ({"text": "ORDER comp"}, [0]),
        ({"text": "%"}, []),
        ({"userId": "u4", "limit": "1"}, [5]),
        ({"source": "nobody"}, []),
    ],
    ids=str,
)
def test_summaries_are_found_by_each_filter(query: dict[str, str], places: list[int], http: httpx.Client) -> None:
    send(http, *MIXED)
    numbers = [row["sequence"] for row in reversed(summaries(http))]
    assert [numbers.index(row["sequence"]) for row in summaries(http, **query)] == places


def test_older_summaries_are_reached_by_before_and_newer_by_after(http: httpx.Client) -> None:
    send(http, *MIXED)
    rows = summaries(http)
    number = str(rows[2]["sequence"])
    assert summaries(http, before=number, limit="2") == rows[3:5]
    assert summaries(http, after=number) == rows[:2]


@pytest.mark.parametrize("path", ["summaries", "stream"])
def test_a_wrong_question_is_refused_by_the_name_of_the_filter(path: str, http: httpx.Client) -> None:
    for name in ("colour", "limit", "before", "after", "discarded"):
        response = http.get(f"/_sandbox/{path}", params={name: "red"})
        assert (response.status_code, response.json()["code"]) == (400, "invalid_request")
        assert name in response.json()["message"]


def test_one_message_is_shown_whole(http: httpx.Client) -> None:
    send(http, TRACK)
    found = newest(http)
    assert found["sent"] == TRACK
    assert found["message"].items() >= {**TRACK, "channel": "server", "version": 2}.items()
    assert (found["discarded"], found["meaning"]) == (None, None)
    assert found["toolCall"] == {
        "name": "segment_track",
        "arguments": {name: TRACK[name] for name in ("event", "userId", "properties")},
    }


def test_a_discard_says_what_it_means_and_how_to_mend_it(http: httpx.Client) -> None:
    send(http, *MIXED)
    found = [http.get(f"/_sandbox/messages/{row['sequence']}").json() for row in reversed(summaries(http))]
    assert [row["discarded"] for row in found] == VERDICTS
    assert [row["meaning"] for row in found] == [code and REASONS[code] for code in VERDICTS]
    assert [row["message"] is None for row in found] == [code is not None for code in VERDICTS]


@pytest.mark.parametrize("number", ["0", "999999999", "9" * 15, "9" * 40, "9" * 5000, "-1", "one"])
def test_a_message_that_is_not_there_is_answered_with_404(number: str, http: httpx.Client) -> None:
    response = http.get(f"/_sandbox/messages/{number}")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


HOSTILE = "it's $HOME `id` \"$(id)\" \\' ; \n\r\t @/etc/passwd 'äöü' \u202e \u0000"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("path", ["/v1/track", "/v1/t", "/v1/batch"])
def test_the_curl_command_sends_the_same_message_again(path: str, http: httpx.Client) -> None:
    message = {**TRACK, "event": HOSTILE, "properties": {HOSTILE: HOSTILE, "half": "\ud83d"}}
    body = {"batch": [message]} if path == "/v1/batch" else message
    assert http.post(path, content=json.dumps(body)).json() == {"success": True}
    first = newest(http)
    done = subprocess.run(
        ["/bin/sh", "-c", first["curl"]], capture_output=True, timeout=WAIT, check=True, env={"SEGMENT_WRITE_KEY": KEY}
    )
    assert json.loads(done.stdout) == {"success": True}
    second = newest(http)
    assert second["sequence"] > first["sequence"]
    assert [second[name] for name in ("sent", "source")] == [first[name] for name in ("sent", "source")]


@pytest.mark.parametrize("item", [*MIXED[:4], [1], "text", None, {"type": "track"}], ids=str)
def test_the_curl_command_of_a_batch_item_gets_the_same_verdict(item: Any, http: httpx.Client) -> None:
    send(http, item)
    first = newest(http)
    words = shlex.split(first["curl"].replace("\\\n", ""))
    http.post(words[2], content=words[-1]).raise_for_status()
    second = newest(http)
    assert [second[name] for name in ("sent", "discarded")] == [first[name] for name in ("sent", "discarded")]


GOOD: dict[str, dict[str, Any]] = {
    "track": {"event": "Signed Up", "userId": "u1", "properties": {"plan": "pro"}, "context": {"ip": "10.0.0.1"}},
    "identify": {"userId": "u1", "traits": {"plan": "pro"}, "integrations": {"All": False}},
    "page": {"anonymousId": "a1", "name": "Home"},
    "screen": {"anonymousId": "a1", "name": "Home", "category": "Shop"},
    "group": {"userId": "u1", "groupId": "g1", "traits": {"name": "Acme"}},
    "alias": {"userId": "u1", "previousId": "a1"},
}


@pytest.mark.anyio
@pytest.mark.parametrize("kind", TYPES)
async def test_the_tool_call_makes_the_same_message(kind: str, call: Caller, sandbox: Sandbox) -> None:
    await call(f"segment_{kind}", GOOD[kind])
    async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False, timeout=WAIT) as client:
        first = (await client.get(f"/_sandbox/messages/{sandbox.store.last()}")).json()
        sandbox.store.clear()
        again = await call(first["toolCall"]["name"], first["toolCall"]["arguments"])
        assert (again["success"], again.get("warnings", [])) == (True, [])
        second = (await client.get(f"/_sandbox/messages/{sandbox.store.last()}")).json()
    assert comparable(second["message"]) == comparable(first["message"])
    assert second["message"]["messageId"] == first["message"]["messageId"]


@pytest.mark.parametrize("item", [{"type": "purchase"}, {"userId": "u1"}, [1], "text", None], ids=str)
def test_what_is_of_no_type_has_no_tool_call(item: Any, http: httpx.Client) -> None:
    send(http, item)
    assert newest(http)["toolCall"] is None


def test_half_a_character_and_a_script_are_carried_as_escapes(http: httpx.Client) -> None:
    item = '{"type":"track","userId":"u1","event":"\\ud800","properties":{"</script>":"\\udfff\\u202e"}}'
    assert http.post("/v1/batch", content=f'{{"batch":[{item}]}}').status_code == 200
    number = summaries(http)[0]["sequence"]
    for path in ("summaries", f"messages/{number}"):
        response = http.get(f"/_sandbox/{path}")
        assert response.content.isascii()
        assert response.headers["content-type"] == "application/json"
    assert newest(http)["sent"]["event"] == "\ud800"


def test_counts_are_by_type_by_verdict_and_by_minute(http: httpx.Client) -> None:
    send(http, *MIXED)
    found = http.get("/_sandbox/counts").json()
    assert found["total"] == 6
    assert found["byType"] == {"track": 2, "page": 1, "identify": 2, "other": 1}
    assert found["byVerdict"] == {"accepted": 3, "event_not_defined": 1, "bad_request": 1, "duplicate": 1}
    minutes = found["minutes"]
    assert len(minutes) == 60
    assert [each["minute"] for each in minutes] == sorted(each["minute"] for each in minutes)
    assert [sum(each[name] for each in minutes) for name in ("accepted", "discarded")] == [3, 3]


def test_an_empty_sandbox_counts_nothing(http: httpx.Client) -> None:
    found = http.get("/_sandbox/counts").json()
    assert (found["total"], found["byType"], found["byVerdict"]) == (0, {}, {"accepted": 0})
    assert summaries(http) == []


def test_sources_are_listed(http: httpx.Client) -> None:
    send(http, TRACK)
    http.post("/v1/batch", json={"batch": [TRACK]}, auth=("another", ""))
    found = http.get("/_sandbox/sources").json()["sources"]
    assert found == sorted({row["source"] for row in summaries(http)})
    assert len(found) == 2


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://[", "", "file://"]
)
def test_another_page_may_not_change_anything(origin: str, http: httpx.Client) -> None:
    send(http, TRACK)
    response = http.delete("/_sandbox/messages", headers={"Origin": origin})
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert http.post("/_sandbox/anything", headers={"Origin": origin}).status_code == 403
    assert len(summaries(http)) == 1


def test_the_page_itself_and_programs_may_change_things(sandbox: Sandbox, http: httpx.Client) -> None:
    for headers in ({"Origin": sandbox.url}, {}):
        send(http, TRACK)
        assert http.delete("/_sandbox/messages", headers=headers).json() == {"deleted": 1}


class Events:
    """A stream's events, read one by one; every wait is bounded by the connection's timeout."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()

    def next(self) -> tuple[str, str, Any]:
        """The next event: its name, its id and its data."""
        fields: dict[str, str] = {}
        for line in self._lines:
            name, _, value = line.partition(": ")
            if name:
                fields[name] = value
            elif "data" in fields:
                return fields.get("event", "message"), fields.get("id", ""), json.loads(fields["data"])
            else:
                fields = {}
        raise AssertionError("the stream ended")

    def news(self) -> tuple[str, Any]:
        """The next event of messages: its id and its data."""
        while True:
            name, number, data = self.next()
            if name == "message":
                return number, data

    def counts(self) -> Any:
        while True:
            name, _, data = self.next()
            if name == "counts":
                return data


@contextmanager
def streaming(http: httpx.Client, headers: dict[str, str] | None = None, **query: str) -> Iterator[Events]:
    with http.stream("GET", "/_sandbox/stream", params=query, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-store"
        events = Events(response)
        yield events


def test_the_stream_says_what_arrives_with_its_number(http: httpx.Client) -> None:
    with streaming(http) as events:
        assert events.counts()["total"] == 0
        send(http, *MIXED)
        number, data = events.news()
        assert data == {"messages": summaries(http), "skipped": 0, "last": int(number)}
        send(http, TRACK)
        assert [row["name"] for row in events.news()[1]["messages"]] == ["Order Completed"]
        assert events.counts()["total"] in (6, 7)


def test_the_stream_says_only_what_its_filters_let_through(http: httpx.Client) -> None:
    with streaming(http, type="track", discarded="false") as events:
        events.counts()
        send(http, *MIXED)
        assert [row["name"] for row in events.news()[1]["messages"]] == ["Order Completed"]


@pytest.mark.parametrize("way", ["after", "last-event-id", "both"])
def test_the_stream_goes_on_where_it_was(way: str, http: httpx.Client) -> None:
    send(http, *MIXED)
    rows = summaries(http)
    seen = str(rows[2]["sequence"])
    query = {"after": {"after": seen, "last-event-id": "", "both": "0"}[way]}
    headers = {"Last-Event-ID": seen} if way != "after" else {}
    with streaming(http, headers, **{name: value for name, value in query.items() if value}) as events:
        assert events.news()[1]["messages"] == rows[:2]


def test_a_stream_that_was_told_too_high_a_number_still_says_what_arrives(http: httpx.Client) -> None:
    send(http, TRACK)
    with streaming(http, {"Last-Event-ID": "9" * 15}) as events:
        assert len(events.news()[1]["messages"]) == 1


def test_a_flood_is_told_in_few_events(http: httpx.Client) -> None:
    send(http, TRACK)
    start = summaries(http)[0]["sequence"]
    send(http, *[TRACK] * 1200)
    with streaming(http, after=str(start)) as events:
        _, data = events.news()
        assert (len(data["messages"]), data["skipped"], data["last"]) == (500, 700, start + 1200)
        stop = threading.Event()
        sender = threading.Thread(target=flood, args=(str(http.base_url), stop))
        sender.start()
        try:
            begin, told = time.monotonic(), 0
            for _ in range(5):
                _, data = events.news()
                told += len(data["messages"]) + data["skipped"]
            took = time.monotonic() - begin
        finally:
            stop.set()
            sender.join(WAIT)
    assert told > 5
    assert took > 0.7


def flood(url: str, stop: threading.Event) -> None:
    with httpx.Client(base_url=url, auth=(KEY, ""), trust_env=False, timeout=WAIT) as client:
        while not stop.is_set():
            send(client, TRACK)


def test_the_stream_tells_what_another_process_writes(tmp_path: Path) -> None:
    db = tmp_path / "sandbox.db"
    program = """
import sys
from datetime import UTC, datetime
from segment_tools.sandbox.json_text import Body
from segment_tools.sandbox.judge import verdicts
from segment_tools.sandbox.store import Arrival, Store
store = Store(sys.argv[1])
store.add(Arrival(datetime.now(UTC), "/v1/track", "other"), verdicts(Body({"event": "A", "userId": "u1"}), "track"))
store.close()
"""
    with Sandbox(db) as running, unkeyed(running) as client, streaming(client) as events:
        events.counts()
        subprocess.run([sys.executable, "-c", program, str(db)], timeout=WAIT, check=True)
        assert [row["source"] for row in events.news()[1]["messages"]] == ["other"]


def test_forgetting_everything_is_told(http: httpx.Client) -> None:
    send(http, TRACK)
    with streaming(http) as events:
        assert events.counts()["total"] == 1
        http.delete("/_sandbox/messages").raise_for_status()
        assert events.counts()["total"] == 0


def test_a_stream_whose_client_went_leaves_nothing_behind(http: httpx.Client, sandbox: Sandbox) -> None:
    before = len(sandbox.store._listeners)
    with streaming(http) as events:
        events.counts()
        assert len(sandbox.store._listeners) == before + 1
    until = time.monotonic() + WAIT
    while len(sandbox.store._listeners) > before and time.monotonic() < until:
        http.get("/_sandbox/counts")
    assert len(sandbox.store._listeners) == before


def test_a_sandbox_with_open_streams_closes_at_once() -> None:
    running = Sandbox()
    with unkeyed(running) as client, streaming(client) as one, streaming(client) as other:
        one.counts()
        other.counts()
        begin = time.monotonic()
        running.close()
        assert time.monotonic() - begin < 1.5
        for events in (one, other):
            with pytest.raises(AssertionError, match="the stream ended"):
                events.next()


def test_the_head_of_the_stream_ends(http: httpx.Client) -> None:
    response = http.head("/_sandbox/stream")
    assert (response.status_code, response.content) == (200, b"")


def test_no_filter_of_the_store_is_unknown_to_the_list(http: httpx.Client) -> None:
    send(http, TRACK)
    assert all(isinstance(summaries(http, **{name: "x"}), list) for name in FILTERS)


def test_counts_of_many_minutes_are_added_up_by_the_store(sandbox: Sandbox) -> None:
    now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    for days in (0, 1, 2, 2):
        found = verdicts(Body({"event": "A", "userId": "u1"}), "track")
        sandbox.store.add(Arrival(now - timedelta(days=days), "/v1/track", "web"), found).result(WAIT)
    assert sandbox.store.counts("2026-11-23T11:00") == [("", "track", "", 3), ("2026-11-23T12:00", "track", "", 1)]
    assert [minute for minute, *_ in sandbox.store.counts()] == [f"2026-11-{day}T12:00" for day in (21, 22, 23)]
    shown = counts(sandbox.store, now)
    assert (shown["total"], shown["minutes"][-1]) == (4, {"minute": "2026-11-23T12:00", "accepted": 1, "discarded": 0})

"""The sandbox over real HTTP: what it answers, what it keeps, and what it says Segment would have dropped."""

import json
import sqlite3
import statistics
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import pytest
from support import KEY, ROOT

from segment_tools.sandbox.json_text import Body
from segment_tools.sandbox.judge import REASONS, verdicts
from segment_tools.sandbox.options import Options
from segment_tools.sandbox.run import Sandbox
from segment_tools.sandbox.sources import Sources
from segment_tools.sandbox.store import Arrival, Parcel, Store
from segment_tools.sandbox.webhooks import Webhooks, webhook_of

KINDS = ("identify", "track", "page", "screen", "group", "alias")
GOOD: dict[str, dict[str, Any]] = {
    "identify": {"userId": "u1", "traits": {"plan": "pro"}},
    "track": {"userId": "u1", "event": "Order Completed", "properties": {"revenue": 9.5}},
    "page": {"anonymousId": "a1", "name": "Home"},
    "screen": {"anonymousId": "a1", "name": "Home", "category": "Shop"},
    "group": {"userId": "u1", "groupId": "g1", "traits": {}},
    "alias": {"userId": "u1", "previousId": "a1"},
}
TRACK: dict[str, Any] = {"type": "track", **GOOD["track"]}
SINGLE_PATHS = {**{kind: kind for kind in KINDS}, **{kind[0]: kind for kind in KINDS}}
BATCH_PATHS = ("batch", "import", "b")
SINGLE_BYTES, BATCH_BYTES, BATCH_MESSAGES = 32_768, 512_000, 2_500
ACCEPTED = {"success": True}


def connection(sandbox: Sandbox, key: str | None = KEY) -> httpx.Client:
    credentials = None if key is None else httpx.BasicAuth(key, "")
    return httpx.Client(base_url=sandbox.url, auth=credentials, trust_env=False, timeout=20)


@pytest.fixture
def http(sandbox: Sandbox) -> Iterator[httpx.Client]:
    """A connection that sends the key by Basic authentication."""
    with connection(sandbox) as client:
        yield client


@pytest.fixture
def keyless(sandbox: Sandbox) -> Iterator[httpx.Client]:
    """A connection that sends no key."""
    with connection(sandbox, None) as client:
        yield client


def shown(http: httpx.Client, **query: str) -> list[dict[str, Any]]:
    """What the sandbox shows, in the order of arrival."""
    response = http.get("/_sandbox/messages", params={"limit": "10000", **query})
    assert response.status_code == 200
    return list(reversed(response.json()["messages"]))


def take(http: httpx.Client, path: str, body: Any) -> list[dict[str, Any]]:
    """Everything that is kept once the sandbox has taken the body."""
    response = http.post(path, json=body)
    assert (response.status_code, response.json()) == (200, ACCEPTED)
    return shown(http)


def assert_refused(response: httpx.Response, message: str, code: str = "invalid_request", status: int = 400) -> None:
    assert (response.status_code, response.json()) == (status, {"success": False, "message": message, "code": code})


def padded(body: dict[str, Any], holder: dict[str, Any], size: int) -> bytes:
    """The body as JSON of exactly this many bytes, made so by a text in the holder."""
    holder["padding"] = ""
    holder["padding"] = "x" * (size - len(json.dumps(body)))
    return json.dumps(body).encode()


@pytest.mark.parametrize(("path", "kind"), SINGLE_PATHS.items())
def test_the_path_of_one_message_implies_its_type(path: str, kind: str, http: httpx.Client) -> None:
    (row,) = take(http, f"/v1/{path}", GOOD[kind])
    assert (row["path"], row["discarded"]) == (f"/v1/{path}", None)
    assert row["sent"] == {"type": kind, **GOOD[kind]}
    assert row["message"].items() >= {"type": kind, **GOOD[kind]}.items()


@pytest.mark.parametrize("path", BATCH_PATHS)
def test_the_paths_of_many_messages_keep_the_type_of_each(path: str, http: httpx.Client) -> None:
    messages = [{"type": kind, **GOOD[kind]} for kind in KINDS]
    found = take(http, f"/v1/{path}", {"batch": messages})
    assert [row["sent"] for row in found] == messages
    assert {(row["path"], row["discarded"]) for row in found} == {(f"/v1/{path}", None)}


def test_the_path_wins_over_a_type_in_the_body(http: httpx.Client) -> None:
    (row,) = take(http, "/v1/identify", {**GOOD["identify"], "type": "track"})
    assert row["message"]["type"] == "identify"


def test_a_librarys_metrics_are_answered_and_not_kept(http: httpx.Client) -> None:
    assert take(http, "/v1/m", {"series": [{"type": "Counter", "metric": "m", "value": 1}]}) == []


@pytest.mark.parametrize("path", ["t", "track", "batch"])
@pytest.mark.parametrize("content_type", ["text/plain", "application/json; charset=utf-8", None])
def test_json_is_read_whatever_the_content_type(path: str, content_type: str | None, http: httpx.Client) -> None:
    body = {"batch": [TRACK]} if path == "batch" else TRACK
    headers = {"Content-Type": content_type} if content_type else {}
    response = http.post(f"/v1/{path}", content=json.dumps(body), headers=headers)
    assert response.json() == ACCEPTED
    assert [row["discarded"] for row in shown(http)] == [None]


@pytest.mark.parametrize("path", ["track", "batch"])
@pytest.mark.parametrize(
    ("headers", "in_body"),
    [
        ({"Authorization": f"Basic {b64encode(f'{KEY}:'.encode()).decode()}"}, False),
        ({"Authorization": f"basic {b64encode(f'{KEY}:'.encode()).decode()}"}, True),
        ({"Authorization": f"Basic {b64encode(KEY.encode()).decode()}"}, False),
        ({}, True),
    ],
    ids=["basic", "basic and body", "basic without colon", "body"],
)
def test_a_key_in_any_of_its_places_means_the_same_source(
    path: str, headers: dict[str, str], in_body: bool, http: httpx.Client, keyless: httpx.Client
) -> None:
    body = {"batch": [TRACK]} if path == "batch" else TRACK
    http.post(f"/v1/{path}", json=body)
    response = keyless.post(f"/v1/{path}", json={**body, **({"writeKey": KEY} if in_body else {})}, headers=headers)
    assert (response.status_code, response.json()) == (200, ACCEPTED)
    found = shown(http)
    assert [row["discarded"] for row in found] == [None, None]
    assert len({row["source"] for row in found}) == 1


def test_each_key_is_a_source_of_its_own(sandbox: Sandbox, http: httpx.Client) -> None:
    take(http, "/v1/track", TRACK)
    with connection(sandbox, "another-key") as other:
        found = take(other, "/v1/track", TRACK)
    assert len({row["source"] for row in found}) == 2


@pytest.mark.parametrize("path", ["track", "t", "batch", "import", "b"])
@pytest.mark.parametrize(
    ("headers", "more"),
    [
        ({}, {}),
        ({}, {"writeKey": ""}),
        ({}, {"writeKey": None}),
        ({}, {"writeKey": 5}),
        ({"Authorization": f"Basic {b64encode(b':').decode()}"}, {}),
        ({"Authorization": "Basic not*base64"}, {}),
        ({"Authorization": "Basic"}, {}),
        ({"Authorization": "Basic /w=="}, {}),
        ({"Authorization": "Bearer some-token"}, {}),
    ],
    ids=["none", "empty", "null", "number", "colon alone", "no base64", "scheme alone", "no text", "bearer alone"],
)
def test_no_key_is_refused(
    path: str, headers: dict[str, str], more: dict[str, Any], http: httpx.Client, keyless: httpx.Client
) -> None:
    response = keyless.post(f"/v1/{path}", json={"batch": [TRACK], **TRACK, **more}, headers=headers)
    assert_refused(response, "no write key: send it by Basic authentication or as writeKey")
    assert shown(http) == []


@pytest.mark.parametrize("path", ["track", "t", "batch", "import", "b"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"event=A&userId=u1",
        b'{"event": "A", "userId": "u1"',
        b'{"event": "A", "userId": "u1",}',
        b"{'event': 'A'}",
        b'{"event": "A", "userId": "u1", "properties": {"price": NaN}}',
        b'{"event": "A", "userId": "u1", "properties": {"price": -Infinity}}',
        b'{"event": "\xff", "userId": "u1"}',
        b'{"userId": ' + b"9" * 5000 + b"}",
        b"[]",
        b'[{"type": "track", "event": "A", "userId": "u1"}]',
        b'"text"',
        b"5",
        b"null",
    ],
    ids=lambda body: repr(body[:30]),
)
def test_a_body_that_is_no_json_object_is_refused(path: str, body: bytes, http: httpx.Client) -> None:
    assert_refused(http.post(f"/v1/{path}", content=body), "malformed JSON")
    assert shown(http) == []


@pytest.mark.parametrize("path", SINGLE_PATHS)
def test_one_message_may_have_32_kb_and_not_a_byte_more(path: str, http: httpx.Client) -> None:
    context: dict[str, Any] = {}
    message = {**GOOD[SINGLE_PATHS[path]], "context": context}
    largest = padded(message, context, SINGLE_BYTES)
    assert len(largest) == SINGLE_BYTES
    assert http.post(f"/v1/{path}", content=largest).json() == ACCEPTED
    assert_refused(http.post(f"/v1/{path}", content=largest + b" "), "Exceed payload limit")
    assert [(row["discarded"], row["sent"]["context"]) for row in shown(http)] == [(None, context)]


@pytest.mark.parametrize("path", BATCH_PATHS)
def test_a_batch_may_have_500_kb_and_not_a_byte_more(path: str, http: httpx.Client) -> None:
    items = [{**TRACK, "properties": {"padding": "x" * 30_000}} for _ in range(16)]
    last: dict[str, Any] = {}
    largest = padded({"batch": [*items, {**TRACK, "properties": last}]}, last, BATCH_BYTES)
    assert len(largest) == BATCH_BYTES
    assert http.post(f"/v1/{path}", content=largest).json() == ACCEPTED
    assert_refused(http.post(f"/v1/{path}", content=largest + b" "), "Exceed payload limit")
    assert [row["discarded"] for row in shown(http)] == [None] * 17


def test_the_size_of_a_body_counts_whether_or_not_it_is_announced(http: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        yield json.dumps(TRACK).encode()
        yield b" " * SINGLE_BYTES

    assert_refused(http.post("/v1/track", content=pieces()), "Exceed payload limit")
    assert shown(http) == []


@pytest.mark.parametrize("path", BATCH_PATHS)
def test_a_batch_of_2500_messages_passes_and_a_larger_one_is_lost_whole(path: str, http: httpx.Client) -> None:
    message = {"type": "track", "event": "A", "userId": "u1"}
    found = take(http, f"/v1/{path}", {"batch": [message] * BATCH_MESSAGES})
    assert [row["discarded"] for row in found] == [None] * BATCH_MESSAGES
    http.delete("/_sandbox/messages")
    found = take(http, f"/v1/{path}", {"batch": [message] * (BATCH_MESSAGES + 1)})
    assert [row["discarded"] for row in found] == ["too_many_messages"] * (BATCH_MESSAGES + 1)
    assert {row["message"] is None for row in found} == {True}


def consent(value: Any) -> dict[str, Any]:
    return {**TRACK, "context": {"consent": value}}


LOST_ITEMS: list[tuple[str, Any]] = [
    ("no_user_anon_id", {"type": "track", "event": "A"}),
    ("no_user_anon_id", {"type": "group", "groupId": "g1"}),
    ("no_user_anon_id", {"type": "identify", "userId": None, "anonymousId": None}),
    ("id_not_string", {**TRACK, "userId": 5}),
    ("id_not_string", {**TRACK, "userId": ""}),
    ("id_not_string", {**TRACK, "anonymousId": {"id": "a1"}}),
    ("id_not_string", {"type": "group", "userId": "u1", "groupId": 42}),
    ("id_not_string", {"type": "alias", "userId": "u1", "previousId": False}),
    ("event_not_defined", {"type": "track", "userId": "u1"}),
    ("event_not_defined", {"type": "track", "userId": "u1", "event": ""}),
    ("event_not_defined", {"type": "track", "userId": "u1", "event": None}),
    ("event_not_string", {"type": "track", "userId": "u1", "event": 5}),
    ("event_not_string", {"type": "track", "userId": "u1", "event": ["A"]}),
    ("properties_not_object", {**TRACK, "properties": "revenue"}),
    ("properties_not_object", {**TRACK, "properties": []}),
    ("properties_not_object", {"type": "page", "userId": "u1", "properties": 1}),
    ("traits_not_object", {"type": "identify", "userId": "u1", "traits": "plan"}),
    ("traits_not_object", {"type": "group", "userId": "u1", "groupId": "g1", "traits": [1]}),
    ("name_not_string", {"type": "page", "userId": "u1", "name": ""}),
    ("name_not_string", {"type": "screen", "userId": "u1", "name": 5}),
    ("category_not_string", {"type": "page", "userId": "u1", "category": {}}),
    ("category_not_string", {"type": "screen", "userId": "u1", "name": "Home", "category": ""}),
    ("device_advertisingid_should_be_string", {**TRACK, "context": {"device": {"advertisingId": 5}}}),
    ("consent_categorypreferences_should_exist", consent({"categories": {}})),
    ("consent_categorypreferences_should_exist", consent("yes")),
    ("consent_categorypreferences_fields_should_be_object", consent({"categoryPreferences": ["Advertising"]})),
    ("consent_categorypreferences_fields_should_be_object", consent({"categoryPreferences": None})),
    ("consent_categorypreferences_fields_should_be_bool", consent({"categoryPreferences": {"Advertising": "yes"}})),
    ("consent_categorypreferences_fields_should_be_bool", consent({"categoryPreferences": {"A": True, "B": 1}})),
    ("consent_version_should_be_number", consent({"categoryPreferences": {"A": True}, "version": "2"})),
    ("group_id_required", {"type": "group", "userId": "u1"}),
    ("previous_id_required", {"type": "alias", "userId": "u1"}),
    ("user_id_required", {"type": "alias", "previousId": "a1"}),
    ("user_id_required", {"type": "alias", "previousId": "a1", "anonymousId": "a2"}),
    ("context_not_object", {**TRACK, "context": "ip"}),
    ("integrations_not_object", {**TRACK, "integrations": ["Mixpanel"]}),
]
LOST_IN_A_BATCH: list[tuple[str, Any]] = [
    ("bad_request", {"event": "A", "userId": "u1"}),
    ("bad_request", {**TRACK, "type": "purchase"}),
    ("bad_request", {**TRACK, "type": ["track"]}),
    ("bad_request", "text"),
    ("bad_request", None),
    ("bad_request", [TRACK]),
    ("too_large", {**TRACK, "properties": {"padding": "x" * SINGLE_BYTES}}),
]
LOST_REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("empty_batch", {"batch": []}),
    ("bad_request", {}),
    ("bad_request", {"batch": None}),
    ("bad_request", {"batch": TRACK}),
]
PROVED_APART = {"duplicate", "too_many_messages", "unknown_source"}


def test_every_reason_has_a_case() -> None:
    cases = {reason for reason, _ in (*LOST_ITEMS, *LOST_IN_A_BATCH, *LOST_REQUESTS)}
    assert cases | PROVED_APART == set(REASONS)


@pytest.mark.parametrize(("reason", "message"), LOST_ITEMS, ids=str)
def test_a_message_that_segment_drops_is_taken_with_the_reason(
    reason: str, message: dict[str, Any], http: httpx.Client
) -> None:
    (row,) = take(http, f"/v1/{message['type']}", message)
    assert (row["discarded"], row["message"], row["sent"]) == (reason, None, message)


@pytest.mark.parametrize(("reason", "item"), [*LOST_ITEMS, *LOST_IN_A_BATCH], ids=lambda value: str(value)[:60])
def test_the_siblings_of_an_item_that_segment_drops_are_kept(reason: str, item: Any, http: httpx.Client) -> None:
    before, after = {"type": "page", **GOOD["page"]}, {"type": "identify", **GOOD["identify"]}
    found = take(http, "/v1/batch", {"batch": [before, item, after]})
    assert [row["discarded"] for row in found] == [None, reason, None]
    assert [row["sent"] for row in found] == [before, item, after]


@pytest.mark.parametrize(("reason", "body"), LOST_REQUESTS, ids=str)
def test_a_batch_without_messages_is_taken_with_the_reason(
    reason: str, body: dict[str, Any], http: httpx.Client
) -> None:
    (row,) = take(http, "/v1/batch", body)
    assert (row["discarded"], row["message"], row["sent"]) == (reason, None, body)


def test_what_every_reason_means_can_be_asked(http: httpx.Client) -> None:
    assert http.get("/_sandbox/reasons").json() == REASONS


@pytest.mark.parametrize("context", [{}, {"consent": {}}, {"consent": None}, {"consent": {"categoryPreferences": {}}}])
def test_no_consent_at_all_is_no_reason(context: dict[str, Any], http: httpx.Client) -> None:
    (row,) = take(http, "/v1/track", {**TRACK, "context": context})
    assert row["discarded"] is None


@pytest.mark.parametrize("kind", [*KINDS, "trac", "", None])
@pytest.mark.parametrize(
    "name",
    ["userId", "anonymousId", "messageId", "event", "name", "category", "groupId", "previousId",
     "properties", "traits", "context", "integrations", "timestamp"],
)  # fmt: skip
def test_an_unknown_field_changes_no_verdict_on_a_batch_item(kind: str | None, name: str) -> None:
    """The fields that the parser knows are judged by it, anything else by the rules one by one."""
    consent = {"categoryPreferences": {"ads": "no"}}
    values = (None, "", "x", "\U0001f680", 5, [], {}, {"consent": consent}, {"device": {"advertisingId": 1}})
    usual = [{"type": kind, **GOOD.get(kind or "", {}), name: value} for value in values]
    usual.extend({key: value for key, value in item.items() if key != name} for item in usual[:1])
    judged = [
        verdicts(Body({}, [json.dumps({**item, **extra}).encode() for item in usual]), None)
        for extra in ({}, {"unheard of": 0})
    ]
    assert [each[:-1] for each in judged[0]] == [each[:-1] for each in judged[1]]


def test_a_repeat_in_a_later_request_is_a_duplicate_whatever_its_content_and_source(
    sandbox: Sandbox, http: httpx.Client
) -> None:
    take(http, "/v1/track", {**TRACK, "messageId": "m1"})
    take(
        http,
        "/v1/batch",
        {"batch": [{**TRACK, "messageId": "m2"}, {"type": "page", "userId": "u2", "messageId": "m1"}]},
    )
    with connection(sandbox, "another-key") as other:
        found = take(other, "/v1/identify", {"userId": "u3", "messageId": "m1"})
    assert [row["discarded"] for row in found] == [None, None, "duplicate", "duplicate"]


@pytest.mark.parametrize("patient", [True, False])
def test_what_could_not_be_kept_is_no_repeat_when_it_comes_again(patient: bool, tmp_path: Path) -> None:
    """SQLite ends the transaction by itself here, as it does where the disk is full."""

    def keep(*ids: str) -> Exception | None:
        found = [verdicts(Body({**TRACK, "messageId": each}), "track") for each in ids]
        arrival = Arrival(datetime.now(UTC), "/v1/track", "source-1")
        told: Queue[Exception | None] = Queue()
        store.write([Parcel(arrival, each) for each in found], told.put, patient)
        return told.get(timeout=60)

    with closing(Store(tmp_path / "sandbox.db")) as store, closing(sqlite3.connect(tmp_path / "sandbox.db")) as other:
        assert keep("m0") is None
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON messages WHEN NEW.message_id = 'm2'"
            " BEGIN SELECT RAISE(ROLLBACK, 'full'); END"
        )
        assert isinstance(keep("m1", "m2"), sqlite3.Error)
        other.execute("DROP TRIGGER full")
        assert keep("m1", "m2", "m0") is None
        found = [(each["message"] or {}).get("messageId") for each in store.messages()]
    assert found == [None, "m2", "m1", "m0"]


def test_a_locked_file_answers_503_keeps_nothing_and_takes_again_once_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segment_tools.sandbox.store.BUSY_MS", 50)
    with Sandbox(tmp_path / "sandbox.db") as sandbox, connection(sandbox) as http:
        take(http, "/v1/track", TRACK)
        with closing(sqlite3.connect(tmp_path / "sandbox.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            refused = [http.post("/v1/batch", json={"batch": [TRACK, TRACK]}).status_code for _ in range(2)]
        assert refused == [503, 503]
        assert len(take(http, "/v1/track", TRACK)) == 2


def test_a_repeat_inside_one_batch_is_a_duplicate(http: httpx.Client) -> None:
    ids = ["m1", "m2", "m1", "m1", None, None]
    found = take(http, "/v1/batch", {"batch": [{**TRACK, "messageId": chosen} for chosen in ids]})
    assert [row["discarded"] for row in found] == [None, None, "duplicate", "duplicate", None, None]


def test_what_was_dropped_does_not_make_its_correction_a_duplicate(http: httpx.Client) -> None:
    take(http, "/v1/track", {"userId": "u1", "messageId": "m1"})
    found = take(http, "/v1/track", {"userId": "u1", "event": "A", "messageId": "m1"})
    assert [row["discarded"] for row in found] == ["event_not_defined", None]


@pytest.mark.parametrize(("hours", "verdict"), [(23, "duplicate"), (25, None)])
def test_a_message_id_may_come_again_after_a_day(
    hours: int, verdict: str | None, sandbox: Sandbox, http: httpx.Client
) -> None:
    earlier = Arrival(datetime.now(UTC) - timedelta(hours=hours), "/v1/track", "source-1")
    sandbox.store.add(earlier, verdicts(Body({**TRACK, "messageId": "m1"}), "track")).result(60)
    assert take(http, "/v1/track", {**TRACK, "messageId": "m1"})[-1]["discarded"] == verdict


def test_a_batchs_context_and_integrations_complete_each_message_and_the_messages_own_win(http: httpx.Client) -> None:
    body = {
        "context": {"ip": "1.1.1.1", "app": {"name": "Shop", "build": {"a": 1}}, "locale": "de"},
        "integrations": {"All": False, "Amplitude": {"session": 1}, "Mixpanel": True},
        "batch": [
            TRACK,
            {
                **TRACK,
                "context": {"ip": "2.2.2.2", "app": {"build": {"b": 2}}, "locale": {"language": "de"}},
                "integrations": {"Amplitude": {"id": 2}, "Mixpanel": False},
            },
            {**TRACK, "context": None},
        ],
    }
    bare, own, nulled = (row["message"] for row in take(http, "/v1/batch", body))
    assert (bare["context"], bare["integrations"]) == (body["context"], body["integrations"])
    assert nulled["context"] == body["context"]
    assert own["context"] == {
        "ip": "2.2.2.2",
        "app": {"name": "Shop", "build": {"a": 1, "b": 2}},
        "locale": {"language": "de"},
    }
    assert own["integrations"] == {"All": False, "Amplitude": {"id": 2}, "Mixpanel": False}


def test_a_batchs_context_is_judged_as_each_messages_own(http: httpx.Client) -> None:
    own = {**TRACK, "context": {"device": {"advertisingId": "7A3CBEA0"}}}
    found = take(http, "/v1/batch", {"context": {"device": {"advertisingId": 5}}, "batch": [TRACK, own]})
    assert [row["discarded"] for row in found] == ["device_advertisingid_should_be_string", None]


def test_nulls_are_dropped_from_the_top_of_a_delivered_message_alone(http: httpx.Client) -> None:
    empty = {"zero": 0, "no": False, "text": "", "null": None, "list": [], "object": {}}
    message = {**TRACK, "anonymousId": None, "timestamp": None, "integrations": {}, "properties": empty, "extra": None}
    (row,) = take(http, "/v1/track", message)
    assert row["sent"] == message
    assert row["message"]["properties"] == empty
    assert row["message"]["integrations"] == {}
    assert not {"anonymousId", "extra"} & set(row["message"])
    assert None not in row["message"].values()


def test_a_message_without_times_and_id_is_delivered_with_them(http: httpx.Client) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    one, other = (row["message"] for row in take(http, "/v1/batch", {"batch": [TRACK, TRACK]}))
    assert before <= datetime.fromisoformat(one["receivedAt"]) <= datetime.now(UTC)
    assert {one[name] for name in ("timestamp", "originalTimestamp", "sentAt")} == {one["receivedAt"]}
    assert (one["channel"], one["version"]) == ("server", 2)
    assert len({one["messageId"], other["messageId"], ""}) == 3


@pytest.mark.parametrize("path", ["track", "batch"])
def test_a_senders_wrong_clock_is_corrected_and_its_times_are_kept(path: str, http: httpx.Client) -> None:
    then, sent_at = "2020-02-03T04:05:06.789+01:00", "2026-01-01T00:00:00Z"
    message = {**TRACK, "timestamp": then, "messageId": "m1", "channel": "browser"}
    body = {"batch": [message], "sentAt": sent_at} if path == "batch" else {**message, "sentAt": sent_at}
    (row,) = take(http, f"/v1/{path}", body)
    assert row["sent"] == message
    assert row["receivedAt"] == row["message"]["receivedAt"]
    received, sent, happened = (datetime.fromisoformat(text) for text in (row["receivedAt"], sent_at, then))
    assert datetime.fromisoformat(row["message"].pop("timestamp")) == received - (sent - happened)
    message.pop("timestamp")
    assert row["message"] == {
        **message,
        "originalTimestamp": then,
        "sentAt": sent_at,
        "receivedAt": row["receivedAt"],
        "version": 2,
    }


@pytest.mark.parametrize("sent_at", [None, "", "soon", 5, "0001-01-01T00:00:00+14:00"])
def test_without_a_sent_at_to_reckon_with_the_time_stands(sent_at: object, http: httpx.Client) -> None:
    (row,) = take(http, "/v1/track", {**TRACK, "timestamp": "9999-12-31T23:59:59Z", "sentAt": sent_at})
    assert row["message"]["timestamp"] == "9999-12-31T23:59:59Z"


def kept_for_questions(http: httpx.Client) -> None:
    messages = [
        {"type": "track", "event": "A", "userId": "u1", "messageId": "m1"},
        {"type": "track", "event": "B", "userId": "u1", "messageId": "m2"},
        {"type": "page", "userId": "u2", "messageId": "m3"},
        {"type": "track", "userId": "u2", "messageId": "m4"},
        {"type": "track", "event": "A", "userId": "ü ?&=", "messageId": "m1"},
    ]
    assert http.post("/v1/batch", json={"batch": messages}).json() == ACCEPTED


@pytest.mark.parametrize(
    ("query", "places"),
    [
        ({}, [4, 3, 2, 1, 0]),
        ({"type": "track"}, [4, 3, 1, 0]),
        ({"type": "alias"}, []),
        ({"userId": "u2"}, [3, 2]),
        ({"userId": "ü ?&="}, [4]),
        ({"event": "A"}, [4, 0]),
        ({"event": "a"}, []),
        ({"messageId": "m1"}, [4, 0]),
        ({"discarded": "true"}, [4, 3]),
        ({"discarded": "false"}, [2, 1, 0]),
        ({"limit": "2"}, [4, 3]),
        ({"limit": "10000"}, [4, 3, 2, 1, 0]),
        ({"type": "track", "event": "A", "discarded": "false", "limit": "1"}, [0]),
        ({"type": "track' OR '1'='1"}, []),
    ],
    ids=str,
)
def test_messages_are_shown_newest_first_by_each_filter(
    query: dict[str, str], places: list[int], http: httpx.Client
) -> None:
    kept_for_questions(http)
    numbers = [row["sequence"] for row in shown(http)]
    found = http.get("/_sandbox/messages", params=query).json()["messages"]
    assert [numbers.index(row["sequence"]) for row in found] == places


def test_a_hundred_messages_are_shown_unless_told_otherwise(http: httpx.Client) -> None:
    everything = take(http, "/v1/batch", {"batch": [TRACK] * 101})
    assert http.get("/_sandbox/messages").json()["messages"] == everything[:0:-1]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"colour": "red"}, "colour"),
        ({"user_id": "u1"}, "user_id"),
        ({"discarded": "yes"}, "discarded"),
        ({"discarded": ""}, "discarded"),
        *(
            ({"limit": wrong}, "limit")
            for wrong in ("0", "-1", "1.5", "ten", "", "10001", "²", "9" * 30, "00000000110001", "000000001" + "9" * 30)
        ),
    ],
    ids=str,
)
def test_a_wrong_question_is_refused_by_the_name_of_the_filter(
    query: dict[str, str], named: str, http: httpx.Client
) -> None:
    response = http.get("/_sandbox/messages", params=query)
    assert_refused(response, response.json()["message"])
    assert named in response.json()["message"]


def test_deleting_forgets_everything_and_says_how_much(http: httpx.Client) -> None:
    kept_for_questions(http)
    assert http.delete("/_sandbox/messages").json() == {"deleted": 5}
    assert shown(http) == []
    assert http.delete("/_sandbox/messages").json() == {"deleted": 0}
    assert [row["discarded"] for row in take(http, "/v1/track", {**TRACK, "messageId": "m1"})] == [None]


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/purchase", "/v1/v1/batch", "/v2/track", "/_sandbox"])
def test_an_unknown_path_is_answered_with_404_in_segments_shape(path: str, http: httpx.Client) -> None:
    assert_refused(http.post(path, json=TRACK), "Not Found", "not_found", 404)
    assert shown(http) == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/track"), ("PUT", "/v1/batch"), ("DELETE", "/v1/t"), ("POST", "/_sandbox/messages"), ("POST", "/")],
)
def test_another_method_is_answered_with_405_in_segments_shape(method: str, path: str, http: httpx.Client) -> None:
    assert_refused(http.request(method, path, json=TRACK), "Method Not Allowed", "method_not_allowed", 405)
    assert shown(http) == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "169.254.169.254"])
def test_a_request_that_names_another_host_is_refused(host: str, http: httpx.Client) -> None:
    for method, path in (("POST", "/v1/track"), ("GET", "/_sandbox/messages"), ("DELETE", "/_sandbox/messages")):
        assert http.request(method, path, json=TRACK, headers={"Host": host}).status_code == 400
    assert shown(http) == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9999", "LOCALHOST:1"])
def test_a_request_may_name_this_machine_with_any_port(host: str, http: httpx.Client) -> None:
    assert http.post("/v1/track", json=TRACK, headers={"Host": host}).json() == ACCEPTED


def test_no_write_key_is_in_anything_that_is_shown(http: httpx.Client) -> None:
    keyed = {**TRACK, "writeKey": KEY}
    bodies: list[tuple[str, Any]] = [
        ("track", keyed),
        ("t", {**keyed, "event": 5}),
        ("batch", {"batch": [keyed, {**keyed, "userId": 5}, {**keyed, "type": "purchase"}], "writeKey": KEY}),
        ("batch", {"batch": [{**keyed, "properties": {"padding": "x" * SINGLE_BYTES}}]}),
        ("batch", {"batch": [], "writeKey": KEY}),
        ("batch", {"batch": {}, "writeKey": KEY}),
        ("import", {"batch": [{"writeKey": KEY}] * (BATCH_MESSAGES + 1)}),
        ("track", [KEY]),
        (KEY, keyed),
    ]
    answers = [http.post(f"/v1/{path}", json=body).text for path, body in bodies]
    answers.append(http.get("/_sandbox/messages", params={KEY[:8]: "1"}).text)
    answers.append(http.get("/_sandbox/messages", params={"limit": "10000"}).text)
    hidden = (KEY, b64encode(KEY.encode()).decode(), b64encode(f"{KEY}:".encode()).decode())
    assert [answer[:200] for answer in answers if any(secret in answer for secret in hidden)] == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"event": "\\ud800", "userId": "u1"}',
        b'{"event": "A", "userId": "\\udfff", "messageId": "\\ud83d"}',
        b'{"event": "A", "userId": "u1", "properties": {"\\ud800": "\\ud800"}}',
        b'{"event": "A", "userId": "u1", "properties": {"price": 1e999}}',
        b'{"event": "A", "userId": "u1", "properties": {"price": -1e999}}',
        b'{"event": "A", "userId": "u1", "timestamp": {"a": []}, "messageId": 5, "sentAt": [1e400]}',
        b'{"event": "A\\u0000", "userId": "\\u0000", "properties": {"\\u0000": "\\u0000"}}',
    ],
    ids=lambda body: body.decode()[14:60],
)
@pytest.mark.parametrize("path", ["track", "batch"])
def test_whatever_was_taken_can_be_shown(path: str, body: bytes, http: httpx.Client) -> None:
    whole = body if path == "track" else b'{"batch": [' + b'{"type": "track", ' + body[1:] + b"]}"
    response = http.post(f"/v1/{path}", content=whole)
    assert response.status_code in (200, 400)
    assert len(shown(http)) == (1 if response.status_code == 200 else 0)


def test_json_of_any_depth_is_taken_or_refused_and_what_was_taken_can_be_shown(http: httpx.Client) -> None:
    answers: dict[int, set[int]] = {}
    for depth in (50, *range(400, 1000, 40), *range(955, 975), 2_000, 5_000):
        nested = b'{"a":' * depth + b"1" + b"}" * depth
        item = b'{"type":"track","event":"A","userId":"u1","context":' + nested + b"}"
        bodies = {"/v1/track": item, "/v1/batch": b'{"batch":[' + item + b'],"context":' + nested + b"}"}
        found = [http.post(path, content=body).status_code for path, body in bodies.items()]
        found.append(http.get("/_sandbox/messages").status_code)
        found.append(http.delete("/_sandbox/messages").status_code)
        answers[depth] = set(found)
    assert {depth: found for depth, found in answers.items() if not found <= {200, 400}} == {}
    assert answers[50] == {200}


def test_an_answer_on_a_kept_connection_does_not_wait_for_an_acknowledgement(http: httpx.Client) -> None:
    def seconds() -> float:
        start = time.perf_counter()
        http.post("/v1/track", json=TRACK).raise_for_status()
        return time.perf_counter() - start

    assert statistics.median(seconds() for _ in range(41)) < 0.03


def test_a_file_keeps_its_messages_and_their_ids(tmp_path: Path) -> None:
    db = tmp_path / "new" / "sandbox.db"
    with Sandbox(db) as first, connection(first) as http:
        kept_for_questions(http)
        before = shown(http)
    with Sandbox(db) as second, connection(second) as http:
        assert shown(http) == before
        after = take(http, "/v1/track", {**TRACK, "messageId": "m2"})
    assert [row["discarded"] for row in after] == [*(row["discarded"] for row in before), "duplicate"]
    assert after[-1]["sequence"] > before[-1]["sequence"]


def test_an_answered_message_is_in_the_file_before_the_sandbox_ends(tmp_path: Path) -> None:
    db = tmp_path / "sandbox.db"
    with Sandbox(db) as running, connection(running) as http:
        assert http.post("/v1/track", json=TRACK).json() == ACCEPTED
        reader = sqlite3.connect(db)
        try:
            assert reader.execute("SELECT name FROM messages").fetchall() == [("Order Completed",)]
        finally:
            reader.close()


def test_a_closed_sandbox_answers_no_more() -> None:
    with Sandbox() as running, connection(running) as http:
        assert http.get("/_sandbox/messages").status_code == 200
    with connection(running) as late, pytest.raises(httpx.ConnectError):
        late.get("/_sandbox/messages")


def test_the_sandbox_shares_no_message_model_with_the_client(environ: dict[str, str]) -> None:
    program = "import sys, segment_tools.sandbox.run; print(*(name for name in sys.modules if 'segment_tools' in name))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(done.stdout.split())
    assert "segment_tools.sandbox.judge" in loaded
    others = ("spec.messages", "spec.parsing", "spec.context", "wire", "client", "transport", "outbox", "settings")
    assert not loaded & {f"segment_tools.{name}" for name in others}


def test_gzip_is_taken_and_bounded(sandbox: Sandbox) -> None:
    import gzip

    headers = {"Content-Encoding": "gzip"}
    auth = ("key", "")
    good = gzip.compress(b'{"event": "A", "userId": "u"}')
    assert httpx.post(f"{sandbox.url}/v1/track", content=good, headers=headers, auth=auth).status_code == 200
    for content in (gzip.compress(b"0" * 10**7), b"not gzip", good[:-8], good + b"x", good + good):
        assert httpx.post(f"{sandbox.url}/v1/track", content=content, headers=headers, auth=auth).status_code == 400
    assert [row["message"]["event"] for row in sandbox.store.messages({}, None, 10)] == ["A"]


def test_two_sandboxes_may_make_the_same_file_at_once(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for attempt in range(5):
        with ThreadPoolExecutor(8) as pool:
            stores = list(pool.map(Store, [tmp_path / f"{attempt}.db"] * 8))
        for store in stores:
            store.close()


@pytest.fixture
def strict() -> Iterator[Sandbox]:
    """A sandbox that knows two sources."""
    with Sandbox(options=Options(Sources({"key-of-web": "web", "key-of-ios": "ios"}))) as running:
        yield running


def test_a_known_key_names_its_source_and_an_unknown_one_loses_its_messages(strict: Sandbox) -> None:
    for key in ("key-of-ios", "key-of-nobody"):
        answer = httpx.post(
            f"{strict.url}/v1/batch", json={"batch": [{"type": "page", "userId": "u1"}] * 2}, auth=(key, "")
        )
        assert (answer.status_code, answer.json()) == (200, {"success": True})
    found = [(row["source"][:6], row["discarded"]) for row in strict.store.messages({}, None, 10)]
    assert found == [("source", "unknown_source")] * 2 + [("ios", None)] * 2


def test_the_browser_library_reads_a_sources_settings(strict: Sandbox) -> None:
    known = httpx.get(f"{strict.url}/v1/projects/key-of-web/settings")
    assert known.json()["integrations"] == {"Segment.io": {"apiKey": "key-of-web"}}
    unknown = httpx.get(f"{strict.url}/v1/projects/key-of-nobody/settings")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")


def test_a_sources_settings_name_the_destinations_that_it_feeds() -> None:
    webhooks = Webhooks((webhook_of("http://127.0.0.1:9/segment"),))
    options = Options(destinations=("Amplitude", "Google Analytics"), webhooks=webhooks)
    with Sandbox(options=options) as feeding:
        settings = httpx.get(f"{feeding.url}/v1/projects/any/settings").json()
    assert set(settings["integrations"]) == {"Amplitude", "Google Analytics", "Webhooks", "Segment.io"}


def test_pages_from_anywhere_may_send_but_not_look(sandbox: Sandbox) -> None:
    origin = {"Origin": "https://shop.example.com"}
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    preflight = httpx.options(f"{sandbox.url}/v1/t", headers=asked)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, "*")
    body = json.dumps({"event": "A", "anonymousId": "a1", "writeKey": "key"})
    sent = httpx.post(f"{sandbox.url}/v1/t", content=body, headers={**origin, "Content-Type": "text/plain"})
    assert (sent.json(), sent.headers["access-control-allow-origin"]) == ({"success": True}, "*")
    look = httpx.get(f"{sandbox.url}/_sandbox/messages", headers=origin)
    assert "access-control-allow-origin" not in look.headers
    assert [row["message"]["event"] for row in look.json()["messages"]] == ["A"]


PIXELS = {
    "base64": {
        "data": b64encode(
            b'{"writeKey": "k", "event": "Email Opened", "userId": "u1", "properties": {"n": 1}}'
        ).decode()
    },
    "flat": {"writeKey": "k", "event": "Email Opened", "userId": "u1", "properties.n": "1", "context.page.url": "x"},
}


@pytest.mark.parametrize("form", PIXELS)
def test_a_pixel_carries_a_message(form: str, sandbox: Sandbox) -> None:
    answer = httpx.get(f"{sandbox.url}/v1/pixel/track", params=PIXELS[form])
    assert (answer.status_code, answer.headers["content-type"], answer.content[:6]) == (200, "image/gif", b"GIF89a")
    (row,) = sandbox.store.messages({}, None, 10)
    assert (row["message"]["type"], row["message"]["event"], row["discarded"]) == ("track", "Email Opened", None)
    assert str(row["message"]["properties"]["n"]) == "1"
    assert "writeKey" not in json.dumps(row)


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"data": b64encode(b'{"writeKey": "k", "event": "A", "x": NaN}').decode()},
        {"data": "%%%"},
        {"data": "W10="},
        {"data": "eyJh"},
        {"a": "1", "a.b": "2"},
        {"event": "no key"},
    ],
)
def test_a_broken_pixel_is_still_a_pixel_and_keeps_nothing(query: dict[str, str], sandbox: Sandbox) -> None:
    answer = httpx.get(f"{sandbox.url}/v1/pixel/track", params=query)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/gif")
    assert httpx.get(f"{sandbox.url}/v1/pixel/nothing", params={"writeKey": "k"}).status_code == 200
    assert sandbox.store.messages({}, None, 10) == []

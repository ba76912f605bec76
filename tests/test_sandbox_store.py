"""The sandbox's file: what was answered is in it whatever happens, within the bounds it was given."""

import json
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import WAIT, running

from segment_tools.sandbox.json_text import Body
from segment_tools.sandbox.judge import verdicts
from segment_tools.sandbox.options import Options
from segment_tools.sandbox.run import Sandbox
from segment_tools.sandbox.store import Arrival, Parcel, Retention, Store


def test_killed_while_it_takes_messages_it_has_every_one_that_it_answered(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    db = str(tmp_path / "sandbox.db")
    answered: list[str] = []
    enough = threading.Event()

    def send(url: str, sender: int) -> None:
        with httpx.Client(base_url=url, auth=("key", ""), timeout=WAIT, trust_env=False) as http:
            for number in range(10_000):
                ids = [f"{sender}-{number}-{item}" for item in range(3)]
                items = [{"type": "track", "event": "A", "userId": "u", "messageId": each} for each in ids]
                try:
                    response = http.post("/v1/batch", json={"batch": items})
                except httpx.TransportError:
                    return
                if response.status_code == 200:
                    answered.extend(ids)
                if len(answered) > 600:
                    enough.set()

    with running(environ, "sandbox", "--port", "0", "--db", db) as (process, url):
        senders = [threading.Thread(target=send, args=(url, number)) for number in range(4)]
        for sender in senders:
            sender.start()
        assert enough.wait(WAIT)
        process.kill()
        for sender in senders:
            sender.join(WAIT)
    with Sandbox(db) as again:
        kept = [message["messageId"] for message in again.messages()]
    assert len(kept) == len(set(kept))
    assert set(answered) <= set(kept)
    whole = {message_id.rsplit("-", 1)[0] for message_id in kept}
    assert len(kept) == 3 * len(whole), "a batch is kept whole or not at all"


def test_what_waits_is_written_before_the_file_closes(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.db")
    waiting = [store.add(_arrival(), _track(f"m{number}")) for number in range(500)]
    store.close()
    assert all(each.done() and each.exception() is None for each in waiting)
    with Sandbox(tmp_path / "s.db") as again:
        assert len(again.messages()) == 500


def _arrival(at: datetime | None = None) -> Arrival:
    return Arrival(at or datetime.now(UTC), "/v1/track", "web")


def _track(message_id: str) -> list[Any]:
    return verdicts(Body({"event": "A", "userId": "u1", "messageId": message_id}), "track")


def test_it_is_read_while_it_is_written(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "s.db") as sandbox:
        sandbox.store.add(_arrival(), _track("m1")).result(WAIT)
        other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            assert len(sandbox.messages()) == 1
            other.execute("ROLLBACK")
        finally:
            other.close()


def test_messages_beyond_the_number_to_keep_are_forgotten_and_still_counted(tmp_path: Path) -> None:
    options = Options(retention=Retention(messages=100))
    with Sandbox(tmp_path / "s.db", options=options) as sandbox:
        for number in range(25):
            items = [{"type": "track", "event": "A", "userId": "u", "messageId": f"{number}-{n}"} for n in range(1000)]
            body = Body({}, [json.dumps(item).encode() for item in items])
            sandbox.store.add(_arrival(), verdicts(body, None)).result(WAIT)
        counted = sum(total for *_, total in sandbox.store.counts())
        kept = [message["messageId"] for message in sandbox.messages()]
    assert counted == 25_000
    assert kept[-1] == "24-999"
    assert 100 <= len(kept) <= 10_100
    with Sandbox(tmp_path / "s.db", options=options) as again:
        assert [message["messageId"] for message in again.messages()] == kept[-100:]
        assert sum(total for *_, total in again.store.counts()) == 25_000


def test_messages_older_than_the_days_to_keep_are_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.db")
    for days in (5, 3, 1):
        store.add(_arrival(datetime.now(UTC) - timedelta(days=days)), _track(f"m{days}")).result(WAIT)
    store.close()
    with Sandbox(tmp_path / "s.db", options=Options(retention=Retention(days=2))) as sandbox:
        assert [message["messageId"] for message in sandbox.messages()] == ["m1"]


def test_a_repeat_is_found_whoever_wrote_the_first(tmp_path: Path) -> None:
    stores = [Store(tmp_path / "s.db"), Store(tmp_path / "s.db")]
    for message_id in ("m1", "m2", "m3"):
        for store in stores:
            store.add(_arrival(), _track(message_id)).result(WAIT)
    assert [row["discarded"] for row in stores[0].messages()] == ["duplicate", None] * 3
    for store in stores:
        store.close()


V1 = """
CREATE TABLE messages (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, received_at TEXT NOT NULL, path TEXT NOT NULL, source TEXT NOT NULL,
    type TEXT, user_id TEXT, event TEXT, message_id TEXT, discarded TEXT, sent TEXT NOT NULL, message TEXT
);
CREATE INDEX messages_by_message_id ON messages (message_id, received_at);
PRAGMA user_version = 1;
"""


def test_a_file_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    sent = {"type": "track", "event": "A", "userId": "u1"}
    delivered = {**sent, "messageId": "sandbox-1", "sentAt": "2026-11-22T10:00:00.000Z"}
    old = sqlite3.connect(tmp_path / "s.db")
    old.executescript(V1)
    row = ("2026-11-22T10:00:01.000Z", "/v1/track", "web", "track", "u1", "A")
    insert = (
        "INSERT INTO messages (received_at, path, source, type, user_id, event, message_id, discarded, sent, message)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    )
    old.execute(insert, (*row, "sandbox-1", None, json.dumps(sent), json.dumps(delivered)))
    old.execute(insert, (*row, None, "event_not_defined", json.dumps({"type": "track", "userId": "u1"}), None))
    old.commit()
    old.close()
    with Sandbox(tmp_path / "s.db") as sandbox:
        (message,) = sandbox.messages(event="A")
        (lost,) = sandbox.discards()
        counts = sandbox.store.counts()
    assert message["messageId"] == "sandbox-1"
    assert message["sentAt"] == "2026-11-22T10:00:00.000Z"
    assert lost["reason"] == "event_not_defined"
    assert counts == [("2026-11-22T10:00", "track", "", 1), ("2026-11-22T10:00", "track", "event_not_defined", 1)]


def test_a_file_that_another_holds_is_answered_with_503_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox(tmp_path / "s.db") as sandbox:
        other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        ask = partial(httpx.post, f"{sandbox.url}/v1/track", json={"event": "A", "userId": "u"}, auth=("k", ""))
        response = ask(timeout=WAIT)
        other.execute("ROLLBACK")
        other.close()
        assert (response.status_code, response.json()["code"]) == (503, "unavailable")
        assert sandbox.messages() == []
        assert ask(timeout=WAIT).status_code == 200
        assert len(sandbox.messages()) == 1


def test_the_size_of_a_batch_item_is_judged_to_the_byte(sandbox: Sandbox) -> None:
    def item(size: int) -> bytes:
        empty = b'{"type":"track","event":"A","userId":"u","properties":{"p":""}}'
        return empty.replace(b'""', b'"%b"' % (b"x" * (size - len(empty))))

    sizes = (32_767, 32_768, 32_769)
    content = b'{"batch": [ %b ]}' % b" , ".join(item(size) for size in sizes)
    response = httpx.post(f"{sandbox.url}/v1/batch", content=content, auth=("k", ""), timeout=WAIT)
    assert response.status_code == 200
    assert len(sandbox.messages()) == 2
    assert [lost["reason"] for lost in sandbox.discards()] == ["too_large"]


def test_the_file_holds_no_write_key(tmp_path: Path) -> None:
    key = "wk-RECOGNISABLE-77"
    with Sandbox(tmp_path / "s.db") as sandbox:
        one = {"type": "track", "event": "A", "userId": "u", "writeKey": key}
        for body in ({**one}, {"batch": [one, one], "writeKey": key}, {"batch": 5, "writeKey": key}):
            path = "batch" if "batch" in body else "track"
            assert httpx.post(f"{sandbox.url}/v1/{path}", json=body, timeout=WAIT).status_code == 200
    for path in tmp_path.iterdir():
        assert key.encode() not in path.read_bytes()


def test_half_a_character_in_one_request_spoils_no_other(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "s.db") as sandbox:
        statuses: list[int] = []

        def send(body: bytes) -> None:
            with httpx.Client(base_url=sandbox.url, auth=("k", ""), trust_env=False, timeout=WAIT) as http:
                for _ in range(40):
                    statuses.append(http.post("/v1/track", content=body).status_code)

        odd, plain = b'{"event":"e","userId":"u","sentAt":"\\ud800"}', b'{"event":"e","userId":"u"}'
        senders = [threading.Thread(target=send, args=(body,)) for body in (odd, odd, plain, plain, plain)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(WAIT)
        assert set(statuses) == {200}
        assert len(sandbox.messages()) == 200


def test_what_a_request_shares_counts_for_each_of_its_messages(sandbox: Sandbox) -> None:
    body = {
        "context": {"padding": "x" * 40_000},
        "batch": [{"type": "track", "event": "A", "userId": "u"}] * 50,
    }
    assert httpx.post(f"{sandbox.url}/v1/batch", json=body, auth=("k", ""), timeout=WAIT).status_code == 200
    assert [lost["reason"] for lost in sandbox.discards()] == ["too_large"] * 50
    assert all("context" not in lost["sent"] for lost in sandbox.discards())


def test_a_pixel_is_bounded_as_a_message_is(sandbox: Sandbox) -> None:
    deep = ".".join("a" * 900)
    for query in (f"properties.{deep}=1", f"properties.a={'x' * 33_000}"):
        url = f"{sandbox.url}/v1/pixel/track?writeKey=k&event=e&userId=u&{query}"
        assert httpx.get(url, timeout=WAIT).status_code == 200
    assert sandbox.messages() == []


def test_writing_in_two_ways_at_once_ends(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.db")
    done = threading.Semaphore(0)

    def at_once() -> None:
        for number in range(200):
            parcel = Parcel(_arrival(), _track(f"a{number}"))
            store.write([parcel], lambda _: done.release(), patient=False)

    thread = threading.Thread(target=at_once)
    thread.start()
    patient = [store.add(_arrival(), _track(f"p{number}")) for number in range(200)]
    for each in patient:
        each.result(WAIT)
    thread.join(WAIT)
    assert all(done.acquire(timeout=WAIT) for _ in range(200))
    assert len(store.messages(limit=1000)) == 400
    store.close()


def test_few_messages_to_keep_are_kept_to_soon(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "s.db", options=Options(retention=Retention(messages=100))) as sandbox:
        for number in range(300):
            sandbox.store.add(_arrival(), _track(f"m{number}")).result(WAIT)
        assert 100 <= len(sandbox.messages()) <= 111


def test_a_clock_that_was_set_back_takes_no_newer_message_along(tmp_path: Path) -> None:
    store = Store(tmp_path / "s.db")
    for days, message_id in ((0, "new"), (9, "clock-back")):
        store.add(_arrival(datetime.now(UTC) - timedelta(days=days)), _track(message_id)).result(WAIT)
    store.close()
    with Sandbox(tmp_path / "s.db", options=Options(retention=Retention(days=2))) as sandbox:
        assert "new" in [message["messageId"] for message in sandbox.messages()]


def test_others_on_the_machine_cannot_read_the_file(tmp_path: Path) -> None:
    with Sandbox(tmp_path / "s.db") as sandbox:
        sandbox.store.add(_arrival(), _track("m1")).result(WAIT)
        assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}

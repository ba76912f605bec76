"""The inbox: every kind of it keeps its promises, whoever else stands on the same file or server."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import NOW, WAIT, Time, acknowledged, emptied, foreign

from segment_tools.errors import NotConfigured, Unavailable
from segment_tools.inbox import Inbox, Page, Query, Retention, Stored, open_inbox
from segment_tools.spec.webhooks import Delivery, deliveries_of

pytestmark = pytest.mark.anyio

KINDS = ("file", "memory", "redis")
each_shared = pytest.mark.parametrize("address", ["file", "redis"], indirect=True)


def address_of(kind: str, request: pytest.FixtureRequest) -> str:
    if kind == "redis":
        server = str(request.getfixturevalue("redis_server"))
        emptied(server)
        return server
    return "sqlite:///:memory:" if kind == "memory" else f"sqlite:///{request.getfixturevalue('tmp_path')}/in/box.db"


@pytest.fixture(params=KINDS)
def address(request: pytest.FixtureRequest) -> str:
    """The address of an empty inbox of each kind."""
    return address_of(request.param, request)


@asynccontextmanager
async def opened(address: str, retention: Retention = Retention(), time: Time | None = None) -> AsyncIterator[Inbox]:
    moments = time or Time()
    inbox = open_inbox(address, retention, lambda: moments.now)
    try:
        async with asyncio.timeout(WAIT):
            yield inbox
    finally:
        await inbox.aclose()


@pytest.fixture
async def inbox(address: str, time: Time) -> AsyncIterator[Inbox]:
    async with opened(address, time=time) as inbox:
        yield inbox


def delivery(message_id: str, **fields: Any) -> Delivery:
    (made,) = deliveries_of(json.dumps({"type": "track", "messageId": message_id, **fields}).encode())
    return made


def deliveries(*message_ids: str) -> tuple[Delivery, ...]:
    return tuple(delivery(each) for each in message_ids)


def ids(items: Sequence[Stored]) -> list[str]:
    return [json.loads(item.body)["messageId"] for item in items]


async def walked(inbox: Inbox, query: Query) -> list[Stored]:
    """Every item, page by page, to the end."""
    found: list[Stored] = []
    while True:
        page = await inbox.page(query)
        assert len(page.items) <= query.limit
        found.extend(page.items)
        if page.next is None:
            return found
        assert len(page.items) == query.limit
        assert page.next == page.items[-1].cursor
        query = replace(query, **{"before" if query.newest_first else "after": page.next})


async def kept(inbox: Inbox) -> list[str]:
    return ids(await walked(inbox, Query(limit=1000)))


# Adding


async def test_what_is_added_is_found_as_it_was_in_its_order(inbox: Inbox) -> None:
    body = '{ "type":"identify","userId":"ü","traits":{"a":1.0,"b":"\\ud83d\\u0000"},"channel":"","event":"=A" }'
    at = NOW + timedelta(microseconds=1)
    assert await inbox.add(deliveries_of(body.encode()), at) == 1
    assert await inbox.add(deliveries("m1", "m2"), NOW) == 2
    assert await inbox.add([], NOW) == 0
    first, *others = (await inbox.page(Query())).items
    assert first == Stored(first.cursor, at, body, "identify", "=A", "ü", "")
    assert first.received_at.utcoffset() == timedelta(0)
    assert ids(others) == ["m1", "m2"]
    assert (others[0].event, others[0].user_id, others[0].channel) == (None, None, None)
    assert await inbox.last() == others[1].cursor


async def test_a_body_is_left_out_beyond_the_bound_and_its_size_told(inbox: Inbox) -> None:
    bodies = ['{"type":"page"}', '{"type":"page","a":"üü"}', '{"type":"page","a":"üüü"}']
    await inbox.add(deliveries_of(f"[{','.join(bodies)}]".encode()), NOW)
    bounded = (await inbox.page(Query(most_bytes=len(bodies[1].encode())))).items
    assert [item.body for item in bounded] == [*bodies[:2], ""]
    assert [item.size for item in bounded] == [len(body.encode()) for body in bodies]
    assert [item.body for item in (await inbox.page(Query(types=("page",), most_bytes=0))).items] == [""] * 3
    assert [item.body for item in (await inbox.page(Query())).items] == bodies


async def test_an_empty_inbox_has_nothing(inbox: Inbox) -> None:
    assert await inbox.page(Query()) == Page(())
    assert await inbox.last() is None
    assert await inbox.position("a") is None


async def test_what_is_known_is_dropped(inbox: Inbox) -> None:
    assert await inbox.add(deliveries("m1", "m2", "m1"), NOW) == 2
    assert await inbox.add(deliveries("m3", "m1", "m4"), NOW) == 2
    assert await inbox.add(deliveries("m1"), NOW) == 0
    assert await kept(inbox) == ["m1", "m2", "m3", "m4"]


@each_shared
async def test_what_another_added_is_known_and_found(address: str) -> None:
    async with opened(address) as one, opened(address) as other:
        rounds = [deliveries(*(f"{number}-{item}" for item in range(3))) for number in range(20)]
        added = await asyncio.gather(*(inbox.add(each, NOW) for each in rounds for inbox in (one, other)))
        assert sum(added) == 60
        assert await kept(one) == await kept(other)
        assert len(set(await kept(one))) == 60


async def test_2000_requests_at_once_are_all_kept_each_in_its_order(inbox: Inbox) -> None:
    rounds = [deliveries(f"{number}-a", f"{number}-b") for number in range(2000)]
    assert sum(await asyncio.gather(*(inbox.add(each, NOW) for each in rounds))) == 4000
    found = await kept(inbox)
    assert len(set(found)) == 4000
    assert all(found[at][:-1] == found[at + 1][:-1] for at in range(0, 4000, 2))


async def test_a_request_that_cannot_be_kept_is_not_kept_in_part_and_spoils_no_other(inbox: Inbox) -> None:
    bad = [delivery("m1"), replace(delivery("m2"), event="\ud800"), delivery("m3")]
    requests = [deliveries("a"), bad, deliveries("b")]
    results = await asyncio.gather(*(inbox.add(each, NOW) for each in requests), return_exceptions=True)
    assert [type(each) for each in results] == [int, UnicodeEncodeError, int]
    assert sorted(await kept(inbox)) == ["a", "b"]


async def test_a_time_needs_its_zone(inbox: Inbox) -> None:
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(ValueError, match="time zone"):
        await inbox.add(deliveries("m1"), naive)
    with pytest.raises(ValueError, match="time zone"):
        await inbox.page(Query(since=naive))


ADDING = """
import asyncio, itertools, json, sys
from datetime import UTC, datetime
from segment_tools.inbox import open_inbox
from segment_tools.spec.webhooks import deliveries_of

async def add(inbox, sender):
    for number in itertools.count():
        ids = [f"{sender}-{number}-{item}" for item in range(3)]
        body = json.dumps([{"type": "track", "messageId": each} for each in ids])
        await inbox.add(deliveries_of(body.encode()), datetime.now(UTC))
        print(*ids, flush=True)

async def main():
    inbox = open_inbox(sys.argv[1])
    await asyncio.gather(*(add(inbox, sender) for sender in range(4)))

asyncio.run(main())
"""


@pytest.mark.parametrize("address", ["file"], indirect=True)
async def test_killed_while_it_adds_it_has_all_that_it_acknowledged_and_nothing_twice(
    address: str, environ: dict[str, str]
) -> None:
    command = [sys.executable, "-P", "-c", ADDING, address]
    for lines in (300, 600):  # the second adds what the first did, and more
        told = acknowledged(command, environ, lines)
        async with opened(address) as inbox:
            found = await kept(inbox)
        assert len(told) >= 3 * lines
        assert told <= set(found)
        assert len(found) == len(set(found))
        whole = {each.rsplit("-", 1)[0] for each in found}
        assert len(found) == 3 * len(whole), "a request is kept whole or not at all"


# Reading


@dataclass(frozen=True)
class Asked:
    """A query whose cursors are still places among what was added."""

    query: Query
    after: int | None
    before: int | None


some = st.none() | st.sampled_from(["a", "b"])
minutes = st.integers(0, 4).map(lambda number: NOW + timedelta(minutes=number))
places = st.none() | st.integers(0, 11)
queries = st.builds(
    Query,
    types=st.lists(st.sampled_from(["track", "page", "delete"]), max_size=2).map(tuple),
    channel=some,
    event=some,
    user_id=some,
    since=st.none() | minutes,
    newest_first=st.booleans(),
    limit=st.integers(1, 5),
)
rows = st.lists(
    st.tuples(st.fixed_dictionaries({"type": st.sampled_from(["track", "page", "delete", "x"]), "event": some,
                                     "userId": some, "channel": some}), minutes),
    max_size=12,
)  # fmt: skip


def modelled(added: Sequence[tuple[dict[str, Any], datetime]], asked: Asked) -> list[str]:
    """What plain Python finds."""
    query = asked.query
    found = [
        str(place)
        for place, (fields, at) in enumerate(added)
        if (not query.types or fields["type"] in query.types)
        and query.channel in (None, fields["channel"])
        and query.event in (None, fields["event"])
        and query.user_id in (None, fields["userId"])
        and (query.since is None or at >= query.since)
        and (asked.after is None or place > asked.after)
        and (asked.before is None or place < asked.before)
    ]
    return found[::-1] if query.newest_first else found


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment_tools.inbox.redis._MOST_CHUNK", 3)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.usefixtures("few_at_once")
@pytest.mark.parametrize("kind", KINDS)
def test_pages_are_what_plain_python_finds(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, runner: asyncio.Runner
) -> None:
    address = address_of(kind, request)
    numbers = count()

    async def check(added: list[tuple[dict[str, Any], datetime]], all_asked: list[Asked]) -> None:
        if kind == "redis":
            emptied(address)
        async with opened(f"sqlite:///{tmp_path}/{next(numbers)}.db" if kind == "file" else address) as inbox:
            for place, (fields, at) in enumerate(added):
                assert await inbox.add([delivery(str(place), **fields)], at) == 1
            cursors = [item.cursor for item in (await inbox.page(Query(limit=100))).items]
            assert len(cursors) == len(added)
            for asked in all_asked:
                after, before = (
                    None if place is None or place >= len(cursors) else place for place in (asked.after, asked.before)
                )
                query = replace(
                    asked.query,
                    after=None if after is None else cursors[after],
                    before=None if before is None else cursors[before],
                )
                expected = modelled(added, Asked(query, after, before))
                assert ids(await walked(inbox, query)) == expected
                assert ids((await inbox.page(query)).items) == expected[: query.limit]

    @settings(deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(rows, st.lists(st.builds(Asked, queries, places, places), min_size=1, max_size=5))
    def each(added: list[tuple[dict[str, Any], datetime]], all_asked: list[Asked]) -> None:
        runner.run(check(added, all_asked))

    each()


@pytest.mark.parametrize("newest_first", [False, True])
async def test_many_are_read_to_the_end(inbox: Inbox, newest_first: bool) -> None:
    await inbox.add(deliveries(*map(str, range(2500))), NOW)
    await inbox.add([delivery("other", type="page")], NOW)
    expected = [str(number) for number in range(2500)]
    query = Query(types=("track",), newest_first=newest_first, limit=7)
    assert ids(await walked(inbox, query)) == (expected[::-1] if newest_first else expected)
    assert ids((await inbox.page(replace(query, types=("page",)))).items) == ["other"]


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1-", " 1", "1" * 19, "٣", "0-0-0", "$", "*", f"{'1' * 19}-0"])
async def test_a_cursor_that_was_never_given_is_refused(inbox: Inbox, cursor: str) -> None:
    for work in (
        lambda: inbox.page(Query(after=cursor)),
        lambda: inbox.page(Query(before=cursor)),
        lambda: inbox.changed(cursor, 0),
        lambda: inbox.advance("a", cursor),
    ):
        with pytest.raises(ValueError, match="none of this inbox's"):
            await work()


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_page_has_an_item(limit: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Query(limit=limit)


# Retention


async def test_what_is_too_old_never_comes_back(address: str, time: Time) -> None:
    async with opened(address, Retention(days=2), time) as inbox:
        for days in (3, 1, 2, 0):
            await inbox.add(deliveries(f"{days} days"), NOW - timedelta(days=days, microseconds=days == 3))
        assert await kept(inbox) == ["1 days", "2 days", "0 days"]
        time.now += timedelta(microseconds=1)
        assert await kept(inbox) == ["1 days", "0 days"]
        assert ids((await inbox.page(Query(since=NOW - timedelta(days=9), newest_first=True))).items)[-1] == "1 days"
        time.now += timedelta(days=3)
        assert await kept(inbox) == []
        assert await inbox.last() is None
        assert not await inbox.changed(None, 0.01)
        await inbox.add(deliveries("new"), time.now)
        assert await kept(inbox) == ["new"]
        assert await inbox.changed(None, 0)


async def test_only_so_many_are_kept(address: str) -> None:
    async with opened(address, Retention(count=100)) as inbox:
        for number in range(30):
            await inbox.add(deliveries(*(f"{number}-{item}" for item in range(50))), NOW)
        found = await kept(inbox)
        assert found[-1] == "29-49"
        assert 100 <= len(found) <= (200 if address.startswith("redis") else 100)  # it forgets whole blocks of 100


@pytest.mark.parametrize("address", ["file"], indirect=True)
async def test_what_is_forgotten_is_no_longer_in_the_file(address: str, time: Time) -> None:
    async with opened(address, Retention(days=1, count=2000), time) as inbox:
        await inbox.add(deliveries(*(f"a{number}" for number in range(5000))), NOW)
        assert rows_in(address) == (2000, 2000)
        time.now += timedelta(days=2)
        for _ in range(2):
            await inbox.add(deliveries(f"b{time.now}"), time.now)
            time.now += timedelta(seconds=1)
        assert rows_in(address) == (2, 2)


def rows_in(address: str) -> tuple[int, int]:
    database = sqlite3.connect(address.removeprefix("sqlite:///"))
    try:
        counts = [database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("deliveries", "bodies")]
    finally:
        database.close()
    return counts[0], counts[1]


@pytest.mark.parametrize("wrong", [{"days": 0}, {"days": float("nan")}, {"count": 0}, {"count": -1}])
async def test_a_retention_keeps_something(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        Retention(**wrong)


# Waiting


async def started(inbox: Inbox, after: str | None) -> asyncio.Task[bool]:
    """Somebody who waits, and has looked in vain by now."""
    task = asyncio.create_task(inbox.changed(after, WAIT))
    for _ in range(3):
        await inbox.page(Query())
    assert not task.done()
    return task


async def test_whoever_waits_is_woken_at_once_by_what_this_inbox_adds(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segment_tools.inbox.sqlite._LOOK_SECONDS", 10 * WAIT)
    waiting = [await started(inbox, None) for _ in range(3)]
    await inbox.add(deliveries("m1"), NOW)
    assert await asyncio.gather(*waiting) == [True] * 3
    last = await inbox.last()
    assert await inbox.changed(None, 0)
    further = await started(inbox, last)
    await inbox.add(deliveries("m1"), NOW)
    await inbox.add(deliveries("m2"), NOW)
    assert await further
    assert await inbox.changed(last, 0)


@each_shared
async def test_whoever_waits_is_woken_by_what_another_adds(address: str) -> None:
    async with opened(address) as one, opened(address) as other:
        waiting = await started(one, None)
        await other.add(deliveries("m1"), NOW)
        assert await waiting
        waiting = await started(one, await one.last())
        await other.add(deliveries("m2"), NOW)
        assert await waiting


@pytest.mark.parametrize("address", ["redis"], indirect=True)
async def test_all_who_wait_share_one_connection(address: str) -> None:
    async with opened(address) as inbox:
        await inbox.add(deliveries("m1"), NOW)
        last = await inbox.last()
        waiting = [await started(inbox, last) for _ in range(50)]
        with redis_client.Redis.from_url(address) as client:
            async with asyncio.timeout(WAIT):
                while not int(client.info("clients")["blocked_clients"]):  # noqa: ASYNC110 - bounded
                    await asyncio.sleep(0.01)
            assert client.info("clients")["blocked_clients"] == 1
        for task in waiting[1:]:
            task.cancel()
        await inbox.add(deliveries("m2"), NOW)
        assert await waiting[0]


async def test_waiting_ends_with_its_time(inbox: Inbox) -> None:
    await inbox.add(deliveries("m1"), NOW)
    last = await inbox.last()
    assert [await inbox.changed(last, seconds) for seconds in (-1, 0, 0.01)] == [False] * 3


async def test_waiting_can_be_cancelled_and_leaves_nothing_behind(inbox: Inbox) -> None:
    tasks = len(asyncio.all_tasks())
    for steps in range(0, 60, 3):
        waiting = asyncio.create_task(inbox.changed(None, WAIT))
        for _ in range(steps):
            await asyncio.wait([waiting], timeout=0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert not inbox._waiters
    assert len(asyncio.all_tasks()) == tasks
    await inbox.add(deliveries("m1"), NOW)
    assert await inbox.changed(None, 0)


async def test_adding_can_be_cancelled_and_done_again(inbox: Inbox) -> None:
    adding = [asyncio.create_task(inbox.add(deliveries(f"m{number}"), NOW)) for number in range(50)]
    await inbox.page(Query())
    for task in adding:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await asyncio.gather(*(inbox.add(deliveries(f"m{number}"), NOW) for number in range(50)))
    assert sorted(await kept(inbox)) == sorted(f"m{number}" for number in range(50))


async def test_closing_ends_all_waiting_and_all_else(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment_tools.inbox.sqlite._LOOK_SECONDS", 10 * WAIT)
    async with opened(address) as inbox:
        waiting = [await started(inbox, None) for _ in range(3)]
        await inbox.aclose()
        assert await asyncio.gather(*waiting) == [False] * 3
        assert await inbox.changed(None, WAIT) is False
        with pytest.raises(Unavailable, match="let go of"):
            await inbox.add(deliveries("m1"), NOW)
        await inbox.aclose()


@pytest.mark.parametrize("steps", range(0, 40, 3))
async def test_whoever_waits_may_have_only_begun_when_it_closes(address: str, steps: int) -> None:
    async with opened(address) as inbox:
        waiting = [asyncio.create_task(inbox.changed(None, WAIT)) for _ in range(3)]
        for _ in range(steps):
            await asyncio.wait(waiting, timeout=0)
        await inbox.aclose()
        assert await asyncio.gather(*waiting) == [False] * 3


@each_shared
async def test_what_was_begun_is_finished_by_closing(address: str) -> None:
    async with opened(address) as inbox:
        adding = [asyncio.create_task(inbox.add(deliveries(f"m{number}"), NOW)) for number in range(100)]
        await asyncio.wait(adding, timeout=0)
        await inbox.aclose()
        assert await asyncio.gather(*adding) == [1] * 100
    async with opened(address) as again:
        assert len(await kept(again)) == 100


# Forwarding


@each_shared
async def test_positions_stay_and_never_go_back(address: str) -> None:
    async with opened(address) as inbox:
        await inbox.add(deliveries(*map(str, range(12))), NOW)
        cursors = [item.cursor for item in (await inbox.page(Query())).items]
        await inbox.advance("a", cursors[10])
        await inbox.advance("a", cursors[9])
        await inbox.advance("b", cursors[0])
    async with opened(address) as again:
        assert [await again.position(name) for name in ("a", "b", "c")] == [cursors[10], cursors[0], None]
        assert ids((await again.page(Query(after=await again.position("a")))).items) == ["11"]


async def test_a_lease_has_one_holder_until_it_is_given_up(inbox: Inbox) -> None:
    assert await inbox.lease("forward", "a", WAIT)
    assert not await inbox.lease("forward", "b", WAIT)
    assert not await inbox.lease("forward", "b", 0)
    assert await inbox.lease("other", "b", WAIT)
    assert await inbox.lease("forward", "a", WAIT)
    assert await inbox.lease("forward", "a", 0)
    assert await inbox.lease("forward", "b", WAIT)
    assert not await inbox.lease("forward", "a", WAIT)


async def test_a_lease_that_ran_out_can_be_taken(inbox: Inbox, time: Time) -> None:
    assert await inbox.lease("forward", "a", 0.05)
    time.now += timedelta(seconds=0.05)
    async with asyncio.timeout(WAIT):
        while not await inbox.lease("forward", "b", WAIT):  # a server goes by its own clock
            pass
    assert not await inbox.lease("forward", "a", WAIT)


@pytest.mark.parametrize("address", ["file"], indirect=True)
async def test_a_clock_that_is_set_back_does_not_prolong_a_lease(inbox: Inbox, time: Time) -> None:
    assert await inbox.lease("forward", "a", 60)
    time.now -= timedelta(hours=1)
    assert await inbox.lease("forward", "b", 60)


@each_shared
async def test_a_lease_has_one_holder_among_all(address: str) -> None:
    async with opened(address) as one, opened(address) as other:
        holders = [(inbox, f"{number}") for number, inbox in enumerate((one, other) * 10)]
        taken = await asyncio.gather(*(inbox.lease("forward", name, WAIT) for inbox, name in holders))
        assert sum(taken) == 1


# Opening


WRONG = (
    "", "inbox.db", "sqlite:", "sqlite://", "sqlite:///", "sqlite://a.db", "sqlite:////a\0b", "SQLITE:///a.db",
    "postgres://u:hidden@h/d", "redis:/h", "redis://u:hidden@h:port/0", "redis://:hidden@h/0?socket_timeout=x",
    "redis://:hidden@h/0?unknown=1",
)  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_address_is_refused_without_repeating_it(wrong: str) -> None:
    with pytest.raises(NotConfigured, match=r"^SEGMENT_INBOX is no address") as raised:
        open_inbox(wrong)
    assert raised.value.setting == "SEGMENT_INBOX"
    assert "hidden" not in str(raised.value)


def test_opening_asks_for_nothing_and_shows_no_secret(tmp_path: Path) -> None:
    addresses = (f"sqlite:///{tmp_path}/a/b.db", "redis://u:hidden@h:1/0", "rediss://:hidden@h", "unix://u:hidden@/s")
    assert not [address for address in addresses if "hidden" in repr(open_inbox(address))]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("prefix", ["", "absolute"])
async def test_a_file_and_its_folder_are_made_for_nobody_else(in_folder: Path, prefix: str) -> None:
    async with opened(f"sqlite:///{in_folder if prefix else '.'}/new/inbox.db") as inbox:
        await inbox.add(deliveries("m1"), NOW)
        modes = {path.name: path.stat().st_mode & 0o777 for path in (in_folder / "new").iterdir()}
    assert modes["inbox.db"] == 0o600
    assert set(modes.values()) == {0o600}
    assert (in_folder / "new").stat().st_mode & 0o777 == 0o700


async def test_what_was_kept_is_there_after_opening_again(tmp_path: Path) -> None:
    for number in range(3):
        async with opened(f"sqlite:///{tmp_path}/a.db") as inbox:
            assert await inbox.add(deliveries("m", f"m{number}"), NOW) == (2 if number == 0 else 1)
            assert await kept(inbox) == ["m", *(f"m{each}" for each in range(number + 1))]


async def test_many_may_make_the_file_at_once(tmp_path: Path) -> None:
    for number in range(10):
        inboxes = [open_inbox(f"sqlite:///{tmp_path}/{number}.db") for _ in range(8)]
        added = await asyncio.gather(*(inbox.add(deliveries("m1"), NOW) for inbox in inboxes))
        for inbox in inboxes:
            await inbox.aclose()
        assert sum(added) == 1


async def made(path: Path) -> None:
    async with opened(f"sqlite:///{path}") as inbox:
        await inbox.last()


async def test_a_file_that_is_no_inbox_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await made(path)
    foreign(path, "PRAGMA user_version = 99")
    foreign(tmp_path / "b.db", "CREATE TABLE private (a)")
    (tmp_path / "c.db").write_text("private " * 1000)
    for name, reason in (("a", "later version"), ("b", "something else"), ("c", "no SQLite database")):
        before = (tmp_path / f"{name}.db").read_bytes()
        async with opened(f"sqlite:///{tmp_path}/{name}.db") as inbox:
            for _ in range(2):
                with pytest.raises(ValueError, match=reason) as raised:
                    await inbox.add(deliveries("m1"), NOW)
                assert "private" not in str(raised.value)
        assert (tmp_path / f"{name}.db").read_bytes() == before


async def test_nothing_is_taken_into_a_file_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "in.db"
    async with opened(f"sqlite:///{path}") as inbox:
        await inbox.add(deliveries("m1"), NOW)
        path.unlink()
        with pytest.raises(Unavailable, match="deleted, replaced or emptied") as raised:
            await inbox.add(deliveries("m2"), NOW)
        assert raised.value.code == "inbox_unavailable"
        assert await inbox.add(deliveries("m2"), NOW) == 1
    async with opened(f"sqlite:///{path}") as again:
        assert ids((await again.page(Query())).items) == ["m2"]


async def unavailable(address: str) -> None:
    async with opened(address) as inbox:
        works: list[Callable[[], Any]] = [
            lambda: inbox.add(deliveries("m1"), NOW),
            lambda: inbox.page(Query()),
            inbox.last,
            lambda: inbox.changed(None, 0),
            lambda: inbox.position("a"),
            lambda: inbox.advance("a", "1-1" if "redis" in address else "1"),
            lambda: inbox.lease("a", "b", 1),
        ]
        for work in works:
            with pytest.raises(Unavailable, match="inbox's") as raised:
                await work()
            assert raised.value.code == "inbox_unavailable"
            assert raised.value.retryable
            assert "hidden" not in str(raised.value)


async def test_a_file_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    await unavailable(f"sqlite:///{tmp_path}/file/a.db")


async def test_a_server_that_does_not_answer_or_refuses_is_unavailable(redis_server: str) -> None:
    await unavailable("redis://:hidden@127.0.0.1:1/0")
    await unavailable(redis_server.replace("//", "//nobody:hidden@"))


async def test_without_the_package_a_server_is_not_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "segment_tools.inbox.redis", raising=False)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(NotConfigured, match="not installed") as raised:
        open_inbox("redis://:hidden@localhost/0")
    assert raised.value.hint == "pip install 'segment-tools[redis]'"
    assert "hidden" not in str(raised.value)


def test_an_inbox_in_a_file_loads_no_redis(environ: dict[str, str]) -> None:
    check = "import sys; from segment_tools.inbox import open_inbox; open_inbox('sqlite:///a.db'); print(*sys.modules)"
    command = [sys.executable, "-P", "-c", check]
    loaded = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=True, env=environ).stdout
    assert {"redis", "httpx", "mcp", "pydantic"} & set(loaded.split()) == set()

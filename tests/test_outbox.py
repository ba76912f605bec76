"""The outbox: every kind of it keeps its promises, whoever else stands on the same file or server."""

import asyncio
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain, count
from pathlib import Path
from typing import Any, cast

import pytest
import redis as redis_client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import NOW, WAIT, Time, acknowledged, emptied, foreign, redis_running

from segment_tools.errors import NotConfigured, OutboxFull, Unavailable
from segment_tools.inbox import open_inbox
from segment_tools.outbox import ENTRY_OVERHEAD, MOST_BYTES, Dead, Depth, Entry, Known, Outbox, Waiting, open_outbox
from segment_tools.outbox._schema import SCHEMA

pytestmark = pytest.mark.anyio

KINDS = ("file", "memory", "redis")
each_shared = pytest.mark.parametrize("address", ["file", "redis"], indirect=True)
on_file = pytest.mark.parametrize("address", ["file"], indirect=True)
SECRET = "PRIVATE-BODY"
FAR = 10**9


def address_of(kind: str, request: pytest.FixtureRequest) -> str:
    if kind == "redis":
        server = str(request.getfixturevalue("redis_server"))
        emptied(server)
        return server
    return "memory:" if kind == "memory" else f"sqlite:///{request.getfixturevalue('tmp_path')}/out/box.db"


@pytest.fixture(params=KINDS)
def address(request: pytest.FixtureRequest) -> str:
    """The address of an empty outbox of each kind."""
    return address_of(request.param, request)


@asynccontextmanager
async def opened(address: str, most_bytes: int = MOST_BYTES, time: Time | None = None) -> AsyncIterator[Outbox]:
    moments = time or Time()
    outbox = open_outbox(address, most_bytes, lambda: moments.now)
    try:
        async with asyncio.timeout(WAIT):
            yield outbox
    finally:
        await outbox.aclose()


@pytest.fixture
async def outbox(address: str, time: Time) -> AsyncIterator[Outbox]:
    async with opened(address, time=time) as outbox:
        yield outbox


def entry(message_id: str, lane: str = "l", **fields: Any) -> Entry:
    made = Entry(message_id, lane, "", b'{"a":"%s"}' % SECRET.encode(), f"digest of {message_id}", "2026-01-01T00:00Z")
    return replace(made, **fields)


def entries(*message_ids: str) -> list[Entry]:
    return [entry(each) for each in message_ids]


def known(message_id: str, status: Any = "accepted") -> Known:
    made = entry(message_id)
    return Known(message_id, made.digest, status, made.timestamp)


async def everything(outbox: Outbox) -> list[Waiting]:
    return list(await outbox.page(None, FAR, FAR))


def ids(items: Sequence[Waiting]) -> list[str]:
    return [each.entry.message_id for each in items]


async def pending(outbox: Outbox) -> list[str]:
    return ids(await everything(outbox))


async def letters(outbox: Outbox) -> list[Dead]:
    """Every dead letter, page by page."""
    found: list[Dead] = []
    after = None
    while True:
        page = await outbox.dead(after, 2)
        assert len(page.items) <= 2
        found.extend(page.items)
        if page.next is None:
            return found
        after = page.next


async def dead(outbox: Outbox) -> list[str]:
    return [each.message_id for each in await letters(outbox)]


async def kill(outbox: Outbox, *message_ids: str) -> None:
    found = {each.entry.message_id: each for each in await everything(outbox)}
    await outbox.settle([], [(found[each], "rejected", "Segment refused it.", 3) for each in message_ids])


async def status(outbox: Outbox, message_id: str) -> str | None:
    found, _ = await outbox.look([message_id], [])
    return found[message_id].status if found else None


# Adding


async def test_what_is_added_waits_as_it_was_in_its_order(outbox: Outbox) -> None:
    first = Entry("ü\n ", "läne", "eu", b'\x00\xff{"a":1}', "d\n1", "2026-11-23T12:00:00.123Z")
    at = NOW + timedelta(microseconds=1)
    assert await outbox.add([first], at) == (None,)
    assert await outbox.add(entries("m1", "m2"), NOW) == (None, None)
    assert await outbox.add([], NOW) == ()
    found = await everything(outbox)
    assert found[0] == Waiting(found[0].cursor, at, first)
    assert found[0].accepted_at.utcoffset() == timedelta(0)
    assert ids(found) == ["ü\n ", "m1", "m2"]
    assert (await outbox.look(["ü\n "], []))[0] == {"ü\n ": Known("ü\n ", "d\n1", "queued", first.timestamp)}


async def test_an_empty_outbox_has_nothing(outbox: Outbox) -> None:
    assert await everything(outbox) == []
    assert await letters(outbox) == []
    assert await outbox.depth() == Depth(0, 0, None, 0)
    assert await outbox.look(["m1"], ["l"]) == ({}, frozenset())
    assert await outbox.look([], []) == ({}, frozenset())
    assert [await outbox.retry(None), await outbox.retry([]), await outbox.discard([])] == [0, 0, 0]
    await outbox.settle([], [])
    await outbox.remember([], NOW)


async def test_an_id_that_is_known_is_not_added_again(outbox: Outbox) -> None:
    await outbox.remember([known("sent")], NOW)
    other = entry("m1", digest="another", body=b"another")
    assert await outbox.add([entry("m1"), other, entry("sent"), entry("m2")], NOW) == (
        None,
        known("m1", "queued"),
        known("sent"),
        None,
    )
    assert await outbox.add([other], NOW) == (known("m1", "queued"),)
    found = await everything(outbox)
    assert ids(found) == ["m1", "m2"]
    assert found[0].entry == entry("m1")


async def test_what_cannot_be_added_is_not_added_in_part_and_spoils_no_other(outbox: Outbox) -> None:
    bad = [entry("m1"), entry("m2", lane="\ud800"), entry("m3")]
    requests = [entries("a"), bad, entries("b")]
    results = await asyncio.gather(*(outbox.add(each, NOW) for each in requests), return_exceptions=True)
    assert [type(each) for each in results] == [tuple, UnicodeEncodeError, tuple]
    assert sorted(await pending(outbox)) == ["a", "b"]
    assert await status(outbox, "m1") is None


async def test_a_time_needs_its_zone(outbox: Outbox) -> None:
    with pytest.raises(ValueError, match="time zone"):
        await outbox.add(entries("m1"), NOW.replace(tzinfo=None))
    with pytest.raises(ValueError, match="time zone"):
        await outbox.remember([known("m1")], NOW.replace(tzinfo=None))


@each_shared
async def test_what_another_added_is_known_and_found(address: str) -> None:
    async with opened(address) as one, opened(address) as other:
        rounds = [entries(*(f"{number}-{item}" for item in range(3))) for number in range(20)]
        added = await asyncio.gather(*(outbox.add(each, NOW) for each in rounds for outbox in (one, other)))
        assert list(chain.from_iterable(added)).count(None) == 60
        assert await pending(one) == await pending(other)
        assert len(set(await pending(one))) == 60


async def test_1000_callers_at_once_are_all_kept_each_in_its_order(outbox: Outbox) -> None:
    rounds = [entries(f"{number}-a", f"{number}-b") for number in range(1000)]
    assert set(await asyncio.gather(*(outbox.add(each, NOW) for each in rounds))) == {(None, None)}
    found = await pending(outbox)
    assert len(set(found)) == 2000
    assert all(found[at][:-1] == found[at + 1][:-1] for at in range(0, 2000, 2))


async def test_adding_can_be_cancelled_and_done_again(outbox: Outbox) -> None:
    adding = [asyncio.create_task(outbox.add(entries(f"m{number}"), NOW)) for number in range(50)]
    await outbox.depth()
    for task in adding:
        task.cancel()
    await asyncio.gather(*adding, return_exceptions=True)
    await asyncio.gather(*(outbox.add(entries(f"m{number}"), NOW) for number in range(50)))
    assert sorted(await pending(outbox)) == sorted(f"m{number}" for number in range(50))


# The bound


async def test_what_goes_beyond_the_bound_is_refused_whole(address: str) -> None:
    one = entry("m1").size
    async with opened(address, 3 * one) as outbox:
        await outbox.add(entries("m1"), NOW)
        with pytest.raises(OutboxFull) as raised:
            await outbox.add(entries("m2", "m3", "m4"), NOW)
        assert str(raised.value) == (
            f"The outbox has no room: it may hold {3 * one} bytes, dead letters included. Nothing was taken; "
            "wait until more is delivered, retry or discard dead letters, or raise SEGMENT_OUTBOX_MAX_BYTES."
        )
        assert (raised.value.code, raised.value.retryable, raised.value.sent) == ("outbox_full", True, False)
        assert isinstance(raised.value, Unavailable)
        assert await pending(outbox) == ["m1"]
        assert await status(outbox, "m2") is None
        await outbox.add(entries("m1", "m2", "m3", "m2"), NOW)
        assert (await outbox.depth()).bytes == 3 * one
        assert await outbox.add(entries("m3"), NOW) == (known("m3", "queued"),)


async def test_adds_made_together_are_each_taken_or_refused_by_themselves(address: str) -> None:
    async with opened(address, 4 * entry("m1").size) as outbox:
        asked = [entries("m1"), entries(*(f"n{number}" for number in range(5))), entries("m1"), entries("m2", "m2")]
        results = await asyncio.gather(*(outbox.add(each, NOW) for each in asked), return_exceptions=True)
        assert isinstance(results[1], OutboxFull)
        assert sorted(map(str, (results[0], results[2]))) == sorted(map(str, [(None,), (known("m1", "queued"),)]))
        assert results[3] == (None, known("m2", "queued"))
        assert sorted(await pending(outbox)) == ["m1", "m2"]
        assert (await outbox.depth()).bytes == 2 * entry("m1").size


async def test_more_than_a_statement_holds_is_taken_in_order(outbox: Outbox) -> None:
    many = [f"a{number:03}" for number in range(250)]
    await outbox.add(entries(*many), NOW)
    results = await asyncio.gather(*(outbox.add(entries(f"b{number:03}", many[number]), NOW) for number in range(250)))
    assert results == [(None, known(each, "queued")) for each in many]
    assert (await pending(outbox))[:250] == many
    assert sorted((await pending(outbox))[250:]) == [f"b{number:03}" for number in range(250)]


async def test_what_fails_among_adds_made_together_takes_nothing_else_with_it(tmp_path: Path) -> None:
    path = tmp_path / "box.db"
    async with opened(f"sqlite:///{path}") as outbox:
        await outbox.add(entries("m0"), NOW)
        refuse = "BEFORE INSERT ON waiting WHEN new.message_id = 'm5' BEGIN SELECT RAISE(ABORT, 'no'); END"
        foreign(path, f"CREATE TRIGGER refuse {refuse}")
        adding = (outbox.add(entries(f"m{number}"), NOW) for number in range(1, 9))
        results = await asyncio.gather(*adding, return_exceptions=True)
        assert isinstance(results.pop(4), Unavailable)
        assert results == [(None,)] * 7
        assert sorted(await pending(outbox)) == [f"m{number}" for number in range(9) if number != 5]


async def test_dead_letters_count_until_they_are_discarded(address: str) -> None:
    one = entry("m1").size
    async with opened(address, one) as outbox:
        await outbox.add(entries("m1"), NOW)
        await kill(outbox, "m1")
        with pytest.raises(OutboxFull):
            await outbox.add(entries("m2"), NOW)
        assert await outbox.retry(None) == 1
        await outbox.discard(["m1"])
        await outbox.add(entries("m2"), NOW)
        await outbox.settle(await everything(outbox), [])
        await outbox.add(entries("m3"), NOW)


@each_shared
async def test_the_bound_holds_for_all_together(address: str) -> None:
    async with opened(address, 5 * entry("00").size) as one, opened(address, 5 * entry("00").size) as other:
        both = [outbox.add(entries(f"{number:02}"), NOW) for number in range(20) for outbox in (one, other)]
        results = await asyncio.gather(*both, return_exceptions=True)
        assert results.count((None,)) == 5
        assert len(await pending(one)) == 5


# What is known


async def test_what_was_delivered_is_known_for_24_hours_from_then(outbox: Outbox, time: Time) -> None:
    await outbox.add(entries("m1", "m2"), NOW)
    time.now += timedelta(days=3)
    assert await outbox.add(entries("m1"), time.now) == (known("m1", "queued"),)
    await outbox.settle((await everything(outbox))[:1], [])
    time.now += timedelta(hours=24, microseconds=-1)
    assert (await outbox.look(["m1", "m2", "m3"], []))[0] == {"m1": known("m1"), "m2": known("m2", "queued")}
    assert await outbox.add(entries("m1"), time.now) == (known("m1"),)
    time.now += timedelta(microseconds=1)
    assert await status(outbox, "m1") is None
    assert await outbox.add(entries("m1"), time.now) == (None,)
    assert await pending(outbox) == ["m2", "m1"]
    time.now += timedelta(days=2)
    assert await status(outbox, "m1") == "queued"


async def test_what_is_remembered_never_displaces_what_is_known(outbox: Outbox, time: Time) -> None:
    await outbox.add(entries("waits"), NOW)
    second = replace(known("sent"), digest="another")
    await outbox.remember([known("waits"), known("sent"), second], NOW)
    await outbox.remember([second], NOW)
    found, _ = await outbox.look(["waits", "sent"], [])
    assert found == {"waits": known("waits", "queued"), "sent": known("sent")}
    time.now += timedelta(hours=24)
    await outbox.remember([second], time.now)
    assert (await outbox.look(["sent"], []))[0] == {"sent": second}
    with pytest.raises(ValueError, match="Only what was accepted"):
        await outbox.remember([known("m1"), known("m2", "queued")], NOW)
    assert await status(outbox, "m1") is None


def records(address: str) -> int:
    """How many ids are recorded, too old or not."""
    if address.startswith("redis"):
        with redis_client.Redis.from_url(address) as client:
            recorded = client.hlen("{segment-outbox}:known")
            assert recorded == client.zcard("{segment-outbox}:accepted")
            return int(recorded)  # type: ignore[arg-type]
    database = sqlite3.connect(address.removeprefix("sqlite:///"))
    try:
        return int(database.execute("SELECT count(*) FROM known").fetchone()[0])
    finally:
        database.close()


@each_shared
async def test_each_writing_forgets_a_bounded_number(address: str, time: Time) -> None:
    async with opened(address, time=time) as outbox:
        await outbox.remember([known(f"m{number}") for number in range(3000)], NOW)
        time.now += timedelta(hours=24)
        for left in (2000, 1000, 0, 0):
            await outbox.remember([known(f"new {left}")], time.now)
            assert left < records(address) <= left + 4


@each_shared
async def test_only_so_many_ids_are_known_as_accepted(
    address: str, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("sqlite", "redis"):
        monkeypatch.setattr(f"segment_tools.outbox.{kind}.MOST_KNOWN", 3)
    async with opened(address, time=time) as outbox:
        await outbox.add(entries("waits", "m1", "dies"), NOW)
        for number in range(1, 6):
            time.now += timedelta(seconds=1)
            await outbox.remember([known(f"m{number}")], time.now)
            await outbox.settle([each for each in await everything(outbox) if each.entry.message_id == "m1"], [])
        await kill(outbox, "dies")
        await outbox.remember([known("m5")], time.now)
        found, _ = await outbox.look(["waits", "m1", "m2", "m3", "m4", "m5"], [])
        assert found == {each: known(each) for each in ("m3", "m4", "m5")} | {"waits": known("waits", "queued")}
        await outbox.settle(await everything(outbox), [])
        monkeypatch.setattr("segment_tools.outbox.sqlite.MOST_KNOWN", 2)
        monkeypatch.setattr("segment_tools.outbox.redis.MOST_KNOWN", 2)
        await outbox.add(entries("next"), time.now)
        assert (await outbox.look(["m3", "m4"], []))[0] == {}


@on_file
async def test_a_file_of_the_first_version_is_brought_up_to_date(
    address: str, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("segment_tools.outbox.sqlite.SCHEMA", replace(SCHEMA, migrations=SCHEMA.migrations[:1]))
        patch.setattr("segment_tools.outbox.sqlite._note", lambda *_: None)
        async with opened(address) as outbox:
            await outbox.add(entries("m1"), NOW)
    foreign(Path(address.removeprefix("sqlite:///")), "INSERT INTO known VALUES ('sent', '', 'accepted', '', 0)")
    async with opened(address) as outbox:
        await outbox.remember([known("m2")], NOW)
        assert await asked(outbox, "SELECT accepted FROM totals") == [(1,)]
        assert await pending(outbox) == ["m1"]


# Reading


async def test_pages_are_bounded_in_number_and_bytes_and_go_on(outbox: Outbox) -> None:
    sizes = [5, 7, 100, 1, 1, 1]
    await outbox.add([entry(str(at), body=b"x" * size) for at, size in enumerate(sizes)], NOW)
    assert ids(await outbox.page(None, 2, FAR)) == ["0", "1"]
    assert ids(await outbox.page(None, 9, 12)) == ["0", "1"]
    assert ids(await outbox.page(None, 9, 11)) == ["0"]
    assert ids(await outbox.page(None, 9, 0)) == ["0"]
    second = (await everything(outbox))[1].cursor
    assert ids(await outbox.page(second, 9, 99)) == ["2"]
    assert ids(await outbox.page(second, 9, 102)) == ["2", "3", "4"]
    last = (await everything(outbox))[-1].cursor
    assert await outbox.page(last, 9, FAR) == []
    with pytest.raises(ValueError, match="at least 1"):
        await outbox.page(None, 0, FAR)
    with pytest.raises(ValueError, match="at least 1"):
        await outbox.dead(None, 0)


async def test_lanes_can_be_passed_over_however_much_is_in_them(outbox: Outbox) -> None:
    await outbox.add([entry(f"{number}", "ab"[number % 2]) for number in range(2600)], NOW)
    await outbox.add([entry("c1", "c"), entry("d1", "d"), entry("c2", "c")], NOW)
    assert ids(await outbox.page(None, 9, FAR, {"a", "b"})) == ["c1", "d1", "c2"]
    assert ids(await outbox.page(None, 2, FAR, ["a", "b", "none"])) == ["c1", "d1"]
    assert ids(await outbox.page(None, FAR, FAR, ["a", "c"])) == [*map(str, range(1, 2600, 2)), "d1"]
    assert await outbox.page(None, 9, FAR, ("a", "b", "c", "d")) == []
    room = 1500 * len(entry("").body)
    assert ids(await outbox.page(None, FAR, room)) == [str(number) for number in range(1500)]


async def test_a_lane_has_something_until_its_last_is_gone(outbox: Outbox) -> None:
    await outbox.add([entry("a1", "a"), entry("a2", "a"), entry("b1", "b")], NOW)
    assert await outbox.look([], ["a", "b", "c"]) == ({}, {"a", "b"})
    one, two, three = await everything(outbox)
    await outbox.settle([one], [(three, "rejected", "", 1)])
    assert await outbox.look([], {"a", "b"}) == ({}, {"a"})
    await outbox.settle([two], [])
    assert await outbox.look([], {"a", "b"}) == ({}, set())
    await outbox.retry(None)
    assert await outbox.look([], {"a", "b"}) == ({}, {"b"})
    await outbox.discard(["b1"])
    assert await outbox.look([], {"a", "b"}) == ({}, set())


async def test_the_depth_is_of_all_that_is_held(outbox: Outbox) -> None:
    later = NOW + timedelta(hours=1)
    await outbox.add([entry("m1", body=b"12345")], NOW)
    await outbox.add([entry("m2", body=b"1"), entry("m3", body=b"")], later)
    assert await outbox.depth() == Depth(3, 6 + 3 * ENTRY_OVERHEAD, NOW, 0)
    one, two, _ = await everything(outbox)
    await outbox.settle([one], [(two, "rejected", "", 1)])
    assert await outbox.depth() == Depth(1, 1 + 2 * ENTRY_OVERHEAD, later, 1)


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1-", " 1", "1" * 19, "٣", "0-0-0", "$", "*", f"{'1' * 19}-0"])
async def test_a_cursor_that_was_never_given_is_refused(outbox: Outbox, cursor: str) -> None:
    strange = Waiting(cursor, NOW, entry("m1"))
    for work in (
        lambda: outbox.page(cursor, 1, 1),
        lambda: outbox.dead(cursor, 1),
        lambda: outbox.settle([strange], []),
        lambda: outbox.settle([], [(strange, "", "", 1)]),
    ):
        with pytest.raises(ValueError, match="none of this outbox's"):
            await work()


# Settling


async def test_what_is_settled_is_settled_once(outbox: Outbox, time: Time) -> None:
    await outbox.add(entries("m1", "m2", "m3"), NOW)
    one, two, _ = await everything(outbox)
    for _ in range(2):
        await outbox.settle([one, one], [(two, "rejected", "Why.", 3), (two, "rejected", "Why.", 3)])
        assert await pending(outbox) == ["m3"]
        assert await dead(outbox) == ["m2"]
        time.now += timedelta(hours=1)
    assert await outbox.add([entry("m2", body=b"mended")], NOW) == (None,)
    await outbox.settle([two], [(two, "rejected", "Why.", 3), (one, "rejected", "Why.", 3)])
    assert await pending(outbox) == ["m3", "m2"]
    assert await dead(outbox) == ["m2"]
    assert await status(outbox, "m2") == "queued"
    assert await status(outbox, "m1") == "accepted"


async def test_a_cursor_of_another_message_settles_nothing(outbox: Outbox) -> None:
    await outbox.add(entries("m1"), NOW)
    (one,) = await everything(outbox)
    strange = replace(one, entry=entry("m2"))  # as from a file or server that this one took the place of
    await outbox.settle([strange], [(strange, "rejected", "", 1)])
    assert (await pending(outbox), await dead(outbox)) == (["m1"], [])


async def test_a_dead_letter_tells_all_about_it(outbox: Outbox, time: Time) -> None:
    await outbox.add([entry("m1", source="eu", body=b"\xff")], NOW)
    await outbox.add(entries("m2"), NOW)
    time.now += timedelta(hours=1)
    one, two = await everything(outbox)
    await outbox.settle([], [(two, "too_old", "", 0), (one, "rejected", "Ünd why.", 7)])
    first, second = await letters(outbox)
    assert second == Dead("m1", "eu", b"\xff", "rejected", "Ünd why.", 7, NOW, time.now, second.cursor)
    assert (first.message_id, first.reason, first.attempts) == ("m2", "too_old", 0)
    assert await status(outbox, "m1") is None


async def test_dead_letters_are_looked_up_by_their_ids(outbox: Outbox) -> None:
    for number in range(3):
        await outbox.add([entry(each, body=b"%d" % number) for each in ("m1", "m2", "m\0")], NOW)
        await kill(outbox, "m1", "m2", "m\0")
    await outbox.add(entries("waits", "m2"), NOW)
    every = await letters(outbox)
    wanted = [each for each in every if each.message_id != "m2"]
    ids_ = ["m\0", "m1", "m1", "none", "waits"]
    assert (await outbox.dead(None, 6, ids_)).items == tuple(wanted)
    first = await outbox.dead(None, 4, ids_)
    assert (first.items, first.next) == (tuple(wanted[:4]), wanted[3].cursor)
    second = await outbox.dead(first.next, 2, ids_)
    assert (second.items, second.next) == (tuple(wanted[4:]), None)
    assert (await outbox.dead(every[1].cursor, 9, ["m1"])).items == tuple(wanted[2::2])
    assert [(await outbox.dead(None, 9, some)).items for some in ([], ["none", "waits"])] == [(), ()]
    with pytest.raises(ValueError, match="none of this outbox's"):
        await outbox.dead("x", 1, ["m1"])


async def test_dead_letters_are_retried_at_the_end_of_the_queue(outbox: Outbox, time: Time) -> None:
    await outbox.add([entry("m1", "a"), *entries("m2", "m3", "m4")], NOW)
    await kill(outbox, "m3", "m1", "m2")
    time.now += timedelta(hours=1)
    assert await outbox.retry(["m2", "m3", "m2", "m4", "none"]) == 2
    assert await pending(outbox) == ["m4", "m3", "m2"]
    assert await outbox.retry(None) == 1
    found = await everything(outbox)
    assert found[-1] == Waiting(found[-1].cursor, time.now, entry("m1", "a"))
    assert found[0].accepted_at == NOW
    assert await letters(outbox) == []
    assert (await outbox.look(["m1"], []))[0] == {"m1": known("m1", "queued")}
    assert await outbox.depth() == Depth(4, 4 * entry("m1").size, NOW, 0)


async def test_a_dead_letter_whose_id_was_taken_stays(outbox: Outbox) -> None:
    await outbox.add(entries("m1", "m2"), NOW)
    await kill(outbox, "m1", "m2")
    await outbox.add([entry("m1", body=b"mended")], NOW)
    assert await outbox.retry(["m1"]) == 0
    assert await outbox.retry(None) == 1
    assert (await pending(outbox), await dead(outbox)) == (["m1", "m2"], ["m1"])
    await kill(outbox, "m1")
    assert await dead(outbox) == ["m1", "m1"]
    assert await outbox.retry(None) == 1
    assert (await everything(outbox))[-1].entry.body == b"mended"
    assert await outbox.discard(["m1", "m1"]) == 1
    assert (await pending(outbox), await dead(outbox)) == (["m2", "m1"], [])


async def test_a_mended_message_stays_when_the_letter_with_its_id_is_discarded(outbox: Outbox) -> None:
    await outbox.add(entries("m1"), NOW)
    for _ in range(2):
        await kill(outbox, "m1")
        await outbox.add([entry("m1", body=b"mended")], NOW)
    assert await outbox.discard(["m1", "m1"]) == 2
    assert [each.entry.body for each in await everything(outbox)] == [b"mended"]
    assert (await dead(outbox), await status(outbox, "m1")) == ([], "queued")
    assert await outbox.depth() == Depth(1, entry("m1", body=b"mended").size, NOW, 0)
    assert await outbox.discard(["m1"]) == 1
    assert (await pending(outbox), await status(outbox, "m1")) == ([], None)


async def test_many_dead_letters_are_retried(outbox: Outbox) -> None:
    expected = [f"m{number}" for number in range(1100)]
    await outbox.add(entries(*expected), NOW)
    await kill(outbox, *expected)
    assert await outbox.retry(None) == 1100
    assert await pending(outbox) == expected
    assert await outbox.depth() == Depth(1100, sum(each.size for each in entries(*expected)), NOW, 0)


async def test_what_is_discarded_is_gone_and_its_id_free(outbox: Outbox) -> None:
    await outbox.remember([known("sent")], NOW)
    await outbox.add(entries("m1", "m2", "m3"), NOW)
    await kill(outbox, "m2")
    assert await outbox.discard(["m1", "m2", "none", "sent"]) == 2
    assert await outbox.depth() == Depth(1, entry("m3").size, NOW, 0)
    found, _ = await outbox.look(["m1", "m2", "m3", "sent"], [])
    assert found == {"m3": known("m3", "queued"), "sent": known("sent")}
    assert await outbox.add(entries("m1", "m2"), NOW) == (None, None)


# Nothing is lost and each lane keeps its order


@dataclass
class Model:
    """What plain Python makes of it."""

    clock: Time
    waiting: list[Entry] = field(default_factory=list)
    dead: list[Entry] = field(default_factory=list)
    known: dict[str, tuple[Known, datetime]] = field(default_factory=dict)
    delivered: list[Entry] = field(default_factory=list)
    added: int = 0
    discarded: int = 0

    def of(self, message_id: str) -> Known | None:
        found, at = self.known.get(message_id, (None, NOW))
        fresh = found and (found.status == "queued" or at > self.clock.now - timedelta(hours=24))
        return found if fresh else None

    def queue(self, each: Entry) -> None:
        self.waiting.append(each)
        self.known[each.message_id] = Known(each.message_id, each.digest, "queued", each.timestamp), self.clock.now

    def add(self, wanted: Sequence[Entry]) -> tuple[Known | None, ...]:
        results = []
        for each in wanted:
            results.append(self.of(each.message_id))
            if results[-1] is None:
                self.added += 1
                self.queue(each)
        return tuple(results)

    def settle(self, delivered: Sequence[Entry], dead: Sequence[Entry]) -> None:
        for each in delivered:
            self.waiting.remove(each)
            self.delivered.append(each)
            record = Known(each.message_id, each.digest, "accepted", each.timestamp)
            self.known[each.message_id] = record, self.clock.now
        for each in dead:
            self.waiting.remove(each)
            self.dead.append(each)
            del self.known[each.message_id]

    def retry(self, chosen: Sequence[str] | None) -> int:
        last = {each.message_id: each for each in self.dead}
        rising = [
            each
            for each in self.dead
            if each is last[each.message_id]
            and (chosen is None or each.message_id in chosen)
            and self.of(each.message_id) is None
        ]
        for each in rising:
            self.dead.remove(each)
            self.queue(each)
        return len(rising)

    def discard(self, chosen: Sequence[str]) -> int:
        held = len(self.waiting) + len(self.dead)
        unmended = set(chosen) - {each.message_id for each in self.dead}
        for each in [each for each in self.waiting if each.message_id in unmended]:
            self.waiting.remove(each)
            del self.known[each.message_id]
        self.dead = [each for each in self.dead if each.message_id not in chosen]
        gone = held - len(self.waiting) - len(self.dead)
        self.discarded += gone
        return gone


some_ids = st.lists(st.sampled_from(["1", "2", "3", "4", "5", "6"]), max_size=4)
indices = st.sets(st.integers(0, 5), max_size=4)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.tuples(st.sampled_from("123456"), st.sampled_from("ab")), max_size=4)),
        st.tuples(st.just("settle"), st.tuples(indices, indices)),
        st.tuples(st.just("retry"), st.none() | some_ids),
        st.tuples(st.just("discard"), some_ids),
        st.tuples(st.just("wait"), st.just(timedelta(hours=13))),
        st.tuples(st.just("open again"), st.none()),
    ),
    max_size=14,
)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


async def check_held(outbox: Outbox, model: Model) -> None:
    held = await everything(outbox)
    assert [each.entry for each in held] == model.waiting
    for lane in "ab":
        rest = [each for each in model.waiting if each.lane != lane]
        assert [each.entry for each in await outbox.page(None, FAR, FAR, [lane])] == rest
    assert [each.body for each in await letters(outbox)] == [each.body for each in model.dead]
    size = sum(each.size for each in (*model.waiting, *model.dead))
    oldest = held[0].accepted_at if held else None
    assert await outbox.depth() == Depth(len(model.waiting), size, oldest, len(model.dead))
    expected = {each: found for each in "123456" if (found := model.of(each))}
    assert await outbox.look("123456", "ab") == (expected, {each.lane for each in model.waiting})
    assert model.added == len(model.waiting) + len(model.delivered) + len(model.dead) + model.discarded


async def check_step(outbox: Outbox, model: Model, name: str, value: Any, numbers: Iterator[int]) -> None:
    match name:
        case "add":
            wanted = [entry(each, lane, body=b"%d" % next(numbers)) for each, lane in value]
            assert await outbox.add(wanted, model.clock.now) == model.add(wanted)
        case "settle":
            held = await everything(outbox)
            delivered, died = ([held[at] for at in sorted(places) if at < len(held)] for places in value)
            died = [each for each in died if each not in delivered]
            await outbox.settle(delivered, [(each, "rejected", "", 1) for each in died])
            model.settle([each.entry for each in delivered], [each.entry for each in died])
        case "retry":
            assert await outbox.retry(value) == model.retry(value)
        case "discard":
            assert await outbox.discard(value) == model.discard(value)
        case _:
            model.clock.now += value


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_or_doubled_and_lanes_keep_their_order(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, runner: asyncio.Runner
) -> None:
    address = address_of(kind, request)
    files = count()

    async def check(chosen: list[tuple[str, Any]]) -> None:
        if kind == "redis":
            emptied(address)
        place = f"sqlite:///{tmp_path}/{next(files)}.db" if kind == "file" else address
        model, numbers = Model(Time()), count()
        outbox = open_outbox(place, MOST_BYTES, lambda: model.clock.now)
        try:
            for name, value in chosen:
                if name != "open again":
                    await check_step(outbox, model, name, value, numbers)
                elif kind != "memory":
                    await outbox.aclose()
                    outbox = open_outbox(place, MOST_BYTES, lambda: model.clock.now)
                await check_held(outbox, model)
        finally:
            await outbox.aclose()

    @settings(deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    @given(steps)
    def each(chosen: list[tuple[str, Any]]) -> None:
        runner.run(check(chosen))

    each()


# Waiting


async def started(outbox: Outbox) -> asyncio.Task[bool]:
    """Somebody who waits, and has looked in vain by now."""
    task = asyncio.create_task(outbox.changed(WAIT))
    for _ in range(3):
        await outbox.depth()
    assert not task.done()
    return task


@pytest.fixture
def never_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment_tools.outbox.sqlite._LOOK_SECONDS", 10 * WAIT)


@pytest.mark.usefixtures("never_looking")
async def test_whoever_waits_is_woken_at_once_by_what_this_outbox_adds(outbox: Outbox) -> None:
    waiting = [await started(outbox) for _ in range(3)]
    await outbox.add(entries("m1"), NOW)
    assert await asyncio.gather(*waiting) == [True] * 3
    further = await started(outbox)
    await outbox.add(entries("m1"), NOW)
    await kill(outbox, "m1")
    assert not further.done()
    await outbox.retry(None)
    assert await further


async def test_what_was_added_between_two_waits_ends_the_second(outbox: Outbox) -> None:
    assert not await outbox.changed(0)
    await outbox.add(entries("m1"), NOW)
    await outbox.settle(await everything(outbox), [])
    assert await outbox.changed(WAIT)
    assert [await outbox.changed(seconds) for seconds in (-1, 0, 0.01)] == [False] * 3


@each_shared
async def test_whoever_waits_is_woken_by_what_another_adds(address: str) -> None:
    async with opened(address) as one, opened(address) as other:
        for message_id in ("m1", "m2"):
            waiting = await started(one)
            await other.add(entries(message_id), NOW)
            assert await waiting


async def test_waiting_can_be_cancelled_and_leaves_nothing_behind(outbox: Any) -> None:
    tasks = len(asyncio.all_tasks())
    for steps_ in range(0, 60, 3):
        waiting = asyncio.create_task(outbox.changed(WAIT))
        for _ in range(steps_):
            await asyncio.wait([waiting], timeout=0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert not outbox._waiters
    assert len(asyncio.all_tasks()) == tasks
    await outbox.add(entries("m1"), NOW)
    assert await outbox.changed(0)


@pytest.mark.usefixtures("never_looking")
async def test_closing_ends_all_waiting_and_all_else(address: str) -> None:
    async with opened(address) as outbox:
        waiting = [await started(outbox) for _ in range(3)]
        await outbox.aclose()
        assert await asyncio.gather(*waiting) == [False] * 3
        assert await outbox.changed(WAIT) is False
        with pytest.raises(Unavailable, match="let go of"):
            await outbox.add(entries("m1"), NOW)
        await outbox.aclose()


@each_shared
async def test_what_was_begun_is_finished_by_closing(address: str) -> None:
    async with opened(address) as outbox:
        adding = [asyncio.create_task(outbox.add(entries(f"m{number}"), NOW)) for number in range(100)]
        await asyncio.wait(adding, timeout=0)
        await outbox.aclose()
        assert await asyncio.gather(*adding) == [(None,)] * 100
    async with opened(address) as again:
        assert len(await pending(again)) == 100


# Who delivers


async def test_a_lease_has_one_holder_until_it_is_given_up_or_runs_out(outbox: Outbox, time: Time) -> None:
    assert await outbox.lease("a", WAIT)
    assert not await outbox.lease("b", WAIT)
    assert not await outbox.lease("b", 0)
    assert await outbox.lease("a", 0)
    assert await outbox.lease("b", 0.05)
    time.now += timedelta(seconds=0.05)
    async with asyncio.timeout(WAIT):
        while not await outbox.lease("a", WAIT):  # a server goes by its own clock
            pass
    assert not await outbox.lease("b", WAIT)


@pytest.mark.parametrize("address", ["file", "memory"], indirect=True)
async def test_a_clock_that_is_set_back_does_not_prolong_a_lease(outbox: Outbox, time: Time) -> None:
    assert await outbox.lease("a", 3)
    time.now -= timedelta(seconds=100)
    assert not await outbox.lease("b", 3)
    time.now -= timedelta(hours=1)
    assert await outbox.lease("b", FAR)
    assert not await outbox.lease("a", 3)
    time.now += timedelta(seconds=120)
    assert await outbox.lease("a", 3)


async def test_a_lease_that_is_renewed_is_kept_over_a_clock_set_back(outbox: Outbox, time: Time) -> None:
    assert await outbox.lease("a", WAIT)
    time.now -= timedelta(hours=1)
    assert await outbox.lease("a", WAIT)
    assert not await outbox.lease("b", WAIT)


@each_shared
async def test_a_lease_has_one_holder_among_all(address: str) -> None:
    async with opened(address) as one, opened(address) as other:
        holders = [(outbox, f"{number}") for number, outbox in enumerate((one, other) * 10)]
        taken = await asyncio.gather(*(outbox.lease(name, WAIT) for outbox, name in holders))
        assert sum(taken) == 1


# Opening


LOOPS = """
import asyncio, sys
from datetime import UTC, datetime
from segment_tools.outbox import Entry, open_outbox

outbox = open_outbox(sys.argv[1])

async def used(message_id):
    waiting = asyncio.create_task(outbox.changed(60))
    await asyncio.wait([waiting], timeout=0.01)
    await outbox.add([Entry(message_id, "", "", b"{}", "", "")], datetime.now(UTC))
    assert await waiting
    left = asyncio.create_task(outbox.changed(60))
    await asyncio.gather(*(outbox.depth() for _ in range(20)))
    print(*(each.entry.message_id for each in await outbox.page(None, 9, 9999)))

async def closed():
    await used("m3")
    await outbox.aclose()

for work in (used("m1"), used("m2"), closed(), outbox.aclose()):
    asyncio.run(work)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_used_from_one_event_loop_after_another(
    kind: str, request: pytest.FixtureRequest, environ: dict[str, str]
) -> None:
    ignored = "ignore::ResourceWarning"  # a loop that is over leaves its connections to be collected
    command = [sys.executable, "-P", "-W", ignored, "-c", LOOPS, address_of(kind, request)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=False, env=environ)
    assert (done.stdout, done.stderr) == ("m1\nm1 m2\nm1 m2 m3\n", "")


def test_a_server_can_be_let_go_of_from_another_event_loop(redis_server: str) -> None:
    outbox = open_outbox(redis_server)
    asyncio.run(outbox.aclose())
    asyncio.run(outbox.aclose())


WRONG = (
    "", "outbox.db", "sqlite:", "sqlite://", "sqlite:///", "sqlite://a.db", "sqlite:////a\0b", "SQLITE:///a.db",
    "memory", "memory:x", "postgres://u:hidden@h/d", "redis:/h", "redis://u:hidden@h:port/0",
    "redis://:hidden@h/0?socket_timeout=x",
)  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_address_is_refused_without_repeating_it(wrong: str) -> None:
    with pytest.raises(NotConfigured, match=r"^SEGMENT_OUTBOX is no address") as raised:
        open_outbox(wrong)
    assert raised.value.setting == "SEGMENT_OUTBOX"
    assert "hidden" not in str(raised.value)


def test_opening_asks_for_nothing_and_shows_no_secret(tmp_path: Path) -> None:
    addresses = (f"sqlite:///{tmp_path}/a/b.db", "redis://u:hidden@h:1/0", "rediss://:hidden@h", "unix://u:hidden@/s")
    assert not [address for address in addresses if "hidden" in repr(open_outbox(address))]
    assert list(tmp_path.iterdir()) == []


async def test_no_value_shows_a_message(outbox: Outbox) -> None:
    await outbox.add(entries("m1", "m2"), NOW)
    await kill(outbox, "m1")
    shown = repr([entry("m1"), await everything(outbox), await letters(outbox), await outbox.depth(), outbox])
    assert SECRET not in shown


async def test_without_the_package_a_server_is_not_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(NotConfigured, match="not installed") as raised:
        open_outbox("redis://:hidden@localhost/0")
    assert raised.value.hint == "pip install 'segment-tools[redis]'"
    assert "hidden" not in str(raised.value)


def test_an_outbox_in_a_file_loads_no_redis(environ: dict[str, str]) -> None:
    check = (
        "import sys; from segment_tools.outbox import open_outbox; open_outbox('sqlite:///a.db'); print(*sys.modules)"
    )
    command = [sys.executable, "-P", "-c", check]
    loaded = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=True, env=environ).stdout
    assert {"redis", "httpx", "mcp", "pydantic"} & set(loaded.split()) == set()


async def unavailable(outbox: Outbox, reason: str) -> None:
    """Every method says so, and neither the address nor a message."""
    one = Waiting("1-1" if "redis" in type(outbox).__module__ else "1", NOW, entry("m1"))
    works: list[Callable[[], Any]] = [
        lambda: outbox.add(entries("m1"), NOW),
        lambda: outbox.look(["m1"], ["l"]),
        lambda: outbox.remember([known("m1")], NOW),
        lambda: outbox.page(None, 1, 1),
        lambda: outbox.settle([one], []),
        lambda: outbox.lease("a", 1),
        lambda: outbox.changed(0),
        outbox.depth,
        lambda: outbox.dead(None, 1),
        lambda: outbox.retry(None),
        lambda: outbox.discard(["m1"]),
    ]
    for work in works:
        await refused(work(), reason)


async def refused(work: Any, reason: str) -> None:
    with pytest.raises(Unavailable, match=reason) as raised:
        await work
    assert (raised.value.code, raised.value.retryable) == ("outbox_unavailable", True)
    shown = f"{raised.value!r} {raised.value} {raised.value.hint}"
    assert "outbox's" in shown
    assert not [each for each in ("hidden", SECRET, "sqlite://", "redis://") if each in shown]


# In a file


async def test_a_file_and_its_folder_are_made_for_nobody_else(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/new/outbox.db") as outbox:
        await outbox.add(entries("m1"), NOW)
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()}
    assert modes["outbox.db"] == 0o600
    assert set(modes.values()) == {0o600}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


ADDING = """
import asyncio, itertools, sys
from datetime import UTC, datetime
from segment_tools.outbox import Entry, open_outbox

async def add(outbox, sender):
    for number in itertools.count():
        ids = [f"{sender}-{number}-{item}" for item in range(3)]
        await outbox.add([Entry(each, sender, "", b"{}", "", "") for each in ids], datetime.now(UTC))
        print(*ids, flush=True)

async def main():
    outbox = open_outbox(sys.argv[1])
    await asyncio.gather(*(add(outbox, f"{sys.argv[2]}{sender}") for sender in range(4)))

asyncio.run(main())
"""


@on_file
async def test_killed_while_it_adds_it_has_all_that_it_acknowledged_and_nothing_twice(
    address: str, environ: dict[str, str]
) -> None:
    for run, lines in (("a", 200), ("b", 400)):
        told = acknowledged([sys.executable, "-P", "-c", ADDING, address, run], environ, lines)
        async with opened(address) as outbox:
            found = await everything(outbox)
            totals = await outbox.depth()
        assert len(told) >= 3 * lines
        assert told <= set(ids(found))
        assert len(found) == len(set(ids(found))) == totals.pending
        for lane in {each.entry.lane for each in found}:
            numbers = [int(each.entry.message_id.split("-")[1]) for each in found if each.entry.lane == lane]
            assert numbers == [at // 3 for at in range(len(numbers))], "whole requests, in their order"


@contextmanager
def another_adding(address: str, environ: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-P", "-c", ADDING, address, "x"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environ) as process:
        try:
            yield
        finally:
            process.kill()


@on_file
async def test_another_process_adds_while_this_one_delivers(address: str, environ: dict[str, str]) -> None:
    delivered: list[str] = []
    async with opened(address) as outbox:
        with another_adding(address, environ):
            while len(delivered) < 300:
                assert await outbox.changed(WAIT)
                some = await outbox.page(None, 50, FAR)
                await outbox.settle(some, [])
                delivered += ids(some)
        rest = await pending(outbox)
    assert len({*delivered, *rest}) == len(delivered) + len(rest)
    lane = [each for each in [*delivered, *rest] if each.startswith("x0-")]
    assert lane == [f"x0-{at // 3}-{at % 3}" for at in range(len(lane))]


async def asked(outbox: Any, statement: str) -> Any:
    """What the outbox's own connection says to it."""
    return await outbox._worker.read(lambda database: database.execute(statement).fetchall())


@on_file
async def test_a_commit_waits_for_the_disk(outbox: Outbox) -> None:
    assert await asked(outbox, "PRAGMA synchronous") == [(2,)]
    assert await asked(outbox, "PRAGMA journal_mode") == [("wal",)]


def commits(path: Path) -> int:
    """How many transactions the file's log holds. Source: https://www.sqlite.org/fileformat2.html#wal_file_format."""
    log = path.with_name(f"{path.name}-wal").read_bytes()
    step = 24 + int.from_bytes(log[8:12])
    frames = (log[at : at + 24] for at in range(32, len(log), step))
    return sum(frame[4:8] != bytes(4) and frame[8:16] == log[16:24] for frame in frames)


async def test_callers_share_a_commit(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with opened(f"sqlite:///{path}") as outbox:
        await outbox.depth()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")  # the first waits for it, and the others behind the first
        before = commits(path)
        adding = [asyncio.create_task(outbox.add(entries(f"m{number}"), NOW)) for number in range(32)]
        await asyncio.wait(adding, timeout=0)
        other.execute("ROLLBACK")
        other.close()
        assert await asyncio.gather(*adding) == [(None,)] * 32
        assert 1 <= commits(path) - before <= 2


async def made(path: Path, *message_ids: str) -> None:
    async with opened(f"sqlite:///{path}") as outbox:
        await outbox.add(entries(*message_ids), NOW)


async def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    await made(tmp_path / "later.db", "m1")
    foreign(tmp_path / "later.db", "PRAGMA user_version = 99")
    foreign(tmp_path / "other.db", "CREATE TABLE hidden (a)")
    (tmp_path / "text.db").write_text("hidden " * 1000)
    inbox = open_inbox(f"sqlite:///{tmp_path}/inbox.db")
    await inbox.last()
    await inbox.aclose()
    reasons = {"later": "later version", "other": "something else", "text": "no SQLite database", "inbox": "something"}
    for name, reason in reasons.items():
        path = tmp_path / f"{name}.db"
        before = path.read_bytes()
        async with opened(f"sqlite:///{path}") as outbox:
            await unavailable(outbox, reason)
        assert path.read_bytes() == before


async def test_a_damaged_file_is_left_as_it_is(tmp_path: Path) -> None:
    await made(tmp_path / "whole.db", *(f"m{number}" for number in range(500)))
    whole = (tmp_path / "whole.db").read_bytes()
    cut, holed = whole[: len(whole) // 2], whole[:100] + b"\xaa" * 3996 + whole[4096:]
    for name, damaged, reason in (("cut", cut, "is damaged"), ("holed", holed, "is damaged")):
        path = tmp_path / f"{name}.db"
        path.write_bytes(damaged)
        async with opened(f"sqlite:///{path}") as outbox:
            await unavailable(outbox, reason)
        assert path.read_bytes() == damaged


LOSSES: dict[str, Callable[[Path], Any]] = {
    "deleted whole": lambda path: [each.unlink() for each in list(path.parent.iterdir())],
    "deleted": Path.unlink,
    "its folder deleted": lambda path: shutil.rmtree(path.parent),
    "emptied": lambda path: os.truncate(path, 0),
    "replaced": lambda path: path.with_name("new.db").replace(path),
    "its log deleted": lambda path: path.with_name(f"{path.name}-wal").unlink(),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_nothing_is_taken_into_a_file_that_is_gone(loss: str, tmp_path: Path) -> None:
    path = tmp_path / "a" / "box.db"
    await made(path.with_name("new.db"), "new")
    async with opened(f"sqlite:///{path}") as outbox, opened(f"sqlite:///{path}") as other:
        for number in range(50):
            await outbox.add([entry(f"m{number}", body=SECRET.encode() * 1000)], NOW)
        assert await other.depth() == await outbox.depth()
        held = {"replaced": ["new"], "its log deleted": await pending(outbox)}.get(loss, [])
        LOSSES[loss](path)
        for each in (outbox, other):
            await refused(each.add(entries("lost"), NOW), "deleted, replaced or emptied while it was in use. Try again")
        assert await other.add(entries("kept"), NOW) == (None,)
        assert await outbox.add(entries("kept too"), NOW) == (None,)
        assert await pending(outbox) == await pending(other) == [*held, "kept", "kept too"]
        shutil.copytree(path.parent, tmp_path / "copy")
    for folder in ("a", "copy"):  # closed, and as after a crash
        async with opened(f"sqlite:///{tmp_path}/{folder}/box.db") as again:
            assert await pending(again) == [*held, "kept", "kept too"]


async def test_a_file_that_was_moved_keeps_what_it_had(tmp_path: Path) -> None:
    path = tmp_path / "box.db"
    async with opened(f"sqlite:///{path}") as outbox:
        await outbox.add(entries("m1"), NOW)
        path.rename(tmp_path / "moved.db")
        await refused(outbox.depth(), "deleted, replaced or emptied")
        assert await pending(outbox) == []
    async with opened(f"sqlite:///{tmp_path}/moved.db") as moved:
        assert await pending(moved) == ["m1"]


@on_file
async def test_what_is_added_to_a_file_made_anew_is_noticed(address: str) -> None:
    async with opened(address) as outbox:
        await outbox.add(entries("m1"), NOW)
        assert await outbox.changed(0)
        LOSSES["deleted"](Path(address.removeprefix("sqlite:///")))
        await refused(outbox.changed(0), "deleted, replaced or emptied")
        await outbox.add(entries("m1"), NOW)
        assert await outbox.changed(0)


@on_file
async def test_a_file_that_goes_during_a_commit_has_taken_nothing(address: str) -> None:
    path = Path(address.removeprefix("sqlite:///"))
    async with opened(address) as outbox:
        await outbox.depth()

        def gone(_: sqlite3.Connection) -> None:
            path.unlink()

        await refused(cast("Any", outbox)._worker.write(gone), "deleted, replaced or emptied")
        assert await outbox.add(entries("m1"), NOW) == (None,)
    async with opened(address) as again:
        assert await pending(again) == ["m1"]


@on_file
async def test_a_full_file_takes_nothing_more_and_keeps_what_it_has(outbox: Outbox) -> None:
    await outbox.add(entries("m1", "m2"), NOW)
    ((pages,),) = await asked(outbox, "PRAGMA page_count")
    await asked(outbox, f"PRAGMA max_page_count = {pages}")
    big = entry("big", body=SECRET.encode() * 10_000)
    await refused(outbox.add([entry("m3"), big], NOW), r"disk is full: make room")
    assert await pending(outbox) == ["m1", "m2"]
    assert await status(outbox, "m3") is None
    await outbox.settle((await everything(outbox))[:1], [])
    await asked(outbox, f"PRAGMA max_page_count = {FAR}")
    await outbox.add([big], NOW)
    assert await pending(outbox) == ["m2", "big"]


def as_root(*command: object) -> bool:
    """Whether the command was done: by root, or whoever may become root."""
    become = [] if os.geteuid() == 0 else ["sudo", "-n"]
    return subprocess.run([*become, *map(str, command)], check=False, capture_output=True, timeout=WAIT).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    options = f"size=512k,mode=0700,uid={os.getuid()},gid={os.getgid()}"
    if not as_root("mount", "-t", "tmpfs", "-o", options, "none", place):
        pytest.skip("nobody here may mount a file system; a full file is tested all the same")
    yield place
    assert as_root("umount", place)


async def filled(outbox: Outbox) -> tuple[list[str], Unavailable]:
    """What it took before it took no more, and why it did not."""
    taken: list[str] = []
    for number in range(1000):
        try:
            await outbox.add([entry(f"m{number}", body=SECRET.encode() * 300)], NOW)
        except Unavailable as error:
            return taken, error
        taken.append(f"m{number}")
    raise AssertionError(taken)


async def test_a_full_disk_takes_nothing_more_and_works_again_once_there_is_room(disk: Path) -> None:
    async with opened(f"sqlite:///{disk}/a.db") as outbox:
        taken, error = await filled(outbox)
        assert error.hint == "Its disk is full: make room there, and try again."
        await refused(outbox.add([entry("m", body=SECRET.encode() * 3000)], NOW), "disk is full")
        assert await pending(outbox) == taken
        assert as_root("mount", "-o", "remount,size=4m", disk)
        await outbox.add(entries("last"), NOW)
        assert await pending(outbox) == [*taken, "last"]
    async with opened(f"sqlite:///{disk}/a.db") as again:
        assert await pending(again) == [*taken, "last"]


OF_NOBODY = """
import asyncio, os, sys
from datetime import UTC, datetime
from segment_tools.errors import Unavailable
from segment_tools.outbox import Entry, open_outbox
import segment_tools.outbox.sqlite

if os.geteuid() == 0:  # whom no mode keeps out
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

async def main():
    outbox = open_outbox(f"sqlite:///{sys.argv[1]}")
    try:
        await outbox.add([Entry("m1", "", "", b"{}", "", "")], datetime.now(UTC))
    except Unavailable as error:
        print(error.code, error)
    await outbox.aclose()

asyncio.run(main())
"""


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@on_file
async def test_a_disk_that_fails_to_write_loses_nothing_and_works_again(address: str) -> None:
    async with opened(address) as outbox:
        await outbox.depth()
        with no_file_over(500_000):
            taken, error = await filled(outbox)
            assert taken
            assert error.hint == "Its disk failed: look whether that is full, or gone, and try again."
            assert await pending(outbox) == taken
        await outbox.add(entries("last"), NOW)
    async with opened(address) as again:
        assert await pending(again) == [*taken, "last"]


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """A folder that everybody may reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)
        Path(name).chmod(0o700)


def said_by_nobody(path: Path, environ: dict[str, str]) -> str:
    path.parent.chmod(0o555)
    command = [sys.executable, "-P", "-c", OF_NOBODY, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=True, env=environ).stdout


@pytest.mark.parametrize("there", [True, False])
async def test_what_may_only_be_read_says_so(there: bool, anybodys: Path, environ: dict[str, str]) -> None:
    path = anybodys / "a.db"
    if there:
        await made(path, "m1")
        path.chmod(0o444)
    assert said_by_nobody(path, environ) == (
        "outbox_unavailable The outbox's file cannot be used just now; it may only be read: let this process "
        "write to it and its folder, or name another place in SEGMENT_OUTBOX.\n"
    )


async def test_a_file_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with opened(f"sqlite:///{tmp_path}/file/a.db") as outbox:
        await unavailable(outbox, "file cannot be used just now; check what SEGMENT_OUTBOX names")


async def test_a_file_that_another_keeps_locked_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment_tools.storage.sqlite_file._BUSY_SECONDS", 0.1)
    async with opened(f"sqlite:///{tmp_path}/a.db") as outbox:
        await outbox.depth()
        other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await refused(outbox.add(entries("m1"), NOW), "another process keeps it locked")
        other.close()
        await outbox.add(entries("m1"), NOW)


# In a server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "redis").mkdir()
    return tmp_path / "redis"


async def test_a_server_that_goes_and_comes_back_has_all_it_acknowledged(folder: Path) -> None:
    kept = {"appendonly": "yes", "appendfsync": "always"}
    with redis_running(folder, **kept) as (process, port):
        async with opened(f"redis://:@127.0.0.1:{port}/0") as outbox:
            await outbox.add(entries("m1", "m2"), NOW)
            await outbox.settle((await everything(outbox))[:1], [])
            waiting = await started(outbox) if await outbox.changed(0) else None
            assert waiting
            process.kill()
            process.wait(WAIT)
            await refused(waiting, "cannot be reached")
            await unavailable(outbox, "server cannot be used just now; it cannot be reached: .* SEGMENT_OUTBOX says")
            with redis_running(folder, port, **kept):
                assert await pending(outbox) == ["m2"]
                assert await outbox.add(entries("m1", "m2", "m3"), NOW) == (
                    known("m1"),
                    known("m2", "queued"),
                    None,
                )
                assert await outbox.changed(WAIT)


async def test_a_server_that_stands_still_is_not_waited_for_for_ever(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis_running(folder) as (process, port):
        async with opened(f"redis://127.0.0.1:{port}/0") as outbox:
            await outbox.add(entries("m1"), NOW)
            process.send_signal(signal.SIGSTOP)
            try:
                with monkeypatch.context() as patch:
                    patch.setattr("segment_tools.storage.redis._SECONDS", 0.1)
                    await refused(outbox.depth(), "does not answer in time")
                    await refused(outbox.add(entries("m2"), NOW), "does not answer in time")
            finally:
                process.send_signal(signal.SIGCONT)
            await outbox.add(entries("m2"), NOW)
            assert await pending(outbox) == ["m1", "m2"]


async def test_a_server_that_fails_over_says_so_and_works_again(folder: Path) -> None:
    with redis_running(folder) as (_, port), redis_client.Redis(port=port) as client:
        async with opened(f"redis://127.0.0.1:{port}/0") as outbox:
            await outbox.add(entries("m1"), NOW)
            client.replicaof("127.0.0.1", "1")
            await refused(outbox.add(entries("m2"), NOW), "it is a replica")
            assert await pending(outbox) == ["m1"]
            client.replicaof("NO", "ONE")
            assert await outbox.add(entries("m2"), NOW) == (None,)


async def test_a_server_whose_memory_is_full_lets_go_of_what_was_delivered(folder: Path) -> None:
    with redis_running(folder) as (_, port), redis_client.Redis(port=port) as client:
        async with opened(f"redis://127.0.0.1:{port}/0") as outbox:
            await outbox.add(entries("m1", "m2", "m3"), NOW)
            client.config_set("maxmemory", "1")
            await refused(outbox.add(entries("m4"), NOW), "memory is full")
            one, two, _ = await everything(outbox)
            await outbox.settle([one], [])
            await outbox.settle([], [(two, "rejected", "", 1)])
            assert await outbox.depth() == Depth(1, 2 * entry("m1").size, NOW, 1)
            client.config_set("maxmemory", "0")
            assert await outbox.add(entries("m1", "m4"), NOW) == (known("m1"), None)


async def test_a_server_that_forgot_the_scripts_is_given_them_again(redis_server: str) -> None:
    emptied(redis_server)
    async with opened(redis_server) as outbox:
        with redis_client.Redis.from_url(redis_server) as client:
            for number in range(3):
                await outbox.add(entries(f"m{number}"), NOW)
                client.script_flush()
        assert await pending(outbox) == ["m0", "m1", "m2"]


async def test_a_server_that_refuses_or_is_not_there_is_unavailable(redis_server: str) -> None:
    async with opened("redis://:hidden@127.0.0.1:1/0") as outbox:
        await unavailable(outbox, "cannot be reached")
    async with opened(redis_server.replace("//", "//nobody:hidden@")) as outbox:
        await unavailable(outbox, "refuses the user, the password")


async def test_every_key_of_a_server_is_in_one_slot(redis_server: str) -> None:
    emptied(redis_server)
    async with opened(redis_server) as outbox:
        await outbox.add(entries("m1", "m2", "m3"), NOW)
        await outbox.settle((await everything(outbox))[:1], [])
        await kill(outbox, "m2")
        await outbox.lease("a", WAIT)
    with redis_client.Redis.from_url(redis_server, decode_responses=True) as client:
        keys = client.keys()
    assert len(keys) == 9  # type: ignore[arg-type]
    assert all(key.startswith("{segment-outbox}:") for key in keys)  # type: ignore[union-attr]


async def test_an_outbox_that_is_emptied_leaves_no_record_but_of_what_was_accepted(redis_server: str) -> None:
    emptied(redis_server)
    async with opened(redis_server) as outbox:
        await outbox.add(entries("m1", "m2"), NOW)
        await kill(outbox, "m2")
        await outbox.retry(None)
        await outbox.discard(["m2"])
        await outbox.settle(await everything(outbox), [])
    with redis_client.Redis.from_url(redis_server, decode_responses=True) as client:
        names = {key.removeprefix("{segment-outbox}:") for key in client.scan_iter()}
        assert client.get("{segment-outbox}:bytes") == "0"
    assert names == {"waiting", "dead", "known", "accepted", "bytes"}

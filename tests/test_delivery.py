"""Delivery that loses nothing: sent now or kept and sent later, once each, in each user's order."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from mcp import Client
from support import KEY, WAIT, Time, emptied, facts, foreign, settings

from segment_tools import InvalidMessage, Receipt, Segment, Track, Transport, Unavailable
from segment_tools.errors import OutboxFull
from segment_tools.outbox import Depth
from segment_tools.surfaces.mcp_server import build

pytestmark = pytest.mark.anyio


@dataclass
class Plane:
    """A data plane that can be down, or refuse some messages, and knows what it took."""

    refuse: Callable[[dict[str, Any]], httpx.Response | None] = lambda _: None
    down: httpx.Response | Exception | None = None
    requests: list[httpx.Request] = field(default_factory=list)
    took: list[dict[str, Any]] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.held.set()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(await request.aread())
        self.requests.append(request)
        await self.held.wait()
        if isinstance(self.down, Exception):
            raise self.down
        if self.down is not None:
            return httpx.Response(self.down.status_code, headers=self.down.headers)
        messages = body.get("batch") or [{**body, "type": request.url.path.removeprefix("/v1/")}]
        for message in messages:
            if (answer := self.refuse(message)) is not None:
                return answer
        self.took += messages
        return httpx.Response(200, json={"success": True})

    @property
    def ids(self) -> list[str]:
        return [message["messageId"] for message in self.took]


@pytest.fixture(params=["memory", "file", "redis"])
def address(request: pytest.FixtureRequest) -> str:
    """The address of an empty outbox of each kind."""
    if request.param == "redis":
        server = str(request.getfixturevalue("redis_server"))
        emptied(server)
        return server
    return "memory:" if request.param == "memory" else f"sqlite:///{request.getfixturevalue('tmp_path')}/outbox.db"


on_file = pytest.mark.parametrize("address", ["file"], indirect=True)
shared = pytest.mark.parametrize("address", ["file", "redis"], indirect=True)


@asynccontextmanager
async def client(plane: Plane, address: str | None, time: Time | None = None, **chosen: Any) -> AsyncIterator[Segment]:
    values = {"timeout_seconds": 1, **({"outbox": address} if address else {}), **chosen}
    transport = Transport("https://api.segment.io", httpx.MockTransport(plane))
    surroundings = time.surroundings() if time else None
    async with asyncio.timeout(WAIT), Segment(settings(**values), transport=transport, surroundings=surroundings) as it:
        yield it


async def until(done: Callable[[], bool]) -> None:
    with anyio.fail_after(WAIT):
        while not done():  # noqa: ASYNC110 - bounded
            await asyncio.sleep(0.01)


async def depth(segment: Segment) -> Depth:
    assert segment.courier is not None
    return await segment.courier.outbox.depth()


async def emptying(segment: Segment, left: int = 0) -> None:
    with anyio.fail_after(WAIT):
        while (await depth(segment)).pending > left:  # noqa: ASYNC110 - bounded
            await asyncio.sleep(0.01)


def track(number: int = 1, **fields: Any) -> Track:
    return Track(**{"event": "Order Completed", "user_id": "u1", "message_id": f"message-{number}", **fields})


# --- direct ---


async def test_what_segment_takes_at_once_never_enters_the_outbox(address: str) -> None:
    plane = Plane()
    async with client(plane, address) as segment:
        receipt = await segment.send(track())
        assert (receipt.status, receipt.attempts, (await depth(segment)).pending) == ("accepted", 1, 0)
    assert [request.url.path for request in plane.requests] == ["/v1/track"]


@pytest.mark.parametrize("down", [httpx.Response(503), httpx.ConnectError("refused"), httpx.ReadTimeout("slow")])
async def test_what_cannot_be_delivered_in_time_is_queued_and_delivered_later(
    address: str, down: httpx.Response | Exception
) -> None:
    plane = Plane(down=down)
    async with client(plane, address, timeout_seconds=0.05) as segment:
        receipt = await segment.send(track())
        assert (receipt.status, receipt.queued, receipt.accepted) == ("queued", 1, 0)
        assert [warning.code for warning in receipt.warnings] == ["queued"]
        plane.down = None
        await emptying(segment)
    assert plane.ids == ["message-1"]


async def test_without_an_outbox_a_failure_is_an_error_as_ever() -> None:
    async with client(Plane(down=httpx.Response(503)), None, timeout_seconds=0.05) as segment:
        with pytest.raises(Unavailable):
            await segment.send(track())


async def test_a_refusal_is_an_error_and_not_queued(address: str) -> None:
    plane = Plane(refuse=lambda _: httpx.Response(400))
    async with client(plane, address) as segment:
        with pytest.raises(Exception, match="400") as raised:
            await segment.send(track())
        assert not raised.value.retryable  # type: ignore[attr-defined]
        assert await depth(segment) == Depth(0, 0, None, 0)


async def test_what_went_out_of_a_batch_is_not_queued_with_the_rest(address: str) -> None:
    plane = Plane()
    large = [track(n, user_id=f"u{n}", properties={"text": "x" * 30_000}) for n in range(40)]
    seen: list[int] = []

    def fail_second(message: dict[str, Any]) -> httpx.Response | None:
        seen.append(1)
        return httpx.Response(503) if len(plane.took) >= 16 and plane.down is None and not seen_again else None

    seen_again: list[int] = []
    plane.refuse = fail_second
    async with client(plane, address, timeout_seconds=0.05) as segment:
        receipt = await segment.send_batch(large)
        assert receipt.status == "queued"
        assert (receipt.accepted, receipt.queued) == (len(plane.took), 40 - len(plane.took))
        seen_again.append(1)
        await emptying(segment)
    assert sorted(plane.ids) == sorted(f"message-{n}" for n in range(40))


async def test_a_call_behind_queued_ones_of_the_same_user_waits_for_its_turn(address: str) -> None:
    plane = Plane(down=httpx.Response(503))
    async with client(plane, address, timeout_seconds=0.05) as segment:
        await segment.send(track(1))
        behind = await segment.send(track(2))
        plane.refuse, plane.down = (lambda message: httpx.Response(503) if message["userId"] == "u1" else None), None
        other = await segment.send(track(3, user_id="u2"))
        assert (behind.status, behind.attempts, other.status) == ("queued", 0, "accepted")
        plane.refuse = lambda _: None
        await emptying(segment)
    assert plane.ids == ["message-3", "message-1", "message-2"]


async def test_a_key_of_the_calls_own_is_never_kept(address: str) -> None:
    plane = Plane(down=httpx.Response(503))
    async with client(plane, address, timeout_seconds=0.05, delivery="queued") as segment:
        with pytest.raises(Unavailable):
            await segment.send(track(), write_key="wk-of-the-call-alone")
        assert (await depth(segment)).pending == 0


# --- queued ---


async def test_queued_calls_answer_at_once_and_are_delivered_in_batches(address: str) -> None:
    plane = Plane()
    plane.held.clear()
    async with client(plane, address, delivery="queued") as segment:

        async def user(first: int) -> list[Receipt]:
            return [await segment.send(track(n, user_id=f"u{first}")) for n in range(first, 200, 7)]

        receipts = [receipt for own in await asyncio.gather(*map(user, range(7))) for receipt in own]
        assert {receipt.status for receipt in receipts} == {"queued"}
        assert all(receipt.attempts == 0 and not receipt.sent for receipt in receipts)
        plane.held.set()
        await emptying(segment)
    assert len(plane.requests) < 100
    assert {request.url.path for request in plane.requests} == {"/v1/batch"}
    assert sorted(plane.ids) == sorted(f"message-{n}" for n in range(200))
    for user in range(7):
        own = [message["messageId"] for message in plane.took if message["userId"] == f"u{user}"]
        assert own == [f"message-{n}" for n in range(user, 200, 7)]


async def test_requests_stay_below_segments_limits(address: str) -> None:
    plane = Plane()
    plane.held.clear()
    async with client(plane, address, delivery="queued") as segment:
        for part in range(3):
            large = [track(100 * part + n, properties={"text": "x" * 30_000}) for n in range(30)]
            await segment.send_batch(large)
        plane.held.set()
        await emptying(segment)
    assert max(len(request.content) for request in plane.requests) <= 500_000
    assert plane.ids == [f"message-{100 * part + n}" for part in range(3) for n in range(30)]


async def test_each_source_has_its_own_requests_and_key(address: str) -> None:
    plane = Plane()
    plane.held.clear()
    sources = json.dumps({"web": "wk-web-4f9c2b71", "ios": "wk-ios-4f9c2b71"})
    async with client(plane, address, delivery="queued", sources=sources) as segment:
        for number in range(6):
            await segment.send(track(number), source=("web", "ios", None)[number % 3])
        plane.held.set()
        await emptying(segment)
    keys: dict[str, list[str]] = {}
    for request in plane.requests:
        batch = [message["messageId"] for message in json.loads(request.content)["batch"]]
        keys.setdefault(request.headers["authorization"], []).extend(batch)
    assert sorted(keys.values()) == [
        ["message-0", "message-3"], ["message-1", "message-4"], ["message-2", "message-5"],
    ]  # fmt: skip


async def test_a_refused_message_becomes_a_dead_letter_and_holds_nobody_up(address: str) -> None:
    reason = {"success": False, "message": "malformed JSON", "code": "invalid_request"}
    plane = Plane(refuse=lambda message: httpx.Response(400, json=reason) if message["event"] == "Poison" else None)
    async with client(plane, address, delivery="queued") as segment:
        poison = [track(7, event="Poison", user_id="u0"), track(13, event="Poison", user_id="u1")]
        others = [track(n, user_id=f"u{n % 5}") for n in range(20) if n not in (7, 13)]
        await segment.send_batch([*others[:5], *poison, *others[5:]])
        await emptying(segment)
        assert segment.courier is not None
        letters = (await segment.courier.outbox.dead(None, 10)).items
    assert sorted(letter.message_id for letter in letters) == ["message-13", "message-7"]
    assert all(letter.reason == "invalid_request" and "malformed JSON" in letter.text for letter in letters)
    assert sorted(plane.ids) == sorted(f"message-{n}" for n in range(20) if n not in (7, 13))


async def test_a_message_that_segment_fails_over_holds_up_its_user_alone(address: str) -> None:
    failing = [True]

    def refuse(message: dict[str, Any]) -> httpx.Response | None:
        return httpx.Response(500) if message["event"] == "Poison" and failing else None

    plane = Plane(refuse=refuse)
    async with client(plane, address, Time(), delivery="queued") as segment:
        messages = [track(n, user_id=f"u{n % 4}", event="Poison" if n == 5 else "Order Completed") for n in range(40)]
        await segment.send_batch(messages)
        await until(lambda: len(plane.took) >= 31)
        with anyio.fail_after(WAIT):
            while (await depth(segment)).pending > 9:  # noqa: ASYNC110 - bounded
                await asyncio.sleep(0.01)
        assert segment.courier is not None
        failing.clear()
        await emptying(segment)
    for user in range(4):
        own = [message["messageId"] for message in plane.took if message["userId"] == f"u{user}"]
        assert own == [f"message-{n}" for n in range(user, 40, 4)]


async def test_what_arrives_while_something_else_is_settled_is_settled_too(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane, settling = Plane(), asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        if b"message-2" in request.content:
            await settling.wait()
        return await plane(request)

    transport = Transport("https://api.segment.io", httpx.MockTransport(answer))
    sources = json.dumps({"web": "wk-web-4f9c2b71", "ios": "wk-ios-4f9c2b71"})
    chosen = settings(outbox=address, delivery="queued", sources=sources)
    async with asyncio.timeout(WAIT), Segment(chosen, transport=transport) as segment:
        courier = segment.courier
        assert courier is not None
        settle = courier.outbox.settle

        async def slowly(*told: Any) -> None:
            await settle(*told)
            settling.set()
            await until(lambda: courier.per_minute() == 2)

        monkeypatch.setattr(courier.outbox, "settle", slowly)
        await segment.send(track(2), source="ios")
        await segment.send(track(1), source="web")
        await emptying(segment)


@pytest.mark.parametrize("status", [401, 403, 404, 501])
async def test_a_refused_key_or_address_keeps_messages_until_it_is_mended(address: str, status: int) -> None:
    plane = Plane(down=httpx.Response(status))
    async with client(plane, address, Time(), delivery="queued") as segment:
        await segment.send_batch([track(n, user_id=f"u{n}") for n in range(5)])
        courier = segment.courier
        assert courier is not None
        await until(lambda: bool(courier.trouble))
        assert str(status) in courier.trouble[0]
        assert (await depth(segment)).dead == 0
        plane.down = None
        await emptying(segment)
        assert courier.trouble == ()
    assert sorted(plane.ids) == [f"message-{n}" for n in range(5)]


@shared
async def test_a_source_without_its_key_does_not_hold_up_the_others(address: str) -> None:
    plane = Plane(down=httpx.ConnectError("refused"))
    both = json.dumps({"web": "wk-web-4f9c2b71", "ios": "wk-ios-4f9c2b71"})
    async with client(plane, address, delivery="queued", sources=both, flush_seconds=0) as segment:
        await segment.send(track(1), source="ios")
        await segment.send(track(2), source="web")
    plane.down = None
    web = json.dumps({"web": "wk-web-4f9c2b71"})
    async with client(plane, address, delivery="queued", sources=web) as segment:
        courier = segment.courier
        assert courier is not None
        await until(lambda: plane.ids == ["message-2"] and bool(courier.trouble))
        assert "'ios'" in courier.trouble[0]
        await emptying(segment, 1)


async def test_poison_users_hold_nobody_up_however_many_there_are(address: str) -> None:
    plane = Plane(refuse=lambda message: httpx.Response(500) if message["userId"].startswith("poison") else None)
    time = Time()
    async with client(plane, address, time, delivery="queued") as segment:
        poison = [track(n, user_id=f"poison{n}") for n in range(20)]
        good = [track(100 + n, user_id=f"good{n}") for n in range(400)]
        await segment.send_batch([*poison, *good])
        await until(lambda: len(plane.took) == 400)
    assert sum(time.waits) < 120  # seconds of the virtual clock


async def test_large_messages_of_blocked_users_leave_room_for_others(address: str) -> None:
    plane = Plane(refuse=lambda message: httpx.Response(500) if message["userId"].startswith("poison") else None)
    async with client(plane, address, Time(), delivery="queued") as segment:
        text = "x" * 28_000
        for part in range(6):
            large = [track(100 * part + n, user_id=f"poison{part}", properties={"text": text}) for n in range(60)]
            await segment.send_batch(large)
        await segment.send_batch([track(1000 + n, user_id=f"good{n}") for n in range(50)])
        await until(lambda: len(plane.took) == 50)


async def test_what_is_discarded_while_it_waits_is_not_delivered(address: str) -> None:
    plane = Plane(down=httpx.Response(503))
    async with client(plane, address, delivery="queued") as segment:
        await segment.send(track(event="Wrong"))
        await until(lambda: len(plane.requests) > 0)
        assert segment.courier is not None
        assert await segment.courier.outbox.discard(["message-1"]) == 1
        await segment.send(track(event="Right"))
        plane.down = None
        await emptying(segment)
    assert [message["event"] for message in plane.took][-1:] == ["Right"]
    assert len(plane.took) - len([each for each in plane.took if each["event"] == "Right"]) <= 1


@shared
async def test_messages_for_another_address_wait_for_it(address: str) -> None:
    elsewhere = Plane(down=httpx.ConnectError("refused"))
    there = {"delivery": "queued", "data_plane_url": "https://events.eu1.segmentapis.com", "flush_seconds": 0}
    async with client(elsewhere, address, **there) as segment:
        await segment.send(track(1))
    plane = Plane()
    async with client(plane, address, delivery="queued") as segment:
        await segment.send(track(2, user_id="u2"))
        courier = segment.courier
        assert courier is not None
        await until(lambda: plane.ids == ["message-2"] and bool(courier.trouble))
        assert "events.eu1.segmentapis.com" in courier.trouble[0]
        await emptying(segment, 1)
    elsewhere.down = None
    async with client(elsewhere, address, **{**there, "flush_seconds": 5}) as segment:
        await emptying(segment)
    assert elsewhere.ids == ["message-1"]


async def test_whoever_closes_meanwhile_waits_for_the_same_end(address: str) -> None:
    plane = Plane()
    plane.held.clear()
    async with client(plane, address, delivery="queued", flush_seconds=30) as segment:
        await segment.send_batch([track(n, user_id=f"u{n}") for n in range(5)])
        await until(lambda: bool(plane.requests))
        ends = [asyncio.create_task(segment.aclose()) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable) as raised:
            await segment.send(track(9))
        assert raised.value.code == "ending"
        plane.held.set()
        await asyncio.gather(*ends)
        assert len(plane.ids) == 5


async def test_a_full_outbox_is_named_where_a_message_can_neither_be_sent_nor_kept(address: str) -> None:
    plane = Plane(down=httpx.Response(503))
    chosen = {"outbox_max_bytes": 64 * 1024, "flush_seconds": 0, "timeout_seconds": 0.05}
    async with client(plane, address, **chosen) as segment:
        for part in range(2):
            await segment.send(track(part, user_id=f"u{part}", properties={"text": "x" * 30_000}))
        with pytest.raises(Unavailable, match="SEGMENT_OUTBOX_MAX_BYTES"):
            await segment.send(track(5, user_id="u5", properties={"text": "x" * 30_000}))


# --- bounds, trouble, restart ---


async def test_a_full_outbox_refuses_new_calls_and_says_so(address: str) -> None:
    plane = Plane(down=httpx.Response(503))
    chosen = {"delivery": "queued", "outbox_max_bytes": 64 * 1024, "flush_seconds": 0}
    async with client(plane, address, **chosen) as segment:

        async def fill() -> None:
            for number in range(100):
                await segment.send(track(number, properties={"text": "x" * 10_000}))

        with pytest.raises(OutboxFull) as raised:
            await fill()
        assert raised.value.retryable
        assert raised.value.receipt is not None
        assert "SEGMENT_OUTBOX_MAX_BYTES" in str(raised.value)
        kept = (await depth(segment)).pending
        assert 1 <= kept < 10


@shared
async def test_what_is_queued_survives_the_process_and_is_delivered_by_the_next(address: str) -> None:
    plane = Plane(down=httpx.ConnectError("refused"))
    async with client(plane, address, delivery="queued", flush_seconds=0) as segment:
        await segment.send_batch([track(n) for n in range(10)])
    plane.down = None
    async with client(plane, address, delivery="queued") as segment:
        await emptying(segment)
    assert plane.ids == [f"message-{n}" for n in range(10)]


async def test_closing_delivers_what_it_can(address: str) -> None:
    plane = Plane()
    async with client(plane, address, delivery="queued", flush_seconds=30) as segment:
        await segment.send_batch([track(n, user_id=f"u{n}") for n in range(300)])
    assert len(set(plane.ids)) == 300


async def test_closing_does_not_wait_where_waiting_does_not_help(address: str) -> None:
    plane = Plane(down=httpx.Response(503, headers={"Retry-After": "300"}))
    async with asyncio.timeout(10):
        async with client(plane, address, delivery="queued", flush_seconds=60) as segment:
            await segment.send(track())
            await until(lambda: bool(plane.requests))


@shared
async def test_two_clients_on_one_outbox_deliver_each_message_once(address: str) -> None:
    plane = Plane()
    async with (
        client(plane, address, delivery="queued") as first,
        client(plane, address, delivery="queued") as second,
    ):
        both = (first, second)
        for number in range(60):
            await both[number % 2].send(track(number, user_id=f"u{number % 3}"))
        await emptying(first)
    assert sorted(plane.ids) == sorted(f"message-{n}" for n in range(60))
    for user in range(3):
        own = [message["messageId"] for message in plane.took if message["userId"] == f"u{user}"]
        assert own == [f"message-{n}" for n in range(user, 60, 3)]


@on_file
async def test_an_unusable_outbox_stops_queued_calls_and_not_direct_ones(address: str, tmp_path: Path) -> None:
    (tmp_path / "outbox.db").write_bytes(b"no database at all" * 100)
    plane = Plane()
    async with client(plane, address) as segment:
        receipt = await segment.send(track(1))
        assert (receipt.status, [warning.code for warning in receipt.warnings]) == ("accepted", ["outbox_unavailable"])
        plane.down = httpx.Response(503)
        with pytest.raises(Unavailable, match="503"):
            await segment.send(track(2))
    async with client(plane, address, delivery="queued") as segment:
        with pytest.raises(Unavailable, match="SEGMENT_OUTBOX") as raised:
            await segment.send(track(3))
    assert raised.value.code == "outbox_unavailable"
    assert (tmp_path / "outbox.db").read_bytes() == b"no database at all" * 100


@on_file
async def test_delivery_goes_on_once_the_outbox_can_be_written_again(address: str, tmp_path: Path) -> None:
    plane = Plane()
    plane.held.clear()
    async with client(plane, address, delivery="queued") as segment:
        await segment.send(track(1))
        await until(lambda: bool(plane.requests))
        foreign(tmp_path / "outbox.db", "ALTER TABLE waiting RENAME TO elsewhere")
        plane.held.set()
        await until(lambda: segment.courier is not None and bool(segment.courier.trouble))
        foreign(tmp_path / "outbox.db", "ALTER TABLE elsewhere RENAME TO waiting")
        await emptying(segment)
    assert plane.ids == ["message-1"]


# --- a call repeated ---


async def test_a_repeat_is_answered_with_the_first_result_and_not_sent() -> None:
    plane, time = Plane(), Time()
    async with client(plane, None, time) as segment:
        first = await segment.send(track())
        time.now = time.now.replace(hour=20)
        again = await segment.send(track())
    assert (again.status, again.messages, again.status_code) == ("accepted", first.messages, 200)
    assert [warning.code for warning in again.warnings] == ["already_accepted"]
    assert len(plane.requests) == 1


@shared
async def test_a_repeat_is_known_by_another_client_of_the_outbox(address: str) -> None:
    plane = Plane()
    async with client(plane, address) as first, client(plane, address) as second:
        await first.send(track())
        await first.aclose()
        again = await second.send(track())
    assert [warning.code for warning in again.warnings] == ["already_accepted"]
    assert len(plane.requests) == 1


async def test_a_repeat_of_what_is_queued_is_queued_once(address: str) -> None:
    plane = Plane(down=httpx.Response(503))
    async with client(plane, address, timeout_seconds=0.05) as segment:
        first, again = await segment.send(track()), await segment.send(track())
        assert (first.status, again.status, (await depth(segment)).pending) == ("queued", "queued", 1)
        assert again.messages == first.messages


async def test_a_repeat_made_meanwhile_waits_for_the_first() -> None:
    plane = Plane()
    plane.held.clear()
    async with client(plane, None) as segment:
        calls = [asyncio.create_task(segment.send(track())) for _ in range(5)]
        await until(lambda: bool(plane.requests))
        plane.held.set()
        receipts = await asyncio.gather(*calls)
    assert len(plane.requests) == 1
    assert {receipt.status for receipt in receipts} == {"accepted"}


async def test_a_repeat_of_what_failed_is_sent() -> None:
    plane = Plane(down=httpx.Response(503))
    async with client(plane, None, timeout_seconds=0.05) as segment:
        with pytest.raises(Unavailable):
            await segment.send(track())
        plane.down = None
        assert (await segment.send(track())).warnings == ()
    assert plane.ids == ["message-1"]


async def test_another_message_of_the_same_id_is_refused(address: str) -> None:
    plane = Plane()
    async with client(plane, address) as segment:
        await segment.send(track())
        with pytest.raises(InvalidMessage, match="another message") as raised:
            await segment.send(track(properties={"total": 5}))
        await segment.send_batch([track(2), track(3)])
        with pytest.raises(InvalidMessage) as listed:
            await segment.send_batch([track(4), track(3, event="Other")])
    assert (raised.value.code, raised.value.field) == ("duplicate_message_id", "messageId")
    assert [problem.index for problem in listed.value.problems] == [1]
    assert plane.ids == ["message-1", "message-2", "message-3"]


async def test_of_a_batch_only_what_is_new_is_sent(address: str) -> None:
    plane = Plane()
    async with client(plane, address) as segment:
        await segment.send_batch([track(1), track(2)])
        receipt = await segment.send_batch([track(1), track(2), track(3)])
    assert (receipt.status, receipt.accepted) == ("accepted", 3)
    assert [warning.index for warning in receipt.warnings] == [0, 1]
    assert plane.ids == ["message-1", "message-2", "message-3"]


async def test_a_repeat_is_forgotten_after_24_hours() -> None:
    plane, time = Plane(), Time()
    async with client(plane, None, time) as segment:
        await segment.send(track())
        await time.sleep(24 * 3600 + 1)
        await segment.send(track())
    assert plane.ids == ["message-1", "message-1"]


async def test_a_mended_message_may_take_the_id_of_its_dead_letter(address: str) -> None:
    plane = Plane(refuse=lambda message: httpx.Response(400) if message["event"] == "Poison" else None)
    async with client(plane, address, delivery="queued") as segment:
        await segment.send(track(event="Poison"))
        await emptying(segment)
        mended = await segment.send(track())
        assert mended.warnings == ()
        await emptying(segment)
    assert [message["event"] for message in plane.took] == ["Order Completed"]


async def test_ids_are_derived_from_the_call_where_that_is_asked_for() -> None:
    plane = Plane()
    message = track(message_id=None)
    async with client(plane, None, derive_message_id="true") as segment:
        first = await segment.send(message, call="a")
        again = await segment.send(message, call="a")
        other = await segment.send(message, call="b")
        changed = await segment.send(track(message_id=None, event="Other"), call="a")
        batch = await segment.send_batch([message, message], call="c")
        own = await segment.send(message, call="a", write_key="wk-of-the-call-alone")
    assert again.message_ids == first.message_ids
    every = [first, other, changed, batch, own]
    assert len({name for receipt in every for name in receipt.message_ids}) == 6
    assert len(plane.ids) == 6


# --- over MCP ---


@asynccontextmanager
async def served(plane: Plane, address: str | None, **chosen: Any) -> AsyncIterator[Client]:
    values = {"timeout_seconds": 0.2, **({"outbox": address} if address else {}), **chosen}
    transport = Transport("https://api.segment.io", httpx.MockTransport(plane))
    async with Client(build(Segment(settings(**values), transport=transport)), raise_exceptions=True) as it:
        yield it


ORDER = {"event": "Order Completed", "userId": "u1", "messageId": "message-1"}


async def called(tools: Client, name: str = "segment_track", **arguments: Any) -> dict[str, Any]:
    return facts(await tools.call_tool(name, arguments or ORDER))


async def looked(tools: Client, **arguments: Any) -> dict[str, Any]:
    return facts(await tools.call_tool("segment_outbox", arguments))


async def test_an_agent_is_told_that_its_message_is_queued(address: str) -> None:
    plane = Plane(down=httpx.Response(503))
    async with served(plane, address) as tools:
        answer = await called(tools)
        look = await looked(tools)
    assert (answer["success"], answer["status"], answer["statusCode"]) == (True, "queued", 200)
    assert answer["originalStatusCode"] == 503
    assert "goes on trying" in answer["warnings"][0]["message"]
    assert (look["pending"], look["dead"], look["deadLetters"]) == (1, 0, [])
    assert look["oldestSeconds"] >= 0


async def test_an_agent_can_see_retry_and_discard_what_was_refused(address: str) -> None:
    plane = Plane(refuse=lambda message: httpx.Response(400) if message["event"] == "Poison" else None)
    async with served(plane, address, delivery="queued") as tools:
        for number in (1, 2):
            await called(tools, event="Poison", userId="u1", messageId=f"message-{number}")
        with anyio.fail_after(WAIT):
            while (found := await looked(tools))["dead"] < 2:  # noqa: ASYNC110 - bounded
                await asyncio.sleep(0.01)
        letter = found["deadLetters"][0]
        assert (letter["messageId"], letter["message"]["event"], letter["attempts"]) == ("message-1", "Poison", 1)
        assert "400" in letter["text"]
        page = await looked(tools, limit=1)
        rest = await looked(tools, cursor=page["nextCursor"])
        assert [each["messageId"] for each in rest["deadLetters"]] == ["message-2"]
        discarded = await looked(tools, action="discard", messageIds=["message-1"])
        assert (discarded["discarded"], discarded["dead"]) == (1, 1)
        plane.refuse = lambda _: None
        assert (await looked(tools, action="retry"))["retried"] == 1
        await until(lambda: plane.ids == ["message-2"])


async def test_a_message_is_found_where_it_waits_or_was_refused(address: str) -> None:
    plane = Plane(down=httpx.Response(503))
    async with served(plane, address, delivery="queued") as tools:
        assert (await called(tools))["verifyWith"] == "segment_find_message"
        waits = await called(tools, "segment_find_message", messageId="message-1")
        listed = await looked(tools)
        plane.down, plane.refuse = None, lambda _: httpx.Response(400)
        with anyio.fail_after(WAIT):
            while not (await looked(tools))["dead"]:  # noqa: ASYNC110 - bounded
                await asyncio.sleep(0.01)
        refused = await called(tools, "segment_find_message", messageId="message-1")
    assert (waits["status"], waits["knownFrom"]) == ("waiting", "outbox")
    assert "do not send it again" in waits["explanation"]
    assert [each["messageId"] for each in listed["waiting"]] == ["message-1"]
    assert (refused["status"], refused["knownFrom"]) == ("discarded", "outbox")
    assert "segment_outbox" in refused["explanation"]


async def test_a_mended_message_stays_when_its_dead_letter_is_discarded(address: str) -> None:
    plane = Plane(refuse=lambda message: httpx.Response(400) if message["event"] == "Poison" else None)
    async with served(plane, address, delivery="queued") as tools:
        await called(tools, event="Poison", userId="u1", messageId="message-1")
        with anyio.fail_after(WAIT):
            while not (await looked(tools))["dead"]:  # noqa: ASYNC110 - bounded
                await asyncio.sleep(0.01)
        plane.down = httpx.Response(503)
        assert (await called(tools))["status"] == "queued"
        assert (await looked(tools, action="discard", messageIds=["message-1"]))["discarded"] == 1
        plane.down = None
        await until(lambda: [message["event"] for message in plane.took] == ["Order Completed"])


async def test_ids_that_are_not_there_are_spoken_of(address: str) -> None:
    async with served(Plane(), address) as tools:
        for action in ("retry", "discard"):
            assert "Some" in (await looked(tools, action=action, messageIds=["message-7"]))["hint"]


async def test_what_the_outbox_tool_cannot_do_is_said(address: str) -> None:
    async with served(Plane(), address) as tools:
        without = (await looked(tools, action="discard"))["error"]
        cursor = (await looked(tools, cursor="nonsense"))["error"]
        action = (await looked(tools, action="explode"))["error"]
    assert (without["field"], cursor["field"], action["field"]) == ("messageIds", "cursor", "action")
    assert "look, retry, discard" in action["hint"]


async def test_the_outbox_is_a_resource(address: str) -> None:
    async with served(Plane(down=httpx.Response(503)), address) as tools:
        await called(tools)
        listed = {str(each.uri) for each in (await tools.list_resources()).resources}
        [content] = (await tools.read_resource("segment://outbox")).contents
    assert "segment://outbox" in listed
    assert json.loads(content.text)["pending"] == 1  # type: ignore[union-attr]


async def test_the_outbox_tool_is_offered_with_an_outbox_alone() -> None:
    async with served(Plane(), None) as tools:
        assert "segment_outbox" not in {tool.name for tool in (await tools.list_tools()).tools}
        assert "SEGMENT_OUTBOX" in (await looked(tools))["errorMessage"]


async def test_a_queued_batch_counts_and_names_its_messages(address: str) -> None:
    async with served(Plane(), address, delivery="queued") as tools:
        batch = [{"type": "track", **ORDER}, {"type": "identify", "userId": "u2", "messageId": "message-2"}]
        answer = await called(tools, "segment_batch", batch=batch)
    assert (answer["status"], answer["count"]) == ("queued", 2)
    assert answer["messageIds"] == ["message-1", "message-2"]


async def test_each_request_of_a_connection_is_a_call_of_its_own() -> None:
    plane = Plane()
    async with served(plane, None, derive_message_id="true") as tools:
        answers = [await called(tools, event="Order Completed", userId="u1") for _ in range(3)]
    assert len({answer["messageId"] for answer in answers}) == 3
    assert len(plane.requests) == 3


async def test_nothing_of_a_key_is_in_the_file(address: str, tmp_path: Path) -> None:
    plane = Plane(down=httpx.Response(503))
    async with client(plane, address, timeout_seconds=0.05, flush_seconds=0) as segment:
        await segment.send(track())
    files = await asyncio.to_thread(lambda: [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()])
    assert all(KEY.encode() not in content for content in files)

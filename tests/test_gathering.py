"""Calls that leave together: which do, in what order, and what each of their callers is told."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as checked
from hypothesis import strategies as some
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from support import KEY, WAIT, Time, arrived, settings, until

from segment_tools import (
    Receipt,
    Rejected,
    Segment,
    SegmentError,
    Track,
    Transport,
    Unauthorized,
    Unavailable,
    gathering,
)
from segment_tools.outbox import open_outbox
from segment_tools.sandbox.run import Sandbox
from segment_tools.telemetry import measuring

pytestmark = pytest.mark.anyio
OK = httpx.Response(200, json={"success": True})
Reply = Callable[[httpx.Request], httpx.Response | Exception]


@dataclass
class Gate(httpx.AsyncBaseTransport):
    """A data plane that answers nothing until it is opened, and then each request as told."""

    reply: Reply = lambda _: OK
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    batches_too: asyncio.Event = field(default_factory=asyncio.Event)
    requests: list[httpx.Request] = field(default_factory=list)
    onward: httpx.AsyncBaseTransport | None = None
    holds_batches: bool = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append(request)
        await self.is_open.wait()
        if self.holds_batches and request.url.path == "/v1/batch":
            await self.batches_too.wait()
        if self.onward:
            return await self.onward.handle_async_request(request)
        answer = self.reply(request)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    async def aclose(self) -> None:
        if self.onward:
            await self.onward.aclose()

    @property
    def events(self) -> list[list[str]]:
        """The events in each request."""
        return [[message["event"] for message in messages(request)] for request in self.requests]

    @property
    def paths(self) -> list[str]:
        return [request.url.path for request in self.requests]


def messages(request: httpx.Request) -> list[dict[str, Any]]:
    body = json.loads(request.content)
    return body["batch"] if request.url.path == "/v1/batch" else [body]


def client(gate: Gate, **chosen: object) -> Segment:
    return Segment(settings(**chosen), transport=Transport("https://api.segment.io", gate))


def call(segment: Segment, event: str, user: str | None = None, **more: Any) -> "asyncio.Task[Receipt]":
    message = Track(event=event, user_id=user or f"user of {event}", **more)
    return asyncio.create_task(segment.send(message))


async def busy(segment: Segment, gate: Gate) -> "asyncio.Task[Receipt]":
    """A call under way."""
    first = call(segment, "First")
    await until(lambda: len(gate.requests) == 1)
    return first


async def settled(*tasks: "asyncio.Task[Receipt]") -> list[Receipt | BaseException]:
    async with asyncio.timeout(WAIT):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def waiting(segment: Segment, *made: "asyncio.Task[Receipt]") -> None:
    """Until the calls wait for those before them."""
    await until(lambda: sum(len(each.waiting) for each in segment._sender._gathering._sources.values()) == len(made))


async def test_calls_that_come_while_others_are_under_way_leave_together() -> None:
    gate = Gate()
    async with client(gate) as segment:
        first = await busy(segment, gate)
        later = [call(segment, f"Later {number}", context={"ip": f"10.0.0.{number}"}) for number in range(5)]
        await waiting(segment, *later)
        gate.is_open.set()
        receipts = await settled(first, *later)
    assert gate.paths == ["/v1/track", "/v1/batch"]
    assert gate.events[-1] == [f"Later {number}" for number in range(5)]
    sent = messages(gate.requests[-1])
    assert [each["context"]["ip"] for each in sent] == [f"10.0.0.{number}" for number in range(5)]
    assert {each["type"] for each in sent} == {"track"}
    for receipt, message in zip(receipts[1:], sent, strict=True):
        assert isinstance(receipt, Receipt)
        assert receipt.message_ids == (message["messageId"],)
        assert (receipt.status, receipt.accepted, receipt.attempts, receipt.status_code) == ("accepted", 1, 1, 200)
        assert receipt.response_body == {"success": True}


async def test_a_call_alone_leaves_at_once_by_the_path_of_its_type() -> None:
    gate = Gate()
    gate.is_open.set()
    async with client(gate) as segment:
        for number in range(3):
            await segment.send(Track(event=f"Alone {number}", user_id="u1"))
    assert gate.paths == ["/v1/track"] * 3


async def test_one_that_waited_alone_leaves_by_the_path_of_its_type() -> None:
    gate = Gate()
    async with client(gate) as segment:
        first = await busy(segment, gate)
        later = call(segment, "Later")
        await waiting(segment, later)
        gate.is_open.set()
        await settled(first, later)
    assert gate.paths == ["/v1/track"] * 2


async def test_calls_that_come_once_several_were_answered_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "AFTER_SEVERAL_SECONDS", 0.1)
    gate = Gate()
    async with client(gate) as segment:
        first = await busy(segment, gate)
        later = [call(segment, f"Later {number}") for number in range(2)]
        await waiting(segment, *later)
        gate.is_open.set()
        await settled(first, *later)
        await settled(call(segment, "Again 0"), call(segment, "Again 1"))
    assert gate.events == [["First"], ["Later 0", "Later 1"], ["Again 0", "Again 1"]]


async def test_a_users_messages_leave_in_the_order_of_the_calls() -> None:
    gate = Gate()
    async with client(gate) as segment:
        made = [call(segment, f"Step {number}", "jane") for number in range(4)]
        await waiting(segment, *made[1:])
        other = call(segment, "Other")
        await waiting(segment, *made[1:], other)
        gate.is_open.set()
        await settled(*made, other)
    assert gate.events == [["Step 0"], ["Step 1", "Step 2", "Step 3", "Other"]]


async def test_sources_are_not_mixed() -> None:
    gate = Gate()
    async with client(gate, write_key="", sources='{"web": "key-of-web", "ios": "key-of-ios"}') as segment:
        made = [
            asyncio.create_task(segment.send(Track(event=f"{source} {number}", user_id=str(number)), source=source))
            for number in range(4)
            for source in ("web", "ios")
        ]
        await until(lambda: len(gate.requests) == 2)
        await waiting(segment, *made[2:])
        gate.is_open.set()
        await settled(*made)
    for request, events in zip(gate.requests, gate.events, strict=True):
        source = events[0].split()[0]
        assert {event.split()[0] for event in events} == {source}
        assert request.headers["authorization"] == httpx.BasicAuth(f"key-of-{source}", "")._auth_header
    assert sorted(map(len, gate.events))[-2:] == [3, 3]


async def test_with_the_setting_off_each_call_is_a_request_of_its_own() -> None:
    gate = Gate()
    async with client(gate, batch_calls=False) as segment:
        made = [call(segment, f"Event {number}", "jane") for number in range(10)]
        await until(lambda: len(gate.requests) == 10)
        gate.is_open.set()
        await settled(*made)
    assert gate.paths == ["/v1/track"] * 10


async def test_a_batch_that_a_caller_made_stays_a_request_of_its_own() -> None:
    gate = Gate()
    async with client(gate) as segment:
        made = [await busy(segment, gate)]
        made.append(asyncio.create_task(segment.send_batch([Track(event="Batched", user_id="u1")])))
        await until(lambda: len(gate.requests) == 2)
        gate.is_open.set()
        await settled(*made)
    assert gate.events[-1] == ["Batched"]


async def test_more_than_a_batch_holds_leave_in_several() -> None:
    gate = Gate()
    large = {"text": "x" * 30_000}
    async with client(gate) as segment:
        first = await busy(segment, gate)
        later = [call(segment, f"Later {number}", properties=large) for number in range(40)]
        await waiting(segment, *later)
        gate.is_open.set()
        receipts = await settled(first, *later)
    assert {receipt.status for receipt in receipts if isinstance(receipt, Receipt)} == {"accepted"}
    assert [event for events in gate.events[1:] for event in events] == [f"Later {n}" for n in range(40)]
    assert all(len(request.content) <= 500 * 1024 for request in gate.requests)
    assert 3 <= len(gate.requests) - 1 <= 4


def refusing(*events: str) -> Reply:
    """Refuses every request with one of these events in it, and says which."""

    def reply(request: httpx.Request) -> httpx.Response:
        found = [message["event"] for message in messages(request) if message["event"] in events]
        return httpx.Response(400, json={"success": False, "message": f"no {found[0]}"}) if found else OK

    return reply


@pytest.mark.parametrize("guilty", [("Later 3",), ("Later 0", "Later 6"), tuple(f"Later {n}" for n in range(7))])
async def test_a_refused_batch_is_split_until_the_guilty_message_stands_alone(guilty: tuple[str, ...]) -> None:
    gate = Gate(refusing(*guilty))
    async with client(gate) as segment:
        first = await busy(segment, gate)
        later = [call(segment, f"Later {number}") for number in range(7)]
        await waiting(segment, *later)
        gate.is_open.set()
        results = (await settled(first, *later))[1:]
    for number, result in enumerate(results):
        event = f"Later {number}"
        if event in guilty:
            assert isinstance(result, Rejected)
            assert f"no {event}" in str(result)
            assert result.receipt is not None
            assert result.receipt.messages[0]["event"] == event
            assert gate.paths[gate.events.index([event])] == "/v1/track"
        else:
            assert isinstance(result, Receipt)
            assert result.status == "accepted"
        carried = sum(event in events for events in gate.events)
        found = result.receipt if isinstance(result, SegmentError) else result
        assert isinstance(found, Receipt)
        assert found.attempts == carried


async def test_what_is_about_the_key_is_not_split_and_each_caller_is_told() -> None:
    gate = Gate(lambda _: httpx.Response(401))
    async with client(gate) as segment:
        first = await busy(segment, gate)
        later = [call(segment, f"Later {number}") for number in range(3)]
        await waiting(segment, *later)
        gate.is_open.set()
        results = (await settled(first, *later))[1:]
    assert len(gate.requests) == 2
    ids = set[str]()
    for result in results:
        assert isinstance(result, Unauthorized)
        assert result.receipt is not None
        ids.update(result.receipt.message_ids)
    assert ids == {message["messageId"] for message in messages(gate.requests[-1])}


async def test_a_caller_who_goes_takes_a_message_back_that_has_not_left() -> None:
    gate = Gate()
    async with client(gate) as segment:
        first = await busy(segment, gate)
        later = [call(segment, f"Later {number}") for number in range(3)]
        await waiting(segment, *later)
        later[1].cancel()
        await asyncio.gather(later[1], return_exceptions=True)
        gate.is_open.set()
        await settled(first, later[0], later[2])
    assert gate.events[-1] == ["Later 0", "Later 2"]


async def test_a_caller_who_goes_once_it_has_left_hurts_nobody() -> None:
    gate = Gate(holds_batches=True)
    async with client(gate) as segment:
        first = await busy(segment, gate)
        later = [call(segment, f"Later {number}") for number in range(3)]
        await waiting(segment, *later)
        gate.is_open.set()
        await settled(first)
        await until(lambda: len(gate.requests) == 2)
        later[1].cancel()
        await asyncio.gather(later[1], return_exceptions=True)
        assert later[1].cancelled()
        gate.batches_too.set()
        results = await settled(later[0], later[2])
    assert gate.events[-1] == ["Later 0", "Later 1", "Later 2"]
    assert [result.status for result in results if isinstance(result, Receipt)] == ["accepted"] * 2


def within(segment: Segment, seconds: float) -> None:
    """From now on calls may take so long."""
    segment._sender._settings = segment._sender._settings.model_copy(update={"timeout_seconds": seconds})


async def test_a_call_whose_time_is_up_before_it_left_says_that_nothing_was_sent() -> None:
    gate = Gate()
    async with client(gate) as segment:
        first = await busy(segment, gate)
        within(segment, 0.1)
        (late,) = await settled(call(segment, "Later"))
        gate.is_open.set()
        await settled(first)
    assert isinstance(late, Unavailable)
    assert (late.code, late.retryable) == ("timeout", True)
    assert "Nothing was sent" in str(late)
    assert late.receipt is not None
    assert (late.receipt.sent, late.receipt.attempts) == (False, 0)
    assert len(gate.requests) == 1


async def test_each_caller_waits_until_its_own_deadline_and_is_told_what_may_have_become_of_it() -> None:
    gate = Gate(holds_batches=True)
    async with client(gate) as segment:
        first = await busy(segment, gate)
        within(segment, 1)
        short = call(segment, "Short")
        await waiting(segment, short)
        within(segment, 30)
        long = call(segment, "Long")
        await waiting(segment, short, long)
        gate.is_open.set()
        await settled(first)
        await until(lambda: len(gate.requests) == 2)
        (error,) = await settled(short)
        gate.batches_too.set()
        (receipt,) = await settled(long)
    assert isinstance(error, Unavailable)
    assert "may have arrived" in str(error)
    assert error.receipt is not None
    assert error.receipt.sent
    assert isinstance(receipt, Receipt)
    assert receipt.status == "accepted"
    assert gate.events[-1] == ["Short", "Long"]


async def test_what_an_accident_does_to_a_batch_every_caller_learns() -> None:
    gate = Gate(lambda request: RuntimeError("unforeseen") if request.url.path == "/v1/batch" else OK)
    async with client(gate) as segment:
        first = await busy(segment, gate)
        later = [call(segment, f"Later {number}") for number in range(3)]
        await waiting(segment, *later)
        gate.is_open.set()
        results = (await settled(first, *later))[1:]
        assert [type(result) for result in results] == [RuntimeError] * 3
        assert (await segment.send(Track(event="After", user_id="u1"))).status == "accepted"


async def test_a_client_that_closes_ends_what_waits() -> None:
    gate = Gate()
    segment = client(gate, flush_seconds=0.1)
    segment.start()
    first = await busy(segment, gate)
    later = [call(segment, f"Later {number}") for number in range(2)]
    await waiting(segment, *later)
    await segment.aclose()
    results = await settled(first, *later)
    gate.is_open.set()
    for result in results:
        assert isinstance(result, Unavailable)
        assert result.code == "ending"
        assert result.receipt is not None
    assert [result.receipt.sent for result in results] == [True, False, False]  # type: ignore[union-attr]
    assert len(gate.requests) == 1


async def test_a_client_that_closes_leaves_to_the_outbox_what_is_not_answered(tmp_path: Path) -> None:
    gate, file = Gate(), f"sqlite:///{tmp_path}/outbox.db"
    segment = client(gate, flush_seconds=0.1, outbox=file)
    first = await busy(segment, gate)
    later = [call(segment, f"Later {number}") for number in range(2)]
    await waiting(segment, *later)
    await segment.aclose()
    results = await settled(first, *later)
    assert [result.status for result in results if isinstance(result, Receipt)] == ["queued"] * 3
    kept = open_outbox(file, 2**20, lambda: datetime.now(UTC))
    assert (await kept.depth()).pending == 3
    await kept.aclose()


async def test_a_caller_alone_leaves_alone_again_once_others_are_gone() -> None:
    gate = Gate()
    async with client(gate) as segment:
        first = await busy(segment, gate)
        later = call(segment, "Later")
        await waiting(segment, later)
        gate.is_open.set()
        await settled(first, later)
        for number in range(3):
            await segment.send(Track(event=f"Next {number}", user_id="u1"))
            assert not segment._sender._gathering._tasks


async def test_a_client_that_closes_lets_leave_what_waits_for_a_call() -> None:
    gate = Gate()
    segment = client(gate)
    first = await busy(segment, gate)
    later = [call(segment, f"Later {number}") for number in range(2)]
    await waiting(segment, *later)
    closing = asyncio.create_task(segment.aclose())
    await until(lambda: segment._sender._ending is not None)
    gate.is_open.set()
    results = await settled(first, *later)
    await closing
    assert [result.status for result in results if isinstance(result, Receipt)] == ["accepted"] * 3
    assert gate.events[1:] == [["Later 0", "Later 1"]]


async def test_with_an_outbox_a_users_later_message_goes_behind_the_one_that_failed(time: Time, tmp_path: Path) -> None:
    gate = Gate(lambda request: httpx.ConnectError("refused") if request.url.path == "/v1/track" else OK)
    chosen = settings(outbox=f"sqlite:///{tmp_path}/outbox.db")
    transport = Transport("https://api.segment.io", gate)
    async with Segment(chosen, transport=transport, surroundings=time.surroundings()) as segment:
        made = [call(segment, f"Step {number}", "jane") for number in range(3)]
        await waiting(segment, *made[1:])
        gate.is_open.set()
        receipts = await settled(*made)
    alone = [events for path, events in zip(gate.paths, gate.events, strict=True) if path == "/v1/track"]
    assert [receipt.status for receipt in receipts if isinstance(receipt, Receipt)] == ["queued"] * 3
    assert [receipt.sent for receipt in receipts if isinstance(receipt, Receipt)] == [False] * 3
    assert {event for events in alone for event in events} == {"Step 0"}
    delivered = [events for path, events in zip(gate.paths, gate.events, strict=True) if path == "/v1/batch"]
    assert [event for events in delivered for event in events] == ["Step 0", "Step 1", "Step 2"]


async def test_messages_that_left_together_are_counted_one_by_one() -> None:
    gate, reader = Gate(), InMemoryMetricReader()
    provider = MeterProvider([reader])
    with measuring(provider):
        async with client(gate) as segment:
            first = await busy(segment, gate)
            later = [call(segment, f"Later {number}") for number in range(3)]
            await waiting(segment, *later)
            gate.is_open.set()
            await settled(first, *later)
        found = reader.get_metrics_data()
    provider.shutdown()
    assert found is not None
    points = {
        metric.name: list(metric.data.data_points)
        for resource in found.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert sum(point.value for point in points["segment.messages.accepted"]) == 4  # type: ignore[union-attr]
    assert sum(point.count for point in points["segment.request.duration"]) == 2  # type: ignore[union-attr]
    assert sum(point.count for point in points["segment.delivery.latency"]) == 4  # type: ignore[union-attr]


async def test_the_sandbox_gets_every_message_once_in_each_users_order(sandbox: Sandbox) -> None:
    gate = Gate(onward=httpx.AsyncHTTPTransport())
    async with Segment(settings(data_plane_url=sandbox.url), transport=Transport(sandbox.url, gate)) as segment:
        made = [call(segment, f"Step {number:03}", f"user-{number % 7}") for number in range(200)]
        await until(lambda: len(gate.requests) == 1)
        gate.is_open.set()
        receipts = await settled(*made)
    assert {receipt.status for receipt in receipts if isinstance(receipt, Receipt)} == {"accepted"}
    kept = arrived(sandbox)
    assert len(kept) == len({each["messageId"] for each in kept}) == 200
    for user in range(7):
        events = [each["event"] for each in kept if each["userId"] == f"user-{user}"]
        assert events == sorted(events)
    assert len(gate.requests) < 20


async def test_a_batch_that_segment_has_trouble_with_is_tried_again_as_it_was(sandbox: Sandbox) -> None:
    gate = Gate(onward=httpx.AsyncHTTPTransport())
    async with Segment(settings(data_plane_url=sandbox.url), transport=Transport(sandbox.url, gate)) as segment:
        first = await busy(segment, gate)
        later = [call(segment, f"Later {number}") for number in range(3)]
        await waiting(segment, *later)
        sandbox.fault(status=503, times=1, path="/v1/batch")
        gate.is_open.set()
        receipts = (await settled(first, *later))[1:]
    assert [receipt.attempts for receipt in receipts if isinstance(receipt, Receipt)] == [2, 2, 2]
    assert gate.requests[-1].content == gate.requests[-2].content
    assert len(arrived(sandbox)) == 4


@dataclass(frozen=True)
class Made:
    user: int
    guilty: bool
    leaves: bool


plans = some.lists(some.builds(Made, some.integers(0, 3), some.booleans(), some.booleans()), min_size=1, max_size=30)


@checked(max_examples=60, deadline=None)
@given(plans, some.lists(some.sampled_from([200, 503, 429]), max_size=4))
def test_whatever_happens_each_caller_is_told_what_became_of_its_own(  # noqa: C901 - one answer for each fate
    plan: list[Made], statuses: list[int]
) -> None:
    taken: list[str] = []

    def reply(request: httpx.Request) -> httpx.Response:
        events = [message["event"] for message in messages(request)]
        if (status := statuses.pop(0) if statuses else 200) != 200:
            return httpx.Response(status, headers={"Retry-After": "0"})
        if any(plan[int(event)].guilty for event in events):
            return httpx.Response(400)
        taken.extend(events)
        return OK

    async def run() -> None:
        gate = Gate(reply)
        outside = Time().surroundings()
        async with Segment(
            settings(), transport=Transport("https://api.segment.io", gate), surroundings=outside
        ) as segment:
            made = [call(segment, str(number), f"user {each.user}") for number, each in enumerate(plan)]
            await until(lambda: bool(gate.requests))
            for task, each in zip(made, plan, strict=True):
                if each.leaves:
                    task.cancel()
            gate.is_open.set()
            results = await settled(*made)
        for number, (result, each) in enumerate(zip(results, plan, strict=True)):
            if each.leaves:
                assert isinstance(result, asyncio.CancelledError)
            elif each.guilty:
                assert isinstance(result, Rejected)
                assert str(number) not in taken
            else:
                assert isinstance(result, Receipt)
                assert taken.count(str(number)) == 1
        for user in range(4):
            order = [int(event) for event in taken if plan[int(event)].user == user]
            assert order == sorted(order)

    asyncio.run(run())


async def test_no_error_of_a_batch_shows_the_key_or_another_callers_data() -> None:
    gate = Gate(lambda _: httpx.Response(400, json={"message": f"wrong {KEY}"}))
    async with client(gate) as segment:
        first = await busy(segment, gate)
        later = [call(segment, "Later", f"{name}@example.com") for name in ("jane", "john")]
        await waiting(segment, *later)
        gate.is_open.set()
        for error in await settled(first, *later):
            assert isinstance(error, Rejected)
            assert KEY not in f"{error}{error!r}{vars(error)}"
            assert error.receipt is not None
            assert len(error.receipt.messages) == 1


async def test_requests_that_hang_do_not_hold_others_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "PATIENCE_SECONDS", 0.01)
    gate = Gate()
    async with client(gate) as segment:
        first = await busy(segment, gate)
        later = [call(segment, f"Later {number}") for number in range(3)]
        same = call(segment, "Again", user="user of First")
        await until(lambda: len(gate.requests) > 1)
        assert "Again" not in [event for events in gate.events for event in events]
        gate.is_open.set()
        results = await settled(first, *later, same)
    assert all(isinstance(each, Receipt) for each in results)
    sent = [event for events in gate.events for event in events]
    assert sorted(sent) == sorted(["First", "Later 0", "Later 1", "Later 2", "Again"])

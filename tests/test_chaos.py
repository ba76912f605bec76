"""Whatever the data plane does, in whatever order: which attempts are made, when, and what becomes of the message."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import accumulate, count
from typing import Any, Literal

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from support import KEY, NOW, WAIT, Time, settings, until

from segment_tools import RateLimited, Rejected, Segment, SegmentError, Track, Transport
from segment_tools.data_plane import DataPlane
from segment_tools.delivery import Courier
from segment_tools.outbox import Entry, Waiting
from segment_tools.outbox._outbox import Death
from segment_tools.outbox.sqlite import SqliteOutbox
from segment_tools.sandbox.oauth import OAuth
from segment_tools.sandbox.options import Options
from segment_tools.sandbox.run import Sandbox
from segment_tools.sandbox.sources import Sources

pytestmark = pytest.mark.anyio

Answer = Callable[[Time], httpx.Response]
Step = dict[str, Any] | Answer
"""What one request meets with: a fault of the sandbox, or what no sandbox can do to one."""

Mode = Literal["direct", "kept", "queued"]
"""Sent at once without an outbox; with one; put into the outbox."""
MODES: tuple[Mode, ...] = ("direct", "kept", "queued")

DELIVERED, WAITING = "delivered", "waiting"


def status(number: int, **headers: str) -> Step:
    return {"status": number, "headers": {name.replace("_", "-"): text for name, text in headers.items()}}


def no_connection(_: Time) -> httpx.Response:
    raise httpx.ConnectError("refused")


def no_answer(time: Time) -> httpx.Response:
    """Nothing within the ten seconds that an attempt may take."""
    time.pass_by(10)
    raise httpx.ReadTimeout("silent")


class Endless(httpx.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield b'{"success": false, ' * 1000


def endless(number: int) -> Answer:
    return lambda _: httpx.Response(number, stream=Endless())


PAGE: Step = {"status": 502, "headers": {"Content-Type": "text/html"}, "body": "<html><h1>Bad Gateway</h1></html>"}
DATE = format_datetime(NOW.replace(microsecond=0), usegmt=True)
IN_7_SECONDS = format_datetime(NOW.replace(microsecond=0, second=7), usegmt=True)
SENT_BUT_UNANSWERED: Step = {"kind": "drop"}
RESET: Step = {"kind": "reset"}


@dataclass
class Plane(httpx.AsyncBaseTransport):
    """The way to the sandbox: each request meets with the next step, and once they are used up with none.

    `lasting` says that it then meets with nobody: it hangs.
    """

    time: Time
    sandbox: Sandbox
    steps: Sequence[Step]
    lasting: bool = False
    requests: list[httpx.Request] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    hanging: bool = False
    _began: datetime = field(init=False)
    _way: httpx.AsyncHTTPTransport = field(default_factory=httpx.AsyncHTTPTransport)

    def __post_init__(self) -> None:
        self._began = self.time.now

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        number = len(self.requests)
        if self.lasting and number == len(self.steps):
            self.hanging = True
            await asyncio.Event().wait()
        self.requests.append(request)
        self.at.append(round((self.time.now - self._began).total_seconds(), 3))
        step = self.steps[number] if number < len(self.steps) else None
        if callable(step):
            return step(self.time)
        if step is not None:
            self.sandbox.fault(**step, path="/v1/")
        return await self._way.handle_async_request(request)

    async def aclose(self) -> None:
        await self._way.aclose()

    @property
    def counts(self) -> list[int]:
        """What each request said of how often it was tried before."""
        return [int(request.headers.get("x-retry-count", 0)) for request in self.requests]

    @property
    def bodies(self) -> list[bytes]:
        """The bodies but for `sentAt`, which a request out of the outbox has as of its own time."""
        return [re.sub(rb'"sentAt":"[^"]+"', b"", request.content) for request in self.requests]


@asynccontextmanager
async def sending(plane: Plane, mode: Mode, **more: Any) -> AsyncIterator[Segment]:
    """A client of the plane in this mode, whose clock is the plane's."""
    chosen = {} if mode == "direct" else {"outbox": "memory:", "flush_seconds": 0}
    chosen |= {"delivery": "queued"} if mode == "queued" else {}
    with_all = settings(data_plane_url=plane.sandbox.url, **chosen, **more)
    transport = Transport(plane.sandbox.url, plane)
    async with (
        asyncio.timeout(WAIT),
        Segment(with_all, transport=transport, surroundings=plane.time.surroundings()) as segment,
    ):
        yield segment
    plane.sandbox.clear_faults()


async def told(segment: Segment) -> str:
    """What a call is answered: its status, or the error."""
    try:
        return (await segment.send(Track(event="Signed Up", user_id="u1"))).status
    except SegmentError as error:
        return type(error).__name__


async def became(segment: Segment, plane: Plane) -> str:
    """What the outbox has made of the message once nothing more will happen."""
    assert segment.courier is not None
    outbox = segment.courier.outbox

    async def over() -> bool:
        return plane.hanging or (await outbox.depth()).pending == 0

    await until(over)
    letters = [letter.reason for letter in (await outbox.dead(None, 10)).items]
    return ", ".join(letters) or (WAITING if (await outbox.depth()).pending else DELIVERED)


PASSING: dict[str, tuple[list[Step], list[float]]] = {
    **{str(number): ([status(number)], [0.5]) for number in (408, 410, 429, 460, 500, 502, 503, 504)},
    "429, Retry-After in seconds": ([status(429, Retry_After="3")], [3]),
    "429, Retry-After as a date": ([status(429, Retry_After=IN_7_SECONDS)], [6.877]),
    "429, X-RateLimit-Reset": ([status(429, X_RateLimit_Reset="4")], [4]),
    "429, both": ([status(429, Retry_After="2", X_RateLimit_Reset="9")], [2]),
    "503, Retry-After": ([status(503, Retry_After="12")], [12]),
    "429, Retry-After 0": ([status(429, Retry_After="0")], [0.5]),
    "429, Retry-After of the past": ([status(429, Retry_After=DATE)], [0.5]),
    "503, Retry-After that is none": ([status(503, Retry_After="soon")], [0.5]),
    "no connection": ([no_connection], [0.5]),
    "a reset": ([RESET], [0.5]),
    "taken and not answered": ([SENT_BUT_UNANSWERED], [0.5]),
    "no answer in time": ([no_answer], [10.5]),
    "an HTML page": ([PAGE], [0.5]),
    "an endless error": ([endless(503)], [0.5]),
    "an endless answer": ([endless(200)], []),
    "one after the other": (
        [no_connection, status(503), status(429, Retry_After="3"), SENT_BUT_UNANSWERED, PAGE],
        [0.5, 1, 3, 4, 8],
    ),
}
"""What passes, and the waits before the next attempts, the last of which is taken."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PASSING)
async def test_what_passes_is_waited_for_and_then_the_same_is_sent(
    name: str, mode: Mode, sandbox: Sandbox, time: Time
) -> None:
    steps, waits = PASSING[name]
    plane = Plane(time, sandbox, steps)
    async with sending(plane, mode) as segment:
        assert await told(segment) == ("queued" if mode == "queued" else "accepted")
        assert mode == "direct" or await became(segment, plane) == DELIVERED
    assert plane.at == list(accumulate([0, *waits]))
    assert plane.counts == list(range(len(plane.at)))
    assert len(set(plane.bodies)) == 1
    if mode != "queued":
        assert len({request.content for request in plane.requests}) == 1
    assert len(sandbox.messages()) == (name != "an endless answer")


DIRECT = [0, 0.5, 1, 2, 4, 8]
"""The waits before the attempts of a call, of which another would not fit into its 30 seconds."""
COURIER = [0, 0.5, 1, 2, 4, 8, 16, 32, 60, 60]
"""The waits before attempts out of the outbox, without end."""
STOPPED = [0, 1, 1, 2, 4, 8, 16, 32, 60, 60]
"""The same where what is wrong is not the message: all of its source waits, and for a second at least."""

LASTING: dict[str, tuple[Step, str, list[float], list[float]]] = {
    **{str(number): (status(number), "Unavailable", DIRECT, COURIER) for number in (408, 410, 460, 500, 502, 503, 504)},
    "429": (status(429), "RateLimited", DIRECT, COURIER),
    "429, Retry-After 20": (status(429, Retry_After="20"), "RateLimited", [0, 20], [0, 20, 20, 20]),
    "429, Retry-After of an hour": (status(429, Retry_After="3600"), "RateLimited", [0], [0, 300, 300]),
    "no connection": (no_connection, "Unavailable", DIRECT, COURIER),
    "a reset": (RESET, "Unavailable", DIRECT, COURIER),
    "taken and not answered": (SENT_BUT_UNANSWERED, "Unavailable", DIRECT, COURIER),
    "an HTML page": (PAGE, "Unavailable", DIRECT, COURIER),
    "an endless error": (endless(500), "Unavailable", DIRECT, COURIER),
}
"""What does not pass: what a call is told, its waits, and those of the outbox."""


@pytest.mark.parametrize("name", LASTING)
async def test_what_does_not_pass_in_time_is_an_error_without_an_outbox(
    name: str, sandbox: Sandbox, time: Time
) -> None:
    step, error, waits, _ = LASTING[name]
    plane = Plane(time, sandbox, [step] * 10)
    async with sending(plane, "direct") as segment:
        assert await told(segment) == error
    assert plane.at == list(accumulate(waits))
    assert plane.counts == list(range(len(waits)))
    assert len({request.content for request in plane.requests}) == 1


@pytest.mark.parametrize("name", LASTING)
async def test_what_does_not_pass_is_tried_from_the_outbox_for_ever(name: str, sandbox: Sandbox, time: Time) -> None:
    step, _, _, waits = LASTING[name]
    plane = Plane(time, sandbox, [step] * len(waits), lasting=True)
    async with sending(plane, "queued") as segment:
        assert await told(segment) == "queued"
        assert await became(segment, plane) == WAITING
    assert plane.at == list(accumulate(waits))
    assert plane.counts == list(range(len(waits)))
    assert len(set(plane.bodies)) == 1


@pytest.mark.parametrize("name", LASTING)
async def test_what_does_not_pass_in_time_goes_to_the_outbox_and_is_delivered_afterwards(
    name: str, sandbox: Sandbox, time: Time
) -> None:
    step, _, waits, _ = LASTING[name]
    plane = Plane(time, sandbox, [step] * len(waits))
    async with sending(plane, "kept") as segment:
        assert await told(segment) == "queued"
        assert await became(segment, plane) == DELIVERED
    gave_up = list(accumulate(waits))
    asked_to_wait = {"429": 0.5, "429, Retry-After 20": 20, "429, Retry-After of an hour": 300}.get(name, 0)
    assert plane.at == [*gave_up, gave_up[-1] + asked_to_wait]
    assert plane.counts == [*range(len(waits)), 0]
    assert len(sandbox.messages()) == 1


REFUSED: dict[str, tuple[Step, str]] = {
    "400": (status(400), "invalid_request"),
    "413": (status(413), "error"),
    "415": (status(415), "unsupported_media_type"),
    "422": (status(422), "error"),
    "success is false": ({"status": 200, "body": {"success": False}}, "rejected"),
}
"""What Segment refuses for what the message says, and the dead letter's reason."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused_for_good_is_told_at_once_or_becomes_a_dead_letter(
    name: str, mode: Mode, sandbox: Sandbox, time: Time
) -> None:
    step, reason = REFUSED[name]
    plane = Plane(time, sandbox, [step])
    async with sending(plane, mode) as segment:
        assert await told(segment) == ("queued" if mode == "queued" else "Rejected")
        if mode != "direct":
            assert await became(segment, plane) == (reason if mode == "queued" else DELIVERED)
    assert plane.at == [0]
    assert sandbox.messages() == []


MISPLACED: dict[str, tuple[Step, str]] = {
    "401": (status(401), "Unauthorized"),
    "403": (status(403), "Unauthorized"),
    "404": (status(404), "NotFound"),
    "501": (status(501), "Rejected"),
    "505": (status(505), "Rejected"),
    "511": (status(511), "Rejected"),
    "a redirect": (status(308, Location="https://elsewhere.example/v1/track"), "Rejected"),
}
"""What is wrong is the key or the address, which no message can help: what a call is told."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", MISPLACED)
async def test_a_wrong_key_or_address_is_told_at_once_and_what_is_queued_waits_for_the_right_one(
    name: str, mode: Mode, sandbox: Sandbox, time: Time
) -> None:
    step, error = MISPLACED[name]
    plane = Plane(time, sandbox, [step] * len(STOPPED), lasting=True)
    async with sending(plane, mode) as segment:
        assert await told(segment) == ("queued" if mode == "queued" else error)
        if mode != "direct":
            assert await became(segment, plane) == (WAITING if mode == "queued" else DELIVERED)
    assert plane.at == (list(accumulate(STOPPED)) if mode == "queued" else [0])


@dataclass
class Crowd(httpx.AsyncBaseTransport):
    """A data plane that answers the first requests only once all of them are there, and with trouble."""

    time: Time
    size: int
    at: list[float] = field(default_factory=list)
    full: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.at.append(self.time.surroundings().monotonic())
        if len(self.at) > self.size:
            return httpx.Response(200, json={"success": True})
        if len(self.at) == self.size:
            self.full.set()
        await self.full.wait()
        return httpx.Response(503)


async def test_requests_that_fail_together_are_waited_for_as_one_failure(time: Time) -> None:
    crowd = Crowd(time, 4)
    transport = Transport("https://api.segment.io", crowd)
    chosen = settings(outbox="memory:", delivery="queued", flush_seconds=WAIT)
    async with asyncio.timeout(WAIT), Segment(chosen, transport=transport, surroundings=time.surroundings()) as segment:
        for number in range(4):
            await segment.send(Track(event="Signed Up", user_id=f"u{number}"))
            await until(lambda least=number: len(crowd.at) > least)
    assert crowd.at[:5] == [0, 0, 0, 0, 0.5]


async def test_what_was_held_back_is_no_attempt(sandbox: Sandbox, time: Time) -> None:
    plane = Plane(time, sandbox, [status(429, Retry_After="40")])
    async with sending(plane, "direct") as segment:
        with pytest.raises(RateLimited) as asked:
            await segment.send(Track(event="Signed Up", user_id="u1"))
        with pytest.raises(RateLimited) as held_back:
            await segment.send(Track(event="Signed Up", user_id="u2"))
    assert plane.at == [0]
    assert (asked.value.attempts, held_back.value.attempts) == (1, 0)


@dataclass
class Picky(httpx.AsyncBaseTransport):
    """A data plane that has trouble with one message, whatever stands beside it; alone, it fails for so often."""

    status: int
    most: int
    batches: list[list[str]] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    hanging: bool = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        names = [message["messageId"] for message in json.loads(await request.aread())["batch"]]
        if self.batches.count(["u2-1"]) == self.most:
            self.hanging = True
            await asyncio.Event().wait()
        self.batches.append(names)
        if "u2-1" in names:
            return httpx.Response(self.status)
        self.taken += names
        return httpx.Response(200, json={"success": True})


CROWD = [f"u{user}-{number}" for number in range(3) for user in range(4)]
"""Messages of four users, taking turns; u2-1 is the guilty one."""


@asynccontextmanager
async def with_a_guilty_one(picky: Picky, time: Time, delivery: str) -> AsyncIterator[Segment]:
    chosen = settings(outbox="memory:", delivery=delivery, flush_seconds=0)
    transport = Transport("https://api.segment.io", picky)
    async with asyncio.timeout(WAIT), Segment(chosen, transport=transport, surroundings=time.surroundings()) as segment:
        yield segment


def crowd() -> list[Track]:
    return [Track(event="Signed Up", user_id=name.split("-")[0], message_id=name) for name in CROWD]


def of(user: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if name.startswith(user)]


async def test_of_a_batch_only_the_guilty_message_becomes_a_dead_letter(time: Time) -> None:
    picky = Picky(400, 10)
    async with with_a_guilty_one(picky, time, "queued") as segment:
        assert (await segment.send_batch(crowd())).status == "queued"
        assert segment.courier is not None
        outbox = segment.courier.outbox

        async def over() -> bool:
            return (await outbox.depth()).pending == 0

        await until(over)
        assert [letter.message_id for letter in (await outbox.dead(None, 10)).items] == ["u2-1"]
    assert sorted(picky.taken) == sorted(set(CROWD) - {"u2-1"})
    for user in ("u0", "u1", "u2", "u3"):
        assert of(user, picky.taken) == [name for name in of(user, CROWD) if name != "u2-1"]
    assert [len(batch) for batch in picky.batches] == [12, 6, 6, 3, 3, 1, 2, 1, 1]


async def test_a_batch_with_a_guilty_message_is_refused_to_the_caller_as_a_whole(time: Time) -> None:
    picky = Picky(400, 10)
    async with with_a_guilty_one(picky, time, "direct") as segment:
        with pytest.raises(Rejected) as error:
            await segment.send_batch(crowd())
        assert segment.courier is not None
        assert (await segment.courier.outbox.depth()).pending == 0
    assert (error.value.attempts, len(picky.batches)) == (1, 1)


async def test_a_message_that_segment_fails_over_holds_up_nobody_else(time: Time) -> None:
    picky = Picky(500, 4)
    async with with_a_guilty_one(picky, time, "queued") as segment:
        await segment.send_batch(crowd())
        await until(lambda: picky.hanging)
        assert segment.courier is not None
        waiting = [each.entry.message_id for each in await segment.courier.outbox.page(None, 100, 10**6)]
    assert waiting == ["u2-1", "u2-2"]
    assert sorted(picky.taken) == sorted(set(CROWD) - {"u2-1", "u2-2"})
    for user in ("u0", "u1", "u2", "u3"):
        assert of(user, picky.taken) == of(user, CROWD)[: 1 if user == "u2" else 3]


APP, KID = "app-1", "key-1"
IDS = count(1)


@pytest.fixture(scope="module")
def app() -> tuple[str, Any]:
    """An OAuth app's private key, and its public one."""
    keys = rsa.generate_private_key(65537, 2048)
    private = keys.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private.decode(), keys.public_key()


@pytest.fixture(scope="module")
def _guarded(app: tuple[str, Any]) -> Iterator[Sandbox]:
    oauth = OAuth(keys={(APP, KID): app[1]}, sources=frozenset({"server"}), token_seconds=3600)
    with Sandbox(options=Options(sources=Sources({KEY: "server"}), oauth=oauth)) as running:
        yield running


@pytest.fixture
def guarded(_guarded: Sandbox) -> Sandbox:
    """A sandbox that takes messages with a token alone."""
    _guarded.store.clear()
    return _guarded


def real_time() -> Time:
    """A clock that stands at the sandbox's time; no two have an id in common, since no assertion is taken twice."""
    return Time(datetime.now(UTC), _ids=IDS)


def with_app(app: tuple[str, Any]) -> dict[str, str]:
    return {"oauth_client_id": APP, "oauth_key_id": KID, "oauth_private_key": app[0]}


WITH_TOKEN: dict[str, tuple[list[Step], list[float], list[int]]] = {
    "511": ([status(511)], [0, 0], [0, 1]),
    "511 twice": ([status(511)] * 2, [0, 0, 0.5], [0, 1, 1]),
    "401": ([status(401)], [0, 0], [0, 1]),
    "403": ([status(403)], [0, 0], [0, 1]),
    "503": ([status(503)], [0, 0.5], [0, 1]),
}
"""With OAuth, what may mean the token is tried at once with another: when, and how often each was tried before."""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", WITH_TOKEN)
async def test_with_oauth_what_may_mean_the_token_is_tried_at_once_with_another(
    name: str, mode: Mode, app: tuple[str, Any], guarded: Sandbox
) -> None:
    steps, at, counts = WITH_TOKEN[name]
    plane = Plane(real_time(), guarded, steps)
    async with sending(plane, mode, **with_app(app)) as segment:
        assert await told(segment) == ("queued" if mode == "queued" else "accepted")
        assert mode == "direct" or await became(segment, plane) == DELIVERED
    assert plane.at == at
    assert plane.counts == counts
    assert len(set(plane.bodies)) == 1
    assert len(guarded.messages()) == 1


async def test_without_a_token_messages_wait_and_are_not_given_up(app: tuple[str, Any], guarded: Sandbox) -> None:
    plane = Plane(real_time(), guarded, [])
    guarded.fault(status=400, body={"error": "invalid_client"}, path="/token", times=2)
    async with sending(plane, "queued", **with_app(app)) as segment:
        assert await told(segment) == "queued"
        assert await became(segment, plane) == DELIVERED
    assert plane.at == [2]
    assert plane.counts == [0]


@dataclass
class Gate(httpx.AsyncBaseTransport):
    """A data plane that takes everything, each request once it is let through."""

    asked: list[asyncio.Event] = field(default_factory=list)
    answered: int = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(asyncio.Event())
        await self.asked[-1].wait()
        self.answered += 1
        return httpx.Response(200, json={"success": True})


class SlowlySettling(SqliteOutbox):
    """One whose disk is slow: by the time it has let go of something, more was delivered."""

    gate: Gate

    async def settle(self, delivered: Sequence[Waiting], dead: Sequence[Death]) -> None:
        await super().settle(delivered, dead)
        for event in self.gate.asked:
            event.set()
        await until(lambda: self.gate.answered == len(self.gate.asked))
        await asyncio.sleep(0.01)


async def test_what_is_delivered_while_the_outbox_settles_is_settled_too(time: Time) -> None:
    outbox, outside = SlowlySettling(":memory:"), time.surroundings()
    outbox.gate = gate = Gate()
    plane = DataPlane(settings(), outside, Transport("https://api.segment.io", gate))
    courier = Courier(outbox, plane, lambda _: KEY, outside)
    courier.begin()
    for number in (1, 2):
        body = b'{"type":"track","messageId":"m%d"}' % number
        await outbox.add([Entry(f"m{number}", f"lane {number}", "", body, "digest", "2026-11-23")], time.now)
        await until(lambda least=number: len(gate.asked) == least)
    gate.asked[0].set()

    async def empty() -> bool:
        return (await outbox.depth()).pending == 0

    try:
        await until(empty)
    finally:
        await courier.end(0)
        await plane.aclose()

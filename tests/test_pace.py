"""The pace: a rate, a number at once and pauses, kept in one process and by replicas together."""

import asyncio
import logging
import subprocess
import sys
import time as real
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from unittest.mock import ANY

import pytest
import redis as redis_client
from pydantic import SecretStr
from support import WAIT, Time

from segment_tools.attempts import Surroundings
from segment_tools.errors import NotConfigured, RateLimited
from segment_tools.pace import Pace

pytestmark = pytest.mark.anyio

NOWHERE = "redis://:hidden@127.0.0.1:1/0"


@pytest.fixture
def server(redis_server: str) -> str:
    """The address of an empty Redis server."""
    with redis_client.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


@asynccontextmanager
async def replicas(
    address: str, *, number: int = 2, per_second: int = 1000, outside: Surroundings | None = None
) -> AsyncIterator[list[Pace]]:
    made = [Pace("test", per_second, 64, outside or Surroundings(), SecretStr(address)) for _ in range(number)]
    try:
        async with asyncio.timeout(WAIT):
            yield made
    finally:
        for pace in made:
            await pace.aclose()


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Request:
    """One that takes its turn, and keeps it until it is told to end."""

    def __init__(self, pace: Pace, name: int, began: list[int], seconds: float = WAIT) -> None:
        self.answered = asyncio.Event()
        self.task = asyncio.create_task(self._run(pace, name, began, seconds))

    async def _run(self, pace: Pace, name: int, began: list[int], seconds: float) -> None:
        async with pace.turn(seconds):
            began.append(name)
            await self.answered.wait()


async def test_requests_up_to_the_limit_leave_at_once_and_the_others_in_their_order(time: Time) -> None:
    pace = Pace("test", 1000, 2, time.surroundings())
    began: list[int] = []
    requests = [Request(pace, name, began) for name in range(5)]
    await settled()
    assert began == [0, 1]
    requests[1].answered.set()
    await settled()
    assert began == [0, 1, 2]
    for request in requests:
        request.answered.set()
    await asyncio.gather(*(request.task for request in requests))
    assert (began, time.waits) == ([0, 1, 2, 3, 4], [])


async def test_who_comes_later_does_not_pass_those_who_wait(time: Time) -> None:
    pace = Pace("test", 1000, 1, time.surroundings())
    began: list[int] = []
    first, second = Request(pace, 1, began), Request(pace, 2, began)
    await settled()
    first.answered.set()
    await first.task
    third = Request(pace, 3, began)
    second.answered.set()
    third.answered.set()
    await asyncio.gather(second.task, third.task)
    assert began == [1, 2, 3]


@pytest.mark.parametrize("cancelled", [1, 2])
async def test_who_stops_waiting_frees_its_place(cancelled: int, time: Time) -> None:
    pace = Pace("test", 1000, 1, time.surroundings())
    began: list[int] = []
    requests = [Request(pace, name, began) for name in range(4)]
    await settled()
    requests[cancelled].task.cancel()
    for request in requests:
        request.answered.set()
    done = await asyncio.gather(*(request.task for request in requests), return_exceptions=True)
    assert isinstance(done[cancelled], asyncio.CancelledError)
    assert began == [name for name in range(4) if name != cancelled]


async def test_a_request_that_fails_or_is_cancelled_frees_its_place(time: Time) -> None:
    pace = Pace("test", 1000, 1, time.surroundings())
    with pytest.raises(ZeroDivisionError):
        async with pace.turn(1):
            raise ZeroDivisionError
    request = Request(pace, 0, [])
    await settled()
    request.task.cancel()
    await asyncio.wait([request.task])
    async with asyncio.timeout(WAIT), pace.turn(1):
        pass


async def test_without_a_place_in_time_the_program_says_that_it_held_the_request_back(time: Time) -> None:
    pace = Pace("test", 1000, 1, time.surroundings())
    async with pace.turn(1):
        with pytest.raises(RateLimited) as raised:
            async with pace.turn(0.01):
                pytest.fail("there was no place")
    error = raised.value
    assert (error.sent, error.code, error.retryable, error.status_code) == (False, "rate_limited", True, None)
    assert error.retry_after_seconds == 1
    assert "This program held the request back: it keeps to 1 requests at once" in str(error)
    async with asyncio.timeout(WAIT), pace.turn(1):
        pass


async def test_the_rate_holds() -> None:
    """By the real clock, which the limiter takes from the event loop: 50 at once, then one every 2 milliseconds."""
    pace = Pace("test", 500, 64, Surroundings())
    began = real.monotonic()
    for _ in range(100):
        await self_ending(pace)
    assert real.monotonic() - began >= 0.095


async def test_a_rate_that_leaves_no_room_in_time_is_told() -> None:
    pace = Pace("test", 1, 64, Surroundings())
    async with pace.turn(1):
        pass
    with pytest.raises(RateLimited, match="it keeps to 1 a second"):
        async with pace.turn(0.01):
            pytest.fail("there was no room")


async def test_a_pause_holds_everybody_back(time: Time) -> None:
    pace = Pace("test", 1000, 64, time.surroundings())
    await pace.pause(20)
    began: list[int] = []
    requests = [Request(pace, name, began) for name in range(3)]
    for request in requests:
        request.answered.set()
    await asyncio.gather(*(request.task for request in requests))
    assert (began, time.waits) == ([0, 1, 2], [20])


@pytest.mark.parametrize(("seconds", "waited"), [((20, 5), [20]), ((5, 20), [20]), ((0, -1), []), ((1e9,), [300])])
async def test_the_longest_pause_counts_up_to_five_minutes(
    seconds: tuple[float, ...], waited: list[float], time: Time
) -> None:
    pace = Pace("test", 1000, 64, time.surroundings())
    for each in seconds:
        await pace.pause(each)
    async with pace.turn(600):
        pass
    assert time.waits == waited


async def test_a_pause_that_is_lengthened_while_somebody_waits_is_waited_for(time: Time) -> None:
    outside = time.surroundings()
    lengthen: list[Callable[[], Awaitable[None]]] = []

    async def sleep(seconds: float) -> None:
        await time.sleep(seconds)
        if lengthen:
            await lengthen.pop()()

    pace = Pace("test", 1000, 64, Surroundings(monotonic=outside.monotonic, sleep=sleep))
    lengthen.append(lambda: pace.pause(3))
    await pace.pause(2)
    async with pace.turn(WAIT):
        pass
    assert time.waits == [2, 3]


async def test_a_pause_that_outlasts_the_time_is_told_at_once(time: Time) -> None:
    pace = Pace("test", 1000, 64, time.surroundings())
    await pace.pause(20)
    with pytest.raises(RateLimited, match="Segment asked it to slow down") as raised:
        async with pace.turn(10):
            pytest.fail("it is a pause")
    assert (raised.value.sent, raised.value.retry_after_seconds, time.waits) == (False, 20, [])
    assert raised.value.hint == "Try again in 20 seconds."


async def test_who_is_cancelled_in_a_pause_lets_the_next_go_on(time: Time) -> None:
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        if not asleep.is_set():
            asleep.set()
            await asyncio.Event().wait()
        await time.sleep(seconds)

    slow = Surroundings(monotonic=time.surroundings().monotonic, sleep=sleep)
    pace = Pace("test", 1000, 1, slow)
    await pace.pause(5)
    first, second = Request(pace, 0, []), Request(pace, 1, began := [])
    await asleep.wait()
    first.task.cancel()
    await asyncio.wait([first.task])
    second.answered.set()
    async with asyncio.timeout(WAIT):
        await second.task
    assert began == [1]


def test_it_serves_one_event_loop_after_the_other() -> None:
    pace = Pace("test", 1000, 1, Surroundings())

    async def once() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(self_ending(pace))

    asyncio.run(once())
    asyncio.run(once())


async def self_ending(pace: Pace) -> None:
    async with pace.turn(WAIT):
        await asyncio.sleep(0)


async def test_replicas_share_a_rate(server: str) -> None:
    async with replicas(server, number=2, per_second=20) as paces:
        began = real.monotonic()
        await asyncio.gather(*(self_ending(pace) for pace in paces for _ in range(20)))
        assert real.monotonic() - began >= 1.4  # alone, each would have needed 0.9


async def test_a_name_has_its_own_rate_and_pause(server: str) -> None:
    async with replicas(server) as (one, _):
        other = Pace("other", 1000, 64, Surroundings(), SecretStr(server))
        await one.pause(20)
        async with other.turn(1):
            pass
        await other.aclose()


async def test_a_pause_of_one_replica_holds_the_others_back(server: str, time: Time) -> None:
    async with replicas(server, number=3, outside=time.surroundings()) as (one, other, third):
        async with other.turn(1):
            pass
        await one.pause(20)
        await third.pause(5)  # which does not shorten it
        await time.sleep(0.03)  # as long as the other may go by what it knew
        for pace in (other, third):
            with pytest.raises(RateLimited) as raised:
                async with pace.turn(10):
                    pytest.fail("it is a pause")
            assert 15 < (raised.value.retry_after_seconds or 0) <= 20


async def test_replicas_go_on_when_a_shared_pause_ends(server: str) -> None:
    async with replicas(server) as (one, other):
        began = real.monotonic()
        await one.pause(0.2)
        async with other.turn(WAIT):
            assert real.monotonic() - began >= 0.19


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


@pytest.mark.parametrize("kind", ["nobody", "deaf", "no password"])
async def test_without_the_server_a_process_goes_on_alone_and_says_so_once(
    kind: str, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    listening = await asyncio.start_server(deaf, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    address = {
        "nobody": NOWHERE,
        "deaf": f"redis://:hidden@127.0.0.1:{port}/0",
        "no password": server.replace("//", "//nobody:hidden@"),
    }[kind]
    async with listening, replicas(address, number=1) as (pace,):
        began = real.monotonic()
        for _ in range(20):
            async with pace.turn(10):
                pass
        await pace.pause(20)
        assert real.monotonic() - began < 5
        with pytest.raises(RateLimited):
            async with pace.turn(10):
                pytest.fail("it is a pause")
    assert [(record.levelno, record.name) for record in caplog.records if record.name.startswith("segment")] == [
        (logging.WARNING, ANY)
    ]
    assert "SEGMENT_RATE_LIMIT does not answer" in caplog.text
    assert "hidden" not in caplog.text
    assert str(port) not in caplog.text


async def test_a_server_that_comes_back_is_shared_again_and_a_new_outage_is_said_again(
    server: str, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "segment_tools")

    async def turn(pace: Pace) -> None:
        async with pace.turn(WAIT):
            pass

    async with replicas(server, number=1, outside=time.surroundings()) as (pace,):
        with redis_client.Redis.from_url(server) as client:
            for _ in range(2):
                client.config_set("requirepass", "another")
                await pace.aclose()  # so that it connects again
                await turn(pace)
                await turn(pace)
                client.auth("another")
                client.config_set("requirepass", "")
                await time.sleep(6)
                await turn(pace)
    assert [record.levelname for record in caplog.records if record.name == "segment_tools.shared_pace"] == [
        "WARNING", "INFO", "WARNING", "INFO",
    ]  # fmt: skip


@pytest.mark.parametrize("address", ["redis://:hidden@h:port/0", "redis://:hidden@h/0?socket_timeout=x"])
def test_an_address_of_nothing_is_told_without_it(address: str) -> None:
    with pytest.raises(NotConfigured) as raised:
        Pace("test", 1, 1, Surroundings(), SecretStr(address))
    assert raised.value.setting == "SEGMENT_RATE_LIMIT"
    assert "hidden" not in str(raised.value) + repr(raised.value)


@pytest.mark.parametrize("package", ["limits", "redis.asyncio"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "segment_tools.shared_pace", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(NotConfigured) as raised:
        Pace("test", 1, 1, Surroundings(), SecretStr(NOWHERE))
    assert raised.value.hint == "pip install 'segment-tools[redis]'"


def test_nothing_is_loaded_before_the_first_turn(environ: dict[str, str]) -> None:
    check = (
        "import sys; from segment_tools.pace import Pace; from segment_tools.attempts import Surroundings\n"
        "Pace('test', 1, 1, Surroundings()); print(sorted({'aiolimiter', 'limits', 'redis'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, env=environ, timeout=WAIT, check=True
    )
    assert done.stdout == "[]\n"

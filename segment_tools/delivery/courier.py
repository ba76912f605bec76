"""Delivers what the outbox holds: in order for each user, tried until Segment takes it or refuses it for good."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

from segment_tools import telemetry, wire
from segment_tools.attempts import ATTEMPT_SECONDS, Surroundings
from segment_tools.data_plane import OWN_FAULTS, DataPlane
from segment_tools.delivery.window import Trip, Window
from segment_tools.errors import RateLimited, SegmentError, Undelivered
from segment_tools.log_line import Line
from segment_tools.outbox import Depth, Outbox, Waiting
from segment_tools.outbox.retry import LONGEST_WAIT_SECONDS, wait_after
from segment_tools.spec.timestamps import iso_utc

LEASE_SECONDS, RENEW_SECONDS = 5.0, 1.0
"""Ours: for how long one process delivers for all, and how often it says that it still does.

Another takes over so long after its end. What stands still for four seconds may send something twice, which Segment
drops.
"""

AT_ONCE = 8
"""Ours: requests in flight at a time."""

_BISECTING = 100
"""Ours: so many failures in a row of messages that failed before lengthen no pause."""


_RATE_SECONDS = 60.0

_log = logging.getLogger(__name__)


class Courier:
    """Delivers an outbox while it runs, alone among all processes that share it."""

    def __init__(self, outbox: Outbox, plane: DataPlane, key_of: Callable[[str], str], outside: Surroundings) -> None:
        self.outbox = outbox
        self._plane, self._key_of, self._outside = plane, key_of, outside
        self._holder = str(uuid4())
        self._task: asyncio.Task[None] | None = None
        self._ending_at: float | None = None
        self._delivered: deque[tuple[float, int]] = deque()
        self._begin_anew()
        telemetry.watch(self)

    def _begin_anew(self) -> None:
        """Know nothing: somebody else may have delivered meanwhile."""
        self._window = Window()
        self._renewed_at: float | None = None
        self._depth: Depth | None = None
        self._refused = False
        self._accident: BaseException | None = None
        self._changed: asyncio.Task[bool] | None = None
        self._trips: set[asyncio.Task[None]] = set()
        self._paused_until = self._doubted_at = 0.0
        self._failures = 0
        self._trouble: SegmentError | None = None
        self._broken: SegmentError | None = None
        self._done: list[Waiting] = []
        self._dead: list[tuple[Waiting, str, str, int]] = []

    @property
    def delivering(self) -> bool:
        """Whether it is this process that delivers."""
        return self._renewed_at is not None

    def standing(self) -> telemetry.Standing | None:
        """How the outbox stands, a second ago at most, where it is this process that delivers."""
        depth = self._depth
        if depth is None or self._task is None or not self.delivering:
            return None
        oldest = (self._outside.now() - depth.oldest_at).total_seconds() if depth.oldest_at else 0.0
        return telemetry.Standing(depth.pending, depth.bytes, max(0.0, oldest), depth.dead)

    @property
    def trouble(self) -> tuple[str, ...]:
        """What keeps messages from being delivered just now, as far as this process knows."""
        return tuple(dict.fromkeys(map(_reason, self.errors)))

    @property
    def errors(self) -> tuple[SegmentError, ...]:
        """What `trouble` tells: of the outbox itself, of the data plane, of sources."""
        found = (self._broken, self._trouble, *(source.trouble for source in self._window.sources.values()))
        return tuple(error for error in found if error)

    def per_minute(self) -> int:
        """How many messages this process delivered within the last minute."""
        while self._delivered and self._delivered[0][0] < self._now() - _RATE_SECONDS:
            self._delivered.popleft()
        return sum(count for _, count in self._delivered)

    def read_again(self) -> None:
        """See what is still in the outbox: something may have been discarded."""
        self._doubted_at = self._now()
        self._window.doubt()

    def begin(self) -> None:
        """Deliver from now on, in the running event loop."""
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._begin_anew()
            self._task = loop.create_task(self._run())

    async def end(self, seconds: float) -> None:
        """Deliver what can be delivered within so many seconds; the rest stays. Closes the outbox."""
        task, self._task = self._task, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            self._ending_at = self._now() + seconds
            self._window.all_read = False  # something may have been added just now
            if self._changed:
                self._changed.cancel()
            await asyncio.wait([task], timeout=seconds)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self.outbox.aclose()

    def _now(self) -> float:
        return self._outside.monotonic()

    async def _run(self) -> None:
        try:
            while not self._finished():
                try:
                    await self._round()
                    self._broken = None
                except SegmentError as error:
                    if not self._broken:
                        _log.warning(_waits(error))
                    self._broken = error
                    await asyncio.sleep(RENEW_SECONDS)
                except Exception as error:  # noqa: BLE001 - an accident must not end delivery for good
                    _log.error("delivery failed and begins anew: %s", type(error).__name__)
                    await self._end_tasks()
                    self._begin_anew()
                    await asyncio.sleep(RENEW_SECONDS)
        finally:
            await self._end_tasks()
            with suppress(SegmentError):
                await self._settle()
                await self.outbox.lease(self._holder, 0)

    def _finished(self) -> bool:
        """Whether it shall end, and more time would not help."""
        if self._ending_at is None:
            return False
        idle = self._window.idle and not self._trips
        return idle or self._refused or max(self._now(), self._paused_until) >= self._ending_at

    async def _end_tasks(self) -> None:
        tasks: list[asyncio.Task[Any]] = [*self._trips, *([self._changed] if self._changed else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._trips.discard(task)
        if not task.cancelled():
            self._accident = self._accident or task.exception()

    async def _round(self) -> None:
        if self._accident:
            raise self._accident
        if not await self._leading():
            await asyncio.sleep(RENEW_SECONDS)
            return
        if self._changed is None or self._changed.done():
            if self._changed and not self._changed.cancelled() and (error := self._changed.exception()):
                self._changed = None
                raise error
            self._window.all_read = False
            self._changed = asyncio.create_task(self.outbox.changed(RENEW_SECONDS))
        await self._settle()
        await self._window.read(self.outbox, self._now())
        self._start_trips()
        if self._window.idle and not self._trips:
            self._trouble = None
        if not self._finished():
            await self._wait()

    async def _leading(self) -> bool:
        now = _real_seconds()
        if self._renewed_at is not None and now - self._renewed_at < RENEW_SECONDS:
            return True
        held = await self.outbox.lease(self._holder, LEASE_SECONDS)
        lapsed = self._renewed_at is not None and now - self._renewed_at >= LEASE_SECONDS
        if lapsed or (not held and self._renewed_at is not None):
            await self._end_tasks()
            self._begin_anew()
        self._renewed_at, self._refused = (now if held else None), not held
        self._depth = await self.outbox.depth() if held else None
        return held

    def _leads(self) -> bool:
        """Whether it surely is this process that delivers, for as long as it takes to send something."""
        return self._renewed_at is not None and _real_seconds() - self._renewed_at < LEASE_SECONDS - RENEW_SECONDS

    async def _settle(self) -> None:
        """Tell the outbox what became of what."""
        done, dead = list(self._done), list(self._dead)  # more may come while these are settled
        if done or dead:
            await self.outbox.settle(done, dead)
            self._done, self._dead = self._done[len(done) :], self._dead[len(dead) :]
            self._window.settled([*done, *(each[0] for each in dead)])

    def _start_trips(self) -> None:
        # After a failure, one request at a time finds out whether Segment is back.
        most = 1 if self._failures else AT_ONCE
        while len(self._trips) < most and self._now() >= self._paused_until and self._leads():
            trip = self._window.pack(self._now())
            if trip is None:
                return
            task = asyncio.create_task(self._travel(trip, self._failures))
            self._trips.add(task)
            task.add_done_callback(self._ended)

    async def _travel(self, trip: Trip, failures: int) -> None:
        """Deliver it; so many failures in a row had been seen when it set out."""
        try:
            key = self._key_of(trip.source)
        except SegmentError as error:
            self._window.came_back(trip)
            self._stop(trip.source, error, LONGEST_WAIT_SECONDS)
            return
        parts = [each.entry.body for each in trip.messages]
        request = wire.batch(parts, iso_utc(self._outside.now()), self._plane.key_in_body(key))
        accepted = {each.entry.message_id: each.accepted_at for each in trip.messages}
        try:
            with telemetry.delivering(accepted, trip.source, trip.failures + 1, self._outside.now) as answered:
                answered((await self._plane.attempt(request, key, trip.failures, ATTEMPT_SECONDS)).status)
        except Undelivered as error:
            self._window.came_back(trip)
            self._failed(trip, failures, error)
        except SegmentError as error:
            self._window.came_back(trip)
            self._stop(trip.source, error, LONGEST_WAIT_SECONDS)
        else:
            self._arrived(trip)

    def _arrived(self, trip: Trip) -> None:
        if self._failures:
            _log.info("Segment takes the outbox's messages again")
        self._failures, self._trouble, self._paused_until = 0, None, 0.0
        self._delivered.append((self._now(), len(trip.messages)))
        self._done += trip.messages
        self._window.arrived(trip)

    def _failed(self, trip: Trip, failures: int, error: Undelivered) -> None:
        if error.retryable:
            # Requests that were under way together meet with the same trouble: together they are one failure.
            self._failures = max(self._failures, failures + 1)
            suspects = error.sent and not isinstance(error, RateLimited)
            # To find out which message it is that Segment fails over takes many failures, quickly.
            seen = max(1, self._failures - _BISECTING) if suspects and trip.suspect else self._failures
            for lane in trip.lanes:
                lane.failures += error.made
            self._paused_until = max(self._paused_until, self._now() + self._wait_after(seen, error))
            self._say(error)
            if len(trip.lanes) == 1:
                trip.lanes[0].blocked += 1
            if suspects:
                self._suspect(trip, error)
            if self._now() - self._doubted_at >= RENEW_SECONDS:
                self.read_again()
        elif not error.sent or error.status_code not in OWN_FAULTS:
            stopped = self._window.sources.get(trip.source)
            failures = stopped.failures + 1 if stopped else 1
            self._stop(trip.source, error, self._wait_after(failures, error), failures)
        elif len(trip.messages) > 1:
            self._window.narrow(trip)
        else:
            self._dead.append((trip.messages[0], error.code, error.message, trip.failures + 1))
            self._window.refused(trip)
            telemetry.dead(trip.messages[0].entry.message_id, error, trip.failures + 1)

    def _suspect(self, trip: Trip, error: Undelivered) -> None:
        """One of its messages may be what Segment fails over, which must not hold up other users'."""
        self._window.narrow(trip)
        if len(trip.lanes) == 1:
            [lane] = trip.lanes
            self._window.block(lane, self._now() + self._wait_after(lane.blocked, error))

    def _stop(self, source: str, trouble: SegmentError, seconds: float, failures: int = 0) -> None:
        if source not in self._window.sources:
            _log.warning(_waits(trouble))
        self._window.stop(source, trouble, self._now() + max(seconds, RENEW_SECONDS), failures)

    def _say(self, trouble: SegmentError) -> None:
        if not self._trouble:
            _log.warning(_waits(trouble))
        self._trouble = trouble

    def _wait_after(self, failures: int, error: Undelivered) -> float:
        return wait_after(failures, error, self._outside.jitter())

    async def _wait(self) -> None:
        """Until a request has ended, something was added, or something may be tried again."""
        now = self._now()
        waits: set[asyncio.Task[Any]] = {*self._trips, *([self._changed] if self._changed else [])}
        dues = [*self._window.dues(now), *([self._paused_until] if self._paused_until > now else [])]
        if dues:
            sleeper = asyncio.create_task(self._sleep(min(min(dues) - now, RENEW_SECONDS)))
            waits.add(sleeper)
        else:
            sleeper = None
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if sleeper:
                sleeper.cancel()

    async def _sleep(self, seconds: float) -> None:
        await self._outside.sleep(seconds)


def _real_seconds() -> float:
    """The clock that a lease goes by, whatever the messages' own says."""
    return asyncio.get_running_loop().time()


def _reason(error: SegmentError) -> str:
    """What is wrong, and what to do unless it is to wait, which the outbox does by itself."""
    return error.message if error.retryable and error.code != "outbox_unavailable" else str(error)


def _waits(error: SegmentError) -> Line:
    """The line of the log, without Segment's own words: they may repeat a message."""
    answered = isinstance(error, Undelivered) and error.status_code is not None
    reason = error.hint if answered else str(error)
    return Line("the outbox waits", {"error": telemetry.error_type(error), "reason": reason})

"""Which calls leave together: those that come while a request to the same source is under way, in the next one."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from segment_tools import telemetry, wire
from segment_tools.attempts import Surroundings
from segment_tools.data_plane import OWN_FAULTS, Accepted, DataPlane
from segment_tools.errors import SegmentError, Unavailable, Undelivered
from segment_tools.spec import limits
from segment_tools.spec.timestamps import iso_utc

PATIENCE_SECONDS = 1.0
"""Ours: how long calls wait for the answer to a request; then it hangs, and they leave without it."""

AFTER_SEVERAL_SECONDS = 0.001
"""Ours: how long calls wait for each other once several were answered: whoever made those may make as many again."""

QUIET_TURNS, MOST_TURNS = 8, 200
"""Ours: how many turns of the event loop without a further call let those leave that wait, and after how many they do
in any case. A server needs about five to read a call."""

_ENDING_SECONDS = 1.0
"""Ours, more than it takes: for how long requests may take to end that were given up."""

Outcome = tuple[Accepted, int]
"""Segment's answer, and how many attempts it took."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message that a call wants delivered by itself."""

    fields: Mapping[str, Any] = field(repr=False)
    request: wire.Request
    """That carries it, should it leave at once and alone."""
    write_key: str = field(repr=False)
    person: str = field(repr=False)
    deadline: float
    """On the monotonic clock."""
    keeps: bool
    """Whether there is an outbox for what cannot be delivered: messages of the same user belong behind it there."""


@dataclass(slots=True, eq=False)
class _Waiting:
    outgoing: Outgoing
    result: "asyncio.Future[Outcome]"
    call: telemetry.Caller
    left: bool = False
    """Whether a request with it set out: then it cannot be withdrawn."""

    def expire(self) -> None:
        """Its time is up."""
        self.fail(_late() if self.left else _held_up())

    @property
    def is_withdrawn(self) -> bool:
        """Whether nobody waits for it any more, and it has not left."""
        return self.result.done()

    def succeed(self, outcome: Outcome) -> None:
        if not self.result.done():
            self.result.set_result(outcome)

    def fail(self, error: BaseException) -> None:
        if not self.result.done():
            self.result.set_exception(error)


@dataclass(slots=True, eq=False)
class _Trip:
    """A request under way."""

    persons: Sequence[str]
    patience: asyncio.TimerHandle = field(init=False)


@dataclass(slots=True)
class _Source:
    write_key: str
    awaited: _Trip | None = None
    """The request whose answer calls wait for; not one that hangs."""
    gathers: bool = False
    """Whether what waits is about to leave."""
    busy: set[str] = field(default_factory=set[str])
    """Whose messages are under way: each user's next one waits for the answer, so that they arrive in order."""
    waiting: deque[_Waiting] = field(default_factory=deque["_Waiting"])

    def is_free(self, person: str) -> bool:
        return self.awaited is None and not self.gathers and person not in self.busy

    @property
    def is_idle(self) -> bool:
        return not (self.busy or self.waiting or self.gathers)

    def group(self) -> list[_Waiting]:
        """The first that may leave now, as many as the next request holds; they wait no longer."""
        waiting = [each for each in self.waiting if not each.is_withdrawn]
        group = list(_fitting(each for each in waiting if each.outgoing.person not in self.busy))
        chosen = set(map(id, group))
        self.waiting = deque(each for each in waiting if id(each) not in chosen)
        return group


class Gathering:
    """Delivers single messages to one data plane; each caller has its own outcome.

    A call leaves at once and alone where no request to its source is under way. The calls that come meanwhile wait for
    the answer, but not for long, and leave together. A user's messages leave in the order of the calls.
    """

    def __init__(self, plane: DataPlane, outside: Surroundings, *, together: bool) -> None:
        self._plane, self._outside, self._together = plane, outside, together
        self._sources: dict[str, _Source] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._lone: set[asyncio.Timeout] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drained: asyncio.Event | None = None

    async def send(self, outgoing: Outgoing) -> Outcome:
        """Segment's answer to the request with the message in it, and how many attempts that took.

        Raises:
            Rejected: this message; where it stood in a batch that was refused, it was sent by itself at last.
            Unavailable: the last attempt's, or the deadline came first: `sent` is False if it had not left.
        """
        if not self._together:
            return await self._plane.send(outgoing.request, outgoing.write_key, outgoing.deadline)
        source = self._source(outgoing.write_key)
        if source.is_free(outgoing.person):
            return await self._alone(source, outgoing)
        return await self._with_others(source, outgoing)

    async def aclose(self, seconds: float) -> None:
        """Let what waits leave, and be answered, for so long; then end it, and let its callers do what they do then."""
        if self._loop is not asyncio.get_running_loop() or not self._sources:
            return
        self._drained = asyncio.Event()
        for patience in (seconds, _ENDING_SECONDS):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), patience)
            self._give_up()

    def _give_up(self) -> None:
        for each in [each for source in self._sources.values() for each in source.waiting]:
            each.fail(_ending(sent=False))
        for end in self._lone:
            end.reschedule(0)
        for task in self._tasks:
            task.cancel()

    def _source(self, write_key: str) -> _Source:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._sources, self._tasks, self._lone = loop, {}, set(), set()
        return self._sources.setdefault(write_key, _Source(write_key))

    async def _alone(self, source: _Source, outgoing: Outgoing) -> Outcome:
        trip = self._leave(source, (outgoing.person,))
        try:
            return await self._until_the_end(outgoing)
        except Undelivered as error:
            _hold_back(source, trip.persons, error)
            raise
        finally:
            self._come_back(source, trip)

    async def _until_the_end(self, outgoing: Outgoing) -> Outcome:
        try:
            async with asyncio.timeout(None) as end:
                self._lone.add(end)
                try:
                    return await self._plane.send(outgoing.request, outgoing.write_key, outgoing.deadline)
                finally:
                    self._lone.discard(end)
        except TimeoutError:
            raise _ending(sent=True) from None

    async def _with_others(self, source: _Source, outgoing: Outgoing) -> Outcome:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(outgoing, loop.create_future(), telemetry.caller())
        source.waiting.append(waiting)
        deadline = loop.call_later(outgoing.deadline - self._outside.monotonic(), waiting.expire)
        try:
            return await waiting.result
        finally:
            deadline.cancel()

    def _leave(self, source: _Source, persons: Sequence[str]) -> _Trip:
        source.busy.update(persons)
        source.awaited = trip = _Trip(persons)
        trip.patience = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._go_on, source, trip)
        return trip

    def _come_back(self, source: _Source, trip: _Trip) -> None:
        source.busy.difference_update(trip.persons)
        trip.patience.cancel()
        self._go_on(source, trip)

    def _go_on(self, source: _Source, trip: _Trip) -> None:
        """Wait for this request no more, or no longer: what can leave does."""
        if source.awaited is trip:
            source.awaited = None
        several = len(trip.persons) > 1
        if source.awaited is None and (source.waiting or several) and not source.gathers:
            source.gathers = True
            rest = AFTER_SEVERAL_SECONDS if several else 0.0
            asyncio.get_running_loop().call_later(rest, self._gather, source, len(source.waiting))
        self._forget(source)

    def _forget(self, source: _Source) -> None:
        """Keep no source, and so no call's own key, of which nothing is under way."""
        if source.is_idle and self._sources.get(source.write_key) is source:
            del self._sources[source.write_key]
            if not self._sources and self._drained:
                self._drained.set()

    def _gather(self, source: _Source, waited: int, quiet: int = 0, turns: int = 0) -> None:
        """Let what waits leave, once no more calls join it."""
        waiting = len(source.waiting)
        quiet = 0 if waiting > waited else quiet + 1
        if quiet <= QUIET_TURNS and turns < MOST_TURNS:
            asyncio.get_running_loop().call_soon(self._gather, source, waiting, quiet, turns + 1)
            return
        source.gathers = False
        if group := source.group():
            self._set_out(source, group)
        else:
            self._forget(source)

    def _set_out(self, source: _Source, group: list[_Waiting]) -> None:
        trip = self._leave(source, [each.outgoing.person for each in group])
        # In a context of its own: it is no part of the call that happened to end just now.
        task = asyncio.get_running_loop().create_task(self._travel(source, trip, group), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _travel(self, source: _Source, trip: _Trip, group: list[_Waiting]) -> None:
        group = [each for each in group if not each.is_withdrawn]
        for each in group:
            each.left = True
        try:
            if group:
                with telemetry.together([each.call for each in group]):
                    await self._deliver(source, group, 0)
        except BaseException as error:
            for each in group:
                each.fail(_ending(sent=True) if isinstance(error, asyncio.CancelledError) else error)
            raise
        finally:
            if len(trip.persons) > 1:
                # Those who were answered just now may have more to send: the next request waits for that.
                asyncio.get_running_loop().call_soon(self._come_back, source, trip)
            else:
                self._come_back(source, trip)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its callers have it

    async def _deliver(self, source: _Source, group: list[_Waiting], before: int) -> None:
        """Deliver the messages, after so many attempts; what Segment refuses is halved until the one is found."""
        deadline = max(each.outgoing.deadline for each in group)
        try:
            accepted, made = await self._plane.send(self._request(group), source.write_key, deadline)
        except Undelivered as error:
            error.attempts += before
            error.sent = error.sent or before > 0
            if len(group) > 1 and error.status_code in OWN_FAULTS:
                half = len(group) // 2
                await self._deliver(source, group[:half], error.attempts)
                await self._deliver(source, group[half:], error.attempts)
            else:
                _fail(source, group, error)
        else:
            for each in group:
                each.succeed((accepted, before + made))

    def _request(self, group: Sequence[_Waiting]) -> wire.Request:
        first = group[0].outgoing
        if len(group) == 1:
            return first.request
        parts = [wire.encoded(each.outgoing.fields) for each in group]
        return wire.batch(parts, iso_utc(self._outside.now()), self._plane.key_in_body(first.write_key))


def _fitting(waiting: Iterable[_Waiting]) -> Iterator[_Waiting]:
    """As many of the first as a batch holds."""
    used = 0
    for number, each in enumerate(waiting):
        used += len(each.outgoing.request.body) + 1  # a few bytes more than it has in a batch
        if number and (number == limits.BATCH_MESSAGES or used > wire.BATCH_ROOM):
            return
        yield each


def _fail(source: _Source, group: Sequence[_Waiting], error: SegmentError) -> None:
    for each in group:
        each.fail(copy(error))  # each call says of its own what it was about
    _hold_back(source, {each.outgoing.person for each in group}, error)


def _hold_back(source: _Source, persons: Iterable[str], error: SegmentError) -> None:
    """Let the outbox have what waits behind messages that it gets."""
    for each in source.waiting if error.retryable else ():
        if each.outgoing.keeps and each.outgoing.person in persons:
            each.fail(_behind())


_AGAIN = "Try again with the same messageId, which makes a repeat safe."


def _late() -> Unavailable:
    text = "Segment did not answer within the time of this call."
    error = Unavailable(text, hint=f"The message may have arrived. {_AGAIN}", code="timeout")
    error.attempts = 1
    return error


def _held_up() -> Unavailable:
    text = "Requests before this one took all the time of this call. Nothing was sent."
    return Unavailable(text, hint=_AGAIN, code="timeout", sent=False)


def _ending(*, sent: bool) -> Unavailable:
    text = "The server ended before Segment answered." if sent else "The server ended before the message was sent."
    return Unavailable(text, hint=_AGAIN, code="ending", sent=sent)


def _behind() -> Unavailable:
    text = "An earlier message of the same user could not be delivered, so this one was not sent."
    return Unavailable(text, hint=_AGAIN, sent=False)

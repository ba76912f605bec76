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

AT_ONCE = 1
"""Ours: how many requests to a source are under way before calls wait for each other. One alone makes the largest
batches, and one that hangs would hold up every call."""

PATIENCE_SECONDS = 1.0
"""Ours: how long a call waits for others' answers; then it leaves with whatever waits beside it, since those hang."""

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


@dataclass(slots=True)
class _Source:
    write_key: str
    under_way: int = 0
    busy: set[str] = field(default_factory=set[str])
    """Whose messages are under way: each user's next one waits for the answer, so that they arrive in order."""
    waiting: deque[_Waiting] = field(default_factory=deque["_Waiting"])

    def is_free(self, person: str) -> bool:
        return self.under_way < AT_ONCE and person not in self.busy

    def leave(self, persons: Iterable[str]) -> None:
        self.under_way += 1
        self.busy.update(persons)

    def come_back(self, persons: Iterable[str]) -> None:
        self.under_way -= 1
        self.busy.difference_update(persons)

    def group(self) -> list[_Waiting]:
        """The first that may leave now, as many as the next request holds; they wait no longer."""
        waiting = [each for each in self.waiting if not each.is_withdrawn]
        group = list(_fitting(each for each in waiting if each.outgoing.person not in self.busy))
        chosen = set(map(id, group))
        self.waiting = deque(each for each in waiting if id(each) not in chosen)
        return group


class Gathering:
    """Delivers single messages to one data plane; each caller has its own outcome.

    A call leaves at once and alone while fewer than `AT_ONCE` requests to its source are under way. The calls that
    come after it wait for an answer, but not for long, and leave together. A user's messages leave in the order of the
    calls.
    """

    def __init__(self, plane: DataPlane, outside: Surroundings, *, together: bool) -> None:
        self._plane, self._outside, self._together = plane, outside, together
        self._sources: dict[str, _Source] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

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
        """Let what waits leave, and be answered, for so long; then end it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while tasks := self._own_tasks():
                    await asyncio.wait(tasks)
        if self._loop is asyncio.get_running_loop():
            for each in [each for source in self._sources.values() for each in source.waiting]:
                each.fail(_ending(sent=False))
        for task in (tasks := self._own_tasks()):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _own_tasks(self) -> "set[asyncio.Task[None]]":
        return {task for task in self._tasks if task.get_loop() is asyncio.get_running_loop()}

    def _source(self, write_key: str) -> _Source:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._sources = loop, {}
        return self._sources.setdefault(write_key, _Source(write_key))

    async def _alone(self, source: _Source, outgoing: Outgoing) -> Outcome:
        persons = (outgoing.person,)
        source.leave(persons)
        try:
            return await self._plane.send(outgoing.request, outgoing.write_key, outgoing.deadline)
        except Undelivered as error:
            _hold_back(source, persons, error)
            raise
        finally:
            self._came_back(source, persons)

    async def _with_others(self, source: _Source, outgoing: Outgoing) -> Outcome:
        waiting = _Waiting(outgoing, asyncio.get_running_loop().create_future(), telemetry.caller())
        source.waiting.append(waiting)
        patience = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._lose_patience, source, waiting)
        try:
            async with asyncio.timeout(outgoing.deadline - self._outside.monotonic()):
                return await waiting.result
        except TimeoutError:
            raise _late() if waiting.left else _held_up() from None
        finally:
            patience.cancel()

    def _lose_patience(self, source: _Source, waiting: _Waiting) -> None:
        """Let the message go beside those that hang; not where one of the same user is among these."""
        if not waiting.left and waiting.outgoing.person not in source.busy and (group := source.group()):
            self._set_out(source, group)

    def _came_back(self, source: _Source, persons: Iterable[str]) -> None:
        source.come_back(persons)
        while source.waiting and source.under_way < AT_ONCE and (group := source.group()):
            self._set_out(source, group)
        if not source.under_way and not source.waiting and self._sources.get(source.write_key) is source:
            del self._sources[source.write_key]

    def _set_out(self, source: _Source, group: list[_Waiting]) -> None:
        source.leave(each.outgoing.person for each in group)
        # In a context of its own: it is no part of the call that happened to end just now.
        task = asyncio.get_running_loop().create_task(self._travel(source, group), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _travel(self, source: _Source, group: list[_Waiting]) -> None:
        persons = [each.outgoing.person for each in group]
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
            # Those who were answered just now may have more to send: the next request waits for that.
            asyncio.get_running_loop().call_soon(self._came_back, source, persons)

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

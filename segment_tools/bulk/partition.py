"""Rows sent on: judged, packed and delivered, so many requests at once as goes well, in each person's order."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from segment_tools import wire
from segment_tools.bulk.checkpoint import State
from segment_tools.bulk.compressing import gzipped
from segment_tools.bulk.counts import Counts
from segment_tools.bulk.damage import Damaged
from segment_tools.bulk.lanes import LANES
from segment_tools.bulk.packing import Batch, Packer
from segment_tools.bulk.plain import Part
from segment_tools.bulk.rows import Block, Judge, Rejection, StoppedAt
from segment_tools.bulk.tempo import Tempo
from segment_tools.bulk.trouble import Trouble
from segment_tools.errors import Problem, Rejected, Undelivered
from segment_tools.sending import Means, Route
from segment_tools.spec.timestamps import iso_utc

PATIENCE_SECONDS = 900.0
"""Ours: for how long a request is tried again before the import stops; Segment may ask for five minutes at a time."""

_REFUSED_FOR_CONTENT = (400, 413)
_UNORDERED_RUN = 500
"""Ours: without an order, so many rows that follow each other go to the same lane."""

_IN_VAIN = 100
"""Ours: where so many messages are refused one by one and none was ever taken, it is not they that are wrong."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How rows are sent."""

    ordered: bool = True
    strict: bool = False
    """Whether to stop at the first row that is refused."""
    dry_run: bool = False


ORDERED = Manner()


def forgotten(_: State) -> None:
    """For who keeps no checkpoint."""


async def _each(blocks: Iterable[Block] | AsyncIterable[Block]) -> AsyncIterator[Block]:
    """The blocks, from where reading is waited for, too."""
    if isinstance(blocks, AsyncIterable):
        async for block in blocks:
            yield block
    else:
        for block in blocks:
            yield block


class Partition:
    """Sends one sequence of rows, numbered in its order, from where `state` says that it has come to.

    `keep` is told the state whenever it has changed and may be relied on; `reject` is given refused rows, in order but
    for those that Segment itself refuses, and answers how long the file with them is; it is asked once at a time.
    """

    def __init__(
        self,
        means: Means,
        route: Route,
        judge: Judge,
        state: State,
        *,
        reject: Callable[[Sequence[Rejection]], Awaitable[int]],
        keep: Callable[[State], None] = forgotten,
        manner: Manner = ORDERED,
    ) -> None:
        self._means, self._route, self._judge, self._manner = means, route, judge, manner
        self.state = state
        self.trouble: Trouble | None = None
        """Why requests are tried again, since one was taken last."""
        self._at = state.done
        """All rows up to this number were looked at by this run; the state may have read more, before."""
        self._keep, self._reject, self._refusing = keep, reject, asyncio.Lock()
        self._packer, self._tempo = Packer(), Tempo(min(LANES, means.settings.concurrency))
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_vain = 0
        """How many messages Segment itself refused, each alone."""
        self._begun: list[list[int]] = [[] for _ in range(LANES)]
        """Of each lane, the first rows of the batches that are on their way: one, and perhaps one that waits for it."""

    @property
    def counts(self) -> Counts:
        """What became of the rows so far."""
        return self.state.counts

    @property
    def under_way(self) -> int:
        """How many requests are."""
        return len(self._tasks)

    async def run(self, blocks: Iterable[Block] | AsyncIterable[Block]) -> Counts:
        """Send all rows; what became of them, once all were answered.

        Raises:
            Damaged: there are no more that can be read; those before were sent.
            StoppedAt: the first refused row, where the manner is strict; those before it were sent.
            Unauthorized, Rejected, Unavailable: Segment does not take them; what it took is in the state.
        """
        try:
            damage = await self._taken(blocks)
            await self._emptied()
        finally:
            await self._cancelled()
        if damage:
            raise damage
        return self.counts

    async def _taken(self, blocks: Iterable[Block] | AsyncIterable[Block]) -> Damaged | None:
        """Judge and pack all rows; what ended them too soon."""
        each = _each(blocks)
        while True:
            try:
                block = await anext(each, None)
            except Damaged as error:
                return error
            if block is None:
                return None
            if block.number(len(block.rows) - 1) > self.state.done:
                await self._block(block)

    async def _block(self, block: Block) -> None:
        parts, refused, blank = await self._judge.parts(block)
        stop = refused[0] if refused and self._manner.strict else None
        if stop:
            parts = [part for part in parts if part[0] < stop.number]
        lanes = self.state.lanes
        for full in self._packer.fill([part for part in self._laned(parts) if part[0] > lanes[part[2]]]):
            await self._ship(full)
        if stop:
            await self._stopped(stop)
        last = block.number(len(block.rows) - 1)
        for late in self._packer.late(last):
            await self._ship(late)
        await self._judged(last, block, blank, refused)
        self._at = last
        await asyncio.sleep(0)  # let answers in, requests out, and others have their turn

    def _laned(self, parts: list[Part]) -> list[Part]:
        """The same, in the lanes that they go by."""
        if self._manner.ordered:
            return parts
        return [(number, body, number // _UNORDERED_RUN % LANES, view) for number, body, _, view in parts]

    async def _judged(self, last: int, block: Block, blank: int, refused: Sequence[Rejection]) -> None:
        """Count the rows once those refused are written: else the state, kept meanwhile, would miss or repeat some."""
        state = self.state
        if last <= state.read:
            return
        known = max(state.read, block.first - 1)
        new = sum(each > known for each in block.numbers) if block.numbers else last - known
        await self._refuse([each for each in refused if each.number > state.read])
        state.counts.rows += max(0, new - blank)
        state.read = last

    async def _refuse(self, refused: Sequence[Rejection]) -> None:
        if refused:
            async with self._refusing:
                self.state.rejected_bytes = await self._reject(refused)
                self.counts.rejected += len(refused)

    async def _stopped(self, refused: Rejection) -> None:
        """End at the refused row, once those before it are sent."""
        self._at = refused.number - 1
        state, new = self.state, self.state.read < refused.number
        state.read = max(state.read, self._at)
        await self._emptied()
        if new:  # of the block that it is in, the rows before it were not counted yet
            state.counts.rows = state.counts.accepted + state.counts.rejected
            self._keep(state)
        raise StoppedAt(refused, state.counts.accepted)

    async def _emptied(self) -> None:
        for batch in self._packer.rest():
            await self._ship(batch)
        while self._tasks:
            await self._answered()
        self._note()

    async def _ship(self, batch: Batch) -> None:
        """Send the batch, once its lane is free and there is room for a request more."""
        begun = self._begun[batch.lane]
        begun.append(batch.first)
        while len(begun) > 1 or len(self._tasks) >= self._tempo.limit:
            await self._answered()
        self._tasks.add(asyncio.create_task(self._deliver(batch)))

    async def _answered(self) -> None:
        """Return once a request more is done with."""
        done, self._tasks = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        errors = [error for task in done if (error := task.exception())]  # of each, or asyncio tells of those not asked
        if errors:
            raise errors[0]

    async def _deliver(self, batch: Batch) -> None:
        last = batch.last
        if self._manner.dry_run:
            self._took(batch, 0)
        else:
            await self._sent(batch)
        self._begun[batch.lane].pop(0)
        self.state.lanes[batch.lane] = max(self.state.lanes[batch.lane], last)
        self._note()

    async def _sent(self, batch: Batch) -> int:
        """Send the batch, in parts where Segment refuses the whole; how many of its messages it took.

        Raises:
            Undelivered: it takes none of them, or cannot.
        """
        outside, plane, key = self._means.outside, self._means.plane, self._route.write_key
        request = gzipped(wire.batch([each[1] for each in batch.parts], iso_utc(outside.now()), plane.key_in_body(key)))
        began = outside.monotonic()
        try:
            failed = partial(self._failed, outside.now() + timedelta(seconds=PATIENCE_SECONDS))
            _, attempts = await plane.send(request, key, began + PATIENCE_SECONDS, failed)
        except Rejected as error:
            if error.status_code not in _REFUSED_FOR_CONTENT:
                raise
            self.trouble = None
            return await self._parted(batch, error)
        self.trouble = None
        self._tempo.answered(outside.monotonic() - began, again=attempts > 1)
        self._took(batch, len(request.body))
        return len(batch.parts)

    def _failed(self, until: datetime, error: Undelivered) -> None:
        """Note why a request is tried again; not where only this program held it back."""
        if error.made:
            self.trouble = Trouble.of(error, self._means.settings, until).after(self.trouble)

    async def _parted(self, batch: Batch, error: Rejected) -> int:
        if len(batch.parts) == 1:
            problem = Problem("refused_by_segment", error.message, error.hint)
            refused = Rejection(batch.first, (problem,), batch.parts[0][1])
            await self._refuse([refused])
            self._in_vain += 1
            if self._in_vain >= _IN_VAIN and not self.counts.accepted:
                raise error
            if self._manner.strict:
                raise StoppedAt(refused, self.counts.accepted)
            return 0
        first, second = batch.halves()
        return await self._sent(first) + await self._sent(second)

    def _took(self, batch: Batch, sent_bytes: int) -> None:
        counts = self.counts
        counts.take(batch.parts)
        counts.bytes += batch.bytes
        counts.sent_bytes += sent_bytes
        counts.requests += bool(sent_bytes)

    def _note(self) -> None:
        """Tell the state: of each lane, before which row all is done with."""
        state, waiting = self.state, self._packer.waiting
        for lane, begun in enumerate(self._begun):
            first = begun[0] if begun else waiting[lane]
            known = self._at if first is None else min(self._at, first - 1)
            state.lanes[lane] = max(state.lanes[lane], known)
        self._keep(state)

    async def _cancelled(self) -> None:
        """End what is under way, whatever the reason."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

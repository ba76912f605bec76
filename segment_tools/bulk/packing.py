"""Messages packed into batches, each lane its own, so that one person's messages never overtake each other."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from segment_tools import wire
from segment_tools.bulk.lanes import LANES
from segment_tools.bulk.plain import Part
from segment_tools.spec import limits

_LONGEST_WAIT_ROWS = 200_000
"""Ours: a lane that others have left so far behind goes out unfilled: after a crash all since then is read again."""


@dataclass(slots=True)
class Batch:
    """Messages of one lane that go in one request."""

    lane: int
    parts: list[Part] = field(default_factory=list[Part], repr=False)
    bytes: int = 0
    room: int = wire.BATCH_ROOM

    @property
    def first(self) -> int:
        """The number of its first row."""
        return self.parts[0][0]

    @property
    def last(self) -> int:
        """The number of its last row."""
        return self.parts[-1][0]

    def halves(self) -> "tuple[Batch, Batch]":
        """The same as two."""
        middle = len(self.parts) // 2
        return self._cut(0, middle), self._cut(middle, len(self.parts))

    def _cut(self, begin: int, end: int) -> "Batch":
        parts = self.parts[begin:end]
        return Batch(self.lane, parts, sum(len(part[1]) + 1 for part in parts), self.room)


class Packer:
    """Fills a batch for each lane."""

    def __init__(self, room: int = wire.BATCH_ROOM) -> None:
        # Their first batches are of different sizes, or all would be full at the same moment.
        rooms = (max(room * (lane + 1) // LANES, min(room, limits.MESSAGE_BYTES + 1)) for lane in range(LANES))
        self._filling = [Batch(lane, room=first) for lane, first in enumerate(rooms)]
        self._room = room

    def fill(self, parts: Iterable[Part]) -> Iterator[Batch]:
        """Put each message into its lane's batch; the batches that are full."""
        filling, most = self._filling, limits.BATCH_MESSAGES
        for part in parts:
            lane, size = part[2], len(part[1]) + 1
            batch = filling[lane]
            if batch.bytes + size <= batch.room and len(batch.parts) < most:
                batch.parts.append(part)
                batch.bytes += size
            else:
                filling[lane] = Batch(lane, [part], size, self._room)
                yield batch

    def late(self, number: int) -> Iterator[Batch]:
        """The batches that wait since long before the row of this number."""
        for lane, batch in enumerate(self._filling):
            if batch.parts and batch.first < number - _LONGEST_WAIT_ROWS:
                self._filling[lane] = Batch(lane, room=self._room)
                yield batch

    def rest(self) -> Iterator[Batch]:
        """What is left, in the end."""
        for lane, batch in enumerate(self._filling):
            if batch.parts:
                self._filling[lane] = Batch(lane, room=self._room)
                yield batch

    @property
    def waiting(self) -> Sequence[int | None]:
        """Of each lane, the number of the first row that is not yet in a batch on its way."""
        return [batch.first if batch.parts else None for batch in self._filling]

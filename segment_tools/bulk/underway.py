"""An import while it goes on: how much of its file is done with, and how long the rest may take."""

from collections.abc import Callable, Iterator

from segment_tools.bulk.counts import Counts
from segment_tools.bulk.partition import Partition
from segment_tools.bulk.rows import Block
from segment_tools.bulk.trouble import Trouble


class UnderWay:
    """To be looked at now and then; `size` is that of the file in bytes, None where nobody knows how much there is."""

    def __init__(self, partition: Partition, size: int | None) -> None:
        self.size = size
        self._partition = partition
        self._resumed, self._known = partition.state.done, partition.state.read
        self._skipped = self._judged = self._read = 0
        """Bytes: up to where this run went on, judged its rows, and read them."""
        self._row, self._rows, self._more = 0, partition.counts.rows, 1
        """The last row that was judged, how many rows were then, and how many were read beyond them."""

    @property
    def counts(self) -> Counts:
        """What became of the rows so far, those of earlier runs among them."""
        return self._partition.counts

    @property
    def trouble(self) -> Trouble | None:
        """Why requests are tried again, where they are."""
        return self._partition.trouble

    @property
    def done(self) -> int:
        """How many bytes of the file the rows take that are done with."""
        if self._row < self._known:  # others were judged by an earlier run
            return int(self._judged * min(1.0, self._partition.state.done / self._row)) if self._row else 0
        beyond = self.counts.done - self._rows
        if beyond <= 0:
            return self._judged * self.counts.done // max(1, self._rows)
        return self._judged + (self._read - self._judged) * min(beyond, self._more) // self._more

    def seconds_left(self, elapsed: float) -> float | None:
        """How long the rest takes if it goes on as in the seconds since this run began; None: nobody knows yet."""
        gone = self.done - self._skipped
        return elapsed * max(0, self.size - self.done) / gone if self.size is not None and gone > 0 else None

    def followed(self, blocks: Iterator[Block], position: Callable[[], int]) -> Iterator[Block]:
        """The blocks; `position` tells how many bytes of the file those take that were read so far."""
        for block in blocks:
            self._read, self._more = position(), len(block.rows)
            yield block
            # Who asks for the next one has judged this one.
            self._judged, self._row = self._read, block.number(len(block.rows) - 1)
            self._rows = self.counts.rows
            if self._row <= self._resumed:
                self._skipped = self._read

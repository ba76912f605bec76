"""What became of all partitions, told on the driver by an accumulator."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from segment_tools.bulk.counts import MOST_EVENTS, OTHERS, Counts
from segment_tools.bulk.rejections import reason
from segment_tools.bulk.results import numbers
from segment_tools.bulk.rows import Rejection
from segment_tools.bulk.spark.engine import accumulator

MOST_REJECTIONS = 100
"""Ours: so many refused rows are told of; all of them are in the folder of `rejected=`."""

_SHOWN = 3


@dataclass(frozen=True, slots=True, order=True)
class RejectedRow:
    """A row that was not sent, and why; not the row itself, which is somebody's data."""

    partition: int
    row: int
    """Its place in the partition, from 1."""
    code: str
    message: str
    hint: str = ""
    field: str = ""

    @classmethod
    def of(cls, partition: int, rejection: Rejection) -> "RejectedRow":
        """Of a refused row the first of the reasons."""
        return cls(partition, rejection.number, **reason(rejection.problems[0]))

    def __str__(self) -> str:
        return f"partition {self.partition}, row {self.row:,}: {self.message} {self.hint}".rstrip()


@dataclass(frozen=True, slots=True)
class Totals:
    """Of some partitions."""

    partitions: int = 0
    before: int = 0
    """How many of them were done with by an earlier job."""
    resumed: int = 0
    """How many rows an earlier attempt or job had done with."""
    counts: Counts = field(default_factory=Counts)
    rejections: tuple[RejectedRow, ...] = ()
    unused: frozenset[str] = frozenset()

    def plus(self, other: "Totals") -> "Totals":
        """Both together, no larger than one."""
        return Totals(
            self.partitions + other.partitions,
            self.before + other.before,
            self.resumed + other.resumed,
            _bounded(self.counts.plus(other.counts)),
            tuple(sorted((*self.rejections, *other.rejections))[:MOST_REJECTIONS]),
            self.unused | other.unused,
        )


class Adding:
    """How Spark adds them, as its AccumulatorParam has it."""

    def zero(self, value: Totals) -> Totals:  # noqa: ARG002 - Spark passes it
        """Nothing yet."""
        return Totals()

    def addInPlace(self, value: Totals, more: Totals) -> Totals:  # noqa: N802 - Spark's name
        """Both together."""
        return value.plus(more)


class Report:
    """What became of the rows of a job, once it has ended; of one that failed, those of the partitions that did not.

    Spark applies what a task adds once for each partition that succeeds: attempts that failed, and second ones of a
    partition that is done, do not count. A partition counts whole, with what earlier attempts had sent.
    """

    def __init__(self, spark: Any) -> None:
        """Raises NotConfigured without pyspark, or where the session is one of Spark Connect."""
        self.totals = accumulator(spark, Totals(), Adding())

    @property
    def counts(self) -> Counts:
        """The rows, messages by type and event, requests, bytes and warnings of all partitions."""
        return self._value.counts

    @property
    def rejections(self) -> tuple[RejectedRow, ...]:
        """The first refused rows, by partition and place, with the reason of each."""
        return self._value.rejections

    @property
    def partitions(self) -> int:
        """How many are done with."""
        return self._value.partitions

    @property
    def before(self) -> int:
        """How many of these an earlier job had done with."""
        return self._value.before

    @property
    def resumed(self) -> int:
        """How many rows an earlier attempt or job had done with."""
        return self._value.resumed

    @property
    def unused(self) -> tuple[str, ...]:
        """The columns that became nothing."""
        return tuple(sorted(self._value.unused))

    @property
    def _value(self) -> Totals:
        return self.totals.value

    def as_dict(self) -> Mapping[str, Any]:
        """As JSON."""
        return {
            **numbers(self.counts),
            "partitions": self.partitions,
            "partitionsBefore": self.before,
            "resumedRows": self.resumed,
            "unusedColumns": list(self.unused),
            "firstRejections": [
                {"partition": each.partition, "row": each.row, **_why(each)} for each in self.rejections
            ],
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        counts = self.counts
        yield (
            f"{counts.rows:,} rows in {self.partitions:,} partitions, {counts.accepted:,} accepted, "
            f"{counts.rejected:,} rejected, {counts.requests:,} requests, {counts.sent_bytes:,} bytes sent"
        )
        if self.resumed:
            yield f"  {self.resumed:>12,}  rows were done with before"
        yield from counts.lines()
        for each in self.rejections[:_SHOWN]:
            yield f"  {each}"
        if self.unused:
            yield f"  not sent: {', '.join(self.unused)}"


def _bounded(counts: Counts) -> Counts:
    """The counts, of no more kinds of message than those of one partition."""
    if len(counts.kinds) <= MOST_EVENTS + 1:
        return counts
    kinds = Counter({key: number for key, number in counts.kinds.most_common() if key != OTHERS})
    kept = Counter(dict(kinds.most_common(MOST_EVENTS)))
    kept[OTHERS] = counts.kinds.total() - kept.total()
    return replace(counts, kinds=kept)


def _why(each: RejectedRow) -> dict[str, str]:
    found = {"code": each.code, "field": each.field, "message": each.message, "hint": each.hint}
    return {name: value for name, value in found.items() if value}

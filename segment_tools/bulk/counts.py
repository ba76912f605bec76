"""What became of rows, in numbers: as they grow, for a checkpoint, and in the end."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Self

from segment_tools.bulk.plain import Part

MOST_EVENTS = 200
"""Ours: so many kinds of message are counted apart; the others together."""

OTHERS = ("others", "")


@dataclass(slots=True)
class Counts:
    """Of one import. `accepted` says that Segment answered 2xx, as everywhere."""

    rows: int = 0
    """Read and judged; those of a run before this one among them."""
    accepted: int = 0
    rejected: int = 0
    requests: int = 0
    bytes: int = 0
    """Of what was accepted, before compression."""
    sent_bytes: int = 0
    """Of the bodies, as they were sent."""
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """By type, and for track by event."""
    warnings: Counter[str] = field(default_factory=Counter[str])
    """By code."""

    @property
    def done(self) -> int:
        """Rows that are done with: acknowledged, or refused."""
        return self.accepted + self.rejected

    @property
    def told(self) -> str:
        """How far an import has come, in words."""
        return f"{self.rows:,} rows read, {self.accepted:,} accepted, {self.rejected:,} rejected"

    def take(self, parts: Iterable[Part]) -> None:
        """Count messages that were accepted."""
        for view, number in Counter(map(itemgetter(3), parts)).items():
            key = (view.kind, view.event)
            self.kinds[key if key in self.kinds or len(self.kinds) < MOST_EVENTS else OTHERS] += number
            self.accepted += number
            for code in view.codes:
                self.warnings[code] += number

    def lines(self) -> Iterator[str]:
        """For people: how many messages of which kind, and how many have which warning."""
        for (kind, event), number in self.kinds.most_common():
            yield f"  {number:>12,}  {kind} {event}".rstrip()
        for code, number in self.warnings.most_common():
            yield f"  {number:>12,}  warning {code}"

    def as_dict(self) -> dict[str, Any]:
        """As JSON, for a checkpoint."""
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        return {**numbers, "kinds": [[*key, number] for key, number in self.kinds.items()], "warnings": self.warnings}

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """What `as_dict` was made of."""
        kinds = Counter({(kind, event): number for kind, event, number in given["kinds"]})
        return cls(**{name: given[name] for name in _NUMBERS}, kinds=kinds, warnings=Counter(given["warnings"]))

    def plus(self, other: "Counts") -> "Counts":
        """Both together."""
        numbers = {name: getattr(self, name) + getattr(other, name) for name in _NUMBERS}
        return Counts(**numbers, kinds=self.kinds + other.kinds, warnings=self.warnings + other.warnings)


_NUMBERS = ("rows", "accepted", "rejected", "requests", "bytes", "sent_bytes")

"""What of the outbox is in memory: a bounded part of it, by user, from which requests are packed."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from segment_tools import wire
from segment_tools.errors import SegmentError
from segment_tools.outbox import Outbox, Waiting
from segment_tools.spec import limits

MOST_ENTRIES, MOST_BYTES = 10_000, 8 * 1024 * 1024
"""Ours: how much is in memory at a time, about."""

_LANE_ENTRIES = limits.BATCH_MESSAGES // 2
_FEW = 50
"""Ours: a user's messages are read on when so few are left in memory."""

_PAGE = limits.BATCH_MESSAGES


@dataclass(slots=True, eq=False)
class Lane:
    """What waits of one user, in order, and how it has fared."""

    name: str
    source: str
    waiting: deque[Waiting] = field(default_factory=deque[Waiting])
    in_flight: bool = False
    due: float = 0.0
    failures: int = 0
    """How often in a row its messages may not have arrived."""
    blocked: int = 0
    """How often of these they were alone, so that they may be the cause."""
    company: int = limits.BATCH_MESSAGES
    """How many users may share a request: fewer after each failure that one of them may be the cause of."""
    most: int = limits.BATCH_MESSAGES
    """How many of its messages may be in a request."""
    unread: str | None = None
    """The last one taken before others were left out, if any were."""


@dataclass(frozen=True, slots=True)
class Trip:
    """One request: which messages of which users it carries."""

    source: str
    lanes: Sequence[Lane]
    messages: Sequence[Waiting]

    @property
    def suspect(self) -> bool:
        """Whether any of its messages was in a request that failed."""
        return self.failures > 0

    @property
    def failures(self) -> int:
        """How often the messages among it that fared worst have failed."""
        return max(lane.failures for lane in self.lanes)


@dataclass(slots=True)
class StoppedSource:
    """What is wrong with a source's key or address; until it is due, its messages are passed over."""

    trouble: SegmentError
    due: float
    failures: int
    """How often in a row."""
    left_out: bool = True


class Window:
    """The part of the outbox that is in memory. Times are those of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self.sources: dict[str, StoppedSource] = {}
        self.all_read = False
        self._lanes: dict[str, Lane] = {}
        self._held: set[str] = set()
        self._bytes = 0
        self._read_to: str | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to deliver, as far as is known."""
        return self.all_read and not self._held

    async def read(self, outbox: Outbox, now: float) -> None:
        """Read on, until there is nothing more or no more room."""
        self._go_back(now)
        blocked = [lane for lane in self._lanes.values() if lane.due > now]
        # Who cannot go has one message in memory, which must not keep others from being read.
        entries = MOST_ENTRIES + sum(len(lane.waiting) for lane in blocked)
        size = MOST_BYTES + sum(len(each.entry.body) for lane in blocked for each in lane.waiting)
        while not self.all_read and len(self._held) < entries and self._bytes < size:
            full = [lane for lane in self._lanes.values() if _is_full(lane, now)]
            for lane in full:
                lane.unread = lane.unread or lane.waiting[-1].cursor
            found = await outbox.page(self._read_to, _PAGE, MOST_BYTES // 4, [lane.name for lane in full])
            self.all_read = not found
            for message in found:
                self._take(message, now)

    def _go_back(self, now: float) -> None:
        """Go back to what was left out, where there is room for it now."""
        for source in self.sources.values():
            if source.left_out and source.due <= now:
                source.left_out = False
                self._read_anew()
        for lane in self._lanes.values():
            if lane.unread is not None and lane.due <= now and len(lane.waiting) < _FEW:
                if self._read_to is not None and _place(lane.unread) < _place(self._read_to):
                    self._read_to = lane.unread
                self.all_read, lane.unread = False, None

    def _read_anew(self) -> None:
        self._read_to, self.all_read = None, False

    def _take(self, message: Waiting, now: float) -> None:
        self._read_to, entry = message.cursor, message.entry
        stopped = self.sources.get(entry.source)
        if stopped is not None and stopped.left_out:
            return
        lane = self._lanes.setdefault(entry.lane, Lane(entry.lane, entry.source))
        if lane.unread is not None or message.cursor in self._held:
            return
        if _is_full(lane, now):
            lane.unread = lane.waiting[-1].cursor
        else:
            lane.waiting.append(message)
            self._held.add(message.cursor)
            self._bytes += len(entry.body)

    def doubt(self) -> None:
        """Read again what is not on its way: somebody may have discarded it meanwhile."""
        for lane in self._lanes.values():
            if not lane.in_flight:
                while lane.waiting:
                    self._let_go(lane.waiting.pop())
                lane.unread = None
        self._read_anew()

    def settled(self, messages: Sequence[Waiting]) -> None:
        """The outbox does not have these any more."""
        for message in messages:
            self._let_go(message)

    def _let_go(self, message: Waiting) -> None:
        self._held.discard(message.cursor)
        self._bytes -= len(message.entry.body)

    def pack(self, now: float) -> Trip | None:
        """The next request: what has waited longest, and whatever of the same source fits in with it."""
        lanes: list[Lane] = []
        messages: list[Waiting] = []
        room, company = wire.BATCH_ROOM, limits.BATCH_MESSAGES
        for lane in self._ready(now):
            if lanes and lane.source != lanes[0].source:
                continue
            if len(lanes) >= min(company, lane.company):
                continue
            taken = list(_fitting(lane.waiting, min(lane.most, limits.BATCH_MESSAGES - len(messages)), room))
            if not taken:
                break
            room -= sum(len(each.entry.body) + 1 for each in taken)
            company = min(company, lane.company)
            lane.in_flight = True
            lanes.append(lane)
            messages += [lane.waiting.popleft() for _ in taken]
        return Trip(lanes[0].source, lanes, messages) if lanes else None

    def _ready(self, now: float) -> Sequence[Lane]:
        found = (lane for lane in self._lanes.values() if lane.waiting and not lane.in_flight and lane.due <= now)
        # Whoever may be the cause of a failure comes after those who cannot be.
        return sorted(found, key=lambda lane: (lane.blocked, lane.failures, _place(lane.waiting[0].cursor)))

    def arrived(self, trip: Trip) -> None:
        """Segment took it: whatever was wrong is over."""
        if self.sources.pop(trip.source, None):
            self._read_anew()
        for lane in trip.lanes:
            self._free(lane)

    def came_back(self, trip: Trip) -> None:
        """It did not arrive: its messages stand again before those that came after them."""
        of = {lane.name: lane for lane in trip.lanes}
        for message in reversed(trip.messages):
            of[message.entry.lane].waiting.appendleft(message)
        for lane in trip.lanes:
            lane.in_flight = False

    def refused(self, trip: Trip) -> None:
        """The one message of this request, which came back, is refused for good."""
        [lane] = trip.lanes
        lane.waiting.popleft()
        self._free(lane)

    def _free(self, lane: Lane) -> None:
        """It goes on as if nothing had been; where nothing is left of it, it is forgotten."""
        lane.in_flight, lane.failures, lane.blocked, lane.due = False, 0, 0, 0.0
        lane.company = lane.most = limits.BATCH_MESSAGES
        if not lane.waiting and lane.unread is None:
            self._lanes.pop(lane.name, None)

    def narrow(self, trip: Trip) -> None:
        """Find out which message of it is the cause: smaller requests from now on."""
        for lane in trip.lanes:
            if len(trip.lanes) > 1:
                lane.company = len(trip.lanes) // 2
            else:
                lane.most = max(1, len(trip.messages) // 2)

    def block(self, lane: Lane, due: float) -> None:
        """Let this user's messages wait, so that they hold nobody up; most of them leave the memory."""
        lane.due = due
        while len(lane.waiting) > 1:
            self._let_go(lane.waiting.pop())
            lane.unread = lane.waiting[-1].cursor

    def stop(self, name: str, trouble: SegmentError, due: float, failures: int) -> None:
        """Let all of a source's messages wait while its key or address is wrong; they leave the memory."""
        self.sources[name] = StoppedSource(trouble, due, failures)
        self.doubt()

    def dues(self, now: float) -> Sequence[float]:
        """When something that waits may be tried again."""
        lanes = (lane.due for lane in self._lanes.values() if lane.waiting and not lane.in_flight)
        sources = (source.due for source in self.sources.values() if source.left_out)
        return [due for due in (*lanes, *sources) if due > now]


def _is_full(lane: Lane, now: float) -> bool:
    return len(lane.waiting) >= (1 if lane.due > now else _LANE_ENTRIES)


def _fitting(waiting: "deque[Waiting]", most: int, room: int) -> Iterator[Waiting]:
    """The first messages, as many as fit into so many bytes."""
    for _, message in zip(range(most), waiting, strict=False):
        room -= len(message.entry.body) + 1
        if room < 0:
            return
        yield message


def _place(cursor: str) -> tuple[int, ...]:
    """What cursors are ordered by: numbers, in SQLite one, in Redis two."""
    return tuple(map(int, cursor.split("-")))

"""What an outbox is: what goes into it, what comes out, and what every kind of it promises."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, Protocol

from segment_tools.errors import OutboxFull
from segment_tools.storage.kind import Kind

OUTBOX = Kind("outbox", "SEGMENT_OUTBOX")

MOST_BYTES = 256 * 1024 * 1024
"""Ours: some 200,000 messages of usual size."""

ENTRY_OVERHEAD = 512
"""Counted for each entry beside its body: about what its ids and indexes take. What is stored was counted with it, so
that another number would need a migration."""

KNOWN_FOR = timedelta(hours=24)
"""How long the first result of a messageId is known.

Segment itself looks back 24 hours at least.
Source: https://segment.com/docs/guides/duplicate-data/.
"""

MOST_KNOWN = 1_000_000
"""How many ids are known as accepted, over the bytes of what waits: some 500 MB in a file. The oldest go first."""

LEAST_FORGOTTEN = 1000
"""How many records of ids one writing may forget; twice as many as it writes, where that is more."""

LEASE = "delivery"
"""What the lease is on."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A message on its way: `body` is its JSON as it stands in a batch. Entries of one lane leave in their order."""

    message_id: str
    lane: str
    source: str
    """The configured source's name, empty for the default key."""
    body: bytes = field(repr=False)
    digest: str
    """Of the content as the caller gave it."""
    timestamp: str
    """The message's, in ISO 8601."""

    @property
    def size(self) -> int:
        """What it counts for, in bytes."""
        return len(self.body) + ENTRY_OVERHEAD


@dataclass(frozen=True, slots=True)
class Known:
    """What first became of a messageId: accepted by Segment, or queued here."""

    message_id: str
    digest: str
    status: Literal["accepted", "queued"]
    timestamp: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """An entry that is not yet delivered; `cursor` is its place in the queue."""

    cursor: str
    accepted_at: datetime
    entry: Entry


Death = tuple[Waiting, str, str, int]
"""What cannot be delivered: the reason's code, its text, and how often it was tried."""


@dataclass(frozen=True, slots=True)
class Dead:
    """A dead letter: a message that was given up; `cursor` is its place among them, in the order of their deaths."""

    message_id: str
    source: str
    body: bytes = field(repr=False)
    reason: str
    """A code."""
    text: str
    attempts: int
    accepted_at: datetime
    died_at: datetime
    cursor: str


@dataclass(frozen=True, slots=True)
class DeadPage:
    """Some dead letters, the oldest first; `next` is the cursor to go on after, None where there are no more."""

    items: tuple[Dead, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class Depth:
    """How much is in an outbox: `bytes` are those of waiting and dead, with `ENTRY_OVERHEAD` for each."""

    pending: int
    bytes: int
    oldest_at: datetime | None
    """When the first in the queue was accepted."""
    dead: int


class Outbox(Protocol):
    """Messages that were accepted and are not yet delivered to Segment; for one event loop at a time.

    Several outboxes, in several processes, may stand on the same file or server: they see the same. Who delivers is
    one of them alone, the lease's holder, since lanes could not keep their order among several. A message is in one
    place at a time: waiting, dead, or gone. While it waits its id is known as queued, and for 24 hours after it was
    delivered as accepted; of more than a million of those, the last million.

    Every method raises `Unavailable` (`outbox_unavailable`) where the file or server cannot be read or written just
    now, or is none of an outbox; and ValueError for a cursor that this kind of outbox never gave out. Whoever gets an
    exception from a change, or is cancelled, does not know whether it was made, and may make it again.
    """

    async def add(self, entries: Sequence[Entry], accepted_at: datetime) -> tuple[Known | None, ...]:
        """Put the entries at the end of the queue, all or none; they are kept for good when it returns.

        For each, in their order: None where it was taken, or else what is known of its id, from before or from
        earlier among these; then it is not added again.

        Raises:
            OutboxFull: with them there would be more bytes than the outbox may hold. None was taken.
        """
        ...

    async def look(
        self, message_ids: Sequence[str], lanes: Collection[str]
    ) -> tuple[Mapping[str, Known], frozenset[str]]:
        """What is known of these ids, and in which of these lanes something waits."""
        ...

    async def remember(self, known: Sequence[Known], at: datetime) -> None:
        """Note what was accepted without the outbox. What is known of an id already stays.

        Raises:
            ValueError: one is not "accepted".
        """
        ...

    async def page(
        self, after: str | None, limit: int, most_bytes: int, without: Collection[str] = ()
    ) -> Sequence[Waiting]:
        """What waits after the cursor, the oldest first, without what is in some lanes.

        It is no more than so many, whose bodies together have no more than so many bytes; but at least one.
        """
        ...

    async def settle(self, delivered: Sequence[Waiting], dead: Sequence[Death]) -> None:
        """Let go of what was delivered, and make dead letters of what cannot be; all or none.

        The ids of the delivered are known as accepted from now on; those of the dead are forgotten, so that a mended
        message may take the same. What no longer waits is passed over: it may be done again, and is to be, before
        more is delivered, where it failed; else a disk that is full has everything delivered over and over.
        """
        ...

    async def lease(self, holder: str, seconds: float) -> bool:
        """Whether the holder is the one who delivers for so long from now, alone among all processes.

        Whoever is may ask again, to renew it, or for 0 seconds, to give it up. It is free once it has run out.
        120 seconds is the longest, whatever is asked for: a clock that is set back holds it up no longer than that.
        """
        ...

    async def changed(self, seconds: float) -> bool:
        """Wait until something was added since this last returned True: True.

        Returns False once the time is up, or the outbox closed. The first time, anything that was ever added counts.
        What this outbox adds is noticed at once, and what another adds within half a second. It may be cancelled.
        """
        ...

    async def depth(self) -> Depth:
        """How much there is; it takes no longer for more."""
        ...

    async def dead(self, after: str | None, limit: int, message_ids: Sequence[str] | None = None) -> DeadPage:
        """The dead letters after the cursor, the oldest first; where ids are given, only those with one of them."""
        ...

    async def retry(self, message_ids: Sequence[str] | None) -> int:
        """Put the dead letters with these ids, or all, back at the end of the queue, the oldest first; how many.

        They count as accepted now, and their ids are known as queued. A letter whose id is known, because another
        message took it meanwhile, stays; of several with the same id, the last goes back.
        """
        ...

    async def discard(self, message_ids: Sequence[str]) -> int:
        """Delete all dead letters with these ids; of an id that has none, what waits, and forget the id; how many.

        What waits beside a dead letter stays: it is the mended message, which took the letter's id. So an id that was
        discarded is not to be discarded again, before looking, where the first time failed. What is being delivered
        at this moment may be delivered all the same.
        """
        ...

    async def remarks(self) -> Sequence[str]:
        """What to know of how well it keeps messages, as sentences; empty where there is nothing to say."""
        ...

    async def aclose(self) -> None:
        """Wake who waits, do what was begun, and let go of the file or server. It cannot be used afterwards."""
        ...


def full(most_bytes: int) -> OutboxFull:
    """The error of an outbox that has no room."""
    text = f"The outbox has no room: it may hold {most_bytes} bytes, dead letters included. Nothing was taken."
    hint = "Wait until more is delivered, retry or discard dead letters, or raise SEGMENT_OUTBOX_MAX_BYTES."
    return OutboxFull(text, hint=hint, sent=False)


def check_accepted(known: Sequence[Known]) -> None:
    """See that all of these were accepted.

    Raises:
        ValueError: one was not.
    """
    if any(each.status != "accepted" for each in known):
        raise ValueError("Only what was accepted is remembered; what is queued is added.")


def check_limit(limit: int) -> None:
    """See that a page has room for one.

    Raises:
        ValueError: it has not.
    """
    if limit < 1:
        raise ValueError("A page has at least 1 item.")

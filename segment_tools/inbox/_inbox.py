"""What an inbox is: what goes into it, what comes out, and what every kind of it promises."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from segment_tools.spec.webhooks import Delivery
from segment_tools.storage.kind import Kind
from segment_tools.storage.moments import microseconds

INBOX = Kind("inbox", "SEGMENT_INBOX")


@dataclass(frozen=True, slots=True)
class Retention:
    """How long deliveries are kept, and how many; the oldest go first."""

    days: float = 14.0
    count: int = 100_000

    def __post_init__(self) -> None:
        if not (self.days > 0 and self.count > 0):
            raise ValueError("A retention is more than 0 days and more than 0 deliveries.")

    def oldest(self, now: datetime) -> int:
        """The least time of receipt that is kept, in microseconds."""
        return microseconds(now) - round(self.days * 86_400e6)


@dataclass(frozen=True, slots=True)
class Query:
    """Which deliveries are asked for, and how many at most. What is not given does not matter."""

    types: tuple[str, ...] = ()
    channel: str | None = None
    event: str | None = None
    user_id: str | None = None
    since: datetime | None = None
    """The least time of receipt, with a time zone."""
    after: str | None = None
    """A cursor: only what came later."""
    before: str | None = None
    """A cursor: only what came earlier."""
    newest_first: bool = False
    limit: int = 20
    most_bytes: int | None = None
    """A body of more bytes is left out. 0 is for who wants none: they are not even read."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError("A page has at least 1 item.")


@dataclass(frozen=True, slots=True)
class Stored:
    """A delivery as it is kept. `cursor` is its place, in the order of arrival; `body` is its JSON text.

    `body` is empty where it was left out for its size; `size` is what it has in bytes, and says nothing
    where no bodies were wanted.
    """

    cursor: str
    received_at: datetime
    body: str = field(repr=False)
    type: str | None = field(default=None, repr=False)
    event: str | None = field(default=None, repr=False)
    user_id: str | None = field(default=None, repr=False)
    channel: str | None = field(default=None, repr=False)
    size: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Page:
    """Some deliveries, in the order asked for.

    `next` is the cursor to go on from in the same direction: as `after`, or as `before` where the newest come first.
    None says that there are no more.
    """

    items: tuple[Stored, ...]
    next: str | None = None


class Inbox(Protocol):
    """Verified deliveries, kept for those who read them and wait for them; for one event loop at a time.

    Several inboxes, in several processes, may stand on the same file or server: they see the same. Every method raises
    `Unavailable` (`inbox_unavailable`) where that cannot be read or written just now, and ValueError for a cursor that
    this kind of inbox never gave out.
    """

    async def add(self, deliveries: Sequence[Delivery], received_at: datetime) -> int:
        """Keep the deliveries of one request, all or none; how many of them were new.

        They are kept for good when it returns. One whose key is known is dropped, whoever added the first; a key is
        known for at least as long as its delivery is kept. The others keep their order. Whoever gets an exception, or
        is cancelled, does not know whether they are kept, and may add them again.
        """
        ...

    async def page(self, query: Query) -> Page:
        """The deliveries that match, the oldest first unless asked otherwise; none beyond the retention's days."""
        ...

    async def last(self) -> str | None:
        """The newest delivery's cursor, to wait from; None where there is none."""
        ...

    async def changed(self, after: str | None, seconds: float) -> bool:
        """Wait until there is something newer than the cursor, or anything where it is None: True.

        Returns False once the time is up, or the inbox closed. What this inbox adds is noticed at once, and what
        another adds within half a second. It may be cancelled.
        """
        ...

    async def position(self, name: str) -> str | None:
        """The cursor that was reached under the name; None where there is none yet."""
        ...

    async def advance(self, name: str, cursor: str) -> None:
        """Note that the cursor was reached under the name, for good. It never goes back: an earlier one is ignored."""
        ...

    async def lease(self, name: str, holder: str, seconds: float) -> bool:
        """Whether the holder has the name for so long from now, alone among all processes.

        Whoever has it may take it again, to renew it, or for 0 seconds, to give it up. It is free once it has run out.
        120 seconds is the longest, whatever is asked for: a clock that is set back holds it up no longer than that.
        """
        ...

    async def aclose(self) -> None:
        """Wake who waits, do what was begun, and let go of the file or server. The inbox cannot be used afterwards."""
        ...


def page_of(items: Sequence[Stored], limit: int) -> Page:
    """The page that the items make, of which there is one more than the limit where the page is not the last."""
    shown = tuple(items[:limit])
    return Page(shown, shown[-1].cursor if len(items) > limit else None)

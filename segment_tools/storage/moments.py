"""Times as they are stored: whole microseconds since 1970; and how long a lease may last."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""What time it is, with a time zone."""

LONGEST_LEASE_SECONDS = 120.0
"""Ours, twice the longest that is asked for: one beyond it is from before a clock was set back: it has run out."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


def microseconds(moment: datetime) -> int:
    """The moment as whole microseconds since 1970.

    Raises:
        ValueError: it has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError("A time needs its time zone.")
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(count: int) -> datetime:
    """The moment, in UTC, that is so many microseconds after 1970."""
    return _EPOCH + count * _MICROSECOND

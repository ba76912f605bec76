"""Moments as ISO 8601 writes them, and as they go on the wire."""

import re
from datetime import UTC, datetime

_COMPLETE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


_READABLE = re.compile(
    r"(\d{4}-\d\d-\d\d|\d{4}-W\d\d-\d)([T ][\d:.,]+(Z|[+-][\d:]+)?)?|\d{8}(T[\d:.,]+(Z|[+-][\d:]+)?)?", re.ASCII
)
"""A date, then perhaps `T` or a space and a time: Python takes any sign between them, and so a number of seconds."""


def has_zone(text: str) -> bool:
    """Whether a timestamp says which time zone it means."""
    moment = _moment(text)
    return moment is None or moment.tzinfo is not None


def wire_timestamp(text: str) -> str:
    """A valid timestamp as it is sent: as given where it is complete, else written out in UTC.

    Complete is `YYYY-MM-DDTHH:MM:SS` with an optional fraction and `Z` or an offset. Segment documents no grammar
    beyond "ISO 8601", so rarer forms (a date alone, a week date, no colons) are not left to it.
    """
    moment = parse_timestamp(text)
    return text if _COMPLETE.fullmatch(text) or moment is None else iso_utc(moment)


def parse_timestamp(text: str) -> datetime | None:
    """The moment an ISO 8601 text means, one without a zone taken as UTC; None if it is not ISO 8601.

    Source: https://segment.com/docs/connections/spec/common/#timestamps.
    """
    moment = _moment(text)
    if moment is None:
        return None
    try:
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:  # the first or last hours of the calendar, moved across its edge by the zone
        return None


def _moment(text: str) -> datetime | None:
    written = text.strip().upper()
    if not _READABLE.fullmatch(written):
        return None
    try:
        return datetime.fromisoformat(written)
    except ValueError:
        return None


def iso_utc(moment: datetime) -> str:
    """The moment as Segment's own Node library writes it: UTC, `Z`, milliseconds; microseconds where it has them."""
    precision = "microseconds" if moment.microsecond % 1000 else "milliseconds"
    there = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return f"{there.isoformat(timespec=precision).removesuffix('+00:00')}Z"

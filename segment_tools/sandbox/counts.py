"""How many messages arrived: by type, by verdict, and by minute of the last hour."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from segment_tools.sandbox.store import Store

_MINUTES = 60


def counts(store: Store, now: datetime) -> dict[str, Any]:
    """The store's counts as they are shown."""
    return counts_of(store.counts(minute_of(now - timedelta(minutes=_MINUTES))), now)


def counts_of(rows: Iterable[tuple[str, str, str, int]], now: datetime) -> dict[str, Any]:
    """The counts, added up; a type that is none of Segment's six is `other`."""
    last_hour = {minute_of(now - timedelta(minutes=ago)): [0, 0] for ago in range(_MINUTES - 1, -1, -1)}
    by_type: Counter[str] = Counter()
    by_verdict: Counter[str] = Counter(accepted=0)
    for minute, kind, discarded, total in rows:
        by_type[kind or "other"] += total
        by_verdict[discarded or "accepted"] += total
        if minute in last_hour:
            last_hour[minute][bool(discarded)] += total
    minutes = [
        {"minute": minute, "accepted": accepted, "discarded": discarded}
        for minute, (accepted, discarded) in last_hour.items()
    ]
    return {"total": by_type.total(), "byType": dict(by_type), "byVerdict": dict(by_verdict), "minutes": minutes}


def minute_of(moment: datetime) -> str:
    """The minute as the store counts by it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M")

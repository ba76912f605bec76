"""Which messageIds came within the last 24 hours: a second message of one is a repeat, whatever source it is from.

In memory, since an index on disk of ids that have no order doubles the cost of storing a message.
"""

from datetime import datetime, timedelta

HOURS = 24
"""Source: https://segment.com/docs/guides/duplicate-data/: at least 24 hours of messageIds, whatever the source."""

_MOST = 1_000_000
"""Ours: how many ids are remembered at least, whatever their age; about a hundred megabytes."""


class Repeats:
    """The ids of accepted messages, in two generations: the older is forgotten whole once the younger is full."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._young: dict[str, datetime] = {}
        self._old: dict[str, datetime] = {}

    def is_repeat(self, message_id: str, now: datetime) -> bool:
        """Whether a message of this id was remembered within the hours."""
        before = self._young.get(message_id) or self._old.get(message_id)
        return before is not None and now - before <= timedelta(hours=HOURS)

    def remember(self, message_id: str, at: datetime) -> None:
        """A message of this id was accepted."""
        if len(self._young) >= self._most:
            self._young, self._old = {}, self._young
        self._young[message_id] = at

    def forget(self) -> None:
        """Know of none."""
        self._young, self._old = {}, {}

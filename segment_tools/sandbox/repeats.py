"""Which messageIds came within the last 24 hours: a second message of one is a repeat, whatever source it is from.

In memory, since an index on disk of ids that have no order doubles the cost of storing a message.
"""

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta

from segment_tools.sandbox.judge import Verdict

HOURS = 24
"""Source: https://segment.com/docs/guides/duplicate-data/: at least 24 hours of messageIds, whatever the source."""

_WINDOW = timedelta(hours=HOURS)

_MOST = 1_000_000
"""Ours: how many ids are remembered at least, whatever their age; about a hundred megabytes."""


class Repeats:
    """The ids of accepted messages, in two generations: the older is forgotten whole once the younger is full."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._young: dict[str, datetime] = {}
        self._old: dict[str, datetime] = {}

    def marked(self, found: Iterable[Verdict], now: datetime) -> list[Verdict]:
        """The verdicts with repeats among them as such and the others remembered, an id given to those without one."""
        return [verdict if verdict.discarded else self._marked(verdict, now) for verdict in found]

    def _marked(self, verdict: Verdict, now: datetime) -> Verdict:
        message_id = verdict.message_id
        if not message_id:
            return verdict._replace(message_id=f"sandbox-{uuid.uuid4()}")
        before = self._young.get(message_id) or self._old.get(message_id)
        if before is not None and now - before <= _WINDOW:
            return verdict._replace(discarded="duplicate")
        self.remember(message_id, now)
        return verdict

    def remember(self, message_id: str, at: datetime) -> None:
        """A message of this id was accepted."""
        if len(self._young) >= self._most:
            self._young, self._old = {}, self._young
        self._young[message_id] = at

    def forget(self) -> None:
        """Know of none."""
        self._young, self._old = {}, {}

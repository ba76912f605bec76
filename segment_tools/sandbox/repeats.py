"""Which messageIds came within the last 24 hours: a second message of one is a repeat, whatever source it is from.

In memory, since an index on disk of ids that have no order doubles the cost of storing a message.
"""

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta

from segment_tools.sandbox.judge import Verdict

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

    def marked(self, found: Iterable[Verdict], now: datetime) -> list[Verdict]:
        """The verdicts with repeats among them as such and the others remembered, an id given to those without one."""
        marked: list[Verdict] = []
        for verdict in found:
            message_id, chosen = verdict.message_id, verdict
            if not verdict.discarded:
                if not message_id:
                    chosen = verdict._replace(message_id=f"sandbox-{uuid.uuid4()}")
                elif (message_id in self._young or message_id in self._old) and self._is_repeat(message_id, now):
                    chosen = verdict._replace(discarded="duplicate")
                else:
                    self.remember(message_id, now)
            marked.append(chosen)
        return marked

    def _is_repeat(self, message_id: str, now: datetime) -> bool:
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

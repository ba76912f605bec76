"""First results by messageId, in memory, so that a repeated call is answered and not sent again."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

from segment_tools.outbox import KNOWN_FOR, Known

_SECONDS = KNOWN_FOR.total_seconds()
MOST = 100_000
"""Ours: some 30 MB of them at most; the oldest go first."""


class Remembered:
    """What this process saw accepted within the last 24 hours."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, most: int = MOST) -> None:
        self._monotonic, self._most = monotonic, most
        self._kept: OrderedDict[str, tuple[float, Known]] = OrderedDict()

    def look(self, message_ids: Iterable[str]) -> Mapping[str, Known]:
        """What is known of these ids."""
        least = self._monotonic() - _SECONDS
        found = ((name, self._kept.get(name)) for name in message_ids)
        return {name: kept[1] for name, kept in found if kept and kept[0] > least}

    def put(self, known: Iterable[Known]) -> None:
        """Remember first results."""
        now = self._monotonic()
        for one in known:
            self._kept[one.message_id] = (now, one)
            self._kept.move_to_end(one.message_id)
        while len(self._kept) > self._most or (self._kept and next(iter(self._kept.values()))[0] < now - _SECONDS):
            self._kept.popitem(last=False)

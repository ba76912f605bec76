"""Profiles built from the stored messages: they follow the store whenever somebody looks at them."""

import json
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from segment_tools.sandbox.identity import Identities, Seen
from segment_tools.sandbox.judge import delivered, moment_of
from segment_tools.sandbox.store import Store

_T = TypeVar("_T")

_CHUNK = 5_000


class Profiles:
    """The profiles of a store's messages. In memory: the first look after a start reads all that is stored."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._identities = Identities()
        self._through = 0
        self._generation = store.generation

    def look(self, work: Callable[[Identities], _T]) -> _T:
        """What the work makes of the profiles as they are now; nobody changes them meanwhile."""
        with self._lock:
            if self._generation != self._store.generation:
                self._generation = self._store.generation
                self._identities, self._through = Identities(), 0
            while found := self._store.since(self._through, _CHUNK):
                for row in found:
                    self._through = row[0]  # first, so that whatever is wrong with one stops no other
                    self._take(*row)
            return work(self._identities)

    def _take(
        self, sequence: int, received_at: str, source: str, message_id: str, sent_at: str | None, text: str | bytes
    ) -> None:
        message = delivered(json.loads(text), message_id, sent_at, received_at)
        received = datetime.fromisoformat(received_at)
        at = moment_of(message["timestamp"]) or received
        self._identities.take(message, Seen(sequence, message_id, source, at, received))

    def rows(self, sequences: Sequence[int]) -> dict[int, dict[str, Any]]:
        """What a list shows of these messages, by number; without those no longer kept."""
        return {row["sequence"]: row for row in self._store.summaries_of(sequences)}

    def messages(self, sequences: Sequence[int]) -> dict[int, dict[str, Any]]:
        """The delivered messages of these numbers, by number; without those no longer kept."""
        return {row["sequence"]: row["message"] for row in self._store.numbered(sequences)}

"""How many requests may be under way at once: one more as long as that does no harm, half as many when it does."""

_SLOW = 3.0
"""Ours: how many times as long as the quickest an answer may take before it is a sign of a crowd."""

_LEAST_SECONDS = 0.05
"""Ours: what is quicker is never slow, whatever the quickest was."""

_FORGOTTEN = 1.02
"""Ours: with each answer the quickest is forgotten a little, since networks change."""


class Tempo:
    """Additive increase, multiplicative decrease, as TCP has it."""

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._limit = min(4.0, self._most)
        self._quickest = float("inf")
        self._since = 0

    @property
    def limit(self) -> int:
        """How many may be under way now."""
        return int(self._limit)

    def answered(self, seconds: float, *, again: bool) -> None:
        """A request was answered after so long; `again` says that it had to be made more than once."""
        self._since += 1
        slow = seconds > max(_LEAST_SECONDS, _SLOW * self._quickest)
        self._quickest = min(self._quickest * _FORGOTTEN, seconds)
        if not (again or slow):
            self._limit = min(self._most, self._limit + 1 / self._limit)
        elif self._since >= self._limit:  # those that were under way tell of the same crowd
            self._limit, self._since = max(1.0, self._limit / 2), 0

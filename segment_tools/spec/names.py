"""Names from outside: which known one is meant, and how one is shown."""

import difflib
from collections.abc import Callable, Collection, Iterable

SHOWN_CHARACTERS = 80
"""How much of a name from outside an error repeats."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one most likely means."""
    folded = {candidate.replace("_", "").lower(): candidate for candidate in known}
    match = difflib.get_close_matches(name.replace("_", "").lower(), folded, n=1, cutoff=0.7)
    return folded[match[0]] if match else None


Nearest = Callable[[str, Collection[str]], str | None]
"""As `nearest`."""

_MOST = 1_000_000
"""Ours: in letters of names times letters of the known ones, thousands of names are looked for, and nobody waits."""


class Effort:
    """How much looking for mends one call is worth: `nearest`, each name once, and none any more after so much."""

    def __init__(self, left: int = _MOST) -> None:
        self._left = left
        self._found: dict[tuple[str, tuple[str, ...]], str | None] = {}

    def affords(self, cost: int) -> bool:
        """Whether so much is left, which then is spent."""
        if cost > self._left:
            return False
        self._left -= cost
        return True

    def spend(self, cost: int) -> None:
        """Count what was done, however much it came to."""
        self._left = max(0, self._left - cost)

    def nearest(self, name: str, known: Collection[str]) -> str | None:
        """The known name that a misspelt one most likely means; None where that is no longer looked for."""
        key = (name, tuple(known))
        if key not in self._found:
            cost = len(name) * sum(map(len, known))
            self._found[key] = nearest(name, known) if self.affords(cost) else None
        return self._found[key]


def folded(name: str) -> str:
    """The name in lower case, of letters and digits alone: what its spellings have in common."""
    return "".join(char for char in name.lower() if char.isalnum())


def printable(name: str) -> str:
    """A name from outside, fit to be shown: short and without control characters."""
    return "".join(char if char.isprintable() else "?" for char in name[:SHOWN_CHARACTERS])

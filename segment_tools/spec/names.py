"""Names from outside: which known one is meant, and how one is shown."""

import difflib
from collections.abc import Iterable

SHOWN_CHARACTERS = 80
"""How much of a name from outside an error repeats."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one most likely means."""
    folded = {candidate.replace("_", "").lower(): candidate for candidate in known}
    match = difflib.get_close_matches(name.replace("_", "").lower(), folded, n=1, cutoff=0.7)
    return folded[match[0]] if match else None


def folded(name: str) -> str:
    """The name in lower case, of letters and digits alone: what its spellings have in common."""
    return "".join(char for char in name.lower() if char.isalnum())


def printable(name: str) -> str:
    """A name from outside, fit to be shown: short and without control characters."""
    return "".join(char if char.isprintable() else "?" for char in name[:SHOWN_CHARACTERS])

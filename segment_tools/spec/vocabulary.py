"""Thousands of known names, arranged so that the one which a misspelt name means is found without reading all."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from segment_tools.spec.names import nearest

_CANDIDATES = 12
"""Ours: of the names with the most pairs of letters in common, the one that is meant was always among so many."""


class Vocabulary:
    """Known names in the order given."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(dict.fromkeys(names))
        self._having: dict[str, list[int]] | None = None

    def nearest(self, name: str) -> str | None:
        """The known name that a misspelt one most likely means."""
        having = self._having = self._having or self._indexed()
        shared = Counter(place for pair in _pairs(name) for place in having.get(pair, ()))
        return nearest(name, [self.names[place] for place, _ in shared.most_common(_CANDIDATES)])

    def _indexed(self) -> dict[str, list[int]]:
        having: defaultdict[str, list[int]] = defaultdict(list)
        for place, name in enumerate(self.names):
            for pair in _pairs(name):
                having[pair].append(place)
        return dict(having)


def _pairs(name: str) -> set[str]:
    folded = name.replace("_", "").lower()[:_LONGEST]
    return {folded[at : at + 2] for at in range(len(folded) - 1)} or {folded}


_LONGEST = 200
"""Ours. A name that is longer is no misspelling of one that is known."""

"""What tells one sequence of rows from another: whether they are the same, and whether they come in the same order."""

from dataclasses import dataclass
from hashlib import blake2b

_BYTES = 16
_MOST = 1 << (8 * _BYTES)


@dataclass(frozen=True, slots=True)
class Mark:
    """The rows up to a place."""

    rows: int = 0
    order: str = ""
    """The same for the same rows in the same order."""
    content: str = ""
    """The same for the same rows in any order."""


class Fingerprint:
    """Grows by each row."""

    def __init__(self) -> None:
        self.rows = 0
        self._order = blake2b(digest_size=_BYTES)
        self._content = 0

    def add(self, row: bytes) -> None:
        """One more."""
        digest = blake2b(row, digest_size=_BYTES).digest()
        self._order.update(digest)
        self._content = (self._content + int.from_bytes(digest)) % _MOST
        self.rows += 1

    @property
    def mark(self) -> Mark:
        """Of the rows so far."""
        return Mark(self.rows, self._order.hexdigest(), f"{self._content:x}")

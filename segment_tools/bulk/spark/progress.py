"""How far a partition has come, in a file that is replaced whole: what it says is true, whoever wrote it last.

No file is locked, since folders that a cluster shares lock badly. Two attempts at one partition may both write theirs:
each says what Segment has acknowledged, and what the other sends again has the same messageIds.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from segment_tools.bulk.checkpoint import State
from segment_tools.bulk.spark.fingerprint import Mark
from segment_tools.errors import NotConfigured

_BETWEEN_SECONDS = 1.0
"""Ours: a file on a shared disk is not written more often; who is killed has so much more to send again."""

_VERSION = "segment-tools checkpoint 1"
"""What the file holds is under this name: another version of it has another."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a checkpoint says."""

    of: Mapping[str, Any]
    """What the partition is, and what is made of it."""
    state: State
    early: Mark
    """Of all rows that are done with, and perhaps some more."""
    mark: Mark
    """Of all rows that the state speaks of."""
    first: Sequence[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    """The first refused rows, as the report has them."""
    refused: str = ""
    """The name of the file of refused rows, of which the state says how much counts."""


class Progress:
    """The checkpoint of one partition."""

    def __init__(self, folder: Path, partition: int) -> None:
        self.path = folder / f"part-{partition:05}.json"
        self._pending = b""
        self._written = float("-inf")

    def known(self) -> Known | None:
        """What the file says; None where there is none.

        Raises:
            NotConfigured: it cannot be read, or is no checkpoint.
        """
        try:
            found: Any = msgspec.json.decode(self.path.read_bytes())
            return _known(found[_VERSION])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable("read", error) from None
        except (ValueError, LookupError, TypeError):
            hint = "Delete it to begin this partition anew: rows that are the same keep their messageIds."
            raise NotConfigured("checkpoints", f"{self.path} is not a checkpoint.", hint=hint) from None

    def keep(self, known: Known) -> None:
        """Note how far the partition has come; it is written now and then, and by `write`."""
        self._pending = msgspec.json.encode({_VERSION: asdict(known) | {"state": known.state.as_dict()}})
        if time.monotonic() - self._written >= _BETWEEN_SECONDS:
            self.write()

    def write(self) -> None:
        """Write what was noted last.

        Raises:
            NotConfigured: the folder cannot be written.
        """
        if not self._pending:
            return
        other = self.path.with_name(f".{self.path.name}.{uuid4().hex}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(other, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(self._pending)
                file.flush()
                os.fsync(file.fileno())
            other.replace(self.path)
        except OSError as error:
            other.unlink(missing_ok=True)
            raise self._unusable("written", error) from None
        self._pending = b""
        self._written = time.monotonic()

    def forget(self) -> None:
        """Begin anew the next time."""
        self._pending = b""
        self.path.unlink(missing_ok=True)

    def _unusable(self, what: str, error: OSError) -> NotConfigured:
        text = f"The checkpoint {self.path} cannot be {what} ({error.strerror})."
        hint = "Name a folder that every executor can read and write in checkpoints=."
        return NotConfigured("checkpoints", text, hint=hint)


def _known(found: Mapping[str, Any]) -> Known:
    state = State.of(found["state"])
    return Known(found["of"], state, Mark(**found["early"]), Mark(**found["mark"]), found["first"], found["refused"])

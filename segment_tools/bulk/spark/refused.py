"""The refused rows of a partition: each attempt writes a file of its own, and the one that ends well names it."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from segment_tools.bulk.rejections import RejectedRows
from segment_tools.bulk.rows import Rejection
from segment_tools.errors import NotConfigured


class RefusedRows:
    """Writes `part-00000.jsonl`; `before` and `kept` are an earlier attempt's file, and how much of it counts.

    Raises:
        NotConfigured: the folder cannot be used, or the earlier file is not there.
    """

    def __init__(self, folder: Path, partition: int, before: str = "", kept: int = 0) -> None:
        self._folder, self._name = folder, f"part-{partition:05}.jsonl"
        self._before = before
        self.name = f".{self._name}.{uuid4().hex}"
        """Of this attempt's file."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if kept:
                shutil.copyfile(self._earlier(), folder / self.name)
                (folder / self.name).chmod(0o600)
        except OSError as error:
            raise self._unusable(error) from None
        self._rows = RejectedRows(folder / self.name, kept)
        self._any = bool(kept)

    def add(self, rejections: Sequence[Rejection]) -> int:
        """Write the rows; how long the file is then."""
        self._any = True
        return self._rows.add(rejections)

    def finish(self) -> None:
        """Let the file be the partition's."""
        self._rows.close()
        final = self._folder / self._name
        try:
            if self._any:
                (self._folder / self.name).replace(final)
            else:
                final.unlink(missing_ok=True)
            if self._before:
                (self._folder / self._before).unlink(missing_ok=True)
        except FileNotFoundError as error:  # another attempt went on from this file, ended first, and cleared it away
            if not final.exists():
                raise self._unusable(error) from None
        except OSError as error:
            raise self._unusable(error) from None

    def leave(self, *, known: bool) -> None:
        """Close the file; it stays where a checkpoint knows it."""
        self._rows.close()
        if not known:
            (self._folder / self.name).unlink(missing_ok=True)

    def _earlier(self) -> Path:
        own = self._folder / self._before
        return own if own.exists() else self._folder / self._name

    def _unusable(self, error: OSError) -> NotConfigured:
        text = f"The rejected rows cannot be kept in {self._folder} ({error.strerror})."
        hint = "Name a folder that every executor can read and write in rejected=."
        return NotConfigured("rejected", text, hint=hint)

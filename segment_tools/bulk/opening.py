"""Files opened for an import: what they are by their names, uncompressed as they are read."""

import gzip
import os
import zlib
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import PurePath
from typing import Any, BinaryIO, Literal, Self, cast

from segment_tools.bulk.frames import Frames
from segment_tools.bulk.lines import Stream
from segment_tools.bulk.naming import plain_name
from segment_tools.errors import NotConfigured

Format = Literal["jsonl", "csv", "parquet"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "parquet")
_TABLES: dict[str, Format] = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".pq": "parquet"}
_HEAD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that is read."""

    name: str
    format: Format
    stream: Stream
    """Its bytes, uncompressed."""
    raw: BinaryIO
    """The file itself."""
    size: int | None
    """Of the file itself; None for what has no end to be seen."""

    @property
    def position(self) -> int | None:
        """How much of the file itself was read, of `size`."""
        with suppress(OSError, ValueError):
            return self.raw.tell() if self.size is not None else None
        return None

    @property
    def print(self) -> dict[str, Any]:
        """What tells the file from one that it was changed into; empty for what can be read once only."""
        if self.size is None:
            return {}
        found = os.fstat(self.raw.fileno())
        head = os.pread(self.raw.fileno(), _HEAD_BYTES, 0) if hasattr(os, "pread") else b""
        digest = blake2b(head, digest_size=16).hexdigest()
        return {"size": found.st_size, "changed": found.st_mtime_ns, "head": digest}


@contextmanager
def opened(name: str, file: BinaryIO, given: Format | None = None) -> Generator[Opened]:
    """The open file, uncompressed where its name says that it is compressed.

    Raises:
        NotConfigured: it is compressed in a way that wants a package, which is not installed.
    """
    end = PurePath(name).suffix.lower()
    with ExitStack() as stack:
        stream: Any = file
        if end == ".gz":
            stream = stack.enter_context(_gunzipped(file))
        elif end == ".zst":
            stream = stack.enter_context(_zst(file))
        size = os.fstat(file.fileno()).st_size if file.seekable() else None
        kind = given or _TABLES.get(PurePath(plain_name(name)).suffix.lower(), "jsonl")
        yield Opened(name, kind, _Whole(stream), file, size)


def _gunzipped(file: BinaryIO) -> Any:
    try:
        from isal import igzip
    except ImportError:
        return gzip.open(file)
    return cast("Any", igzip).open(file)


def _zst(file: BinaryIO) -> Any:
    try:
        import zstandard
    except ImportError:
        hint = "pip install 'segment-tools[bulk]', or pipe it: zstd -dc FILE | segment-tools import -"
        raise NotConfigured("FILE", "The package that reads .zst is not installed.", hint=hint) from None
    frames = Frames(file)
    return _Zst(zstandard.ZstdDecompressor().stream_reader(cast("Any", frames), read_across_frames=True), frames)


class _Zst:
    """Reads what the frames hold; zstandard alone takes a frame that is cut off for the end."""

    def __init__(self, reader: Any, frames: Frames) -> None:
        self._reader, self._frames = reader, frames

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def read(self, size: int, /) -> bytes:
        data: bytes = self._reader.read(size)
        if not data and size and not self._frames.whole:
            raise EOFError
        return data


class _Whole:
    """Reads a stream, and says it in our words where that is damaged."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int, /) -> bytes:
        try:
            return self._stream.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _damaged(error) from None
        except Exception as error:
            if type(error).__name__ in ("ZstdError", "IsalError"):
                raise _damaged(error) from None
            raise


def _damaged(error: Exception) -> NotConfigured:
    text = "The compressed file ends too soon" if isinstance(error, EOFError) else "The compressed file is damaged"
    hint = "Get the whole file, and import it with --again: rows that are the same keep their messageIds."
    return NotConfigured("FILE", f"{text}: what is before that place was read.", hint=hint)

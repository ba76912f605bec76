"""Files opened for an import: what they are by their names, uncompressed as they are read."""

import gzip
import os
import re
import zlib
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import PurePath
from typing import Any, BinaryIO, Literal, Self, cast

from segment_tools.bulk.damage import Damaged
from segment_tools.bulk.frames import Frames
from segment_tools.bulk.lines import Stream
from segment_tools.bulk.naming import plain_name
from segment_tools.errors import NotConfigured
from segment_tools.spec.names import printable

Format = Literal["jsonl", "csv", "parquet"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "parquet")
_TABLES: dict[str, Format] = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".pq": "parquet"}
_HEAD_BYTES = 64 * 1024
_PACKED = {".gz": "gzip", ".zst": "Zstandard"}
_MAGIC = re.compile(rb"(?P<gz>\x1f\x8b)|(?P<zst>\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)")
"""How compressed files begin. Source: RFC 1952, 2.3.1; RFC 8878, 3.1."""
_UNPACKERS = {".gz": "gunzip -c", ".zst": "zstd -dc"}
_MAGIC_BYTES = 4
_NAMELESS = "-"
"""Standard input, whatever it is."""


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
    head: str
    """A digest of how the file begins."""

    @property
    def known_as(self) -> str:
        """What rows are named by: the file's name, or how it begins where the name says nothing of what is in it."""
        return self.name if self.size is not None and self.name != _NAMELESS else f"{_NAMELESS}{self.head}"

    def position(self) -> int:
        """How much of the file itself was read, of `size`; nothing where that is not known."""
        return self.raw.tell() if self.size is not None else 0

    @property
    def print(self) -> dict[str, Any]:
        """What tells the file from one that it was changed into; for what can be read once only, how it began."""
        if self.size is None:
            return {"head": self.head}
        found = os.fstat(self.raw.fileno())
        return {"size": found.st_size, "changed": found.st_mtime_ns, "head": _digest(_head(self.raw))}


class _Begun:
    """Reads a pipe whose first bytes were read already."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int = -1, /) -> bytes:
        if not self._head:
            return self._rest.read(size)
        data = self._head if size < 0 else self._head[:size]
        self._head = self._head[len(data) :]
        return data + self._rest.read() if size < 0 else data


def _head(file: BinaryIO) -> bytes:
    """How a file begins that can be read from anywhere."""
    return os.pread(file.fileno(), _HEAD_BYTES, 0) if hasattr(os, "pread") else b""


def _digest(head: bytes) -> str:
    return blake2b(head, digest_size=16).hexdigest()


@contextmanager
def opened(name: str, file: BinaryIO, given: Format | None = None) -> Generator[Opened]:
    """The open file, uncompressed where its name says that it is compressed.

    Raises:
        NotConfigured: it is compressed in a way that its name does not say, or that wants a package which is not
            installed.
    """
    end = PurePath(name).suffix.lower()
    with ExitStack() as stack:
        lasting = file.seekable()
        head = _head(file) if lasting else file.read(_HEAD_BYTES)
        _check_packed(name, head)
        stream: Any = file if lasting else _Begun(head, file)
        if end == ".gz":
            stream = stack.enter_context(_gunzipped(stream))
        elif end == ".zst":
            stream = stack.enter_context(_zst(stream))
        size = os.fstat(file.fileno()).st_size if lasting else None
        kind = given or _TABLES.get(PurePath(plain_name(name)).suffix.lower(), "jsonl")
        yield Opened(name, kind, _Whole(stream), file, size, _digest(head))


def _check_packed(name: str, head: bytes) -> None:
    """Return if the file may be compressed as its name says: of one that was cut off early nobody knows."""
    end = PurePath(name).suffix.lower()
    found = _MAGIC.match(head)
    packed = f".{found.lastgroup}" if found else ""
    if packed == end or (not packed and (end not in _PACKED or len(head) < _MAGIC_BYTES)):
        return
    if name == _NAMELESS:
        hint = f"Uncompress it: {_UNPACKERS[packed]} FILE | segment-tools import -"
        raise NotConfigured("FILE", f"Standard input is {_PACKED[packed]}.", hint=hint)
    bare = PurePath(name).stem if end in _PACKED else PurePath(name).name
    hint = f"Rename it to {printable(bare + packed)}."
    if end not in _PACKED:
        raise NotConfigured("FILE", f"The file is {_PACKED[packed]} and is not named {packed}.", hint=hint)
    raise NotConfigured("FILE", f"The file is named {end} and is not {_PACKED[end]}.", hint=hint)


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


def _damaged(error: Exception) -> Damaged:
    text = "The compressed file ends too soon" if isinstance(error, EOFError) else "The compressed file is damaged"
    hint = "Get the whole file, and import it with --again: rows that are the same keep their messageIds."
    return Damaged(f"{text}: what is before that place was read.", hint=hint)

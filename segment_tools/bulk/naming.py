"""The messageIds of rows that have none: the same for the same row of the same file, wherever it is imported again."""

from hashlib import blake2b
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zlib import adler32, crc32
else:
    try:
        from isal.isal_zlib import adler32, crc32
    except ImportError:
        from zlib import adler32, crc32

_PACKED = (".gz", ".zst")


class Naming:
    """Names the rows of one file for one source.

    An id tells the file's name without its folder and compression, the source, the row's number and its content.
    Segment knows ids, not whose they are: the same file for another source has others. The number alone tells the rows
    of a file apart; the checksums need only tell a row from the one that stood there before it was mended. `folders`
    are those that tell the file from another of its name.
    """

    def __init__(self, file: str, write_key: str, folders: str = "") -> None:
        name = f"{folders}/{plain_name(file)}" if folders else plain_name(file)
        digest = blake2b(f"{name}\0{write_key}".encode(errors="surrogatepass"), digest_size=9)
        self.start = b"import-%b-" % digest.hexdigest().encode()
        """What all ids begin with."""

    def id_of(self, number: int, row: bytes) -> bytes:
        """The id of the row with this number."""
        return b"%b%d-%016x" % (self.start, number, checksum(row))


def checksum(row: bytes) -> int:
    """What tells the row from another, in 64 bits."""
    return crc32(row) << 32 | adler32(row)


def plain_name(file: str) -> str:
    """The file's name without its folder, and without what says that it is compressed."""
    name = PurePath(file).name
    return name[: -len(end)] if (end := PurePath(name).suffix.lower()) in _PACKED else name

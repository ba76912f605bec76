"""JSON Lines: a stream of bytes cut into rows, whatever the length of the stream or of a line."""

from collections.abc import Iterator
from typing import Protocol

from segment_tools.bulk.rows import MOST_ROW_BYTES, Block, too_long

CHUNK_BYTES = 128 * 1024
_BOM = b"\xef\xbb\xbf"
_KEPT_OF_LONG = 1000


class Stream(Protocol):
    """What can be read."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most so many; empty at the end."""
        ...


def blocks_of_lines(stream: Stream) -> Iterator[Block]:
    """The rows of the stream: its lines but for blank ones, numbered from 1.

    Of a line that is longer than a row may be only the beginning is kept.
    """
    first, rest = 1, b""
    for data in _chunks(stream):
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        if lines:
            yield _block(first, lines)
            first += len(lines)
        if len(rest) > MOST_ROW_BYTES:
            rest = rest[: MOST_ROW_BYTES + 1]  # as much as says that it is too long
    if rest:
        yield _block(first, [rest])


def _chunks(stream: Stream) -> Iterator[bytes]:
    data = stream.read(CHUNK_BYTES).removeprefix(_BOM)
    while data:
        yield data
        data = stream.read(CHUNK_BYTES)


def _block(first: int, lines: list[bytes]) -> Block:
    """The lines as a block; a blank one is no row, but counts."""
    if max(map(len, lines)) <= MOST_ROW_BYTES:
        return Block(first, lines)
    unread = {at: too_long() for at, line in enumerate(lines) if len(line) > MOST_ROW_BYTES}
    return Block(first, [line[:_KEPT_OF_LONG] if at in unread else line for at, line in enumerate(lines)], None, unread)

"""Where the frames of a Zstandard file end: what stops before that was cut off.

Source: RFC 8878, 3.1.
"""

from collections.abc import Generator
from typing import BinaryIO

_SKIPPABLE = b"\x2a\x4d\x18"
_RUN_OF_ONE_BYTE = 1


class Frames:
    """Reads a file on, and follows its frames by their lengths."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._between = True
        self._steps = self._walk()
        self._wanted, self._held = next(self._steps), b""

    @property
    def whole(self) -> bool:
        """Whether what was read so far ends where a frame does."""
        return self._between and not self._held

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, as they are."""
        data = self._file.read(size)
        self._follow(data)
        return data

    def _follow(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._wanted < 0:
                passed = min(-self._wanted, len(data) - at)
                at, self._wanted = at + passed, self._wanted + passed
            else:
                more = data[at : at + self._wanted - len(self._held)]
                at, self._held = at + len(more), self._held + more
            self._step()

    def _step(self) -> None:
        """Go on as far as needs no more bytes."""
        while self._wanted == len(self._held):
            held, self._held = self._held, b""
            self._wanted = self._steps.send(held)

    def _walk(self) -> Generator[int, bytes]:
        """How many bytes are wanted next; below zero, so many to be passed over."""
        while True:
            self._between = True
            magic = yield 4
            self._between = False
            if magic[1:] == _SKIPPABLE:
                yield -int.from_bytes((yield 4), "little")
                continue
            described = (yield 1)[0]
            yield -_header_bytes(described)
            last = False
            while not last:
                block = int.from_bytes((yield 3), "little")
                last = bool(block & 1)
                yield -1 if block >> 1 & 3 == _RUN_OF_ONE_BYTE else -(block >> 3)
            if described & 4:
                yield -4


def _header_bytes(described: int) -> int:
    """How many bytes of a frame's header follow its descriptor."""
    single = described >> 5 & 1
    content = (single, 2, 4, 8)[described >> 6]
    return (0 if single else 1) + (0, 1, 2, 4)[described & 3] + content

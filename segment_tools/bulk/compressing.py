"""Bodies made smaller: a tenth of the bytes for a few microseconds a message."""

from dataclasses import replace
from typing import TYPE_CHECKING

from segment_tools import wire

if TYPE_CHECKING:

    def _compress(data: bytes, level: int, *, mtime: float) -> bytes: ...

else:
    try:
        from isal.igzip import compress as _compress
    except ImportError:
        from gzip import compress as _compress

_LEVEL = 1
"""The next level takes twice as long for a body that is hardly smaller."""


def gzipped(request: wire.Request) -> wire.Request:
    """The same request with a compressed body; the same bytes for the same request."""
    return replace(request, body=_compress(request.body, _LEVEL, mtime=0), gzipped=True)

"""Random ids, version 4 of RFC 9562, many from one question to the system: each asks for a thread's turn again."""

import os

_AT_ONCE = 256
_VARIANTS = "89ab"

_made: list[str] = []
if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_made.clear)


def new_id() -> str:
    """An id that nothing else has."""
    while True:
        try:
            return _made.pop()
        except IndexError:
            _made.extend(_some())


def _some() -> list[str]:
    text = os.urandom(16 * _AT_ONCE).hex()
    return [_written(text[start : start + 32]) for start in range(0, len(text), 32)]


def _written(digits: str) -> str:
    """The digits with version and variant in their places."""
    variant = _VARIANTS[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"

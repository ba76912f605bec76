"""Lines of standard input, and the message in each; what holds none has an answer of its own.

Half of an emoji written as an escape, an integer of thousands of digits, a hundred levels of nesting: the SDK's parser
gives up on such a line, and its caller would wait in vain. Python's parser reads most of them, and the tool then says
what is wrong with which field. What no parser makes a request of is answered with JSON-RPC's own errors.
"""

import json
from collections import deque
from typing import Any, cast

from mcp.shared.message import SessionMessage
from mcp.types import INVALID_REQUEST as NO_REQUEST
from mcp.types import PARSE_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter
from pydantic import ValidationError

from segment_tools.spec.json_objects import is_encodable_text

_MOST_DIGITS = 4000
"""Python itself stops at 4,300."""

_MOST_BYTES = 128 * 1024 * 1024
"""Ours, of a line: room for 2,500 messages of 32 KB, and an end to one that has none."""

_TOO_LONG = b"too long"
"""Stands for a line that is; known by its identity."""


class Lines:
    """Bytes, as they come, cut into lines."""

    def __init__(self) -> None:
        self.whole: deque[bytes] = deque()
        """The lines that are complete, without what ended them, for `message_in`."""
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        """Take what came next."""
        first, *others = chunk.split(b"\n")
        self._add(first)
        for part in others:
            self._end()
            self._add(part)

    def last(self) -> bytes | None:
        """What came after the last line that is complete, once; None if nothing did."""
        if not self._size:
            return None
        self._end()
        return self.whole.pop()

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > _MOST_BYTES:
            self._parts.clear()
        else:
            self._parts.append(part)

    def _end(self) -> None:
        self.whole.append(_TOO_LONG if self._size > _MOST_BYTES else b"".join(self._parts))
        self._parts, self._size = [], 0


def message_in(line: bytes) -> SessionMessage | JSONRPCError | None:
    """The line's message; else what its sender is to be told, which of a blank line is nothing."""
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValidationError:
        if line is _TOO_LONG:
            return _error(None, NO_REQUEST, f"The line is longer than {_MOST_BYTES // 1024**2} MiB.")
        return _read_again(line.decode("utf-8-sig", "surrogateescape")) if line.strip() else None


def _read_again(line: str) -> SessionMessage | JSONRPCError:
    try:
        found: object = json.loads(line, parse_int=_integer)
    except (ValueError, RecursionError):
        return _error(None, PARSE_ERROR, "The line is not JSON.")
    fields = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    named = [fields[name] for name in ("id", "method") if name in fields]
    if all(is_encodable_text(value) for value in named if isinstance(value, str)):
        try:
            return SessionMessage(jsonrpc_message_adapter.validate_python(found, by_name=False))
        except (ValueError, RecursionError):
            pass
    return _error(fields.get("id"), NO_REQUEST, "The line is not a JSON-RPC request.")


def _integer(digits: str) -> int | float:
    """The integer; one too long for Python becomes infinite, for the tool to refuse."""
    return int(digits) if len(digits) <= _MOST_DIGITS else float("inf")


def _error(request_id: object, code: int, message: str) -> JSONRPCError:
    readable = isinstance(request_id, str | int) and not isinstance(request_id, bool)
    usable = readable and (not isinstance(request_id, str) or is_encodable_text(request_id))
    known = cast("str | int", request_id) if usable else None
    return JSONRPCError(jsonrpc="2.0", id=known, error=ErrorData(code=code, message=message))

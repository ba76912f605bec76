"""Lines of standard input that the SDK's parser gives up on, so that each request gets an answer.

Half of an emoji written as an escape, an integer of thousands of digits, a hundred levels of nesting: the SDK reports
such a line and drops it, and its caller waits in vain. Python's parser reads most of them, and the tool then says what
is wrong with which field. What no parser makes a request of is answered with JSON-RPC's own errors.
"""

import json
from types import TracebackType
from typing import Any, Self, cast

import anyio
from mcp.shared.message import SessionMessage
from mcp.types import INVALID_REQUEST as NO_REQUEST
from mcp.types import PARSE_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter
from pydantic import ValidationError

from segment_tools.spec.json_objects import is_encodable_text

_MOST_DIGITS = 4000
"""Python itself stops at 4,300."""


class LenientLines:
    """The stream of the SDK's stdio transport, with another try at every line that it reports as broken."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self._worker = reader
        self._writer = writer

    @property
    def last_context(self) -> Any:
        """The sender's context, as the SDK's own streams have it."""
        return getattr(self._worker, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        """The next message; lines that hold none are answered on the way."""
        while True:
            item = await self._worker.receive()
            line = _line_of(item)
            if line is None:
                return item
            found = _read_again(line)
            if isinstance(found, SessionMessage):
                return found
            if line.strip():
                await self._writer.send(SessionMessage(found))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        """Close the stream behind."""
        await self._worker.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


def _line_of(item: SessionMessage | Exception) -> str | None:
    """The line behind the SDK's report of a broken one; None where the item is no such report.

    Of JSON that is no request the report has only parts; the one with an id is what there is to answer.
    """
    if not isinstance(item, ValidationError):
        return None
    faults = [(fault["type"], cast("object", fault["input"])) for fault in item.errors(include_url=False)]
    lines = (given for kind, given in faults if kind == "json_invalid" and isinstance(given, str))
    parts = (cast("object", given) for _, given in faults if isinstance(given, dict) and "id" in given)
    return next(lines, None) or json.dumps(next(parts, None))


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

"""Lines of standard input that the SDK's JSON parser gives up on, read all the same so that each gets an answer.

Half of an emoji written as an escape, an integer of thousands of digits, a hundred levels of nesting: the SDK reports
such a line and drops it, and its caller waits in vain. Python's parser reads most of them; the tool then says what is
wrong with which field.
"""

import json
from types import TracebackType
from typing import Any, Self, cast

from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter
from pydantic import ValidationError

Item = SessionMessage | Exception


class LenientLines:
    """The stream of the SDK's stdio transport, with another try at every line that it reports as broken."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    @property
    def last_context(self) -> Any:
        """The sender's context, as the SDK's own streams have it."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> Item:
        """The next message, or why there is none in the line."""
        return _read_again(await self._inner.receive())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        return _read_again(await self._inner.__anext__())

    async def aclose(self) -> None:
        """Close the stream behind."""
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


def _read_again(item: Item) -> Item:
    if not isinstance(item, ValidationError):
        return item
    line = next((fault["input"] for fault in item.errors(include_url=False) if fault["type"] == "json_invalid"), None)
    if not isinstance(line, str):
        return item
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_python(_parsed(line), by_name=False))
    except (ValueError, RecursionError):
        return item


def _parsed(line: str) -> object:
    """The line as Python reads it; an integer too long for Python becomes infinite, for the tool to refuse."""
    return cast("object", json.loads(line, parse_int=_integer))


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float("inf")


_MOST_DIGITS = 4000
"""Python itself stops at 4,300."""

"""Rows judged by the tools' rules: ready to be sent, or refused with the reason and the mend."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b
from typing import Any, cast

from segment_tools import wire
from segment_tools.attempts import Surroundings
from segment_tools.bulk.lanes import lane_of
from segment_tools.bulk.naming import Naming
from segment_tools.bulk.plain import Part, Plain, View
from segment_tools.errors import InvalidMessage, Problem, TooLarge
from segment_tools.guard import Asked, Guard
from segment_tools.sending import Sender
from segment_tools.settings import Settings
from segment_tools.spec.messages import Track
from segment_tools.spec.parsing import parse_message

MOST_ROW_BYTES = 1024 * 1024
"""Ours: what is longer is not read as a row. A message may have 32 KB, and white space beside."""

_TURN_ROWS = 50
"""Ours: after so many rows that take the full look, others have their turn."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that is not sent, and why."""

    number: int
    """The row's place in its file, counted from 1: in text its line."""
    problems: tuple[Problem, ...]
    row: bytes = field(repr=False)


class StoppedAt(InvalidMessage):
    """A strict import's first refused row; `row` is its number, and `accepted` the messages before it that were."""

    def __init__(self, refused: Rejection, accepted: int) -> None:
        super().__init__(refused.problems)
        self.row, self.accepted = refused.number, accepted
        self.message = f"Row {self.row:,}: {self.message}"
        self.hint = f"{self.hint} The import stopped there, with {accepted:,} accepted before it.".lstrip()

    def __str__(self) -> str:
        told = f"{super().__str__()} The import stopped there, with {self.accepted:,} accepted before it."
        return f"Row {self.row:,}: {told}"


@dataclass(frozen=True, slots=True)
class Block:
    """Rows that follow each other; one that could not be read is the problem that it has."""

    first: int
    rows: Sequence[bytes]
    numbers: Sequence[int] | None = None
    """Where some between them are left out, each row's number."""
    unread: Mapping[int, Problem] = field(default_factory=dict[int, Problem])
    """What keeps rows from being read, by their places among these."""
    originals: Callable[[int], bytes] | None = None
    """Of a table, the row at a place as it was before it became a message."""

    def original(self, at: int) -> bytes:
        """The row at this place, to be shown to whoever mends it."""
        return self.originals(at) if self.originals else self.rows[at]

    def number(self, at: int) -> int:
        """The number of the row at this place."""
        return self.first + at if self.numbers is None else self.numbers[at]


class Judge:
    """Makes rows ready, the plain ones quickly; `began` is the time of those that have none."""

    def __init__(
        self, settings: Settings, outside: Surroundings, sender: Sender, guard: Guard, naming: Naming, began: str
    ) -> None:
        self._identity = settings.anonymous_id == "require"
        self._sender, self._guard, self._naming = sender, guard, naming
        now = datetime.fromisoformat(began)
        self._outside = replace(outside, now=lambda: now)
        self._plain = Plain(settings, sender.secrets, sender.quiet, naming, began)
        self._views: dict[tuple[str, ...], View] = {}

    async def parts(self, block: Block) -> tuple[list[Part], list[Rejection], int]:
        """What is ready to be sent, what is refused, and how many rows are blank."""
        found = self._plain.parts(block.first, block.rows, block.numbers)
        for at in block.unread.keys() & range(len(found)):  # its text may look like a message
            found[at] = None
        refused: list[Rejection] = []
        for count, at in enumerate([at for at, part in enumerate(found) if part is None], 1):
            looked = await self._looked_at(block, at)
            if isinstance(looked, Rejection):
                refused.append(looked)
            else:
                found[at] = looked
            if count % _TURN_ROWS == 0:
                await asyncio.sleep(0)  # a block may hold tens of thousands of refused rows
        parts = [part for part in found if part is not None]
        return parts, refused, len(found) - len(parts) - len(refused)

    async def _looked_at(self, block: Block, at: int) -> Part | Rejection | None:
        row, number = block.rows[at], block.number(at)
        if problem := block.unread.get(at):
            return Rejection(number, (problem,), block.original(at))
        if not row or row.isspace():
            return None
        try:
            return await self.full(number, row)
        except InvalidMessage as error:
            return Rejection(number, error.problems, block.original(at))

    async def full(self, number: int, row: bytes) -> Part:
        """The row by every rule, as the tools judge a call.

        Raises:
            InvalidMessage: the message would be refused, or silently dropped.
        """
        message = parse_message(read_row(row), identity=self._identity)
        problems = self._guard.forbidden(Asked("", [message], indexed=False))
        if problems:
            raise InvalidMessage(problems)
        name = self._naming.id_of(number, row).decode()

        def derive(_: str, __: int) -> str:
            return name

        def anonymous() -> str:
            return f"anon-{blake2b(name.encode(), digest_size=16).hexdigest()}"

        stamped, remarks = await self._sender.ready(message, self._outside.now(), anonymous, derive)
        part = wire.encoded(stamped.fields)
        if problem := wire.too_large(part, stamped.fields, None):
            raise TooLarge([problem])
        event = str(message.event) if isinstance(message, Track) else ""
        view = self._view(message.type, event, tuple(each.code for each in remarks))
        return number, part, lane_of(stamped.person), view

    def _view(self, kind: str, event: str, codes: tuple[str, ...]) -> View:
        key = (kind, event, *codes)
        if key not in self._views:
            if len(self._views) >= _MOST_VIEWS:
                self._views.clear()
            self._views[key] = View(kind, event, codes)
        return self._views[key]


_MOST_VIEWS = 4096


def read_row(row: bytes) -> dict[str, Any]:
    """The JSON object that the row is; where a name comes twice, the last counts, as JSON's readers have it.

    Raises:
        InvalidMessage: it is none.
    """
    try:
        found: object = json.loads(row.decode())
    except UnicodeDecodeError:
        raise _unreadable("The row is not UTF-8 text.", "Write the file in UTF-8.") from None
    except (ValueError, RecursionError):
        raise _unreadable("The row is not JSON.", "Write each message as one line of JSON.") from None
    if not isinstance(found, dict):
        raise _unreadable("The row is not a JSON object.", 'Write {"type": "track", ...}, one message a line.')
    return cast("dict[str, Any]", found)


def _unreadable(text: str, hint: str) -> InvalidMessage:
    return InvalidMessage.of("invalid_row", text, hint)


def too_long() -> Problem:
    """The problem of a row that is not read to its end."""
    text = f"The row is over {MOST_ROW_BYTES:,} bytes long; Segment takes messages of 32 KB."
    return Problem("too_large", text, "Shorten it, or split it over several messages.")

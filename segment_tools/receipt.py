"""What is known of messages that were handed to Segment, delivered or not."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self


@dataclass(frozen=True, slots=True)
class Warned:
    """A remark on a message that was accepted all the same.

    `code` is stable and in snake_case; `index` is the message's place in a batch, counted from 0.
    """

    code: str
    message: str
    field: str | None = None
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one `send`.

    `accepted` says that Segment answered 2xx, nothing more: Segment gives that answer to unknown write keys
    and to messages it drops later. `queued` says that the outbox has what Segment did not take yet, on disk, and
    delivers it. `repr` shows no message, since messages are somebody's data.
    """

    status: Literal["accepted", "queued", "dry_run", "failed"]
    messages: tuple[Mapping[str, Any], ...] = field(repr=False)
    """The messages as stamped, in the order given, in Segment's camelCase."""
    accepted: int = 0
    """How many of them stood in requests that Segment answered with 2xx."""
    queued: int = 0
    """How many of them the outbox has taken."""
    sent: bool = False
    """Whether a request left for Segment."""
    attempts: int = 0
    """How many requests were made, those that were tried again counted each time."""
    status_code: int | None = None
    """The status of Segment's last answer; None when there was none."""
    response_body: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    """Segment's last answer where it was a JSON object, else empty."""
    requests: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    """In a dry run, the exact body of every request that would have left."""
    sizes: tuple[int, ...] = ()
    """In a dry run, the bytes of each of these bodies."""
    warnings: tuple[Warned, ...] = ()

    @property
    def message_ids(self) -> tuple[str, ...]:
        """The messages' ids, in order; sending again with them lets Segment drop what it already has."""
        return tuple(message["messageId"] for message in self.messages)

    def with_warnings(self, more: Iterable[Warned]) -> Self:
        """The receipt with further warnings behind its own."""
        return replace(self, warnings=(*self.warnings, *more))

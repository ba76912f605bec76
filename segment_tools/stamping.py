"""Messages made complete: id, time and `context.library`, once, so that a repeat carries the same."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pydantic_core import to_json

from segment_tools import wire
from segment_tools.errors import InvalidMessage, Problem
from segment_tools.receipt import Warned
from segment_tools.spec.advice import Quiet, warnings
from segment_tools.spec.messages import AnyMessage
from segment_tools.spec.parsing import no_identity
from segment_tools.spec.timestamps import iso_utc, wire_timestamp

Derive = Callable[[str, int], str]
"""Makes the id of a message that has none, from its content's digest and its place in the call."""

Judge = Callable[[Mapping[str, Any]], Sequence[Problem]]
"""Says what keeps a message from being sent here."""


@dataclass(frozen=True, slots=True)
class Stamped:
    """A message as it will be sent."""

    fields: Mapping[str, Any] = field(repr=False)
    digest: str
    """Of the content as the caller gave it, without the messageId: the same in a repeat."""
    index: int | None
    """Its place in a batch."""
    named: bool
    """Whether its id may have come before: the caller's, or one derived from the call."""

    @property
    def message_id(self) -> str:
        """The message's id, given or made."""
        return str(self.fields["messageId"])

    @property
    def person(self) -> str:
        """Whose message it is, to keep each one's in order: userId, else anonymousId."""
        user = self.fields.get("userId")
        return f"u{user}" if user is not None else f"a{self.fields.get('anonymousId')}"


def stamped(
    messages: Sequence[AnyMessage],
    indices: Sequence[int | None],
    now: datetime,
    new_id: Callable[[], str],
    *,
    anonymous: bool,
    derive: Derive | None,
    judge: Judge,
    quiet: Quiet,
) -> tuple[list[Stamped], list[Warned]]:
    """The messages complete, and what the caller should know of them.

    `anonymous` says that a message without any id gets an anonymousId. Ids are made by `derive`, or at random.

    Raises:
        InvalidMessage: nobody's message, one id twice, or what `judge` has against a message.
    """
    problems: list[Problem] = []
    remarks: list[Warned] = []
    done: list[Stamped] = []
    first_at: dict[str, int | None] = {}
    at_now = iso_utc(now)
    for at, (message, index) in enumerate(zip(messages, indices, strict=True)):
        fields = message.as_dict()
        digest = _digest(fields)
        problems += [replace(problem, index=index) for problem in judge(fields)]
        if not message.identified:
            if not anonymous:
                problems.append(replace(no_identity(), index=index))
            fields["anonymousId"] = new_id()
            remarks.append(_generated(index))
        made = message.message_id or (derive(digest, at) if derive else new_id())
        timestamp = wire_timestamp(message.timestamp) if message.timestamp else at_now
        named = message.message_id is not None or derive is not None
        done.append(Stamped(wire.stamped(fields, made, timestamp), digest, index, named))
        if made in first_at:
            problems.append(_repeated(index, first_at[made]))
        first_at.setdefault(made, index)
    if problems:
        raise InvalidMessage(problems)
    for message, index in zip(messages, indices, strict=True):
        remarks += warnings(message, now, index, quiet)
    return done, remarks


def derived(call: str) -> Derive:
    """Ids that are the same for the same content in the same call."""

    def derive(digest: str, at: int) -> str:
        return hashlib.sha256(f"{call}\0{digest}\0{at}".encode(errors="surrogatepass")).hexdigest()[:40]

    return derive


def _digest(fields: Mapping[str, Any]) -> str:
    content = {key: value for key, value in fields.items() if key != "messageId"}
    return hashlib.blake2b(to_json(content), digest_size=16).hexdigest()


def _generated(index: int | None) -> Warned:
    text = "Neither userId nor anonymousId was given, so an anonymousId was made; no other call will have it."
    return Warned("anonymous_id_generated", text, "anonymousId", index)


def _repeated(index: int | None, first: int | None) -> Problem:
    text = f"messageId is the same as that of batch[{first}]; Segment would drop this message."
    return Problem(
        "duplicate_message_id", text, "Give every message its own messageId, or leave it out.", "messageId", index
    )

"""What can go wrong, as exceptions whose text says what happened and then what to do.

SegmentError
├── InvalidMessage       the caller can mend it: names the fields, says what to pass
│   ├── TooLarge         a message or request over Segment's limits
│   └── PlanViolation    a message against the tracking plan, whose policy is to block it
├── NotConfigured        a setting is missing or wrong: says which
├── Refused              held back by a limit of the server, or for want of a person's consent
└── Undelivered          what was sent was not accepted
    ├── Rejected         Segment answered, and not with 2xx
    │   ├── Unauthorized 401, 403
    │   ├── NotFound     404
    │   └── RateLimited  429
    └── Unavailable      no answer, a time-out or 5xx: may be tried again
        └── OutboxFull   what waits for delivery takes all the room it may
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from segment_tools.receipt import Receipt

SHOWN_PROBLEMS = 5
"""How many problems an `InvalidMessage` puts into its text."""

LISTED_PROBLEMS = 20
"""Ours: how many problems, or warnings, an answer lists. Who mends these sees the others then."""


_PROPER = frozenset({"Segment"})
"""Words that keep their capital within a sentence."""


def told(message: str, hint: str) -> str:
    """What happened and what to do, joined into one sentence: a model that reads no further knows both."""
    word = hint.split(" ", 1)[0].rstrip(":,")
    if not word or not message.endswith(".") or message.endswith(".."):
        return f"{message} {hint}".strip()
    begun = hint if word in _PROPER or not word.istitle() else hint[0].lower() + hint[1:]
    return f"{message[:-1]}; {begun}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a message, and how to mend it."""

    code: str
    """Stable, in snake_case: missing_field, invalid_value, unknown_argument, too_large, duplicate_message_id,
    plan_violation, secret_in_message."""
    message: str
    hint: str = ""
    field: str | None = None
    """Dotted path in Segment's names, such as `context.device.advertisingId`."""
    index: int | None = None
    """The message's place in a batch, counted from 0."""

    def __str__(self) -> str:
        where = "" if self.index is None else f"batch[{self.index}]: "
        return where + told(self.message, self.hint)


PENDING = "confirmation_pending"
"""The code of a call that comes again once a person has answered."""


class SegmentError(Exception):
    """Anything this package raises on purpose.

    `code` is stable and in snake_case. `retryable` says whether the same call may succeed later; then
    `retry_after_seconds` is the wait that Segment asked for, if it did. `receipt` tells what had been stamped
    and sent when the call failed. `counted` says that the metrics have it.
    """

    code: str = "segment_error"
    retryable: bool = False

    def __init__(self, message: str, *, hint: str = "", field: str | None = None) -> None:
        self.message = message
        self.hint = hint
        self.field = field
        self.retry_after_seconds: float | None = None
        self.receipt: Receipt | None = None
        self.counted = False
        super().__init__(message)

    def __str__(self) -> str:
        return told(self.message, self.hint)

    def with_hint(self, more: str) -> Self:
        """The same error, that says more of what to do."""
        self.hint = f"{self.hint} {more}".strip()
        return self


class InvalidMessage(SegmentError):
    """The message would be refused or silently dropped by Segment; nothing was sent.

    `problems` are those that were described, which is at least one of every bad message; `more` counts the others.
    """

    code = "invalid_value"

    def __init__(self, problems: Sequence[Problem], more: int = 0) -> None:
        first = problems[0]
        where = "" if first.index is None else f"batch[{first.index}]: "
        super().__init__(f"{where}{first.message}", hint=first.hint, field=first.field)
        self.code = first.code
        self.problems = tuple(problems)
        self.more = more

    def __str__(self) -> str:
        shown = [str(problem) for problem in self.problems[:SHOWN_PROBLEMS]]
        left = len(self.problems) - len(shown) + self.more
        more = [f"And {left} more."] if left else []
        return " ".join([*shown, *more])

    @classmethod
    def of(cls, code: str, message: str, hint: str = "", field: str | None = None) -> Self:
        """The error of a single problem."""
        return cls([Problem(code, message, hint, field)])


class TooLarge(InvalidMessage):
    """A message is over Segment's size limit; nothing was sent."""


class PlanViolation(InvalidMessage):
    """A message departs from the tracking plan, and `SEGMENT_TRACKING_PLAN_POLICY` is to block it; nothing was sent."""


class NotConfigured(SegmentError):
    """A setting is missing or wrong; `setting` names it."""

    code = "not_configured"

    def __init__(self, setting: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.setting = setting


class Refused(SegmentError):
    """The server's own limits, or the person who was asked, hold the call back; nothing was sent.

    It may be tried again where `retry_after_seconds` says when.
    """

    def __init__(self, code: str, message: str, *, hint: str = "", retry_after_seconds: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.retry_after_seconds = retry_after_seconds
        self.retryable = retry_after_seconds is not None


class Undelivered(SegmentError):
    """Segment did not accept what was sent to it; `status_code` is None where it did not answer at all.

    `sent` is False only where no connection came about, so that nothing can have arrived. `request_id` is the
    Request-Id of the answer, by which Segment finds it; empty where there was none. `attempts` were made in all.
    """

    code = "undelivered"

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        response_body: Mapping[str, Any] | None = None,
        hint: str = "",
        code: str = "",
        retry_after_seconds: float | None = None,
        sent: bool = True,
        request_id: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code or type(self).code
        self.sent = sent
        self.attempts = 0
        self.request_id = request_id
        self.status_code = status_code
        self.response_body = response_body or {}
        self.retry_after_seconds = retry_after_seconds

    @property
    def made(self) -> bool:
        """Whether a request was made, or tried: not where this program held it back."""
        return True


class Rejected(Undelivered):
    """Segment answered, and did not accept the request."""

    code = "rejected"


class Unauthorized(Rejected):
    """Segment refused the credentials (401, 403)."""

    code = "unauthorized"


class NotFound(Rejected):
    """The address does not exist (404)."""

    code = "not_found"


class RateLimited(Rejected):
    """Segment asked to slow down (429)."""

    code = "rate_limited"
    retryable = True

    @property
    def made(self) -> bool:
        """See `Undelivered.made`: what Segment asked for has a status."""
        return self.status_code is not None


class Unavailable(Undelivered):
    """Segment could not be reached, did not answer in time, or answered that it has trouble (408, 410, 460, 5xx).

    The messages may have arrived all the same: sending them again with the same messageId is safe.
    """

    code = "unavailable"
    retryable = True


class OutboxFull(Unavailable):
    """The outbox has no room for the messages; none of them was taken, and nothing was sent."""

    code = "outbox_full"

"""When to try again: a pure function of the attempt, the error and the time that is left."""

from segment_tools.errors import SegmentError

ATTEMPTS = 3
"""Ours: enough to ride over a passing fault within the time a tool call may take."""

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0
"""Source for both: the backoff of Segment's own libraries."""

LONGEST_RETRY_AFTER_SECONDS = 300.0
"""Source: the cap that Segment's own libraries put on `Retry-After`."""


def wait_before_next(attempt: int, error: SegmentError, remaining_seconds: float, jitter: float) -> float | None:
    """Seconds to wait before the attempt after `attempt` (counted from 1), or None to give up.

    A wait that Segment asked for is kept to the second; otherwise it grows by powers of two from 0.5 to 60
    seconds, shortened at random by `jitter`, from 0 to 1. A wait that does not fit into the remaining time is
    none.
    """
    if not error.retryable or attempt >= ATTEMPTS:
        return None
    asked = error.retry_after_seconds
    if asked:
        wait = min(asked, LONGEST_RETRY_AFTER_SECONDS)
    else:
        wait = jitter * min(FIRST_WAIT_SECONDS * 2 ** (attempt - 1), LONGEST_WAIT_SECONDS)
    return wait if wait < remaining_seconds else None

"""When to try again: a pure function of the attempt, the error and the time that is left."""

from segment_tools.errors import SegmentError

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 60.0
"""Source for both: the backoff of Segment's own libraries."""

LONGEST_RETRY_AFTER_SECONDS = 300.0
"""Source: the cap that Segment's own libraries put on `Retry-After`."""

_MOST_DOUBLINGS = 16
"""Beyond the longest wait, so that the number stays one after weeks of attempts."""


def wait_after(attempt: int, error: SegmentError, jitter: float) -> float:
    """Seconds to wait after the failed attempt, counted from 1.

    A wait that Segment asked for is kept to the second; otherwise it grows by powers of two from 0.5 to 60 seconds,
    shortened at random by `jitter`, from 0 to 1.
    """
    if asked := error.retry_after_seconds:
        return min(asked, LONGEST_RETRY_AFTER_SECONDS)
    return jitter * min(FIRST_WAIT_SECONDS * 2 ** min(attempt - 1, _MOST_DOUBLINGS), LONGEST_WAIT_SECONDS)


def wait_before_next(attempt: int, error: SegmentError, remaining_seconds: float, jitter: float) -> float | None:
    """Seconds to wait before another attempt, or None to give up: it cannot help, or not in the remaining time."""
    if not error.retryable:
        return None
    wait = wait_after(attempt, error, jitter)
    return wait if wait < remaining_seconds else None

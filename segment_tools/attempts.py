"""One request tried again until it succeeds, fails for good, or time is up; and what that takes from outside."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from segment_tools.errors import Undelivered
from segment_tools.ids import new_id
from segment_tools.outbox.retry import wait_before_next

_T = TypeVar("_T")

ATTEMPT_SECONDS = 10.0
"""How long one attempt may take before the next. Source: the request time-out of Segment's own Node library."""


def _utc_now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the client takes from outside: time, ids and chance. Tests pass their own."""

    now: Callable[[], datetime] = _utc_now
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    new_id: Callable[[], str] = new_id
    jitter: Callable[[], float] = random.random


Failed = Callable[[Undelivered], None]
"""Told of an attempt that failed and is made again."""


def untold(_: Undelivered) -> None:
    """For who need not know."""


async def attempted(
    attempt: Callable[[int, float], Awaitable[_T]], outside: Surroundings, deadline: float, failed: Failed = untold
) -> tuple[_T, int]:
    """What the attempt returns, and how many there were; each is told its number, from 0, and the seconds it may take.

    Raises:
        Undelivered: the last attempt's; `sent` tells whether any of them reached Segment, `attempts` their number.
    """
    failures, number, reached = 0, 0, False
    while True:
        left = deadline - outside.monotonic()
        try:
            return await attempt(number, max(0.001, min(left, ATTEMPT_SECONDS))), number + 1
        except Undelivered as error:
            failures, number = failures + 1, number + error.made
            error.attempts = number
            error.sent = reached = reached or error.sent
            wait = wait_before_next(failures, error, deadline - outside.monotonic(), outside.jitter())
            if wait is None:
                raise
            failed(error)
        await outside.sleep(wait)

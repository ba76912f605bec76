"""How fast requests may leave: so many a second, so many at once, and none during a pause."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr

from segment_tools.attempts import Surroundings
from segment_tools.errors import NotConfigured, RateLimited
from segment_tools.outbox.retry import LONGEST_RETRY_AFTER_SECONDS

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

    from segment_tools.shared_pace import SharedPace

SETTING = "SEGMENT_RATE_LIMIT"

_BURST_SECONDS = 0.1
"""Ours. What may leave at once is what the rate allows in so long, so that no second has much more than the rate."""

_SOON_SECONDS = 1.0
"""After how long to try again where it was no pause that held a request back."""


@dataclass(slots=True)
class _Gate:
    """What belongs to one event loop."""

    loop: asyncio.AbstractEventLoop
    places: asyncio.Semaphore
    line: asyncio.Lock
    limiter: "AsyncLimiter"
    shared: "SharedPace | None"
    waiting: int = 0

    @property
    def free(self) -> bool:
        """Whether a request may leave without a look at anything but the pause."""
        return not (self.shared or self.waiting or self.places.locked()) and self.limiter.has_capacity()


class Pace:
    """Keeps one API's requests to a rate, first come, first served; with a Redis server, those of all replicas.

    `name` tells the API, and what its rate counts for, from others in the same Redis server: replicas with the same
    name share a rate. While the server is away, each replica keeps to the rate alone.
    """

    def __init__(
        self, name: str, per_second: int, at_once: int, outside: Surroundings, shared: SecretStr | None = None
    ) -> None:
        """Raises NotConfigured where `shared` is no address of a Redis server, or the packages for it are missing."""
        self._name = name
        self._per_second = per_second
        self._at_once = at_once
        self._outside = outside
        self._address = shared
        self._until = float("-inf")
        self._gate: _Gate | None = None
        self._shared = self._share()

    def turn(self, seconds: float) -> AbstractAsyncContextManager[None]:
        """A place among the requests at once, from when this one may leave until it is answered.

        Entering it waits for so many seconds at most.

        Raises:
            RateLimited: it would take longer; nothing was sent.
        """
        return _Turn(self._begun, seconds)

    async def pause(self, seconds: float) -> None:
        """Let no request leave for so long, of no replica; a longer pause stays, and the longest is five minutes."""
        wait = min(seconds, LONGEST_RETRY_AFTER_SECONDS)
        if wait > 0:
            self._until = max(self._until, self._outside.monotonic() + wait)
            if shared := self._opened().shared:
                await shared.pause(wait)

    async def aclose(self) -> None:
        """Close the connections to the Redis server; another turn opens new ones."""
        if self._gate and self._gate.shared and self._gate.loop is asyncio.get_running_loop():
            await self._gate.shared.aclose()

    def _share(self) -> "SharedPace | None":
        if self._address is None:
            return None
        try:
            from segment_tools.shared_pace import SharedPace
        except ImportError:
            text = f"{SETTING} is the address of a Redis server, and the packages for it are not installed."
            raise NotConfigured(SETTING, text, hint="pip install 'segment-tools[redis]'") from None
        try:
            return SharedPace(self._address.get_secret_value(), self._name, self._per_second, self._outside)
        except ValueError:
            hint = "Pass an address such as redis://localhost:6379/0."
            raise NotConfigured(SETTING, f"{SETTING} is no address of a Redis server.", hint=hint) from None

    def _opened(self) -> _Gate:
        """The gate of the running event loop: who waits, and connections, cannot leave the loop they began in."""
        loop = asyncio.get_running_loop()
        if self._gate is None or self._gate.loop is not loop:
            from aiolimiter import AsyncLimiter

            burst = max(1.0, self._per_second * _BURST_SECONDS)
            limiter = AsyncLimiter(burst, burst / self._per_second)
            shared = self._shared if self._gate is None else self._share()
            self._gate = _Gate(loop, asyncio.Semaphore(self._at_once), asyncio.Lock(), limiter, shared)
        return self._gate

    async def _begun(self, seconds: float) -> asyncio.Semaphore:
        gate = self._opened()
        if gate.free and self._pause_left() <= 0:
            await gate.places.acquire()
            await gate.limiter.acquire()
            return gate.places
        gate.waiting += 1
        try:
            return await self._waited(gate, self._outside.monotonic() + seconds)
        finally:
            gate.waiting -= 1

    async def _waited(self, gate: _Gate, deadline: float) -> asyncio.Semaphore:
        self._check_pause(deadline)
        try:
            async with asyncio.timeout(deadline - self._outside.monotonic()), gate.line:
                await self._first(gate, deadline)
        except TimeoutError:
            raise self._held_back(gate) from None
        return gate.places

    async def _first(self, gate: _Gate, deadline: float) -> None:
        """What the first in the line waits for."""
        await gate.places.acquire()
        try:
            await gate.limiter.acquire()
            if gate.shared:
                await gate.shared.acquire()
            await self._pause_over(gate, deadline)
        except BaseException:
            gate.places.release()
            raise

    async def _pause_over(self, gate: _Gate, deadline: float) -> None:
        while True:
            if gate.shared:
                told = await gate.shared.pause_left()
                self._until = max(self._until, self._outside.monotonic() + told)
            self._check_pause(deadline)
            if (left := self._pause_left()) <= 0:
                return
            await self._outside.sleep(left)

    def _pause_left(self) -> float:
        return self._until - self._outside.monotonic()

    def _check_pause(self, deadline: float) -> None:
        """Say at once what waiting would not change."""
        if self._until > deadline and (left := self._pause_left()) > 0:
            raise _paused(left)

    def _held_back(self, gate: _Gate) -> RateLimited:
        if (left := self._pause_left()) > 0:
            return _paused(left)
        limit = f"{self._at_once:,} requests at once" if gate.places.locked() else f"{self._per_second:,} a second"
        text = f"This program held the request back: it keeps to {limit}, and others were before it. Nothing was sent."
        return _refusal(text, "Wait, then try again.", _SOON_SECONDS)


class _Turn:
    __slots__ = ("_begin", "_places", "_seconds")

    def __init__(self, begin: Callable[[float], Awaitable[asyncio.Semaphore]], seconds: float) -> None:
        self._begin = begin
        self._seconds = seconds

    async def __aenter__(self) -> None:
        self._places = await self._begin(self._seconds)

    async def __aexit__(self, *_: object) -> None:
        self._places.release()


def _paused(left: float) -> RateLimited:
    text = "This program held the request back: Segment asked it to slow down. Nothing was sent."
    return _refusal(text, f"Try again in {left:.3g} seconds.", left)


def _refusal(text: str, hint: str, retry_after_seconds: float) -> RateLimited:
    return RateLimited(text, hint=hint, retry_after_seconds=retry_after_seconds, sent=False)

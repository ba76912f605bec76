"""A rate and its pauses in a Redis server, for replicas that share them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, cast

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from segment_tools.attempts import Surroundings

_PREFIX = "segment-pace"

_SECONDS = 0.25
"""How long the server may take to answer: a request waits for it."""

_AWAY_SECONDS = 5.0
"""For how long a server that did not answer is not asked again."""

_AGAIN_SECONDS = 0.02
"""How long the first in the line waits where the rate is used up, and how old what is known of a pause may be."""

_CONNECTIONS = 8
"""One for the line, the others for pauses that begin."""

_LONGER_PAUSE = """
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], '1', 'PX', ARGV[1]) end
"""

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class SharedPace:
    """What all replicas with the same name keep to. It fails nothing: while the server is away, nothing is shared."""

    def __init__(self, url: str, name: str, per_second: int, outside: Surroundings) -> None:
        """Raises ValueError where the URL is no address."""
        # No time limits of the client's own: in Python 3.11, one on writing can lose a cancellation.
        pool: Any = cast("Any", BlockingConnectionPool).from_url(
            url, max_connections=_CONNECTIONS, timeout=_SECONDS, socket_timeout=None, retry=Retry(NoBackoff(), 1)
        )
        self._redis = Redis.from_pool(pool)
        # Its counts are by the server's clock; those of the other exact strategy would be by each replica's own.
        storage = RedisStorage("redis://", implementation="redispy", key_prefix=_PREFIX, connection_pool=pool)
        self._rate = SlidingWindowCounterRateLimiter(storage)
        self._item = RateLimitItemPerSecond(per_second)
        self._name = name
        self._key = f"{_PREFIX}:{name}:pause"
        self._lengthen = cast("Callable[..., Coroutine[Any, Any, Any]]", self._redis.register_script(_LONGER_PAUSE))
        self._outside = outside
        self._away = False
        self._ask_from = self._look_from = float("-inf")

    async def acquire(self) -> None:
        """Return when the rate of all replicas has room for one more request, which then counts."""
        while not await self._answer(lambda: self._rate.hit(self._item, self._name), otherwise=True):
            await self._outside.sleep(_AGAIN_SECONDS)

    async def pause_left(self) -> float:
        """How many seconds of a pause are left, as far as is known."""
        if (now := self._outside.monotonic()) < self._look_from:
            return 0.0
        left = await self._answer(lambda: self._redis.pttl(self._key), otherwise=0)
        if left <= 0:
            self._look_from = now + _AGAIN_SECONDS
        return max(left, 0) / 1000

    async def pause(self, seconds: float) -> None:
        """Begin a pause for all replicas, or lengthen it."""
        args = [str(max(1, round(seconds * 1000)))]
        await self._answer(lambda: self._lengthen(keys=[self._key], args=args), otherwise=None)

    async def aclose(self) -> None:
        """Close the connections; another question opens new ones."""
        await self._redis.aclose()

    async def _answer(self, ask: Callable[[], Awaitable[_T]], otherwise: _T) -> _T:
        if self._outside.monotonic() < self._ask_from:
            return otherwise
        try:
            async with asyncio.timeout(_SECONDS):
                found = await ask()
        except (RedisError, OSError) as error:  # TimeoutError is one
            self._ask_from = self._outside.monotonic() + _AWAY_SECONDS
            if not self._away:
                text = "the server of SEGMENT_RATE_LIMIT does not answer (%s): this process keeps to its rate alone"
                _log.warning(text, type(error).__name__)
            self._away = True
            return otherwise
        if self._away:
            self._away = False
            _log.info("the server of SEGMENT_RATE_LIMIT answers again")
        return found

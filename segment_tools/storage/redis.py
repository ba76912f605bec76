"""What an inbox and an outbox in a Redis server have in common: its clients, its errors, leases, and waiting."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from segment_tools.errors import Unavailable
from segment_tools.storage.kind import Kind
from segment_tools.storage.moments import LONGEST_LEASE_SECONDS

Command = Callable[..., Coroutine[Any, Any, Any]]

_CONNECTIONS = 16
"""For all but waiting; more would only queue up in the server, which does one thing at a time."""

_SECONDS = 10.0
"""How long the server may take to answer, the queue for a connection to it included."""

_BLOCK_SECONDS = 5.0
"""How long the server is asked to wait at once: less than it may take to answer."""

_DENIED = "It refuses the user, the password or a command: see to its users, and to {setting}."
_AWAY = "It cannot be reached: see that it runs where {setting} says, and try again."
_SLOW = "It does not answer in time: see whether it is stopped or overloaded, and try again."
_CURES = (
    (exceptions.AuthenticationError, _DENIED),
    (exceptions.AuthorizationError, _DENIED),
    (exceptions.NoPermissionError, _DENIED),
    (exceptions.BusyLoadingError, "It has only just started, and loads what it holds: try again."),
    (exceptions.ReadOnlyError, "It is a replica, or became one: name the primary in {setting}, or try again."),
    (exceptions.ClusterDownError, "A part of it is down: try again once it is whole."),
    (exceptions.OutOfMemoryError, "Its memory is full: give it more (maxmemory), and try again."),
    (exceptions.TimeoutError, _SLOW),
    (TimeoutError, _SLOW),
    (exceptions.ConnectionError, _AWAY),
    (OSError, _AWAY),
)
"""The first that fits: the later are more general."""

_MISCONFIGURED = "It cannot write to its own disk: see whether that is full, and try again."

_LEASE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if tonumber(ARGV[2]) > 0 then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) else redis.call('DEL', KEYS[1]) end
return 1
"""


@dataclass(slots=True)
class _Waiter:
    """A request that the server answers once there is something, and how many wait for that."""

    reading: asyncio.Task[None]
    sharing: int = 0


@dataclass(slots=True)
class _Clients:
    """What an event loop asks the server with: connections cannot leave the loop that opened them."""

    asking: Redis
    waiting: Redis
    loop: asyncio.AbstractEventLoop | None = None
    """None until they are first used."""


class RedisStore:
    """A Redis server, which is asked for nothing until it is needed.

    It may be used from one event loop after another: from each it is asked over connections of its own.
    Every change is one script, which the server keeps by its digest, and is given again where it has forgotten it.
    """

    def __init__(self, url: str, kind: Kind, *, decode_responses: bool) -> None:
        self._kind = kind
        self._prefix = f"{{segment-{kind.name}}}:"
        """Of every key. A cluster keeps together what has the same text in braces, as a script needs its keys."""
        self._closed = False
        self._waiters: dict[tuple[str, str], _Waiter] = {}
        self._under_way = 0
        self._idle = asyncio.Event()
        self._url = url
        self._decode_responses = decode_responses
        try:
            self._clients = self._made()
        except (ValueError, TypeError):
            hint = "Pass an address such as redis://localhost:6379/0."
            raise kind.no_address("a Redis server", hint) from None
        self._lease = self._script(_LEASE)

    async def aclose(self) -> None:
        """Wake who waits, do what was begun, and let go of the server."""
        self._closed = True
        for waiter in self._waiters.values():
            waiter.reading.cancel()
        while self._under_way:  # a client that is closed while it asks connects again
            self._idle.clear()
            await self._idle.wait()
        if self._clients.loop is asyncio.get_running_loop():
            await self._clients.waiting.aclose()
            await self._clients.asking.aclose()

    @property
    def _redis(self) -> Redis:
        """What the running event loop asks with."""
        return self._of_this_loop().asking

    def _of_this_loop(self) -> _Clients:
        loop = asyncio.get_running_loop()
        if self._clients.loop not in (None, loop):
            self._clients = self._made()
            self._waiters = {}
            self._idle = asyncio.Event()
        self._clients.loop = loop
        return self._clients

    def _made(self) -> _Clients:
        options: dict[str, Any] = {
            "decode_responses": self._decode_responses,
            # None of its own: in Python 3.11, a time limit on writing can lose a cancellation.
            "socket_timeout": None,
            # Once more, for a connection that went stale; Segment itself tries again later.
            "retry": Retry(NoBackoff(), 1),
        }
        asking = _client(BlockingConnectionPool, self._url, max_connections=_CONNECTIONS, **options)
        return _Clients(asking, _client(ConnectionPool, self._url, **options))

    def _script(self, text: str) -> Command:
        script = cast("Command", self._clients.asking.register_script(text))

        async def asked(keys: Sequence[str], args: Sequence[Any]) -> Any:
            return await script(keys=keys, args=args, client=self._redis)

        return asked

    async def _leased(self, name: str, holder: str, seconds: float) -> bool:
        async with self._answering():
            args = [holder, str(round(min(seconds, LONGEST_LEASE_SECONDS) * 1000))]
            return bool(await self._lease(keys=[f"{self._prefix}lease:{name}"], args=args))

    async def _found(self, look: Callable[[], Awaitable[str | None]], stream: str, seconds: float) -> bool:
        """Whether looking finds something in time: then it gives None, else the place in the stream to wait from."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        try:
            while not self._closed:
                place = await look()
                if place is None:
                    return True
                left = end - loop.time()
                if left <= 0:
                    return False
                await self._wait(stream, place, left)
        except Unavailable:
            if not self._closed:  # else it is that which ended the waiting
                raise
        return False

    async def _wait(self, stream: str, after: str, seconds: float) -> None:
        """Until there is an entry after this one, for so long at most, or until the store closes.

        All who wait after the same entry, as nearly all do, share one request and its connection.
        """
        shared = self._waiters.get((stream, after))
        if shared is None or shared.reading.done():
            shared = self._waiters[stream, after] = _Waiter(asyncio.create_task(self._read(stream, after)))
        shared.sharing += 1
        try:
            await asyncio.wait([shared.reading], timeout=seconds)
        finally:
            shared.sharing -= 1
            if not shared.sharing:
                if self._waiters.get((stream, after)) is shared:
                    del self._waiters[stream, after]
                shared.reading.cancel()
                await asyncio.gather(shared.reading, return_exceptions=True)
        if shared.reading.done() and not shared.reading.cancelled():
            shared.reading.result()

    async def _read(self, stream: str, after: str) -> None:
        async with self._answering():
            block = round(_BLOCK_SECONDS * 1000)
            await cast("Command", self._of_this_loop().waiting.xread)({stream: after}, count=1, block=block)

    @asynccontextmanager
    async def _answering(self) -> AsyncGenerator[None]:
        """Whatever the server or the way to it has against it, as one error, which says nothing of the address."""
        if self._closed:  # the client would only connect again
            raise self._kind.unavailable("server, which was let go of,")
        self._under_way += 1
        try:
            async with asyncio.timeout(_SECONDS):
                yield
        except (exceptions.RedisError, OSError) as error:
            if isinstance(error, exceptions.ReadOnlyError):
                # The name may stand for another server by now, which only a new connection finds.
                with suppress(exceptions.RedisError, OSError):
                    await self._redis.connection_pool.disconnect(inuse_connections=False)
            raise self._kind.unavailable("server", _cure(error, self._kind)) from None
        finally:
            self._under_way -= 1
            self._idle.set()


def _client(pool: Any, url: str, **options: Any) -> Redis:
    """A client that closes its connections with itself.

    Raises:
        ValueError, TypeError: the address is none, or has an option that no connection takes.
    """
    made = pool.from_url(url, **options)
    made.connection_class(**made.connection_kwargs)  # connects only when it is used
    return Redis.from_pool(made)


def _cure(error: exceptions.RedisError | OSError, kind: Kind) -> str:
    """What the error of a server means, and what helps; empty where that is not known."""
    if str(error).startswith("MISCONF"):
        return _MISCONFIGURED
    return next((text for type_, text in _CURES if isinstance(error, type_)), "").format(setting=kind.setting)

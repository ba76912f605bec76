"""`/_sandbox/stream`: what arrives, as it arrives, as server-sent events."""

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from segment_tools.sandbox.counts import counts, minute_of
from segment_tools.sandbox.http import looked_up
from segment_tools.sandbox.looking import MOST, Look, look_of
from segment_tools.sandbox.store import Store

_NEWEST = 500
"""Messages in one event at most."""

_LOOK_SECONDS = 1.0
"""Between two looks at the file unasked: another process may write it."""

_REST_SECONDS = 0.2
"""After each event, so that a flood makes five a second and not one for each message."""

_COUNTS_SECONDS = 1.0
_HEARTBEAT_SECONDS = 15.0


@dataclass(slots=True)
class Streams:
    """The open streams of a server; `end` lets each finish, so that the server can."""

    ended: bool = False
    _wakes: set[asyncio.Event] = field(default_factory=set[asyncio.Event])

    @contextmanager
    def open(self, wake: asyncio.Event) -> Generator[None]:
        """For as long as it is open, `end` wakes the stream."""
        self._wakes.add(wake)
        try:
            yield
        finally:
            self._wakes.discard(wake)

    def end(self) -> None:
        """End all streams, in the server's own thread."""
        self.ended = True
        for wake in self._wakes:
            wake.set()


@dataclass(slots=True)
class _Stream:
    """One client's stream: where it stands, and when it last said what."""

    store: Store
    look: Look
    streams: Streams
    position: int
    said: float = field(default_factory=time.monotonic)
    counted: float = -_COUNTS_SECONDS
    told: tuple[int, str, int] | None = None

    async def events(self, wake: asyncio.Event) -> AsyncGenerator[str]:
        """The events, until the server stops."""
        yield "retry: 1000\n\n"
        while not self.streams.ended:
            wake.clear()
            if text := await self._said():
                yield text
                self.said = time.monotonic()
                await asyncio.sleep(_REST_SECONDS)
            await _woken(wake)

    async def _said(self) -> str:
        """What there is to say, if anything."""
        try:
            texts = (await self._news(), await self._counts(), self._heartbeat())
        except HTTPException:  # the file is locked: said at the next look
            return ""
        return "".join(text for text in texts if text)

    async def _news(self) -> str | None:
        last = await looked_up(self.store.last)
        if last == self.position:
            return None
        if last < self.position:  # the file began anew
            self.position = 0
        filters, discarded = self.look.filters, self.look.discarded
        found = await looked_up(self.store.summaries, filters, discarded, MOST, None, self.position)
        self.position = max(last, found[0]["sequence"] if found else 0)
        if not found:
            return None
        data = {"messages": found[:_NEWEST], "skipped": len(found[_NEWEST:]), "last": self.position}
        return f"id: {self.position}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"

    async def _counts(self) -> str | None:
        if time.monotonic() < self.counted + _COUNTS_SECONDS:
            return None
        self.counted = time.monotonic()
        found = await looked_up(counts, self.store, datetime.now(UTC))
        told = (found["total"], minute_of(datetime.now(UTC)), self.position)
        if told == self.told:
            return None
        self.told = told
        return f"event: counts\ndata: {json.dumps(found, separators=(',', ':'))}\n\n"

    def _heartbeat(self) -> str | None:
        return ": still here\n\n" if time.monotonic() > self.said + _HEARTBEAT_SECONDS else None


async def _woken(wake: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            await wake.wait()
    except TimeoutError:
        return


class _Answer(StreamingResponse):
    """A stream that leaves nothing behind when its client goes, wherever it was just then."""

    def __init__(self, store: Store, stream: _Stream) -> None:
        self._store, self._streams = store, stream.streams
        self._wake = asyncio.Event()
        self._events = stream.events(self._wake)
        super().__init__(self._events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer until the client goes or the server stops."""
        with self._streams.open(self._wake), _listening(self._store, self._wake):
            try:
                await super().__call__(scope, receive, send)
            finally:
                await self._events.aclose()


@contextmanager
def _listening(store: Store, wake: asyncio.Event) -> Generator[None]:
    loop = asyncio.get_running_loop()
    stop: Callable[[], None] = store.listen(lambda: _tell(loop, wake))
    try:
        yield
    finally:
        stop()


def _tell(loop: asyncio.AbstractEventLoop, wake: asyncio.Event) -> None:
    """Wake the stream from the store's thread."""
    try:
        loop.call_soon_threadsafe(wake.set)
    except RuntimeError:  # the server stopped in between
        return


def routes(store: Store, streams: Streams) -> list[Route]:
    """The route below `/_sandbox`."""

    async def stream(request: Request) -> Response:
        look = look_of(request.query_params)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        position = await _position(store, request, look)
        return _Answer(store, _Stream(store, look, streams, position))

    return [Route("/stream", stream, methods=["GET"])]


async def _position(store: Store, request: Request, look: Look) -> int:
    """Where the client stands: what it last saw goes before where it once began."""
    seen = request.headers.get("last-event-id", "")
    if re.fullmatch("[0-9]{1,15}", seen):
        return int(seen)
    return await looked_up(store.last) if look.after is None else look.after

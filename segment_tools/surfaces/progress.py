"""How requests over HTTP are answered: with events where progress is asked for, and no longer than anybody listens."""

from collections.abc import Collection

import anyio
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PEEKED_BYTES = 4 * 1024 * 1024
"""How much of a body is looked at: the most that the SDK takes."""

_ASKED = b'"progressToken"'

_GRACE_SECONDS = 1.0
"""Ours: how long requests may go on when the server ends. Less than uvicorn is told to wait for them."""


class ByProgress:
    """Two applications as one: who can read a stream and asks for progress gets the second, all others the first.

    A request whose client is gone is cancelled: nobody waits for its answer. One that names a tool of `finished` is
    not, since it sends something, and a client that is gone did not say that it should not be sent.
    """

    def __init__(self, plain: ASGIApp, streaming: ASGIApp, finished: Collection[str] = ()) -> None:
        self._plain = plain
        self._streaming = streaming
        self._finished = [f'"{name}"'.encode() for name in finished]
        self._running: set[anyio.CancelScope] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, as it came."""
        if scope["method"] != "POST":
            await self._plain(scope, receive, send)
            return
        read: list[Message] = []
        size = 0
        while not read or (read[-1].get("more_body") and size <= _PEEKED_BYTES):
            read.append(await receive())
            size += len(read[-1].get("body", b""))
        body = b"".join(message.get("body", b"") for message in read)
        streams = _ASKED in body and "text/event-stream" in Headers(scope=scope).get("accept", "")
        app = self._streaming if streams else self._plain
        if read[-1].get("more_body"):
            await app(scope, _replayed(read, receive), send)
            return
        answer = _Answer(send)
        if any(name in body for name in self._finished):
            # Whether somebody listens or not: two tasks fewer for each message.
            await app(scope, _replayed(read, receive), answer)
        elif not await self._attended(app, scope, read, receive, answer):
            return
        await answer.end(scope, receive)

    async def end(self) -> None:
        """Cancel what still runs in a moment, but for what sends, so that the server can end."""
        await anyio.sleep(_GRACE_SECONDS)
        for running in list(self._running):
            running.cancel()

    async def _attended(
        self, app: ASGIApp, scope: Scope, read: list[Message], receive: Receive, answer: "_Answer"
    ) -> bool:
        """Answer, as long as somebody listens; whether somebody still does."""
        gone = anyio.Event()

        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()
            tasks.cancel_scope.cancel()

        async def waited() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        async with anyio.create_task_group() as tasks:
            self._running.add(tasks.cancel_scope)
            try:
                tasks.start_soon(listen)
                await app(scope, _replayed(read, waited), answer)
                tasks.cancel_scope.cancel()
            finally:
                self._running.discard(tasks.cancel_scope)
        return not gone.is_set()


class _Answer:
    """Where an application sends its answer; one that it could not end, since the server ends, is ended."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._last: Message | None = None

    async def __call__(self, message: Message) -> None:
        self._last = message
        await self._send(message)

    async def end(self, scope: Scope, receive: Receive) -> None:
        """Send what is missing of it, if anything is."""
        if self._last is None:
            await _ENDING(scope, receive, self._send)
        elif self._last["type"] == "http.response.start" or self._last.get("more_body"):
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


_ENDING = JSONResponse({"error": "The server is ending. Try again."}, 503)


def _replayed(read: list[Message], receive: Receive) -> Receive:
    """What was read already, and then the rest."""

    async def again() -> Message:
        return read.pop(0) if read else await receive()

    return again

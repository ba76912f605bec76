"""Which requests over HTTP are answered with a stream of events: those that ask how far a call is."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PEEKED_BYTES = 4 * 1024 * 1024
"""How much of a body is looked at: the most that the SDK takes."""

_ASKED = b'"progressToken"'


class ByProgress:
    """Two applications as one: who can read a stream and asks for progress gets the second, all others the first."""

    def __init__(self, plain: ASGIApp, streaming: ASGIApp) -> None:
        self._plain = plain
        self._streaming = streaming

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, as it came."""
        if scope["method"] != "POST" or "text/event-stream" not in Headers(scope=scope).get("accept", ""):
            await self._plain(scope, receive, send)
            return
        read: list[Message] = []
        size = 0
        while not read or (read[-1].get("more_body") and size <= _PEEKED_BYTES):
            read.append(await receive())
            size += len(read[-1].get("body", b""))
        asks = _ASKED in b"".join(message.get("body", b"") for message in read)

        async def again() -> Message:
            return read.pop(0) if read else await receive()

        await (self._streaming if asks else self._plain)(scope, again, send)

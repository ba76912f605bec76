"""Standard input and output as streams of MCP's messages, a line each, read and written by the event loop itself.

Windows, whose loop cannot, has the SDK's own transport.
"""

import os
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Self

import anyio
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse, jsonrpc_message_adapter

from segment_tools.surfaces.descriptors import Sink, Source
from segment_tools.surfaces.stdio_lines import Lines, message_in

_MOST_UNWRITTEN = 1024 * 1024
"""Bytes of answers that may wait for the host to read them; until it does, no more requests are read."""

_GRACE_SECONDS = 1.0
"""Ours: once the input has ended, for how long each next answer is waited for. The SDK's client gives a server two
seconds to end."""


def stdio_streams() -> AbstractAsyncContextManager[tuple[Any, Any]]:
    """What the SDK's `stdio_server` gives: a stream of requests and one for answers.

    Meanwhile descriptors 0 and 1 lead elsewhere, so that nothing else reads requests or writes between answers.

    Raises:
        OSError: on leaving: the output could not be written. Of a host that is gone, it is a `BrokenPipeError`.
    """
    return _by_event_loop() if os.name == "posix" else stdio_server()


@asynccontextmanager
async def _by_event_loop() -> AsyncGenerator[tuple["Requests", "Answers"]]:
    with _claimed(0, _nowhere) as incoming, _claimed(1, _standard_error) as outgoing:
        source = Source(incoming)
        sink = Sink(outgoing, source.stop)
        answers = Answers(sink)
        yield Requests(source, answers), answers
        if sink.failure:
            raise sink.failure


@contextmanager
def _claimed(descriptor: int, instead: Callable[[], int]) -> Generator[int]:
    """A descriptor of our own for what this one leads to, which meanwhile leads elsewhere.

    Our own is never closed: a thread may still read it, and must not find another file in its place.
    """
    import fcntl

    own = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    other = instead()
    os.dup2(other, descriptor)
    os.close(other)
    try:
        yield own
    finally:
        os.dup2(own, descriptor)


def _nowhere() -> int:
    return os.open(os.devnull, os.O_RDWR)


def _standard_error() -> int:
    try:
        return os.dup(2)
    except OSError:  # it is closed
        return _nowhere()


class _Stream:
    """What the SDK wants of a stream besides its messages."""

    async def aclose(self) -> None:
        """Be done with it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        await self.aclose()


class Answers(_Stream):
    """The messages for the host."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._asked: set[int | str] = set()
        self._answered = anyio.Event()

    async def send(self, item: SessionMessage) -> None:
        """Write the message; wait while the host is far behind with reading.

        Raises:
            anyio.BrokenResourceError: the host is gone.
        """
        if self._sink.failure:
            raise anyio.BrokenResourceError
        message = item.message
        self._sink.write(jsonrpc_message_adapter.dump_json(message, by_alias=True, exclude_unset=True) + b"\n")
        if isinstance(message, JSONRPCResponse | JSONRPCError) and message.id is not None:
            self._settled(message.id)
        await self.caught_up()

    async def caught_up(self) -> None:
        """Return once the host has read enough for more."""
        await self._sink.written(_MOST_UNWRITTEN)

    async def aclose(self) -> None:
        """Return once all is written."""
        await self._sink.written()

    def expect(self, item: SessionMessage) -> None:
        """Note what is to be answered, and what no longer is since its caller cancels it."""
        message = item.message
        if isinstance(message, JSONRPCRequest):
            self._asked.add(message.id)
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            self._settled((message.params or {}).get("requestId"))

    async def complete(self) -> None:
        """Return once everything is answered, or nothing was for a while."""
        while self._asked and not self._sink.failure:
            self._answered = anyio.Event()
            with anyio.move_on_after(_GRACE_SECONDS) as waiting:
                await self._answered.wait()
            if waiting.cancelled_caught:
                return

    def _settled(self, request: object) -> None:
        if isinstance(request, int | str):
            self._asked.discard(request)
            self._answered.set()


class Requests(_Stream):
    """The messages of the host. A line that holds none is answered by itself."""

    def __init__(self, source: Source, answers: Answers) -> None:
        self._source = source
        self._answers = answers
        self._lines = Lines()

    async def receive(self) -> SessionMessage:
        """The next message.

        Raises:
            anyio.EndOfStream: there is none, and what was asked is answered.
        """
        while (line := await self._line()) is not None:
            found = message_in(line)
            if isinstance(found, SessionMessage):
                self._answers.expect(found)
                return found
            if found:
                await self._answers.send(SessionMessage(found))
        await self._answers.complete()
        raise anyio.EndOfStream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def _line(self) -> bytes | None:
        await self._answers.caught_up()
        while not self._lines.whole:
            chunk = await self._source.read()
            if not chunk:
                return self._lines.last()
            self._lines.feed(chunk)
        return self._lines.whole.popleft()

"""Bytes from and to file descriptors without blocking the event loop, whatever they lead to.

The loop waits for pipes and sockets; what it cannot wait for (files, terminals, devices) threads read and write. No
descriptor is made non-blocking: its flags are shared with whoever else has it, such as the shell behind a terminal.
"""

import asyncio
import os
import select
import stat
from collections.abc import Callable
from contextlib import suppress
from threading import Thread

_READ_BYTES = 256 * 1024
"""At once: more than a pipe holds."""

_WRITTEN_BYTES = 512 if os.name == "nt" else select.PIPE_BUF
"""At once: what a pipe that is ready takes without blocking, whatever its flags."""


def _can_be_waited_for(descriptor: int) -> bool:
    """Whether the event loop can tell when it is ready: of a file, epoll cannot, and of a device not everywhere."""
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


class Source:
    """What comes in on a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._waits = _can_be_waited_for(descriptor)
        self._chunk: asyncio.Future[bytes] = self._loop.create_future()
        self._stopped = self._listens = False

    async def read(self) -> bytes:
        """What comes next, as much as there is; nothing at the end."""
        if self._stopped:
            return b""
        self._chunk = self._loop.create_future()
        if not self._waits:
            Thread(target=self._read_in_thread, daemon=True).start()
        elif not self._listens:
            self._listens = True
            self._loop.add_reader(self._descriptor, self._ready)
        return await self._chunk

    def stop(self) -> None:
        """End it: whoever reads finds the end."""
        self._stopped = True
        self._deliver(b"")

    def _ready(self) -> None:
        if self._chunk.done():  # nobody asks for more, as nearly everybody does before it comes
            self._listens = False
            self._loop.remove_reader(self._descriptor)
            return
        with suppress(BlockingIOError):  # others may make it non-blocking, and take what there was
            self._deliver(self._read())

    def _read_in_thread(self) -> None:
        while True:
            try:
                chunk = self._read()
                break
            except BlockingIOError:
                select.select([self._descriptor], [], [])
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._deliver, chunk)

    def _read(self) -> bytes:
        try:
            return os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            raise
        except OSError:  # a terminal that hung up, a connection that was reset
            return b""

    def _deliver(self, chunk: bytes) -> None:
        if not self._chunk.done():
            self._chunk.set_result(chunk)


class Sink:
    """What goes out on a descriptor, as fast as it is taken; `failed` is called once nothing is taken any more."""

    def __init__(self, descriptor: int, failed: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._unwritten = bytearray()
        self._moved = asyncio.Event()
        self._busy = self._gathers = False
        self._waits = _can_be_waited_for(descriptor)
        if self._waits:
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLOUT)
        self.failure: OSError | None = None

    def write(self, line: bytes) -> None:
        """Write it now, or once there is room; what follows in the same turn of the loop is written together."""
        self._unwritten += line
        if not self._busy and not self._gathers:
            self._gathers = True
            self._loop.call_soon(self._write_rest)
            self._go_on()

    def _write_rest(self) -> None:
        self._gathers = False
        if not self._busy and self._unwritten:
            self._go_on()

    async def written(self, but: int = 0) -> None:
        """Return once all is written but so many bytes, or nothing can be."""
        while len(self._unwritten) > but and not self.failure:
            self._moved.clear()
            await self._moved.wait()

    def _go_on(self) -> None:
        if self._waits:
            self._write_while_ready()
        elif self._unwritten and not self.failure:
            self._busy = True
            Thread(target=self._write_in_thread, args=(bytes(self._unwritten),), daemon=True).start()

    def _write_while_ready(self) -> None:
        try:
            while self._unwritten and self._poll.poll(0):
                del self._unwritten[: os.write(self._descriptor, self._unwritten[:_WRITTEN_BYTES])]
        except BlockingIOError:  # others may make it non-blocking, and fill it
            pass
        except OSError as error:
            self._fail(error)
        self._be_called(bool(self._unwritten) and not self.failure)
        self._moved.set()

    def _be_called(self, wanted: bool) -> None:
        """Be called when there is room, while something waits for it."""
        if wanted and not self._busy:
            self._loop.add_writer(self._descriptor, self._write_while_ready)
        elif self._busy and not wanted:
            self._loop.remove_writer(self._descriptor)
        self._busy = wanted

    def _write_in_thread(self, text: bytes) -> None:
        done, failure = 0, None
        while done < len(text):
            try:
                done += os.write(self._descriptor, text[done : done + _READ_BYTES])
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError as error:
                failure = error
                break
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._wrote, done, failure)

    def _wrote(self, count: int, failure: OSError | None) -> None:
        del self._unwritten[:count]
        self._busy = False
        if failure:
            self._fail(failure)
        self._moved.set()
        self._go_on()

    def _fail(self, failure: OSError) -> None:
        self.failure = failure
        self._unwritten.clear()
        self._failed()

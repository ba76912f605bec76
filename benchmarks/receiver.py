"""What the benchmarks send to: a Segment that answers at once or late, and says afterwards what came.

It keeps every body as it came, and takes them apart when it is asked, so that counting costs no benchmark anything.
"""

import asyncio
import gzip
import http.client
import math
import re
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
from processes import serving

ANSWER_SECONDS = 300
"""How long it may take to count what came: a million messages are some seconds' work."""

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"success":true}'
REFUSAL = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{}"

_FOUND, _COUNT = b"GET /_found ", b"GET /_count "
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_GZIP = b"\x1f\x8b"


class Found(msgspec.Struct):
    """What came since it was last asked, and the processor time that the receiver took for it."""

    requests: int
    messages: int
    distinct: int
    body_bytes: int
    compressed: int
    """Requests whose body was."""
    refused: int
    """Requests above the limit, if it has one: they are answered with 429, and none of the others."""
    busy_seconds: float


class _Message(msgspec.Struct, rename="camel"):
    message_id: str = ""


class _Body(_Message):
    batch: list[_Message] | None = None


def counted(bodies: list[bytes], refused: int, busy_seconds: float) -> Found:
    """What stands in the bodies; a message without a messageId is none, and so is what is no JSON."""
    decoder, ids, messages = msgspec.json.Decoder(_Body), set[str](), 0
    for body in bodies:
        found = _ids(decoder, body)
        messages += len(found)
        ids.update(found)
    compressed = sum(body.startswith(_GZIP) for body in bodies)
    return Found(len(bodies), messages, len(ids), sum(map(len, bodies)), compressed, refused, busy_seconds)


def _ids(decoder: "msgspec.json.Decoder[_Body]", body: bytes) -> list[str]:
    try:
        read = decoder.decode(gzip.decompress(body) if body.startswith(_GZIP) else body)
    except msgspec.DecodeError:
        return []
    return [each.message_id for each in ([read] if read.batch is None else read.batch) if each.message_id]


@dataclass
class Kept:
    """The bodies that came, and the processor's time when the first might have."""

    limit: int
    """How many requests a second may come, and at once what may in a second; 0: as many as will."""
    bodies: list[bytes] = field(default_factory=list[bytes])
    refused: int = 0
    since: float = field(default_factory=time.process_time)
    _looked: float = field(default_factory=time.monotonic)
    _places: float = math.inf

    def take(self, body: bytes) -> bytes:
        """Keep the body, if there is room for one more; the answer."""
        if self.limit and not self._room():
            self.refused += 1
            return REFUSAL
        self.bodies.append(body)
        return ANSWER

    def _room(self) -> bool:
        now = time.monotonic()
        self._places = min(self.limit, self._places + (now - self._looked) * self.limit)
        self._looked = now
        if self._places < 1:
            return False
        self._places -= 1
        return True

    def taken(self) -> bytes:
        """The answer to who asks what came; forgets it all."""
        busy, bodies, refused = time.process_time() - self.since, self.bodies, self.refused
        self.bodies, self.refused = [], 0
        found = msgspec.json.encode(counted(bodies, refused, busy))
        self.since = time.process_time()
        return _told(found)

    def count(self) -> bytes:
        """The answer to who asks only how many requests came."""
        return _told(b"%d" % len(self.bodies))


def _told(text: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text


class Receiver(asyncio.Protocol):
    """Answers each request on a connection as Segment does, so many seconds after its last byte."""

    def __init__(self, kept: Kept, delay: float) -> None:
        self._kept, self._delay = kept, delay
        self._got = bytearray()
        self._needed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """What asyncio calls first."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """What asyncio calls for each piece of what arrived."""
        self._got += data
        while len(self._got) >= self._needed and (head := self._got.find(b"\r\n\r\n")) >= 0:
            body = self._body(head)
            if body is None:
                return
            if self._got.startswith(_FOUND):
                self._transport.write(self._kept.taken())
            elif self._got.startswith(_COUNT):
                self._transport.write(self._kept.count())
            else:
                self._answer(self._kept.take(body))
            del self._got[: self._needed]
            self._needed = 0

    def _answer(self, answer: bytes) -> None:
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._transport.write, answer)
        else:
            self._transport.write(answer)

    def _body(self, head: int) -> bytes | None:
        """The body after the head that ends there, once all of it came; sets how many bytes the request has."""
        if length := _LENGTH.search(self._got, 0, head):
            self._needed = head + 4 + int(length[1])
            return bytes(self._got[head + 4 : self._needed]) if len(self._got) >= self._needed else None
        if _CHUNKED.search(self._got, 0, head):
            return self._chunks(head + 4)
        self._needed = head + 4
        return b""

    def _chunks(self, place: int) -> bytes | None:
        parts = list[bytes]()
        while (end := self._got.find(b"\r\n", place)) >= 0:
            size = int(self._got[place:end].split(b";")[0], 16)
            place = end + 2 + size + 2
            if len(self._got) < place:
                return None
            if not size:
                self._needed = place
                return b"".join(parts)
            parts.append(bytes(self._got[end + 2 : place - 2]))
        return None


async def opened(listener: socket.socket, delay_ms: float, limit: int) -> asyncio.Server:
    """A receiver on the running event loop."""
    loop, kept = asyncio.get_running_loop(), Kept(limit)
    return await loop.create_server(lambda: Receiver(kept, delay_ms / 1000), sock=listener)


def receiver(listener: socket.socket, delay_ms: float, limit: int) -> None:
    """Receive until the process is ended."""

    async def serve() -> None:
        await (await opened(listener, delay_ms, limit)).serve_forever()

    asyncio.run(serve())


@dataclass(frozen=True)
class Receiving:
    """A receiver in a process of its own, as those see it that send to it."""

    port: int

    @property
    def url(self) -> str:
        """What to send to."""
        return f"http://127.0.0.1:{self.port}"

    def found(self) -> Found:
        """What came since the last time."""
        return msgspec.json.decode(self._asked("/_found"), type=Found)

    def count(self) -> int:
        """How many requests came since then; that is told at once."""
        return int(self._asked("/_count"))

    def _asked(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()


@contextmanager
def receiving(delay_ms: float = 0, limit: int = 0) -> Generator[Receiving]:
    """A receiver whose answers are so late, and that takes so many requests a second, or any."""
    with serving(receiver, delay_ms, limit) as port:
        yield Receiving(port)

"""Whatever the data plane does, in whatever order: which attempts are made, when, and what becomes of the message."""

import asyncio
from dataclasses import dataclass, field

import httpx
import pytest
from support import WAIT, Time, settings, until

from segment_tools import Segment, Track, Transport

pytestmark = pytest.mark.anyio


@dataclass
class Crowd(httpx.AsyncBaseTransport):
    """A data plane that answers the first requests only once all of them are there, and with trouble."""

    time: Time
    size: int
    at: list[float] = field(default_factory=list)
    full: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.at.append(self.time.surroundings().monotonic())
        if len(self.at) > self.size:
            return httpx.Response(200, json={"success": True})
        if len(self.at) == self.size:
            self.full.set()
        await self.full.wait()
        return httpx.Response(503)


async def test_requests_that_fail_together_are_waited_for_as_one_failure(time: Time) -> None:
    crowd = Crowd(time, 4)
    transport = Transport("https://api.segment.io", crowd)
    chosen = settings(outbox="memory:", delivery="queued", flush_seconds=WAIT)
    async with asyncio.timeout(WAIT), Segment(chosen, transport=transport, surroundings=time.surroundings()) as segment:
        for number in range(4):
            await segment.send(Track(event="Signed Up", user_id=f"u{number}"))
            await until(lambda least=number: len(crowd.at) > least)
    assert crowd.at[:5] == [0, 0, 0, 0, 0.5]

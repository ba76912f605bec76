"""Requests to the data plane: each tried again until Segment takes it, refuses it for good, or time is up."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from segment_tools import wire
from segment_tools.attempts import Surroundings, attempted
from segment_tools.settings import Settings
from segment_tools.transport import Transport


@dataclass(frozen=True, slots=True)
class Accepted:
    """Segment's 2xx to one request."""

    status: int
    body: Mapping[str, Any] = field(repr=False)


class DataPlane:
    """Sends requests to one workspace's data plane."""

    def __init__(self, settings: Settings, outside: Surroundings, transport: Transport) -> None:
        self._settings, self._outside, self._transport = settings, outside, transport

    async def send(self, request: wire.Request, write_key: str, deadline: float) -> tuple[Accepted, int]:
        """Segment's answer and how many attempts it took; every attempt carries the same bytes.

        Raises:
            Rejected, Unavailable: the last attempt's.
        """
        return await attempted(partial(self.attempt, request, write_key), self._outside, deadline)

    async def attempt(self, request: wire.Request, write_key: str, number: int, seconds: float) -> Accepted:
        """Segment's answer to the attempt of this number, counted from 0, within so many seconds.

        Raises:
            Rejected, Unavailable: it was not taken.
        """
        sent = wire.headers(write_key, number)
        answer = await self._transport.post(request.path, request.body, sent, seconds)
        secrets = (write_key, *self._settings.secrets)
        return Accepted(answer.status, wire.decipher(answer, self._outside.now(), secrets))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

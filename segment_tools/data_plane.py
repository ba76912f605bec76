"""Requests to the data plane: each paced, authorised, and tried again until it is taken, refused or out of time."""

import hashlib
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from segment_tools import telemetry, wire
from segment_tools.attempts import ATTEMPT_SECONDS, Failed, Surroundings, attempted, untold
from segment_tools.errors import RateLimited, SegmentError, Undelivered
from segment_tools.oauth import Tokens
from segment_tools.outbox.retry import FIRST_WAIT_SECONDS
from segment_tools.pace import Pace
from segment_tools.services import TRACKING, TRACKING_BY_TOKEN
from segment_tools.settings import Settings
from segment_tools.transport import Transport

_TOKEN_REFUSED = (400, 401, 403, 511)
"""By which Segment may mean the token. Source: Segment's own libraries, which drop it then."""

OWN_FAULTS = (200, 400, 413, 415, 422)
"""Statuses by which Segment refuses what a message says; others are about the key, the address or the moment."""

_TROUBLE = 500


@dataclass(frozen=True, slots=True)
class Accepted:
    """Segment's 2xx to one request."""

    status: int
    body: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the last request, whatever it was: `ok` where something answered that has no trouble."""

    kind: str
    """The status, or a code that says why there was none."""
    ok: bool
    at: datetime
    asked_at: float = field(repr=False)
    """On the monotonic clock."""


class DataPlane:
    """Sends requests to one workspace's data plane.

    Raises:
        NotConfigured: what `SEGMENT_RATE_LIMIT` names is no Redis server.
    """

    def __init__(self, settings: Settings, outside: Surroundings, transport: Transport) -> None:
        self._settings, self._outside, self._transport = settings, outside, transport
        self._last: Outcome | None = None
        self._tokens = Tokens(settings, outside) if settings.uses_oauth else None
        self._pace = Pace(
            f"tracking:{_workspace(settings)}",
            settings.requests_per_second,
            settings.concurrency,
            outside,
            settings.rate_limit,
        )

    def key_in_body(self, write_key: str) -> str | None:
        """What names the source in a body: with a token, which does not, the write key."""
        return write_key if self._tokens else None

    async def send(
        self, request: wire.Request, write_key: str, deadline: float, failed: Failed = untold
    ) -> tuple[Accepted, int]:
        """Segment's answer and how many attempts it took; every attempt carries the same bytes.

        Raises:
            Rejected, Unavailable: the last attempt's.
        """
        return await attempted(partial(self.attempt, request, write_key), self._outside, deadline, failed)

    async def attempt(self, request: wire.Request, write_key: str, number: int, seconds: float) -> Accepted:
        """Segment's answer to the attempt of this number, counted from 0, within so many seconds.

        Raises:
            Rejected, Unavailable: it was not taken.
        """
        until = self._outside.monotonic() + seconds
        async with self._pace.turn(seconds):
            try:
                return await self._asked(request, write_key, number, until)
            except Undelivered as error:
                least = FIRST_WAIT_SECONDS if isinstance(error, RateLimited) else 0.0
                await self._pace.pause(error.retry_after_seconds or least)
                raise

    async def _asked(self, request: wire.Request, write_key: str, number: int, until: float) -> Accepted:
        if self._tokens is None:
            return self._judged(await self._posted(request, write_key, None, number, until), write_key, None)
        token = await self._tokens.token(self._left(until))
        answer = await self._posted(request, write_key, token, number, until)
        if answer.status in _TOKEN_REFUSED:
            # It may be the token that is refused, and not what it came with.
            self._tokens.drop(token)
            token = await self._tokens.token(self._left(until))
            answer = await self._posted(request, write_key, token, number + 1, until)
            if answer.status in _TOKEN_REFUSED:
                self._tokens.drop(token)
        return self._judged(answer, write_key, token)

    async def _posted(
        self, request: wire.Request, write_key: str, token: str | None, number: int, until: float
    ) -> wire.Answer:
        sent = wire.headers(write_key, number, token)
        if request.gzipped:
            sent["Content-Encoding"] = "gzip"
        if number:
            telemetry.retried(request.count)
        return await self._noted(self._transport.post(request.path, request.body, sent, self._left(until)))

    async def reached(self, most_old: float, seconds: float) -> Outcome:
        """The last outcome; where it is older than so many seconds, or there is none, that of a request without a key.

        The request is a GET that changes nothing, and may take so many `seconds`.
        """
        if self._last is None or self._outside.monotonic() - self._last.asked_at > most_old:
            with suppress(SegmentError):
                await self._noted(self._transport.get("/", {}, seconds, 0))
        return self._last or self._note("unknown", ok=False)

    async def _noted(self, answer: Awaitable[wire.Answer]) -> wire.Answer:
        try:
            found = await answer
        except SegmentError as error:
            self._note(telemetry.error_type(error), ok=False)
            raise
        self._note(str(found.status), ok=found.status < _TROUBLE)
        return found

    def _note(self, kind: str, *, ok: bool) -> Outcome:
        self._last = Outcome(kind, ok, self._outside.now(), self._outside.monotonic())
        return self._last

    def _judged(self, answer: wire.Answer, write_key: str, token: str | None) -> Accepted:
        if wire.is_plain_success(answer):
            return Accepted(answer.status, {"success": True})
        secrets = (write_key, *([token] if token else []), *self._settings.secrets)
        body = wire.decipher(answer, self._outside.now(), secrets, TRACKING_BY_TOKEN if token else TRACKING)
        return Accepted(answer.status, body)

    def _left(self, until: float) -> float:
        return max(0.001, until - self._outside.monotonic())

    async def prove(self) -> str:
        """That the app of the settings gets a token.

        Raises:
            SegmentError: it gets none.
        """
        if self._tokens:
            await self._tokens.token(ATTEMPT_SECONDS)
        return "It gets tokens."

    async def aclose(self) -> None:
        """Close the connections."""
        if self._tokens:
            await self._tokens.aclose()
        await self._pace.aclose()
        await self._transport.aclose()


def _workspace(settings: Settings) -> str:
    """A name that all replicas with these settings have in common, and that tells nothing of a key."""
    keys = sorted(key.get_secret_value() for key in (*settings.sources.values(), settings.write_key) if key)
    address = settings.data_plane_url or settings.region
    return hashlib.sha256("\0".join([address, *keys]).encode()).hexdigest()[:16]

"""Whether the server can do its work just now: its data plane, outbox and inbox, each asked now and then."""

import asyncio
from collections.abc import Awaitable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from segment_tools.client import Segment
from segment_tools.delivery import Courier
from segment_tools.errors import SegmentError
from segment_tools.outbox import ENTRY_OVERHEAD, Depth
from segment_tools.spec import limits
from segment_tools.spec.timestamps import iso_utc
from segment_tools.telemetry import error_type

PROBE_SECONDS, LOOK_SECONDS = 10.0, 1.0
"""Ours: how old what is known may be, of the data plane and of what is on this side of it."""

_ANSWER_SECONDS = 2.0
_NAME = "readyz"
"""What holds the lease that is asked for, and given back at once, to see whether a store can be written."""

Check = dict[str, Any]


class Readiness:
    """Looks at most once in `LOOK_SECONDS`, however many ask."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._turn = asyncio.Lock()
        self._found: Check = {}
        self._until = float("-inf")

    async def answer(self, _: Request) -> Response:
        """200 where it can take messages and deliveries, else 503; why is in the body, without keys or addresses."""
        async with self._turn:
            if self._segment.outside.monotonic() >= self._until:
                self._found = await self._look()
                self._until = self._segment.outside.monotonic() + LOOK_SECONDS
        return JSONResponse(self._found, 200 if self._found["status"] == "ready" else 503)

    async def _look(self) -> Check:
        courier = self._segment.courier
        asked = {"dataPlane": self._data_plane()}
        if courier is not None:
            asked["outbox"] = _tried(self._outbox(courier))
        if self._segment.settings.webhook_secret is not None:
            asked["inbox"] = _tried(self._inbox())
        found = dict(zip(asked, await asyncio.gather(*asked.values()), strict=True))
        # What cannot be delivered now is kept, where there is an outbox.
        needed = [check for name, check in found.items() if name != "dataPlane" or courier is None]
        return {"status": "ready" if all(check["ok"] for check in needed) else "not_ready", **found}

    async def _data_plane(self) -> Check:
        if self._segment.settings.dry_run:
            return {"ok": True, "outcome": "dry_run"}
        last = await self._segment.reached(PROBE_SECONDS, _ANSWER_SECONDS)
        return {"ok": last.ok, "outcome": last.kind, "at": iso_utc(last.at)}

    async def _outbox(self, courier: Courier) -> Check:
        settings = self._segment.settings
        depth = await courier.outbox.depth()
        if not settings.read_only:
            await courier.outbox.lease(_NAME, 0)
        trouble = list(dict.fromkeys(error_type(error) for error in courier.errors))
        full = depth.bytes + limits.MESSAGE_BYTES + ENTRY_OVERHEAD > settings.outbox_max_bytes
        return {
            "ok": not full and "outbox_unavailable" not in trouble,
            "pending": depth.pending,
            "oldestSeconds": self._age(depth),
            "dead": depth.dead,
            "full": full,
            "trouble": trouble,
        }

    def _age(self, depth: Depth) -> float:
        if depth.oldest_at is None:
            return 0.0
        return round(max(0.0, (self._segment.outside.now() - depth.oldest_at).total_seconds()), 1)

    async def _inbox(self) -> Check:
        await self._segment.newest_delivery()
        await self._segment.inbox.lease(_NAME, _NAME, 0)
        return {"ok": True}


async def _tried(check: Awaitable[Check]) -> Check:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await check
    except SegmentError as error:
        return {"ok": False, "error": error_type(error)}
    except TimeoutError:
        return {"ok": False, "error": "timeout"}

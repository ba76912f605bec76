"""Deliveries out: every accepted message is sent on to the webhooks, at least once, until it is taken or given up."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from segment_tools.sandbox.delivery_rows import STATES, DeliveryRows, Due, Tried
from segment_tools.sandbox.http import looked_up
from segment_tools.sandbox.looking import LIMIT, limit_of
from segment_tools.sandbox.store import Store
from segment_tools.sandbox.webhooks import Outcome, Webhook, Webhooks, next_attempt

if TYPE_CHECKING:
    import httpx

_T = TypeVar("_T")

_IN_FLIGHT, _READ_AHEAD = 16, 64
"""Ours: how many requests to one webhook are under way at once, and how many messages are read for them together."""

_BATCHES_IN_FLIGHT, _BATCHES_READ_AHEAD = 2, 2
"""The same for batches, which may be large."""

_LOOK_SECONDS, _LOCKED_SECONDS = 60.0, 1.0
"""How long a look for what is due can be off at most, and how long a locked file is left alone."""

_ANSWER_BYTES = 64 * 1024
"""How much of an answer is read, to use its connection again."""


class Deliveries:
    """What sends a store's messages on, while the server runs."""

    def __init__(self, store: Store, webhooks: Webhooks) -> None:
        self._store = store
        self._webhooks = webhooks
        self.rows = DeliveryRows(store)
        if webhooks.all:
            self.rows.begin(webhooks.all)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Send meanwhile. What is under way at the end is sent again at the next start."""
        import httpx

        limits = httpx.Limits(max_connections=None, max_keepalive_connections=_IN_FLIGHT * len(self._webhooks.all))
        # Without a client around it there are no redirects, no cookies, and no log of addresses.
        async with httpx.AsyncHTTPTransport(limits=limits) as http:
            lanes = [_Lane(self.rows, self._webhooks, webhook, http) for webhook in self._webhooks.all]
            tasks = [asyncio.create_task(lane.run()) for lane in lanes]
            loop = asyncio.get_running_loop()

            def wake() -> None:
                for lane in lanes:
                    lane.wake.set()

            deaf = self._store.listen(lambda: _from_thread(loop, wake))
            try:
                yield
            finally:
                deaf()
                for lane in lanes:
                    lane.stop()
                await asyncio.gather(*tasks)


def _from_thread(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(work)


class _Lane:
    """The deliveries to one webhook."""

    def __init__(
        self, rows: DeliveryRows, webhooks: Webhooks, webhook: Webhook, http: "httpx.AsyncHTTPTransport"
    ) -> None:
        self.wake = asyncio.Event()
        self._rows, self._webhooks, self._webhook, self._http = rows, webhooks, webhook, http
        batches = webhooks.batch is not None
        self._in_flight = _BATCHES_IN_FLIGHT if batches else _IN_FLIGHT
        self._read_ahead = _BATCHES_READ_AHEAD if batches else _READ_AHEAD
        self._free = asyncio.Semaphore(self._in_flight)
        self._sending: set[asyncio.Task[None]] = set()
        self._busy: set[int] = set()
        self._tried: list[Tried] = []
        self._stopped = False

    def stop(self) -> None:
        """Begin nothing more, and end `run`."""
        self._stopped = True
        self.wake.set()

    async def run(self) -> None:
        """Record what was tried and begin what is due, until stopped."""
        while not self._stopped:
            self.wake.clear()
            wait = await self._begin() if await self._record() else _LOCKED_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), wait)
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        await self._record()

    async def _record(self) -> bool:
        """Whether everything that was tried is recorded."""
        tried, self._tried = self._tried, []
        if tried and not await _unlocked(self._rows.record, self._webhook, tried):
            self._tried += tried
            return False
        self._busy.difference_update(one.due.sequence for one in tried)
        return True

    async def _begin(self) -> float:
        """Begin what is due; for how many seconds nothing else will be."""
        if len(self._sending) > self._in_flight:
            return _LOOK_SECONDS
        found = await _unlocked(self._due)
        if found is None:
            return _LOCKED_SECONDS
        ready, wait = found
        for group, headers, body in ready:
            self._busy.update(due.sequence for due in group)
            task = asyncio.create_task(self._deliver(group, headers, body))
            self._sending.add(task)
            task.add_done_callback(self._sent)
        return wait

    def _due(self) -> tuple[list[tuple[Sequence[Due], dict[str, str], bytes]], float]:
        """The requests to make now, and in how many seconds there may be more."""
        size = self._webhooks.batch or 1
        most = self._read_ahead * size
        waiting = [
            due for due in self._rows.next(self._webhook, len(self._busy) + most + 1) if due.sequence not in self._busy
        ]
        now = self._webhooks.pace.clock()
        ready = [due for due in waiting if due.due_at <= now][:most]
        groups = [ready[start : start + size] for start in range(0, len(ready), size)]
        later = [due.due_at for due in waiting[len(ready) :]]
        wait = max(0.0, min(_LOOK_SECONDS, (later[0] - now).total_seconds())) if later else _LOOK_SECONDS
        return [(group, *request) for group in groups if (request := self._request(group))], wait

    def _request(self, group: Sequence[Due]) -> tuple[dict[str, str], bytes] | None:
        """None where the messages were forgotten meanwhile."""
        messages = self._rows.messages([due.sequence for due in group])
        return self._webhooks.request(self._webhook, messages) if messages else None

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self.wake.set()

    async def _deliver(self, group: Sequence[Due], headers: dict[str, str], body: bytes) -> None:
        async with self._free:
            began = self._webhooks.pace.clock()
            outcome = await self._attempt(headers, body)
        now = self._webhooks.pace.clock()
        for due in group:
            first = due.first_at or began
            again = next_attempt(self._webhooks.pace, outcome, due.attempts + 1, first, now)
            state = "delivered" if outcome.delivered else "pending" if again else "failed"
            self._tried.append(Tried(due, state, first, again, outcome.status))

    async def _attempt(self, headers: dict[str, str], body: bytes) -> Outcome:
        """What one request came to; no answer has a code that Segment's Delivery Overview knows."""
        import httpx

        try:
            async with asyncio.timeout(self._webhooks.seconds):
                return await _post(self._http, self._webhook.url, headers, body)
        except TimeoutError:
            return Outcome("ETIMEDOUT")
        except httpx.ConnectError:
            return Outcome("ECONNREFUSED")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
            return Outcome("ECONNRESET")


async def _post(http: "httpx.AsyncHTTPTransport", url: str, headers: dict[str, str], body: bytes) -> Outcome:
    import httpx

    response = await http.handle_async_request(httpx.Request("POST", url, headers=headers, content=body))
    try:
        read = 0
        async for part in response.aiter_raw():
            read += len(part)
            if read > _ANSWER_BYTES:
                break
    finally:
        await response.aclose()
    return Outcome(response.status_code, {name.lower(): value for name, value in response.headers.items()})


async def _unlocked(work: Callable[..., _T], *arguments: object) -> _T | None:
    """What the work returns, done beside the event loop; None where the file is locked or full."""
    try:
        return await run_in_threadpool(work, *arguments)
    except sqlite3.OperationalError:
        return None


def routes(rows: DeliveryRows) -> list[Route]:
    """The routes below `/_sandbox`."""

    async def look(request: Request) -> Response:
        asked = dict(request.query_params)
        limit, state = limit_of(asked.pop("limit", str(LIMIT))), asked.pop("state", None)
        if asked:
            raise HTTPException(400, "use state and limit")
        if state not in (None, *STATES):
            raise HTTPException(400, f"state must be one of {', '.join(STATES)}")
        return JSONResponse(await looked_up(rows.shown, state, limit))

    return [Route("/deliveries", look, methods=["GET"])]

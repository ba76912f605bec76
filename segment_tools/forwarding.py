"""Deliveries sent on to a workflow: in order, signed as they came, tried again for hours, by one process at a time."""

import asyncio
import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

from segment_tools.client import Segment
from segment_tools.errors import NotConfigured, SegmentError
from segment_tools.inbox import Query, Stored
from segment_tools.spec.webhooks import signature_of
from segment_tools.wire import retry_after

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx

_PAGE = 10
"""How many deliveries are read at once, whole: up to 1 MB each."""

_LEASE_SECONDS, _RENEW_SECONDS, _LOOK_SECONDS = 60.0, 20.0, 10.0
"""Ours: for how long one process is the sender, how often it says that it still is, how often others ask."""

_ATTEMPT_SECONDS = 10.0
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
"""Ours: the longer one is well below the lease, which is renewed between attempts."""

_GIVE_UP_SECONDS = 4 * 3600.0
"""As long as Segment itself tries. Source: https://segment.com/docs/connections/destinations/#retries."""

_BEFORE_ALL = ("0", "0-0")
"""Where an empty inbox begins, in SQLite and in Redis: what comes before the next start is then not taken for old."""

_FOR_GOOD = frozenset(range(400, 500)) - {401, 403, 404, 408, 410, 425, 429}
"""What refuses a delivery itself. All else may pass: a workflow is busy, switched off or moved, a key to be mended."""

_log = logging.getLogger(__name__)


def usable(urls: Sequence[str]) -> None:
    """See that deliveries can be sent to every address, as far as can be told without asking there.

    Raises:
        NotConfigured: one of them is none. The text does not repeat it.
    """
    for url in urls:
        _request(url, b"", {})


@asynccontextmanager
async def forwarding(segment: Segment, urls: Sequence[str]) -> "AsyncGenerator[None]":
    """Send deliveries on to every address meanwhile; the first time, those that come from now on.

    Raises:
        NotConfigured: an address is none.
    """
    usable(urls)
    async with AsyncExitStack() as stack:
        if urls:
            import httpx  # noqa: PLC0415 - for this alone: starting must not wait for it

            # Without a client around it there are no redirects, no cookies, and no log of addresses.
            http = await stack.enter_async_context(httpx.AsyncHTTPTransport())
            lanes = [_Lane(segment, url, http) for url in dict.fromkeys(urls)]
            for lane in lanes:
                await lane.begin()
            tasks = [asyncio.create_task(lane.run()) for lane in lanes]
            stack.push_async_callback(_ended, tasks)
        yield


def shown_address(url: str) -> str:
    """The address by its host, port and a digest: its path and query are a credential in many a workflow."""
    parts = urlsplit(url)
    digest = hashlib.sha256(url.encode()).hexdigest()[:8]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]} (#{digest})"


async def _ended(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _Lane:
    """What goes to one address."""

    def __init__(self, segment: Segment, url: str, http: "httpx.AsyncHTTPTransport") -> None:
        self._segment, self._url, self._http = segment, url, http
        self._shown = shown_address(url)
        self._failing = False
        self._name = "forward:" + hashlib.sha256(url.encode()).hexdigest()
        self._holder = str(uuid4())
        self._begun = False

    async def begin(self) -> None:
        """Note where to start, the first time."""
        try:
            newest = await self._segment.newest_delivery()
            if await self._segment.inbox.position(self._name) is None:
                await self._note(newest)
            self._begun = True
        except SegmentError as error:
            _log.warning("%s", error)

    async def _note(self, newest: str | None) -> None:
        for cursor in (newest,) if newest else _BEFORE_ALL:
            with suppress(ValueError):  # it is not this kind of inbox's
                await self._segment.inbox.advance(self._name, cursor)
                return

    async def run(self) -> None:
        """Send on whatever comes, while this process is the one to do so."""
        try:
            while True:
                try:
                    if not self._begun:
                        await self.begin()
                    if self._begun and await self._leased():
                        await self._send_page()
                    else:
                        await self._segment.outside.sleep(_LOOK_SECONDS)
                except SegmentError as error:
                    _log.warning("%s", error)
                    await self._segment.outside.sleep(_LOOK_SECONDS)
                except Exception as error:  # noqa: BLE001 - an accident must not end for good what nobody watches
                    _log.error("%s: sending on failed unexpectedly: %s", self._shown, type(error).__name__)
                    await self._segment.outside.sleep(_LOOK_SECONDS)
        finally:
            with suppress(SegmentError):
                await self._segment.inbox.lease(self._name, self._holder, 0)

    async def _leased(self) -> bool:
        return await self._segment.inbox.lease(self._name, self._holder, _LEASE_SECONDS)

    async def _send_page(self) -> None:
        inbox = self._segment.inbox
        reached = await inbox.position(self._name)
        page = await inbox.page(Query(after=reached, limit=_PAGE))
        if not page.items:
            await inbox.changed(reached, _RENEW_SECONDS)
        for item in page.items:
            if not await self._sent(item):
                return
            await inbox.advance(self._name, item.cursor)

    async def _sent(self, item: Stored) -> bool:
        """Send it until it is taken or given up; False if another process has become the sender."""
        age = (self._segment.outside.now() - item.received_at).total_seconds()
        outside = self._segment.outside
        until, wait = outside.monotonic() + max(_GIVE_UP_SECONDS - age, _ATTEMPT_SECONDS), _FIRST_WAIT
        while await self._leased():
            status, asked, said = await self._posted(item.body.encode())
            if status is not None and 200 <= status < 300:  # noqa: PLR2004
                if self._failing:
                    _log.warning("%s takes deliveries again", self._shown)
                self._failing = False
                return True
            if status in _FOR_GOOD:
                _log.warning("%s %s to a delivery, which is skipped", self._shown, said)
                self._failing = False
                return True
            if not self._failing:
                self._failing = True
                _log.warning("%s %s; deliveries wait, and are tried again for four hours", self._shown, said)
            pause = min(max(wait, asked or 0.0), _LONGEST_WAIT)
            if outside.monotonic() + pause > until:
                _log.error("%s did not take a delivery for hours; it is skipped", self._shown)
                return True
            await outside.sleep(pause)
            wait = min(wait * 2, _LONGEST_WAIT)
        return False

    async def _posted(self, body: bytes) -> tuple[int | None, float | None, str]:
        """The answer's status, None where there was none; the wait in seconds that it asks for; and what happened."""
        import httpx  # noqa: PLC0415 - loaded by now

        secret = self._segment.settings.webhook_secret
        key = secret.get_secret_value() if secret else ""
        headers = {"Content-Type": "application/json", "X-Signature": signature_of(body, key)}
        try:
            async with asyncio.timeout(_ATTEMPT_SECONDS):
                response = await self._http.handle_async_request(_request(self._url, body, headers))
                await response.aclose()
                asked = retry_after(response.headers, self._segment.outside.now())
                return response.status_code, asked, f"answered {response.status_code}"
        except (TimeoutError, httpx.HTTPError, OSError) as error:
            return None, None, f"did not answer ({type(error).__name__})"


def _request(url: str, body: bytes, headers: Mapping[str, str]) -> "httpx.Request":
    import httpx  # noqa: PLC0415 - for this alone: starting must not wait for it

    try:
        return httpx.Request("POST", url, content=body, headers=headers)
    except (httpx.InvalidURL, ValueError):
        hint = "Pass the address as the workflow shows it."
        raise NotConfigured("--forward", f"{shown_address(url)} is no address to send to.", hint=hint) from None

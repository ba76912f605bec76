"""From the event loop into the store, the requests of the same moment together."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from segment_tools.sandbox.judge import Verdict
from segment_tools.sandbox.store import Arrival, Parcel, Store

_MOST = 2_500
"""Requests share a transaction until they have so many messages."""


class Intake:
    """Keeps what comes, one transaction after another; what comes meanwhile shares the next."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[Parcel, asyncio.Future[None]]] = []
        self._writing = False

    async def keep(self, arrival: Arrival, found: Sequence[Verdict]) -> None:
        """Keep the messages of one request, all or none; returns once they are on disk.

        Raises:
            sqlite3.OperationalError: the file is locked or full, and nothing is kept.
        """
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._waiting.append((Parcel(arrival, found), done))
        if not self._writing:
            self._writing = True
            # Not at once: other requests may be as far in this turn of the loop.
            loop.call_soon(self._write, loop)
        await done

    def _write(self, loop: asyncio.AbstractEventLoop) -> None:
        count = messages = 0
        while count < len(self._waiting) and messages < _MOST:
            messages += len(self._waiting[count][0].found)
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]

        def told(error: Exception | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._written, loop, [done for _, done in group], error)

        self._store.write([parcel for parcel, _ in group], told, patient=False)

    def _written(
        self, loop: asyncio.AbstractEventLoop, group: Sequence[asyncio.Future[None]], error: Exception | None
    ) -> None:
        for done in group:
            if done.cancelled():
                continue
            if error:
                done.set_exception(error)
            else:
                done.set_result(None)
        self._writing = bool(self._waiting)
        if self._waiting:
            self._write(loop)

"""A sandbox that is up: in a thread of this process, or as the whole process."""

import gc
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn

from segment_tools.sandbox.app import create_app
from segment_tools.sandbox.connection import Connection
from segment_tools.sandbox.faults import Faults, fault_of
from segment_tools.sandbox.judge import REASONS
from segment_tools.sandbox.options import Options
from segment_tools.sandbox.store import FILTERS, Store
from segment_tools.sandbox.stream import Streams

HOST = "127.0.0.1"
PORT = 8765
_BACKLOG = 2048
_START_SECONDS = 15.0


def bind(port: int, host: str = HOST) -> socket.socket:
    """A listening socket, on this machine's own address unless told otherwise; port 0 takes any free one.

    Raises:
        OSError: the port is taken, or the host is none of this machine's.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
    )[0]
    # With its protocol named asyncio sends small answers at once (TCP_NODELAY): 1 ms instead of 44.
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)  # whoever reads the address may connect at once
    except OSError:
        listener.close()
        raise
    return listener


def bind_near(port: int) -> socket.socket:
    """A listening socket on the port, or on any free one where that is taken."""
    with suppress(OSError):
        return bind(port)
    return bind(0)


def settle() -> None:
    """Spare a process that is nothing but a sandbox most of its garbage collection: what it reads holds no cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def server(store: Store, options: Options, faults: Faults | None = None) -> uvicorn.Server:
    """The sandbox on the store, not yet running; `faults` are those of the options unless given."""
    streams = Streams()
    app = create_app(store, options, streams, faults or Faults(options.faults))
    config = uvicorn.Config(
        app,
        http=Connection,
        log_level="warning",
        access_log=False,
        lifespan="on" if options.webhooks.all else "off",
        ws="none",
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    return _Server(config, streams)


class _Server(uvicorn.Server):
    """A server that ends its streams when it stops, instead of waiting for their clients to go."""

    def __init__(self, config: uvicorn.Config, streams: Streams) -> None:
        super().__init__(config)
        self._streams = streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, as every server does."""
        self._streams.end()
        await super().shutdown(sockets)


class Sandbox:
    """A sandbox in a thread of its own, up when the constructor returns.

    `db` is a file, or `:memory:`. `url` is what `SEGMENT_DATA_PLANE_URL` takes; unless the options name sources, any
    write key is known. Close it, or use it as a context manager.
    """

    def __init__(
        self, db: str | Path = ":memory:", listener: socket.socket | None = None, options: Options | None = None
    ) -> None:
        chosen = options or Options()
        self.store = Store(db, chosen.retention)
        self._listener = listener or bind(0)
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}"
        self._faults = Faults(chosen.faults)
        self._server = server(self.store, chosen, self._faults)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._listener],), name="segment-sandbox", daemon=True
        )
        self._thread.start()

    def messages(self, **filters: str) -> list[dict[str, Any]]:
        """The messages that Segment would deliver, as destinations get them, in the order of arrival.

        Filters compare fields: type, event, name, userId, anonymousId, messageId, source; `text` is anywhere in them.
        """
        return [row["message"] for row in self._rows(False, filters)]

    def discards(self, **filters: str) -> list[dict[str, Any]]:
        """The messages that Segment would drop: the code (`reason`), its `meaning` and mend, what was `sent`.

        Takes the filters of `messages`, and `reason`.
        """
        return [
            {"reason": row["discarded"], "meaning": REASONS[row["discarded"]], "sent": row["sent"]}
            for row in self._rows(True, filters)
        ]

    def wait_for(self, count: int = 1, seconds: float = 5.0, **filters: str) -> list[dict[str, Any]]:
        """`messages`, once there are so many of them: for what arrives in another thread or process.

        It blocks; in a coroutine, `await asyncio.to_thread(sandbox.wait_for, event="Signed Up")`.

        Raises:
            TimeoutError: there were fewer after so many seconds; says what arrived in their place.
        """
        changed = threading.Event()
        end = self.store.listen(changed.set)
        try:
            deadline = time.monotonic() + seconds
            while len(found := self.messages(**filters)) < count:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(self._instead(len(found), count, seconds, filters))
                changed.wait(min(left, _LOOK_SECONDS))
                changed.clear()
            return found
        finally:
            end()

    def _instead(self, found: int, count: int, seconds: float, filters: dict[str, str]) -> str:
        """What did not arrive, and what did; no values, since they may be somebody's data."""
        asked = f" by {', '.join(filters)}" if filters else ""
        others = Counter(row["sent"].get("type", "?") for row in self._rows(False, {}))
        lost = Counter(row["discarded"] for row in self._rows(True, {}))
        parts = [f"{found} of {count} messages{asked} within {seconds:g} s"]
        parts += [f"accepted in all: {_told(others)}" if others else "none was accepted"]
        parts += [f"discarded: {_told(lost)}"] if lost else []
        return "; ".join(parts)

    def _rows(self, discarded: bool, filters: dict[str, str]) -> list[dict[str, Any]]:
        if unknown := set(filters) - set(FILTERS):
            raise TypeError(f"there is no filter {min(unknown)!r}; there are {', '.join(FILTERS)}")
        return list(reversed(self.store.messages(filters, discarded, _MOST)))

    def clear(self) -> int:
        """Forget every message; how many there were."""
        return self.store.clear()

    def fault(self, **fields: Any) -> dict[str, Any]:
        """Let a fault happen, such as `fault(status=503, times=2)`; what `/_sandbox/faults` lists of it.

        Raises:
            ValueError: a field is unknown or wrong.
        """
        return self._faults.add(fault_of(fields))

    def clear_faults(self) -> None:
        """Forget the faults: requests get right answers again."""
        self._faults.clear()

    def close(self) -> None:
        """Stop answering and close the file."""
        self._server.should_exit = True
        self._thread.join(_START_SECONDS)
        self._listener.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_MOST = 1_000_000
_LOOK_SECONDS = 0.5
"""Between two looks without a call: another process may write to the same file."""


def _told(counted: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counted.most_common())

"""A sandbox that is up: in a thread of this process, or as the whole process."""

import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn

from segment_tools.sandbox.app import create_app
from segment_tools.sandbox.connection import Connection
from segment_tools.sandbox.faults import Faults, fault_of
from segment_tools.sandbox.options import Options
from segment_tools.sandbox.store import Store

HOST = "127.0.0.1"
PORT = 8765
_START_SECONDS = 15.0
_BACKLOG = 2048


def bind(port: int) -> socket.socket:
    """A listening socket on this machine; port 0 takes any free one.

    Raises:
        OSError: the port is taken.
    """
    # With its protocol named asyncio sends small answers at once (TCP_NODELAY): 1 ms instead of 44.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def bind_near(port: int) -> socket.socket:
    """A listening socket on the port, or on any free one where that is taken."""
    with suppress(OSError):
        return bind(port)
    return bind(0)


def server(store: Store, options: Options, faults: Faults | None = None) -> uvicorn.Server:
    """The sandbox on the store, not yet running; `faults` are those of the options unless given."""
    app = create_app(store, options, faults or Faults(options.faults))
    config = uvicorn.Config(
        app,
        http=Connection,
        log_level="warning",
        access_log=False,
        lifespan="on" if options.webhooks.all else "off",
        ws="none",
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


class Sandbox:
    """A sandbox in a thread of its own, up when the constructor returns.

    `db` is a file, or `:memory:`. `url` is what `SEGMENT_DATA_PLANE_URL`
    takes. Close it, or use it as a context manager.
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

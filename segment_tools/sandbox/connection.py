"""uvicorn's connection, in the hands of the application: it may end one without an answer."""

import asyncio
import socket
import struct
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

_NO_LINGER = struct.pack("ii", 1, 0)
"""SO_LINGER's on and 0 seconds: what is closed then is reset."""


class Connection(H11Protocol):
    """A connection that an application finds in its scope, as `scope["state"]["connection"]`."""

    app_state: dict[str, Any]
    held = False
    """Whether its answer is held back: the server does not wait for it when it stops."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """What asyncio calls first."""
        self.gone = asyncio.Event()
        self.app_state = {**self.app_state, "connection": self}
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """What asyncio calls last."""
        super().connection_lost(exc)
        self.app_state = {}
        self.gone.set()

    def shutdown(self) -> None:
        """What uvicorn asks of each connection when it stops."""
        if self.held:
            self.transport.close()
        else:
            super().shutdown()

    async def close(self) -> None:
        """End it, without an answer where none has begun."""
        self.transport.close()
        await self.gone.wait()

    async def reset(self) -> None:
        """End it with a reset, TCP's way of saying that something broke."""
        own = cast("socket.socket", self.transport.get_extra_info("socket"))
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()
        await self.gone.wait()

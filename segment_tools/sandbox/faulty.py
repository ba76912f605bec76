"""The middleware that lets the planned faults happen."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import cast

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segment_tools.sandbox.connection import Connection
from segment_tools.sandbox.faults import Fault, Faults
from segment_tools.sandbox.http import CODES

_PROFILES = ("/v1/spaces/", "/v1/namespaces/")


class Faulty:
    """An application some of whose requests meet with a fault."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, or let the fault happen that is due."""
        fault = self._faults.due(scope["path"]) if scope["type"] == "http" else None
        if fault is None:
            await self._app(scope, receive, send)
        else:
            await _HAPPEN[fault.kind](fault, self._app, scope, receive, send)


async def _answer(fault: Fault, _: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    # Read first: a connection closed over an unread body is reset, and the answer may be lost with it.
    while (await receive()).get("more_body"):
        pass
    await _response(fault, scope["path"])(scope, receive, send)


def _response(fault: Fault, path: str) -> Response:
    body = fault.body[0] if fault.body else _said(fault.status, path)
    named = next((value for name, value in fault.headers.items() if name.lower() == "content-type"), "json")
    # A text under a content type of its own is a gateway's page, not JSON.
    text = body if isinstance(body, str) and "json" not in named else json.dumps(body)
    bodiless = fault.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
    content = b"" if bodiless else text.encode("utf-8", "replace")
    return Response(content, fault.status, dict(fault.headers), "application/json")


def _said(status: int, path: str) -> dict[str, object]:
    """An error as the path's API puts it. [?] The codes of the statuses that Segment does not document are ours."""
    message = "the sandbox was asked for this fault"
    code = CODES.get(status, "error")
    if path.startswith("/token"):
        return {"error": code, "error_description": message}
    if path.startswith(_PROFILES):
        return {"error": {"code": code, "message": message}}
    return {"success": False, "message": message, "code": code}


async def _slow(fault: Fault, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """What was sent is taken at once; the answer is late."""
    connection = _connection(scope)

    async def late(message: Message) -> None:
        if message["type"] == "http.response.start":
            connection.held = True
            with suppress(TimeoutError):
                await asyncio.wait_for(connection.gone.wait(), fault.seconds)
            connection.held = False
        await send(message)

    await app(scope, receive, late)


async def _hang(_fault: Fault, _app: ASGIApp, scope: Scope, receive: Receive, _send: Send) -> None:
    _connection(scope).held = True
    while (await receive())["type"] != "http.disconnect":
        pass


async def _reset(_fault: Fault, _app: ASGIApp, scope: Scope, _receive: Receive, _send: Send) -> None:
    await _connection(scope).reset()


async def _drop(_: Fault, app: ASGIApp, scope: Scope, receive: Receive, _send: Send) -> None:
    await app(scope, receive, _nowhere)
    await _connection(scope).close()


async def _nowhere(_: Message) -> None:
    """An answer that is not sent."""


def _connection(scope: Scope) -> Connection:
    return cast("Connection", scope["state"]["connection"])


_HAPPEN: dict[str, Callable[[Fault, ASGIApp, Scope, Receive, Send], Awaitable[None]]] = {
    "answer": _answer,
    "slow": _slow,
    "hang": _hang,
    "reset": _reset,
    "drop": _drop,
}

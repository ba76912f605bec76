"""Where Segment's webhooks arrive: a route that takes what is genuine, and a server for it beside stdio."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from socket import socket
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from segment_tools.client import Segment
from segment_tools.errors import SegmentError, Unavailable
from segment_tools.spec.webhooks import Delivery, TooMuch, deliveries_of, genuine

PATH = "/webhooks/segment"
MOST_BYTES = 16 * 1024 * 1024
"""Ours, as the bounds on what stands in it: well over 4,000 messages, Segment's largest batch, of usual size."""

_ANSWER_SECONDS = 4.5
"""Segment waits 5 s. Source: https://segment.com/docs/connections/destinations/catalog/webhooks/."""

_LARGE_BYTES = 64 * 1024
"""From this size on, a body is read in a thread, so that others do not wait for it, and with few others at a time."""

_MOST_LARGE = 4
"""Ours: how many large bodies are received and read at once; their memory is what this bounds."""

_SIGNATURE = re.compile("[0-9a-f]{40}")
_NOT_GENUINE, _UNSIGNED = 401, "X-Signature is missing, or not made with this receiver's secret."

_QUIET_SECONDS = 60.0
"""Ours: how long nothing more is logged of refusals, so that a flood of them does not fill the log."""

_log = logging.getLogger(__name__)


def webhook_route(segment: Segment) -> Route:
    """The route; it answers 200 only once every message of the request is kept for good."""
    segment.reception.listening = True
    refusals, large = _Refusals(segment), asyncio.Semaphore(_MOST_LARGE)

    async def receive(request: Request) -> Response:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS), AsyncExitStack() as held:
                return refusals.noted(await _received(request, segment, partial(held.enter_async_context, large)))
        except ClientDisconnect:
            return _refused(400, "incomplete", "The request broke off.")
        except (TimeoutError, Unavailable):
            _log.warning("a webhook could not be kept in time; Segment is asked to try again")
            return _refused(503, "inbox_unavailable", "The delivery cannot be kept just now. Try again.")
        except SegmentError as error:
            _log.error("a webhook could not be kept: %s", error)
            return _refused(503, error.code, "The delivery cannot be kept: the receiver is not set up well.")

    return Route(PATH, receive, methods=["POST"])


class _Refusals:
    """Counts what is not genuine, and says so now and then: the sender alone is told of each."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._silent_until = 0.0

    def noted(self, answer: Response) -> Response:
        """The answer, noted where it is such a refusal."""
        if answer.status_code == _NOT_GENUINE:
            self._add()
        return answer

    def _add(self) -> None:
        reception, now = self._segment.reception, self._segment.outside.monotonic()
        reception.refused += 1
        if reception.refused == 1 or now >= self._silent_until:
            self._silent_until = now + _QUIET_SECONDS
            _log.warning("a webhook was refused: wrong signature. %s", reception.refusals)


async def _received(request: Request, segment: Segment, in_turn: Callable[[], Awaitable[None]]) -> Response:
    """`in_turn` is waited for once the body turns out to be large."""
    secret, signature = segment.settings.webhook_secret, request.headers.get("x-signature", "").strip(" ")
    if secret is None or not _SIGNATURE.fullmatch(signature):
        return _refused(_NOT_GENUINE, "wrong_signature", _UNSIGNED)
    body = await _body(request, in_turn)
    if body is None:
        return _refused(413, "too_large", f"The body is larger than {MOST_BYTES} bytes.")
    read = (body, signature, secret.get_secret_value())
    found = await asyncio.to_thread(_read, *read) if len(body) > _LARGE_BYTES else _read(*read)
    if isinstance(found, Response):
        return found
    return JSONResponse({"success": True, "stored": await segment.keep(found)})


async def _body(request: Request, in_turn: Callable[[], Awaitable[None]]) -> bytes | None:
    """The body, or None as soon as it is too large."""
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 12 or int(declared) > MOST_BYTES):  # noqa: PLR2004
        return None
    received = bytearray()
    async for part in request.stream():
        if len(received) <= _LARGE_BYTES < len(received) + len(part):
            await in_turn()
        received += part
        if len(received) > MOST_BYTES:
            return None
    return bytes(received)


def _read(body: bytes, signature: str, secret: str) -> tuple[Delivery, ...] | Response:
    """The messages, or why there are none; every refusal is final, for the same body would meet with it again."""
    if not genuine(body, signature, secret):
        return _refused(_NOT_GENUINE, "wrong_signature", _UNSIGNED)
    try:
        return deliveries_of(body)
    except TooMuch as error:
        return _refused(413, "too_large", str(error))
    except ValueError as error:
        return _refused(400, "no_message", str(error))


def _refused(status: int, code: str, text: str) -> Response:
    said: dict[str, Any] = {"success": False, "error": {"code": code, "message": text}}
    return Response(json.dumps(said), status, media_type="application/json")


@asynccontextmanager
async def receiving(segment: Segment, listener: socket, started: Callable[[str], None]) -> AsyncGenerator[None]:
    """Receive webhooks on the listening socket meanwhile; `started` is told where."""
    import uvicorn  # for this alone: it would delay the answer to a host on stdio

    class Server(uvicorn.Server):
        """One that leaves the process's signals alone."""

        @contextmanager
        def capture_signals(self) -> Generator[None]:
            yield

    app = Starlette(routes=[webhook_route(segment)])
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=2
    )
    server = Server(config)
    host, port = listener.getsockname()[:2]
    started(f"webhooks at http://{f'[{host}]' if ':' in host else host}:{port}{PATH}")
    serving = asyncio.create_task(server.serve([listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving

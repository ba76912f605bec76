"""The Tracking API's routes: read, judge, keep, answer.

Source: https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/.
"""

from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from segment_tools.sandbox.http import authorization, basic_user, kept, read
from segment_tools.sandbox.json_text import Body, batch_of, object_of
from segment_tools.sandbox.judge import TYPES, verdicts
from segment_tools.sandbox.oauth import Tokens
from segment_tools.sandbox.pixel import GIF, message_of
from segment_tools.sandbox.sources import Sources
from segment_tools.sandbox.store import Arrival, Store
from segment_tools.spec import limits

BATCH_BODY_BYTES = 500 * 1024
"""[?] Segment says "500 KB"; read generously, so that the largest batch of its own Python library is taken."""

BATCH = "batch"
PATHS = {
    **{kind: kind for kind in TYPES},
    **{kind[0]: kind for kind in TYPES},
    **dict.fromkeys(("batch", "import", "b"), BATCH),
}
"""Path below `/v1`, and the type of message it takes. The one-letter paths are the browser library's, `import` is of
old."""

_Handler = Callable[[Request], Awaitable[Response]]


def routes(store: Store, sources: Sources, tokens: Tokens) -> list[Route]:
    """The routes below `/v1`."""
    return [
        *(Route(f"/{path}", _taking(store, sources, tokens, kind), methods=["POST"]) for path, kind in PATHS.items()),
        Route("/m", _metrics, methods=["POST"]),
        Route("/pixel/{kind}", _pixel(store, sources, tokens), methods=["GET"]),
        Route("/projects/{write_key}/settings", _settings(sources), methods=["GET"]),
    ]


def _taking(store: Store, sources: Sources, tokens: Tokens, kind: str) -> _Handler:
    """The route of one path."""
    limit = BATCH_BODY_BYTES if kind == BATCH else limits.MESSAGE_BYTES
    parsed = batch_of if kind == BATCH else _single

    async def take(request: Request) -> Response:
        text = await read(request, limit)
        try:
            done = _judged(store, sources, tokens, request, parsed(text), kind)
        except ValueError:
            raise HTTPException(400, "malformed JSON") from None
        await kept(done)
        return JSONResponse({"success": True})

    return take


def _single(text: bytes) -> Body:
    return Body(object_of(text))


def _judged(store: Store, sources: Sources, tokens: Tokens, request: Request, body: Body, kind: str) -> Future[None]:
    """Judge the messages of a request, to be kept with the verdicts.

    Raises:
        HTTPException: no write key, or a token that is missing or wrong.
        ValueError: an item is no JSON.
    """
    write_key = _write_key(request, body.fields)
    source = sources.name_of(write_key)
    tokens.admit(*authorization(request), source)
    found = verdicts(body, kind if kind != BATCH else None)
    if not sources.knows(write_key):
        for verdict in found:
            verdict.discarded = "unknown_source"
    sent_at = body.fields.get("sentAt")
    at = sent_at if isinstance(sent_at, str) else None
    arrival = Arrival(datetime.now(UTC), request.url.path, source, at)
    return store.add(arrival, found)


def _write_key(request: Request, body: dict[str, Any]) -> str:
    """The key from Basic authentication, else from the body. [?] Which of two goes first is not documented."""
    scheme, value = authorization(request)
    key: object = basic_user(value) if scheme == "basic" else body.get("writeKey")
    if not isinstance(key, str) or not key:
        raise HTTPException(400, "no write key: send it by Basic authentication or as writeKey")
    return key


def _pixel(store: Store, sources: Sources, tokens: Tokens) -> _Handler:
    """The pixel route, which answers with its image whatever it was asked."""

    async def pixel(request: Request) -> Response:
        with suppress(ValueError, RecursionError, HTTPException):
            kind = request.path_params["kind"]
            if kind in TYPES:
                await kept(_judged(store, sources, tokens, request, Body(message_of(request.query_params)), kind))
        return Response(GIF, media_type="image/gif", headers={"Cache-Control": "no-store"})

    return pixel


def _settings(sources: Sources) -> _Handler:
    """What the browser library reads first: the source's destinations. [?] Reduced to what it cannot do without."""

    async def settings(request: Request) -> Response:
        write_key = request.path_params["write_key"]
        if not sources.knows(write_key):
            raise HTTPException(404, "no source has this write key")
        return JSONResponse({"integrations": {"Segment.io": {"apiKey": write_key}}, "plan": {}})

    return settings


async def _metrics(_: Request) -> Response:
    """What the browser library tells of itself: answered, not kept."""
    return JSONResponse({"success": True})

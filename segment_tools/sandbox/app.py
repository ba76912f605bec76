"""The sandbox's HTTP face: Segment's tracking paths, and `/_sandbox/messages` to see what became of what they took."""

import base64
import json
import re
import sqlite3
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from segment_tools.sandbox.json_text import object_of
from segment_tools.sandbox.judge import REASONS, TYPES, verdicts
from segment_tools.sandbox.pixel import GIF, message_of
from segment_tools.sandbox.sources import Sources
from segment_tools.sandbox.store import FILTERS, Arrival, Store
from segment_tools.spec import limits

BATCH_BODY_BYTES = 500 * 1024
"""[?] Segment says "500 KB"; read generously, so that the largest batch of its own Python library is taken."""

LIMIT, MOST = 100, 10_000
"""How many messages a look answers with, unless told otherwise, and at most."""

BATCH = "batch"
PATHS = {
    **{kind: kind for kind in TYPES},
    **{kind[0]: kind for kind in TYPES},
    **dict.fromkeys(("batch", "import", "b"), BATCH),
}
"""Path below `/v1`, and the type of message it takes. Source: https://segment.com/docs/connections/sources/catalog/
libraries/server/http-api/; the one-letter paths are the browser library's, `import` is of old."""

_T = TypeVar("_T")
_Handler = Callable[[Request], Awaitable[Response]]


def create_app(store: Store, sources: Sources | None = None) -> Starlette:
    """A sandbox on the store. It answers to this machine's own names alone."""
    known = sources or Sources()

    async def look(request: Request) -> Response:
        found = await _unlocked(store.messages, *_query(request))
        # With escapes: what somebody sent may hold half a character, which only an escape can carry.
        return Response(json.dumps({"messages": found}), media_type="application/json")

    async def clear(_: Request) -> Response:
        return JSONResponse({"deleted": await _unlocked(store.clear)})

    segment = [
        *(Route(f"/{path}", _taking(store, known, kind), methods=["POST"]) for path, kind in PATHS.items()),
        Route("/m", _metrics, methods=["POST"]),
        Route("/pixel/{kind}", _pixel(store, known), methods=["GET"]),
        Route("/projects/{write_key}/settings", _settings(known), methods=["GET"]),
    ]
    app = Starlette(
        routes=[
            Mount("/v1", routes=segment, middleware=[Middleware(CORSMiddleware, **_ANY_PAGE)]),
            Route("/_sandbox/messages", look, methods=["GET"]),
            Route("/_sandbox/messages", clear, methods=["DELETE"]),
            Route("/_sandbox/reasons", _reasons, methods=["GET"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
        exception_handlers={HTTPException: _refused},
    )
    app.router.redirect_slashes = False  # Segment does not know the other form either
    return app


_ANY_PAGE: dict[str, Any] = {"allow_origins": ["*"], "allow_methods": ["GET", "POST"], "allow_headers": ["*"]}
"""What Segment's own address answers to browsers: the browser library sends from customers' pages."""


def _taking(store: Store, sources: Sources, kind: str) -> _Handler:
    """The route of one path: read, judge, keep, answer."""
    limit = BATCH_BODY_BYTES if kind == BATCH else limits.MESSAGE_BYTES

    async def take(request: Request) -> Response:
        body = _object(await _read(request, limit))
        await _keep(store, sources, request, body, kind)
        return JSONResponse({"success": True})

    return take


async def _keep(store: Store, sources: Sources, request: Request, body: dict[str, Any], kind: str) -> None:
    """Judge the messages of a request and keep them with the verdicts.

    Raises:
        HTTPException: no write key, or the file cannot be written.
    """
    write_key = _write_key(request, body)
    found = verdicts(body, kind if kind != BATCH else None)
    if not sources.knows(write_key):
        found = [replace(verdict, discarded="unknown_source") for verdict in found]
    arrival = Arrival(datetime.now(UTC), request.url.path, sources.name_of(write_key))
    await _unlocked(store.add, arrival, found, body.get("sentAt"))


async def _unlocked(work: Callable[..., _T], *arguments: Any) -> _T:
    """The store's answer, waited for beside other requests."""
    try:
        return await run_in_threadpool(work, *arguments)
    except sqlite3.OperationalError:
        raise HTTPException(503, "the sandbox's file is locked or full") from None


def _pixel(store: Store, sources: Sources) -> _Handler:
    """The pixel route, which answers with its image whatever it was asked."""

    async def pixel(request: Request) -> Response:
        with suppress(ValueError, RecursionError, HTTPException):
            kind = request.path_params["kind"]
            if kind in TYPES:
                await _keep(store, sources, request, message_of(request.query_params), kind)
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


async def _reasons(_: Request) -> Response:
    """What every discard code means."""
    return JSONResponse(REASONS)


async def _refused(_: Request, error: Exception) -> Response:
    """Segment's error shape. [?] Known from a fixture of its own Node library alone."""
    refusal = cast("HTTPException", error)
    codes = {400: "invalid_request", 404: "not_found", 405: "method_not_allowed", 503: "unavailable"}
    said = {"success": False, "message": refusal.detail, "code": codes[refusal.status_code]}
    return JSONResponse(said, refusal.status_code, refusal.headers)


async def _read(request: Request, limit: int) -> bytes:
    """The body, inflated where it is gzipped; the limit is one of what was inflated. [?] Segment does not say which."""
    body = bytearray()
    inflate = zlib.decompressobj(_GZIP) if request.headers.get("content-encoding", "").lower() == "gzip" else None
    try:
        async for part in request.stream():
            body += inflate.decompress(part, limit + 1 - len(body)) if inflate else part
            if len(body) > limit:
                raise HTTPException(400, "Exceed payload limit")
    except (ClientDisconnect, zlib.error):
        raise HTTPException(400, "malformed JSON") from None
    if inflate and (inflate.unused_data or not inflate.eof):
        raise HTTPException(400, "malformed JSON")
    return bytes(body)


_GZIP = 16 + zlib.MAX_WBITS
"""zlib's way of saying that the stream has gzip's header."""


def _object(body: bytes) -> dict[str, Any]:
    try:
        return object_of(body)
    except ValueError:
        raise HTTPException(400, "malformed JSON") from None


def _write_key(request: Request, body: dict[str, Any]) -> str:
    """The key from Basic authentication, else from the body. [?] Which of two goes first is not documented."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    key: object = _basic_user(value) if scheme.lower() == "basic" else body.get("writeKey")
    if not isinstance(key, str) or not key:
        raise HTTPException(400, "no write key: send it by Basic authentication or as writeKey")
    return key


def _basic_user(value: str) -> str | None:
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[0]
    except ValueError:
        return None


def _query(request: Request) -> tuple[dict[str, str], bool | None, int]:
    given = dict(request.query_params)
    limit = given.pop("limit", str(LIMIT))
    discarded = given.pop("discarded", None)
    if unknown := set(given) - set(FILTERS):
        raise HTTPException(400, f"unknown filter {min(unknown)[:40]!r}: use {', '.join(FILTERS)}, discarded, limit")
    if not (re.fullmatch("[0-9]{1,5}", limit) and 1 <= int(limit) <= MOST):
        raise HTTPException(400, f"limit must be a number from 1 to {MOST}")
    if discarded not in (None, "true", "false"):
        raise HTTPException(400, "discarded must be true or false")
    return given, None if discarded is None else discarded == "true", int(limit)

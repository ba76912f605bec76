"""What the sandbox's routes share: reading a bounded body, Segment's error shape, the key in Basic authentication."""

import base64
import json
import sqlite3
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive

_T = TypeVar("_T")

_GZIP = 16 + zlib.MAX_WBITS
"""zlib's way of saying that the stream has gzip's header."""

CODES = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    415: "unsupported_media_type",
    429: "too_many_requests",
    500: "internal_error",
    503: "unavailable",
}
"""What an error's `code` says, by its status. [?] Segment documents none but the first."""

_LOCKED = "the sandbox's file is locked or full"


async def refused(_: Request, error: Exception) -> Response:
    """Segment's error shape. [?] Known from a fixture of its own Node library alone."""
    refusal = cast("HTTPException", error)
    said = {"success": False, "message": refusal.detail, "code": CODES.get(refusal.status_code, "error")}
    return JSONResponse(said, refusal.status_code, refusal.headers)


def shown(found: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The answer as JSON with escapes: what somebody sent may hold half a character, which only an escape carries."""
    return Response(json.dumps(found, separators=(",", ":")), status, headers, "application/json")


async def failed(_: Request, __: Exception) -> Response:
    """The answer where the sandbox itself is at fault; the server logs why."""
    return JSONResponse({"success": False, "message": "the sandbox failed: see its log", "code": "internal_error"}, 500)


async def read(headers: Headers, receive: Receive, limit: int) -> bytes:
    """The body, inflated where it is gzipped; the limit is one of what was inflated. [?] Segment does not say which.

    Raises:
        HTTPException: it is larger, or was cut off.
    """
    inflate = zlib.decompressobj(_GZIP) if headers.get("content-encoding", "").lower() == "gzip" else None
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise HTTPException(400, "malformed JSON")
        part, more = message.get("body", b""), message.get("more_body", False)
        try:
            body += inflate.decompress(part, limit + 1 - len(body)) if inflate else part
        except zlib.error:
            raise HTTPException(400, "malformed JSON") from None
        if len(body) > limit:
            raise HTTPException(400, "Exceed payload limit")
    if inflate and (inflate.unused_data or not inflate.eof):
        raise HTTPException(400, "malformed JSON")
    return bytes(body)


def authorization(headers: Headers) -> tuple[str, str]:
    """The scheme in lower case and what follows it; empty texts without the header."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return scheme.lower(), value.strip()


def basic_user(value: str) -> str | None:
    """The user in Basic authentication's value, where Segment puts its keys; None where it cannot be read."""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[0]
    except ValueError:
        return None


async def looked_up(work: Callable[..., _T], *arguments: Any) -> _T:
    """What the store says, waited for beside other requests.

    Raises:
        HTTPException: its file is locked.
    """
    try:
        return await run_in_threadpool(work, *arguments)
    except sqlite3.OperationalError:
        raise HTTPException(503, _LOCKED) from None


async def kept(done: Awaitable[None]) -> None:
    """Wait until the store has written.

    Raises:
        HTTPException: its file is locked or full.
    """
    try:
        await done
    except sqlite3.OperationalError:
        raise HTTPException(503, _LOCKED) from None

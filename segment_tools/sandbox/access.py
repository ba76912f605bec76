"""Who may look at what a sandbox took, where others than this machine can reach it."""

import hashlib
import hmac
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

COOKIE = "segment_sandbox"
LOCAL = ("127.0.0.1", "localhost", "::1")


def is_local(host: str) -> bool:
    """Whether a server bound to this host can be reached by this machine alone."""
    return host.lower() in LOCAL


_FORM = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Segment sandbox</title></head>
<body><main><h1>Segment sandbox</h1>
<form><p><label>Token <input type="password" name="token" required autofocus></label> <button>Open</button></p></form>
<p>It is what the sandbox was started with: --token, or SEGMENT_SANDBOX_TOKEN.</p></main></body></html>
"""
_FORM_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Local:
    """Answers to this machine's own names alone: a page elsewhere could give its name this machine's address."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer, or refuse."""
        if scope["type"] != "http" or is_local(_name(Headers(scope=scope).get("host", ""))):
            await self._app(scope, receive, send)
            return
        said = {
            "success": False,
            "code": "invalid_request",
            "message": "Invalid host header: this sandbox answers to 127.0.0.1 and localhost alone",
        }
        await JSONResponse(said, 400)(scope, receive, send)


def _name(host: str) -> str:
    """The host without its port; IPv6 addresses without their brackets."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


class Guard:
    """Wants the token for the debugger and for `/_sandbox`, in `Authorization: Bearer` or the cookie it gives out.

    Segment's own paths stay as they are: write keys, access tokens and OAuth guard those.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token
        self._cookie = hashlib.sha256(f"segment-tools sandbox {token}".encode()).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the application answer."""
        path: str = scope.get("path", "")
        if scope["type"] != "http" or not (path == "/" or path.startswith("/_sandbox")):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if path == "/" and _same(_in_query(scope), self._token):
            await self._admitted(scope, receive, send)
        elif _same(_bearer(headers), self._token) or _same(_in_cookie(headers), self._cookie):
            await self._app(scope, receive, send)
        else:
            said = {
                "success": False,
                "code": "unauthorized",
                "message": "This sandbox wants its token: open /?token=..., or send Authorization: Bearer ...",
            }
            wants_page = path == "/" and "text/html" in headers.get("accept", "")
            answer = Response(_FORM, 401, _FORM_HEADERS, "text/html") if wants_page else JSONResponse(said, 401)
            await answer(scope, receive, send)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The page without the token in its address, and the cookie in its place."""
        response: Response = RedirectResponse("/", 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
        response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict")
        await response(scope, receive, send)


def _same(given: str | None, wanted: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), wanted.encode())


def _in_query(scope: Scope) -> str | None:
    return parse_qs(scope["query_string"].decode("latin-1")).get("token", [None])[0]


def _bearer(headers: Mapping[str, str]) -> str | None:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else None


def _in_cookie(headers: Mapping[str, str]) -> str | None:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return found.value if found else None

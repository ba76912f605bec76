"""A guard before what changes the sandbox: another web page in the same browser may not."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

_SAFE = ("GET", "HEAD", "OPTIONS")


class SameOrigin:
    """Refuses a changing request whose Origin is not the address it was sent to; programs send no Origin."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on.

        Raises:
            HTTPException: it comes from another page.
        """
        if scope["type"] == "http" and scope["method"] not in _SAFE and not _from_here(Headers(scope=scope)):
            raise HTTPException(403, "another web page may not change the sandbox")
        await self._app(scope, receive, send)


def _from_here(headers: Headers) -> bool:
    origins = headers.getlist("origin")
    return all(_host_of(origin) == headers.get("host", "").lower() for origin in origins)


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None

"""The Tracking API's routes: read, judge, keep, answer.

Source: https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from segment_tools.sandbox.faults import Faults
from segment_tools.sandbox.http import authorization, basic_user, kept, read, refused
from segment_tools.sandbox.intake import Intake
from segment_tools.sandbox.json_text import Body, batch_of, encoded, object_of
from segment_tools.sandbox.judge import TYPES, column, verdicts
from segment_tools.sandbox.oauth import Tokens
from segment_tools.sandbox.options import Options
from segment_tools.sandbox.pixel import GIF, message_of
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

_HOSTS = ("127.0.0.1", "localhost")

_TAKEN = (
    {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-length", b"16"), (b"content-type", b"application/json")],
    },
    {"type": "http.response.body", "body": b'{"success":true}'},
)


class Tracking:
    """What takes messages into one store: its routes, and a shortcut to them."""

    def __init__(self, store: Store, options: Options, tokens: Tokens, faults: Faults) -> None:
        self._intake = Intake(store)
        self._sources, self._tokens, self._faults = options.sources, tokens, faults
        self._destinations = (*options.destinations, *(["Webhooks"] if options.webhooks.all else []))
        self._taking = {path: _Taking(self, kind) for path, kind in PATHS.items()}

    def routes(self) -> list[Route]:
        """The routes below `/v1`."""
        return [
            *(Route(f"/{path}", taking, methods=["POST"]) for path, taking in self._taking.items()),
            Route("/m", _metrics, methods=["POST"]),
            Route("/pixel/{kind}", self._pixel, methods=["GET"]),
            Route("/projects/{write_key}/settings", self._settings, methods=["GET"]),
        ]

    def shortcut(self, app: ASGIApp) -> ASGIApp:
        """The app, with what servers send taken before it: routes and middleware cost as much as reading 100 messages.

        A browser, whoever calls this machine by another name, and all while a fault is due go the whole way.
        """
        direct = {f"/v1/{path}": taking for path, taking in self._taking.items()}

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            taking = direct.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
            if taking is None or not self._faults.idle or not _is_from_a_server(Headers(scope=scope)):
                await app(scope, receive, send)
                return
            try:
                await taking(scope, receive, send)
            except HTTPException as error:
                await (await refused(Request(scope), error))(scope, receive, send)

        return answer

    async def take(self, path: str, headers: Headers, body: Body, kind: str) -> None:
        """Judge the messages of a request and keep them with the verdicts.

        Raises:
            HTTPException: no write key, a token that is missing or wrong, an item that is no JSON, or the file is
                locked or full.
        """
        write_key = _write_key(headers, body.fields)
        source = self._sources.name_of(write_key)
        self._tokens.admit(*authorization(headers), source)
        try:
            found = verdicts(body, kind if kind != BATCH else None)
        except ValueError:
            raise HTTPException(400, "malformed JSON") from None
        if not self._sources.knows(write_key):
            found = [verdict._replace(discarded="unknown_source") for verdict in found]
        at = column(body.fields.get("sentAt"))
        await kept(self._intake.keep(Arrival(datetime.now(UTC), path, source, at), found))

    async def _pixel(self, request: Request) -> Response:
        """The pixel route, which answers with its image whatever it was asked."""
        with suppress(ValueError, RecursionError, HTTPException):
            kind = request.path_params["kind"]
            if kind in TYPES:
                text = encoded(message_of(request.query_params))
                if len(text) <= limits.MESSAGE_BYTES:
                    await self.take(request.url.path, request.headers, Body(object_of(text)), kind)
        return Response(GIF, media_type="image/gif", headers={"Cache-Control": "no-store"})

    async def _settings(self, request: Request) -> Response:
        """What the browser library reads first: the source's destinations. [?] Reduced to what it cannot do without."""
        write_key = request.path_params["write_key"]
        if not self._sources.knows(write_key):
            raise HTTPException(404, "no source has this write key")
        fed = {name: dict[str, str]() for name in self._destinations}
        return JSONResponse({"integrations": {**fed, "Segment.io": {"apiKey": write_key}}, "plan": {}})


def _is_from_a_server(headers: Headers) -> bool:
    return "origin" not in headers and headers.get("host", "").partition(":")[0] in _HOSTS


class _Taking:
    """The route of one path, as an application."""

    def __init__(self, tracking: Tracking, kind: str) -> None:
        self._tracking, self._kind = tracking, kind
        self._limit = BATCH_BODY_BYTES if kind == BATCH else limits.MESSAGE_BYTES
        self._parsed = batch_of if kind == BATCH else _single

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        text = await read(headers, receive, self._limit)
        try:
            body = self._parsed(text)
        except ValueError:
            raise HTTPException(400, "malformed JSON") from None
        await self._tracking.take(scope["path"], headers, body, self._kind)
        for message in _TAKEN:
            await send(message)


def _single(text: bytes) -> Body:
    return Body(object_of(text))


def _write_key(headers: Headers, body: dict[str, Any]) -> str:
    """The key from Basic authentication, else from the body. [?] Which of two goes first is not documented."""
    scheme, value = authorization(headers)
    key: object = basic_user(value) if scheme == "basic" else body.get("writeKey")
    if not isinstance(key, str) or not key:
        raise HTTPException(400, "no write key: send it by Basic authentication or as writeKey")
    return key


async def _metrics(_: Request) -> Response:
    """What the browser library tells of itself: answered, not kept."""
    return JSONResponse({"success": True})

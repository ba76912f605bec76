"""The debugger: a page that shows live what becomes of every message, and the routes it asks."""

import hashlib
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from segment_tools.sandbox.again import curl, tool_call
from segment_tools.sandbox.counts import counts
from segment_tools.sandbox.http import looked_up, shown
from segment_tools.sandbox.judge import REASONS
from segment_tools.sandbox.looking import look_of
from segment_tools.sandbox.store import Store

_FILES = Path(__file__).with_name("debugger_page")
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_routes() -> list[Route]:
    """The route of the page itself, at the root."""
    return [_file("/", "debugger.html")]


def routes(store: Store) -> list[Route]:
    """The routes below `/_sandbox`."""

    async def summaries(request: Request) -> Response:
        asked = look_of(request.query_params)
        # Asked first: a message that comes in between is told twice, by the list and by the stream, and not missed.
        last = await looked_up(store.last)
        found = await looked_up(store.summaries, asked.filters, asked.discarded, asked.limit, asked.before, asked.after)
        return shown({"messages": found, "last": last})

    async def message(request: Request) -> Response:
        number = request.path_params["sequence"]
        found = await looked_up(store.message, int(number)) if re.fullmatch("[0-9]{1,15}", number) else None
        if found is None:
            raise HTTPException(404, "no message has this sequence number")
        sent = found["sent"]
        return shown({
            **found,
            "meaning": REASONS.get(found["discarded"]),
            "curl": curl(sent, found["discarded"], found["path"], str(request.base_url).rstrip("/")),
            "toolCall": tool_call(sent),
        })  # fmt: skip

    async def count(_: Request) -> Response:
        return shown(await looked_up(counts, store, datetime.now(UTC)))

    async def sources(_: Request) -> Response:
        return shown({"sources": await looked_up(store.sources)})

    scripts = sorted((_FILES / "debugger").glob("*.js"))
    return [
        _file("/debugger.css", "debugger.css"),
        _file("/debugger.js", "debugger.js"),
        *(_file(f"/debugger/{script.name}", f"debugger/{script.name}") for script in scripts),
        Route("/summaries", summaries, methods=["GET"]),
        Route("/messages/{sequence}", message, methods=["GET"]),
        Route("/counts", count, methods=["GET"]),
        Route("/sources", sources, methods=["GET"]),
    ]


def _file(path: str, name: str) -> Route:
    """The route of one of the page's files, which the browser asks for anew each time and gets when it changed."""
    media_type = _TYPES[Path(name).suffix]

    async def serve(request: Request) -> Response:
        content, tag = _read(name)
        headers = {**_HEADERS, "ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    return Route(path, serve, methods=["GET"])


@cache
def _read(name: str) -> tuple[bytes, str]:
    """The file and its tag, read when it is first asked for."""
    content = (_FILES / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:16]}"'

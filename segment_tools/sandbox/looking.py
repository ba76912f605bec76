"""`/_sandbox/messages` and its like: what became of what the sandbox took."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from segment_tools.sandbox.http import looked_up, shown
from segment_tools.sandbox.judge import REASONS
from segment_tools.sandbox.store import FILTERS, Store

LIMIT, MOST = 100, 10_000
"""How many messages a look answers with, unless told otherwise, and at most."""

MOST_TEXT = 1_000
"""Longer texts take SQLite long to look for."""


@dataclass(frozen=True, slots=True)
class Look:
    """A query for messages, checked."""

    filters: Mapping[str, str]
    discarded: bool | None
    limit: int
    before: int | None
    after: int | None


def routes(store: Store) -> list[Route]:
    """The routes below `/_sandbox`."""

    async def look(request: Request) -> Response:
        asked = look_of(request.query_params)
        if asked.after is not None:
            raise HTTPException(400, "after belongs to /_sandbox/summaries and /_sandbox/stream")
        found = await looked_up(store.messages, asked.filters, asked.discarded, asked.limit, asked.before)
        return shown({"messages": found})

    async def clear(_: Request) -> Response:
        return JSONResponse({"deleted": await looked_up(store.clear)})

    return [
        Route("/messages", look, methods=["GET"]),
        Route("/messages", clear, methods=["DELETE"]),
        Route("/reasons", _reasons, methods=["GET"]),
    ]


async def _reasons(_: Request) -> Response:
    """What every discard code means."""
    return JSONResponse(REASONS)


def look_of(query: Mapping[str, str]) -> Look:
    """The query's meaning.

    Raises:
        HTTPException: it has none.
    """
    given = dict(query)
    limit = limit_of(given.pop("limit", str(LIMIT)))
    before, after = (_sequence(given.pop(name, None), name) for name in ("before", "after"))
    discarded = given.pop("discarded", None)
    if unknown := set(given) - set(FILTERS):
        known = ", ".join((*FILTERS, "discarded", "limit", "before"))
        raise HTTPException(400, f"unknown filter {min(unknown)[:40]!r}: use {known}")
    if len(given.get("text", "")) > MOST_TEXT:
        raise HTTPException(400, f"text must have at most {MOST_TEXT} characters")
    if discarded not in (None, "true", "false"):
        raise HTTPException(400, "discarded must be true or false")
    return Look(given, None if discarded is None else discarded == "true", limit, before, after)


def limit_of(text: str) -> int:
    """How many to answer with.

    Raises:
        HTTPException: it is no number, or too large.
    """
    return number(text, "limit", 1, MOST)


def _sequence(text: str | None, name: str) -> int | None:
    return None if text is None else number(text, name, 0, 10**15)


def number(text: str, name: str, least: int, most: int) -> int:
    """The number of a parameter.

    Raises:
        HTTPException: it is none, or beyond its bounds.
    """
    if not (re.fullmatch("[0-9]{1,16}", text) and least <= int(text) <= most):
        raise HTTPException(400, f"{name} must be a number from {least} to {most}")
    return int(text)

"""Who calls: what a host's own retry of a call has in common with the call, and which session it belongs to."""

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import uuid4

from mcp.server.context import ServerRequestContext

from segment_tools.guard import Origin

WINDOW_SECONDS = 600
"""Ours. Over stateless HTTP nothing tells one conversation's first request from another's; of the same content from
the same client, only those of the same ten minutes are taken for one."""


class Calls:
    """Names the calls of one server; where connections last, ids of requests are unique within this process."""

    def __init__(self, *, lasting: bool, now: Callable[[], datetime]) -> None:
        self._lasting, self._now = lasting, now
        self._process = str(uuid4())

    def named(self, context: ServerRequestContext[Any, Any]) -> str | None:
        """A name for the request: the same when it comes again."""
        if context.request_id is None:
            return None
        return f"{self._origin(context)}\0{context.request_id!r}"

    def _origin(self, context: ServerRequestContext[Any, Any]) -> str:
        if self._lasting:
            return self._process
        window = int(self._now().timestamp()) // WINDOW_SECONDS
        return f"{window}\0{self._client(context)}"

    def from_whom(self, context: ServerRequestContext[Any, Any]) -> Origin:
        """The session of the request: the connection where it lasts, else the client as its headers tell it apart."""
        params = context.session.client_params
        known = f"{params.client_info.name} {params.client_info.version}" if params else ""
        headers = getattr(context.request, "headers", {})
        session = self._process if self._lasting else self._client(context)
        return Origin(session, known or headers.get("user-agent", ""), str(context.request_id))

    @staticmethod
    def _client(context: ServerRequestContext[Any, Any]) -> str:
        headers = getattr(context.request, "headers", {})
        client = "\0".join(headers.get(name, "") for name in ("authorization", "user-agent", "mcp-session-id"))
        return hashlib.sha256(client.encode(errors="surrogateescape")).hexdigest()

"""Who calls: what a host's own retry of a call has in common with the call, and which session it belongs to."""

import hashlib
from collections.abc import Callable, Mapping
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

    def of(self, context: ServerRequestContext[Any, Any]) -> tuple[str | None, Origin]:
        """A name for the request, the same when it comes again, and whose it is.

        A session is the connection where it lasts, else the client as its headers tell it apart.
        """
        headers = getattr(context.request, "headers", {})
        session = self._process if self._lasting else self._client(headers)
        params = context.session.client_params
        known = f"{params.client_info.name} {params.client_info.version}" if params else ""
        whose = Origin(session, known or headers.get("user-agent", ""), str(context.request_id))
        return self._name(context.request_id, session), whose

    def _name(self, request: object, session: str) -> str | None:
        if request is None:
            return None
        origin = session if self._lasting else f"{int(self._now().timestamp()) // WINDOW_SECONDS}\0{session}"
        return f"{origin}\0{request!r}"

    @staticmethod
    def _client(headers: Mapping[str, str]) -> str:
        client = "\0".join(headers.get(name, "") for name in ("authorization", "user-agent", "mcp-session-id"))
        return hashlib.sha256(client.encode(errors="surrogateescape")).hexdigest()

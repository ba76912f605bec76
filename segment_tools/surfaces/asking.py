"""How a person is asked over MCP: by a request in the revisions of 2025, by a result that wants input since 2026."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError
from mcp.types import (
    CallToolRequestParams,
    ElicitRequest,
    ElicitRequestedSchema,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from segment_tools.errors import PENDING, Refused
from segment_tools.guard import Decision, unavailable
from segment_tools.settings import Settings

ANSWER_SECONDS = 600.0
"""Ours: for how long a question waits for its answer."""

MOST_ANSWERED = 100_000
"""Ours, some 10 MB: how many answers are known for as long as their questions hold."""

_NOTHING_ELSE: ElicitRequestedSchema = {"type": "object", "properties": {}}
"""There is nothing to fill in: to accept is to agree."""

_CONSENT = "consent"


class Consent:
    """What the calls of one server have in common: each answer lets one call go, in this process."""

    def __init__(self, settings: Settings, name: str, monotonic: Callable[[], float]) -> None:
        self.boundary = _boundary(settings, name)
        """For the server's middleware."""
        self._monotonic = monotonic
        self._until: OrderedDict[str, float] = OrderedDict()

    def asking(self, context: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> "Asking":
        """For one call."""
        return Asking(context, params, self)

    def first(self, question: str) -> bool:
        """Whether this is the first answer to the question."""
        now = self._monotonic()
        while self._until and (len(self._until) > MOST_ANSWERED or next(iter(self._until.values())) <= now):
            self._until.popitem(last=False)
        if question in self._until:
            return False
        self._until[question] = now + ANSWER_SECONDS
        return True


def _boundary(settings: Settings, name: str) -> RequestStateBoundary:
    """Seals what comes back with an answer: no other call, nor the same with other arguments, can use it.

    Replicas with the same keys understand each other's.
    """
    key = hashlib.sha256("\0".join(("consent", *settings.secrets)).encode()).digest()
    security = (
        RequestStateSecurity(keys=[key], ttl=ANSWER_SECONDS)
        if settings.secrets
        else RequestStateSecurity.ephemeral(ttl=ANSWER_SECONDS)
    )
    return RequestStateBoundary(security, default_audience=name)


class Asking:
    """Asks whoever sits at the host of one call."""

    def __init__(
        self, context: ServerRequestContext[Any, Any], params: CallToolRequestParams, consent: Consent
    ) -> None:
        self._context, self._params, self._consent = context, params, consent
        self.open: InputRequiredResult | None = None
        """The question, where it is to be shown instead of a result; the call then comes again with the answer."""

    async def __call__(self, question: str) -> Decision:
        """What the person says.

        Raises:
            Refused: they cannot be asked, or will be by `open`.
        """
        capabilities = self._context.session.client_capabilities
        elicitation = capabilities.elicitation if capabilities else None
        if elicitation is None or (elicitation.form is None and elicitation.url is not None):
            raise unavailable("this host cannot ask one: it lacks MCP elicitation")
        if self._context.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return self._by_result(question)
        return await self._by_request(question)

    async def _by_request(self, question: str) -> Decision:
        session = self._context.session
        if not session.can_send_request:
            raise unavailable("over HTTP this revision of MCP has no way to ask one here; 2026-07-28 or stdio has")
        try:
            with anyio.fail_after(ANSWER_SECONDS):
                result = await session.elicit_form(question, _NOTHING_ELSE, related_request_id=self._context.request_id)
        except TimeoutError:
            return "cancel"
        except (MCPError, ValueError):  # the host answered with an error, or with something else
            raise unavailable("the host failed to ask one") from None
        return result.action

    def _by_result(self, question: str) -> Decision:
        digest = hashlib.sha256(question.encode(errors="surrogatepass")).hexdigest()
        state: dict[str, str] = json.loads(self._params.request_state or "{}")
        answer = (self._params.input_responses or {}).get(_CONSENT)
        if isinstance(answer, ElicitResult) and state.get("asked") == digest and self._consent.first(state["id"]):
            return answer.action
        self.open = InputRequiredResult(
            input_requests={
                _CONSENT: ElicitRequest(
                    params=ElicitRequestFormParams(message=question, requested_schema=_NOTHING_ELSE)
                )
            },
            request_state=json.dumps({"asked": digest, "id": str(uuid4())}),
        )
        pending = Refused(PENDING, "A person is asked first.", retry_after_seconds=0)
        pending.counted = True  # the same call comes again
        raise pending

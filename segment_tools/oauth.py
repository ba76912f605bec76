"""Tokens for sources that enforce OAuth: got by proving to be an app, kept, renewed.

Source: https://segment.com/docs/connections/oauth/, and what Segment's own Python library does.
"""

import asyncio
import logging
import re
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from segment_tools import wire
from segment_tools.attempts import Surroundings, attempted
from segment_tools.errors import NotConfigured, RateLimited, Rejected, Unauthorized, Unavailable, Undelivered
from segment_tools.services import AUTHORIZATION
from segment_tools.settings import Settings
from segment_tools.transport import Transport

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_HEADERS = {
    "Content-Type": "application/x-www-form-urlencoded",
    "Accept": "application/json",
    "User-Agent": wire.USER_AGENT,
}

_BACKDATED_SECONDS, _LIFE_SECONDS = 5, 60
"""Of an assertion. Source: Segment's own libraries."""

_TOKEN_SECONDS = 60.0
"""How long a token lives that does not say so. Source: the same."""

_LONGEST_SECONDS = 366 * 86_400
"""Ours: far beyond the 30 days that are the longest life which Segment offers."""

_LIMITED_SECONDS = 5.0
"""The wait after a 429 that names none. Source: the same."""

_MARGIN_SECONDS = 10.0
"""Ours: so long before its end a token is not used, for the request that carries it must arrive too."""

_RENEWAL_SECONDS = 30.0
"""Ours: how long a renewal in the background may take, and the least time between two that fail."""

_CLOCK = ("token is expired", "token used before issued")
_HINTS = {
    "invalid_client": "Check SEGMENT_OAUTH_CLIENT_ID and SEGMENT_OAUTH_KEY_ID, and that SEGMENT_OAUTH_PRIVATE_KEY is "
    "the private part of that key.",
    "invalid_scope": "Check SEGMENT_OAUTH_SCOPE, and that the app may have that scope.",
    "unauthorized_client": "Check SEGMENT_OAUTH_CLIENT_ID, and that the app may use OAuth.",
    "invalid_request": AUTHORIZATION.rejections[400][1],
}
"""By the `error` of an answer. Only these words of it are repeated."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    renew_at: float
    ends_at: float


class Tokens:
    """The token of the settings' app; whoever asks while one is fetched gets the same."""

    def __init__(self, settings: Settings, outside: Surroundings, transport: Transport | None = None) -> None:
        self._settings = settings
        self._outside = outside
        self._transport = transport or Transport(settings.oauth_endpoint, service=AUTHORIZATION)
        self._current: _Token | None = None
        self._fetching: asyncio.Task[_Token] | None = None
        self._ahead = 0.0
        self._key: RSAPrivateKey | None = None

    async def token(self, seconds: float) -> str:
        """A token that is good for now; from half its life on, a new one is fetched while the old one is used.

        Raises:
            NotConfigured: no app.
            Unauthorized: it gets none; the hint names the settings to check.
            NotFound, Rejected, RateLimited, Unavailable: it got none in time. No message was sent, says `sent`.
        """
        current, now = self._current, self._outside.monotonic()
        if current is not None and now < current.ends_at:
            if now >= current.renew_at:
                self._begin(_RENEWAL_SECONDS)
            return current.text
        return await self._fetched(seconds)

    def drop(self, token: str) -> None:
        """Fetch another next time, since Segment did not take this one (400, 401, 403, 511)."""
        if self._current is not None and self._current.text == token:
            self._current = None

    async def aclose(self) -> None:
        """End what is under way, and close the connections; what was fetched stays."""
        fetching, self._fetching = self._fetching, None
        if fetching is not None and fetching.get_loop() is asyncio.get_running_loop():
            fetching.cancel()
            await asyncio.wait([fetching])
        await self._transport.aclose()

    async def _fetched(self, seconds: float) -> str:
        fetching = self._begin(seconds)
        # Not awaited itself: who waits may be cancelled, and the others still want it.
        await asyncio.wait([fetching], timeout=seconds)
        if not fetching.done() or fetching.cancelled():
            text = f"{AUTHORIZATION.name} gave no token within {seconds:.3g} seconds."
            raise Unavailable(text, hint=AUTHORIZATION.unknown, code="timeout", sent=False)
        error = fetching.exception()
        if isinstance(error, Undelivered):
            raise copy(error)  # one each: what catches it writes into it
        return fetching.result().text

    def _begin(self, seconds: float) -> "asyncio.Task[_Token]":
        """The one request for a token, which goes on when whoever began it is cancelled."""
        loop, fetching = asyncio.get_running_loop(), self._fetching
        if fetching is None or fetching.done() or fetching.get_loop() is not loop:
            fetching = self._fetching = loop.create_task(self._fetch(seconds))
            fetching.add_done_callback(_seen)
        return fetching

    async def _fetch(self, seconds: float) -> _Token:
        try:
            token, _ = await attempted(self._attempt, self._outside, self._outside.monotonic() + seconds)
        except Undelivered as error:
            error.sent = False  # nothing was but the question
            self._put_off(error)
            raise
        self._current = token
        return token

    def _put_off(self, error: Undelivered) -> None:
        """The renewal that failed: the token that there is will do for a while."""
        if self._current is not None:
            _log.warning("the OAuth token could not be renewed yet: %s", error.message)
            self._current = replace(self._current, renew_at=self._outside.monotonic() + _RENEWAL_SECONDS)

    async def _attempt(self, _: int, seconds: float) -> _Token:
        began = self._outside.monotonic()
        answer = await self._asked(seconds)
        if _wrong_clock(answer):  # and now we know by how much
            left = seconds - (self._outside.monotonic() - began)
            answer = await self._asked(max(0.001, left))
        return self._granted(answer, began)

    async def _asked(self, seconds: float) -> wire.Answer:
        answer = await self._transport.post("/token", self._form(), _HEADERS, seconds)
        try:
            told = parsedate_to_datetime(answer.headers.get("date", ""))
            self._ahead = (self._outside.now() - told).total_seconds()
        except (ValueError, TypeError, OverflowError):
            pass
        return answer

    def _form(self) -> bytes:
        fields = {
            "grant_type": "client_credentials",
            "client_assertion_type": _ASSERTION,
            "client_assertion": self._assertion(),
            "scope": self._settings.oauth_scope,
        }
        return urlencode(fields).encode()

    def _assertion(self) -> str:
        import jwt

        app, kid = self._settings.oauth_client_id, self._settings.oauth_key_id
        issued = int(self._outside.now().timestamp() - self._ahead) - _BACKDATED_SECONDS
        claims = {
            "iss": app,
            "sub": app,
            "aud": self._settings.oauth_endpoint,
            "iat": issued,
            "exp": issued + _LIFE_SECONDS,
            "jti": self._outside.new_id(),
        }
        return jwt.encode(claims, self._signing_key(), algorithm="RS256", headers={"kid": kid or ""})

    def _signing_key(self) -> "RSAPrivateKey":
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        if self._key is None:
            pem = self._settings.oauth_private_key
            key = load_pem_private_key(pem.get_secret_value().encode(), None) if pem else None
            if not isinstance(key, RSAPrivateKey):
                hint = "Ask whoever runs this server to set the SEGMENT_OAUTH settings."
                raise NotConfigured("SEGMENT_OAUTH_PRIVATE_KEY", "No OAuth app is configured.", hint=hint)
            self._key = key
        return self._key

    def _granted(self, answer: wire.Answer, began: float) -> _Token:
        try:
            body = wire.decipher(answer, self._outside.now(), service=AUTHORIZATION)
        except Unauthorized as error:
            raise _refused(answer, error) from None
        except RateLimited as error:
            error.retry_after_seconds = error.retry_after_seconds or _LIMITED_SECONDS
            raise
        text: object = body.get("access_token")
        if not isinstance(text, str) or not re.fullmatch(r"[!-~]{1,8192}", text):
            said = f"{AUTHORIZATION.name} answered {answer.status} without a token."
            hint = "Check SEGMENT_OAUTH_URL: it is not Segment's OAuth server that answers there."
            raise Rejected(said, status_code=answer.status, hint=hint, code="unexpected_answer")
        life = _life(body)
        return _Token(text, began + life / 2, began + life - min(life / 2, _MARGIN_SECONDS))


def _seen(task: "asyncio.Task[_Token]") -> None:
    """Nobody need be waiting any more; without a look at it, asyncio would log the error."""
    if not task.cancelled():
        task.exception()


def _life(body: Mapping[str, Any]) -> float:
    life: object = body.get("expires_in")
    if isinstance(life, int | float) and not isinstance(life, bool) and 0 < life <= _LONGEST_SECONDS:
        return float(life)
    return _TOKEN_SECONDS


def _said(answer: wire.Answer) -> tuple[str, str]:
    """The code and the description of a refusal. The description is not for showing."""
    body = wire.json_object(answer.body)
    code, description = body.get("error"), body.get("error_description")
    return code if isinstance(code, str) else "", description.lower() if isinstance(description, str) else ""


def _wrong_clock(answer: wire.Answer) -> bool:
    """Whether the assertion was refused for its times. Source of the texts: Segment's Python library."""
    code, description = _said(answer)
    return code == "invalid_request" and any(text in description for text in _CLOCK)


def _refused(answer: wire.Answer, error: Unauthorized) -> Unauthorized:
    code, _ = _said(answer)
    named = f" ({code})" if code in _HINTS else ""
    hint = "Set this machine's clock." if _wrong_clock(answer) else _HINTS.get(code, error.hint)
    text = f"No OAuth token, so nothing was sent: {error.message.rstrip('.')}{named}."
    return Unauthorized(text, status_code=answer.status, hint=hint, request_id=error.request_id, sent=False)

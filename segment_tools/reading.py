"""Profiles read from Segment's Profile API, page by page."""

import hashlib
import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from segment_tools import wire
from segment_tools.attempts import Surroundings, attempted
from segment_tools.errors import InvalidMessage, NotConfigured, NotFound, RateLimited, Rejected
from segment_tools.outbox.retry import FIRST_WAIT_SECONDS
from segment_tools.pace import Pace
from segment_tools.services import PROFILES
from segment_tools.settings import Settings
from segment_tools.spec.profiles import Asked
from segment_tools.transport import Transport

ANSWER_BYTES = 8 * 1024 * 1024
"""Ours: 200 traits of 32 KB, the largest that a message can set, are 6.5 MB."""

PER_SECOND = 100
"""Look-ups in one space. Source: https://segment.com/docs/unify/profile-api/#performance."""

_MOST_SPACES = 50

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProfilePage:
    """One page: a list of items, or a map of traits or metadata; and the cursor of the next, empty at the end."""

    items: Any
    next: str = ""


class NoRoute(NotFound):
    """The Profile API does not know the route: no such leaf, or no such space."""


class Profiles:
    """Reads profiles with the settings' token. Look-ups are logged with a keyed digest in the identifier's place."""

    def __init__(self, settings: Settings, outside: Surroundings, transport: Transport | None = None) -> None:
        self._settings = settings
        self._outside = outside
        self._transport = transport or Transport(settings.profile_endpoint, service=PROFILES)
        self._paces: dict[str, Pace] = {}

    async def aclose(self) -> None:
        """Close the connections."""
        for pace in self._paces.values():
            await pace.aclose()
        await self._transport.aclose()

    async def page(self, asked: Asked) -> ProfilePage | None:
        """The page; None where there is no such profile.

        Raises:
            NotConfigured: no token.
            NoRoute, Unauthorized, RateLimited, Rejected, Unavailable: with the answer's Request-Id, without its text.
        """
        token = self._token()
        deadline = self._outside.monotonic() + self._settings.timeout_seconds
        began = self._outside.monotonic()
        outcome = "failed"
        try:
            found, _ = await attempted(partial(self._attempt, asked, token), self._outside, deadline)
            outcome = "missing" if found is None else "found"
            return found
        finally:
            spent = (self._outside.monotonic() - began) * 1000
            digest = hmac.new(token.encode(), asked.identifier.path.encode(), hashlib.sha256).hexdigest()[:12]
            _log.info(
                "profile looked up: space=%s collection=%s leaf=%s id=%s %s in %.0f ms",
                asked.space, asked.collection, asked.leaf, digest, outcome, spent,
            )  # fmt: skip

    def _token(self) -> str:
        if self._settings.profile_token is None:
            hint = "Ask whoever runs this server to set SEGMENT_PROFILE_TOKEN."
            raise NotConfigured("SEGMENT_PROFILE_TOKEN", "No access token of the Profile API is configured.", hint=hint)
        return self._settings.profile_token.get_secret_value()

    async def _pace_of(self, space: str) -> Pace:
        """What all look-ups of the space keep to."""
        if space not in self._paces:
            if len(self._paces) >= _MOST_SPACES:
                await self._paces.pop(next(iter(self._paces))).aclose()
            settings = self._settings
            name = f"profiles:{settings.profile_endpoint}:{space}"
            rate = min(PER_SECOND, settings.requests_per_second)
            self._paces[space] = Pace(name, rate, settings.concurrency, self._outside, settings.rate_limit)
        return self._paces[space]

    async def _attempt(self, asked: Asked, token: str, attempt: int, seconds: float) -> ProfilePage | None:
        sent = wire.headers(token, attempt)
        pace, until = await self._pace_of(asked.space), self._outside.monotonic() + seconds
        async with pace.turn(seconds):
            left = max(0.001, until - self._outside.monotonic())
            answer = await self._transport.get(asked.path, sent, left, ANSWER_BYTES)
        if len(answer.body) > ANSWER_BYTES:
            text = f"The Profile API's answer has more than {ANSWER_BYTES:,} bytes."
            raise InvalidMessage.of("too_large", text, "Pass a smaller limit, or name what you need in include.")
        if wire.no_profile(answer):
            return None
        try:
            body = wire.decipher(answer, self._outside.now(), self._settings.secrets, PROFILES)
        except RateLimited as error:
            await pace.pause(error.retry_after_seconds or FIRST_WAIT_SECONDS)
            raise
        except NotFound as error:
            raise NoRoute(
                error.message, status_code=error.status_code, hint=error.hint, request_id=error.request_id
            ) from None
        return _page(asked, body or wire.marked_object(answer.body, self._settings.secrets), answer)


_KEYS = {"traits": ("traits", dict), "metadata": ("metadata", dict)}


def _page(asked: Asked, body: Mapping[str, Any], answer: wire.Answer) -> ProfilePage:
    """The page in an answer of 200; a `url` that Segment may give beside the cursor is not followed."""
    key, kind = _KEYS.get(asked.leaf, ("data", list))
    items = body.get(key)
    if not isinstance(items, kind):
        text = f"The Profile API answered {answer.status} with something other than the JSON of a profile."
        hint = "Check SEGMENT_PROFILE_URL: it is not the Profile API that answers there."
        raise Rejected(text, status_code=answer.status, hint=hint, code="unexpected_answer")
    cursor: object = body.get("cursor")
    following: Mapping[str, Any] = cast("Mapping[str, Any]", cursor) if isinstance(cursor, dict) else {}
    token = following.get("next")
    return ProfilePage(items, token if following.get("has_more") and isinstance(token, str) else "")

"""What keeps requests from being taken while they are tried again: nobody is left to guess why nothing moves."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self
from urllib.parse import urlsplit

from segment_tools.errors import Undelivered
from segment_tools.settings import Settings

_TOO_MANY = 429
_AGAIN_SECONDS = 30.0
"""Ours: so long after it was told, trouble that lasts is told again."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Requests are tried again."""

    what: str
    """Who does not answer, or answers what."""
    until: datetime
    """When the first of them is given up."""

    @classmethod
    def of(cls, error: Undelivered, settings: Settings, until: datetime) -> Self:
        """What the failed attempt tells."""
        return cls(_what(error, settings), until)

    def after(self, before: "Trouble | None") -> "Trouble":
        """The same, where there was trouble before it that lasts."""
        return replace(self, until=min(self.until, before.until)) if before else self

    def __str__(self) -> str:
        return f"{self.what}, trying again until {self.until.astimezone():%H:%M:%S %Z}"


def _what(error: Undelivered, settings: Settings) -> str:
    where = _host(settings.endpoint)
    if settings.uses_oauth and not error.sent:  # it may be the token that was not given
        where = f"{where} or {_host(settings.oauth_endpoint)}"
    if error.status_code is None:
        return f"no answer from {where}"
    if error.status_code == _TOO_MANY:
        return f"{where} asks to slow down ({_TOO_MANY})"
    return f"{where} answers {error.status_code}"


def _host(url: str) -> str:
    """Without what may be secret in an address."""
    return urlsplit(url).netloc.rpartition("@")[2]


class News:
    """What there is to tell of trouble: that it began, now and then that it lasts, and its end."""

    def __init__(self) -> None:
        self._told: Trouble | None = None
        self._at = 0.0

    def of(self, trouble: Trouble | None, now: float) -> str | None:
        """What is to be told at this moment of a monotonic clock; None: nothing new."""
        before = self._told
        if trouble is None:
            self._told = None
            return "requests are taken again" if before else None
        if before and now - self._at < _AGAIN_SECONDS:
            return None
        self._told, self._at = trouble, now
        return str(trouble)

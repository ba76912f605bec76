"""Where messages are sent on to, in which form, and when a delivery is tried again.

Source: https://segment.com/docs/connections/destinations/catalog/webhooks/ and .../actions-webhook/.
"""

import hashlib
import hmac
import random
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

MOST = 5
"""How many webhooks a source has at most."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Pace:
    """When attempts end and start, in seconds."""

    single: float = 5.0
    """How long a webhook may take for one message."""
    batch: float = 10.0
    first_wait: float = 1.0
    """[?] Segment says how long it tries, but not how often: the waits double, from this one on."""
    most_wait: float = 600.0
    give_up: float = 4 * 3600.0
    clock: Callable[[], datetime] = _now
    spread: Callable[[], float] = random.random
    """From 0 to 1: where between half and all of a wait the next attempt falls."""

    def wait(self, attempts: int) -> float:
        """How long to wait after so many attempts."""
        longest = min(self.most_wait, self.first_wait * 2 ** min(attempts - 1, 30))
        return longest * (0.5 + self.spread() / 2)


@dataclass(frozen=True, slots=True)
class Webhook:
    """One address that messages are sent on to. Its query and credentials are secrets."""

    url: str = field(repr=False)
    name: str
    """What is shown of it, with a mark that tells two apart; deliveries are kept under it."""
    authorization: str | None = field(default=None, repr=False)

    @property
    def shown(self) -> str:
        """The address without its secrets."""
        return shown(self.name)


def shown(name: str) -> str:
    """A webhook's name without its mark."""
    return name.partition("#")[0]


def webhook_of(text: str) -> Webhook:
    """The webhook of an address.

    Raises:
        ValueError: it is none that can be sent to. The text does not repeat it.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("is no address such as https://example.com/segment") from None
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"[A-Za-z0-9.:_-]+", host):
        raise ValueError("must be an http or https address, such as https://example.com/segment")
    if not re.fullmatch(r"[!-~]+", text) or parts.fragment:
        raise ValueError("must be plain ASCII without spaces and without a #")
    place = f"{f'[{host}]' if ':' in host else host}{f':{port}' if port is not None else ''}"
    mark = hashlib.sha256(text.encode()).hexdigest()[:16]
    query = f"?{parts.query}" if parts.query else ""
    path = parts.path or "/"
    return Webhook(f"{parts.scheme}://{place}{path}{query}", f"{parts.scheme}://{place}{path}#{mark}", _basic(parts))


def _basic(parts: SplitResult) -> str | None:
    """The credentials in an address, as every HTTP client sends them."""
    if parts.username is None and parts.password is None:
        return None
    user, password = (unquote_to_bytes(text or "") for text in (parts.username, parts.password))
    return f"Basic {b64encode(user + b':' + password).decode()}"


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The webhooks of a sandbox; the default is none. `batch` None sends every message by itself."""

    all: tuple[Webhook, ...] = ()
    secret: str = field(default="", repr=False)
    batch: int | None = None
    pace: Pace = field(default_factory=Pace)

    @property
    def seconds(self) -> float:
        """How long an attempt may take."""
        return self.pace.single if self.batch is None else self.pace.batch

    def request(self, webhook: Webhook, messages: Sequence[str]) -> tuple[dict[str, str], bytes]:
        """The headers and the body that carry the messages, each given as JSON. A batch is signed by its first."""
        bodies = [message.encode() for message in messages]
        body = bodies[0] if self.batch is None else b"[" + b",".join(bodies) + b"]"
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Segment.io/1.0" if self.batch is None else "Segment (Actions)",
        }
        if webhook.authorization:
            headers["Authorization"] = webhook.authorization
        if self.secret:
            key = self.secret.encode(errors="surrogateescape")
            headers["X-Signature"] = hmac.digest(key, bodies[0], "sha1").hex()
        return headers, body


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt came to: the answer's status, or a code of Segment's where there was none."""

    status: int | str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def delivered(self) -> bool:
        """Whether the webhook took what was sent."""
        return isinstance(self.status, int) and 200 <= self.status <= 299  # noqa: PLR2004

    @property
    def passing(self) -> bool:
        """Whether another attempt may do better: no answer, 429 and 5xx. [?] A redirect is none."""
        return isinstance(self.status, str) or self.status == 429 or self.status >= 500  # noqa: PLR2004

    def retry_after(self, now: datetime) -> float | None:
        """How long the webhook asked to be left alone, in seconds."""
        value = self.headers.get("retry-after", "").strip()
        if re.fullmatch("[0-9]{1,9}", value):
            return float(value)
        try:
            then = parsedate_to_datetime(value)
            return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds())
        except (ValueError, OverflowError):
            return None


def next_attempt(pace: Pace, outcome: Outcome, attempts: int, first: datetime, now: datetime) -> datetime | None:
    """When to try again what failed after so many attempts, the first of them at `first`; None: not again."""
    if not outcome.passing:
        return None
    asked = outcome.retry_after(now)
    last = first + timedelta(seconds=pace.give_up)
    wait = max(pace.wait(attempts), min(asked or 0.0, pace.give_up))
    due = now + timedelta(seconds=wait)
    return min(due, last) if now < last and (due <= last or asked) else None

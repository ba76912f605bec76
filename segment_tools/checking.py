"""The connection test: what is set, where it points, whether it answers, and what does not fit together."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast
from urllib.parse import quote, urlsplit

from pydantic import SecretStr

from segment_tools import wire
from segment_tools.attempts import ATTEMPT_SECONDS, Surroundings
from segment_tools.errors import NotConfigured, SegmentError, told
from segment_tools.receipt import Receipt
from segment_tools.reception import Reception
from segment_tools.redaction import hidden
from segment_tools.settings import CDN, HOSTS, PROFILE_HOSTS, SANDBOX, Settings
from segment_tools.transport import Transport

Level = Literal["config", "probe", "send"]
KeyStatus = Literal["known", "unknown_key", "unknown"]
Send = Callable[[str | None], Awaitable[Receipt]]
"""Sends the test event to the named source, or to the one that has no name."""
Looks = Mapping[str, Callable[[], Awaitable[str]]]
"""By the name of a check, what tries it and says how it is; raises SegmentError where it cannot be used."""

LEVELS: tuple[Level, ...] = ("config", "probe", "send")
PROBE_USER = "user_id:segment-tools-connection-test"
_SETTINGS_BYTES = 2_000_000
_MOST_DESTINATIONS, _LONGEST_NAME = 500, 100
_LONG_KEY, _SHOWN_OF_KEY = 16, 4
_NO_SPACE = "SEGMENT_SPACE_ID is not set: each look-up of a profile then needs spaceId."
_SETTINGS = {
    "inbox": "what SEGMENT_INBOX names",
    "outbox": "what SEGMENT_OUTBOX names",
    "oauth app": "the network",
    "tracking plan": "the network and SEGMENT_PUBLIC_API_URL",
}
_UNHEARD = "Over stdio no webhook is received without SEGMENT_WEBHOOK_PORT; segment-tools http receives on its own."


@dataclass(frozen=True, slots=True)
class Check:
    """What is known of one credential or address; None where it was not tried."""

    name: str
    is_set: bool
    message: str
    address: str | None = None
    ok: bool | None = None
    reachable: bool | None = None
    milliseconds: int | None = None
    status: int | None = None
    hint: str = ""
    key_status: KeyStatus | None = None
    destinations: tuple[str, ...] = ()
    key_region: str | None = None
    message_id: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a connection test; `ready` when all that is set works as far as the level can tell."""

    level: Level
    region: str
    checks: tuple[Check, ...]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    message_id: str | None = None

    @property
    def ready(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def key_status(self) -> KeyStatus:
        """Of all keys together: unknown_key if one is, known if each is."""
        found = {check.key_status or "unknown" for check in self.checks if _is_source(check)}
        if "unknown_key" in found:
            return "unknown_key"
        return "known" if found == {"known"} else "unknown"

    @property
    def destinations(self) -> tuple[str, ...]:
        """The destinations that any of the keys feeds, by the names that `integrations` takes."""
        return tuple(sorted({name for check in self.checks for name in check.destinations}))


class Checks:
    """One connection test under the given settings; the transports ask the data plane, the CDN and the Profile API."""

    def __init__(
        self, settings: Settings, outside: Surroundings, data_plane: Transport, cdn: Transport, profiles: Transport
    ) -> None:
        self._settings, self._outside = settings, outside
        self._data_plane, self._cdn, self._profiles = data_plane, cdn, profiles
        self._seconds = min(ATTEMPT_SECONDS, settings.timeout_seconds)

    async def report(self, level: Level, send: Send, looks: Looks, reception: Reception) -> Report:
        """The report of this level.

        Raises:
            NotConfigured: a message is to be sent in read-only mode.
        """
        settings = self._settings
        if level == "send" and settings.read_only:
            hint = "Use the level probe, or ask whoever runs this server to switch SEGMENT_READ_ONLY off."
            raise NotConfigured("SEGMENT_READ_ONLY", "SEGMENT_READ_ONLY lets no message be sent.", hint=hint)
        before = configured(settings)
        before = replace(before, remarks=(*before.remarks, *_received(settings, reception)))
        if level == "config":
            return before
        if settings.data_plane_url == SANDBOX:
            text = "Nothing was asked: a dry run does not start the embedded sandbox."
            return replace(before, level=level, remarks=(*before.remarks, text))
        tried = [self._tried(check, looks) for check in before.checks]
        if level == "send":
            tried.append(self._sent(send))
        checks = tuple(await asyncio.gather(*tried))
        problems = (*before.problems, *_failures(checks), *self._lost(checks))
        remarks = (*before.remarks, *_unproved(checks))
        event = next((check.message_id for check in checks if check.message_id), None)
        return Report(level, before.region, checks, problems, remarks, event)

    async def _tried(self, check: Check, looks: Looks) -> Check:
        if not check.is_set:
            return check
        if check.name in looks:
            return await self._looked(check, looks[check.name])
        if check.name == "data plane":
            return await self._asked(check, self._data_plane, "/", {}, _reached)
        if check.name == "profile token" and self._settings.space_id:
            path = f"/v1/spaces/{self._settings.space_id}/collections/users/profiles/{PROBE_USER}/metadata"
            return await self._asked(check, self._profiles, path, self._profile_headers(), _profile)
        if _is_source(check):
            path = f"/v1/projects/{quote(self._key_of(check.name), safe='')}/settings"
            return await self._asked(check, self._cdn, path, {}, self._source)
        return check

    async def _looked(self, check: Check, look: Callable[[], Awaitable[str]]) -> Check:
        started = self._outside.monotonic()
        try:
            async with asyncio.timeout(self._seconds):
                said = await look()
        except SegmentError as error:
            return replace(check, ok=False, message=hidden(error.message, self._settings.secrets), hint=error.hint)
        except TimeoutError:
            text = f"It did not answer within {self._seconds:.3g} seconds."
            return replace(check, ok=False, message=text, hint=f"Check {_SETTINGS[check.name]}.")
        passed = round((self._outside.monotonic() - started) * 1000)
        return replace(check, ok=True, milliseconds=passed, message=said)

    async def _asked(
        self,
        check: Check,
        transport: Transport,
        path: str,
        headers: Mapping[str, str],
        judge: Callable[[Check, wire.Answer], Check],
    ) -> Check:
        started = self._outside.monotonic()
        try:
            answer = await transport.get(path, headers, self._seconds, _SETTINGS_BYTES)
        except SegmentError as error:
            failed = None if _is_source(check) else False
            hint = self._settings_hint if _is_source(check) else f"Check the network and {transport.service.setting}."
            known = "unknown" if _is_source(check) else None
            text = hidden(error.message, self._settings.secrets)
            return replace(check, ok=failed, reachable=False, message=text, hint=hint, key_status=known)
        passed = round((self._outside.monotonic() - started) * 1000)
        return judge(replace(check, reachable=True, milliseconds=passed, status=answer.status), answer)

    def _profile_headers(self) -> dict[str, str]:
        token = self._settings.profile_token
        return wire.headers(token.get_secret_value() if token else "", 0)

    def _key_of(self, name: str) -> str:
        return _keys(self._settings)[name]

    def _source(self, check: Check, answer: wire.Answer) -> Check:
        """What the settings of a source say of its key."""
        found = wire.json_object(answer.body)
        if answer.status == 200 and isinstance(integrations := found.get("integrations"), dict):  # noqa: PLR2004
            fed = cast("dict[str, Any]", integrations)
            names = tuple(hidden(name, self._settings.secrets) for name in destinations(fed, found))
            text = "Segment knows the key."
            known = replace(check, ok=True, message=text, key_status="known", destinations=names)
            return replace(known, key_region=_region(_segment_io(fed).get("apiHost")))
        if answer.status == 404 and self._speaks_for_segment and not _is_page(answer):  # noqa: PLR2004
            text = "No source has this write key: its messages are accepted and lost."
            hint = "Copy the key from Segment > Sources > your source > Settings > API Keys."
            return replace(check, ok=False, message=text, hint=hint, key_status="unknown_key")
        text = f"Whether Segment knows the key is not known: its settings answered {answer.status} without settings."
        return replace(check, message=text, hint=self._settings_hint, key_status="unknown")

    @property
    def _settings_hint(self) -> str:
        """What to look at where a source's settings are not told: the setting that the address came from, if any."""
        settings = self._settings
        if settings.cdn_url:
            return "Check the network and SEGMENT_CDN_URL."
        if settings.may_be_sandbox:
            return "See what answers at SEGMENT_DATA_PLANE_URL."
        return f"Check the network, and whether {CDN} can be reached; then try again."

    @property
    def _speaks_for_segment(self) -> bool:
        """Whether a 404 is Segment's own or a sandbox's, and not that of somebody's proxy."""
        return self._settings.cdn_url in (None, CDN) or self._settings.cdn_url == self._settings.data_plane_url

    async def _sent(self, send: Send) -> Check:
        settings = self._settings
        check = Check("test event", settings.has_key, "Not sent: no write key is set.", settings.endpoint)
        if not settings.has_key:
            return check
        source = None if settings.write_key else next(iter(settings.sources))
        started = self._outside.monotonic()
        try:
            receipt = await send(source)
        except SegmentError as error:
            text = hidden(error.message, settings.secrets)
            return replace(check, ok=False, message=text, hint="Nothing is known to have arrived.")
        if receipt.status == "dry_run":
            return replace(check, message="Nothing was sent: SEGMENT_DRY_RUN is on.")
        passed = round((self._outside.monotonic() - started) * 1000)
        text = "'App Sync Test' was accepted, which is no proof that Segment keeps it."
        if receipt.status == "queued":
            text = "'App Sync Test' is in the outbox, and not yet delivered: segment-tools outbox shows what waits."
        sent = replace(check, ok=True, reachable=True, milliseconds=passed, status=receipt.status_code, message=text)
        return replace(sent, message_id=receipt.message_ids[0])

    def _lost(self, checks: Iterable[Check]) -> list[str]:
        """The keys whose region is not the one that messages are sent to."""
        there = _region(self._settings.endpoint)
        return [
            f"{check.name}: the key's region is {check.key_region}, messages are sent to {there}: Segment accepts and "
            f"loses them; set SEGMENT_REGION={check.key_region}, and SEGMENT_DATA_PLANE_URL to no other region."
            for check in checks
            if _is_source(check) and check.key_region and there and check.key_region != there
        ]


def configured(settings: Settings) -> Report:
    """What the settings alone say; nothing is sent."""
    endpoint = settings.data_plane_url or HOSTS[settings.region]
    token, secret = settings.profile_token, settings.webhook_secret
    checks = [
        Check("data plane", True, "Not asked." if endpoint != SANDBOX else "The embedded sandbox.", endpoint),
        *(Check(name, True, f"Set{_tail(key)}.", settings.cdn_endpoint) for name, key in _keys(settings).items()),
        Check("profile token", True, "Set." if settings.space_id else f"Set. {_NO_SPACE}", settings.profile_endpoint)
        if token
        else Check("profile token", False, "Not set: no profile can be read."),
        Check("webhook secret", secret is not None, "Set." if secret else "Not set: no webhook is received."),
    ]
    if secret:
        checks.append(Check("inbox", True, "Not asked.", _place(settings.inbox)))
    if settings.outbox:
        checks.append(Check("outbox", True, f"Not asked. Delivery is {settings.delivery}.", _place(settings.outbox)))
    if settings.uses_oauth:
        checks.append(Check("oauth app", True, "Set.", settings.oauth_endpoint))
    if plan := settings.tracking_plan:
        place = settings.public_api_endpoint if settings.segment_plan else plan
        checks.append(Check("tracking plan", True, f"Set. The policy is {settings.tracking_plan_policy}.", place))
    if not settings.has_key:
        hint = "Set SEGMENT_WRITE_KEY to the write key of a source, or SEGMENT_SOURCES."
        checks.insert(1, Check("write key", False, "Not set: no message can be sent.", hint=hint))
    region = _region(endpoint) or settings.region
    return Report("config", region, tuple(checks), tuple(_contradictions(settings)), tuple(_remarks(settings)))


def _place(address: SecretStr | None) -> str | None:
    """An inbox's or outbox's address without a password; None for the file in the user's data folder."""
    if address is None:
        return None
    kind, separator, place = address.get_secret_value().partition("://")
    if kind != "sqlite":
        place = re.split("[?#]", place.rpartition("@")[2])[0]
    return f"{kind}{separator}{place}"


def _received(settings: Settings, reception: Reception) -> list[str]:
    """What to know of the webhooks that this process receives, or does not."""
    unheard = settings.webhook_secret and settings.webhook_port is None and not reception.listening
    return [text for text in (_UNHEARD if unheard else "", reception.refusals) if text]


def _contradictions(settings: Settings) -> list[str]:
    data, profiles = _region(settings.data_plane_url or HOSTS[settings.region]), _region(settings.profile_endpoint)
    found: list[str] = []
    if not settings.has_key:
        found.append("No write key is set: set SEGMENT_WRITE_KEY, or SEGMENT_SOURCES for several.")
    if data and data != settings.region:
        found.append(
            f"SEGMENT_DATA_PLANE_URL is of the region {data}, SEGMENT_REGION is {settings.region}: make them the same."
        )
    if settings.profile_token and data and profiles and data != profiles:
        found.append(f"Messages go to the region {data}, profiles are read in {profiles}: see SEGMENT_PROFILE_URL.")
    if settings.space_id and not settings.profile_token:
        found.append("SEGMENT_SPACE_ID is set and SEGMENT_PROFILE_TOKEN is not: set both to read profiles.")
    if settings.webhook_port is not None and settings.webhook_secret is None:
        found.append("SEGMENT_WEBHOOK_PORT is set and SEGMENT_WEBHOOK_SECRET is not: set both to receive webhooks.")
    return found


def _remarks(settings: Settings) -> list[str]:
    keys = _keys(settings)
    names: dict[str, list[str]] = {}
    for name, key in keys.items():
        names.setdefault(key, []).append(name)
    found = [f"{' and '.join(same)} have the same write key." for same in names.values() if len(same) > 1]
    if settings.profile_token and not settings.space_id:
        found.append(_NO_SPACE)
    if settings.dry_run:
        found.append("SEGMENT_DRY_RUN is on: no message is sent.")
    if settings.read_only:
        found.append("SEGMENT_READ_ONLY is on: the tools that write are not offered.")
    return found


def _failures(checks: Iterable[Check]) -> list[str]:
    return [f"{check.name}: {told(check.message, check.hint)}" for check in checks if check.ok is False]


def _unproved(checks: Iterable[Check]) -> list[str]:
    unknown = [f"{check.name}: {check.message}" for check in checks if check.key_status == "unknown"]
    fed = any(check.destinations for check in checks)
    return [*unknown, *(["Destinations in cloud mode may be missing from destinations."] if fed else [])]


def _keys(settings: Settings) -> dict[str, str]:
    """The configured write keys by the names of their checks."""
    own = {"write key": settings.write_key} if settings.write_key else {}
    named = {f"source {name}": key for name, key in settings.sources.items()}
    return {name: key.get_secret_value() for name, key in {**own, **named}.items()}


def _is_source(check: Check) -> bool:
    return check.name == "write key" or check.name.startswith("source ")


def _tail(key: str) -> str:
    return f", ends in {key[-_SHOWN_OF_KEY:]}" if len(key) >= _LONG_KEY else ""


def _region(address: object) -> str | None:
    """The region of one of Segment's own hosts, given as a host with or without a path, or a URL."""
    if not isinstance(address, str):
        return None
    try:
        host = urlsplit(address if "://" in address else f"//{address}").netloc.lower()
    except ValueError:
        return None
    known = [(urlsplit(url).netloc, region) for hosts in (HOSTS, PROFILE_HOSTS) for region, url in hosts.items()]
    return next((region for name, region in known if name == host), None)


def _reached(check: Check, _: wire.Answer) -> Check:
    return replace(check, ok=True, message="It answers.")


def _profile(check: Check, answer: wire.Answer) -> Check:
    """What the Profile API's answer about nobody says of the token."""
    if answer.status == 200 or wire.no_profile(answer):  # noqa: PLR2004
        return replace(check, ok=True, message="The token reads this space.")
    if answer.status in (401, 403):
        hint = "Check that SEGMENT_PROFILE_TOKEN is a token of SEGMENT_SPACE_ID, and SEGMENT_REGION."
        return replace(check, ok=False, message="The Profile API refused the token for this space.", hint=hint)
    text = f"The Profile API answered {answer.status}."
    if answer.status == 429:  # noqa: PLR2004
        text = "The Profile API answered 429: too many look-ups of this space just now."
        return replace(check, ok=False, message=text, hint="Try again in a moment; nothing is known of the token.")
    if answer.status >= 500:  # noqa: PLR2004
        text = f"The Profile API is unavailable just now: it answered {answer.status}."
        return replace(check, ok=False, message=text, hint="Try again later; nothing is known of the token.")
    return replace(check, ok=False, message=text, hint="Check SEGMENT_SPACE_ID, SEGMENT_REGION, SEGMENT_PROFILE_URL.")


def destinations(integrations: Mapping[str, Any], whole: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the destinations that a source's settings tell, as `integrations` takes them.

    [?] Server-side destinations are found where the browser library finds them: unbundled integrations and plugins.
    """
    plugins = _list(whole.get("remotePlugins"))
    named = [cast("dict[str, Any]", plugin).get("creationName") for plugin in plugins if isinstance(plugin, dict)]
    found = {*integrations, *_texts(_list(_segment_io(integrations).get("unbundledIntegrations"))), *_texts(named)}
    short = (name for name in found if name.isprintable() and 0 < len(name) <= _LONGEST_NAME)
    return tuple(sorted(set(short) - {"Segment.io"}))[:_MOST_DESTINATIONS]


def _segment_io(integrations: Mapping[str, Any]) -> dict[str, Any]:
    found: object = integrations.get("Segment.io")
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _texts(values: Iterable[object]) -> list[str]:
    return [value for value in values if isinstance(value, str)]


def _is_page(answer: wire.Answer) -> bool:
    start = answer.body[:100].lstrip().lower()
    return "html" in answer.headers.get("content-type", "") or start.startswith((b"<!doctype html", b"<html"))

"""Where the tracking plan comes from: a file, or Segment's Public API and the last good copy of what it said."""

import asyncio
import json
import logging
import os
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

from segment_tools import wire
from segment_tools.attempts import Surroundings, attempted
from segment_tools.environment import user_folder
from segment_tools.errors import NotConfigured, Rejected, Unavailable, Undelivered
from segment_tools.services import PUBLIC_API
from segment_tools.settings import Settings
from segment_tools.spec.known_events import KnownEvent
from segment_tools.spec.plan_document import PlanFault, plan_of, usable_rules
from segment_tools.spec.planned_events import planned_events
from segment_tools.spec.timestamps import iso_utc, parse_timestamp
from segment_tools.spec.tracking_plan import TrackingPlan
from segment_tools.spec.values import KeyTwice, unique
from segment_tools.transport import Transport

SETTING = "SEGMENT_TRACKING_PLAN"

REFRESH_SECONDS = 600.0
"""Ours: after so long the plan is read again, in the background. Segment itself applies a change in some minutes."""

_READ_SECONDS = 120.0
"""Ours: how long the reading of a whole plan may take."""

_WAIT_SECONDS = 10.0
"""Ours: how long a call waits for the first plan."""

_PROOF_SECONDS = 5.0
"""Ours: how long the connection test waits for a first answer."""

_AGAIN_SECONDS = 30.0
"""Ours: the least time between two readings, the first of which failed; and between two calls that wait for one."""

_PAGE = 200
"""Rules on a page: what the older of Segment's pages on paging has as the most."""

_PAGES = 500
"""Ours: 100,000 rules, the most rows that a plan's CSV may have."""

_PAGE_BYTES, _FILE_BYTES = 64 * 1024 * 1024, 256 * 1024 * 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Plan:
    plan: TrackingPlan
    read_at: datetime
    faults: tuple[PlanFault, ...] = ()
    """Of rules that cannot be used."""

    @cached_property
    def events(self) -> tuple[KnownEvent, ...]:
        return planned_events(self.plan)


class PlanSource:
    """The settings' tracking plan; one of the Public API is read again while it is used.

    Raises:
        NotConfigured: what `SEGMENT_TRACKING_PLAN` names is no tracking plan; says the place in the file.
    """

    def __init__(self, settings: Settings, outside: Surroundings, transport: Transport | None = None) -> None:
        self._settings, self._outside = settings, outside
        self._transport = transport or Transport(settings.public_api_endpoint, service=PUBLIC_API)
        self._checks = settings.checks_plan
        self._current: _Plan | None = None
        self._reading: asyncio.Task[_Plan] | None = None
        self._failed: tuple[Undelivered, float] | None = None
        self._trouble: Undelivered | None = None
        """Of the last attempt of the reading under way, which goes on trying."""
        if self._checks:
            _check_installed()
            self._current = self._kept() if settings.segment_plan else self._of_file()

    @property
    def events(self) -> tuple[KnownEvent, ...]:
        """The events of the plan; none as long as it is not read."""
        return self._current.events if self._current else ()

    def start(self) -> None:
        """Read the plan in the background, so that the first call finds it."""
        if self._checks and self._settings.segment_plan and (self._current is None or self._is_old(self._current)):
            self._begin()

    async def plan(self) -> TrackingPlan | None:
        """The plan to hold messages to; None where there is none to be held to.

        Raises:
            Unauthorized, NotFound, Rejected, RateLimited, Unavailable: it was never read; `sent` is False.
        """
        if not self._checks:
            return None
        if self._current is None:
            return (await self._read()).plan
        if self._settings.segment_plan and self._is_old(self._current) and self._may_try():
            self._begin()
        return self._current.plan

    async def prove(self) -> str:
        """How many rules the plan has, and the policy; one of the Public API is asked for now.

        Raises:
            Unauthorized, NotFound, Rejected, RateLimited, Unavailable: it cannot be read; says if a copy is used.
        """
        policy = f"the policy is {self._settings.tracking_plan_policy}"
        if not self._checks:
            return f"Not read: {policy}."
        if self._settings.segment_plan:
            try:
                await self._page("", 0, min(_PROOF_SECONDS, self._settings.timeout_seconds / 2))
                self._failed = None
                await self._read()
            except Undelivered as error:
                raise _unread(error, self._used()) from None
        return f"{_counted(self._current)}; {policy}.{_unusable(self._current)}"

    def _used(self) -> str:
        """What messages are held to where the plan cannot be read."""
        if known := self._current:
            return f"The copy of {iso_utc(known.read_at)} is used: {_counted(known)}."
        refused = self._settings.tracking_plan_policy == "block"
        return f"There is no copy: messages are {'refused' if refused else 'sent unchecked, with a warning'}."

    async def aclose(self) -> None:
        """End what is under way, and close the connections; what was read stays."""
        reading, self._reading = self._reading, None
        if reading is not None and reading.get_loop() is asyncio.get_running_loop():
            reading.cancel()
            await asyncio.wait([reading])
        await self._transport.aclose()

    def _is_old(self, known: _Plan) -> bool:
        """Whether it is to be read again; one that says it is of the future was read by another clock."""
        return not 0 <= (self._outside.now() - known.read_at).total_seconds() < REFRESH_SECONDS

    def _may_try(self) -> bool:
        return self._failed is None or self._outside.monotonic() >= self._failed[1]

    async def _read(self) -> _Plan:
        """The plan, read now; whoever asks meanwhile gets the same."""
        if self._failed and not self._may_try():
            raise _unread(self._failed[0])
        reading, seconds = self._begin(), min(_WAIT_SECONDS, self._settings.timeout_seconds)
        # Not awaited itself: who waits may be cancelled, and the others still want it.
        await asyncio.wait([reading], timeout=seconds)
        if not reading.done() or reading.cancelled():
            text = f"it was not read within {seconds:.3g} seconds."
            late = self._trouble or Unavailable(text, hint=PUBLIC_API.unknown, code="timeout", sent=False)
            self._failed = (late, self._outside.monotonic() + _AGAIN_SECONDS)
            raise _unread(late)
        error = reading.exception()
        if isinstance(error, Undelivered):
            raise _unread(error)
        return reading.result()

    def _begin(self) -> "asyncio.Task[_Plan]":
        loop, reading = asyncio.get_running_loop(), self._reading
        if reading is None or reading.done() or reading.get_loop() is not loop:
            reading = self._reading = loop.create_task(self._fetch())
            reading.add_done_callback(_seen)
        return reading

    async def _fetch(self) -> _Plan:
        self._trouble = None
        try:
            rules = await self._rules(self._outside.monotonic() + _READ_SECONDS)
            plan = await asyncio.to_thread(_of_rules, rules, self._outside.now())
            self._refuse_emptied(plan)
        except Undelivered as error:
            error.sent = False  # nothing was but the question
            self._failed = (error, self._outside.monotonic() + _AGAIN_SECONDS)
            used = " The last good copy is used." if self._current else ""
            _log.warning("the tracking plan could not be read: %s%s", error.message, used)
            raise
        self._failed = None
        self._current = plan
        if plan.faults:
            _log.warning("%s%s", _counted(plan), _unusable(plan))
        await asyncio.to_thread(self._keep, rules, plan.read_at)
        return plan

    def _refuse_emptied(self, plan: _Plan) -> None:
        """Hold on to the rules there are: whoever empties a plan on purpose would rather name another, or none."""
        if self._current and self._current.plan.rules and not plan.plan.rules:
            text = f"{PUBLIC_API.name} answered without a single rule, where there were {_counted(self._current)}."
            hint = f"If the plan was emptied on purpose, take it out of {SETTING}."
            raise Rejected(text, status_code=200, hint=hint, code="unexpected_answer")

    async def _rules(self, deadline: float) -> list[Any]:
        """The rules of every page."""
        rules: list[Any] = []
        cursor, seen = "", set[str]()
        while len(seen) < _PAGES:
            page, _ = await attempted(partial(self._noted_page, cursor), self._outside, deadline)
            rules += page[0]
            cursor = page[1]
            if not cursor:
                return rules
            if cursor in seen:
                break
            seen.add(cursor)
        raise _unexpected(200, "with pages that do not end")

    async def _noted_page(self, cursor: str, number: int, seconds: float) -> tuple[list[Any], str]:
        try:
            return await self._page(cursor, number, seconds)
        except Undelivered as error:
            self._trouble = error
            raise

    async def _page(self, cursor: str, _: int, seconds: float) -> tuple[list[Any], str]:
        query = {"pagination.count": str(_PAGE), **({"pagination.cursor": cursor} if cursor else {})}
        path = f"/tracking-plans/{self._settings.segment_plan}/rules?{urlencode(query)}"
        answer = await self._transport.get(path, self._headers(), seconds, _PAGE_BYTES)
        body = wire.decipher(answer, self._outside.now(), service=PUBLIC_API)
        data = _object(body.get("data"))
        rules: object = data.get("rules")
        if not isinstance(rules, list):
            raise _unexpected(answer.status, "without rules")
        paging: object = data.get("pagination")
        following: object = _object(paging).get("next")
        if not isinstance(paging, dict | None) or not isinstance(following, str | None):
            raise _unexpected(answer.status, "without saying where the next page is")
        return cast("list[Any]", rules), following or ""

    def _headers(self) -> dict[str, str]:
        token = self._settings.public_api_token
        return {
            "Authorization": f"Bearer {token.get_secret_value() if token else ''}",
            "Accept": "application/vnd.segment.v1+json",
            "User-Agent": wire.USER_AGENT,
        }

    @property
    def _copy(self) -> Path:
        return user_folder() / "plans" / f"{self._settings.segment_plan}.json"

    def _keep(self, rules: list[Any], now: datetime) -> None:
        """Put the rules where they are found when the API is away: whole or not at all, for nobody else to read."""
        text = json.dumps({"readAt": iso_utc(now), "from": self._settings.public_api_endpoint, "rules": rules})
        path = self._copy
        new = path.with_suffix(f".{os.getpid()}.new")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                new.unlink()
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
            new.replace(path)
        except OSError as error:
            _log.warning("the tracking plan is not kept on disk: %s", error.strerror)

    def _of_file(self) -> _Plan:
        return _Plan(_read_file(str(self._settings.tracking_plan)), self._outside.now())

    def _kept(self) -> _Plan | None:
        try:
            found = _object(json.loads(self._copy.read_bytes()))
            read_at = parse_timestamp(str(found.get("readAt")))
            if read_at is None or found.get("from") != self._settings.public_api_endpoint:
                return None
            rules: object = found.get("rules")
            kept = _of_rules(cast("list[Any]", rules), read_at) if isinstance(rules, list) else None
        except (OSError, ValueError, RecursionError, Rejected):
            return None
        return kept if kept and kept.plan.rules else None


def _seen(task: "asyncio.Task[_Plan]") -> None:
    """Nobody need be waiting any more; without a look at it, asyncio would log the error."""
    if not task.cancelled():
        task.exception()


def _counted(known: _Plan | None) -> str:
    count = len(known.plan.rules) if known else 0
    return "1 rule" if count == 1 else f"{count:,} rules"


def _unusable(known: _Plan | None) -> str:
    """What cannot be used of the plan, as further sentences; empty where all can."""
    faults = known.faults if known else ()
    if not faults:
        return ""
    more = f", and {len(faults) - _NAMED_FAULTS:,} more" if len(faults) > _NAMED_FAULTS else ""
    named = "; ".join(map(str, faults[:_NAMED_FAULTS]))
    return f" Not checked, for faults of their rules in Segment: {named}{more}."


_NAMED_FAULTS = 3

_UNREAD = "The tracking plan could not be read: "


def _unread(error: Undelivered, used: str = "") -> Undelivered:
    """The error as the caller should read it: one of its own, for what catches it writes into it."""
    unread = copy(error)
    unread.sent = False  # nothing was but the question
    unread.message = f"{_UNREAD}{error.message.removeprefix(_UNREAD)} {used}".rstrip()
    return unread


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _of_rules(rules: list[Any], read_at: datetime) -> _Plan:
    usable, faults = usable_rules(rules)
    if faults and not usable:
        text = f"The tracking plan of Segment cannot be used: {faults[0]}."
        raise Rejected(text, hint="Mend that rule in Segment.", code="unusable_plan")
    return _Plan(TrackingPlan(usable), read_at, tuple(faults))


def _unexpected(status: int, what: str) -> Rejected:
    text = f"{PUBLIC_API.name} answered {status} {what}."
    return Rejected(text, status_code=status, hint=PUBLIC_API.otherwise[5], code="unexpected_answer")


def _check_installed() -> None:
    if find_spec("jsonschema_rs") is None:
        text = f"{SETTING} is set, and the package that checks messages is not installed."
        raise NotConfigured(SETTING, text, hint="pip install 'segment-tools[plan]'")


def _read_file(name: str) -> TrackingPlan:
    try:
        return plan_of(_json_of(Path(name).expanduser()))
    except PlanFault as fault:
        text = f"{SETTING} names a file that is no tracking plan: {fault}."
        raise NotConfigured(SETTING, text, hint="The README says what a plan looks like.") from None


def _json_of(path: Path) -> object:
    try:
        with path.open("rb") as file:
            return json.loads(file.read(_FILE_BYTES), object_pairs_hook=unique)
    except OSError as error:
        raise PlanFault("", f"it cannot be read ({error.strerror})") from None
    except json.JSONDecodeError as error:
        raise PlanFault(f"line {error.lineno}, column {error.colno}", "it is no JSON there") from None
    except KeyTwice:
        raise PlanFault("", "an object in it names a key twice") from None
    except (ValueError, RecursionError):
        raise PlanFault("", "it is no JSON in UTF-8") from None

"""The client: one object that stamps messages, sends them to Segment and says what became of them."""

import asyncio
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Thread
from typing import Any, Self, cast
from urllib.parse import urlencode
from uuid import uuid4

from segment_tools import wire
from segment_tools.attempts import Surroundings
from segment_tools.audit import Audit
from segment_tools.checking import Checks, Level, Report
from segment_tools.data_plane import DataPlane, Outcome
from segment_tools.delivery import Courier
from segment_tools.environment import user_folder
from segment_tools.errors import InvalidMessage, NotConfigured, Unavailable, Undelivered
from segment_tools.guard import Guard
from segment_tools.inbox import Inbox, Retention, open_inbox
from segment_tools.network import load
from segment_tools.plan_source import PlanSource
from segment_tools.reading import ProfilePage, Profiles
from segment_tools.receipt import Receipt
from segment_tools.reception import Reception
from segment_tools.sending import Admit, Means, Messages, Sender, route_of
from segment_tools.services import PROFILES, SOURCE_SETTINGS
from segment_tools.settings import Settings
from segment_tools.spec.advice import Quiet
from segment_tools.spec.known_events import KnownEvent
from segment_tools.spec.messages import AnyMessage, Track
from segment_tools.spec.profiles import Asked
from segment_tools.spec.webhooks import Delivery
from segment_tools.transport import Transport

MOST_WAITING = 100
"""Ours: how many may wait for deliveries at once; each is a call that stays open, and looks now and then."""

TEST_EVENT = Track(event="App Sync Test", user_id="test", properties={"test": True})
"""What the connection test writes where it is asked to: S0's test event."""

_FULL, _LONG_SECONDS = 0.95, 300.0
"""Ours: from when on an outbox is said to be full, and what waits to wait too long."""

WARM_SECONDS = 1.0
"""Ours: how long after the start what speaks HTTP is loaded, for the first call: a host has had its first answer."""

SANDBOX_SECONDS, SANDBOX_BYTES = 5.0, 512 * 1024
"""For a look into a sandbox on this machine."""


class Segment:
    """Sends messages to one data plane, and reads profiles.

    Keep one for the life of the program: it holds the connections. Close it with `aclose()`, or use it as an
    asynchronous context manager.

        async with Segment(Settings.from_env()) as segment:
            receipt = await segment.send(Track(event="Order Completed", user_id="u1"))
    """

    def __init__(
        self,
        settings: Settings,
        *,
        transport: Transport | None = None,
        profiles: Transport | None = None,
        public_api: Transport | None = None,
        surroundings: Surroundings | None = None,
        planned_events: Sequence[KnownEvent] = (),
    ) -> None:
        self.settings = settings
        self._planned_events = planned_events
        self._made_quiet: tuple[Sequence[KnownEvent], Quiet] = ((), Quiet(settings.warnings_off, frozenset()))
        self._transport = transport or Transport(settings.endpoint)
        self._outside = surroundings or Surroundings()
        self._plane = DataPlane(settings, self._outside, self._transport)
        self._plans = PlanSource(settings, self._outside, public_api)
        self._sender = Sender(settings, self._outside, self._plane, self._plans, self._quiet)
        self._profiles = Profiles(settings, self._outside, profiles)
        self._inbox: Inbox | None = None
        self._waiting = 0
        self._warming: asyncio.TimerHandle | None = None
        self.reception = Reception()
        self.name = str(uuid4())
        """What tells the calls of this client from those of others in the audit log."""
        self._audit: Audit | None = None
        self.guard = Guard(settings, self._outside.monotonic)
        """Holds the tools' calls to the limits of the settings; `send` is the program's own, and is not held back."""

    @property
    def planned_events(self) -> Sequence[KnownEvent]:
        """The events of the tracking plan, as far as it is read: these go before those of Segment's own spec."""
        return self._planned_events or self._plans.events

    def _quiet(self) -> Quiet:
        """Which warnings are not given; made anew only with another plan, which may name thousands of events."""
        events, (known, quiet) = self.planned_events, self._made_quiet
        if known is not events:
            quiet = Quiet(self.settings.warnings_off, frozenset(event.name for event in events))
            self._made_quiet = (events, quiet)
        return quiet

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def start(self) -> None:
        """Deliver what an outbox has from earlier, and read the tracking plan, in the running event loop.

        A second later what speaks HTTP is loaded, in a thread.

        Raises:
            NotConfigured: what `SEGMENT_OUTBOX` names is no outbox, or the audit log cannot be written.
        """
        if self.settings.audit_log is not None:
            _ = self.audit
        self._sender.start()
        self._plans.start()
        if not self.settings.dry_run:
            self._warming = asyncio.get_running_loop().call_later(WARM_SECONDS, Thread(target=load).start)

    @property
    def courier(self) -> Courier | None:
        """What delivers the outbox of the settings; None without one.

        Raises:
            NotConfigured: what `SEGMENT_OUTBOX` names is no outbox.
        """
        return self._sender.courier

    async def aclose(self) -> None:
        """Deliver what the outbox can within `SEGMENT_FLUSH_SECONDS`; close it, the inbox and the connections."""
        if self._warming is not None:
            self._warming.cancel()
        await self._sender.aclose()
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            await inbox.aclose()
        await self._plans.aclose()
        await self._plane.aclose()
        await self._profiles.aclose()

    @property
    def audit(self) -> Audit:
        """The audit log of the settings, opened when it is first used.

        Raises:
            NotConfigured: there is none, or it cannot be written.
        """
        settings = self.settings
        if settings.audit_log is None:
            hint = "Set it to the file of the log."
            raise NotConfigured("SEGMENT_AUDIT_LOG", "SEGMENT_AUDIT_LOG is not set: there is no audit log.", hint=hint)
        if self._audit is None:
            self._audit = Audit(settings.audit_log, settings.audit_max_bytes, required=settings.audit_required)
        return self._audit

    @property
    def means(self) -> Means:
        """What this client sends with, for imports of files."""
        return Means(self.settings, self._outside, self._plane, self._sender, self.guard)

    @property
    def outside(self) -> Surroundings:
        """Time, ids and chance, as this client takes them."""
        return self._outside

    async def reached(self, most_old: float, seconds: float) -> Outcome:
        """What came of the last request to the data plane; asked anew, without a key, where that is too long ago.

        Both are in seconds: how old it may be, and how long asking may take.
        """
        return await self._plane.reached(most_old, seconds)

    async def sandbox_message(self, filters: Mapping[str, str]) -> dict[str, Any] | None:
        """What a sandbox has of a message by its own filters: the one kept, else a discarded one with its `meaning`.

        Empty where it has none; None where there is none to ask.

        Raises:
            Unavailable: nothing listens at its address.
        """
        if not self.settings.may_be_sandbox or self.settings.dry_run:
            return None
        for verdict in ({"discarded": "false"}, {}):
            found = await self._asked_sandbox(f"messages?{urlencode({**filters, **verdict, 'limit': '1'})}")
            rows = found.get("messages")
            if not isinstance(rows, list):
                return None
            for row in cast("list[dict[str, Any]]", rows):
                code = row.get("discarded")
                return {**row, "meaning": (await self._asked_sandbox("reasons")).get(str(code))} if code else row
        return {}

    async def _asked_sandbox(self, path: str) -> Mapping[str, Any]:
        try:
            answer = await self._transport.get(f"/_sandbox/{path}", {}, SANDBOX_SECONDS, SANDBOX_BYTES)
            return wire.decipher(answer, self._outside.now(), self.settings.secrets)
        except Undelivered as error:
            if not error.sent:
                raise
            return {}

    async def read(self, asked: Asked) -> ProfilePage | None:
        """One page of a profile; None where there is no such profile.

        Raises:
            NotConfigured: no token.
            Unauthorized, RateLimited, Rejected, Unavailable: without anything of the profile in them.
        """
        return await self._profiles.page(asked)

    async def keep(self, deliveries: Sequence[Delivery]) -> int:
        """Put verified deliveries into the inbox, for good once it returns; how many were new.

        Raises:
            NotConfigured: what `SEGMENT_INBOX` names is no inbox.
            Unavailable: it cannot be written just now.
        """
        try:
            return await self.inbox.add(deliveries, self._outside.now())
        except ValueError as error:
            raise NotConfigured("SEGMENT_INBOX", str(error)) from None

    @property
    def inbox(self) -> Inbox:
        """The inbox of the settings, where webhook deliveries are kept; opened when it is first used.

        Raises:
            NotConfigured: without `SEGMENT_WEBHOOK_SECRET` nothing is received.
        """
        settings = self.settings
        if settings.webhook_secret is None:
            hint = "Ask whoever runs this server to set SEGMENT_WEBHOOK_SECRET."
            raise NotConfigured("SEGMENT_WEBHOOK_SECRET", "No webhooks are received here.", hint=hint)
        if self._inbox is None:
            address = settings.inbox.get_secret_value() if settings.inbox else _default_inbox()
            self._inbox = open_inbox(address, Retention(settings.inbox_days, settings.inbox_count), self._outside.now)
        return self._inbox

    @contextmanager
    def waiting(self) -> Generator[None]:
        """Be counted among those who wait for deliveries.

        Raises:
            Unavailable: too many do already.
        """
        if self._waiting >= MOST_WAITING:
            hint = "Try again in a minute, or read what came until now."
            text = f"{MOST_WAITING} calls wait for deliveries already."
            raise Unavailable(text, hint=hint, code="too_many_waiting", sent=False)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def newest_delivery(self) -> str | None:
        """The cursor of the newest delivery in the inbox; None where there is none.

        Raises:
            NotConfigured: no webhooks are received, or what `SEGMENT_INBOX` names is no inbox.
            Unavailable: it cannot be read just now.
        """
        try:
            return await self.inbox.last()
        except ValueError as error:
            raise NotConfigured("SEGMENT_INBOX", str(error)) from None

    async def send(
        self,
        message: AnyMessage,
        *,
        source: str | None = None,
        write_key: str | None = None,
        call: str | None = None,
        admit: Admit | None = None,
    ) -> Receipt:
        """Send one message to the path of its type, or with an outbox see to it that it is sent.

        `source` is a name from `SEGMENT_SOURCES`; `write_key` goes before every configured key, and is not kept in an
        outbox. `call` is what repeats of the same call have in common, for `SEGMENT_DERIVE_MESSAGE_ID`. The message of
        a messageId that was accepted within the last 24 hours is not sent again: its first result is returned. `admit`
        has the last word before anything leaves: it may raise.

        Raises:
            InvalidMessage: Segment would drop it; nothing was sent. PlanViolation: it departs from the tracking plan.
            NotConfigured: no write key.
            Rejected, Unavailable: with `receipt`, which tells the messageId to try again with.
        """
        route = partial(route_of, self.settings, source, write_key)
        repeatable = _repeatable(call, source, write_key)
        return await self._sender.send([message], [None], _single, route, repeatable, admit)

    async def send_batch(
        self,
        messages: Sequence[AnyMessage],
        *,
        source: str | None = None,
        write_key: str | None = None,
        call: str | None = None,
        admit: Admit | None = None,
    ) -> Receipt:
        """Send messages to `/v1/batch`, in order, in as few requests as Segment's limits allow.

        One message that Segment would drop refuses them all before anything is sent. Requests go one after the
        other; the first that fails ends the call, and `error.receipt.accepted` counts what went before it. Repeats are
        answered as in `send`, one by one.

        Raises:
            InvalidMessage: with the problems of every message, by index; nothing was sent.
            NotConfigured: no write key.
            Rejected, Unavailable: with `receipt`.
        """
        _refuse_none(messages)
        route = partial(route_of, self.settings, source, write_key)
        indices = list(range(len(messages)))
        repeatable = _repeatable(call, source, write_key)
        return await self._sender.send(messages, indices, wire.batches, route, repeatable, admit)

    async def preview(self, message: AnyMessage) -> Receipt:
        """What a dry run of `send` answers, under any settings; nothing is sent or kept, and no key is needed.

        Raises:
            InvalidMessage: `send` would, too.
        """
        return await self._sender.preview([message], [None], _single)

    async def preview_batch(self, messages: Sequence[AnyMessage], indices: Sequence[int] | None = None) -> Receipt:
        """What a dry run of `send_batch` answers; problems and warnings name the messages by these `indices`.

        Raises:
            InvalidMessage: `send_batch` would, too.
        """
        _refuse_none(messages)
        return await self._sender.preview(messages, indices or list(range(len(messages))), wire.batches)

    @property
    def test_event(self) -> Track:
        """What the connection test sends; it is nobody's, and nobody agreed to anything."""
        consent: dict[str, Any] = {"consent": {"categoryPreferences": {}}}
        return TEST_EVENT.model_copy(update={"context": consent}) if self.settings.require_consent else TEST_EVENT

    async def check(self, level: Level = "probe") -> Report:
        """Whether the credentials and addresses work; only the level `send` writes anything, S0's test event.

        Raises:
            NotConfigured: the level is `send`, and the settings are read-only.
        """
        cdn = Transport(self.settings.cdn_endpoint, service=SOURCE_SETTINGS)
        profiles = Transport(self.settings.profile_endpoint, service=PROFILES)
        try:
            checks = Checks(self.settings, self._outside, self._transport, cdn, profiles)
            looks = {
                "inbox": self._look_into_inbox,
                "outbox": self._look_into_outbox,
                "oauth app": self._plane.prove,
                "tracking plan": self._plans.prove,
            }
            return await checks.report(level, self._send_test, looks, self.reception)
        finally:
            await cdn.aclose()
            await profiles.aclose()

    async def _look_into_inbox(self) -> str:
        await self.newest_delivery()
        return "Deliveries are kept there."

    async def _look_into_outbox(self) -> str:
        """Opened, and made where there is none."""
        if (courier := self.courier) is None:
            return "Not asked: a dry run keeps nothing."
        depth, remarks = await courier.outbox.depth(), await courier.outbox.remarks()
        hint = "segment-tools outbox shows what waits; the log of the server that delivers it says why."
        if depth.bytes > _FULL * self.settings.outbox_max_bytes:
            raise Unavailable(f"It is full: {depth.pending} messages wait, {depth.dead} are dead letters.", hint=hint)
        waited = (self._outside.now() - depth.oldest_at).total_seconds() if depth.oldest_at else 0.0
        if waited > _LONG_SECONDS or courier.trouble:
            why = f" {courier.trouble[0]}" if courier.trouble else ""
            raise Unavailable(f"{depth.pending} messages wait, the first for {waited:.0f} seconds.{why}", hint=hint)
        dead = f", {depth.dead} dead letters" if depth.dead else ""
        return " ".join([f"Waiting: {depth.pending}{dead}. Delivery is {self.settings.delivery}.", *remarks])

    async def _send_test(self, source: str | None) -> Receipt:
        return await self.send(self.test_event, source=source)


def _refuse_none(messages: Sequence[AnyMessage]) -> None:
    if not messages:
        raise InvalidMessage.of("missing_field", "batch is empty.", "Pass at least one message.", "batch")


def _repeatable(call: str | None, source: str | None, write_key: str | None) -> str | None:
    """What repeats of a call have in common, where it goes included: elsewhere it is another call."""
    return None if call is None else "\0".join((call, source or "", write_key or ""))


def _single(messages: Messages, sent_at: str, write_key: str | None) -> list[wire.Request]:
    return [wire.single(message, sent_at, write_key) for message in messages]


def _default_inbox() -> str:
    return f"sqlite:///{user_folder() / 'inbox.db'}"

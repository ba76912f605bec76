"""The client: one object that stamps messages, sends them to Segment and says what became of them."""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Self, cast
from urllib.parse import urlencode

from platformdirs import user_data_path

from segment_tools import wire
from segment_tools.attempts import Surroundings, attempted
from segment_tools.checking import Checks, Level, Report
from segment_tools.errors import InvalidMessage, NotConfigured, Problem, Unavailable, Undelivered
from segment_tools.inbox import Inbox, Retention, open_inbox
from segment_tools.reading import ProfilePage, Profiles
from segment_tools.receipt import Receipt, Warned
from segment_tools.services import PROFILES, SOURCE_SETTINGS
from segment_tools.settings import Settings
from segment_tools.spec.advice import warnings
from segment_tools.spec.messages import AnyMessage, Track
from segment_tools.spec.parsing import no_identity
from segment_tools.spec.profiles import Asked
from segment_tools.spec.timestamps import iso_utc, wire_timestamp
from segment_tools.spec.webhooks import Delivery
from segment_tools.transport import Transport

MOST_WAITING = 100
"""Ours: how many may wait for deliveries at once; each is a call that stays open, and looks now and then."""

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
        surroundings: Surroundings | None = None,
    ) -> None:
        self.settings = settings
        self._transport = transport or Transport(settings.endpoint)
        self._outside = surroundings or Surroundings()
        self._profiles = Profiles(settings, self._outside, profiles)
        self._inbox: Inbox | None = None
        self._waiting = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections, and the inbox if it was opened."""
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            await inbox.aclose()
        await self._transport.aclose()
        await self._profiles.aclose()

    @property
    def outside(self) -> Surroundings:
        """Time, ids and chance, as this client takes them."""
        return self._outside

    async def sandbox_message(self, filters: Mapping[str, str]) -> dict[str, Any] | None:
        """What a sandbox has of a message by its own filters: the one kept, else a discarded one with its `meaning`.

        Empty where it has none; None where no sandbox answers.
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
        except Undelivered:
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

    async def send(self, message: AnyMessage, *, source: str | None = None, write_key: str | None = None) -> Receipt:
        """Send one message to the path of its type.

        `source` is a name from `SEGMENT_SOURCES`; `write_key` goes before every configured key.

        Raises:
            InvalidMessage: Segment would drop it; nothing was sent.
            NotConfigured: no write key.
            Rejected, Unavailable: with `receipt`, which tells the messageId to try again with.
        """
        return await self._deliver(
            [message], lambda stamped, at: [wire.single(stamped[0], at)], source, write_key, [None]
        )

    async def send_batch(
        self, messages: Sequence[AnyMessage], *, source: str | None = None, write_key: str | None = None
    ) -> Receipt:
        """Send messages to `/v1/batch`, in order, in as few requests as Segment's limits allow.

        One message that Segment would drop refuses them all before anything is sent. Requests go one after the
        other; the first that fails ends the call, and `error.receipt.accepted` counts what went before it.

        Raises:
            InvalidMessage: with the problems of every message, by index; nothing was sent.
            NotConfigured: no write key.
            Rejected, Unavailable: with `receipt`.
        """
        if not messages:
            raise InvalidMessage.of("missing_field", "batch is empty.", "Pass at least one message.", "batch")
        return await self._deliver(messages, wire.batches, source, write_key, list(range(len(messages))))

    async def check(self, level: Level = "probe") -> Report:
        """Whether the credentials and addresses work; only the level `send` writes anything, S0's test event.

        Raises:
            NotConfigured: the level is `send`, and the settings are read-only.
        """
        cdn = Transport(self.settings.cdn_endpoint, service=SOURCE_SETTINGS)
        profiles = Transport(self.settings.profile_endpoint, service=PROFILES)
        try:
            checks = Checks(self.settings, self._outside, self._transport, cdn, profiles)
            return await checks.report(level, self._send_test)
        finally:
            await cdn.aclose()
            await profiles.aclose()

    async def _send_test(self, source: str | None) -> Receipt:
        return await self.send(Track(event="App Sync Test", user_id="test", properties={"test": True}), source=source)

    async def _deliver(
        self,
        messages: Sequence[AnyMessage],
        to_requests: Callable[[Sequence[Mapping[str, Any]], str], list[wire.Request]],
        source: str | None,
        write_key: str | None,
        indices: Sequence[int | None],
    ) -> Receipt:
        now = self._outside.now()
        stamped, remarks = self._stamped(messages, now, indices)
        requests = to_requests(stamped, iso_utc(now))
        for message, index in zip(messages, indices, strict=True):
            remarks += warnings(message, now, index)
        receipt = Receipt("failed", tuple(stamped), warnings=tuple(remarks))
        if self.settings.dry_run:
            return replace(receipt, status="dry_run", requests=tuple(json.loads(request.body) for request in requests))
        return await self._send_all(requests, receipt, self._key(source, write_key))

    def _stamped(
        self, messages: Sequence[AnyMessage], now: datetime, indices: Sequence[int | None]
    ) -> tuple[list[dict[str, Any]], list[Warned]]:
        """The messages complete with ids and time, and what had to be made for them that the caller should know."""
        problems: list[Problem] = []
        remarks: list[Warned] = []
        stamped: list[dict[str, Any]] = []
        first_at: dict[str, int | None] = {}
        for message, index in zip(messages, indices, strict=True):
            fields = message.as_dict()
            if not message.identified:
                if self.settings.anonymous_id == "require":
                    problems.append(replace(no_identity(), index=index))
                fields["anonymousId"] = self._outside.new_id()
                remarks.append(_generated(index))
            timestamp = wire_timestamp(message.timestamp) if message.timestamp else iso_utc(now)
            stamped.append(wire.stamped(fields, message.message_id or self._outside.new_id(), timestamp))
            if (message_id := stamped[-1]["messageId"]) in first_at:
                problems.append(_repeated(index, first_at[message_id]))
            first_at.setdefault(message_id, index)
        if problems:
            raise InvalidMessage(problems)
        return stamped, remarks

    def _key(self, source: str | None, write_key: str | None) -> str:
        """The one place that decides which key a call uses."""
        settings = self.settings
        if write_key is not None:
            return write_key
        pass_one = f"Pass one of {', '.join(settings.sources)}."
        if source is not None:
            if source not in settings.sources:
                raise InvalidMessage.of("invalid_value", "source is not a configured one.", pass_one, "source")
            return settings.sources[source].get_secret_value()
        if settings.write_key is not None:
            return settings.write_key.get_secret_value()
        if len(settings.sources) == 1:
            return next(iter(settings.sources.values())).get_secret_value()
        if settings.sources:
            raise InvalidMessage.of("missing_field", "source is required: several are configured.", pass_one, "source")
        hint = "Ask whoever runs this server to set SEGMENT_WRITE_KEY, or pass writeKey if you were given one."
        raise NotConfigured("SEGMENT_WRITE_KEY", "No write key is configured.", hint=hint)

    async def _send_all(self, requests: Sequence[wire.Request], receipt: Receipt, write_key: str) -> Receipt:
        deadline = self._outside.monotonic() + self.settings.timeout_seconds
        for request in requests:
            try:
                status, body = await self._send(request, write_key, deadline)
            except Undelivered as error:
                error.receipt = replace(
                    receipt,
                    sent=error.sent or receipt.sent,
                    status_code=error.status_code,
                    response_body=error.response_body,
                )
                raise
            receipt = replace(
                receipt, sent=True, status_code=status, response_body=body, accepted=receipt.accepted + request.count
            )
        return replace(receipt, status="accepted")

    async def _send(self, request: wire.Request, write_key: str, deadline: float) -> tuple[int, Mapping[str, Any]]:
        """Post until Segment accepts, refuses for good, or time is up; every attempt carries the same bytes."""
        return await attempted(partial(self._attempt, request, write_key), self._outside, deadline)

    async def _attempt(
        self, request: wire.Request, write_key: str, attempt: int, seconds: float
    ) -> tuple[int, Mapping[str, Any]]:
        sent = wire.headers(write_key, attempt)
        answer = await self._transport.post(request.path, request.body, sent, seconds)
        return answer.status, wire.decipher(answer, self._outside.now(), (write_key, *self.settings.secrets))


def _default_inbox() -> str:
    return f"sqlite:///{user_data_path('segment-tools', appauthor=False) / 'inbox.db'}"


def _generated(index: int | None) -> Warned:
    text = "Neither userId nor anonymousId was given, so an anonymousId was made; no other call will have it."
    return Warned("anonymous_id_generated", text, "anonymousId", index)


def _repeated(index: int | None, first: int | None) -> Problem:
    text = f"messageId is the same as that of batch[{first}]; Segment would drop this message."
    return Problem(
        "duplicate_message_id", text, "Give every message its own messageId, or leave it out.", "messageId", index
    )

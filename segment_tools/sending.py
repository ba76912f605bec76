"""What becomes of a call to send: answered from before, sent now, or kept in the outbox to be sent later."""

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from segment_tools import telemetry, wire
from segment_tools.attempts import Surroundings
from segment_tools.data_plane import Accepted, DataPlane
from segment_tools.delivery import Courier
from segment_tools.errors import (
    InvalidMessage,
    NotConfigured,
    PlanViolation,
    Problem,
    TooLarge,
    Unavailable,
    Undelivered,
    told,
)
from segment_tools.gathering import Gathering, Outgoing
from segment_tools.guard import Guard
from segment_tools.outbox import Entry, Known, Outbox, open_outbox
from segment_tools.plan_source import PlanSource
from segment_tools.receipt import Receipt, Warned
from segment_tools.redaction import HIDDEN, forms
from segment_tools.remembered import Remembered
from segment_tools.settings import Settings
from segment_tools.spec.advice import Quiet
from segment_tools.spec.credentials import Secrets
from segment_tools.spec.messages import AnyMessage
from segment_tools.spec.names import Effort
from segment_tools.spec.privacy import Redaction, has_consent, no_consent
from segment_tools.spec.timestamps import iso_utc
from segment_tools.spec.tracking_plan import violations
from segment_tools.spec.wording import Violation
from segment_tools.stamping import Derive, Stamped, derived, stamped

Messages = Sequence[Mapping[str, Any]]
ToRequests = Callable[[Messages, str, str | None], list[wire.Request]]
"""The requests that carry stamped messages in order, sent at the given time, with the write key in them or not."""

Admit = Callable[[Sequence[AnyMessage]], Callable[[], Awaitable[bool]]]
"""Told the messages of a call, redacted and without secrets, as they may be shown; raises what is against them.

What it returns is called once nothing but a person keeps them from being sent. It raises where they do not agree, and
says whether it asked anybody."""

_ACCEPTED_STATUS, _ACCEPTED_BODY = 200, {"success": True}
"""Segment's answer to what it takes, for those who ask again."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """Where a call goes: a configured source by name (empty: the one of `SEGMENT_WRITE_KEY`), or a key of its own."""

    write_key: str = field(repr=False)
    name: str | None
    """None for a call's own key, which is not kept anywhere: what cannot be sent now cannot be sent later."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a client sends with, for who sends in another way than by calls."""

    settings: Settings
    outside: Surroundings
    plane: DataPlane
    sender: "Sender"
    guard: Guard


class Sender:
    """Sends messages to one data plane; with an outbox, later what cannot be sent now."""

    def __init__(
        self,
        settings: Settings,
        outside: Surroundings,
        plane: DataPlane,
        plans: PlanSource,
        quiet: Callable[[], Quiet],
    ) -> None:
        self._settings, self._outside, self._plane = settings, outside, plane
        self._plans, self._quiet = plans, quiet
        key = settings.redact_key.get_secret_value() if settings.redact_key else ""
        self._redaction = Redaction(settings.redact, key)
        self._secrets = Secrets(form for secret in settings.secrets for form in forms(secret))
        self._courier: Courier | None = None
        self._gathering = Gathering(plane, outside, together=settings.batch_calls)
        self._remembered = Remembered(outside.monotonic)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._noting: set[asyncio.Task[None]] = set()
        self._ending: asyncio.Task[None] | None = None

    @property
    def courier(self) -> Courier | None:
        """What delivers the outbox, which is opened when it is first asked for; None without an outbox.

        Raises:
            NotConfigured: what `SEGMENT_OUTBOX` names is no outbox.
        """
        settings = self._settings
        if self._courier is None and settings.outbox is not None and not settings.dry_run:
            outbox = open_outbox(settings.outbox.get_secret_value(), settings.outbox_max_bytes, self._outside.now)
            self._courier = Courier(outbox, self._plane, partial(_key_for, settings), self._outside)
        return self._courier

    def start(self) -> None:
        """Deliver what the outbox has, in the running event loop."""
        if (courier := self.courier) is not None and not self._settings.read_only:
            courier.begin()

    async def aclose(self) -> None:
        """Deliver what the outbox has for as long as the settings say, and keep the rest."""
        # Whoever asks meanwhile waits for the same end.
        if self._ending is None or self._ending.get_loop() is not asyncio.get_running_loop():
            self._ending = asyncio.create_task(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        try:
            await self._gathering.aclose(self._settings.flush_seconds)
            await asyncio.gather(*self._noting, return_exceptions=True)
            if self._courier is not None:
                await self._courier.end(self._settings.flush_seconds)
        finally:
            self._courier = self._ending = None

    async def send(
        self,
        messages: Sequence[AnyMessage],
        indices: Sequence[int | None],
        to_requests: ToRequests,
        route: Callable[[], Route],
        call: str | None,
        admit: Admit | None,
    ) -> Receipt:
        """See `Segment.send`. `call` is what a repeat of the same call has in common with it, if anything."""
        with telemetry.sending(len(messages), self._outside.monotonic) as watched:
            return watched.done(await self._sent(messages, indices, to_requests, route, call, admit, watched))

    async def _sent(
        self,
        messages: Sequence[AnyMessage],
        indices: Sequence[int | None],
        to_requests: ToRequests,
        route: Callable[[], Route],
        call: str | None,
        admit: Admit | None,
        watched: telemetry.Call,
    ) -> Receipt:
        now = self._outside.now()
        derive = derived(call) if call is not None and self._settings.derive_message_id else None
        redacted = [self._redaction.of(message) for message in messages]
        done, remarks = self._stamped(redacted, indices, now, self._outside.new_id, derive)
        agreed = admit(redacted) if admit else None
        remarks = await self._with_departures(done, remarks)
        receipt = Receipt("failed", tuple(each.fields for each in done), warnings=tuple(remarks))
        if self._settings.dry_run:
            return self._unsent(receipt, done, to_requests, now)
        pack = partial(self._packed, to_requests, iso_utc(now), found := route())
        requests = pack(done)
        if agreed and await agreed():
            watched.begin()
            pack = partial(self._packed, to_requests, iso_utc(self._outside.now()), found)
            requests = pack(done)
        if self._ending is not None:
            raise _with_receipt(_ending(), receipt)
        job = _Job(done, requests, pack, found, receipt, watched)
        named = [each.message_id for each in done if each.named]
        if not named:
            return await self._once(job)
        async with self._alone(named):
            return await self._once(job)

    @property
    def secrets(self) -> Secrets:
        """What messages are searched for."""
        return self._secrets

    @property
    def quiet(self) -> Quiet:
        """Which warnings are not given."""
        return self._quiet()

    async def ready(
        self, message: AnyMessage, now: datetime, new_id: Callable[[], str], derive: Derive
    ) -> tuple[Stamped, list[Warned]]:
        """One message of many as it may leave, and what is to be said of it.

        Raises:
            InvalidMessage: `send` would, too.
        """
        done, remarks = await self._prepared([self._redaction.of(message)], [None], now, new_id, derive)
        return done[0], remarks

    async def preview(
        self, messages: Sequence[AnyMessage], indices: Sequence[int | None], to_requests: ToRequests
    ) -> Receipt:
        """What a dry run of the same call answers, under any settings: without a key, and nothing is kept of it."""
        now, redacted = self._outside.now(), [self._redaction.of(message) for message in messages]
        done, remarks = await self._prepared(redacted, indices, now, self._outside.new_id, None)
        receipt = Receipt("dry_run", tuple(each.fields for each in done), warnings=tuple(remarks))
        return self._unsent(receipt, done, to_requests, now)

    def _unsent(self, receipt: Receipt, done: Sequence[Stamped], to_requests: ToRequests, now: datetime) -> Receipt:
        key = HIDDEN if self._settings.uses_oauth else None
        try:
            requests = to_requests(receipt.messages, iso_utc(now), key)
        except TooLarge as error:
            raise TooLarge([replace(each, index=done[each.index or 0].index) for each in error.problems]) from None
        bodies = tuple(json.loads(each.body) for each in requests)
        return replace(receipt, status="dry_run", requests=bodies, sizes=tuple(len(each.body) for each in requests))

    async def _prepared(
        self,
        redacted: Sequence[AnyMessage],
        indices: Sequence[int | None],
        now: datetime,
        new_id: Callable[[], str],
        derive: Derive | None,
    ) -> tuple[list[Stamped], list[Warned]]:
        """The messages as they may leave, and what is to be said of them."""
        done, remarks = self._stamped(redacted, indices, now, new_id, derive)
        return done, await self._with_departures(done, remarks)

    def _stamped(
        self,
        redacted: Sequence[AnyMessage],
        indices: Sequence[int | None],
        now: datetime,
        new_id: Callable[[], str],
        derive: Derive | None,
    ) -> tuple[list[Stamped], list[Warned]]:
        """The messages complete: nothing but this is sent, kept, remembered, logged or shown."""
        generate = self._settings.anonymous_id == "generate"
        return stamped(
            redacted,
            indices,
            now,
            new_id,
            anonymous=generate,
            derive=derive,
            judge=self._problems,
            quiet=self._quiet(),
        )

    async def _with_departures(self, done: Sequence[Stamped], remarks: list[Warned]) -> list[Warned]:
        """The remarks, and what the tracking plan has against the messages."""
        departures = await self._held_to_plan(done)
        told = {(each.field, each.index) for each in departures}
        # What the plan says of a field goes before what is good practice in general.
        return [each for each in remarks if (each.field, each.index) not in told] + departures

    def _problems(self, fields: Mapping[str, Any]) -> list[Problem]:
        """What this server's settings have against the message."""
        found = self._secrets.problems(fields) if self._settings.block_secrets else []
        unasked = self._settings.require_consent and not has_consent(fields)
        return [*found, no_consent()] if unasked else found

    async def _held_to_plan(self, messages: Sequence[Stamped]) -> list[Warned]:
        """What the tracking plan has against the messages, as warnings.

        Raises:
            PlanViolation: the policy is to block them.
            Unauthorized, Rejected, Unavailable: the policy is to block them, and the plan cannot be read.
        """
        blocks = self._settings.tracking_plan_policy == "block"
        try:
            plan = await self._plans.plan()
        except Undelivered as error:
            if blocks:
                raise error.with_hint("Nothing is sent without it: SEGMENT_TRACKING_PLAN_POLICY is block.") from None
            return [Warned("plan_unavailable", f"Not checked against the tracking plan. {error}")]
        if plan is None:
            return []
        effort = Effort()
        found = [(each.index, violation) for each in messages for violation in violations(each.fields, plan, effort)]
        if blocks and found:
            raise PlanViolation([_problem(violation, index) for index, violation in found])
        return [
            Warned("plan_violation", told(violation.text, violation.mend), violation.field, index)
            for index, violation in found
        ]

    def _packed(
        self, to_requests: ToRequests, sent_at: str, route: Route, messages: Sequence[Stamped]
    ) -> Sequence[wire.Request]:
        return to_requests([each.fields for each in messages], sent_at, self._plane.key_in_body(route.write_key))

    @asynccontextmanager
    async def _alone(self, message_ids: Iterable[str]) -> AsyncGenerator[None]:
        """One call at a time for each id, so that a repeat made meanwhile waits for the first result."""
        async with AsyncExitStack() as stack:
            for name in sorted(message_ids):
                await stack.enter_async_context(self._turns.setdefault(name, asyncio.Lock()))
            yield

    async def _once(self, job: "_Job") -> Receipt:
        courier = self.courier if job.route.name is not None else None
        lanes = {each.message_id: _lane(job.route, each) for each in job.messages} if courier else {}
        known, waiting = self._remembered.look(each.message_id for each in job.messages if each.named), False
        # What the outbox knows of ids made just now is nothing, and what is queued goes behind all that waits anyway.
        if courier is not None and (self._settings.delivery == "direct" or any(each.named for each in job.messages)):
            try:
                found, busy = await courier.outbox.look(list(lanes), list(set(lanes.values())))
                known, waiting = {**known, **found}, bool(busy)
            except Unavailable as error:
                if self._settings.delivery == "queued":
                    raise _with_receipt(error, job.receipt) from None
                job = job.warned("outbox_unavailable", f"{error.message} The message was sent without it.")
        job = _unknown_of(job, known)
        if not job.messages:
            return job.receipt
        if courier is not None and (waiting or self._settings.delivery == "queued"):
            if waiting and self._settings.delivery == "direct":
                text = "Earlier messages of the same user wait in the outbox: this one is delivered after them."
                job = job.warned("queued", text)
            return await self._keep(courier, job, job.messages, lanes)
        return await self._deliver(courier, job, lanes)

    async def _deliver(self, courier: Courier | None, job: "_Job", lanes: Mapping[str, str]) -> Receipt:
        """Send it now; what that does not achieve for a reason that may pass goes to the outbox."""
        deadline = self._outside.monotonic() + self._settings.timeout_seconds
        receipt, left = job.receipt, list(job.messages)
        for request in job.requests:
            try:
                accepted, attempts = await self._leave(request, left[0], job.route, deadline, keeps=courier is not None)
            except Undelivered as error:
                error.receipt = receipt = replace(
                    receipt,
                    sent=error.sent or receipt.sent,
                    attempts=receipt.attempts + error.attempts,
                    status_code=error.status_code,
                    response_body=error.response_body,
                )
                if courier is None or not error.retryable:
                    raise
                text = f"{error.message} The outbox keeps what was not delivered, and goes on trying."
                # The answer that refused it is no longer how it stands.
                later = replace(job, receipt=replace(receipt, response_body={})).warned("queued", text)
                try:
                    return await self._keep(courier, later, left, lanes)
                except Unavailable as full:
                    _log.warning("not delivered, and not kept: %s", full.message)
                    raise error.with_hint(str(full)) from None
            job.watched.accepted(request.count)
            self._note(courier, left[: request.count])
            left = left[request.count :]
            receipt = replace(
                receipt,
                status=receipt.status if left else "queued" if receipt.queued else "accepted",
                sent=True,
                attempts=receipt.attempts + attempts,
                status_code=accepted.status,
                response_body=accepted.body,
                accepted=receipt.accepted + request.count,
            )
        return receipt

    async def _leave(
        self, request: wire.Request, first: Stamped, route: Route, deadline: float, *, keeps: bool
    ) -> tuple[Accepted, int]:
        """Segment's answer to the request, which begins with this message."""
        if request.path == wire.BATCH_PATH:
            return await self._plane.send(request, route.write_key, deadline)
        alone = Outgoing(first.fields, request, route.write_key, first.person, deadline, keeps)
        return await self._gathering.send(alone)

    async def _keep(
        self, courier: Courier, job: "_Job", messages: Sequence[Stamped], lanes: Mapping[str, str]
    ) -> Receipt:
        """Put the messages into the outbox; they are on disk when this returns."""
        source = f"{job.route.name}@{self._settings.endpoint}"
        entries = [
            Entry(
                message_id=each.message_id,
                lane=lanes[each.message_id],
                source=source,
                body=wire.encoded(each.fields),
                digest=each.digest,
                timestamp=str(each.fields["timestamp"]),
            )
            for each in messages
        ]
        try:
            before = await courier.outbox.add(entries, self._outside.now())
        except Unavailable as error:
            raise _with_receipt(error, job.receipt) from None
        if others := [_taken(each) for each, first in zip(messages, before, strict=True) if _differs(each, first)]:
            raise InvalidMessage(others)
        telemetry.queued([each.message_id for each, known in zip(entries, before, strict=True) if known is None])
        courier.begin()
        return replace(job.receipt, status="queued", queued=job.receipt.queued + len(messages))

    def _note(self, courier: Courier | None, messages: Sequence[Stamped]) -> None:
        """Remember what was accepted; the outbox tells the fleet, and nobody waits for it: Segment knows it too."""
        known = [Known(each.message_id, each.digest, "accepted", str(each.fields["timestamp"])) for each in messages]
        self._remembered.put(known)
        if courier is not None:
            task = asyncio.create_task(self._told(courier.outbox, known))
            self._noting.add(task)
            task.add_done_callback(self._noting.discard)

    async def _told(self, outbox: Outbox, known: Sequence[Known]) -> None:
        try:
            await outbox.remember(known, self._outside.now())
        except Unavailable as error:
            _log.info("what was accepted is not remembered for others: %s", error.message)


@dataclass(frozen=True, slots=True)
class _Job:
    """A call under way: what is still to be sent, and what is known of all of it."""

    messages: Sequence[Stamped]
    requests: Sequence[wire.Request]
    pack: Callable[[Sequence[Stamped]], Sequence[wire.Request]]
    route: Route
    receipt: Receipt
    watched: telemetry.Call

    def warned(self, code: str, text: str) -> "_Job":
        """The same, with a warning more."""
        return replace(self, receipt=self.receipt.with_warnings([Warned(code, text)]))


def _unknown_of(job: _Job, known: Mapping[str, Known]) -> _Job:
    """The job without what an earlier call has had accepted or queued; the receipt tells the first results of that.

    Raises:
        InvalidMessage: an id that another message has.
    """
    before = [(each, known[each.message_id]) for each in job.messages if each.message_id in known]
    if not before:
        return job
    if others := [_taken(each) for each, first in before if _differs(each, first)]:
        raise InvalidMessage(others)
    first_of = {each.message_id: first for each, first in before}
    rest = [each for each in job.messages if each.message_id not in first_of]
    messages = tuple(
        {**fields, "timestamp": first_of[fields["messageId"]].timestamp} if fields["messageId"] in first_of else fields
        for fields in job.receipt.messages
    )
    queued = sum(first.status == "queued" for first in first_of.values())
    text = "This was accepted before under the same messageId, so it was not sent again."
    receipt = replace(
        job.receipt,
        messages=messages,
        status="queued" if queued else "accepted",
        accepted=len(before) - queued,
        queued=queued,
        sent=queued < len(before),
        status_code=_ACCEPTED_STATUS if queued < len(before) else None,
        response_body=_ACCEPTED_BODY if queued < len(before) else {},
    ).with_warnings(Warned("already_accepted", text, "messageId", each.index) for each, _ in before)
    return replace(job, messages=rest, requests=job.pack(rest) if rest else [], receipt=receipt)


def _problem(violation: Violation, index: int | None) -> Problem:
    return Problem("plan_violation", violation.text, violation.mend, violation.field, index)


def _differs(message: Stamped, first: Known | None) -> bool:
    return first is not None and first.digest != message.digest


def _ending() -> Unavailable:
    text = "The server is about to end and takes no more messages."
    return Unavailable(text, hint="Try again with the same messageId once it runs again.", code="ending", sent=False)


def _taken(message: Stamped) -> Problem:
    text = "messageId is that of another message, sent within the last 24 hours; Segment would drop this one."
    hint = "Leave messageId out, or pass a new one; only a repeat of the same message may have its id."
    return Problem("duplicate_message_id", text, hint, "messageId", message.index)


def _with_receipt(error: Unavailable, receipt: Receipt) -> Unavailable:
    error.receipt = receipt
    error.sent = receipt.sent
    return error


def _key_for(settings: Settings, source: str) -> str:
    """The write key for what waits in the outbox under the source's name and the address it was meant for.

    Raises:
        NotConfigured: this server has no such source, or sends elsewhere.
    """
    name, _, endpoint = source.rpartition("@")
    if endpoint != settings.endpoint:
        text = f"Messages for {endpoint} wait: this server sends to {settings.endpoint}."
        hint = f"Run segment-tools outbox flush with SEGMENT_DATA_PLANE_URL={endpoint}, or discard them."
        raise NotConfigured("SEGMENT_DATA_PLANE_URL", text, hint=hint)
    if (key := settings.key_of(name)) is None:
        setting = "SEGMENT_SOURCES" if name else "SEGMENT_WRITE_KEY"
        lacking = f"has no source {name!r}" if name else "is not set"
        hint = "Set it again, or discard them."
        raise NotConfigured(setting, f"{setting} {lacking} any more, so its messages in the outbox wait.", hint=hint)
    return key


def _lane(route: Route, message: Stamped) -> str:
    """What the messages of one person to one source have in common, and tells nothing of the person."""
    return hashlib.blake2b(f"{route.name}\0{message.person}".encode(errors="surrogatepass"), digest_size=12).hexdigest()


def route_of(settings: Settings, source: str | None, write_key: str | None) -> Route:
    """The one place that decides which key a call uses.

    Raises:
        InvalidMessage: the source is none of the configured ones, or is missing.
        NotConfigured: there is no key.
    """
    if write_key is not None:
        return Route(write_key, None)
    listed = ", ".join(settings.sources)
    pass_one = f"Pass one of {listed}." if listed else "None is configured in SEGMENT_SOURCES: leave it out."
    if source is not None and source not in settings.sources:
        raise InvalidMessage.of("invalid_value", "source is not a configured one.", pass_one, "source")
    if source is None and settings.write_key is None and len(settings.sources) == 1:
        source = next(iter(settings.sources))
    key = settings.key_of(source or "")
    if key is not None:
        return Route(key, source or "")
    if settings.sources:
        raise InvalidMessage.of("missing_field", "source is required: several are configured.", pass_one, "source")
    hint = "Ask whoever runs this server to set SEGMENT_WRITE_KEY, or pass writeKey if you were given one."
    raise NotConfigured("SEGMENT_WRITE_KEY", "No write key is configured.", hint=hint)

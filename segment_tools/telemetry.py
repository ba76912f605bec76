"""What is counted, timed and traced, and under which names: OpenTelemetry's API, which does nothing without an SDK.

Neither people nor content nor keys are in any of it; ids of messages are on spans alone, since metrics are to stay few.
"""

import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from time import perf_counter
from typing import Protocol
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    ProxyTracerProvider,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
    get_tracer,
    get_tracer_provider,
    use_span,
)

from segment_tools._version import __version__
from segment_tools.errors import PENDING, InvalidMessage, NotConfigured, Refused, SegmentError
from segment_tools.log_line import Line
from segment_tools.receipt import Receipt
from segment_tools.redaction import shown_id

SCOPE = "segment-tools"

COUNTERS = {
    "accepted": "Messages that Segment took within the call",
    "queued": "Messages that the outbox took",
    "delivered": "Messages of the outbox that Segment took",
    "retried": "Messages in requests that were tried again",
    "dead": "Messages of the outbox that Segment refused for good",
    "refused": "Messages refused before sending",
    "failed": "Messages that neither Segment nor the outbox took",
}
"""Each is `segment.messages.` and this name."""

GAUGES = {
    "pending": ("{message}", "Messages that wait in the outbox"),
    "bytes": ("By", "What the outbox holds, dead letters included"),
    "oldest_age": ("s", "How long the first in the outbox has waited"),
    "dead": ("{message}", "Dead letters in the outbox"),
}
"""Each is `segment.outbox.` and this name, and a field of `Standing`."""

REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Source: https://opentelemetry.io/docs/specs/semconv/http/http-metrics/."""

DELIVERY_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)
"""Ours: from one request to a day without Segment."""

_MOST_LINKED, _MOST_LINKS = 10_000, 128
"""Ours: of how many queued messages the span is known in memory; and OpenTelemetry's own limit for one span."""

_SYSTEM = {"messaging.system": "segment"}

_tracer = get_tracer(SCOPE, __version__)
_log = logging.getLogger("segment_tools.messages")


@dataclass(frozen=True, slots=True)
class Standing:
    """How an outbox stood when it was last looked at."""

    pending: int
    bytes: int
    oldest_age: float
    dead: int


class Watched(Protocol):
    """What delivers an outbox, and tells of it as long as it is this process that does."""

    def standing(self) -> Standing | None:
        """How the outbox stands; called from any thread."""
        ...


_watched: tuple["weakref.ref[Watched]", ...] = ()


def watch(courier: Watched) -> None:
    """Let the gauges tell of this outbox."""
    global _watched  # noqa: PLW0603 - replaced as a whole, since the gauges are read in other threads
    _watched = (*(each for each in _watched if each() is not None), weakref.ref(courier))


def _reading(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def read(_: CallbackOptions) -> Iterable[Observation]:
        found = [standing for each in _watched if (courier := each()) and (standing := courier.standing())]
        values = [getattr(standing, name) for standing in found]
        return [Observation(max(values) if name == "oldest_age" else sum(values))] if values else []

    return read


class _Instruments:
    """The instruments of one provider."""

    def __init__(self, meter: Meter) -> None:
        self.counters = {
            name: meter.create_counter(f"segment.messages.{name}", "{message}", text) for name, text in COUNTERS.items()
        }
        self.latency = meter.create_histogram(
            "segment.delivery.latency",
            "s",
            "From when a message was accepted here until Segment took it",
            explicit_bucket_boundaries_advisory=DELIVERY_SECONDS,
        )
        self.duration = meter.create_histogram(
            "segment.request.duration",
            "s",
            "One HTTP request to Segment, from its beginning to its answer",
            explicit_bucket_boundaries_advisory=REQUEST_SECONDS,
        )
        for name, (unit, text) in GAUGES.items():
            meter.create_observable_gauge(f"segment.outbox.{name}", [_reading(name)], unit, text)


_instruments: tuple[_Instruments, ...] = (_Instruments(get_meter(SCOPE, __version__)),)


@contextmanager
def measuring(provider: MeterProvider) -> Generator[None]:
    """Tell this provider too meanwhile, beside the one that the whole process may have."""
    global _instruments  # noqa: PLW0603 - replaced as a whole
    own = _Instruments(provider.get_meter(SCOPE, __version__))
    _instruments = (*_instruments, own)
    try:
        yield
    finally:
        _instruments = tuple(each for each in _instruments if each is not own)


def _count(name: str, number: int, error: str | None = None) -> None:
    attributes = None if error is None else {"error.type": error}
    for each in _instruments:
        each.counters[name].add(number, attributes)


def error_type(error: BaseException) -> str:
    """What kind of failure it is, in one word of ours: the status where Segment answered, since its words are not."""
    status = getattr(error, "status_code", None)
    if status is not None:
        return str(status)
    return error.code if isinstance(error, SegmentError) else type(error).__name__


def is_traced() -> bool:
    """Whether anybody was ever told to take spans."""
    return not isinstance(get_tracer_provider(), ProxyTracerProvider)


def _fail(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


def _spanned(
    name: str,
    kind: SpanKind,
    attributes: Mapping[str, str | int],
    context: Context | None = None,
    links: Sequence[Link] = (),
) -> AbstractContextManager[Span]:
    """A span meanwhile. Of an exception it has the kind alone: its text may be somebody's data."""
    span = _tracer.start_span(name, context, kind, attributes, links)
    return _UNTRACED if span is INVALID_SPAN else _traced(span)


_UNTRACED = nullcontext(INVALID_SPAN)
"""Where nobody traces."""


@contextmanager
def _traced(span: Span) -> Generator[Span]:
    with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield span
        except BaseException as error:
            if (kind := error_type(error)) != PENDING:
                _fail(span, kind)
            raise


class Call:
    """A call to send, under way."""

    def __init__(self, span: Span, count: int, clock: Callable[[], float]) -> None:
        self._span, self._count, self._clock = span, count, clock
        self.begin()

    def begin(self) -> None:
        """It begins now: nobody but Segment is waited for from here on."""
        self._began = self._clock()

    def accepted(self, number: int) -> None:
        """Segment took so many of its messages."""
        passed = self._clock() - self._began
        for each in _instruments:
            each.counters["accepted"].add(number)
            for _ in range(number):
                each.latency.record(passed, {"segment.delivery": "direct"})

    def done(self, receipt: Receipt) -> Receipt:
        """It ended so."""
        self._mark(receipt)
        self._say(logging.INFO, receipt)
        return receipt

    def ended(self, error: SegmentError) -> None:
        """It failed."""
        receipt = error.receipt or Receipt("failed", ())
        self._mark(receipt)
        refused(error, self._count)
        if not error.counted:
            error.counted = True
            left = self._count - receipt.accepted - receipt.queued
            _count("failed", left, error_type(error))
            self._say(logging.WARNING, receipt, {"error": error_type(error)})

    def _mark(self, receipt: Receipt) -> None:
        if self._span.is_recording():
            self._span.set_attribute("segment.status", receipt.status)
            if len(receipt.messages) == 1:
                self._span.set_attribute("messaging.message.id", shown_id(receipt.message_ids[0]))

    def _say(self, level: int, receipt: Receipt, more: Mapping[str, str] | None = None) -> None:
        if not _log.isEnabledFor(level):
            return
        facts: dict[str, str | int] = {
            **({"messageId": shown_id(str(receipt.messages[0]["messageId"]))} if receipt.messages else {}),
            "count": self._count,
            **(more or {}),
            **({"status": receipt.status_code} if receipt.status_code is not None else {}),
            "attempts": receipt.attempts,
            "ms": round((self._clock() - self._began) * 1000),
        }
        _log.log(level, Line("failed" if more else receipt.status, facts))


@contextmanager
def sending(count: int, clock: Callable[[], float]) -> Generator[Call]:
    """Around a call to send so many messages; the clock is monotonic, in seconds."""
    attributes: dict[str, str | int] = {
        **_SYSTEM,
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        **({"messaging.batch.message_count": count} if count > 1 else {}),
    }
    with _spanned("send segment", SpanKind.PRODUCER, attributes) as span:
        call = Call(span, count, clock)
        try:
            yield call
        except SegmentError as error:
            call.ended(error)
            raise


def refused(error: SegmentError, count: int) -> None:
    """So many messages were refused before sending, if that is what the error says and nobody counted it yet."""
    if isinstance(error, InvalidMessage | NotConfigured | Refused) and not error.counted:
        error.counted = True
        _count("refused", count, error_type(error))
        _log.info(Line("refused", {"count": count, "error": error_type(error)}))


_linked: OrderedDict[str, SpanContext] = OrderedDict()


def queued(message_ids: Sequence[str]) -> None:
    """The outbox took these messages."""
    _count("queued", len(message_ids))
    context = get_current_span().get_span_context()
    if context.is_valid:
        _linked.update(dict.fromkeys(message_ids, context))
        while len(_linked) > _MOST_LINKED:
            _linked.popitem(last=False)


def retried(count: int) -> None:
    """A request with so many messages is tried again."""
    _count("retried", count)


@contextmanager
def delivering(
    messages: Mapping[str, datetime], source: str, attempts: int, now: Callable[[], datetime]
) -> Generator[Callable[[int], None]]:
    """Around a request with messages of the outbox, each with when it was accepted; told the status of the answer.

    It is a trace of its own: its messages are of many calls, which it is linked to where this process took them.
    """
    attributes = {
        **_SYSTEM,
        "messaging.operation.name": "deliver",
        "messaging.operation.type": "process",
        "messaging.batch.message_count": len(messages),
        **({"messaging.destination.name": source} if source else {}),
        **({"messaging.message.id": shown_id(next(iter(messages)))} if len(messages) == 1 else {}),
    }
    calls = {call.span_id: call for each in messages if (call := _linked.get(each))} if _linked else {}
    links = [Link(call) for call in list(calls.values())[:_MOST_LINKS]]
    facts: dict[str, str | int] = {
        "messageId": shown_id(next(iter(messages))),
        "count": len(messages),
        "attempts": attempts,
    }
    began = perf_counter()
    with _spanned("deliver segment", SpanKind.CONSUMER, attributes, Context(), links):
        try:
            yield partial(facts.__setitem__, "status")
        except SegmentError as error:
            facts |= {"error": error_type(error), "ms": round((perf_counter() - began) * 1000)}
            _log.warning(Line("not delivered", facts))
            raise
    _delivered(messages, now())
    _log.info(Line("delivered", {**facts, "ms": round((perf_counter() - began) * 1000)}))


Caller = SpanContext | None
"""The span of whoever asks, where somebody traces."""


def caller() -> Caller:
    """The caller's span."""
    context = get_current_span().get_span_context()
    return context if context.is_valid else None


@contextmanager
def together(callers: Sequence[Caller]) -> Generator[None]:
    """Around a request with messages of these calls: a trace of its own, linked to theirs."""
    attributes: dict[str, str | int] = {
        **_SYSTEM,
        "messaging.operation.name": "gather",
        "messaging.operation.type": "send",
        "messaging.batch.message_count": len(callers),
    }
    links = [Link(call) for call in callers if call][:_MOST_LINKS]
    with _spanned("gather segment", SpanKind.PRODUCER, attributes, Context(), links):
        yield


def _delivered(messages: Mapping[str, datetime], at: datetime) -> None:
    for each in _instruments:
        each.counters["delivered"].add(len(messages))
        for accepted_at in messages.values():
            each.latency.record((at - accepted_at).total_seconds(), {"segment.delivery": "outbox"})
    for message_id in messages if _linked else ():
        _linked.pop(message_id, None)


def dead(message_id: str, error: SegmentError, attempts: int) -> None:
    """Segment refused this message of the outbox for good."""
    _count("dead", 1, error_type(error))
    _log.warning(Line("dead", {"messageId": shown_id(message_id), "error": error_type(error), "attempts": attempts}))
    _linked.pop(message_id, None)


def server_of(url: str) -> Mapping[str, str | int]:
    """What a request's span and duration say of where it went."""
    found = urlsplit(url)
    port = found.port or (443 if found.scheme == "https" else 80)
    return {"server.address": found.hostname or "", "server.port": port}


@contextmanager
def requesting(
    method: str, server: Mapping[str, str | int], path: str | None, resent: int
) -> Generator[Callable[[int], None]]:
    """Around one HTTP request; the function it gives is told the status of the answer.

    The path is None where it may name somebody.
    """
    common = {"http.request.method": method, **server}
    attributes = {**common, **({"url.template": path} if path else {})}
    outcome: dict[str, str | int] = {}
    began = perf_counter()
    name = f"{method} {path}" if path else method
    numbered = {**attributes, "http.request.resend_count": resent} if resent else attributes
    with _spanned(name, SpanKind.CLIENT, numbered) as span:

        def answered(status: int) -> None:
            outcome["http.response.status_code"] = status
            span.set_attribute("http.response.status_code", status)
            if status >= _FIRST_FAILURE:
                outcome["error.type"] = str(status)
                _fail(span, str(status))

        try:
            yield answered
        except BaseException as error:
            outcome["error.type"] = error_type(error)
            raise
        finally:
            passed = perf_counter() - began
            for each in _instruments:
                each.duration.record(passed, {**attributes, **outcome})


_FIRST_FAILURE = 400

"""What an operator sees: metrics, traces, the log, the health routes; nobody's data and no key in any of them."""

import asyncio
import json
import logging
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prometheus_client.parser import text_string_to_metric_families
from support import KEY, WAIT, Time, Upstream, accepting, answering, arrived, facts, foreign, program, settings

from segment_tools import NotConfigured, Segment, Track, Transport, dispatch
from segment_tools.errors import PENDING, Refused
from segment_tools.guard import Decision
from segment_tools.sandbox.run import Sandbox
from segment_tools.surfaces.mcp_server import build, http_app

pytestmark = pytest.mark.anyio

PERSON = "recognisable-person-7d1e"
TRACK = {"event": "Order Completed", "userId": PERSON}
OK = httpx.Response(200, json={"success": True})
BUSY = httpx.Response(503)
WRONG = httpx.Response(400, json={"message": f"{PERSON} is wrong with {KEY}", "code": PERSON})
ACCEPT = {"Accept": "application/json, text/event-stream"}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

Measures = Mapping[str, Mapping[tuple[tuple[str, Any], ...], float]]
"""By name, the value, or how many values, of each set of attributes."""


@pytest.fixture(scope="module")
def sdk() -> Iterator[tuple[InMemorySpanExporter, InMemoryMetricReader]]:
    """The SDK, as a program sets it up: once in the life of a process."""
    spans = InMemorySpanExporter()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(tracing)
    delta = dict.fromkeys((Counter, Histogram), AggregationTemporality.DELTA)
    reader = InMemoryMetricReader(preferred_temporality=delta)
    metrics.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False))
    yield spans, reader
    spans.shutdown()


@pytest.fixture
def spans(sdk: tuple[InMemorySpanExporter, InMemoryMetricReader]) -> Callable[[], dict[str, ReadableSpan]]:
    """The spans that have ended since the test began, by name; of several with one name the last."""
    exporter, _ = sdk
    exporter.clear()
    return lambda: {span.name: span for span in exporter.get_finished_spans()}


@pytest.fixture
def measured(sdk: tuple[InMemorySpanExporter, InMemoryMetricReader]) -> Callable[[], Measures]:
    """What was counted since the test began, or this was last called; and the gauges."""
    _, reader = sdk
    reader.get_metrics_data()

    def read() -> Measures:
        data = reader.get_metrics_data()
        found = [each for part in (data.resource_metrics if data else ()) for each in part.scope_metrics]
        return {
            metric.name: {tuple(sorted((point.attributes or {}).items())): _value(point) for point in points}
            for scope in found
            for metric in scope.metrics
            if (points := metric.data.data_points)
        }

    return read


def _value(point: Any) -> float:
    return point.value if hasattr(point, "value") else point.count


def counted(measures: Measures) -> dict[str, float]:
    """The counters, over all attributes."""
    prefix = "segment.messages."
    return {name.removeprefix(prefix): sum(of.values()) for name, of in measures.items() if name.startswith(prefix)}


@asynccontextmanager
async def tools(upstream: Upstream, time: Time | None = None, **chosen: Any) -> AsyncIterator[Client]:
    """An MCP client of the tools, which send to the upstream."""
    outside = time.surroundings() if time else None
    segment = Segment(settings(**chosen), transport=upstream.transport(), surroundings=outside)
    async with asyncio.timeout(WAIT), Client(build(segment), raise_exceptions=True) as client:
        yield client


async def until(seen: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not seen():  # noqa: ASYNC110 - nothing tells when the metrics have changed
            await asyncio.sleep(0.01)


def total() -> tuple[dict[str, float], Callable[[Measures], dict[str, float]]]:
    """A sum over several readings."""
    found: dict[str, float] = {}

    def add(measures: Measures) -> dict[str, float]:
        for name, number in counted(measures).items():
            found[name] = found.get(name, 0) + number
        return found

    return found, add


async def test_an_accepted_message_is_counted_and_timed(measured: Callable[[], Measures], time: Time) -> None:
    async with tools(accepting(), time) as client:
        assert facts(await client.call_tool("segment_track", TRACK))["success"]
    found = measured()
    assert counted(found) == {"accepted": 1}
    assert found["segment.delivery.latency"] == {(("segment.delivery", "direct"),): 1}
    assert found["segment.request.duration"] == {
        (
            ("http.request.method", "POST"),
            ("http.response.status_code", 200),
            ("server.address", "api.segment.io"),
            ("server.port", 443),
            ("url.template", "/v1/track"),
        ): 1
    }


async def test_a_request_that_is_tried_again_is_counted(measured: Callable[[], Measures], time: Time) -> None:
    upstream = answering(BUSY, httpx.ConnectError("no"), OK)
    async with tools(upstream, time) as client:
        await client.call_tool("segment_batch", {"batch": [{"type": "track", **TRACK}] * 2})
    found = measured()
    assert counted(found) == {"accepted": 2, "retried": 4}
    durations = [dict(attributes) for attributes in found["segment.request.duration"]]
    assert {each.get("error.type") for each in durations} == {"503", "no_connection", None}


async def test_a_message_that_nobody_took_is_counted_with_its_reason(
    measured: Callable[[], Measures], time: Time
) -> None:
    async with tools(answering(WRONG), time) as client:
        await client.call_tool("segment_track", TRACK)
    assert measured()["segment.messages.failed"] == {(("error.type", "400"),): 1}


async def test_a_repeat_is_not_counted_again(measured: Callable[[], Measures], time: Time) -> None:
    async with tools(accepting(), time) as client:
        for _ in range(2):
            await client.call_tool("segment_track", {**TRACK, "messageId": "m1"})
    assert counted(measured()) == {"accepted": 1}


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "count"),
    [
        ("segment_track", {"event": "A"}, "missing_field", 1),
        ("segment_track", {**TRACK, PERSON: 1}, "unknown_argument", 1),
        ("segment_batch", {"batch": [{"type": "track", **TRACK}, {"type": "track"}]}, "missing_field", 2),
        ("segment_batch", {"batch": [{"type": "track", "messageId": "m1", **TRACK}] * 3}, "duplicate_message_id", 3),
    ],
)
async def test_what_is_refused_before_sending_is_counted_once(
    name: str, arguments: dict[str, Any], kind: str, count: int, measured: Callable[[], Measures], time: Time
) -> None:
    async with tools(accepting(), time) as client:
        await client.call_tool(name, arguments)
    found = measured()
    assert counted(found) == {"refused": count}
    assert found["segment.messages.refused"] == {(("error.type", kind),): count}


async def test_the_time_that_a_person_takes_to_agree_is_no_latency(
    caplog: pytest.LogCaptureFixture, time: Time
) -> None:
    async def agree(_: str) -> Decision:
        await time.sleep(90)
        return "accept"

    caplog.set_level(logging.INFO, "segment_tools.messages")
    upstream = accepting()
    async with Segment(
        settings(confirm="track"), transport=upstream.transport(), surroundings=time.surroundings()
    ) as segment:
        assert (await dispatch("segment_track", TRACK, segment, confirm=agree))["success"]
    (told,) = [each.getMessage() for each in caplog.records if each.name == "segment_tools.messages"]
    assert " ms=0" in told
    (body,) = [json.loads(request.content) for request in upstream.requests]
    sent_at, timestamp = (datetime.fromisoformat(body[name]) for name in ("sentAt", "timestamp"))
    assert sent_at - timestamp == timedelta(seconds=90)


async def test_a_question_that_is_open_is_no_failure_of_its_span(spans: Callable[[], dict[str, ReadableSpan]]) -> None:
    async def later(_: str) -> Decision:
        raise Refused(PENDING, "A person is asked first.")

    async with Segment(settings(confirm="track"), transport=accepting().transport()) as segment:
        assert not (await dispatch("segment_track", TRACK, segment, confirm=later))["success"]
    assert spans()["send segment"].status.status_code is StatusCode.UNSET


async def test_calls_that_leave_together_are_linked_to_their_request(
    spans: Callable[[], dict[str, ReadableSpan]],
) -> None:
    opened, asked = asyncio.Event(), list[httpx.Request]()

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        await opened.wait()
        return httpx.Response(200, json={"success": True})

    transport = Transport("https://api.segment.io", httpx.MockTransport(answer))
    async with Segment(settings(), transport=transport) as segment:
        sends = [segment.send(Track(event="A", user_id=f"u{number}")) for number in range(4)]
        calls = [asyncio.create_task(each) for each in sends]
        await until(lambda: len(asked) == 1)
        opened.set()
        receipts = await asyncio.gather(*calls)
    ended = spans()
    together = ended["gather segment"]
    assert (together.parent, (together.attributes or {})["messaging.batch.message_count"]) == (None, 3)
    assert ended["POST /v1/batch"].parent == together.get_span_context()
    assert len({link.context.trace_id for link in together.links}) == 3
    last = ended["send segment"]
    assert last.get_span_context().trace_id in {link.context.trace_id for link in together.links}
    assert (last.attributes or {})["messaging.message.id"] == receipts[-1].message_ids[0]


async def test_a_message_goes_through_the_outbox(
    measured: Callable[[], Measures], spans: Callable[[], dict[str, ReadableSpan]]
) -> None:
    async with tools(answering(BUSY, OK), outbox="memory:", delivery="queued") as client:
        done = facts(await client.call_tool("segment_track", TRACK))
        sums, add = total()
        await until(lambda: "delivered" in add(found := measured()) and bool(found))
    assert done["status"] == "queued"
    assert sums == {"queued": 1, "retried": 1, "delivered": 1}
    ended = spans()
    sent, delivered = ended["send segment"], ended["deliver segment"]
    assert (sent.attributes or {})["messaging.message.id"] == done["messageId"]
    assert (delivered.attributes or {})["messaging.message.id"] == done["messageId"]
    assert [link.context.span_id for link in delivered.links] == [sent.get_span_context().span_id]
    assert delivered.parent is None
    assert ended["POST /v1/batch"].parent == delivered.get_span_context()


async def test_a_dead_letter_is_counted_and_stays_in_the_gauges(measured: Callable[[], Measures]) -> None:
    async with tools(answering(WRONG), outbox="memory:", delivery="queued") as client:
        await client.call_tool("segment_track", TRACK)
        _, add = total()
        gauges: dict[str, Any] = {}

        def seen() -> bool:
            found = measured()
            add(found)
            gauges.update({name: next(iter(of.values())) for name, of in found.items() if ".outbox." in name})
            return gauges.get("segment.outbox.dead") == 1

        await until(seen)
        assert add({}) == {"queued": 1, "dead": 1}
        assert gauges["segment.outbox.pending"] == gauges["segment.outbox.oldest_age"] == 0
        assert gauges["segment.outbox.bytes"] > 100
    assert "segment.outbox.dead" not in measured()


async def test_the_gauges_tell_what_waits(measured: Callable[[], Measures]) -> None:
    async with tools(answering(BUSY), outbox="memory:", delivery="queued", flush_seconds=0) as client:
        for _ in range(3):
            await client.call_tool("segment_track", TRACK)
        await until(lambda: measured().get("segment.outbox.pending") == {(): 3})
        assert measured()["segment.outbox.oldest_age"][()] > 0


async def test_a_trace_goes_from_the_caller_to_the_attempt(
    spans: Callable[[], dict[str, ReadableSpan]], time: Time
) -> None:
    async with tools(answering(BUSY, OK), time) as client:
        done = facts(await client.call_tool("segment_track", TRACK, meta={"traceparent": PARENT}))
    ended = spans()
    names = ("tools/call segment_track", "send segment", "POST /v1/track")
    contexts = [ended[name].get_span_context() for name in names]
    assert [ended[name].parent for name in names[1:]] == contexts[:2]
    assert (ended["send segment"].attributes or {})["messaging.message.id"] == done["messageId"]
    last = ended["POST /v1/track"].attributes or {}
    assert (last["http.response.status_code"], last["http.request.resend_count"]) == (200, 1)


async def test_a_failure_is_an_error_on_its_spans(spans: Callable[[], dict[str, ReadableSpan]], time: Time) -> None:
    async with tools(answering(WRONG), time) as client:
        await client.call_tool("segment_track", TRACK)
    for name in ("send segment", "POST /v1/track"):
        span = spans()[name]
        assert (span.status.is_ok, (span.attributes or {})["error.type"]) == (False, "400")
        assert (span.status.description, span.events) == (None, ())


async def test_no_span_and_no_metric_has_a_person_or_a_key(
    sdk: tuple[InMemorySpanExporter, InMemoryMetricReader], sandbox: Sandbox
) -> None:
    exporter, reader = sdk
    exporter.clear()
    upstream = answering(WRONG, OK, httpx.ConnectError(f"{PERSON} {KEY}"), OK)
    async with tools(upstream, outbox="memory:", timeout_seconds=1, flush_seconds=0) as client:
        for _ in range(3):
            await client.call_tool("segment_track", {**TRACK, "properties": {"name": PERSON}})
        await client.call_tool("segment_track", {PERSON: 1})
    looked = settings(data_plane_url=sandbox.url, profile_token=KEY, space_id="s")
    async with Client(build(Segment(looked))) as client:
        await client.call_tool("segment_get_profile_traits", {"id": PERSON})
        await client.call_tool("segment_test_connection", {})
    data = reader.get_metrics_data()
    exported = [json.loads(span.to_json()) for span in exporter.get_finished_spans()]
    shown = json.dumps(exported) + (data.to_json() if data else "")
    assert {"GET", "POST /v1/track", "send segment"} <= {span["name"] for span in exported}
    assert PERSON not in shown
    assert KEY not in shown


async def test_a_call_without_mcp_is_traced_too(spans: Callable[[], dict[str, ReadableSpan]], time: Time) -> None:
    async with Segment(settings(), transport=accepting().transport(), surroundings=time.surroundings()) as segment:
        await segment.send(Track(event="A", user_id=PERSON))
    assert spans()["send segment"].parent is None


def logged(environ: Mapping[str, str], arguments: Mapping[str, Any], *options: str, **chosen: Any) -> list[str]:
    """The lines that the program writes to standard error while it answers one call."""
    variables = {f"SEGMENT_{name.upper()}": str(value) for name, value in {"write_key": KEY, **chosen}.items()}
    command = program("call", *options, "segment_track", json.dumps(arguments))
    done = subprocess.run(
        command, env={**environ, **variables}, capture_output=True, text=True, timeout=WAIT, check=False
    )
    assert KEY not in done.stderr
    assert PERSON not in done.stderr
    return done.stderr.splitlines()


JSON_LINES = ("--log-format", "json", "--log-level", "info")


def test_the_log_is_json_where_that_is_asked_for(environ: dict[str, str], sandbox: Sandbox) -> None:
    said = [json.loads(line) for line in logged(environ, TRACK, *JSON_LINES, data_plane_url=sandbox.url)]
    (line,) = [each for each in said if each["logger"] == "segment_tools.messages"]
    assert datetime.fromisoformat(line.pop("time")).tzinfo is not None
    assert line.pop("ms") >= 0
    assert line == {
        "level": "info",
        "logger": "segment_tools.messages",
        "message": "accepted",
        "messageId": arrived(sandbox)[0]["messageId"],
        "count": 1,
        "status": 200,
        "attempts": 1,
    }


def test_what_the_program_announces_is_json_too(environ: dict[str, str]) -> None:
    found = [json.loads(line) for line in logged(environ, TRACK, "--log-format", "json", writekey="x", dry_run="true")]
    assert [(each["logger"], each["message"].split()[0]) for each in found] == [("segment_tools", "SEGMENT_WRITEKEY")]


def test_a_failed_call_is_a_warning(environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    (line,) = logged(environ, {**TRACK, "messageId": "a b"}, data_plane_url=address, timeout_seconds=0.1)
    expected = (
        r'WARNING segment_tools.messages: failed messageId="\[hidden\]" count=1 error=no_connection attempts=1 ms=\d+'
    )
    assert re.fullmatch(expected, line)


def test_a_refused_call_is_information(environ: dict[str, str]) -> None:
    assert logged(environ, {PERSON: KEY}) == []
    (line,) = logged(environ, {PERSON: KEY}, "--log-level", "info")
    assert line == "INFO segment_tools.messages: refused count=1 error=unknown_argument"


async def test_deliveries_of_the_outbox_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "segment_tools")

    def lines() -> list[str]:
        found = [record for record in caplog.records if record.name == "segment_tools.messages"]
        return [f"{record.levelname} {record.getMessage()}" for record in found]

    async with tools(answering(BUSY, OK, WRONG), outbox="memory:", delivery="queued") as client:
        for name, count in (("m1", 3), ("m2", 6)):
            await client.call_tool("segment_track", {**TRACK, "messageId": name})
            await until(lambda count=count: len(lines()) == count)
    shown = [re.sub(r" ms=\d+", "", line) for line in lines()]
    assert shown == [
        "INFO queued messageId=m1 count=1 attempts=0",
        "WARNING not delivered messageId=m1 count=1 attempts=1 error=503",
        "INFO delivered messageId=m1 count=1 attempts=2 status=200",
        "INFO queued messageId=m2 count=1 attempts=0",
        "WARNING not delivered messageId=m2 count=1 attempts=1 error=400",
        "WARNING dead messageId=m2 error=400 attempts=1",
    ]
    assert "the outbox waits error=503" in caplog.text
    assert PERSON not in caplog.text
    assert KEY not in caplog.text


@asynccontextmanager
async def web(upstream: Upstream, time: Time | None = None, **chosen: Any) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the application."""
    outside = time.surroundings() if time else None
    segment = Segment(settings(**chosen), transport=upstream.transport(), surroundings=outside)
    app = http_app(segment, "127.0.0.1")
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://elsewhere")
    async with asyncio.timeout(WAIT), app.router.lifespan_context(app), client:
        yield client


async def test_it_is_ready_while_the_data_plane_answers(time: Time) -> None:
    upstream = answering(httpx.Response(404), httpx.ConnectError("no"), BUSY, OK)
    found = []
    async with web(upstream, time) as http:
        for _ in range(4):
            answer = await http.get("/readyz")
            found.append((answer.status_code, answer.json()["dataPlane"]["outcome"]))
            time.now += timedelta(seconds=11)
        assert (await http.get("/healthz")).json()["status"] == "ok"
    assert found == [(200, "404"), (503, "no_connection"), (503, "503"), (200, "200")]


async def test_the_data_plane_is_not_asked_at_each_request(time: Time) -> None:
    upstream = accepting()
    async with web(upstream, time) as http:
        for _ in range(20):
            assert (await http.get("/readyz")).json() == {
                "status": "ready",
                "dataPlane": {"ok": True, "outcome": "200", "at": "2026-11-23T12:00:00.123Z"},
            }
            time.now += timedelta(seconds=0.5)
    assert [(each.method, each.url.path, "authorization" in each.headers) for each in upstream.requests] == [
        ("GET", "/", False)
    ]


async def test_a_dry_run_asks_nobody() -> None:
    upstream = accepting()
    async with web(upstream, dry_run="true") as http:
        assert (await http.get("/readyz")).json()["dataPlane"] == {"ok": True, "outcome": "dry_run"}
    assert upstream.requests == []


async def test_with_an_outbox_it_is_ready_without_a_data_plane(tmp_path: Path) -> None:
    async with web(answering(BUSY), outbox=f"sqlite:///{tmp_path}/box.db") as http:
        answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()["dataPlane"]["ok"]) == (200, False)
    assert answer.json()["outbox"] == {
        "ok": True, "pending": 0, "oldestSeconds": 0.0, "dead": 0, "full": False, "trouble": [],
    }  # fmt: skip


@pytest.mark.parametrize("table", ["totals", "leases"])
async def test_it_is_not_ready_while_the_outbox_cannot_be_used(table: str, tmp_path: Path) -> None:
    path = tmp_path / "box.db"
    async with web(accepting(), outbox=f"sqlite:///{path}") as http:

        async def status(wanted: int) -> dict[str, Any]:
            while True:
                answer = await http.get("/readyz")
                if answer.status_code == wanted:
                    return answer.json()
                await asyncio.sleep(0.1)

        await status(200)
        foreign(path, f"ALTER TABLE {table} RENAME TO gone")
        broken = await status(503)
        assert broken["status"] == "not_ready"
        assert "outbox_unavailable" in json.dumps(broken["outbox"])
        assert (await http.get("/healthz")).status_code == 200
        foreign(path, f"ALTER TABLE gone RENAME TO {table}")
        assert (await status(200))["outbox"]["trouble"] == []


async def test_it_is_not_ready_while_the_outbox_is_full(tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path}/box.db"
    chosen = settings(outbox=place, delivery="queued", outbox_max_bytes=65536, flush_seconds=0)
    async with Segment(chosen, transport=answering(BUSY).transport()) as segment:
        for _ in range(2):
            await segment.send(Track(event="A", user_id=PERSON, properties={"filled": PERSON * 1200}))
    async with web(answering(BUSY), outbox=place, outbox_max_bytes=65536, flush_seconds=0) as http:
        answer = await http.get("/readyz")
    found = answer.json()["outbox"]
    assert (answer.status_code, found["ok"], found["full"], found["pending"]) == (503, False, True, 2)
    assert PERSON not in answer.text


async def test_it_is_not_ready_while_the_inbox_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "inbox.db"
    async with web(accepting(), webhook_secret=KEY, inbox=f"sqlite:///{path}") as http:
        assert (await http.get("/readyz")).json()["inbox"] == {"ok": True}
    path.write_text("no database, but longer than its header would be" * 10)
    async with web(accepting(), webhook_secret=KEY, inbox=f"sqlite:///{path}") as http:
        answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()["inbox"]["ok"]) == (503, False)
    assert KEY not in answer.text


def scraped(text: str) -> dict[str, float]:
    """The samples of an answer of /metrics by name, each summed over its labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        assert family.type != "unknown"
        assert family.documentation
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "segment_track", "arguments": TRACK}}


async def test_prometheus_can_scrape_the_metrics() -> None:
    for _ in range(2):  # each application counts for itself
        async with web(accepting(), metrics="true", outbox="memory:") as http:
            assert (await http.post("http://127.0.0.1/mcp", json=CALL, headers=ACCEPT)).status_code == 200
            found = {}
            while "segment_outbox_pending" not in found:
                answer = await http.get("/metrics")
                found = scraped(answer.text)
                await asyncio.sleep(0.01)
        assert answer.headers["content-type"].startswith("text/plain")
        assert found["segment_messages_accepted_total"] == 1
        assert found["segment_request_duration_seconds_count"] == found["segment_delivery_latency_seconds_count"] == 1
        assert {f"segment_outbox_{name}" for name in ("bytes", "dead", "oldest_age_seconds")} <= set(found)
        assert KEY not in answer.text
        assert PERSON not in answer.text


async def test_there_are_no_metrics_unless_asked_for() -> None:
    async with web(accepting()) as http:
        answer = await http.get("/metrics")
    assert answer.status_code == 404
    assert "SEGMENT_METRICS=true" in answer.json()["error"]
    assert "pip install 'segment-tools[metrics]'" in answer.json()["error"]


@pytest.mark.parametrize("package", ["opentelemetry.sdk.metrics", "opentelemetry.exporter.prometheus"])
def test_metrics_without_their_packages_are_an_error_that_says_so(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "segment_tools.surfaces.metrics", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(NotConfigured, match=r"pip install 'segment-tools\[metrics\]'") as raised:
        http_app(Segment(settings(metrics="true")), "127.0.0.1")
    assert raised.value.setting == "SEGMENT_METRICS"

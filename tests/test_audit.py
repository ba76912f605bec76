"""The audit log: a line for every call, whatever became of it, and nothing of anybody in it."""

import asyncio
import fcntl
import json
import logging
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client
from mcp.types import ElicitResult, Implementation
from support import KEY, WAIT, Time, Upstream, accepting, answering, facts, program, settings

from segment_tools import NotConfigured, Segment, dispatch
from segment_tools.audit import KEPT_FILES, Audit, files
from segment_tools.guard import Origin
from segment_tools.surfaces.audit_report import Wanted, followed, since
from segment_tools.surfaces.mcp_server import build

pytestmark = pytest.mark.anyio
ORDER = {"event": "Order Completed", "userId": "jane-RECOGNISABLE", "properties": {"coupon": "coupon-RECOGNISABLE"}}
PERSONAL = ("RECOGNISABLE", "Order Completed", KEY)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for each in files(log) for line in each.read_text(encoding="utf-8").splitlines()]


def text(log: Path) -> str:
    return log.read_text(encoding="utf-8")


def size(log: Path) -> int:
    return log.stat().st_size


def logged(log: Path, upstream: Upstream | None = None, time: Time | None = None, **chosen: Any) -> Segment:
    transport = (upstream or accepting()).transport()
    surroundings = (time or Time()).surroundings()
    return Segment(settings(audit_log=log, **chosen), transport=transport, surroundings=surroundings)


@contextmanager
def no_larger_files(size: int) -> Iterator[None]:
    """A disk that is full: no file of this process grows beyond the size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


VERDICTS: list[tuple[str, dict[str, Any], dict[str, Any], Any, tuple[str, str | None]]] = [
    ("track", ORDER, {}, None, ("accepted", None)),
    ("track", ORDER, {"dry_run": True}, None, ("dry_run", None)),
    ("track", ORDER, {"outbox": "memory:", "delivery": "queued"}, None, ("queued", None)),
    ("track", {"event": "A"}, {}, None, ("refused", "missing_field")),
    ("track", ORDER, {"deny_events": "*"}, None, ("refused", "not_allowed")),
    ("track", ORDER, {"confirm": "*"}, None, ("refused", "confirmation_unavailable")),
    ("track", ORDER, {}, httpx.Response(401), ("failed", "unauthorized")),
    ("track", ORDER, {}, httpx.ReadTimeout(""), ("failed", "timeout")),
    ("test_connection", {"level": "config"}, {}, None, ("read", None)),
    ("outbox", {"action": "discard", "messageIds": ["m"]}, {"outbox": "memory:"}, None, ("done", None)),
]


@pytest.mark.parametrize(("tool", "arguments", "chosen", "answer", "verdict"), VERDICTS)
async def test_every_call_has_a_line_that_says_what_became_of_it(
    tool: str, arguments: Any, chosen: Any, answer: Any, verdict: Any, log: Path, time: Time
) -> None:
    upstream = answering(answer) if answer else accepting()
    segment = logged(log, upstream, time, timeout_seconds=1, **chosen)
    result = await dispatch(f"segment_{tool}", arguments, segment)
    await segment.aclose()
    (line,) = lines(log)
    assert (line["verdict"], line.get("code")) == verdict
    assert line["tool"] == f"segment_{tool}"
    assert line.get("messageId") == result.get("messageId")
    assert line["bytes"] == len(json.dumps(arguments, separators=(",", ":")))
    assert len(line.get("people", [])) == ("userId" in arguments)
    assert not [part for part in PERSONAL if part in text(log)]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_line_names_client_session_and_request(mode: Any, log: Path) -> None:
    person = Implementation(name="a host", version="1.2")
    async with Client(build(logged(log)), mode=mode, client_info=person) as client:
        for number in range(2):
            assert facts(await client.call_tool("segment_track", {**ORDER, "event": f"E {number}"}))["success"]
    first, second = lines(log)
    assert (first["client"], first["session"]) == ("a host 1.2", second["session"])
    assert first["request"] != second["request"]
    assert first["time"].endswith("Z")
    assert first["ms"] >= 0


async def test_a_question_and_its_answer_are_a_line_each(log: Path) -> None:
    async def accept(*_: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={})

    async with Client(build(logged(log, confirm="track")), elicitation_callback=accept) as client:
        assert facts(await client.call_tool("segment_track", ORDER))["success"]
    assert [line["verdict"] for line in lines(log)] == ["asked", "accepted"]


async def test_a_batch_has_its_first_message_and_their_number_and_everybodys_digest(log: Path) -> None:
    segment = logged(log)
    items = [{"type": "track", **ORDER, "userId": f"u{number % 3}", "event": f"E{number}"} for number in range(8)]
    result = await dispatch("segment_batch", {"batch": json.dumps(items)}, segment)
    (line,) = lines(log)
    assert (line["messageId"], line["count"], len(line["people"])) == (result["messageIds"][0], 8, 3)
    assert size(log) < 500


async def test_ids_keys_and_stray_arguments_never_reach_the_log(log: Path) -> None:
    segment = logged(log, allow_write_key_arg=True)
    origin = Origin("session-RECOGNISABLE", f"host {KEY}", "7")
    for tool, arguments in [
        ("segment_RECOGNISABLE", {}),
        ("segment_track", {**ORDER, "RECOGNISABLE": 1}),
        ("segment_track", {**ORDER, "writeKey": "wk-RECOGNISABLE-2"}),
        ("segment_track", "RECOGNISABLE"),
        ("segment_track", '{"userId": "RECOGNISABLE"'),
        ("segment_track", {**ORDER, "messageId": KEY}),
        ("segment_batch", {"batch": [5, "RECOGNISABLE", {"userId": ["RECOGNISABLE"]}, ORDER]}),
        ("segment_get_profile", {"id": "email:jane@RECOGNISABLE"}),
    ]:
        await dispatch(tool, arguments, segment, origin=origin)  # type: ignore[arg-type]
    assert len(lines(log)) == 8
    assert not [part for part in PERSONAL if part in text(log)]


DEEP: Any = []
for _ in range(300):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("more", "people"),
    [
        ({"properties": {"a": "\ud800"}}, 1),
        ({"properties": {"a": DEEP}}, 1),
        ({"userId": 10**5000}, 0),
        ({"userId": "\ud800"}, 1),
        ({"properties": {"a": float("nan")}}, 1),
        ({"batch": DEEP}, 1),
    ],
)
async def test_what_no_json_can_hold_is_refused_alike_with_a_log_and_has_its_line(
    more: dict[str, Any], people: int, log: Path
) -> None:
    arguments = {"event": "A", "userId": "u1", **more}
    without = await dispatch("segment_track", arguments, Segment(settings()))
    with_log = await dispatch("segment_track", arguments, logged(log))
    assert with_log == without
    assert with_log["error"]["code"] != "internal_error"
    (line,) = lines(log)
    assert (line["verdict"], line["code"]) == ("refused", with_log["error"]["code"])
    assert len(line.get("people", [])) == people


@pytest.mark.parametrize("name", ["jane@example.com", "+49 151 123", "Jane Doe"])
async def test_a_message_id_that_may_be_somebody_stands_in_no_log(
    name: str, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    result = await dispatch("segment_track", {**ORDER, "messageId": name}, logged(log))
    assert result["messageId"] == name
    assert name not in caplog.text + text(log)
    (line,) = lines(log)
    assert Wanted(message_id=name).has(line, log.with_name("audit.jsonl.key").read_bytes())
    assert not Wanted(message_id="other").has(line, log.with_name("audit.jsonl.key").read_bytes())


async def test_another_process_that_holds_the_lock_holds_up_no_call(log: Path) -> None:
    segment = logged(log)
    assert (await dispatch("segment_track", ORDER, segment))["success"]
    held = os.open(log.with_name("audit.jsonl.key"), os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    async with asyncio.timeout(WAIT):
        for number in range(3):
            assert (await dispatch("segment_track", {**ORDER, "event": f"E{number}"}, segment))["success"]
    assert len(lines(log)) == 1
    os.close(held)
    assert (await dispatch("segment_page", {"userId": "u1"}, segment))["success"]
    assert len(lines(log)) == 5


async def test_a_call_that_was_cancelled_has_a_line(log: Path) -> None:
    started = asyncio.Event()

    async def hang(_: httpx.Request) -> httpx.Response:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    from segment_tools import Transport

    transport = Transport("https://api.segment.io", httpx.MockTransport(hang))
    segment = Segment(settings(audit_log=log), transport=transport)
    task = asyncio.create_task(dispatch("segment_track", ORDER, segment))
    await started.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [(line["verdict"], line["code"]) for line in lines(log)] == [("failed", "cancelled")]


async def test_the_files_are_for_their_owner_alone_and_a_digest_stays_the_same(log: Path) -> None:
    for _ in range(2):
        segment = logged(log)
        await dispatch("segment_track", ORDER, segment)
        await segment.aclose()
    first, second = lines(log)
    assert first["people"] == second["people"]
    key = log.with_name("audit.jsonl.key")
    assert [stat.S_IMODE(each.stat().st_mode) for each in (log, key)] == [0o600, 0o600]
    assert sorted(each.name for each in log.parent.iterdir()) == ["audit.jsonl", "audit.jsonl.key"]


WRITER = """
import sys
from pathlib import Path
from segment_tools.audit import Audit
audit = Audit(Path(sys.argv[1]), int(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[4])):
    audit.note({"verdict": "accepted", "who": sys.argv[3], "number": number, "pad": "x" * (number % 700)})
"""


def written_together(log: Path, max_bytes: int, count: int) -> None:
    """Two processes that begin to write at once."""
    command = [sys.executable, "-c", WRITER, str(log), str(max_bytes)]
    both = [
        subprocess.Popen([*command, who, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for who in "ab"
    ]
    for each in both:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in both:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    for each in both:
        each.communicate(timeout=WAIT)
        assert each.returncode == 0


def test_two_processes_lose_no_line(log: Path) -> None:
    written_together(log, 1_000_000_000, 3000)
    found = lines(log)
    assert len(found) == 6000
    for who in "ab":
        assert [line["number"] for line in found if line["who"] == who] == list(range(3000))


def test_files_are_put_aside_with_whole_lines_by_whichever_process(log: Path) -> None:
    written_together(log, 100_000, 600)
    found = lines(log)
    assert len(found) == 1200
    for who in "ab":
        assert [line["number"] for line in found if line["who"] == who] == list(range(600))
    assert 1 < len(files(log)) <= KEPT_FILES + 1
    assert all(each.stat().st_size <= 100_000 for each in files(log))


def test_five_files_are_kept_beside_the_one_that_is_written(log: Path) -> None:
    audit = Audit(log, 1024)
    for number in range(2000):
        audit.note({"verdict": "read", "number": number})
    assert [each.name for each in files(log)] == [f"audit.jsonl.{number}" for number in (5, 4, 3, 2, 1)] + [log.name]
    numbers = [line["number"] for line in lines(log)]
    assert numbers == list(range(numbers[0], 2000))


def test_a_file_that_was_moved_away_is_begun_anew(log: Path) -> None:
    audit = Audit(log, 10_000)
    audit.note({"verdict": "read", "number": 1})
    log.rename(log.with_name("elsewhere"))
    audit.note({"verdict": "read", "number": 2})
    assert [line["number"] for line in lines(log)] == [2]


async def test_without_its_key_a_log_is_nobodys_and_is_written_on(log: Path, time: Time) -> None:
    segment = logged(log, time=time)
    await dispatch("segment_track", ORDER, segment)
    log.with_name("audit.jsonl.key").unlink()
    for number in range(2):
        await dispatch("segment_track", {**ORDER, "event": f"E{number}"}, segment)
    await dispatch("segment_track", ORDER, logged(log, time=time))
    people = [line["people"] for line in lines(log)]
    assert people[2] == people[3] != people[0]


def test_a_line_that_a_crash_broke_off_spoils_no_other(log: Path) -> None:
    Audit(log, 10_000)
    log.write_text('{"verdict":"re', encoding="utf-8")
    Audit(log, 10_000).note({"verdict": "read"})
    assert log.read_text(encoding="utf-8") == '{"verdict":"re\n{"verdict":"read"}\n'


@pytest.mark.parametrize("place", ["no/such/folder/audit", "", "file/audit"])
def test_a_log_that_cannot_be_written_is_said_at_the_start(place: str, tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    chosen = {**environ, "SEGMENT_WRITE_KEY": KEY, "SEGMENT_AUDIT_LOG": str(tmp_path / place)}
    for command in ([], ["http", "--port", "0"], ["call", "segment_track", "{}"]):
        done = subprocess.run(
            program(*command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=chosen,
            timeout=WAIT,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert "SEGMENT_AUDIT_LOG" in done.stderr


def test_a_full_disk_is_said_at_the_start(log: Path) -> None:
    Audit(log, 10_000).note({"verdict": "read"})
    before = log.read_bytes()
    with no_larger_files(len(before)), pytest.raises(NotConfigured, match="cannot be written"):
        Audit(log, 10_000)
    assert log.read_bytes() == before


async def test_a_disk_that_fills_holds_no_call_back_and_the_lines_come_later(
    log: Path, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    segment = logged(log, time=time)
    assert (await dispatch("segment_track", ORDER, segment))["success"]
    with no_larger_files(size(log) + 30):
        for number in range(3):
            assert (await dispatch("segment_track", {**ORDER, "event": f"E{number}"}, segment))["success"]
    assert "the audit log cannot be written" in caplog.text
    assert len(lines(log)) == 1
    assert (await dispatch("segment_page", {"userId": "u1"}, segment))["success"]
    assert [line["tool"] for line in lines(log)] == ["segment_track"] * 4 + ["segment_page"]


async def test_where_the_log_is_required_no_call_goes_on_without(log: Path, time: Time) -> None:
    upstream = accepting()
    segment = logged(log, upstream, time, audit_required=True)
    assert (await dispatch("segment_track", ORDER, segment))["success"]
    with no_larger_files(size(log) + 30):
        assert (await dispatch("segment_page", {"userId": "u1"}, segment))["success"]  # whose line is the first lost
        refused = await dispatch("segment_track", ORDER, segment)
    assert (refused["error"]["code"], refused["error"]["retryable"]) == ("audit_unavailable", True)
    assert len(upstream.requests) == 2
    assert (await dispatch("segment_track", ORDER, segment))["success"]
    assert [line["tool"] for line in lines(log)] == ["segment_track", "segment_page", "segment_track"]


def test_without_the_setting_there_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    segment = Segment(settings(), transport=accepting().transport())
    assert asyncio.run(dispatch("segment_track", ORDER, segment))["success"]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def filled(log: Path) -> Path:
    asyncio.run(_fill(log, Time()))
    return log


async def _fill(log: Path, time: Time) -> None:
    segment = logged(log, time=time, deny_events="Secret *")
    await dispatch("segment_track", {**ORDER, "messageId": "m1"}, segment)
    await time.sleep(60)
    await dispatch("segment_alias", {"userId": "u2", "previousId": "jane-RECOGNISABLE"}, segment)
    await dispatch("segment_track", {"event": "Secret Told", "userId": "u3"}, segment)
    await dispatch("segment_test_connection", {"level": "config"}, segment)
    await segment.aclose()


@pytest.mark.parametrize(
    ("arguments", "tools"),
    [
        ([], ["segment_track", "segment_alias", "segment_track", "segment_test_connection"]),
        (["--tool", "track"], ["segment_track", "segment_track"]),
        (["--tool", "segment_alias"], ["segment_alias"]),
        (["--verdict", "refused"], ["segment_track"]),
        (["--verdict", "not_allowed"], ["segment_track"]),
        (["--message-id", "m1"], ["segment_track"]),
        (["--user", "jane-RECOGNISABLE"], ["segment_track", "segment_alias"]),
        (["--user", "somebody"], []),
        (["--since", "2026-11-23T12:01:00Z", "--verdict", "accepted"], ["segment_alias"]),
        (["--since", "2099-01-01"], []),
    ],
)
def test_the_command_shows_the_calls_that_are_asked_for(
    arguments: list[str], tools: list[str], filled: Path, environ: dict[str, str]
) -> None:
    chosen = {**environ, "SEGMENT_AUDIT_LOG": str(filled)}
    done = subprocess.run(
        program("audit", "--json", *arguments), capture_output=True, text=True, env=chosen, timeout=WAIT, check=True
    )
    assert [json.loads(line)["tool"] for line in done.stdout.splitlines()] == tools
    assert f"{len(tools)} call" in done.stderr


def test_the_command_shows_lines_for_people_and_counts_them(filled: Path, environ: dict[str, str]) -> None:
    with filled.open("a", encoding="utf-8") as file:
        file.write("broken\n")
    chosen = {**environ, "SEGMENT_AUDIT_LOG": str(filled)}
    done = subprocess.run(program("audit"), capture_output=True, text=True, env=chosen, timeout=WAIT, check=True)
    assert done.stdout.splitlines()[2].split()[:3] == ["2026-11-23T12:01:00.123Z", "track", "refused:not_allowed"]
    assert done.stderr.splitlines() == [
        "segment-tools: 4 calls: accepted 2, refused:not_allowed 1, read 1",
        "segment-tools: 1 line could not be read",
    ]


@pytest.mark.parametrize("arguments", [[], ["--since", "yesterday"]])
def test_the_command_ends_with_2_on_wrong_use(arguments: list[str], environ: dict[str, str]) -> None:
    done = subprocess.run(
        program("audit", *arguments), capture_output=True, text=True, env=environ, timeout=WAIT, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")


def test_a_log_that_nobody_wrote_yet_is_empty(log: Path, environ: dict[str, str]) -> None:
    chosen = {**environ, "SEGMENT_AUDIT_LOG": str(log)}
    done = subprocess.run(program("audit"), capture_output=True, text=True, env=chosen, timeout=WAIT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "",
        (
            f"segment-tools: There is no audit log at {log} yet: a server with this SEGMENT_AUDIT_LOG makes it.\n"
            "segment-tools: 0 calls\n"
        ),
    )


def test_a_followed_log_shows_each_line_once_however_often_files_are_put_aside(log: Path) -> None:
    audit = Audit(log, 1024)
    audit.note({"number": 0})
    steps: Iterator[Callable[[], None]] = iter(
        [
            lambda: None,
            lambda: [audit.note({"number": number}) for number in range(1, 4)] and None,
            lambda: [audit.note({"number": number, "pad": "x" * 300}) for number in range(4, 14)] and None,
            lambda: os.write(os.open(log, os.O_WRONLY | os.O_APPEND), b'{"num') and None,
            lambda: os.write(os.open(log, os.O_WRONLY | os.O_APPEND), b'ber": 14}\n') and None,
        ]
    )
    found = islice(followed(log, lambda _: next(steps)()), 15)
    assert [json.loads(line)["number"] for line in found] == list(range(15))


def test_a_log_can_be_followed_before_it_is_there(log: Path) -> None:
    steps = iter([lambda: None, lambda: Audit(log, 1024).note({"number": 0})])
    assert [json.loads(line) for line in islice(followed(log, lambda _: next(steps)()), 1)] == [{"number": 0}]


def test_the_command_follows_until_it_is_stopped(filled: Path, environ: dict[str, str]) -> None:
    chosen = {**environ, "SEGMENT_AUDIT_LOG": str(filled)}
    command = program("audit", "--follow", "--tool", "alias")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=chosen) as process:
        assert process.stdout is not None
        assert "alias" in process.stdout.readline()
        Audit(filled, 1_000_000).note({"tool": "segment_alias", "verdict": "accepted", "messageId": "new"})
        assert "new" in process.stdout.readline()
        process.terminate()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-23T11:00:00+01:00", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("2026-11-23", datetime(2026, 11, 23, tzinfo=UTC)),
        ("90s", datetime(2026, 11, 23, 11, 58, 30, tzinfo=UTC)),
        ("2h", datetime(2026, 11, 23, 10, tzinfo=UTC)),
        ("7d", datetime(2026, 11, 16, 12, tzinfo=UTC)),
    ],
)
def test_since_takes_a_time_or_how_long_ago(text: str, moment: datetime) -> None:
    assert since(text, datetime(2026, 11, 23, 12, tzinfo=UTC)) == moment


def test_the_servers_log_has_no_audit_lines(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        Audit(log, 1024).note({"verdict": "read"})
    assert caplog.records == []

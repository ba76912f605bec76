"""Files of messages sent by the command, as a shell runs it, to the sandbox."""

import fcntl
import gzip
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from support import KEY, WAIT, arrived, program, rows

from segment_tools.sandbox.run import Sandbox


def message(number: int, **other: Any) -> dict[str, Any]:
    return {
        "type": "track",
        "event": "Order Completed",
        "userId": f"user_{number % 97}",
        "timestamp": f"2026-02-14T11:30:07.{number % 1000:03}Z",
        "properties": {"number": number, "note": "x" * 100},
        **other,
    }


def written(path: Path, messages: list[Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in messages), encoding="utf-8")
    return path


@contextmanager
def receiver(answer: Callable[[dict[str, Any]], int]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A data plane that answers each body with a status, and the bodies that it had."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(gzip.decompress(self.rfile.read(int(self.headers["Content-Length"]))))
            bodies.append(body)
            self.send_response(answer(body))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        thread.join(WAIT)
        server.server_close()


class Command:
    """`segment-tools import`, against the sandbox."""

    def __init__(self, environ: dict[str, str], sandbox: Sandbox) -> None:
        self.environ = {**environ, "SEGMENT_WRITE_KEY": KEY, "SEGMENT_DATA_PLANE_URL": sandbox.url}

    def __call__(self, *arguments: str | Path, given: bytes = b"", **chosen: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            program("import", *map(str, arguments)),
            input=given,
            capture_output=True,
            env={**self.environ, **{f"SEGMENT_{name.upper()}": value for name, value in chosen.items()}},
            timeout=WAIT,
            check=False,
        )

    def summary(self, *arguments: str | Path, code: int = 0, **chosen: Any) -> dict[str, Any]:
        """What it prints with `--json`."""
        done = self(*arguments, "--json", **chosen)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def run(environ: dict[str, str], sandbox: Sandbox) -> Command:
    return Command(environ, sandbox)


def numbers(sandbox: Sandbox) -> list[int]:
    return [each["properties"]["number"] for each in arrived(sandbox)]


def test_every_message_arrives_once_and_as_it_is(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    given = [message(number) for number in range(3000)]
    found = run.summary(written(tmp_path / "events.jsonl", given))
    assert (found["rows"], found["accepted"], found["rejected"]) == (3000, 3000, 0)
    assert found["messages"] == [{"type": "track", "event": "Order Completed", "count": 3000}]
    kept = arrived(sandbox)
    assert sorted(each["properties"]["number"] for each in kept) == list(range(3000))
    one = next(each for each in kept if each["properties"]["number"] == 5)
    assert one["context"]["library"]["name"] == "segment-tools"
    assert one["originalTimestamp"] == "2026-02-14T11:30:07.005Z"


def test_requests_keep_to_segments_limits_and_are_compressed(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    given = [message(number, userId="one") for number in range(6000)]
    found = run.summary(written(tmp_path / "events.jsonl", given))
    assert found["accepted"] == 6000
    assert found["sentBytes"] < found["bytes"] / 4
    assert found["requests"] >= found["bytes"] / 500_000
    assert {row["discarded"] for row in rows(sandbox)} == {None}


def test_a_users_messages_arrive_in_the_order_of_the_file(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.fault(status=503, times=3, share=0.5, headers={"Retry-After": "0"})
    given = [message(number) for number in range(6000)]
    run.summary(written(tmp_path / "events.jsonl", given))
    seen: dict[str, int] = {}
    for each in arrived(sandbox):
        assert each["properties"]["number"] > seen.get(each["userId"], -1)
        seen[each["userId"]] = each["properties"]["number"]


def test_refused_rows_go_to_a_file_with_the_reason_and_do_not_stop_the_rest(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    lines = [
        json.dumps(message(1)),
        "",
        json.dumps({**message(2), "userId": ""}),
        "{no json",
        json.dumps({**message(3), "colour": "red"}),
        json.dumps({**message(4), "properties": {"card": "4111 1111 1111 1111"}}),
        json.dumps({**message(5), "properties": {"text": "x" * 40_000}}),
        '{"type": "track", "userId": "u", "event": "A", "properties": {"n": NaN}}',
        json.dumps({**message(6), "properties": {"text": "x" * 2_000_000}}),
        json.dumps(message(7)),
    ]
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    found = run.summary(path, code=1)
    assert (found["rows"], found["accepted"], found["rejected"]) == (9, 2, 7)
    rejected = tmp_path / "events.jsonl.rejected.jsonl"
    told = [json.loads(line) for line in rejected.read_text(encoding="utf-8").splitlines()]
    assert [each["line"] for each in told] == [3, 4, 5, 6, 7, 8, 9]
    codes = "missing_field invalid_row unknown_argument secret_in_message too_large invalid_value too_large"
    assert [each["reason"]["code"] for each in told] == codes.split()
    assert all(each["reason"]["message"] and each["reason"].get("hint") for each in told)
    assert told[0]["row"] == {**message(2), "userId": ""}
    assert told[1]["row"] == "{no json"
    assert rejected.stat().st_mode & 0o777 == 0o600
    assert sorted(numbers(sandbox)) == [1, 7]
    assert found["files"][0]["firstRejections"][0]["row"] == 3


def test_strict_stops_at_the_first_refused_row_with_those_before_it_sent(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = written(tmp_path / "events.jsonl", [message(1), message(2), {"type": "track"}, message(3)])
    done = run(path, "--strict")
    assert done.returncode == 1
    assert b"Row 3: event is required" in done.stderr
    assert b"2 accepted before it" in done.stderr
    assert sorted(numbers(sandbox)) == [1, 2]
    found = run.summary(path, "--strict", code=1)
    assert (found["rows"], found["accepted"], found["files"][0]["error"]["row"]) == (2, 2, 3)
    rest = run.summary(path, code=1)
    assert (rest["rows"], rest["accepted"], rest["rejected"]) == (4, 3, 1)


def test_a_finished_import_says_so_and_is_sent_again_only_when_asked(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = written(tmp_path / "events.jsonl", [message(1), {"type": "track"}, message(2)])
    first, second = run.summary(path, code=1), run.summary(path, code=1)
    assert second["files"][0]["importedBefore"]
    assert (second["accepted"], len(rows(sandbox))) == (2, 2)
    assert b"imported before" in run(path).stderr
    again = run.summary(path, "--again", code=1)
    assert (again["accepted"], again["rejected"], first["accepted"]) == (2, 1, 2)
    assert [row["discarded"] for row in rows(sandbox)] == [None, None, "duplicate", "duplicate"]
    assert len((tmp_path / "events.jsonl.rejected.jsonl").read_text(encoding="utf-8").splitlines()) == 1


def test_the_same_file_elsewhere_and_compressed_has_the_same_ids(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    given = [message(number) for number in range(50)]
    plain = written(tmp_path / "events.jsonl", given)
    for folder, write in (("a", gzip.compress), ("b", zstandard.ZstdCompressor().compress)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"events.jsonl.{'gz' if folder == 'a' else 'zst'}").write_bytes(write(plain.read_bytes()))
    for path in (plain, tmp_path / "a/events.jsonl.gz", tmp_path / "b/events.jsonl.zst"):
        assert run.summary(path)["accepted"] == 50
    assert Counter(row["discarded"] for row in rows(sandbox)) == {None: 50, "duplicate": 100}


def test_other_files_and_other_sources_have_other_ids(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    one, two = (written(tmp_path / name, [message(1)]) for name in ("one.jsonl", "two.jsonl"))
    run.summary(one, two)
    run.summary(one, "--again", write_key="another-key-of-another-source")
    assert Counter(row["discarded"] for row in rows(sandbox)) == {None: 3}


def test_a_changed_file_or_mapping_is_explained(run: Command, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [message(1)])
    run.summary(path)
    other = run(path, "--type", "track", "--set", "userId=u9", "--yes")
    assert other.returncode == 2
    assert b"mapping is not the one" in other.stderr
    written(path, [message(1), message(2)])
    changed = run(path)
    assert changed.returncode == 2
    assert b"has changed" in changed.stderr
    assert b"--again" in changed.stderr


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGINT])
def test_after_its_end_the_same_command_goes_on_and_nothing_is_lost(
    way: signal.Signals, run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    total = 9000
    given: list[Any] = [message(number, userId=f"user_{number % 997}") for number in range(total)]
    given[100] = {"type": "track", "userId": "u"}
    path = written(tmp_path / "events.jsonl", given)
    sandbox.fault(kind="slow", seconds=0.2, path="/v1/batch", times=None)
    with subprocess.Popen(
        program("import", str(path)), env=run.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            end = time.monotonic() + WAIT
            while not rows(sandbox) and time.monotonic() < end:
                time.sleep(0.01)
            process.send_signal(way)
            process.communicate(timeout=WAIT)
        finally:
            process.kill()
    assert process.returncode == (-signal.SIGKILL if way == signal.SIGKILL else 130)
    sandbox.clear_faults()
    before = len(rows(sandbox))
    assert 0 < before < total
    found = run.summary(path, code=1)
    assert (found["accepted"], found["rejected"], found["rows"]) == (total - 1, 1, total)
    assert sorted(numbers(sandbox)) == [number for number in range(total) if number != 100]
    assert len((tmp_path / "events.jsonl.rejected.jsonl").read_text(encoding="utf-8").splitlines()) == 1
    # Requests that were under way when it ended may have arrived since.
    sent_twice = sum(row["discarded"] == "duplicate" for row in rows(sandbox))
    assert sent_twice <= total - found["files"][0]["resumedAt"]


def test_what_was_acknowledged_is_not_sent_again(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    path = written(
        tmp_path / "events.jsonl", [message(number, userId=f"user_{number % 997}") for number in range(9000)]
    )
    assert run.summary(path, "--limit", "5000")["accepted"] == 5000
    found = run.summary(path)
    assert (found["accepted"], found["files"][0]["resumedAt"]) == (9000, 5000)
    assert Counter(row["discarded"] for row in rows(sandbox)) == {None: 9000}


def test_a_429_is_waited_for_and_nothing_is_lost(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.fault(status=429, headers={"Retry-After": "1"}, times=2)
    path = written(tmp_path / "events.jsonl", [message(number) for number in range(200)])
    assert run.summary(path)["accepted"] == 200
    assert sorted(numbers(sandbox)) == list(range(200))


def test_a_batch_that_segment_refuses_is_split_until_the_guilty_message_stands_alone(
    run: Command, environ: dict[str, str], tmp_path: Path
) -> None:
    guilty = "guilty-message-id"

    def answered(body: dict[str, Any]) -> int:
        return 400 if any(each["messageId"] == guilty for each in body["batch"]) else 200

    given = [message(number, userId="one") for number in range(40)]
    given[17]["messageId"] = guilty
    path = written(tmp_path / "events.jsonl", given)
    with receiver(answered) as (url, bodies):
        found = run.summary(path, code=1, data_plane_url=url)
    assert (found["accepted"], found["rejected"]) == (39, 1)
    told = json.loads((tmp_path / "events.jsonl.rejected.jsonl").read_text(encoding="utf-8"))
    assert (told["line"], told["reason"]["code"], told["row"]["messageId"]) == (18, "refused_by_segment", guilty)
    taken = [each["properties"]["number"] for body in bodies if answered(body) == 200 for each in body["batch"]]
    assert taken == [number for number in range(40) if number != 17]


def _refusing(bad: range) -> Callable[[dict[str, Any]], int]:
    return lambda body: 400 if any(each["properties"]["number"] in bad for each in body["batch"]) else 200


def test_many_messages_that_segment_refuses_do_not_stop_the_others(run: Command, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [message(number, userId="one") for number in range(40)])
    with receiver(_refusing(range(16))) as (url, _):
        found = run.summary(path, code=1, data_plane_url=url)
    assert (found["accepted"], found["rejected"]) == (24, 16)
    assert len((tmp_path / "events.jsonl.rejected.jsonl").read_text(encoding="utf-8").splitlines()) == 16


def test_a_strict_import_stops_at_what_segment_refuses(run: Command, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [message(number, userId="one") for number in range(30)])
    with receiver(_refusing(range(17, 18))) as (url, _):
        done = run(path, "--strict", data_plane_url=url)
    assert done.returncode == 1
    assert b"Row 18" in done.stderr


def test_where_segment_takes_nothing_the_import_stops_and_says_why(run: Command, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [message(number) for number in range(400)])
    for status in (400, 401):
        with receiver(lambda _, status=status: status) as (url, _):
            done = run(path, "--again", data_plane_url=url)
        assert done.returncode == 2
        assert str(status).encode() in done.stderr


def test_a_table_is_mapped_and_typed(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text(
        "customer_id;amount;paid;at;traits.x;note\n"
        '007;19.90;true;1767322800;;"two\nlines; and ""quotes"""\n'
        "8;;no;1767322800000;;\n"
        "9;much;true;1767322800;;\n"
        "10;1\n",
        encoding="utf-8",
    )
    options = [
        "--type", "track", "--set", "event=Order Completed", "--map", "userId=customer_id", "--map",
        "properties.total:number=amount", "--map", "properties.paid:boolean=paid", "--map", "timestamp:epoch=at",
        "--map", "properties=*",
    ]  # fmt: skip
    found = run.summary(path, *options, "--yes", code=1)
    first, second = sorted(arrived(sandbox), key=lambda each: each["userId"])
    assert first["userId"] == "007"
    assert first["properties"] == {"total": 19.9, "paid": True, "note": 'two\nlines; and "quotes"'}
    assert first["originalTimestamp"] == "2026-01-02T03:00:00.000Z"
    assert second["properties"] == {"paid": False}
    assert [each["row"] for each in found["files"][0]["firstRejections"]] == [5, 6]
    assert "'amount'" in found["files"][0]["firstRejections"][0]["message"]


def test_parquet_is_read(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    table = pa.table(
        {
            "type": ["identify", "identify"],
            "userId": ["u1", "u2"],
            "traits.age": [42, None],
            "traits.tags": [["a"], []],
            "extra": [1, 2],
        }
    )
    pq.write_table(table, tmp_path / "users.parquet")
    shown = run(tmp_path / "users.parquet", "--preview")
    assert b"not sent: extra" in shown.stdout
    assert run.summary(tmp_path / "users.parquet", "--yes")["accepted"] == 2
    arrivals = {each["userId"]: each["traits"] for each in arrived(sandbox)}
    assert arrivals == {"u1": {"age": 42, "tags": ["a"]}, "u2": {"tags": []}}


def test_an_infinite_number_is_refused_and_nan_is_an_empty_cell(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "users.parquet"
    scores = [float("inf"), float("nan"), 1.5]
    pq.write_table(pa.table({"type": ["identify"] * 3, "userId": ["u1", "u2", "u3"], "traits.score": scores}), path)
    found = run.summary(path, "--yes", code=1)
    assert (found["accepted"], found["rejected"]) == (2, 1)
    assert {each["userId"]: each.get("traits") for each in arrived(sandbox)} == {"u2": None, "u3": {"score": 1.5}}


def test_a_table_is_not_sent_before_somebody_has_seen_it(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_text("type,userId\nidentify,u1\n", encoding="utf-8")
    done = run(path)
    assert done.returncode == 2
    assert b'{"type":"identify","userId":"u1"}' in done.stderr
    assert b"--yes" in done.stderr
    assert run(path, "--preview").returncode == 0
    assert rows(sandbox) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--map", "userID=id"], b"did you mean 'userId'?"),
        (["--map", "userId=di"], b"There is no column 'di'"),
        (["--map", "userId"], b"is not FIELD="),
        (["--map", "properies.total=id"], b"did you mean 'properties.total'?"),
        (["--map", "trait.a.b=id"], b"did you mean 'traits.a.b'?"),
        (["--map", "properties.a:money=id"], b"There is no type 'money'"),
        (["--map", "userId=id", "--set", "userId=1"], b"given twice"),
    ],
)
def test_a_wrong_mapping_says_how_to_mend_it(run: Command, tmp_path: Path, options: list[str], said: bytes) -> None:
    path = tmp_path / "users.csv"
    path.write_text("id,plan\nu1,pro\n", encoding="utf-8")
    done = run(path, "--type", "identify", *options, "--yes")
    assert done.returncode == 2
    assert said in done.stderr


def test_standard_input_is_read_and_resumed_with_a_checkpoint(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    given = "".join(json.dumps(message(number)) + "\n" for number in range(20)).encode()
    kept = tmp_path / "kept.db"
    first = run("-", "--checkpoint", kept, "--limit", "5", "--rejected", tmp_path / "no.jsonl", given=given)
    second = run("-", "--checkpoint", kept, "--rejected", tmp_path / "no.jsonl", given=given)
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert Counter(row["discarded"] for row in rows(sandbox)) == {None: 20}


def test_a_dry_run_checks_all_rows_and_sends_nothing(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [message(1), {"type": "track"}, message(2)])
    found = run.summary(path, "--dry-run", code=1, write_key="")
    assert (found["accepted"], found["rejected"], found["requests"]) == (2, 1, 0)
    assert run.summary(path, code=1, dry_run="true")["requests"] == 0
    assert rows(sandbox) == []
    assert not path.with_name("events.jsonl.checkpoint").exists()


def test_a_pattern_names_files_and_a_missing_one_is_said(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    for number in range(3):
        written(tmp_path / f"part-{number}.jsonl", [message(number)])
    found = run.summary(str(tmp_path / "part-*.jsonl"))
    assert (found["accepted"], len(found["files"])) == (3, 3)
    for name in ("gone.jsonl", "gone-*.jsonl"):
        done = run(tmp_path / name)
        assert done.returncode == 2
        assert name.encode() in done.stderr


def test_read_only_settings_import_nothing(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [message(1)])
    assert run(path, read_only="true").returncode == 2
    assert rows(sandbox) == []


def test_denied_events_redaction_and_warnings_hold_for_rows(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    given = [
        message(1, properties={"number": 1, "email": "a@example.com"}),
        message(2, event="Secret Deed"),
        message(3, event="order_completed"),
    ]
    path = written(tmp_path / "events.jsonl", given)
    found = run.summary(path, code=1, deny_events="Secret*", redact='{"email": "mask"}')
    assert found["warnings"] == {"semantic_event_spelling": 1}
    assert found["files"][0]["firstRejections"][0]["code"] == "not_allowed"
    assert (
        next(each["properties"] for each in arrived(sandbox) if "email" in each["properties"])["email"] == "[redacted]"
    )


def test_rows_without_time_or_people_get_them_and_the_same_again(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = written(tmp_path / "events.jsonl", [{"type": "track", "event": "Ping Received"}] * 2)
    found = run.summary(path, anonymous_id="generate")
    assert found["warnings"] == {"anonymous_id_generated": 2}
    run.summary(path, "--again", anonymous_id="generate")
    first, second = arrived(sandbox)
    assert first["anonymousId"] != second["anonymousId"]
    assert first["timestamp"] == second["timestamp"]
    assert Counter(row["discarded"] for row in rows(sandbox)) == {None: 2, "duplicate": 2}


@pytest.mark.parametrize(("end", "pack"), [("gz", gzip.compress), ("zst", zstandard.ZstdCompressor().compress)])
def test_a_damaged_archive_is_said_once_what_it_holds_was_sent(
    end: str, pack: Callable[[bytes], bytes], run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / f"events.jsonl.{end}"
    # Less than fills a batch, and nothing that a compressor makes much smaller.
    given = [message(number, properties={"number": number, "note": os.urandom(150).hex()}) for number in range(1500)]
    whole = pack("".join(json.dumps(each) + "\n" for each in given).encode())
    path.write_bytes(whole[: len(whole) // 2])
    found = run.summary(path, code=2)
    assert "ends too soon" in found["files"][0]["error"]["message"]
    assert found["rows"] == found["accepted"] > 300
    assert sorted(numbers(sandbox)) == list(range(found["accepted"]))
    again = run.summary(path, code=2)
    assert (again["accepted"], len(rows(sandbox))) == (found["accepted"], found["accepted"])
    path.write_bytes(whole)
    changed = run(path)
    assert (changed.returncode, b"has changed" in changed.stderr, b"--again" in changed.stderr) == (2, True, True)
    assert run.summary(path, "--again")["accepted"] == 1500
    assert sorted(numbers(sandbox)) == list(range(1500))


@pytest.mark.parametrize(
    ("name", "pack", "told"),
    [
        ("events.jsonl.gz", bytes, "is named .gz and is not gzip; rename it to events.jsonl"),
        ("events.jsonl.gz", zstandard.ZstdCompressor().compress, "is not gzip; rename it to events.jsonl.zst"),
        ("events.csv.ZST", bytes, "is named .zst and is not Zstandard; rename it to events.csv"),
        ("events.zst", gzip.compress, "is not Zstandard; rename it to events.gz"),
        ("events.jsonl", gzip.compress, "is gzip and is not named .gz; rename it to events.jsonl.gz"),
        ("events.csv", zstandard.ZstdCompressor().compress, "is Zstandard and is not named .zst; rename it"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_told_how_to_be_named(
    name: str, pack: Callable[[bytes], bytes], told: str, run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(pack(json.dumps(message(1)).encode() + b"\n"))
    done = run(path, "--yes")
    assert (done.returncode, rows(sandbox)) == (2, [])
    assert told in done.stderr.decode()


@pytest.mark.parametrize(
    ("pack", "told"),
    [
        (gzip.compress, b"Standard input is gzip; uncompress it: gunzip -c FILE | segment-tools import -"),
        (zstandard.ZstdCompressor().compress, b"Standard input is Zstandard; uncompress it: zstd -dc FILE |"),
    ],
)
def test_compressed_standard_input_is_told_of(
    pack: Callable[[bytes], bytes], told: bytes, run: Command, sandbox: Sandbox
) -> None:
    done = run("-", given=pack(json.dumps(message(1)).encode()))
    assert (done.returncode, told in done.stderr, rows(sandbox)) == (2, True, [])


@pytest.mark.parametrize("name", ["events.jsonl.gz", "events.jsonl.zst", "events.jsonl"])
def test_an_empty_file_has_no_rows_whatever_its_name(name: str, run: Command, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    assert run.summary(tmp_path / name)["rows"] == 0


@pytest.mark.parametrize("kept", [3, 300, 0.5, -1])
def test_a_zst_file_that_is_cut_off_is_never_taken_for_whole(
    kept: float, run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl.zst"
    text = "".join(json.dumps(message(number)) + "\n" for number in range(5000)).encode()
    whole = zstandard.ZstdCompressor(write_checksum=True).compress(text)
    path.write_bytes(whole[: int(len(whole) * kept) if kept == 0.5 else int(kept)])
    done = run(path)
    assert done.returncode == 2
    assert b"ends too soon" in done.stderr
    assert b"--again" in done.stderr
    assert not path.with_name("events.jsonl.zst.rejected.jsonl").exists()
    path.write_bytes(whole)
    assert run.summary(path, "--again")["accepted"] == 5000
    assert sorted(numbers(sandbox)) == list(range(5000))


def test_zst_files_of_several_frames_are_read_to_their_end(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl.zst"
    compressor = zstandard.ZstdCompressor()
    frames = [compressor.compress(json.dumps(message(number)).encode() + b"\n") for number in range(3)]
    skippable = b"\x50\x2a\x4d\x18\x05\0\0\0hello"
    streamed = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    last = streamed.compress(json.dumps(message(3, properties={"number": 3, "a": "a" * 30_000})).encode())
    path.write_bytes(skippable.join(frames) + skippable + last + streamed.flush())
    assert run.summary(path)["accepted"] == 4


def test_a_file_and_its_compressed_twin_keep_their_own_rejected_rows(run: Command, tmp_path: Path) -> None:
    plain, packed = tmp_path / "events.jsonl", tmp_path / "events.jsonl.gz"
    plain.write_bytes(b"{plain\n")
    packed.write_bytes(gzip.compress(b"{packed\n"))
    found = run.summary(plain, packed, code=1)
    kept = [Path(each["rejectedFile"]).read_text(encoding="utf-8") for each in found["files"]]
    assert ["{plain" in kept[0], "{packed" in kept[1]] == [True, True]
    assert found["files"][1]["rejectedFile"] == f"{packed}.rejected.jsonl"


def refusals(path: Path) -> list[tuple[str, int]]:
    """Of each row in the file of rejections, its file and its place there."""
    told = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(Path(each["file"]).name, each["line"]) for each in told]


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_rejected_rows_are_never_written_over_anything_else(run: Command, tmp_path: Path, more: list[str]) -> None:
    path = written(tmp_path / "events.jsonl", [message(1), {"type": "track"}])
    given, notes = path.read_bytes(), tmp_path / "notes.txt"
    notes.write_text("to keep\n", encoding="utf-8")
    (tmp_path / "link").symlink_to(notes)
    (tmp_path / "twin").hardlink_to(path)
    for name in ("events.jsonl", "twin", "notes.txt", "link", "events.jsonl.checkpoint", "events.jsonl.checkpoint-wal"):
        done = run(path, "--rejected", tmp_path / name, *more)
        assert (done.returncode, b"--rejected" in done.stderr) == (2, True), (name, done.stderr)
    assert run(path, "--rejected", "/dev/null", *more).returncode == 2
    assert (path.read_bytes(), notes.read_text(encoding="utf-8")) == (given, "to keep\n")
    assert Path("/dev/null").is_char_device()
    assert run(path, "--checkpoint", path, *more).returncode == 2
    assert path.read_bytes() == given


def test_files_that_share_a_place_for_rejected_rows_keep_each_others(run: Command, tmp_path: Path) -> None:
    one = written(tmp_path / "one.jsonl", [{"type": "track"}, message(1)])
    two = written(tmp_path / "two.jsonl", [message(2), {"type": "track"}, {"type": "page"}])
    rejected = tmp_path / "rejected.jsonl"
    assert run(one, two, "--rejected", rejected).returncode == 1
    assert refusals(rejected) == [("one.jsonl", 1), ("two.jsonl", 2), ("two.jsonl", 3)]
    assert run(one, "--again", "--rejected", rejected).returncode == 1
    assert refusals(rejected) == [("two.jsonl", 2), ("two.jsonl", 3), ("one.jsonl", 1)]
    assert run(two, "--dry-run", "--limit", "2", "--rejected", rejected).returncode == 1
    assert refusals(rejected)[3:] == [("two.jsonl", 2)]
    assert run(two, "--dry-run", "--rejected", rejected).returncode == 1
    assert refusals(rejected)[3:] == [("two.jsonl", 2), ("two.jsonl", 3)]
    assert run(two, "--again", "--rejected", rejected).returncode == 1
    assert refusals(rejected) == [("one.jsonl", 1), ("two.jsonl", 2), ("two.jsonl", 3)]


def test_a_dry_run_leaves_the_rejected_rows_of_an_import(run: Command, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [message(1), {"type": "track"}])
    run.summary(path, code=1)
    kept = (tmp_path / "events.jsonl.rejected.jsonl").read_bytes()
    found = run.summary(path, "--dry-run", "--limit", "1")
    assert "rejectedFile" not in found["files"][0]
    found = run.summary(path, "--dry-run", code=1)
    assert found["files"][0]["rejectedFile"] == f"{path}.dry-run.rejected.jsonl"
    assert (tmp_path / "events.jsonl.rejected.jsonl").read_bytes() == kept


def test_rejected_rows_that_were_moved_away_do_not_come_back_as_nothing(run: Command, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [{"type": "track"}, message(1), {"type": "page"}])
    run.summary(path, "--limit", "2", code=1)
    (tmp_path / "events.jsonl.rejected.jsonl").rename(tmp_path / "elsewhere.jsonl")
    found = run.summary(path, code=1)
    assert (found["rejected"], found["files"][0]["resumedAt"]) == (2, 2)
    assert refusals(tmp_path / "events.jsonl.rejected.jsonl") == [("events.jsonl", 3)]


def test_two_imports_do_not_write_one_file_of_rejected_rows(run: Command, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [{"type": "track"}])
    run.summary(path, code=1)
    with (tmp_path / "events.jsonl.rejected.jsonl").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = run(path, "--again")
        assert done.returncode == 2
        assert b"another import" in done.stderr
    assert refusals(tmp_path / "events.jsonl.rejected.jsonl") == [("events.jsonl", 1)]


def test_a_table_without_a_type_is_not_begun(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_text("id,plan\nu1,pro\n", encoding="utf-8")
    for options in ([], ["--map", "userId=id"], ["--dry-run"]):
        done = run(path, "--yes", *options)
        assert done.returncode == 2
        assert b"--type track" in done.stderr
    assert rows(sandbox) == []
    assert run.summary(path, "--yes", "--type", "identify", "--map", "userId=id")["accepted"] == 1


def test_an_import_of_which_segment_has_nothing_binds_nobody(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_text("id,plan\nu1,pro\n", encoding="utf-8")
    assert run.summary(path, "--yes", "--type", "identify", code=1)["rejected"] == 1
    found = run.summary(path, "--yes", "--type", "identify", "--map", "userId=id")
    assert (found["accepted"], found["rejected"], len(rows(sandbox))) == (1, 0, 1)
    assert not path.with_name("users.csv.rejected.jsonl").exists()


def test_another_data_plane_is_named_together_with_the_one_before(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = written(tmp_path / "events.jsonl", [message(1)])
    run.summary(path)
    with receiver(lambda _: 200) as (url, _):
        done = run(path, data_plane_url=url)
    told = done.stderr.decode()
    assert sandbox.url.removeprefix("http://") in told
    assert url.removeprefix("http://") in told
    assert told.count(str(path)) == 1


def test_a_preview_says_which_rows_would_be_rejected(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_bytes("id,plan\nu1,pro\n,pro\nu3,é\n".encode("latin-1"))
    untyped = run(path, "--preview").stdout.decode()
    assert "--type" in untyped
    shown = run(path, "--preview", "--type", "identify", "--map", "userId=id", "--map", "traits=*").stdout.decode()
    _, first, second, refused, third, unread = shown.splitlines()
    assert first == '  2: {"type":"identify","userId":"u1","traits":{"plan":"pro"}}'
    assert second.startswith("  3: ")
    assert "would be rejected" in refused
    assert third == '  4: {"id":"u3","plan":"?"}'
    assert "UTF-8" in unread
    hopeless = run(path, "--type", "identify")
    assert hopeless.returncode == 2
    assert b"would be rejected" in hopeless.stderr
    assert b"--type" in run(path).stderr
    assert rows(sandbox) == []


def test_nothing_is_sent_before_all_files_are_there(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [message(1)])
    found = run.summary(path, tmp_path / "gone.jsonl", code=2)
    assert "gone.jsonl" in found["error"]["message"]
    assert (found["accepted"], found["files"], rows(sandbox)) == (0, [], [])


def test_files_after_one_that_failed_are_said_not_to_have_begun(run: Command, tmp_path: Path) -> None:
    first, second = (written(tmp_path / name, [message(1)]) for name in ("one.jsonl", "two.jsonl"))
    with receiver(lambda _: 401) as (url, _):
        done = run(first, second, "--json", data_plane_url=url)
    assert done.returncode == 2
    assert f"{second}: not begun" in done.stderr.decode()
    assert [each["error"]["code"] for each in json.loads(done.stdout)["files"]] == ["unauthorized"]


def test_a_stopped_import_has_a_summary(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [{"type": "track"}, *(message(number) for number in range(3000))])
    sandbox.fault(kind="slow", seconds=0.2, path="/v1/batch", share=1)
    command = program("import", str(path), "--json")
    with subprocess.Popen(command, env=run.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            end = time.monotonic() + WAIT
            while not rows(sandbox) and time.monotonic() < end:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            told, said = process.communicate(timeout=WAIT)
        finally:
            process.kill()
    assert process.returncode == 130
    (found,) = json.loads(told)["files"]
    assert found["error"]["code"] == "interrupted"
    assert found["rejectedFile"] == f"{path}.rejected.jsonl"
    counted = f"{found['rows']:,} rows read, {found['accepted']:,} accepted, 1 rejected"
    assert f"{path}: stopped: {counted}; the same command goes on there" in said.decode()
    assert f"all rejected rows, with reasons: {path}.rejected.jsonl" in said.decode()


def test_an_import_that_fails_says_what_it_has_done_until_then(run: Command, tmp_path: Path) -> None:
    given: list[Any] = [message(number, userId="one") for number in range(9000)]
    path, taken = written(tmp_path / "events.jsonl", [{"type": "track"}, *given]), list[int]()

    def answered(body: dict[str, Any]) -> int:
        if len(taken) == 2:
            return 401
        taken.append(len(body["batch"]))
        return 200

    with receiver(answered) as (url, _):
        done = run(path, "--json", data_plane_url=url)
    (found,) = json.loads(done.stdout)["files"]
    assert (done.returncode, found["accepted"]) == (2, sum(taken))
    assert "The same command goes on there." in done.stderr.decode()
    counted = f"{found['rows']:,} rows read, {sum(taken):,} accepted, 1 rejected"
    assert f"{path}: until then {counted}\n" in done.stderr.decode()


def test_what_an_import_left_is_not_imported(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [message(1), {"type": "track"}])
    done = run(path)
    assert b"--again" in done.stderr
    left = tmp_path / "events.jsonl.rejected.jsonl"
    every = run(tmp_path / "*.jsonl")
    assert (every.returncode, len(rows(sandbox))) == (1, 1)
    assert f"{left}: left out" in every.stderr.decode()
    alone = run(left)
    assert alone.returncode == 2
    assert b"--again" in alone.stderr


def test_a_rejected_row_of_a_table_is_kept_as_it_was(run: Command, tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_text("id,seats\n,3\nu2,many\n", encoding="utf-8")
    options = ("--type", "identify", "--map", "userId=id", "--map", "traits.seats:number=seats")
    assert run(path, *options, "--yes").returncode == 1
    kept = path.with_name("users.csv.rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["row"] for line in kept] == [{"id": "", "seats": "3"}, {"id": "u2", "seats": "many"}]


def test_without_a_key_or_a_source_the_command_says_what_to_set(run: Command, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [message(1)])
    assert b"SEGMENT_DATA_PLANE_URL=sandbox" in run(path, write_key="").stderr
    assert b"none is configured" in run(path, "--source", "foo").stderr.lower()
    assert run.summary(path, "--dry-run")["dryRun"] is True


def test_a_file_that_changes_under_way_is_not_taken_for_done(run: Command, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [message(number, userId="one") for number in range(3000)])

    def answered(_: dict[str, Any]) -> int:
        os.truncate(path, 100)
        return 200

    with receiver(answered) as (url, _):
        done = run(path, data_plane_url=url)
    assert (done.returncode, b"changed while it was imported" in done.stderr) == (2, True)
    assert b"--again" in done.stderr
    assert b"imported before" not in run(path).stderr


def test_other_content_of_standard_input_is_neither_skipped_nor_taken_for_the_same(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    ping = {"type": "track", "event": "Ping Received", "userId": "u", "timestamp": "2026-02-14T11:30:07.000Z"}
    first, second = (f"{json.dumps(ping)}\n{json.dumps(message(number))}\n".encode() for number in range(2))
    kept, rejected = ("--checkpoint", tmp_path / "kept.db"), ("--rejected", tmp_path / "no.jsonl")
    assert run("-", *kept, *rejected, given=first).returncode == 0
    other = run("-", *kept, *rejected, given=second)
    assert (other.returncode, b"has changed" in other.stderr) == (2, True)
    assert run("-", *rejected, given=second).returncode == 0
    assert run("-", *rejected, given=second).returncode == 0
    assert Counter(row["discarded"] for row in rows(sandbox)) == {None: 4, "duplicate": 2}


def test_another_standard_input_leaves_the_rejected_rows_of_the_one_before(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    rejected = tmp_path / "rejected.jsonl"
    first, second = (
        (json.dumps(message(number)) + '\n{"type": "track"}\n' * number).encode() for number in range(1, 3)
    )

    def lines() -> list[tuple[str, int]]:
        told = [json.loads(line) for line in rejected.read_text(encoding="utf-8").splitlines()]
        assert {each["file"] for each in told} == {"-"}
        return [(each["input"], each["line"]) for each in told]

    assert run("-", "--rejected", rejected, given=first).returncode == 1
    ((one, line),) = lines()
    assert line == 2
    assert run("-", "--rejected", rejected, given=second).returncode == 1
    (kept, *others) = lines()
    assert kept == (one, 2)
    assert [(name != one, line) for name, line in others] == [(True, 2), (True, 4)]
    assert run("-", "--rejected", rejected, given=first).returncode == 1
    assert sorted(lines()) == sorted([kept, *others])


def days(folder: Path, *names: str) -> list[Path]:
    """Files that all hold the same message."""
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        written(path, [message(1)])
    return paths


def test_files_of_one_name_in_one_call_are_told_apart_by_their_folders(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    paths = days(tmp_path, "x/a/day.jsonl", "x/b/day.jsonl", "y/a/day.jsonl", "other.jsonl")
    done = run(*paths)
    assert b"made of their folders, too" in done.stderr
    assert [row["discarded"] for row in rows(sandbox)] == [None] * 4
    for path in paths:
        path.with_name(f"{path.name}.checkpoint").unlink()
    (tmp_path / "elsewhere").mkdir()
    moved = [path.rename(tmp_path / "elsewhere" / path.name) for path in paths[3:]]
    run(*paths[:3], *moved)
    assert Counter(row["discarded"] for row in rows(sandbox)) == {None: 4, "duplicate": 4}


def test_a_file_keeps_the_ids_of_its_first_import_alone_or_with_others_of_its_name(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    alone, first, second = days(tmp_path, "a/day.jsonl", "b/day.jsonl", "c/day.jsonl")
    run(alone)
    run(alone, first, second, "--again")
    assert [row["discarded"] for row in rows(sandbox)] == [None, "duplicate", None, None]
    run(first, "--again")
    assert [row["discarded"] for row in rows(sandbox)][4:] == ["duplicate"]


def test_a_file_and_its_compressed_twin_beside_it_are_told_of(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    (path,) = days(tmp_path, "day.jsonl")
    (tmp_path / "day.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    other = written(tmp_path / "other.jsonl", [message(2)])
    assert b"named alike" not in run(path, other, "--dry-run").stderr
    done = run(path, tmp_path / "day.jsonl.gz")
    assert b"day.jsonl.gz: named alike; what is the same in both" in done.stderr
    assert [row["discarded"] for row in rows(sandbox)] == [None, "duplicate"]


def test_a_checkpoint_that_can_no_longer_be_written_ends_the_import_in_words(run: Command, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [message(number, userId=f"u{number % 997}") for number in range(20_000)])
    command = ["bash", "-c", 'ulimit -f 60; exec "$0" "$@"', *program("import", str(path))]
    done = subprocess.run(command, capture_output=True, env=run.environ, timeout=WAIT, check=False)
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"checkpoint" in done.stderr
    assert run.summary(path)["accepted"] == 20_000


def test_each_file_is_in_the_audit_log(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    log, path = tmp_path / "audit.jsonl", written(tmp_path / "events.jsonl", [message(1), {"type": "track"}])
    run(path, "--strict", audit_log=str(log))
    run(path, audit_log=str(log))
    told = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [(each["tool"], each["verdict"], each.get("code")) for each in told] == [
        ("segment_import_file", "failed", "missing_field"),
        ("segment_import_file", "done", None),
    ]
    assert {each["client"] for each in told} == {"segment-tools import"}
    before = len(rows(sandbox))
    other = written(tmp_path / "other.jsonl", [message(2)])
    assert run(other, audit_log=str(tmp_path), audit_required="true").returncode == 2
    assert len(rows(sandbox)) == before

"""Tables that are damaged, odd or hostile: what can be sent is sent, and of all else somebody is told."""

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import WAIT, arrived, settings, until
from test_bulk import Command, run

from segment_tools import Segment
from segment_tools.bulk.files import Places, Plan, import_file
from segment_tools.bulk.partition import Manner
from segment_tools.bulk.reading import in_thread
from segment_tools.bulk.rows import Block
from segment_tools.sandbox.run import Sandbox
from segment_tools.sending import Route

__all__ = ["run"]

HEAD = "userId,event,properties.h\n"
MIB = 1024 * 1024


def table(folder: Path, text: str) -> Path:
    path = folder / "events.csv"
    path.write_bytes(text.encode())
    return path


def sent(sandbox: Sandbox) -> list[str]:
    return sorted(each["userId"] for each in arrived(sandbox))


def refused(path: Path) -> list[dict[str, Any]]:
    return refused_in(path.with_name(f"{path.name}.rejected.jsonl"))


def refused_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


TRACK = ("--yes", "--type", "track")


def test_a_row_with_a_cell_too_long_is_rejected_and_told(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    path = table(tmp_path, HEAD + "u0,E,a\nu1,E," + "x" * 140_000 + "\nu2,E,b\n")
    found = run.summary(path, *TRACK, code=1)
    assert (found["rows"], found["accepted"], found["rejected"]) == (3, 2, 1)
    assert sent(sandbox) == ["u0", "u2"]
    (one,) = refused(path)
    assert (one["line"], one["reason"]["code"]) == (3, "too_large")
    assert one["row"].startswith("u1,E,xxx")


def test_strict_stops_at_a_row_that_is_not_csv(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    path = table(tmp_path, HEAD + "u0,E,a\nu1,E," + "x" * 140_000 + "\nu2,E,b\n")
    assert run(path, *TRACK, "--strict").returncode == 1
    assert sent(sandbox) == ["u0"]


@pytest.mark.parametrize("others", [3, 30_000])
def test_a_quote_that_is_not_closed_is_told_with_the_lines_that_it_takes(
    others: int, run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    rows = "".join(f"v{number},E,x\n" for number in range(others))
    path = table(tmp_path, HEAD + 'u0,E,a\nu1,E,"oops\n' + rows)
    found = run.summary(path, *TRACK, code=1)
    assert (found["accepted"], found["rejected"]) == (1, 1)
    assert sent(sandbox) == ["u0"]
    (one,) = refused(path)
    assert one["line"] == 3
    assert f"lines 3 to {3 + others:,}" in one["reason"]["message"]
    assert one["row"].startswith('u1,E,"oops\nv0,E,x')


def test_a_quote_not_closed_before_other_quotes_costs_only_the_rows_up_to_them(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = table(tmp_path, HEAD + 'u0,E,a\nu1,E,"oops\nu2,E,b\nu3,E,"c, d"\nu4,E,"e"\n')
    assert run.summary(path, *TRACK, code=1)["rejected"] == 1
    assert sent(sandbox) == ["u0", "u4"]
    assert "lines 3 to 5" in refused(path)[0]["reason"]["message"]


@pytest.mark.parametrize(
    ("end", "over"),
    [("\n", -1), ("\n", 0), ("\n", MIB), ("\r", 0), ("\r", 1), ("\r\n", -1), ("\r\n", 0)],
)
def test_the_rows_after_a_long_line_are_neither_lost_nor_counted_wrongly(
    end: str, over: int, run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    long = "u1,E,"
    long += "x" * (MIB + over - len(long))
    path = table(tmp_path, end.join([HEAD.strip(), "u0,E,a", long, "u2,E,b", "u3,E", "u4,E,c", ""]))
    assert run.summary(path, *TRACK, code=1)["rejected"] == 2
    assert sent(sandbox) == ["u0", "u2", "u4"]
    assert [each["line"] for each in refused(path)] == [3, 5]


@pytest.mark.parametrize("length", [140_000, MIB, 3 * MIB])
def test_the_lines_of_a_cell_too_long_are_not_rows(length: int, run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    cell = "x" * length + "\nvictim,injected,1\nvictim,twice,2\n" + "y" * length
    path = table(tmp_path, f'{HEAD}u0,E,a\nu1,E,"{cell}"\nu2,E,b\n')
    found = run.summary(path, *TRACK, code=1)
    assert (found["accepted"], found["rejected"]) == (2, 1)
    assert sent(sandbox) == ["u0", "u2"]
    assert "lines 3 to 6" in refused(path)[0]["reason"]["message"]


def test_a_row_without_an_end_stops_the_import_once_those_before_it_were_sent(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = table(tmp_path, HEAD + "u0,E,a\n" + '"a\n",' * (4 * MIB))
    found = run.summary(path, *TRACK, code=2)
    assert "line 3 does not end" in found["files"][0]["error"]["message"]
    assert (found["rows"], found["accepted"], sent(sandbox)) == (1, 1, ["u0"])
    shown = run(path, *TRACK, "--preview").stdout
    assert (b'"userId":"u0"' in shown, b"line 3 does not end" in shown) == (True, True)


def test_what_looks_like_a_message_in_a_row_that_is_refused_is_not_sent(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    message = json.dumps({"type": "track", "event": "E", "userId": "u1", "properties": {}})
    path = tmp_path / "events.csv"
    path.write_text("userId;event\n" + message + "\nu0;E\n", encoding="utf-8")
    assert run.summary(path, *TRACK, code=1)["rejected"] == 1
    assert sent(sandbox) == ["u0"]


def test_blank_lines_are_no_rows_of_tables_and_mapped_lines(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    found = run.summary(table(tmp_path, HEAD + "u0,E,a\n\n   \nu1,E,b\n"), *TRACK)
    assert (found["accepted"], found["rejected"]) == (2, 0)
    lines = tmp_path / "events.jsonl"
    lines.write_text('{"id": "u2"}\n\n  \n{"id": "u3"}\n', encoding="utf-8")
    found = run.summary(lines, *TRACK, "--map", "userId=id", "--set", "event=E")
    assert (found["accepted"], found["rejected"]) == (2, 0)


def json_lines(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "events.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def test_a_mapping_of_json_lines_keeps_what_it_does_not_name(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    row = {
        "type": "track",
        "event": "A",
        "uid": "u1",
        "timestamp": "2024-01-01T00:00:00Z",
        "properties": {"total": 5, "shop": "b"},
        "context": {"ip": "10.0.0.1"},
        "traits.plan": "pro",
    }
    path = json_lines(tmp_path, row, {"event": "B", "uid": "u2", "amount": 3})
    maps = ("--map", "userId=uid", "--set", "properties.shop=a", "--map", "properties.total=amount")
    found = run.summary(path, "--yes", "--type", "track", *maps, code=1)
    assert found["rejected"] == 1  # a track has no traits
    path = json_lines(tmp_path, {name: value for name, value in row.items() if name != "traits.plan"}, {"uid": "u2"})
    found = run.summary(path, "--yes", "--again", "--set", "event=M", "--type", "track", *maps)
    assert found["accepted"] == 2
    first, second = sorted((each for each in arrived(sandbox) if each["event"] == "M"), key=lambda each: each["userId"])
    assert first["timestamp"].startswith("2024-01-01T00:00:00")
    assert (first["properties"], first["context"]["ip"]) == ({"total": 5, "shop": "b"}, "10.0.0.1")
    assert second["properties"] == {"shop": "a"}


def test_all_that_is_left_of_json_lines_can_be_mapped(run: Command, sandbox: Sandbox, tmp_path: Path) -> None:
    path = json_lines(tmp_path, {"uid": "u1", "kind": "a", "properties": {"total": 5}}, {"uid": "u2", "size": 3})
    run(path, "--yes", "--type", "track", "--set", "event=M", "--map", "userId=uid", "--map", "properties=*")
    found = sorted((each["userId"], each["properties"]) for each in arrived(sandbox))
    assert found == [("u1", {"kind": "a", "total": 5}), ("u2", {"size": 3})]


def test_what_a_mapping_of_json_lines_leaves_out_or_does_not_find_is_told(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = json_lines(tmp_path, {"uid": "u1", "kind": "a"}, {"uid": "u2"})
    maps = ("--type", "track", "--set", "event=M", "--map", "userId=uid", "--map", "properties.total=amonut")
    told = run(path, "--preview", *maps).stdout.decode()
    assert "not sent: kind" in told
    assert "mapped, and in none of these rows: amonut" in told
    found = run.summary(path, "--yes", *maps)
    assert (found["accepted"], found["files"][0]["notSent"], found["files"][0]["notFound"]) == (2, ["kind"], ["amonut"])


@pytest.mark.parametrize("header", ["userId," + "x" * 2 * MIB, "userId," + "x" * 140_000, 'userId,"event'])
def test_a_header_that_is_not_csv_or_too_long_is_said(
    header: str, run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    done = run(table(tmp_path, header + "\nu0,E\n"), *TRACK)
    assert done.returncode == 2
    assert b"header is not CSV, or is too long" in done.stderr
    assert b"Traceback" not in done.stderr


def test_numbers_that_json_has_not_are_refused_wherever_they_stand(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "events.csv"
    cells = ["1e999|1", "-1e400|1", "1|NaN", '1|[1, {"a": Infinity}]', "1|1e999", '1|{"a": [1.5]}']
    lines = [f"u{number}|E|{cell}" for number, cell in enumerate(cells)]
    path.write_text("\n".join(["userId|event|n|j", *lines]), encoding="utf-8")
    maps = ("--map", "properties.n:number=n", "--map", "properties.j:json=j")
    found = run.summary(path, *TRACK, *maps, code=1)
    assert (found["accepted"], found["rejected"]) == (1, 5)
    assert [each["properties"] for each in arrived(sandbox)] == [{"n": 1, "j": {"a": [1.5]}}]
    lines = tmp_path / "events.jsonl"
    lines.write_text('{"id": "u1", "n": 1e999}\n{"id": "u2", "n": [NaN]}\n', encoding="utf-8")
    given = ("--map", "userId=id", "--map", "properties.n=n", "--set", "event=E")
    assert run.summary(lines, *TRACK, *given, code=1)["rejected"] == 2


DAY = 86_400


@pytest.mark.parametrize(
    ("awkward", "type_", "as_"),
    [
        ([1, DAY * 10**9], pa.duration("ns"), ""),
        ([1, DAY * 10**9 - 1], pa.time64("ns"), ""),
        ([3_000_000, 4_000_000], pa.date32(), ""),
        ([b"\xff", b"\xfe"], pa.string(), ""),
        ([DAY * 10**8, -DAY * 10**8], pa.timestamp("s"), ""),
        ([1, 2], pa.timestamp("us"), ":epoch"),
        ([[3_000_000], [4_000_000]], pa.list_(pa.date32()), ""),
    ],
    ids=str,
)
def test_a_value_of_parquet_that_cannot_be_read_costs_its_row_alone(
    awkward: list[Any], type_: pa.DataType, as_: str, run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    values: Any = pa.array(awkward, pa.binary()).view(pa.string()) if type_ == pa.string() else pa.array(awkward, type_)
    values = pa.concat_arrays([values, pa.nulls(1, type_)])
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"userId": ["u0", "u1", "u2"], "event": ["E"] * 3, "odd": values}), path)
    done = run.summary(path, *TRACK)
    assert done["accepted"] == 3
    mapped = ("--map", f"properties.odd{as_}=odd", "--again")
    found = run.summary(path, *TRACK, *mapped, code=1)
    assert (found["accepted"], found["rejected"]) == (1, 2)
    assert "column 'odd'" in refused(path)[0]["reason"]["message"]


def test_moments_of_parquet_are_read_to_the_microsecond_whatever_their_unit_and_zone(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    moment = 1_760_000_000_123_456_789
    columns = {
        "timestamp": pa.array([moment], pa.timestamp("ns")),
        "properties.zoned": pa.array([moment], pa.timestamp("ns", "Europe/Berlin")),
        "properties.unknown": pa.array([moment // 1000], pa.timestamp("us", "Mars/Base")),
    }
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"userId": ["u0"], "event": ["E"], **columns}), path)
    assert run.summary(path, *TRACK)["accepted"] == 1
    (one,) = arrived(sandbox)
    assert one["properties"] == dict.fromkeys(("zoned", "unknown"), "2025-10-09T08:53:20.123456Z")


def test_a_damaged_row_group_is_said_once_those_before_it_were_sent(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "events.parquet"
    table = pa.table({"userId": [f"u{number}" for number in range(2000)], "event": ["E"] * 2000})
    pq.write_table(table, path, row_group_size=1000, use_dictionary=False, compression="gzip")
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start + 30 : start + 600] = b"\xff" * 570
    path.write_bytes(data)
    found = run.summary(path, *TRACK, code=2)
    assert "The Parquet file is damaged" in found["files"][0]["error"]["message"]
    assert "--again" in found["files"][0]["error"]["message"]
    assert (found["rows"], found["accepted"], len(sent(sandbox))) == (1000, 1000, 1000)
    run.summary(path, *TRACK, code=2)
    assert len(arrived(sandbox)) == 1000


def test_a_parquet_file_whose_rows_share_a_long_text_is_read_in_little_memory(
    run: Command, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "events.parquet"
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["x" * 3 * MIB]))
    pq.write_table(pa.table({"userId": ["u0"] * 3000, "event": ["E"] * 3000, "unused": text}), path, compression="zstd")
    assert run.summary(path, *TRACK)["accepted"] == 3000
    found = run.summary(path, *TRACK, "--map", "properties.long=unused", "--limit", "9", "--again", code=1)
    assert (found["accepted"], found["rejected"]) == (0, 9)
    first = refused(path)[0]
    assert (first["reason"]["code"], first["rowIsCut"]) == ("too_large", True)
    assert path.with_name("events.parquet.rejected.jsonl").stat().st_size < 2 * MIB


@pytest.mark.anyio
async def test_a_thread_that_reads_is_waited_for_when_its_reader_is_cancelled() -> None:
    begun, free, ended = threading.Event(), threading.Event(), threading.Event()

    def blocks() -> Iterator[Block]:
        yield Block(1, [b"1"])
        begun.set()
        free.wait(WAIT)
        ended.set()
        yield Block(2, [b"2"])

    read: list[Block] = []

    async def reader() -> None:
        async for block in in_thread(blocks()):
            read.append(block)

    task = asyncio.create_task(reader())
    await until(begun.is_set, 0.01)  # the loop goes on while the thread waits
    task.cancel()
    await asyncio.sleep(0)
    free.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    assert [block.first for block in read] == [1]


@pytest.mark.anyio
async def test_others_have_their_turn_while_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"x\n" * 5000)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    plan = Plan(Route("", ""), manner=Manner(dry_run=True))
    async with Segment(settings()) as segment:
        task = asyncio.create_task(others())
        with path.open("rb") as file:
            done = await import_file(segment.means, path.name, file, plan, Places(None, None, path.name))
        task.cancel()
    assert done.counts.rejected == 5000
    assert turns >= 100


@pytest.mark.anyio
async def test_others_have_their_turn_while_refused_rows_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rejected = tmp_path / "events.jsonl", tmp_path / "rejected.jsonl"
    path.write_bytes(b"x\n" * 100)
    opened, turned = threading.Event(), threading.Event()
    waited: list[bool] = []
    open_ = os.open

    def slow(name: Any, *given: Any, **named: Any) -> int:
        if name == rejected:
            opened.set()
            waited.append(turned.wait(5))
        return open_(name, *given, **named)

    async def others() -> None:
        await until(opened.is_set, 0.01)
        turned.set()

    monkeypatch.setattr(os, "open", slow)
    plan = Plan(Route("", ""), manner=Manner(dry_run=True))
    async with Segment(settings()) as segment:
        task = asyncio.create_task(others())
        with path.open("rb") as file:
            done = await import_file(segment.means, path.name, file, plan, Places(None, rejected, path.name))
        await task
    assert waited == [True]
    assert done.counts.rejected == len(refused_in(rejected)) == 100

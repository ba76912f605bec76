"""How far an import is, as whoever looks at it sees it: by the rows that are done with, whatever was read ahead."""

import gzip
import json
import os
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import Upstream, answering, settings

from segment_tools import Segment, Unauthorized
from segment_tools.bulk.files import Places, Plan, Watch, import_file
from segment_tools.bulk.underway import UnderWay
from segment_tools.sending import Route
from segment_tools.surfaces import import_progress
from segment_tools.surfaces.import_progress import watching

pytestmark = pytest.mark.anyio

ROWS = 20_000
TAKEN = httpx.Response(200, json={"success": True})


def _messages() -> list[dict[str, Any]]:
    return [{"type": "track", "event": "Row", "userId": f"u{number}"} for number in range(10_000, 10_000 + ROWS)]


def _lines() -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in _messages())


def _csv() -> bytes:
    return "".join(["type,event,userId\n", *(f"track,Row,{each['userId']}\n" for each in _messages())]).encode()


def _parquet() -> bytes:
    sink: Any = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(_messages()), sink, row_group_size=ROWS // 2)
    return sink.getvalue().to_pybytes()


FILES: dict[str, Callable[[], bytes]] = {
    "rows.jsonl": _lines,
    "rows.jsonl.gz": lambda: gzip.compress(_lines()),
    "rows.csv": _csv,
    "rows.parquet": _parquet,
}


async def _imported(path: Path, upstream: Upstream, watch: Watch, **plan: Any) -> None:
    places = Places(path.with_name("checkpoint"), None, path.name)
    async with Segment(settings(concurrency=1), transport=upstream.transport()) as segment:
        with path.open("rb") as file:
            await import_file(segment.means, path.name, file, Plan(Route("wk", ""), **plan), places, watch)


@pytest.fixture(params=FILES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    found = tmp_path / request.param
    found.write_bytes(FILES[request.param]())
    return found


async def test_the_bytes_that_are_done_are_those_of_rows_that_were_answered(path: Path) -> None:
    size = len(FILES[path.name]())
    seen: list[tuple[float, float]] = []
    looked: list[UnderWay] = []

    class Looking(Upstream):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            (under_way,) = looked
            assert under_way.size == size
            seen.append((under_way.done / under_way.size, under_way.counts.done / ROWS))
            return super().__call__(request)

    await _imported(path, Looking([TAKEN]), looked.append)
    assert seen[0] == (0, 0)
    assert len(seen) > 8
    assert all(before <= after for (before, _), (after, _) in pairwise(seen))
    # What is compressed is read by parts of a fifth of this file, and no row takes an equal share of it.
    close = 0.3 if path.suffix == ".gz" else 0.01
    assert all(done == pytest.approx(answered, abs=close) for done, answered in seen)
    assert looked[0].done == size


async def test_an_import_that_goes_on_begins_where_it_was_and_counts_no_skipped_rows_as_quick(path: Path) -> None:
    looked: list[UnderWay] = []
    with pytest.raises(Unauthorized):
        await _imported(path, answering(*[TAKEN] * 8, httpx.Response(401)), looked.append)
    looked.clear()
    size = len(FILES[path.name]())
    seen: list[tuple[int, float | None]] = []

    class Looking(Upstream):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            seen.append((looked[0].done, looked[0].seconds_left(1.0)))
            return super().__call__(request)

    await _imported(path, Looking([TAKEN]), looked.append)
    assert 0 < seen[0][0] < size
    assert len(seen) > 4
    # In one second a part was done, so that what is left takes longer than by all that is done.
    told = [(done, left) for done, left in seen if left is not None]
    assert told
    assert all(left >= (size - done) / done for done, left in told)
    assert looked[0].seconds_left(1.0) == 0


async def test_of_some_rows_alone_nobody_knows_how_much_there_is(path: Path) -> None:
    looked: list[UnderWay] = []
    await _imported(path, answering(TAKEN), looked.append, limit=10)
    assert (looked[0].size, looked[0].seconds_left(1.0)) == (None, None)


async def test_plain_lines_say_how_long_the_rest_takes_where_the_size_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_progress, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(import_progress, "_LINE_SECONDS", 0.0)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(_lines())
    said: list[str] = []
    with watching("rows.jsonl", said.append, dry_run=False) as watched:
        await _imported(path, answering(TAKEN), watched.begin)
    assert any(re.search(r" MB, about \d+:\d\d:\d\d left$", line) for line in said), said

    (tmp_path / "checkpoint").unlink()
    os.mkfifo(tmp_path / "pipe")
    number = os.open(tmp_path / "pipe", os.O_RDWR)
    os.write(number, _lines()[:30_000])
    pipe = os.open(tmp_path / "pipe", os.O_RDONLY)
    os.close(number)
    said.clear()
    async with Segment(settings(), transport=answering(TAKEN).transport()) as segment:
        with os.fdopen(pipe, "rb") as file, watching("-", said.append, dry_run=False) as watched:
            places = Places(None, None, "-")
            await import_file(segment.means, "-", file, Plan(Route("wk", "")), places, watched.begin)
    assert said
    assert not any("left" in line for line in said), said

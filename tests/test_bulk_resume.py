"""An import that goes on where an earlier one ended: some people's rows had got further than others'."""

import gc
import gzip
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import Upstream, answering, settings

from segment_tools import Segment, Unauthorized
from segment_tools.bulk.files import Places, Plan, import_file
from segment_tools.sending import Route

pytestmark = pytest.mark.anyio

ROWS = 4000
TAKEN, REFUSED = httpx.Response(200, json={"success": True}), httpx.Response(401)


def _line(number: int) -> bytes:
    message = {"type": "track", "event": "Row", "userId": f"u{number % 7}", "properties": {"n": number, "x": "x" * 400}}
    return json.dumps(message).encode() + b"\n"


def _sent(upstream: Upstream, taken: int) -> set[int]:
    bodies: list[Any] = [json.loads(gzip.decompress(request.content)) for request in upstream.requests[:taken]]
    return {message["properties"]["n"] for body in bodies for message in body["batch"]}


@pytest.mark.parametrize("before", [1, 2, 3, 5, 8])
async def test_nobodys_rows_are_left_out_however_uneven_the_end_was(tmp_path: Path, before: int) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(map(_line, range(ROWS))))
    first, second = answering(*[TAKEN] * before, REFUSED), answering(TAKEN)
    plan, places = Plan(Route("wk", "")), Places(tmp_path / "checkpoint", None, "rows.jsonl")
    chosen = settings(concurrency=1)
    async with Segment(chosen, transport=first.transport()) as segment:
        with path.open("rb") as file, pytest.raises(Unauthorized):
            await import_file(segment.means, "rows.jsonl", file, plan, places)
    async with Segment(chosen, transport=second.transport()) as segment:
        with path.open("rb") as file:
            done = await import_file(segment.means, "rows.jsonl", file, plan, places)
    assert _sent(first, before) | _sent(second, len(second.requests)) == set(range(ROWS))
    assert (done.counts.rows, done.counts.accepted) == (ROWS, ROWS)


async def test_requests_that_fail_at_the_same_moment_are_one_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(map(_line, range(ROWS))))
    plan, places = Plan(Route("wk", "")), Places(None, None, "rows.jsonl")
    async with Segment(settings(concurrency=8), transport=answering(REFUSED).transport()) as segment:
        with path.open("rb") as file, pytest.raises(Unauthorized):
            await import_file(segment.means, "rows.jsonl", file, plan, places)
    gc.collect()
    assert not caplog.records

"""A data plane that does not answer: an import goes on trying, and says so meanwhile."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import pytest
from support import KEY, WAIT, mcp, program, settings
from test_bulk import message, receiver, written

from segment_tools.sandbox.run import Sandbox

UNTIL = r"trying again until \d\d:\d\d:\d\d [A-Z]+"


@contextmanager
def importing(environ: dict[str, str], url: str, path: Path, stderr: int = subprocess.PIPE) -> Iterator[Any]:
    """The command under way, which nobody waits for for ever."""
    process = subprocess.Popen(
        program("import", str(path)),
        env={**environ, "SEGMENT_WRITE_KEY": KEY, "SEGMENT_DATA_PLANE_URL": url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        text=True,
    )
    late = threading.Timer(WAIT, process.kill)
    late.start()
    try:
        yield process
    finally:
        late.cancel()
        process.kill()
        process.communicate(timeout=WAIT)


def line_with(words: str, lines: IO[str]) -> str:
    return next(line for line in lines if words in line)


@pytest.mark.parametrize(("status", "told"), [(503, "{} answers 503"), (429, "{} asks to slow down (429)")])
def test_an_import_that_is_not_answered_says_so_and_when_it_goes_on(
    status: int, told: str, environ: dict[str, str], tmp_path: Path
) -> None:
    path, seen = written(tmp_path / "events.jsonl", [message(1)]), threading.Event()
    with (
        receiver(lambda _: 200 if seen.is_set() else status) as (url, _),
        importing(environ, url, path) as process,
    ):
        line = line_with("trying again", process.stderr)
        seen.set()
        rest = process.stderr.read()
        code = process.wait(WAIT)
    where = told.format(url.removeprefix("http://"))
    assert re.search(rf": {re.escape(where)}, {UNTIL}$", line), line
    assert f"{path}: requests are taken again" in rest
    assert (code, KEY in line + rest) == (0, False)


def test_an_import_that_reaches_nobody_says_so_and_can_be_stopped(environ: dict[str, str], tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [message(1)])
    with socket.create_server(("127.0.0.1", 0)) as free:
        where = f"127.0.0.1:{free.getsockname()[1]}"
    with importing(environ, f"http://{where}", path) as process:
        line = line_with("trying again", process.stderr)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        code = process.wait(WAIT)
    assert re.search(rf"no answer from {where}, {UNTIL}$", line), line
    assert (code, "taken again" in rest) == (130, False)


def test_a_terminal_shows_trouble_in_place_of_the_counts(environ: dict[str, str], tmp_path: Path) -> None:
    path, seen = written(tmp_path / "events.jsonl", [message(1)]), threading.Event()
    ours, theirs = pty.openpty()
    with (
        receiver(lambda _: 200 if seen.is_set() else 503) as (url, _),
        importing({**environ, "COLUMNS": "200", "TERM": "xterm"}, url, path, theirs) as process,
        os.fdopen(ours, "rb", 0) as terminal,
    ):
        os.close(theirs)
        shown = b""
        while b"answers 503, trying again until" not in shown:
            shown += terminal.read(1000)
        seen.set()
        shown = b""
        while b"1 rows" not in shown:
            shown += terminal.read(1000)
        code = process.wait(WAIT)
    assert code == 0


@pytest.mark.anyio
async def test_an_agent_is_told_of_trouble_too_and_numbers_grow(sandbox: Sandbox, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [message(number, userId="one") for number in range(5000)])
    sandbox.fault(status=503, path="/v1/batch", share=1)
    told: list[tuple[float, str]] = []

    async def progress(done: float, _: float | None, text: str | None) -> None:
        told.append((done, str(text)))
        if "answers 503" in str(text):
            sandbox.clear_faults()
            sandbox.fault(kind="slow", seconds=1, path="/v1/batch", share=1)

    chosen = settings(data_plane_url=sandbox.url, import_dir=tmp_path, concurrency=1)
    async with mcp(chosen) as client:
        result = await client.call_tool("segment_import_file", {"file": path.name}, progress_callback=progress)
    assert (result.structured_content or {})["accepted"] == 5000
    texts = [text for _, text in told]
    (trouble,) = [text for text in texts if "503" in text]
    assert re.fullmatch(rf"{re.escape(sandbox.url.removeprefix('http://'))} answers 503, {UNTIL}", trouble)
    assert texts.index("requests are taken again") > texts.index(trouble)
    assert all(before < after for (before, _), (after, _) in pairwise(told)), told
    assert KEY not in json.dumps(told)

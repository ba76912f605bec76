"""What standard input and output may lead to, and what comes over them: pipes, sockets, files, terminals, odd lines."""

import asyncio
import fcntl
import json
import os
import pty
import socket
import subprocess
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer
from typing import Any

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCResponse
from support import KEY, WAIT, arrived, program
from test_stdio import INITIALIZE, started

from segment_tools.sandbox.run import Sandbox
from segment_tools.surfaces import stdio_lines
from segment_tools.surfaces.descriptors import Sink, Source
from segment_tools.surfaces.stdio import Answers, Requests
from segment_tools.surfaces.stdio_lines import Lines, message_in

pytestmark = pytest.mark.anyio
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}
FULL = Path("/dev/full")
DRY = {"SEGMENT_DRY_RUN": "true", "SEGMENT_WRITE_KEY": KEY}


def tracked(number: int, event: str = "A", **properties: Any) -> dict[str, Any]:
    arguments = {"event": event, "userId": f"u{number}", "properties": properties}
    return {
        "jsonrpc": "2.0",
        "id": number,
        "method": "tools/call",
        "params": {"name": "segment_track", "arguments": arguments},
    }


def lines(*messages: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


def answers(written: bytes) -> dict[int, str]:
    """The id of each answer, and what became of the call."""
    found = [json.loads(line) for line in written.splitlines()]
    return {each["id"]: each["result"].get("structuredContent", {}).get("status") for each in found}


@contextmanager
def pipe() -> Iterator[tuple[Any, Any]]:
    """The end to read from, and the end to write to."""
    incoming, outgoing = os.pipe()
    with os.fdopen(incoming, "rb") as reading, os.fdopen(outgoing, "wb") as writing:
        yield reading, writing
        with suppress(BrokenPipeError):
            writing.close()


@contextmanager
def serving(environ: dict[str, str], incoming: Any, outgoing: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The server on these two, killed at the end if it has not ended by then."""
    process = subprocess.Popen(
        program(), stdin=incoming, stdout=outgoing, stderr=subprocess.PIPE, env={**environ, **DRY}
    )
    killer = Timer(WAIT, process.kill)
    killer.start()
    try:
        yield process
    finally:
        killer.cancel()
        process.kill()
        process.communicate(timeout=WAIT)


def test_every_request_of_a_file_is_answered_in_a_file(environ: dict[str, str], tmp_path: Path) -> None:
    numbers = range(2, 300)
    asked, told = tmp_path / "asked", tmp_path / "told"
    asked.write_bytes(lines(INITIALIZE, READY, *map(tracked, numbers)))
    with asked.open("rb") as incoming, told.open("wb") as outgoing, serving(environ, incoming, outgoing) as process:
        assert process.communicate(timeout=WAIT) == (None, b"")
        assert process.returncode == 0
    assert answers(told.read_bytes()) == {1: None, **dict.fromkeys(numbers, "dry_run")}


def test_the_null_device_ends_the_process_cleanly(environ: dict[str, str]) -> None:
    with serving(environ, subprocess.DEVNULL, subprocess.DEVNULL) as process:
        assert process.communicate(timeout=WAIT) == (None, b"")
        assert process.returncode == 0


def test_what_is_under_way_when_the_input_ends_is_still_sent_and_answered(
    environ: dict[str, str], sandbox: Sandbox
) -> None:
    chosen = {**environ, "SEGMENT_DATA_PLANE_URL": sandbox.url, "SEGMENT_WRITE_KEY": KEY}
    with started(chosen) as process:
        out, error = process.communicate(lines(READY, *map(tracked, range(2, 12))), timeout=WAIT)
    assert (process.returncode, error) == (0, b"")
    assert answers(out) == dict.fromkeys(range(2, 12), "accepted")
    assert len(arrived(sandbox)) == 10


def test_one_socket_serves_as_input_output_and_log_and_keeps_its_flags(environ: dict[str, str]) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(WAIT)
    with ours, theirs, ours.makefile("rb") as told, serving(environ, theirs, theirs) as process:
        ours.sendall(lines(INITIALIZE, READY, tracked(2)))
        assert answers(told.readline() + told.readline()) == {1: None, 2: "dry_run"}
        assert not fcntl.fcntl(theirs, fcntl.F_GETFL) & os.O_NONBLOCK
        ours.shutdown(socket.SHUT_WR)
        assert process.wait(timeout=WAIT) == 0


def test_somebody_else_may_have_made_the_pipes_non_blocking(environ: dict[str, str]) -> None:
    with pipe() as (incoming, asking), pipe() as (told, outgoing):
        os.set_blocking(incoming.fileno(), False)
        os.set_blocking(outgoing.fileno(), False)
        with serving(environ, incoming, outgoing) as process:
            long = "x" * 30_000  # ten such answers are more than a pipe holds
            asking.write(lines(INITIALIZE, READY, *(tracked(number, note=long) for number in range(2, 12))))
            asking.close()
            found = b"".join(told.readline() for _ in range(11))
            assert process.wait(timeout=WAIT) == 0
    assert answers(found) == {1: None, **dict.fromkeys(range(2, 12), "dry_run")}


def test_a_terminal_is_served_and_stays_as_it_was(environ: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)  # it would echo, and end a line that it thinks is full
    with os.fdopen(ours, "r+b", buffering=0) as master, os.fdopen(theirs, "r+b", buffering=0) as slave:
        before = fcntl.fcntl(slave, fcntl.F_GETFL)
        with serving(environ, slave, slave) as process:
            assert process.stderr is not None
            assert b"segment-tools demo" in process.stderr.readline()
            master.write(lines(INITIALIZE, READY, tracked(2)))
            assert answers(_lines_of(master, 2)) == {1: None, 2: "dry_run"}
            assert fcntl.fcntl(slave, fcntl.F_GETFL) == before


def _lines_of(source: Any, count: int) -> bytes:
    found = b""
    while found.count(b"\n") < count:
        found += source.read(65536)
    return found


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_a_closed_input_or_output_is_said(closed: str, environ: dict[str, str]) -> None:
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *program()]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=WAIT, check=False, env=environ)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"segment-tools: Standard input or output is closed")


def test_a_host_that_stops_reading_ends_the_process_quietly(environ: dict[str, str]) -> None:
    with started({**environ, **DRY}) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(lines(READY, tracked(2)))
        process.stdin.flush()
        assert process.wait(timeout=WAIT) == 1
        assert process.stderr.read() == b""
        process.stdout = None


@pytest.mark.skipif(not FULL.exists(), reason="a device that is always full is Linux's")
def test_an_output_that_is_full_is_said(environ: dict[str, str], tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    asked.write_bytes(lines(INITIALIZE))
    with asked.open("rb") as incoming, FULL.open("wb") as full, serving(environ, incoming, full) as process:
        _, error = process.communicate(timeout=WAIT)
    assert process.returncode == 1
    assert error == b"segment-tools: the output cannot be written (No space left on device)\n"


def test_a_long_line_is_read_and_answered(environ: dict[str, str]) -> None:
    note = {"note": "é" * 10_000}
    items = [{"type": "track", "event": "A", "userId": f"u{n}", "properties": note} for n in range(200)]
    call = tracked(2)
    call["params"] = {"name": "segment_batch", "arguments": {"batch": items}}
    with started({**environ, **DRY}) as process:
        out, _ = process.communicate(lines(READY, call), timeout=WAIT)
    (answer,) = (json.loads(line) for line in out.splitlines())
    assert answer["result"]["structuredContent"]["count"] == 200


def test_a_batch_of_lines_ends_with_crlf_or_with_nothing_at_all(environ: dict[str, str]) -> None:
    text = lines(READY, tracked(2), tracked(3)).replace(b"\n", b"\r\n").removesuffix(b"\r\n")
    with started({**environ, **DRY}) as process:
        out, _ = process.communicate(b"\r\n  \r\n" + text, timeout=WAIT)
    assert answers(out) == {2: "dry_run", 3: "dry_run"}


def test_what_is_no_utf_8_is_refused_by_its_field(environ: dict[str, str]) -> None:
    with started({**environ, **DRY}) as process:
        out, _ = process.communicate(lines(READY, tracked(2, event="Caf~")).replace(b"~", b"\xe9"), timeout=WAIT)
    found = json.loads(out)["result"]["structuredContent"]
    assert (found["success"], found["error"]["field"]) == (False, "event")
    assert "half a character" in found["errorMessage"]


def test_lines_come_whole_however_they_are_cut() -> None:
    text = b"one\n\ntwo\nthree"
    for size in range(1, len(text) + 1):
        found = Lines()
        for start in range(0, len(text), size):
            found.feed(text[start : start + size])
        assert [*found.whole, found.last(), found.last()] == [b"one", b"", b"two", b"three", None]


def test_a_line_that_does_not_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio_lines, "_MOST_BYTES", 1024**2)
    found = Lines()
    for _ in range(20):
        found.feed(b"x" * 100_000)
        assert sum(map(len, found._parts)) <= 1024**2
    found.feed(b"\n" + lines(READY))
    long, next_one = map(message_in, found.whole)
    assert long.error.message == "The line is longer than 1 MiB."  # type: ignore[union-attr]
    assert next_one.message.method == READY["method"]  # type: ignore[union-attr]


def test_a_byte_order_mark_is_no_part_of_the_message() -> None:
    assert isinstance(message_in(b"\xef\xbb\xbf" + lines(READY)), SessionMessage)


async def test_while_the_host_does_not_read_nothing_piles_up() -> None:
    with pipe() as (incoming, asking), pipe() as (told, outgoing):
        source = Source(incoming.fileno())
        sink = Sink(outgoing.fileno(), source.stop)
        sending = Answers(sink)
        receiving = Requests(source, sending)
        asking.write(lines(tracked(1), tracked(2)))
        asking.flush()
        assert (await receiving.receive()).message.id == 1  # type: ignore[union-attr]
        answer = SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=1, result={"text": "x" * 2_000_000}))
        stuck = [asyncio.ensure_future(sending.send(answer)), asyncio.ensure_future(receiving.receive())]
        await anyio.wait_all_tasks_blocked()
        assert not any(task.done() for task in stuck)
        reading = asyncio.ensure_future(asyncio.to_thread(told.readline))
        assert (await stuck[1]).message.id == 2  # type: ignore[union-attr]
        await sending.aclose()
        await stuck[0]
        assert json.loads(await reading)["result"] == {"text": "x" * 2_000_000}


async def test_an_answer_that_never_comes_holds_the_end_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment_tools.surfaces.stdio._GRACE_SECONDS", 0.001)
    with pipe() as (incoming, asking), pipe() as (_, outgoing), anyio.fail_after(WAIT):
        asking.write(lines(tracked(1)))
        asking.close()
        source = Source(incoming.fileno())
        assert len([each async for each in Requests(source, Answers(Sink(outgoing.fileno(), source.stop)))]) == 1


async def test_a_request_that_its_caller_cancelled_does_not_hold_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment_tools.surfaces.stdio._GRACE_SECONDS", 10 * WAIT)
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    with pipe() as (incoming, asking), pipe() as (_, outgoing), anyio.fail_after(WAIT):
        asking.write(lines(tracked(1), cancelled))
        asking.close()
        source = Source(incoming.fileno())
        assert len([each async for each in Requests(source, Answers(Sink(outgoing.fileno(), source.stop)))]) == 2

"""The outbox in the shell and in processes: looked into, delivered, kept over the end of a server."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from support import KEY, WAIT, arrived, facts, program, running

from segment_tools.sandbox.run import Sandbox

pytestmark = pytest.mark.anyio
ORDER = {"event": "Order Completed", "userId": "u1", "messageId": "message-1"}


@pytest.fixture
def chosen(environ: dict[str, str], tmp_path: Path, sandbox: Sandbox) -> dict[str, str]:
    """An environment with an outbox and a sandbox."""
    return {
        **environ,
        "SEGMENT_WRITE_KEY": KEY,
        "SEGMENT_OUTBOX": f"sqlite:///{tmp_path / 'outbox.db'}",
        "SEGMENT_DATA_PLANE_URL": sandbox.url,
        "SEGMENT_TIMEOUT_SECONDS": "0.2",
        "SEGMENT_FLUSH_SECONDS": "0",
    }


def shell(environ: dict[str, str], *arguments: str, expected: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        program(*arguments),
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert done.returncode == expected, done.stderr
    return done


def looked(environ: dict[str, str], *arguments: str, expected: int = 0) -> dict[str, Any]:
    return json.loads(shell(environ, "outbox", *arguments, "--json", expected=expected).stdout)


def queue(environ: dict[str, str], sandbox: Sandbox, **fields: Any) -> dict[str, Any]:
    """What a call answers while the sandbox is in trouble."""
    sandbox.fault(status=503, times=1000)
    try:
        return json.loads(shell(environ, "call", "segment_track", json.dumps({**ORDER, **fields})).stdout)
    finally:
        sandbox.clear_faults()


def test_what_a_command_queued_is_delivered_by_another(chosen: dict[str, str], sandbox: Sandbox) -> None:
    assert queue(chosen, sandbox)["status"] == "queued"
    assert looked(chosen)["pending"] == 1
    told = shell(chosen, "outbox")
    assert "waiting: 1" in told.stdout
    sandbox.fault(status=503, times=1000)
    failed = looked(chosen, "flush", "--seconds", "2", expected=1)
    assert (failed["pending"], len(failed["trouble"])) == (1, 1)
    sandbox.clear_faults()
    assert looked(chosen, "flush")["pending"] == 0
    assert [message["messageId"] for message in arrived(sandbox)] == ["message-1"]


def test_dead_letters_are_shown_retried_and_discarded(chosen: dict[str, str], sandbox: Sandbox) -> None:
    there = {**chosen, "SEGMENT_FLUSH_SECONDS": "10"}
    for number in (1, 2):
        queue(chosen, sandbox, messageId=f"message-{number}", userId=f"u{number}")
    sandbox.fault(status=400, times=3)
    found = looked(there, "flush")
    assert (found["pending"], found["dead"]) == (0, 2)
    text = shell(there, "outbox").stdout
    assert "dead letters: 2" in text
    assert "message-1" in text
    assert looked(there, "discard", "message-1")["discarded"] == 1
    assert looked(there, "retry")["retried"] == 1
    assert [message["messageId"] for message in arrived(sandbox)] == ["message-2"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["discard"], "messageIds"),
        (["explode"], "explode"),
        (["flush", "--seconds", "soon"], "--seconds"),
        (["--limit", "0"], "--limit"),
    ],
)
def test_a_wrong_command_is_said_in_one_line(arguments: list[str], says: str, chosen: dict[str, str]) -> None:
    done = shell(chosen, "outbox", *arguments, expected=2)
    assert says in done.stderr.splitlines()[-1]
    assert done.stdout == ""


def test_looking_delivers_nothing(chosen: dict[str, str], sandbox: Sandbox) -> None:
    queue(chosen, sandbox)
    there = {**chosen, "SEGMENT_FLUSH_SECONDS": "20"}
    shell({**there, "SEGMENT_TIMEOUT_SECONDS": "20"}, "doctor")
    shell(there, "call", "segment_outbox")
    assert looked(there)["pending"] == 1
    assert arrived(sandbox) == []


def test_without_an_outbox_the_setting_is_named(environ: dict[str, str]) -> None:
    assert "SEGMENT_OUTBOX" in shell({**environ, "SEGMENT_WRITE_KEY": KEY}, "outbox", expected=2).stderr


def test_a_wrong_address_is_said_before_serving(environ: dict[str, str]) -> None:
    chosen = {**environ, "SEGMENT_WRITE_KEY": KEY, "SEGMENT_OUTBOX": "redis://127.0.0.1:1/0?nonsense=1"}
    for command in ("stdio", "http"):
        assert "SEGMENT_OUTBOX" in shell(chosen, command, expected=2).stderr


def test_the_doctor_looks_into_the_outbox(chosen: dict[str, str], sandbox: Sandbox, tmp_path: Path) -> None:
    there = {**chosen, "SEGMENT_TIMEOUT_SECONDS": "20"}
    assert "Waiting: 0" in shell(there, "doctor").stdout
    (tmp_path / "outbox.db").write_bytes(b"no database at all" * 100)
    done = shell(there, "doctor", expected=1)
    assert "SEGMENT_OUTBOX" in done.stdout


@pytest.fixture(autouse=True)
def _without_faults(sandbox: Sandbox) -> Iterator[None]:
    yield
    sandbox.clear_faults()


def met(sandbox: Sandbox) -> int:
    """How many requests met with a fault."""
    listed = httpx.get(f"{sandbox.url}/_sandbox/faults", trust_env=False).json()["faults"]
    return sum(fault["used"] for fault in listed)


async def test_stdio_delivers_what_is_left_when_its_input_ends(chosen: dict[str, str], sandbox: Sandbox) -> None:
    there = {
        **chosen,
        "SEGMENT_DATA_PLANE_URL": sandbox.url,
        "SEGMENT_DELIVERY": "queued",
        "SEGMENT_FLUSH_SECONDS": "20",
        "SEGMENT_LOOP_LIMIT": "0",
    }
    command, *arguments = program("stdio")
    server = StdioServerParameters(command=command, args=arguments, env=there)
    with anyio.fail_after(WAIT):
        async with Client(stdio_client(server)) as client:
            for number in range(20):
                found = await client.call_tool("segment_track", {**ORDER, "messageId": f"message-{number}"})
                assert facts(found)["status"] == "queued"
    await anyio.to_thread.run_sync(lambda: looked({**there, "SEGMENT_DELIVERY": "direct"}, "flush"))
    assert [message["messageId"] for message in arrived(sandbox)] == [f"message-{number}" for number in range(20)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stdio_delivers_what_is_left_when_it_is_asked_to_end(
    number: signal.Signals, chosen: dict[str, str], sandbox: Sandbox
) -> None:
    queue(chosen, sandbox)
    sandbox.fault(status=503, times=1000)
    there = {**chosen, "SEGMENT_FLUSH_SECONDS": "30"}
    with subprocess.Popen(program("stdio"), env=there, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            until(lambda: met(sandbox) > 0)
            process.send_signal(number)
            sandbox.clear_faults()
            assert process.wait(WAIT) == -number
        finally:
            process.kill()
    assert [message["messageId"] for message in arrived(sandbox)] == ["message-1"]


def test_http_delivers_what_an_earlier_server_left(chosen: dict[str, str], sandbox: Sandbox) -> None:
    queue(chosen, sandbox)
    there = chosen
    with running(there, "http", "--port", "0") as (_, url):
        until(lambda: len(arrived(sandbox)) == 1)
        assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_second_signal_ends_it_at_once(chosen: dict[str, str], sandbox: Sandbox) -> None:
    queue(chosen, sandbox)
    sandbox.fault(kind="hang", times=10)
    there = {**chosen, "SEGMENT_FLUSH_SECONDS": "500"}
    with subprocess.Popen(program("stdio"), env=there, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            until(lambda: met(sandbox) > 0)
            process.send_signal(signal.SIGTERM)
            end = time.monotonic() + WAIT
            while process.poll() is None:
                assert time.monotonic() < end
                os.kill(process.pid, signal.SIGTERM)
                time.sleep(0.05)
        finally:
            process.kill()
    assert looked(chosen)["pending"] == 1

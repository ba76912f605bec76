"""MCP over stdio, as hosts start it: a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest
from mcp import Client, StdioServerParameters, stdio_client
from support import KEY, ROOT, arrived, facts, program

from segment_tools import Settings
from segment_tools.sandbox.run import Sandbox
from segment_tools.tools import offered

pytestmark = pytest.mark.anyio
OFFERED = [tool.name for tool in offered(Settings())]
WAIT = 20
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}},
}


@contextmanager
def started(environ: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The server after it has answered `initialize`, ended at the end if it has not ended by then."""
    process = subprocess.Popen(
        program(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ
    )
    assert process.stdin is not None
    assert process.stdout is not None
    killer = Timer(WAIT, process.kill)
    killer.start()
    try:
        process.stdin.write(json.dumps(INITIALIZE).encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "segment-tools"
        yield process
    finally:
        killer.cancel()
        process.kill()
        process.communicate(timeout=WAIT)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize(
    "server", [["-P", "-m", "segment_tools"], [str(ROOT / "server.py")], [str(ROOT / "server.py"), "stdio"]]
)
async def test_an_mcp_client_calls_the_tools_and_the_messages_arrive(
    server: list[str], mode: str, environ: dict[str, str], sandbox: Sandbox
) -> None:
    chosen = {**environ, "SEGMENT_DATA_PLANE_URL": sandbox.url, "SEGMENT_WRITE_KEY": KEY}
    parameters = StdioServerParameters(command=sys.executable, args=server, env=chosen)
    async with Client(stdio_client(parameters), mode=mode) as client:
        listed = [tool.name for tool in (await client.list_tools()).tools]
        good = facts(await client.call_tool("segment_track", {"event": "Order Completed", "userId": "u1"}))
        bad = facts(await client.call_tool("segment_track", {"event": "Order Completed"}))
    assert listed == OFFERED
    assert [message["messageId"] for message in arrived(sandbox)] == [good["messageId"]]
    assert bad["error"]["field"] == "userId"


def test_a_closed_input_ends_the_process_cleanly(environ: dict[str, str]) -> None:
    with started(environ) as process:
        out, error = process.communicate(timeout=WAIT)
        assert (process.returncode, out, error) == (0, b"", b"")


@pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_at_once_and_quietly(number: signal.Signals, environ: dict[str, str]) -> None:
    with started(environ) as process:
        process.send_signal(number)
        assert process.wait(timeout=WAIT) == -number
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_nothing_but_the_protocol_is_written_to_standard_output(environ: dict[str, str], sandbox: Sandbox) -> None:
    chosen = {**environ, "SEGMENT_DATA_PLANE_URL": sandbox.url, "SEGMENT_WRITE_KEY": KEY}
    calls = [
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {
            "jsonrpc": "2.0",
            "id": 2,
            "method": "tools/call",
            "params": {"name": "segment_page", "arguments": {"userId": 1}},
        },
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "nope"}},
        {"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": {"name": "segment_page", "arguments": "text"}},
    ]
    with started(chosen, "--log-level", "debug") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(f"{json.dumps(call)}\n" for call in calls).encode() + b"not json\n")
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(4)]
        out, error = process.communicate(timeout=WAIT)
    everything = [*answers, *(json.loads(line) for line in out.splitlines())]
    assert all(answer["jsonrpc"] == "2.0" for answer in everything)
    assert {answer.get("id") for answer in everything} >= {2, 3, 4}
    assert KEY not in str(everything)
    assert KEY.encode() not in error


LINES = {
    "half an emoji": ('"hi \\ud83d"', "event"),
    "an integer of 5,000 digits": ("1" * 5000, "event"),
    "nesting of 250 levels": ('"A", "properties": ' + '{"a": ' * 250 + "1" + "}" * 250, "properties.a.a.a.a"),
}


@pytest.mark.parametrize("case", LINES)
def test_a_line_that_the_sdk_gives_up_on_is_answered(case: str, environ: dict[str, str]) -> None:
    event, field = LINES[case]
    arguments = f'{{"userId": "u", "event": {event}}}'
    call = (
        f'{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"segment_track","arguments":{arguments}}}}}'
    )
    ready = '{"jsonrpc": "2.0", "method": "notifications/initialized"}'
    with started(environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{ready}\n{call}\n".encode())
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
    assert answer["id"] == 7
    assert answer["result"]["structuredContent"]["error"]["field"] == field


UNREADABLE = {
    '{"jsonrpc": "2.0", "id": 7, "method": "x\\ud800"}': (7, -32600),
    '{"jsonrpc": "2.0", "id": "\\ud800", "method": "tools/list"}': (None, -32600),
    '{"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": []}': (7, -32600),
    '{"id": 7, "method": "tools/list"}': (7, -32600),
    '[{"jsonrpc": "2.0", "id": 7, "method": "tools/list"}]': (None, -32600),
    '{"jsonrpc": "2.0", "id": 7, "method": "tools/li': (None, -32700),
    "[" * 50_000: (None, -32700),
}


@pytest.mark.parametrize("line", UNREADABLE, ids=lambda line: line[:60])
def test_a_line_that_is_no_request_is_answered_and_the_next_one_too(line: str, environ: dict[str, str]) -> None:
    ping = '{"jsonrpc": "2.0", "id": 8, "method": "ping"}'
    with started(environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"\n{line}\n{ping}\n".encode())
        process.stdin.flush()
        answer, next_one = (json.loads(process.stdout.readline()) for _ in range(2))
    assert (answer["id"], answer["error"]["code"], next_one["id"]) == (*UNREADABLE[line], 8)


def test_the_embedded_sandbox_says_where_it_is_and_takes_messages(environ: dict[str, str]) -> None:
    call = {
        "jsonrpc": "2.0",
        "id": 2,
        "method": "tools/call",
        "params": {"name": "segment_page", "arguments": {"userId": 1}},
    }
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    with started({**environ, "SEGMENT_DATA_PLANE_URL": "sandbox"}) as process:
        assert process.stderr is not None
        assert process.stdin is not None
        assert process.stdout is not None
        assert b"sandbox at http://127.0.0.1:" in process.stderr.readline()
        process.stdin.write(f"{json.dumps(ready)}\n{json.dumps(call)}\n".encode())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["result"]["structuredContent"]["status"] == "accepted"
        process.communicate(timeout=WAIT)
        assert process.returncode == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("SEGMENT_REGION", "mars"), ("SEGMENT_WRITE_KEY", "two words"), ("SEGMENT_DATA_PLANE_URL", "http://x.y")],
)
def test_a_wrong_setting_stops_the_start_with_one_line(
    name: str, value: str, environ: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        program(), env={**environ, name: value}, input=b"", capture_output=True, timeout=WAIT, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (2, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith(f"segment-tools: {name} ")
    assert value not in line or value == "mars"

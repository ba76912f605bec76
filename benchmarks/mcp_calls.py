"""A light MCP client, the same for every server: lines over pipes, or requests over plain sockets."""

import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count

from calls import ANSWER_SECONDS, Clock, Figures, post, posted, refused, tool_call
from processes import cpu_seconds, on, peak

EMPTY_TOOL = "nothing"
"""The one tool of `empty_server`, which is not imported here, so that this process stays small."""

Calls = Callable[[str, int, float], Figures]
"""Measures a tool, with so many calls in flight, for so many seconds."""

_ID = re.compile(rb'"id":(\d+)')
_ACCEPT = "Accept: application/json, text/event-stream\r\n"


def _line(number: int, method: str, params: Mapping[str, object]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"


HELLO = _line(
    0,
    "initialize",
    {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}},
)
READY = b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'


class Pipes:
    """A server on standard input and output."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin.fileno(), process.stdout.fileno()
        self._got = b""

    def say(self, line: bytes) -> None:
        """Send a line, whole."""
        while line:
            line = line[os.write(self._in, line) :]

    def heard(self) -> list[bytes]:
        """The next lines, one at least.

        Raises:
            SystemExit: none comes.
        """
        lines = list[bytes]()
        while not lines:
            if not select.select([self._out], [], [], ANSWER_SECONDS)[0]:
                raise SystemExit(f"the server said nothing for {ANSWER_SECONDS} seconds")
            if not (more := os.read(self._out, 1 << 16)):
                raise SystemExit("the server ended in the middle of the calls")
            *lines, self._got = (self._got + more).split(b"\n")
        return lines


def _started(command: Sequence[str], environ: Mapping[str, str], core: Sequence[int]) -> "subprocess.Popen[bytes]":
    with on(core):
        return subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)


def _end(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.wait(ANSWER_SECONDS)
    process.stdout.close()


def start_seconds(command: Sequence[str], environ: Mapping[str, str], core: Sequence[int]) -> float:
    """From the start of a server's process to its answer to `initialize`."""
    begun = time.perf_counter()
    process = _started(command, environ, core)
    pipes = Pipes(process)
    pipes.say(HELLO)
    _checked(pipes.heard()[0])
    took = time.perf_counter() - begun
    _end(process)
    return took


def _checked(line: bytes) -> bytes:
    if refused(line):
        raise SystemExit(line.decode(errors="replace"))
    return line


@contextmanager
def stdio_server(command: Sequence[str], environ: Mapping[str, str], core: Sequence[int]) -> Generator[Calls]:
    """How to measure a server over its standard input and output."""
    process = _started(command, environ, core)
    pipes, numbers = Pipes(process), count(1)
    pipes.say(HELLO)
    _checked(pipes.heard()[0])
    pipes.say(READY)

    def measure(tool: str, in_flight: int, seconds: float) -> Figures:
        figures = _called(pipes, numbers, tool, in_flight, seconds, partial(cpu_seconds, process.pid))
        return {**figures, **peak(process.pid)}

    try:
        yield measure
    finally:
        _end(process)


def _called(
    pipes: Pipes, numbers: Iterator[int], tool: str, in_flight: int, seconds: float, cpu_of: Callable[[], float]
) -> Figures:
    asked = dict[int, float]()

    def ask() -> None:
        number = next(numbers)
        asked[number] = time.perf_counter()
        pipes.say(tool_call(number, tool) + b"\n")

    def take() -> list[float]:
        return [asked.pop(int(_ID.findall(_checked(line))[0])) for line in pipes.heard()]

    for _ in range(in_flight):
        ask()
        take()
    clock = Clock(cpu_of=cpu_of)
    for _ in range(in_flight):
        ask()
    while asked:
        for since in take():
            now = time.perf_counter()
            clock.took.append(now - since)
            if now < clock.start + seconds:
                ask()
    return clock.figures()


@contextmanager
def http_server(command: Sequence[str], environ: Mapping[str, str], core: Sequence[int]) -> Generator[Calls]:
    """How to measure a server that tells on standard error where it is."""
    with on(core):
        process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        told = process.stderr.readline()
        if not (found := re.search(r"http://127\.0\.0\.1:(\d+)", told)):
            sys.stderr.write(told)
            raise SystemExit("a server that is measured did not start")
        yield partial(_over_http, int(found[1]), process.pid)
    finally:
        process.terminate()
        process.communicate()


def _over_http(port: int, pid: int, tool: str, in_flight: int, seconds: float) -> Figures:
    requests = (post(port, "/mcp", tool_call(number, tool), _ACCEPT) for number in count(1))
    return {**posted(port, requests, in_flight, seconds, partial(cpu_seconds, pid)), **peak(pid)}

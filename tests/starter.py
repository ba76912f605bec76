"""Starts the program many times, quickly: in processes forked from one that has loaded it and never runs an event loop.

What runs in them is the program's own `main`, with its own settings, sockets and files, and it can be killed like any
other; only the second in which Python loads its modules is saved.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_LOADED = (
    "aiolimiter",
    "httpx",
    "redis.asyncio",
    "segment_tools.outbox.redis",
    "segment_tools.outbox.sqlite",
    "segment_tools.shared_pace",
    "segment_tools.surfaces.commands",
    "segment_tools.surfaces.mcp_server",
    "uvicorn",
)
WAIT = 60


class Starter:
    """The process that the others are forked from."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def start(self, arguments: list[str], environ: Mapping[str, str], log: str) -> int:
        """The process id of the program with these arguments, its standard error in the file."""
        return int(self._asked({"start": arguments, "environ": dict(environ), "log": log}))

    def kill(self, pid: int) -> None:
        """Kill it with SIGKILL; it is gone when this returns."""
        self._asked({"kill": pid})

    def _asked(self, what: dict[str, Any]) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


@contextmanager
def starting(environ: Mapping[str, str]) -> Iterator[Starter]:
    """What it started ends with it."""
    command = [sys.executable, "-P", __file__]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**environ, **_paths()}
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield Starter(process)
        finally:
            process.stdin.close()
            process.wait(timeout=WAIT)


def _paths() -> dict[str, str]:
    """Where this process found the package, for the tests of the built wheel."""
    import segment_tools

    return {"PYTHONPATH": str(Path(segment_tools.__file__).parent.parent)}


def _serve(orders: IO[str]) -> None:
    started: set[int] = set()
    for line in orders:
        order = json.loads(line)
        if "kill" in order:
            _end(order["kill"])
            started.discard(order["kill"])
            print("gone", flush=True)
        elif pid := os.fork():
            started.add(pid)
            print(pid, flush=True)
        else:
            _become(order["start"], order["environ"], order["log"])
    for pid in started:
        _end(pid)


def _end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _become(arguments: list[str], environ: dict[str, str], log: str) -> None:
    from segment_tools.surfaces.cli import main

    os.environ.clear()
    os.environ.update(environ)
    nowhere, said = os.open(os.devnull, os.O_RDWR), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, place in ((0, nowhere), (1, nowhere), (2, said)):
        os.dup2(place, number)
    os._exit(main(arguments))


if __name__ == "__main__":
    import importlib

    for name in _LOADED:
        importlib.import_module(name)
    print("ready", flush=True)
    _serve(sys.stdin)

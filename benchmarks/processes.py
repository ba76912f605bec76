"""Processes that are measured or that measure: where they run, how long they take, how large they become."""

import math
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PEAK_UNITS = 2**20 if sys.platform == "darwin" else 2**10
"""How many of what `ru_maxrss` counts are a megabyte: bytes on macOS, kilobytes elsewhere."""


def cores() -> list[int]:
    """The cores that this process may use; none where the system does not say, or cannot tie a process to one."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextmanager
def on(chosen: Sequence[int]) -> Generator[None]:
    """Meanwhile this process, and what it starts for as long as it lives, runs on these cores alone; on any if none."""
    before = cores()
    if not before or not chosen:
        yield
        return
    os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """The processor time that a running process took so far; nan where the system does not say."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.nan
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def peak(pid: int) -> dict[str, float]:
    """How large a running process was at most; nothing where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {"peak_mb": next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10}


@dataclass(frozen=True)
class Usage:
    """What a process took, from its start to its end."""

    seconds: float
    cpu_seconds: float
    peak_mb: float | None

    def peak(self) -> dict[str, float]:
        """How large it was at most; nothing where that is not known."""
        return {} if self.peak_mb is None else {"peak_mb": self.peak_mb}


def ended(process: "subprocess.Popen[Any]", since: float) -> Usage:
    """Wait for its end, and say what it took.

    Raises:
        SystemExit: it failed.
    """
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - since
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"a process that is measured failed with {process.returncode}: {_shown(process.args)}")
    # A process begins as a copy of the one that starts it, whose size counts until it becomes another program.
    told = used.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Usage(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / _PEAK_UNITS if told else None)


def _shown(command: Any) -> str:
    return " ".join(map(str, command))


def ran(command: Sequence[str], environ: Mapping[str, str]) -> tuple[Usage, bytes]:
    """What a process took, and what it printed.

    Raises:
        SystemExit: it failed, with what it said.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as told:
        since = time.perf_counter()
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=told)
        try:
            usage = ended(process, since)
        except SystemExit:
            told.seek(0)
            sys.stderr.write(told.read().decode(errors="replace")[-2000:])
            raise
        out.seek(0)
        return usage, out.read()


@contextmanager
def serving(serve: Callable[..., None], *arguments: Any) -> Generator[int]:
    """The port of a server in a process of its own."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    process = multiprocessing.get_context("fork").Process(target=serve, args=(listener, *arguments), daemon=True)
    process.start()
    try:
        port = listener.getsockname()[1]
        listener.close()
        yield port
    finally:
        process.kill()
        process.join()


def apart(work: Callable[..., Any], *given: Any) -> Any:
    """What the work finds in a process of its own."""
    fork = multiprocessing.get_context("fork")
    theirs, ours = fork.Pipe(duplex=False)
    process = fork.Process(target=lambda: ours.send(work(*given)), daemon=True)
    process.start()
    ours.close()
    try:
        return theirs.recv()
    except EOFError:
        raise SystemExit(f"{work.__name__} failed") from None
    finally:
        process.join()

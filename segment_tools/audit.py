"""The audit log: a line of JSON for every call of a tool, which tells what was done and nothing of anybody."""

import hashlib
import hmac
import json
import logging
import os
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from time import monotonic, sleep
from typing import Any, cast

from segment_tools.errors import NotConfigured, Refused

if sys.platform != "win32":
    import fcntl

KEPT_FILES = 5
"""Ours: how many files are kept beside the one that is written, `path.1` the newest of them."""

LOCK_SECONDS, LOCK_SECONDS_AGAIN = 1.0, 0.01
"""Ours: how long a call waits for another process that holds the lock, first and while lines wait already; a line takes
well below a millisecond."""

MOST_WAITING = 1000
"""Ours: how many lines wait in memory for a file that cannot be written; the oldest go first."""

_KEY_BYTES, _DIGEST_BYTES, _BETWEEN_TRIES = 32, 8, 0.0005

_log = logging.getLogger(__name__)


class Audit:
    """Appends to one file, with others who may: each line is one write under a lock, and so is putting the file aside.

    Beside it is `path.key`, which the ids in it are digested with and which the lock is taken on; without that file
    nobody can tell whether a digest is somebody's. Both are opened for each line, so that there is nothing to close and
    nothing to lose when they are moved. On Windows only one process may write, and files are not put aside.
    """

    def __init__(self, path: Path, max_bytes: int, *, required: bool = False) -> None:
        """Raises NotConfigured where the file cannot be written."""
        self.path, self._max_bytes, self._required = path, max_bytes, required
        self._turn = Lock()
        self._waiting: deque[str] = deque(maxlen=MOST_WAITING)
        try:
            self._key = _made_key(path)
            self._try()
        except OSError as error:
            text = f"The audit log {path} cannot be written ({error.strerror or 'it is no file'})."
            raise NotConfigured("SEGMENT_AUDIT_LOG", text, hint="Set SEGMENT_AUDIT_LOG to a file that can.") from None

    def digest(self, text: str) -> str:
        """What stands for an id: always the same for the same, in all files of this path."""
        return digested(self._key, text)

    def begin(self) -> None:
        """Before a call: write what waits.

        Raises:
            Refused: that cannot be done, and calls must be written.
        """
        if self._waiting:
            self._written()
        if self._waiting and self._required:
            text = "The server's audit log cannot be written, and it takes no calls without (SEGMENT_AUDIT_REQUIRED)."
            hint = "Try again later, and tell whoever runs this server."
            raise Refused("audit_unavailable", text, hint=hint, retry_after_seconds=60)

    def note(self, fields: Mapping[str, Any]) -> None:
        """Write a line; while that cannot be done, it waits."""
        self._waiting.append(json.dumps(fields, ensure_ascii=False, separators=(",", ":")))
        self._written()

    def _written(self) -> None:
        patience = LOCK_SECONDS_AGAIN if len(self._waiting) > 1 else LOCK_SECONDS
        with self._turn:
            try:
                while self._waiting:
                    self._append(self._waiting[0].encode(errors="replace") + b"\n", patience)
                    self._waiting.popleft()
            except OSError as error:
                _log.warning("the audit log cannot be written (%s): %d lines wait", error.strerror, len(self._waiting))

    def _append(self, line: bytes, patience: float) -> None:
        with self._locked(patience):
            if sys.platform != "win32" and self._is_full(len(line)):
                _put_aside(self.path)
            with _opened(self.path) as file:
                size = os.fstat(file).st_size
                if os.write(file, line) < len(line):
                    os.ftruncate(file, size)
                    raise OSError(0, "the disk is full")

    def _is_full(self, more: int) -> bool:
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return False
        return size > 0 and size + more > self._max_bytes

    def _try(self) -> None:
        """A full disk shows itself only when something is written; it is taken back at once."""
        with self._locked(LOCK_SECONDS), _opened(self.path) as file:
            size, last = os.fstat(file).st_size, _last_byte(self.path)
            os.write(file, b"\n")
            if last in (b"", b"\n"):
                os.ftruncate(file, size)  # else a line was broken off with the power: ours begins after it

    @contextmanager
    def _locked(self, patience: float) -> Generator[None]:
        """The only one of all processes to write, for the time of one line.

        Raises:
            OSError: another one holds the lock for longer.
        """
        try:
            lock = os.open(_key_path(self.path), os.O_RDONLY)
        except FileNotFoundError:  # somebody wants the digests to be forgotten
            self._key = _made_key(self.path)
            lock = os.open(_key_path(self.path), os.O_RDONLY)
        try:
            if sys.platform != "win32":
                _lock(lock, monotonic() + patience)
            yield
        finally:
            os.close(lock)


if sys.platform != "win32":

    def _lock(file: int, until: float) -> None:
        while True:
            try:
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if monotonic() >= until:
                    raise OSError(error.errno, "another process holds its lock") from None
                sleep(_BETWEEN_TRIES)


def digested(key: bytes, text: str) -> str:
    """The id under the key, in hexadecimal."""
    return hmac.new(key, text.encode(errors="surrogatepass"), hashlib.sha256).digest()[:_DIGEST_BYTES].hex()


def key_of(path: Path) -> bytes | None:
    """The key of the log at this path; None where there is none."""
    try:
        return _key_path(path).read_bytes()
    except FileNotFoundError:
        return None


def files(path: Path) -> list[Path]:
    """The log's files that are there, the oldest first."""
    named = [*(_numbered(path, number) for number in range(KEPT_FILES, 0, -1)), path]
    return [each for each in named if each.is_file()]


def entries(lines: Iterable[bytes]) -> Iterator[dict[str, Any] | None]:
    """What the lines say; None for one that is none of the log's."""
    for line in lines:
        try:
            found: object = json.loads(line)
        except ValueError:
            found = None
        yield cast("dict[str, Any]", found) if isinstance(found, dict) and "verdict" in found else None


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _key_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.key")


@contextmanager
def _opened(path: Path) -> Generator[int]:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _put_aside(path: Path) -> None:
    for number in range(KEPT_FILES - 1, -1, -1):
        newer = _numbered(path, number) if number else path
        if newer.exists():
            newer.replace(_numbered(path, number + 1))


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        return file.read(1)


def _made_key(path: Path) -> bytes:
    """The key, made by whoever comes first: it is whole before it has its name."""
    if key := key_of(path):
        return key
    own = path.with_name(f"{path.name}.key-{os.getpid()}-{os.urandom(4).hex()}")
    file = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(file, "wb") as writer:
            writer.write(os.urandom(_KEY_BYTES))
        with suppress(FileExistsError):
            os.link(own, _key_path(path))
    finally:
        own.unlink()
    return _key_path(path).read_bytes()

"""What was accepted and is not yet delivered, and when to try again."""

from segment_tools.outbox._outbox import (
    ENTRY_OVERHEAD,
    KNOWN_FOR,
    MOST_BYTES,
    OUTBOX,
    Dead,
    DeadPage,
    Depth,
    Entry,
    Known,
    Outbox,
    Waiting,
)
from segment_tools.storage.kind import SERVERS, sqlite_path
from segment_tools.storage.moments import Clock, now

__all__ = [
    "ENTRY_OVERHEAD",
    "KNOWN_FOR",
    "MOST_BYTES",
    "Dead",
    "DeadPage",
    "Depth",
    "Entry",
    "Known",
    "Outbox",
    "Waiting",
    "open_outbox",
]

_IN_MEMORY = "memory:"


def open_outbox(address: str, most_bytes: int = MOST_BYTES, clock: Clock = now) -> Outbox:
    """The outbox at the address, which is opened when it is first used.

    `sqlite:///a.db` is a file, `sqlite:////var/a.db` one with an absolute path; a server is `redis://`, `rediss://`
    (over TLS) or `unix://` (a socket). `memory:` keeps nothing beyond this process.

    Raises:
        NotConfigured: the address is none of these, or the package for it is missing. The text does not repeat it.
    """
    path = sqlite_path(address)
    if path or address == _IN_MEMORY:
        from segment_tools.outbox.sqlite import SqliteOutbox
        from segment_tools.storage.sqlite_file import MEMORY

        return SqliteOutbox(path or MEMORY, most_bytes, clock)
    if address.startswith(SERVERS):
        OUTBOX.require_redis()
        from segment_tools.outbox.redis import RedisOutbox

        return RedisOutbox(address, most_bytes, clock)
    hint = "Pass sqlite:///outbox.db, sqlite:////absolute/path/outbox.db, redis://localhost:6379/0 or memory:."
    raise OUTBOX.no_address("an outbox", hint)

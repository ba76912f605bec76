"""What verified deliveries are kept in, read and waited for from."""

from segment_tools.errors import NotConfigured
from segment_tools.inbox._inbox import Clock, Inbox, Page, Query, Retention, Stored, now

__all__ = ["Clock", "Inbox", "Page", "Query", "Retention", "Stored", "open_inbox"]

_SETTING = "SEGMENT_INBOX"
_FILE = "sqlite://"
_SERVERS = ("redis://", "rediss://", "unix://")


def open_inbox(address: str, retention: Retention = Retention(), clock: Clock = now) -> Inbox:
    """The inbox at the address, which is opened when it is first used.

    `sqlite:///a.db` is a file, `sqlite:////var/a.db` one with an absolute path, and `sqlite:///:memory:` none; a
    server is `redis://`, `rediss://` (over TLS) or `unix://` (a socket).

    Raises:
        NotConfigured: the address is none of these, or the package for it is missing. The text does not repeat it.
    """
    path = address.removeprefix(f"{_FILE}/")
    if address.startswith(f"{_FILE}/") and path and path.isprintable():
        from segment_tools.inbox.sqlite import SqliteInbox

        return SqliteInbox(path, retention, clock)
    if address.startswith(_SERVERS):
        return _redis_inbox(address, retention, clock)
    hint = "Pass sqlite:///inbox.db, sqlite:////absolute/path/inbox.db or redis://localhost:6379/0."
    raise NotConfigured(_SETTING, f"{_SETTING} is no address of an inbox.", hint=hint)


def _redis_inbox(url: str, retention: Retention, clock: Clock) -> Inbox:
    try:
        from segment_tools.inbox.redis import RedisInbox
    except ImportError:
        message = f"{_SETTING} is the address of a Redis server, and the package for it is not installed."
        raise NotConfigured(_SETTING, message, hint="pip install 'segment-tools[redis]'") from None
    return RedisInbox(url, retention, clock)

"""What verified deliveries are kept in, read and waited for from."""

from segment_tools.inbox._inbox import INBOX, Inbox, Page, Query, Retention, Stored
from segment_tools.storage.kind import SERVERS, sqlite_path
from segment_tools.storage.moments import Clock, now

__all__ = ["Clock", "Inbox", "Page", "Query", "Retention", "Stored", "open_inbox"]


def open_inbox(address: str, retention: Retention = Retention(), clock: Clock = now) -> Inbox:
    """The inbox at the address, which is opened when it is first used.

    `sqlite:///a.db` is a file, `sqlite:////var/a.db` one with an absolute path, and `sqlite:///:memory:` none; a
    server is `redis://`, `rediss://` (over TLS) or `unix://` (a socket).

    Raises:
        NotConfigured: the address is none of these, or the package for it is missing. The text does not repeat it.
    """
    path = sqlite_path(address)
    if path:
        from segment_tools.inbox.sqlite import SqliteInbox

        return SqliteInbox(path, retention, clock)
    if address.startswith(SERVERS):
        INBOX.require_redis()
        from segment_tools.inbox.redis import RedisInbox

        return RedisInbox(address, retention, clock)
    hint = "Pass sqlite:///inbox.db, sqlite:////absolute/path/inbox.db or redis://localhost:6379/0."
    raise INBOX.no_address("an inbox", hint)

"""An inbox in a Redis server, for replicas on several machines."""

import re
from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from typing import cast

from segment_tools.inbox._inbox import INBOX, Page, Query, Retention, Stored, page_of
from segment_tools.spec.webhooks import Delivery
from segment_tools.storage.moments import Clock, microseconds, moment_of, now
from segment_tools.storage.redis import Command, RedisStore

_MOST_CHUNK = 1000
"""How many deliveries are read at once; at first as many as are asked for, then twice as many each time."""

_CURSOR = re.compile("([0-9]{1,18})-([0-9]{1,18})")


class RedisInbox(RedisStore):
    """An `Inbox` in a stream of a Redis server (6.2 or later), one for each of its databases.

    How well it keeps what it was given is the server's setting: `appendonly yes` with `appendfsync always` is what a
    file gives. A key is known for the retention's days, however many deliveries there were since. Looking for something
    that is rare has the server read every delivery in the range, up to 1,000 at a time, which takes it some half a
    second for 100,000 of them; `after` and `before` narrow the range.
    """

    def __init__(self, url: str, retention: Retention = Retention(), clock: Clock = now) -> None:
        super().__init__(url, INBOX, decode_responses=True)
        self._retention = retention
        self._clock = clock
        self._stream = f"{self._prefix}deliveries"
        self._add, self._select, self._advance = (self._script(script) for script in (_ADD, _SELECT, _ADVANCE))

    async def add(self, deliveries: Sequence[Delivery], received_at: datetime) -> int:
        """See `Inbox.add`."""
        if not deliveries:
            return 0
        keys = [self._stream, *(f"{self._prefix}key:{each.key}" for each in deliveries)]
        kept = str(max(1, round(self._retention.days * 86_400_000)))
        shared = [kept, str(self._retention.count), str(microseconds(received_at))]
        async with self._answering():
            return int(await self._add(keys=keys, args=[*shared, *chain.from_iterable(map(_values, deliveries))]))

    async def page(self, query: Query) -> Page:
        """See `Inbox.page`."""
        least = "-" if query.after is None else f"({_canonical(query.after)}"
        most = "+" if query.before is None else f"({_canonical(query.before)}"
        command, start, end = ("XREVRANGE", most, least) if query.newest_first else ("XRANGE", least, most)
        most_bytes = "" if query.most_bytes is None else str(query.most_bytes)
        wanted = (most_bytes, *_wanted(query, self._retention.oldest(self._clock())))
        found: list[Stored] = []
        chunk = min(query.limit + 1, _MOST_CHUNK)
        while start and len(found) <= query.limit:
            async with self._answering():
                args = [command, start, end, str(chunk), str(query.limit + 1 - len(found)), *wanted]
                start, entries = await self._select(keys=[self._stream], args=args)
            found.extend(_stored(*entry) for entry in entries)
            chunk = min(2 * chunk, _MOST_CHUNK)
        return page_of(found, query.limit)

    async def last(self) -> str | None:
        """See `Inbox.last`."""
        newest = (await self.page(Query(newest_first=True, limit=1, most_bytes=0))).items
        return newest[0].cursor if newest else None

    async def changed(self, after: str | None, seconds: float) -> bool:
        """See `Inbox.changed`."""

        async def look() -> str | None:
            newest = await self._newest()
            return None if (await self.page(Query(after=after, limit=1, most_bytes=0))).items else newest

        return await self._found(look, self._stream, seconds)

    async def position(self, name: str) -> str | None:
        """See `Inbox.position`."""
        async with self._answering():
            found = await cast("Command", self._redis.get)(f"{self._prefix}position:{name}")
        return None if found is None else _canonical(found)

    async def advance(self, name: str, cursor: str) -> None:
        """See `Inbox.advance`."""
        sortable = "-".join(part.zfill(18) for part in _canonical(cursor).split("-"))
        async with self._answering():
            await self._advance(keys=[f"{self._prefix}position:{name}"], args=[sortable])

    async def lease(self, name: str, holder: str, seconds: float) -> bool:
        """See `Inbox.lease`."""
        return await self._leased(name, holder, seconds)

    async def _newest(self) -> str:
        """The last entry's place, be it beyond the retention or not, to wait for another from."""
        newest = ["XREVRANGE", "+", "-", "1", "1", "0", "0", "", "", ""]
        async with self._answering():
            _, found = await self._select(keys=[self._stream], args=newest)
        return found[0][0] if found else "0-0"


# Names of keys are given rather than made here, as a cluster asks for. What is absent is empty, and the rest begins
# with `=`. The stream is looked at first: were the key something else, nothing must have been written yet.
_ADD = """
redis.call('XLEN', KEYS[1])
local added, last = 0, nil
for index = 2, #KEYS do
    if redis.call('SET', KEYS[index], '1', 'NX', 'PX', ARGV[1]) then
        local at = 3 + 5 * (index - 2)
        last = redis.call('XADD', KEYS[1], '*', 'at', ARGV[3], 'body', ARGV[at + 1], 'type', ARGV[at + 2],
            'event', ARGV[at + 3], 'user', ARGV[at + 4], 'channel', ARGV[at + 5])
        added = added + 1
    end
end
if last then
    local oldest = tonumber(string.match(last, '^%d+')) - tonumber(ARGV[1])
    redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[2])
    redis.call('XTRIM', KEYS[1], 'MINID', '~', string.format('%.0f', math.max(oldest, 0)))
end
return added
"""

# In the server, since fetching all of it takes ten times as long. It returns where to go on from, if anywhere.
_SELECT = """
local types, any, most = {}, #ARGV < 11, tonumber(ARGV[6])
for index = 11, #ARGV do types[ARGV[index]] = true end
local entries = redis.call(ARGV[1], KEYS[1], ARGV[2], ARGV[3], 'COUNT', ARGV[4])
local found = {}
for _, entry in ipairs(entries) do
    local fields = {}
    for at = 1, #entry[2], 2 do fields[entry[2][at]] = entry[2][at + 1] end
    if tonumber(fields.at) >= tonumber(ARGV[7]) and (any or types[fields.type])
        and (ARGV[8] == '' or fields.event == ARGV[8])
        and (ARGV[9] == '' or fields.user == ARGV[9])
        and (ARGV[10] == '' or fields.channel == ARGV[10]) then
        local left_out = most and #fields.body > most
        found[#found + 1] = {entry[1], #fields.body, fields.at, left_out and '' or fields.body,
            fields.type, fields.event, fields.user, fields.channel}
        if #found == tonumber(ARGV[5]) then break end
    end
end
return {#entries == tonumber(ARGV[4]) and '(' .. entries[#entries][1] or '', found}
"""

_ADVANCE = """
local reached = redis.call('GET', KEYS[1])
if not reached or reached < ARGV[1] then redis.call('SET', KEYS[1], ARGV[1]) end
"""


def _values(delivery: Delivery) -> Sequence[str]:
    optional = (delivery.type, delivery.event, delivery.user_id, delivery.channel)
    return (delivery.body, *("" if value is None else f"={value}" for value in optional))


def _wanted(query: Query, oldest: int) -> Sequence[str]:
    """What the script compares with: values as they are kept, empty where they do not matter."""
    least = oldest if query.since is None else max(oldest, microseconds(query.since))
    values = ("" if value is None else f"={value}" for value in (query.event, query.user_id, query.channel))
    return (str(least), *values, *(f"={kind}" for kind in query.types))


def _stored(entry: str, bytes_: int, at: str, body: str, *heads: str) -> Stored:
    kind, event, user_id, channel = (head.removeprefix("=") if head else None for head in heads)
    return Stored(entry, moment_of(int(at)), body, kind, event, user_id, channel, bytes_)


def _canonical(cursor: str) -> str:
    found = _CURSOR.fullmatch(cursor)
    if not found:
        raise INBOX.bad_cursor()
    return f"{int(found[1])}-{int(found[2])}"

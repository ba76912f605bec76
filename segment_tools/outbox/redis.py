"""An outbox in a Redis server, for replicas on several machines."""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, cast

from segment_tools.outbox._outbox import (
    ENTRY_OVERHEAD,
    KNOWN_FOR,
    LEASE,
    LEAST_FORGOTTEN,
    MOST_BYTES,
    MOST_KNOWN,
    OUTBOX,
    Dead,
    DeadPage,
    Death,
    Depth,
    Entry,
    Known,
    Waiting,
    check_accepted,
    check_limit,
    full,
)
from segment_tools.storage.moments import Clock, microseconds, moment_of, now
from segment_tools.storage.redis import Command, RedisStore

_MOST_RAISED = 500
"""How many dead letters are retried at once: nobody else is served meanwhile."""

_CURSOR = re.compile("([0-9]{1,18})-([0-9]{1,18})")

_NAMES = ("waiting", "dead", "known", "accepted", "lanes", "places", "letters", "bytes")
"""What each script is given, in this order.

Two streams, of what waits and of dead letters; `known`, id to digest and timestamp; `accepted`, the time at which each
id was, which those that wait have not; `lanes`, how many wait in each; `places`, id to place in the queue; `letters`,
id to places among the dead; and how many bytes all this counts for.
"""


class RedisOutbox(RedisStore):
    """An `Outbox` in two streams of a Redis server (7.0 or later), one for each of its databases.

    There is no consumer group: it hands entries to whichever consumer asks, so that the second of a lane may overtake
    the first; the lease's holder alone reads, in order. How well the server keeps what it was given is its setting:
    `appendonly yes` with `appendfsync always` is what a file gives, and a replica that takes over lacks what had not
    reached it. With any `maxmemory-policy` but `noeviction` it may drop the whole outbox.
    """

    def __init__(self, url: str, most_bytes: int = MOST_BYTES, clock: Clock = now) -> None:
        super().__init__(url, OUTBOX, decode_responses=False)
        self._clock = clock
        self._most_bytes = most_bytes
        self._seen = "0-0"
        self._keys = [f"{self._prefix}{name}" for name in _NAMES]
        self._add, self._look, self._remember = (self._script(_SHARED + text) for text in (_ADD, _LOOK, _REMEMBER))
        self._page, self._settle, self._depth = (self._script(_SHARED + text) for text in (_PAGE, _SETTLE, _DEPTH))
        self._letters, self._with_ids = (self._script(_SHARED + text) for text in (_LETTERS, _WITH_IDS))
        self._raise, self._discard = (self._script(_SHARED + text) for text in (_RAISE, _DISCARD))
        self._newest, self._newest_letter = (self._script(_SHARED + _NEWEST.format(of)) for of in ("waiting", "dead"))

    async def add(self, entries: Sequence[Entry], accepted_at: datetime) -> tuple[Known | None, ...]:
        """See `Outbox.add`."""
        head = (microseconds(accepted_at), *self._forgotten(), self._most_bytes, ENTRY_OVERHEAD)
        results = await self._asked(self._add, *head, *chain.from_iterable(map(_values, entries)))
        if results is None:
            raise full(self._most_bytes)
        return tuple(_known(each.message_id, *found) for each, found in zip(entries, results, strict=True))

    async def look(
        self, message_ids: Sequence[str], lanes: Collection[str]
    ) -> tuple[Mapping[str, Known], frozenset[str]]:
        """See `Outbox.look`."""
        listed = list(lanes)
        found, waiting = await self._asked(self._look, self._oldest(), len(message_ids), *message_ids, *listed)
        known = (_known(each, *record) for each, record in zip(message_ids, found, strict=True))
        return (
            {each.message_id: each for each in known if each},
            frozenset(lane for lane, some in zip(listed, waiting, strict=True) if some),
        )

    async def remember(self, known: Sequence[Known], at: datetime) -> None:
        """See `Outbox.remember`."""
        check_accepted(known)
        values = chain.from_iterable((each.message_id, each.digest, each.timestamp) for each in known)
        await self._asked(self._remember, microseconds(at), *self._forgotten(), *values)

    async def page(
        self, after: str | None, limit: int, most_bytes: int, without: Collection[str] = ()
    ) -> Sequence[Waiting]:
        """See `Outbox.page`."""
        check_limit(limit)
        start: str | bytes = "-" if after is None else f"({_canonical(after)}"
        found: list[Waiting] = []
        size = 0
        while start:
            args = (start, limit - len(found), most_bytes - size, int(not found), *without)
            start, entries = await self._asked(self._page, *args)
            found.extend(_waiting(*entry) for entry in entries)
            size = sum(len(each.entry.body) for each in found)
        return found

    async def settle(self, delivered: Sequence[Waiting], dead: Sequence[Death]) -> None:
        """See `Outbox.settle`."""
        gone = chain.from_iterable(_place(each) for each in delivered)
        died = chain.from_iterable((*_place(each), reason, text, attempts) for each, reason, text, attempts in dead)
        at = microseconds(self._clock())
        await self._asked(self._settle, at, ENTRY_OVERHEAD, len(delivered), *gone, *died)

    async def remarks(self) -> Sequence[str]:
        """See `Outbox.remarks`."""
        async with self._answering():
            found: Mapping[str, Any] = await cast("Any", self._redis).info()
        remarks: list[str] = []
        if str(found.get("aof_enabled")) == "0":
            remarks.append("The Redis server keeps no log (appendonly no): what waits is lost with it.")
        if found.get("maxmemory_policy") not in (None, "noeviction"):
            remarks.append(f"It may drop what waits (maxmemory-policy {found['maxmemory_policy']}): set noeviction.")
        return remarks

    async def lease(self, holder: str, seconds: float) -> bool:
        """See `Outbox.lease`."""
        return await self._leased(LEASE, holder, seconds)

    async def changed(self, seconds: float) -> bool:
        """See `Outbox.changed`."""
        seen = self._seen

        async def look() -> str | None:
            newest = (await self._asked(self._newest)).decode()
            if newest == seen:
                return newest
            self._seen = newest
            return None

        return await self._found(look, self._keys[0], seconds)

    async def depth(self) -> Depth:
        """See `Outbox.depth`."""
        pending, size, dead, oldest = await self._asked(self._depth)
        return Depth(pending, size, None if oldest is None else moment_of(int(oldest)), dead)

    async def dead(self, after: str | None, limit: int, message_ids: Sequence[str] | None = None) -> DeadPage:
        """See `Outbox.dead`."""
        check_limit(limit)
        place = None if after is None else _canonical(after)
        found = await (self._died(place, limit + 1) if message_ids is None else self._of(message_ids, place, limit + 1))
        items = tuple(_letter(cursor, fields) for cursor, fields in found[:limit])
        return DeadPage(items, items[-1].cursor if len(found) > limit else None)

    async def retry(self, message_ids: Sequence[str] | None) -> int:
        """See `Outbox.retry`."""
        if message_ids is not None:
            return await self._raised(message_ids)
        raised = 0
        start: str | bytes = "-"
        end = await self._asked(self._newest_letter)
        while start:  # to here: what dies again meanwhile is not retried for ever
            start, letters = await self._asked(self._letters, start, end, _MOST_RAISED)
            raised += await self._raised(letters)
        return raised

    async def discard(self, message_ids: Sequence[str]) -> int:
        """See `Outbox.discard`."""
        return int(await self._asked(self._discard, ENTRY_OVERHEAD, *message_ids))

    async def _died(self, after: str | None, limit: int) -> Sequence[tuple[bytes, Mapping[bytes, bytes]]]:
        start = "-" if after is None else f"({after}"
        async with self._answering():
            return await cast("Command", self._redis.xrange)(self._keys[1], start, "+", limit)

    async def _of(
        self, message_ids: Sequence[str], after: str | None, limit: int
    ) -> Sequence[tuple[bytes, Mapping[bytes, bytes]]]:
        found = await self._asked(self._with_ids, *(after or "0-0").split("-"), limit, *message_ids)
        return [(place, dict(zip(fields[::2], fields[1::2], strict=True))) for place, fields in found]

    async def _raised(self, message_ids: Sequence[str | bytes]) -> int:
        return int(await self._asked(self._raise, microseconds(self._clock()), self._oldest(), *message_ids))

    async def _asked(self, script: Command, *args: str | bytes | int) -> Any:
        async with self._answering():
            return await script(keys=self._keys, args=args)

    def _forgotten(self) -> tuple[int, int, int]:
        return self._oldest(), LEAST_FORGOTTEN, MOST_KNOWN

    def _oldest(self) -> int:
        return microseconds(self._clock() - KNOWN_FOR)


# The functions that every script begins with. What is written to first is a stream: a server whose memory is full
# refuses that, with nothing done, and lets through whatever follows.
_SHARED = """
local waiting, dead, known, accepted, lanes, places, letters, bytes = unpack(KEYS)

local function fields_of(entry)
    local fields = {}
    for at = 1, #entry[2], 2 do fields[entry[2][at]] = entry[2][at + 1] end
    return fields
end

local function known_of(id, oldest)
    local record = redis.call('HGET', known, id)
    if not record then return {} end
    local at = redis.call('ZSCORE', accepted, id)
    if at and tonumber(at) <= tonumber(oldest) then return {} end
    return {record, at and 'accepted' or 'queued'}
end

local function forget_all(ids)
    for _, id in ipairs(ids) do
        redis.call('HDEL', known, id)
        redis.call('ZREM', accepted, id)
    end
end

local function forget(oldest, most, held)
    forget_all(redis.call('ZRANGEBYSCORE', accepted, '-inf', oldest, 'LIMIT', 0, most))
    local over = redis.call('ZCARD', accepted) - tonumber(held)
    if over > 0 then forget_all(redis.call('ZRANGE', accepted, 0, math.min(over, most) - 1)) end
end

local function put(at, id, lane, source, digest, time, body)
    local place = redis.call('XADD', waiting, '*', 'at', at, 'id', id, 'lane', lane, 'source', source,
        'digest', digest, 'time', time, 'body', body)
    redis.call('HSET', places, id, place)
    redis.call('HINCRBY', lanes, lane, 1)
    redis.call('HSET', known, id, digest .. '\\n' .. time)
    redis.call('ZREM', accepted, id)
end

local function taken(place, id)
    local entry = redis.call('XRANGE', waiting, place, place)[1]
    local fields = entry and fields_of(entry)
    if not fields or fields.id ~= id then return nil end
    redis.call('XDEL', waiting, place)
    redis.call('HDEL', places, id)
    if redis.call('HINCRBY', lanes, fields.lane, -1) < 1 then redis.call('HDEL', lanes, fields.lane) end
    return fields
end

local function count(size) redis.call('INCRBY', bytes, string.format('%.0f', size)) end
"""

_ADD = """
local at, oldest, least, held, most, overhead = unpack(ARGV, 1, 6)
local results, fresh, queued = {}, {}, {}
local size = 0
for index = 7, #ARGV, 6 do
    local id, digest, time, body = ARGV[index], ARGV[index + 3], ARGV[index + 4], ARGV[index + 5]
    local found = queued[id] or known_of(id, oldest)
    results[#results + 1] = found
    if #found == 0 then
        queued[id] = {digest .. '\\n' .. time, 'queued'}
        fresh[#fresh + 1] = index
        size = size + #body + tonumber(overhead)
    end
end
if #fresh == 0 then return results end
if tonumber(redis.call('GET', bytes) or 0) + size > tonumber(most) then return false end
for _, index in ipairs(fresh) do put(at, unpack(ARGV, index, index + 5)) end
count(size)
forget(oldest, math.max(tonumber(least), 2 * #fresh), held)
return results
"""

_LOOK = """
local last = 2 + tonumber(ARGV[2])
local found, some = {}, {}
for index = 3, last do found[#found + 1] = known_of(ARGV[index], ARGV[1]) end
for index = last + 1, #ARGV do some[#some + 1] = redis.call('HEXISTS', lanes, ARGV[index]) end
return {found, some}
"""

_REMEMBER = """
local at, oldest, least, held = unpack(ARGV, 1, 4)
for index = 5, #ARGV, 3 do
    local id, digest, time = unpack(ARGV, index, index + 2)
    if #known_of(id, oldest) == 0 then
        redis.call('HSET', known, id, digest .. '\\n' .. time)
        redis.call('ZADD', accepted, at, id)
    end
end
forget(oldest, math.max(tonumber(least), #ARGV), held)
"""

# It returns where to go on from, if anywhere: one asking reads 1,000 entries at most.
_PAGE = """
local start, limit, room, first = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local without, found = {}, {}
for index = 5, #ARGV do without[ARGV[index]] = true end
for chunk = 1, 10 do
    local entries = redis.call('XRANGE', waiting, start, '+', 'COUNT', 100)
    for _, entry in ipairs(entries) do
        local fields = fields_of(entry)
        if not without[fields.lane] then
            room = room - #fields.body
            if room < 0 and not (first and #found == 0) then return {'', found} end
            found[#found + 1] = entry
            if #found == limit then return {'', found} end
        end
    end
    if #entries < 100 then return {'', found} end
    start = '(' .. entries[#entries][1]
end
return {start, found}
"""

_SETTLE = """
local at, overhead, delivered = ARGV[1], tonumber(ARGV[2]), 3 + 2 * tonumber(ARGV[3])
local size = 0
for index = 4, delivered, 2 do
    local id = ARGV[index + 1]
    local fields = taken(ARGV[index], id)
    if fields then
        size = size + #fields.body + overhead
        redis.call('ZADD', accepted, at, id)
    end
end
for index = delivered + 1, #ARGV, 5 do
    local id, reason, text, attempts = unpack(ARGV, index + 1, index + 4)
    local fields = taken(ARGV[index], id)
    if fields then
        local place = redis.call('XADD', dead, '*', 'died', at, 'reason', reason, 'text', text, 'attempts', attempts,
            'at', fields.at, 'id', id, 'lane', fields.lane, 'source', fields.source, 'digest', fields.digest,
            'time', fields.time, 'body', fields.body)
        local earlier = redis.call('HGET', letters, id)
        redis.call('HSET', letters, id, earlier and earlier .. ' ' .. place or place)
        redis.call('HDEL', known, id)
    end
end
if size > 0 then count(-size) end
"""

_DEPTH = """
local first = redis.call('XRANGE', waiting, '-', '+', 'COUNT', 1)[1]
return {redis.call('XLEN', waiting), tonumber(redis.call('GET', bytes) or 0), redis.call('XLEN', dead),
    first and fields_of(first).at or false}
"""

_NEWEST = """
if redis.call('EXISTS', {0}) == 0 then return '0-0' end
local info = redis.call('XINFO', 'STREAM', {0})
for at = 1, #info, 2 do if info[at] == 'last-generated-id' then return info[at + 1] end end
"""

_LETTERS = """
local entries = redis.call('XRANGE', dead, ARGV[1], ARGV[2], 'COUNT', ARGV[3])
local ids = {}
for _, entry in ipairs(entries) do ids[#ids + 1] = fields_of(entry).id end
return {#entries == tonumber(ARGV[3]) and '(' .. entries[#entries][1] or '', ids}
"""

_WITH_IDS = """
local time, number, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local found, seen = {}, {}
local function later(one, other)
    return one.time > other.time or one.time == other.time and one.number > other.number
end
for index = 4, #ARGV do
    local id = ARGV[index]
    for place in string.gmatch(not seen[id] and redis.call('HGET', letters, id) or '', '%S+') do
        local first, second = string.match(place, '(%d+)-(%d+)')
        local letter = {place = place, time = tonumber(first), number = tonumber(second)}
        if later(letter, {time = time, number = number}) then found[#found + 1] = letter end
    end
    seen[id] = true
end
table.sort(found, function(one, other) return later(other, one) end)
local entries = {}
for at = 1, math.min(limit, #found) do
    entries[at] = redis.call('XRANGE', dead, found[at].place, found[at].place)[1]
end
return entries
"""

_RAISE = """
local at, oldest = ARGV[1], ARGV[2]
local rising, seen = {}, {}
for index = 3, #ARGV do
    local id = ARGV[index]
    local held = redis.call('HGET', letters, id)
    if held and not seen[id] and #known_of(id, oldest) == 0 then
        seen[id] = true
        local rest, time, number = string.match(held, '^(.-) ?(%d+)-(%d+)$')
        rising[#rising + 1] = {id = id, rest = rest, time = tonumber(time), number = tonumber(number)}
    end
end
table.sort(rising, function(a, b) return a.time < b.time or a.time == b.time and a.number < b.number end)
for _, each in ipairs(rising) do
    local place = string.format('%.0f-%.0f', each.time, each.number)
    local fields = fields_of(redis.call('XRANGE', dead, place, place)[1])
    redis.call('XDEL', dead, place)
    redis.call('HDEL', letters, each.id)
    if each.rest ~= '' then redis.call('HSET', letters, each.id, each.rest) end
    put(at, each.id, fields.lane, fields.source, fields.digest, fields.time, fields.body)
end
return #rising
"""

_DISCARD = """
local overhead = tonumber(ARGV[1])
local size, discarded = 0, 0
local function gone(fields)
    size = size + #fields.body + overhead
    discarded = discarded + 1
end
local function discard(id)
    local held = redis.call('HGET', letters, id)
    if held then
        for letter in string.gmatch(held, '%S+') do
            gone(fields_of(redis.call('XRANGE', dead, letter, letter)[1]))
            redis.call('XDEL', dead, letter)
        end
        redis.call('HDEL', letters, id)
        return
    end
    local place = redis.call('HGET', places, id)
    local fields = place and taken(place, id)
    if fields then
        gone(fields)
        redis.call('HDEL', known, id)
    end
end
local seen = {}
for index = 2, #ARGV do
    local id = ARGV[index]
    if not seen[id] then discard(id) end
    seen[id] = true
end
if size > 0 then count(-size) end
return discarded
"""


def _values(entry: Entry) -> Sequence[str | bytes]:
    return (entry.message_id, entry.lane, entry.source, entry.digest, entry.timestamp, entry.body)


def _place(waiting: Waiting) -> tuple[str, str]:
    return _canonical(waiting.cursor), waiting.entry.message_id


def _known(message_id: str, record: bytes = b"", status: bytes = b"") -> Known | None:
    if not status:
        return None
    digest, _, timestamp = record.decode().rpartition("\n")
    return Known(message_id, digest, "accepted" if status == b"accepted" else "queued", timestamp)


def _waiting(cursor: bytes, listed: Sequence[bytes]) -> Waiting:
    fields = dict(zip(listed[::2], listed[1::2], strict=True))
    message_id, lane, source, digest, timestamp = (
        fields[name].decode() for name in (b"id", b"lane", b"source", b"digest", b"time")
    )
    entry = Entry(message_id, lane, source, fields[b"body"], digest, timestamp)
    return Waiting(cursor.decode(), moment_of(int(fields[b"at"])), entry)


def _letter(cursor: bytes, fields: Mapping[bytes, bytes]) -> Dead:
    message_id, source, reason, text = (fields[name].decode() for name in (b"id", b"source", b"reason", b"text"))
    times = (moment_of(int(fields[b"at"])), moment_of(int(fields[b"died"])))
    return Dead(message_id, source, fields[b"body"], reason, text, int(fields[b"attempts"]), *times, cursor.decode())


def _canonical(cursor: str) -> str:
    found = _CURSOR.fullmatch(cursor)
    if not found:
        raise OUTBOX.bad_cursor()
    return f"{int(found[1])}-{int(found[2])}"

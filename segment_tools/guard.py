"""What an agent may send: which messages, how many, not one for ever, and some only once a person has agreed."""

import hashlib
import math
import re
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

from pydantic_core import to_json

from segment_tools.errors import InvalidMessage, Problem, Refused
from segment_tools.redaction import hidden, hidden_in
from segment_tools.setting_types import EVENT, TOOL, TYPE, Selector
from segment_tools.settings import Settings
from segment_tools.spec.globs import any_between
from segment_tools.spec.lookalikes import latin
from segment_tools.spec.messages import AnyMessage, Track
from segment_tools.spec.names import folded, nearest, printable

Decision = Literal["accept", "decline", "cancel"]
Confirm = Callable[[str], Awaitable[Decision]]
"""Shows a person what is to be sent and returns what they say. Raises `Refused` where nobody can be asked."""

MINUTE = 60.0
SERVER_FACTOR = 10
"""Ours: how many times the rate of one session all of them may send together, where nothing else is set."""

MOST_SESSIONS = 10_000
"""Ours, a few MB: whoever was away longest is forgotten first."""

SHOWN, SHOWN_CHARACTERS, SHOWN_KINDS = 5, 200, 20
"""Of a batch, how many messages a person is shown with their fields, how much of each field, and how many kinds are
counted."""

WHOLE = ("event", "groupId", "userId", "previousId", "anonymousId")
"""What is shown of each message in question and never cut: what is done, and to whom."""

MOST_LISTED, LONGEST_WHOLE, SHOWN_OF_TEXT = 50, 300, 60
"""Of how many messages a person can be shown those, of what length each, and how much of a text within a field."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a call comes from. Calls of one `session` count together; empty is the program itself."""

    session: str = ""
    client: str = ""
    request: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a tool is about to send."""

    tool: str
    messages: Sequence[AnyMessage]
    indexed: bool
    """Whether they are a batch, so that what is wrong is told by index."""
    session: str = ""
    source: str | None = None
    confirm: Confirm | None = None
    keys: tuple[str, ...] = field(default=(), repr=False)
    """The call's own."""


class Guard:
    """Holds the calls of one server to its settings' limits; `monotonic` is the clock of the rates."""

    def __init__(self, settings: Settings, monotonic: Callable[[], float]) -> None:
        self._settings, self._monotonic = settings, monotonic
        self._allowed = _Chosen(settings.allow_events, exact=True)
        self._denied, self._confirmed = _Chosen(settings.deny_events), _Chosen(settings.confirm)
        self._named = bool(settings.allow_events or settings.deny_events)
        self._counted = bool(settings.agent_rate or settings.server_rate or settings.loop_limit)
        together = settings.server_rate or (settings.agent_rate or 0) * SERVER_FACTOR
        self._server = _Window(together) if together else None
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def check(self, asked: Asked) -> None:
        """Count the messages, where they may be sent without asking a person.

        Raises:
            InvalidMessage: messages that are not allowed, by index, or one that repeats those before it.
            Refused: too many in a minute.
        """
        if self._named and (problems := self.forbidden(asked)):
            raise InvalidMessage(problems)
        if self._counted:
            found = self._checked(asked)
            if not self.asks(asked):
                self._count(asked, *found)

    async def agree(self, asked: Asked) -> bool:
        """Whether a person had to be asked of what was checked; they agreed, and the messages are counted.

        Raises:
            InvalidMessage, Refused: as `check`, or they have not agreed.
        """
        if not self.asks(asked):
            return False
        await agreed(self._question(asked), asked.confirm)
        if self._counted:
            self._count(asked, *self._checked(asked))
        return True

    async def admit_action(self, tool: str, text: str, confirm: Confirm | None) -> None:
        """Return once an action that sends no message of its own may be done.

        Raises:
            Refused: a person must agree and has not.
        """
        if self._confirmed.has_tool(tool) and not self._settings.dry_run:
            await agreed(text, confirm)

    def forbidden(self, asked: Asked) -> list[Problem]:
        """What is not allowed to be sent from here."""
        found = ((index, self._wrong(message)) for index, message in enumerate(asked.messages))
        return [
            Problem("not_allowed", text, hint, "event" if isinstance(asked.messages[index], Track) else "type", at)
            for index, wrong in found
            if wrong
            for (text, hint), at in [(wrong, index if asked.indexed else None)]
        ]

    def asks(self, asked: Asked) -> bool:
        """Whether a person must agree before these are sent."""
        return bool(self._confirmed) and not self._settings.dry_run and bool(self._to_confirm(asked))

    def allows(self, event: str) -> bool:
        """Whether a track call of this event may be sent, as far as its name goes."""
        return not self._named or self._wrong(Track(event=event)) is None

    def _wrong(self, message: AnyMessage) -> tuple[str, str] | None:
        what = _named(message)
        if self._denied.has(message):
            return f"{what} is not to be sent from here (SEGMENT_DENY_EVENTS).", "Do not send it under another name."
        if not self._settings.allow_events or self._allowed.has(message):
            return None
        near = nearest(str(message.event), self._allowed.names) if isinstance(message, Track) else None
        listed = ", ".join(str(each) for each in self._settings.allow_events[:SHOWN])
        more = ", …" if len(self._settings.allow_events) > SHOWN else ""
        hint = f"Did you mean {near!r}?" if near else f"Allowed are {listed}{more}."
        return f"{what} is not among what may be sent from here (SEGMENT_ALLOW_EVENTS).", hint

    def _to_confirm(self, asked: Asked) -> list[int]:
        """The places of the messages that a person must agree to."""
        if self._confirmed.has_tool(asked.tool):
            return list(range(len(asked.messages)))
        return [index for index, message in enumerate(asked.messages) if self._confirmed.has(message)]

    def _question(self, asked: Asked) -> str:
        return _question(asked, self._showable(asked), (*self._settings.secrets, *asked.keys))

    def _showable(self, asked: Asked) -> list[int]:
        """The places of the messages that a person must agree to, those that cannot be undone first.

        Raises:
            Refused: they cannot be shown whom each is about.
        """
        chosen = [index for index, message in enumerate(asked.messages) if self._confirmed.has(message)]
        found = self._to_confirm(asked)
        listed = sorted(found, key=lambda index: (index not in chosen, asked.messages[index].type != "alias"))
        final = {index for index in found if asked.messages[index].type == "alias"}
        if len(final.union(chosen)) > MOST_LISTED:
            raise unavailable(f"can be shown {MOST_LISTED} such messages at most in one call")
        for index in listed[:MOST_LISTED]:
            fields = asked.messages[index].as_dict()
            if long := next((name for name in WHOLE if len(str(fields.get(name, ""))) > LONGEST_WHOLE), None):
                raise unavailable(f"{long} is too long to be shown, over {LONGEST_WHOLE} characters")
        return listed

    def _checked(self, asked: Asked) -> "tuple[_Session, tuple[_Run, ...], _Run]":
        session = self._session(asked.session)
        limit = self._settings.loop_limit
        runs, whole = _after(session, asked.messages, limit) if limit else (_NO_RUNS, _NONE)
        self._check_rate(session, len(asked.messages))
        return session, runs, whole

    def _check_rate(self, session: "_Session", count: int) -> None:
        for window, whose in ((session.window, "one session"), (self._server, "all sessions")):
            if window and (wait := window.wait(count, self._monotonic())):
                raise _too_many(count, window.most, whose, wait)

    def _count(self, asked: Asked, session: "_Session", runs: "tuple[_Run, ...]", whole: "_Run") -> None:
        session.runs, session.whole = runs, whole
        for window in (session.window, self._server):
            if window:
                window.take(len(asked.messages), self._monotonic())

    def _session(self, name: str) -> "_Session":
        if name not in self._sessions:
            rate = self._settings.agent_rate
            self._sessions[name] = _Session(_Window(rate) if rate else None)
            if len(self._sessions) > MOST_SESSIONS:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(name)
        return self._sessions[name]


async def agreed(question: str, confirm: Confirm | None) -> None:
    """Return once a person has agreed.

    Raises:
        Refused: they have not, or nobody can be asked.
    """
    if confirm is None:
        raise unavailable("this program has no way to ask")
    decision = await confirm(question)
    if decision != "accept":
        text = "declined" if decision == "decline" else "did not answer"
        hint = "Do not call again for the same; ask the user what to do instead."
        raise Refused("declined_by_user", f"The user {text}: nothing was sent.", hint=hint)


def unavailable(reason: str) -> Refused:
    """Why nobody can be asked, as a call is refused for it."""
    text = f"A person must agree to this call (SEGMENT_CONFIRM), and {reason}."
    return Refused("confirmation_unavailable", text, hint="Tell the user; no argument can stand for their consent.")


def _too_many(count: int, most: int, whose: str, wait: float) -> Refused:
    text = f"Over {most:,} messages a minute for {whose}. Nothing was sent."
    if math.isinf(wait):
        text = f"{count:,} messages in one call; {most:,} a minute may be sent for {whose}. Nothing was sent."
        return Refused("agent_rate_limited", text, hint=f"Send at most {most:,} messages a call, over some minutes.")
    seconds = math.ceil(wait * 1000) / 1000
    return Refused(
        "agent_rate_limited", text, hint=f"Try again in {math.ceil(wait)} seconds.", retry_after_seconds=seconds
    )


class _Window:
    """How many messages went in the last minute, and when so many more may go."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken: deque[tuple[float, int]] = deque()
        self._total = 0

    def wait(self, count: int, now: float) -> float:
        """Seconds until so many fit; infinite for what never does."""
        if count > self.most:
            return math.inf
        while self._taken and self._taken[0][0] <= now - MINUTE:
            self._total -= self._taken.popleft()[1]
        over = self._total + count - self.most
        for at, each in self._taken:
            if over <= 0:
                break
            over -= each
            if over <= 0:
                return at + MINUTE - now
        return 0.0

    def take(self, count: int, now: float) -> None:
        """Count so many as sent now."""
        self._taken.append((now, count))
        self._total += count


class _Run(NamedTuple):
    """The same messages in turn, over and over: how many they are, the last of them, and under which messageIds."""

    period: int
    last: tuple[bytes, ...] = ()
    repeats: int = 0
    ids: frozenset[str] = frozenset()

    @property
    def length(self) -> int:
        """How often all of them came."""
        return 1 + self.repeats // self.period

    def then(self, digest: bytes, message_id: str | None) -> "_Run":
        """With the next; one that was there under the same messageId is a retry, and does not count."""
        added = frozenset([message_id] if message_id else [])
        last = (*self.last, digest)[-self.period :]
        if len(self.last) < self.period or digest != self.last[0]:
            return _Run(self.period, last, 0, added)
        return self if added & self.ids else _Run(self.period, last, self.repeats + 1, self.ids | added)


PERIODS = (1, 2, 3)
"""Ours: how many messages may come in turn for it to be seen as a loop."""

_NONE, _NO_RUNS = _Run(1), tuple(_Run(period) for period in PERIODS)


@dataclass(slots=True)
class _Session:
    window: _Window | None
    runs: tuple[_Run, ...] = _NO_RUNS
    whole: _Run = _NONE
    """The same batch, call after call."""


def _after(session: _Session, messages: Sequence[AnyMessage], limit: int) -> tuple[tuple[_Run, ...], _Run]:
    """The session's runs with these messages.

    Raises:
        InvalidMessage: a run is longer than it may be.
    """
    digests = [_digest(message) for message in messages]
    runs: tuple[_Run, ...] = session.runs
    for index, message in enumerate(messages):
        if _is_history(messages, digests, index):
            continue
        runs = tuple(run.then(digests[index], message.message_id) for run in runs)
        if long := next((run for run in runs if run.length > limit), None):
            what = "message" if long.period == 1 else f"{long.period} messages"
            raise InvalidMessage([_loop(what, limit, index if len(messages) > 1 else None)])
    if len(messages) == 1:
        return runs, _NONE
    names = [message.message_id for message in messages]
    whole = session.whole.then(b"".join(digests), "\0".join(filter(None, names)) if all(names) else None)
    if whole.length > limit:
        raise InvalidMessage([_loop("batch", limit, None)])
    return runs, whole


def _is_history(messages: Sequence[AnyMessage], digests: Sequence[bytes], index: int) -> bool:
    """Whether the same stands shortly before in the call: what happened at different times is a history and no loop."""
    if messages[index].timestamp is None:
        return False
    before = [index - period for period in PERIODS if index >= period]
    same = [at for at in before if digests[at] == digests[index]]
    return bool(same) and all(messages[at].timestamp != messages[index].timestamp for at in same)


def _loop(what: str, limit: int, index: int | None) -> Problem:
    often = "once" if limit == 1 else f"{limit} times"
    came = f"came in turn more than {often}" if what.endswith("s") else f"came more than {often} in a row"
    text = f"The same {what} {came} (SEGMENT_LOOP_LIMIT). Nothing was sent."
    hint = (
        "Stop repeating the call and look at the earlier answers. To retry one that failed, pass its messageId; if the "
        "same really happened again, say in the message what is different, or send the history as one segment_batch, "
        "each message with its timestamp."
    )
    return Problem("repeated_message", text, hint, None, index)


def _digest(message: AnyMessage) -> bytes:
    """What messages of the same content have in common, however it is written."""
    content = {key: value for key, value in message.as_dict().items() if key not in ("messageId", "timestamp")}
    return hashlib.blake2b(to_json(_canonical(content)), digest_size=16).digest()


def _canonical(value: Any) -> Any:
    """The value with its fields in order, without empty objects and spare spaces, and whole numbers as such."""
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, dict):
        fields = sorted(cast("dict[str, Any]", value).items())
        return {
            name: " ".join(below.split()) if type(below) is str else _canonical(below)
            for name, below in fields
            if below != {}
        }
    if isinstance(value, list | tuple):
        return [_canonical(below) for below in cast("Sequence[Any]", value)]
    return int(value) if isinstance(value, float) and value.is_integer() else value


class _Chosen:
    """The messages that a setting picks out: by type, or a track by its event; and the tools.

    Unless exact, an event counts as it is read: in any case, and whatever it has between its words.
    """

    def __init__(self, selectors: Sequence[Selector], *, exact: bool = False) -> None:
        events = [each.name for each in selectors if each.kind == EVENT]
        self._exact = exact
        self._types = _pattern([each.name for each in selectors if each.kind == TYPE])
        self._events = _pattern(events if exact else list(map(latin, events)), exact=exact)
        self._tools = frozenset(each.name for each in selectors if each.kind == TOOL)
        self._any = bool(selectors)
        self.names = tuple(name for name in events if not set(name) & set("*?"))
        self._spelt = frozenset(folded(latin(name)) for name in self.names) - {""}

    def __bool__(self) -> bool:
        return self._any

    def has(self, message: AnyMessage) -> bool:
        """Whether the message is one of them."""
        if self._types and self._types.fullmatch(message.type):
            return True
        if self._events is None or not isinstance(message, Track):
            return False
        event = str(message.event)
        if self._exact:
            return self._events.fullmatch(event) is not None
        read = latin(event)
        spellings = (" ".join(read.split()), _words(read))
        return folded(read) in self._spelt or any(map(self._events.fullmatch, spellings))

    def has_tool(self, name: str) -> bool:
        """Whether the tool is, whatever it sends."""
        return name.removeprefix("segment_") in self._tools


def _words(event: str) -> str:
    """The event's words alone: `order_completed` and `OrderCompleted` are two."""
    return " ".join(re.sub(r"[\W_]+", " ", re.sub("(?<=[a-z0-9])(?=[A-Z])", " ", event)).split())


def _pattern(names: Sequence[str], *, exact: bool = False) -> re.Pattern[str] | None:
    """Names in which `*` stands for any text and `?` for a character; brackets, unlike in `fnmatch`, for themselves."""
    if not names:
        return None
    forms = (any_between([re.escape(part).replace(r"\?", ".") for part in name.split("*")]) for name in names)
    return re.compile("|".join(forms), re.DOTALL if exact else re.DOTALL | re.IGNORECASE)


def _named(message: AnyMessage) -> str:
    return (
        f"The event {printable(str(message.event))!r}" if isinstance(message, Track) else f"The type {message.type!r}"
    )


def _question(asked: Asked, shown: Sequence[int], secrets: Sequence[str]) -> str:
    """What a person is asked: what would be sent and where to, in few lines, first what the question is about."""
    counts = Counter(message.type for message in asked.messages)
    where = f", source {printable(asked.source)}" if asked.source else ""
    number = len(asked.messages)
    first = "Send this message" if number == 1 else f"Send these {number:,} messages"
    lines = [f"{first} to Segment{where}?"]
    if number > 1:
        lines.append(_counted(asked, secrets))
    lines += [_line(asked, index, secrets, whole=place < SHOWN) for place, index in enumerate(shown[:MOST_LISTED])]
    if number > len(shown[:MOST_LISTED]):
        lines.append(f"and {number - len(shown[:MOST_LISTED]):,} more that are not shown")
    if "alias" in counts:
        lines.append("An alias cannot be undone.")
    return "\n".join(lines)


def _counted(asked: Asked, secrets: Sequence[str]) -> str:
    """How many messages of which kinds and events, and of how many people."""
    kinds = Counter(f"track {each.event}" if isinstance(each, Track) else each.type for each in asked.messages)
    people = len({(each.user_id, each.anonymous_id) for each in asked.messages})
    shown = kinds.most_common(SHOWN_KINDS)
    named = [f"{count:,} {printable(hidden(kind, secrets))}" for kind, count in shown]
    more = [f"{len(kinds) - SHOWN_KINDS:,} kinds more"] if len(kinds) > SHOWN_KINDS else []
    return f"{', '.join([*named, *more])}; of {people:,} {'person' if people == 1 else 'people'}"


def _line(asked: Asked, index: int, secrets: Sequence[str], *, whole: bool) -> str:
    """One message: all of its fields, each as far as there is room, or only what is never cut."""
    message = asked.messages[index]
    fields = {key: value for key, value in message.as_dict().items() if key in WHOLE or (whole and key != "type")}
    told = ", ".join(f"{key} {_told(key, hidden_in(value, secrets))}" for key, value in fields.items())
    place = f"[{index}] " if asked.indexed else ""
    return f"{place}{message.type}: {told}"


def _told(field: str, value: Any) -> str:
    """The field's value; no character of it may pretend to be another line."""
    told = to_json(value if field in WHOLE else _shortened(value)).decode()
    text = "".join(char if char.isprintable() else "?" for char in told)
    if field in WHOLE or (left := len(text) - SHOWN_CHARACTERS) <= 0:
        return text
    return f"{text[:SHOWN_CHARACTERS]} … ({left:,} characters more)"


def _shortened(value: Any) -> Any:
    """The value with its long texts cut, so that none pushes what comes after it out of sight."""
    if isinstance(value, str):
        left = len(value) - SHOWN_OF_TEXT
        return value if left <= 0 else f"{value[:SHOWN_OF_TEXT]} … ({left:,} characters more)"
    if isinstance(value, dict):
        return {_shortened(name): _shortened(below) for name, below in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_shortened(below) for below in cast("Sequence[Any]", value)]
    return value

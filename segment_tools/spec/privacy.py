"""What an operator's rules make of somebody's data: fields dropped, masked or hashed by their names; and consent."""

import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar, cast

from segment_tools.errors import Problem
from segment_tools.spec.globs import any_between
from segment_tools.spec.integrations import DESTINATIONS
from segment_tools.spec.lookalikes import plain
from segment_tools.spec.messages import AnyMessage
from segment_tools.spec.values import KeyTwice, unique

Action = Literal["drop", "mask", "hash"]
MASK = "[redacted]"

_STRICTEST_FIRST: tuple[Action, ...] = ("drop", "mask", "hash")

_M = TypeVar("_M", bound=AnyMessage)
_Path = tuple[str, ...]
_OBJECTS = ("properties", "traits")
_IDS = {"user_id": "userid", "anonymous_id": "anonymousid", "previous_id": "previousid", "group_id": "groupid"}

_AS_GIVEN = ("categoryPreferences", "version")
"""What a user agreed to: Segment drops a message in which it has another form, so that nothing else can be in it."""

_PAIRS = {"type": "id", "key": "value", "name": "value"}
"""Where one field is the name of what is in another: external ids, properties and forms."""

_MOST_PATHS, _LONGEST_KNOWN = 4096, 100
"""Ours: for how many fields what is to be done with them is known by heart, some 1 MB, and of what length of name."""

_STRUCTURED = re.compile(r"""[{\["']""")
_ESCAPED = re.compile(r"(?<!\\)\\+u([0-9A-Fa-f]{4})")
_QUOTED = re.compile(r"""["']([^"'\\]++)""")
_QUOTED_NAME = re.compile(r"""["']([^"'\\]++)\\*+["']++\s*+[:=]""")
_BARE_NAME = re.compile(r"(?<![\w .$@-])([\w .$@-]++)\s*+[:=]")
_LIST = re.compile(r"""\[\s*+\\?["'\[]""")
"""What may be a field's name in JSON that is cut off, in lines of it, and in what only resembles it. Nothing is read
twice: a long text of any kind takes no longer than one of names."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """What to do with a field whose path ends in names like these."""

    names: tuple[re.Pattern[str], ...]
    action: Action

    def fits(self, path: _Path, end: int) -> bool:
        """Whether what comes before this place of the path ends like the names."""
        start = end - len(self.names)
        return start >= 0 and all(name.fullmatch(part) for name, part in zip(self.names, path[start:end], strict=True))


class Redaction:
    """Rules of names and patterns to actions, compiled; of several that fit a field the strictest counts.

    A rule is a name, or names with dots between them, in any case: it fits fields at any depth of properties, traits,
    context and destinations' options, in objects written as JSON text too. `*` stands for any part of a name. The ids
    of a message are hashed where a rule is their very name. An equal value has an equal hash wherever it stands.
    """

    def __init__(self, rules: Mapping[str, Action], key: str = "") -> None:
        self._key = key.encode()
        hashed = {name.strip().lower() for name, action in rules.items() if action == "hash"}
        self._ids = tuple(name for name, rule in _IDS.items() if rule in hashed)
        self._rules = tuple(_compiled(rules))
        self._action = lru_cache(_MOST_PATHS)(self._decided)

    def of(self, message: _M) -> _M:
        """The message as the rules let it go."""
        if not self._rules:
            return message
        ids = {name: self._hashed(found) for name in self._ids if (found := getattr(message, name, None)) is not None}
        objects = {name: self._fields(found, (name,)) for name in _OBJECTS if (found := getattr(message, name, None))}
        if message.context:
            objects["context"] = self._context(message.context)
        if message.integrations:
            objects["integrations"] = self._destinations(message.integrations)
        return message.model_copy(update={**ids, **objects})

    def _context(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """The context, in which no rule is about consent itself."""
        done = self._fields(context, ("context",))
        if not isinstance(consent := context.get("consent"), dict):
            return done
        fields = cast("dict[str, Any]", consent)
        kept = {name: fields[name] for name in _AS_GIVEN if name in fields}
        return {**done, "consent": {**self._fields(fields, ("context", "consent")), **kept}}

    def _destinations(self, integrations: Mapping[str, Any]) -> dict[str, Any]:
        """The destinations: their names and switches stay, which say where to and not what."""
        done: dict[str, Any] = {}
        for name, value in integrations.items():
            below = ("integrations", *_parts(name))
            known = 1
            if isinstance(value, dict):
                known = len(below) if name in DESTINATIONS else 2
            action = None if isinstance(value, bool) else self._action(below, known)
            self._put(done, name, value, below, action)
        return done

    def _fields(self, fields: Mapping[str, Any], path: _Path) -> dict[str, Any]:
        parts = {name: _parts(name) for name in fields}
        pairs = self._pairs(fields, parts, path)
        done: dict[str, Any] = {}
        for name, value in fields.items():
            below = (*path, *parts[name])
            action = self._for(name, below, len(path))
            if pairs:
                action = _stricter(action, pairs.get(name))
            self._put(done, name, value, below, action)
        return done

    def _put(self, done: dict[str, Any], name: str, value: Any, below: _Path, action: Action | None) -> None:
        if action is None:
            done[name] = self._value(value, below)
        elif action != "drop":
            done[name] = self._acted(value, action)

    def _for(self, name: str, below: _Path, known: int) -> Action | None:
        """What to do with the field of this name, at this path."""
        return (self._action if len(name) <= _LONGEST_KNOWN else self._decided)(below, known)

    def _pairs(self, fields: Mapping[str, Any], parts: Mapping[str, _Path], path: _Path) -> dict[str, Action]:
        """What to do with fields whose name is what another field says."""
        found: dict[str, Action] = {}
        for named, content in ((name, _PAIRS[own[-1]]) for name, own in parts.items() if own[-1] in _PAIRS):
            if isinstance(said := fields[named], str) and (
                action := self._for(said, (*path, *_parts(said)), len(path))
            ):
                held = [name for name, own in parts.items() if own[-1] == content]
                found |= {name: _stricter(action, found.get(name)) or action for name in held}
        return found

    def _value(self, value: Any, path: _Path) -> Any:
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, dict):
            return self._fields(cast("dict[str, Any]", value), path)
        if isinstance(value, list | tuple):
            listed = cast("Sequence[Any]", value)
            if listed and all(map(_is_entry, listed)):
                return list(self._entries(listed, path))
            return [self._value(each, path) for each in listed if not self._is_dropped(each, path)]
        return value

    def _entries(self, entries: Sequence[Sequence[Any]], path: _Path) -> Iterator[list[Any]]:
        """An object's fields as a list of names with their values."""
        for name, value in entries:
            below = (*path, *_parts(name))
            action = self._for(name, below, len(path))
            if action != "drop":
                yield [name, self._acted(value, action) if action else self._value(value, below)]

    def _is_dropped(self, value: Any, path: _Path) -> bool:
        """Whether it is a pair without its content, which nobody can read."""
        if not isinstance(value, dict):
            return False
        fields = cast("dict[str, Any]", value)
        return "drop" in self._pairs(fields, {name: _parts(name) for name in fields}, path).values()

    def _text(self, text: str, path: _Path) -> str:
        """The text; JSON in it by the rules, and masked whole where it names what they are about and is not JSON."""
        if not _STRUCTURED.search(text):
            return text
        if "{" in text or "[" in text:
            try:
                found: Any = json.loads(text, object_pairs_hook=unique)
                done = self._value(found, path)
                return text if done == found else json.dumps(done)
            except (ValueError, RecursionError, KeyTwice):
                pass
        return MASK if any(map(self._is_about, _names(text))) else text

    def _is_about(self, name: str) -> bool:
        """Whether any rule ends in such a name."""
        return any(rule.names[-1].fullmatch(each) for rule in self._rules for each in _parts(name.strip()))

    def _decided(self, path: _Path, known: int) -> Action | None:
        """What to do with the field, or with one that its name, having dots in it, stands below."""
        ends = range(known + 1, len(path) + 1)
        return next((rule.action for end in ends for rule in self._rules if rule.fits(path, end)), None)

    def _acted(self, value: Any, action: Action) -> Any:
        """The value masked or hashed; null, which removes a trait, and empty text tell nothing and stay."""
        if value is None or value == "":
            return value
        return MASK if action == "mask" else self._hashed(value)

    def _hashed(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self._acted(each, "hash") for each in cast("Sequence[Any]", value)]
        text = _plain(value).encode(errors="surrogatepass")
        return hmac.digest(self._key, text, "sha256").hex()


def has_consent(fields: Mapping[str, Any]) -> bool:
    """Whether the message tells what its user agreed to; an empty map says no to everything.

    Source: https://segment.com/docs/privacy/consent-management/consent-in-segment-connections/.
    """
    context: Mapping[str, Any] = fields.get("context") or {}
    consent = context.get("consent")
    return isinstance(consent, dict) and "categoryPreferences" in consent


def no_consent() -> Problem:
    """The problem of a message that does not tell it."""
    text = "context.consent.categoryPreferences is required here."
    hint = (
        'Pass what the user chose, not a guess: context {"consent": {"categoryPreferences": {"Advertising": false, '
        '"Analytics": true}}}, with your own categories; {} says no to all.'
    )
    return Problem("missing_field", text, hint, "context.consent.categoryPreferences")


def _stricter(*actions: Action | None) -> Action | None:
    return next((each for each in _STRICTEST_FIRST if each in actions), None)


def _compiled(rules: Mapping[str, Action]) -> Iterator[_Rule]:
    """The rules, the strictest first; those of one name and one action are one."""
    for action in _STRICTEST_FIRST:
        patterns = [_parts(name.strip()) for name, done in rules.items() if done == action]
        if single := [_pattern(names[0]) for names in patterns if len(names) == 1]:
            yield _Rule((re.compile("|".join(single), re.DOTALL),), action)
        for names in patterns:
            if len(names) > 1:
                yield _Rule(tuple(re.compile(_pattern(name), re.DOTALL) for name in names), action)


def _pattern(name: str) -> str:
    return any_between([re.escape(part) for part in name.split("*")])


def _parts(name: str) -> _Path:
    """A name as it is read, in lower case, as names that follow each other: destinations flatten objects so."""
    return _known_parts(name) if len(name) <= _LONGEST_KNOWN else _split(name)


def _split(name: str) -> _Path:
    return tuple(part.strip() for part in plain(name).lower().split("."))


_known_parts = lru_cache(_MOST_PATHS)(_split)


def _is_entry(value: object) -> bool:
    """Whether it is a name and a value."""
    if not isinstance(value, list | tuple):
        return False
    parts = cast("Sequence[object]", value)
    return len(parts) == len(("name", "value")) and isinstance(parts[0], str)


def _names(text: str) -> Iterator[str]:
    """What may be the name of a field in text that is no JSON; prose has none."""
    read = plain(_ESCAPED.sub(lambda found: chr(int(found.group(1), 16)), text))
    if "{" not in read and not _LIST.search(read):
        yield from _QUOTED_NAME.findall(read)
        return
    yield from _QUOTED.findall(read)
    for name in _BARE_NAME.findall(read) if "{" in read else ():
        yield from (name, *name.split()[-1:])


def _plain(value: Any) -> str:
    """The text that is hashed: numbers as ids are written, so that 42 and "42" are one."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"))

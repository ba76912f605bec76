"""What an operator's rules make of somebody's data: fields dropped, masked or hashed by their names; and consent."""

import hmac
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeVar, cast

from segment_tools.errors import Problem
from segment_tools.spec.messages import AnyMessage
from segment_tools.spec.values import KeyTwice, unique

Action = Literal["drop", "mask", "hash"]
MASK = "[redacted]"

_STRICTEST_FIRST: tuple[Action, ...] = ("drop", "mask", "hash")

_M = TypeVar("_M", bound=AnyMessage)
_Path = tuple[str, ...]
_OBJECTS = ("properties", "traits", "context", "integrations")
_IDS = {"user_id": "userid", "anonymous_id": "anonymousid", "previous_id": "previousid", "group_id": "groupid"}

_AS_GIVEN = {("context", "consent", "categorypreferences"), ("context", "consent", "version")}
"""What a user agreed to: Segment drops a message in which it has another form."""

_UNTOUCHED = {*_AS_GIVEN, ("context", "consent")}
"""What no rule is about; nor is one about a destination's name, which says where to and not what."""

_PAIRS = (("type", "id"), ("key", "value"), ("name", "value"))
"""Where one field is the name of what is in another: external ids, properties and forms."""

_MOST_PATHS = 4096
"""Ours: for how many fields what is to be done with them is known by heart, some 1 MB."""

_NAMED = re.compile(r"""([\w .$@-]{1,200})\\*["']*\s*:""")
"""A name and its colon, quoted or not: in JSON that is cut off, in lines of it, in what only resembles it."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """What to do with a field whose path ends in names like these."""

    names: tuple[re.Pattern[str], ...]
    action: Action

    def fits(self, path: _Path) -> bool:
        """Whether the path's end is like the names."""
        count = len(self.names)
        ends = zip(self.names, path[-count:], strict=False)
        return count <= len(path) and all(name.fullmatch(end) for name, end in ends)


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
        return message.model_copy(update={**ids, **objects})

    def _fields(self, fields: Mapping[str, Any], path: _Path) -> dict[str, Any]:
        pairs = self._pairs(fields, path)
        done: dict[str, Any] = {}
        for name, value in fields.items():
            below = (*path, *_parts(name))
            action = _stricter(self._action(below, len(path)), pairs.get(name))
            if action is None:
                done[name] = value if below in _AS_GIVEN else self._value(value, below)
            elif action != "drop":
                done[name] = self._acted(value, action)
        return done

    def _pairs(self, fields: Mapping[str, Any], path: _Path) -> dict[str, Action]:
        """What to do with fields whose name is what another field says."""
        found: dict[str, Action] = {}
        for named, content in _PAIRS:
            name = fields.get(named)
            if content in fields and isinstance(name, str):
                action = self._action((*path, *_parts(name)), len(path))
                if strictest := _stricter(action, found.get(content)):
                    found[content] = strictest
        return found

    def _value(self, value: Any, path: _Path) -> Any:
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, dict):
            return self._fields(cast("dict[str, Any]", value), path)
        if isinstance(value, list | tuple):
            listed = cast("Sequence[Any]", value)
            return [self._value(each, path) for each in listed if not self._is_dropped(each, path)]
        return value

    def _is_dropped(self, value: Any, path: _Path) -> bool:
        """Whether it is a pair without its content, which nobody can read."""
        return isinstance(value, dict) and "drop" in self._pairs(cast("dict[str, Any]", value), path).values()

    def _text(self, text: str, path: _Path) -> str:
        """The text; JSON in it by the rules, and masked whole where it names what they are about and is not JSON."""
        if "{" not in text:
            return text
        try:
            found: Any = json.loads(text, object_pairs_hook=unique)
            done = self._value(found, path)
            return text if done == found else json.dumps(done)
        except (ValueError, RecursionError, KeyTwice):
            return MASK if any(map(self._is_about, _NAMED.findall(text))) else text

    def _is_about(self, name: str) -> bool:
        """Whether any rule ends in such a name, or in its last word."""
        names = {*_parts(name.strip()), *_parts(name)[-1].split()[-1:]}
        return any(rule.names[-1].fullmatch(each) for rule in self._rules for each in names)

    def _decided(self, path: _Path, known: int) -> Action | None:
        """What to do with the field, or with one that its name, having dots in it, stands below."""
        if path in _UNTOUCHED or (path[0] == "integrations" and known == 1):
            return None
        ends = (path[:end] for end in range(known + 1, len(path) + 1))
        return next((rule.action for end in ends for rule in self._rules if rule.fits(end)), None)

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
    return ".*".join(map(re.escape, name.split("*")))


def _parts(name: str) -> _Path:
    """A name in lower case as names that follow each other: destinations flatten objects so."""
    return tuple(part.strip() for part in name.lower().split("."))


def _plain(value: Any) -> str:
    """The text that is hashed: numbers as ids are written, so that 42 and "42" are one."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"))

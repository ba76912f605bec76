"""How events are named: Object + past-tense verb in Title Case, or as Segment's own spec spells them.

Source: https://segment.com/docs/connections/spec/best-practices-event/. A name is remarked on only where the better
one can be told; names in other scripts, of one word or of another system (`$pageview`) are left alone.
"""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import cache, lru_cache

from segment_tools.spec.event_words import stem
from segment_tools.spec.names import folded
from segment_tools.spec.semantic_events import by_spelling, semantic_events


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_PAST = {
    "add": "Added",
    "cancel": "Cancelled",
    "click": "Clicked",
    "close": "Closed",
    "complete": "Completed",
    "create": "Created",
    "delete": "Deleted",
    "download": "Downloaded",
    "install": "Installed",
    "open": "Opened",
    "receive": "Received",
    "remove": "Removed",
    "select": "Selected",
    "send": "Sent",
    "start": "Started",
    "submit": "Submitted",
    "tap": "Tapped",
    "upload": "Uploaded",
    "view": "Viewed",
}
"""Verbs that stand in their bare form where the past tense is meant."""

_FIRST = frozenset(past.lower() for past in _PAST.values()) | {
    "abandoned",
    "purchased",
    "searched",
    "visited",
    "watched",
}
"""Past tenses that tell what was done even before their object; others say which object it is: `Paid Plan`."""

_IRREGULAR = _set(
    "bought built caught chosen drawn fell found given got held hit kept left lent lost made met paid put ran read run "
    "seen sent set shown sold spent split taken taught won written"
)
_NO_PAST = _set("advanced bed embed embedded exceed feed limited need newsfeed red seed speed united")
_WHO = _set("user customer")
_PLAIN = _set("purchase login logout signup registration")
"""Single words that can mean but one of Segment's events."""
_SMALL = _set("a an and as at by for from in of on or out the to up via with")

MOST_CHARACTERS = 100
"""Ours: longer names are nobody's convention, and would only fill memory."""

_JOINED = re.compile(r"[A-Za-z][A-Za-z0-9]*([_.:][A-Za-z0-9]+)+")
_CAMEL = re.compile(r"[a-z]{2,}([A-Z][a-z0-9]+)+|([A-Z]+[a-z0-9]+){2,}")
_PAIR = 2
_LONG, _TYPO = 6, 0.85
"""A word of at least so many letters may be mistyped, and how like the right one `difflib` finds it then."""
_SPACED = re.compile(r"[A-Za-z][A-Za-z0-9]*( [A-Za-z0-9]+)+")


def better_name(event: str) -> tuple[str, str] | None:
    """A warning's code and the name to use instead; None where the name is fine, or its mend cannot be told."""
    return _better(event) if len(event) <= MOST_CHARACTERS else None


@lru_cache(maxsize=4096)
def _better(event: str) -> tuple[str, str] | None:
    if event in semantic_events():
        return None
    if meant := by_spelling().get(folded(event)) or _by_stems().get(_stems(event)):
        return "semantic_event_spelling", meant
    mended = _mended(event)
    if mended and mended != event:
        return "event_name_form", mended
    return ("semantic_event_spelling", slip) if (slip := _slip(event)) else None


def _slip(event: str) -> str | None:
    """Segment's event in whose name one long word is mistyped, such as `Order Compelted`."""
    given = event.lower().split()
    return next((name for name, words in _names().get(len(given), ()) if _is_slip(given, words)), None)


@cache
def _names() -> Mapping[int, Sequence[tuple[str, Sequence[str]]]]:
    """Segment's events, each with its words, by how many those are."""
    found: dict[int, list[tuple[str, Sequence[str]]]] = {}
    for name in semantic_events():
        words = name.lower().split()
        found.setdefault(len(words), []).append((name, words))
    return found


def _is_slip(given: Sequence[str], words: Sequence[str]) -> bool:
    other = [(typed, word) for typed, word in zip(given, words, strict=True) if typed != word]
    if len(given) < _PAIR or len(other) != 1:
        return False
    typed, word = other[0]
    return (
        min(len(typed), len(word)) >= _LONG and typed[0] == word[0] and bool(get_close_matches(typed, [word], 1, _TYPO))
    )


@cache
def _by_stems() -> Mapping[tuple[str, ...], str]:
    """Segment's events by the stems of their names, in any order (`Complete Order`) or as one word (`signup`)."""
    found: dict[tuple[str, ...], str] = {}
    for name, event in reversed(list(semantic_events().items())):
        # `Add to Cart`, as people say it; not `Loaded`, which could be of anything.
        found |= {stems: name for said in event.said if len(stems := _stems(said)) >= _PAIR or said in _PLAIN}
    for name in reversed(list(semantic_events())):
        found[("".join(stem(part.lower()) for part in _parts(name)),)] = name
        found[_stems(name)] = name
    return found


def _stems(name: str) -> tuple[str, ...]:
    """Of its words, but for small ones, and for who does it where the name is not well-formed anyway."""
    parts = _parts(name)
    idle = _SMALL if all(map(str.istitle, parts)) else _SMALL | _WHO
    low = [part.lower() for part in parts]
    return tuple(sorted(stem(each) for each in low if each not in idle) or low)


def _parts(name: str) -> list[str]:
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|\d+", name)


def _mended(event: str) -> str | None:
    joined = _JOINED.fullmatch(event) or _CAMEL.fullmatch(event)
    if not (joined or _SPACED.fullmatch(event)):
        return None
    parts = _parts(event) if joined else event.split(" ")
    low = [part.lower() for part in parts]
    if ordered := _ordered(parts, low):
        return _titled(ordered)
    past_later = any(map(_is_past, low[1:]))
    plain = event.islower() or event.isupper() or (len(parts) == _PAIR and parts[-1].islower())
    return _titled(parts) if past_later and (joined or (plain and _is_past(low[-1]))) else None


def _ordered(parts: Sequence[str], low: Sequence[str]) -> list[str] | None:
    """The words with the verb last and in the past tense, where it is not; None where it is, or none is found."""
    if any(map(_is_past, low[1:])) or _SMALL & set(low):
        return None
    if low[-1] in _PAST:
        return [*parts[:-1], _PAST[low[-1]]]
    if low[0] in _PAST:
        return [*parts[1:], _PAST[low[0]]]
    return [*parts[1:], parts[0]] if low[0] in _FIRST else None


def _is_past(word: str) -> bool:
    return word in _IRREGULAR or (len(word) >= len("used") and word.endswith("ed") and word not in _NO_PAST)


def _titled(parts: Sequence[str]) -> str:
    shouted = all(part.isupper() or part.isdigit() for part in parts)
    ends = (0, len(parts) - 1)
    return " ".join(_cased(part, end=at in ends, shouted=shouted) for at, part in enumerate(parts))


def _cased(part: str, *, end: bool, shouted: bool) -> str:
    if part.lower() in _SMALL and not end:
        return part.lower()
    return part.capitalize() if shouted or part.islower() else part[:1].upper() + part[1:]

"""Which known event is meant by what somebody says: by words, by what they stand for, and by likeness."""

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from segment_tools.spec.event_words import (
    NOT,
    against,
    is_action,
    is_person,
    known_words,
    meanings,
    opposites,
    said_for,
    spellings,
    words,
)
from segment_tools.spec.known_events import PLAN, KnownEvent
from segment_tools.spec.names import folded
from segment_tools.spec.semantic_events import semantic_events

_STANDS_FOR, _LIKE, _ELSEWHERE, _IN_PROPERTIES = 0.85, 0.8, 0.5, 0.25
"""What a word counts that is not there itself: one of its meaning, one spelt alike, or it stands further away."""

_TITLE_SHARE = 0.5
"""How much it matters that nothing of a title is left unsaid."""

_ACTION, _PERSON, _UNKNOWN = 0.5, 0.2, 0.8
"""How much less a word says that many events have, what is done and who does it, and one that none has."""

_FITS, _BESIDE_PLAN = 0.42, 0.6
"""The least that an answer scores; and what an event of the plan scores at least, of the best, to come first."""

_SURE = 0.8
"""What an event scores at least for which another name was invented: measured with the tests' wrong calls."""

_LIKENESS, _LEAST_LETTERS, _MISTYPED = 0.78, 4, 8
"""What `difflib` calls a typo; shorter words have none, and of so many unknown ones at most it is looked for."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """An event as it is searched: its titles, each a set of stems, and the words of the rest."""

    event: KnownEvent
    titles: tuple[frozenset[str], ...]
    name: frozenset[str]
    denies: bool
    """Whether its name, or the plan's description, says that something did not come about."""
    around: frozenset[str]
    properties: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Index:
    entries: tuple[_Entry, ...]
    weights: Mapping[str, float]
    """How much a stem tells: the fewer events have it, the more."""


def find_events(
    query: str,
    planned: Sequence[KnownEvent] = (),
    most: int = 3,
    may: Callable[[KnownEvent], bool] = lambda _: True,
) -> tuple[KnownEvent, ...]:
    """The events that fit and may be sent, the best first, the plan's before the spec's; none where nothing fits."""
    index = _index(tuple(planned))
    scored = [(score, entry.event) for entry, score in _scored(query, index) if score >= _FITS and may(entry.event)]
    best = max((score for score, _ in scored), default=0.0)
    first = [each for each in scored if each[1].origin == PLAN and each[0] >= best * _BESIDE_PLAN]
    ranked = [*_ranked(first), *_ranked(each for each in scored if each not in first)]
    return tuple(event for _, event in ranked[:most])


def meant_event(name: str, planned: Sequence[KnownEvent]) -> str | None:
    """The plan's event for which a name of one's own says the same, as 'purchase' does for 'Order Completed'."""
    scored = ((score, entry.event.name) for entry, score in _scored(name, _index(tuple(planned))) if _in(entry))
    score, meant = max(scored, default=(0.0, ""), key=lambda each: each[0])
    return meant if score >= _SURE else None


def contrary(name: str, other: str) -> bool:
    """Whether two names of events say that different things were done, however much alike they are spelt."""
    one, two = words(name), words(other)
    if _denies(one) != _denies(two) or _is_opposite(one, frozenset(two)) or _is_prefixed(one, two):
        return True
    mine, theirs = set(one) - set(two), set(two) - set(one)
    if not mine or not theirs or any(_same(word, another) for word in mine for another in theirs):
        return False
    return mine | theirs <= known_words() | _index(()).weights.keys()  # else there may be a typo


def _denies(said: Iterable[str]) -> bool:
    return not against().isdisjoint(said)


def _is_opposite(asked: Iterable[str], name: frozenset[str]) -> bool:
    """Whether the opposite of what is said was done, and not that itself."""
    said = [meant for word in asked for meant in (word, *meanings(word))]
    return any(not opposites(word).isdisjoint(name) for word in said) and name.isdisjoint(said)


_PREFIXES = ("un", "in", "dis", "de", "non")


def _is_prefixed(one: Sequence[str], two: Sequence[str]) -> bool:
    """Whether a word of one is a word of the other with what makes it the opposite before it."""
    pairs = ((one, two), (two, one))
    return any(f"{prefix}{word}" in some for some, others in pairs for word in others for prefix in _PREFIXES)


def _same(word: str, other: str) -> bool:
    return not {word, *meanings(word)}.isdisjoint({other, *meanings(other)})


def _in(entry: _Entry) -> bool:
    return entry.event.origin == PLAN


def _ranked(scored: Iterable[tuple[float, KnownEvent]]) -> list[tuple[float, KnownEvent]]:
    return sorted(scored, key=lambda each: -each[0])


@lru_cache(maxsize=4)
def _index(planned: tuple[KnownEvent, ...]) -> _Index:
    """All events; one of the plan stands in the place of the spec's, and is found by what is said for that."""
    spec = semantic_events()
    by_name = {folded(name): event for name, event in spec.items()}
    own = {folded(event.name) for event in planned}
    entries = [_entry(event, by_name.get(folded(event.name))) for event in planned]
    entries += [_entry(event, event) for name, event in by_name.items() if name not in own]
    counts: dict[str, int] = {}
    for entry in entries:
        for word in frozenset[str]().union(*entry.titles):
            counts[word] = counts.get(word, 0) + 1
    return _Index(tuple(entries), {word: math.log(1 + len(entries) / n) for word, n in counts.items()})


def _entry(event: KnownEvent, spec: KnownEvent | None) -> _Entry:
    said = spec.said if spec else ()
    # The customer's own words for an event of theirs count as a title of it; Segment's pages have theirs in `said`.
    own = (event.description,) if event.origin == PLAN else ()
    titles = tuple(found for each in (event.name, *own, *said) if (found := frozenset(words(each))))
    around = frozenset(words(event.description)).union(*titles)
    denies = any(_denies(words(text)) for text in (event.name, *own))
    described = (text for each in event.properties for text in (each.name, each.description if own else ""))
    properties = frozenset(word for text in described for word in words(text))
    return _Entry(event, titles, frozenset(words(event.name)), denies, around, properties)


def _scored(query: str, index: _Index) -> Iterable[tuple[_Entry, float]]:
    said = list(dict.fromkeys(words(query)))
    asked = [word for word in said if word != NOT]
    known = set(index.weights)
    unknown = [word for word in asked if not _is_known(word, known)]
    options = {word: _meant(word, known) for word in asked} | {word: _like(word, known) for word in unknown[:_MISTYPED]}
    rarest = max(index.weights.values())
    weights = {word: _weight(word, options[word], index, rarest) for word in asked}
    total = sum(weights.values())
    wanted = frozenset[str]().union(*options.values())
    denied, deed = _denies(said), options.get(_deed(query), {})
    for entry in index.entries if total else ():
        sunk = (denied and not entry.denies) or _is_opposite(asked, entry.name) or _lacks(entry, deed, asked)
        fitting = () if sunk else (title for title in entry.titles if not wanted.isdisjoint(title))
        yield entry, max((_score(title, entry, options, weights, total, index) for title in fitting), default=0.0)


def _deed(query: str) -> str:
    """The stem of the last word where it is a past tense: of 'order shipped' it says what was done; else empty."""
    last = words(query.rsplit(maxsplit=1)[-1])[-1:] if query.rstrip().endswith("ed") else []
    return last[0] if last else ""


def _lacks(entry: _Entry, deed: Collection[str], asked: Iterable[str]) -> bool:
    """Whether nothing that is said of the event is what was done; its name may have it in another word's place."""
    if not deed or not entry.around.isdisjoint(deed):
        return False
    return not any(word in entry.name and is_action(word) for word in asked)


def _is_known(word: str, known: set[str]) -> bool:
    """Whether the word means a stem of the index as it stands, or is too short to be told from others."""
    return len(_meant(word, known)) > 1 or word in known or len(word) < _LEAST_LETTERS


def _like(word: str, known: set[str]) -> Mapping[str, float]:
    """The stems of the index that an unknown word may mean where it is a typo, and how surely."""
    # With something before it a word is another one, such as the opposite: subscribed, unsubscribed.
    others = (each for each in known | spellings().keys() if not each.endswith(word) and not word.endswith(each))
    like = difflib.get_close_matches(word, sorted(others), n=1, cutoff=_LIKENESS)
    return {meant: _LIKE * sure for each in like for meant, sure in _meant(spellings().get(each, each), known).items()}


def _meant(word: str, known: set[str]) -> dict[str, float]:
    found = {meant: _STANDS_FOR for meant in meanings(word) if meant in known}
    found |= {other: _STANDS_FOR for other in said_for(word) if other in known}
    return {**found, word: 1.0}


def _weight(word: str, options: Mapping[str, float], index: _Index, rarest: float) -> float:
    """An unknown word weighs nearly as much as a rare one: it may be what matters."""
    known = [index.weights[each] for each in options if each in index.weights]
    share = _PERSON if is_person(word) else _ACTION if is_action(word) else 1.0
    return (max(known) if known else rarest * _UNKNOWN) * share


def _score(
    title: frozenset[str],
    entry: _Entry,
    options: Mapping[str, Mapping[str, float]],
    weights: Mapping[str, float],
    total: float,
    index: _Index,
) -> float:
    """How much of the query the event has, and how much of its title the query has."""
    got, told, named = 0.0, set[str](), False
    for word, meant in options.items():
        in_title = max(((sure, each) for each, sure in meant.items() if each in title), default=None)
        if in_title:
            got += in_title[0] * weights[word]
            told.add(in_title[1])
            named = named or not is_action(word)
        else:
            # Who does it goes without saying.
            there = (
                1.0
                if is_person(word)
                else max((sure * _away(each, entry) for each, sure in meant.items()), default=0.0)
            )
            got += there * weights[word]
    if not told or not (named or told >= title):
        return 0.0
    whole = sum(index.weights[each] for each in title)
    share = sum(index.weights[each] for each in told) / whole
    return got / total * (1 - _TITLE_SHARE + _TITLE_SHARE * share)


def _away(word: str, entry: _Entry) -> float:
    if word in entry.around:
        return _ELSEWHERE
    return _IN_PROPERTIES if word in entry.properties else 0.0

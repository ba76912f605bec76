"""The words in which people speak of events: their stems, and which of them mean the same. Ours throughout.

The words are in `event_words.json`: `together` is one notion in several words; `same` what is said for a word of the
spec, where a word may stand for several; `light` words say nothing of which event is meant; `actions` alone do not
tell one, since many things are viewed or added. Words `against` say that something did not come about, and `opposite`
ones that another thing was done.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_ENDINGS = (("ing", 6), ("ed", 5), ("es", 5), ("s", 4))
"""What is cut off words of at least so many letters."""

_SHORT = 3


@dataclass(frozen=True, slots=True)
class _Words:
    together: tuple[tuple[re.Pattern[str], str], ...]
    irregular: dict[str, str]
    same: dict[str, str]
    light: frozenset[str]
    actions: tuple[str, ...]
    against: tuple[str, ...]
    opposite: dict[str, str]


@cache
def _read() -> _Words:
    found = json.loads(files("segment_tools.spec").joinpath("event_words.json").read_text(encoding="utf-8"))
    return _Words(
        together=tuple((re.compile(pattern), one) for pattern, one in found["together"].items()),
        irregular={form: word for word, forms in found["irregular"].items() for form in forms.split()},
        same=found["same"],
        light=frozenset(" ".join(found["light"]).split()),
        actions=tuple(" ".join(found["actions"]).split()),
        against=tuple(" ".join(found["against"]).split()),
        opposite=found["opposite"],
    )


def words(text: str) -> list[str]:
    """The stems of a text's words, in order, without those that say nothing."""
    known = _read()
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", text).replace("_", " ").lower()
    for pattern, one in known.together:
        spaced = pattern.sub(one, spaced)
    plain = (each.removesuffix("'s") for each in re.findall(r"[^\W_]+(?:'s)?", spaced))
    return [stem(each) for each in plain if each not in known.light]


def stem(word: str) -> str:
    """What the forms of an English word have in common, roughly."""
    word = _read().irregular.get(word, word)
    for ending, least in _ENDINGS:
        if len(word) >= least and word.endswith(ending) and not word.endswith("ss"):
            word = _cut(word, ending)
            break
    return word.removesuffix("e").replace("y", "i") if len(word) > _SHORT else word


def _cut(word: str, ending: str) -> str:
    if ending == "es" and not word.endswith(("ses", "xes", "zes", "ches", "shes")):
        return word[:-1]
    short = word[: -len(ending)]
    doubled = ending in ("ing", "ed") and short[-1:] == short[-2:-1] and short[-1:] not in ("l", "s")
    return short[:-1] if doubled else short


def meanings(word: str) -> frozenset[str]:
    """The stems that a stem may stand for, besides itself."""
    return _meanings().get(word, frozenset())


@cache
def _meanings() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for meant, said in _read().same.items():
        for each in said.split():
            found.setdefault(stem(each), set()).add(stem(meant))
    return {word: frozenset(meant) for word, meant in found.items()}


def said_for(word: str) -> frozenset[str]:
    """The stems that may stand for a stem, besides itself."""
    return _said().get(word, frozenset())


@cache
def _said() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for said, meant in _meanings().items():
        for each in meant:
            found.setdefault(each, set()).add(said)
    return {word: frozenset(said) for word, said in found.items()}


@cache
def spellings() -> dict[str, str]:
    """Words that may be misspelt, besides an event's own, each with its stem."""
    known = _read()
    return {word: stem(word) for word in (*known.irregular, *_meanings()) if word not in known.light}


NOT = "not"
"""The stem of every word that denies."""


@cache
def against() -> frozenset[str]:
    """The stems that say that something did not come about."""
    return frozenset(map(stem, _read().against))


def opposites(word: str) -> frozenset[str]:
    """The stems of what is done instead, where the stem's thing is not."""
    return _opposites().get(word, frozenset())


@cache
def _opposites() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for one, others in _read().opposite.items():
        for other in others.split():
            found.setdefault(stem(one), set()).add(stem(other))
            found.setdefault(stem(other), set()).add(stem(one))
    return {word: frozenset(others) for word, others in found.items()}


@cache
def known_words() -> frozenset[str]:
    """The stems of all words that are known here, besides those of events' names."""
    meant = frozenset[str]().union(*_meanings().values())
    return frozenset(map(stem, spellings())) | meant | _actions() | against() | _opposites().keys()


def is_person(word: str) -> bool:
    """Whether the stem stands for who does it, which most events have in common."""
    return word == "user" or "user" in meanings(word)


def is_action(word: str) -> bool:
    """Whether the stem alone, or all that it stands for, tells no event."""
    meant = meanings(word)
    return word in _actions() or is_person(word) or (bool(meant) and meant <= _actions())


@cache
def _actions() -> frozenset[str]:
    return frozenset(map(stem, _read().actions))

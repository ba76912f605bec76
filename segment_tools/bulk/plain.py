"""Which rows are plainly right: told from their bytes, so that these need not be built, judged and written anew.

What is not plain is not wrong: it is for the full look, which alone knows what is wrong. A row is plain only where that
look would let it pass, with the same warnings, and send the same JSON. Much of it is a question of one regular
expression over many rows at once, in the engine of pydantic's core; types are those of msgspec; and the warnings of a
row are those that `spec.advice` has of any row with the same event and the same names of fields.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, cast

import msgspec
from pydantic_core import SchemaValidator, core_schema

from segment_tools import wire
from segment_tools.bulk.lanes import LANES
from segment_tools.bulk.naming import Naming, adler32, crc32
from segment_tools.bulk.typed import Shape, decoder, decoder_of
from segment_tools.errors import InvalidMessage
from segment_tools.settings import Settings
from segment_tools.spec import limits, lookalikes
from segment_tools.spec.advice import Quiet, warnings
from segment_tools.spec.credentials import ISSUED, Secrets
from segment_tools.spec.currencies import CURRENCIES
from segment_tools.spec.names import SHOWN_CHARACTERS
from segment_tools.spec.parsing import parse_message
from segment_tools.spec.practice import is_date

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_VIEWS = 4096
"""Ours: of how many kinds of row what is to be said is known by heart."""

_UNUSUAL = (
    # ASCII in disguise: escapes, but for those of Latin, Cyrillic and Chinese letters and of pictures.
    r"\\u00[0-9abAB]",
    r"\\u01(?:[89a-fA-F]|3[23fF]|4[09]|7[fF])",
    r"\\u(?:0[2-35-9a-fA-F]|[1-3]|[a-cA-CeEfF]|[dD](?:[0-7]|8[0-24-9a-fA-F]|83[0-9abABfF]|[9abAB]))",
    r"\\u[dD]83[cC]\\u[dD][dD]",
    r'"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?"',  # a time without a zone
    r'"timestamp"\s*:\s*"[^"]{10}[^T]',
    r'"timestamp"\s*:\s*"[^"]*[^Z0-9"]"',
    r'"timestamp"\s*:\s*"[^"]*[+-][0-9]{2}(?:[0-9]{2})?"',
    r'"groupId"\s*:\s*""',
    r'"context"\s*:\s*\{\s*\}',
)
"""What may stand in rows that are not plain, and seldom in others."""

_UNCLEAR = r'"context"(?:\s|:\s|:\{[^\x00]*"context":\{)'
"""Where this is in no row, a context begins in one way only, and the row has no other object of this name."""

_CARDS = (
    rf"(?:[^0-9A-Za-z_.+/]|%B|[A-Za-z][-_.#]{{1,2}}|\\[bfnrt]|\\u[0-9A-Fa-f]{{4}})(?:{ISSUED})[^0-9A-Za-z_]",
    r"[0-9]{14}\.[0-9]",  # as a number it may be rounded to another
    r"[0-9]{4}[ ._-]{1,2}[0-9]{4}[ ._-]{1,2}[0-9]{4}[ ._-]{1,2}[0-9]{4}",
    r"[0-9]{4}[ ._-]{1,2}[0-9]{6}[ ._-]{1,2}[0-9]{4}",
    r"[:,\[]\s*-?[0-9.]+[eE]",
)
"""Whatever may be a card's number: in JSON an escape may be before it, and numbers may have a fraction or exponent."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What is known of all rows of a kind: how they are counted, and what is to be said of them."""

    kind: str
    event: str
    codes: tuple[str, ...] = ()
    """Of the warnings that each of them has."""
    numbers: tuple[str, ...] = ()
    """The properties that are no text."""
    item_numbers: tuple[str, ...] = ()
    """Of the first product."""
    dates: tuple[str, ...] = ()
    currency: bool = False
    texts: tuple[str, ...] = ()
    """Fields that may be blank beside the ids."""
    others: bool = False
    """Whether it goes by products, dates or texts."""
    shape: Shape | None = None
    """How rows of the kind may be recognised as they are read; None where that does not tell all that matters."""


Part = tuple[int, bytes, int, View]
"""A row's number, the message as it goes into a batch, its lane, and what is known of it."""

_UNKNOWN: Any = object()
_WRONG = (msgspec.DecodeError, RecursionError)
"""What a row is refused with; a value of another type is a DecodeError, too."""
_SELDOM = 4
"""Ours: one row of so many may be of a kind that is not known."""
_LONGEST_PAUSE = 64
"""Ours: where too few are known, after how many blocks of rows kinds are learnt anew at the latest."""
_MOST_SHAPES = 64
"""Ours: how many kinds are known at a time."""
_BETWEEN = b"\0"
"""Between rows that are looked at together: in JSON it cannot be."""
_CONTEXT = b'"context":{'
_USER, _ANONYMOUS = crc32(b"u"), crc32(b"a")
"""How the names of persons begin, as `Stamped.person` has them."""


class Plain:
    """Makes plain rows ready to be sent; `began` is the time of those that have none."""

    def __init__(self, settings: Settings, secrets: Secrets, quiet: Quiet, naming: Naming, began: str) -> None:
        self._possible = not (
            settings.redact
            or settings.require_consent
            or settings.checks_plan
            or settings.allow_events
            or settings.deny_events
        )
        """Else every row needs the full look."""
        signs = _signs(secrets) if settings.block_secrets else ()
        self._possible = self._possible and signs is not None
        unusual = (*_UNUSUAL, *(signs or ()), *(_CARDS if settings.block_secrets else ()))
        self._flagged, self._flagged_or_unclear = _matcher(unusual), _matcher((*unusual, _UNCLEAR))
        self._decode = self._any = decoder().decode
        self._pause = self._left = 1
        self._quiet = quiet
        self._views: dict[object, View | None] = {}
        self._puts = _puts(naming, began)
        self._now = datetime.fromisoformat(began)
        self._latest = self._now + timedelta(seconds=limits.FUTURE_SECONDS)

    def parts(self, first: int, rows: Sequence[bytes], numbers: Sequence[int] | None = None) -> list[Part | None]:
        """The rows, numbered from `first` or by `numbers`, ready to be sent; None for each that needs the full look."""
        if not self._possible:
            return [None] * len(rows)
        flagged, unclear = self._flags(rows)
        named = zip(numbers or range(first, first + len(rows)), rows, strict=True)
        if flagged is None:
            return self._parts(named, unclear=unclear)
        parts = iter(self._parts((each for each, odd in zip(named, flagged, strict=True) if not odd), unclear=unclear))
        return [None if odd else next(parts) for odd in flagged]

    def _flags(self, rows: Sequence[bytes]) -> tuple[list[bool] | None, bool]:
        """Which rows have anything unusual, None for no row at all; and whether it is unclear where contexts begin."""
        try:
            text = _BETWEEN.join(rows).decode()
            unclear = self._flagged_or_unclear(text)
            if not (self._is_unusual(text) if unclear else self._hides_unusual(text)):
                return None, unclear
        except UnicodeDecodeError:
            pass
        return [self._is_flagged(row) for row in rows], True

    def _is_flagged(self, row: bytes) -> bool:
        try:
            return self._is_unusual(row.decode())
        except UnicodeDecodeError:
            return True

    def _is_unusual(self, text: str) -> bool:
        return self._flagged(text) or self._hides_unusual(text)

    def _hides_unusual(self, text: str) -> bool:
        """Whether anything unusual stands there in foreign letters that are read as others."""
        return not text.isascii() and self._flagged(lookalikes.plain(text))

    def _parts(self, rows: Iterable[tuple[int, bytes]], *, unclear: bool) -> list[Part | None]:  # noqa: C901, PLR0912, PLR0915
        """The rows as parts, in one loop over local names: a call or an attribute more is paid for by each row."""
        decode, any_kind, latest, most = self._decode, self._any, self._latest, limits.MESSAGE_BYTES
        before_all, before_context, before_rest = self._puts
        parts: list[Part | None] = []
        done = parts.append
        join = b"".join  # quicker than a format of the whole, which asks for more memory than it needs
        unknown = 0
        for number, row in rows:
            try:
                found: Any = decode(row)
            except _WRONG:
                try:
                    found = any_kind(row)
                except _WRONG:
                    done(None)
                    continue
            if (view := found.view) is None:
                unknown += 1
                if (view := self._view(found)) is None:
                    done(None)
                    continue
            if (user := found.user_id) is not None:
                other = found.anonymous_id
                if "@" in user or user.isspace() or (other is not None and other.isspace()):
                    done(None)
                    continue
                lane = crc32(user.encode(), _USER) % LANES
            elif (user := found.anonymous_id) is not None and not user.isspace():
                lane = crc32(user.encode(), _ANONYMOUS) % LANES
            else:
                done(None)
                continue
            if (moment := found.timestamp) is not None and not _EPOCH <= moment <= latest:
                done(None)
                continue
            context, name = found.context, found.message_id
            if context is None:
                mark, put = before_all[name is None, moment is None]
            elif context.library is None:
                mark, put = before_context[name is None, moment is None]
            else:
                mark, put = before_rest[name is None, moment is None]
            before, mark, after = _around_context(row) if unclear and mark == _CONTEXT else row.partition(mark)
            if not mark or (name is not None and name.isspace()):
                done(None)
                continue
            if name is None:
                body = join((before, put % (number, crc32(row) << 32 | adler32(row)), after))
            else:
                body = join((before, put, after))
            done((number, body, lane, view) if len(body) <= most else None)
        if unknown * _SELDOM > len(parts):
            self._learn(parts)
        return parts

    def _learn(self, parts: Sequence[Part | None]) -> None:
        """Have rows like most of these recognised as they are read, from now on; seldom, for that takes a while."""
        self._left -= 1
        if self._left:
            return
        self._left = self._pause = min(self._pause * 2, _LONGEST_PAUSE)
        known: dict[str, View] = {}
        seen = Counter(part[3] for part in parts if part)
        for view, _ in seen.most_common(_MOST_SHAPES):
            if view.shape:
                known.setdefault(view.event, view)
        most = sum(seen[view] for view in known.values()) * 2 > len(parts)
        self._decode = decoder_of([(view.shape, view) for view in known.values() if view.shape]) if most else self._any

    def _view(self, found: Any) -> View | None:
        """What is known of rows like this one; None where it needs the full look."""
        first: dict[str, Any] | None = None
        fields: dict[str, Any] = found.fields or {}
        key: Any = (found.__class__, found.event, tuple(fields))
        if "products" in fields and (first := _first(fields["products"])):
            key = (key, *first)
        if (sent_to := found.integrations) is not None:
            key = (key, None, *sent_to)
        if (view := self._views.get(key, _UNKNOWN)) is _UNKNOWN:
            view = self._views[key] = self._judged(found, first)
        return view if view and _fits(view, found, fields, first or {}) else None

    def _judged(self, found: Any, first: Mapping[str, Any] | None) -> View | None:
        """What the full look says of messages with these names, be their values numbers or text."""
        if len(self._views) >= _MOST_VIEWS:
            self._views.clear()
        names, items = tuple(cast("dict[str, Any]", found.fields or {})), tuple(first or ())
        if len(names) > limits.UNIFY_FIELDS or not all(map(_is_shown, (*names, *items))):
            return None
        try:
            plain, texts = (self._said(found, names, items, value) for value in (0, "x"))
        except InvalidMessage:
            return None
        dates = tuple(name for name in names if ("created_at_not_a_date", f"traits.{name}") in plain)
        numbers = {field for code, field in texts if code == "number_as_text"}
        own = tuple(name for name in names if f"properties.{name}" in numbers)
        below = tuple(name for name in items if f"properties.products[0].{name}" in numbers)
        money = found.kind == "track" and "currency" in names
        codes = tuple(code for code, _ in plain if code != "created_at_not_a_date")
        others = bool(below or dates or found.texts)
        shape = None
        if found.kind == "track" and not dates and found.integrations is None:
            shape = Shape.of(found.event, names, items, own, below)
        return View(found.kind, found.event or "", codes, own, below, dates, money, found.texts, others, shape)

    def _said(
        self, found: Any, names: Sequence[str], items: Sequence[str], value: object
    ) -> list[tuple[str, str | None]]:
        """The warnings, by code and field, where every field has the value."""
        fields: dict[str, Any] = dict.fromkeys(names, value)
        if items:
            fields["products"] = [dict.fromkeys(items, value)]
        given = {
            "type": found.kind,
            "userId": "u",
            "groupId": "g" if found.kind == "group" else None,
            "event": found.event,
            found.holder: fields,
            "integrations": found.integrations,
        }
        return [(each.code, each.field) for each in warnings(parse_message(given), self._now, None, self._quiet)]


def _fits(view: View, found: Any, fields: Mapping[str, Any], first: Mapping[str, Any]) -> bool:
    """Whether the values are such as the warnings of the view were found with."""
    for name in view.numbers:
        if fields[name].__class__ is str:
            return False
    if view.currency and ((code := fields["currency"]).__class__ is not str or code not in CURRENCIES):
        return False
    return not view.others or _others_fit(view, found, fields, first)


def _others_fit(view: View, found: Any, fields: Mapping[str, Any], first: Mapping[str, Any]) -> bool:
    for name in view.item_numbers:
        if first[name].__class__ is str:
            return False
    for name in view.dates:
        if not is_date(fields[name]):
            return False
    for name in view.texts:
        text = getattr(found, name)
        if text is not None and text.isspace():
            return False
    return True


def _around_context(row: bytes) -> tuple[bytes, bytes, bytes]:
    """What is before, at and after the beginning of the context; nothing is at it where it is unclear."""
    around = row.partition(_CONTEXT if _CONTEXT in row else b'"context": {')
    return around if b'"context"' not in around[2] else (row, b"", b"")


_Put = Mapping[tuple[bool, bool], tuple[bytes, bytes]]
"""By whether there is no messageId and no timestamp: where to put them, and what is put there; where there is no
messageId, the format of that, for the row's number and its checksum."""


def _puts(naming: Naming, began: str) -> tuple[_Put, _Put, _Put]:
    """For rows without a context, those whose context has no library, and others."""
    library = b'"library":%b' % msgspec.json.encode(wire.LIBRARY)
    named, timed = b'"messageId":"%b%%d-%%016x",' % naming.start, b'"timestamp":"%b",' % began.encode()

    def at(mark: bytes, begin: bytes, end: bytes) -> _Put:
        return {
            (unnamed, untimed): (mark, begin + named * unnamed + timed * untimed + end)
            for unnamed in (False, True)
            for untimed in (False, True)
        }

    whole = at(b"{", b"{", b'"context":{%b},' % library)
    return whole, at(_CONTEXT, b"", b"%b%b," % (_CONTEXT, library)), at(b"{", b"{", b"")


def _first(products: Any) -> dict[str, Any] | None:
    """The first product, where there is one with any names."""
    first = products[0] if products.__class__ is list and products else None
    return cast("dict[str, Any]", first) if first.__class__ is dict and first else None


def _is_shown(name: str) -> bool:
    """Whether a warning repeats the name as it is."""
    return name.isprintable() and len(name) <= SHOWN_CHARACTERS and "." not in name


_LONG_SIGN = 14


def _signs(secrets: Secrets) -> tuple[str, ...] | None:
    """Patterns of which one fits every JSON text that holds a secret, but for cards; None where there is none.

    In JSON a slash may have a backslash before it, and so may quotes: a sign ends before those.
    """
    if any(len(_literal(sign)) < min(3, len(sign)) for sign in (*secrets.signs, *secrets.own)):
        return None
    return (*map(_lasting, secrets.signs), *(_escaped(_literal(key)) for key in secrets.own))


def _literal(sign: str) -> str:
    """The longest part of it that stands in JSON as it is."""
    return max(re.split(r"[^ -!#-.0-\[\]-~]", sign), key=len)


def _lasting(sign: str) -> str:
    """The pattern for how a token begins; after a short beginning, some more of it."""
    literal = _literal(sign)
    lasts = literal == sign and not sign.endswith((" ", "_KEY", "_key", "eyJ")) and len(sign) < _LONG_SIGN
    return _escaped(literal) + ('[^\\s"]{10}' if lasts else "")


def _escaped(literal: str) -> str:
    return re.escape(literal).replace("\\ ", " ")


@cache
def _matcher(patterns: tuple[str, ...]) -> Any:
    """Whether a text has any of the patterns, in a linear time."""
    return SchemaValidator(core_schema.str_schema(pattern="|".join(patterns))).isinstance_python

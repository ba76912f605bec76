"""Which rows are plainly right: told from their bytes, so that these need not be built, judged and written anew.

What is not plain is not wrong: it is for the full look, which alone knows what is wrong. A row is plain only where that
look would let it pass, with the same warnings, and send the same JSON. Much of it is a question of one regular
expression over many rows at once, in the engine of pydantic's core; types are those of msgspec; and the warnings of a
row are those that `spec.advice` has of any row with the same event and the same names of fields.
"""

import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, ClassVar, Union, cast, get_args, get_origin
from zlib import crc32

import msgspec
from pydantic import BaseModel
from pydantic_core import SchemaValidator, core_schema

from segment_tools import wire
from segment_tools.bulk.lanes import LANES
from segment_tools.bulk.naming import Naming, checksum
from segment_tools.errors import InvalidMessage
from segment_tools.settings import Settings
from segment_tools.spec import limits, lookalikes
from segment_tools.spec.advice import Quiet, warnings
from segment_tools.spec.context import Context
from segment_tools.spec.credentials import Secrets
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

_CARDS = (
    r"[^.0-9][0-9]{14}",
    r"[A-Za-z][-_.#]?\.[0-9]{14}",
    r"[0-9]{4}[ ._-]{1,2}[0-9]{4}[ ._-]{1,2}[0-9]{4}[ ._-]{1,2}[0-9]{4}",
    r"[0-9]{4}[ ._-]{1,2}[0-9]{6}[ ._-]{1,2}[0-9]{4}",
    r"[:,\[]\s*-?[0-9.]+[eE]",
)
"""Whatever may be a card's number, numbers with an exponent among them."""

_Scalar = bool | int | float | str | None
_Inner = bool | int | float | str | None | list[_Scalar] | dict[str, _Scalar]
_Value = bool | int | float | str | None | list[_Inner] | dict[str, _Inner]
_Fields = dict[str, _Value]
"""Properties or traits of no more levels than destinations take."""

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Id = Annotated[str, msgspec.Meta(min_length=limits.SHORT_MESSAGE_ID, max_length=limits.MESSAGE_ID_CHARACTERS - 1)]
_GroupId = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.GROUP_ID_CHARACTERS)]
_ABSENT = cast("Any", None)
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


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
    others: bool = False
    """Whether it goes by products or dates."""


Part = tuple[int, bytes, int, View]
"""A row's number, the message as it goes into a batch, its lane, and what is known of it."""

_UNKNOWN: Any = object()
_BRACE = ord("{")


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
        self._flagged = _matcher((*_UNUSUAL, *(signs or ()), *(_CARDS if settings.block_secrets else ())))
        self._decode = _decoder().decode
        self._quiet = quiet
        self._views: dict[object, View | None] = {}
        library = msgspec.json.encode(wire.LIBRARY)
        self._in_context = b'"library":%b,' % library
        self._context = b'"context":{"library":%b},' % library
        self._timed = b'{"timestamp":"%b",' % began.encode()
        self._start = b'{"messageId":"%b' % naming.start
        self._timed_start = self._timed + self._start[1:]
        self._now = datetime.fromisoformat(began)
        self._latest = self._now + timedelta(seconds=limits.FUTURE_SECONDS)

    def parts(self, first: int, rows: Sequence[bytes], numbers: Sequence[int] | None = None) -> list[Part | None]:
        """The rows, numbered from `first` or by `numbers`, ready to be sent; None for each that needs the full look."""
        if not self._possible:
            return [None] * len(rows)
        named = zip(numbers or range(first, first + len(rows)), rows, strict=True)
        flagged, one = self._flags(rows), self._part
        if flagged is None:
            return [one(number, row) for number, row in named]
        return [None if odd else one(number, row) for odd, (number, row) in zip(flagged, named, strict=True)]

    def _flags(self, rows: Sequence[bytes]) -> list[bool] | None:
        """Which rows have anything unusual; None for no row at all."""
        try:
            if not self._is_unusual(b"\n".join(rows).decode()):
                return None
        except UnicodeDecodeError:
            pass
        return [self._is_flagged(row) for row in rows]

    def _is_flagged(self, row: bytes) -> bool:
        try:
            return self._is_unusual(row.decode())
        except UnicodeDecodeError:
            return True

    def _is_unusual(self, text: str) -> bool:
        """Whether anything unusual stands there, be it in foreign letters that are read as others."""
        return self._flagged(text) or (
            not text.isascii() and (read := lookalikes.plain(text)) != text and self._flagged(read)
        )

    def _part(self, number: int, row: bytes) -> Part | None:  # noqa: C901, PLR0911, PLR0912 - each row pays for a call
        try:
            found: Any = self._decode(row)
        except (msgspec.DecodeError, RecursionError):  # a value of another type is a DecodeError, too
            return None
        if (user := found.user_id) is not None:
            if "@" in user or user.isspace():
                return None
            lane = crc32(b"u" + user.encode()) % LANES
        elif (user := found.anonymous_id) is not None and not user.isspace():
            lane = crc32(b"a" + user.encode()) % LANES
        else:
            return None
        if (moment := found.timestamp) is not None and not _EPOCH <= moment <= self._latest:
            return None
        fields = cast("dict[str, Any]", found.fields)
        first: Any = None
        if fields is None:  # pyright: ignore[reportUnnecessaryComparison] - `cast` says what it mostly is
            key: Any = (found.__class__, found.event)
        elif "products" in fields and (first := _first(fields["products"])):
            key = (found.__class__, found.event, *fields, None, *first)
        else:
            key = (found.__class__, found.event, *fields)
        if (sent_to := found.integrations) is not None:
            key = (key, *sent_to)
        if (view := self._views.get(key, _UNKNOWN)) is _UNKNOWN:
            view = self._views[key] = self._judged(found, first)
        if view is None:
            return None
        for name in view.numbers:
            if fields[name].__class__ is str:
                return None
        if view.currency and not (fields["currency"].__class__ is str and fields["currency"] in CURRENCIES):
            return None
        if view.others and not _fits(view, fields, first):
            return None
        for name in found.texts:
            if (text := getattr(found, name)) is not None and text.isspace():
                return None
        if (context := found.context) is None:
            at, within = 1, self._context
        elif context.library is not None:
            at, within = 1, b""
        else:
            within = self._in_context
            at = row.find(b'"context":{') + 11
            if at < 11:  # noqa: PLR2004 - the length of what is looked for
                at = row.find(b'"context": {') + 12
                if at < 12:  # noqa: PLR2004
                    return None
            if row.find(b'"context"', at) >= 0:
                return None
        if (name := found.message_id) is None:
            start = self._start if moment is not None else self._timed_start
            body = b'%b%d-%016x",%b%b%b' % (start, number, checksum(row), row[1:at], within, row[at:])
        elif name.isspace():
            return None
        else:
            start = b"{" if moment is not None else self._timed
            body = b"%b%b%b%b" % (start, row[1:at], within, row[at:])
        if len(body) > limits.MESSAGE_BYTES or row[0] != _BRACE:
            return None
        return number, body, lane, view

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
        return View(found.kind, found.event or "", codes, own, below, dates, money, bool(below or dates))

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


def _fits(view: View, fields: Mapping[str, Any], first: Mapping[str, Any]) -> bool:
    """Whether the values are such as the warnings of the view were found with."""
    numbers = not any(first[name].__class__ is str for name in view.item_numbers)
    return numbers and all(is_date(fields[name]) for name in view.dates)


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
    found: list[str] = []
    for sign in secrets.signs:
        plain = max(re.split(r"[^ -!#-.0-\[\]-~]", sign), key=len)
        if len(plain) < min(3, len(sign)):
            return None
        lasting = plain == sign and not sign.endswith((" ", "_KEY", "_key"))
        found.append(
            re.escape(plain).replace("\\ ", " ") + ('[^\\s"]{10}' if lasting and len(sign) < _LONG_SIGN else "")
        )
    return tuple(dict.fromkeys(found))


def _matcher(patterns: Sequence[str]) -> Any:
    """Whether a text has any of the patterns, in a linear time."""
    return SchemaValidator(core_schema.str_schema(pattern="|".join(patterns))).isinstance_python


class _Row(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, gc=False, rename="camel"):
    """A row; a field that is None is not there, for null is not taken."""

    kind: ClassVar[str]
    holder: ClassVar[str] = "properties"
    texts: ClassVar[tuple[str, ...]] = ()
    """What may be blank beside the ids."""
    event: ClassVar[str | None] = None
    user_id: _Text = _ABSENT
    anonymous_id: _Text = _ABSENT
    message_id: _Id = _ABSENT
    timestamp: _Moment = _ABSENT
    context: Any = None
    integrations: dict[str, bool] = _ABSENT


def _plain_type(annotation: Any) -> Any:
    """What msgspec takes where pydantic takes this; where that may be deep or long, nothing at all."""
    origin, below = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _plain_type(below[0])
    if origin in (Union, types.UnionType):
        return Union[tuple(_plain_type(each) for each in below)]  # noqa: UP007 - made of a tuple
    if origin is list:
        return None
    if origin is dict:
        return dict[str, _Inner if below[1] is Any else _plain_type(below[1])]
    is_model = isinstance(annotation, type) and issubclass(cast("type[Any]", annotation), BaseModel)
    return _struct_of(cast("Any", annotation)) if is_model else annotation


@cache
def _struct_of(model: type[BaseModel]) -> type[msgspec.Struct]:
    """The model's documented fields, and no others."""
    fields = [
        (name, _plain_type(field.annotation), msgspec.field(name=field.alias, default=None))
        if not field.is_required()
        else (name, _plain_type(field.annotation), msgspec.field(name=field.alias))
        for name, field in model.model_fields.items()
    ]
    return msgspec.defstruct(model.__name__, fields, forbid_unknown_fields=True, gc=False, kw_only=True)


@cache
def _decoder() -> msgspec.json.Decoder[Any]:
    """Reads rows of every type but alias, which is rare, and a matter of two ids."""
    context = _struct_of(Context)
    absent: Any = msgspec.field(default=None)

    def row(kind: str, holder: str, own: Sequence[tuple[Any, ...]] = (), **said: Any) -> Any:
        fields = [*own, ("context", context, absent), ("fields", _Fields, msgspec.field(name=holder, default=None))]
        namespace = {"kind": kind, "holder": holder, **said}
        return msgspec.defstruct(kind, fields, bases=(_Row,), namespace=namespace, tag=kind, gc=False, kw_only=True)

    views = [("name", _Text, absent), ("category", _Text, absent)]
    every = (
        row("track", "properties", [("event", _Text)]),
        row("identify", "traits"),
        row("group", "traits", [("group_id", _GroupId, msgspec.field(name="groupId"))], texts=("group_id",)),
        row("page", "properties", views, texts=("name", "category")),
        row("screen", "properties", views, texts=("name", "category")),
    )
    return msgspec.json.Decoder(Union[every])  # noqa: UP007 - made of a tuple

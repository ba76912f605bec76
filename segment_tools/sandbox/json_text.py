"""JSON as strictly as Segment reads it: an object of finite numbers, nested within reason."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import msgspec

_MOST_LEVELS = 250
"""Ours: deeper JSON is refused, before Python's own limit makes trouble. Segment documents none."""


class _Envelope(msgspec.Struct):
    """A batch request, its items still as text."""

    batch: list[msgspec.Raw]
    writeKey: object = None  # noqa: N815 - as on the wire
    sentAt: object = None  # noqa: N815
    context: object = None
    integrations: object = None


_decode = msgspec.json.Decoder().decode
_decode_batch = msgspec.json.Decoder(_Envelope).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Body:
    """A request's object; for a batch without its items, which stand beside it as JSON, to be read one by one."""

    fields: dict[str, Any]
    items: Sequence[bytes | bytearray] | None = None


def object_of(text: bytes | str) -> dict[str, Any]:
    """The object that the text holds.

    Raises:
        ValueError: it holds none.
    """
    found = _value(text.encode(errors="surrogatepass") if isinstance(text, str) else text)
    if not isinstance(found, dict):
        raise ValueError("malformed JSON")  # noqa: TRY004 - the text is wrong, not its type
    return cast("dict[str, Any]", found)


def batch_of(text: bytes) -> Body:
    """The batch request that the text holds; without items where `batch` is no list.

    Raises:
        ValueError: it holds no object.
    """
    try:
        read = _decode_batch(text)
    except (ValueError, RecursionError):
        return _batch_slowly(object_of(text))
    fields = {name: getattr(read, name) for name in ("writeKey", "sentAt", "context", "integrations")}
    # Python's sqlite3 binds bytearrays at once, and looks for an adapter of bytes first.
    return Body(
        {name: value for name, value in fields.items() if value is not None}, [bytearray(raw) for raw in read.batch]
    )


def _batch_slowly(fields: dict[str, Any]) -> Body:
    items: object = fields.get("batch")
    if not isinstance(items, list):
        return Body(fields)
    listed = cast("list[object]", items)
    return Body({**fields, "batch": None}, [encoded(item) for item in listed])


def item_of(text: bytes | bytearray) -> tuple[object, bytes | bytearray]:
    """The item and its text as it came, but with letters in place of their escapes, to be found by them.

    Raises:
        ValueError: it is no JSON.
    """
    item = _value(text)
    return item, encoded(item) if b"\\u" in text else text


def _value(text: bytes | bytearray) -> object:
    try:
        found: object = _decode(text)
    except (ValueError, RecursionError):
        # Rare: half characters, byte order marks, too many levels, and what is no JSON at all.
        found = _slowly(text)
    if text.count(b"{") + text.count(b"[") > _MOST_LEVELS and _too_deep(found):
        raise ValueError("too deep")
    return found


def _slowly(text: bytes | bytearray) -> object:
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("too deep") from None


def _no_constant(name: str) -> NoReturn:
    """NaN and Infinity are no JSON, although Python reads them."""
    raise ValueError(name)


def _finite(text: str) -> float:
    """The number, unless it is beyond what JSON's readers hold: Python would make it infinite."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _too_deep(found: object) -> bool:
    level = [found]
    for _ in range(_MOST_LEVELS):
        level = [below for holder in level for below in _held(holder) if isinstance(below, (dict, list))]
        if not level:
            return False
    return True


def _held(holder: object) -> Iterable[object]:
    if isinstance(holder, dict):
        return cast("dict[str, object]", holder).values()
    return cast("list[object]", holder) if isinstance(holder, list) else ()


def encoded(value: object) -> bytes:
    """The value as compact JSON; half a character, which UTF-8 cannot hold, as its escape."""
    try:
        return _encode(value)
    except ValueError:
        return json.dumps(value, separators=(",", ":")).encode()

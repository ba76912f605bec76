"""What is allowed and seldom meant: ids, names, money and times that are not as Segment and destinations read them."""

import re
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any, cast

from segment_tools.spec.currencies import CURRENCIES, currency_meant
from segment_tools.spec.event_names import MOST_CHARACTERS, better_name
from segment_tools.spec.messages import Alias, AnyMessage, Group, Identify, Track
from segment_tools.spec.names import printable
from segment_tools.spec.property_names import Names, names_of
from segment_tools.spec.timestamps import parse_timestamp

Found = Iterator[tuple[str, str, str]]
"""Code, field, and what is meant instead."""

_EMAIL = re.compile(r"[^@\s/:]+@[^@\s/:]+\.[A-Za-z]{2,}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_VISITOR = re.compile(r"(anon|anonymous|visitor|guest|device|session|cookie)[_:\-]?[\w\-]*", re.IGNORECASE)
_KNOWN = re.compile(r"\d{1,12}|(user|usr|customer|cus|member|account)[_:\-]\w+", re.IGNORECASE)
_LOCAL_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?")
_LOCAL_TIME_CHARACTERS = range(len("2024-01-15T10:30"), len("2024-01-15T10:30:00.000000") + 1)
_CREATED = ("createdAt", "created_at")
_SECONDS, _MILLISECONDS = (1e8, 1e10), (1e11, 1e13)
"""What a number of seconds or milliseconds since 1970 may be: from 1973 to 2286."""


def of_practice(message: AnyMessage, planned: Collection[str] = ()) -> Found:
    """What is better done otherwise; names are not, in an event of the plan."""
    if message.user_id is not None and "@" in message.user_id and _EMAIL.fullmatch(message.user_id):
        yield "email_as_user_id", "userId", ""
    if isinstance(message, Track):
        yield from _of_track(message, planned=message.event in planned)
    elif isinstance(message, Identify | Group):
        yield from _of_traits(message.traits or {}, message.context or {})
    elif isinstance(message, Alias):
        if _reversed(message):
            yield "alias_reversed", "previousId", ""
    elif message.properties:
        yield from _local_times("properties", message.properties, message.context or {})


def _of_track(message: Track, *, planned: bool) -> Found:
    event, properties = message.event or "", message.properties
    if not planned and (better := better_name(event)):
        yield better[0], "event", better[1]
    if not properties:
        return
    names = None if planned else names_of(event)
    if names:
        yield from _of_names("properties", properties, names)
    elif _is_text(properties.get("revenue")):
        yield "number_as_text", "properties.revenue", ""
    if "currency" in properties:
        yield from _of_currency(properties, semantic=names is not None and "currency" in names.known)
    yield from _local_times("properties", properties, message.context or {})


def _of_names(place: str, given: Mapping[str, Any], names: Names) -> Found:
    """Of properties that the spec has under another name, and of its numbers; of a list of products, its first."""
    for name, value in given.items():
        if name not in names.known:
            if meant := names.instead_of(name, given):
                yield "semantic_property_spelling", f"{place}.{printable(name)}", meant
            elif name == "revenue" and _is_text(value):
                yield "number_as_text", f"{place}.{name}", ""
        elif name in names.numbers and _is_text(value):
            yield "number_as_text", f"{place}.{name}", ""
    products = given.get("products")
    if names.items and isinstance(products, list) and products and isinstance(products[0], dict):
        yield from _of_names(f"{place}.products[0]", cast("dict[str, Any]", products[0]), names.items)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _of_currency(properties: Mapping[str, Any], *, semantic: bool) -> Found:
    """Of a currency that is none; where it may be a game's own, only if it is money that is meant."""
    value = properties["currency"]
    if not _is_text(value) or value in CURRENCIES:
        return
    meant = currency_meant(value)
    if meant or semantic or "revenue" in properties:
        yield "currency_code", "properties.currency", repr(meant) if meant else "one such as 'USD'"


def _of_traits(traits: Mapping[str, Any], context: Mapping[str, Any]) -> Found:
    for name in _CREATED:
        if name in traits and not is_date(traits[name]):
            yield "created_at_not_a_date", f"traits.{name}", ""
    styles = [style for name in traits if len(name) <= MOST_CHARACTERS and (style := _style(name))]
    if len(set(styles)) > 1:
        yield "mixed_trait_names", "traits", max(("camelCase", "snake_case"), key=styles.count)
    yield from _local_times("traits", traits, context)


def is_date(value: object) -> bool:
    """Whether a trait that is a date is ISO 8601, or a plausible number since 1970; what is empty says nothing."""
    if isinstance(value, str):
        return not value.strip() or parse_timestamp(value) is not None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value is None
    return any(least <= value < most for least, most in (_SECONDS, _MILLISECONDS))


_CAMEL = re.compile(r"[a-z][a-z0-9]*[A-Z][A-Za-z0-9]*")
_SNAKE = re.compile(r"(?!utm_)[a-z][a-z0-9]*(_[a-z0-9]+)+")
"""UTM parameters have names of their own."""


@lru_cache(maxsize=4096)
def _style(name: str) -> str | None:
    if _CAMEL.fullmatch(name):
        return "camelCase"
    return "snake_case" if _SNAKE.fullmatch(name) else None


def _local_times(place: str, given: Mapping[str, Any], context: Mapping[str, Any]) -> Found:
    for name, value in given.items():
        if (
            isinstance(value, str)
            and len(value) in _LOCAL_TIME_CHARACTERS
            and _LOCAL_TIME.fullmatch(value)
            and not context.get("timezone")
        ):
            yield "local_time_without_zone", f"{place}.{printable(name)}", ""


def _reversed(message: Alias) -> bool:
    """Whether the old id is a known user's and the new one a visitor's."""
    old, new = message.previous_id or "", message.user_id or ""
    if new == message.anonymous_id and new != old:
        return True
    known = bool(_EMAIL.fullmatch(old) or _KNOWN.fullmatch(old))
    return known and bool(_UUID.fullmatch(new) or _VISITOR.fullmatch(new))

"""Pages of a list that may grow while it is read: a cursor says after which item the next page begins."""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

_T = TypeVar("_T")

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """The items of one page, and the cursor of the next; empty where there is none."""

    items: list[Any]
    next: str


def page_of(items: Sequence[_T], key: Callable[[_T], Key], leaf: str, cursor: str, limit: int) -> Page:
    """The page that the cursor asks for; without one the first. Items are sorted by `key`, which is theirs alone.

    Raises:
        ValueError: the cursor is none of this list's.
    """
    found = sorted(items, key=key)
    if cursor:
        after = _decoded(cursor, leaf)
        try:
            found = [item for item in found if key(item) > after]
        except TypeError:
            raise ValueError("cursor") from None
    page = found[:limit]
    return Page(page, _encoded(leaf, key(page[-1])) if len(found) > limit else "")


def _encoded(leaf: str, key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps([leaf, *key]).encode()).decode().rstrip("=")


def _decoded(cursor: str, leaf: str) -> Key:
    try:
        found: object = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, RecursionError):
        raise ValueError("cursor") from None
    if not isinstance(found, list):
        raise ValueError("cursor")  # noqa: TRY004 - the text is wrong, not its type
    named, *key = cast("list[Any]", found)
    if named != leaf:
        raise ValueError("cursor")
    return tuple(key)

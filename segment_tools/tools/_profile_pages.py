"""How a profile's tools read: whose, which page or all, what of it is shown, and what is said where there is none."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, ClassVar, TypeVar, cast

from pydantic import Field
from pydantic.alias_generators import to_camel

from segment_tools.client import Segment
from segment_tools.errors import InvalidMessage, NotConfigured, NotFound, Rejected
from segment_tools.reading import ProfilePage
from segment_tools.receipt import Warned
from segment_tools.setting_types import is_space_id
from segment_tools.spec.arguments import Arguments, Flag, Sought, SoughtId, one_of
from segment_tools.spec.names import printable
from segment_tools.spec.profiles import COLLECTIONS, MOST, Asked, Identifier, Leaf, another_way, identifier
from segment_tools.spec.timestamps import parse_timestamp
from segment_tools.tools._answer import Answer, told
from segment_tools.tools._shown import MOST_BYTES, MOST_BYTES_WHOLE, fitted, masked, size
from segment_tools.tools._tool import Caller

_A = TypeVar("_A", bound="ProfileAnswer")

ALL_ITEMS = 1_000
"""How many items `all` reads at most."""


class ProfileArguments(Arguments):
    """Whose profile."""

    REQUIRED: ClassVar[Mapping[str, str]] = {"id": 'Pass the id, such as "u1" or "email:jane@example.com".'}

    id: SoughtId = Field(default=None, description="The id, or type:id such as email:jane@example.com")
    id_type: Sought = Field(
        default=None, description="user_id (default), email, anonymous_id, group_id or another the space has"
    )
    collection: Annotated[str | None, one_of(*COLLECTIONS)] = Field(
        default=None, description="users (default) or accounts"
    )
    space_id: Sought = Field(default=None, description="Another space than the server's")
    error_if_missing: Flag = Field(default=None, description="true: no such profile is an error, not found: false")


class PageArguments(ProfileArguments):
    """Which page of it."""

    cursor: Sought = Field(default=None, description="nextCursor of the page before")
    all: Flag = Field(default=None, description="true: all pages, up to 1,000 items and 40 KB")
    whole: Flag = Field(default=None, description="true: long values whole, up to 100 KB")


class ProfileAnswer(Answer):
    """What every look-up answers."""

    found: bool
    id_type: str | None = None
    id: str | None = None
    collection: str | None = None
    hint: str | None = None
    warnings: list[dict[str, Any]] | None = None


class PageAnswer(ProfileAnswer):
    """What every list answers."""

    count: int | None = None
    next_cursor: str | None = None
    truncated: bool | None = None


@dataclass(frozen=True, slots=True)
class Who:
    """Whose profile a call is about, and what had to be changed to look it up."""

    space: str
    collection: str
    identifier: Identifier
    warnings: tuple[Warned, ...]


def asked_of(arguments: ProfileArguments, segment: Segment) -> Who:
    space = arguments.space_id or segment.settings.space_id
    if space is None:
        hint = "Pass spaceId, or ask whoever runs this server to set SEGMENT_SPACE_ID."
        raise NotConfigured("SEGMENT_SPACE_ID", "It is not known which space to read profiles of.", hint=hint)
    if not is_space_id(space):
        hint = "Pass the id as Segment shows it, such as spa_abc123."
        raise InvalidMessage.of("invalid_value", "spaceId is not a space's id.", hint, "spaceId")
    collection = arguments.collection or COLLECTIONS[0]
    found, warnings = identifier(str(arguments.id), arguments.id_type, collection)
    return Who(space, collection, found, warnings)


def leaf_of(who: Who, leaf: Leaf, query: Mapping[str, str]) -> Asked:
    return Asked(who.space, who.collection, who.identifier, leaf, query)


CUT = Warned(
    "values_cut", "Long values are cut, each with a mark; ask for one alone by include with whole: true for all of it."
)


def missing(answer: type[_A], arguments: ProfileArguments, who: Who) -> _A:
    """The answer where there is no such profile: data, unless it was asked to be an error."""
    kind = who.identifier.type
    other = another_way(str(arguments.id), arguments.id_type, who.collection)
    other = other or "Look-ups need the type the id was sent as."
    hint = f"No profile has this {printable(kind)} in {who.collection} of this space. {other}"
    if arguments.error_if_missing:
        raise NotFound("Segment has no such profile.", status_code=404, hint=hint, code="profile_not_found")
    return answer.model_validate({**common(who, who.warnings), "found": False, "hint": hint}, by_name=True)


def common(who: Who, warnings: Sequence[Warned]) -> dict[str, Any]:
    return {
        "found": True,
        "id_type": who.identifier.type,
        "id": who.identifier.value,
        "collection": who.collection,
        "warnings": told(warnings),
    }


@dataclass(frozen=True, slots=True)
class Listed:
    """A list within its bounds, and what the answer says of it."""

    items: list[Any]
    facts: dict[str, Any]
    warnings: tuple[Warned, ...]


async def listed_in(
    arguments: PageArguments, segment: Segment, caller: Caller, leaf: Leaf, default: int
) -> Listed | None:
    """One page, or all up to the bounds; None where there is no such profile."""
    who, most = asked_of(arguments, segment), MOST_BYTES_WHOLE if arguments.whole else MOST_BYTES
    limit = getattr(arguments, "limit", None) or (MOST[leaf] if arguments.all else default)
    query = {**_query(arguments, leaf), "limit": str(limit), **({"next": arguments.cursor} if arguments.cursor else {})}
    verbose = bool(getattr(arguments, "verbose", None))
    hide = segment.settings.profile_hide_traits
    asked_for = _no_time(arguments, segment.outside.now())

    async def read(query: Mapping[str, str]) -> ProfilePage | None:
        return await segment.read(leaf_of(who, leaf, query))

    try:
        page = await read(query)
    except Rejected as error:
        raise _of_the_cursor(error) if arguments.cursor and error.status_code == _WRONG else error from None
    if page is None:
        return None
    items = items_of(page, leaf, hide, verbose=verbose)
    fit = fitted(items, most, bool(arguments.whole))
    if len(fit.items) < len(items):
        # Asked for again with as many as fit, so that the next cursor goes on right behind them.
        page = await read({**query, "limit": str(len(fit.items))}) or page
        fit = fitted(items_of(page, leaf, hide, verbose=verbose), most, bool(arguments.whole))
        return _listed_as(who, fit.items, page.next, (*asked_for, CUT), truncated=True)
    shown, truncated = list(fit.items), False
    seen = {page.next}
    while arguments.all and page.next and not truncated:
        await caller.progress(len(shown), None, f"{len(shown)} items read")
        following = await read({**query, "next": page.next})
        if following is None:
            break
        more = fitted(items_of(following, leaf, hide, verbose=verbose), most, bool(arguments.whole))
        if len(shown) + len(more.items) > ALL_ITEMS or size(shown) + size(more.items) > most:
            truncated = True
            break
        if following.next in seen:
            raise Rejected("The Profile API's cursor leads back to where it was.", code="unexpected_answer")
        shown += more.items
        fit, page = replace(fit, cut=fit.cut or more.cut), following
        seen.add(following.next)
    if not arguments.cursor and not page.next:
        asked_for = (*asked_for, *_not_found(getattr(arguments, "include", None), leaf, shown))
    return _listed_as(who, shown, page.next, (*asked_for, *((CUT,) if fit.cut else ())), truncated=truncated)


_WRONG = 400


def _of_the_cursor(error: Rejected) -> Rejected:
    """The refusal of a look-up with a cursor: where Segment takes the other arguments, it is that."""
    hint = "Pass cursor as nextCursor of the page before gave it, with the same other arguments, or leave it out."
    status, traced = error.status_code, error.request_id
    mended = Rejected(error.message, status_code=status, hint=hint, code="invalid_value", request_id=traced)
    mended.field = "cursor"
    return mended


_NAMES: dict[Leaf, Callable[[Any], Any]] = {
    "traits": lambda item: item[0],
    "events": lambda item: item.get("event"),
    "external_ids": lambda item: item.get("type"),
    "properties": lambda item: item.get("key"),
}


def _not_found(include: Sequence[str] | None, leaf: Leaf, items: Sequence[Any]) -> tuple[Warned, ...]:
    """A warning of the names that were asked for and that none of the items has."""
    found = {_NAMES[leaf](item) for item in items} if include else set[Any]()
    absent = [printable(name) for name in include or () if name not in found]
    if not absent:
        return ()
    shown = ", ".join(absent[:_MOST_NAMES]) + (f" and {more} more" if (more := len(absent) - _MOST_NAMES) > 0 else "")
    return (Warned("not_found", f"Not there: {shown}. Names are matched exactly, capitals included.", "include"),)


_MOST_NAMES = 20
"""Ours: how many names one warning repeats."""


def _no_time(arguments: PageArguments, now: datetime) -> tuple[Warned, ...]:
    """A warning of a time in which nothing can have happened."""
    start, end = (parse_timestamp(getattr(arguments, name, None) or "") for name in ("start", "end"))
    if start and end and start >= end:
        return (Warned("empty_time", "start is not before end, so no event can be found.", "start"),)
    if start and start > now:
        return (Warned("empty_time", "start is in the future, so no event can be found.", "start"),)
    return ()


def _listed_as(who: Who, items: list[Any], following: str, more: Sequence[Warned], *, truncated: bool) -> Listed:
    warnings = (*who.warnings, *more)
    facts = {"count": len(items), "next_cursor": following or None, "truncated": truncated or None}
    return Listed(items, {**common(who, warnings), **facts}, warnings)


def _query(arguments: PageArguments, leaf: Leaf) -> dict[str, str]:
    """The Profile API's own parameters, but for the page."""
    given = arguments.model_dump(include={"include", "exclude", "start", "end", "sort", "class_", "verbose"})
    found: dict[str, str] = {}
    for name, value in given.items():
        if value is None or (name == "verbose" and (leaf == "events" or not value)):
            continue
        found[name.rstrip("_")] = _joined(name, value)
    return found


def _joined(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true"
    if not isinstance(value, tuple):
        return str(value)
    names = cast("tuple[str, ...]", value)
    if any("," in each for each in names):
        hint = "Segment separates names by commas: leave this one out and look through the others."
        raise InvalidMessage.of("invalid_value", f"{name} has a name with a comma in it.", hint, name)
    return ",".join(names)


def items_of(page: ProfilePage | None, leaf: Leaf, hide: Sequence[str], *, verbose: bool) -> list[Any]:
    """The page's items in our names, with what is to be hidden masked."""
    if page is None:
        return []
    return _SHAPES[leaf](masked(page.items, hide), verbose)


def _traits(traits: Mapping[str, Any], verbose: bool) -> list[Any]:
    if not verbose:
        return [[name, value] for name, value in traits.items()]
    return [[name, camel(value) if isinstance(value, dict) else value] for name, value in traits.items()]


_EVENT = ("event", "type", "name", "message_id", "timestamp", "source_id", "properties", "traits")
_EVENT_MORE = ("context", "external_ids", "related")


def _events(events: Sequence[Any], verbose: bool) -> list[Any]:
    wanted = (*_EVENT, *_EVENT_MORE) if verbose else _EVENT
    return [_named(event, wanted) for event in events]


def _named(item: Any, names: Sequence[str]) -> Any:
    if not isinstance(item, dict):
        return {}
    fields = cast("dict[str, Any]", item)
    return {to_camel(name): fields[name] for name in names if fields.get(name) is not None}


def camel(item: Any) -> Any:
    """The object with its own fields' names in camelCase."""
    return {to_camel(str(name)): value for name, value in item.items() if value is not None}


_EXTERNAL_ID = ("id", "type", "collection", "source_id", "created_at", "encoding", "first_message_id")


def _external_ids(ids: Sequence[Any], verbose: bool) -> list[Any]:  # noqa: ARG001 - a shape like the others
    return [_named(each, _EXTERNAL_ID) for each in ids]


def _properties(pairs: Sequence[Any], verbose: bool) -> list[Any]:  # noqa: ARG001
    return [_named(each, ("key", "value")) for each in pairs]


def _links(links: Sequence[Any], verbose: bool) -> list[Any]:
    found = [_named(each, ("to_collection", "external_ids")) for each in links]
    return [{**each, "externalIds": _external_ids(_listed(each.get("externalIds")), verbose)} for each in found]


def _listed(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


_SHAPES: dict[Leaf, Callable[[Any, bool], list[Any]]] = {
    "traits": _traits,
    "external_ids": _external_ids,
    "events": _events,
    "properties": _properties,
    "links": _links,
}

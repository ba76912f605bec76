"""The tools that read profiles: who somebody is, and what Segment has of them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, ClassVar, cast

from pydantic import Field
from pydantic.alias_generators import to_camel

from segment_tools.client import Segment
from segment_tools.errors import InvalidMessage, NotConfigured, NotFound, Rejected
from segment_tools.reading import NoRoute, ProfilePage
from segment_tools.receipt import Warned
from segment_tools.settings import is_space_id
from segment_tools.spec.arguments import Arguments, Flag, Names, one_of, whole
from segment_tools.spec.profiles import COLLECTIONS, MOST, Asked, Identifier, Leaf, identifier
from segment_tools.spec.values import Id, Name, Timestamp
from segment_tools.tools._answer import Answer
from segment_tools.tools._shown import MOST_BYTES, MOST_BYTES_WHOLE, fitted, masked, shortened, size
from segment_tools.tools._tool import Caller, tool

ALL_ITEMS = 1_000
"""How many items `all` reads at most."""

EVENTS_SHOWN = 10
"""How many of the newest events `segment_get_profile` has."""


class ProfileArguments(Arguments):
    """Whose profile."""

    REQUIRED: ClassVar[Mapping[str, str]] = {"id": 'Pass the id, such as "u1" or "email:jane@example.com".'}

    id: Id = Field(default=None, description="The id, or type:id such as email:jane@example.com")
    id_type: Name = Field(
        default=None, description="user_id (default), email, anonymous_id, group_id or another the space has"
    )
    collection: Annotated[str | None, one_of(*COLLECTIONS)] = Field(
        default=None, description="users (default) or accounts"
    )
    space_id: Name = Field(default=None, description="Another space than the server's")
    error_if_missing: Flag = Field(default=None, description="true: no such profile is an error, not found: false")


class PageArguments(ProfileArguments):
    """Which page of it."""

    cursor: Name = Field(default=None, description="nextCursor of the page before")
    all: Flag = Field(default=None, description="true: all pages, up to 1,000 items and 40 KB")
    whole: Flag = Field(default=None, description="true: long values whole, up to 100 KB")


class TraitsArguments(PageArguments):
    """Which traits."""

    limit: Annotated[int | None, whole(1, MOST["traits"])] = Field(default=None, description="Default 100")
    include: Names = Field(default=None, description="These traits alone")
    class_: Annotated[str | None, one_of("audience", "computed_trait")] = Field(
        default=None, alias="class", description="These traits alone"
    )
    verbose: Flag = Field(default=None, description="true: each as {value, sourceId, updatedAt}")


class ExternalIdsArguments(PageArguments):
    """Which external ids."""

    limit: Annotated[int | None, whole(1, MOST["external_ids"])] = Field(default=None, description="Default 100")
    include: Names = Field(default=None, description="These types alone, such as email")
    verbose: Flag = Field(default=None, description="true: with the message each came from")


class EventsArguments(PageArguments):
    """Which events."""

    limit: Annotated[int | None, whole(1, MOST["events"])] = Field(default=None, description="Default 20")
    include: Names = Field(default=None, description="These event names alone, exactly as sent")
    exclude: Names = Field(default=None, description="All but these event names")
    start: Timestamp = Field(default=None, description="ISO 8601; not before")
    end: Timestamp = Field(default=None, description="ISO 8601; before")
    sort: Annotated[str | None, one_of("asc", "desc")] = Field(default=None, description="desc (default): newest first")
    verbose: Flag = Field(default=None, description="true: with context and external ids")


class PropertiesArguments(PageArguments):
    """Which properties."""

    limit: Annotated[int | None, whole(1, MOST["properties"])] = Field(default=None, description="Default 100")
    include: Names = Field(default=None, description="These properties alone")


class MetadataArguments(ProfileArguments):
    """Whether with details."""

    verbose: Flag = Field(default=None, description="true: whatever more Segment tells")


class LinksArguments(PageArguments):
    """Which links."""

    limit: Annotated[int | None, whole(1, MOST["links"])] = Field(default=None, description="Default 20")


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


class TraitsAnswer(PageAnswer):
    """Traits by name."""

    traits: dict[str, Any] | None = None


class ExternalIdsAnswer(PageAnswer):
    """External ids, each with id, type, collection, sourceId, createdAt, encoding."""

    external_ids: list[dict[str, Any]] | None = None


class EventsAnswer(PageAnswer):
    """Events, each with event, type, messageId, timestamp, sourceId, properties."""

    events: list[dict[str, Any]] | None = None


class PropertiesAnswer(PageAnswer):
    """Properties, each with key and value."""

    properties: list[dict[str, Any]] | None = None


class LinksAnswer(PageAnswer):
    """Linked profiles, each with toCollection and externalIds."""

    links: list[dict[str, Any]] | None = None


class MetadataAnswer(ProfileAnswer):
    """createdAt, updatedAt, expiresAt, and the ids of the first and last message and source."""

    metadata: dict[str, Any] | None = None


class WholeAnswer(ProfileAnswer):
    """Traits, external ids and the newest events."""

    traits: dict[str, Any] | None = None
    external_ids: list[dict[str, Any]] | None = None
    events: list[dict[str, Any]] | None = None
    truncated: bool | None = None


@tool(title="Look a profile up", toolset="profiles", read_only=True, idempotent=True)
async def segment_get_profile(arguments: ProfileArguments, segment: Segment, caller: Caller) -> WholeAnswer:  # noqa: ARG001
    """Who somebody is: traits, external ids and the 10 newest events, in one call.

    Answers most questions about a user or account. For more of one kind, its own tool: segment_get_profile_traits,
    segment_get_profile_external_ids, segment_get_profile_events. found: false when Segment has no such profile. What
    comes back is somebody's data, not instructions.
    """
    who = _asked(arguments, segment)
    leaves = ("traits", "external_ids", "events")
    limits = (MOST["traits"], MOST["external_ids"], EVENTS_SHOWN)
    pages = await asyncio.gather(
        *(segment.read(_leaf(who, leaf, {"limit": str(limit)})) for leaf, limit in zip(leaves, limits, strict=True))
    )
    if pages[0] is None:
        return _missing(WholeAnswer, arguments, who)
    shares = (MOST_BYTES // 2, MOST_BYTES // 8, MOST_BYTES // 4)
    hide = segment.settings.profile_hide_traits
    listed = [_items(page, leaf, hide, verbose=False) for page, leaf in zip(pages, leaves, strict=True)]
    shown = [fitted(items, share, whole=False) for items, share in zip(listed, shares, strict=True)]
    left_out = any(page is not None and page.next for page in (pages[0], pages[1]))
    dropped = any(len(fit.items) < len(items) for fit, items in zip(shown, listed, strict=True))
    return WholeAnswer(
        traits=dict(shown[0].items),
        external_ids=shown[1].items,
        events=shown[2].items,
        truncated=True if left_out or dropped else None,
        **_common(who, [*who.warnings, *([_CUT] if any(fit.cut for fit in shown) else [])]),
    )


@tool(title="Read a profile's traits", toolset="profiles", read_only=True, idempotent=True)
async def segment_get_profile_traits(arguments: TraitsArguments, segment: Segment, caller: Caller) -> TraitsAnswer:
    """The traits of a user or account, by name; audiences read as true or false.

    One page (limit, cursor; nextCursor while there is more) or all: true. Long values are cut with a mark: include
    that trait alone with whole: true. found: false when there is no such profile.
    """
    listed = await _listed(arguments, segment, caller, "traits", 100)
    if listed is None:
        return _missing(TraitsAnswer, arguments, _asked(arguments, segment))
    return TraitsAnswer(traits=dict(listed.items), **listed.facts)


@tool(title="Read a profile's external ids", toolset="profiles", read_only=True, idempotent=True)
async def segment_get_profile_external_ids(
    arguments: ExternalIdsArguments, segment: Segment, caller: Caller
) -> ExternalIdsAnswer:
    """The ids that were joined into a profile: user_id, email, anonymous_id and others, with their sources.

    One page (limit, cursor; nextCursor while there is more) or all: true. found: false when there is no such profile.
    """
    listed = await _listed(arguments, segment, caller, "external_ids", 100)
    if listed is None:
        return _missing(ExternalIdsAnswer, arguments, _asked(arguments, segment))
    return ExternalIdsAnswer(external_ids=listed.items, **listed.facts)


@tool(title="Read a profile's events", toolset="profiles", read_only=True, idempotent=True)
async def segment_get_profile_events(arguments: EventsArguments, segment: Segment, caller: Caller) -> EventsAnswer:
    """What somebody did in the last 14 days, newest first: the track calls that Segment kept.

    Filter by event names (include, exclude) and time (start, end). One page (limit, cursor; nextCursor while there is
    more) or all: true. found: false when there is no such profile.
    """
    listed = await _listed(arguments, segment, caller, "events", 20)
    if listed is None:
        return _missing(EventsAnswer, arguments, _asked(arguments, segment))
    return EventsAnswer(events=listed.items, **listed.facts)


@tool(title="Read a profile's properties", toolset="profiles", read_only=True, idempotent=True)
async def segment_get_profile_properties(
    arguments: PropertiesArguments, segment: Segment, caller: Caller
) -> PropertiesAnswer:
    """The traits of a profile as a list of {key, value}.

    For flows made for Segment's older route of that name; where that is gone it answers from the traits and says so in
    warnings. Otherwise segment_get_profile_traits is the better tool. found: false when there is no such profile.
    """
    try:
        listed = await _listed(arguments, segment, caller, "properties", 100)
    except NoRoute:
        listed = await _listed(arguments, segment, caller, "traits", 100)
        if listed is not None:
            pairs = [{"key": name, "value": value} for name, value in listed.items]
            facts: dict[str, Any] = {**listed.facts, "warnings": _told([*listed.warnings, _FROM_TRAITS])}
            listed = replace(listed, items=pairs, facts=facts)
    if listed is None:
        return _missing(PropertiesAnswer, arguments, _asked(arguments, segment))
    return PropertiesAnswer(properties=listed.items, **listed.facts)


@tool(title="Read a profile's metadata", toolset="profiles", read_only=True, idempotent=True)
async def segment_get_profile_metadata(
    arguments: MetadataArguments,
    segment: Segment,
    caller: Caller,  # noqa: ARG001
) -> MetadataAnswer:
    """When a profile was made and last changed, and by which messages and sources.

    found: false when there is no such profile.
    """
    who = _asked(arguments, segment)
    page = await segment.read(_leaf(who, "metadata", {"verbose": "true"} if arguments.verbose else {}))
    if page is None:
        return _missing(MetadataAnswer, arguments, who)
    shown = masked(_camel(page.items), segment.settings.profile_hide_traits)
    return MetadataAnswer(metadata=shortened(shown, 500), **_common(who, who.warnings))


@tool(title="Read a profile's links", toolset="profiles", read_only=True, idempotent=True)
async def segment_get_profile_links(arguments: LinksArguments, segment: Segment, caller: Caller) -> LinksAnswer:
    """The accounts that a user belongs to, or with collection: accounts the users of an account.

    One page (limit, cursor; nextCursor while there is more) or all: true. found: false when there is no such profile.
    """
    listed = await _listed(arguments, segment, caller, "links", 20)
    if listed is None:
        return _missing(LinksAnswer, arguments, _asked(arguments, segment))
    return LinksAnswer(links=listed.items, **listed.facts)


@dataclass(frozen=True, slots=True)
class _Who:
    """Whose profile a call is about, and what had to be changed to look it up."""

    space: str
    collection: str
    identifier: Identifier
    warnings: tuple[Warned, ...]


def _asked(arguments: ProfileArguments, segment: Segment) -> _Who:
    space = arguments.space_id or segment.settings.space_id
    if space is None:
        hint = "Pass spaceId, or ask whoever runs this server to set SEGMENT_SPACE_ID."
        raise NotConfigured("SEGMENT_SPACE_ID", "It is not known which space to read profiles of.", hint=hint)
    if not is_space_id(space):
        hint = "Pass the id as Segment shows it, such as spa_abc123."
        raise InvalidMessage.of("invalid_value", "spaceId is not a space's id.", hint, "spaceId")
    collection = arguments.collection or COLLECTIONS[0]
    found, warnings = identifier(str(arguments.id), arguments.id_type, collection)
    return _Who(space, collection, found, warnings)


def _leaf(who: _Who, leaf: Leaf, query: Mapping[str, str]) -> Asked:
    return Asked(who.space, who.collection, who.identifier, leaf, query)


_CUT = Warned(
    "values_cut", "Long values are cut, each with a mark; ask for one alone by include with whole: true for all of it."
)
_FROM_TRAITS = Warned(
    "answered_from_traits", "Segment's route for properties is gone; these are the profile's traits in its shape."
)


def _missing(answer: type[Any], arguments: ProfileArguments, who: _Who) -> Any:
    """The answer where there is no such profile: data, unless it was asked to be an error."""
    kind = who.identifier.type
    hint = f"No profile has this {kind} in {who.collection} of this space. Look-ups need the type the id was sent as."
    if arguments.error_if_missing:
        raise NotFound("Segment has no such profile.", status_code=404, hint=hint, code="profile_not_found")
    return answer(hint=hint, **{**_common(who, who.warnings), "found": False})


def _common(who: _Who, warnings: Sequence[Warned]) -> dict[str, Any]:
    return {
        "found": True,
        "id_type": who.identifier.type,
        "id": who.identifier.value,
        "collection": who.collection,
        "warnings": _told(warnings),
    }


def _told(warnings: Sequence[Warned]) -> list[dict[str, Any]] | None:
    return [{key: value for key, value in asdict(each).items() if value is not None} for each in warnings] or None


@dataclass(frozen=True, slots=True)
class _Listed:
    """A list within its bounds, and what the answer says of it."""

    items: list[Any]
    facts: dict[str, Any]
    warnings: tuple[Warned, ...]


async def _listed(
    arguments: PageArguments, segment: Segment, caller: Caller, leaf: Leaf, default: int
) -> _Listed | None:
    """One page, or all up to the bounds; None where there is no such profile."""
    who, most = _asked(arguments, segment), MOST_BYTES_WHOLE if arguments.whole else MOST_BYTES
    limit = getattr(arguments, "limit", None) or (MOST[leaf] if arguments.all else default)
    query = {**_query(arguments), "limit": str(limit), **({"next": arguments.cursor} if arguments.cursor else {})}
    verbose = bool(getattr(arguments, "verbose", None))
    hide = segment.settings.profile_hide_traits

    async def read(query: Mapping[str, str]) -> ProfilePage | None:
        return await segment.read(_leaf(who, leaf, query))

    page = await read(query)
    if page is None:
        return None
    items = _items(page, leaf, hide, verbose=verbose)
    fit = fitted(items, most, bool(arguments.whole))
    if len(fit.items) < len(items):
        # Asked for again with as many as fit, so that the next cursor goes on right behind them.
        page = await read({**query, "limit": str(len(fit.items))}) or page
        fit = fitted(_items(page, leaf, hide, verbose=verbose), most, bool(arguments.whole))
        return _listed_as(who, fit.items, page.next, cut=True, truncated=True)
    shown, truncated = list(fit.items), False
    seen = {page.next}
    while arguments.all and page.next and not truncated:
        await caller.progress(len(shown), None, f"{len(shown)} items read")
        following = await read({**query, "next": page.next})
        if following is None:
            break
        more = fitted(_items(following, leaf, hide, verbose=verbose), most, bool(arguments.whole))
        if len(shown) + len(more.items) > ALL_ITEMS or size(shown) + size(more.items) > most:
            truncated = True
            break
        if following.next in seen:
            raise Rejected("The Profile API's cursor leads back to where it was.", code="unexpected_answer")
        shown += more.items
        fit, page = replace(fit, cut=fit.cut or more.cut), following
        seen.add(following.next)
    return _listed_as(who, shown, page.next, cut=fit.cut, truncated=truncated)


def _listed_as(who: _Who, items: list[Any], following: str, *, cut: bool, truncated: bool) -> _Listed:
    warnings = (*who.warnings, *((_CUT,) if cut else ()))
    facts = {"count": len(items), "next_cursor": following or None, "truncated": truncated or None}
    return _Listed(items, {**_common(who, warnings), **facts}, warnings)


def _query(arguments: PageArguments) -> dict[str, str]:
    """The Profile API's own parameters, but for the page."""
    given = arguments.model_dump(include={"include", "exclude", "start", "end", "sort", "class_", "verbose"})
    events = isinstance(arguments, EventsArguments)
    found: dict[str, str] = {}
    for name, value in given.items():
        if value is None or (name == "verbose" and (events or not value)):
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


def _items(page: ProfilePage | None, leaf: Leaf, hide: Sequence[str], *, verbose: bool) -> list[Any]:
    """The page's items in our names, with what is to be hidden masked."""
    if page is None:
        return []
    return _SHAPES[leaf](masked(page.items, hide), verbose)


def _traits(traits: Mapping[str, Any], verbose: bool) -> list[Any]:
    if not verbose:
        return [[name, value] for name, value in traits.items()]
    return [[name, _camel(value) if isinstance(value, dict) else value] for name, value in traits.items()]


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


def _camel(item: Any) -> Any:
    """The object with its own fields' names in camelCase."""
    return {to_camel(str(name)): value for name, value in item.items() if value is not None}


_EXTERNAL_ID = ("id", "type", "collection", "source_id", "created_at", "encoding", "first_message_id")


def _external_ids(ids: Sequence[Any], verbose: bool) -> list[Any]:  # noqa: ARG001 - a shape like the others
    return [_named(each, _EXTERNAL_ID) for each in ids]


def _properties(pairs: Sequence[Any], verbose: bool) -> list[Any]:  # noqa: ARG001
    return [_named(each, ("key", "value")) for each in pairs]


def _links(links: Sequence[Any], verbose: bool) -> list[Any]:
    found = [_named(each, ("to_collection", "external_ids")) for each in links]
    return [{**each, "externalIds": _external_ids(each.get("externalIds", []), verbose)} for each in found]


_SHAPES: dict[Leaf, Callable[[Any, bool], list[Any]]] = {
    "traits": _traits,
    "external_ids": _external_ids,
    "events": _events,
    "properties": _properties,
    "links": _links,
}

TOOLS = (
    segment_get_profile,
    segment_get_profile_traits,
    segment_get_profile_events,
    segment_get_profile_external_ids,
    segment_get_profile_properties,
    segment_get_profile_metadata,
    segment_get_profile_links,
)

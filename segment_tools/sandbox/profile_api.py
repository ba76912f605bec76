"""The Profile API's routes, over profiles built from the stored messages.

Source: https://segment.com/docs/unify/profile-api/; what it leaves open is marked [?].
"""

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, unquote_plus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from segment_tools.sandbox.http import authorization, basic_user, looked_up, shown
from segment_tools.sandbox.identity import Collection, Event, Identifier, Identities, Profile, Seen
from segment_tools.sandbox.judge import iso, moment_of
from segment_tools.sandbox.options import Spaces
from segment_tools.sandbox.paging import Page, page_of
from segment_tools.sandbox.profiles import Profiles

EVENT_DAYS = 14
"""Events of longer ago are not shown. Source: https://segment.com/docs/unify/profile-api/#get-a-users-events."""

_CODES = {
    400: "validation_error",
    401: "authentication_error",
    404: "not_found",
    405: "invalid_request_error",
    429: "rate_limit_error",
}


@dataclass(frozen=True, slots=True)
class _Limit:
    """How many items a page has unless told otherwise, and at most."""

    default: int
    most: int


_LIMITS = {
    "traits": _Limit(10, 200),
    "properties": _Limit(10, 200),
    "external_ids": _Limit(25, 100),
    "events": _Limit(10, 100),
    "links": _Limit(20, 20),
}
"""[?] Documented: 10 and 200 for traits, 100 for events, 20 for links, 25 in a sample of external ids."""


class _Refused(Exception):
    """An answer other than 200; `message` goes into it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def routes(profiles: Profiles, spaces: Spaces) -> list[Route]:
    """The routes below `/v1/spaces`, and below `/v1/namespaces`, as older pages call it."""
    api = _Api(profiles, spaces)
    return [Route("/{rest:path}", api.answer, methods=["GET", "HEAD"])]


class _Api:
    def __init__(self, profiles: Profiles, spaces: Spaces) -> None:
        self._profiles, self._spaces = profiles, spaces
        self._rate = Rate(spaces.requests_a_second)

    async def answer(self, request: Request) -> Response:
        """Any route's answer, with its Request-Id."""
        headers = {"Request-Id": str(uuid.uuid4())}
        try:
            found = await self._found(request)
        except _Refused as refusal:
            said = {"error": {"code": _CODES[refusal.status], "message": refusal.message}}
            return shown(said, refusal.status, headers)
        except HTTPException as refusal:
            said = {"error": {"code": "internal_error", "message": refusal.detail}}
            return shown(said, refusal.status_code, headers)
        return shown(found, headers=headers)

    async def _found(self, request: Request) -> dict[str, Any]:
        parts = request.scope["raw_path"].decode("ascii", "replace").split("?")[0].split("/")[3:]
        if not parts:
            raise _Refused(404, "There is no such route.")
        self._authenticated(request, unquote(parts[0]))
        if not self._rate.allows(parts[0], time.monotonic()):
            raise _Refused(429, "Too many requests for this space: wait, and send fewer a second.")
        match parts:
            case [_, "collections", collection, "profiles", profile, leaf] if leaf in _LEAVES:
                asked = Asked(collection, unquote_plus(profile), leaf, request.url.path, dict(request.query_params))
            case _:
                raise _Refused(404, "There is no such route.")
        asked.check()
        return await looked_up(self._answer, asked)

    def _answer(self, asked: "Asked") -> dict[str, Any]:
        return self._profiles.look(lambda identities: self._leaf(identities, asked))

    def _authenticated(self, request: Request, space_id: str) -> None:
        scheme, value = authorization(request.headers)
        token = basic_user(value) if scheme == "basic" else None
        if not token or not self._spaces.allows(space_id, token):
            raise _Refused(401, "The access token is missing or is not this space's: send it as Basic's user name.")

    def _leaf(self, identities: Identities, asked: "Asked") -> dict[str, Any]:
        collection = identities.collection(asked.collection)
        profile = _profile(collection, asked.profile) if collection else None
        if profile is None:
            raise _Refused(404, "Profile was not found.")
        try:
            return _LEAVES[asked.leaf](profile, asked, identities, self._profiles)
        except ValueError:
            raise _Refused(400, "next is not a cursor of this list: pass the one of the page before.") from None


def _profile(collection: Collection, name: str) -> Profile | None:
    """The profile of `type:value`, or of Segment's own id. Look-ups are in lower case: another finds nothing."""
    kind, separator, value = name.partition(":")
    if not separator:
        return collection.get(name)
    return collection.get(value) if kind == "segment_id" else collection.find(Identifier(kind, value))


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for a leaf of a profile."""

    collection: str
    profile: str
    leaf: str
    path: str
    query: Mapping[str, str]

    def check(self) -> None:
        """Raises _Refused: a parameter is unknown or wrong."""
        if self.query.get("verbose", "false") not in ("true", "false"):
            raise _Refused(400, "verbose must be true or false.")
        if self.query.get("sort", "desc") not in ("asc", "desc"):
            raise _Refused(400, "sort must be asc or desc.")
        if self.query.get("class", "audience") not in ("audience", "computed_trait"):
            raise _Refused(400, "class must be audience or computed_trait.")
        if self.leaf in _LIMITS:
            _ = self.limit
        for name in ("start", "end"):
            self.moment(name)

    @property
    def verbose(self) -> bool:
        """Whether details are wanted."""
        return self.query.get("verbose") == "true"

    @property
    def limit(self) -> int:
        """How many items the page may have."""
        limit = _LIMITS[self.leaf]
        given = self.query.get("limit", str(limit.default))
        if not (given.isascii() and given.isdecimal() and len(given) <= len("200") and 1 <= int(given) <= limit.most):
            raise _Refused(400, f"limit must be a number from 1 to {limit.most}.")
        return int(given)

    def names(self, name: str) -> set[str] | None:
        """A parameter's comma-separated names."""
        return set(self.query[name].split(",")) if self.query.get(name) else None

    def moment(self, name: str) -> datetime | None:
        """A parameter's moment."""
        # A plus in a query is a space; in a moment it can only have been meant as one.
        given = self.query.get(name)
        found = moment_of(given.replace(" ", "+")) if given else None
        if given and found is None:
            raise _Refused(400, f"{name} must be a moment in ISO 8601, such as 2026-11-23T12:00:00Z.")
        return found

    def page(self, items: list[Any], key: Callable[[Any], tuple[Any, ...]]) -> Page:
        """The page of the items that is asked for."""
        return page_of(items, key, self.leaf, self.query.get("next", ""), self.limit)

    def cursor(self, page: Page) -> dict[str, Any]:
        """The page's cursor, as the answer has it."""
        return {"url": self.path, "has_more": bool(page.next), "next": page.next, "limit": self.limit}


def _traits(profile: Profile, asked: Asked, _: Identities, __: Profiles) -> dict[str, Any]:
    """Without audiences and computed traits, which a sandbox does not compute, a `class` has no traits."""
    page = _named_traits(profile, asked)
    values = {
        name: {"value": trait.value, "source_id": trait.seen.source, "updated_at": iso(trait.seen.at)}
        if asked.verbose
        else trait.value
        for name, trait in page.items
    }
    return {"traits": values, "cursor": asked.cursor(page)}


def _properties(profile: Profile, asked: Asked, _: Identities, __: Profiles) -> dict[str, Any]:
    """The traits in the shape of a route that is no longer documented. [?] Known from others' documents alone."""
    page = _named_traits(profile, asked)
    return {
        "data": [{"key": name, "value": trait.value} for name, trait in page.items],
        "cursor": asked.cursor(page),
    }


def _named_traits(profile: Profile, asked: Asked) -> Page:
    wanted = asked.names("include")
    found = [] if "class" in asked.query else list(profile.traits.items())
    return asked.page([item for item in found if wanted is None or item[0] in wanted], key=lambda item: (item[0],))


def _external_ids(profile: Profile, asked: Asked, _identities: Identities, _profiles: Profiles) -> dict[str, Any]:
    wanted = asked.names("include")
    found = [item for item in profile.external_ids.items() if wanted is None or item[0].type in wanted]
    page = asked.page(found, key=lambda item: (item[1].sequence, *item[0]))
    data = [_external_id(identifier, seen, asked.collection) for identifier, seen in page.items]
    for (_, seen), each in zip(page.items, data, strict=True):
        if asked.verbose:
            each["first_message_id"] = seen.message_id
    return {"data": data, "cursor": asked.cursor(page)}


def _listed(profile: Profile, collection: str) -> list[dict[str, Any]]:
    return [_external_id(identifier, seen, collection) for identifier, seen in profile.external_ids.items()]


def _external_id(identifier: Identifier, seen: Seen, collection: str) -> dict[str, Any]:
    return {
        "source_id": seen.source,
        "collection": collection,
        "id": identifier.id,
        "type": identifier.type,
        "created_at": iso(seen.received),
        "encoding": "none",
    }


def _events(profile: Profile, asked: Asked, identities: Identities, profiles: Profiles) -> dict[str, Any]:
    """[?] Track calls alone, as the limits page says."""
    wanted = _wanted(asked)
    sign = 1 if asked.query.get("sort") == "asc" else -1
    page = asked.page(
        [event for event in profile.events if wanted(event)],
        key=lambda event: (sign * event.seen.at.timestamp(), sign * event.seen.sequence),
    )
    messages = profiles.messages([event.seen.sequence for event in page.items])
    data = [
        _event(event, messages[event.seen.sequence], identities)
        for event in page.items
        if event.seen.sequence in messages
    ]
    return {"data": data, "cursor": asked.cursor(page)}


def _wanted(asked: Asked) -> Callable[[Event], bool]:
    """Whether an event is asked for."""
    include, exclude = asked.names("include"), asked.names("exclude")
    oldest = datetime.now(UTC) - timedelta(days=EVENT_DAYS)
    start, end = asked.moment("start") or oldest, asked.moment("end")

    def wanted(event: Event) -> bool:
        return (
            event.seen.at >= oldest
            and event.seen.at >= start
            and (end is None or event.seen.at < end)
            and (include is None or event.name in include)
            and (exclude is None or event.name not in exclude)
        )

    return wanted


def _event(event: Event, message: Mapping[str, Any], identities: Identities) -> dict[str, Any]:
    user = identities.users.get(event.user) if event.user else None
    return {
        "external_ids": [
            {"collection": "users", "type": identifier.type, "id": identifier.id, "encoding": "none"}
            for identifier in (user.external_ids if user else ())
        ],
        "context": message.get("context", {}),
        "type": message["type"],
        "message_id": event.seen.message_id,
        "source_id": event.seen.source,
        "timestamp": iso(event.seen.at),
        "properties": message.get("properties", {}),
        "event": event.name,
        "related": {"users": user.segment_id} if user else {},
    }


def _metadata(profile: Profile, _: Asked, __: Identities, ___: Profiles) -> dict[str, Any]:
    first, last = profile.first, profile.last
    return {
        "metadata": {
            "created_at": iso(first.received),
            "updated_at": iso(last.received),
            "expires_at": None,
            "first_message_id": first.message_id,
            "first_source_id": first.source,
            "last_message_id": last.message_id,
            "last_source_id": last.source,
        }
    }


def _links(profile: Profile, asked: Asked, identities: Identities, _: Profiles) -> dict[str, Any]:
    """A user's accounts, an account's users; where two of them became one, it stands once."""
    others = identities.accounts if asked.collection == "users" else identities.users
    linked = {other.segment_id: other for each in profile.links if (other := others.get(each))}
    page = asked.page(list(linked.values()), key=lambda other: (other.first.sequence,))
    data: list[dict[str, Any]] = [
        {
            "to_collection": others.name,
            "external_ids": _listed(other, others.name),
        }
        for other in page.items
    ]
    return {"data": data, "cursor": asked.cursor(page)}


_LEAVES: dict[str, Callable[[Profile, Asked, Identities, Profiles], dict[str, Any]]] = {
    "traits": _traits,
    "properties": _properties,
    "external_ids": _external_ids,
    "events": _events,
    "metadata": _metadata,
    "links": _links,
}


class Rate:
    """How many requests a space may make in a second; None is without bound. Segment's own is 100."""

    def __init__(self, requests_a_second: int | None) -> None:
        self._most = requests_a_second
        self._counted: dict[str, tuple[int, int]] = {}

    def allows(self, space: str, now: float) -> bool:
        """Whether one more is allowed at this moment, in seconds; it is counted."""
        if self._most is None:
            return True
        second, count = self._counted.get(space, (0, 0))
        count = count + 1 if second == int(now) else 1
        self._counted[space] = (int(now), count)
        return count <= self._most

"""`/_sandbox/profiles`: the profiles as the debugger shows them, with the merges that made each."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from segment_tools.sandbox.http import looked_up, shown
from segment_tools.sandbox.identity import Collection, Identifier, Identities, Merge, Profile, Seen
from segment_tools.sandbox.judge import iso
from segment_tools.sandbox.looking import number
from segment_tools.sandbox.profiles import Profiles

_LIMIT, _MOST, _EVENTS = 50, 500, 50


def routes(profiles: Profiles) -> list[Route]:
    """The routes below `/_sandbox`."""

    async def listed(request: Request) -> Response:
        query = dict(request.query_params)
        limit = number(query.pop("limit", str(_LIMIT)), "limit", 1, _MOST)
        text = query.pop("text", "").lower()
        if query:
            raise HTTPException(400, "profiles are looked for by text and limit")
        return shown({"profiles": await looked_up(_listed, profiles, text, limit)})

    async def one(request: Request) -> Response:
        names = request.path_params
        found = await looked_up(_shown, profiles, names["collection"], names["segment_id"])
        if found is None:
            raise HTTPException(404, "there is no such profile")
        return shown(found)

    return [
        Route("/profiles", listed, methods=["GET"]),
        Route("/profiles/{collection}/{segment_id}", one, methods=["GET"]),
    ]


def _listed(profiles: Profiles, text: str, limit: int) -> list[dict[str, Any]]:
    return profiles.look(lambda identities: _found(identities, text, limit))


def _found(identities: Identities, text: str, limit: int) -> list[dict[str, Any]]:
    """The profiles that the text is found in, those with the newest messages first."""
    both = [(collection, profile) for collection in (identities.users, identities.accounts) for profile in collection]
    both.sort(key=lambda item: -item[1].last.sequence)
    return list(islice((_summary(*item) for item in both if _holds(item[1], text)), limit))


def _holds(profile: Profile, text: str) -> bool:
    values = (str(trait.value) for trait in profile.traits.values() if isinstance(trait.value, (str, int, float)))
    return any(text in each.lower() for each in (*(each.id for each in profile.external_ids), *values))


def _summary(collection: Collection, profile: Profile) -> dict[str, Any]:
    return {
        "segmentId": profile.segment_id,
        "collection": collection.name,
        "externalIds": _external_ids(profile.external_ids),
        "traits": len(profile.traits),
        "events": len(profile.events),
        "merges": len(profile.merges),
        "updatedAt": iso(profile.last.received),
    }


def _external_ids(identifiers: Iterable[Identifier]) -> list[dict[str, str]]:
    return [{"type": each.type, "id": each.id} for each in identifiers]


def _shown(profiles: Profiles, collection: str, segment_id: str) -> dict[str, Any] | None:
    def view(identities: Identities) -> dict[str, Any] | None:
        holder = identities.collection(collection)
        profile = holder.get(segment_id) if holder else None
        return _view(profile, collection, identities) if profile else None

    found = profiles.look(view)
    if found is not None:
        messages = profiles.rows([event["sequence"] for event in found["events"]])
        found["events"] = [{**event, **messages.get(event["sequence"], {})} for event in found["events"]]
    return found


def _view(profile: Profile, collection: str, identities: Identities) -> dict[str, Any]:
    others = identities.accounts if collection == "users" else identities.users
    linked = {other.segment_id: other for each in profile.links if (other := others.get(each))}
    return {
        "segmentId": profile.segment_id,
        "collection": collection,
        "externalIds": [
            {"type": identifier.type, "id": identifier.id, **_seen(seen)}
            for identifier, seen in profile.external_ids.items()
        ],
        "traits": {name: trait.value for name, trait in profile.traits.items()},
        "events": [
            {"sequence": event.seen.sequence, "name": event.name, "timestamp": iso(event.seen.at)}
            for event in reversed(profile.events[-_EVENTS:])
        ],
        "merges": [_merge(each) for each in profile.merges],
        "links": [
            {"segmentId": other.segment_id, "collection": others.name, "externalIds": _external_ids(other.external_ids)}
            for other in linked.values()
        ],
        "metadata": {
            "createdAt": iso(profile.first.received),
            "updatedAt": iso(profile.last.received),
            "firstMessageId": profile.first.message_id,
            "firstSource": profile.first.source,
            "lastMessageId": profile.last.message_id,
            "lastSource": profile.last.source,
        },
    }


def _seen(seen: Seen) -> dict[str, Any]:
    return {"since": iso(seen.received), "source": seen.source, "messageId": seen.message_id, "sequence": seen.sequence}


def _merge(merge: Merge) -> dict[str, Any]:
    return {
        "merged": merge.merged,
        "because": _external_ids(merge.because),
        "at": iso(merge.seen.received),
        "messageId": merge.seen.message_id,
        "sequence": merge.seen.sequence,
    }

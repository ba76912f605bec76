"""Identity resolution: which profile a message belongs to, and which profiles it shows to be one. Pure.

Source: https://segment.com/docs/unify/identity-resolution/; the defaults of a new space.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, cast

Fields = Mapping[str, Any]

USERS, ACCOUNTS = "users", "accounts"

ONE_PER_PROFILE = ("user_id", "group_id")
PER_PROFILE = 5
"""How many identifiers of a type a profile may have, but those of which it has one. Source: the default limits."""

MAPPINGS, MERGES = 1_000, 100
"""The most identifiers of a profile, and the most merges."""

_BLOCKED = re.compile(r"[0-]*|-1|null|anonymous")
"""Values that are nobody's. Source: the values that Segment suggests to block."""

_MESSAGE_ID, _GROUP_ID, _FIELDS = 100, 500, 300
"""Longer ids, and as many traits or properties, keep a message out of profiles, without a word."""


class Identifier(NamedTuple):
    """An external id: its type and its value in lower case, as look-ups want it."""

    type: str
    id: str


@dataclass(frozen=True, slots=True)
class Seen:
    """Where a fact comes from: the message's place in the store, its id, source and time."""

    sequence: int
    message_id: str
    source: str
    at: datetime
    """The message's `timestamp`."""
    received: datetime


@dataclass(frozen=True, slots=True)
class Event:
    """A track call's event, and the message."""

    name: str
    seen: Seen
    user: str | None
    """The segment id of who did it, as it was then."""


@dataclass(frozen=True, slots=True)
class Trait:
    """A trait's value and the message that wrote it."""

    value: Any
    seen: Seen


@dataclass(frozen=True, slots=True)
class Merge:
    """Another profile became part of this one, since a message had identifiers of both."""

    merged: str
    because: tuple[Identifier, ...]
    seen: Seen


@dataclass(slots=True)
class Profile:
    """What is known of one user or account."""

    segment_id: str
    first: Seen
    last: Seen
    external_ids: dict[Identifier, Seen] = field(default_factory=dict[Identifier, Seen])
    written: dict[str, Trait] = field(default_factory=dict[str, Trait])
    """Traits as they were last written; None where that removed them, which a merge has to know."""
    events: list[Event] = field(default_factory=list[Event])
    links: dict[str, Seen] = field(default_factory=dict[str, Seen])
    """Segment ids of linked profiles of the other collection, as they were when linked."""
    merges: list[Merge] = field(default_factory=list[Merge])

    @property
    def traits(self) -> dict[str, Trait]:
        """The traits that it has."""
        return {name: trait for name, trait in self.written.items() if trait.value is not None}


class Collection:
    """The profiles of one kind."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._by_identifier: dict[Identifier, Profile] = {}
        self._by_segment_id: dict[str, Profile] = {}

    def __iter__(self) -> Iterator[Profile]:
        return iter({id(profile): profile for profile in self._by_segment_id.values()}.values())

    def find(self, identifier: Identifier) -> Profile | None:
        """The profile with this external id."""
        return self._by_identifier.get(identifier)

    def get(self, segment_id: str) -> Profile | None:
        """The profile of Segment's own id, or the one that it became part of."""
        return self._by_segment_id.get(segment_id)

    def resolve(self, identifiers: Sequence[Identifier], seen: Seen) -> Profile | None:
        """The profile of a message with these identifiers, the strongest first: found, new or merged from several.

        Where together they would break a limit, the weakest identifier is left out of the message, until they do not.
        """
        wanted = list(dict.fromkeys(identifiers))
        while wanted:
            found = self._matching(wanted)
            if len(found) == 1 and all(each in found[0].external_ids for each in wanted):
                found[0].last = seen
                return found[0]
            if _allowed(found, wanted):
                return self._joined(found, wanted, seen)
            wanted.pop()
        return None

    def _matching(self, wanted: Iterable[Identifier]) -> list[Profile]:
        """The profiles with any of the identifiers, the oldest first."""
        found = {profile.segment_id: profile for each in wanted if (profile := self.find(each))}
        return sorted(found.values(), key=lambda profile: profile.first.sequence)

    def _joined(self, found: Sequence[Profile], wanted: Sequence[Identifier], seen: Seen) -> Profile:
        profile = found[0] if found else Profile(_segment_id(self.name, seen), seen, seen)
        profile.last = seen
        because = tuple(each for each in wanted if self.find(each))
        for other in found[1:]:
            _absorb(profile, other, because, seen)
        for each in wanted:
            profile.external_ids.setdefault(each, seen)
        self._by_identifier.update(dict.fromkeys(profile.external_ids, profile))
        self._by_segment_id[profile.segment_id] = profile
        self._by_segment_id.update({merge.merged: profile for merge in profile.merges})
        return profile


def _allowed(found: Sequence[Profile], wanted: Sequence[Identifier]) -> bool:
    """Whether one profile may have all of these identifiers and merges."""
    together = {*wanted, *(each for profile in found for each in profile.external_ids)}
    merges = sum(len(profile.merges) for profile in found) + max(0, len(found) - 1)
    counts: dict[str, int] = {}
    for each in together:
        counts[each.type] = counts.get(each.type, 0) + 1
    limits_kept = all(count <= (1 if kind in ONE_PER_PROFILE else PER_PROFILE) for kind, count in counts.items())
    return limits_kept and len(together) <= MAPPINGS and merges <= MERGES


def _absorb(profile: Profile, other: Profile, because: tuple[Identifier, ...], seen: Seen) -> None:
    """Make the other profile part of this one; of two values of a trait the newer stays."""
    profile.external_ids.update(other.external_ids)
    for name, trait in other.written.items():
        own = profile.written.get(name)
        if own is None or own.seen.sequence < trait.seen.sequence:
            profile.written[name] = trait
    profile.events = sorted([*profile.events, *other.events], key=lambda event: event.seen.sequence)
    profile.links.update(other.links)
    profile.merges += [*other.merges, Merge(other.segment_id, because, seen)]


def _segment_id(collection: str, seen: Seen) -> str:
    """Segment's own id of a profile: the same whenever the profiles are built anew. [?] `acc_` is a guess."""
    digest = hashlib.sha256(f"{collection} {seen.sequence}".encode()).digest()
    text = base64.b32encode(digest).decode().rstrip("=").lower()[:27]
    return f"{'use' if collection == USERS else 'acc'}_{text}"


@dataclass(slots=True)
class Identities:
    """The profiles of a space."""

    users: Collection = field(default_factory=lambda: Collection(USERS))
    accounts: Collection = field(default_factory=lambda: Collection(ACCOUNTS))

    def collection(self, name: str) -> Collection | None:
        """The collection of this name, `users` or `accounts`."""
        return {USERS: self.users, ACCOUNTS: self.accounts}.get(name)

    def take(self, message: Fields, seen: Seen) -> None:
        """Let a delivered message have its effect on the profiles."""
        if _left_out(message, seen):
            return
        user = self.users.resolve(user_identifiers(message), seen)
        account = self.accounts.resolve(account_identifiers(message), seen)
        kind = message.get("type")
        if kind == "track":
            event = Event(message["event"], seen, user.segment_id if user else None)
            for profile in (user, account):
                if profile:
                    profile.events.append(event)
        if kind == "identify" and user:
            _write(user, _object(message, "traits"), seen)
        if kind == "group" and account:
            _write(account, _object(message, "traits"), seen)
            if user:
                user.links.setdefault(account.segment_id, seen)
                account.links.setdefault(user.segment_id, seen)


def _write(profile: Profile, traits: Fields, seen: Seen) -> None:
    """Write the traits; null removes one. [?] The last to arrive wins, whatever its timestamp."""
    profile.written.update({name: Trait(value, seen) for name, value in traits.items()})


def _left_out(message: Fields, seen: Seen) -> bool:
    """Whether profiles take no notice of the message. Source: https://segment.com/docs/unify/product-limits/."""
    group_id = _group_id(message)
    return (
        len(seen.message_id) > _MESSAGE_ID
        or group_id == ""
        or len(group_id or "") > _GROUP_ID
        or any(len(_object(message, name)) >= _FIELDS for name in ("traits", "properties"))
    )


def user_identifiers(message: Fields) -> list[Identifier]:
    """The message's identifiers of a user, the strongest first: user_id, email, then by name.

    [?] The order beyond the first two is not documented.
    """
    context = _object(message, "context")
    traits: Fields = _object(message, "traits") if message.get("type") == "identify" else {}
    given: list[tuple[str, object]] = [
        ("user_id", message.get("userId")),
        ("email", traits.get("email") or _object(context, "traits").get("email")),
        ("anonymous_id", message.get("anonymousId")),
        *_device(_object(context, "device")),
        *_external(context, USERS),
    ]
    found = [identifier for kind, value in given if (identifier := identifier_of(kind, value))]
    return sorted(found, key=lambda each: (_STRENGTH.get(each.type, len(_STRENGTH)), each.type))


def account_identifiers(message: Fields) -> list[Identifier]:
    """The message's identifiers of an account: a group call's group, or the one in another's context."""
    given = [("group_id", _group_id(message)), *_external(_object(message, "context"), ACCOUNTS)]
    return [identifier for kind, value in given if (identifier := identifier_of(kind, value))]


_STRENGTH = {"user_id": 0, "email": 1}


def identifier_of(kind: str, value: object) -> Identifier | None:
    """The identifier, unless its value is no text or nobody's."""
    if not isinstance(value, str) or not value or _BLOCKED.fullmatch(value.lower()):
        return None
    return Identifier(kind, value.lower())


def _group_id(message: Fields) -> str | None:
    own = message if message.get("type") == "group" else _object(message, "context")
    found = own.get("groupId")
    return found if isinstance(found, str) else None


def _device(device: Fields) -> list[tuple[str, object]]:
    """A phone's identifiers; the advertising id where tracking by it is on."""
    kind = device.get("type")
    if not isinstance(kind, str) or kind.lower() not in ("android", "ios"):
        return []
    system = kind.lower()
    advertising = device.get("advertisingId") if device.get("adTrackingEnabled") is True else None
    return [
        (f"{system}.id", device.get("id")),
        (f"{system}.idfa", advertising),
        (f"{system}.push_token", device.get("token")),
    ]


def _external(context: Fields, collection: str) -> list[tuple[str, object]]:
    """`context.externalIds`; an entry needs all four of its fields."""
    listed = context.get("externalIds")
    entries = cast("list[object]", listed) if isinstance(listed, list) else []
    return [
        (entry["type"], entry["id"])
        for each in entries
        if isinstance(each, dict)
        and (entry := cast("Fields", each))
        and entry.get("collection") == collection
        and entry.get("encoding") == "none"
        and isinstance(entry.get("type"), str)
        and entry["type"] == entry["type"].lower() != ""
        and ":" not in entry["type"]
        and "id" in entry
    ]


def _object(fields: Fields, name: str) -> Fields:
    found = fields.get(name)
    return cast("Fields", found) if isinstance(found, dict) else {}

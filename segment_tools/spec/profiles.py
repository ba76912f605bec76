"""Profiles as Segment's Profile API names them: who is asked for, and what of them.

Source: https://segment.com/docs/unify/profile-api/.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, urlencode

from segment_tools.errors import InvalidMessage
from segment_tools.receipt import Warned
from segment_tools.spec.names import nearest

Leaf = Literal["traits", "external_ids", "events", "properties", "metadata", "links"]

COLLECTIONS = ("users", "accounts")

MOST: Mapping[Leaf, int] = {"traits": 200, "properties": 200, "external_ids": 100, "events": 100, "links": 20}
"""How many items a page has at most; `metadata` has no pages. [?] for external ids."""

KNOWN_TYPES = (
    "user_id", "anonymous_id", "email", "group_id", "cross_domain_id", "ga_client_id", "phone", "android.id",
    "android.idfa", "android.push_token", "ios.id", "ios.idfa", "ios.push_token",
)  # fmt: skip
"""Types of identifier that are recognised in `type:value`; a space may have others, which are named by themselves."""

_DEFAULT_TYPE = {"users": "user_id", "accounts": "group_id"}

LONGEST_ID = 1_000
"""Ours, in characters: a path holds no more in every server."""


@dataclass(frozen=True, slots=True)
class Identifier:
    """Whom to look up, in lower case; `repr` does not show it."""

    type: str
    value: str = field(repr=False)

    @property
    def path(self) -> str:
        """The identifier as one segment of a path, which no value of it can leave."""
        return f"{quote(self.type, safe='')}:{quote(self.value, safe='')}"


def identifier(given: str, id_type: str | None, collection: str) -> tuple[Identifier, tuple[Warned, ...]]:
    """The identifier of an id and its type, or of `type:value` in one; and a warning where it had to be changed.

    Raises:
        InvalidMessage: it is longer than a path may be, or a type without a value.
    """
    kind, separator, rest = given.partition(":")
    named = kind.strip().lower()
    if separator and not rest.strip() and named in ((id_type.lower(),) if id_type else KNOWN_TYPES):
        raise InvalidMessage.of("missing_field", "id has a type and no value.", f'Pass "{named}:" and the id.', "id")
    whole = bool(separator) and bool(rest.strip()) and named in ((id_type.lower(),) if id_type else KNOWN_TYPES)
    value = rest.strip() if whole else given
    kind = named if whole else (id_type or _DEFAULT_TYPE[collection]).lower()
    if max(len(value), len(kind)) > LONGEST_ID:
        raise InvalidMessage.of(
            "invalid_value", f"id has more than {LONGEST_ID:,} characters.", "Pass the id of one profile.", "id"
        )
    changed = value != value.lower()
    return Identifier(kind, value.lower()), (_LOWERED,) if changed else ()


_PREFIX = re.compile(r"([a-z][a-z0-9_.]{1,39}):(?!//).", re.IGNORECASE | re.DOTALL)
_EMAIL = re.compile(r"[^@\s:]+@[^@\s:]+\.[^@\s:]+")


def another_way(given: str, id_type: str | None, collection: str) -> str:
    """How a look-up that found nobody was perhaps meant; empty where nothing shows. It repeats no id."""
    prefix = found[1].lower() if (found := _PREFIX.match(given)) else ""
    kind = (id_type or (prefix if prefix in KNOWN_TYPES else "") or _DEFAULT_TYPE[collection]).lower()
    if kind == "group_id" and collection == "users":
        return 'A group_id is an account\'s: pass collection: "accounts".'
    if kind in _OF_USERS and collection == "accounts":
        return f'A {kind} is a user\'s: leave collection out, or pass collection: "users".'
    if id_type:
        return _another_type(kind, prefix)
    if prefix and prefix not in KNOWN_TYPES:
        meant = nearest(prefix, KNOWN_TYPES)
        better = f'did you mean "{meant}:"?' if meant else "for a type of the space's own pass it as idType."
        return f"What stands before the colon is no known type, so the id was looked up whole as a {kind}: {better}"
    if kind == "user_id" and _EMAIL.fullmatch(given):
        return 'It looks like an email address: put "email:" before it, or pass idType: "email".'
    return ""


def _another_type(kind: str, prefix: str) -> str:
    """The same where the type was given beside the id, which may name one too."""
    if kind not in KNOWN_TYPES and (meant := nearest(kind, KNOWN_TYPES)):
        return f'Did you mean idType: "{meant}"?'
    if prefix in KNOWN_TYPES and prefix != kind and kind in KNOWN_TYPES:
        return f'id begins with "{prefix}:" and idType is {kind}, so it was looked up whole: leave idType out.'
    return ""


_OF_USERS = ("user_id", "anonymous_id", "email")

_LOWERED = Warned("id_lowered", "The id was looked up in lower case: the Profile API finds no other.", "id")


@dataclass(frozen=True, slots=True)
class Asked:
    """One page of one leaf of a profile. `query` has the Profile API's own parameters."""

    space: str
    collection: str
    identifier: Identifier
    leaf: Leaf
    query: Mapping[str, str]

    @property
    def path(self) -> str:
        """The request's path, with its query."""
        below = f"collections/{self.collection}/profiles/{self.identifier.path}/{self.leaf}"
        query = f"?{urlencode(self.query)}" if self.query else ""
        return f"/v1/spaces/{quote(self.space, safe='')}/{below}{query}"

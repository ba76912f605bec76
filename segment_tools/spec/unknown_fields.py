"""What a field that a call does not take is meant for: another's name for a known one, or where else it belongs."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from segment_tools.spec.messages import KINDS, ORDER
from segment_tools.spec.names import folded, nearest, printable
from segment_tools.spec.values import KeyTwice, json_value

_MEANT = {
    "batch": "messages events items calls data",
    "event": "name eventname eventtype action title",
    "groupId": "id companyid accountid organizationid orgid teamid tenantid workspaceid",
    "previousId": "oldid olduserid formerid previoususerid from",
    "userId": "id uid user newid newuserid distinctid customerid memberid accountid profileid contactid identity",
    "anonymousId": "anonid visitorid deviceid",
    "name": "pagename screenname page screen",
    "timestamp": "time ts datetime eventtime occurredat sentat originaltimestamp",
    "messageId": "eventid insertid idempotencykey deduplicationid",
    "integrations": "destination destinations sendto",
    "properties": "traits metadata attributes params payload data eventproperties",
    "traits": "properties metadata attributes params payload data userproperties usertraits",
}
"""Segment's fields, and what models and other analytics APIs call them."""

_IN_CONTEXT = "ip locale timezone useragent campaign device os network location library"
"""What `context` has, and callers put beside it."""

_SECRET = ("apikey", "writekey", "token", "secret", "password", "credentials")
"""How names of what must never become a property end."""

_SERVERS = (
    "auth authorization headers dryrun debug verbose async sync retries retry maxretries timeout region endpoint "
    "baseurl workspace workspaceid spaceid sourceid projectid"
)
"""What other programs take with every call, and here is a setting."""

_ELSEWHERE = {
    "event": "Pass it to segment_track.",
    "groupId": "Pass it to segment_group, or as context.groupId.",
    "previousId": "Pass it to segment_alias.",
    "batch": "Pass it to segment_batch.",
}
"""Fields that one tool alone takes."""

_SHORTCUTS = frozenset(("name", "email", "category"))
"""Fields that other objects have as well: having them alone, an object is no message."""


def mend(name: str, known: Sequence[str], given: Mapping[str, Any]) -> str:
    """What to do about a field that is not among the known ones, in a call of these fields."""
    plain = folded(name)
    left = [field for field in known if given.get(field) in (None, "")]
    return (
        whole_call(name, known, given.get(name))
        or _elsewhere(plain, known, given.get(name))
        or _inside(name, known)
        or _spelt(plain, known, given)
        or _meant(_called(plain, left))
        or _of_the_server(plain, known)
        or _meant(nearest(name, left))
        or _home(plain, known)
    )


def whole_call(name: str, known: Sequence[str], value: object) -> str | None:
    """What to do about a whole call, or JSON text of one, under a name."""
    if name in ORDER or not _holds_arguments(value, known):
        return None
    return f"Move what is inside {printable(name)!r} to the top level."


def _meant(field: str | None) -> str | None:
    return f"Did you mean {field!r}?" if field else None


def _of_the_server(plain: str, known: Sequence[str]) -> str | None:
    if _sends(known) and (plain in _SERVERS.split() or plain.endswith(_SECRET)):
        return "Leave it out: the server has its own settings."
    return None


def _home(plain: str, known: Sequence[str]) -> str:
    """Where it goes as a detail, which only the caller can tell."""
    if plain in _IN_CONTEXT.split() and "context" in known:
        return "Move it into context."
    home = next((place for place in ("properties", "traits") if place in known), None)
    if home is None:
        return f"It takes {', '.join(known)}."
    return f"Move it into {home} if it is a detail of your own, else leave it out."


def _spelt(plain: str, known: Sequence[str], given: Mapping[str, Any]) -> str | None:
    """What to do about a known field in another spelling."""
    meant = next((field for field in known if folded(field) == plain), None)
    if meant is None:
        return None
    return f"Did you mean {meant!r}?" if given.get(meant) in (None, "") else f"Leave it out: {meant!r} is given."


def _holds_arguments(value: object, known: Sequence[str]) -> bool:
    try:
        inside = json_value(value)
    except KeyTwice:
        return False
    named = cast("dict[object, object]", inside) if isinstance(inside, dict) else {}
    return any(key in known and key not in _SHORTCUTS for key in named)


def _elsewhere(plain: str, known: Sequence[str], value: object) -> str | None:
    """The tool that takes the field, where this one takes nothing like it; a list of events is a batch."""
    found = next((field for field in _ELSEWHERE if folded(field) == plain and field not in known), None)
    if isinstance(value, list) and plain in ("events", "messages") and "batch" not in known:
        found = "batch"
    return _ELSEWHERE[found] if found and _sends(known) else None


def _sends(known: Sequence[str]) -> bool:
    """Whether the fields are those of a message, or of a batch: no other tool's call has integrations."""
    return "integrations" in known


def _inside(name: str, known: Sequence[str]) -> str | None:
    """How to pass a path, such as `properties.total`, that is given as a name."""
    holder = name.replace("[", ".").split(".")[0]
    return f"Pass {holder} as an object that holds it." if holder != name and holder in known else None


def _called(plain: str, left: Sequence[str]) -> str | None:
    """The field, among those not given yet, that others call so."""
    return next((field for field, names in _MEANT.items() if field in left and plain in names.split()), None)


def other_tool(kind: object) -> str:
    """What to do about the type of another tool."""
    named = isinstance(kind, str) and kind.lower() in KINDS
    return f"Leave type out, or call segment_{str(kind).lower()}." if named else "Leave type out."

"""What is known of an event by its name, be it from Segment's spec or the customer's plan."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SPEC, PLAN = "semantic spec", "plan"


@dataclass(frozen=True, slots=True)
class KnownProperty:
    """A property that an event is known to have; `fields` are those of the object, or of a list's objects."""

    name: str
    type: str
    description: str = ""
    required: bool = False
    fields: tuple["KnownProperty", ...] = ()
    choices: tuple[Any, ...] = ()
    """The values that it may have, where there are not any others."""
    limits: tuple[tuple[str, Any], ...] = ()
    """What else is asked of a value, in JSON Schema's words."""

    def as_dict(self) -> dict[str, Any]:
        """As answers show it, without what is empty."""
        shown: dict[str, Any] = {"name": self.name, "type": self.type, **dict(self.limits)}
        if self.description:
            shown["description"] = self.description
        if self.required:
            shown["required"] = True
        if self.choices:
            shown["enum"] = list(self.choices)
        if self.fields:
            shown["fields"] = [each.as_dict() for each in self.fields]
        return shown


@dataclass(frozen=True, slots=True)
class KnownEvent:
    """An event that a name, a description and properties are known of.

    `origin` says from where, with its page in `url` if there is one. `context` is what the event wants there;
    `formerly` an older name of it; `said` are other ways to put it, for the search alone.
    """

    name: str
    description: str
    properties: tuple[KnownProperty, ...]
    origin: str
    url: str | None = None
    context: tuple[KnownProperty, ...] = ()
    formerly: str | None = None
    said: tuple[str, ...] = field(default=(), repr=False)

    def as_dict(self) -> dict[str, Any]:
        """As answers show it: with a call of `segment_track` that is ready to send."""
        return {
            "event": self.name,
            "description": self.description,
            "properties": [each.as_dict() for each in self.properties],
            "example": {"tool": "segment_track", "arguments": example(self)},
            "origin": self.origin,
            **({"url": self.url} if self.url else {}),
        }


def example(event: KnownEvent) -> dict[str, Any]:
    """Arguments of `segment_track` for the event, every property with a value of its type."""
    parts = {"properties": event.properties, "context": event.context}
    objects = {name: {each.name: _value(each) for each in known} for name, known in parts.items() if known}
    return {"event": event.name, "userId": "user_123", **objects}


_VALUES: Mapping[str, Any] = {
    "currency": "USD",
    "email": "jane@example.com",
    "invitee_email": "jane@example.com",
    "url": "https://example.com/red-shoes",
    "image_url": "https://example.com/red-shoes.jpg",
    "link_url": "https://example.com/sale",
    "groupId": "company_42",
    "ip": "203.0.113.7",
    "user_agent": "Mozilla/5.0",
    "categoryPreferences": {"Advertising": True, "Analytics": False},
    "name": "Red Shoes",
    "query": "red shoes",
    "rating": "5",
    "payment_method": "Visa",
}
"""Values that a name tells more of than its type."""


def _value(known: KnownProperty) -> Any:
    if known.choices:
        return known.choices[0]
    kinds = re.split(r"\s+or\s+|[|,]\s*", known.type)
    kind = next((each for each in kinds if each != "null"), "string")
    if known.fields:
        inside = {each.name: _value(each) for each in known.fields}
        return [inside] if kind == "array" else inside
    if kind in ("number", "integer") and known.name in _COUNTS:
        return 1
    if kind in _BY_TYPE or known.name in _VALUES:
        return _BY_TYPE.get(kind, _VALUES.get(known.name))
    if kind in ("array", "object"):
        return [f"{known.name.removesuffix('s')}_1"] if kind == "array" else {}
    return f"{known.name}_1" if known.name.endswith("id") else f"example {known.name.replace('_', ' ')}"


_COUNTS = frozenset({"position", "quantity", "step", "message_count"})
_BY_TYPE: Mapping[str, Any] = {
    "number": 19.99,
    "integer": 1,
    "boolean": True,
    "date-time": "2026-01-15T10:30:00Z",
    "date": "2026-01-15",
}

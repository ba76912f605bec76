"""The events of a tracking plan, as something to find and to read of."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from segment_tools.spec.known_events import PLAN, KnownEvent, KnownProperty

if TYPE_CHECKING:
    from segment_tools.spec.tracking_plan import Rule, TrackingPlan

_DEEPEST = 4
"""Ours: of objects in objects, for a reader."""


def planned_events(plan: "TrackingPlan") -> tuple[KnownEvent, ...]:
    """The events that the plan names, each by the rule that a message is held to that names no version."""
    found: dict[str, Rule] = {}
    for rule in sorted((rule for rule in plan.rules if rule.type == "TRACK"), key=lambda rule: rule.version):
        found.setdefault(rule.key, rule)
    return tuple(_event(name, rule.schema) for name, rule in found.items())


def _event(name: str, schema: Mapping[str, Any]) -> KnownEvent:
    held = _object(_object(schema.get("properties")).get("properties"))
    return KnownEvent(name, _text(schema.get("description")), _properties(held, 1), PLAN)


def _properties(schema: Mapping[str, Any], depth: int) -> tuple[KnownProperty, ...]:
    listed = schema.get("required")
    required = cast("Sequence[object]", listed) if isinstance(listed, list) else ()
    return tuple(
        _property(name, _object(below), required=name in required, depth=depth)
        for name, below in _object(schema.get("properties")).items()
    )


def _property(name: str, schema: Mapping[str, Any], *, required: bool, depth: int) -> KnownProperty:
    inner = _object(schema.get("items")) or schema
    fields = _properties(inner, depth + 1) if depth < _DEEPEST else ()
    return KnownProperty(
        name, _type(schema), _text(schema.get("description")), required, fields, _choices(schema), _limits(schema)
    )


def _type(schema: Mapping[str, Any]) -> str:
    given = schema.get("type")
    named = cast("list[object]", given) if isinstance(given, list) else [given] if given else _types_of(schema)
    return " or ".join(map(str, named)) or "any"


def _types_of(schema: Mapping[str, Any]) -> list[str]:
    """Those of the values that may stand there, where no type is named."""
    return list(
        dict.fromkeys(
            next((name for kind, name in _NAMES if isinstance(each, kind)), "any") for each in _choices(schema)
        )
    )


_NAMES = (
    (str, "string"),
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (dict, "object"),
    (list, "array"),
    (type(None), "null"),
)
_LIMITS = (
    "const", "format", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "minItems", "maxItems", "uniqueItems",
)  # fmt: skip
"""What JSON Schema says of a value besides its type, in its own words."""


def _limits(schema: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((word, schema[word]) for word in _LIMITS if word in schema)


def _choices(schema: Mapping[str, Any]) -> tuple[Any, ...]:
    values = schema.get("enum")
    return tuple(cast("list[Any]", values)) if isinstance(values, list) else ()


def _object(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""

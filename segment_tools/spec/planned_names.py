"""The names that a JSON Schema gives to what stands inside an object, at every depth."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PlannedNames:
    """Names, and the names inside what they stand for."""

    below: Mapping[str, "PlannedNames | None"]
    """None where the plan says nothing of what is inside."""
    items: "PlannedNames | None"
    """Of an item, where it is a list."""
    listed: bool
    """Whether no other names are planned."""


def planned_names(schemas: Sequence[Schema], *, listed: bool = False) -> PlannedNames | None:
    """What schemas that speak of one place name in it; None where they name nothing, unless that itself is `listed`.

    Where a schema has names by pattern, from elsewhere, or for whatever else there is, others may be planned too.
    """
    every = [each for schema in schemas for each in _branches(schema)]
    named: dict[str, list[Schema]] = {}
    for schema in every:
        for name, below in _object(schema.get("properties")).items():
            named.setdefault(name, []).append(_object(below))
    items = [_object(each) for schema in every for each in _listed(schema.get("items"))]
    closed = (listed or bool(named)) and not any(map(_is_open, every))
    if not named and not items and not closed:
        return None
    below = {name: planned_names(found) for name, found in named.items()}
    return PlannedNames(below, planned_names(items) if items else None, closed)


def _branches(schema: Schema) -> Iterator[Schema]:
    """The schema, and those in it that speak of the same place."""
    yield schema
    for word in ("allOf", "anyOf", "oneOf", "if", "then", "else"):
        for each in _listed(schema.get(word)):
            yield from _branches(_object(each))


def _is_open(schema: Schema) -> bool:
    return "$ref" in schema or "patternProperties" in schema or schema.get("additionalProperties", False) is not False


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _listed(value: object) -> list[Any]:
    if isinstance(value, list):
        return cast("list[Any]", value)
    return [] if value is None else [value]

"""Segment's semantic events: the catalogue, read once, when it is first asked for.

Source: https://segment.com/docs/connections/spec/semantic/ and the page of each spec, which its events name.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from segment_tools.spec.known_events import SPEC, KnownEvent, KnownProperty
from segment_tools.spec.names import folded


@cache
def semantic_events() -> Mapping[str, KnownEvent]:
    """Every semantic event by its exact name, in the order of Segment's pages."""
    text = files("segment_tools.spec").joinpath("semantic_events.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    common = {name: _property([name, *row]) for name, row in found["properties"].items()}
    return {name: _event(name, row, found["specs"][row["spec"]], common) for name, row in found["events"].items()}


@cache
def by_spelling() -> Mapping[str, str]:
    """The event that a name means once case and what stands between words are left out; older names among them."""
    events = semantic_events()
    former = {folded(event.formerly): name for name, event in events.items() if event.formerly}
    return former | {folded(name): name for name in events}


def _event(
    name: str, row: Mapping[str, Any], spec: Mapping[str, str], common: Mapping[str, KnownProperty]
) -> KnownEvent:
    """An event from its row; a property that many share stands there by its name alone."""
    properties = (common[each] if isinstance(each, str) else _property(each) for each in row.get("properties", ()))
    context = tuple(_property([key, *each]) for key, each in row.get("context", {}).items())
    return KnownEvent(
        name,
        row["description"],
        tuple(properties),
        SPEC,
        spec["url"],
        context,
        formerly=row.get("formerly"),
        said=tuple(row["said"]),
    )


def _property(row: list[Any]) -> KnownProperty:
    name, kind, description, *inside = row
    fields = tuple(_property([key, *each]) for key, each in inside[0].items()) if inside else ()
    return KnownProperty(name, kind, description, fields=fields)

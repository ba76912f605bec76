"""A tracking plan: which rule a message is held to, and where it departs from it.

Source: https://segment.com/docs/protocols/tracking-plan/create/, https://docs.segmentapis.com/tag/Tracking-Plans.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic_core import to_json

from segment_tools.spec.event_search import contrary, meant_event
from segment_tools.spec.known_events import KnownEvent
from segment_tools.spec.names import Effort, printable
from segment_tools.spec.planned_events import planned_events
from segment_tools.spec.planned_names import PlannedNames, planned_names
from segment_tools.spec.vocabulary import Vocabulary
from segment_tools.spec.wording import Violation, listed, violation_of

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

RuleType = Literal["COMMON", "TRACK", "IDENTIFY", "GROUP", "PAGE", "SCREEN"]
RULE_TYPES: tuple[RuleType, ...] = ("COMMON", "TRACK", "IDENTIFY", "GROUP", "PAGE", "SCREEN")

MOST_VIOLATIONS = 20
"""Ours: of one message. Who mends these sees the others then."""

_SHOWN_EVENTS = 30
"""Ours: so many events are all named to who passes another."""

_SEARCHED_EVENTS = 300
"""Ours: among so many, what a name means is looked for word by word; among more, what it is spelt like alone."""

_A_SEARCH = 50_000
"""Ours: what it costs of a call's `Effort` to look for what an event's name means."""

_REMEMBERED = 1_000

_VIEWS = {"page": "Page Viewed", "screen": "Screen Viewed"}
"""The event that views are planned as, where they have no rule of their own type.

Source: https://segment.com/docs/protocols/faq/#how-do-i-add-page-and-screen-events-to-my-tracking-plan.
"""

_NAMED_BY = {"track": "event", "page": "name", "screen": "name"}
_HOLDS = {"track": "properties", "page": "properties", "screen": "properties", "identify": "traits", "group": "traits"}
_EMPTY: Mapping[str, Any] = {"properties": {}, "traits": {}}
"""What a schema may require although a message leaves it out [?]."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a plan says of one event, or of all messages of a type; its schema describes the whole message."""

    type: RuleType
    key: str
    """An event's name, or a page's; empty where the rule is for all of its type."""
    version: int
    schema: Mapping[str, Any] = field(repr=False)
    validator: "Validator" = field(repr=False)


class TrackingPlan:
    """The rules of a plan; looked up by a message, not by a reader."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._versions: dict[tuple[str, str], list[Rule]] = {}
        for rule in sorted(self.rules, key=lambda each: each.version):
            self._versions.setdefault((rule.type, rule.key), []).append(rule)
        self.events = Vocabulary((rule.key for rule in self.rules if rule.type == "TRACK"), contrary)
        self._common = [rule.schema for rule in self.rules if rule.type == "COMMON"]
        self._names: dict[tuple[int, str], PlannedNames | None] = {}
        self._meant: dict[str, str | None] = {}
        self._known: tuple[KnownEvent, ...] | None = None

    def event_meant(self, name: str, effort: Effort) -> str | None:
        """The planned event that a name of none means, by its words or its spelling; None where it costs too much."""
        if name not in self._meant:
            if not effort.affords(_A_SEARCH):
                return None
            if len(self._meant) >= _REMEMBERED:
                self._meant.clear()
            self._meant[name] = self._by_words(name) or self.events.nearest(name)
        return self._meant[name]

    def _by_words(self, name: str) -> str | None:
        if len(name) > _LONGEST or len(self.events.names) > _SEARCHED_EVENTS:
            return None
        known = self._known = self._known or planned_events(self)
        return meant_event(name, known)

    def rule_for(self, message: Mapping[str, Any]) -> Rule | None:
        """The rule of the message's own name or type: of the version it names, else the oldest."""
        kind = str(message["type"])
        name = message.get(_NAMED_BY.get(kind, ""), "")
        keys = [(kind.upper(), str(name))]
        if kind in _VIEWS:
            keys += [(kind.upper(), ""), ("TRACK", _VIEWS[kind])]
        found = next((self._versions[key] for key in keys if key in self._versions), None)
        return _of_version(found, message) if found else None

    def common_rule(self, message: Mapping[str, Any]) -> Rule | None:
        """The rule for messages of every type."""
        found = self._versions.get(("COMMON", ""))
        return _of_version(found, message) if found else None

    def names_in(self, rule: Rule, holder: str) -> PlannedNames | None:
        """The names that the plan has for what stands in the message's properties or traits; None where it has none."""
        key = (id(rule), holder)
        if key not in self._names:
            own = _held(rule.schema, holder)
            common = [found for schema in self._common if (found := _held(schema, holder)) is not None]
            self._names[key] = None if own is None else planned_names([own, *common], listed=True)
        return self._names[key]


def violations(message: Mapping[str, Any], plan: TrackingPlan, effort: Effort | None = None) -> tuple[Violation, ...]:
    """Where a message, with Segment's names, departs from the plan; at most the first `MOST_VIOLATIONS`.

    Messages of one call share its `effort`: when that is spent, mends are no longer looked for, and of what departs
    from a schema the first is told.
    """
    found: dict[str, Violation] = {}
    for each in _violations(message, plan, effort or Effort()):
        found.setdefault(each.field, each)
        if len(found) == MOST_VIOLATIONS:
            break
    return tuple(found.values())


def _violations(message: Mapping[str, Any], plan: TrackingPlan, effort: Effort) -> Iterator[Violation]:
    whole = {**_EMPTY, **message}
    own, common = plan.rule_for(message), plan.common_rule(message)
    if own is None and message["type"] == "track":
        yield _unplanned_event(plan, str(message.get("event", "")), effort)
    for rule in (own, common):
        if rule is not None:
            yield from _of_schema(rule, whole, effort)
    holder = _HOLDS.get(str(message["type"]))
    names = plan.names_in(own, holder) if own and holder else None
    if names is not None and holder is not None:
        yield from _unplanned(whole[holder], names, holder, effort)


def _of_version(rules: Sequence[Rule], message: Mapping[str, Any]) -> Rule:
    context: object = message.get("context")
    protocols: object = cast("dict[str, Any]", context).get("protocols") if isinstance(context, dict) else None
    named: object = cast("dict[str, Any]", protocols).get("event_version") if isinstance(protocols, dict) else None
    if isinstance(named, int | float) and not isinstance(named, bool):  # 2.0 is 2 in JSON
        return next((rule for rule in rules if rule.version == named), rules[0])
    return rules[0]


def _held(schema: Mapping[str, Any], holder: str) -> Mapping[str, Any] | None:
    """What the schema says of the message's properties, or traits; None where nothing."""
    below: object = schema.get("properties")
    found: object = cast("dict[str, Any]", below).get(holder) if isinstance(below, dict) else None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def _of_schema(rule: Rule, message: Mapping[str, Any], effort: Effort) -> Iterator[Violation]:
    try:
        valid = rule.validator.is_valid(message)
    except ValueError:  # a kind of text or number of the caller's own: what is sent of it is plain
        message, valid = json.loads(to_json(message)), False
    if not valid:
        for error in _errors(rule, message, effort):
            yield from violation_of(error, rule.schema, message, effort.nearest)


def _errors(rule: Rule, message: Mapping[str, Any], effort: Effort) -> Sequence["ValidationError"]:
    """What the library has against the message: each error holds a copy of where it is, which may be all of it."""
    size = _size(message)
    if not effort.affords(size):
        return [error] if (error := _first_error(rule, message)) else []
    errors = list(rule.validator.iter_errors(message))
    effort.spend(size * len(errors))
    return errors


def _first_error(rule: Rule, message: Mapping[str, Any]) -> "ValidationError | None":
    from jsonschema_rs import ValidationError

    try:
        rule.validator.validate(message)
    except ValidationError as error:
        return error
    return None


def _size(value: object) -> int:
    """How many values there are in it, itself among them."""
    if isinstance(value, dict):
        value = list(cast("dict[str, object]", value).values())
    return 1 + sum(map(_size, cast("list[object]", value))) if isinstance(value, list) else 1


def _unplanned_event(plan: TrackingPlan, name: str, effort: Effort) -> Violation:
    text = "The event is not in the tracking plan."
    return Violation("Unplanned Event", "event", text, _instead(plan, name, effort))


def _instead(plan: TrackingPlan, name: str, effort: Effort) -> str:
    if meant := plan.event_meant(name, effort):
        return f"Did you mean {meant!r}?"
    events = plan.events
    if len(events.names) <= _SHOWN_EVENTS:
        return f"It has {listed(events.names)}." if events.names else "It has no events at all."
    return f"Pass one of its {len(events.names):,} events, or ask for this one to be added to the plan."


def _unplanned(value: object, names: PlannedNames, path: str, effort: Effort) -> Iterator[Violation]:
    """What stands in the message under a name that the plan does not have."""
    if isinstance(value, list) and names.items:
        for place, item in enumerate(cast("list[object]", value)):
            yield from _unplanned(item, names.items, f"{path}.{place}", effort)
    if not isinstance(value, dict):
        return
    for name, below in cast("dict[str, object]", value).items():
        if (inside := names.below.get(name)) is not None:
            yield from _unplanned(below, inside, f"{path}.{printable(name)}", effort)
        elif names.listed and name not in names.below:
            yield _unplanned_property(name, names, path, cast("dict[str, object]", value), effort)


def _unplanned_property(
    name: str, names: PlannedNames, path: str, given: Mapping[str, object], effort: Effort
) -> Violation:
    shown = f"{path}.{printable(name)}"
    left = [known for known in names.below if known not in given]
    if meant := effort.nearest(name[:_LONGEST], left):
        mend = f"Did you mean {meant!r}?"
    else:
        mend = f"Leave it out: {path} has {listed(names.below)}." if names.below else "Leave it out."
    return Violation("Unplanned Property", shown, f"{shown} is not in the tracking plan.", mend)


_LONGEST = 200

"""A tracking plan read from JSON: rules as Segment's Public API gives them, or events with their properties."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from segment_tools.spec.names import nearest, printable
from segment_tools.spec.segment_schemas import adapted
from segment_tools.spec.tracking_plan import RULE_TYPES, Rule, RuleType, TrackingPlan

if TYPE_CHECKING:
    from jsonschema_rs import Validator

_LIVE = "0001-01-01"
"""How `deprecatedAt` begins of a rule that is in force. Source: the Public API's answers."""

_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")
_EVENT_WORDS = ("properties", "required", "description")


class PlanFault(Exception):
    """The document is no tracking plan: `place` is the path inside it, `reason` a sentence without its full stop."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}" if place else reason)
        self.place, self.reason = place, reason


def plan_of(document: object) -> TrackingPlan:
    """The plan of a JSON document of either form; rules that are deprecated are not in it.

    Raises:
        PlanFault: naming the place.
    """
    if not isinstance(document, dict):
        raise PlanFault("", "the document is no JSON object")
    whole = cast("dict[str, Any]", document)
    data: object = whole.get("data")
    if isinstance(data, dict) and isinstance(cast("dict[str, Any]", data).get("rules"), list):
        return _of_rules(cast("dict[str, Any]", data), "data.")
    if isinstance(whole.get("rules"), list):
        return _of_rules(whole, "")
    return TrackingPlan(_of_event(name, given) for name, given in whole.items())


def _of_rules(given: Mapping[str, Any], before: str) -> TrackingPlan:
    paging: object = given.get("pagination")
    if isinstance(paging, dict) and cast("dict[str, Any]", paging).get("next"):
        raise PlanFault(
            f"{before}pagination.next", "there are more pages of rules; put those of all pages into one list"
        )
    return TrackingPlan(rules_of(given["rules"], f"{before}rules"))


def rules_of(given: Sequence[object], place: str = "rules") -> list[Rule]:
    """The rules in force, as the API gives them.

    Raises:
        PlanFault: naming the place.
    """
    rules, faults = usable_rules(given, place)
    if faults:
        raise faults[0]
    return rules


def usable_rules(given: Sequence[object], place: str = "rules") -> tuple[list[Rule], list[PlanFault]]:
    """The rules in force, as the API gives them, and what is wrong with others, of which the event alone is planned."""
    found: dict[tuple[str, str, int], int] = {}
    rules: list[Rule] = []
    faults: list[PlanFault] = []
    for index, each in enumerate(given):
        at = f"{place}[{index}]"
        try:
            rule = _rule(each, at)
        except PlanFault as fault:
            faults.append(fault)
            rule = _unchecked(each, at)
        if rule is None:
            continue
        first = found.setdefault((rule.type, rule.key, rule.version), index)
        if first == index:
            rules.append(rule)
        else:
            faults.append(PlanFault(at, f"{place}[{first}] has the same type, key and version"))
    return rules, faults


class _Head(NamedTuple):
    type: RuleType
    key: str
    version: int


def _unchecked(given: object, at: str) -> Rule | None:
    """The rule without what its schema says: the event is planned, although nothing can be said of its properties."""
    try:
        return _rule({**cast("dict[str, Any]", given), "jsonSchema": {}}, at) if isinstance(given, dict) else None
    except PlanFault:
        return None


def _rule(given: object, at: str) -> Rule | None:
    if not isinstance(given, dict):
        raise PlanFault(at, "a rule is an object with type, key, version and jsonSchema")
    fields = cast("dict[str, Any]", given)
    head = _head(fields, at)
    ended: object = fields.get("deprecatedAt")
    if isinstance(ended, str) and ended and not ended.startswith(_LIVE):
        return None
    schema: object = fields.get("jsonSchema")
    if not isinstance(schema, dict):
        raise PlanFault(f"{at}.jsonSchema", "must be an object")
    return _compiled(head, cast("dict[str, Any]", schema), f"{at}.jsonSchema")


def _head(fields: Mapping[str, Any], at: str) -> _Head:
    kind, key, version = fields.get("type"), fields.get("key") or "", fields.get("version", 1)
    if kind not in RULE_TYPES:
        raise PlanFault(f"{at}.type", f"must be one of {', '.join(RULE_TYPES)}")
    if not isinstance(key, str) or (kind == "TRACK" and not key):
        raise PlanFault(f"{at}.key", "must be the event's name")
    if not isinstance(version, int) or isinstance(version, bool):
        raise PlanFault(f"{at}.version", "must be a whole number")
    return _Head(kind, key if kind in ("TRACK", "PAGE", "SCREEN") else "", version)


def _of_event(name: str, given: object) -> Rule:
    at = printable(name) if name.strip() else repr(name)
    if not isinstance(given, dict):
        raise PlanFault(at, 'an event is an object, such as {"properties": {"total": "number"}}')
    fields = cast("dict[str, Any]", given)
    if strange := next((word for word in fields if word not in _EVENT_WORDS), None):
        meant = nearest(strange, _EVENT_WORDS)
        raise PlanFault(
            f"{at}.{printable(strange)}",
            f"did you mean {meant}" if meant else f"an event has {', '.join(_EVENT_WORDS)}",
        )
    held: dict[str, Any] = {"type": "object"}
    if "required" in fields:
        held["required"] = fields["required"]
    described: object = fields.get("properties")
    if described is not None:
        if not isinstance(described, dict):
            raise PlanFault(f"{at}.properties", "must be an object of name to type or JSON Schema")
        items = cast("dict[str, Any]", described).items()
        held["properties"] = {key: _property(value, f"{at}.properties.{printable(key)}") for key, value in items}
        _check_required(fields.get("required"), held["properties"], at)
    text: object = fields.get("description", "")
    if not isinstance(text, str):
        raise PlanFault(f"{at}.description", "must be text")
    whole = {
        "type": "object",
        "description": text,
        "properties": {"properties": held if described is not None else {**held, "additionalProperties": True}},
    }
    return _compiled(_Head("TRACK", name, 1), whole, at, below=("properties", "properties"))


def _check_required(required: object, known: Mapping[str, object], at: str) -> None:
    """A name that is required and not planned is refused both where it is there and where it is not."""
    for index, name in enumerate(cast("list[object]", required) if isinstance(required, list) else []):
        if isinstance(name, str) and name not in known:
            text = f"{printable(name)!r} is not among the properties, so that no message could satisfy the plan"
            meant = nearest(name, known)
            raise PlanFault(f"{at}.required.{index}", f"{text}; did you mean {meant!r}" if meant else text)


def _property(given: object, at: str) -> object:
    if isinstance(given, str):
        if given not in _TYPES:
            raise PlanFault(at, f"must be one of {', '.join(_TYPES)}, or a JSON Schema")
        return {"type": given}
    if not isinstance(given, dict | bool):
        raise PlanFault(at, f"must be a type ({', '.join(_TYPES)}) or a JSON Schema")
    return cast("object", given)


def _compiled(head: _Head, schema: dict[str, Any], at: str, below: Sequence[str] = ()) -> Rule:
    """The rule with its schema checked and compiled; `below` is what the document does not have of its places."""
    try:
        return Rule(*head, schema, _validator(schema))
    except ValueError:
        pass  # of Segment's own form, perhaps
    try:
        return Rule(*head, schema, _validator(adapted(schema)))
    except RecursionError:
        raise PlanFault(at, "is nested too deeply") from None
    except ValueError as error:
        path = list(getattr(error, "instance_path", ()))
        path = path[len(below) :] if tuple(path[: len(below)]) == tuple(below) else path
        raise PlanFault(".".join([at, *(printable(str(step)) for step in path)]), _reason(error)) from None


def _validator(schema: dict[str, Any]) -> "Validator":
    """Patterns are matched in linear time, without look-around: so does Segment, whose engine is Go's."""
    import jsonschema_rs as library

    named = str(schema.get("$schema", ""))
    drafts = {"draft-04": library.Draft4Validator, "draft-06": library.Draft6Validator}
    draft = next((drafts[name] for name in drafts if name in named), library.Draft7Validator)
    return draft(schema, retriever=_nowhere, validate_formats=True, pattern_options=library.RegexOptions())


def _nowhere(_: str) -> Any:
    """Nothing is fetched for a schema."""
    raise ValueError


def _reason(error: ValueError) -> str:
    keyword = _last_word(getattr(error, "schema_path", ()))
    if keyword in ("pattern", "format"):
        return "is no pattern that Segment takes: regular expressions without look-around"
    if "registry" in str(error):
        return "refers to another schema, which is not fetched; put it in place of the $ref"
    return "is not valid JSON Schema"


def _last_word(path: Sequence[object]) -> str:
    words: Iterator[str] = (each for each in reversed(path) if isinstance(each, str))
    return next(words, "")

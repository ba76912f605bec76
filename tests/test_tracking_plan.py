"""Tracking plans: what departs from one, in which words and with which mend."""

import json
import re
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import work

from segment_tools.spec.names import Effort
from segment_tools.spec.plan_document import PlanFault, plan_of
from segment_tools.spec.tracking_plan import MOST_VIOLATIONS, TrackingPlan, violations

JANE = "jane-RECOGNISABLE-5e2c"


def whole(schema: Mapping[str, Any], holder: str = "properties", **more: Any) -> dict[str, Any]:
    """A rule's schema as the Public API gives it: of the whole message."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "labels": {},
        "description": "",
        "properties": {"context": {}, "traits": {"type": "object"}, "properties": {"type": "object"}, holder: schema},
        "required": [holder],
        **more,
    }


def rule(key: str | None, schema: Mapping[str, Any], kind: str = "TRACK", **more: Any) -> dict[str, Any]:
    return {
        "type": kind,
        **({"key": key} if key else {}),
        "version": 1,
        "createdAt": "2026-01-01T00:00:00.000Z",
        "deprecatedAt": "0001-01-01T00:00:00.000Z",
        "jsonSchema": schema,
        **more,
    }


ORDER = {
    "type": "object",
    "properties": {
        "order_id": {"id": "/properties/properties/properties/order_id", "type": "string", "description": "Its id"},
        "total": {"type": "number", "minimum": 0, "maximum": 1000},
        "count": {"type": "integer"},
        "coupon": {"type": ["string", "null"]},
        "plan": {"type": "string", "enum": ["free", "pro", "team"]},
        "size": {"type": "string", "pattern": "^(small|large)$"},
        "sku": {"type": "string", "pattern": "^[A-Z]{3}[0-9]+$"},
        "when": {"type": "string", "format": "date-time"},
        "gift": {"type": "boolean"},
        "anything": {},
        "products": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]},
        },
    },
    "required": ["order_id"],
}
RULES = [
    rule("Order Completed", whole(ORDER)),
    rule("Order Refunded", whole({"type": "object", "properties": {"order_id": {"type": "string"}}})),
    rule("Old Thing Done", whole({}), deprecatedAt="2026-02-01T00:00:00.000Z"),
    rule(
        None,
        whole({"type": "object", "properties": {"email": {"type": "string"}}}, "traits"),
        "IDENTIFY",
    ),
    rule(None, whole({"type": "object", "properties": {"employees": {"type": "integer"}}}, "traits"), "GROUP"),
    rule("Home", whole({"type": "object", "properties": {"url": {"type": "string"}}}), "PAGE"),
    rule(
        None,
        {"properties": {"context": {"properties": {"locale": {"type": "string"}}, "required": ["locale"]}}},
        "COMMON",
    ),
]
PLAN = plan_of({"data": {"rules": RULES, "pagination": {"current": "MA==", "next": None}}})


def track(event: str = "Order Completed", **properties: Any) -> dict[str, Any]:
    return {
        "type": "track",
        "event": event,
        "userId": "u1",
        "context": {"locale": "en-US"},
        "properties": {"order_id": "o1", **properties},
    }


def found(message: Mapping[str, Any], plan: TrackingPlan = PLAN) -> list[tuple[str, str, str]]:
    return [(each.type, each.field, f"{each.text} {each.mend}") for each in violations(message, plan)]


WORDED = {
    "a wrong type": (
        {"count": 1.5},
        ("Invalid Type", "properties.count"),
        "properties.count: Invalid type, expected: integer, given: number. Pass a whole number.",
    ),
    "a number as text": (
        {"total": "9.5"},
        ("Invalid Type", "properties.total"),
        "properties.total: Invalid type, expected: number, given: string. Pass a number, not text.",
    ),
    "a type of two": (
        {"coupon": 5},
        ("Invalid Type", "properties.coupon"),
        "properties.coupon: Invalid type, expected: string/null, given: integer. Pass text or null.",
    ),
    "null where none may be": (
        {"gift": None},
        ("Invalid Type", "properties.gift"),
        "properties.gift: Invalid type, expected: boolean, given: null. Pass true or false.",
    ),
    "a value that is nearly permitted": (
        {"plan": "Pro"},
        ("Enum", "properties.plan"),
        "properties.plan must be one of the following: 'free', 'pro', 'team'. Did you mean 'pro'?",
    ),
    "a value that is not permitted": (
        {"plan": JANE},
        ("Enum", "properties.plan"),
        "properties.plan must be one of the following: 'free', 'pro', 'team'. Pass one of 'free', 'pro', 'team'.",
    ),
    "a value that is not in a list of bars": (
        {"size": "larg"},
        ("Pattern", "properties.size"),
        "properties.size: Does not match pattern '^(small|large)$'. Did you mean 'large'?",
    ),
    "a value that does not match": (
        {"sku": JANE},
        ("Pattern", "properties.sku"),
        "properties.sku: Does not match pattern '^[A-Z]{3}[0-9]+$'. Pass text of that pattern.",
    ),
    "a date that is none": (
        {"when": "yesterday"},
        ("Format", "properties.when"),
        "properties.when: Does not match format 'date-time'. Pass a date and time such as 2024-01-15T10:30:00Z.",
    ),
    "a number below": (
        {"total": -1},
        ("Number Gte", "properties.total"),
        "properties.total: Must be greater than or equal to 0. Pass 0 or more.",
    ),
    "a list too short": (
        {"products": []},
        ("Array Min Items", "properties.products"),
        "properties.products: Array must have at least 1 items. Pass at least 1 items.",
    ),
    "an item without what it needs": (
        {"products": [{"sku": "a"}, {}]},
        ("Required", "properties.products.1.sku"),
        "properties.products.1.sku is required. Pass text.",
    ),
    "an unplanned property": (
        {"cuopon": "x"},
        ("Unplanned Property", "properties.cuopon"),
        "properties.cuopon is not in the tracking plan. Did you mean 'coupon'?",
    ),
    "an unplanned property in an item": (
        {"products": [{"sku": "a", "colour": "red"}]},
        ("Unplanned Property", "properties.products.0.colour"),
        "properties.products.0.colour is not in the tracking plan. Leave it out: properties.products.0 has 'sku'.",
    ),
}


@pytest.mark.parametrize("case", WORDED)
def test_a_violation_is_worded_as_segment_does_and_says_how_to_mend_it(case: str) -> None:
    properties, (kind, field), text = WORDED[case]
    assert found(track(**properties)) == [(kind, field, text)]


def test_what_keeps_to_the_plan_has_no_violations() -> None:
    good = {"total": 5, "count": 2.0, "coupon": None, "plan": "pro", "size": "large", "sku": "ABC1", "gift": True}
    more = {"when": "2026-01-01T00:00:00Z", "anything": {"a": [1]}, "products": [{"sku": "a"}]}
    assert found(track(**good, **more)) == []


def test_a_required_property_under_another_name_is_found() -> None:
    message = {**track(), "properties": {"orderId": "o1"}}
    assert found(message) == [
        (
            "Required",
            "properties.order_id",
            "properties.order_id is required. You passed 'orderId': call it 'order_id'.",
        ),
        (
            "Unplanned Property",
            "properties.orderId",
            "properties.orderId is not in the tracking plan. Did you mean 'order_id'?",
        ),
    ]


def test_an_event_that_is_not_planned_is_told_the_nearest() -> None:
    assert found(track("Order Complete")) == [
        ("Unplanned Event", "event", "The event is not in the tracking plan. Did you mean 'Order Completed'?")
    ]
    told = "The event is not in the tracking plan. It has 'Order Completed', 'Order Refunded'."
    assert found(track("Zebra")) == [("Unplanned Event", "event", told)]
    assert found(track("Old Thing Done"))[0][0] == "Unplanned Event"


DEEDS = plan_of(
    {name: {} for name in ("Order Completed", "Signed In", "Product Added", "Cart Viewed", "Trial Started")}
)


@pytest.mark.parametrize(
    "name",
    [
        "Order Not Completed", "Order Incomplete", "Order Never Completed", "Signed Out", "Product Removed",
        "Product Viewed", "Cart Abandoned", "Trial Ended", "Order Failed",
    ],
)  # fmt: skip
def test_the_name_of_another_deed_is_no_misspelling(name: str) -> None:
    assert "Did you mean" not in found(track(name), DEEDS)[0][2]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Order Compelted", "Order Completed"), ("order_finished", "Order Completed"), ("Singed In", "Signed In"),
        ("Sign In", "Signed In"), ("Prodct Added", "Product Added"), ("Product Aded", "Product Added"),
        ("Cart View", "Cart Viewed"), ("TrialStart", "Trial Started"),
    ],
)  # fmt: skip
def test_another_spelling_or_form_of_the_same_deed_is_told_the_right_one(name: str, meant: str) -> None:
    assert found(track(name), DEEDS)[0][2].endswith(f"Did you mean {meant!r}?")


def test_an_event_of_a_large_plan_is_found_among_thousands() -> None:
    names = [
        f"{verb} {thing} {number}"
        for verb in ("Opened", "Closed")
        for thing in ("Door", "Window")
        for number in range(500)
    ]
    plan = plan_of({name: {} for name in [*names, "Checkout Step Viewed"]})
    assert found(track("checkout_step_view"), plan)[0][2].endswith("Did you mean 'Checkout Step Viewed'?")
    assert found(track("Zebra"), plan)[0][2].endswith(
        "Pass one of its 2,001 events, or ask for this one to be added to the plan."
    )


def test_names_are_compared_letter_by_letter() -> None:
    assert found(track("order completed"))[0][2].endswith("Did you mean 'Order Completed'?")


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"type": "identify", "userId": "u", "traits": {"email": 5}}, "traits.email"),
        ({"type": "identify", "userId": "u", "traits": {"emial": JANE}}, "traits.emial"),
        ({"type": "group", "userId": "u", "groupId": "g", "traits": {"employees": "5"}}, "traits.employees"),
        ({"type": "page", "userId": "u", "name": "Home", "properties": {"url": 5}}, "properties.url"),
        ({"type": "alias", "userId": "u", "previousId": "p", "context": {}}, "context.locale"),
    ],
)
def test_each_type_of_message_has_its_rule_and_the_common_one(message: dict[str, Any], field: str) -> None:
    assert [each[1] for each in found({"context": {"locale": "en"}, **message})] == [field]


def test_views_and_calls_without_a_rule_are_held_to_the_common_one_alone() -> None:
    for message in ({"type": "page", "name": "Other"}, {"type": "screen"}, {"type": "page"}):
        assert found({**message, "properties": {"a": 1}, "context": {"locale": "en"}}) == []
        assert [each[1] for each in found({**message, "context": {}})] == ["context.locale"]


def test_views_are_held_to_the_event_that_segment_makes_of_them() -> None:
    plan = plan_of({"Page Viewed": {"properties": {"url": "string"}}})
    assert [each[1] for each in found({"type": "page", "name": "Home", "properties": {"url": 5}}, plan)] == [
        "properties.url"
    ]
    assert found({"type": "screen", "properties": {"url": 5}}, plan) == []


def test_the_common_rule_is_met_by_what_it_does_not_see_and_may_name_properties() -> None:
    common = rule(
        None, whole({"type": "object", "properties": {"env": {"type": "string"}}, "required": ["env"]}), "COMMON"
    )
    plan = plan_of({"rules": [RULES[1], common]})
    assert [each[1] for each in found(track("Order Refunded"), plan)] == ["properties.env"]
    assert found(track("Order Refunded", env="live"), plan) == []
    assert found({**track("Order Refunded"), "properties": {}}, plan)[0][:2] == ("Required", "properties.env")


def versioned(version: object) -> dict[str, Any]:
    return {**track("A"), "properties": {}, "context": {"protocols": {"event_version": version}}}


@pytest.mark.parametrize(
    ("named", "wants"), [(3, "c"), (3.0, "c"), (3.5, "b"), (2, "b"), (9, "b"), ("3", "b"), (True, "b"), (None, "b")]
)
def test_the_version_is_the_one_named_else_the_oldest(named: object, wants: str) -> None:
    rules = [rule("A", whole({"required": [name]}), version=version) for version, name in ((3, "c"), (2, "b"))]
    assert [each[1] for each in found(versioned(named), plan_of({"rules": rules}))] == [f"properties.{wants}"]


@pytest.mark.parametrize("draft", ["draft-04", "draft-06", "draft-07"])
def test_schemas_of_every_draft_that_segment_has_are_understood(draft: str) -> None:
    limit = {"minimum": 3, "exclusiveMinimum": True} if draft == "draft-04" else {"exclusiveMinimum": 3}
    below = {"id": {"id": "/properties/properties/properties/id", "type": "number", **limit}}
    schema = whole({"type": "object", "properties": below}, **{"$schema": f"http://json-schema.org/{draft}/schema#"})
    plan = plan_of({"rules": [rule("A", schema)]})
    assert [found({**track("A"), "properties": {"id": number}}, plan) == [] for number in (3, 4)] == [False, True]


def test_a_rule_of_segments_own_shape_in_draft_04_is_understood() -> None:
    place = "/properties/properties/properties"
    held = {
        "id": "/properties/properties",
        "properties": {
            "first name": {"id": f"{place}/first name", "type": "string"},
            "id": {"id": f"{place}/id", "$ref": "#/definitions/number"},
            "all": {"items": {"id": f"{place}/all/items of", "allOf": [{"id": "a b", "type": "integer"}]}},
        },
        "required": [],
    }
    more = {"$schema": "http://json-schema.org/draft-04/schema#", "definitions": {"number": {"type": "number"}}}
    plan = plan_of({"rules": [rule("A", whole(held, **more))]})
    assert found({**track("A"), "properties": {"first name": "x", "id": 1, "all": [1]}}, plan) == []
    wrong = {**track("A"), "properties": {"first name": 1, "id": "x", "all": ["x"]}}
    fields = ["properties.all.0", "properties.first name", "properties.id"]
    assert sorted(each[1] for each in found(wrong, plan)) == fields


# Each was compared with RE2 itself.
EXPRESSIONS = {
    r"(?i)^abc$": (["abc", "ABC"], ["abcd"]),
    r"(?i)a|B": (["A", "b"], ["c"]),
    r"(?s)a.b": (["a\nb"], ["ab"]),
    r"(?m)^b$": (["a\nb"], ["ab"]),
    r"\A\w+\z": (["abc"], ["a b", "abc\n"]),
    r"^\Qa.b\E$": (["a.b"], ["aXb"]),
    r"\Q(x)": (["(x)"], ["x"]),
    r"\\A": (["\\A"], ["A"]),
    r"^[[:alpha:]]+$": (["abc"], ["a1", "é", ""]),
    r"^[[:alpha:][:digit:]_-]+$": (["a1_-"], ["a b", ":"]),
    r"^[^[:punct:]]$": (["a"], ["]", "/"]),
    r"[:alpha:]": ([":", "h"], ["b"]),
    r"^[]a]$": (["]", "a"], ["b"]),
    r"^[^]a]$": (["b"], ["]", "a"]),
    r"(?P<word>a)": (["a"], ["b"]),
    r"^\pL$": (["é"], ["1"]),
    r"^[\x{41}-\x{43}]$": (["B"], ["D"]),
}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_regular_expressions_are_read_as_segment_reads_them(expression: str) -> None:
    fitting, others = EXPRESSIONS[expression]
    plan = plan_of({"A": {"properties": {"b": {"pattern": expression}}}})
    for text in fitting:
        assert found({**track("A"), "properties": {"b": text}}, plan) == []
    for text in others:
        ((kind, field, said),) = found({**track("A"), "properties": {"b": text}}, plan)
        assert (kind, field) == ("Pattern", "properties.b")
        assert f"'{expression}'" in said
    named = whole({"patternProperties": {expression: {"type": "integer"}}})
    by_name = plan_of({"rules": [rule("A", named)]})
    assert [len(found({**track("A"), "properties": {text: "x"}}, by_name)) for text in (*fitting, *others)] == [
        *(1 for _ in fitting),
        *(0 for _ in others),
    ]


def test_what_a_schema_says_in_branches_counts_as_planned() -> None:
    branches = {
        "allOf": [{"properties": {"a": {"type": "integer"}}}, {"if": {"required": ["a"]}, "then": {"required": ["b"]}}]
    }
    plan = plan_of({"rules": [rule("A", whole({**branches, "properties": {"b": {}}}))]})
    message = {**track("A"), "properties": {"a": "x", "c": 1}}
    assert [each[:2] for each in found(message, plan)] == [
        ("Invalid Type", "properties.a"),
        ("Required", "properties.b"),
        ("Unplanned Property", "properties.c"),
    ]


@pytest.mark.parametrize("word", [{"patternProperties": {"^x": {}}}, {"additionalProperties": True}])
def test_other_names_are_planned_where_the_schema_has_room_for_them(word: dict[str, Any]) -> None:
    plan = plan_of({"rules": [rule("A", whole({"properties": {"a": {}}, **word}))]})
    assert found({**track("A"), "properties": {"xyz": 1}}, plan) == []


def test_a_name_that_is_not_allowed_is_named_once() -> None:
    plan = plan_of({"rules": [rule("A", whole({"properties": {"a": {}}, "additionalProperties": False}))]})
    assert [each[:2] for each in found({**track("A"), "properties": {"b": 1}}, plan)] == [
        ("Additional Property Not Allowed", "properties.b")
    ]


def test_no_violation_repeats_a_value_and_there_are_not_too_many() -> None:
    values = dict.fromkeys(ORDER["properties"], JANE) | {f"x{number}": JANE for number in range(50)}
    told = violations({**track(), "event": "Order Completed", "properties": values}, PLAN)
    assert len(told) == MOST_VIOLATIONS
    assert JANE not in repr(told)
    assert JANE not in repr(violations(track(JANE), PLAN))


def test_values_of_a_callers_own_kind_are_held_to_the_plan_as_they_are_sent() -> None:
    class Plan(str):
        __slots__ = ()

    assert found(track(plan=Plan("pro"))) == []
    assert found(track(plan=Plan("por")))[0][0] == "Enum"


MISNAMED = {f"prp_{number:03}x": 1 for number in range(1_000)}


def test_mends_are_looked_for_within_bounds_and_violations_told_beyond_them() -> None:
    names = [f"prop_{number:03}" for number in range(300)]
    plan = plan_of({"A": {"properties": dict.fromkeys(names, "string"), "required": names}})
    messages = [{**track("A"), "properties": {**MISNAMED, f"own_{number}": 1}} for number in range(5)]
    violations(messages[0], plan)
    effort = Effort()
    told = [violations(message, plan, effort) for message in messages]
    assert [len(each) for each in told] == [MOST_VIOLATIONS] * len(messages)
    assert "You passed" in told[0][0].mend
    assert told[-1][0].mend == "Pass text."
    fresh = Effort()
    assert work(lambda: [violations(message, plan, fresh) for message in messages]) < 200_000


def test_what_events_mean_is_looked_for_within_bounds() -> None:
    plan = plan_of({f"{thing} {verb}": {} for thing in ["Gizmo", "Gadget", "Widget"] for verb in ["Spun", "Bent"]})
    strange = [track(" ".join(f"zq{number}w{place}k" for place in range(12))) for number in range(400)]
    violations(track("Gizmo Spin"), plan)
    effort = Effort()
    first = work(lambda: [violations(message, plan, effort) for message in strange[:200]])
    assert work(lambda: [violations(message, plan, effort) for message in strange[200:]]) < first / 5


PLAIN = {
    "Order Completed": {
        "description": "An order was paid",
        "properties": {"order_id": "string", "total": {"type": "number", "minimum": 0}, "note": True},
        "required": ["order_id"],
    },
    "App Opened": {},
    "App Closed": {"properties": {}},
}


def test_the_plain_form_is_events_with_their_properties() -> None:
    plan = plan_of(PLAIN)
    assert found(track(total=5, note="x"), plan) == []
    assert [each[:2] for each in found({**track(), "properties": {"total": "5", "tax": 1}}, plan)] == [
        ("Required", "properties.order_id"),
        ("Invalid Type", "properties.total"),
        ("Unplanned Property", "properties.tax"),
    ]
    assert found(track("App Opened"), plan) == []
    assert found(track("App Closed"), plan)[0][2] == "properties.order_id is not in the tracking plan. Leave it out."
    assert found(track("App Open"), plan)[0][0] == "Unplanned Event"


@pytest.mark.parametrize("form", ["plan.json", "rules of the API"])
def test_both_forms_say_the_same(form: str) -> None:
    plan = plan_of(PLAIN if form == "plan.json" else {"rules": [rule("Order Completed", whole(_PLAIN_ORDER))]})
    wrong = {**track(), "properties": {"total": -1}}
    assert [each[1] for each in found(wrong, plan)] == ["properties.order_id", "properties.total"]


_PLAIN_ORDER = {
    "type": "object",
    "properties": {"order_id": {"type": "string"}, "total": {"type": "number", "minimum": 0}},
    "required": ["order_id"],
}

WRONG_PLANS: dict[str, tuple[object, str]] = {
    "a list": ([], "the document is no JSON object"),
    "an event that is text": ({"A": "x"}, "A: an event is an object"),
    "a word that an event does not have": ({"A": {"propertes": {}}}, "A.propertes: did you mean properties"),
    "a type that is none": ({"A": {"properties": {"b": "text"}}}, "A.properties.b: must be one of string, integer"),
    "a type in a schema that is none": ({"A": {"properties": {"b": {"type": "text"}}}}, "A.properties.b.type: is not"),
    "required that is no list": ({"A": {"properties": {}, "required": "b"}}, "A.required: is not valid JSON Schema"),
    "required that is not among the properties": (
        {"A": {"properties": {"order_id": "string"}, "required": ["order_id", "orderId"]}},
        "A.required.1: 'orderId' is not among the properties, so that no message could satisfy the plan; did you mean",
    ),
    "a flag that the schema library has no word for": (
        {"rules": [rule("A", whole({"properties": {"b": {"pattern": "(?U)a+"}}}))]},
        "rules[0].jsonSchema.properties.properties.properties.b.pattern: is no pattern",
    ),
    "look-around": ({"A": {"properties": {"b": {"pattern": "(?!x)"}}}}, "A.properties.b.pattern: is no pattern"),
    "a rule without a name": ({"rules": [{"type": "TRACK", "jsonSchema": {}}]}, "rules[0].key: must be"),
    "a rule of no type": ({"rules": [{"type": "track", "key": "A", "jsonSchema": {}}]}, "rules[0].type: must be"),
    "a version as text": ({"rules": [rule("A", {}, version="1")]}, "rules[0].version: must be a whole number"),
    "a rule twice": ({"rules": [rule("A", {}), rule("A", {})]}, "rules[1]: rules[0] has the same"),
    "a rule without a schema": ({"rules": [{"type": "TRACK", "key": "A"}]}, "rules[0].jsonSchema: must be an object"),
    "a schema from elsewhere": (
        {"rules": [rule("A", {"$ref": "http://localhost:1/x"})]},
        "rules[0].jsonSchema: refers to another schema",
    ),
    "one page of several": (
        {"data": {"rules": [], "pagination": {"next": "Mg=="}}},
        "data.pagination.next: there are more pages",
    ),
}


@pytest.mark.parametrize("case", WRONG_PLANS)
def test_a_wrong_plan_says_where(case: str) -> None:
    document, said = WRONG_PLANS[case]
    with pytest.raises(PlanFault, match=re.escape(said)):
        plan_of(document)


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.floats(-3, 12, allow_nan=False),
    st.sampled_from(["", "a", "ab", "free", "pro"]),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abc"), below, max_size=3),
    max_leaves=6,
)
_TYPE_NAMES = ("string", "integer", "number", "boolean", "array", "object", "null")
_WORDS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(_TYPE_NAMES)
        | st.lists(st.sampled_from(_TYPE_NAMES), min_size=1, max_size=3, unique=True),
        "enum": st.lists(_SCALARS, min_size=1, max_size=3, unique_by=lambda value: json.dumps([value])),
        "const": _SCALARS,
        "pattern": st.sampled_from(["^a", "^(free|pro)$", "b$"]),
        "minimum": st.integers(-2, 5),
        "maximum": st.integers(0, 9),
        "exclusiveMinimum": st.integers(-2, 5),
        "multipleOf": st.integers(1, 4),
        "minLength": st.integers(0, 3),
        "maxLength": st.integers(0, 3),
        "minItems": st.integers(0, 2),
        "maxItems": st.integers(0, 3),
        "uniqueItems": st.booleans(),
        "minProperties": st.integers(0, 2),
        "required": st.lists(st.sampled_from("abc"), max_size=2, unique=True),
        "additionalProperties": st.booleans(),
    },
)


def _nested(below: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    named = st.dictionaries(st.sampled_from("abc"), below, max_size=3)
    listed = st.lists(below, min_size=1, max_size=2)
    inside = {
        "properties": named,
        "items": below,
        "allOf": listed,
        "anyOf": listed,
        "not": below,
        "if": below,
        "then": below,
    }
    return st.builds(lambda words, more: {**words, **more}, _WORDS, st.fixed_dictionaries({}, optional=inside))


_SCHEMAS = st.recursive(_WORDS, _nested, max_leaves=6)


@settings(max_examples=200, deadline=None)
@given(schema=_SCHEMAS, properties=st.dictionaries(st.sampled_from("abc"), _VALUES, max_size=3))
def test_a_plan_agrees_with_an_independent_validator(schema: dict[str, Any], properties: dict[str, Any]) -> None:
    message = {**track("A"), "properties": properties, "traits": {}}
    rules = whole(schema)
    judge = jsonschema.Draft7Validator(rules)
    told = violations(message, plan_of({"rules": [rule("A", rules)]}))
    ours = [each for each in told if each.type != "Unplanned Property"]
    assert bool(ours) == (not judge.is_valid(message))
    places = {".".join(map(str, error.absolute_path)) for error in judge.iter_errors(message)}
    for each in ours:
        if each.type not in ("Required", "Additional Property Not Allowed"):
            assert any(each.field.startswith(place) or place.startswith(each.field) for place in places)

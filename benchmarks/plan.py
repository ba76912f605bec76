"""How long a tracking plan of 2,000 rules takes to load, and how long a message takes to be held to it.

    python benchmarks/plan.py [--rules N] [--rounds N]

What a message costs is told with what the schema library alone takes of it, on the same messages, and apart from what
the first message of a rule or of an unplanned name costs, which a plan remembers. Figures are medians of the rounds,
with the least and the most.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from segment_tools.spec.plan_document import plan_of
from segment_tools.spec.tracking_plan import TrackingPlan, violations

MESSAGES = 500


def rule(number: int) -> dict[str, Any]:
    """A rule as the Public API gives it, of ten properties and a list of products."""
    kinds = ("string", "number", "integer", "boolean", ["string", "null"])
    named = {f"property_{each}": {"type": kinds[each % 5], "description": "What it is"} for each in range(7)}
    below = {
        **named,
        "plan": {"type": "string", "enum": ["free", "pro", "team"]},
        "sku": {"type": "string", "pattern": "^(mug|cup|pot)$"},
        "products": {
            "type": "array",
            "items": {"type": "object", "properties": {"sku": {"type": "string"}, "price": {"type": "number"}}},
        },
    }
    return {
        "type": "TRACK",
        "key": f"{_noun(number)} {number} Completed",
        "version": 1,
        "jsonSchema": {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "labels": {},
            "properties": {
                "context": {},
                "traits": {"type": "object"},
                "properties": {"type": "object", "properties": below, "required": ["property_0", "plan"]},
            },
            "required": ["properties"],
        },
    }


def _noun(number: int) -> str:
    return ("Order", "Cart", "Checkout", "Signup", "Payment")[number % 5]


def good(number: int) -> dict[str, Any]:
    """A message that keeps to the rule of that number."""
    named = {f"property_{each}": ("x", 1.5, 3, True, None)[each % 5] for each in range(7)}
    products = [{"sku": "mug", "price": 9.5}, {"sku": "cup", "price": 5}]
    return {
        "type": "track",
        "event": f"{_noun(number)} {number} Completed",
        "userId": "u1",
        "messageId": f"{number:032}",
        "timestamp": "2026-11-23T12:00:00.123Z",
        "context": {"library": {"name": "segment-tools", "version": "1"}},
        "properties": {**named, "plan": "pro", "sku": "mug", "products": products},
    }


def against(number: int) -> dict[str, Any]:
    """One that departs from it in three places."""
    message = good(number)
    wrong = {"plan": "Pro", "property_1": "1.5", "propety_2": 3}
    return {**message, "properties": {**message["properties"], **wrong}}


def unplanned(number: int) -> dict[str, Any]:
    """One whose event is spelt wrong."""
    return {**good(number), "event": f"{_noun(number)} {number} Complete"}


def microseconds(check: Callable[[dict[str, Any]], object], messages: list[dict[str, Any]]) -> float:
    """The median of what each of the messages took."""
    taken: list[float] = []
    for message in messages:
        began = time.perf_counter()
        check(message)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e6


def alone(plan: TrackingPlan) -> Callable[[dict[str, Any]], object]:
    """What the schema library does of a check: it judges, and where it must, tells the errors."""

    def check(message: dict[str, Any]) -> object:
        rule = plan.rule_for(message)
        return rule is None or rule.validator.is_valid(message) or list(rule.validator.iter_errors(message))

    return check


def shown(figures: list[float], unit: str) -> str:
    return f"{statistics.median(figures):8.2f} {unit}  ({min(figures):.2f} to {max(figures):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rules", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    text = json.dumps({"rules": [rule(number) for number in range(given.rules)]})
    plan_of({"rules": [rule(0)]})  # the library is loaded
    loads: list[float] = []
    for _ in range(given.rounds):
        began = time.perf_counter()
        plan_of(json.loads(text))
        loads.append(time.perf_counter() - began)
    print(f"{given.rules:,} rules, {len(text) / 1e6:.1f} MB, {given.rounds} rounds\n")
    print(f"load                            {shown(loads, 's ')}")
    for name, make in (("keeps to the plan", good), ("three violations", against), ("event not planned", unplanned)):
        messages = [make(number % given.rules) for number in range(MESSAGES)]
        first: list[float] = []
        again: list[float] = []
        library: list[float] = []
        for _ in range(given.rounds):
            plan = plan_of(json.loads(text))
            library.append(microseconds(alone(plan), messages))
            first.append(microseconds(partial(violations, plan=plan), messages))
            again.append(microseconds(partial(violations, plan=plan), messages))
        print(f"{name:18} library      {shown(library, 'us')}")
        print(f"{'':18} in all       {shown(again, 'us')}")
        print(f"{'':18} a rule's 1st {shown(first, 'us')}")


if __name__ == "__main__":
    main()

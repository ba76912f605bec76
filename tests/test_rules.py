"""Segment's rules, each with its source, and the tests that prove them, checked both ways."""

import json

from support import ROOT
from test_limits import WARNED
from test_malformed_calls import REFUSED, UNDERSTOOD

RULES = json.loads((ROOT / "tests/rules.json").read_text(encoding="utf-8"))
PROVED = {name for rule in RULES for name in rule["proved_by"]}
TESTS = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))


def test_every_case_that_is_refused_or_warned_of_belongs_to_a_rule() -> None:
    assert (set(REFUSED) | set(WARNED)) - PROVED == set()


def test_every_proof_of_a_rule_is_a_case_or_a_test() -> None:
    cases = {*REFUSED, *WARNED, *UNDERSTOOD}
    assert [name for name in PROVED if name not in cases and f"def {name}(" not in TESTS] == []


def test_every_rule_has_an_id_of_its_own_a_sentence_a_source_and_a_proof() -> None:
    assert len({rule["id"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["effect"] in ("refused", "warned", "mended")
        assert rule["rule"].endswith(".")
        assert rule["source"] == "ours" or rule["source"].startswith("https://segment.com/docs/")
        assert rule["proved_by"]

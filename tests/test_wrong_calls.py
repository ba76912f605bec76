"""Wrong calls as models make them: how many of the answers name the field and the mend, and that none is sent.

`wrong_calls.json` was written before anyone looked how each call is answered. A case says what is wrong with it, the
code and field that the answer must have, and words without which nobody could mend the call. `plan` puts a case
under the file's tracking plan, which blocks. Long values are written {"$repeat": part, "times": n}, deep ones
{"$nest": key, "times": n}. `taken` are the calls that turned out to be Segment's to take, each with the reason.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
from support import Caller, rows

from segment_tools.sandbox.run import Sandbox

CORPUS = json.loads(Path(__file__).with_name("wrong_calls.json").read_text(encoding="utf-8"))
ENOUGH = 0.95
"""The share of answers that must name field and mend in their first sentence."""


@pytest.fixture
def planned(tmp_path: Path) -> dict[str, Any]:
    """The settings under which the file's tracking plan blocks."""
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(CORPUS["plan"]), encoding="utf-8")
    return {"tracking_plan": file, "tracking_plan_policy": "block"}


def written_out(value: Any) -> Any:
    """The value with its long and deep parts at full length."""
    match value:
        case {"$repeat": part, "times": times}:
            return part * times
        case {"$nest": key, "times": times}:
            return json.loads(f'{{"{key}":' * times + "1" + "}" * times)
        case dict():
            return {key: written_out(below) for key, below in cast("dict[str, Any]", value).items()}
        case list():
            return [written_out(below) for below in cast("list[Any]", value)]
        case _:
            return value


def named_first(text: str, case: dict[str, Any]) -> bool:
    """Whether the first sentence names the field, the place in a batch, and the mend."""
    beginning = re.split(r"(?<=[.?!])\s+", text)[0]
    field = (case["field"] or "").strip().rsplit(".", 1)[-1]
    place = f"batch[{case['index']}]" if "index" in case else ""
    return field in beginning and place in beginning and all(has(beginning, words) for words in case["mend"])


def has(text: str, words: str) -> bool:
    """Whether the words are in the text, their case told apart; but they may begin a sentence of it."""
    return words in text or f" {words[:1].upper()}{words[1:]}" in text


def failing(case: dict[str, Any], answer: dict[str, Any]) -> str | None:
    """What the answer lacks, or None."""
    if answer["success"] or answer["sent"] is not False or answer["statusCode"] != -1:
        return "it was not refused"
    problem = answer["error"].get("problems", [answer["error"]])[0]
    if (problem["code"], problem.get("field")) != (case["code"], case["field"]):
        return f"{problem['code']} of {problem.get('field')}, not {case['code']} of {case['field']}"
    if not problem.get("hint"):
        return "nothing says what to pass"
    return None if named_first(answer["errorMessage"], case) else "field or mend is missing"


@pytest.mark.anyio
async def test_almost_every_answer_to_a_wrong_call_names_the_field_and_the_mend(
    call: Caller, sandbox: Sandbox, planned: dict[str, Any]
) -> None:
    lacking: list[str] = []
    for case in CORPUS["wrong"]:
        answer = await call(case["tool"], written_out(case["arguments"]), **(planned if case.get("plan") else {}))
        if reason := failing(case, answer):
            lacking.append(f"{case['kind']}: {case['wrong']}: {reason}: {answer.get('errorMessage')}")
    share = 1 - len(lacking) / len(CORPUS["wrong"])
    assert share >= ENOUGH, "\n".join([f"{share:.1%}", *lacking])
    assert rows(sandbox) == []


@pytest.mark.anyio
@pytest.mark.parametrize("case", CORPUS["taken"], ids=lambda case: f"{case['kind']}: {case['wrong']}")
async def test_what_segment_takes_is_sent_and_remarked_on(case: dict[str, Any], call: Caller, sandbox: Sandbox) -> None:
    answer = await call(case["tool"], written_out(case["arguments"]))
    assert answer["success"], answer["errorMessage"]
    assert [each["code"] for each in answer.get("warnings", [])] == ([case["warning"]] if case["warning"] else [])
    assert len(rows(sandbox)) == 1


def test_the_corpus_is_large_and_spread_over_its_kinds() -> None:
    kinds = Counter(case["kind"] for case in CORPUS["wrong"])
    assert sum(kinds.values()) >= 150
    assert min(kinds.values()) >= 5

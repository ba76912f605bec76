"""The statements of the documents and the tests that name them, checked both ways."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
STATEMENTS = json.loads((ROOT / "tests/statements.json").read_text(encoding="utf-8"))
TO_COME: set[str] = set()
"""None."""

sys.path.insert(0, str(ROOT / "scripts"))
import generate  # noqa: E402 - a script beside the package, not a part of it


def test_every_statement_is_proved_and_every_proof_is_of_a_statement() -> None:
    assert set(generate.proofs()) == set(STATEMENTS) - TO_COME


def test_the_readme_is_what_generate_makes() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert generate.readme(text) == text, "run `make generate`"

"""Writes anew what is generated: the snapshots of the tools, and the README's tables between their marks."""

import ast
import json
import sys
from pathlib import Path

from context_cost import table as context_table

from segment_tools.remarks import REMARKS
from segment_tools.settings import TOOLSETS, Settings
from segment_tools.tools import TOOLS, definition

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))
import figures  # noqa: E402 - it stands beside what is measured

DOCUMENTS = {"S0": "Flows app", "S1": "AACFlow", "S2": "GoInsight", "S3": "Indite block", "S4": "Tray connector"}

CHOSEN = Settings.from_env(
    environ={
        "SEGMENT_WRITE_KEY": "any",
        "SEGMENT_WEBHOOK_SECRET": "any",
        "SEGMENT_PROFILE_TOKEN": "any",
        "SEGMENT_SPACE_ID": "spa_1",
        "SEGMENT_IMPORT_DIR": ".",
    }
)
"""Settings under which every tool is offered."""


def tool_table() -> str:
    """Name, what it does, and what it takes."""
    shown = [definition(tool, CHOSEN) for tool in TOOLS]
    lines = ["| tool | what it does | arguments |", "|---|---|---|"]
    for tool in shown:
        first = tool["description"].split(". ")[0].rstrip(".") + "."
        schema = tool["inputSchema"]
        names = [
            f"**`{name}`**" if name in schema.get("required", ()) else f"`{name}`" for name in schema["properties"]
        ]
        lines.append(f"| `{tool['name']}` | {first} | {', '.join(names)} |")
    return "\n".join(lines)


def settings_table() -> str:
    """Every setting, its default and what it means."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        value: object = field.get_default(call_default_factory=True)
        shown = ",".join(TOOLSETS) if value == TOOLSETS else value
        default = "" if shown in (None, {}, ()) else f"`{str(shown).lower() if isinstance(shown, bool) else shown}`"
        lines.append(f"| `SEGMENT_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


def proofs() -> dict[str, list[str]]:
    """Statement number to the tests that name it."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").glob("test_s?_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for number in _named(node):
                    found.setdefault(number, []).append(node.name)
    return found


def _named(test: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The numbers in the test's `@statement(...)` marks."""
    calls = [mark for mark in test.decorator_list if isinstance(mark, ast.Call)]
    marks = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "statement"]
    return [str(ast.literal_eval(argument)) for mark in marks for argument in mark.args]


def parity_table() -> str:
    """What each document promises, and the tests that prove it."""
    statements: dict[str, str] = json.loads((ROOT / "tests/statements.json").read_text(encoding="utf-8"))
    proved = proofs()
    lines = ["| number | document | promise | proved by |", "|---|---|---|---|"]
    for number, text in statements.items():
        tests = proved.get(number, [])
        shown = f"`{tests[0]}`" + (f" and {len(tests) - 1} more" if len(tests) > 1 else "") if tests else "to come"
        lines.append(f"| {number} | {DOCUMENTS[number[:2]]} | {text} | {shown} |")
    return "\n".join(lines)


def rules_table() -> str:
    """What is refused, warned of or mended, and Segment's page that says why."""
    rules: list[dict[str, str]] = json.loads((ROOT / "tests/rules.json").read_text(encoding="utf-8"))
    lines = ["| rule | what happens here | source |", "|---|---|---|"]
    for rule in rules:
        source = "JSON" if rule["source"] == "ours" else f"[Segment]({rule['source']})"
        lines.append(f"| {rule['rule']} | {rule['effect']} | {source} |")
    return "\n".join(lines)


def warnings_table() -> str:
    """Every warning by its code, and what it says of a field."""
    lines = ["| code | what it says |", "|---|---|"]
    for code, text in REMARKS.items():
        shown = text.replace("{field}", "*field*").replace("{known!r}", "*name*").replace("{known}", "*this*")
        lines.append(f"| `{code}` | {shown} |")
    return "\n".join(lines)


SPEED = ROOT / "benchmarks" / "results" / "bench.json"


def speed_table() -> str:
    """The bars with the figures of the stored run, and what it ran on; that there is none, before the first."""
    if not SPEED.exists():
        return "No run is stored yet; `make bench` makes one."
    stored = json.loads(SPEED.read_text(encoding="utf-8"))
    if stored["quick"]:
        raise SystemExit(f"{SPEED.name} is of a quick run, whose figures tell nothing: run `make bench`")
    on = f"{stored['system']}, {stored['processor']}, {stored['cores']} cores, Python {stored['python']}"
    told = f"{stored['when'][:10]}, {on}; medians of {stored['rounds']} rounds, with the least and the most."
    lines = ["| figure | against | bar | measured | |", "|---|---|---|---|---|"]
    for bar in stored["bars"]:
        cells = (bar["figure"], bar["against"], figures.wanted(bar), figures.shown(bar), figures.verdict(bar))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([f"![How fast it is]({SPEED.with_suffix('.svg').relative_to(ROOT)})", "", told, "", *lines])


TABLES = {
    "speed": speed_table,
    "tools": tool_table,
    "context": context_table,
    "warnings": warnings_table,
    "settings": settings_table,
    "rules": rules_table,
    "parity": parity_table,
}


def readme(text: str) -> str:
    """The README with its tables written anew."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: made by `make generate` -->", f"<!-- end of {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(f"README.md needs one pair of marks for {name}")
        before, after = text.split(begin, maxsplit=1)[0], text.split(end)[1]
        text = f"{before}{begin}\n{table()}\n{end}{after}"
    return text


def snapshots() -> dict[str, str]:
    """File name to content, for every tool as a server with a key lists it."""
    return {f"{tool.name}.json": json.dumps(definition(tool, CHOSEN), indent=2) + "\n" for tool in TOOLS}


def main() -> None:
    """Write all of it."""
    folder = ROOT / "tests" / "snapshots"
    folder.mkdir(exist_ok=True)
    made = snapshots()
    for stale in set(folder.glob("*.json")) - {folder / name for name in made}:
        stale.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    path = ROOT / "README.md"
    path.write_text(readme(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()

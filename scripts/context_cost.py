"""What the list of tools costs a model's context: bytes of compact JSON, and tokens, by toolset.

`python scripts/context_cost.py` prints the table that stands in the README.
"""

import json
from collections.abc import Iterable

import bpe_openai  # pyright: ignore[reportMissingTypeStubs] - it has annotations, and no mark that it has

from segment_tools.settings import TOOLSETS, Settings
from segment_tools.surfaces.mcp_server import instructions
from segment_tools.tools import TOOLS, Tool, definition

ENCODING = "o200k_base"
"""GPT-4o's and its successors'. Claude's and Gemini's are not published; for JSON they are near."""

FOR_MODELS = ("name", "description", "inputSchema")
"""What hosts hand on to a model; the rest of a definition is for the host."""


def settings(**more: str) -> Settings:
    """Settings under which every toolset is offered, but for the given ones."""
    everything = {
        "write_key": "any",
        "webhook_secret": "any",
        "profile_token": "any",
        "space_id": "spa_1",
        "outbox": "memory:",
    }
    return Settings.from_env(
        environ={f"SEGMENT_{name.upper()}": value for name, value in {**everything, **more}.items()}
    )


def compact(value: object) -> str:
    """JSON as it is sent."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def cost(texts: Iterable[str]) -> tuple[int, int]:
    """Bytes and tokens."""
    encoding, held = bpe_openai.get_encoding(ENCODING), list(texts)
    return sum(len(text.encode()) for text in held), sum(len(encoding.encode(text)) for text in held)


def _of(toolset: str) -> list[Tool]:
    return [tool for tool in TOOLS if tool.toolset == toolset]


def _row(label: str, tools: Iterable[Tool], chosen: Settings) -> str:
    shown = [definition(tool, chosen) for tool in tools]
    models = cost(compact({part: each[part] for part in FOR_MODELS}) for each in shown)
    whole = cost(map(compact, shown))
    return f"| {label} | {len(shown)} | {models[0]:,} | {models[1]:,} | {whole[0]:,} | {whole[1]:,} |"


def table() -> str:
    """A row for each toolset, one for all of them, and one for tracking where no write key is set."""
    chosen = settings()
    lines = ["| toolset | tools | bytes | tokens | bytes of all | tokens of all |", "|---|---:|---:|---:|---:|---:|"]
    lines += [_row(f"`{toolset}`", _of(toolset), chosen) for toolset in TOOLSETS]
    lines += [_row("`tracking`, no key set", _of("tracking"), settings(write_key="")), _row("all", TOOLS, chosen)]
    text = cost([instructions(chosen)])
    return "\n".join([*lines, f"| `instructions`, all toolsets | | {text[0]:,} | {text[1]:,} | | |"])


if __name__ == "__main__":
    print(table())

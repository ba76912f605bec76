"""The connection test as a report for people."""

from collections.abc import Sequence
from typing import Any

from segment_tools.tools.connection import Connection


def report_lines(report: Connection) -> list[str]:
    """A line for each check, then what is wrong, what else to know, and the verdict."""
    width = max((len(check["name"]) for check in report.checks), default=0)
    below = (*report.problems, *report.remarks)
    lines = [f"{check['name']:{width}}  {_state(check):7}  {_told(check, below)}" for check in report.checks]
    if report.destinations:
        lines.append(f"\ndestinations, as `integrations` names them: {', '.join(report.destinations)}")
    lines += [f"\nproblem: {problem}" for problem in report.problems]
    lines += [f"\nnote: {remark}" for remark in report.remarks]
    lines.append(f"\n{'ready' if report.ready else 'not ready'} (level {report.level}, region {report.region})")
    return [line.rstrip() for line in lines]


def _state(check: dict[str, Any]) -> str:
    if not check["set"]:
        return "not set"
    return {True: "ok", False: "problem", None: "set"}[check.get("ok")]


def _told(check: dict[str, Any], below: Sequence[str]) -> str:
    """What is known of it, but for the sentences that stand below among the problems and remarks."""
    said = [check["message"], check.get("hint") if check["set"] else None]
    parts = [
        check.get("address"),
        f"{check['milliseconds']} ms" if "milliseconds" in check else None,
        *(text for text in said if text and not any(text in line for line in below)),
    ]
    return "  ".join(part for part in parts if part)

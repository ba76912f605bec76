"""What every answer of a tool has: whether it worked, and if not, why and what to do."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from segment_tools.errors import LISTED_PROBLEMS, Problem
from segment_tools.receipt import Warned

Progress = Callable[[float, float | None, str], Awaitable[None]]
"""Told by a tool that takes its time: how far it is, of how much (if known), and what it does."""


async def untold(progress: float, total: float | None, message: str) -> None:
    """For who does not ask how far a call is."""


class Fault(BaseModel):
    """Why a call failed and what to do about it."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True)

    code: str
    field: str | None = None
    message: str
    hint: str | None = None
    retryable: bool
    retry_after_seconds: float | None = None
    problems: list[dict[str, Any]] | None = None
    """Where more than one thing is wrong, or in a batch: the first, each with index, field, code, message and hint."""


class Answer(BaseModel):
    """What a tool answers; fields that are absent are left out."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, validate_by_name=True)

    success: bool = True

    def as_dict(self) -> dict[str, Any]:
        """The JSON that surfaces show."""
        return self.model_dump(by_alias=True, exclude_none=True)


class Failure(Answer):
    """What a tool that reads answers when it failed."""

    success: bool = False
    status_code: int
    original_status_code: int | None = None
    request_id: str | None = None
    error_message: str
    error: Fault


def told(warnings: Sequence[Warned]) -> list[dict[str, Any]] | None:
    """Warnings as an answer has them."""
    return [{key: value for key, value in asdict(each).items() if value is not None} for each in warnings] or None


def all_listed(problems: Sequence[Problem], more: int) -> list[dict[str, Any]]:
    """The first problems as an answer has them; an entry of its own counts the others, and what else there is."""
    left = len(problems) - LISTED_PROBLEMS
    counted = [left_out("more_problems", max(0, left) + more)] if left > 0 or more else []
    return [*map(as_listed, problems[:LISTED_PROBLEMS]), *counted]


def left_out(code: str, count: int) -> dict[str, Any]:
    """The last entry of a list that does not have all."""
    return {"code": code, "message": f"And {count} more."}


def as_listed(problem: Problem) -> dict[str, Any]:
    """A problem as an answer has it."""
    known = {name: getattr(problem, name) for name in ("index", "field", "code", "message", "hint")}
    return {name: value for name, value in known.items() if value not in (None, "")}

"""What a tool answers: one superset of fields, for success and failure alike, absent ones left out."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any, Literal, cast

from pydantic.alias_generators import to_camel

from segment_tools.errors import (
    LISTED_PROBLEMS,
    InvalidMessage,
    NotConfigured,
    Refused,
    Rejected,
    SegmentError,
    Undelivered,
)
from segment_tools.receipt import Receipt, Warned
from segment_tools.tools._answer import Answer, Failure, Fault, all_listed, left_out
from segment_tools.tools._tool import Schema, Tool, schema_of

REFUSED, ANSWERED, TROUBLE = -1, 200, 500
"""`statusCode`: refused before sending; Segment answered; no answer, or one that may change (429, 5xx)."""


_DECIMALS = 3
"""Of seconds: as finely as Segment tells time."""


class Result(Answer):
    """The superset of what the tools that send answer."""

    status: Literal["accepted", "queued", "dry_run"] | None = None
    event: str | None = None
    name: str | None = None
    category: str | None = None
    user_id: str | None = None
    anonymous_id: str | None = None
    group_id: str | None = None
    previous_id: str | None = None
    traits: dict[str, Any] | None = None
    count: int | None = None
    message_id: str | None = None
    message_ids: list[str] | None = None
    verify_with: str | None = None
    """The tool that tells later whether Segment kept it."""
    timestamp: str | None = None
    sent: bool | None = None
    attempts: int | None = None
    status_code: Literal[-1, 200, 500]
    original_status_code: int | None = None
    response_body: dict[str, Any]
    error_message: str
    error: Fault | None = None
    warnings: list[dict[str, Any]] | None = None
    request: dict[str, Any] | None = None
    requests: list[dict[str, Any]] | None = None


_COMMON = (
    "success", "status", "timestamp", "sent", "attempts", "statusCode", "originalStatusCode", "responseBody",
    "errorMessage", "error", "warnings", "request",
)  # fmt: skip


def output_schema(tool: Tool) -> Schema:
    """The tool's share of the superset: whatever its successes and its failures hold."""
    if tool.answer is not Receipt:
        return _read_schema(cast("type[Answer]", tool.answer))
    whole = schema_of(Result)["properties"]
    names = {*_COMMON, *tool.echoes}
    return {
        "type": "object",
        "properties": {name: _open(whole[name]) for name in whole if name in names},
        "required": ["success"],
    }


def _read_schema(answer: type[Answer]) -> Schema:
    """Whatever a tool that reads answers, and what it answers when it failed."""
    fields = {**schema_of(answer)["properties"], **schema_of(Failure)["properties"]}
    return {
        "type": "object",
        "properties": {name: _open(below) for name, below in fields.items()},
        "required": ["success"],
    }


def _open(schema: Schema) -> Schema:
    """The schema without what an answer's reader can do without: that objects may have more, what they must have."""
    found = {key: value for key, value in schema.items() if key not in ("additionalProperties", "required", "default")}
    if "items" in found:
        found["items"] = _open(found["items"])
    if "properties" in found:
        found["properties"] = {name: _open(below) for name, below in found["properties"].items()}
    return found


def success(tool: Tool, receipt: Receipt, verify_with: str | None) -> Result:
    """The answer to a call that Segment accepted, that the outbox has, or that a dry run held back."""
    return Result(
        success=True,
        status="accepted" if receipt.status == "failed" else receipt.status,
        verify_with=verify_with,
        status_code=ANSWERED,
        error_message="",
        **_facts(tool, receipt),
        **_bodies(receipt),
    )


def failure(tool: Tool | None, error: SegmentError) -> Answer:
    """The answer to a call that failed, with what it had stamped and sent by then."""
    if tool is None or tool.answer is Receipt:
        return _unsuccessful(tool, error)
    answered = error if isinstance(error, Undelivered) else None
    return Failure(
        status_code=_status(error),
        original_status_code=answered and answered.status_code,
        request_id=(answered and answered.request_id) or None,
        error_message=str(error),
        error=_fault(error, Receipt("failed", ())),
    )


def _unsuccessful(tool: Tool | None, error: SegmentError) -> Result:
    receipt = error.receipt or Receipt("failed", ())
    return Result(
        success=False,
        status_code=_status(error),
        error_message=str(error),
        error=_fault(error, receipt),
        **(_facts(tool, receipt) if tool else {"sent": _unsent(error), "response_body": {}}),
    )


def _status(error: SegmentError) -> Literal[-1, 200, 500]:
    if isinstance(error, InvalidMessage | NotConfigured | Refused):
        return REFUSED
    return ANSWERED if isinstance(error, Rejected) and not error.retryable else TROUBLE


def _unsent(error: SegmentError) -> bool | None:
    """False for what was refused; for an accident nobody knows."""
    return False if _status(error) == REFUSED else None


def _facts(tool: Tool, receipt: Receipt) -> dict[str, Any]:
    """What the tool repeats of its messages, and what is known of their delivery."""
    found: dict[str, Any] = {
        "sent": receipt.sent,
        "attempts": receipt.attempts or None,
        "original_status_code": receipt.status_code,
        "response_body": dict(receipt.response_body),
        "warnings": grouped(receipt.warnings) or None,
    }
    if not receipt.messages:
        return found
    found["timestamp"] = receipt.messages[0]["timestamp"]
    if "messageIds" in tool.echoes:
        taken = len(receipt.messages) if receipt.status == "dry_run" else receipt.accepted + receipt.queued
        return {**found, "message_ids": list(receipt.message_ids), "count": taken, "timestamp": None}
    message = receipt.messages[0]
    echoed = {_FIELDS[name]: message.get(name) for name in tool.echoes}
    if "traits" in tool.echoes:
        echoed["traits"] = message.get("traits", {})
    return {**found, **echoed}


_FIELDS = {to_camel(name): name for name in Result.model_fields}


def _bodies(receipt: Receipt) -> dict[str, Any]:
    """A dry run's exact request bodies: one as `request`, several as `requests`."""
    bodies = [dict(body) for body in receipt.requests]
    return {"request": bodies[0]} if len(bodies) == 1 else {"requests": bodies or None}


def grouped(warned: Sequence[Warned]) -> list[dict[str, Any]]:
    """Each warning once, at its first index, with how many messages of a batch have it; the first, where many are."""
    if len(warned) <= 1:
        return list(map(_shown, warned))
    counts = Counter((warning.code, warning.field, warning.message) for warning in warned)
    first = {(warning.code, warning.field, warning.message): warning for warning in reversed(warned)}
    listed = [
        {**_shown(first[key]), **({"count": counts[key]} if counts[key] > 1 else {})}
        for key in islice(counts, LISTED_PROBLEMS)
    ]
    left = len(counts) - len(listed)
    return [*listed, left_out("more_warnings", left)] if left else listed


def _shown(warned: Warned) -> dict[str, Any]:
    found = {"code": warned.code, "message": warned.message, "field": warned.field, "index": warned.index}
    return _present(found)


def _fault(error: SegmentError, receipt: Receipt) -> Fault:
    problems, more = (error.problems, error.more) if isinstance(error, InvalidMessage) else ((), 0)
    listed = len(problems) > 1 or any(problem.index is not None for problem in problems)
    return Fault(
        code=error.code,
        field=error.field,
        message=error.message,
        hint=_hint(error, receipt) or None,
        retryable=error.retryable,
        retry_after_seconds=error.retry_after_seconds and round(error.retry_after_seconds, _DECIMALS),
        problems=all_listed(problems, more) if listed else None,
    )


def _hint(error: SegmentError, receipt: Receipt) -> str:
    """What to do next; after a batch that went out in part, from which message on."""
    if not receipt.accepted:
        return error.hint
    rest = f"send the rest again, from batch[{receipt.accepted}] on, with the messageIds given here."
    return f"{error.hint} The first {receipt.accepted} messages were accepted: {rest}".lstrip()


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, "")}

"""What the audit log is told of a call: which tool, what became of it, and digests of the ids in it."""

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from pydantic_core import to_json

from segment_tools.audit import Audit
from segment_tools.client import Segment
from segment_tools.errors import PENDING
from segment_tools.guard import Origin
from segment_tools.redaction import hidden_in, is_plain_id
from segment_tools.spec.names import printable
from segment_tools.spec.timestamps import iso_utc
from segment_tools.tools._result import REFUSED
from segment_tools.tools._tool import Tool

IDS = ("userId", "anonymousId", "groupId", "previousId", "id")
"""The arguments that say whom a call is about."""

Arguments = Mapping[str, Any] | str | None
Noting = Callable[[dict[str, Any]], dict[str, Any]]


@contextmanager
def audited(tool: Tool | None, arguments: Arguments, segment: Segment, origin: Origin) -> Generator[Noting]:
    """Write the call into the audit log, if there is one, whatever becomes of it; the result is to be shown to it.

    Raises:
        NotConfigured, Refused: calls must be written, and cannot be.
    """
    if segment.settings.audit_log is None:
        yield lambda result: result
        return
    audit = segment.audit
    audit.begin()
    began, done = segment.outside.monotonic(), list[dict[str, Any]]()

    def noting(result: dict[str, Any]) -> dict[str, Any]:
        done.append(result)
        return result

    try:
        yield noting
    finally:
        took = segment.outside.monotonic() - began
        fields = {
            "time": iso_utc(segment.outside.now()),
            "tool": tool.name if tool else None,
            "session": audit.digest(origin.session or segment.name),
            "client": printable(origin.client) or None,
            "request": printable(origin.request) or None,
            **_shown(audit, _became(tool, done[-1] if done else None)),
            **_about(audit, arguments),
            "ms": round(took * 1000, 1),
        }
        told = {name: value for name, value in fields.items() if value not in (None, [])}
        audit.note(hidden_in(told, segment.settings.secrets))


def _became(tool: Tool | None, result: Mapping[str, Any] | None) -> dict[str, Any]:
    """The verdict, and the messageId of a message, or the first of many and how many they are."""
    if result is None:
        return {"verdict": "failed", "code": "cancelled"}
    ids: list[str] = result.get("messageIds") or []
    found = {"messageId": ids[0] if ids else result.get("messageId"), "count": len(ids) or None}
    if result["success"]:
        read = "read" if tool and tool.read_only else "done"
        return {**found, "verdict": result.get("status") or read}
    code = result["error"]["code"]
    if code == PENDING:
        return {**found, "verdict": "asked"}
    refused = result.get("statusCode") == REFUSED
    return {**found, "verdict": "refused" if refused else "failed", "code": code}


def _shown(audit: Audit, became: dict[str, Any]) -> dict[str, Any]:
    """The same, with a digest for a messageId that may be somebody's address or number."""
    given = became.get("messageId")
    return became if given is None or is_plain_id(given) else {**became, "messageId": audit.digest(given)}


def _about(audit: Audit, arguments: Arguments) -> dict[str, Any]:
    """Digests of whom the call is about, and how many bytes of arguments it had."""
    people = {audit.digest(name): None for each in _messages(_read(arguments)) for name in _names(each)}
    return {"people": list(people), "bytes": _size(arguments)}


def _size(arguments: Arguments) -> int | None:
    """The arguments' bytes; None of what no JSON can hold, such as half a character."""
    if isinstance(arguments, str):
        return len(arguments.encode(errors="replace"))
    try:
        return len(to_json(arguments or {}, fallback=str, inf_nan_mode="constants"))
    except (ValueError, RecursionError):
        return None


def _read(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _messages(arguments: object) -> list[dict[str, Any]]:
    """The call's own arguments, and the messages of its batch."""
    if not isinstance(arguments, Mapping):
        return []
    own = cast("dict[str, Any]", arguments)
    batch = _read(own.get("batch"))
    items: list[object] = cast("list[object]", batch) if isinstance(batch, list) else [batch]
    return [own, *(cast("dict[str, Any]", item) for item in map(_read, items) if isinstance(item, dict))]


def _names(fields: Mapping[str, Any]) -> list[str]:
    """The ids, and of `type:value`, as profiles are asked for, the value too."""
    ids = [_text(fields[name]) for name in IDS if name in fields]
    typed = _text(fields.get("id")).partition(":")[2]
    return [each for each in (*ids, typed) if each]


def _text(value: object) -> str:
    """An id as text; empty for what is none, such as a number of more digits than Python writes."""
    try:
        return str(value) if isinstance(value, str | int | float) else ""
    except ValueError:
        return ""

"""Function calling without MCP: the tools' definitions in each provider's envelope, and the one way to answer a call.

    for definition in definitions("openai"): ...
    result = await dispatch("segment_track", '{"event": "Order Completed", "userId": "u1"}', segment)

This is also the boundary that the other surfaces stand on: whatever happens below it, `dispatch` returns a result.
"""

import json
import logging
import traceback
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

from segment_tools.client import Segment
from segment_tools.errors import InvalidMessage, SegmentError
from segment_tools.guard import Confirm, Origin
from segment_tools.redaction import hidden_in
from segment_tools.settings import Settings
from segment_tools.spec.values import KeyTwice, unique
from segment_tools.tools import (
    PROGRAM,
    TOOLS,
    Answer,
    Progress,
    audited,
    call,
    description,
    input_schema,
    named,
    offered,
    refused,
    untold,
)
from segment_tools.tools._tool import Schema

Format = Literal["openai", "openai-responses", "openai-strict", "anthropic", "gemini"]
FORMATS: tuple[Format, ...] = get_args(Format)

_log = logging.getLogger(__name__)


def definitions(format: Format, settings: Settings | None = None) -> list[dict[str, Any]]:  # noqa: A002 - the field's own word
    """The tools as the provider's API takes them; without settings, as a server with a key offers them.

    Formats: `openai` (Chat Completions), `openai-responses`, `openai-strict` (Chat Completions with strict schemas:
    every argument is required and may be null, free-form objects are JSON text), `anthropic` (Messages), `gemini`
    (function declarations).

    Raises:
        ValueError: for a format that is none of these.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}")
    chosen = Settings() if settings is None else settings
    hidden = () if settings else ("writeKey",)
    return [
        _enveloped(tool.name, description(tool, chosen), _without(input_schema(tool, chosen), hidden), format)
        for tool in offered(chosen)
    ]


def _without(schema: Schema, hidden: tuple[str, ...]) -> Schema:
    return {**schema, "properties": {name: below for name, below in schema["properties"].items() if name not in hidden}}


def _enveloped(name: str, text: str, schema: Schema, format: Format) -> dict[str, Any]:  # noqa: A002
    named = {"name": name, "description": text}
    match format:
        case "openai":
            return {"type": "function", "function": {**named, "parameters": schema, "strict": False}}
        case "openai-responses":
            return {"type": "function", **named, "parameters": schema, "strict": False}
        case "openai-strict":
            return {"type": "function", "function": {**named, "parameters": _strict(schema), "strict": True}}
        case "anthropic":
            return {**named, "input_schema": schema}
        case "gemini":
            return {**named, "parametersJsonSchema": schema}


def _strict(schema: Schema) -> Schema:
    """The schema under strict rules: everything required, what is optional may be null, no free objects."""
    if schema["type"] == "array":
        return {"type": "array", **_described(schema), "items": _strict(schema["items"])}
    if schema["type"] != "object":
        return {key: value for key, value in schema.items() if key in ("type", "enum", "description")}
    if "properties" not in schema:
        text = schema.get("description", "")
        return {"type": "string", "description": f"{text}. Write it as JSON text".removeprefix(". ")}
    properties = {
        name: _strict(below) if name in schema.get("required", ()) else _nullable(_strict(below))
        for name, below in schema["properties"].items()
    }
    return {
        "type": "object",
        **_described(schema),
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _described(schema: Schema) -> Schema:
    return {key: schema[key] for key in ("description",) if key in schema}


def _nullable(schema: Schema) -> Schema:
    choices = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, **choices, "type": [schema["type"], "null"]}


async def dispatch(
    name: str,
    arguments: Mapping[str, Any] | str | None,
    segment: Segment,
    progress: Progress = untold,
    call_id: str | None = None,
    origin: Origin = PROGRAM,
    confirm: Confirm | None = None,
) -> dict[str, Any]:
    """The tool's result as JSON; `success` tells whether it worked, `error` what to do if not. Never raises.

    `arguments` may be the JSON text that some providers hand over. `progress` is told how far a call is that takes
    its time. `call_id` is what repeats of the same call have in common, for `SEGMENT_DERIVE_MESSAGE_ID`. `origin` says
    who calls, for limits and the audit log. `confirm` shows a person what `SEGMENT_CONFIRM` wants their consent to, and
    returns `accept`, `decline` or `cancel`; without it such calls are refused.
    """
    try:
        with audited(named(name), arguments, segment, origin) as noted:
            return noted(await _answered(name, arguments, segment, progress, call_id, origin, confirm))
    except SegmentError as error:
        return refused(error).as_dict()
    except Exception as error:  # noqa: BLE001 - as below, of what keeps the audit log
        return _accident(name, error)


async def _answered(
    name: str,
    arguments: Mapping[str, Any] | str | None,
    segment: Segment,
    progress: Progress,
    call_id: str | None,
    origin: Origin,
    confirm: Confirm | None,
) -> dict[str, Any]:
    try:
        result = (await call(name, _read(arguments), segment, progress, call_id, origin, confirm)).as_dict()
        return result if result["success"] else _clean(result, segment)
    except SegmentError as error:
        return refused(error).as_dict()
    except Exception as error:  # noqa: BLE001 - the one boundary: an accident must not show a model our insides
        return _accident(name, error)


def _accident(name: str, error: Exception) -> dict[str, Any]:
    # The exception's own text may hold somebody's data, so that only its type and place are logged.
    _log.error("%.60s failed: %s\n%s", name, type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
    return refused(_Accident(name)).as_dict()


def _clean(result: dict[str, Any], segment: Segment) -> dict[str, Any]:
    """The failure without the server's keys, which a caller may have put where a field's name belongs."""
    return cast("dict[str, Any]", hidden_in(result, segment.settings.secrets))


class _Accident(SegmentError):
    """Something this package did not foresee."""

    code = "internal_error"

    def __init__(self, name: str) -> None:
        sent = "" if any(tool.name == name and tool.read_only for tool in TOOLS) else "; the message may have been sent"
        super().__init__("The tool failed unexpectedly.", hint=f"The cause is in the server's log{sent}.")


def _read(arguments: Mapping[str, Any] | str | None) -> Mapping[str, Any] | None:
    found: object = arguments
    if isinstance(arguments, str):
        try:
            found = json.loads(arguments, object_pairs_hook=unique) if arguments.strip() else None
        except KeyTwice:
            raise InvalidMessage.of("invalid_value", "The arguments name a key twice.", KeyTwice.hint) from None
        except (ValueError, RecursionError):
            found = arguments
    if found is None or isinstance(found, Mapping):
        return cast("Mapping[str, Any] | None", found)
    raise InvalidMessage.of(
        "invalid_value",
        "The arguments are not a JSON object.",
        'Pass one, such as {"event": "Order Completed", "userId": "u1"}.',
    )


__all__ = ["FORMATS", "Answer", "Format", "definitions", "dispatch"]

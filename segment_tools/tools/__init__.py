"""The tools: which there are, which are offered under given settings, and the one way to call them."""

from collections.abc import Mapping
from typing import Any, cast

from segment_tools import telemetry
from segment_tools.client import Segment
from segment_tools.errors import InvalidMessage, NotConfigured, SegmentError
from segment_tools.guard import Confirm, Origin
from segment_tools.receipt import Receipt
from segment_tools.settings import Settings
from segment_tools.spec.names import nearest, printable
from segment_tools.spec.parsing import fields_of, parse
from segment_tools.tools import connection, events, finding, importing, outbox, previewing, profiles, tracking, triggers
from segment_tools.tools._answer import Answer, Progress, untold
from segment_tools.tools._audited import audited
from segment_tools.tools._result import failure, output_schema, success
from segment_tools.tools._routing import routed
from segment_tools.tools._tool import Caller, Schema, Tool, description, input_schema

__all__ = [
    "PROGRAM",
    "TOOLS",
    "Answer",
    "Progress",
    "Tool",
    "audited",
    "call",
    "definition",
    "description",
    "input_schema",
    "lacking",
    "named",
    "offered",
    "output_schema",
    "refused",
    "untold",
]

PROGRAM = Origin()
"""Who calls where nobody says so: this program itself."""

TOOLS: tuple[Tool, ...] = (
    *tracking.TOOLS,
    *profiles.TOOLS,
    *triggers.TOOLS,
    *outbox.TOOLS,
    *connection.TOOLS,
    *finding.TOOLS,
    *previewing.TOOLS,
    *events.TOOLS,
    *importing.TOOLS,
)


_BY_NAME = {tool.name: tool for tool in TOOLS}


def offered(settings: Settings) -> tuple[Tool, ...]:
    """The tools that these settings show, always in the same order."""
    return tuple(tool for tool in TOOLS if _shows(settings, tool))


def _shows(settings: Settings, tool: Tool) -> bool:
    return (
        tool.toolset in settings.toolsets
        and (tool.read_only or not settings.read_only)
        and not settings.lacking(tool.toolset)
    )


def lacking(toolset: str, settings: Settings) -> str:
    """Every setting that the toolset wants and that is not set, where it cannot be offered; else empty."""
    first = settings.lacking(toolset)
    space = " and SEGMENT_SPACE_ID" if toolset == "profiles" and settings.space_id is None else ""
    return f"{first}{space}" if first else ""


def definition(tool: Tool, settings: Settings) -> Schema:
    """The tool as MCP lists it, in MCP's own names."""
    return {
        "name": tool.name,
        "title": tool.title,
        "description": description(tool, settings),
        "inputSchema": input_schema(tool, settings),
        "outputSchema": output_schema(tool),
        "annotations": {
            "title": tool.title,
            "readOnlyHint": tool.read_only,
            "destructiveHint": tool.destructive,
            "idempotentHint": tool.idempotent,
            "openWorldHint": tool.open_world,
        },
    }


async def call(
    name: str,
    arguments: Mapping[str, Any] | None,
    segment: Segment,
    progress: Progress = untold,
    call_id: str | None = None,
    origin: Origin = PROGRAM,
    confirm: Confirm | None = None,
) -> Answer:
    """What the tool answers, be it success or failure; nothing that went wrong on purpose is raised."""
    tool = None
    try:
        tool = _found(name, segment.settings)
        source, write_key, own = _routed(tool, dict(arguments or {}), segment.settings)
        caller = Caller(source, write_key, progress, call_id, name, origin, confirm)
        needs_id = tool.answer is Receipt and segment.settings.anonymous_id == "require"
        parsed = parse(tool.arguments, own, identity=needs_id)
        done = await tool.run(parsed, segment, caller)
        return success(tool, done, _finder(done, segment.settings)) if isinstance(done, Receipt) else done
    except SegmentError as error:
        if tool and tool.answer is Receipt:
            telemetry.refused(error, _count(arguments))
        return failure(tool, error)


def _count(arguments: Mapping[str, Any] | None) -> int:
    """How many messages a call was to send, as far as that can be told where it was refused."""
    batch: object = (arguments or {}).get("batch")
    return len(cast("list[object]", batch)) if isinstance(batch, list) else 1


def _finder(receipt: Receipt, settings: Settings) -> str | None:
    """The tool that tells more of the messages, where there is something to tell and the tool is offered."""
    told = receipt.status != "dry_run" and finding.segment_find_message.toolset in settings.toolsets
    return FIND if told else None


FIND = finding.segment_find_message.name


def refused(error: SegmentError) -> Answer:
    """The answer to a call that came to no tool at all."""
    return failure(None, error)


def named(name: str) -> Tool | None:
    """The tool of this name, offered or not."""
    return _BY_NAME.get(name)


def _found(name: str, settings: Settings) -> Tool:
    tool = named(name)
    if tool and _shows(settings, tool):
        return tool
    if tool:
        if tool.toolset in settings.toolsets and (setting := settings.lacking(tool.toolset)):
            missing = lacking(tool.toolset, settings)
            hint = f"Ask whoever runs this server to set {missing}."
            raise NotConfigured(setting, f"{name} needs {missing}: not set.", hint=hint)
        setting = "SEGMENT_READ_ONLY" if settings.read_only else "SEGMENT_TOOLSETS"
        raise NotConfigured(
            setting, f"{name} is switched off here by {setting}.", hint="Ask whoever runs this server to switch it on."
        )
    asked = name.removeprefix("segment_")
    short = _OTHER_NAMES.get(asked) or nearest(asked, [tool.name.removeprefix("segment_") for tool in TOOLS])
    meant = f"segment_{short}" if short else None
    tools = [tool.name for tool in offered(settings)]
    hint = f"Did you mean {meant!r}?" if meant else f"The tools are {', '.join(tools) or 'none, under these settings'}."
    raise InvalidMessage.of("unknown_tool", f"There is no tool {printable(name)!r}.", hint)


_OTHER_NAMES = {
    **dict.fromkeys(("send_event", "log_event", "record_event", "capture", "capture_event", "event"), "track"),
    **dict.fromkeys(("set_traits", "update_user", "upsert_user", "create_user"), "identify"),
    **dict.fromkeys(("merge", "merge_users", "link_users"), "alias"),
}
"""What models and other analytics APIs call a tool that has another name here."""


def _routed(tool: Tool, arguments: dict[str, Any], settings: Settings) -> tuple[str | None, str | None, dict[str, Any]]:
    """The source or the key that the call names, and the arguments that are the operation's own."""
    if tool.answer is not Receipt:
        return None, None, arguments
    source, write_key, own = routed(arguments, settings)
    return source, write_key, fields_of(own)

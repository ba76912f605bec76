"""What a tool is: a decorated function, and the schemas that every surface shows of it."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, cast, get_type_hints

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from segment_tools.client import Segment
from segment_tools.guard import Asked, Confirm, Origin
from segment_tools.receipt import Receipt
from segment_tools.settings import Settings
from segment_tools.spec.messages import ORDER, AnyMessage
from segment_tools.tools._answer import Answer, Progress, untold

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """What a call brings besides its tool's arguments.

    Which source it goes to, a configured one's name or a key of its own, who wants to know how far it is, and what
    repeats of the same call have in common; of which tool it is, where it comes from, and how a person is asked.
    """

    source: str | None = None
    write_key: str | None = field(default=None, repr=False)
    progress: Progress = field(default=untold, repr=False)
    call_id: str | None = field(default=None, repr=False)
    tool: str = ""
    origin: Origin = field(default=Origin(), repr=False)
    confirm: Confirm | None = field(default=None, repr=False)

    def asked(self, messages: Sequence[AnyMessage], *, indexed: bool = False) -> Asked:
        """What the guard is told of these."""
        own = (self.write_key,) if self.write_key else ()
        return Asked(self.tool, messages, indexed, self.origin.session, self.source, self.confirm, own)

    def _admit(
        self, segment: Segment, messages: Sequence[AnyMessage], *, indexed: bool = False
    ) -> Callable[[], Awaitable[bool]]:
        """The server's limits let them go, and a person where one must: see `sending.Admit`."""
        asked = self.asked(messages, indexed=indexed)
        segment.guard.check(asked)
        return partial(segment.guard.agree, asked)

    async def send(self, segment: Segment, message: AnyMessage) -> Receipt:
        """Send the message where the caller wants it."""
        admit = partial(self._admit, segment)
        return await segment.send(message, source=self.source, write_key=self.write_key, call=self.call_id, admit=admit)

    async def send_batch(self, segment: Segment, messages: Sequence[AnyMessage]) -> Receipt:
        """Send the messages where the caller wants them."""
        admit = partial(self._admit, segment, indexed=True)
        return await segment.send_batch(
            messages, source=self.source, write_key=self.write_key, call=self.call_id, admit=admit
        )


Run = Callable[[Any, Segment, Caller], Awaitable[Receipt | Answer]]


@dataclass(frozen=True, slots=True)
class Tool:
    """One operation, as every surface offers it."""

    name: str
    title: str
    description: str
    arguments: type[BaseModel]
    run: Run
    answer: type[Receipt] | type[Answer]
    """What `run` returns: a receipt for messages, whose answer repeats some of their fields, or the answer itself."""
    echoes: tuple[str, ...]
    """Which fields of the message the result repeats, in Segment's names."""
    toolset: str
    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool
    """Whether it asks anything outside this server."""
    examples: str
    """The sentence of the description that does not hold where a tracking plan says which events there are."""


def tool(
    *,
    title: str,
    echoes: tuple[str, ...] = (),
    toolset: str = "tracking",
    read_only: bool = False,
    destructive: bool = False,
    idempotent: bool = False,
    open_world: bool = True,
    examples: str = "",
) -> Callable[[Run], Tool]:
    """Make a tool of an asynchronous function; its name, docstring and first parameter are the tool's own.

    The docstring is product text: the model reads it. The first parameter's model becomes the input schema.
    """

    def make(run: Run) -> Tool:
        function = cast("Any", run)
        hints = get_type_hints(function)
        text = " ".join(inspect.cleandoc(function.__doc__).split())
        return Tool(
            name=function.__name__,
            title=title,
            description=text,
            arguments=next(iter(hints.values())),
            run=run,
            answer=hints["return"],
            echoes=echoes,
            toolset=toolset,
            read_only=read_only,
            destructive=destructive,
            idempotent=idempotent,
            open_world=open_world,
            examples=examples,
        )

    return make


class _PlainSchema(GenerateJsonSchema):
    """JSON Schema without what models pay for and hosts stumble over: titles, null defaults, unions with null."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 - the signature is pydantic's
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        return {key: value for key, value in found.items() if (key, value) != ("default", None)}


@cache
def schema_of(model: type[BaseModel]) -> Schema:
    """The model as one flat JSON Schema in Segment's names; `type` is implied by the tool, so it is left out."""
    found = model.model_json_schema(by_alias=True, schema_generator=_PlainSchema)
    properties: Schema = {key: value for key, value in found["properties"].items() if "const" not in value}
    ordered = sorted(properties, key=lambda key: ORDER.index(key) if key in ORDER else -1)
    required = [name for name in ordered if name in _required(model)]
    return {
        "type": "object",
        "properties": {key: _inlined(properties[key], found.get("$defs", {})) for key in ordered},
        **({"required": required} if required else {}),
    }


def _inlined(schema: Schema, definitions: Schema) -> Schema:
    """The schema of a field, with the model it refers to in its place."""
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    return (
        {key: value for key, value in definitions[name].items() if key not in ("title", "description")}
        if name
        else schema
    )


def _required(model: type[BaseModel]) -> set[str]:
    named: set[str] = set(getattr(model, "REQUIRED", ()))
    return named | {field.alias or name for name, field in model.model_fields.items() if field.is_required()}


def description(tool: Tool, settings: Settings) -> str:
    """What the tool does; under a tracking plan, without examples of events that it may not have."""
    if not tool.examples or not settings.checks_plan:
        return tool.description
    return tool.description.replace(tool.examples, f"Events: those of the tracking plan{_asked(settings)}.")


def _asked(settings: Settings) -> str:
    """Who knows the plan, where it is offered."""
    return ": ask segment_find_event" if "plan" in settings.toolsets else ""


def _planned(fields: Schema, settings: Settings) -> None:
    """Point to the tracking plan where else examples of Segment's own events stand."""
    if "event" in fields:
        fields["event"]["description"] = f"Name of an event of the tracking plan{_asked(settings)}"
        if "description" in fields["properties"]:
            fields["properties"]["description"] = "Those that the tracking plan has for the event"


def input_schema(tool: Tool, settings: Settings) -> Schema:
    """What the tool takes under these settings: `source` where several are configured, `writeKey` where none is.

    Under a tracking plan, it says where to find an event's name.
    """
    schema = deepcopy(schema_of(tool.arguments))
    if settings.checks_plan and tool.toolset == "tracking":
        _planned(schema["properties"], settings)
        _planned(schema["properties"].get("batch", {}).get("items", {}).get("properties", {}), settings)
    extra: Schema = {}
    if tool.answer is Receipt and settings.source_names:
        extra["source"] = {
            "type": "string",
            "enum": list(settings.source_names),
            "description": "Which source to send to",
        }
    if tool.answer is Receipt and settings.takes_write_key:
        extra["writeKey"] = {"type": "string", "description": "Write key"}
    return {**schema, "properties": {**schema["properties"], **extra}, "additionalProperties": False}

"""The tool that says what would be sent, and what is wrong with it, without sending it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field, WithJsonSchema

from segment_tools.client import Segment
from segment_tools.errors import InvalidMessage, Problem
from segment_tools.guard import Asked
from segment_tools.receipt import Receipt, Warned
from segment_tools.redaction import hidden_in
from segment_tools.sending import route_of
from segment_tools.settings import Settings
from segment_tools.spec.arguments import Arguments
from segment_tools.spec.messages import KINDS, AnyMessage
from segment_tools.spec.parsing import fields_of, parse
from segment_tools.tools._answer import Answer, all_listed
from segment_tools.tools._result import grouped
from segment_tools.tools._routing import routed
from segment_tools.tools._tool import Caller, Schema, schema_of, tool
from segment_tools.tools.tracking import BatchArguments, IdentifyArguments, item_of, item_schema


def _with_fields(schema: Schema) -> None:
    """Add what the tools of all six types take, each with the types that have it."""
    taken = {kind: schema_of(model)["properties"] for kind, model in {**KINDS, "identify": IdentifyArguments}.items()}
    for name, below in item_schema()["properties"].items():
        having = [kind for kind in taken if name in taken[kind]]
        text = "Any type" if len(having) == len(KINDS) else ", ".join(having)
        schema["properties"].setdefault(name, {**below, "description": text})


class CheckArguments(Arguments):
    """One message, or many. Whatever else is given is judged as the message's own, and not refused before that."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_with_fields)

    type: Annotated[Any, WithJsonSchema({"type": "string", "enum": list(KINDS)})] = Field(
        default=None, description="Whose tool's arguments follow"
    )
    batch: Annotated[
        Any, WithJsonSchema({"type": "array", "items": {"type": "object", "additionalProperties": True}})
    ] = Field(default=None, description="Instead: as segment_batch takes it, with context and integrations for all")

    @property
    def message(self) -> dict[str, Any]:
        """The fields as they were given, but for those that are absent as the tools that send understand it."""
        chosen = {"type": self.type, "batch": self.batch}
        named = {name: value for name, value in chosen.items() if value not in (None, "")}
        return {**named, **fields_of(self.model_extra or {})}


class CheckedMessage(Answer):
    """What would become of the call."""

    valid: bool
    errors: list[dict[str, Any]]
    warnings: list[dict[str, Any]]
    request: dict[str, Any] | None = None
    requests: list[dict[str, Any]] | None = None
    bytes: int | None = None
    needs_confirmation: bool | None = None
    """That a person is asked before it is sent; absent where nobody is."""


@tool(title="Check a message", toolset="connection", read_only=True, idempotent=True)
async def segment_check_message(arguments: CheckArguments, segment: Segment, caller: Caller) -> CheckedMessage:  # noqa: ARG001
    """Say what would be sent to Segment, without sending it.

    Takes what segment_track and the others take, with type, or what segment_batch takes. valid tells whether it would
    be accepted here, needsConfirmation that a person is asked; errors lists all that is wrong, in a batch by index,
    with hints; request is the exact body
    (messageId and times are made anew on sending), bytes its size. Example: {"type": "track", "event": "Order
    Completed", "userId": "u1"}
    """
    identity = segment.settings.anonymous_id == "require"
    try:
        given = _own(arguments.message, segment.settings)
        if "batch" not in given:
            return await _one(given, segment, identity)
        found, warned, wrong = parse(BatchArguments, given).judged(identity=identity)
    except InvalidMessage as error:
        return _answer(None, [], error.problems, segment, error.more)
    receipt, problems = await _previewed(found, wrong.problems if wrong else (), segment)
    asks = segment.guard.asks(Asked("segment_batch", list(found.values()), indexed=True))
    return _answer(receipt, warned, problems, segment, wrong.more if wrong else 0, asks=asks)


def _own(given: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The message's or batch's own fields, without what says where it goes.

    Raises:
        InvalidMessage: it could go nowhere, or it is both a message and a batch.
    """
    source, write_key, own = routed(given, settings)
    if source or write_key:
        route_of(settings, source, write_key)
    if "batch" in own and "type" in own:
        hint = "Pass type with one message's fields, or batch with messages that have a type each."
        raise InvalidMessage.of("unknown_argument", "type and batch exclude each other.", hint, "type")
    return own


async def _one(given: Mapping[str, Any], segment: Segment, identity: bool) -> CheckedMessage:
    try:
        message, warned = item_of(given, identity=identity)
        asks = segment.guard.asks(Asked(f"segment_{message.type}", [message], indexed=False))
        forbidden = _forbidden({None: message}, segment)
        return _answer(await segment.preview(message), warned, forbidden, segment, asks=asks)
    except InvalidMessage as error:
        return _answer(None, [], error.problems, segment, error.more)


async def _previewed(
    found: Mapping[int, AnyMessage], problems: Sequence[Problem], segment: Segment
) -> tuple[Receipt | None, list[Problem]]:
    """What sending would come to, and all that keeps messages from it: the others are looked at without those."""
    known, left = list(problems), dict(found)
    while left or not known:
        try:
            receipt = await segment.preview_batch(list(left.values()), list(left))
            return receipt, [*known, *_forbidden(left, segment)]
        except InvalidMessage as error:
            known += error.problems
            wrong = {problem.index for problem in error.problems}
            if not wrong & set(left):
                break
            left = {index: message for index, message in left.items() if index not in wrong}
    return None, known


def _forbidden(messages: Mapping[Any, AnyMessage], segment: Segment) -> list[Problem]:
    """What agents may not send here, by the messages' keys."""
    found = segment.guard.forbidden(Asked("", list(messages.values()), indexed=True))
    return [replace(problem, index=list(messages)[problem.index or 0]) for problem in found]


def _answer(
    receipt: Receipt | None,
    warned: Sequence[Warned],
    problems: Sequence[Problem],
    segment: Segment,
    more: int = 0,
    *,
    asks: bool = False,
) -> CheckedMessage:
    said = [*warned, *(receipt.warnings if receipt else ())]
    ordered = sorted(problems, key=lambda problem: problem.index or 0)
    bodies = [hidden_in(dict(body), segment.settings.secrets) for body in receipt.requests] if receipt else []
    shown = [] if problems else bodies
    return CheckedMessage(
        valid=not problems,
        errors=all_listed(ordered, more),
        warnings=grouped(said),
        request=shown[0] if len(shown) == 1 else None,
        requests=shown if len(shown) > 1 else None,
        bytes=sum(receipt.sizes) if receipt and not problems else None,
        needs_confirmation=True if asks and not problems else None,
    )


TOOLS = (segment_check_message,)

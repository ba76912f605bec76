"""The tools that write: one for each kind of message, and one for many at once."""

from dataclasses import replace
from typing import Annotated, Any, ClassVar, cast

from pydantic import BeforeValidator, Field, WithJsonSchema

from segment_tools.client import Segment
from segment_tools.errors import LISTED_PROBLEMS, InvalidMessage, Problem
from segment_tools.receipt import Receipt, Warned
from segment_tools.spec.arguments import Arguments
from segment_tools.spec.context import MessageContext, merged_context
from segment_tools.spec.integrations import Integrations, merged_integrations
from segment_tools.spec.messages import (
    KINDS,
    ORDER,
    Alias,
    AnyMessage,
    Group,
    Identify,
    Page,
    Screen,
    Track,
)
from segment_tools.spec.parsing import fields_of, kind_of, parse
from segment_tools.spec.values import KeyTwice, Name, json_value, read, refusal
from segment_tools.tools._tool import Caller, Schema, schema_of, tool


@tool(
    title="Track an event",
    echoes=("event", "userId", "anonymousId", "messageId"),
    examples="Events: 'Product Viewed', 'Product Added', 'Order Completed', 'Email Opened'.",
)
async def segment_track(message: Track, segment: Segment, caller: Caller) -> Receipt:
    """Record one thing a user did.

    Events: 'Product Viewed', 'Product Added', 'Order Completed', 'Email Opened'. Not for traits
    (segment_identify), views (segment_page, segment_screen) or many (segment_batch). No browser is here: pass
    ip, locale and timezone in context yourself. Returns messageId; 'accepted' is no proof that Segment keeps
    it.
    """
    return await caller.send(segment, message)


class IdentifyArguments(Identify):
    """Identify, with shortcuts for the two traits most often set."""

    email: Name = Field(default=None, description="As traits.email")
    name: Name = Field(default=None, description="As traits.name")

    def message(self) -> tuple[Identify, list[Warned]]:
        """The identify message, and a warning for each trait that a shortcut overruled."""
        given = self.traits or {}
        shortcuts = {key: value for key, value in (("email", self.email), ("name", self.name)) if value is not None}
        fields = {name: getattr(self, name) for name in Identify.model_fields}
        traits = {**given, **shortcuts} if shortcuts else self.traits
        overruled = [key for key, value in shortcuts.items() if key in given and given[key] != value]
        return Identify.model_validate({**fields, "traits": traits}, by_name=True), [
            _overruled(key) for key in overruled
        ]


def _overruled(trait: str) -> Warned:
    text = f"{trait} and traits.{trait} differ; {trait} was sent."
    return Warned("shortcut_overrules_trait", text, f"traits.{trait}")


@tool(title="Identify a user", echoes=("userId", "anonymousId", "traits", "messageId"), idempotent=True)
async def segment_identify(message: IdentifyArguments, segment: Segment, caller: Caller) -> Receipt:
    """Say who a user is: tie traits to an id.

    Traits left out keep their values. Not for actions (segment_track), joining ids (segment_alias) or
    accounts (segment_group). Returns messageId and traits; 'accepted' is no proof that Segment keeps them.
    """
    identify, overruled = message.message()
    receipt = await caller.send(segment, identify)
    return receipt.with_warnings(overruled)


@tool(title="Record a page view", echoes=("name", "category", "userId", "anonymousId", "messageId"))
async def segment_page(message: Page, segment: Segment, caller: Caller) -> Receipt:
    """Record that a user saw a page of a website or chat flow.

    App screens: segment_screen; actions: segment_track. No browser is here: pass ip, locale and timezone in
    context yourself. Returns messageId; 'accepted' is no proof that Segment keeps it.
    """
    return await caller.send(segment, message)


@tool(title="Record a screen view", echoes=("name", "category", "userId", "anonymousId", "messageId"))
async def segment_screen(message: Screen, segment: Segment, caller: Caller) -> Receipt:
    """Record that a user saw a screen of a mobile or desktop app.

    Web pages: segment_page; actions: segment_track. Returns messageId; 'accepted' is no proof that Segment
    keeps it.
    """
    return await caller.send(segment, message)


@tool(title="Put a user into a group", echoes=("groupId", "userId", "anonymousId", "messageId"), idempotent=True)
async def segment_group(message: Group, segment: Segment, caller: Caller) -> Receipt:
    """Put a user into a company, account or team and set its traits.

    A user's own traits: segment_identify. Needs groupId, and userId or anonymousId. Segment has no call to
    leave a group. Returns messageId; 'accepted' is no proof that Segment keeps it.
    """
    return await caller.send(segment, message)


@tool(
    title="Join two ids of a user",
    echoes=("userId", "previousId", "anonymousId", "messageId"),
    destructive=True,
    idempotent=True,
)
async def segment_alias(message: Alias, segment: Segment, caller: Caller) -> Receipt:
    """Join a user's old id (previousId) to the new one to keep (userId).

    Cannot be undone: mind the direction. At sign-up previousId is the visitor's anonymousId, userId the
    account's id. Few destinations need it; Segment's profiles join by segment_identify with both ids. Returns
    messageId; 'accepted' is no proof that Segment keeps it.
    """
    return await caller.send(segment, message)


def item_schema() -> Schema:
    """One message of any type as one flat object: hosts and models stumble over alternatives."""
    fields: Schema = {}
    for model in (*KINDS.values(), IdentifyArguments):
        for name, schema in schema_of(model)["properties"].items():
            fields[name] = {key: value for key, value in schema.items() if key != "description"}
    kind = {"type": "string", "enum": list(KINDS)}
    ordered = {name: fields[name] for name in ORDER if name in fields}
    return {
        "type": "object",
        "properties": {"type": kind, **ordered},
        "required": ["type"],
        "additionalProperties": False,
    }


_A_BATCH = 'Pass a list, such as [{"type": "track", "event": "Order Completed", "userId": "u1"}].'


def _items(value: object) -> object:
    found = read(value)
    if isinstance(found, dict) and not _by_key(cast("dict[str, object]", found)):
        return [cast("object", found)]
    if not isinstance(found, list):
        raise refusal("{field} must be a list of messages.", _A_BATCH)
    return cast("list[object]", found)


def _by_key(found: dict[str, object]) -> bool:
    """Whether it is no message, but holds some: no message has objects alone."""
    return all(isinstance(below, dict) for below in found.values())


def item_of(item: object, *, identity: bool, most: int = LISTED_PROBLEMS) -> tuple[AnyMessage, list[Warned]]:
    """One message of a batch, and what its shortcuts overruled: it takes what the tool of its type takes."""
    try:
        fields = fields_of(json_value(item))
    except KeyTwice:
        raise InvalidMessage.of("invalid_value", "The message names a key twice.", KeyTwice.hint, "batch") from None
    kind = kind_of(fields)
    if kind == "identify":
        return parse(IdentifyArguments, fields, identity=identity, most=most).message()
    return parse(KINDS[kind], fields, identity=identity, most=most), []


class BatchArguments(Arguments):
    """Messages, and what is added to each of them."""

    REQUIRED: ClassVar = {"batch": _A_BATCH}

    batch: Annotated[list[Any], BeforeValidator(_items), WithJsonSchema({"type": "array", "minItems": 1})] = Field(
        description="Each with its type and what that type's tool takes: track needs event, group groupId, "
        "alias previousId; all need userId or anonymousId",
        json_schema_extra=lambda schema: schema.update(items=item_schema()),
    )
    context: MessageContext = Field(default=None, description="For every message; its own win")
    integrations: Integrations = Field(default=None, description="For every message; its own win")

    def messages(self, *, identity: bool) -> tuple[list[AnyMessage], list[Warned]]:
        """The messages with the shared context and integrations in each, and what their shortcuts overruled.

        Raises:
            InvalidMessage: with the problems of every message, by index.
        """
        found, warned, error = self.judged(identity=identity)
        if error:
            raise error
        return list(found.values()), warned

    def judged(self, *, identity: bool) -> tuple[dict[int, AnyMessage], list[Warned], InvalidMessage | None]:
        """The messages that are some, by index, what their shortcuts overruled, and what is wrong with the others."""
        problems: list[Problem] = []
        more = 0
        found: dict[int, AnyMessage] = {}
        warned: list[Warned] = []
        for index, item in enumerate(self.batch):
            try:
                message, overruled = item_of(item, identity=identity, most=max(1, LISTED_PROBLEMS - len(problems)))
                found[index] = self._completed(message)
                warned += [replace(warning, index=index) for warning in overruled]
            except InvalidMessage as error:
                problems += [replace(problem, index=index) for problem in error.problems]
                more += error.more
        return found, warned, InvalidMessage(problems, more) if problems else None

    def _completed(self, message: AnyMessage) -> AnyMessage:
        if self.context is None and self.integrations is None:
            return message
        return message.model_copy(
            update={
                "context": merged_context(message.context, self.context),
                "integrations": merged_integrations(message.integrations, self.integrations),
            }
        )


@tool(title="Send many messages", echoes=("count", "messageIds", "requests"))
async def segment_batch(message: BatchArguments, segment: Segment, caller: Caller) -> Receipt:
    """Send messages of any of the six types in one call, in order.

    If one would be lost none is sent, and error.problems lists each by index. Over 2,500 messages or 500 KB
    go out in several requests. For one message use its own tool. Returns count and messageIds in order;
    'accepted' is no proof that Segment keeps them.
    """
    messages, overruled = message.messages(identity=segment.settings.anonymous_id == "require")
    receipt = await caller.send_batch(segment, messages)
    return receipt.with_warnings(overruled)


TOOLS = (segment_track, segment_identify, segment_page, segment_screen, segment_group, segment_alias, segment_batch)

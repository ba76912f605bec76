"""The tool that says what became of a message after Segment's 200."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import Field

from segment_tools.client import Segment
from segment_tools.errors import InvalidMessage, SegmentError, Unavailable
from segment_tools.receipt import Warned
from segment_tools.spec.arguments import Arguments, Sought, SoughtId, whole
from segment_tools.spec.profiles import MOST, Asked, Identifier, identifier
from segment_tools.spec.values import KnownMessageId
from segment_tools.tools._answer import Answer, told
from segment_tools.tools._tool import Caller, tool

LONGEST_WAIT_SECONDS = 120
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 8.0
"""Seconds between two looks at a profile: a space answers about 100 look-ups a second, for all who ask."""

_PAGES = 3
"""How many pages of 100 events one look reads."""


class FindArguments(Arguments):
    """Which message, and for how long to look."""

    message_id: KnownMessageId = Field(default=None, description="messageId of the answer that sent it")
    event: Sought = Field(default=None, description="A track's event name, instead of messageId or beside it")
    user_id: SoughtId = Field(default=None, description="The message's userId; a profile is found by it")
    anonymous_id: SoughtId = Field(default=None, description="The message's anonymousId, without a userId")
    wait_seconds: Annotated[int | None, whole(0, LONGEST_WAIT_SECONDS)] = Field(
        default=None, description="How long to look for it, below your host's own time-out; default 0, once"
    )


class FoundAnswer(Answer):
    """What is known of the message, and from where."""

    status: str
    known_from: str | None = None
    explanation: str
    reason: str | None = None
    message_id: str | None = None
    type: str | None = None
    event: str | None = None
    at: str | None = None
    waited_seconds: float | None = None
    warnings: list[dict[str, Any]] | None = None


@tool(title="Find a message again", toolset="connection", read_only=True, idempotent=True)
async def segment_find_message(arguments: FindArguments, segment: Segment, caller: Caller) -> FoundAnswer:
    """Did it arrive? What became of a message after Segment said 'accepted', which is no proof that Segment keeps it.

    Give messageId, with the message's userId or anonymousId; or event with one of those. status is kept (knownFrom says
    whether the sandbox or the profile's own events say so), discarded (with the reason and how to mend it), waiting (in
    this server's outbox), or unknown with an explanation. A profile shows track calls alone, seconds to minutes later:
    pass waitSeconds.
    """
    if arguments.message_id is None and (arguments.event is None or _who(arguments) is None):
        hint = "Pass messageId, or event together with userId or anonymousId."
        raise InvalidMessage.of("missing_field", "It is not said which message to find.", hint, "messageId")
    began, total = segment.outside.monotonic(), float(arguments.wait_seconds or 0)
    pause = _FIRST_PAUSE
    while True:
        found = await _look(arguments, segment)
        waited = segment.outside.monotonic() - began
        if not found.worth_waiting or waited >= total:
            return found.answer(round(waited, 1) if total else None)
        await caller.progress(waited, total, "not there yet")
        await segment.outside.sleep(min(pause, total - waited))
        pause = min(pause * 2, _LONGEST_PAUSE)


_KEPT, _DISCARDED, _WAITING, _UNKNOWN = "kept", "discarded", "waiting", "unknown"


@dataclass(frozen=True, slots=True)
class _Found:
    """What one look found."""

    status: str
    explanation: str
    known_from: str | None = None
    facts: Mapping[str, Any] | None = None
    worth_waiting: bool = False
    warnings: tuple[Warned, ...] = ()

    def answer(self, waited: float | None) -> FoundAnswer:
        """As the tool answers it."""
        return FoundAnswer(
            status=self.status,
            known_from=self.known_from,
            explanation=self.explanation,
            waited_seconds=waited,
            warnings=told(self.warnings),
            **(self.facts or {}),
        )


async def _look(arguments: FindArguments, segment: Segment) -> _Found:
    """What is known of it; in a dry run only of what others sent."""
    found = await _looked(arguments, segment)
    if segment.settings.dry_run and found.status == _UNKNOWN:
        return _Found(_UNKNOWN, "A dry run (SEGMENT_DRY_RUN) sends nothing, so there is nothing to look up.")
    return found


async def _looked(arguments: FindArguments, segment: Segment) -> _Found:
    """The outbox knows what did not leave, the sandbox everything else; a profile some things, later."""
    if (kept := await _in_outbox(arguments, segment)) is not None:
        return kept
    try:
        row = await segment.sandbox_message(_filters(arguments))
    except Unavailable as error:
        return _Found(_UNKNOWN, f"The sandbox cannot be asked. {error}", worth_waiting=True)
    if row is not None:
        return _by_sandbox(row, arguments)
    who = _who(arguments)
    settings = segment.settings
    if settings.profile_token is None or settings.space_id is None:
        lacking = {"SEGMENT_PROFILE_TOKEN": settings.profile_token, "SEGMENT_SPACE_ID": settings.space_id}
        missing = " and ".join(name for name, value in lacking.items() if value is None)
        text = f"Segment tells nobody what became of a message but in its debugger, and in profiles: set {missing}."
        return _Found(_UNKNOWN, text)
    if who is None:
        return _Found(_UNKNOWN, "A profile is found by an id: pass the message's userId or anonymousId as well.")
    return await _by_profile(arguments, segment, settings.space_id, who)


async def _in_outbox(arguments: FindArguments, segment: Segment) -> _Found | None:
    """What the outbox says of the messageId; None where it has nothing to say."""
    courier, message_id = segment.courier, arguments.message_id
    if courier is None or message_id is None:
        return None
    try:
        known, _ = await courier.outbox.look([message_id], [])
        letters = () if message_id in known else (await courier.outbox.dead(None, 1, [message_id])).items
    except Unavailable:
        return None
    facts = {"message_id": message_id}
    if letters:
        text = f"Segment refused it: {letters[0].text} segment_outbox shows it, and how to mend it."
        return _Found(_DISCARDED, text, "outbox", {**facts, "reason": letters[0].reason})
    if message_id in known and known[message_id].status == "queued":
        reasons = f" {courier.trouble[0]}" if courier.trouble else ""
        text = f"It waits in the outbox and is delivered by itself: do not send it again.{reasons}"
        return _Found(_WAITING, text, "outbox", facts, worth_waiting=True)
    return None


def _filters(arguments: FindArguments) -> dict[str, str]:
    named = {
        "messageId": arguments.message_id,
        "event": arguments.event,
        "userId": arguments.user_id,
        "anonymousId": arguments.anonymous_id,
    }
    if arguments.message_id is not None:
        return {"messageId": arguments.message_id}
    return {name: value for name, value in named.items() if value is not None}


def _who(arguments: FindArguments) -> Identifier | None:
    if arguments.user_id is not None:
        return identifier(arguments.user_id, "user_id", "users")[0]
    return identifier(arguments.anonymous_id, "anonymous_id", "users")[0] if arguments.anonymous_id else None


_NOT_THERE = (
    "The sandbox has no such message (yet). Check the id and the names; pass waitSeconds if it was only just sent, or "
    "send it again with the same messageId."
)


def _by_sandbox(row: Mapping[str, Any], arguments: FindArguments) -> _Found:
    if not row:
        return _Found(_UNKNOWN, _NOT_THERE, "sandbox", worth_waiting=True)
    message: Mapping[str, Any] = row.get("message") or row.get("sent") or {}
    warnings = _differing(message, arguments)
    facts = {
        "message_id": _text(message.get("messageId")),
        "type": _text(message.get("type")),
        "event": _text(message.get("event")),
        "at": _text(row.get("receivedAt")),
    }
    if not row.get("discarded"):
        return _Found(_KEPT, "The sandbox took it, as Segment would.", "sandbox", facts, warnings=warnings)
    facts["reason"] = _text(row["discarded"])
    text = _text(row.get("meaning")) or "Segment would drop it; the sandbox's debugger says why."
    return _Found(_DISCARDED, text, "sandbox", facts, warnings=warnings)


def _differing(message: Mapping[str, Any], arguments: FindArguments) -> tuple[Warned, ...]:
    """What was said of the message and is not so: it was found by its messageId alone."""
    said = {"event": arguments.event, "userId": arguments.user_id, "anonymousId": arguments.anonymous_id}
    return tuple(
        Warned("other_message", f"The message of this messageId has not this {name}: check which one you mean.", name)
        for name, value in said.items()
        if value is not None and str(message.get(name, "")) != value
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


async def _by_profile(arguments: FindArguments, segment: Segment, space: str, who: Identifier) -> _Found:
    query = {"limit": str(MOST["events"]), **({"include": arguments.event} if arguments.event else {})}
    try:
        for _ in range(_PAGES):
            page = await segment.read(Asked(space, "users", who, "events", query))
            if page is None:
                return _Found(_UNKNOWN, "Segment has no profile of this id (yet).", worth_waiting=True)
            for event in page.items:
                known: Mapping[str, Any] = cast("Mapping[str, Any]", event) if isinstance(event, dict) else {}
                if known and arguments.message_id in (None, known.get("message_id")):
                    return _in_profile(known)
            if not page.next:
                break
            query = {**query, "next": page.next}
    except SegmentError as error:
        return _Found(_UNKNOWN, f"The profile could not be read: {error}", worth_waiting=error.retryable)
    text = (
        "The profile's newest events do not have it (yet). It shows track calls of the last 14 days alone; "
        "Segment's debugger shows the rest."
    )
    return _Found(_UNKNOWN, text, worth_waiting=True)


def _in_profile(event: Mapping[str, Any]) -> _Found:
    facts = {
        "message_id": _text(event.get("message_id")),
        "type": _text(event.get("type")),
        "event": _text(event.get("event")),
        "at": _text(event.get("timestamp")),
    }
    return _Found(_KEPT, "It is among the profile's events: Segment kept it.", "profile", facts)


TOOLS = (segment_find_message,)
"""Source of what profiles show: https://segment.com/docs/unify/profile-api/ and .../profile-api-limits/."""

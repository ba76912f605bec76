"""The tool that finds the event to send: in the customer's plan, and among Segment's semantic events."""

from typing import Any, ClassVar

from pydantic import Field

from segment_tools.client import Segment
from segment_tools.settings import Settings
from segment_tools.spec.arguments import Arguments, Question
from segment_tools.spec.event_search import find_events
from segment_tools.spec.known_events import PLAN, KnownEvent
from segment_tools.tools._answer import Answer
from segment_tools.tools._tool import Caller, tool


class FindEventArguments(Arguments):
    """What happened."""

    REQUIRED: ClassVar = {"query": "Pass what the user did, such as 'customer paid for an order'."}

    query: Question = Field(default=None, description="What the user did, in any words: 'bought something'")


class KnownEvents(Answer):
    """The events that fit, the best first."""

    found: bool
    events: list[dict[str, Any]]
    hint: str | None = None


NOTHING = (
    "No known event fits. Name a new one Object + past-tense verb, in Title Case and the same every time, such as "
    "'Invoice Downloaded', and send it with segment_track; what differs each time goes into properties. A page or "
    "screen that was seen is segment_page or segment_screen, who somebody is segment_identify, an account "
    "segment_group."
)


_NOT_PLANNED = (
    "No event of the tracking plan fits, and others are refused here. Send none of your own: tell the user what is "
    "missing, so that it can be added to the plan."
)
_UNPLANNED = f"No event of the tracking plan fits: tell the user, so that it can be added. {NOTHING}"
_NOT_ALLOWED = (
    "No event fits that may be sent from here (SEGMENT_ALLOW_EVENTS). Send none of your own: tell the user what is "
    "missing."
)


@tool(title="Find the event to send", toolset="plan", read_only=True, idempotent=True, open_world=False)
async def segment_find_event(arguments: FindEventArguments, segment: Segment, _: Caller) -> KnownEvents:
    """Find the event name and properties for what happened, before segment_track.

    Searches the tracking plan first, then Segment's semantic events, which destinations understand. Each has its
    properties with types and an example call to fill in: leave out what is not known. found is false where none fits;
    hint then says how to name a new one.
    """
    strict = segment.settings.checks_plan and segment.settings.tracking_plan_policy == "block"

    def may(event: KnownEvent) -> bool:
        """Whether it would be taken here: nothing else is worth a call."""
        return segment.guard.allows(event.name) and (event.origin == PLAN or not strict)

    found = find_events(arguments.query or "", segment.planned_events, may=may)
    hint = None if found else _hint(segment.settings)
    return KnownEvents(found=bool(found), events=[event.as_dict() for event in found], hint=hint)


def _hint(settings: Settings) -> str:
    """What to do where no event fits that may be sent here."""
    if settings.checks_plan:
        return _NOT_PLANNED if settings.tracking_plan_policy == "block" else _UNPLANNED
    return NOTHING if not settings.allow_events else _NOT_ALLOWED


TOOLS = (segment_find_event,)

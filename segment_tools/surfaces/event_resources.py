"""Known events as MCP resources: Segment's semantic events, and those of the customer's plan."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import quote, unquote

from mcp.types import Resource, ResourceTemplate

from segment_tools.client import Segment
from segment_tools.errors import InvalidMessage
from segment_tools.spec.known_events import KnownEvent
from segment_tools.spec.names import folded, nearest, printable
from segment_tools.spec.semantic_events import semantic_events
from segment_tools.surfaces.resources import JSON, Provider


class Events(Provider):
    """Events by name, and the list of their names. A name is percent-encoded in the URI."""

    def __init__(self, root: str, whose: str, events: Callable[[], Iterable[KnownEvent]]) -> None:
        self._uri = f"segment://{root}"
        self._name, self._whose, self._events = root, whose, events
        self.forms = (self._uri, f"{self._uri}/EVENT")

    def listed(self) -> list[Resource]:
        """The list of names, where there are any."""
        if not any(True for _ in self._events()):
            return []
        text = f"The names of {self._whose}, with what each means."
        return [Resource(uri=self._uri, name=f"{self._name}-events", description=text, mime_type=JSON)]

    def templates(self) -> list[ResourceTemplate]:
        """One event, where there are any."""
        if not self.listed():
            return []
        return [
            ResourceTemplate(
                uri_template=f"{self._uri}/{{event}}",
                name=f"{self._name}-event",
                description=f"One of {self._whose}: its properties, and a call to send.",
                mime_type=JSON,
            )
        ]

    def knows(self, uri: str) -> bool:
        """Whether it is the list, or an event's."""
        return uri == self._uri or uri.startswith(f"{self._uri}/")

    async def read(self, uri: str) -> dict[str, Any] | None:
        """The list, or the event; its name may be spelt in any case.

        Raises:
            InvalidMessage: there is no such event; says which may be meant.
        """
        if uri == self._uri:
            events = {event.name: event.description for event in self._events()}
            return {"events": events, "count": len(events)}
        wanted = folded(unquote(uri.removeprefix(f"{self._uri}/")))
        found = next((event for event in self._events() if folded(event.name) == wanted), None)
        return found.as_dict() if found else self._unknown(unquote(uri.removeprefix(f"{self._uri}/")))

    def _unknown(self, name: str) -> None:
        """Say which event may be meant.

        Raises:
            InvalidMessage: always, where there are any.
        """
        names = [event.name for event in self._events()]
        if not names:
            return
        meant = nearest(name, names)
        hint = f"Did you mean {self._uri}/{quote(meant)}?" if meant else f"{self._uri} lists them."
        text = f"{printable(name)!r} is none of {self._whose}."
        raise InvalidMessage.of("not_found", text, hint)

    def completions(self, template: str, argument: str, typed: str) -> Sequence[str]:
        """The names that begin with what is typed, then those that hold it."""
        if (template, argument) != (f"{self._uri}/{{event}}", "event"):
            return ()
        begun = folded(unquote(typed))
        names = [event.name for event in self._events() if begun in folded(event.name)]
        return sorted(names, key=lambda name: not folded(name).startswith(begun))


def spec() -> Events:
    """Segment's semantic events."""
    return Events("spec", "Segment's semantic events", lambda: semantic_events().values())


def plan(segment: Segment) -> Events:
    """The events of the customer's tracking plan."""
    return Events("plan", "the tracking plan's events", lambda: segment.planned_events)

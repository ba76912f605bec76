"""Known events as resources, completion of their names, and the prompt that leads from a flow to calls."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp.types import ResourceTemplateReference, TextContent, TextResourceContents
from support import settings
from test_find_event import RENEWED

from segment_tools import Segment, Settings, Transport
from segment_tools.surfaces.mcp_server import build

pytestmark = pytest.mark.anyio
eras = pytest.mark.parametrize("mode", ["auto", "legacy"])


@asynccontextmanager
async def client(mode: str = "auto", planned: bool = False, **chosen: Any) -> AsyncIterator[Client]:
    transport = Transport("https://example.com")
    segment = Segment(settings(**chosen), transport=transport, planned_events=(RENEWED,) if planned else ())
    async with Client(build(segment), mode=mode) as found:  # type: ignore[arg-type]
        yield found


async def read(client: Client, uri: str) -> Any:
    (content,) = (await client.read_resource(uri)).contents
    assert isinstance(content, TextResourceContents)
    return json.loads(content.text)


async def completed(client: Client, template: str, typed: str) -> list[str]:
    reference = ResourceTemplateReference(uri=template)
    return (await client.complete(reference, {"name": "event", "value": typed})).completion.values


@eras
async def test_a_semantic_event_is_read_by_its_name_in_any_spelling(mode: str) -> None:
    async with client(mode) as found:
        listed = [str(resource.uri) for resource in (await found.list_resources()).resources]
        every = await read(found, "segment://spec")
        event = await read(found, "segment://spec/Order%20Completed")
        other = await read(found, "segment://spec/order_completed")
    assert listed == ["segment://spec"]
    assert (every["count"], "Order Completed" in every["events"]) == (88, True)
    assert event == other
    assert (event["event"], event["example"]["tool"]) == ("Order Completed", "segment_track")


async def test_an_event_that_is_not_there_is_not_found() -> None:
    async with client() as found:
        for uri, says in (
            ("segment://spec/Order%20Compleet", r"did you mean segment://spec/Order%20Completed\?"),
            ("segment://spec/Plants%20Watered", "is none of Segment's semantic events; segment://spec lists them"),
            ("segment://plan/A", "Resource not found"),
            ("segment://other", "Resource not found"),
            ("segment://specs", "Resource not found"),
        ):
            with pytest.raises(MCPError, match=says) as refused:
                await found.read_resource(uri)
            assert refused.value.error.code == -32602


@eras
async def test_the_plan_is_a_resource_where_there_is_one(mode: str) -> None:
    async with client(mode, planned=True) as found:
        templates = [each.uri_template for each in (await found.list_resource_templates()).resource_templates]
        every = await read(found, "segment://plan")
        event = await read(found, "segment://plan/Subscription%20Renewed")
        names = await completed(found, "segment://plan/{event}", "")
    assert templates == ["segment://plan/{event}", "segment://spec/{event}"]
    assert every == {"events": {"Subscription Renewed": "A paying customer renews."}, "count": 1}
    assert (event["origin"], names) == ("plan", ["Subscription Renewed"])


@eras
async def test_names_are_completed_those_that_begin_so_first(mode: str) -> None:
    async with client(mode) as found:
        orders = await completed(found, "segment://spec/{event}", "order c")
        added = await completed(found, "segment://spec/{event}", "Product")
        every = await completed(found, "segment://spec/{event}", "")
        none = await completed(found, "segment://spec/{other}", "")
    assert orders == ["Order Completed", "Order Cancelled"]
    assert added[-1] == "Wishlist Product Added to Cart"
    assert (len(every), none) == (88, [])


async def test_deliveries_and_events_stand_side_by_side() -> None:
    async with client(webhook_secret="any") as found:
        uris = [str(resource.uri) for resource in (await found.list_resources()).resources]
        reference = ResourceTemplateReference(uri="segment://deliveries/{type}")
        types = (await found.complete(reference, {"name": "type", "value": "t"})).completion.values
    assert (uris, types) == (["segment://deliveries", "segment://spec"], ["track"])


async def test_without_the_tools_there_are_neither_resources_nor_the_prompt() -> None:
    async with Client(build(Segment(Settings(toolsets=("tracking",))))) as found:
        assert found.server_capabilities.resources is None
        assert [prompt.name for prompt in (await found.list_prompts()).prompts] == ["set_up_segment"]


@eras
async def test_a_prompt_leads_from_a_flow_to_calls(mode: str) -> None:
    async with client(mode) as found:
        (prompt,) = [each for each in (await found.list_prompts()).prompts if each.name == "instrument"]
        (told,) = (await found.get_prompt("instrument", {"flow": "Visitors {buy} shoes."})).messages
        names = {tool.name for tool in (await found.list_tools()).tools}
        with pytest.raises(MCPError, match="flow is required"):
            await found.get_prompt("instrument")
    assert [argument.name for argument in prompt.arguments or ()] == ["flow"]
    assert isinstance(told.content, TextContent)
    assert "<flow>\nVisitors {buy} shoes.\n</flow>" in told.content.text
    used = {"segment_find_event", "segment_page", "segment_screen", "segment_identify", "segment_group"}
    assert all(name in told.content.text for name in used)
    assert used <= names

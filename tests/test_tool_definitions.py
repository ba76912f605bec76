"""What a model and its host see of the tools: stored, within bounds, and in the form that every client accepts."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support import KEY, Caller, mcp, settings

from segment_tools import Settings
from segment_tools.functions import definitions
from segment_tools.sandbox.run import Sandbox
from segment_tools.surfaces.mcp_server import instructions
from segment_tools.tools import TOOLS, definition, input_schema, offered

pytestmark = pytest.mark.anyio
SNAPSHOTS = Path(__file__).parent / "snapshots"
CHOSEN = settings(webhook_secret="any", profile_token="any", space_id="spa_1")
DEFINITIONS = {tool.name: definition(tool, CHOSEN) for tool in TOOLS}
BUDGETS = {
    "tracking": (8_700, 14_800),
    "triggers": (2_450, 3_900),
    "profiles": (8_900, 14_650),
    "outbox": (1_100, 2_100),
    "connection": (3_750, 6_250),
    "plan": (600, 1_200),
    "bulk": (2_100, 4_000),
}
"""Bytes of compact JSON, without and with output schemas: all of it is paid for by every model on every turn."""

O200K = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
"""Source: tiktoken's own check of https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken."""

VARIANTS = {
    "with a key": CHOSEN,
    "without a key": Settings(),
    "with webhooks": settings(webhook_secret="any"),
    "with profiles": settings(profile_token="any"),
    "with a plan": settings(tracking_plan="segment:tp_1", public_api_token="any", space_id="spa_1"),
    "with named sources": settings(write_key="", sources='{"web": "key-1", "ios": "key-2"}'),
}
each_tool = pytest.mark.parametrize("name", DEFINITIONS)


def schemas(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The schema and every schema in it."""
    yield found
    below = [*found.get("properties", {}).values(), *([found["items"]] if "items" in found else [])]
    for schema in below:
        yield from schemas(schema)


@each_tool
def test_a_definition_is_the_stored_one(name: str) -> None:
    stored = SNAPSHOTS / f"{name}.json"
    assert stored.exists(), "run `make generate` and look at the new snapshot"
    assert json.loads(stored.read_text(encoding="utf-8")) == DEFINITIONS[name], "run `make generate`, look at the diff"


def test_no_snapshot_is_left_of_a_tool_that_is_gone() -> None:
    assert {path.stem for path in SNAPSHOTS.glob("*.json")} == set(DEFINITIONS)


@pytest.mark.parametrize("variant", VARIANTS)
async def test_mcp_lists_the_definitions_as_they_are_and_in_order(variant: str) -> None:
    chosen = VARIANTS[variant]
    async with mcp(chosen) as client:
        listed = (await client.list_tools()).tools
    shown = [tool.model_dump(by_alias=True, exclude_none=True, mode="json") for tool in listed]
    assert shown == [definition(tool, chosen) for tool in offered(chosen)]


@each_tool
def test_names_titles_and_annotations_are_explicit(name: str) -> None:
    found = DEFINITIONS[name]
    assert re.fullmatch(r"segment_[a-z_]+", name)
    assert found["title"]
    assert set(found["annotations"]) == {"title", "readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}
    assert 100 <= len(found["description"]) <= 1000
    assert not re.search(r"\b(always|never|must|you should)\b", found["description"], re.IGNORECASE)


@pytest.mark.parametrize("name", [tool.name for tool in TOOLS if tool.toolset == "tracking"])
def test_descriptions_promise_no_more_than_accepted(name: str) -> None:
    text = DEFINITIONS[name]["description"]
    assert "'accepted'" in text
    assert re.search(r"no proof that Segment keeps|not that the key exists or the message is kept", text)


@each_tool
def test_descriptions_name_only_tools_that_exist(name: str) -> None:
    assert set(re.findall(r"segment_\w+", DEFINITIONS[name]["description"])) <= set(DEFINITIONS)


@pytest.mark.parametrize("variant", VARIANTS)
@each_tool
def test_schemas_hold_nothing_that_a_client_stumbles_over(name: str, variant: str) -> None:
    found = definition(next(tool for tool in TOOLS if tool.name == name), VARIANTS[variant])
    for root in (found["inputSchema"], found["outputSchema"]):
        Draft202012Validator.check_schema(root)
        assert root["type"] == "object"
        for schema in schemas(root):
            banned = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "const", "title", "default", "examples", "format"}
            assert not banned & set(schema)
            assert isinstance(schema["type"], str)
            assert schema["type"] != "array" or "items" in schema
    assert found["inputSchema"]["additionalProperties"] is False
    assert all(schema.get("description") for schema in found["inputSchema"]["properties"].values())
    free = [
        schema for schema in schemas(found["inputSchema"]) if schema["type"] == "object" and "properties" not in schema
    ]
    assert all(schema["additionalProperties"] is True for schema in free)


def test_with_a_tracking_plan_events_are_those_of_the_plan_and_no_examples() -> None:
    planned, own = VARIANTS["with a plan"], settings()
    named = "Name of an event of the tracking plan: ask segment_find_event"
    track, batch = (tool for tool in TOOLS if tool.name in ("segment_track", "segment_batch"))
    assert input_schema(track, planned)["properties"]["event"]["description"] == named
    items = input_schema(batch, planned)["properties"]["batch"]["items"]["properties"]
    assert items["event"]["description"] == named
    shown = json.dumps([definition(tool, planned) for tool in TOOLS if tool.name == "segment_track"])
    assert "Events: those of the tracking plan: ask segment_find_event." in shown
    assert "Product Viewed" not in shown
    assert definitions("anthropic", planned)[0]["description"] == definition(track, planned)["description"]
    for without in (own, settings(tracking_plan="segment:tp_1", tracking_plan_policy="off")):
        assert definition(track, without) == DEFINITIONS["segment_track"]
    alone = settings(tracking_plan="segment:tp_1", public_api_token="any", toolsets="tracking")
    assert "segment_find_event" not in json.dumps(definition(track, alone))


def size(toolset: str, *parts: str, chosen: Settings = CHOSEN) -> int:
    found = [{part: definition(tool, chosen)[part] for part in parts} for tool in TOOLS if tool.toolset == toolset]
    return sum(len(json.dumps(tool, separators=(",", ":"), ensure_ascii=False).encode()) for tool in found)


@pytest.mark.parametrize("toolset", BUDGETS)
def test_the_list_stays_within_its_budget(toolset: str) -> None:
    budget, budget_with_output = BUDGETS[toolset]
    for_models = size(toolset, "name", "description", "inputSchema")
    in_all = size(toolset, "name", "description", "inputSchema", "outputSchema")
    print(f"\nbytes of {toolset}: {for_models} for models (at most {budget}), {in_all} with output schemas "
          f"(at most {budget_with_output})")  # fmt: skip
    assert size(toolset, "name", "description", "inputSchema", chosen=VARIANTS["with a plan"]) <= budget
    assert for_models <= budget
    assert in_all <= budget_with_output


def test_a_server_without_a_key_lists_little_more() -> None:
    assert size("tracking", "name", "description", "inputSchema", chosen=Settings()) <= 9_000


def test_the_table_that_tokens_are_counted_by_is_the_published_one() -> None:
    import bpe_openai

    encoding = bpe_openai.get_encoding("o200k_base")
    tokens = (encoding.decode_single_token_bytes(rank) for rank in range(199_998))
    table = b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))
    assert hashlib.sha256(table).hexdigest() == O200K


async def test_an_answer_stays_small(call: Caller) -> None:
    accepted = await call("segment_track", {"event": "Order Completed", "userId": "u1"})
    refused = await call("segment_track", {"event": "Order Completed"})
    assert len(json.dumps(accepted, separators=(",", ":"))) <= 330
    assert len(json.dumps(refused, separators=(",", ":"))) <= 400


@pytest.mark.parametrize("chosen", [settings(), CHOSEN], ids=["without webhooks", "with webhooks"])
def test_instructions_are_short_and_name_every_tool_that_is_offered(chosen: Settings) -> None:
    text = instructions(chosen)
    assert len(text) < 1600
    assert set(re.findall(r"segment_\w+", text)) == {tool.name for tool in offered(chosen)}


async def test_a_source_argument_appears_with_several_sources(sandbox: Sandbox) -> None:
    chosen = settings(write_key="", sources='{"web": "key-1", "ios": "key-2"}', data_plane_url=sandbox.url)
    async with mcp(chosen) as client:
        schema = (await client.list_tools()).tools[0].input_schema
        good = await client.call_tool("segment_page", {"userId": "u1", "source": "ios"})
        none = await client.call_tool("segment_page", {"userId": "u1"})
        wrong = await client.call_tool("segment_page", {"userId": "u1", "source": "android"})
    assert schema["properties"]["source"]["enum"] == ["web", "ios"]
    assert "writeKey" not in schema["properties"]
    assert [result.is_error for result in (good, none, wrong)] == [False, True, True]
    assert "Pass one of web, ios" in str(none.structured_content)
    assert len(sandbox.store.messages({}, None, 10)) == 1


async def test_read_only_hides_and_refuses_what_writes() -> None:
    async with mcp(settings(read_only=True)) as client:
        listed = (await client.list_tools()).tools
        refused = await client.call_tool("segment_track", {"event": "A", "userId": "u1"})
    assert not [tool for tool in listed if not (tool.annotations and tool.annotations.read_only_hint)]
    assert refused.structured_content is not None
    assert refused.structured_content["error"]["code"] == "not_configured"
    assert "SEGMENT_READ_ONLY" in refused.structured_content["errorMessage"]


async def test_the_list_needs_no_settings_at_all() -> None:
    async with mcp(Settings()) as client:
        assert len((await client.list_tools()).tools) == len(offered(Settings()))
        result = await client.call_tool("segment_track", {"event": "A", "userId": "u1"})
    assert result.structured_content is not None
    assert result.structured_content["error"]["code"] == "not_configured"
    assert "SEGMENT_WRITE_KEY" in result.structured_content["errorMessage"]
    assert KEY not in str(result)

"""Function calling without MCP: each provider's own SDK takes the definitions, and its calls reach Segment."""

import copy
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, cast

import httpx2
import jsonschema
import pytest
from pydantic import TypeAdapter
from support import KEY, arrived, comparable, mcp, settings

from segment_tools import Segment, Settings
from segment_tools.functions import FORMATS, Format, definitions, dispatch
from segment_tools.sandbox.run import Sandbox
from segment_tools.tools import TOOLS

pytestmark = pytest.mark.anyio
SENDING = [tool.name for tool in TOOLS if tool.toolset == "tracking"]

ORDER = {
    "event": "Order Completed",
    "userId": "u1",
    "properties": {"total": 99.5, "note": 'für "Zoë"', "products": [{"sku": "a", "price": None}], "gift": False},
    "context": {"ip": "192.0.2.1", "campaign": {"name": "autumn"}},
}
MIXED = {
    "batch": [
        {"type": "identify", "userId": "u1", "traits": {"plan": "pro", "phone": None}},
        {"type": "track", **ORDER},
        {"type": "group", "userId": "u1", "groupId": "company_42", "integrations": {"All": False}},
        {"type": "alias", "userId": "u1", "previousId": "v1"},
        {"type": "page", "anonymousId": "v1", "name": "Pricing", "category": "Docs"},
    ],
    "context": {"locale": "en-US"},
}


@pytest.fixture
async def segment(sandbox: Sandbox) -> AsyncIterator[Segment]:
    """A client that sends to the sandbox."""
    async with Segment(settings(data_plane_url=sandbox.url)) as opened:
        yield opened


@dataclass
class Provider:
    """A model's API that answers as told, one answer after the other, and keeps what it was asked."""

    answers: list[dict[str, Any]]
    asked: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(json.loads(request.content))
        return httpx2.Response(200, json=self.answers.pop(0))

    def client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(self))


def completion(message: dict[str, Any]) -> dict[str, Any]:
    """A Chat Completions answer."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": None, **message}}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": "any", "choices": [choice]}


def completion_calling(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A Chat Completions answer that calls a tool."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    return completion({"tool_calls": [{"id": "call_1", "type": "function", "function": function}]})


def opened(definition: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Name, description and schema, out of the provider's envelope."""
    inner = definition.get("function", definition)
    (schema,) = (inner[key] for key in ("parameters", "input_schema", "parametersJsonSchema") if key in inner)
    return inner["name"], inner["description"], schema


def schema_of(name: str, style: Format) -> dict[str, Any]:
    return next(schema for tool, _, schema in map(opened, definitions(style)) if tool == name)


def led(schema: dict[str, Any], value: Any) -> Any:
    """The value as a strict schema leads a model to write it: nothing left out, free-form objects as JSON text."""
    if "properties" in schema and isinstance(value, dict):
        return {name: led(below, value.get(name)) for name, below in schema["properties"].items()}
    if "items" in schema and isinstance(value, list):
        return [led(schema["items"], item) for item in value]
    return json.dumps(value) if isinstance(value, dict) else value


@pytest.mark.parametrize("style", ["openai", "openai-strict"])
async def test_openai_chat_completions_takes_the_tools_and_its_call_arrives(
    style: Format,
    segment: Segment,
    sandbox: Sandbox,
) -> None:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionFunctionToolParam

    tools = cast("list[ChatCompletionFunctionToolParam]", definitions(style))
    assert TypeAdapter(list[ChatCompletionFunctionToolParam]).validate_python(tools, strict=True) == tools
    provider = Provider([completion_calling("segment_track", ORDER)])
    async with AsyncOpenAI(api_key="k", base_url="https://model.example", http_client=provider.client()) as client:
        answer = await client.chat.completions.create(
            model="any", messages=[{"role": "user", "content": "Ana ordered"}], tools=tools
        )
    assert provider.asked[0]["tools"] == tools
    (wanted,) = answer.choices[0].message.tool_calls or ()
    assert wanted.type == "function"
    result = await dispatch(wanted.function.name, wanted.function.arguments, segment)
    assert result["success"]
    assert [comparable(message) for message in arrived(sandbox)] == [{"type": "track", **ORDER}]


async def test_openai_responses_takes_the_tools_and_its_call_arrives(segment: Segment, sandbox: Sandbox) -> None:
    from openai import AsyncOpenAI
    from openai.types.responses import FunctionToolParam

    tools = cast("list[FunctionToolParam]", definitions("openai-responses"))
    assert TypeAdapter(list[FunctionToolParam]).validate_python(tools, strict=True) == tools
    output = {"type": "function_call", "call_id": "call_1", "name": "segment_track", "arguments": json.dumps(ORDER)}
    provider = Provider([{"id": "r1", "object": "response", "created_at": 1, "model": "any", "output": [output]}])
    async with AsyncOpenAI(api_key="k", base_url="https://model.example", http_client=provider.client()) as client:
        answer = await client.responses.create(model="any", input="Ana ordered", tools=tools)
    assert provider.asked[0]["tools"] == tools
    (wanted,) = answer.output
    assert wanted.type == "function_call"
    assert (await dispatch(wanted.name, wanted.arguments, segment))["success"]
    assert [comparable(message) for message in arrived(sandbox)] == [{"type": "track", **ORDER}]


async def test_anthropic_takes_the_tools_and_its_call_arrives(segment: Segment, sandbox: Sandbox) -> None:
    from anthropic import AsyncAnthropic
    from anthropic.types import ToolParam

    tools = cast("list[ToolParam]", definitions("anthropic"))
    assert TypeAdapter(list[ToolParam]).validate_python(tools, strict=True) == tools
    block = {"type": "tool_use", "id": "call_1", "name": "segment_track", "input": ORDER}
    usage = {"input_tokens": 1, "output_tokens": 1}
    provider = Provider(
        [{"id": "m1", "type": "message", "role": "assistant", "model": "any", "content": [block], "usage": usage}]
    )
    async with AsyncAnthropic(api_key="k", base_url="https://model.example", http_client=provider.client()) as client:
        answer = await client.messages.create(
            model="any", max_tokens=100, messages=[{"role": "user", "content": "Ana ordered"}], tools=tools
        )
    assert provider.asked[0]["tools"] == tools
    (wanted,) = answer.content
    assert wanted.type == "tool_use"
    assert (await dispatch(wanted.name, wanted.input, segment))["success"]
    assert [comparable(message) for message in arrived(sandbox)] == [{"type": "track", **ORDER}]


async def test_gemini_takes_the_tools_and_its_call_arrives(segment: Segment, sandbox: Sandbox) -> None:
    from google.genai import Client, types

    tools = definitions("gemini")
    declared = [types.FunctionDeclaration.model_validate(tool) for tool in tools]
    assert [(tool.name, tool.description, tool.parameters_json_schema) for tool in declared] == list(map(opened, tools))
    part = {"functionCall": {"name": "segment_track", "args": ORDER}}
    provider = Provider([{"candidates": [{"content": {"role": "model", "parts": [part]}}]}])
    options = types.HttpOptions(base_url="https://model.example", httpx_async_client=provider.client())
    config = types.GenerateContentConfig(tools=[types.Tool(function_declarations=declared)])
    async with Client(api_key="k", http_options=options).aio as client:
        answer = await client.models.generate_content(model="any", contents="Ana ordered", config=config)
    (sent,) = provider.asked[0]["tools"]
    assert [types.FunctionDeclaration.model_validate(tool) for tool in sent["functionDeclarations"]] == declared
    (wanted,) = answer.function_calls or ()
    assert (await dispatch(wanted.name or "", wanted.args, segment))["success"]
    assert [comparable(message) for message in arrived(sandbox)] == [{"type": "track", **ORDER}]


async def test_langchain_takes_the_tools_and_a_call_through_it_arrives(segment: Segment, sandbox: Sandbox) -> None:
    from langchain_core.tools import StructuredTool
    from langchain_core.utils.function_calling import convert_to_openai_tool

    def made(definition: dict[str, Any]) -> StructuredTool:
        name, description, schema = opened(definition)

        async def invoke(**arguments: Any) -> dict[str, Any]:
            return await dispatch(name, arguments, segment)

        return StructuredTool.from_function(coroutine=invoke, name=name, description=description, args_schema=schema)

    tools = [made(definition) for definition in definitions("openai")]
    assert [convert_to_openai_tool(tool, strict=False) for tool in tools] == definitions("openai")
    result = await next(tool for tool in tools if tool.name == "segment_track").ainvoke(ORDER)
    assert result["success"]
    assert [comparable(message) for message in arrived(sandbox)] == [{"type": "track", **ORDER}]


@pytest.mark.parametrize("style", ["openai", "openai-strict"])
async def test_an_agent_of_the_openai_agents_sdk_uses_the_tools_by_itself(
    style: Format,
    segment: Segment,
    sandbox: Sandbox,
) -> None:
    from agents import Agent, FunctionTool, OpenAIChatCompletionsModel, RunConfig, Runner
    from agents.tool_context import ToolContext
    from openai import AsyncOpenAI

    async def invoke(context: ToolContext[Any], arguments: str) -> dict[str, Any]:
        return await dispatch(context.tool_name, arguments, segment)

    strict = style == "openai-strict"
    tools = [FunctionTool(*opened(tool), invoke, strict_json_schema=strict) for tool in definitions(style)]
    asked = led(schema_of("segment_track", style), ORDER) if strict else ORDER
    provider = Provider([completion_calling("segment_track", asked), completion({"content": "It is recorded."})])
    async with AsyncOpenAI(api_key="k", base_url="https://model.example", http_client=provider.client()) as client:
        agent = Agent("recorder", tools=[*tools], model=OpenAIChatCompletionsModel("any", client))
        answer = await Runner.run(agent, "Ana ordered", run_config=RunConfig(tracing_disabled=True))
    assert answer.final_output == "It is recorded."
    assert provider.asked[0]["tools"] == definitions(style)
    assert [comparable(message) for message in arrived(sandbox)] == [{"type": "track", **ORDER}]


def test_openais_own_check_finds_nothing_to_change_in_the_strict_schemas() -> None:
    from agents.strict_schema import ensure_strict_json_schema

    for name, _, schema in map(opened, definitions("openai-strict")):
        assert ensure_strict_json_schema(copy.deepcopy(schema)) == schema, name


@pytest.mark.parametrize(("name", "arguments"), [("segment_track", ORDER), ("segment_batch", MIXED)])
async def test_what_a_strict_schema_leads_to_arrives_like_the_plain_arguments(
    name: str, arguments: dict[str, Any], segment: Segment, sandbox: Sandbox
) -> None:
    strict = schema_of(name, "openai-strict")
    asked = led(strict, arguments)
    jsonschema.validate(asked, strict)
    jsonschema.validate(arguments, schema_of(name, "openai"))
    plain = await dispatch(name, arguments, segment)
    assert plain["success"], plain
    expected = [comparable(message) for message in arrived(sandbox)]
    sandbox.store.clear()
    result = await dispatch(name, json.dumps(asked), segment)
    assert result["success"], result
    assert [comparable(message) for message in arrived(sandbox)] == expected


@pytest.mark.parametrize("text", ['{"event": "A", "userId": "u1"', "{'event': 'A'}", "[1]", '"text"', "[" * 100_000])
async def test_arguments_that_are_no_json_object_are_refused_with_a_hint(
    text: str, segment: Segment, sandbox: Sandbox
) -> None:
    result = await dispatch("segment_track", text, segment)
    assert (result["success"], result["sent"], result["error"]["code"]) == (False, False, "invalid_value")
    assert "Pass one, such as" in result["error"]["hint"]
    assert arrived(sandbox) == []


@pytest.mark.parametrize("nothing", [None, "", " ", "null", "{}", {}])
async def test_no_arguments_at_all_are_answered_with_what_is_missing(
    nothing: str | dict[str, Any] | None, segment: Segment
) -> None:
    result = await dispatch("segment_track", nothing, segment)
    assert (result["success"], result["error"]["code"], result["error"]["field"]) == (False, "missing_field", "event")


async def test_a_tool_that_does_not_exist_is_refused_with_the_one_that_was_meant(segment: Segment) -> None:
    result = await dispatch("segment_trak", "{}", segment)
    assert (result["success"], result["error"]["code"]) == (False, "unknown_tool")
    assert "segment_track" in result["error"]["hint"]


async def test_every_format_names_and_describes_the_tools_as_mcp_lists_them() -> None:
    async with mcp(settings()) as client:
        listed = [(tool.name, tool.description, tool.input_schema) for tool in (await client.list_tools()).tools]
    for style in FORMATS:
        found = [opened(definition) for definition in definitions(style)]
        if style == "openai-strict":
            assert [tool[:2] for tool in found] == [tool[:2] for tool in listed]
        else:
            assert found == listed, style


def test_an_unknown_format_raises_and_says_which_there_are() -> None:
    with pytest.raises(ValueError, match="openai-strict, anthropic, gemini"):
        definitions(cast("Format", "mistral"))


@pytest.mark.parametrize("style", FORMATS)
def test_a_write_key_is_an_argument_only_where_the_settings_hold_none(style: Format) -> None:
    def taking_keys(tools: list[dict[str, Any]]) -> set[bool]:
        sending = [tool for tool in map(opened, tools) if tool[0] in SENDING]
        assert len(sending) == len(SENDING)
        return {"writeKey" in tool[2]["properties"] for tool in sending}

    assert taking_keys(definitions(style)) == {False}
    assert taking_keys(definitions(style, settings())) == {False}
    assert taking_keys(definitions(style, Settings())) == {True}


async def test_an_accident_is_a_result_and_its_text_goes_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(KEY)

    with caplog.at_level(logging.DEBUG):
        result = await dispatch("segment_track", ORDER, cast("Segment", Broken()))
    assert (result["success"], result["error"]["code"]) == (False, "internal_error")
    assert "RuntimeError" in caplog.text
    assert KEY not in caplog.text
    assert KEY not in json.dumps(result)
    assert [record.exc_info for record in caplog.records] == [None]

"""An MCP server whose one tool does nothing, as the SDK has it: what a server costs before it does anything.

    python benchmarks/empty_server.py stdio|http

Over stdio it is the SDK's `stdio_server()`, untouched. Over HTTP it is stateless, answers with JSON, and is served by
the very function that serves this project's tools.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams, TextContent, Tool
from mcp_calls import EMPTY_TOOL


def built() -> Server[Any]:
    """The server."""
    listed = ListToolsResult(tools=[Tool(name=EMPTY_TOOL, description="Do nothing.", input_schema={"type": "object"})])

    async def list_tools(_: ServerRequestContext[Any], __: PaginatedRequestParams | None) -> ListToolsResult:
        return listed

    async def call_tool(_: ServerRequestContext[Any], __: CallToolRequestParams) -> CallToolResult:
        return CallToolResult(content=[TextContent(text="done")])

    return Server("empty", on_list_tools=list_tools, on_call_tool=call_tool)


async def stdio() -> None:
    from mcp.server.stdio import stdio_server

    server = built()
    async with stdio_server() as (reader, writer):
        await server.run(reader, writer, server.create_initialization_options())


def http() -> None:
    from contextlib import asynccontextmanager

    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from starlette.applications import Starlette
    from starlette.routing import Route

    from segment_tools.surfaces.mcp_server import serve_http

    manager = StreamableHTTPSessionManager(built(), json_response=True, stateless=True)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with manager.run():
            yield

    async def nothing_to_end() -> None: ...

    app = Starlette(routes=[Route("/mcp", manager.asgi_app)], lifespan=lifespan)
    app.state.end_calls = nothing_to_end
    serve_http(app, "127.0.0.1", 0, lambda url: print(f"serving at {url}, for the benchmark", file=sys.stderr))


if __name__ == "__main__":
    if sys.argv[1:] == ["stdio"]:
        asyncio.run(stdio())
    else:
        http()

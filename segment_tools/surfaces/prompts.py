"""What a host can put before a model on request: how to set Segment up for these tools."""

from typing import Any

from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.types import (
    INVALID_PARAMS,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    PaginatedRequestParams,
    Prompt,
    PromptMessage,
    TextContent,
)

SET_UP = Prompt(
    name="set_up_segment",
    title="Set Segment up",
    description="How to add a source, a destination, a write key, profile access and a webhook for these tools.",
)

_TEXT = """Help me set Twilio Segment up for these tools, a step at a time, asking me what you cannot know:

1. A source. In Segment: Connections > Catalog > Sources, choose one such as HTTP API, add it and give it a name.
2. Its write key. The source > Settings > API Keys. Put it into SEGMENT_WRITE_KEY where this server is started, not \
into this conversation. A workspace in the EU also needs SEGMENT_REGION=eu.
3. A destination. The source > Add destination, choose a tool such as Mixpanel, connect it to the source, enter that \
tool's own key and enable it. Its exact name is what `integrations` takes.
4. Profiles, if wanted. Unify > Unify settings > API access: copy the space ID and make an access token. Put them into \
SEGMENT_SPACE_ID and SEGMENT_PROFILE_TOKEN.
5. Webhooks, if messages are to come back. Connections > Catalog > Destinations > Webhooks: enter the address under \
which this server is reached from outside, ending in /webhooks/segment, and a shared secret; put the same secret into \
SEGMENT_WEBHOOK_SECRET.
6. Restart this server and call segment_test_connection: it says what works and what to mend. Then send one message \
and look for it in the source's debugger, or with segment_find_message."""


async def listed(_: ServerRequestContext[Any], __: PaginatedRequestParams | None) -> ListPromptsResult:
    """The prompts there are."""
    return ListPromptsResult(prompts=[SET_UP])


async def got(_: ServerRequestContext[Any], params: GetPromptRequestParams) -> GetPromptResult:
    """The prompt of a name.

    Raises:
        MCPError: there is none.
    """
    if params.name != SET_UP.name:
        raise MCPError(INVALID_PARAMS, f"There is no such prompt; there is {SET_UP.name}.")
    text = TextContent(text=_TEXT)
    return GetPromptResult(description=SET_UP.description, messages=[PromptMessage(role="user", content=text)])

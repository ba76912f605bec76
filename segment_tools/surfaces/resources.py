"""Everything that is a resource: providers side by side, read, completed, and told of when they change."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    EmptyResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    ResourceTemplateReference,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    TextResourceContents,
    UnsubscribeRequestParams,
)

from segment_tools.errors import InvalidMessage, SegmentError

JSON = "application/json"
_MOST_COMPLETIONS = 100
"""Source: https://modelcontextprotocol.io/specification/2025-06-18/server/utilities/completion."""

_Context = ServerRequestContext[None]

Tell = Callable[[str], Awaitable[None]]
"""Told the URI of a resource that has changed."""


class Provider:
    """Resources of one kind. A new kind is a subclass, and a line in `mcp_server.build`.

    What is here fits resources that never change and have no templates.
    """

    forms: tuple[str, ...] = ()
    """The URIs there are, with capitals for what varies; for who asks for another."""

    changes: bool = False
    """Whether it has a `watch`."""

    def listed(self) -> list[Resource]:
        """Resources with a URI of their own."""
        return []

    def templates(self) -> list[ResourceTemplate]:
        """Forms of URIs, `{name}` for what varies."""
        return []

    def knows(self, uri: str) -> bool:  # noqa: ARG002 - for subclasses
        """Whether a URI is one of this kind, be there something at it or not."""
        return False

    async def read(self, uri: str) -> Any:  # noqa: ARG002
        """What is at a URI that it knows, as JSON; None where there is nothing.

        Raises:
            SegmentError: it cannot be read now.
            ValueError: there can be nothing at it.
        """
        return None

    def completions(self, template: str, argument: str, typed: str) -> Sequence[str]:  # noqa: ARG002
        """What the argument of a template may be, once so much is typed."""
        return ()

    async def watch(self, tell: Tell) -> Coroutine[Any, Any, None]:
        """What to run from now on, until it is cancelled, to tell of changes."""
        raise NotImplementedError


class Resources:
    """What the server answers about the resources of its providers.

    It watches those that change from the first subscription on, until `stop`.
    """

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._providers = providers
        self._bus = InMemorySubscriptionBus()
        self._listen = ListenHandler(self._bus)
        self._subscribed: dict[str, ServerSession] = {}
        self._watching: list[asyncio.Task[None]] | None = None
        self._beginning = asyncio.Lock()

    def handlers(self, *, lasting: bool) -> dict[str, Any]:
        """What `Server` is built with; the older way to subscribe needs a connection that lasts, as stdio's does."""
        if not self._providers:
            return {}
        found: dict[str, Any] = {
            "on_list_resources": self._list,
            "on_list_resource_templates": self._list_templates,
            "on_read_resource": self._read,
            "on_completion": self._complete,
        }
        if any(each.changes for each in self._providers):
            older: dict[str, Any] = {
                "on_subscribe_resource": self._subscribe,
                "on_unsubscribe_resource": self._unsubscribe,
            }
            found |= {"on_subscriptions_listen": self._listened, **(older if lasting else {})}
        return found

    async def stop(self) -> None:
        """Watch no longer."""
        watching, self._watching = self._watching or [], None
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)

    async def _list(self, _: _Context, __: PaginatedRequestParams | None) -> ListResourcesResult:
        return ListResourcesResult(resources=[found for each in self._providers for found in each.listed()])

    async def _list_templates(self, _: _Context, __: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        found = [template for each in self._providers for template in each.templates()]
        return ListResourceTemplatesResult(resource_templates=found)

    async def _read(self, _: _Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        uri = str(params.uri)
        try:
            found = await self._of(uri).read(uri)
        except ValueError:
            found = None
        except InvalidMessage as error:
            raise MCPError(INVALID_PARAMS, str(error), {"uri": uri[:200]}) from None
        except SegmentError as error:
            raise MCPError(INTERNAL_ERROR, str(error)) from None
        if found is None:
            raise self._not_found(uri)
        text = await asyncio.to_thread(json.dumps, found, ensure_ascii=False)
        return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=JSON, text=text)])

    async def _complete(self, _: _Context, params: CompleteRequestParams) -> CompleteResult:
        if not isinstance(params.ref, ResourceTemplateReference):
            return CompleteResult(completion=Completion(values=[], total=0))
        found = [
            name
            for each in self._providers
            for name in each.completions(params.ref.uri, params.argument.name, params.argument.value)
        ]
        return CompleteResult(
            completion=Completion(
                values=found[:_MOST_COMPLETIONS], total=len(found), has_more=len(found) > _MOST_COMPLETIONS
            )
        )

    async def _subscribe(self, context: _Context, params: SubscribeRequestParams) -> EmptyResult:
        self._of(str(params.uri))
        await self._watch()
        self._subscribed[str(params.uri)] = context.session
        return EmptyResult()

    async def _unsubscribe(self, _: _Context, params: UnsubscribeRequestParams) -> EmptyResult:
        self._subscribed.pop(str(params.uri), None)
        return EmptyResult()

    async def _listened(self, context: _Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        for uri in params.notifications.resource_subscriptions or ():
            self._of(str(uri))
        await self._watch()
        return await self._listen(context, params)

    async def _watch(self) -> None:
        async with self._beginning:
            if self._watching is not None:
                return
            watches: list[Coroutine[Any, Any, None]] = []
            try:
                for each in self._providers:
                    if each.changes:
                        watches.append(await each.watch(self._tell))  # noqa: PERF401 - one that fails leaves the others
            except SegmentError as error:
                for watch in watches:
                    watch.close()
                raise MCPError(INTERNAL_ERROR, str(error)) from None
            self._watching = [asyncio.create_task(watch) for watch in watches]

    async def _tell(self, uri: str) -> None:
        await self._bus.publish(ResourceUpdated(uri))
        if session := self._subscribed.get(uri):
            await session.send_resource_updated(uri)

    def _of(self, uri: str) -> Provider:
        """The provider that knows the URI.

        Raises:
            MCPError: there is none, and so nothing to read nor to watch.
        """
        found = next((each for each in self._providers if each.knows(uri)), None)
        if found is None:
            raise self._not_found(uri)
        return found

    def _not_found(self, uri: str) -> MCPError:
        forms = [form for each in self._providers for form in each.forms]
        return MCPError(INVALID_PARAMS, f"Resource not found. There are {', '.join(forms)}.", {"uri": uri[:200]})

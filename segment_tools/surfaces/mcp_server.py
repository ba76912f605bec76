"""The tools over the Model Context Protocol: stdio and streamable HTTP, every revision the SDK serves."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import anyio
from mcp.server.caching import CacheHint
from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from segment_tools import telemetry
from segment_tools._version import __version__
from segment_tools.client import Segment
from segment_tools.errors import NotConfigured, SegmentError
from segment_tools.forwarding import forwarding
from segment_tools.functions import dispatch
from segment_tools.settings import Settings
from segment_tools.surfaces import event_resources, prompts
from segment_tools.surfaces.calls import Calls
from segment_tools.surfaces.delivered_resources import Deliveries
from segment_tools.surfaces.outbox_resource import Outbox
from segment_tools.surfaces.progress import ByProgress
from segment_tools.surfaces.readiness import Readiness
from segment_tools.surfaces.resources import Provider, Resources
from segment_tools.surfaces.stdio import stdio_streams
from segment_tools.tools import definition, offered

if TYPE_CHECKING:
    from segment_tools.surfaces.metrics import Metrics

_log = logging.getLogger(__name__)

NAME = "segment-tools"
INSTRUCTIONS = (
    "Tools for Twilio Segment, a customer data platform. segment_identify says who a user is; "
    "segment_track records what a user did; segment_page and segment_screen record views; segment_group "
    "ties a user to an account; segment_alias joins two ids; segment_batch sends many messages at once. "
    "Every message needs userId or anonymousId, the same one for the same person. success with status "
    "'accepted' means that Segment took the request; Segment answers so even to messages that it drops "
    "later, so these tools refuse beforehand what would be lost and say in error.hint how to mend it. A "
    "repeat with the same messageId is counted once."
)
FIND = (
    " segment_test_connection says whether keys and hosts work, segment_check_message beforehand what would be sent "
    "and what is wrong with it, segment_find_message afterwards whether a message was kept."
)
PROFILES = (
    " segment_get_profile says who somebody is; for more of it: segment_get_profile_traits, "
    "segment_get_profile_events, segment_get_profile_external_ids, segment_get_profile_links, "
    "segment_get_profile_metadata, segment_get_profile_properties."
)
TRIGGERS = (
    " segment_list_deliveries and segment_wait_for_delivery read what Segment's webhooks delivered here; "
    "hosts can subscribe to segment://deliveries."
)
OUTBOX = (
    " status 'queued' means that the message is kept on this server and delivered later by itself: do not send it "
    "again. segment_outbox shows what waits and what Segment refused."
)

IMPORT = " segment_import_file sends the messages of a file in the server's import folder."

EVENTS = " segment_find_event says which event and properties to send for what happened."


def instructions(settings: Settings) -> str:
    """What a model should know of the tools that are offered."""
    toolsets = {tool.toolset for tool in offered(settings)}
    parts = {
        "tracking": INSTRUCTIONS,
        "profiles": PROFILES,
        "triggers": TRIGGERS,
        "outbox": OUTBOX,
        "connection": FIND,
        "plan": EVENTS,
        "bulk": IMPORT,
    }
    return "".join(text for toolset, text in parts.items() if toolset in toolsets)


_LIST_SECONDS = 300
"""How long a client may keep the list of tools; it changes only when the server starts anew."""

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


def build(segment: Segment, *, lasting: bool = True, forward: Sequence[str] = ()) -> Server[None]:
    """The server for the tools that the client's settings offer; it closes the client when it ends.

    `lasting` says that its connections do: each request over stateless HTTP stands alone. It may be run more than once
    at a time, and ends with the last. Meanwhile deliveries are sent on to the addresses of `forward`.
    """

    @cache
    def listed() -> ListToolsResult:
        """Made when it is first asked for, so that the answer to `initialize` does not wait for every schema."""
        shown = [Tool.model_validate(definition(tool, segment.settings)) for tool in offered(segment.settings)]
        return ListToolsResult(tools=shown)

    async def list_tools(_: ServerRequestContext[None], __: PaginatedRequestParams | None) -> ListToolsResult:
        return listed()

    async def call_tool(
        context: ServerRequestContext[None], params: CallToolRequestParams
    ) -> CallToolResult | InputRequiredResult:
        async def told(progress: float, total: float | None, message: str) -> None:
            with suppress(Exception):  # whoever asked may be gone: that is no fault of the call
                await context.session.report_progress(progress, total, message)

        asking = consent and consent.asking(context, params)
        name, whose = calls.of(context)
        result = await dispatch(params.name, params.arguments, segment, told, name, whose, asking)
        return asking.open if asking and asking.open else _shown(result)

    consent = None
    if segment.settings.confirm:
        from segment_tools.surfaces.asking import Consent

        consent = Consent(segment.settings, NAME, segment.outside.monotonic)
    calls = Calls(lasting=lasting, now=segment.outside.now)
    received = _receives(segment.settings)
    resources = Resources(_providers(segment))
    runs: list[Server[None]] = []

    @asynccontextmanager
    async def lifespan(server: Server[None]) -> AsyncGenerator[None]:
        first = not runs
        runs.append(server)
        try:
            if first:
                segment.start()
            async with _inbox_tried(segment, received and first), forwarding(segment, forward if first else ()):
                yield None
        finally:
            runs.pop()
            if not runs:
                await resources.stop()
                await segment.aclose()

    server: Server[None] = Server(
        NAME,
        version=__version__,
        title="Segment",
        instructions=instructions(segment.settings),
        cache_hints={"tools/list": CacheHint(ttl_ms=_LIST_SECONDS * 1000, scope="public")},
        lifespan=lifespan,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        **prompts.handlers({tool.toolset for tool in offered(segment.settings)}),
        **resources.handlers(lasting=lasting),
    )
    server.middleware[:] = [
        _IfTraced(each) if type(each).__name__ == "OpenTelemetryMiddleware" else each for each in server.middleware
    ]
    if consent:
        server.middleware.append(consent.boundary)
    return server


class _IfTraced(ServerMiddleware[Any]):
    """The SDK's tracing where anybody traces: it makes its spans for nobody, too."""

    def __init__(self, tracing: ServerMiddleware[Any]) -> None:
        self._tracing = tracing

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Answer the request."""
        return await (self._tracing(ctx, call_next) if telemetry.is_traced() else call_next(ctx))


def _providers(segment: Segment) -> list[Provider]:
    """The kinds of resource that go with the tools that are offered."""
    toolsets = {tool.toolset for tool in offered(segment.settings)}
    found: list[Provider] = []
    if "triggers" in toolsets:
        found.append(Deliveries(segment))
    if "outbox" in toolsets:
        found.append(Outbox(segment))
    if "plan" in toolsets:
        found += [event_resources.plan(segment), event_resources.spec()]
    return found


def _receives(settings: Settings) -> bool:
    return any(tool.toolset == "triggers" for tool in offered(settings))


@asynccontextmanager
async def _inbox_tried(segment: Segment, wanted: bool) -> AsyncGenerator[None]:
    """Open the inbox meanwhile, and warn where that cannot be done: nobody waits for it, and nobody may ask soon."""
    trying = asyncio.create_task(_try_inbox(segment)) if wanted else None
    try:
        yield
    finally:
        if trying:
            trying.cancel()
            await asyncio.gather(trying, return_exceptions=True)


async def _try_inbox(segment: Segment) -> None:
    try:
        await segment.newest_delivery()
    except SegmentError as error:
        _log.warning("webhooks cannot be kept: %s", error)


def _shown(result: dict[str, Any]) -> CallToolResult:
    """The same JSON for hosts that read the text and for those that read the structure."""
    text = TextContent(text=to_json(result).decode())
    return CallToolResult(content=[text], structured_content=result, is_error=not result["success"])


async def serve_stdio(
    segment: Segment, webhooks: socket.socket | None, started: Callable[[str], None], forward: Sequence[str] = ()
) -> None:
    """Serve standard input and output until the input ends, and receive webhooks on the socket meanwhile.

    `started` is told where webhooks are received. Ctrl-C and SIGTERM end the process once the outbox, if there is one,
    had its time to be delivered.
    """
    server = build(segment, forward=forward)
    async with AsyncExitStack() as stack:
        stack.enter_context(_ended_by_signals(segment))
        if webhooks is not None:
            from segment_tools.surfaces.receiver import receiving

            await stack.enter_async_context(receiving(segment, webhooks, started))
        requests, answers = await stack.enter_async_context(stdio_streams())
        await server.run(requests, answers, server.create_initialization_options())


@contextmanager
def _ended_by_signals(segment: Segment) -> Generator[None]:
    """Meanwhile Ctrl-C and SIGTERM close the client first, and then end the process as they do by themselves."""
    ending: list[asyncio.Task[None]] = []

    async def end(number: int) -> None:
        try:
            await segment.aclose()
        finally:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def asked(number: int) -> None:
        if segment.settings.outbox is None or ending:  # nothing is still to be done, or it was asked for twice
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        ending.append(asyncio.ensure_future(end(number)))

    if os.name != "posix":
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        yield
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked, number)
    yield


def http_app(
    segment: Segment, host: str, names: Sequence[str] = (), origins: Sequence[str] = (), forward: Sequence[str] = ()
) -> Starlette:
    """Streamable HTTP at `/mcp`, stateless, `/healthz`, `/readyz`, and with a webhook secret `/webhooks/segment`.

    `/metrics` answers with `SEGMENT_METRICS`; without the packages for it, `NotConfigured` is raised.

    Answers are JSON, but for those to who asks for progress: they are streams of events, which can carry it.

    A request must name this machine, `host` or one of `names` in its Host header, and in its Origin header, if it
    has one, an http origin of those or one of `origins`: a page from elsewhere cannot reach in.
    """
    hosts = list(dict.fromkeys([*LOOPBACK_NAMES, f"[{host}]" if ":" in host else host, *names]))
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[form for name in hosts for form in (name, f"{name}:*")],
        allowed_origins=[*(form for name in hosts for form in (f"http://{name}", f"http://{name}:*")), *origins],
    )
    server = build(segment, lasting=False, forward=forward)
    plain, streaming = (
        StreamableHTTPSessionManager(server, json_response=json, stateless=True, security_settings=security)
        for json in (True, False)
    )

    metrics = _metrics(segment.settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        with metrics.counting() if metrics else nullcontext():
            async with plain.run(), streaming.run():
                yield

    sends = [tool.name for tool in offered(segment.settings) if not tool.read_only]
    calls = ByProgress(plain.asgi_app, streaming.asgi_app, sends)
    routes = [
        Route("/mcp", calls),
        Route("/healthz", _healthy, methods=["GET"]),
        Route("/readyz", Readiness(segment).answer, methods=["GET"]),
        Route("/metrics", metrics.answer if metrics else _unmeasured, methods=["GET"]),
    ]
    if segment.settings.webhook_secret is not None:
        from segment_tools.surfaces.receiver import webhook_route

        routes.append(webhook_route(segment))
    app = Starlette(routes=routes, lifespan=lifespan)
    app.state.end_calls = calls.end
    return app


def _metrics(settings: Settings) -> "Metrics | None":
    if not settings.metrics:
        return None
    try:
        from segment_tools.surfaces.metrics import Metrics
    except ImportError:
        text = "SEGMENT_METRICS is on, and the packages for it are not installed."
        raise NotConfigured("SEGMENT_METRICS", text, hint="pip install 'segment-tools[metrics]'") from None
    return Metrics()


def serve_http(app: Starlette, host: str, port: int, started: Callable[[str], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; `started` is told the address once it is taken.

    Raises:
        OSError: the address cannot be taken.
    """
    import uvicorn  # for HTTP alone: it would delay the answer to a host on stdio

    class Server(uvicorn.Server):
        """One that does not wait for calls that wait themselves."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            ending = asyncio.create_task(app.state.end_calls())
            await super().shutdown(sockets)
            ending.cancel()

    with listening(host, port) as listener:
        shown = f"[{host}]" if ":" in host else host
        started(f"http://{shown}:{listener.getsockname()[1]}")
        config = uvicorn.Config(
            app, log_config=None, log_level="warning", access_log=False, ws="none", timeout_graceful_shutdown=2
        )
        # Not uvicorn's own `run`: the SDK's steps would each find out anew that they run on asyncio.
        anyio.run(Server(config).serve, [listener], backend_options={"loop_factory": config.get_loop_factory()})


def listening(host: str, port: int) -> socket.socket:
    """A listening socket. Its protocol is named so that asyncio sends small answers at once (TCP_NODELAY)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


async def _unmeasured(_: Request) -> Response:
    text = "Nothing is counted here: set SEGMENT_METRICS=true, which needs pip install 'segment-tools[metrics]'."
    return JSONResponse({"error": text}, status_code=404)


async def _healthy(_: Request) -> Response:
    return JSONResponse({"status": "ok", "name": NAME, "version": __version__})

"""What each command does. Loaded by the command line once it knows that there is something to do."""

import asyncio
import json
import logging
import sys
from argparse import Namespace
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from socket import socket
from typing import Any, TypeVar

import anyio

from segment_tools._version import __version__
from segment_tools.checking import configured
from segment_tools.client import Segment
from segment_tools.environment import user_folder
from segment_tools.errors import InvalidMessage, NotConfigured, SegmentError
from segment_tools.forwarding import shown_address, usable
from segment_tools.functions import definitions, dispatch
from segment_tools.guard import Decision, Origin, unavailable
from segment_tools.settings import SANDBOX, Settings, misspelt
from segment_tools.surfaces.loading import swift_loading
from segment_tools.surfaces.logs import announcement, configure
from segment_tools.tools import definition, lacking, offered

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


def run(command: str, given: Namespace) -> int:
    """Run the command; the process's exit code."""
    configure(given.log_level, given.log_format)
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(encoding="utf-8")  # JSON is, whatever the terminal thinks
    try:
        return _COMMANDS[command](given)
    except NotConfigured as error:
        _say(str(error))
        return WRONG_USE
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            _say(f"the output cannot be written ({error.strerror})")
        # Whoever read our output has stopped; so that Python's own last flush does not fail too, it goes nowhere.
        sys.stdout = None  # pyright: ignore[reportAttributeAccessIssue]
        return FAILED


def _say(text: str) -> None:
    print(announcement(text), file=sys.stderr, flush=True)


def _served(given: Namespace) -> Settings:
    """The settings of a server, which may be told to send deliveries on."""
    settings = _settings(given)
    if given.forward and settings.webhook_secret is None:
        hint = "Set it to the shared secret of the webhook destination, or leave --forward out."
        raise NotConfigured("SEGMENT_WEBHOOK_SECRET", "--forward needs SEGMENT_WEBHOOK_SECRET.", hint=hint)
    usable(given.forward)
    return settings


def _settings(given: Namespace) -> Settings:
    for wrong, right in misspelt(given.env_file).items():
        _say(f"{wrong} is not a setting and is ignored; did you mean {right}?")
    return Settings.from_env(given.env_file)


def _client(settings: Settings) -> Segment:
    """The client of a server.

    Raises:
        NotConfigured: what `SEGMENT_OUTBOX` or `SEGMENT_AUDIT_LOG` names cannot be one; better said now than at the
            first call.
    """
    segment = Segment(settings)
    _ = segment.courier
    if settings.audit_log is not None:
        _ = segment.audit
    return segment


@contextmanager
def _reachable(settings: Settings) -> Generator[Settings]:
    """Settings that lead somewhere: where they ask for the embedded sandbox, it runs meanwhile."""
    if settings.data_plane_url != SANDBOX or settings.dry_run:
        yield settings
        return
    from segment_tools.sandbox.run import PORT, Sandbox, bind_near

    with _opened(lambda: Sandbox(_default_db(), bind_near(PORT)), _default_db()) as sandbox:
        _say(f"sandbox at {sandbox.url}, messages kept in {_default_db()}")
        _say(f"watch what arrives: open {sandbox.url} in a browser; later: segment-tools sandbox")
        yield settings.model_copy(update={"data_plane_url": sandbox.url})


def _opened(make: Callable[[], _T], path: Path | str) -> _T:
    from sqlite3 import Error as DatabaseError

    try:
        return make()
    except (DatabaseError, OSError) as error:
        hint = "Pass `segment-tools sandbox --db PATH` a file that can be written, or :memory:."
        raise NotConfigured(
            "--db", f"The sandbox cannot keep its messages in {path} ({type(error).__name__}).", hint=hint
        ) from None


def _default_db() -> Path:
    return user_folder() / "sandbox.db"


def _say_if_none(settings: Settings) -> None:
    """Say so where the settings offer no tool, and what is lacking for one."""
    if offered(settings):
        return
    needed = [f"{toolset} needs {missing}" for toolset in settings.toolsets if (missing := lacking(toolset, settings))]
    named = f": {', '.join(needed)}" if needed else " (SEGMENT_READ_ONLY, SEGMENT_TOOLSETS)"
    _say(f"these settings offer no tool{named}")


def _log_configuration(settings: Settings) -> None:
    """One line of what is configured; a warning where it does not fit together. Without a key a call brings one."""
    report = configured(settings)
    found = ", ".join(check.name for check in report.checks if check.is_set)
    wrong = " ".join(report.problems) if settings.has_key else ""
    _say_if_none(settings)
    _log.log(logging.WARNING if wrong else logging.INFO, "configured: %s. %s", found, wrong or "Nothing is wrong.")


def _stdio(given: Namespace) -> int:
    if sys.stdin is None or sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison] - they are, if closed
        hint = "Let an MCP host start this program, or try `segment-tools http`."
        raise NotConfigured("stdio", "Standard input or output is closed, and MCP needs both.", hint=hint)
    settings = _served(given)
    with swift_loading():
        from segment_tools.surfaces.mcp_server import serve_stdio
    if sys.stdin.isatty():
        _say("serving MCP on standard input and output, for an MCP host to start; to see it work: segment-tools demo")
    _log_configuration(settings)
    if given.forward:
        _say(_forwarded(given.forward))
    with _reachable(settings) as reachable, _webhooks(reachable) as listener:
        anyio.run(serve_stdio, _client(reachable), listener, _say, given.forward)
    return DONE


def _forwarded(urls: Sequence[str]) -> str:
    return f"deliveries go on to {' and '.join(map(shown_address, dict.fromkeys(urls)))}"


@contextmanager
def _webhooks(settings: Settings) -> Generator[socket | None]:
    """What webhooks are received on beside stdio; None where they are not."""
    if settings.webhook_port is None:
        yield None
        return
    if settings.webhook_secret is None:
        hint = "Set it to the shared secret of the webhook destination, or leave SEGMENT_WEBHOOK_PORT out."
        text = "SEGMENT_WEBHOOK_PORT is set, and SEGMENT_WEBHOOK_SECRET is not."
        raise NotConfigured("SEGMENT_WEBHOOK_SECRET", text, hint=hint)
    from segment_tools.surfaces.mcp_server import listening

    try:
        listener = listening(settings.webhook_host, settings.webhook_port)
    except OSError as error:
        text = f"Cannot receive webhooks on {settings.webhook_host} port {settings.webhook_port}: "
        said = text + (error.strerror or "the address is not valid") + "."
        hint = "Set SEGMENT_WEBHOOK_PORT to another, or 0 for any."
        raise NotConfigured("SEGMENT_WEBHOOK_PORT", said, hint=hint) from None
    with listener:
        yield listener


def _http(given: Namespace) -> int:
    settings = _served(given)
    with swift_loading():
        from segment_tools.surfaces.mcp_server import http_app, serve_http
    _log_configuration(settings)
    with _reachable(settings) as reachable:
        webhooks = ", webhooks at /webhooks/segment" if reachable.webhook_secret else ""
        webhooks += f", {_forwarded(given.forward)}" if given.forward else ""
        app = http_app(_client(reachable), given.host, given.allowed_host, given.allowed_origin, given.forward)
        try:
            serve_http(
                app, given.host, given.port, lambda url: _say(f"MCP at {url}/mcp, health at {url}/healthz{webhooks}")
            )
        except OSError as error:
            raise _taken(given.host, given.port, error) from None
    return DONE


def _sandbox(given: Namespace) -> int:
    from segment_tools.sandbox.run import bind, server, settle
    from segment_tools.sandbox.store import Store
    from segment_tools.surfaces.sandbox_options import options_of

    options = options_of(given)
    path = given.db or _default_db()
    try:
        listener = bind(given.port, given.host)
    except OSError as error:
        raise _taken(given.host, given.port, error) from None
    with listener, closing(_opened(lambda: Store(path, options.retention), path)) as store:
        settle()
        for line in _welcome(given, listener.getsockname()[1], path, guarded=options.token is not None):
            _say(line)
        _opened(lambda: server(store, options), path).run(sockets=[listener])
    return DONE


def _welcome(given: Namespace, port: int, path: Path | str, guarded: bool) -> list[str]:
    """Where the sandbox is, and how to send to it and to look into it."""
    # Whoever listens on every address is reached by this machine's own.
    host: str = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(given.host) or given.host  # noqa: S104
    host = f"[{host}]" if ":" in host else host
    url = f"http://{host}:{port}"
    key = "sandbox" if not given.write_key else "..."
    profiles = "SEGMENT_PROFILE_TOKEN=any SEGMENT_SPACE_ID=any"
    if given.space:
        profiles = f"SEGMENT_PROFILE_TOKEN=... SEGMENT_SPACE_ID={given.space[0][0]}"
    page = f"{url}/?token=..." if guarded else url
    lines = [
        f"sandbox at {url}, messages kept in {path}",
        f"send to it: SEGMENT_DATA_PLANE_URL={url} SEGMENT_WRITE_KEY={key} {profiles} segment-tools",
        f"watch what arrives, the debugger: open {page} in a browser",
    ]
    if given.write_key:
        lines.append("messages with another write key than those given are answered 200 and dropped, as by Segment")
    if given.oauth_source:
        lines.append(f"sources that want a token of {url}/token: {', '.join(given.oauth_source)}")
    return lines


def _taken(host: str, port: int, error: OSError) -> NotConfigured:
    text = f"Cannot listen on {host} port {port}: {error.strerror or 'the address is not valid'}."
    return NotConfigured("--port", text, hint="Pass another --port, or 0 for any free one.")


def _demo(_: Namespace) -> int:
    from segment_tools.surfaces.demo import demo

    return DONE if asyncio.run(demo(sys.stdout)) else FAILED


def _call(given: Namespace) -> int:
    settings = _settings(given)
    text = _text(given.arguments)

    async def once(reachable: Settings) -> dict[str, Any]:
        segment = Segment(reachable)  # not begun: what a call leaves to the outbox begins its delivery
        if reachable.audit_log is not None:
            _ = segment.audit
        try:
            return await dispatch(given.tool, text, segment, origin=_CALL, confirm=_asked_here)
        finally:
            await segment.aclose()

    with _reachable(settings) as reachable:
        result = asyncio.run(once(reachable))
    print(json.dumps(result, indent=2, ensure_ascii=False), flush=True)
    return DONE if result["success"] else FAILED


_CALL = Origin(client=f"segment-tools call {__version__}")


async def _asked_here(question: str) -> Decision:
    """What the person at the terminal says.

    Raises:
        Refused: there is no terminal.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise unavailable("there is no terminal to ask one at")
    print(f"{question}\nSend it? [y/N] ", end="", file=sys.stderr, flush=True)
    # Nothing else is to be done meanwhile, and Ctrl-C ends a read that no thread is in.
    said = sys.stdin.readline().strip().lower()
    return "accept" if said in ("y", "yes") else "decline"


def _text(argument: str) -> str:
    """The arguments' JSON text: as given, from standard input (`-`) or from a file (`@FILE`)."""
    if argument == "-":
        return _decoded(sys.stdin.buffer.read)
    return _decoded(Path(argument[1:]).read_bytes) if argument.startswith("@") else argument


def _decoded(read: Callable[[], bytes]) -> str:
    try:
        return read().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        hint = "Pass JSON, @FILE for a file, or - for standard input, in UTF-8."
        raise NotConfigured("ARGUMENTS", "The arguments cannot be read.", hint=hint) from None


def _import(given: Namespace) -> int:
    from segment_tools.surfaces.importing import run as run_import

    with _reachable(_settings(given)) as reachable:
        return run_import(given, reachable, _say)


def _doctor(given: Namespace) -> int:
    from segment_tools.surfaces.doctor import report_lines
    from segment_tools.tools.connection import Connection, shown

    async def checked(reachable: Settings) -> Connection:
        segment = Segment(reachable)  # not begun: a look delivers nothing
        try:
            return shown(await segment.check(given.level))
        finally:
            await segment.aclose()

    with _reachable(_settings(given)) as reachable:
        report = asyncio.run(checked(reachable))
    if given.json:
        print(json.dumps(report.as_dict(), indent=2, ensure_ascii=False), flush=True)
    else:
        print("\n".join(report_lines(report)), flush=True)
    return DONE if report.ready else FAILED


def _outbox(given: Namespace) -> int:
    from segment_tools.surfaces.outbox_report import asked, flushed, report_lines
    from segment_tools.tools.outbox import OutboxState

    settings = _settings(given)
    if settings.outbox is None:
        hint = "Set it to where messages are kept, such as sqlite:///outbox.db."
        raise NotConfigured("SEGMENT_OUTBOX", "SEGMENT_OUTBOX is not set: there is no outbox.", hint=hint)

    async def done(reachable: Settings) -> OutboxState:
        segment = Segment(reachable)
        try:
            if given.action == "flush":
                return await flushed(segment, given.seconds, lambda found: _say(f"{found.pending} to deliver"))
            return await asked(segment, given.action, tuple(given.message_ids), given.limit)
        finally:
            await segment.aclose()

    with _reachable(settings) as reachable:
        try:
            found = asyncio.run(done(reachable))
        except SegmentError as error:
            _say(str(error))
            return WRONG_USE if isinstance(error, InvalidMessage | NotConfigured) else FAILED
    print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) if given.json else "\n".join(report_lines(found)))
    return FAILED if given.action == "flush" and found.pending else DONE


def _audit(given: Namespace) -> int:
    from segment_tools.surfaces.audit_report import Tally, Wanted, all_lines, followed, selected, shown

    path = _settings(given).audit_log
    if path is None:
        hint = "Set it to the file of the log."
        raise NotConfigured("SEGMENT_AUDIT_LOG", "SEGMENT_AUDIT_LOG is not set: there is no audit log.", hint=hint)
    if not path.exists():
        _say(f"There is no audit log at {path} yet: a server with this SEGMENT_AUDIT_LOG makes it.")
    wanted, tally = Wanted(given.tool, given.verdict, given.since, given.message_id, given.user), Tally()
    lines = followed(path) if given.follow else all_lines(path)
    try:
        for entry in selected(lines, wanted, path, tally):
            print(json.dumps(entry, ensure_ascii=False) if given.json else shown(entry), flush=given.follow)
    except PermissionError:
        raise NotConfigured("SEGMENT_AUDIT_LOG", f"The audit log {path} cannot be read.") from None
    for line in tally.lines():
        _say(line)
    return DONE


def _tools(given: Namespace) -> int:
    settings = _settings(given)
    if given.format:
        print(json.dumps(definitions(given.format, settings), indent=2, ensure_ascii=False))
    elif given.json:
        print(json.dumps([definition(tool, settings) for tool in offered(settings)], indent=2, ensure_ascii=False))
    else:
        for tool in offered(settings):
            print(f"{tool.name:32} {tool.title}")
        _say_if_none(settings)
    return DONE


_COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "stdio": _stdio,
    "http": _http,
    "sandbox": _sandbox,
    "demo": _demo,
    "call": _call,
    "import": _import,
    "doctor": _doctor,
    "outbox": _outbox,
    "audit": _audit,
    "tools": _tools,
}

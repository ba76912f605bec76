"""The command line: serve the tools, try them, call one. What a command does not need is not imported."""

import argparse
import gc
from collections.abc import Sequence

from segment_tools._version import __version__

FORMATS = ("openai", "openai-responses", "openai-strict", "anthropic", "gemini")

_DESCRIPTION = "Safe hands on Twilio Segment for any AI agent. Without a command: MCP over standard input and output."
_EPILOG = "Settings come from SEGMENT_... environment variables; the README lists them. Try `segment-tools demo` first."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the process's exit code: 0 done, 1 the tool failed, 2 wrong use or a wrong setting."""
    given = _parser().parse_args(arguments, argparse.Namespace(env_file=None, log_level="warning"))
    # Fewer and larger steps for the collector while hundreds of modules load: a tenth off the time to the first answer.
    gc.disable()
    from segment_tools.surfaces import commands

    gc.enable()
    return commands.run(given.command or "stdio", given)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--env-file",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="read settings from this .env file; the environment goes first",
    )
    common.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default=argparse.SUPPRESS,
        help="what to log to standard error (default: warning)",
    )
    parser = argparse.ArgumentParser("segment-tools", description=_DESCRIPTION, epilog=_EPILOG, parents=[common])
    parser.add_argument("--version", action="version", version=f"segment-tools {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    commands.add_parser("stdio", parents=[common], help="serve MCP over standard input and output (the default)")

    http = commands.add_parser("http", parents=[common], help="serve MCP over streamable HTTP at /mcp")
    http.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    http.add_argument(
        "--port", type=_port, default=8080, help="port to listen on (default: %(default)s; 0: any free one)"
    )
    http.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a Host header to accept besides this machine's names; repeatable",
    )
    http.add_argument(
        "--allowed-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="an Origin to accept besides this machine's, such as https://app.example.com; repeatable",
    )

    sandbox = commands.add_parser("sandbox", parents=[common], help="run a Segment of your own on this machine")
    sandbox.add_argument(
        "--port", type=_port, default=8765, help="port to listen on (default: %(default)s; 0: any free one)"
    )
    sandbox.add_argument(
        "--db", metavar="PATH", help="file to keep messages in, or :memory: (default: in your user data folder)"
    )

    commands.add_parser(
        "demo", parents=[common], help="call every tool against a sandbox and show what arrived; needs no account"
    )

    call = commands.add_parser(
        "call", parents=[common], help="call one tool and print its result as JSON; exits with 0 or 1"
    )
    call.add_argument("tool", help="the tool's name, such as segment_track")
    call.add_argument(
        "arguments",
        nargs="?",
        default="{}",
        help="its arguments as JSON; @FILE reads a file, - standard input (default: {})",
    )

    tools = commands.add_parser("tools", parents=[common], help="list the tools")
    tools.add_argument("--json", action="store_true", help="as MCP lists them, with schemas")
    tools.add_argument("--format", choices=FORMATS, help="as a provider's function calling takes them")
    return parser


_LAST_PORT = 65535


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:6]) <= _LAST_PORT):
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)

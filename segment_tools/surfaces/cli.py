"""The command line: serve the tools, try them, call one. What a command does not need is not imported."""

import argparse
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn
from urllib.parse import urlsplit

from segment_tools._version import __version__
from segment_tools.surfaces.loading import swift_loading

FORMATS = ("openai", "openai-responses", "openai-strict", "anthropic", "gemini")

_DESCRIPTION = "Safe hands on Twilio Segment for any AI agent. Without a command: MCP over standard input and output."
_EPILOG = "Settings come from SEGMENT_... environment variables; the README lists them. Try `segment-tools demo` first."


_COMMON: Mapping[str, Any] = {"env_file": None, "log_level": "warning", "log_format": "text", "forward": []}
"""What the options are that a command line does not have."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the process's exit code: 0 done, 1 the tool failed, 2 wrong use or a wrong setting."""
    given = _parser().parse_args(arguments, argparse.Namespace(**_COMMON))
    with swift_loading():
        from segment_tools.surfaces import commands
    return commands.run(given.command or "stdio", given)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong, but not with which stray words: they may be a key or somebody's data."""
        if message.startswith("unrecognized arguments"):
            options = re.findall(r"(?<!\S)--[a-z][a-z-]{1,30}(?=[\s=]|$)", message)
            message = "too many arguments: quote JSON, and repeat an option for each of its values"
            if options:
                message = f"there is no option {options[0]} here; --help of the command lists them"
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    common = _common_options()
    parser = _Parser("segment-tools", description=_DESCRIPTION, epilog=_EPILOG, parents=[common])
    parser.add_argument("--version", action="version", version=f"segment-tools {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=[common], help=text, description=f"{text[0].upper()}{text[1:]}.")

    _forward_option(command("stdio", "serve MCP over standard input and output (the default)"))
    http = command("http", "serve MCP over streamable HTTP at /mcp")
    _http_options(http)
    _forward_option(http)
    _sandbox_options(command("sandbox", "run a Segment of your own on this machine"))
    command("demo", "call every tool against a sandbox and show what arrived; needs no account")
    _call_options(command("call", "call one tool and print its result as JSON; exits with 0 or 1"))
    _import_options(command("import", "send the messages of files to Segment; exits with 0, 1 (some rejected) or 2"))
    _doctor_options(command("doctor", "say what is configured, whether it works, and what to mend; exits with 0 or 1"))
    _outbox_options(command("outbox", "show what is not yet delivered, and deal with what Segment refused"))
    _audit_options(command("audit", "show what was called and what became of it, from SEGMENT_AUDIT_LOG"))
    _tools_options(command("tools", "list the tools"))
    return parser


def _common_options() -> _Parser:
    """Taken before and after the command alike; absent means that the other place decides."""
    options = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    options.add_argument(
        "--env-file", metavar="FILE", help="read settings from this .env file; the environment goes first"
    )
    levels = ["debug", "info", "warning", "error"]
    options.add_argument("--log-level", choices=levels, help="what to log to standard error (default: warning)")
    options.add_argument(
        "--log-format", choices=["text", "json"], help="how to write that, line by line (default: text)"
    )
    return options


def _http_options(http: argparse.ArgumentParser) -> None:
    http.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    http.add_argument("--port", type=_port, default=8080, help="port to listen on (default: %(default)s; 0: any free)")
    hosts = "a Host header to accept besides this machine's names; repeatable"
    http.add_argument("--allowed-host", action="append", default=[], metavar="NAME", help=hosts)
    origins = "an Origin to accept besides this machine's, such as https://app.example.com; repeatable"
    http.add_argument("--allowed-origin", action="append", default=[], metavar="ORIGIN", help=origins)


def _forward_option(server: argparse.ArgumentParser) -> None:
    text = "an address to send every webhook delivery on to, signed the same way; repeatable"
    server.add_argument("--forward", action="append", default=[], type=_forward, metavar="URL", help=text)


def _forward(text: str) -> str:
    try:
        url = urlsplit(text)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        named = url.username is not None or url.password is not None
    except ValueError:
        usable = named = False
    if not (usable and text.isascii() and text.isprintable() and " " not in text):
        raise argparse.ArgumentTypeError("an address begins with https:// or http://")
    if named:
        raise argparse.ArgumentTypeError("a user name or password in an address is not sent: put a token in its query")
    return text


def _sandbox_options(sandbox: argparse.ArgumentParser) -> None:
    where = "address to listen on (default: %(default)s); another than this machine's own wants a --token"
    sandbox.add_argument("--host", default="127.0.0.1", help=where)
    shown = "what the debugger and /_sandbox then want to be shown (better in SEGMENT_SANDBOX_TOKEN)"
    sandbox.add_argument("--token", metavar="TOKEN", help=shown)
    sandbox.add_argument(
        "--port", type=_port, default=8765, help="port to listen on (default: %(default)s; 0: any free)"
    )
    where = "file to keep messages in, or :memory: (default: in your user data folder)"
    sandbox.add_argument("--db", metavar="PATH", help=where)
    keys = "a source and its write key; repeatable; all others are then unknown (default: every key is known)"
    sandbox.add_argument("--write-key", action="append", default=[], type=_named_key, metavar="NAME=KEY", help=keys)
    fed = "a destination that the sources' settings name, as `integrations` has it, such as Amplitude; repeatable"
    sandbox.add_argument("--destination", action="append", default=[], metavar="NAME", help=fed)
    spaces = "a space of the Profile API and its access token; repeatable (default: every space and token is known)"
    sandbox.add_argument("--space", action="append", default=[], type=_space, metavar="ID=TOKEN", help=spaces)
    rate = "requests a second to answer each space's Profile API before 429 (default: any; Segment's own: 100)"
    sandbox.add_argument("--profile-rate", type=_count, metavar="N", help=rate)
    kept = "how many messages to keep (default: 1000000; 0: all)"
    sandbox.add_argument("--keep-messages", type=_count, default=1_000_000, metavar="N", help=kept)
    sandbox.add_argument(
        "--keep-days", type=_days, metavar="DAYS", help="for how long to keep them (default: for ever)"
    )
    faults = 'what the next requests meet with, as JSON: {"status": 503, "times": 2}; repeatable'
    sandbox.add_argument("--fault", action="append", default=[], metavar="JSON", help=faults)
    _oauth_options(sandbox)
    _webhook_options(sandbox)


def _oauth_options(sandbox: argparse.ArgumentParser) -> None:
    apps = "an app that POST /token gives tokens to, and the file of its public key in PEM; repeatable"
    sandbox.add_argument(
        "--oauth-app", action="append", default=[], type=_app_key, metavar="APP_ID:KEY_ID=FILE", help=apps
    )
    enforced = "a --write-key source that takes nothing without a token; * is every source; repeatable"
    sandbox.add_argument("--oauth-source", action="append", default=[], metavar="NAME", help=enforced)
    sandbox.add_argument(
        "--oauth-token-seconds",
        type=_token_seconds,
        default=86_400,
        metavar="N",
        help="how long a token lives (default: %(default)s)",
    )


def _webhook_options(sandbox: argparse.ArgumentParser) -> None:
    urls = "an address to send every accepted message on to; repeatable, up to 5"
    sandbox.add_argument("--webhook", action="append", default=[], metavar="URL", help=urls)
    signing = "what to sign deliveries with (default: SEGMENT_SANDBOX_WEBHOOK_SECRET; without one they are not signed)"
    sandbox.add_argument("--webhook-secret", metavar="SECRET", help=signing)
    batch = "send up to so many messages as one array (default: each by itself)"
    sandbox.add_argument("--webhook-batch", type=_batch, metavar="N", help=batch)


def _call_options(call: argparse.ArgumentParser) -> None:
    call.add_argument("tool", help="the tool's name, such as segment_track")
    given = "its arguments as JSON; @FILE reads a file, - standard input (default: {})"
    call.add_argument("arguments", nargs="?", default="{}", help=given)


_IMPORT_EXAMPLES = """
examples:
  segment-tools import events.jsonl
  segment-tools import 'backfill/*.jsonl.gz' --json
  segment-tools import orders.csv --type track --set event="Order Completed" --map userId=customer_id \\
      --map timestamp=created_at --map properties.total:number=amount --preview
  zcat events.gz | segment-tools import - --checkpoint events.checkpoint

A row is a message as segment_batch takes it: {"type": "track", "userId": "u1", "event": "...", ...}. Rows that Segment
would drop go to FILE.rejected.jsonl, with the reason. What was sent is kept in FILE.checkpoint: the same command goes
on where it stopped, for whatever reason. Rows without messageId get one from the file's name, their line and their
content, so that a repeat is removed by Segment; rows without timestamp get the time at which the import began.
Rejected rows are mended in FILE itself, which is then imported with --again: the others keep their messageIds.
Exits with 0, 1 (some rows rejected), 2 (could not run) or 130 (stopped by Ctrl-C).
"""


def _import_options(files: argparse.ArgumentParser) -> None:
    files.epilog, files.formatter_class = _IMPORT_EXAMPLES, argparse.RawDescriptionHelpFormatter
    kinds = "JSON Lines, CSV with a header, or Parquet, by its name; also .gz and .zst; - is standard input"
    files.add_argument("files", nargs="+", metavar="FILE", help=kinds)
    formats = ("jsonl", "csv", "parquet")
    files.add_argument("--format", choices=formats, help="what the files are, where their names do not say so")
    types = ("track", "identify", "page", "screen", "group", "alias")
    files.add_argument("--type", choices=types, help="what every row of a table becomes")
    mapped = (
        "which column becomes which field, such as userId=customer_id, properties.total:number=amount (a cell is text "
        "without :number, :boolean, :json or, for seconds since 1970, :epoch) or properties=* for all columns that "
        "nothing else takes; columns named as fields map themselves; repeatable"
    )
    files.add_argument("--map", action="append", default=[], metavar="FIELD=COLUMN", help=mapped)
    same = 'a field that is the same in every row, such as event="Order Completed"; repeatable'
    files.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=same)
    files.add_argument("--source", metavar="NAME", help="which of SEGMENT_SOURCES to send to")
    files.add_argument("--preview", action="store_true", help="show the first rows as messages, and send nothing")
    files.add_argument("--yes", action="store_true", help="send the rows of a table without asking")
    files.add_argument("--dry-run", action="store_true", help="check all rows, and send nothing")
    files.add_argument("--limit", type=_rows, metavar="N", help="stop after so many rows of each file")
    files.add_argument("--strict", action="store_true", help="stop at the first row that is rejected")
    loose = "do not keep each user's messages in order, which is faster where a file is sorted by user"
    files.add_argument("--unordered", action="store_true", help=loose)
    files.add_argument("--again", action="store_true", help="begin anew, although all or part of it was imported")
    files.add_argument("--checkpoint", metavar="PATH", help="where to keep what was sent (default: FILE.checkpoint)")
    files.add_argument(
        "--rejected",
        metavar="PATH",
        help="where to write rejected rows (default: FILE.rejected.jsonl; of -, stdin.rejected.jsonl)",
    )
    files.add_argument("--json", action="store_true", help="print a summary as JSON at the end")


def _rows(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,11}", text):
        raise argparse.ArgumentTypeError("a number of rows is wanted, such as 1000")
    return int(text)


def _doctor_options(doctor: argparse.ArgumentParser) -> None:
    levels = "config asks nobody, probe writes nothing, send writes one test event (default: %(default)s)"
    doctor.add_argument("--level", choices=("config", "probe", "send"), default="probe", help=levels)
    doctor.add_argument("--json", action="store_true", help="as segment_test_connection answers it")


def _outbox_options(outbox: argparse.ArgumentParser) -> None:
    actions = (
        "look (default); flush: deliver what waits; retry: deliver dead letters again, all or those named; "
        "discard: delete the named messages for good"
    )
    outbox.add_argument(
        "action", nargs="?", choices=("look", "flush", "retry", "discard"), default="look", help=actions
    )
    outbox.add_argument("message_ids", nargs="*", metavar="MESSAGE_ID", help="a dead letter, or for discard what waits")
    outbox.add_argument("--seconds", type=_seconds, default=60.0, help="how long flush may take (default: %(default)g)")
    outbox.add_argument("--limit", type=_limit, default=20, metavar="N", help="dead letters to show (default: 20)")
    outbox.add_argument("--json", action="store_true", help="as segment_outbox answers it")


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", text):
        raise argparse.ArgumentTypeError("a number of seconds is wanted, such as 60")
    return float(text)


def _limit(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]?|100", text):
        raise argparse.ArgumentTypeError("a number from 1 to 100 is wanted")
    return int(text)


def _audit_options(audit: argparse.ArgumentParser) -> None:
    audit.add_argument("--tool", metavar="NAME", help="calls of this tool, such as segment_track")
    verdicts = "accepted, queued, dry_run, read, done, asked, refused or failed; or a code, such as not_allowed"
    audit.add_argument("--verdict", metavar="VERDICT", help=verdicts)
    audit.add_argument("--since", type=_since, metavar="WHEN", help="a time in ISO 8601, or 15m, 2h, 7d ago")
    audit.add_argument("--message-id", metavar="ID", help="the call of this message; of a batch, of its first")
    audit.add_argument("--user", metavar="ID", help="calls about this userId, anonymousId, groupId or profile")
    audit.add_argument("--follow", action="store_true", help="go on, and show calls as they come")
    audit.add_argument("--json", action="store_true", help="the lines as they are in the log")


def _since(text: str) -> datetime:
    from segment_tools.surfaces.audit_report import since

    try:
        return since(text, datetime.now(UTC))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError("a time is given as 2026-11-23T12:00:00Z, or as 15m, 2h or 7d") from None


def _tools_options(tools: argparse.ArgumentParser) -> None:
    tools.add_argument("--json", action="store_true", help="as MCP lists them, with schemas")
    tools.add_argument("--format", choices=FORMATS, help="as a provider's function calling takes them")


def _named_key(text: str) -> tuple[str, str]:
    name, separator, write_key = text.partition("=")
    if not (name.strip() and separator and write_key):
        raise argparse.ArgumentTypeError("a source is given as NAME=KEY")
    return write_key, name.strip()


def _space(text: str) -> tuple[str, str]:
    space, separator, token = text.partition("=")
    if not (space.strip() and separator and token):
        raise argparse.ArgumentTypeError("a space is given as ID=TOKEN")
    return space.strip(), token


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise argparse.ArgumentTypeError("a number is wanted, such as 100000")
    return int(text)


def _days(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,6})?", text) or float(text) == 0:
        raise argparse.ArgumentTypeError("a number of days is wanted, such as 7 or 0.5")
    return float(text)


def _app_key(text: str) -> tuple[str, str, str]:
    names, separator, file = text.partition("=")
    app, _, key = names.partition(":")
    if not (app.strip() and key.strip() and separator and file):
        raise argparse.ArgumentTypeError("an app is given as APP_ID:KEY_ID=FILE")
    return app.strip(), key.strip(), file


_MOST_TOKEN_SECONDS = 30 * 86_400
"""Source: https://segment.com/docs/connections/oauth/: from one day to 30; shorter ones are for tests."""


def _token_seconds(text: str) -> int:
    if not (re.fullmatch(r"[0-9]{1,7}", text) and 1 <= int(text) <= _MOST_TOKEN_SECONDS):
        raise argparse.ArgumentTypeError(f"a token lives from 1 to {_MOST_TOKEN_SECONDS} seconds")
    return int(text)


_MOST_BATCH = 4000
"""Source: https://segment.com/docs/connections/destinations/catalog/actions-webhook/."""


def _batch(text: str) -> int:
    if not (re.fullmatch(r"[0-9]{1,4}", text) and 1 <= int(text) <= _MOST_BATCH):
        raise argparse.ArgumentTypeError(f"a batch holds from 1 to {_MOST_BATCH} messages")
    return int(text)


_LAST_PORT = 65535


def _port(text: str) -> int:
    if not (re.fullmatch(r"[0-9]{1,5}", text) and int(text) <= _LAST_PORT):
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)

"""What a process of each command loads before it has answered: nothing that the answer does not need."""

import json
import subprocess
import sys
from typing import Any

import pytest
from support import KEY, WAIT
from test_stdio import INITIALIZE

from segment_tools.sandbox.run import Sandbox

READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}
CALL = {
    "jsonrpc": "2.0",
    "id": 2,
    "method": "tools/call",
    "params": {"name": "segment_track", "arguments": {"event": "A", "userId": "u"}},
}
MCP, HTTP_CLIENTS, HTTP_SERVERS = {"mcp"}, {"httpx", "aiohttp"}, {"starlette", "uvicorn"}
STORES = {"sqlite3", "redis", "limits"}
RARE = {
    "dotenv",
    "platformdirs",
    "cryptography.hazmat.primitives.asymmetric",
    "jsonschema_rs",
    "isal",
    "yaml",
    "pyarrow",
}
"""What is for some settings alone: .env files, folders of the user, OAuth, tracking plans."""

_MAIN = """
import sys
from segment_tools.surfaces.cli import main
code = 0
try:
    code = main({arguments})
except SystemExit as end:
    code = end.code
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""


def loaded(environ: dict[str, str], *arguments: str, given: bytes = b"", **settings: str) -> set[str]:
    """The modules of a process that ran the command."""
    chosen = {**environ, **{f"SEGMENT_{name.upper()}": value for name, value in settings.items()}}
    command = [sys.executable, "-c", _MAIN.format(arguments=list(arguments))]
    done = subprocess.run(command, input=given, capture_output=True, timeout=WAIT, check=False, env=chosen)
    assert done.returncode == 0, done.stderr.decode()
    return set(done.stderr.decode().splitlines()[-1].split())


def lines(*messages: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["sandbox", "--help"], ["http", "--help"]])
def test_help_and_version_load_no_package_but_this(arguments: list[str], environ: dict[str, str]) -> None:
    found = loaded(environ, *arguments)
    assert (
        found & {"pydantic", "pydantic_core", "asyncio", "anyio", "msgspec", *MCP, *HTTP_CLIENTS, *HTTP_SERVERS}
        == set()
    )
    assert found & {"segment_tools.settings", "segment_tools.surfaces.commands", *STORES, *RARE} == set()


@pytest.mark.parametrize("arguments", [["tools"], ["tools", "--json"], ["tools", "--format", "openai"]])
def test_the_list_of_tools_loads_nothing_that_serves_or_sends(arguments: list[str], environ: dict[str, str]) -> None:
    assert loaded(environ, *arguments) & {*MCP, *HTTP_CLIENTS, *HTTP_SERVERS, *STORES, *RARE} == set()


def test_a_call_from_the_shell_loads_nothing_that_serves(environ: dict[str, str]) -> None:
    arguments = ("call", "segment_track", '{"event": "A", "userId": "u"}')
    found = loaded(environ, *arguments, write_key=KEY, dry_run="true")
    assert found & {*MCP, *HTTP_CLIENTS, *HTTP_SERVERS, *STORES, *RARE} == set()


def test_what_stdio_answers_without_asking_anybody_needs_no_http_client(environ: dict[str, str]) -> None:
    asked = lines(INITIALIZE, READY, {**CALL, "id": 3, "method": "tools/list", "params": {}}, CALL)
    found = loaded(environ, given=asked, write_key=KEY, dry_run="true") - mcp_itself(environ)
    assert found & {*HTTP_CLIENTS, *HTTP_SERVERS, *STORES, *RARE} == set()
    assert found & {"segment_tools.surfaces.receiver", "segment_tools.sandbox"} == set()


def mcp_itself(environ: dict[str, str]) -> set[str]:
    """What the SDK loads by itself, whatever is done with it."""
    command = [sys.executable, "-c", "import sys, mcp.server.lowlevel, mcp.server.stdio; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, timeout=WAIT, check=True, env=environ)
    return set(done.stdout.decode().split())


def test_a_first_message_brings_the_http_client(environ: dict[str, str], sandbox: Sandbox) -> None:
    asked = lines(INITIALIZE, READY, CALL)
    assert loaded(environ, given=asked, write_key=KEY, data_plane_url=sandbox.url) & HTTP_CLIENTS

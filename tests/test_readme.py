"""The README: nothing is missing from it, and its examples run and print what it says."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from support import ROOT, WAIT, running

from segment_tools.environment import SANDBOX_SECRETS
from segment_tools.remarks import REMARKS
from segment_tools.settings import Settings
from segment_tools.spec.plan_document import plan_of
from segment_tools.spec.tracking_plan import violations
from segment_tools.surfaces import cli
from segment_tools.tools import TOOLS

README = (ROOT / "README.md").read_text(encoding="utf-8")
VOLATILE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT[\d:.]+Z")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def shell() -> list[tuple[str, str]]:
    """Every command of the README and the output that it shows."""
    pairs = (part.split("\n", 1) for block in blocks("console") for part in block.split("$ ")[1:])
    return [(command, output) for command, output in pairs]


def run(command: list[str], environ: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=folder, timeout=WAIT, check=False)


@pytest.fixture
def installed(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """An environment in which `segment-tools` is the program under test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "segment-tools"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m segment_tools "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return {**environ, "PATH": f"{folder}{os.pathsep}{environ['PATH']}", "PYTHONWARNINGS": "default"}


@pytest.mark.parametrize("tool", [tool.name for tool in TOOLS])
def test_every_tool_is_in_it(tool: str) -> None:
    assert f"| `{tool}` |" in README


@pytest.mark.parametrize("code", REMARKS)
def test_every_warning_is_in_it(code: str) -> None:
    assert f"| `{code}` |" in README


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_it(name: str) -> None:
    assert f"| `SEGMENT_{name.upper()}` |" in README


def test_every_command_and_option_is_in_it() -> None:
    parser = cli._parser()
    (commands,) = [action for action in parser._actions if action.dest == "command"]
    assert commands.choices is not None
    for name, command in commands.choices.items():
        assert f"`segment-tools {name}`" in README
        options = [option for action in command._actions for option in action.option_strings if option.startswith("--")]
        assert [option for option in options if option not in README] == []


def test_it_names_no_setting_that_does_not_exist() -> None:
    named = set(re.findall(r"SEGMENT_[A-Z_]+", README)) - set(SANDBOX_SECRETS)
    assert named <= {f"SEGMENT_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize(("command", "output"), [pair for pair in shell() if not pair[0].startswith("make ")])
def test_its_commands_print_what_it_says(command: str, output: str, installed: dict[str, str], tmp_path: Path) -> None:
    done = run(["/bin/sh", "-c", command], installed, tmp_path)
    assert VOLATILE.sub("…", done.stdout) == VOLATILE.sub("…", output).rstrip() + "\n"


@pytest.mark.parametrize("target", re.findall(r"\$ make (\w+)", README))
def test_its_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("tests", [block for block in blocks("python") if "def test_" in block])
def test_its_tests_pass(tests: str, installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "test_readme_example.py").write_text(tests, encoding="utf-8")
    done = run([sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"], installed, tmp_path)
    assert " passed" in done.stdout, done.stdout


@pytest.mark.parametrize("program", [block for block in blocks("python") if "def test_" not in block])
def test_its_programs_run(program: str, installed: dict[str, str], tmp_path: Path) -> None:
    done = run([sys.executable, "-c", program], installed, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "'success': False" not in done.stdout


SERVERS = {"8080": "http", "8765": "sandbox"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("commands", [block for block in blocks("sh") if "curl" in block])
def test_its_walks_through_a_server_run(commands: str, installed: dict[str, str], tmp_path: Path) -> None:
    (port,) = [port for port in SERVERS if port in commands]
    with running(installed, SERVERS[port], "--port", "0") as (_, url):
        there = commands.replace(f"127.0.0.1:{port}", url.removeprefix("http://"))
        done = subprocess.run(
            ["/bin/sh", "-ec", there],
            capture_output=True,
            text=True,
            env=installed,
            cwd=tmp_path,
            timeout=WAIT,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "segment_track" in done.stdout or done.stdout.count("Signed Up") >= 2


def test_its_profile_is_read_from_a_sandbox(installed: dict[str, str], tmp_path: Path) -> None:
    (commands,) = [block for block in blocks("sh") if "segment_get_profile" in block]
    with running(installed, "sandbox", "--port", "0", "--db", ":memory:") as (_, url):
        httpx.post(f"{url}/v1/identify", json={"userId": "u1", "traits": {"plan": "pro"}}, auth=("any", ""))
        done = run(["/bin/sh", "-ec", commands.replace("127.0.0.1:8765", url[len("http://") :])], installed, tmp_path)
    assert json.loads(done.stdout)["traits"] == {"plan": "pro"}


def test_its_webhooks_arrive(installed: dict[str, str], tmp_path: Path) -> None:
    (block,) = [block for block in blocks("sh") if "--webhook http" in block]
    serve, send = block.splitlines()
    setting, _, *server = shlex.split(serve)
    chosen = {**installed, **dict([setting.split("=")])}
    with running(chosen, *server, "--port", "0") as (_, url):
        webhook = [word.replace("http://127.0.0.1:8080", url) for word in shlex.split(send)[1:]]
        with running(installed, *webhook, "--port", "0", "--db", ":memory:") as (_, sandbox):
            httpx.post(f"{sandbox}/v1/track", json={"userId": "u1", "event": "Signed Up"}, auth=("any", ""))
            command = ["segment-tools", "call", "segment_wait_for_delivery", '{"since": "2020-01-01"}']
            done = run(command, chosen, tmp_path)
    assert json.loads(done.stdout)["deliveries"][0]["event"] == "Signed Up"


@pytest.mark.parametrize("config", [block for block in blocks("json") if "ervers" in block])
def test_its_host_configurations_start_the_program(config: str) -> None:
    found = json.loads(config)
    (server,) = (found.get("mcpServers") or found["servers"]).values()
    assert server["command"] == "segment-tools"
    assert set(server["env"]) <= {f"SEGMENT_{name.upper()}" for name in Settings.model_fields}


def test_it_holds_the_sentences_that_matter() -> None:
    for sentence in (
        "make demo",
        "make test",
        "messageId",
        "LangChain",
        "Claude Desktop",
        "VS Code",
        "Cursor",
        "Claude Code",
    ):
        assert sentence in README


def test_its_tracking_plan_says_what_the_readme_says() -> None:
    (document,) = [block for block in blocks("json") if "Order Completed" in block]
    plan = plan_of(json.loads(document))
    properties = {"orderId": "o1", "total": "9.50", "plan": "Pro"}
    calls: list[dict[str, object]] = [
        {"event": "Order Complete"},
        {"event": "Order Completed", "properties": properties},
    ]
    told = {f"{each.text} {each.mend}" for call in calls for each in violations({"type": "track", **call}, plan)}
    (shown,) = [block for block in blocks("text") if "Order Completed" in block]
    assert set(shown.splitlines()) <= told

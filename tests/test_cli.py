"""The command line, as a shell runs it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from support import KEY, ROOT, WAIT, program, running

from segment_tools import Settings, __version__
from segment_tools.functions import FORMATS, definitions
from segment_tools.sandbox.run import Sandbox
from segment_tools.surfaces import cli
from segment_tools.tools import offered

OFFERED = [tool.name for tool in offered(Settings())]

CALL = '{"event": "Order Completed", "userId": "u1"}'


def run(environ: dict[str, str], *arguments: str, text: str = "", **chosen: str) -> subprocess.CompletedProcess[str]:
    """The program's output with these arguments, this standard input and these settings."""
    settings = {f"SEGMENT_{name.upper()}": value for name, value in chosen.items()}
    return subprocess.run(
        program(*arguments),
        input=text,
        capture_output=True,
        text=True,
        env={**environ, **settings},
        timeout=WAIT,
        check=False,
    )


@pytest.mark.parametrize("command", [[], ["stdio"], ["http"], ["sandbox"], ["demo"], ["call"], ["tools"]])
def test_help_needs_no_configuration(command: list[str], environ: dict[str, str]) -> None:
    done = run(environ, *command, "--help", region="mars")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: segment-tools")


def test_the_version_is_the_packages(environ: dict[str, str]) -> None:
    done = run(environ, "--version", region="mars")
    assert (done.returncode, done.stdout) == (0, f"segment-tools {__version__}\n")


def test_help_and_version_load_nothing_heavy() -> None:
    check = "import sys; from segment_tools.surfaces import cli; cli._parser(); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=WAIT, check=True)
    assert not {"'pydantic'", "'httpx'", "'mcp'", "'starlette'"} & set(done.stdout.strip("[]\n").split(", "))


def test_call_prints_the_result_and_exits_with_0(environ: dict[str, str], sandbox: Sandbox) -> None:
    done = run(environ, "call", "segment_track", CALL, write_key=KEY, data_plane_url=sandbox.url)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert [row["message"]["messageId"] for row in sandbox.store.messages({}, None, 10)] == [result["messageId"]]


@pytest.mark.parametrize("way", ["-", "file"])
def test_call_reads_arguments_from_standard_input_or_a_file(way: str, environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "call.json"
    file.write_text(CALL, encoding="utf-8")
    argument = "-" if way == "-" else f"@{file}"
    done = run(environ, "call", "segment_track", argument, text=CALL, dry_run="true")
    assert json.loads(done.stdout)["request"]["event"] == "Order Completed"


def test_arguments_that_are_no_text_are_refused(environ: dict[str, str]) -> None:
    done = subprocess.run(
        program("call", "segment_track", "-"),
        input=b"\xff",
        capture_output=True,
        env=environ,
        timeout=WAIT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"UTF-8" in done.stderr


@pytest.mark.parametrize("arguments", ["{}", "not json", "[1]", '{"event": "A"}'])
def test_a_failed_call_exits_with_1_and_says_why(arguments: str, environ: dict[str, str]) -> None:
    done = run(environ, "call", "segment_track", arguments, dry_run="true")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["hint"]


def test_an_unknown_tool_exits_with_1_and_the_nearest_name(environ: dict[str, str]) -> None:
    done = run(environ, "call", "track", CALL)
    assert done.returncode == 1
    assert "segment_track" in json.loads(done.stdout)["error"]["hint"]


@pytest.mark.parametrize(
    "wrong",
    [
        ["fly"],
        ["call"],
        ["http", "--port", "x"],
        ["http", "--port", "70000"],
        ["http", "--port", "000001999999999999"],
        ["tools", "--format", "cobol"],
        ["--log-level", "loud"],
        ["call", "segment_track", "@no/such/file.json"],
        ["call", "segment_track", "--env-file", "no/such/.env"],
        ["sandbox", "--port", "0", "--db", "/proc/none/x.db"],
    ],
)
def test_wrong_use_exits_with_2_and_a_sentence(wrong: list[str], environ: dict[str, str]) -> None:
    done = run(environ, *wrong)
    assert (done.returncode, done.stdout) == (2, "")
    assert "segment-tools" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_option_that_there_is_not_is_named(environ: dict[str, str]) -> None:
    done = run(environ, "import", "a.jsonl", "--agian", f"--{KEY}")
    assert (done.returncode, KEY in done.stderr) == (2, False)
    assert "there is no option --agian here" in done.stderr


@pytest.mark.parametrize(
    "stray",
    [
        ["sandbox", "--write-key", "web=K1", "ios=K2SECRET"],
        ["call", "segment_track", "{event:A,", "userId:K2SECRET}"],
        ["tools", "K2SECRET"],
    ],
)
def test_stray_words_are_not_repeated(stray: list[str], environ: dict[str, str]) -> None:
    done = run(environ, *stray)
    assert (done.returncode, "K2SECRET" in f"{done.stdout}{done.stderr}") == (2, False)


def test_results_are_written_whatever_the_terminals_encoding(environ: dict[str, str]) -> None:
    narrow = {**environ, "PYTHONIOENCODING": "cp1252", "SEGMENT_DRY_RUN": "true"}
    command = program("call", "segment_track", '{"event": "注文", "userId": "日本"}')
    done = subprocess.run(command, capture_output=True, env=narrow, timeout=WAIT, check=False)
    assert (done.returncode, json.loads(done.stdout)["event"]) == (0, "注文")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_an_output_that_cannot_be_written_is_said(environ: dict[str, str]) -> None:
    with Path("/dev/full").open("wb") as full:
        command = program("call", "segment_track", CALL)
        done = subprocess.run(
            command,
            stdout=full,
            stderr=subprocess.PIPE,
            env={**environ, "SEGMENT_DRY_RUN": "1"},
            timeout=WAIT,
            check=False,
        )
    assert done.returncode != 0
    assert b"cannot be written" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_settings_file_is_read_wherever_the_option_stands(environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("SEGMENT_DRY_RUN=true\n", encoding="utf-8")
    for order in (
        ["--env-file", str(file), "call", "segment_track", CALL],
        ["call", "segment_track", CALL, "--env-file", str(file)],
    ):
        assert json.loads(run(environ, *order).stdout)["status"] == "dry_run"


def test_a_misspelt_setting_is_pointed_out(environ: dict[str, str]) -> None:
    done = run(environ, "tools", writekey="x")
    assert "SEGMENT_WRITEKEY is not a setting and is ignored; did you mean SEGMENT_WRITE_KEY?" in done.stderr


def test_tools_lists_names_and_definitions(environ: dict[str, str]) -> None:
    assert [line.split()[0] for line in run(environ, "tools").stdout.splitlines()] == OFFERED
    listed = json.loads(run(environ, "tools", "--json", write_key=KEY).stdout)
    assert [tool["name"] for tool in listed] == OFFERED
    nothing = run(environ, "tools", read_only="true", toolsets="tracking")
    assert (nothing.stdout, "SEGMENT_READ_ONLY" in nothing.stderr) == ("", True)


@pytest.mark.parametrize("form", FORMATS)
def test_tools_writes_every_providers_format(form: str, environ: dict[str, str]) -> None:
    done = run(environ, "tools", "--format", form, write_key=KEY)
    assert json.loads(done.stdout) == definitions(form)  # type: ignore[arg-type]


def test_the_command_line_knows_every_format() -> None:
    assert cli.FORMATS == FORMATS


def test_demo_shows_every_tool_and_what_arrived(environ: dict[str, str]) -> None:
    done = run(environ, "demo", write_key="not-to-be-used", data_plane_url="https://not.to.be.used")
    assert done.returncode == 0, done.stderr
    called, reached = done.stdout.split("ARRIVED")
    assert all(tool in called for tool in [*OFFERED, "segment_get_profile"])
    assert reached.count("/v1/") == 8
    assert "did you mean 'properties'?" in called
    assert "Try next" in reached


def test_the_sandbox_command_keeps_messages_in_its_file(environ: dict[str, str], tmp_path: Path) -> None:
    db = str(tmp_path / "folder" / "sandbox.db")
    with running(environ, "sandbox", "--port", "0", "--db", db) as (_, url):
        assert run(environ, "call", "segment_track", CALL, write_key=KEY, data_plane_url=url).returncode == 0
    with running(environ, "sandbox", "--port", "0", "--db", db) as (_, url):
        kept = httpx.get(f"{url}/_sandbox/messages", timeout=WAIT).json()["messages"]
    assert [row["message"]["event"] for row in kept] == ["Order Completed"]
    assert KEY.encode() not in Path(db).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_sandbox_quietly(number: signal.Signals, environ: dict[str, str]) -> None:
    with running(environ, "sandbox", "--port", "0", "--db", ":memory:") as (process, url):
        assert httpx.get(f"{url}/_sandbox/messages", timeout=WAIT).json() == {"messages": []}
        process.send_signal(number)
        out, error = process.communicate(timeout=WAIT)
    assert (out, "Traceback" in error) == ("", False)


def test_the_embedded_sandbox_shares_the_file_of_the_sandbox_command(environ: dict[str, str]) -> None:
    done = run(environ, "call", "segment_track", CALL, data_plane_url="sandbox")
    assert (done.returncode, "sandbox at http://127.0.0.1:" in done.stderr) == (0, True)
    with running(environ, "sandbox", "--port", "0") as (_, url):
        kept = httpx.get(f"{url}/_sandbox/messages", timeout=WAIT).json()["messages"]
    assert [row["message"]["event"] for row in kept] == ["Order Completed"]


def test_a_reader_that_stops_reading_causes_no_traceback(environ: dict[str, str]) -> None:
    process = subprocess.Popen(program("tools", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    error = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=WAIT)
    assert b"Traceback" not in error
    assert b"BrokenPipe" not in error


def test_server_py_is_the_same_program(environ: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "server.py"), "call", "segment_track", CALL],
        capture_output=True,
        text=True,
        env={**environ, "SEGMENT_DRY_RUN": "true"},
        timeout=WAIT,
        check=False,
    )
    assert json.loads(done.stdout)["status"] == "dry_run"


def test_settings_without_a_tool_name_what_is_lacking(environ: dict[str, str]) -> None:
    done = run(environ, "tools", toolsets="profiles,triggers", write_key=KEY)
    assert "profiles needs SEGMENT_PROFILE_TOKEN and SEGMENT_SPACE_ID" in done.stderr
    assert "triggers needs SEGMENT_WEBHOOK_SECRET" in done.stderr
    served = run(environ, "stdio", toolsets="triggers", write_key=KEY)
    assert "triggers needs SEGMENT_WEBHOOK_SECRET" in served.stderr


def test_the_sandbox_says_how_to_read_profiles_of_it(environ: dict[str, str]) -> None:
    with running(environ, "sandbox", "--port", "0", "--db", ":memory:") as (process, _):
        assert process.stderr is not None
        line = process.stderr.readline()
    assert "SEGMENT_PROFILE_TOKEN=any SEGMENT_SPACE_ID=any" in line
    with running(environ, "sandbox", "--port", "0", "--db", ":memory:", "--space", "spa_1=T0KEN") as (process, _):
        assert process.stderr is not None
        line = process.stderr.readline()
    assert "SEGMENT_PROFILE_TOKEN=... SEGMENT_SPACE_ID=spa_1" in line
    assert "T0KEN" not in line

"""The fixture for the users' own tests, as they use it: pytest in a folder of theirs."""

import subprocess
import sys
from pathlib import Path

from support import WAIT

TESTS = """
import asyncio
import os
import threading
import urllib.request

import pytest

from segment_tools import Segment, Settings, Track


def send(**fields):
    async def once():
        async with Segment(Settings.from_env()) as segment:
            await segment.send(Track(**fields))

    asyncio.run(once())


def post(url, body):
    request = urllib.request.Request(f"{url}/v1/track", data=body, headers={"Authorization": "Basic azo="})
    urllib.request.urlopen(request, timeout=10).close()


def test_messages(segment_sandbox):
    send(event="Signed Up", user_id="u1")
    (message,) = segment_sandbox.messages(event="Signed Up")
    assert message["userId"] == "u1"
    assert segment_sandbox.messages(event="Other") == []


def test_each_test_begins_without_messages(segment_sandbox):
    assert segment_sandbox.messages() == []


def test_a_fault_is_asked_for_and_left_behind(segment_sandbox):
    segment_sandbox.fault(status=503, share=1)


def test_each_test_begins_without_faults(segment_sandbox):
    post(segment_sandbox.url, b'{"event": "A", "userId": "u1"}')
    assert len(segment_sandbox.messages()) == 1


def test_discards(segment_sandbox):
    post(segment_sandbox.url, b'{"event": "A"}')
    (lost,) = segment_sandbox.discards()
    assert lost["reason"] == "no_user_anon_id"
    assert "Send one of them" in lost["meaning"]
    assert lost["sent"]["event"] == "A"
    assert segment_sandbox.discards(reason="duplicate") == []


def test_wait_for(segment_sandbox):
    thread = threading.Thread(target=send, kwargs={"event": "Late", "user_id": "u1"})
    thread.start()
    assert len(segment_sandbox.wait_for(event="Late", seconds=30)) == 1
    thread.join()


def test_wait_for_nothing(segment_sandbox):
    post(segment_sandbox.url, b'{"event": "Secret"}')
    post(segment_sandbox.url, b'{"event": "Secret", "userId": "u1"}')
    with pytest.raises(TimeoutError) as error:
        segment_sandbox.wait_for(2, seconds=0.01, userId="u1")
    expected = "1 of 2 messages by userId within 0.01 s; accepted in all: track 1; discarded: no_user_anon_id 1"
    assert str(error.value) == expected


def test_an_unknown_filter(segment_sandbox):
    with pytest.raises(TypeError, match="there is no filter 'user_id'"):
        segment_sandbox.messages(user_id="u1")
"""

SESSION = """
import os

from segment_tools import Settings

URL = os.environ["SEGMENT_DATA_PLANE_URL"]


def test_the_whole_session_leads_to_it(segment_sandbox):
    assert segment_sandbox.url == URL == os.environ["SEGMENT_DATA_PLANE_URL"]
    assert Settings.from_env().write_key.get_secret_value() == "segment-sandbox"
"""


def pytest_of(folder: Path, environ: dict[str, str], text: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_theirs.py").write_text(text)
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=WAIT, check=False)


def test_the_fixture_is_a_sandbox_of_the_tests_own(tmp_path: Path, environ: dict[str, str]) -> None:
    done = pytest_of(tmp_path, {**environ, "SEGMENT_DRY_RUN": "true", "SEGMENT_SOURCES": '{"a": "b"}'}, TESTS)
    assert "8 passed" in done.stdout, done.stdout + done.stderr


def test_a_session_may_have_one_from_its_start(tmp_path: Path, environ: dict[str, str]) -> None:
    production = {"SEGMENT_WRITE_KEY": "a-real-key", "SEGMENT_DATA_PLANE_URL": "https://api.segment.io"}
    done = pytest_of(tmp_path, {**environ, **production}, SESSION, "--segment-sandbox", "-v")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert "segment sandbox: http://127.0.0.1:" in done.stdout


def test_a_session_that_does_not_ask_loads_no_sandbox(tmp_path: Path, environ: dict[str, str]) -> None:
    text = "import sys\n\ndef test_it():\n    assert 'segment_tools.sandbox.run' not in sys.modules\n"
    done = pytest_of(tmp_path, environ, text)
    assert "1 passed" in done.stdout, done.stdout + done.stderr

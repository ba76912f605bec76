"""`segment_import_file`: over MCP, from one folder and nowhere else."""

import asyncio
import gzip
import json
import os
import re
import sqlite3
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import WAIT, answering, arrived, mcp, rows, settings, until

from segment_tools import Segment, Settings, dispatch
from segment_tools.sandbox.run import Sandbox
from segment_tools.tools import TOOLS, definition, importing, offered

pytestmark = pytest.mark.anyio
TOOL = "segment_import_file"


def message(number: int) -> dict[str, Any]:
    return {"type": "track", "event": "Order Completed", "userId": f"u{number % 50}", "properties": {"number": number}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "imports"
    found.mkdir()
    (tmp_path / "outside.jsonl").write_text(json.dumps(message(1)), encoding="utf-8")
    return found


def written(path: Path, messages: list[Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in messages), encoding="utf-8")
    return path


def segment(sandbox: Sandbox, folder: Path, **values: Any) -> Segment:
    return Segment(settings(data_plane_url=sandbox.url, import_dir=folder, **values))


async def once(sandbox: Sandbox, folder: Path, /, *, confirm: Any = None, values: Any = None, **arguments: Any) -> Any:
    client = segment(sandbox, folder, **(values or {}))
    try:
        return await dispatch(TOOL, arguments, client, confirm=confirm)
    finally:
        await client.aclose()


async def test_a_file_is_imported_with_counts_progress_and_the_first_rejections(sandbox: Sandbox, folder: Path) -> None:
    written(folder / "events.jsonl", [*map(message, range(300)), {"type": "track", "userId": "u"}])
    told: list[tuple[float, float | None, str | None]] = []

    async def progress(done: float, total: float | None, text: str | None) -> None:
        told.append((done, total, text))

    async with mcp(settings(data_plane_url=sandbox.url, import_dir=folder)) as client:
        result = await client.call_tool(TOOL, {"file": "events.jsonl"}, progress_callback=progress)
    found = result.structured_content
    assert found is not None
    assert (found["success"], found["rows"], found["accepted"], found["rejected"]) == (True, 301, 300, 1)
    assert found["firstRejections"][0]["row"] == 301
    assert found["rejectedFile"] == "events.jsonl.rejected.jsonl"
    assert found["messages"] == [{"type": "track", "event": "Order Completed", "count": 300}]
    assert len(arrived(sandbox)) == 300
    assert told


async def test_an_import_that_was_done_before_says_that_nothing_was_sent(sandbox: Sandbox, folder: Path) -> None:
    (folder / "sub").mkdir()
    written(folder / "sub" / "events.jsonl", [message(1), {"type": "track", "userId": "u"}])
    first = await once(sandbox, folder, file="sub/events.jsonl")
    assert (first["rejectedFile"], "note" in first) == ("sub/events.jsonl.rejected.jsonl", False)
    again = await once(sandbox, folder, file="sub/events.jsonl")
    assert again["note"].startswith("Nothing was sent now")
    left = await once(sandbox, folder, file="sub/events.jsonl.rejected.jsonl")
    assert (left["error"]["code"], left["error"]["field"]) == ("invalid_value", "file")
    assert "again: true" in left["error"]["hint"]
    assert not (folder / "sub" / "events.jsonl.rejected.jsonl.checkpoint").exists()


async def test_progress_grows_with_what_was_acknowledged(
    sandbox: Sandbox, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "_PROGRESS_SECONDS", 0.05)
    # Of one user, so that one request goes after the other.
    written(folder / "events.jsonl", [{**message(number), "userId": "one"} for number in range(10_000, 30_000)])
    sandbox.fault(kind="slow", seconds=0.2, path="/v1/batch", share=1)
    told: list[tuple[float, float]] = []

    async def progress(done: float, total: float | None, text: str | None) -> None:
        assert total is not None
        told.append((done / total, int(str(text).split(" read, ")[1].split(" ")[0].replace(",", "")) / 20_000))

    async with mcp(settings(data_plane_url=sandbox.url, import_dir=folder, concurrency=1)) as client:
        await client.call_tool(TOOL, {"file": "events.jsonl"}, progress_callback=progress)
    assert len(told) > 1
    assert all(before < after for (before, _), (after, _) in pairwise(told))
    assert all(done == pytest.approx(accepted, abs=0.001) for done, accepted in told), told


async def test_the_tool_is_listed_only_with_a_folder(folder: Path) -> None:
    assert TOOL not in {tool.name for tool in offered(Settings())}
    assert TOOL in {tool.name for tool in offered(settings(import_dir=folder))}
    assert TOOL not in {tool.name for tool in offered(settings(import_dir=folder, read_only=True))}
    without = [definition(tool, settings()) for tool in offered(settings())]
    kept = [definition(tool, settings(import_dir=folder)) for tool in TOOLS if tool.name != TOOL]
    assert [each for each in kept if each["name"] in {one["name"] for one in without}] == without


@pytest.mark.parametrize(
    "name",
    ["../outside.jsonl", "link.jsonl", "linked/outside.jsonl", "gone.jsonl", "/etc/passwd", "/etc/gone", ".", "pipe",
     "a\0b", "x" * 5000, "loop"],
)  # fmt: skip
async def test_what_is_outside_cannot_be_read_and_nothing_is_told_of_it(
    name: str, sandbox: Sandbox, folder: Path
) -> None:
    (folder / "link.jsonl").symlink_to(folder.parent / "outside.jsonl")
    (folder / "linked").symlink_to(folder.parent)
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")
    found = await asyncio.wait_for(once(sandbox, folder, file=name), WAIT)
    assert (found["success"], found["error"]["code"], found["error"]["field"]) == (False, "invalid_value", "file")
    assert found["error"]["message"] == "There is no such file in the import folder."
    assert rows(sandbox) == []


async def test_a_strict_import_says_at_which_row_it_stopped(sandbox: Sandbox, folder: Path) -> None:
    written(folder / "events.jsonl", [message(1), message(2), {"type": "track"}])
    found = await once(sandbox, folder, file="events.jsonl", strict=True)
    assert (found["success"], found["error"]["code"]) == (False, "missing_field")
    assert found["error"]["message"].startswith("Row 3: event is required")
    assert "2 accepted before it" in found["error"]["hint"]


async def test_an_import_that_fails_says_what_was_done_and_that_the_same_call_goes_on(folder: Path) -> None:
    written(folder / "events.jsonl", [{**message(number), "userId": "one"} for number in range(9000)])
    upstream = answering(*[httpx.Response(200, json={"success": True})] * 2, httpx.Response(401))
    async with Segment(settings(import_dir=folder), transport=upstream.transport()) as client:
        found = await dispatch(TOOL, {"file": "events.jsonl"}, client)
    assert (found["success"], found["error"]["code"]) == (False, "unauthorized")
    until_then = re.search(
        r"Until then ([\d,]+) rows read, ([\d,]+) accepted, 0 rejected; the same call goes on there\.",
        found["error"]["hint"],
    )
    assert until_then, found
    rows_read, accepted = (int(text.replace(",", "")) for text in until_then.groups())
    assert rows_read >= accepted > 0


async def test_a_damaged_file_says_what_was_done_and_no_more(sandbox: Sandbox, folder: Path) -> None:
    given = [{**message(number), "anonymousId": os.urandom(150).hex()} for number in range(1500)]
    packed = gzip.compress(b"".join(json.dumps(each).encode() + b"\n" for each in given))
    (folder / "events.jsonl.gz").write_bytes(packed[:-4])
    found = await once(sandbox, folder, file="events.jsonl.gz")
    assert (found["error"]["code"], found["error"]["field"]) == ("invalid_value", "file")
    count = len(arrived(sandbox))
    assert count > 500
    assert f"Until then {count:,} rows read, {count:,} accepted, 0 rejected." in found["error"]["hint"]


async def test_what_is_wrong_with_a_table_is_said_in_the_tools_own_words(sandbox: Sandbox, folder: Path) -> None:
    (folder / "t.csv").write_text("id,plan\nu1,pro\n", encoding="utf-8")
    table: dict[str, Any] = {"file": "t.csv", "type": "identify"}
    for wrong, code, field, told in (
        ({"type": None}, "invalid_value", "type", "pass type track"),
        ({"map": ["userId"]}, "invalid_value", "map", 'map: ["userId=customer_id"]'),
        ({"map": ["userId=di"]}, "invalid_value", "map", "the columns are id, plan"),
        ({"map": [1]}, "invalid_value", "map", '["userId=customer_id"]'),
        ({"map": {"userId": None}}, "invalid_value", "map", '["userId=customer_id"]'),
    ):
        found = await once(sandbox, folder, **{**table, **wrong})
        assert (found["error"]["code"], found["error"]["field"]) == (code, field), found
        assert told in found["errorMessage"]
        assert "--" not in found["errorMessage"]
    assert (await once(sandbox, folder, **table, map=["userId=id"]))["accepted"] == 1
    changed = await once(sandbox, folder, **table, map=["userId=id", "traits=*"])
    assert (changed["error"]["code"], changed["error"]["field"]) == ("import_changed", "again")
    assert "again: true" in changed["error"]["hint"]


async def test_an_unknown_argument_is_answered_with_all_that_there_are(sandbox: Sandbox, folder: Path) -> None:
    found = await once(sandbox, folder, file="t.csv", foo=1)
    (tool,) = (each for each in TOOLS if each.name == TOOL)
    takes = list(definition(tool, settings(import_dir=folder))["inputSchema"]["properties"])
    assert sorted(found["error"]["hint"].removeprefix("It takes ").rstrip(".").split(", ")) == sorted(
        {*takes, "source"}
    )
    assert "did you mean 'type'?" in (await once(sandbox, folder, file="t.csv", typ="track"))["errorMessage"]


async def test_a_mapping_may_be_an_object(sandbox: Sandbox, folder: Path) -> None:
    (folder / "t.csv").write_text("id,plan,seats\nu1,pro,3\n", encoding="utf-8")
    given = {"map": {"userId": "id", "traits": {"seats:number": "seats"}}, "set": {"traits.paid:boolean": True}}
    assert (await once(sandbox, folder, file="t.csv", type="identify", **given))["accepted"] == 1
    (one,) = arrived(sandbox)
    assert (one["userId"], one["traits"]) == ("u1", {"seats": 3, "paid": True})


async def test_links_within_the_folder_are_followed(sandbox: Sandbox, folder: Path) -> None:
    (folder / "below").mkdir()
    written(folder / "below" / "events.jsonl", [message(1)])
    (folder / "link.jsonl").symlink_to(folder / "below" / "events.jsonl")
    assert (await once(sandbox, folder, file="link.jsonl"))["accepted"] == 1
    assert (await once(sandbox, folder, file="below/events.jsonl"))["importedBefore"]


async def test_a_cancelled_import_goes_on_with_the_same_call(sandbox: Sandbox, folder: Path) -> None:
    written(folder / "events.jsonl", [{**message(number), "context": {"locale": "x" * 200}} for number in range(6000)])
    sandbox.fault(kind="slow", seconds=0.2, path="/v1/batch", times=None)
    client = segment(sandbox, folder)
    call = asyncio.create_task(dispatch(TOOL, {"file": "events.jsonl"}, client))
    await until(lambda: bool(rows(sandbox)), 0.01)
    busy = await dispatch(TOOL, {"file": "events.jsonl"}, client)
    assert busy["error"]["code"] == "import_running"
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    sandbox.clear_faults()
    assert 0 < len(rows(sandbox)) < 6000
    found = await dispatch(TOOL, {"file": "events.jsonl"}, client)
    await client.aclose()
    assert (found["accepted"], found["rows"]) == (6000, 6000)
    assert {each["properties"]["number"] for each in arrived(sandbox)} == set(range(6000))


async def test_a_table_is_mapped_and_a_dry_run_sends_nothing(sandbox: Sandbox, folder: Path) -> None:
    (folder / "users.csv").write_text("id,plan\nu1,pro\nu2,\n", encoding="utf-8")
    mapped: dict[str, Any] = {"type": "identify", "map": ["userId=id", "traits=*"], "file": "users.csv"}
    dry = await once(sandbox, folder, **mapped, dryRun=True, values={"write_key": ""})
    assert (dry["success"], dry["dryRun"], dry["accepted"], rows(sandbox)) == (True, True, 2, [])
    assert (await once(sandbox, folder, **mapped))["accepted"] == 2
    assert [each.get("traits") for each in arrived(sandbox)] == [{"plan": "pro"}, None]


async def test_a_dry_run_shows_the_first_messages_as_they_would_be_sent(sandbox: Sandbox, folder: Path) -> None:
    lines = [
        "id,email,plan",
        ",a@b.com,x",
        *(f"u{number},a@b.com,{'p' * 5000 if number == 2 else 'pro'}" for number in range(5)),
    ]
    (folder / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    mapped: dict[str, Any] = {"file": "t.csv", "type": "identify", "map": ["userId=id", "traits.plan=plan"]}
    found = await once(sandbox, folder, **mapped, dryRun=True)
    assert [each["row"] for each in found["firstMessages"]] == [3, 4, 5]
    assert found["notSent"] == ["email"]
    first = found["firstMessages"][0]["message"]
    assert (first["type"], first["userId"], first["traits"]) == ("identify", "u0", {"plan": "pro"})
    assert first["messageId"].startswith("import-")
    assert len(json.dumps(found)) < 8000
    mapped["map"] = ["userId=id", "traits=*"]
    redacted = await once(sandbox, folder, **mapped, dryRun=True, values={"redact": '{"email": "mask"}'})
    assert redacted["firstMessages"][0]["message"]["traits"]["email"] == "[redacted]"
    assert "notSent" not in redacted
    assert "firstMessages" not in await once(sandbox, folder, **mapped)


async def test_where_people_must_agree_to_anything_they_must_agree_to_an_import(sandbox: Sandbox, folder: Path) -> None:
    written(folder / "events.jsonl", [message(1)])
    asked: list[str] = []

    async def no(question: str) -> str:
        asked.append(question)
        return "decline"

    for confirm in ("import_file", "Order*"):
        found = await once(sandbox, folder, file="events.jsonl", confirm=no, values={"confirm": confirm})
        assert found["error"]["code"] == "declined_by_user"
    assert "'events.jsonl'" in asked[0]
    assert rows(sandbox) == []


def _descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def test_a_folder_is_no_file_and_stays_closed(sandbox: Sandbox, folder: Path) -> None:
    (folder / "sub").mkdir()
    before = _descriptors()
    for name in ("sub", "sub/"):
        found = await once(sandbox, folder, file=name)
        assert (found["error"]["code"], found["error"]["field"]) == ("invalid_value", "file")
        assert found["error"]["message"] == "'sub' is a folder."
        assert "a file in it" in found["error"]["hint"]
    assert _descriptors() == before


async def test_the_call_is_in_the_audit_log(sandbox: Sandbox, folder: Path, tmp_path: Path) -> None:
    written(folder / "events.jsonl", [message(1)])
    await once(sandbox, folder, file="events.jsonl", values={"audit_log": tmp_path / "audit.jsonl"})
    line = json.loads((tmp_path / "audit.jsonl").read_text(encoding="utf-8"))
    assert (line["tool"], line["verdict"]) == (TOOL, "done")


def test_a_server_that_imports_nothing_loads_nothing_for_it() -> None:
    check = "import sys, segment_tools.surfaces.mcp_server; print([m for m in sys.modules if 'tools.bulk' in m])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=WAIT, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_checkpoint_that_another_process_has_is_not_waited_for(
    sandbox: Sandbox, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(folder / "events.jsonl", [message(1)])
    waits: list[float] = []

    class Connection(sqlite3.Connection):
        def __init__(self, path: str, seconds: float, **other: Any) -> None:
            waits.append(seconds)
            super().__init__(path, 0, **other)

    with sqlite3.connect(folder / "events.jsonl.checkpoint", isolation_level=None) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        connect = sqlite3.connect
        monkeypatch.setattr(sqlite3, "connect", lambda *given, **other: connect(*given, factory=Connection, **other))
        found = await once(sandbox, folder, file="events.jsonl")
        monkeypatch.undo()
    holder.close()
    assert "used by another import" in found["error"]["message"]
    assert str(folder) not in json.dumps(found)
    assert waits == [0]


async def test_a_link_in_the_place_of_what_an_import_leaves_is_not_followed(sandbox: Sandbox, folder: Path) -> None:
    written(folder / "events.jsonl", [message(1), {"type": "track"}])
    for name in ("events.jsonl.checkpoint", "events.jsonl.rejected.jsonl"):
        (folder / name).symlink_to(folder.parent / "new")
        found = await once(sandbox, folder, file="events.jsonl")
        assert (found["success"], str(folder) in json.dumps(found)) == (False, False)
        assert not (folder.parent / "new").exists()
        (folder / name).unlink()

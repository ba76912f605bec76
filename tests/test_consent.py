"""A person's consent before what `SEGMENT_CONFIRM` names is sent: over MCP in both eras, in the shell, in a program."""

import json
import os
import pty
import select
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp.types import ElicitRequestFormParams, ElicitResult, InputRequiredResult
from support import KEY, WAIT, Time, Upstream, accepting, arrived, facts, program, settings

from segment_tools import Segment, dispatch
from segment_tools.sandbox.run import Sandbox
from segment_tools.surfaces.asking import ANSWER_SECONDS
from segment_tools.surfaces.mcp_server import build, http_app

pytestmark = pytest.mark.anyio
ALIAS = {"userId": "u1", "previousId": "a1"}
ORDER = {"event": "Order Completed", "userId": "u1", "properties": {"revenue": 9.5}}
both = pytest.mark.parametrize("mode", ["auto", "legacy"])


class Person:
    """Says the same to every question, and remembers the questions."""

    def __init__(self, action: Any) -> None:
        self.action, self.questions = action, list[str]()

    async def __call__(self, context: Any, params: Any) -> ElicitResult:
        assert isinstance(params, ElicitRequestFormParams)
        assert params.requested_schema == {"type": "object", "properties": {}}
        self.questions.append(params.message)
        return ElicitResult(action=self.action, content={} if self.action == "accept" else None)


@asynccontextmanager
async def asked(person: Person | None, mode: Any, **chosen: Any) -> AsyncIterator[tuple[Client, Upstream]]:
    upstream = accepting()
    segment = Segment(settings(**chosen), transport=upstream.transport(), surroundings=Time().surroundings())
    async with Client(build(segment), mode=mode, elicitation_callback=person, raise_exceptions=True) as client:
        yield client, upstream


@both
async def test_what_a_person_accepts_is_sent_once_they_were_shown_it(mode: str) -> None:
    person = Person("accept")
    async with asked(person, mode, confirm="alias") as (client, upstream):
        assert facts(await client.call_tool("segment_alias", ALIAS))["status"] == "accepted"
        assert facts(await client.call_tool("segment_track", ORDER))["status"] == "accepted"
    assert person.questions == [
        'Send this message to Segment?\nalias: userId "u1", previousId "a1"\nAn alias cannot be undone.'
    ]
    assert len(upstream.requests) == 2


@both
@pytest.mark.parametrize(("action", "said"), [("decline", "declined"), ("cancel", "did not answer")])
async def test_what_a_person_does_not_accept_is_not_sent(mode: str, action: str, said: str) -> None:
    async with asked(Person(action), mode, confirm="alias") as (client, upstream):
        result = facts(await client.call_tool("segment_alias", ALIAS))
    assert (result["error"]["code"], result["error"]["retryable"]) == ("declined_by_user", False)
    assert result["error"]["message"] == f"The user {said}: nothing was sent."
    assert (result["sent"], upstream.requests) == (False, [])


@both
async def test_a_host_that_cannot_ask_is_told_so(mode: str) -> None:
    async with asked(None, mode, confirm="alias") as (client, upstream):
        result = facts(await client.call_tool("segment_alias", ALIAS))
    assert (result["error"]["code"], result["error"]["retryable"]) == ("confirmation_unavailable", False)
    assert "lacks MCP elicitation" in result["error"]["message"]
    assert upstream.requests == []


@both
async def test_no_argument_stands_for_consent(mode: str) -> None:
    async with asked(Person("decline"), mode, confirm="alias") as (client, upstream):
        for more in ({"confirm": True}, {"consent": "accept"}, {"inputResponses": {"consent": {"action": "accept"}}}):
            assert not facts(await client.call_tool("segment_alias", {**ALIAS, **more}))["success"]
    assert upstream.requests == []


@both
async def test_a_person_is_not_asked_for_what_is_refused_anyway_nor_for_a_dry_run(mode: str) -> None:
    person = Person("accept")
    async with asked(person, mode, confirm="alias", deny_events="type:alias") as (client, _):
        assert facts(await client.call_tool("segment_alias", ALIAS))["error"]["code"] == "not_allowed"
        assert facts(await client.call_tool("segment_alias", {}))["error"]["code"] == "missing_field"
    async with asked(person, mode, confirm="alias", agent_rate=1) as (client, _):
        assert facts(await client.call_tool("segment_track", ORDER))["success"]
        assert facts(await client.call_tool("segment_alias", ALIAS))["error"]["code"] == "agent_rate_limited"
    async with asked(person, mode, confirm="alias", dry_run=True) as (client, _):
        assert facts(await client.call_tool("segment_alias", ALIAS))["status"] == "dry_run"
    assert person.questions == []


@both
async def test_a_person_is_not_asked_for_what_could_not_be_sent(mode: str, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"Signed Up": {"properties": {}}}))
    person = Person("accept")
    async with asked(person, mode, confirm="track,batch", tracking_plan=plan, tracking_plan_policy="block") as (c, _):
        one = facts(await c.call_tool("segment_track", ORDER))
        many = facts(await c.call_tool("segment_batch", {"batch": [{"type": "track", **ORDER}]}))
    assert [each["error"]["code"] for each in (one, many)] == ["plan_violation", "plan_violation"]
    async with asked(person, mode, confirm="track") as (c, _):
        large = await c.call_tool("segment_track", {**ORDER, "properties": {"text": "x" * 40_000}})
    assert facts(large)["error"]["code"] == "too_large"
    async with asked(person, mode, confirm="track", write_key="", sources='{"a": "k-a", "b": "k-b"}') as (c, _):
        assert facts(await c.call_tool("segment_track", ORDER))["error"]["field"] == "source"
    assert person.questions == []


@both
async def test_a_confirmed_message_counts_once(mode: str) -> None:
    async with asked(Person("accept"), mode, confirm="alias", agent_rate=2, loop_limit=2) as (client, _):
        codes = [facts(await client.call_tool("segment_alias", ALIAS)).get("error", {}).get("code") for _ in range(3)]
    assert codes == [None, None, "repeated_message"]


@both
async def test_of_a_batch_the_messages_in_question_come_first_and_the_rest_is_counted(mode: str) -> None:
    person = Person("accept")
    items = [{"type": "track", **ORDER, "userId": f"u{number}"} for number in range(20)]
    items.insert(17, {"type": "alias", **ALIAS})
    async with asked(person, mode, confirm="segment_alias") as (client, _):
        assert facts(await client.call_tool("segment_batch", {"batch": items}))["count"] == 21
    assert person.questions[0].splitlines() == [
        "Send these 21 messages to Segment?",
        "20 track Order Completed, 1 alias; of 20 people",
        '[17] alias: userId "u1", previousId "a1"',
        "and 20 more that are not shown",
        "An alias cannot be undone.",
    ]


@pytest.mark.parametrize(
    ("confirm", "tool", "arguments", "expected"),
    [
        ("batch", "batch", {"batch": [{"type": "track", **ORDER}]}, True),
        ("batch", "track", ORDER, False),
        ("order *", "track", ORDER, True),
        ("Order *", "batch", {"batch": [{"type": "track", **ORDER}]}, True),
        ("type:track", "track", ORDER, True),
        ("track", "page", {"userId": "u1"}, False),
        ("type:*", "page", {"userId": "u1"}, True),
        ("*", "page", {"userId": "u1"}, False),
    ],
)
async def test_types_tools_and_patterns_say_what_is_asked_for(
    confirm: str, tool: str, arguments: dict[str, Any], expected: bool
) -> None:
    person = Person("accept")
    async with asked(person, "auto", confirm=confirm) as (client, _):
        assert facts(await client.call_tool(f"segment_{tool}", arguments))["success"]
    assert len(person.questions) == expected


@both
async def test_a_question_is_short_holds_no_key_and_no_line_but_ours(mode: str) -> None:
    person = Person("decline")
    properties = {"a": KEY, "b": "x\nAccepted by admin\u202e\u200b", "c": "y" * 5000}
    other = "wk-ANOTHER-RECOGNISABLE-71"
    async with asked(person, mode, confirm="track", allow_write_key_arg=True, block_secrets=False) as (client, _):
        arguments = {**ORDER, "properties": {**properties, "d": other}, "writeKey": other}
        await client.call_tool("segment_track", arguments)
        arguments["properties"] = {"d": other}
        await client.call_tool("segment_track", arguments)
    assert [len(question.splitlines()) for question in person.questions] == [2, 2]
    assert max(map(len, person.questions)) < 400
    assert not [text for question in person.questions for text in (KEY, other, "\u202e", "\u200b") if text in question]


async def test_no_id_and_no_event_is_pushed_out_of_sight() -> None:
    person = Person("accept")
    async with asked(person, "auto", confirm="alias,track") as (client, _):
        await client.call_tool("segment_alias", {"userId": "u" + "x" * 290, "previousId": "victim"})
        event = {"event": "A", "context": {"page": {"title": "x" * 5000}}, "userId": "somebody"}
        await client.call_tool("segment_track", {**event, "properties": {"pad": "x" * 5000, "amount": 99}})
    assert 'previousId "victim"' in person.questions[0]
    assert "somebody" in person.questions[1]
    assert '"amount":99' in person.questions[1]


async def test_of_a_batch_everybody_in_question_is_shown() -> None:
    person = Person("accept")
    items = [{"type": "alias", "userId": f"new-{number}", "previousId": f"old-{number}"} for number in range(8)]
    others = [{"type": "track", **ORDER, "userId": f"u{number}"} for number in range(60)]
    for confirm in ("alias", "batch"):
        async with asked(person, "auto", confirm=confirm) as (client, _):
            assert facts(await client.call_tool("segment_batch", {"batch": [*others, *items]}))["success"]
    for question in person.questions:
        assert [
            number for number in range(8) if f'userId "new-{number}", previousId "old-{number}"' not in question
        ] == []


@pytest.mark.parametrize("confirm", ["alias", "batch"])
@pytest.mark.parametrize(
    ("aliases", "reason"),
    [
        ([{"userId": f"u{number}", "previousId": f"a{number}"} for number in range(51)], "50 such messages at most"),
        ([{"userId": "u1", "previousId": "x" * 301}], "previousId is too long to be shown"),
    ],
)
async def test_what_a_person_cannot_be_shown_is_refused(
    confirm: str, aliases: list[dict[str, str]], reason: str
) -> None:
    person = Person("accept")
    async with asked(person, "auto", confirm=confirm) as (client, upstream):
        items = [{"type": "alias", **each} for each in aliases]
        result = facts(await client.call_tool("segment_batch", {"batch": items}))
    assert result["error"]["code"] == "confirmation_unavailable"
    assert reason in result["error"]["message"]
    assert (person.questions, upstream.requests) == ([], [])


@both
async def test_retrying_and_discarding_in_the_outbox_can_want_consent(mode: str) -> None:
    person = Person("decline")
    async with asked(person, mode, confirm="outbox", outbox="memory:") as (client, _):
        assert facts(await client.call_tool("segment_outbox", {}))["success"]
        result = facts(await client.call_tool("segment_outbox", {"action": "discard", "messageIds": ["a", "b"]}))
    assert result["error"]["code"] == "declined_by_user"
    assert person.questions == ["Delete for good 2 of the messages that wait in the outbox for Segment?"]


async def once_asked(client: Client, arguments: dict[str, Any]) -> InputRequiredResult:
    found = await client.session.call_tool("segment_alias", arguments, allow_input_required=True)
    assert isinstance(found, InputRequiredResult)
    return found


YES: dict[str, Any] = {"consent": ElicitResult(action="accept", content={})}


async def test_an_answer_counts_for_one_call_with_these_arguments() -> None:
    async with asked(Person("accept"), "auto", confirm="alias") as (client, upstream):
        state = (await once_asked(client, ALIAS)).request_state
        answer: dict[str, Any] = {"input_responses": YES, "request_state": state, "allow_input_required": True}
        other = {**ALIAS, "userId": "another"}
        for tool, arguments in (("segment_alias", other), ("segment_identify", {"userId": "u1"})):
            with pytest.raises(MCPError, match="requestState"):
                await client.session.call_tool(tool, arguments, **answer)
        assert upstream.requests == []
        assert facts(await client.session.call_tool("segment_alias", ALIAS, **answer))["success"]  # type: ignore[arg-type]
        again = await client.session.call_tool("segment_alias", ALIAS, **answer)
        assert isinstance(again, InputRequiredResult)
    assert len(upstream.requests) == 1


async def test_an_answer_to_no_question_is_none() -> None:
    async with asked(Person("accept"), "auto", confirm="alias") as (client, upstream):
        for state in (None, "{}", '{"asked": "x", "id": "y"}'):
            more: dict[str, Any] = {"input_responses": YES, "request_state": state, "allow_input_required": True}
            if state is None:
                assert isinstance(await client.session.call_tool("segment_alias", ALIAS, **more), InputRequiredResult)
            else:
                with pytest.raises(MCPError, match="requestState"):
                    await client.session.call_tool("segment_alias", ALIAS, **more)
    assert upstream.requests == []


async def test_replicas_with_the_same_keys_take_each_others_questions() -> None:
    async with (
        asked(Person("accept"), "auto", confirm="alias") as (first, none),
        asked(Person("accept"), "auto", confirm="alias") as (second, upstream),
    ):
        state = (await once_asked(first, ALIAS)).request_state
        found = await second.session.call_tool("segment_alias", ALIAS, input_responses=YES, request_state=state)
        assert facts(found)["success"]
    assert (len(none.requests), len(upstream.requests)) == (0, 1)


async def test_a_host_that_fails_to_ask_sends_nothing() -> None:
    async def broken(context: Any, params: Any) -> Any:
        raise RuntimeError("no window")

    async with asked(broken, "legacy", confirm="alias") as (client, upstream):  # type: ignore[arg-type]
        result = facts(await client.call_tool("segment_alias", ALIAS))
    assert (result["error"]["code"], upstream.requests) == ("confirmation_unavailable", [])


def test_a_question_waits_longer_than_a_person_needs() -> None:
    assert ANSWER_SECONDS >= 300


@pytest.mark.parametrize(("mode", "code"), [("auto", ""), ("legacy", "confirmation_unavailable")])
@pytest.mark.parametrize("progress", [False, True])
async def test_over_http_people_are_asked_where_the_revision_has_a_way(mode: Any, code: str, progress: bool) -> None:
    upstream = accepting()
    app = http_app(Segment(settings(confirm="alias"), transport=upstream.transport()), "127.0.0.1")

    async def told(*_: object) -> None:
        """The server streams its answer to who asks for progress."""

    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as http:
        transport = streamable_http_client("http://127.0.0.1/mcp", http_client=http)
        async with Client(transport, mode=mode, elicitation_callback=Person("accept")) as client:
            result = await client.call_tool("segment_alias", ALIAS, progress_callback=told if progress else None)
    assert facts(result).get("error", {}).get("code", "") == code
    assert len(upstream.requests) == (0 if code else 1)


@both
async def test_over_stdio_people_are_asked(mode: Any, environ: dict[str, str], sandbox: Sandbox) -> None:
    chosen = {**environ, "SEGMENT_DATA_PLANE_URL": sandbox.url, "SEGMENT_WRITE_KEY": KEY, "SEGMENT_CONFIRM": "alias"}
    command, *arguments = program()
    server = StdioServerParameters(command=command, args=arguments, env=chosen)
    for action, count in (("decline", 0), ("accept", 1)):
        async with Client(stdio_client(server), mode=mode, elicitation_callback=Person(action)) as client:
            await client.call_tool("segment_alias", ALIAS)
        assert len(arrived(sandbox)) == count


async def test_a_program_asks_in_its_own_way_or_is_refused(time: Time) -> None:
    upstream = accepting()
    segment = Segment(settings(confirm="alias"), transport=upstream.transport(), surroundings=time.surroundings())
    questions: list[str] = []

    async def yes(question: str) -> Any:
        questions.append(question)
        return "accept"

    refused = await dispatch("segment_alias", ALIAS, segment)
    assert (refused["error"]["code"], upstream.requests) == ("confirmation_unavailable", [])
    assert (await dispatch("segment_alias", ALIAS, segment, confirm=yes))["success"]
    assert len(questions) == 1


CALL = ["call", "segment_alias", '{"userId": "u1", "previousId": "a1"}']


def test_the_shell_refuses_where_there_is_no_terminal(environ: dict[str, str], sandbox: Sandbox) -> None:
    chosen = {**environ, "SEGMENT_DATA_PLANE_URL": sandbox.url, "SEGMENT_WRITE_KEY": KEY, "SEGMENT_CONFIRM": "alias"}
    done = subprocess.run(
        program(*CALL), input="y\n", capture_output=True, text=True, env=chosen, timeout=WAIT, check=False
    )
    assert (done.returncode, arrived(sandbox)) == (1, [])
    assert "no terminal" in done.stdout


@pytest.mark.parametrize(("typed", "count"), [("y\n", 1), ("n\n", 0), ("\n", 0), ("\x04", 0)])
def test_the_shell_asks_at_the_terminal(typed: str, count: int, environ: dict[str, str], sandbox: Sandbox) -> None:
    chosen = {**environ, "SEGMENT_DATA_PLANE_URL": sandbox.url, "SEGMENT_WRITE_KEY": KEY, "SEGMENT_CONFIRM": "alias"}
    terminal, end = pty.openpty()
    try:
        with subprocess.Popen(program(*CALL), stdin=end, stdout=subprocess.PIPE, stderr=end, env=chosen) as process:
            shown = _read_until(terminal, lambda text: "[y/N]" in text)
            os.write(terminal, typed.encode())
            assert process.wait(WAIT) == (0 if count else 1)
    finally:
        os.close(terminal)
        os.close(end)
    assert 'alias: userId "u1", previousId "a1"' in shown
    assert len(arrived(sandbox)) == count


def _read_until(terminal: int, enough: Callable[[str], bool]) -> str:
    text = ""
    while not enough(text):
        assert select.select([terminal], [], [], WAIT)[0], text
        text += os.read(terminal, 4096).decode()
    return text

"""What is redacted by SEGMENT_REDACT leaves nowhere: not to Segment, the outbox, a log or an answer."""

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import SENT_AT, WAIT, Time, accepting, answering, arrived, mcp
from support import settings as segment_settings

from segment_tools import Identify, NotConfigured, Segment, Settings, Track
from segment_tools.functions import dispatch
from segment_tools.sandbox.run import Sandbox
from segment_tools.spec.privacy import MASK, Redaction

pytestmark = pytest.mark.anyio
SECRET = "redact-key-of-the-tests"
MARK, NUMBER = "marked-jane-7f3a9", 918273645546372
RULES = {
    "email": "hash",
    "*ssn*": "drop",
    "phone": "mask",
    "context.ip": "mask",
    "address.street": "drop",
    "userId": "hash",
    "anonymousId": "hash",
}
CHOSEN: Mapping[str, str] = {"redact": json.dumps(RULES), "redact_key": SECRET}

ruled = st.sampled_from(["email", "EMail", "my_SSN_code", "ssn", "PHONE", "contact.email", " phone "])
free = st.sampled_from(["plan", "company", "items", "kind", "note"])
marked = st.one_of(
    st.sampled_from([MARK, f"<{MARK}>", NUMBER, [MARK, {"x": MARK}], {MARK: True}, {"deep": [[MARK]]}]),
    st.just(json.dumps({"x": MARK})),
)
plain = st.one_of(st.none(), st.booleans(), st.integers(0, 99), st.sampled_from(["", "pro", "{x}", "[1", "a: b"]))


def pair(value: Any) -> dict[str, Any]:
    return {"type": "email", "id": value, "collection": "users", "encoding": "none"}


def wrapped(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Somewhere deeper: in an object, a list, JSON text, text that JSON is cut off in, or a pair."""
    objects = st.one_of(st.dictionaries(free, inner, max_size=2), marking(inner))
    texts = objects.map(json.dumps)
    return st.one_of(
        objects,
        st.lists(inner, max_size=2),
        texts,
        texts.map(lambda text: f"{text}\n{text}"),
        texts.map(lambda text: f"before {text[:-1]}"),
        texts.map(json.dumps),
        marked.map(pair),
        marked.map(lambda value: {"name": "My SSN", "value": value}),
        st.builds(lambda value: {"address": {"street": value, "zip": 1}}, marked),
    )


def marking(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object with a field that the rules are about, and one that they are not."""
    return st.builds(lambda name, value, other: {name: value, "other": other}, ruled, marked, inner)


trees = marking(st.recursive(plain, wrapped, max_leaves=6))


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A tool and arguments in which marks stand where the rules find them."""
    kind = draw(st.sampled_from(["track", "identify", "page", "screen", "group"]))
    fields: dict[str, Any] = {draw(st.sampled_from(["userId", "anonymousId"])): MARK}
    own = draw(trees)
    holder = "traits" if kind in ("identify", "group") else "properties"
    fields[holder] = own if draw(st.booleans()) else json.dumps(own)
    fields["context"] = {"ip": MARK, "custom": draw(trees), "externalIds": [pair(MARK)]}
    fields["integrations"] = {"Mixpanel": draw(trees), "All": True}
    fields |= {"track": {"event": "A"}, "group": {"groupId": "g1"}, "identify": {"email": MARK}}.get(kind, {})
    if draw(st.booleans()):
        return "segment_batch", {"batch": [{"type": kind, **fields}, {"type": "page", "userId": MARK}]}
    return f"segment_{kind}", fields


def contents(folder: str) -> bytes:
    return b"".join(file.read_bytes() for file in Path(folder).iterdir())


class World:
    """A sandbox, an event loop, and all that was logged."""

    def __init__(self, sandbox: Sandbox, runner: asyncio.Runner, log: StringIO, folder: Path) -> None:
        self.sandbox, self.runner, self.log, self.folder = sandbox, runner, log, folder

    def seen(self, tool: str, arguments: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Everything that there is of the call afterwards, by where it stands."""
        self.sandbox.store.clear()
        self.log.truncate(0)
        yield from self.runner.run(self._seen(tool, arguments))
        yield "sandbox", json.dumps(arrived(self.sandbox))
        yield "log", self.log.getvalue()

    async def _seen(self, tool: str, arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
        upstream, found = accepting(), []
        async with Segment(segment_settings(**CHOSEN), transport=upstream.transport()) as segment:
            found.append(("answer", await self._answer(tool, arguments, segment)))
        found += [("wire", request.content.decode()) for request in upstream.requests]
        async with Segment(segment_settings(**CHOSEN, data_plane_url=self.sandbox.url)) as segment:
            found.append(("answer of the sandbox", await self._answer(tool, arguments, segment)))
        async with Segment(segment_settings(**CHOSEN, dry_run="true")) as segment:
            found.append(("dry run", await self._answer(tool, arguments, segment)))
        with TemporaryDirectory(dir=self.folder) as folder:
            outbox = {"outbox": f"sqlite:///{folder}/outbox.db", "delivery": "queued", "flush_seconds": "0"}
            down = answering(httpx.Response(503))
            async with Segment(segment_settings(**CHOSEN, **outbox), transport=down.transport()) as segment:
                found.append(("answer of the outbox", await self._answer(tool, arguments, segment)))
                kept = contents(folder)
            assert b"Mixpanel" in kept
            found.append(("outbox", kept.decode("latin-1")))
        return found

    async def _answer(self, tool: str, arguments: Mapping[str, Any], segment: Segment) -> str:
        answer = await dispatch(tool, arguments, segment)
        assert answer["success"], answer
        return json.dumps(answer)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    log = StringIO()
    handler, root = logging.StreamHandler(log), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        with Sandbox() as sandbox, asyncio.Runner() as runner:
            yield World(sandbox, runner, log, tmp_path_factory.mktemp("outboxes"))
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


@settings(
    deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow], print_blob=False
)
@given(call=calls())
@example(call=("segment_identify", {"userId": MARK, "traits": {"email": MARK}, "integrations": {"Mixpanel": True}}))
def test_no_marked_value_is_anywhere(world: World, call: tuple[str, dict[str, Any]]) -> None:
    tool, arguments = call
    for place, text in world.seen(tool, arguments):
        assert MARK not in text, place
        assert str(NUMBER) not in text, place


async def test_no_marked_value_is_in_what_the_server_logs_or_answers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    upstream = accepting()
    arguments = {"userId": MARK, "email": MARK, "traits": {"ssn": MARK, "plan": "pro"}, "context": {"ip": MARK}}
    async with mcp(segment_settings(**CHOSEN), upstream.transport()) as client:
        result = await client.call_tool("segment_identify", arguments)
    ours = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("mcp.client"))
    assert MARK not in f"{result!r}{ours}{upstream.requests[0].content!r}"
    assert result.structured_content is not None
    assert set(result.structured_content["traits"]) == {"email", "plan"}


async def test_a_person_who_is_asked_is_shown_the_redacted_message_and_none_with_a_secret() -> None:
    asked: list[str] = []

    async def ask(question: str) -> Literal["accept", "decline", "cancel"]:
        asked.append(question)
        return "accept"

    upstream = accepting()
    segment = Segment(segment_settings(**CHOSEN, confirm="identify"), transport=upstream.transport())
    for traits in ({"ssn": MARK, "note": "ok"}, {"note": "4111 1111 1111 1111"}):
        await dispatch("segment_identify", {"userId": MARK, "email": MARK, "traits": traits}, segment, confirm=ask)
    assert len(asked) == len(upstream.requests) == 1
    assert MARK not in asked[0]
    sent = json.loads(upstream.requests[0].content)
    assert sent["userId"] in asked[0]


async def test_no_marked_value_is_in_the_audit_log(tmp_path: Path) -> None:
    chosen = segment_settings(**CHOSEN, audit_log=tmp_path / "audit.jsonl")
    async with Segment(chosen, transport=accepting().transport()) as segment:
        await dispatch("segment_identify", {"userId": MARK, "email": MARK}, segment)
    written = contents(str(tmp_path))
    assert b"segment_identify" in written
    assert MARK.encode() not in written


def redacted(rules: Mapping[str, Any], traits: Mapping[str, Any]) -> Any:
    return Redaction(rules, SECRET).of(Identify(user_id="u1", traits=dict(traits))).traits


def test_a_rule_fits_at_any_depth_and_in_any_case() -> None:
    rules = {"email": "mask", "*ssn*": "drop", "address.city": "drop", "traits.age": "mask"}
    given_ = {
        "Email": "a",
        "emails": "kept",
        "list": [{"EMAIL": "b"}, ["c"]],
        "my_SSN_2": 1,
        "address": {"city": "d", "zip": "e"},
        "city": "kept",
        "age": 5,
        "child": {"age": 6},
        "contact.email": "f",
    }
    assert redacted(rules, given_) == {
        "Email": MASK,
        "emails": "kept",
        "list": [{"EMAIL": MASK}, ["c"]],
        "address": {"zip": "e"},
        "city": "kept",
        "age": MASK,
        "child": {"age": 6},
        "contact.email": MASK,
    }


def test_equal_values_have_equal_hashes_wherever_they_stand() -> None:
    rules = {"email": "hash", "n": "hash", "userId": "hash"}
    message = Redaction(rules, SECRET).of(Identify(user_id="42", traits={"email": "42", "n": 42, "x": {"email": 42.0}}))
    assert message.user_id is not None
    assert len(message.user_id) == 64
    assert message.traits == {"email": message.user_id, "n": message.user_id, "x": {"email": message.user_id}}
    other = Redaction(rules, "another key").of(Identify(user_id="42"))
    assert other.user_id != message.user_id


def test_the_strictest_of_several_rules_counts() -> None:
    assert redacted({"e*": "hash", "email": "mask", "*": "hash"}, {"email": "a"}) == {"email": MASK}
    assert redacted({"*": "mask", "email": "drop"}, {"email": "a", "b": 1}) == {"b": MASK}
    assert redacted({"id": "mask", "email": "hash"}, {"x": {"type": "email", "id": "a"}})["x"]["id"] == MASK


def test_null_and_empty_text_stay_what_they_are() -> None:
    assert redacted({"*": "mask"}, {"email": None, "name": ""}) == {"email": None, "name": ""}
    assert redacted({"*": "hash"}, {"email": None, "name": ""}) == {"email": None, "name": ""}


def test_a_list_is_hashed_value_by_value_and_an_object_whole() -> None:
    one = redacted({"email": "hash"}, {"email": "a"})["email"]
    assert redacted({"email": "hash"}, {"email": ["a", None]})["email"] == [one, None]
    whole = redacted({"email": "hash"}, {"email": {"b": 1, "a": 2}})["email"]
    assert whole == redacted({"email": "hash"}, {"email": {"a": 2, "b": 1}})["email"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"email": "x", "n": 1}', '{"email": "[redacted]", "n": 1}'),
        ('[{"a": {"EMAIL": "x"}}]', '[{"a": {"EMAIL": "[redacted]"}}]'),
        ('{"email":"x"', MASK),
        ('{"email":"x"}\n{"email":"y"}', MASK),
        ("{'email': 'x'}", MASK),
        ("{email: x}", MASK),
        ('{"email":"x","email":null}', MASK),
        ('{"email":"x","n":' + "1" * 5000 + "}", MASK),
        ("[" * 5000 + '{"email":"x"}', MASK),
        ('{"plan": "x",  "n": 1}', '{"plan": "x",  "n": 1}'),
        ("Hello {name}, welcome", "Hello {name}, welcome"),
        ("email: x", "email: x"),
    ],
)
def test_json_in_text_is_read_and_masked_where_it_cannot_be(text: str, expected: str) -> None:
    assert redacted({"email": "mask"}, {"raw": text}) == {"raw": expected}


@pytest.mark.parametrize(
    "text",
    [
        '"email": "x"',
        "'email': 'x'",
        '"contact" : 1, \\"Email\\" : \\"x\\"',
        '{"email" => "x"}',
        "{email=x, plan=pro}",
        '{"\\u0065mail": "x",}',
        '{"e\u200bmail": "x",}',
        '{"name": "email", "value": "x"',
        '[["email", "x"], ["plan", "pro"]',
        '[["email", "x"],]',
    ],
)
def test_text_that_only_resembles_json_is_masked_where_it_has_the_name(text: str) -> None:
    assert redacted({"email": "mask"}, {"raw": text}) == {"raw": MASK}


@pytest.mark.parametrize(
    "text",
    [
        "please email: x",
        'the "email" field',
        "it's 5: don't email 'me'",
        "https://shop.example/?email=x",
        '["email", "sms"]',
        '[["phone", "x"]]',
        "[INFO] email sent: yes",
    ],
)
def test_prose_urls_and_lists_of_names_stay(text: str) -> None:
    assert redacted({"email": "mask"}, {"raw": text}) == {"raw": text}


@pytest.mark.parametrize("name", ["e\u200bmail", "\uff45mail", "EMAIL\u2060", "contact.e\u00admail"])
def test_a_name_counts_as_it_is_read(name: str) -> None:
    assert redacted({"email": "mask"}, {name: "x"}) == {name: MASK}
    assert redacted({"email": "mask"}, {"type": name, "id": "x"}) == {"type": name, "id": MASK}
    assert redacted({"\uff25mail": "mask"}, {"email": "x"}) == {"email": MASK}


def test_pairs_are_read_in_any_case_and_as_lists() -> None:
    given_ = {"a": [{"Name": "email", "Value": "x"}, {"KEY": "Email", "value": "x"}], "b": [["email", "x"], ["n", "y"]]}
    assert redacted({"email": "mask"}, given_) == {
        "a": [{"Name": "email", "Value": MASK}, {"KEY": "Email", "value": MASK}],
        "b": [["email", MASK], ["n", "y"]],
    }
    assert redacted({"email": "drop"}, given_) == {"a": [], "b": [["n", "y"]]}
    several = {"name": "plan", "Name": "email", "NAME": "n", "Value": "x"}
    assert redacted({"email": "mask"}, several) == {**several, "Value": MASK}
    assert redacted({"email": "mask"}, {"channels": ["email", "sms"]}) == {"channels": ["email", "sms"]}


HOSTILE = {
    "spaces after a brace": "{" + " " * 100_000,
    "spaces and colons": "{" + " :" * 50_000,
    "quotes": "{" + '"' * 100_000,
    "quoted spaces": '{"' + " " * 100_000,
    "a name and spaces": '{"a"' + " " * 100_000,
    "backslashes": '{"a' + "\\" * 100_000,
    "names without end": "{" + "a " * 50_000,
    "brackets": "[" * 100_000,
    "dots": "a." * 20_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_no_text_and_no_name_takes_long(kind: str) -> None:
    rules = json.dumps({"email": "mask", "*x*y*z*w*": "mask", "address.city": "drop"})
    async with asyncio.timeout(WAIT):
        segment = Segment(segment_settings(redact=rules, dry_run="true"))
        for properties in ({"a": HOSTILE[kind]}, {HOSTILE[kind][:40_000]: "b"}, {"xyz" * 10_000: "c"}):
            found = await dispatch("segment_track", {"event": "A", "userId": "u1", "properties": properties}, segment)
            assert found.get("error", {"code": "too_large"})["code"] == "too_large"


def test_half_a_character_in_json_text_does_no_harm() -> None:
    assert redacted({"email": "mask"}, {"raw": r'{"email": "x", "h": "\ud800"}'})["raw"].isascii()


def test_consent_and_the_names_of_destinations_stay() -> None:
    consent = {"categoryPreferences": {"Advertising": False}, "version": 1}
    context = {"consent": consent, "ip": "1.2.3.4"}
    integrations = {"Mixpanel": {"email": "a", "k": 1}, "All": False}
    message = Track(event="A", user_id="u1", context=context, integrations=integrations)
    done = Redaction({"*": "mask", "mixpanel": "drop", "context.consent": "drop"}).of(message)
    assert done.context == {"consent": consent, "ip": MASK}
    assert done.integrations == {"Mixpanel": {"email": MASK, "k": MASK}, "All": False}


@pytest.mark.parametrize(
    "context",
    [
        {"CONSENT": {"categoryPreferences": {"email": MARK}}},
        {"consent.categoryPreferences": {"email": MARK}},
        {"consent": {"categoryPreferences": {}, "CATEGORYPREFERENCES": {"email": MARK}}},
        {"consent": {"categoryPreferences": {}, "email": MARK}},
        {"traits": {"consent": {"categoryPreferences": {"email": MARK}}}},
    ],
)
def test_only_consent_itself_is_no_field(context: dict[str, Any]) -> None:
    done = Redaction({"email": "mask"}).of(Track(event="A", user_id="u1", context=context))
    assert MARK not in json.dumps(done.context)


@pytest.mark.parametrize("action", ["mask", "drop"])
def test_of_a_destination_only_the_name_and_the_switch_stay(action: Literal["mask", "drop"]) -> None:
    integrations = {"email": MARK, "Mixpanel.email": MARK, "Heap": {"email": MARK}, "Email": True, "k": {"e": 1}}
    message = Track(event="A", user_id="u1", integrations={**integrations, "e.email": {"x": MARK}})
    done = Redaction({"email": action}).of(message).integrations
    assert done is not None
    assert MARK not in json.dumps(done)
    assert (done["Email"], done["k"], "Heap" in done) == (True, {"e": 1}, True)


def test_the_caller_keeps_its_own_message() -> None:
    message = Identify(user_id="u1", traits={"email": "a"})
    Redaction({"email": "drop"}).of(message)
    assert message.traits == {"email": "a"}


async def test_a_repeat_with_other_dropped_values_is_the_same_message() -> None:
    upstream = accepting()
    async with Segment(segment_settings(**CHOSEN), transport=upstream.transport()) as segment:
        for number in (1, 2):
            arguments = {"userId": "u1", "messageId": "message-0001", "traits": {"ssn": number}, "timestamp": SENT_AT}
            assert (await dispatch("segment_identify", arguments, segment))["success"]
    assert len(upstream.requests) == 1


async def test_a_derived_message_id_tells_nothing_of_a_dropped_value() -> None:
    chosen = segment_settings(**CHOSEN, derive_message_id="true", dry_run="true")
    async with Segment(chosen, surroundings=Time().surroundings()) as segment:
        answers = [
            await dispatch("segment_identify", {"userId": "u1", "traits": {"ssn": number}}, segment, call_id="call")
            for number in (1, 2)
        ]
    assert answers[0]["messageId"] == answers[1]["messageId"]


def test_rules_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    file.write_text('{"Email": "DROP"}', encoding="utf-8")
    assert segment_settings(redact=file).redact == {"Email": "drop"}
    assert Settings(redact={"email": "drop"}).redact == {"email": "drop"}


def test_a_hash_needs_a_key() -> None:
    with pytest.raises(NotConfigured, match="SEGMENT_REDACT_KEY"):
        segment_settings(redact='{"email": "hash"}')
    assert SECRET in segment_settings(**CHOSEN).secrets
    assert SECRET not in repr(segment_settings(**CHOSEN))


CONSENT = {"categoryPreferences": {"Advertising": False, "Analytics": True}, "version": 2}


@pytest.mark.parametrize("context", [None, {}, {"consent": {}}, {"ip": "1.2.3.4"}])
async def test_a_message_without_consent_is_refused_where_it_is_required(context: Any) -> None:
    upstream = accepting()
    message = {"event": "A", "userId": "u1", "context": context}
    segment = Segment(segment_settings(require_consent="true"), transport=upstream.transport())
    answers = [
        await dispatch("segment_track", message, segment),
        await dispatch("segment_batch", {"batch": [{"type": "track", **message}]}, segment),
    ]
    for answer in answers:
        assert "context.consent" in answer["errorMessage"]
        assert "categoryPreferences" in answer["error"]["hint"]
        assert answer["error"]["field"].startswith("context.consent")
    assert upstream.requests == []


@pytest.mark.parametrize("consent", [CONSENT, {"categoryPreferences": {}}])
@pytest.mark.parametrize("required", ["true", "false"])
async def test_consent_is_passed_on_as_it_is(consent: Any, required: str) -> None:
    upstream = accepting()
    segment = Segment(segment_settings(require_consent=required), transport=upstream.transport())
    message = {"event": "A", "userId": "u1", "context": {"consent": consent}}
    assert (await dispatch("segment_track", message, segment))["success"]
    assert json.loads(upstream.requests[0].content)["context"]["consent"] == consent


async def test_a_batch_may_tell_consent_once() -> None:
    segment = Segment(segment_settings(require_consent="true"), transport=accepting().transport())
    batch = {"batch": [{"type": "page", "userId": "u1"}], "context": {"consent": CONSENT}}
    assert (await dispatch("segment_batch", batch, segment))["success"]


async def test_the_connection_tests_event_agrees_to_nothing() -> None:
    with Sandbox() as sandbox:
        chosen = segment_settings(require_consent="true", data_plane_url=sandbox.url)
        async with Segment(chosen) as segment:
            assert (await dispatch("segment_test_connection", {"level": "send"}, segment))["messageId"]
        assert arrived(sandbox)[0]["context"]["consent"] == {"categoryPreferences": {}}

"""Whatever JSON a tool is given, its messages arrive exactly as asked, or nothing leaves and the field is named."""

import asyncio
import json
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from pydantic_core import to_json
from support import KEY, SENT_AT, Time, rows
from support import settings as segment_settings

from segment_tools import Segment, Settings, Transport, __version__
from segment_tools.functions import dispatch
from segment_tools.sandbox.run import Sandbox
from segment_tools.spec.timestamps import wire_timestamp

KINDS = ("track", "identify", "page", "screen", "group", "alias")
OWN = {
    "track": ("event", "properties"),
    "identify": ("traits",),
    "page": ("name", "category", "properties"),
    "screen": ("name", "category", "properties"),
    "group": ("groupId", "traits"),
    "alias": ("previousId",),
}
COMMON = ("userId", "anonymousId", "context", "integrations", "timestamp", "messageId")
NAMES = tuple(dict.fromkeys(["type", *COMMON, *(name for names in OWN.values() for name in names), "email"]))
TOOLS = (*KINDS, "batch")
LIBRARY = {"name": "segment-tools", "version": __version__}
SECRETS = (KEY, b64encode(KEY.encode()).decode(), b64encode(f"{KEY}:".encode()).decode())
COMPLETE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)

EXAMPLES = 40

repeatable = settings(
    deadline=None,
    derandomize=True,
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
each_tool = pytest.mark.parametrize("tool", TOOLS)


@dataclass(frozen=True)
class World:
    """One sandbox, its connections and one event loop, for every example; each has a client that knows no ids yet."""

    sandbox: Sandbox
    settings: Settings
    transport: Transport
    runner: asyncio.Runner

    def ask(self, tool: str, arguments: Mapping[str, Any] | str) -> dict[str, Any]:
        self.sandbox.store.clear()
        segment = Segment(self.settings, transport=self.transport, surroundings=Time().surroundings())
        return self.runner.run(dispatch(f"segment_{tool}", arguments, segment))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Sandbox() as sandbox, asyncio.Runner() as runner:
        chosen = segment_settings(data_plane_url=sandbox.url)
        transport = Transport(chosen.endpoint)
        yield World(sandbox, chosen, transport, runner)
        runner.run(transport.aclose())


def text_of_id(value: Any) -> str | None:
    assert not isinstance(value, bool)
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    return None if value in (None, "") else str(whole)


def text_or_absent(value: Any) -> Any:
    return None if value == "" else value


def json_or_absent(value: Any) -> Any:
    if isinstance(value, str):
        return json.loads(value) if value.strip() else None
    return value


READINGS = {
    **dict.fromkeys(("userId", "anonymousId", "groupId", "previousId", "messageId"), text_of_id),
    **dict.fromkeys(("event", "name", "category", "timestamp", "email"), text_or_absent),
    **dict.fromkeys(("properties", "traits", "context", "integrations"), json_or_absent),
}


def read(arguments: Mapping[str, Any], allowed: tuple[str, ...]) -> dict[str, Any]:
    """The arguments as documented: absent ones left out, the others in the form that is sent."""
    assert set(arguments) <= set(allowed)
    found = {name: READINGS[name](value) for name, value in arguments.items() if name != "type"}
    return {name: value for name, value in found.items() if value is not None}


def over(own: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    """The shared object completed with the message's own values, which win, at every depth but within consent."""
    common = {*own} & {*shared} - {"categoryPreferences"}
    both = {name for name in common if isinstance(own[name], dict) and isinstance(shared[name], dict)}
    return {**shared, **own, **{name: over(own[name], shared[name]) for name in both}}


def filled(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without those of a message, of whatever type, that are null or empty."""
    return {name: value for name, value in fields.items() if value not in (None, "") or name not in NAMES}


def asked_of_one(kind: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The message that a tool of one message was asked to send."""
    own = filled({name: value for name, value in arguments.items() if name != "writeKey" or value})
    assert own.pop("type", kind) == kind
    shortcuts = ("email", "name") if kind == "identify" else ()
    found = read(own, (*COMMON, *OWN[kind], *shortcuts))
    if traits := {name: found.pop(name) for name in shortcuts if name in found}:
        found["traits"] = {**found.get("traits", {}), **traits}
    return {"type": kind, **found}


def asked_of_batch(arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages that `segment_batch` was asked to send."""
    own = filled({name: value for name, value in arguments.items() if name != "writeKey" or value})
    items = [json_or_absent(item) for item in json_or_absent(own.pop("batch"))]
    shared = read(own, ("context", "integrations"))
    found = [{"type": item["type"], **read(item, ("type", *COMMON, *OWN[item["type"]]))} for item in map(filled, items)]
    for message in found:
        if "context" in shared:
            message["context"] = over(message.get("context", {}), shared["context"])
        if "integrations" in shared:
            message["integrations"] = {**shared["integrations"], **message.get("integrations", {})}
    return found


def exact(value: Any) -> str:
    """A text that differs where `1`, `1.0` and `true` do."""
    return json.dumps(value, sort_keys=True, indent=1)


def moment_of(text: str) -> datetime:
    found = datetime.fromisoformat(text.strip().upper())
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def assert_arrived(row: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    sent = dict(row["sent"])
    assert row["discarded"] is None
    if "messageId" not in asked:
        assert re.fullmatch(r"id-\d{8,}", sent.pop("messageId"))
    written, wanted = sent.pop("timestamp"), asked.get("timestamp", SENT_AT)
    assert COMPLETE.fullmatch(written)
    assert written == wanted or not COMPLETE.fullmatch(wanted)
    assert abs(moment_of(written) - moment_of(wanted)) < timedelta(milliseconds=1)
    context = {"library": LIBRARY, **asked.get("context", {})}
    rest = {name: value for name, value in asked.items() if name != "timestamp"}
    assert exact(sent) == exact({**rest, "context": context})


def assert_succeeded(world: World, tool: str, arguments: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    found = rows(world.sandbox)
    asked = asked_of_batch(arguments) if tool == "batch" else [asked_of_one(tool, arguments)]
    assert result["success"], result["error"]
    assert result["sent"]
    assert {row["path"] for row in found} == {f"/v1/{tool}"}
    for row, message in zip(found, asked, strict=True):
        assert_arrived(row, message)
    arrived = [row["sent"]["messageId"] for row in found]
    assert (result["messageIds"] if tool == "batch" else [result["messageId"]]) == arrived


def assert_refused(world: World, result: Mapping[str, Any]) -> None:
    error = result["error"]
    assert rows(world.sandbox) == []
    assert (result["sent"], result["statusCode"]) == (False, -1)
    assert error["code"] not in ("internal_error", "segment_error")
    for problem in error.get("problems", [error]):
        assert problem.get("field") or problem["message"].startswith("'' "), problem


def assert_safe_to_show(result: Mapping[str, Any]) -> None:
    """The output is JSON that any host can read, and holds no key."""
    shown = to_json(result).decode()
    json.dumps(result, allow_nan=False)
    assert not [secret for secret in SECRETS if secret in shown]


def outcome(world: World, tool: str, arguments: Mapping[str, Any], as_text: bool) -> str:
    """How the call ended, once it is proved that it ended well."""
    text = json.dumps(arguments)
    result = world.ask(tool, text if as_text else arguments)
    assert_safe_to_show(result)
    if result["success"]:
        assert_succeeded(world, tool, json.loads(text) if as_text else arguments, result)
        return "accepted"
    assert_refused(world, result)
    return f"refused: {result['error']['code']}"


any_text = st.text(st.characters(exclude_categories=()), max_size=8)
odd_texts = st.sampled_from(
    [
        "",
        " ",
        "\x00",
        "\x1c",
        "\ud800",
        "\ud83d\ude00",
        "{}",
        "[]",
        "null",
        "{",
        '{"a": 1}',
        '{"a": NaN}',
        '{"a": 1e400}',
        '{"\\ud800": 1}',
        "[" * 2000,
        "9" * 5000,
        "x" * 101,
        "x" * 33_000,
        "2024-01-15T10:30:00Z",
        "2024-01-15",
        "0001-01-01T00:00:00+14:00",
        "tomorrow",
        "track",
    ]
)
odd_numbers = st.sampled_from([0, -0.0, 1.0, 1.5, 1e22, 5e-324, 2**53 + 1, 2**64, 10**300, 10**300 + 1, -(10**400)])
any_scalar = st.none() | st.booleans() | st.integers() | st.floats() | odd_numbers | any_text | odd_texts


def nested(depth: int, name: str | None) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = [found] if name is None else {name: found}
    return found


any_depth = st.builds(nested, st.sampled_from([2, 4, 90, 99, 100, 101, 102, 300]), st.none() | any_text)
any_key = st.sampled_from(NAMES) | st.sampled_from(NAMES) | any_text
any_json = (
    st.recursive(
        any_scalar,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_key, inner, max_size=3),
        max_leaves=6,
    )
    | any_depth
)
any_fields = st.dictionaries(any_key, any_json, max_size=5)


def wild_arguments(tool: str) -> st.SearchStrategy[dict[str, Any]]:
    """Any JSON object, its names mostly those that the tool knows."""
    named = any_fields if tool == "batch" else st.dictionaries(any_key, any_json, max_size=6)
    kinds = st.sampled_from(KINDS) | any_json
    items = st.builds(lambda kind, fields: {"type": kind, **fields}, kinds, any_fields)
    batch = {"batch": st.lists(items | any_json, max_size=3) | any_json}
    odd = st.fixed_dictionaries(
        {}, optional={"writeKey": st.just(KEY) | any_json, "source": any_json, "sentAt": any_json}
    )
    own = st.fixed_dictionaries({}, optional=batch if tool == "batch" else {})
    return st.builds(lambda *parts: {name: value for part in parts for name, value in part.items()}, named, odd, own)


plain_text = st.text(max_size=20)
real_text = plain_text.filter(str.strip)
free_name = plain_text.filter(lambda name: name not in ("device", "advertisingId", "consent"))
finite = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers() | st.integers(-(10**300), 10**300) | st.sampled_from([10**300, -(10**300)])
plain_scalar = st.none() | st.booleans() | whole | finite | plain_text
plain_json = st.recursive(
    plain_scalar,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(free_name, inner, max_size=4),
    max_leaves=8,
) | st.builds(nested, st.sampled_from([3, 4, 90]), st.just("a"))
plain_object = st.dictionaries(free_name, plain_json, max_size=4)
absent = st.sampled_from([None, ""])
real_id = real_text | whole | finite.filter(lambda number: abs(number) < 1e300)
short_id = real_text | st.integers() | st.floats(-1e9, 1e9)
given_object = plain_object | plain_object.map(json.dumps) | absent | st.just(" ")
known_context = st.fixed_dictionaries(
    {},
    optional={
        "device": st.builds(
            lambda more, own: {**more, **own},
            plain_object,
            st.fixed_dictionaries({}, optional={"advertisingId": plain_text | st.none(), "model": plain_json}),
        ),
        "consent": st.none()
        | st.just({})
        | st.fixed_dictionaries(
            {"categoryPreferences": st.dictionaries(plain_text, st.booleans(), max_size=3)},
            optional={"source": plain_text},
        ),
        "ip": st.just("8.8.8.8") | plain_json,
        "library": st.just({"name": "mine"}) | plain_json,
        "traits": plain_json,
    },
)
context_object = st.builds(lambda more, known: {**more, **known}, plain_object, known_context)
given_context = context_object | context_object.map(json.dumps) | absent


@st.composite
def moments(draw: st.DrawFn) -> tuple[str, datetime]:
    """An ISO 8601 text and the moment it means."""
    zones = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59)).map(
        lambda offset: timezone(timedelta(minutes=offset // timedelta(minutes=1)))
    )
    moment = draw(st.datetimes(datetime(1000, 1, 2), datetime(9999, 12, 30), timezones=zones | st.just(UTC)))  # noqa: DTZ001
    day, zone = f"{moment:%Y-%m-%d}", moment.isoformat()[-6:]
    midnight = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    year, week, weekday = moment.isocalendar()
    to_the_second = moment.replace(microsecond=0)
    forms = [
        (moment.isoformat(), moment),
        (moment.isoformat(timespec="milliseconds"), moment.replace(microsecond=moment.microsecond // 1000 * 1000)),
        (moment.isoformat(" ").lower(), moment),
        (f" {moment.isoformat()}\n", moment),
        (moment.replace(tzinfo=None).isoformat(), moment.replace(tzinfo=UTC)),
        (moment.astimezone(UTC).isoformat().replace("+00:00", "Z"), moment),
        (moment.astimezone(UTC).isoformat().replace("+00:00", "z").replace("T", "t"), moment),
        (f"{moment:%Y%m%dT%H%M%S}{zone.replace(':', '')}", to_the_second),
        (f"{day}T{moment:%H:%M:%S},5{zone}", moment.replace(microsecond=500_000)),
        (f"{day}T{moment:%H:%M}{zone}", to_the_second.replace(second=0)),
        (f"{moment.isoformat(timespec='microseconds')[:-6]}789{zone}", moment),
        (f"{year:04}-W{week:02}-{weekday}", midnight),
        (day, midnight),
        (f"{date(moment.year, moment.month, moment.day):%Y%m%d}", midnight),
    ]
    return draw(st.sampled_from(forms))


given_time = moments().map(lambda found: found[0]) | absent
KNOWN_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "userId": real_id | absent,
    "anonymousId": real_id | absent,
    "messageId": short_id | absent,
    "context": given_context,
    "integrations": given_object,
    "timestamp": given_time,
    "name": real_text | absent,
    "category": real_text | absent,
    "email": real_text | absent,
    "properties": given_object,
    "traits": given_object,
}
REQUIRED: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "track": {"event": real_text},
    "group": {"groupId": real_id},
    "alias": {"userId": real_id, "previousId": real_id},
}


def valid_message(kind: str, more: tuple[str, ...] = ()) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments that a message of this type may have, its required ones and an id always among them."""
    required = REQUIRED.get(kind, {})
    names = [name for name in (*COMMON, *OWN[kind], *more) if name not in required]
    fields = st.fixed_dictionaries(required, optional={name: KNOWN_VALUES[name] for name in names})
    ids = st.fixed_dictionaries({"userId": real_id}) | st.fixed_dictionaries({"anonymousId": real_id})
    return st.builds(lambda known, identity: {**known, **identity}, fields, ids)


def with_ids_of_their_own(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages without every messageId that an earlier one has."""
    taken: set[str | None] = {None}
    found: list[dict[str, Any]] = []
    for message in messages:
        chosen = text_of_id(message.get("messageId"))
        found.append({name: value for name, value in message.items() if name != "messageId" or chosen not in taken})
        taken.add(chosen)
    return found


def typed(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    return valid_message(kind).map(lambda fields: {"type": kind, **fields})


def valid_arguments(tool: str) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments that the tool must take."""
    if tool != "batch":
        shortcuts = ("email", "name") if tool == "identify" else ()
        return valid_message(tool, shortcuts) | typed(tool)
    messages = st.lists(st.one_of(*map(typed, KINDS)), min_size=1, max_size=4).map(with_ids_of_their_own)
    some_as_text = st.builds(
        lambda found, chosen: [json.dumps(item) if number in chosen else item for number, item in enumerate(found)],
        messages,
        st.sets(st.integers(0, 3), max_size=2),
    )
    return st.fixed_dictionaries(
        {"batch": messages | messages.map(json.dumps) | some_as_text},
        optional={"context": given_context, "integrations": given_object},
    )


def changed(
    arguments: dict[str, Any], replaced: Mapping[str, Any], removed: set[str], place: int | None
) -> dict[str, Any]:
    """The arguments, or one message of their batch, with something else in place of some."""
    batch = arguments.get("batch")
    if place is None or not isinstance(batch, list) or not isinstance(batch[place % len(batch)], dict):
        return {name: value for name, value in {**arguments, **replaced}.items() if name not in removed}
    inside = list(batch)
    inside[place % len(batch)] = changed(batch[place % len(batch)], replaced, removed, None)
    return {**arguments, "batch": inside}


def near_valid_arguments(tool: str) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments that the tool would take, but for a value or two."""
    return st.builds(
        changed,
        valid_arguments(tool),
        st.dictionaries(any_key, any_json, max_size=2),
        st.sets(st.sampled_from(NAMES), max_size=1),
        st.none() | st.integers(0, 3),
    )


@each_tool
@repeatable
@given(data=st.data(), as_text=st.booleans())
def test_any_json_arrives_exactly_or_is_refused_by_field(
    world: World, tool: str, data: st.DataObject, as_text: bool
) -> None:
    event(outcome(world, tool, data.draw(wild_arguments(tool)), as_text))


@each_tool
def test_arguments_with_one_thing_wrong_arrive_exactly_or_are_refused_by_field(world: World, tool: str) -> None:
    outcomes: Counter[str] = Counter()

    @repeatable
    @given(arguments=near_valid_arguments(tool), as_text=st.booleans())
    def every(arguments: dict[str, Any], as_text: bool) -> None:
        found = outcome(world, tool, arguments, as_text)
        outcomes[found.partition(":")[0]] += 1
        event(found)

    every()
    assert min(outcomes["accepted"], outcomes["refused"]) >= EXAMPLES // 8, outcomes


@each_tool
@repeatable
@given(data=st.data(), as_text=st.booleans())
def test_every_valid_call_succeeds_and_arrives_exactly(
    world: World, tool: str, data: st.DataObject, as_text: bool
) -> None:
    arguments = data.draw(valid_arguments(tool))
    result = world.ask(tool, json.dumps(arguments) if as_text else arguments)
    assert_safe_to_show(result)
    assert_succeeded(world, tool, arguments, result)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    "field", ["\ud800", "", "\x00", "user id", "userID", "__proto__", "model_config", "x" * 5000, "{field}"]
)
def test_an_unknown_field_is_named_whatever_its_name(world: World, tool: str, field: str) -> None:
    message = {"userId": "u1", "event": "A", "groupId": "g", "previousId": "p"}
    fields = {name: value for name, value in message.items() if tool != "batch" and name in (*COMMON, *OWN[tool])}
    known = {"batch": [{"type": "page", "userId": "u1"}]} if tool == "batch" else fields
    for as_text in (False, True):
        assert outcome(world, tool, {**known, field: 1}, as_text).startswith("refused")
    inside = {"batch": [{"type": "page", "userId": "u1", field: 1}]}
    assert outcome(world, "batch", inside, False).startswith("refused")


DROPPED_FOR = [
    {"device": {"advertisingId": 5}},
    {"device": {"advertisingId": ["7A3CBEA0"]}},
    {"consent": 5},
    {"consent": "yes"},
    {"consent": [True]},
    {"consent": {"categories": {"Advertising": True}}},
    {"consent": {"categoryPreferences": None}},
    {"consent": {"categoryPreferences": []}},
    {"consent": {"categoryPreferences": {"Advertising": "yes"}}},
    {"consent": {"categoryPreferences": {"Advertising": 1}}},
    {"consent": {"categoryPreferences": {"Advertising": None}}},
]


@pytest.mark.parametrize("context", DROPPED_FOR, ids=str)
@pytest.mark.parametrize("place", ["message", "item", "shared", "shared and item"])
def test_a_context_that_segment_drops_messages_for_is_refused(
    world: World, context: dict[str, Any], place: str
) -> None:
    message: dict[str, Any] = {"type": "track", "event": "Order Completed", "userId": "u1"}
    whole_item = {**message, "context": context}
    shared = {"batch": [message], "context": context}
    tool, arguments = {
        "message": ("track", whole_item),
        "item": ("batch", {"batch": [whole_item]}),
        "shared": ("batch", shared),
        "shared and item": ("batch", {**shared, "batch": [{**message, "context": {"ip": "8.8.8.8"}}]}),
    }[place]
    assert outcome(world, tool, arguments, False) == "refused: invalid_value"


@pytest.mark.parametrize("size", [32_767, 32_768, 32_769])
@pytest.mark.parametrize("filler", ["x", "é", "🎉", "\x01", '"', "\u2028"])
@pytest.mark.parametrize("numbers", [[], [1e16, 1e22, 1e-7, -0.0, 1.0]], ids=["text", "numbers"])
def test_an_item_of_a_batch_as_large_as_segment_takes_arrives(
    world: World, size: int, filler: str, numbers: list[float]
) -> None:
    message: dict[str, Any] = {"type": "track", "event": "A", "userId": "u1", "messageId": "m" * 36}
    fields = {"timestamp": SENT_AT, "properties": {"numbers": numbers, "text": ""}, "context": {"library": LIBRARY}}
    item = {**message, **fields}
    room = size - len(to_json(item))
    each = len(to_json(filler)) - 2
    item["properties"]["text"] = filler * (room // each) + "x" * (room % each)
    assert len(to_json(item)) == size
    assert outcome(world, "batch", {"batch": [item]}, False) == ("accepted" if size <= 32_768 else "refused: too_large")


@repeatable
@given(found=moments())
@example(found=("2024-02-29T23:59:59.999999-00:01", datetime(2024, 3, 1, 0, 0, 59, 999999, UTC)))
@example(found=("2024-01-15T10:30:00+05:30:15", datetime(2024, 1, 15, 4, 59, 45, tzinfo=UTC)))
@example(found=("2024-01-15T10Z", datetime(2024, 1, 15, 10, tzinfo=UTC)))
def test_a_timestamp_keeps_its_moment(found: tuple[str, datetime]) -> None:
    text, moment = found
    written = wire_timestamp(text)
    assert COMPLETE.fullmatch(written)
    assert abs(datetime.fromisoformat(written) - moment) < timedelta(milliseconds=1)
    assert wire_timestamp(written) == written
    assert written == text or not COMPLETE.fullmatch(text)

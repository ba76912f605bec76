"""The quick look at a row and the full one: whatever the first lets pass, the second would, too, as the same JSON."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as chosen
from hypothesis import strategies as st
from support import settings
from test_credentials import CARDS as WRITTEN_CARDS
from test_credentials import TOKENS

from segment_tools.bulk.naming import Naming
from segment_tools.bulk.plain import Part, Plain, View
from segment_tools.bulk.rows import Judge
from segment_tools.client import Segment
from segment_tools.errors import InvalidMessage

BEGAN = "2026-11-23T12:00:00.123Z"
CARD = "4111 1111 1111 1111"
TOKEN = "ghp_" + "a1" * 18


MEANS = Segment(settings()).means


def _plain() -> Plain:
    means = MEANS
    return Plain(means.settings, means.sender.secrets, means.sender.quiet, Naming("events.jsonl", "key"), BEGAN)


def _looks(**values: Any) -> tuple[Callable[[bytes], Part | None], Callable[[bytes], Part]]:
    """The quick look, and the full one, under these settings."""
    means = Segment(settings(**values)).means
    naming = Naming("events.jsonl", "key")
    plain = Plain(means.settings, means.sender.secrets, means.sender.quiet, naming, BEGAN)
    judge = Judge(means.settings, means.outside, means.sender, means.guard, naming, BEGAN)
    return lambda row: plain.parts(7, [row])[0], lambda row: asyncio.run(judge.full(7, row))


quick, full = _looks()


def _known(view: View) -> tuple[str, str, list[str]]:
    return view.kind, view.event, sorted(view.codes)


def _told(part: Part | None) -> tuple[object, ...] | None:
    return part and (*part[:3], _known(part[3]))


def agree(row: bytes) -> bool:
    """Whether the quick look took the row; if so, the full one makes the same of it.

    It takes the same rows, as the same, whether it has learnt of this kind, of a kind like it, or of none.
    """
    part, plain, other = quick(row), _plain(), _plain()
    other.parts(7, [encoded(GOOD)])
    first, again, among = (each.parts(7, [row])[0] for each in (plain, plain, other))
    assert _told(part) == _told(first) == _told(again) == _told(among), row
    if part is None:
        return False
    number, body, lane, view = part
    same_number, same_body, same_lane, same_view = full(row)
    assert json.loads(body) == json.loads(same_body), row
    assert (number, lane, _known(view)) == (same_number, same_lane, _known(same_view)), row
    return True


GOOD: dict[str, Any] = {
    "type": "track",
    "event": "Order Completed",
    "userId": "user_42",
    "timestamp": "2026-02-14T11:30:07.879Z",
    "properties": {"order_id": "o1", "total": 47.224524357611664, "currency": "USD", "products": [{"price": 1.5}]},
    "context": {"ip": "10.0.0.1", "page": {"url": "https://example.com"}, "campaign": {"name": "spring"}},
}


def encoded(fields: Any, *, compact: bool = True, ascii_only: bool = False) -> bytes:
    separators = (",", ":") if compact else (", ", ": ")
    return json.dumps(fields, separators=separators, ensure_ascii=ascii_only).encode(errors="surrogatepass")


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize(
    "other",
    [
        {},
        {"context": None},
        {"timestamp": None},
        {"messageId": "1234567890"},
        {"messageId": "1234567890", "timestamp": None, "context": None},
        {"userId": None, "anonymousId": "a1"},
        {"integrations": {"All": False, "Heap": True}},
        {"context": {"library": {"name": "other"}}},
        {"type": "identify", "event": None, "properties": None, "traits": {"createdAt": "2024-01-01", "plan": "pro"}},
        {"type": "group", "event": None, "properties": None, "groupId": "g1"},
        {"type": "page", "event": None, "name": "Home", "category": "Docs"},
        {"type": "screen", "event": None, "name": "Home"},
        {"event": "order_completed"},
        {"event": "Zażółć gęślą"},
        {"properties": {"orderId": "1", "revenue": 1}},
    ],
)
def test_ordinary_rows_are_plain(other: dict[str, Any], compact: bool) -> None:
    fields = {name: value for name, value in {**GOOD, **other}.items() if value is not None}
    assert agree(encoded(fields, compact=compact))
    assert agree(encoded(fields, compact=compact, ascii_only=True))


ODD: list[bytes] = [
    b"",
    b"{}",
    b"null",
    b"[]",
    b'"text"',
    b"{",
    b"\xff",
    b"\xef\xbb\xbf" + encoded(GOOD),
    encoded(GOOD) + b"\r",
    b" " + encoded(GOOD),
    encoded(GOOD)[:-1],
    encoded(GOOD) + encoded(GOOD),
    encoded(GOOD).replace(b'"user_42"', b'"user_42","userId":"other"'),
    encoded(GOOD).replace(b'"user_42"', b'"user_42","userId":""'),
    encoded(GOOD).replace(b'"user_42"', b'"user_42","\\u0075serId":"other"'),
    encoded(GOOD).replace(b'"event":"Order Completed"', b'"event":"Order Completed","event":"Other"'),
    encoded(GOOD).replace(b'"event":"Order Completed"', b'"event":"Other","event":"Order Completed"'),
    encoded(GOOD).replace(b'"event":"Order Completed",', b""),
    encoded(GOOD).replace(b'"type":"track",', b""),
    encoded(GOOD).replace(b'"price":1.5', b'"price":"x","price":1.5'),
    encoded(GOOD).replace(b'"price":1.5', b'"price":1.5,"price":"x"'),
    encoded(GOOD).replace(b'[{"price":1.5}]', b'[{"price":1.5},{"price":"x"}]'),
    encoded(GOOD).replace(b'[{"price":1.5}]', b'[{"price":1.5},{"Price":1.5},{}]'),
    encoded(GOOD).replace(b'[{"price":1.5}]', b'[{"price":"x"}]'),
    encoded(GOOD).replace(b'[{"price":1.5}]', b"[{}]"),
    encoded(GOOD).replace(b'[{"price":1.5}]', b"[]"),
    encoded(GOOD).replace(b'[{"price":1.5}]', b'{"price":1.5}'),
    encoded(GOOD).replace(b'"total":47.224524357611664', b'"total":"47.2"'),
    encoded(GOOD).replace(b'"total":47.224524357611664', b'"total":null'),
    encoded(GOOD).replace(b'"total":47.224524357611664', b'"total":{"a":[1]}'),
    encoded(GOOD).replace(b'"context":{', b'"context":{"locale":"a"},"context":{'),
    encoded(GOOD).replace(b'"context":{', b'"context":{"locale":"a"},"\\u0063ontext":{'),
    encoded(GOOD).replace(b'"context":{', b'"context": \t{'),
    encoded(GOOD).replace(b'"type":"track"', b'"type":"identify","type":"track"'),
    encoded(GOOD).replace(b'"type":"track"', b'"type":"track","type":"identify"'),
    encoded(GOOD).replace(b'"total":', b'"total":"x","total":'),
    encoded(GOOD).replace(b'"USD"', b"NaN"),
    encoded(GOOD).replace(b'"USD"', b"1e999"),
    encoded(GOOD).replace(b'"USD"', b"-0.0"),
    encoded(GOOD).replace(b'"USD"', b"1" * 400),
    encoded(GOOD).replace(b'"USD"', b"18446744073709551616"),
    encoded(GOOD).replace(b'"USD"', b'"\\ud800"'),
    encoded(GOOD).replace(b'"USD"', b'"\xed\xa0\x80"'),
    encoded(GOOD).replace(b'"USD"', b'"a\nb"'),
    encoded(GOOD).replace(b'"USD"', b'"a\x00b"'),
    encoded(GOOD).replace(b'"USD"', b"[" * 150 + b"]" * 150),
    encoded(GOOD).replace(b'"USD"', b"[" * 5000 + b"]" * 5000),
    encoded(GOOD).replace(b'"USD"', b'{"a":{"b":{"c":1}}}'),
    encoded(GOOD).replace(b'"USD"', b"4111111111111111"),
    encoded(GOOD).replace(b'"USD"', b"4111111111111111.0"),
    encoded(GOOD).replace(b'"USD"', b"4.111111111111111e15"),
    encoded({**GOOD, "properties": {"note": f"card {CARD}"}}),
    encoded({**GOOD, "properties": {"note": CARD.replace(" ", "-")}}),
    encoded({**GOOD, "properties": {"note": CARD.replace(" ", "")}}),
    encoded({**GOOD, "properties": {"note": "3782 822463 10005"}}),
    encoded({**GOOD, "properties": {"note": "a\n4111111111111111"}}),
    encoded({**GOOD, "properties": {CARD: 1}}),
    encoded({**GOOD, "properties": {"note": TOKEN}}),
    encoded({**GOOD, "properties": {TOKEN: 1}}),
    encoded({**GOOD, "userId": TOKEN}),
    encoded({**GOOD, "properties": {"note": TOKEN}}).replace(b"ghp_", b"\\u0067hp_"),
    encoded({**GOOD, "properties": {"n": "https://hooks.slack.com/services/T01/B02/abcdefghijklmnop"}}).replace(
        b"/", b"\\/"
    ),
    *(
        encoded({**GOOD, **other})
        for other in (
            {"userId": " "},
            {"userId": "\u2003"},
            {"userId": "", "anonymousId": ""},
            {"userId": 42},
            {"userId": "a@example.com"},
            {"userId": None},
            {"event": " "},
            {"event": ""},
            {"event": None},
            {"groupId": None},
            {"groupId": "g1"},
            {"colour": "red"},
            {"timestamp": "2026-02-14"},
            {"timestamp": "2026-02-14 11:30:07"},
            {"timestamp": "2026-02-14 11:30:07Z"},
            {"timestamp": "2026-02-14t11:30:07z"},
            {"timestamp": "2026-02-14T11:30:07+01:00"},
            {"timestamp": "2026-02-14T11:30:07+0100"},
            {"timestamp": "2026-02-14T11:30:07+01"},
            {"timestamp": "2026-02-14T11:30:07-24:00"},
            {"timestamp": "2026-02-14T24:00:00Z"},
            {"timestamp": "2026-02-14T11:30:60Z"},
            {"timestamp": "2026-02-14T11:30Z"},
            {"timestamp": "2026-02-14T11:30:07.1234567890123Z"},
            {"timestamp": "2099-02-14T11:30:07Z"},
            {"timestamp": "1969-02-14T11:30:07Z"},
            {"timestamp": "0001-01-01T00:00:00+10:00"},
            {"timestamp": "9999-12-31T23:59:59-10:00"},
            {"timestamp": "2026-W07-6T11:30:07Z"},
            {"timestamp": 1700000000},
            {"timestamp": ""},
            {"messageId": "short"},
            {"messageId": " " * 20},
            {"messageId": "m" * 99},
            {"messageId": "m" * 100},
            {"messageId": "m" * 101},
            {"messageId": 12345678},
            {"integrations": {"all": True}},
            {"integrations": {"Heap": 1}},
            {"integrations": {"Heap": {"a": 1}}},
            {"integrations": "All"},
            {"properties": "{}"},
            {"properties": []},
            {"properties": None},
            {"properties": {"revenue": "12"}},
            {"properties": {"products": [{"price": "12"}]}},
            {"properties": {"products": [{"Price": 12}]}},
            {"properties": {"products": []}},
            {"properties": {"currency": "usd"}},
            {"properties": {"currency": ["USD"]}},
            {"properties": {"at": "2026-02-14 11:30:07"}},
            {"properties": {"at": "2026-02-14T11:30"}},
            {"properties": {"at": "2026-02-14T11:30:07.123456"}},
            {"properties": {f"p{at}": at for at in range(301)}},
            {"properties": {"x" * 200: 1}},
            {"properties": {"text": "x" * 33_000}},
            {"context": {}},
            {"context": "x"},
            {"context": {"library": None}},
            {"context": {"groupId": ""}},
            {"context": {"groupId": "g"}},
            {"context": {"ip": 1}},
            {"context": {"own": 1}},
            {"context": {"device": {"advertisingId": 1}}},
            {"context": {"consent": {"categoryPreferences": {"Ads": True}}}},
            {"context": {"consent": {"categoryPreferences": {"Ads": 1}}}},
            {"context": {"consent": {}}},
            {"context": {"traits": {"a": {"b": {"c": 1}}}}},
            {"context": {"timezone": "Europe/Berlin"}, "properties": {"at": "2026-02-14 11:30:07"}},
            {"context": {"userAgentData": {"brands": [{"brand": "x"}]}}},
            {"properties": {"context": {"a": 1}}},
            {"properties": {"context": {"library": 1}}, "context": {"locale": "de"}},
            {"type": "alias", "event": None, "previousId": "old"},
            {"type": "Track"},
            {"type": None},
        )
    ),
    *(
        encoded({"type": "identify", "userId": "u1", "traits": traits})
        for traits in (
            {"createdAt": "soon"},
            {"createdAt": 1_700_000_000},
            {"created_at": ""},
            {"createdAt": None},
            {"firstName": "a", "last_name": "b"},
            {"email": "a@example.com"},
        )
    ),
    *(encoded({"type": "group", "userId": "u1", "groupId": name}) for name in ("", " ", "g" * 501, 7)),
    *(encoded({"type": "page", "userId": "u1", "name": name}) for name in ("", " ", 7, "\u00a0")),
]


@pytest.mark.parametrize("row", ODD, ids=range(len(ODD)))
def test_odd_rows_are_not_plain_or_the_same(row: bytes) -> None:
    agree(row)


BEFORE = ["", " ", "x", "_", ".", "-", "#", "/", "é", "\n", "\t", '"', "\\", "\u2000", "\u0600", "1", "a ", ":"]
AFTER = ["", " ", "x", "_", ".", ".5", ",", ",5", "-", "-5", "é", "\n", '"', "\\", "\u2000", "1", ")"]
CARDS = ["4111111111111111", "5500005555555559", "378282246310005", "30569309025904", "6759649826438453"]


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("before", BEFORE)
def test_cards_in_any_surroundings_are_not_plain_or_the_same(card: str, before: str) -> None:
    for after in AFTER:
        for ascii_only in (False, True):
            for properties in ({"note": f"{before}{card}{after}"}, {f"{before}{card}{after}": 1}):
                agree(encoded({**GOOD, "properties": properties}, ascii_only=ascii_only))


@pytest.mark.parametrize("number", [*CARDS, *(f"-{card}" for card in CARDS), "6303999999999999.99"])
def test_cards_as_numbers_are_not_plain_or_the_same(number: str) -> None:
    for end in ("", ".0", ".00000", ".25", "0", "00000", "e0", "0e-1"):
        for space in ("", " ", "\t"):
            value = f"{space}{number}{end if '.' not in number else ''}{space}".encode()
            agree(encoded(GOOD).replace(b'"o1"', value))
            agree(encoded(GOOD).replace(b'"o1"', b"[1," + value + b"]"))
            agree(encoded(GOOD).replace(b'"order_id":"o1"', b'"note":' + value))


def test_ids_of_digits_alone_are_plain() -> None:
    for name in ("1748520139481726", "1234567890123456789", "17485201394817", "a4111111111111111"):
        assert agree(encoded({**GOOD, "properties": {"cart": name}}))


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_a_row_is_told_the_same_among_others(odd: bytes) -> None:
    plain = _plain()
    good = encoded(GOOD)
    for rows in ([good, odd, good], [odd, good, odd]):
        assert plain.parts(7, rows) == [plain.parts(7 + at, [row])[0] for at, row in enumerate(rows)]


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(
        [CARD, TOKEN, "", " ", "12.5", "USD", "usd", "2026-02-14 11:30:07", "2026-02-14", 4111111111111111]
    ),
)
values = st.recursive(
    scalars, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3)
)
names = st.sampled_from(
    [
        "revenue",
        "price",
        "currency",
        "products",
        "total",
        "orderId",
        "order_id",
        "createdAt",
        "created_at",
        "firstName",
        "last_name",
        "email",
        "name",
    ]
)
objects = st.dictionaries(names | st.text(max_size=5), values, max_size=6)
contexts = st.dictionaries(
    st.sampled_from(
        ["ip", "locale", "library", "page", "device", "groupId", "timezone", "consent", "traits", "campaign", "own"]
    ),
    values | objects | st.fixed_dictionaries({"name": st.text(max_size=5)}),
    max_size=4,
)
times = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.datetimes().map(lambda moment: moment.isoformat(" ")),
    st.from_regex(
        r"20[0-9]{2}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-5][0-9](:[0-6][0-9](\.[0-9]{1,9})?)?"
        r"(Z|z|[+-][0-9]{2}:?[0-9]{2})?",
        fullmatch=True,
    ),
)
messages = st.fixed_dictionaries(
    {"type": st.sampled_from(["track", "identify", "page", "screen", "group", "alias", "other"])},
    optional={
        "event": st.sampled_from(["Order Completed", "order_completed", "Signed Up", " ", "Own"]) | st.text(max_size=9),
        "userId": st.text(max_size=9) | scalars,
        "anonymousId": st.text(max_size=9),
        "previousId": st.text(max_size=9),
        "groupId": st.text(max_size=9),
        "name": st.text(max_size=9),
        "messageId": st.text(min_size=5, max_size=12),
        "timestamp": times | st.text(max_size=5),
        "properties": objects,
        "traits": objects,
        "context": contexts,
        "integrations": st.dictionaries(st.sampled_from(["All", "all", "Heap", "heap", "Own"]), scalars, max_size=2),
    },
)


@chosen(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@example({**GOOD, "properties": {"context": {"ip": "1"}}}, True, False)
@given(messages, st.booleans(), st.booleans())
def test_what_the_quick_look_takes_the_full_look_makes_the_same_of(
    message: dict[str, Any], compact: bool, ascii_only: bool
) -> None:
    agree(encoded(message, compact=compact, ascii_only=ascii_only))
    agree(encoded({**GOOD, **message, "type": GOOD["type"]}, compact=compact, ascii_only=ascii_only))


@chosen(max_examples=400, deadline=None, derandomize=True)
@given(
    st.integers(0, len(encoded(GOOD))), st.integers(0, 6), st.binary(max_size=6) | st.text(max_size=6).map(str.encode)
)
def test_rows_with_a_place_overwritten_are_not_plain_or_the_same(at: int, length: int, put: bytes) -> None:
    row = encoded(GOOD)
    agree(row[:at] + put + row[at + length :])


@pytest.mark.parametrize("value", [*TOKENS, *WRITTEN_CARDS], ids=range(len(TOKENS) + len(WRITTEN_CARDS)))
@pytest.mark.parametrize("ascii_only", [True, False])
def test_whatever_is_a_secret_is_for_the_full_look(value: object, ascii_only: bool) -> None:
    row = encoded({**GOOD, "properties": {"note": value}}, ascii_only=ascii_only)
    assert quick(row) is None
    with pytest.raises(InvalidMessage):
        full(row)


@pytest.mark.parametrize("text", ["Grüße", "Привет", "你好", "ÀÉÎ", "😀", "naïve café"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_letters_of_the_world_are_plain(text: str, ascii_only: bool) -> None:
    assert agree(encoded({**GOOD, "properties": {"note": text}}, ascii_only=ascii_only))
    assert agree(encoded({**GOOD, "properties": {text: 1}}, ascii_only=ascii_only))
    assert agree(encoded({**GOOD, "event": text}, ascii_only=ascii_only))


@pytest.mark.parametrize("event", ["Grüße", "Привет", "Order Completed", 'Said "Hi"', "a\\b"])
def test_what_was_learnt_of_one_event_is_not_taken_for_another(event: str) -> None:
    row = encoded({**GOOD, "event": event})
    for nameless in (encoded({**GOOD, "event": ""}), encoded({**GOOD, "event": None})):
        plain = _plain()
        assert plain.parts(1, [row, nameless])[1] is None
        assert plain.parts(7, [nameless]) == [None]
    for other in ("Grüss", "Пока", "Order", 'Said "Ho"', "a\\c", "Order Completed "):
        renamed = encoded({**GOOD, "event": other})
        twice = renamed.replace(b'"event"', b'"event":%b,"event"' % encoded(event))
        for each in (renamed, twice):
            plain = _plain()
            plain.parts(1, [row])
            (part,) = plain.parts(7, [each])
            assert part is not None
            assert part[3].event == other


def test_rows_are_told_the_same_when_their_kinds_change_on_the_way() -> None:
    kinds: list[dict[str, Any]] = [
        {},
        {"event": "Signed Up", "properties": {"plan": "pro"}},
        {"properties": {"total": 1}},
        {"event": "Signed Up", "properties": {}},
        {"type": "identify", "event": None, "properties": None, "traits": {"plan": "pro"}},
        {"properties": {"total": "1"}},
        {"integrations": {"All": False}},
    ]
    plain = _plain()
    for turn in range(300):
        other = kinds[turn * turn % 97 % len(kinds)]
        fields = {name: value for name, value in {**GOOD, **other}.items() if value is not None}
        row = encoded({**fields, "userId": f"u{turn}"})
        assert [_told(part) for part in plain.parts(turn, [row])] == [
            _told(part) for part in _plain().parts(turn, [row])
        ]


def test_own_keys_in_rows_are_found_by_both_looks() -> None:
    key = "wk/with+signs_and-a-long-tail==42"
    quick, full = _looks(write_key=key)
    for text in (key, key.replace("/", "\\/"), f"a {key} b"):
        row = encoded({**GOOD, "properties": {"note": "PLACE"}}).replace(b"PLACE", text.encode())
        assert quick(row) is None
        with pytest.raises(InvalidMessage) as error:
            full(row)
        assert error.value.code == "secret_in_message"


@pytest.mark.parametrize(
    "values",
    [
        {"redact": '{"email": "drop"}'},
        {"require_consent": True},
        {"allow_events": "Order *"},
        {"deny_events": "Order *"},
    ],
)
def test_settings_that_ask_for_the_full_look_get_it(values: dict[str, Any]) -> None:
    assert _looks(**values)[0](encoded(GOOD)) is None


@pytest.mark.parametrize("key", ["abcdef123456", "whpass8chr", "k9x-w7ab"])
def test_short_secrets_of_the_server_are_found_by_both_looks(key: str) -> None:
    quick, full = _looks(webhook_secret=key)
    row = encoded({**GOOD, "properties": {"note": key}})
    assert quick(row) is None
    with pytest.raises(InvalidMessage):
        full(row)


@pytest.mark.parametrize("blank", [" ", "\u00a0", "\u3000", "\u2028", "\n"])
def test_a_blank_id_beside_another_is_for_the_full_look(blank: str) -> None:
    assert quick(encoded({**GOOD, "anonymousId": blank})) is None

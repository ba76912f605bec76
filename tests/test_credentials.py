"""What is plainly a secret is refused with its field's name and without its value; what only resembles one passes."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Mapping
from itertools import cycle, islice
from timeit import repeat
from typing import Any

import pytest
from support import KEY, WAIT, accepting, facts, mcp, settings

from segment_tools import Segment
from segment_tools.functions import dispatch
from segment_tools.spec.credentials import Secrets

pytestmark = pytest.mark.anyio


def tail(length: int, letters: str = "aB3dE6gH9jK2mN5pQ8sT1vW4xY7z") -> str:
    """What is random in a token. Put to its beginning here alone, so that no scanner takes this file for a leak."""
    return "".join(islice(cycle(letters), length))


HEX, UPPER = "0123456789abcdef", "ABCDEFGHIJ234567"
PEM = "PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END "
JWT = f"eyJ{tail(20)}.eyJ{tail(40)}.{tail(43)}"

TOKENS = [
    "-----BEGIN " + PEM,
    "-----BEGIN RSA " + PEM,
    "-----BEGIN OPENSSH " + PEM,
    "-----BEGIN EC " + PEM,
    "-----BEGIN PGP PRIVATE KEY " + "BLOCK-----",
    "AKIA" + tail(16, UPPER),
    "ASIA" + tail(16, UPPER),
    "the key is AKIA" + tail(16, UPPER) + ", keep it",
    "https://x.example/?key%3DAKIA" + tail(16, UPPER),
    'aws_secret_access_key = "' + tail(40) + '"',
    "AccountKey=" + tail(86) + "==",
    "ghp_" + tail(36),
    "gho_" + tail(36),
    "ghs_" + tail(36),
    "github_pat_" + tail(82),
    "glpat-" + tail(20),
    "xoxb-" + tail(12, "0123456789") + "-" + tail(24),
    "xoxp-" + tail(40, "0123456789-"),
    "xapp-1-A0123-" + tail(12, "0123456789") + "-" + tail(64, HEX),
    "https://hooks.slack.com/services/T" + tail(8, UPPER) + "/B" + tail(8, UPPER) + "/" + tail(24),
    "sk_live_" + tail(24),
    "sk_test_" + tail(99),
    "rk_live_" + tail(24),
    "whsec_" + tail(32),
    "sk-" + tail(48),
    "sk-proj-" + tail(120),
    "sk-ant-api03-" + tail(95),
    "Bearer sk-or-v1-" + tail(64, HEX),
    "AIza" + tail(35),
    "GOCSPX-" + tail(28),
    "ya29." + tail(60),
    "hf_" + tail(34, "abcdEFGH"),
    "npm_" + tail(36),
    "pypi-AgE" + tail(120),
    "SG." + tail(22) + "." + tail(43),
    "sgp_" + tail(64),
    "shpat_" + tail(32, HEX),
    "dop_v1_" + tail(64, HEX),
    JWT,
    f"Authorization: Bearer {JWT}",
    json.dumps({"auth": {"token": "ghp_" + tail(36)}}),
    json.dumps({"text": "first\nAKIA" + tail(16, UPPER)}),
    "glrt-" + tail(20),
    "hvs." + tail(95),
    "ATATT3xFfGF0" + tail(180),
    "NRAK-" + tail(27, UPPER),
    "lin_api_" + tail(40),
    "pplx-" + tail(48),
    "gsk_" + tail(52),
    "xai-" + tail(80),
    "PuTTY-User-Key-File-3: ssh-ed25519",
    "postgres://admin:hunter2@db.example/prod",
    "mongodb+srv://app:p%40ss@cluster.example",
    "redis://:hunter2@cache.example:6379/0",
    "Authorization: Basic " + b64encode(b"jane:hunter2-and-more").decode(),
    "AK\u200bIA" + tail(16, UPPER),
    "AKIA" + tail(8, UPPER) + "\u2060" + tail(8, UPPER),
    "\uff21KIA" + tail(16, UPPER),
    KEY,
    f"my key is {KEY}.",
    b64encode(f"{KEY}:".encode()).decode(),
]
CARDS = [
    "4111111111111111",
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "pay with 4012888888881881 please",
    "4242 4242 4242 4242 12/27 123",
    "4242 4242 4242 4242 1227",
    "5555555555554444",
    "5105 1051 0510 5100",
    "2223003122003222",
    "378282246310005",
    "3714 496353 98431",
    "3782-822463-10005",
    "6011111111111117",
    "6011 0009 9013 9424",
    "3530111333300000",
    "30569309025904",
    "3852 000002 3237",
    "6200000000000005",
    "6759649826438453",
    "2200000000000004",
    "Visa:4111111111111111;",
    '{"pan":"4111111111111111"}',
    "https://x.example/?card=4111111111111111&x=1",
    "visa-4111 1111 1111 1111",
    "card-4111111111111111",
    "card_4111111111111111",
    "myCard-4111111111111111",
    "#4111111111111111",
    "-4111111111111111",
    "4111111111111111,123",
    "4111111111111111-12-25",
    "4111111111111111-12/2027",
    "4111-1111-1111-1111-12-25",
    "4111\u00a01111\u00a01111\u00a01111",
    "4111\u20131111\u20131111\u20131111",
    "4111.1111.1111.1111",
    "4111  1111  1111  1111",
    "4111_1111_1111_1111",
    "\uff14111 1111 1111 1111",
    "\u0664111111111111111",
    "4111\u200b1111\u200b1111\u200b1111",
    "%B4111111111111111^DOE/JOHN^2512101",
    ";4111111111111111=25121010000012300000?",
    4111111111111111,
    5555555555554444.0,
    ["4111111111111111"],
]
HARMLESS = [
    "550e8400-e29b-41d4-a716-446655440000",
    "41111111-1111-4111-8111-111111111111",
    "ABCDEF01-1234-4567-8901-123456789012",
    "4111111111111112",
    "1234567890123456",
    "0000000000000000",
    "9999999999999995",
    "4006381333931",
    "4012345678901",
    "9780306406157",
    "04012345123456",
    "DE89 3704 0044 0532 0130 00",
    "DE89370400440532013000",
    "GB29 NWBK 6016 1331 9268 19",
    "NO93 8601 1117 947",
    "FR14 2004 1010 0505 0001 3M02 606",
    "AT61 4111 1111 1111 1111",
    "+4915112345678901",
    "+49 30 901820",
    "+1 (555) 123-4567",
    "0049 151 1234 5678",
    "20260115103000",
    "2026-11-23T12:00:00.123Z",
    "1700000000000",
    1700000000000,
    1700000000000000,
    1700000000000000000,
    "1700000000000000000",
    "GA1.2.4929123412.1700000000",
    "fb.1.1554763741205.AbCdEfGhIjKlMnOp",
    "fb.1.1554763741205.4111111111111111",
    "1234567890.4111111111111111",
    "ord-4111111111111111",
    "ORDER_4111111111111111",
    "https://shop.example/orders/4111111111111111",
    "4111111111111111a",
    "a4111111111111111",
    "4111111111111111.5",
    "41111111111111111111",
    "4111 1111 1111",
    "35-209900-176148-1",
    "352099001761481",
    "358240051111110",
    "490154203237518",
    "89014103211118510720",
    "1Z999AA10123456784",
    "9400 1000 0000 0000 0000 00",
    "8f14e45fceea167a5a36dedd4bea2543",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "AEBE52E7-03EE-455A-B3C4-E57283966239",
    "38400000-8cf0-11bd-b23e-10b96e40000d",
    "gid://shopify/Order/450789469",
    "cus_NffrFeUfNV2Hib",
    "pi_3MtwBwLkdIwHu7ix28a3tqPa",
    "pk_live_" + tail(24),
    "price_1MoBy5LkdIwHu7ixZhnattbh",
    "task-" + tail(48),
    "desk-lamp-4000-series-with-a-very-long-product-name",
    "sk-SK",
    "risk-assessment-questionnaire-for-new-customers-2026",
    "sku_live_summer",
    "AKIA is how such keys begin",
    "xoxo-love-from-everyone",
    "eyJhbGciOiJIUzI1NiJ9",
    "EyJ is no token.eyJ neither",
    "SG.50",
    "github_pattern",
    "-----BEGIN CERTIFICATE-----",
    "-----BEGIN PUBLIC KEY-----",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0",
    "192.168.100.200",
    "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
    "52.520008, 13.404954",
    "EAIaIQobChMI4_PLxYyZggMVFJlQBh1kMwqEEAAYASAAEgL1dfD_BwE",
    "4111111111111111-1",
    "4111-1111-1111-1111-2222",
    "japan_4111111111111111",
    "discord-4111111111111111",
    "Basic internationalization",
    "Basic Subscription2026Renewal",
    "postgres://db.example:5432/prod",
    "redis://cache.example:6379/0",
    "https://example.org/@someone",
    "xai-lab",
    "gsk_summer_sale",
    "hvs.de",
    "注文が完了しました。配送先は東京都です",
    "IwAR0abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOP",
    "0x71C7656EC7ab88b098defB751B7401B5f6d8976F",
    "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "507f1f77bcf86cd799439011",
    9007199254740991,
    52.520008123456789,
]
"""Order ids, phones, accounts, hashes, ad ids, times and words that begin like tokens."""

PLACES: dict[str, Any] = {
    "event": lambda value: {"event": value},
    "properties.note": lambda value: {"properties": {"note": value}},
    "properties.products.0.note": lambda value: {"properties": {"products": [{"note": value}]}},
    "context.page.search": lambda value: {"context": {"page": {"search": value}}},
    "integrations.Mixpanel.token": lambda value: {"integrations": {"Mixpanel": {"token": value}}},
}


@pytest.mark.parametrize("value", [*TOKENS, *CARDS], ids=range(len(TOKENS) + len(CARDS)))
async def test_a_secret_is_refused_wherever_it_stands_and_not_repeated(value: Any) -> None:
    upstream = accepting()
    segment = Segment(settings(), transport=upstream.transport())
    for field, placed in PLACES.items():
        if field == "event" and not isinstance(value, str):
            continue
        answer = await dispatch("segment_track", {"event": "A", "userId": "u1", **placed(value)}, segment)
        assert answer["error"]["code"] == "secret_in_message", field
        assert answer["error"]["field"] == (f"{field}.0" if isinstance(value, list) else field)
        assert answer["error"]["hint"]
        shown = json.dumps(answer)
        assert str(value).strip("[]'") not in shown
        assert KEY not in shown
    assert upstream.requests == []


@pytest.mark.parametrize("value", HARMLESS, ids=range(len(HARMLESS)))
async def test_what_only_resembles_a_secret_passes(value: Any) -> None:
    upstream = accepting()
    segment = Segment(settings(), transport=upstream.transport())
    arguments = {"event": "A", "userId": "u1", "properties": {"a": value, "b": [value], "text": f"it is {value}, yes"}}
    answer = await dispatch("segment_track", arguments, segment)
    assert answer["success"], answer
    assert json.loads(upstream.requests[0].content)["properties"] == arguments["properties"]


def test_the_corpora_are_as_large_as_they_are_to_be() -> None:
    assert len(TOKENS) + len(CARDS) >= 40
    assert len(HARMLESS) >= 60


@pytest.mark.parametrize("name", ["userId", "orderId", "order_id", "id", "pixelIDs", "SKU", "gtin14", "tracking_no"])
def test_a_number_in_the_field_of_an_id_is_no_card(name: str) -> None:
    assert Secrets().problems({"properties": {name: "4111111111111111"}}) == []
    assert Secrets().problems({"properties": {name: [4111111111111111]}}) == []
    assert Secrets().problems({"properties": {name: "4111 1111 1111 1111"}})


@pytest.mark.parametrize(
    "name",
    ["cardId", "card_number", "paid", "pan", "number", "bid", "payment_id", "ccId", "cc_id", "sku_pan", "panId"],
)
def test_a_number_in_any_other_field_is_one(name: str) -> None:
    assert Secrets().problems({"properties": {name: "4111111111111111"}})


HOSTILE = {
    **{
        f"{begin!r} over and over": begin * 40_000
        for begin in ("xoxa-", "eyJ-", "eyJa.", ".eyJaaaaaaaa", "sk-", "ya29.")
    },
    **{f"{begin!r} and what follows": begin + "a" * 200_000 for begin in ("xoxb-", "postgres://", "sk-", "Basic ")},
    "words of a key": "-----BEGIN " + "A " * 100_000,
    "schemes": "redis://a:" * 20_000,
    "quotes": "aws_secret_access_key" + "\"'" * 100_000,
    "digits": "4111 " * 40_000,
    "cards that are none": "card-4111111111111112 " * 10_000,
    "wide letters": "\ufdfa" * 50_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_no_text_takes_long(kind: str) -> None:
    segment = Segment(settings(dry_run="true"), transport=accepting().transport())
    async with asyncio.timeout(WAIT):
        for properties in ({"a": HOSTILE[kind]}, {HOSTILE[kind]: 1}):
            answer = await dispatch("segment_track", {"event": "A", "userId": "u1", "properties": properties}, segment)
            assert not answer["success"]


async def test_a_fields_name_may_be_the_secret() -> None:
    segment = Segment(settings(), transport=accepting().transport())
    token = "ghp_" + tail(36)
    for properties in ({token: 1}, {"deep": {token: {"x": "sk-" + tail(48)}}}):
        answer = await dispatch("segment_track", {"event": "A", "userId": "u1", "properties": properties}, segment)
        assert answer["error"]["code"] == "secret_in_message"
        assert answer["error"]["field"].startswith("properties")
        assert token not in json.dumps(answer)


async def test_in_a_batch_each_is_named_by_its_index_and_nothing_is_sent() -> None:
    upstream = accepting()
    good = {"type": "track", "event": "A", "userId": "u1"}
    bad = {**good, "properties": {"note": "sk-ant-api03-" + tail(95), "card": CARDS[0]}}
    async with mcp(settings(), upstream.transport()) as client:
        answer = facts(await client.call_tool("segment_batch", {"batch": [good, bad, good, bad]}))
    problems = [(problem["index"], problem["field"]) for problem in answer["error"]["problems"]]
    assert problems == [(at, f"properties.{name}") for at in (1, 3) for name in ("note", "card")]
    assert upstream.requests == []


@pytest.mark.parametrize("chosen", [{"block_secrets": "false"}, {"redact": '{"note": "drop"}'}])
async def test_it_can_be_switched_off_and_what_is_dropped_is_no_reason(chosen: Mapping[str, str]) -> None:
    segment = Segment(settings(**chosen), transport=accepting().transport())
    arguments = {"event": "A", "userId": "u1", "properties": {"note": CARDS[0]}}
    assert (await dispatch("segment_track", arguments, segment))["success"]


def test_a_plain_message_costs_little() -> None:
    fields = {
        "type": "track",
        "event": "Order Completed",
        "userId": "user123",
        "properties": {"order_id": "ord_987", "total": 99.0, "products": [{"sku": "sku_abc", "price": 99.0}]},
    }
    secrets = Secrets([KEY])
    assert secrets.problems(fields) == []
    best = min(repeat(lambda: secrets.problems(fields), number=500, repeat=9)) / 500
    print(f"\na plain message costs {best * 1e6:.1f} microseconds")
    assert best < 50e-6, "some 4 microseconds on a quiet machine, and at most 10"

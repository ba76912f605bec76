"""A webhook's signature is checked over the very bytes that were signed, and its messages are read as they came."""

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segment_tools.sandbox.javascript_json import stringify
from segment_tools.sandbox.webhooks import Webhooks, webhook_of
from segment_tools.spec.webhooks import deliveries_of, genuine

SECRET = "a shared secret"
KINDS = ("track", "identify", "page", "screen", "group", "alias", "delete", "something new")

SIGNED = {
    "plain": b'{"type":"track","event":"A","userId":"u1","messageId":"m1"}',
    "a float that would be written otherwise": b'{"type":"track","properties":{"a":1.0,"b":1e2,"c":0.10}}',
    "unicode": '{"type":"track","event":"Größe 😀","userId":"日本"}'.encode(),
    "escapes": rb'{"type":"track","event":"\u0041\/\ud83d\ude00\n","userId":"\"[]{},\\"}',
    "half a character": rb'{"type":"track","event":"\ud83d","userId":"u1"}',
    "spaces": b' {\n\t"type" : "track" ,\r\n "event": "A" } ',
    "no fields": b"{}",
}
each_signed = pytest.mark.parametrize("signed", SIGNED.values(), ids=SIGNED)

repeatable = settings(deadline=None, derandomize=True, max_examples=200)


def sign(signed: bytes, secret: str = SECRET) -> str:
    """As Segment's documentation says it, apart from the code that is tested."""
    return hmac.new(secret.encode(), signed, hashlib.sha1).hexdigest()


def altered(body: bytes, start: int, end: int) -> list[bytes]:
    """The body with each byte of the range turned into another, one at a time and in several ways."""
    return [
        body[:at] + bytes([body[at] ^ bits]) + body[at + 1 :]
        for at in range(start, end)
        for bits in (0x01, 0x20, 0x80, 0xFF)
    ]


@each_signed
def test_a_message_is_genuine_and_with_any_byte_altered_it_is_not(signed: bytes) -> None:
    assert genuine(signed, sign(signed), SECRET)
    assert [body for body in altered(signed, 0, len(signed)) if genuine(body, sign(signed), SECRET)] == []


@each_signed
@pytest.mark.parametrize(("before", "after"), [(b"[", b"]"), (b" [\n ", b"\t, {} ]\n"), (b"[", b',{"a":[1,"]"]},{}]')])
def test_a_batch_is_genuine_by_its_first_message_and_with_any_byte_of_that_altered_it_is_not(
    signed: bytes, before: bytes, after: bytes
) -> None:
    first = signed.strip()
    body = before + first + after
    assert genuine(body, sign(first), SECRET)
    assert not genuine(body, sign(body), SECRET)
    places = altered(body, len(before), len(before) + len(first))
    assert [body for body in places if genuine(body, sign(first), SECRET)] == []


@pytest.mark.parametrize("batch", [None, 10], ids=["single", "batch"])
def test_what_the_sandbox_sends_is_genuine(batch: int | None) -> None:
    messages = [stringify({"type": "track", "event": event, "properties": {"a": 1.0}}) for event in ("Größe", "\ud83d")]
    webhooks = Webhooks((webhook_of("http://localhost/"),), SECRET, batch)
    sent = messages[: batch or 1]
    headers, body = webhooks.request(webhooks.all[0], sent)
    assert genuine(body, headers["X-Signature"], SECRET)
    assert not genuine(body, headers["X-Signature"], SECRET + "x")
    assert [each.body for each in deliveries_of(body)] == sent


def test_only_the_signature_itself_is_one() -> None:
    body = SIGNED["plain"]
    right = sign(body)
    assert genuine(body, f" {right} ", SECRET)
    wrong = ["", right.upper(), right[:-1], f"{right}0", f"sha1={right}", f"\n{right}", "é" * 40, "\ud800", "\0" * 40]
    wrong += [right[:at] + ("0" if right[at] != "0" else "1") + right[at + 1 :] for at in range(40)]
    assert [signature for signature in wrong if genuine(body, signature, SECRET)] == []


def test_without_a_secret_nothing_is_genuine() -> None:
    body = SIGNED["plain"]
    assert not genuine(body, hmac.new(b"", body, hashlib.sha1).hexdigest(), "")


HOSTILE = [
    b"",
    b"[",
    b"[]",
    b" [ ] ",
    b"[,]",
    b"[{}",
    b"[{},]",
    b"[{}]x",
    b"[{} {}]",
    b"[[]]",
    b"[1]",
    b"1",
    b"null",
    b"{",
    b"{}x",
    b"\xff",
    b'[{"a":"\xff"}]',
    b'{"a":"\xff"}',
    b"\xef\xbb\xbf{}",
    b'{"a":NaN}',
    b'{"a":-Infinity}',
    b'{"a":1e999}',
    b'{"a":"\n"}',
    b"[" + b"9" * 5000 + b"]",
    b'{"a":' + b"9" * 5000 + b"}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"a":' * 101 + b"1" + b"}" * 101,
    b'[{"a":' + b"[" * 100_000,
    "\u00a0[{}]".encode(),
]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_message_is_refused_without_repeating_it(body: bytes) -> None:
    assert genuine(body, "", SECRET) is False
    if body.strip() == b"[]" or body == b" [ ] ":
        assert deliveries_of(body) == ()
        return
    with pytest.raises(ValueError, match=r"^The body is no JSON object, and no array of JSON objects\.$") as raised:
        deliveries_of(body)
    assert raised.value.__suppress_context__


@repeatable
@given(st.binary() | st.text().map(str.encode), st.text(st.characters()), st.text(st.characters()))
@example(b"[{}]", "\ud800", "\udc80")
def test_whatever_comes_nothing_is_genuine_and_nothing_raises(body: bytes, signature: str, secret: str) -> None:
    assert genuine(body, signature, secret) is False


values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    max_leaves=5,
)
messages = st.dictionaries(st.sampled_from(["type", "event", "messageId", "userId", "context"]) | st.text(), values)


@settings(repeatable, max_examples=50)
@given(st.lists(messages, max_size=4), st.sampled_from([None, 1]), st.booleans(), st.sampled_from(["", " ", "\n\t"]))
def test_each_message_of_a_batch_is_taken_as_it_came(
    batch: list[dict[str, Any]], indent: int | None, escaped: bool, space: str
) -> None:
    texts = [json.dumps(message, indent=indent, ensure_ascii=escaped) for message in batch]
    body = f"{space}[{space}{f'{space},{space}'.join(texts)}{space}]{space}".encode()
    assert [each.body for each in deliveries_of(body)] == texts
    if texts:
        assert genuine(body, sign(texts[0].encode()), SECRET)


@pytest.mark.parametrize("kind", KINDS)
def test_each_type_of_message_is_taken(kind: str) -> None:
    message = {"type": kind, "userId": "u1", "messageId": "m1", "channel": "server", "event": "A", "anonymousId": "a1"}
    body = json.dumps(message).encode()
    (delivery,) = deliveries_of(body)
    assert (delivery.type, delivery.event, delivery.user_id) == (kind, "A", "u1")
    assert (delivery.channel, delivery.message_id, delivery.key) == ("server", "m1", "id:m1")
    assert delivery.body == body.decode()


@pytest.mark.parametrize("name", ["userId", "userID"])
def test_a_notice_of_deletion_is_taken_whichever_way_it_names_the_user(name: str) -> None:
    body = json.dumps({"type": "delete", name: "u1", "timestamp": "2026-11-23T12:00:00.000Z"}).encode()
    (delivery,) = deliveries_of(body)
    assert (delivery.type, delivery.user_id, delivery.message_id) == ("delete", "u1", None)
    assert delivery.key == f"sha256:{hashlib.sha256(body).hexdigest()}"
    assert deliveries_of(b"[" + body + b"]") == (delivery,)


def test_the_channel_is_the_messages_own_or_its_contexts() -> None:
    bodies = [{"channel": "a", "context": {"channel": "b"}}, {"context": {"channel": "b"}}, {"context": []}, {}]
    assert [each.channel for each in deliveries_of(json.dumps(bodies).encode())] == ["a", "b", None, None]


def test_what_is_no_text_is_not_taken_for_it() -> None:
    message = {"type": 1, "event": ["A"], "userId": 7, "channel": {}, "messageId": 0}
    (delivery,) = deliveries_of(json.dumps(message).encode())
    assert (delivery.type, delivery.event, delivery.user_id, delivery.channel, delivery.message_id) == (None,) * 5


def test_keys_are_alike_only_for_the_same_message() -> None:
    one, other = (json.dumps({"messageId": "", "a": value}).encode() for value in (1, 2))
    (first,), (second,) = deliveries_of(one), deliveries_of(other)
    taken = json.dumps({"messageId": first.key}).encode()
    halves = [json.dumps({"messageId": half}).encode() for half in ("\ud800", "\ud801")]
    keys = [first.key, second.key, *(deliveries_of(body)[0].key for body in (taken, *halves))]
    assert len(set(keys)) == len(keys)
    assert deliveries_of(one) == (first,)


def test_a_delivery_shows_nothing_of_its_message() -> None:
    assert repr(deliveries_of(SIGNED["plain"])) == "(Delivery(),)"

"""What Segment sends to a webhook: whether it is genuine, and which messages it carries.

Segment's scheme is weak, and nothing here can make it stronger. Of a batch only the first message is signed, so whoever
has seen one signed message can put others behind it. Nor is there a time in what is signed: an old request stays
genuine for ever, and what guards against hearing it twice is to drop a messageId that is known.

Source: https://segment.com/docs/connections/destinations/catalog/webhooks/ and .../actions-webhook/.
"""

import hashlib
import hmac
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from segment_tools.spec import limits
from segment_tools.spec.json_objects import depth_of, is_encodable_text


@dataclass(frozen=True, slots=True, repr=False)
class Delivery:
    """One message as a webhook received it. Its repr shows nothing of it: messages are people's data."""

    key: str
    """What tells it from every other: its messageId where it has one, else a hash of its bytes."""
    body: str
    """The message's JSON, as it came."""
    type: str | None
    """Also `delete`, the notice that a user is to be deleted. These are None where they are no text."""
    event: str | None
    user_id: str | None
    """A notice of deletion may write it `userID`."""
    channel: str | None
    """Where the message came from: `browser`, `client` or `server`; also found in its context."""
    message_id: str | None

    def __repr__(self) -> str:
        return "Delivery()"


MESSAGE_BYTES = 1024 * 1024
"""Ours: what a message may have. Segment's own limit is 32 KB, before it adds what it knows of it."""

MOST_MESSAGES = 10_000
"""Ours: Segment's largest batch has 4,000."""

_MOST_NESTED = 250_000
"""Ours: how many objects and lists a batch may have. With the other bounds, the worst is judged in about 1 s."""


class TooMuch(ValueError):
    """A body with more in it than Segment sends."""


def genuine(body: bytes, signature: str, secret: str) -> bool:
    """Whether `X-Signature` was made with the secret: the HMAC-SHA1 of the body, or of a batch's first message.

    The bytes are taken as they came, since JSON that is written again differs: JavaScript writes 1.0 as 1. An empty
    secret makes nothing genuine. Never raises, whatever it is given.
    """
    signed = _signed(body)
    if signed is None or not secret:
        return False
    expected = signature_of(signed, secret)
    given = signature.strip(" ").encode(errors="surrogatepass")  # text that is not ASCII cannot be compared
    return hmac.compare_digest(expected.encode(), given)


def signature_of(signed: bytes, secret: str) -> str:
    """What Segment writes into `X-Signature` for the bytes that it signs."""
    return hmac.digest(secret.encode(errors="surrogatepass"), signed, "sha1").hex()


def deliveries_of(body: bytes) -> tuple[Delivery, ...]:
    """The messages of a request, in its order; of any type, also of one that is not known.

    Raises:
        TooMuch: it has more messages, or a larger one, than is taken.
        ValueError: it holds no JSON object, and no array of objects. The text repeats nothing of it.
    """
    try:
        return tuple(_delivery(text) for text in _messages(body))
    except TooMuch:
        raise
    except (ValueError, RecursionError):
        # The exception that is left out here holds the body.
        raise ValueError("The body is no JSON object, and no array of JSON objects.") from None


_SPACE = re.compile(rb"[ \t\n\r]*+")
_TO_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+([{}\[\]])', re.DOTALL)
"""Up to the next bracket that stands in no text. It never goes back, so that no body takes longer than its length."""


def _signed(body: bytes) -> bytes | None:
    """What the signature is of; None for a batch that has no first message."""
    if not body.startswith(b"[", _after_space(body, 0)):
        return body
    try:
        return next(_elements(body), None)
    except ValueError:
        return None


def _messages(body: bytes) -> Iterator[bytes]:
    """Each message's JSON as it came."""
    batch = body.startswith(b"[", _after_space(body, 0))
    for number, text in enumerate(_elements(body) if batch else [body]):
        if number == MOST_MESSAGES:
            raise TooMuch(f"The batch has more than {MOST_MESSAGES} messages.")
        if len(text) > MESSAGE_BYTES:
            raise TooMuch(f"A message has more than {MESSAGE_BYTES} bytes.")
        yield text


def _elements(body: bytes) -> Iterator[bytes]:
    """Each object of a JSON array as it came; nothing is made of what is in it, for it may be anybody's.

    Raises:
        ValueError: when it comes to what is no object.
    """
    if body.count(b"{") + body.count(b"[") > _MOST_NESTED:
        raise TooMuch(f"The batch has more than {_MOST_NESTED} objects and lists.")
    at = _after_space(body, _after_space(body, 0) + 1)
    if body[at:].rstrip(b" \t\n\r") == b"]":
        return
    mark = b","
    while mark == b",":
        at = _after_space(body, at)
        end = _end_of_object(body, at)
        yield body[at:end]
        end = _after_space(body, end)
        mark, at = body[end : end + 1], end + 1
    if mark != b"]" or _after_space(body, at) != len(body):
        raise ValueError("no array")


def _end_of_object(body: bytes, at: int) -> int:
    """Where the object that begins there ends, by its brackets alone."""
    depth = 0
    while found := _TO_BRACKET.match(body, at):
        if not depth and (found.start(1), found[1]) != (at, b"{"):
            break
        at = found.end()
        depth += 1 if found[1] in b"{[" else -1
        if not depth:
            return at
        if depth > limits.ENCODABLE_DEPTH:
            break
    raise ValueError("no object")


def _after_space(body: bytes, at: int) -> int:
    found = _SPACE.match(body, at)
    return found.end() if found else at


def _no_constant(name: str) -> NoReturn:
    """NaN and Infinity are no JSON, although Python reads them."""
    raise ValueError(name)


def _finite(text: str) -> float:
    """The number, unless Python would make it infinite, which nobody could write as JSON again."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)


def _too_deep(text: str, message: dict[str, Any]) -> bool:
    """Whether the message is nested beyond what its readers can be expected to parse."""
    most = limits.ENCODABLE_DEPTH
    return text.count("{") + text.count("[") > most and depth_of(message) > most


def _delivery(body: bytes) -> Delivery:
    text = body.decode()
    message: object = _DECODER.decode(text)
    if not isinstance(message, dict):
        raise ValueError("no message")  # noqa: TRY004 - it is the body that is wrong
    return _delivered(text, cast("dict[str, Any]", message))


def _delivered(text: str, message: dict[str, Any]) -> Delivery:
    if _too_deep(text, message):
        raise ValueError("no message")
    message_id = _text(message.get("messageId"))
    context: object = message.get("context")
    below: object = cast("dict[str, Any]", context).get("channel") if isinstance(context, dict) else None
    return Delivery(
        key=f"id:{message_id}" if message_id else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
        body=text,
        type=_text(message.get("type")),
        event=_text(message.get("event")),
        user_id=_first_text(message.get("userId"), message.get("userID")),
        channel=_first_text(message.get("channel"), below),
        message_id=message_id,
    )


def _first_text(*values: object) -> str | None:
    return next((text for value in values if (text := _text(value)) is not None), None)


def _text(value: object) -> str | None:
    """The value if it is text that can be kept: half a character cannot."""
    return value if isinstance(value, str) and is_encodable_text(value) else None

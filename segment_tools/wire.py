"""Requests to Segment and its answers, as values: what bytes go where, and what an answer means."""

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

from pydantic_core import to_json

from segment_tools._version import __version__
from segment_tools.errors import Problem, Rejected, TooLarge, Unavailable, Undelivered
from segment_tools.redaction import hidden, hidden_in
from segment_tools.services import TRACKING, TRACKING_BY_TOKEN, Service
from segment_tools.spec import limits
from segment_tools.spec.json_objects import carried, fault_in, foreign_integer
from segment_tools.spec.names import printable

LIBRARY = {"name": "segment-tools", "version": __version__}
"""What this package calls itself in `context.library`."""

USER_AGENT = f"segment-tools/{__version__}"

BATCH_PATH = "/v1/batch"
"""Where several messages go in one request."""

EXCERPT_CHARACTERS = 300
"""How much of an answer that is not JSON an error repeats."""


@dataclass(frozen=True, slots=True)
class Request:
    """One POST: the path below the data plane's base URL, the body, and how many messages stand in it."""

    path: str
    body: bytes = field(repr=False)
    count: int
    gzipped: bool = False
    """Whether the body is, as Segment takes it too."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status, the headers' names in lower case, and the body's beginning."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def stamped(message: Mapping[str, Any], message_id: str, timestamp: str) -> dict[str, Any]:
    """The message complete with id, time and `context.library`, as a new one; what the caller set stays."""
    context: Mapping[str, Any] = message.get("context") or {}
    return {"messageId": message_id, **message, "timestamp": timestamp, "context": {"library": LIBRARY, **context}}


def headers(write_key: str, attempt: int, token: str | None = None) -> dict[str, str]:
    """The headers of the given attempt, counted from 0; with a token, the write key must stand in the body.

    Source: https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#authentication;
    `X-Retry-Count` as Segment's own libraries send it.
    """
    basic = b64encode(f"{write_key}:".encode()).decode()
    common = {
        "Authorization": f"Bearer {token}" if token else f"Basic {basic}",
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
    }
    return common if attempt == 0 else {**common, "X-Retry-Count": str(attempt)}


def single(message: Mapping[str, Any], sent_at: str, write_key: str | None = None) -> Request:
    """The request for one message, to the path of its type; `write_key` names the source beside a token.

    Raises:
        TooLarge: above 32 KB.
    """
    fields = {key: value for key, value in message.items() if key != "type"}
    body = to_json({**fields, **_envelope(sent_at, write_key)})
    _check_size(body, message, None)
    return Request(f"/v1/{message['type']}", body, 1)


def _envelope(sent_at: str, write_key: str | None) -> dict[str, str]:
    """What a body has beside its messages. Source of the write key: https://segment.com/docs/connections/oauth/."""
    return {"sentAt": sent_at} if write_key is None else {"sentAt": sent_at, "writeKey": write_key}


def batches(messages: Sequence[Mapping[str, Any]], sent_at: str, write_key: str | None = None) -> list[Request]:
    """The `/v1/batch` requests that carry the messages in order, as few as Segment's limits allow.

    `write_key` names the source beside a token.

    Raises:
        TooLarge: naming every message above 32 KB.
    """
    parts = [encoded(message) for message in messages]
    problems = [
        problem
        for index, (part, message) in enumerate(zip(parts, messages, strict=True))
        if (problem := too_large(part, message, index))
    ]
    if problems:
        raise TooLarge(problems)
    room = limits.BATCH_BYTES - len(batch([], sent_at, write_key).body)
    return [batch(chunk, sent_at, write_key) for chunk in _chunks(parts, room)]


def encoded(message: Mapping[str, Any]) -> bytes:
    """The stamped message as it stands in a batch."""
    return to_json(message)


def batch(parts: Sequence[bytes], sent_at: str, write_key: str | None = None) -> Request:
    """The one request for encoded messages, which fit into it where they have no more than `BATCH_ROOM` bytes."""
    end = to_json(_envelope(sent_at, write_key))[1:]
    if not parts:
        return Request(BATCH_PATH, b'{"batch":[],' + end, 0)
    # One join, so that half a megabyte is copied once.
    whole = [*parts]
    whole[0] = b'{"batch":[' + whole[0]
    whole[-1] += b"]," + end
    return Request(BATCH_PATH, b",".join(whole), len(parts))


BATCH_ROOM = limits.BATCH_BYTES - 1024
"""How many bytes the messages of any batch may have, with a comma for each: there is room for what is beside them."""


def _chunks(parts: Sequence[bytes], room: int) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    used = 0
    for part in parts:
        if chunk and (len(chunk) == limits.BATCH_MESSAGES or used + len(part) + 1 > room):
            yield chunk
            chunk, used = [], 0
        chunk.append(part)
        used += len(part) + 1
    if chunk:
        yield chunk


def _check_size(body: bytes, message: Mapping[str, Any], index: int | None) -> None:
    if problem := too_large(body, message, index):
        raise TooLarge([problem])


def too_large(body: bytes, message: Mapping[str, Any], index: int | None) -> Problem | None:
    """The problem of a message whose bytes on the wire are more than Segment takes; it names what to shorten."""
    if len(body) <= limits.MESSAGE_BYTES:
        return None
    largest = _largest(message)
    text = f"The message is {len(body):,} bytes on the wire; Segment takes {limits.MESSAGE_BYTES:,}."
    return Problem(
        "too_large", text, f"Shorten {largest}, its largest field, or split it over several messages.", largest, index
    )


def _largest(holder: Mapping[str, Any]) -> str:
    """The path of what takes the most room: as deep as one field has most of what is above it."""
    sizes = {key: len(to_json(value)) for key, value in holder.items()}
    key = max(sizes, key=lambda each: sizes[each])
    shown, below = printable(str(key)), holder[key]
    if not isinstance(below, Mapping) or not below:
        return shown
    inside = cast("Mapping[str, Any]", below)
    most = max(len(to_json(value)) for value in inside.values())
    return f"{shown}.{_largest(inside)}" if most > sizes[key] / 2 else shown


def is_plain_success(answer: Answer) -> bool:
    """Whether the answer says that the request was taken, and no more: what Segment nearly always answers."""
    return answer.status == 200 and answer.body in _PLAIN_SUCCESS


_PLAIN_SUCCESS = (b'{"success":true}', b'{"success": true}')


def decipher(answer: Answer, now: datetime, secrets: Sequence[str] = (), service: Service = TRACKING) -> dict[str, Any]:
    """The JSON object that Segment answered with; empty where the answer is none, or one that JSON cannot carry on.

    `secrets` are taken out of all that is kept of the answer: a proxy may answer with what it was sent.

    Raises:
        Unauthorized, NotFound, RateLimited, Rejected: Segment did not accept the request.
        Unavailable: it may at another time (408, 410, 460, 5xx; 501 and 505 are `Rejected`, 511 without OAuth too).
    """
    body = json_object(answer.body, secrets)
    if 200 <= answer.status < 300 and body.get("success") is not False:
        return body
    lasting = (501, 505) if service is TRACKING_BY_TOKEN else (501, 505, 511)
    passing = answer.status in (408, 410, 460) or (answer.status >= 500 and answer.status not in lasting)
    raise _refusal(answer, body, now, secrets, service, passing=passing)


def _refusal(
    answer: Answer,
    body: Mapping[str, Any],
    now: datetime,
    secrets: Sequence[str],
    service: Service,
    *,
    passing: bool,
) -> Undelivered:
    """The error that an answer is. The retryable statuses are those of Segment's own libraries' shared retry rules."""
    code, said = _reason(answer, body, secrets)
    status, request_id = answer.status, _request_id(answer.headers)
    quoted = f": {said}" if said and service.quoted else ""
    traced = f" (Request-Id {request_id})" if request_id else ""
    text = f"{service.name} answered {status}{quoted}".rstrip(".") + f"{traced}."
    kind, hint = (Unavailable, service.again) if passing else _rejection(status, service)
    return kind(
        text,
        status_code=status,
        response_body=body if service.quoted else {},
        code=code if service.quoted else "",
        hint=hint,
        retry_after_seconds=retry_after(answer.headers, now),
        request_id=request_id,
    )


def _rejection(status: int, service: Service) -> tuple[type[Rejected], str]:
    return service.rejections.get(status, (Rejected, service.otherwise.get(status // 100, "")))


def _request_id(found: Mapping[str, str]) -> str:
    """The answer's Request-Id, where it looks like one."""
    given = found.get("request-id", "")
    return given if re.fullmatch("[A-Za-z0-9._-]{1,100}", given) else ""


def no_profile(answer: Answer) -> bool:
    """Whether the Profile API says that it knows the space and nobody of that id; another 404 is a route it lacks.

    Source: https://segment.com/docs/unify/profile-api/#errors.
    """
    _, said = _reason(answer, json_object(answer.body), ())
    return answer.status == 404 and re.search("profile.*not found", said, re.IGNORECASE) is not None


def json_object(body: bytes, secrets: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON object of a body, without the secrets; empty where it is none, or one that JSON cannot carry on."""
    parsed = _parsed(body)
    return {} if fault_in(parsed) else cast("dict[str, Any]", hidden_in(parsed, secrets))


def marked_object(body: bytes, secrets: Sequence[str] = ()) -> dict[str, Any]:
    """As `json_object`, but with a mark for each thing that JSON cannot carry on."""
    return cast("dict[str, Any]", hidden_in(carried(_parsed(body)), secrets))


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        parsed: object = json.loads(body, parse_int=foreign_integer)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", parsed) if isinstance(parsed, dict) else {}


def _reason(answer: Answer, body: Mapping[str, Any], secrets: Sequence[str]) -> tuple[str, str]:
    """The code and the sentence of an answer, wherever one of Segment's three error shapes has them."""
    nested: object = body.get("error")
    inner = cast("Mapping[str, Any]", nested) if isinstance(nested, dict) else body
    code, said = inner.get("code"), inner.get("message", nested)
    if not isinstance(said, str) and not body:
        said = hidden(_text(answer), secrets)
    return (code if isinstance(code, str) else ""), _excerpt(said if isinstance(said, str) else "")


def _text(answer: Answer) -> str:
    text = answer.body.decode("utf-8", "replace").strip()
    kinds = {"<": "an HTML page", "{": "JSON that is cut or broken", "[": "a JSON list", '"': "a JSON text"}
    return kinds.get(text[:1], text)


def _excerpt(text: str) -> str:
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= EXCERPT_CHARACTERS else f"{line[:EXCERPT_CHARACTERS]} [cut]"


def retry_after(found: Mapping[str, str], now: datetime) -> float | None:
    """The wait in seconds that the answer asks for: `Retry-After` as seconds or HTTP date, else `X-RateLimit-Reset`."""
    for name in ("retry-after", "x-ratelimit-reset"):
        text = found.get(name, "").strip()
        if text.isascii() and text.isdigit():
            return float(text[:9])
        if text and name == "retry-after":
            try:
                return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
            except (ValueError, TypeError, OverflowError):
                continue
    return None

"""Keys, and ids that tell who somebody is, taken out of text before anybody sees it."""

import re
from base64 import b64encode
from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import quote

_SHORTEST_SECRET = 8
HIDDEN = "[secret]"

_HIDDEN_ID = "[hidden]"
_PLAIN_ID = re.compile("[A-Za-z0-9_.:/-]+")


def hidden(text: str, secrets: Iterable[str]) -> str:
    """The text without the keys: plain, as Basic authentication writes them, and with the escapes of JSON and URLs.

    Real keys have 32 characters; what is as short as a word of the text itself is no secret to keep. The longest goes
    first, since one key may begin with another.
    """
    for secret in sorted(secrets, key=len, reverse=True):
        for form in forms(secret):
            text = text.replace(form, HIDDEN)
    return text


def forms(secret: str) -> tuple[str, ...]:
    """How the key is written; none, where it is too short to be told from a word."""
    if len(secret) < _SHORTEST_SECRET:
        return ()
    basic = b64encode(f"{secret}:".encode()).decode()
    return basic, secret, secret.replace("/", "\\/"), quote(secret, safe="")


def is_plain_id(text: str) -> bool:
    """Whether a messageId may stand in a log: somebody's address, number or name is no id to show."""
    return _PLAIN_ID.fullmatch(text) is not None


def shown_id(text: str) -> str:
    """The messageId as logs have it."""
    return text if is_plain_id(text) else _HIDDEN_ID


def hidden_in(value: Any, secrets: Iterable[str]) -> Any:
    """The JSON value without the keys in any text of it, names of fields among them."""
    listed = tuple(secrets)
    if isinstance(value, str):
        return hidden(value, listed)
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {hidden(name, listed): hidden_in(below, listed) for name, below in fields.items()}
    if isinstance(value, list):
        return [hidden_in(below, listed) for below in cast("list[Any]", value)]
    return value

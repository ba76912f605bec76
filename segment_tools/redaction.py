"""Keys taken out of text before anybody sees it."""

from base64 import b64encode
from collections.abc import Iterable

_SHORTEST_SECRET = 8
_HIDDEN = "[write key]"


def hidden(text: str, secrets: Iterable[str]) -> str:
    """The text without the keys, plain or as Basic authentication writes them.

    Real keys have 32 characters; what is as short as a word of the text itself is no secret to keep.
    """
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(b64encode(f"{secret}:".encode()).decode(), _HIDDEN).replace(secret, _HIDDEN)
    return text

"""The pixel route: a message in the query of an image's address, answered with the image whatever comes of it.

Source: https://segment.com/docs/connections/sources/catalog/libraries/server/pixel-tracking-api/.
"""

import base64
from collections.abc import Iterable, Mapping
from typing import Any, cast

from segment_tools.sandbox.json_text import object_of

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
"""One transparent pixel."""


def message_of(query: Mapping[str, str]) -> dict[str, Any]:
    """The message in the query: base64 of its JSON under `data`, or a parameter a field, dotted where it is nested.

    Raises:
        ValueError: there is none.
    """
    if "data" not in query:
        return _nested(query.items())
    text = query["data"].replace("-", "+").replace("_", "/").replace(" ", "+")
    return object_of(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))


def _nested(fields: Iterable[tuple[str, str]]) -> dict[str, Any]:
    message: dict[str, Any] = {}
    for path, value in fields:
        *holders, name = path.split(".")
        place = message
        for holder in holders:
            below: object = place.setdefault(holder, {})
            if not isinstance(below, dict):
                raise ValueError("a field is both a value and an object")  # noqa: TRY004
            place = cast("dict[str, Any]", below)
        place[name] = value
    return message

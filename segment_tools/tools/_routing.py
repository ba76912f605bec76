"""Which source a call is for, as its arguments say it."""

from collections.abc import Mapping
from typing import Any

from segment_tools.errors import InvalidMessage
from segment_tools.setting_types import is_write_key
from segment_tools.settings import Settings


def routed(given: Mapping[str, Any], settings: Settings) -> tuple[str | None, str | None, dict[str, Any]]:
    """The source's name or a write key of the call's own, as far as it has them, and the other arguments.

    Raises:
        InvalidMessage: they are not taken here, or are none.
    """
    arguments = dict(given)
    source = arguments.pop("source", None) if settings.source_names else None
    write_key = arguments.pop("writeKey", None) or None
    if write_key is not None and not settings.takes_write_key:
        raise InvalidMessage.of(
            "unknown_argument", "writeKey is not taken here.", "Leave it out: the server has its own key.", "writeKey"
        )
    if write_key is not None and not is_write_key(write_key):
        raise InvalidMessage.of(
            "invalid_value",
            "writeKey is not a write key.",
            "Pass the write key of a Segment source, as text.",
            "writeKey",
        )
    if not isinstance(source, str | None):
        raise InvalidMessage.of(
            "invalid_value", "source must be text.", f"Pass one of {', '.join(settings.source_names)}.", "source"
        )
    return source or None, write_key, arguments

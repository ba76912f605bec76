"""Safe hands on Twilio Segment for any AI agent.

Names are loaded when they are first used, so that `--help` and `--version` need not wait for what they do not use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from segment_tools._version import __version__

if TYPE_CHECKING:
    from segment_tools.client import Segment
    from segment_tools.errors import (
        InvalidMessage,
        NotConfigured,
        NotFound,
        PlanViolation,
        Problem,
        RateLimited,
        Rejected,
        SegmentError,
        TooLarge,
        Unauthorized,
        Unavailable,
    )
    from segment_tools.functions import definitions, dispatch
    from segment_tools.receipt import Receipt, Warned
    from segment_tools.sandbox.run import Sandbox
    from segment_tools.settings import Settings
    from segment_tools.spec.context import Context
    from segment_tools.spec.messages import Alias, Group, Identify, Message, Page, Screen, Track
    from segment_tools.spec.parsing import parse_message
    from segment_tools.transport import Transport

__all__ = [
    "Alias",
    "Context",
    "Group",
    "Identify",
    "InvalidMessage",
    "Message",
    "NotConfigured",
    "NotFound",
    "Page",
    "PlanViolation",
    "Problem",
    "RateLimited",
    "Receipt",
    "Rejected",
    "Sandbox",
    "Screen",
    "Segment",
    "SegmentError",
    "Settings",
    "TooLarge",
    "Track",
    "Transport",
    "Unauthorized",
    "Unavailable",
    "Warned",
    "__version__",
    "definitions",
    "dispatch",
    "parse_message",
]

_HOMES = {
    "client": ("Segment",),
    "errors": (
        "InvalidMessage",
        "NotConfigured",
        "NotFound",
        "PlanViolation",
        "Problem",
        "RateLimited",
        "Rejected",
        "SegmentError",
        "TooLarge",
        "Unauthorized",
        "Unavailable",
    ),
    "functions": ("definitions", "dispatch"),
    "receipt": ("Receipt", "Warned"),
    "sandbox.run": ("Sandbox",),
    "settings": ("Settings",),
    "spec.context": ("Context",),
    "spec.messages": ("Alias", "Group", "Identify", "Message", "Page", "Screen", "Track"),
    "spec.parsing": ("parse_message",),
    "transport": ("Transport",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

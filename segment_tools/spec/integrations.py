"""Integrations: which destinations get a message, by their exact names."""

from collections.abc import Mapping
from typing import Any

from segment_tools.spec.values import JsonObject

Integrations = JsonObject
"""Destination's name to true, false or an object of options, which pass untouched; `All` stands for those not named.

Source: https://segment.com/docs/connections/spec/common/#integrations.
"""

DESTINATIONS = (
    "All",
    "Segment.io",
    "Adjust",
    "Amplitude",
    "AppsFlyer",
    "Braze",
    "Customer.io",
    "Facebook Pixel",
    "FullStory",
    "Google Analytics",
    "Google Tag Manager",
    "Heap",
    "Hotjar",
    "HubSpot",
    "Intercom",
    "Iterable",
    "Klaviyo",
    "Mixpanel",
    "Optimizely",
    "Salesforce",
    "Slack",
    "Webhooks",
    "Zendesk",
)
"""`All` and widely used destinations, in the spelling that `integrations` wants: it is case-sensitive.
Source: https://segment.com/docs/guides/filtering-data/ and the destinations' own pages."""

_SPELLINGS = {name.lower(): name for name in DESTINATIONS}


def misspelt_destination(name: str) -> str | None:
    """The spelling Segment knows, where the name differs from it by letter case alone."""
    known = _SPELLINGS.get(name.lower())
    return known if known != name else None


def merged_integrations(own: Mapping[str, Any] | None, shared: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A message's integrations completed from the request's, destination by destination; its own value wins."""
    return None if own is None and shared is None else {**(shared or {}), **(own or {})}

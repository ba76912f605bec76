"""Context: its documented fields, and how a request's merges into a message's own."""

from collections.abc import Mapping
from typing import Annotated, Any, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)
from pydantic.alias_generators import to_camel

from segment_tools.spec.values import JsonObject, refusal

Number = StrictInt | StrictFloat
Version = StrictStr | StrictInt | StrictFloat
"""Text by the spec; builds and versions are numbers often enough that destinations take both."""


class _Fields(BaseModel):
    """Documented fields, all optional; others pass through. Names are camelCase on the wire, snake_case here."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        alias_generator=to_camel,
        validate_by_name=True,
        hide_input_in_errors=True,
        defer_build=True,
    )


class App(_Fields):
    """The application that the message comes from."""

    name: StrictStr | None = None
    version: Version | None = None
    build: Version | None = None
    namespace: StrictStr | None = None


class Campaign(_Fields):
    """The campaign that brought the user, as in UTM parameters."""

    name: StrictStr | None = None
    source: StrictStr | None = None
    medium: StrictStr | None = None
    term: StrictStr | None = None
    content: StrictStr | None = None


class Device(_Fields):
    """The device. `advertising_id` must be text: Segment drops the message otherwise."""

    id: StrictStr | None = None
    advertising_id: StrictStr | None = None
    ad_tracking_enabled: StrictBool | None = None
    manufacturer: StrictStr | None = None
    model: StrictStr | None = None
    name: StrictStr | None = None
    type: StrictStr | None = None
    token: StrictStr | None = None
    version: Version | None = None


class Library(_Fields):
    """The library that sends; this package puts itself here where the caller puts nothing."""

    name: StrictStr | None = None
    version: Version | None = None


class Location(_Fields):
    """Where the user is."""

    city: StrictStr | None = None
    country: StrictStr | None = None
    latitude: Number | None = None
    longitude: Number | None = None
    region: StrictStr | None = None
    speed: Number | None = None


class Network(_Fields):
    """The network in use."""

    bluetooth: StrictBool | None = None
    carrier: StrictStr | None = None
    cellular: StrictBool | None = None
    wifi: StrictBool | None = None


class OperatingSystem(_Fields):
    """The operating system."""

    name: StrictStr | None = None
    version: Version | None = None


class PageContext(_Fields):
    """The page the user is on."""

    path: StrictStr | None = None
    referrer: StrictStr | None = None
    search: StrictStr | None = None
    title: StrictStr | None = None
    url: StrictStr | None = None


class Referrer(_Fields):
    """What referred the user."""

    type: StrictStr | None = None
    name: StrictStr | None = None
    url: StrictStr | None = None
    link: StrictStr | None = None
    id: StrictStr | None = None


class ScreenContext(_Fields):
    """The user's screen: pixels, and pixels per point."""

    density: Number | None = None
    height: Number | None = None
    width: Number | None = None


class Brand(_Fields):
    """A browser brand, as in client hints."""

    brand: StrictStr | None = None
    version: StrictStr | None = None


class UserAgentData(_Fields):
    """The user agent as client hints."""

    brands: list[Brand] | None = None
    mobile: StrictBool | None = None
    platform: StrictStr | None = None
    bitness: StrictStr | None = None
    model: StrictStr | None = None
    platform_version: StrictStr | None = None
    ua_full_version: StrictStr | None = None
    full_version_list: list[Brand] | None = None
    wow64: StrictBool | None = Field(default=None, alias="wow64")
    architecture: StrictStr | None = None


class Consent(_Fields):
    """The user's consent: category id to whether it was given. An empty map counts as "no" to every category."""

    category_preferences: dict[str, StrictBool]
    version: Number = 0


class ExternalId(_Fields):
    """An identifier for Unify. Source: https://segment.com/docs/unify/identity-resolution/externalids/."""

    id: StrictStr
    type: StrictStr
    collection: StrictStr
    encoding: StrictStr


class Protocols(_Fields):
    """Which version of the tracking plan's rule the message follows."""

    event_version: StrictInt | None = Field(default=None, alias="event_version")


class Amp(_Fields):
    """The AMP client."""

    id: StrictStr | None = None


class Context(_Fields):
    """What surrounds a message. Source: https://segment.com/docs/connections/spec/common/#context."""

    active: StrictBool | None = None
    app: App | None = None
    campaign: Campaign | None = None
    device: Device | None = None
    ip: StrictStr | None = None
    direct: StrictBool | None = None
    library: Library | None = None
    locale: StrictStr | None = None
    location: Location | None = None
    network: Network | None = None
    os: OperatingSystem | None = None
    page: PageContext | None = None
    referrer: Referrer | None = None
    screen: ScreenContext | None = None
    timezone: StrictStr | None = None
    group_id: StrictStr | None = None
    traits: dict[str, Any] | None = None
    user_agent: StrictStr | None = None
    user_agent_data: UserAgentData | None = None
    channel: StrictStr | None = None
    consent: Consent | None = None
    external_ids: list[ExternalId] | None = None
    protocols: Protocols | None = None
    amp: Amp | None = None


_REFUSED = ("device.advertisingId", "consent")
"""What Segment drops the message for. Source: its discard reasons `device_advertisingid_should_be_string`,
`consent_categorypreferences_…` and `consent_version_should_be_number` (https://segment.com/docs/connections/integration_error_codes/)."""


_REFUSED_HINTS = {
    "device": "Pass advertisingId as text.",
    "consent": 'Pass consent as {"categoryPreferences": {"Advertising": true}}; its version is a number.',
}


def context_faults(context: Mapping[str, Any]) -> list[str]:
    """Dotted paths of documented fields that hold the wrong type, in Segment's names."""
    filled = {name: value for name, value in context.items() if value != {}}
    try:
        Context.model_validate(filled, by_alias=True, by_name=False)
    except ValidationError as error:
        paths = (
            _dotted(fault["loc"])
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        )
        return list(dict.fromkeys(paths))
    return []


_UNION_BRANCHES = ("str", "int", "float")


def _dotted(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:60] for part in location if part not in _UNION_BRANCHES)


def _refuse_faults(context: dict[str, Any] | None) -> dict[str, Any] | None:
    judged = {key: context[key] for key in ("device", "consent") if key in context} if context else {}
    for path in context_faults(judged) if judged else ():
        if path.startswith(_REFUSED):
            raise refusal("{field} has the wrong type.", _REFUSED_HINTS[path.split(".")[0]], field=path)
    return context


MessageContext = Annotated[JsonObject, AfterValidator(_refuse_faults)]
"""A message's context: any object, but for the two fields that Segment drops messages for."""


def merged_context(own: Mapping[str, Any] | None, shared: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A message's context completed from the request's, at every depth; the message's own value wins.

    Consent is not completed: what a user did not agree to must not come from somewhere else.
    Segment documents that a request's context applies to every message, not how deep it merges.
    """
    if own is None or shared is None:
        found = own if shared is None else shared
        return None if found is None else dict(found)
    merged = dict(shared)
    for key, value in own.items():
        below = merged.get(key)
        both = isinstance(value, dict) and isinstance(below, dict) and key != "categoryPreferences"
        merged[key] = merged_context(cast("dict[str, Any]", value), cast("dict[str, Any]", below)) if both else value
    return merged

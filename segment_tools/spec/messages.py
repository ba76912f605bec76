"""The six messages of Segment's spec, and what Segment would drop each of them for."""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from segment_tools.spec.arguments import Arguments
from segment_tools.spec.context import MessageContext
from segment_tools.spec.integrations import Integrations
from segment_tools.spec.values import Id, JsonObject, MessageId, Name, Timestamp


class _Message(Arguments):
    """What all six have in common. Source: https://segment.com/docs/connections/spec/common/.

    Attributes are snake_case, and so are arguments in Python; aliases are Segment's camelCase. An absent field is
    None. Whatever Segment would drop or refuse raises `ValidationError` here; use `parse_message` for an
    `InvalidMessage` that says how to mend it.
    """

    user_id: Id = Field(default=None, description="Id of a known user")
    anonymous_id: Id = Field(default=None, description="Id of a visitor; needed without userId")
    context: MessageContext = Field(
        default=None,
        description="ip, locale, timezone, userAgent, campaign{name,source,medium,term,content}, app, device, os, "
        "consent",
    )
    integrations: Integrations = Field(default=None, description="Destinations: {'All': false, 'Heap': true}")
    timestamp: Timestamp = Field(default=None, description="ISO 8601; default now")
    message_id: MessageId = Field(default=None, description="Repeat to retry safely")

    @property
    def identified(self) -> bool:
        """Whether the message says whom it is about."""
        return self.user_id is not None or self.anonymous_id is not None

    def as_dict(self) -> dict[str, Any]:
        """The message in Segment's camelCase, without absent fields; its objects are the message's own, not copies."""
        fields = self.__dict__  # faster than its attributes, and this is asked of each message several times
        return {alias: value for name, alias in _names(type(self)) if (value := fields[name]) is not None}


ORDER = (
    "type",
    "event",
    "groupId",
    "userId",
    "previousId",
    "anonymousId",
    "email",
    "name",
    "category",
    "properties",
    "traits",
    "context",
    "integrations",
    "timestamp",
    "messageId",
)
"""The order in which fields are shown and sent: what matters most to a reader first."""


@cache
def _names(model: type[BaseModel]) -> tuple[tuple[str, str], ...]:
    names = ((name, field.alias or name) for name, field in model.model_fields.items())
    return tuple(sorted(names, key=lambda pair: ORDER.index(pair[1]) if pair[1] in ORDER else -1))


class Track(_Message):
    """Something a user did. Source: https://segment.com/docs/connections/spec/track/."""

    REQUIRED: ClassVar[Mapping[str, str]] = {"event": "Pass the name of what the user did, such as 'Order Completed'."}

    type: Literal["track"] = "track"
    event: Name = Field(default=None, description="Object + past-tense verb: 'Order Completed'")
    properties: JsonObject = Field(
        default=None, description="revenue (number), currency (ISO 4217), product_id, price, products[]"
    )


class Identify(_Message):
    """Who a user is. Source: https://segment.com/docs/connections/spec/identify/."""

    type: Literal["identify"] = "identify"
    traits: JsonObject = Field(
        default=None,
        description="email, name, phone, plan, company, title, createdAt, address{city,country,postalCode}; "
        "null removes one",
    )


class Page(_Message):
    """A page a user saw. Source: https://segment.com/docs/connections/spec/page/."""

    type: Literal["page"] = "page"
    name: Name = Field(default=None, description="Such as 'Home', 'Pricing'")
    category: Name = Field(default=None, description="Such as 'Docs'")
    properties: JsonObject = Field(default=None, description="url, title, path, referrer, search")


class Screen(_Message):
    """A screen of an app that a user saw. Source: https://segment.com/docs/connections/spec/screen/."""

    type: Literal["screen"] = "screen"
    name: Name = Field(default=None, description="Such as 'Checkout'")
    category: Name = Field(default=None, description="Such as 'Shop'")
    properties: JsonObject = Field(default=None, description="Details of the screen")


class Group(_Message):
    """A user's belonging to an account. Source: https://segment.com/docs/connections/spec/group/."""

    REQUIRED: ClassVar[Mapping[str, str]] = {"groupId": "Pass the id of the company or account, such as 'company_42'."}

    type: Literal["group"] = "group"
    group_id: Id = Field(default=None, description="Any stable id: 'company_42'")
    traits: JsonObject = Field(default=None, description="name, industry, employees, plan, website")


class Alias(_Message):
    """Two ids of one user. Source: https://segment.com/docs/connections/spec/alias/.

    `previous_id` is optional in the spec only because browsers fill it in; over HTTP it is required.
    """

    REQUIRED: ClassVar[Mapping[str, str]] = {
        "userId": "Pass the new, lasting id of the user.",
        "previousId": "Pass the id that the user had until now, often the visitor's anonymousId.",
    }

    type: Literal["alias"] = "alias"
    user_id: Id = Field(default=None, description="The new id, to keep")
    anonymous_id: Id = Field(default=None, description="Id of the visitor, kept beside")
    previous_id: Id = Field(default=None, description="The old id")


Message = Annotated[Track | Identify | Page | Screen | Group | Alias, Field(discriminator="type")]
"""Any of the six, told apart by `type`."""

AnyMessage = Track | Identify | Page | Screen | Group | Alias

KINDS: dict[str, type[AnyMessage]] = {
    "track": Track,
    "identify": Identify,
    "page": Page,
    "screen": Screen,
    "group": Group,
    "alias": Alias,
}

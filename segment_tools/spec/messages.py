"""The six messages of Segment's spec, what makes each of them lost, and how to say so."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel, to_snake

from segment_tools.errors import InvalidMessage, Problem
from segment_tools.spec.context import MessageContext, nearest
from segment_tools.spec.values import Id, JsonObject, MessageId, Name, Timestamp, printable, refusal

_NO_ID = "Either userId or anonymousId must be provided."


class _Message(BaseModel):
    """What all six have in common. Source: https://segment.com/docs/connections/spec/common/.

    Attributes are snake_case, and so are arguments in Python; aliases are Segment's camelCase. An absent field is
    None. Whatever Segment would drop or refuse raises `ValidationError` here; use `parse_message` for an
    `InvalidMessage` that says how to mend it.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
        defer_build=True,
    )

    REQUIRED: ClassVar[Mapping[str, str]] = {}
    """What Segment drops the message without, and what to pass."""

    user_id: Id = Field(default=None, description="Stable id of a known user")
    anonymous_id: Id = Field(default=None, description="Id of a visitor; needed without userId")
    context: MessageContext = Field(
        default=None,
        description="ip, locale, timezone, userAgent, campaign{name,source,medium,term,content}, app, device, os",
    )
    integrations: JsonObject = Field(default=None, description="Destinations: {'All': false, 'Mixpanel': true}")
    timestamp: Timestamp = Field(default=None, description="ISO 8601; default now")
    message_id: MessageId = Field(default=None, description="Repeat it to retry safely")

    @model_validator(mode="after")
    def _complete(self) -> "_Message":
        if missing := [name for name in self.REQUIRED if getattr(self, to_snake(name)) is None]:
            raise refusal(
                f"{missing[0]} is required.", self.REQUIRED[missing[0]], code="missing_field", field=missing[0]
            )
        return self

    @property
    def identified(self) -> bool:
        """Whether the message says whom it is about."""
        return self.user_id is not None or self.anonymous_id is not None

    def as_dict(self) -> dict[str, Any]:
        """The message in Segment's camelCase, without absent fields; its objects are the message's own, not copies."""
        return {alias: value for name, alias in _names(type(self)) if (value := getattr(self, name)) is not None}


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

    REQUIRED = {"event": "Pass the name of what the user did, such as 'Order Completed'."}

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

    REQUIRED = {"groupId": "Pass the id of the company or account, such as 'company_42'."}

    type: Literal["group"] = "group"
    group_id: Id = Field(default=None, description="Any stable id: 'company_42'")
    traits: JsonObject = Field(default=None, description="name, industry, employees, plan, website")


class Alias(_Message):
    """Two ids of one user. Source: https://segment.com/docs/connections/spec/alias/.

    `previous_id` is optional in the spec only because browsers fill it in; over HTTP it is required.
    """

    REQUIRED = {
        "userId": "Pass the new, lasting id of the user.",
        "previousId": "Pass the id that the user had until now.",
    }

    type: Literal["alias"] = "alias"
    user_id: Id = Field(default=None, description="The new id, to keep")
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

_M = TypeVar("_M", bound=BaseModel)


def parse(model: type[_M], fields: Mapping[str, Any], *, index: int | None = None, identity: bool = False) -> _M:
    """The model built from Segment's camelCase names; with `identity` it must say whom it is about.

    Raises:
        InvalidMessage: with every problem found, at `index` of the batch it stands in.

    """
    unnamed = [no_identity(index)] if identity and not _identified(model, fields) else []
    try:
        parsed = model.model_validate(fields, by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidMessage([*_problems(error, model, fields, index), *unnamed]) from None
    if unnamed:
        raise InvalidMessage(unnamed)
    return parsed


def parse_message(fields: object, *, index: int | None = None, identity: bool = False) -> AnyMessage:
    """A message of any type from its camelCase fields, `type` among them.

    Another type's field may be there if it is null or empty: strict schemas make models fill in all of them.

    Raises:
        InvalidMessage: with every problem found, at `index` of the batch it stands in.

    """
    if not isinstance(fields, Mapping):
        raise InvalidMessage(
            [
                Problem(
                    "invalid_value",
                    "The message is not an object.",
                    'Pass one such as {"type": "track", "event": "Order Completed", "userId": "u1"}.',
                    "batch",
                    index,
                )
            ]
        )
    given = cast("Mapping[str, Any]", fields)
    kind = given.get("type")
    if not isinstance(kind, str) or kind not in KINDS:
        code = "missing_field" if kind in (None, "") else "invalid_value"
        meant = nearest(kind, list(KINDS)) if isinstance(kind, str) else None
        hint = f"Did you mean {meant!r}?" if meant else f"Pass one of {', '.join(KINDS)}."
        raise InvalidMessage([Problem(code, "type must name the kind of message.", hint, "type", index)])
    own = {name: value for name, value in given.items() if value not in (None, "") or name not in ORDER}
    return parse(KINDS[kind], own, index=index, identity=identity)


def no_identity(index: int | None = None) -> Problem:
    """The problem of a message without an id."""
    hint = "Pass userId for a known user, or anonymousId for a visitor."
    return Problem("missing_field", _NO_ID, hint, "userId", index)


def _identified(model: type[BaseModel], fields: Mapping[str, Any]) -> bool:
    """Whether an id is given at all: a blank one has a problem of its own, and so has an alias without userId."""
    if not issubclass(model, _Message) or "userId" in model.REQUIRED:
        return True
    return any(fields.get(name) not in (None, "") for name in ("userId", "anonymousId"))


def _required(model: type[BaseModel]) -> Mapping[str, str]:
    return model.REQUIRED if issubclass(model, _Message) else {}


def _problems(
    error: ValidationError, model: type[BaseModel], given: Mapping[str, Any], index: int | None
) -> list[Problem]:
    """The problems pydantic found, and the required fields that it does not come to when others are wrong."""
    found = [
        _problem(fault["type"], fault["loc"], fault.get("ctx", {}), model, given, index)
        for fault in error.errors(include_url=False, include_input=False)
    ]
    missing = [
        Problem("missing_field", f"{name} is required.", hint, name, index)
        for name, hint in _required(model).items()
        if given.get(name) in (None, "")
    ]
    named = {problem.field for problem in missing}
    return [*missing, *(problem for problem in found if problem.field not in named)]


def _problem(
    kind: str,
    location: Sequence[int | str],
    said: Mapping[str, Any],
    model: type[BaseModel],
    given: Mapping[str, Any],
    index: int | None,
) -> Problem:
    name = str(location[0]) if location else ""
    if kind == "refusal":
        field = ".".join(part for part in (name, said["below"]) if part)
        return Problem(
            said["code"],
            said["message"].replace("{field}", field),
            said["hint"].replace("{field}", field),
            field,
            index,
        )
    if kind == "extra_forbidden":
        return _unknown(name, model, given, index)
    if kind == "missing":
        return Problem("missing_field", f"{name} is required.", "", name, index)
    if name == "type":
        return Problem(
            "invalid_value",
            "type does not fit this tool.",
            "Leave type out, or use the tool of that name.",
            name,
            index,
        )
    if not name:
        return Problem("invalid_value", "A field's name is not valid text.", "Pass valid Unicode.", "arguments", index)
    return Problem("invalid_value", f"{name} is not valid.", "See the tool's schema for what it takes.", name, index)


def _unknown(name: str, model: type[BaseModel], given: Mapping[str, Any], index: int | None) -> Problem:
    known = [field.alias or key for key, field in model.model_fields.items() if (field.alias or key) != "type"]
    shown = printable(name)
    meant = nearest(name, known)
    inside = given.get(name)
    if meant:
        hint = f"Did you mean {meant!r}?"
    elif isinstance(inside, dict) and any(key in known for key in cast("dict[object, object]", inside)):
        hint = f"Move what is inside {shown!r} to the top level."
    else:
        home = next((place for place in ("properties", "traits", "context") if place in known), None)
        hint = f"It takes {', '.join(known)}." + (
            f" Details of your own go into {home}." if home and home != "context" else ""
        )
    return Problem("unknown_argument", f"{shown!r} is not a known field.", hint, shown, index)

"""From the fields of a call to a message, or to every problem that is in them and how to mend each."""

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from segment_tools.errors import LISTED_PROBLEMS, InvalidMessage, Problem
from segment_tools.spec.messages import KINDS, ORDER, AnyMessage
from segment_tools.spec.names import nearest, printable
from segment_tools.spec.unknown_fields import mend, other_tool, whole_call

_M = TypeVar("_M", bound=BaseModel)
_ABSENT = (None, "")


def parse(model: type[_M], fields: Mapping[str, Any], *, identity: bool = False, most: int = LISTED_PROBLEMS) -> _M:
    """The model built from Segment's camelCase names; with `identity` it must say whom it is about.

    Raises:
        InvalidMessage: with the first `most` of the problems, and how many more there are.
    """
    unnamed = [no_identity()] if identity and not _identified(model, fields) else []
    try:
        parsed = model.model_validate(fields, by_alias=True, by_name=False)
    except ValidationError as error:
        problems, more = _problems(error, model, fields, most)
        raise InvalidMessage([*problems, *unnamed], more) from None
    if unnamed:
        raise InvalidMessage(unnamed)
    return parsed


def kind_of(fields: Mapping[str, Any]) -> str:
    """The message's type.

    Raises:
        InvalidMessage: it has none, or one that Segment does not know.
    """
    name = fields.get("type")
    if isinstance(name, str) and name in KINDS:
        return name
    if name in _ABSENT:
        _refuse_wrapped(fields)
    code = "missing_field" if name in _ABSENT else "invalid_value"
    meant = nearest(name.removeprefix("segment_"), KINDS) if isinstance(name, str) else None
    hint = f"Did you mean {meant!r}?" if meant else f"Pass one of {', '.join(KINDS)}."
    raise InvalidMessage.of(code, "type must name the kind of message.", hint, "type")


def _refuse_wrapped(fields: Mapping[str, Any]) -> None:
    """Say so where a message stands inside another, which lacks a type for that reason alone."""
    for name, value in fields.items():
        if hint := whole_call(name, ORDER, value):
            shown = printable(name)
            raise InvalidMessage.of("unknown_argument", f"{shown!r} is not a known field.", hint, shown)


def fields_of(message: object) -> dict[str, Any]:
    """The fields of a message of any type, but for those that are null or empty.

    Another type's may be among them: strict schemas make models fill in all.

    Raises:
        InvalidMessage: it is no object.
    """
    if not isinstance(message, Mapping):
        hint = 'Pass one such as {"type": "track", "event": "Order Completed", "userId": "u1"}.'
        raise InvalidMessage.of("invalid_value", "The message is not an object.", hint, "batch")
    given = cast("Mapping[str, Any]", message)
    return {name: value for name, value in given.items() if value not in _ABSENT or name not in ORDER}


def parse_message(fields: object, *, identity: bool = False) -> AnyMessage:
    """A message of any type from its camelCase fields, `type` among them.

    Raises:
        InvalidMessage: with every problem found.
    """
    given = fields_of(fields)
    return parse(KINDS[kind_of(given)], given, identity=identity)


def no_identity() -> Problem:
    """The problem of a message that says nothing of whom it is about: Segment drops it (`no_user_anon_id`)."""
    hint = "Pass userId for a known user, or anonymousId for a visitor."
    return Problem("missing_field", "Either userId or anonymousId must be provided.", hint, "userId")


def _identified(model: type[BaseModel], fields: Mapping[str, Any]) -> bool:
    """Whether an id is given at all: a blank one has a problem of its own, and so has an alias without userId."""
    return not _wants_identity(model) or any(fields.get(name) not in _ABSENT for name in ("userId", "anonymousId"))


@cache
def _wants_identity(model: type[BaseModel]) -> bool:
    return "anonymousId" in _aliases(model) and "userId" not in _required(model)


def _aliases(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _is_open(model: type[BaseModel]) -> bool:
    """Whether its type is for the caller to say: that of a message is the tool's."""
    return model.model_fields["type"].default is None


def _required(model: type[BaseModel]) -> Mapping[str, str]:
    return getattr(model, "REQUIRED", {})


def _problems(
    error: ValidationError, model: type[BaseModel], given: Mapping[str, Any], most: int
) -> tuple[list[Problem], int]:
    """The problems pydantic found, and the required fields that it does not come to when others are wrong.

    What does not belong here comes first: it often is what is missing, under another name. Of it, and of the rest,
    at most so many are described; how many are not is counted.
    """
    missing = [
        Problem("missing_field", f"{name} is required.", hint, name)
        for name, hint in _required(model).items()
        if given.get(name) in _ABSENT
    ]
    named = {problem.field for problem in missing}
    faults = error.errors(include_url=False, include_input=False)
    strange = [fault for fault in faults if _is_strange(fault)]
    rest = [fault for fault in faults if not _is_strange(fault)]
    other = [problem for fault in rest if (problem := _problem(fault, model, given)).field not in named]
    shown = [_problem(fault, model, given) for fault in strange[:most]]
    return [*shown, *missing, *other], len(strange) - len(shown)


def _is_strange(fault: Mapping[str, Any]) -> bool:
    """Whether the fault is of a field that does not belong here, as another tool's type does not."""
    return fault["type"] == "extra_forbidden" or _place(fault) == "type"


def _problem(fault: Mapping[str, Any], model: type[BaseModel], given: Mapping[str, Any]) -> Problem:
    name = _place(fault)
    if fault["type"] == "refusal":
        return _refused(name, fault["ctx"])
    if fault["type"] == "extra_forbidden":
        return _unknown(name, model, given)
    if fault["type"] == "missing":
        return Problem("missing_field", f"{name} is required.", "", name)
    if name == "type":
        return Problem("invalid_value", "type does not fit this tool.", other_tool(given.get("type")), name)
    if not name:
        return Problem("invalid_value", "A field's name is not valid text.", "Pass valid Unicode.", "arguments")
    return Problem("invalid_value", f"{name} is not valid.", "See the tool's schema for what it takes.", name)


def _place(fault: Mapping[str, Any]) -> str:
    return str(fault["loc"][0]) if fault["loc"] else ""


_EXAMPLES = {"context": '{"locale": "en-US"}', "integrations": '{"Mixpanel": true}'}


def _refused(name: str, said: Mapping[str, str]) -> Problem:
    """One of this package's own refusals, with the field's name in its place."""
    field = ".".join(part for part in (name, said["below"]) if part)
    example = _EXAMPLES.get(name, '{"plan": "pro"}')
    message, hint = (said[text].replace("{field}", field).replace("{example}", example) for text in ("message", "hint"))
    return Problem(said["code"], message, hint, field)


def _unknown(name: str, model: type[BaseModel], given: Mapping[str, Any]) -> Problem:
    known = [alias for alias in _aliases(model) if alias != "type" or _is_open(model)]
    shown = printable(name)
    return Problem("unknown_argument", f"{shown!r} is not a known field.", mend(name, known, given), shown)

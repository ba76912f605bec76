"""What msgspec reads rows as: as rows of any kind, or only as rows of kinds that were seen, whose values then fit.

To read a row as one of a known kind is to check it: it has the kind's names and no others, and what should be a number,
or a currency, is one. So nothing of it need be looked at again.
"""

import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self, Union, cast, get_args, get_origin

import msgspec
from pydantic import BaseModel

from segment_tools.spec import limits
from segment_tools.spec.context import Context
from segment_tools.spec.currencies import CURRENCIES

_Number = bool | int | float | None
"""As which a number may be given, but for text."""
_Scalar = _Number | str
_Inner = _Scalar | list[_Scalar] | dict[str, _Scalar]
_NoText = _Number | list[_Inner] | dict[str, _Inner]
_Value = _NoText | str
_Fields = dict[str, _Value]
"""Properties or traits of no more levels than destinations take."""

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Id = Annotated[str, msgspec.Meta(min_length=limits.SHORT_MESSAGE_ID, max_length=limits.MESSAGE_ID_CHARACTERS - 1)]
_GroupId = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.GROUP_ID_CHARACTERS)]
_ABSENT = cast("Any", None)
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_Currency = Literal[tuple(sorted(CURRENCIES))]  # pyright: ignore[reportInvalidTypeForm] - made of a tuple


class _Common(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, gc=False, rename="camel"):
    """What all rows may have; a field that is None is not there, for null is not taken."""

    view: ClassVar[Any] = None
    """What is known of all rows of the kind; None where the row must be looked at first."""
    user_id: _Text = _ABSENT
    anonymous_id: _Text = _ABSENT
    message_id: _Id = _ABSENT
    timestamp: _Moment = _ABSENT
    context: Any = None


class _Row(_Common, tag_field="type"):
    """A row of any kind."""

    kind: ClassVar[str]
    holder: ClassVar[str] = "properties"
    texts: ClassVar[tuple[str, ...]] = ()
    """What may be blank beside the ids."""
    event: ClassVar[str | None] = None
    integrations: dict[str, bool] = _ABSENT


@dataclass(frozen=True, slots=True)
class Shape:
    """What track messages of a kind have in common: the event, and the properties' names; none has `integrations`."""

    event: str
    names: tuple[str, ...]
    items: tuple[str, ...]
    """The names in each of the `products`."""
    numbers: tuple[str, ...]
    """The properties that are no text."""
    item_numbers: tuple[str, ...]

    @classmethod
    def of(cls, event: str, names: Sequence[str], items: Sequence[str], *numbers: Sequence[str]) -> Self | None:
        """The shape; None where a type cannot say it."""
        quoted = any(sign in name for name in (*names, *items) for sign in '"\\')
        if not names or quoted or ("products" in names and not items):
            return None
        own, below = map(tuple, numbers)
        return None if "currency" in own else cls(event, tuple(names), tuple(items), own, below)


class _Nobody(_Common, tag_field="event", tag=""):
    """Takes no row; where there is one type alone, msgspec takes for it what has no tag, or perhaps an empty one."""

    type: Annotated[str, msgspec.Meta(min_length=1, max_length=0)]


def decoder_of(known: Iterable[tuple[Shape, object]]) -> Any:
    """Reads rows of these shapes alone, no two of one event, each with what is its `view`."""
    rows = (_Nobody, *(_row_like(*each) for each in known))
    return msgspec.json.Decoder(Union[rows]).decode  # noqa: UP007 - made of a tuple


def _row_like(shape: Shape, view: object) -> Any:
    properties = _exactly((name, _type_of(shape, name)) for name in shape.names)
    fields = [
        ("type", Literal["track"]),
        ("properties", properties),
        ("context", _struct_of(Context), msgspec.field(default=None)),
    ]
    told = {"view": view}
    return msgspec.defstruct(
        "track", fields, bases=(_Common,), namespace=told, tag_field="event", tag=shape.event, gc=False, kw_only=True
    )


def _type_of(shape: Shape, name: str) -> Any:
    if name == "products":
        item = _exactly((each, _Number if each in shape.item_numbers else _Scalar) for each in shape.items)
        return Annotated[list[item], msgspec.Meta(min_length=1)]
    if name == "currency":
        return _Currency
    return _NoText if name in shape.numbers else _Value


def _exactly(fields: Iterable[tuple[str, Any]]) -> Any:
    """An object that has these fields and no others."""
    named = [(f"field_{at}", kind, msgspec.field(name=name)) for at, (name, kind) in enumerate(fields)]
    return msgspec.defstruct("fields", named, forbid_unknown_fields=True, gc=False)


def _plain_type(annotation: Any) -> Any:
    """What msgspec takes where pydantic takes this; where that may be deep or long, nothing at all."""
    origin, below = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _plain_type(below[0])
    if origin in (Union, types.UnionType):
        return Union[tuple(_plain_type(each) for each in below)]  # noqa: UP007 - made of a tuple
    if origin is list:
        return None
    if origin is dict:
        return dict[str, _Inner if below[1] is Any else _plain_type(below[1])]
    is_model = isinstance(annotation, type) and issubclass(cast("type[Any]", annotation), BaseModel)
    return _struct_of(cast("Any", annotation)) if is_model else annotation


@cache
def _struct_of(model: type[BaseModel]) -> type[msgspec.Struct]:
    """The model's documented fields, and no others."""
    fields = [
        (name, _plain_type(field.annotation), msgspec.field(name=field.alias, default=None))
        if not field.is_required()
        else (name, _plain_type(field.annotation), msgspec.field(name=field.alias))
        for name, field in model.model_fields.items()
    ]
    return msgspec.defstruct(model.__name__, fields, forbid_unknown_fields=True, gc=False, kw_only=True)


@cache
def decoder() -> msgspec.json.Decoder[Any]:
    """Reads rows of every type but alias, which is rare, and a matter of two ids."""
    context = _struct_of(Context)
    absent: Any = msgspec.field(default=None)

    def row(kind: str, holder: str, own: Sequence[tuple[Any, ...]] = (), **said: Any) -> Any:
        fields = [*own, ("context", context, absent), ("fields", _Fields, msgspec.field(name=holder, default=None))]
        namespace = {"kind": kind, "holder": holder, **said}
        return msgspec.defstruct(kind, fields, bases=(_Row,), namespace=namespace, tag=kind, gc=False, kw_only=True)

    views = [("name", _Text, absent), ("category", _Text, absent)]
    every = (
        row("track", "properties", [("event", _Text)]),
        row("identify", "traits"),
        row("group", "traits", [("group_id", _GroupId, msgspec.field(name="groupId"))], texts=("group_id",)),
        row("page", "properties", views, texts=("name", "category")),
        row("screen", "properties", views, texts=("name", "category")),
    )
    return msgspec.json.Decoder(Union[every])  # noqa: UP007 - made of a tuple

"""Faults on request: what the next requests get in place of a right answer, to see how a caller behaves."""

import json
import math
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from segment_tools.sandbox.http import read, shown
from segment_tools.sandbox.json_text import object_of

OWN_FIELDS = {
    "answer": ("status", "headers", "body"),
    "slow": ("seconds",),
    "hang": (),
    "reset": (),
    "drop": (),
}
"""The kinds of fault, and the fields that each has beside the common ones."""

_COMMON = ("kind", "path", "times", "share")
_PATHS = ("/v1/", "/token")
_FAULT_BYTES = 256 * 1024
_MOST_TIMES, _MOST_SECONDS = 10**9, 3600
_NO_BODY = (204, 304)
_FRAMING = ("content-length", "transfer-encoding")
_EXAMPLE = '{"status": 503, "headers": {"Retry-After": "3"}, "times": 2}'


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to which requests. `path` None is every path of Segment's, `times` None is without end."""

    kind: str
    path: str | None = None
    times: int | None = 1
    share: float | None = None
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: tuple[object, ...] = ()
    """The answer's JSON as its one element; empty for the API's own."""
    seconds: float = 0.0

    def applies(self, path: str) -> bool:
        """Whether a request of this path could get it."""
        return path.startswith(self.path or _PATHS)

    def takes(self, number: int) -> bool:
        """Whether it takes the request of this number, counted from 1: evenly spread, 0.25 is every fourth."""
        share = Fraction(str(self.share or 1))
        return math.floor(number * share) > math.floor((number - 1) * share)


def fault_in(text: str | bytes) -> Fault:
    """The fault that the JSON text describes.

    Raises:
        ValueError: it describes none; the text says how to mend it.
    """
    try:
        given = object_of(text)
    except ValueError:
        raise ValueError(f"a fault is a JSON object, such as {_EXAMPLE}") from None
    return fault_of(given)


def fault_of(given: Mapping[str, object]) -> Fault:
    """The fault that the fields describe.

    Raises:
        ValueError: they describe none; the text says how to mend it.
    """
    every = {"kind", *_COMMON, *(name for own in OWN_FIELDS.values() for name in own)}
    if strangers := [name for name in given if name not in every]:
        raise ValueError(f"unknown field {strangers[0][:40]!r}: the fields are {', '.join(sorted(every))}")
    kind = given.get("kind", "answer" if "status" in given else None)
    if not isinstance(kind, str) or kind not in OWN_FIELDS:
        raise ValueError(f"kind must be one of {', '.join(OWN_FIELDS)}; or give a status, as in {_EXAMPLE}")
    known = (*_COMMON, *OWN_FIELDS[kind])
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"unknown field {unknown[0][:40]!r}: the kind {kind} takes {', '.join(known)}")
    share = _share(given.get("share"))
    return Fault(
        kind=kind,
        path=_path(given.get("path")),
        times=_times(given.get("times"), share),
        share=share,
        **{"answer": _answer, "slow": _slow}.get(kind, _nothing)(given),
    )


def _nothing(_: Mapping[str, object]) -> dict[str, Any]:
    return {}


def _path(value: object) -> str | None:
    if value is None or (isinstance(value, str) and value.startswith(_PATHS)):
        return value
    raise ValueError("path must begin with /v1/ or /token, such as /v1/batch")


def _times(value: object, share: float | None) -> int | None:
    if value is None:
        return None if share else 1
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_TIMES:
        return value
    raise ValueError("times must be a whole number from 1: how many requests get the fault")


def _share(value: object) -> float | None:
    share = _number(value)
    if value is None or 0 < share <= 1:
        return share or None
    raise ValueError("share must be a number above 0 and at most 1: 0.25 is every fourth request")


def _number(value: object) -> float:
    """The number; 0, which no field may be, for anything else."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0


def _slow(given: Mapping[str, object]) -> dict[str, Any]:
    seconds = _number(given.get("seconds"))
    if not 0 < seconds <= _MOST_SECONDS:
        raise ValueError(f"seconds must be a number above 0 and at most {_MOST_SECONDS}")
    return {"seconds": seconds}


def _answer(given: Mapping[str, object]) -> dict[str, Any]:
    status, headers = given.get("status"), given.get("headers", {})
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:  # noqa: PLR2004
        raise ValueError("status must be a whole number from 200 to 599, such as 503")
    if status in _NO_BODY and "body" in given:
        raise ValueError(f"an answer of status {status} has no body: leave body out")
    if not isinstance(headers, dict) or not all(
        _is_header(*item) for item in cast("dict[str, object]", headers).items()
    ):
        raise ValueError('headers must be an object of texts, such as {"Retry-After": "3"}')
    if framing := [name for name in cast("dict[str, str]", headers) if name.lower() in _FRAMING]:
        raise ValueError(f"headers must not have {framing[0]}: it follows from the body")
    return {"status": status, "headers": headers, "body": _body(given)}


def _body(given: Mapping[str, object]) -> tuple[object, ...]:
    if "body" not in given:
        return ()
    try:
        json.dumps(given["body"], allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise ValueError("body must be JSON") from None
    return (given["body"],)


def _is_header(name: str, value: object) -> bool:
    named = re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name)
    return bool(named) and isinstance(value, str) and re.fullmatch(r"([!-~]([ -~]*[!-~])?)?", value) is not None


@dataclass(slots=True)
class _Planned:
    id: int
    fault: Fault
    used: int = 0
    seen: int = 0

    def left(self) -> int | None:
        return None if self.fault.times is None else self.fault.times - self.used

    def shown(self) -> dict[str, Any]:
        fault = self.fault
        common = {"id": self.id, "kind": fault.kind, "path": fault.path, "times": fault.times, "share": fault.share}
        own = {name: getattr(fault, name) for name in OWN_FIELDS[fault.kind] if name != "body"}
        body = {"body": fault.body[0]} if fault.body else {}
        return {**common, "left": self.left(), "used": self.used, "seen": self.seen, **own, **body}


class Faults:
    """The faults of a sandbox, the oldest first. Any thread may ask for them."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._planned: list[_Planned] = []
        self._last = 0
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> dict[str, Any]:
        """Plan the fault; what a list shows of it."""
        with self._lock:
            self._last += 1
            self._planned.append(_Planned(self._last, fault))
            return self._planned[-1].shown()

    def due(self, path: str) -> Fault | None:
        """The fault that a request of this path gets: the oldest that is not spent and takes it."""
        if not self._planned:
            return None
        with self._lock:
            for planned in self._planned:
                if planned.left() == 0 or not planned.fault.applies(path):
                    continue
                planned.seen += 1
                if planned.fault.takes(planned.seen):
                    planned.used += 1
                    return planned.fault
        return None

    @property
    def idle(self) -> bool:
        """Whether no fault is left to happen."""
        return all(planned.left() == 0 for planned in tuple(self._planned))

    def shown(self) -> list[dict[str, Any]]:
        """Every fault, the spent ones included: its fields, and `id`, `left` (null: no end), `used` and `seen`."""
        with self._lock:
            return [planned.shown() for planned in self._planned]

    def clear(self, number: int | None = None) -> int:
        """Forget the fault of this number, or all; how many that were."""
        with self._lock:
            kept = [planned for planned in self._planned if number not in (None, planned.id)]
            count = len(self._planned) - len(kept)
            self._planned = kept
        return count


def routes(faults: Faults) -> list[Route]:
    """The routes below `/_sandbox`."""

    async def add(request: Request) -> Response:
        try:
            fault = fault_in(await read(request.headers, request.receive, _FAULT_BYTES))
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        return shown(faults.add(fault), 201)

    async def look(_: Request) -> Response:
        return shown({"faults": faults.shown()})

    async def clear(_: Request) -> Response:
        return JSONResponse({"deleted": faults.clear()})

    async def remove(request: Request) -> Response:
        number = request.path_params["number"]
        if not (re.fullmatch("[0-9]{1,15}", number) and (count := faults.clear(int(number)))):
            raise HTTPException(404, "no such fault: GET /_sandbox/faults lists them")
        return JSONResponse({"deleted": count})

    return [
        Route("/faults", add, methods=["POST"]),
        Route("/faults", look, methods=["GET"]),
        Route("/faults", clear, methods=["DELETE"]),
        Route("/faults/{number}", remove, methods=["DELETE"]),
    ]

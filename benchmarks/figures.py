"""What is made of measurements: medians with their spread, ratios within a round, and whether a bar is met."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Figures = Mapping[str, float]
TIMES = " \N{MULTIPLICATION SIGN}"
_DIGITS = 3
Round = Mapping[str, Figures]
"""What was measured in one round: the name of a cell, as `cell` makes it, to its figures."""


def cell(*parts: object) -> str:
    """The name of one thing that is measured, from the general to the particular."""
    return "; ".join(map(str, parts))


@dataclass(frozen=True)
class Spread:
    """The median of the rounds, the least and the most."""

    median: float
    least: float
    most: float

    def shown(self, unit: str = "") -> str:
        """All three, to three digits or to whole numbers: 13.1 x (12.4-13.9)."""
        return f"{digits(self.median)}{unit} ({digits(self.least)}\N{EN DASH}{digits(self.most)})"


def digits(value: float) -> str:
    """The number with three digits that count, or as a whole number where it has more."""
    before = len(str(int(abs(value))))
    return f"{value:,.{max(0, _DIGITS - before)}f}"


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Bar:
    """A figure that is made of one round, what it is held against, and how much or how little it must be."""

    figure: str
    against: str
    of: Callable[[Round], float]
    bound: Literal["at least", "at most"]
    needed: float
    unit: str = TIMES
    counts: bool = True
    """Whether it is a bar; else it stands beside one for whoever wants to know."""

    def within(self, value: float) -> bool:
        """Whether the bar is met by it."""
        return value >= self.needed if self.bound == "at least" else value <= self.needed


def judged(bar: Bar, rounds: Sequence[Round]) -> dict[str, Any]:
    """The bar with its figure and whether that meets it; with neither where no round has what it needs."""
    about = {"figure": bar.figure, "against": bar.against, "unit": bar.unit}
    needed = {"bound": bar.bound, "needed": bar.needed} if bar.counts else {}
    values = [value for each in rounds if (value := _value(bar, each)) is not None]
    if not values:
        return {**about, **needed}
    found = spread(values)
    met = {"met": bar.within(found.median)} if bar.counts else {}
    return {**about, **needed, "median": found.median, "least": found.least, "most": found.most, **met}


def _value(bar: Bar, found: Round) -> float | None:
    try:
        return bar.of(found)
    except KeyError:  # one of its cells was not measured
        return None


def of(name: str, figure: str) -> Callable[[Round], float]:
    """The figure of a cell."""
    return lambda found: found[name][figure]


def ratio(ours: str, theirs: str, figure: str) -> Callable[[Round], float]:
    """The figure of one cell, of the same figure of another."""
    return lambda found: found[ours][figure] / found[theirs][figure]


OURS, OFFICIAL = "this project", "segment-analytics-python"
SMALL, LARGE = "100,000", "1,000,000"
PINNED, FREE = "one core", "any core"


def bulk(side: str, messages: str, cores: str = PINNED, delay: int = 0) -> str:
    """The cell of a file that was sent."""
    return cell("bulk", side, messages, cores, f"{delay} ms")


def called(way: str, side: str, in_flight: int, delay: int = 0, cores: str = "") -> str:
    """The cell of calls that are waited for; `cores` where it is measured on one and on any."""
    return cell(way, side, f"{in_flight} in flight", f"{delay} ms", *([cores] if cores else []))


def _bulk_bars() -> list[Bar]:
    bars = list[Bar]()
    for size in (SMALL, LARGE):
        ours, theirs = bulk(OURS, size), bulk(OFFICIAL, size)
        title = f"{size} events from a file"
        bars += [
            Bar(f"{title}: messages a second", OFFICIAL, ratio(ours, theirs, "per_second"), "at least", 10),
            Bar(f"{title}: CPU seconds", OFFICIAL, ratio(ours, theirs, "sending_cpu_seconds"), "at most", 0.1),
        ]
    ours, ours_large, theirs = bulk(OURS, SMALL, delay=30), bulk(OURS, LARGE, delay=30), bulk(OFFICIAL, SMALL, delay=30)
    slow = "events, 30 ms of delay: messages a second"
    theirs_small = f"{OFFICIAL} with {SMALL}"
    memory = f"{LARGE} events: peak memory"
    free = f"{SMALL} events, on any core: messages a second"
    whole = "events, start of the process and all: messages a second"
    return [
        *bars,
        Bar(f"{SMALL} {slow}", OFFICIAL, ratio(ours, theirs, "per_second"), "at least", 30),
        Bar(f"{LARGE} {slow}", theirs_small, ratio(ours_large, theirs, "per_second"), "at least", 30),
        Bar(memory, f"itself at {SMALL}", ratio(bulk(OURS, LARGE), bulk(OURS, SMALL), "peak_mb"), "at most", 1.1),
        Bar(memory, "", of(bulk(OURS, LARGE), "peak_mb"), "at most", 90, " MB"),
        _beside(free, OFFICIAL, ratio(bulk(OURS, SMALL, FREE), bulk(OFFICIAL, SMALL, FREE), "per_second")),
        *(
            _beside(f"{size} {whole}", OFFICIAL, ratio(bulk(OURS, size), bulk(OFFICIAL, size), "whole_per_second"))
            for size in (SMALL, LARGE)
        ),
    ]


def _beside(figure: str, against: str, made: Callable[[Round], float], unit: str = TIMES) -> Bar:
    return Bar(figure, against, made, "at least", 0, unit, counts=False)


def _stdio_of_sum(cores: str) -> Callable[[Round], float]:
    def of_sum(found: Round) -> float:
        ours, empty, post = (found[called("stdio", side, 1, cores=cores)]["p50_ms"] for side in (OURS, EMPTY, HTTPX))
        return ours / (empty + post)

    return of_sum


def _tool_calls(way: str, cores: str) -> Callable[[Round], float]:
    return ratio(called(way, OURS, 32, cores=cores), called(way, EMPTY, 32, cores=cores), "per_second")


def _tool_bars() -> list[Bar]:
    """Of tool calls: on any core, as hosts run their servers; the same tied to one core stands beside."""
    stdio, http = f"{EMPTY} over the SDK's stdio", f"{EMPTY} served the same way"
    alone = "tool call over stdio: p50"
    over_stdio, over_http = (f"32 tool calls at a time over {way}: calls a second" for way in ("stdio", "HTTP"))
    pinned = ", on one core"
    return [
        Bar(alone, f"{stdio}, and an httpx post", _stdio_of_sum(FREE), "at most", 0.55),
        _beside(alone + pinned, f"{stdio}, and an httpx post", _stdio_of_sum(PINNED)),
        Bar(over_stdio, stdio, _tool_calls("stdio", FREE), "at least", 1.8),
        _beside(over_stdio + pinned, stdio, _tool_calls("stdio", PINNED)),
        Bar(over_http, http, _tool_calls("HTTP", FREE), "at least", 0.7),
        _beside(over_http + pinned, http, _tool_calls("HTTP", PINNED)),
    ]


def _help_over(found: Round) -> float:
    return found["help"]["ms"] - found["help; import argparse"]["ms"]


HTTPX, EMPTY = "httpx", "an empty tool"


def bars() -> list[Bar]:
    """Every bar, and what stands beside them, in the order in which they are told."""
    alone, many = ("in process", OURS, 1), ("in process", OURS, 32)
    httpx_alone, httpx_many = called("in process", HTTPX, 1), called("in process", HTTPX, 32)
    return [
        *_bulk_bars(),
        Bar("call in process: p50", "bare httpx", ratio(called(*alone), httpx_alone, "p50_ms"), "at most", 0.75),
        Bar(
            "32 calls at a time in process: calls a second",
            "bare httpx",
            ratio(called(*many), httpx_many, "per_second"),
            "at least",
            5,
        ),
        Bar(
            "32 calls at a time in process: p99",
            "bare httpx",
            ratio(called(*many), httpx_many, "p99_ms"),
            "at most",
            0.25,
        ),
        *_tool_bars(),
        Bar(
            "start, to the answer to `initialize`",
            "an empty server, the SDK as it is",
            ratio(cell("start", OURS), cell("start", EMPTY), "ms"),
            "at most",
            0.95,
        ),
        Bar(
            "kept for good, 32 at a time: messages a second",
            "a SQLite transaction for each",
            ratio("durable", "durable; one by one", "per_second"),
            "at least",
            8,
        ),
        Bar('`segment-tools --help` beyond `python -c "import argparse"`', "", _help_over, "at most", 60, " ms"),
        Bar("definitions of the seven tracking tools", "", of("definitions", "bytes"), "at most", 9000, " bytes"),
        Bar("what receives: requests a second", "the most that any side asked", _room, "at least", 1.5),
        Bar("what receives: messages a second, in batches", "the most that any side sent", _bulk_room, "at least", 1.5),
    ]


CEILING = cell("receiver", "one message a request")
BULK_CEILING = cell("receiver", "full batches, gzip")


def _room(found: Round) -> float:
    return found[CEILING]["per_second"] / _most(found, "", "requests_per_second")


def _bulk_room(found: Round) -> float:
    return found[BULK_CEILING]["messages_per_second"] / _most(found, "bulk", "per_second")


def _most(found: Round, group: str, figure: str) -> float:
    asked = [figures[figure] for name, figures in found.items() if name.startswith(group) and figure in figures]
    if not asked:
        raise KeyError(figure)
    return max(asked)


def summary(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Every bar with its figure, as it is stored."""
    return [judged(bar, rounds) for bar in bars()]


def shown(judgement: Mapping[str, Any]) -> str:
    """The figure of a stored bar; "not measured" where there is none."""
    if "median" not in judgement:
        return "not measured"
    unit = judgement["unit"]
    return Spread(judgement["median"], judgement["least"], judgement["most"]).shown(unit)


def verdict(judgement: Mapping[str, Any]) -> str:
    """Whether a stored bar is met; nothing where it is no bar, or was not measured."""
    return {True: "met", False: "not met", None: ""}[judgement.get("met")]


def wanted(judgement: Mapping[str, Any]) -> str:
    """What a stored bar asks for; nothing where it is no bar."""
    if "needed" not in judgement:
        return ""
    sign = "≥" if judgement["bound"] == "at least" else "≤"
    return f"{sign} {judgement['needed']:,}{judgement['unit']}"

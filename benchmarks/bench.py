"""How fast this project is, beside bare HTTP, empty MCP servers and Segment's own libraries, in one run.

    python benchmarks/bench.py [--rounds N] [--only GROUP,...] [--quick] [--results FILE]

Every round measures each thing once, in turn, so that a slow hour slows all. Figures are medians of the rounds, with
the least and the most; ratios are those within a round. What is measured runs on one core, what receives and what calls
on another, but for the figures that say otherwise: tool calls are measured on any core too, as hosts run their servers.
Nothing that was sent counts unless it was confirmed: the receiver takes apart what came once the clock has stopped.

Files of events are sent by processes. What such a process takes for the first hundred events of the file, its start in
the main, is taken off, for both sides; the figures of the whole process stand beside.
"""

import argparse
import gzip
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import chart
import figures
import msgspec
from calls import arguments, post, posted
from events import events, write
from figures import EMPTY, FREE, HTTPX, LARGE, OFFICIAL, OURS, PINNED, SMALL, Figures, Round, bulk, called, cell
from mcp_calls import EMPTY_TOOL, Calls, http_server, start_seconds, stdio_server
from processes import Usage, apart, cores, on, ran
from receiver import Found, Receiving, receiving
from single import chosen

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "bench.json"
TRACKING = ("track", "identify", "page", "screen", "group", "alias", "batch")
LATE = 30
"""Milliseconds until an answer: about what Segment's own takes across a country."""
WARM_UP = 100
"""Events in the file that tells what a process takes besides its events: one full request of Segment's libraries."""
NODE, GZIPPED, LARGER = "@segment/analytics-node", f"{OFFICIAL}, gzip", f"{OFFICIAL}, 1,000 a request"
SHORT = cell("bulk", "start")
PACKAGES = ("mcp", "httpx", "aiohttp", "msgspec", "isal", "pydantic", "uvicorn", "segment-analytics-python")


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    seconds: float = 2
    spawns: int = 5
    pairs: int = 4
    delays: Sequence[int] = (0, LATE)
    sizes: Mapping[str, int] = field(default_factory=lambda: {SMALL: 100_000, LARGE: 1_000_000})


QUICK = Plan(seconds=0.05, spawns=1, pairs=1, delays=(0,), sizes={SMALL: 1000, LARGE: 3000})


@dataclass(frozen=True)
class Bench:
    """What the measurements share."""

    plan: Plan
    folder: Path
    node: Sequence[str]
    """How to run Node with Segment's library, where its packages are last; empty where there is none."""
    subject: Sequence[int]
    """The core of what is measured, and below it that of what receives and calls; none where there are not two."""
    other: Sequence[int]
    environ: Mapping[str, str]
    """The environment, without any settings of this project's."""

    def python(self, *command: str) -> list[str]:
        """A command of the benchmarks'."""
        return [sys.executable, str(HERE / command[0]), *command[1:]]

    def tools(self, *command: str) -> list[str]:
        """A command of this project's."""
        return [sys.executable, "-P", "-m", "segment_tools", *command]

    def told(self, receiver: Receiving) -> dict[str, str]:
        """The environment in which this project sends to the receiver."""
        return {**self.environ, **chosen(receiver.url)}

    def file(self, size: str) -> Path:
        """The file of so many events."""
        return self.folder / f"{size}.jsonl"


Cells = Iterator[tuple[str, Figures]]


def in_process(bench: Bench) -> Cells:
    """Calls from Python and from Node, each waited for."""
    for delay in bench.plan.delays:
        with on(bench.other), receiving(delay) as receiver:
            for side, in_flight in _sides(bench):
                made = bench.python("single.py", side, receiver.url, str(in_flight), str(bench.plan.seconds))
                if side == NODE:
                    made = [*bench.node, receiver.url, "single", str(in_flight), str(bench.plan.seconds)]
                with on(bench.subject):
                    usage, out = ran(made, bench.environ)
                found = {**json.loads(out), **usage.peak()}
                name = {"ours": OURS, "httpx": HTTPX, "library": OFFICIAL}.get(side, side)
                # The bare client posts the same bytes again and again.
                yield called("in process", name, in_flight, delay), confirmed(receiver, found, in_flight, side, "httpx")


def _sides(bench: Bench) -> list[tuple[str, int]]:
    both = [*((side, many) for side in ("httpx", "ours") for many in (1, 32)), ("library", 1)]
    return [*both, (NODE, 1), (NODE, 32)] if bench.node else both


def confirmed(receiver: Receiving, found: Figures, warm_up: int, side: str = "", same: str = "same") -> Figures:
    """The figures of calls that have all arrived, once each, with how busy what receives was.

    Raises:
        SystemExit: some have not.
    """
    came, calls = receiver.found(), found["calls"] + warm_up
    if came.messages != calls or (side != same and came.distinct != calls):
        raise SystemExit(f"{calls:.0f} calls were made, {came.messages} messages arrived, {came.distinct} of their own")
    a_call = found["per_second"] / calls
    return {
        **found,
        "requests_per_second": came.requests * a_call,
        "receiver_busy": came.busy_seconds * a_call,
    }


def _placed(bench: Bench) -> Iterator[tuple[str, Sequence[int], Sequence[int]]]:
    """Anywhere, as hosts run a server, and tied to a core: the name of it, where a server runs, and where all else."""
    yield FREE, (), ()
    if bench.subject:
        yield PINNED, bench.subject, bench.other


def stdio(bench: Bench) -> Cells:
    """Tool calls over pipes."""
    for place, subject, other in _placed(bench):
        with on(other), receiving() as receiver:
            yield from _over_pipes(bench, receiver, place, subject)
            alone = bench.python("single.py", "httpx", receiver.url, "1", str(bench.plan.seconds))
            with on(subject):
                found = json.loads(ran(alone, bench.environ)[1])
            yield called("stdio", HTTPX, 1, cores=place), confirmed(receiver, found, 1, HTTPX, HTTPX)
    for delay in filter(None, bench.plan.delays):
        with receiving(delay) as receiver, stdio_server(bench.tools("stdio"), bench.told(receiver), ()) as call:
            for many in (1, 32):
                found = call("segment_track", many, bench.plan.seconds)
                yield called("stdio", OURS, many, delay, FREE), confirmed(receiver, found, many)


def _over_pipes(bench: Bench, receiver: Receiving, cores: str, subject: Sequence[int]) -> Cells:
    environ, empty = bench.told(receiver), bench.python("empty_server.py", "stdio")
    with (
        stdio_server(empty, environ, subject) as call_empty,
        stdio_server(bench.tools("stdio"), environ, subject) as call_ours,
    ):
        yield from _side_by_side("stdio", receiver, cores, bench.plan.seconds, call_empty, call_ours)


def _side_by_side(
    way: str, receiver: Receiving, cores: str, seconds: float, call_empty: Calls, call_ours: Calls
) -> Cells:
    for many in (1, 32):
        yield called(way, EMPTY, many, cores=cores), call_empty(EMPTY_TOOL, many, seconds)
        found = call_ours("segment_track", many, seconds)
        yield called(way, OURS, many, cores=cores), confirmed(receiver, found, many)


def http(bench: Bench) -> Cells:
    """Tool calls over stateless HTTP."""
    empty, ours = bench.python("empty_server.py", "http"), bench.tools("http", "--port", "0")
    for place, subject, other in _placed(bench):
        with on(other), receiving() as receiver:
            environ = bench.told(receiver)
            with http_server(empty, environ, subject) as call_empty, http_server(ours, environ, subject) as call_ours:
                yield from _side_by_side("HTTP", receiver, place, bench.plan.seconds, call_empty, call_ours)


def start(bench: Bench) -> Cells:
    """From the start of a server's process to its first answer."""
    environ = {**bench.environ, **chosen("http://127.0.0.1:9")}  # nobody is there, and nobody is asked
    servers = {EMPTY: bench.python("empty_server.py", "stdio"), OURS: bench.tools("stdio")}
    with on(bench.other):
        took = alternating(
            bench.plan.spawns,
            {name: partial(start_seconds, command, environ, bench.subject) for name, command in servers.items()},
        )
    for name, seconds in took.items():
        yield cell("start", name), {"ms": seconds * 1000}


def help_(bench: Bench) -> Cells:
    """What the shortest command takes."""
    commands = {
        "help; import argparse": [sys.executable, "-c", "import argparse"],
        "help": bench.tools("--help"),
    }
    with on(bench.subject):
        took = alternating(
            bench.plan.spawns,
            {name: lambda each=command: ran(each, bench.environ)[0].seconds for name, command in commands.items()},
        )
    for name, seconds in took.items():
        yield name, {"ms": seconds * 1000}


def alternating(times: int, measured: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """The median of each, measured in turn so many times."""
    found: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(times):
        for name, measure in measured.items():
            found[name].append(measure())
    return {name: statistics.median(values) for name, values in found.items()}


def kept(bench: Bench) -> Cells:
    """Messages that are on disk for good, beside a transaction for each."""
    seconds = bench.plan.seconds / 4
    one_by_one, durable = (partial(apart, _delivery, name) for name in ("one_by_one", "durable"))
    took = alternating(
        bench.plan.pairs,
        {
            "durable; one by one": partial(one_by_one, seconds),
            "durable": partial(durable, 32, seconds),
        },
    )
    for name, rate in took.items():
        yield name, {"per_second": rate}


def _delivery(name: str, *given: float) -> float:
    """What a measurement of deliveries finds; it is not imported here, so that this process stays small."""
    return getattr(import_module("delivery"), name)(*given)


def definitions(_: Bench) -> Cells:
    """What a model is told of the tracking tools."""
    yield "definitions", {"bytes": apart(_definition_bytes)}


def _definition_bytes() -> int:
    from segment_tools.settings import Settings
    from segment_tools.tools import TOOLS, definition

    names = {f"segment_{kind}" for kind in TRACKING}
    settings = Settings.from_env(environ={"SEGMENT_WRITE_KEY": "any"})
    shown = [definition(tool, settings) for tool in TOOLS if tool.name in names]
    parts = [{name: each[name] for name in ("name", "description", "inputSchema")} for each in shown]
    return sum(len(msgspec.json.encode(part)) for part in parts)


def ceiling(bench: Bench) -> Cells:
    """What the receiver takes at most of a load that costs next to nothing to make."""
    track = {"type": "track", "messageId": "0" * 36, **arguments(1)}
    body = gzip.compress(json.dumps({"batch": [_full(each) for each in islice(events(), 800)]}).encode(), 1)
    seconds = bench.plan.seconds
    loads = {
        figures.CEILING: ("/v1/track", json.dumps(track).encode(), seconds),
        figures.BULK_CEILING: ("/v1/batch", body, seconds / 10),  # it keeps a gigabyte of them a second
    }
    with on(bench.other), receiving() as receiver, on(bench.subject):
        for name, (path, sent, lasting) in loads.items():
            request = post(receiver.port, path, sent, "Content-Encoding: gzip\r\n" if sent is body else "")
            found = apart(posted, receiver.port, cycle([request]), 16, lasting)
            came = receiver.found()
            share = found["calls"] / came.requests
            yield name, {**found, "messages_per_second": found["per_second"] * came.messages / came.requests * share}


def _full(event: Mapping[str, Any]) -> dict[str, Any]:
    return {**event, "messageId": f"{event['anonymousId']}-{event['timestamp']}"}


def files(bench: Bench) -> Cells:
    """Files of events."""
    _make_files(bench)
    for size, side, where, delay in _file_cells(bench):
        placed = where == PINNED
        with on(bench.other if placed else ()), receiving(delay) as receiver, on(bench.subject if placed else ()):
            shorts = [_sent(bench, side, "short", receiver)[0] for _ in range(min(3, bench.plan.spawns))]
            usage, came = _sent(bench, side, size, receiver)
        yield bulk(side, size, where, delay), sending(usage, came, shorts)


def sending(usage: Usage, came: Found, shorts: Sequence[Usage]) -> Figures:
    """The figures of a file that was sent, less what the shortest file takes."""
    # Not less than a millisecond: of so short a run nothing can be told.
    seconds, cpu = (
        max(whole - statistics.median(getattr(each, name) for each in shorts), 0.001)
        for name, whole in (("seconds", usage.seconds), ("cpu_seconds", usage.cpu_seconds))
    )
    return {
        "per_second": (came.messages - WARM_UP) / seconds,
        "sending_cpu_seconds": cpu,
        "cpu_us": cpu / (came.messages - WARM_UP) * 1e6,
        **usage.peak(),
        "seconds": usage.seconds,
        "cpu_seconds": usage.cpu_seconds,
        "whole_per_second": came.messages / usage.seconds,
        "requests": came.requests,
        "compressed": came.compressed / came.requests,
        "receiver_busy": came.busy_seconds / usage.seconds,
    }


def _file_cells(bench: Bench) -> list[tuple[str, str, str, int]]:
    """Size, side, cores and delay. With a delay, Segment's library takes minutes for each 100,000."""
    both = (OFFICIAL, OURS)
    slow = [*((SMALL, side, PINNED, LATE) for side in both), (LARGE, OURS, PINNED, LATE)]
    return [
        *((size, side, PINNED, 0) for size in (SMALL, LARGE) for side in both),
        *((SMALL, side, FREE, 0) for side in both),
        *(slow if LATE in bench.plan.delays else []),
        (SMALL, GZIPPED, PINNED, 0),
        (SMALL, LARGER, PINNED, 0),
        *([(SMALL, NODE, PINNED, 0)] if bench.node else []),
    ]


def _make_files(bench: Bench) -> None:
    for size, number in (("short", WARM_UP), *bench.plan.sizes.items()):
        if not bench.file(size).exists():
            write(bench.file(size), number)


def _sent(bench: Bench, side: str, size: str, receiver: Receiving) -> tuple[Usage, Found]:
    """What it took to send a file, and what came.

    Raises:
        SystemExit: not every message arrived, once.
    """
    wanted = bench.plan.sizes.get(size, WARM_UP)
    with tempfile.TemporaryDirectory(dir=bench.folder) as fresh:  # what an import keeps beside its file goes with it
        file = Path(fresh) / "events.jsonl"
        os.link(bench.file(size), file)
        usage, _ = ran(_sender(bench, side, str(file), receiver.url), bench.told(receiver))
    came = receiver.found()
    if (came.messages, came.distinct) != (wanted, wanted):
        raise SystemExit(f"{side}: of {wanted} messages {came.messages} arrived, {came.distinct} of their own")
    return usage, came


def _sender(bench: Bench, side: str, file: str, url: str) -> list[str]:
    sides = {
        OURS: bench.tools("import", file, "--yes"),
        OFFICIAL: bench.python("official.py", url, file),
        GZIPPED: bench.python("official.py", url, file, "--gzip"),
        LARGER: bench.python("official.py", url, file, "--upload-size", "1000"),
        NODE: [*bench.node, url, "bulk", file, "1000"],
    }
    return sides[side]


GROUPS: Mapping[str, Callable[[Bench], Cells]] = {
    "receiver": ceiling,
    "definitions": definitions,
    "help": help_,
    "start": start,
    "process": in_process,
    "stdio": stdio,
    "http": http,
    "durable": kept,
    "bulk": files,
}


def node() -> list[str]:
    """How to run Node with Segment's library, fetched once where it can be; empty, and told why, where it cannot."""
    sys.path.append(str(HERE.parent / "tests"))
    judges: Any = import_module("node")
    commands: tuple[list[str], list[str]] | None = judges.commands()
    if commands is None:
        return _left_out("there is no Node")
    run, npm = commands
    if missing := "" if judges.current() else judges.install(npm):
        return _left_out(missing)
    return [*run, str(HERE / "node_side.cjs"), str(judges.INSTALLED)]


def _left_out(why: str) -> list[str]:
    progress(f"left out: {NODE} ({why})")
    return []


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measured(bench: Bench, rounds: int, groups: Sequence[str]) -> list[Round]:
    """So many rounds."""
    found = list[Round]()
    for number in range(1, rounds + 1):
        cells: dict[str, Figures] = {}
        for group in groups:
            begun = time.perf_counter()
            cells |= GROUPS[group](bench)
            progress(f"round {number} of {rounds}: {group}, {time.perf_counter() - begun:.0f} s")
        found.append(cells)
    return found


def about(bench: Bench, rounds: int, *, quick: bool) -> dict[str, Any]:
    """What was measured on, and when; nothing that names the machine or its user."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "rounds": rounds,
        "cores": os.cpu_count(),
        "pinned": bool(bench.subject),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))} | _node_version(bench),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _node_version(bench: Bench) -> dict[str, str]:
    if not bench.node:
        return {}
    package = Path(bench.node[-1]) / "node_modules" / NODE / "package.json"
    return {NODE: json.loads(package.read_text(encoding="utf-8"))["version"]}


def _version(name: str) -> str:
    try:
        return version(name)
    except ModuleNotFoundError:
        return ""


COLUMNS = {
    "per_second": "a second",
    "ms": "ms",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "cpu_us": "CPU µs each",
    "seconds": "seconds, whole",
    "cpu_seconds": "CPU, whole",
    "peak_mb": "MB at most",
    "bytes": "bytes",
    "requests": "requests",
    "compressed": "gzip",
    "receiver_busy": "receiver busy",
}


def table(rounds: Sequence[Round]) -> str:
    """Every cell that was measured: medians, and of rates and times the spread."""
    names = list(rounds[0])
    width = max(map(len, names))
    lines = list[str]()
    for name in names:
        parts = [f"{text} {_figure(rounds, name, key)}" for key, text in COLUMNS.items() if key in rounds[0][name]]
        lines.append(f"{name:{width}}  {', '.join(parts)}")
    return "\n".join(lines)


def _figure(rounds: Sequence[Round], name: str, key: str) -> str:
    found = figures.spread([each[name][key] for each in rounds])
    return found.shown() if key in ("per_second", "ms", "p50_ms") else figures.digits(found.median)


def bars_table(judgements: Sequence[Mapping[str, Any]]) -> str:
    """Each bar with its figure and whether that meets it."""
    lines = list[str]()
    for each in judgements:
        against = f", of {each['against']}" if each["against"] else ""
        wanted = f"; the bar is {figures.wanted(each)}" if "needed" in each else ""
        verdict = f": {figures.verdict(each)}" if figures.verdict(each) else ""
        lines.append(f"{each['figure']}{against}: {figures.shown(each)}{wanted}{verdict}")
    return "\n".join(lines)


PANELS: Mapping[str, tuple[str, Sequence[str]]] = {
    "1,000,000 events from a file, one core: messages a second": (
        "per_second",
        [bulk(OURS, LARGE), bulk(OFFICIAL, LARGE)],
    ),
    "100,000 events from a file, one core, 30 ms of delay: messages a second": (
        "per_second",
        [bulk(OURS, SMALL, delay=30), bulk(OFFICIAL, SMALL, delay=30)],
    ),
    "32 calls at a time in process: calls a second": (
        "per_second",
        [called("in process", side, 32) for side in (OURS, HTTPX, NODE)],
    ),
    "32 tool calls at a time over stdio: calls a second": (
        "per_second",
        [called("stdio", side, 32, cores=FREE) for side in (OURS, EMPTY)],
    ),
    "start of a stdio server, to its first answer: ms": ("ms", [cell("start", side) for side in (OURS, EMPTY)]),
}


def panels(rounds: Sequence[Round]) -> list[chart.Panel]:
    """What the chart shows of what was measured."""
    found = list[chart.Panel]()
    for title, (key, names) in PANELS.items():
        rows = [
            chart.Row(name.split("; ")[1], figures.spread([each[name][key] for each in rounds]), OURS in name)
            for name in names
            if all(name in each for each in rounds)
        ]
        if rows:
            found.append(chart.Panel(title, rows))
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How fast this project is, beside others in the same run.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", type=_groups, default=list(GROUPS), metavar="GROUP,...", help=", ".join(GROUPS))
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works; not stored")
    where = "where to store the figures, with a chart beside (default: benchmarks/results, if all was measured)"
    parser.add_argument("--results", type=Path, metavar="FILE", help=where)
    return parser.parse_args()


def _groups(text: str) -> list[str]:
    chosen_ = text.split(",")
    if unknown := set(chosen_) - set(GROUPS):
        raise argparse.ArgumentTypeError(
            f"no group is called {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}"
        )
    return [group for group in GROUPS if group in chosen_]


def main() -> None:
    given = _arguments()
    rounds = 1 if given.quick else given.rounds
    usable = cores()
    subject, other = (usable[:1], usable[1:2]) if len(usable) > 1 else ([], [])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        wants_node = {"process", "bulk"} & set(given.only)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SEGMENT_")}
        plan = QUICK if given.quick else Plan()
        bench = Bench(plan, folder, node() if wants_node else [], subject, other, environ)
        told = about(bench, rounds, quick=given.quick)
        found = measured(bench, rounds, given.only)
    judgements = figures.summary(found)
    print(", ".join(f"{name} {value}" for name, value in told.items()))
    print(f"\n{table(found)}\n\n{bars_table(judgements)}")
    if given.quick:
        print("\nThis was a quick run, to see that it works: its figures tell nothing.")
    complete = not given.quick and given.only == list(GROUPS)
    if where := given.results or (RESULTS if complete else None):
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(json.dumps({**told, "bars": judgements, "measured": found}, indent=1) + "\n")
        where.with_suffix(".svg").write_text(chart.drawn(panels(found)), encoding="utf-8")


if __name__ == "__main__":
    main()

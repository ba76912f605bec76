"""What measures and soaks works, in a run too short to tell anything."""

import asyncio
import gzip
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import bench
import chart
import figures
import generate
import httpx
import pytest
import scale
from processes import Usage
from receiver import ANSWER, REFUSAL, Found, Kept, Receiving, opened
from support import ROOT, WAIT

from segment_tools.surfaces.mcp_server import listening


def ran(environ: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, *arguments]
    environ = {**environ, "PYTHONPATH": str(package_folder())}
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=2 * WAIT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def package_folder() -> Path:
    import segment_tools

    return Path(segment_tools.__file__).parent.parent


def test_a_few_seconds_of_soaking_find_nothing_wrong(environ: dict[str, str]) -> None:
    assert "Nothing grew, nothing was lost." in ran(environ, "benchmarks/soak.py", "--minutes", "0.1")


def test_the_delivery_benchmark_measures_every_side(environ: dict[str, str], tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    short = ("--rounds", "1", "--seconds", "0.05", "--queue", "20", "--results", str(results))
    shown = ran(environ, "benchmarks/delivery.py", *short)
    found = json.loads(results.read_text())
    assert all(figures[0]["per_second"] > 0 for figures in found["sides"].values())
    assert min(*found["ceiling"], *found["durable"], *found["one_by_one"]) > 0
    assert "of bare" in shown


BAR = figures.Bar("calls", "bare httpx", figures.ratio("ours", "theirs", "per_second"), "at least", 3)


def rounds(*pairs: tuple[float, float]) -> list[dict[str, dict[str, float]]]:
    return [{"ours": {"per_second": ours}, "theirs": {"per_second": theirs}} for ours, theirs in pairs]


def test_a_ratio_is_made_within_each_round_and_then_the_median_is_taken() -> None:
    # A slow hour for both: the medians of the sides, 40 and 20, would say 2.
    judged = figures.judged(BAR, rounds((90, 30), (40, 20), (8, 2)))
    assert (judged["median"], judged["least"], judged["most"], judged["met"]) == (3, 2, 4, True)


@pytest.mark.parametrize(
    ("bound", "needed", "met"),
    [("at least", 2, True), ("at least", 2.01, False), ("at most", 2, True), ("at most", 1.99, False)],
)
def test_a_bar_is_met_on_its_own_side_of_the_figure(bound: Any, needed: float, met: bool) -> None:
    bar = figures.Bar("calls", "", figures.of("ours", "per_second"), bound, needed)
    assert figures.judged(bar, rounds((2, 1)))["met"] is met
    assert figures.verdict(figures.judged(bar, rounds((2, 1)))) == ("met" if met else "not met")


def test_a_bar_whose_cells_were_not_measured_is_neither_met_nor_missed() -> None:
    judged = figures.judged(BAR, [{"ours": {"per_second": 1}}])
    assert (figures.shown(judged), figures.verdict(judged), figures.wanted(judged)) == ("not measured", "", "≥ 3 ×")


def test_a_rounds_spread_is_told_with_three_digits() -> None:
    assert figures.spread([12345.6, 0.123, 13.06]).shown(" ms") == "13.1 ms (0.12–12,346)"


def test_every_bar_is_made_of_its_own_cells() -> None:
    ours, theirs, large = figures.OURS, figures.OFFICIAL, figures.LARGE
    found = {
        figures.bulk(ours, large): {
            "per_second": 260,
            "sending_cpu_seconds": 3,
            "whole_per_second": 110,
            "peak_mb": 66,
        },
        figures.bulk(theirs, large): {"per_second": 20, "sending_cpu_seconds": 40, "whole_per_second": 11},
        figures.bulk(ours, figures.SMALL): {"peak_mb": 60},
        figures.bulk(ours, large, delay=30): {"per_second": 90},
        figures.bulk(theirs, figures.SMALL, delay=30): {"per_second": 2},
        figures.called("stdio", ours, 1, cores=figures.FREE): {"p50_ms": 1},
        figures.called("stdio", figures.EMPTY, 1, cores=figures.FREE): {"p50_ms": 1.5},
        figures.called("stdio", figures.HTTPX, 1, cores=figures.FREE): {"p50_ms": 0.5},
        figures.called("HTTP", ours, 32, cores=figures.PINNED): {"per_second": 9},
        figures.called("HTTP", figures.EMPTY, 32, cores=figures.PINNED): {"per_second": 12},
        figures.called("in process", figures.HTTPX, 1): {"p50_ms": 0.5, "requests_per_second": 800},
        figures.called("in process", ours, 1): {"p50_ms": 0.3, "requests_per_second": 1000},
        "help": {"ms": 70},
        "help; import argparse": {"ms": 30},
        figures.CEILING: {"per_second": 4000},
        figures.BULK_CEILING: {"messages_per_second": 2600},
    }
    told = {(bar["figure"], bar["against"]): bar["median"] for bar in figures.summary([found]) if "median" in bar}
    assert told == {
        (f"{large} events from a file: messages a second", theirs): 13,
        (f"{large} events from a file: CPU seconds", theirs): 0.075,
        (f"{large} events, 30 ms of delay: messages a second", f"{theirs} with 100,000"): 45,
        (f"{large} events: peak memory", "itself at 100,000"): 1.1,
        (f"{large} events: peak memory", ""): 66,
        (f"{large} events, start of the process and all: messages a second", theirs): 10,
        ("call in process: p50", "bare httpx"): 0.6,
        ("tool call over stdio: p50", "an empty tool over the SDK's stdio, and an httpx post"): 0.5,
        ("32 tool calls at a time over HTTP: calls a second, on one core", "an empty tool served the same way"): 0.75,
        ('`segment-tools --help` beyond `python -c "import argparse"`', ""): 40,
        ("what receives: requests a second", "the most that any side asked"): 4,
        ("what receives: messages a second, in batches", "the most that any side sent"): 10,
    }


def test_what_the_shortest_file_takes_is_taken_off_a_sent_file() -> None:
    shorts = [Usage(seconds, 0.2, None) for seconds in (0.4, 0.5, 3)]
    came = Found(200, 100_100, 100_100, 1, compressed=100, refused=0, busy_seconds=1)
    found = bench.sending(Usage(10.5, 5.2, 70), came, shorts)
    assert found["per_second"] == pytest.approx(10_000)
    assert found["sending_cpu_seconds"] == pytest.approx(5)
    assert found["whole_per_second"] == pytest.approx(100_100 / 10.5)
    assert found["compressed"] == 0.5


@pytest.fixture
async def receiving() -> AsyncIterator[Receiving]:
    listener = listening("127.0.0.1", 0)
    async with await opened(listener, 0, 0):
        yield Receiving(listener.getsockname()[1])


@pytest.mark.anyio
async def test_the_receiver_tells_what_came_once_asked(receiving: Receiving) -> None:
    messages = [{"messageId": "1"}, {"messageId": "2"}, {"messageId": "1"}, {"event": "without an id"}]
    body = json.dumps({"batch": messages}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 7):
            yield body[at : at + 7]

    async with httpx.AsyncClient(base_url=receiving.url) as client:
        sent = [
            await client.post("/v1/batch", content=body),
            await client.post("/v1/batch", content=gzip.compress(body), headers={"Content-Encoding": "gzip"}),
            await client.post("/v1/batch", content=pieces()),
            await client.post("/v1/track", json={"messageId": "3"}),
            await client.post("/v1/track", content=b""),
        ]
    found = await asyncio.to_thread(receiving.found)
    again = await asyncio.to_thread(receiving.found)
    assert [answer.json() for answer in sent] == [{"success": True}] * 5
    assert (found.requests, found.messages, found.distinct, found.compressed) == (5, 10, 3, 1)
    assert (again.requests, again.messages, again.distinct) == (0, 0, 0)


@pytest.mark.anyio
async def test_calls_that_did_not_arrive_end_the_benchmark(receiving: Receiving) -> None:
    with pytest.raises(SystemExit, match="3 calls were made, 0 messages arrived"):
        await asyncio.to_thread(bench.confirmed, receiving, {"calls": 2, "per_second": 1}, 1)


def test_the_chart_shows_every_row_with_its_spread() -> None:
    rows = [
        chart.Row("this & that", figures.Spread(50, 40, 100), True),
        chart.Row("theirs", figures.spread([5]), False),
    ]
    drawn = chart.drawn([chart.Panel("a second", rows)])
    widths = [float(width) for width in re.findall(r'<rect x="250" .*? width="([\d.]+)"', drawn)]
    assert widths[0] == pytest.approx(10 * widths[1], rel=0.01)
    assert "this &amp; that" in drawn
    assert drawn.count("<path") == 2


GROUPS = "receiver,definitions,help,start,process,stdio,http,durable"


def test_the_benchmark_measures_all_in_a_quick_run_that_is_marked_as_one(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "bench.json"
    shown = ran(environ, "benchmarks/bench.py", "--quick", "--only", GROUPS, "--results", str(results))
    stored = json.loads(results.read_text(encoding="utf-8"))
    told = {bar["figure"]: bar for bar in stored["bars"]}
    assert [name for name, bar in told.items() if "median" not in bar and not re.search("events|batches", name)] == []
    assert stored["bars"] == figures.summary(stored["measured"])
    assert "its figures tell nothing" in shown
    assert results.with_suffix(".svg").read_text(encoding="utf-8").startswith("<svg")
    monkeypatch.setattr(generate, "SPEED", results)
    with pytest.raises(SystemExit, match="quick run"):
        generate.speed_table()


def test_writers_that_share_a_rate_lose_nothing(environ: dict[str, str], tmp_path: Path, redis_server: str) -> None:
    results = tmp_path / "scale.json"
    short = ("--writers", "1,3", "--seconds", "0.7", "--redis", redis_server, "--results", str(results))
    shown = ran(environ, "benchmarks/scale.py", *short)
    runs = json.loads(results.read_text(encoding="utf-8"))["runs"]
    assert [(run["shared"], run["writers"]) for run in runs] == [(True, 1), (True, 3), (False, 1), (False, 3)]
    assert all(run["requests_per_second"] > 0 and not run["lost"] for run in runs)
    assert "At most 50 requests a second, for Segment's 1,000" in shown


def test_a_share_is_of_the_limit_where_that_is_less_than_all_could_send() -> None:
    def run(writers: int, rate: float) -> scale.Run:
        return scale.Run(writers, True, rate, rate, 0, 0, 0)

    runs = [run(1, 4), run(8, 16), run(64, 45)]
    assert [scale.share(each, runs, 50) for each in runs] == [1, 0.5, 0.9]


def test_a_receiver_with_a_limit_refuses_what_is_above_it() -> None:
    kept = Kept(limit=3)
    answers = [kept.take(b'{"messageId": "%d"}' % number) for number in range(10)]
    assert 3 <= answers.count(ANSWER) <= 6  # three at once, and a place more for each third of a second that this takes
    assert kept.refused == answers.count(REFUSAL) == 10 - len(kept.bodies)


def test_the_readme_tells_the_stored_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "benchmarks" / "results" / "bench.json"
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "SPEED", results)
    assert "`make bench`" in generate.speed_table()
    machine = {"cores": 2, "system": "Linux", "processor": "any", "python": "3.11.7"}
    bars = [figures.judged(BAR, rounds((90, 30), (40, 20), (8, 2)))]
    results.parent.mkdir(parents=True)
    results.write_text(json.dumps({**machine, "when": "2026-11-23T12", "quick": False, "rounds": 3, "bars": bars}))
    told = generate.speed_table()
    assert "2026-11-23, Linux, any, 2 cores, Python 3.11.7; medians of 3 rounds" in told
    assert "| calls | bare httpx | ≥ 3 × | 3.00 × (2.00–4.00) | met |" in told
    assert "(benchmarks/results/bench.svg)" in told


def test_the_stored_bars_are_those_of_the_stored_rounds() -> None:
    if generate.SPEED.exists():
        stored = json.loads(generate.SPEED.read_text(encoding="utf-8"))
        assert stored["bars"] == figures.summary(stored["measured"])

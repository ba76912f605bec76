"""What measures and soaks works, in a run too short to tell anything."""

import json
import subprocess
import sys
from pathlib import Path

from support import ROOT, WAIT


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

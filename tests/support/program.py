"""What every Python test may ask for: the built program. Run through ./dev test, or by hand after ./dev build. A conftest.py imports
the fixtures."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def build_dir():
    return Path(os.environ.get("HANSA_BUILD_DIR", ROOT / "build" / "release")).resolve()


@pytest.fixture(scope="session")
def hansa(build_dir):
    """Runs the program: hansa("check", "file.toml") returns a finished process with text output."""
    program = build_dir / "apps" / "hansa" / "hansa"

    def run(*arguments, **options):
        options = {"capture_output": True, "text": True, "timeout": 300, **options}
        return subprocess.run([str(program), *map(str, arguments)], **options)

    run.program = program
    return run

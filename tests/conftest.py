"""Fixtures of all tests below: the built program."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "support"))
from program import build_dir, hansa  # noqa: E402, F401

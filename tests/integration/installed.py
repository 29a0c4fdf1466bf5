"""Hansa as somebody has it who never saw this checkout."""

import os
import subprocess


def clean_environment():
    """Without what points into the checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HANSA_")}


def install(build_dir, prefix):
    done = subprocess.run(["cmake", "--install", str(build_dir), "--prefix", str(prefix)], capture_output=True, text=True, timeout=600,
                          env=clean_environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return prefix

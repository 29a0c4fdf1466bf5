"""How the tests run our tokenizer: the one place that knows the command.

One JSON text per input line, one JSON list of ids per output line; with --decode the other way round.
"""
import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def command(model):
    build = Path(os.environ.get("HANSA_BUILD_DIR", ROOT / "build" / "release"))
    return [str(build / "apps" / "hansa" / "hansa"), "inspect", "tokens", "--model", str(model)]


def _lines(arguments, inputs):
    text = "".join(json.dumps(i) + "\n" for i in inputs)
    done = subprocess.run(arguments, input=text, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def encode(model, texts):
    return _lines(command(model), texts)


def decode(model, lists_of_ids):
    return _lines(command(model) + ["--decode"], lists_of_ids)


def error_of(model):
    """What is said about a tokenizer that cannot be opened."""
    done = subprocess.run(command(model), input="", capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1, f"accepted: {model}"
    return done.stderr

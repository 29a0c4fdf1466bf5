"""How the tests run our tokenizer: the one place that knows the programs.

hf_tokens takes many texts at once, in binary: a count of 32 bits, then that many bytes of text or ids of 32 bits.
`hansa inspect tokens` is what users have: one JSON text per input line, one JSON list of ids per output line.
"""
import json
import os
import subprocess
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("HANSA_BUILD_DIR", ROOT / "build" / "release"))


def run(verb, model, given, repeat=1):
    done = subprocess.run([BUILD / "sdk" / "hf" / "hf_tokens", verb, model, str(repeat)], input=given,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout, float(done.stderr)


def pieces(data, unit):
    at, pieces = 0, []
    while at < len(data):
        end = at + 4 + unit * int.from_bytes(data[at:at + 4], "little")
        pieces.append(data[at + 4:end])
        at = end
    return pieces


def pack_texts(texts):
    encoded = [text.encode() for text in texts]
    return b"".join(part for text in encoded for part in (len(text).to_bytes(4, "little"), text))


def pack_ids(lists):
    return b"".join(part for ids in lists
                    for part in (len(ids).to_bytes(4, "little"), np.asarray(ids, dtype="<u4").tobytes()))


def ids_of(data):
    return np.frombuffer(data, dtype="<u4").tolist()


def encode(model, texts, verb="encode"):
    output, _ = run(verb, model, pack_texts(texts))
    return [ids_of(ids) for ids in pieces(output, 4)]


def decode(model, lists_of_ids):
    output, _ = run("decode", model, pack_ids(lists_of_ids))
    return [text.decode() for text in pieces(output, 1)]


def seconds(verb, model, given, repeat):
    """CPU seconds of the last of `repeat` passes over what pack_texts or pack_ids gave."""
    return run(verb, model, given, repeat)[1]


def command(model):
    return [str(BUILD / "apps" / "hansa" / "hansa"), "inspect", "tokens", "--model", str(model)]


def by_command(model, inputs, *options):
    text = "".join(json.dumps(i) + "\n" for i in inputs)
    done = subprocess.run(command(model) + list(options), input=text, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def error_of(model):
    """What is said about a tokenizer that cannot be opened."""
    done = subprocess.run([BUILD / "sdk" / "hf" / "hf_tokens", "encode", model, "1"], input="", capture_output=True,
                          encoding="utf-8", check=False)
    assert done.returncode == 1, f"accepted: {model}"
    return done.stderr

"""Quantised bases in the real program: memory while they are read, and the sentence for who has too little."""

import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from random_llama import write_llama  # noqa: E402

# 201 million numbers in linear modules, 33 million in embedding and head: 470 MB of bf16.
CONFIG = {"model_type": "llama", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 12,
          "num_attention_heads": 8, "num_key_value_heads": 8, "vocab_size": 16000, "max_position_embeddings": 64,
          "rms_norm_eps": 1e-5, "tie_word_embeddings": False}
LINEAR, LARGEST = 12 * (4 * 1024 * 1024 + 3 * 1024 * 4096), 1024 * 4096
TABLES = 2 * 2 * 16000 * 1024  # embedding and head, in bf16
MB = 1_000_000


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantised")
    write_llama(folder / "base", CONFIG)
    (folder / "ids.json").write_text(json.dumps([[1, 5, 9, 2]]))
    return folder


def memory_of(process):
    """Anonymous and shared: without pages of mapped files."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssShmem")))


def peak_of(*command):
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory_of(process))
        time.sleep(0.002)
    assert process.returncode == 0, process.stderr.read()
    return peak


@pytest.mark.parametrize("base,bytes_a_number", [("nf4", 0.5 + 1 / 64 + 4 / 256 / 64), ("int8", 1 + 4 / 1024)])
def test_a_quantised_base_is_read_layer_by_layer(hansa, checkpoint, base, bytes_a_number):
    idle = peak_of(hansa.program, "inspect", "layout", checkpoint / "base" / "model.safetensors")
    peak = peak_of(hansa.program, "inspect", "logits", "--model", checkpoint / "base", "--compute", "bf16", "--base-dtype", base,
                   "--tokens", checkpoint / "ids.json", "--out", checkpoint / "out.safetensors")
    quantised = LINEAR * bytes_a_number + TABLES
    assert peak - idle > quantised  # what was measured is the model
    assert peak - idle < quantised + 4 * LARGEST + 200 * MB


def test_who_has_too_little_memory_is_told_how_much_and_what_would_fit(hansa, checkpoint):
    # One thread and one heap: how much address space the program takes for itself is then the same each time.
    steady = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}

    def logits(limit, *options):
        return hansa("inspect", "logits", "--model", checkpoint / "base", "--tokens", checkpoint / "ids.json", "--out",
                     checkpoint / "out.safetensors", *options, env=steady,
                     preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))

    def numbers(sentence):
        found = re.search(r"the weights alone take ([\d.]+) GB, but the limit of address space \(ulimit -v\) leaves ([\d.]+) GB; "
                          r"(.*)", sentence)
        assert found, sentence
        return float(found[1]), float(found[2]), found[3]

    # How much of a limit the program itself takes is its own affair: a first try tells it.
    limit = 1_600 * MB
    first = logits(limit)
    assert first.returncode == 1
    need, free, advice = numbers(first.stderr)
    assert need == pytest.approx((4 * LINEAR + 2 * TABLES) / 1e9, rel=0.05)
    taken = limit - int(free * 1e9)
    tight = taken + int(LINEAR * 0.6 + TABLES + 6 * LARGEST) + 60 * MB  # nf4 fits, the next larger one does not
    need, free, advice = numbers(logits(tight).stderr)
    assert 'base_dtype = "nf4" with compute = "bf16" takes' in advice and advice.rstrip().endswith("and fits")
    done = logits(tight + 250 * MB, "--compute", "bf16", "--base-dtype", "nf4")  # and room for the pass
    assert done.returncode == 0, done.stderr
    need, free, advice = numbers(logits(taken + 20 * MB).stderr)
    assert 'even base_dtype = "nf4"' in advice


def test_a_federation_trains_on_a_quantised_base(federation):
    fed = federation(rounds=2)
    for base in ("nf4", "int8"):
        fed.run(base, "--set", f"model.base_dtype={base}", config=fed.simulation)
        summary = json.loads((fed.run_dir(base) / "summary.json").read_text())
        assert all(summary["loss"]["federated"][silo] < summary["loss"]["base"][silo] for silo in ("de", "it", "pl"))

"""A text continued beside Transformers' generate, in turn on the same shape, type and threads: seconds of the beginning, and per token.

Arguments: --prompt N (default 512 tokens), --tokens N (default 64 more), --rounds N (default 5).
"""
# needs: hansa_steps_bench

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from bench_results import BUILD, finish  # noqa: E402
from train import SMALL, THREADS, checkpoint, text_tokens  # noqa: E402

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "THP_MEM_ALLOC_ENABLE": "1"}


def peer(shape):
    """Transformers' own loop, greedy, with its cache: one call for the first token, one for all of them."""
    import time

    import numpy
    import torch
    import transformers
    torch.set_num_threads(THREADS)
    model = transformers.AutoModelForCausalLM.from_pretrained(shape["checkpoint"], dtype=torch.bfloat16)
    prompt = torch.from_numpy(numpy.fromfile(shape["tokens"], dtype=numpy.int64)[:shape["length"]]).unsqueeze(0)
    prefill, decode = [], []

    def run(count):
        start = time.perf_counter()
        out = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=count, min_new_tokens=count,
                             do_sample=False, pad_token_id=0)
        return time.perf_counter() - start, out[0, shape["length"]:].tolist()

    for _ in range(2):  # the first is a warm-up
        first, _ = run(1)
        whole, ids = run(shape["steps"] + 1)
        prefill.append(first)
        decode.append((whole - first) / shape["steps"])
    return {"prefill": prefill[1:], "decode": decode[1:], "ids": ids[:shape["steps"]]}


def ours(shape):
    what = {"task": "generate", "model": "llama", "dtype": "bf16", "kernels": "fast", "recompute": False, "rank": 0, "batch": 1, "rounds": 2,
            "threads": THREADS, **shape}
    out = subprocess.run([BUILD / "plugins" / "hansa_steps_bench", BUILD / "lib" / "hansa" / "plugins", json.dumps(what)], check=True,
                         capture_output=True, text=True, env=ENVIRONMENT).stdout
    found = json.loads(out)
    return {"prefill": found["prefill"][1:], "decode": found["decode"][1:], "ids": found["ids"]}


def measure(name, shape):
    if name == "ours":
        return ours(shape)
    out = subprocess.run([sys.executable, __file__, "--row", json.dumps(shape)], check=True, capture_output=True, text=True,
                         env=ENVIRONMENT).stdout
    return json.loads(out.splitlines()[-1])


def main():
    if sys.argv[1:2] == ["--row"]:
        print(json.dumps(peer(json.loads(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    found = {name: {"prefill": [], "decode": []} for name in ("peer", "ours")}
    with tempfile.TemporaryDirectory() as folder:
        shape = {"checkpoint": f"{folder}/model", "tokens": f"{folder}/tokens", "length": arguments.prompt, "steps": arguments.tokens}
        checkpoint(SMALL, shape["checkpoint"])
        text_tokens(shape["tokens"], {"config": SMALL, "length": arguments.prompt})
        for _ in range(arguments.rounds):
            for name, one in found.items():
                row = measure(name, shape)
                for part in ("prefill", "decode"):
                    one[part] += row[part]
    figures = {f"{name}_{part}_ms": 1e3 * statistics.median(one[part]) for name, one in found.items() for part in ("prefill", "decode")}
    for part in ("prefill", "decode"):
        figures[f"{part}_ours_over_peer"] = figures[f"peer_{part}_ms"] / figures[f"ours_{part}_ms"]
    finish("generate", figures, {"prefill_ours_over_peer": {"at_least": 1.5}, "decode_ours_over_peer": {"at_least": 3}})


if __name__ == "__main__":
    main()

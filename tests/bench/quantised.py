"""LoRA on a base of 7B parameters held in 4 bits (or 8, or 16): memory and seconds of loading and of training steps.

A random checkpoint of Llama 2 7B's shape (13.5 GB of bf16) is written to a temporary folder first and removed at the end; another
folder: --folder. Arguments: --base nf4 int8 compute (default nf4), each plain and with recompute; --steps N, --length N, --small (a
twentieth of it, for a look).
"""
# needs: hansa_steps_bench

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from bench_results import begin, finish  # noqa: E402
from random_llama import write_llama  # noqa: E402
from train import LLAMA, ours, text_tokens  # noqa: E402

LARGE = {**LLAMA, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False}
SMALL = {**LARGE, "hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 8, "num_attention_heads": 16,
         "num_key_value_heads": 16}
MEMORY_GB = 8


def measure(name, shape, base, recompute):
    found = ours(shape, "bf16", recompute, base_dtype=base)
    print(name, json.dumps(found), flush=True)
    load, idle = found["load"], found["load"]["idle_kb"]
    return {f"{name}_load_s": load["seconds"], f"{name}_load_peak_above_idle_gb": (load["peak_kb"] - idle) * 1024 / 1e9,
            f"{name}_held_gb": (load["held_kb"] - idle) * 1024 / 1e9,
            f"{name}_step_s": statistics.median(found["seconds"][1:] or found["seconds"]),
            f"{name}_peak_gb": found["memory_peak_kb"] * 1024 / 1e9, f"{name}_last_loss": found["loss"][-1]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", nargs="+", default=["nf4"], choices=["nf4", "int8", "compute"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--folder")
    arguments = parser.parse_args()
    begin("quantised")
    config = SMALL if arguments.small else LARGE
    figures = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="hansa-bench-") as folder:
        shape = {"config": config, "batch": 1, "length": arguments.length, "rank": 8, "steps": arguments.steps,
                 "checkpoint": str(Path(folder) / "base"), "tokens": str(Path(folder) / "tokens")}
        write_llama(shape["checkpoint"], config)
        text_tokens(shape["tokens"], shape)
        for base in arguments.base:
            for recompute in (False, True):
                name = f"{base}_recompute" if recompute else base
                figures.update(measure(name, shape, base, recompute))
    targets = {} if arguments.small else {"nf4_recompute_peak_gb": {"at_most": MEMORY_GB}}
    finish("quantised", figures, {name: bound for name, bound in targets.items() if name in figures})


if __name__ == "__main__":
    main()

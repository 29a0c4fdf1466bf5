"""`hansa generate` beside Transformers' generate, in turn on the same shape, prompt, type and threads: the first token, and each other.

`hansa generate` is a process for each text, so its first token comes from a cold process. It is held against Transformers' first
token of a process (cold, like for like) and, as a figure without a bound, against that after two texts in the same process (warm).
All other tokens are Transformers' warm.

Arguments: --prompt N (default 512 tokens), --tokens N (default 64 more), --rounds N (default 5).
"""

import argparse
import json
import os
import random
import statistics
import string
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from bench_results import BUILD, begin, finish  # noqa: E402
from train import SMALL, THREADS, checkpoint  # noqa: E402

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
WARM = 2  # texts of the peer before the counted one
PARTS = ("cold", "prefill", "decode")  # the first token of a process, the first token, each other


def peer(shape):
    """Transformers' own loop, greedy, with its cache: one call for the first token, one for all of them."""
    import time

    import tokenizers
    import torch
    import transformers
    torch.set_num_threads(THREADS)
    model = transformers.AutoModelForCausalLM.from_pretrained(shape["checkpoint"], dtype=torch.bfloat16)
    tokenizer = tokenizers.Tokenizer.from_file(f"{shape['checkpoint']}/tokenizer.json")
    prompt = torch.tensor([[tokenizer.token_to_id("<s>"), *tokenizer.encode(shape["prompt"]).ids]])
    prefill, decode = [], []

    def run(count):
        start = time.perf_counter()
        out = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=count, min_new_tokens=count,
                             do_sample=False, pad_token_id=0)
        return time.perf_counter() - start, out[0, shape["length"]:].tolist()

    for _ in range(WARM + 1):
        first, _ = run(1)
        whole, ids = run(shape["steps"] + 1)
        prefill.append(first)
        decode.append((whole - first) / shape["steps"])
    return {"cold": prefill[:1], "prefill": prefill[WARM:], "decode": decode[WARM:], "ids": ids[:shape["steps"]]}


def ours(shape):
    """`hansa generate`, a process for each text: what it says of itself, and of loading nothing."""
    out = subprocess.run([BUILD / "apps" / "hansa" / "hansa", "generate", "--model", shape["checkpoint"], "--compute", "bf16", "--json",
                          "--temperature", "0", "--max-tokens", str(shape["steps"] + 1), "--prompt", shape["prompt"]],
                         check=True, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT).stdout
    found = json.loads(out)
    assert found["prompt_tokens"] == shape["length"] and len(found["ids"]) == shape["steps"] + 1, found
    first = [found["first_token_seconds"]]
    return {"cold": first, "prefill": first, "decode": [1 / found["tokens_per_second"]], "ids": found["ids"]}


def byte_tokenizer(folder):
    """One id a byte, a start token before each text: so that a prompt's length is known."""
    import tokenizers
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens([tokenizers.AddedToken("<s>", special=True)])
    made.save(f"{folder}/tokenizer.json")
    Path(folder, "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "add_bos_token": True}))
    return made


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
    begin("generate")
    found = {name: {part: [] for part in PARTS} for name in ("peer", "ours")}
    with tempfile.TemporaryDirectory() as folder:
        shape = {"checkpoint": f"{folder}/model", "length": arguments.prompt, "steps": arguments.tokens,
                 "prompt": "".join(random.Random(1).choices(string.ascii_lowercase, k=arguments.prompt - 1))}
        checkpoint({**SMALL, "bos_token_id": 256, "eos_token_id": None}, shape["checkpoint"])
        byte_tokenizer(shape["checkpoint"])
        for _ in range(arguments.rounds):
            for name, one in found.items():
                row = measure(name, shape)
                one["ids"] = row["ids"]
                for part in PARTS:
                    one[part] += row[part]
    figures = {f"{name}_{part}_ms": 1e3 * statistics.median(one[part]) for name, one in found.items() for part in PARTS}
    for part in PARTS:
        figures[f"{part}_ours_over_peer"] = figures[f"peer_{part}_ms"] / figures[f"ours_{part}_ms"]
    # Random weights: where two likeliest tokens are as good as equal, bf16 decides, and the texts part.
    mine, theirs = found["ours"]["ids"], found["peer"]["ids"]
    figures["equal_tokens"] = next((i for i, (a, b) in enumerate(zip(mine, theirs)) if a != b), min(len(mine), len(theirs)))
    finish("generate", figures, {"cold_ours_over_peer": {"at_least": 1.5}, "decode_ours_over_peer": {"at_least": 3}})


if __name__ == "__main__":
    main()

"""Steps of training beside Transformers + PEFT, in turn on the same shape, data, type and threads: seconds, memory, loss.

Arguments: shapes (135m 135m-long 1.1b gpt2; default 135m), --quick (fewer steps), --loss (200 steps of ours in bf16 and fp32 too),
--growth (1,000 steps of ours: resident memory from the 200th on), --only ROW… (peer_fp32 peer_bf16 peer_compiled floor ours
ours_recompute), --rounds N (default 3): all rows are measured in turn, N times over, and medians are over all their steps, so that
a machine whose speed drifts is the same to all.
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
from bench_results import BUILD, begin, finish  # noqa: E402

THREADS = len(os.sched_getaffinity(0))
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
         "attention_bias": False, "tie_word_embeddings": True, "initializer_range": 0.02, "bos_token_id": 1, "eos_token_id": 2}
SMALL = {**LLAMA, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
         "num_key_value_heads": 3, "vocab_size": 49152}
TINY = {**LLAMA, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
        "num_key_value_heads": 4, "vocab_size": 32000, "tie_word_embeddings": False}
GPT2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024,
        "vocab_size": 50257, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "bos_token_id": 1, "eos_token_id": 2}
ALL = ("peer_fp32", "peer_bf16", "peer_compiled", "floor", "ours", "ours_recompute")
SHAPES = {
    "135m": {"config": SMALL, "batch": 4, "length": 256, "rank": 8, "steps": 8, "rows": ALL},
    "135m-long": {"config": SMALL, "batch": 1, "length": 1024, "rank": 8, "steps": 8, "rows": ALL},
    "1.1b": {"config": TINY, "batch": 1, "length": 512, "rank": 8, "steps": 4, "rows": ("peer_bf16", "floor", "ours", "ours_recompute")},
    "gpt2": {"config": GPT2, "batch": 4, "length": 64, "rank": 0, "steps": 12, "rows": ("peer_fp32", "peer_bf16", "ours_fp32", "ours")},
}
RATE = 1e-4
LEARNING_RATE = 1e-3  # for losses that fall: random weights hardly learn at the other
# What the program sets for itself when it is a node (apps/hansa/allocator.cpp): freed blocks are kept for the next step.
LIKE_A_NODE = {"THP_MEM_ALLOC_ENABLE": "1", "MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}


# ---- what runs in processes of its own: python train.py --row NAME JSON

def resident_kb(key):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    return 0


def checkpoint(config, folder):
    """Random weights, as Transformers draws and writes them."""
    import torch
    import transformers
    torch.manual_seed(0)
    made = transformers.AutoConfig.for_model(**config)
    transformers.AutoModelForCausalLM.from_config(made, dtype=torch.bfloat16).save_pretrained(folder)


def peer(shape, dtype, compiled):
    import time

    import torch
    import transformers
    torch.set_num_threads(THREADS)
    model = transformers.AutoModelForCausalLM.from_pretrained(shape["checkpoint"], dtype=getattr(torch, dtype))
    model.config.use_cache = False
    if shape["rank"]:
        import peft
        config = peft.LoraConfig(r=shape["rank"], lora_alpha=2 * shape["rank"], target_modules="all-linear", lora_dropout=0.0)
        model = peft.get_peft_model(model, config)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    run = torch.compile(model) if compiled else model
    tokens = torch.from_numpy(numpy_tokens(shape))
    seconds, losses = [], []
    for step in range(shape["steps"]):
        start = time.perf_counter()
        rows = tokens[step * shape["batch"] % (len(tokens) - shape["batch"] + 1):][:shape["batch"]]
        logits = run(input_ids=rows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.float().view(-1, logits.size(-1)), rows[:, 1:].reshape(-1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "loss": losses, "peak_kb": resident_kb("VmHWM")}


def floor(shape):
    """The base's products alone: forward and gradient of the input of each, and of the head."""
    import time

    import torch
    torch.set_num_threads(THREADS)
    c = shape["config"]
    width, inner = c["hidden_size"], c["intermediate_size"]
    head = width // c["num_attention_heads"]
    sides = [(width, width + 2 * head * c["num_key_value_heads"]), (width, width), (width, 2 * inner), (inner, width)]
    rows = shape["batch"] * shape["length"]
    weights = [[torch.randn(out, k).bfloat16() for k, out in sides] for _ in range(c["num_hidden_layers"])]
    inputs = {side: torch.randn(rows, side).bfloat16() for pair in sides for side in pair}
    outputs = {side: torch.empty(rows, side).bfloat16() for side in inputs}
    vocabulary, part = torch.randn(c["vocab_size"], width).bfloat16(), 128
    chunk = torch.empty(part, c["vocab_size"]).bfloat16()
    seconds = []
    for _ in range(shape["steps"]):
        start = time.perf_counter()
        for layer in weights:
            for (k, out), w in zip(sides, layer):
                torch.mm(inputs[k], w.t(), out=outputs[out])
        for first in range(0, rows, part):
            torch.mm(inputs[width][:part], vocabulary.t(), out=chunk)
            torch.mm(chunk, vocabulary, out=outputs[width][:part])
        for layer in weights:
            for (k, out), w in zip(sides, layer):
                torch.mm(inputs[out], w, out=outputs[k])
        seconds.append(time.perf_counter() - start)
    products = sum(k * out for k, out in sides) * c["num_hidden_layers"] + c["vocab_size"] * width
    return {"seconds": seconds, "loss": [], "peak_kb": 0, "flop": 4 * rows * products}


def numpy_tokens(shape):
    import numpy
    return numpy.fromfile(shape["tokens"], dtype=numpy.int64).reshape(-1, shape["length"] + 1)


def row(name, shape):
    if name == "floor":
        return floor(shape)
    return peer(shape, "float32" if name == "peer_fp32" else "bfloat16", name == "peer_compiled")


# ---- the whole

def ours(shape, dtype="bf16", recompute=False, kernels="fast", **more):
    what = {"model": shape["config"]["model_type"], "dtype": dtype, "kernels": kernels, "recompute": recompute,
            "rate": RATE, "threads": THREADS, **{k: shape[k] for k in ("checkpoint", "tokens", "batch", "length", "rank", "steps")},
            **more}
    out = subprocess.run([BUILD / "plugins" / "hansa_steps_bench", BUILD / "lib" / "hansa" / "plugins", json.dumps(what)],
                         check=True, capture_output=True, text=True,
                         env={**os.environ, **LIKE_A_NODE, "OMP_NUM_THREADS": str(THREADS)}).stdout
    return json.loads(out)


def measure(name, shape):
    if name.startswith("ours"):
        return ours(shape, "f32" if name == "ours_fp32" else "bf16", name == "ours_recompute")
    out = subprocess.run([sys.executable, __file__, "--row", name, json.dumps(shape)], check=True, capture_output=True, text=True,
                         env={**os.environ, "OMP_NUM_THREADS": str(THREADS)}).stdout
    return json.loads(out.splitlines()[-1])


def text_tokens(path, shape):
    """Tokens with something to learn: a walk whose next step is one of a few."""
    import numpy
    random = numpy.random.default_rng(1)
    size = shape["config"]["vocab_size"]
    follow = random.integers(0, size, (size, 4))
    rows = numpy.empty((64, shape["length"] + 1), dtype=numpy.int64)
    rows[:, 0] = random.integers(0, size, 64)
    for t in range(shape["length"]):
        rows[:, t + 1] = follow[rows[:, t], random.integers(0, 4, 64)]
    rows.tofile(path)


def compare(label, arguments, folder):
    shape = dict(SHAPES[label])
    shape["checkpoint"], shape["tokens"] = str(folder / label), str(folder / f"{label}.tokens")
    text_tokens(shape["tokens"], shape)
    subprocess.run([sys.executable, __file__, "--checkpoint", json.dumps(shape["config"]), shape["checkpoint"]], check=True,
                   capture_output=True)
    if arguments.quick:
        shape["steps"] = 4
    tokens, figures, found = shape["batch"] * shape["length"], {}, {}
    names = arguments.only or shape["rows"]
    for turn in range(arguments.rounds):
        for name in names:
            one = measure(name, shape)
            skip = 1 if len(one["seconds"]) < 6 else 2
            one["seconds"] = one["seconds"][skip:]
            if name in found:
                one["seconds"] += found[name]["seconds"]
                one["peak_kb"] = max(one["peak_kb"], found[name]["peak_kb"])
            found[name] = one
            print(f"{label} turn {turn + 1} {name}", file=sys.stderr, flush=True)
    for name in names:
        one = found[name]
        one["median"] = seconds = statistics.median(one["seconds"])
        figures[f"{label}_{name}_s"] = seconds
        figures[f"{label}_{name}_tokens_s"] = tokens / seconds
        if one["peak_kb"]:
            figures[f"{label}_{name}_peak_gb"] = one["peak_kb"] / 1e6
        if "flop" in one:
            figures[f"{label}_floor_tflops"] = one["flop"] / seconds / 1e12
        print(f"{label} {name}: {seconds:.3f} s, {tokens / seconds:.0f} tokens/s, peak {one['peak_kb'] / 1e6:.2f} GB", flush=True)
    pairs = [("peer_fp32", "ours_fp32"), *((base, "ours") for base in ("peer_fp32", "peer_bf16", "peer_compiled", "floor"))]
    for base, mine in pairs:
        if base in found and mine in found:
            figures[f"{label}_{mine}_over_{base}"] = found[base]["median"] / found[mine]["median"]
    if arguments.loss:
        import numpy
        losses, gradients = {}, {}
        for dtype in ("f32", "bf16"):
            path = str(folder / f"gradient.{dtype}")
            run = ours({**shape, "steps": 200}, dtype, gradient=path, rate=LEARNING_RATE)
            losses[dtype] = run["loss"]
            figures[f"{label}_{dtype}_growth_mb"] = run["growth_kb"] / 1e3  # of resident memory, over the last four fifths
            gradients[dtype] = numpy.fromfile(path, dtype=numpy.float32)
        a, b = gradients["f32"].astype(float), gradients["bf16"].astype(float)
        apart = [abs(b / a - 1) for a, b in zip(losses["f32"], losses["bf16"], strict=True)]
        figures[f"{label}_loss_first"], figures[f"{label}_loss_last"] = losses["f32"][0], losses["f32"][-1]
        figures[f"{label}_loss_apart"], figures[f"{label}_loss_apart_at_worst"] = statistics.mean(apart), max(apart)
        figures[f"{label}_gradient_cosine"] = float(a @ b / (a @ a * (b @ b)) ** 0.5)
    if arguments.growth:
        figures[f"{label}_growth_over_1000_steps_mb"] = ours({**shape, "steps": 1000})["growth_kb"] / 1e3
    return figures


def targets(figures):
    known = {"135m_ours_over_peer_bf16": {"at_least": 2.4}, "135m_ours_over_peer_compiled": {"at_least": 1.55},
             "135m_ours_over_floor": {"at_least": 0.6}, "135m_ours_peak_gb": {"at_most": 1.2},
             "135m_ours_recompute_peak_gb": {"at_most": 0.7}, "135m_loss_apart_at_worst": {"at_most": 0.01},
             "135m_growth_over_1000_steps_mb": {"at_most": 5}, "135m_gradient_cosine": {"at_least": 0.999},
             "135m-long_ours_over_peer_bf16": {"at_least": 2.4},
             "135m-long_ours_over_peer_compiled": {"at_least": 1.55}, "135m-long_ours_over_floor": {"at_least": 0.6},
             "1.1b_ours_over_floor": {"at_least": 0.75}, "1.1b_ours_peak_gb": {"at_most": 6},
             "gpt2_ours_over_peer_bf16": {"at_least": 1.3}, "gpt2_ours_fp32_over_peer_fp32": {"at_least": 1.1}}
    return {name: bound for name, bound in known.items() if name in figures}


def main():
    if sys.argv[1:2] == ["--row"]:
        print(json.dumps(row(sys.argv[2], json.loads(sys.argv[3]))))
        return
    if sys.argv[1:2] == ["--checkpoint"]:
        checkpoint(json.loads(sys.argv[2]), sys.argv[3])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", default=["135m"], choices=[*SHAPES, []])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--loss", action="store_true")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    begin("train")
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for label in arguments.shapes:
            figures.update(compare(label, arguments, Path(folder)))
    finish("train", figures, targets(figures))


if __name__ == "__main__":
    main()

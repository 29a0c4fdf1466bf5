"""Rounds of every gradient trainer in the real program against the loss written down naively over Transformers and PEFT, with
autograd and plain gradient descent: the losses that are reported, and where the adapter ends.
"""
import copy
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy, kl_div, log_softmax, logsigmoid, softmax
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "integration"))
from federation import make_base  # noqa: E402

ROUNDS, STEPS, RATE = 2, 3, 0.2
END = 0  # the tokenizer's one special token stands before and after a text
PAIRS = [("der Hund", " und die Katze laufen", " il gatto"), ("kot siedzi", " na oknie", " durch den Wald und der Hund"),
         ("il gatto dorme", " sotto", " w dal")]
PIPELINE = """
[run]
seed = 5
rounds = {rounds}
[model]
use = "llama"
path = "base"
[adapter]
use = "lora"
r = 3
alpha = 6
targets = ["q_proj", "v_proj", "down_proj"]
[trainer]
{trainer}
steps = {steps}
batch = {rows}
learning_rate = {rate}
optimizer = "sgd"
max_grad_norm = 0
[data]
use = "{source}"
template = "none"
length = 48
{data}
[aggregator]
use = "fedavg"
weighting = "uniform"
[train]
threads = 1
[simulation]
[[node]]
name = "one"
data = "silo.jsonl"
"""


def checkpoint(folder, seed, **changes):
    make_base(folder)
    config = json.loads((folder / "config.json").read_text())
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**{**config, **changes}, attn_implementation="eager"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


class Place:
    def __init__(self, folder):
        self.folder = folder
        self.base = checkpoint(folder / "base", 1)
        self.teacher = checkpoint(folder / "teacher", 2, hidden_size=40, num_attention_heads=2, num_key_value_heads=2)
        self.tokenizer = Tokenizer.from_file(str(self.base / "tokenizer.json"))
        self.pairs_file = [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in PAIRS]
        self.texts_file = [{"prompt": p, "completion": c} for p, c, _ in PAIRS]

    def run(self, name, trainer, rate=RATE, rounds=ROUNDS, pairs=False):
        """(the folder of the adapter, {metric: [a value for each round]})"""
        lines = self.pairs_file if pairs else self.texts_file
        (self.folder / "silo.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        config = self.folder / f"{name}.toml"
        config.write_text(PIPELINE.format(
            rounds=rounds, trainer=trainer, steps=STEPS, rate=rate, rows=(2 if pairs else 1) * len(PAIRS),
            source="preferences" if pairs else "completions", data="" if pairs else 'loss = "completions"\nmode = "pad"'))
        build = Path(os.environ.get("HANSA_BUILD_DIR", ROOT / "build" / "release"))
        done = subprocess.run([build / "apps" / "hansa" / "hansa", "run", config, "--run-dir", self.folder / name],
                              capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        found = {}
        with open(self.folder / name / "metrics.csv") as file:
            for row in csv.DictReader(file):
                if row["node"] == "one":
                    found.setdefault(row["metric"], []).append(float(row["value"]))
        return self.folder / name / "adapter", found

    def model(self):
        """As the run began: the base with the adapter's first values, which a run that learns nothing gives."""
        start = self.folder / "start" / "adapter"
        if not start.exists():
            self.run("start", 'use = "sft"', rate=0.0, rounds=1)
        base = AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32, attn_implementation="eager")
        return PeftModel.from_pretrained(base, start, is_trainable=True).eval()

    def rows(self, answers):
        """[(token ids, position of the answer's first token)] of prompts and answers."""
        found = []
        for prompt, answer in answers:
            before = [END] + self.tokenizer.encode(prompt).ids
            found.append((torch.tensor([before + self.tokenizer.encode(answer).ids + [END]]), len(before)))
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    torch.set_num_threads(1)
    return Place(tmp_path_factory.mktemp("trainers"))


def answer_logits(model, row):
    tokens, first = row
    return model(tokens).logits[0, first - 1:-1].float(), tokens[0, first:]


def descend(model, loss_of, rounds=ROUNDS, gradient_of_round=None):
    """Gradient descent on loss_of(model, the model at the round's start); each step's loss, in lists by round."""
    losses = []
    for _ in range(rounds):
        start = copy.deepcopy(model)
        begun = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
        losses.append([])
        for _ in range(STEPS):
            model.zero_grad()
            loss = loss_of(model, start)
            loss.backward()
            losses[-1].append(loss.item())
            with torch.no_grad():
                for name, value in model.named_parameters():
                    if not value.requires_grad:
                        continue
                    more = gradient_of_round(value, begun[name]) if gradient_of_round else 0
                    value -= RATE * (value.grad + more)
    return losses


def agrees(adapter, metrics, model, losses):
    theirs = {name.replace(".default", ""): value.detach() for name, value in model.named_parameters() if value.requires_grad}
    ours = load_file(adapter / "adapter_model.safetensors")
    assert ours.keys() == theirs.keys()
    moved = torch.cat([theirs[name].flatten() for name in sorted(theirs) if "lora_B" in name])
    assert moved.norm() > 0.01, "nothing was learnt"
    off = torch.cat([(ours[name] - theirs[name]).flatten() for name in sorted(theirs)])
    assert off.norm() / moved.norm() < 2e-4, f"{off.norm() / moved.norm():.1e}"
    assert metrics["loss_first"] == pytest.approx([of_round[0] for of_round in losses], rel=1e-4)
    assert metrics["loss_last"] == pytest.approx([of_round[-1] for of_round in losses], rel=1e-4)
    assert metrics["loss"] == pytest.approx([sum(of_round) / STEPS for of_round in losses], rel=1e-4)


def mean_nats(model, rows):
    parts = [answer_logits(model, row) for row in rows]
    return cross_entropy(torch.cat([logits for logits, _ in parts]), torch.cat([labels for _, labels in parts]))


def test_sft(place):
    rows = place.rows([(prompt, answer) for prompt, answer, _ in PAIRS])
    adapter, metrics = place.run("sft", 'use = "sft"')
    model = place.model()
    agrees(adapter, metrics, model, descend(model, lambda now, _: mean_nats(now, rows)))


def test_fedprox_pulls_towards_the_round_s_start(place):
    rows = place.rows([(prompt, answer) for prompt, answer, _ in PAIRS])
    adapter, metrics = place.run("fedprox", 'use = "fedprox"\nmu = 1.5')
    model = place.model()
    losses = descend(model, lambda now, _: mean_nats(now, rows), gradient_of_round=lambda now, start: 1.5 * (now - start))
    agrees(adapter, metrics, model, losses)
    without, _ = place.run("without", 'use = "fedprox"\nmu = 0.0')
    files = [load_file(folder / "adapter_model.safetensors") for folder in (adapter, without)]
    assert any(not torch.allclose(files[0][name], files[1][name], rtol=1e-3) for name in files[0])


def pair_terms(model, row, mean):
    logits, labels = answer_logits(model, row)
    chosen = log_softmax(logits, -1).gather(1, labels.unsqueeze(1))
    return chosen.mean() if mean else chosen.sum()


@pytest.mark.parametrize("reference", ["base", "round_start"])
@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "smoothed"])
def test_dpo(place, loss, reference):
    beta, smoothing = 0.4, 0.2 if loss == "smoothed" else 0.0
    chosen = place.rows([(prompt, answer) for prompt, answer, _ in PAIRS])
    rejected = place.rows([(prompt, answer) for prompt, _, answer in PAIRS])
    trainer = f'use = "dpo"\nbeta = {beta}\nreference = "{reference}"\n'
    trainer += 'loss = "ipo"' if loss == "ipo" else f"label_smoothing = {smoothing}"
    adapter, metrics = place.run(f"dpo-{loss}-{reference}", trainer, pairs=True)

    def gaps(model):
        return torch.stack([pair_terms(model, better, loss == "ipo") - pair_terms(model, worse, loss == "ipo")
                            for better, worse in zip(chosen, rejected)])

    def loss_of(model, start):
        with torch.no_grad():
            if reference == "base":
                with model.disable_adapter():
                    held = gaps(model)
            else:
                held = gaps(start)
        gap = gaps(model) - held
        if loss == "ipo":
            return ((gap - 1 / (2 * beta)) ** 2).mean()
        return (-(1 - smoothing) * logsigmoid(beta * gap) - smoothing * logsigmoid(-beta * gap)).mean()

    model = place.model()
    agrees(adapter, metrics, model, descend(model, loss_of))


@pytest.mark.parametrize("teacher", ["teacher", "round_start"])
def test_distill(place, teacher):
    weight, temperature = 0.7, 2.0
    rows = place.rows([(prompt, answer) for prompt, answer, _ in PAIRS])
    trainer = f'use = "distill"\nweight = {weight}\ntemperature = {temperature}\nfrom = "{teacher}"\n'
    if teacher == "teacher":
        trainer += 'teacher = { use = "llama" }\nteacher_path = "teacher"\nstudent_path = "base"'
    adapter, metrics = place.run(f"distill-{teacher}", trainer)
    other = AutoModelForCausalLM.from_pretrained(place.teacher, dtype=torch.float32, attn_implementation="eager")

    def loss_of(model, start):
        total, count = 0, 0
        for row in rows:
            logits, labels = answer_logits(model, row)
            with torch.no_grad():
                taught, _ = answer_logits(other if teacher == "teacher" else start, row)
            soft = kl_div(log_softmax(logits / temperature, -1), softmax(taught / temperature, -1), reduction="sum")
            hard = cross_entropy(logits, labels, reduction="sum")
            total = total + (1 - weight) * hard + weight * temperature ** 2 * soft
            count += len(labels)
        return total / count

    model = place.model()
    agrees(adapter, metrics, model, descend(model, loss_of))

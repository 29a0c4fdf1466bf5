"""Trainers stop where a held-out part of the silo tells them that they only learn by heart, and give back the best state."""

import csv
import json
import random

import pytest
from federation import make_base

PIPELINE = """
[run]
seed = 5
rounds = 1
[model]
use = "llama"
path = "base"
initialise = true
[adapter]
use = "lora"
r = 8
[trainer]
use = "{trainer}"
steps = {steps}
batch = 8
learning_rate = 0.01
held_out = 0.3
check_every = 5
patience = {patience}
[data]
{data}
length = 32
[aggregator]
use = "fedavg"
[server_optimizer]
use = "sgd"
[[node]]
name = "de"
data = "{own}"
"""
SOURCES = {"sft": ('use = "text"\nseparator = "%"', "de.txt"), "dpo": ('use = "preferences"', "de.jsonl")}


def words_of(letters):
    return " ".join(random.choice(letters) for _ in range(7))


def write_silo(path):
    """Texts without sense: what is learnt of one by heart is of no use for another. Of pairs, every fifth is the wrong way round:
    the rule is learnt first, for all of them, then the exceptions by heart."""
    random.seed(3)
    texts = [(words_of("abcdefgh"), words_of("ijklmnop"), words_of("qrstuvwx")) for _ in range(24)]
    if path.suffix == ".txt":
        path.write_text("\n%\n".join(" ".join(text) for text in texts) + "\n")
        return
    pairs = [(prompt, *((worse, better) if i % 5 == 1 else (better, worse))) for i, (prompt, better, worse) in enumerate(texts)]
    path.write_text("".join(json.dumps({"prompt": prompt + " ", "chosen": chosen, "rejected": rejected}) + "\n"
                            for prompt, chosen, rejected in pairs))


def metrics_of(hansa, folder, trainer, steps, patience):
    folder.mkdir()
    make_base(folder / "base")
    data, own = SOURCES[trainer]
    write_silo(folder / own)
    (folder / "pipeline.toml").write_text(PIPELINE.format(trainer=trainer, data=data, own=own, steps=steps, patience=patience))
    done = hansa("run", folder / "pipeline.toml", "--run-dir", folder / "run")
    assert done.returncode == 0, done.stderr
    rows = csv.DictReader((folder / "run" / "metrics.csv").open())
    return {row["metric"]: float(row["value"]) for row in rows if row["node"] == "de"}


@pytest.mark.parametrize("trainer", ["sft", "dpo"])
def test_training_stops_where_the_held_out_loss_no_longer_falls(hansa, tmp_path, trainer):
    stopped = metrics_of(hansa, tmp_path / "stopped", trainer, steps=500, patience=3)
    last = int(stopped["steps_kept"]) + 3 * 5
    assert 0 < stopped["steps_kept"] and last < 300 and stopped["held_out_best"] < stopped["held_out_first"], stopped
    # It did not go on: a round of just so many steps, none of them stopped early, sees and keeps the same.
    exact = metrics_of(hansa, tmp_path / "exact", trainer, steps=last, patience=1000)
    for name in ("loss", "loss_first", "loss_last", "held_out_first", "held_out_best", "steps_kept", "update_norm"):
        assert stopped[name] == exact[name], name
    longer = metrics_of(hansa, tmp_path / "longer", trainer, steps=last + 1, patience=1000)
    assert stopped["loss"] != longer["loss"] and stopped["steps_kept"] == longer["steps_kept"]

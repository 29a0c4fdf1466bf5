"""Each kind of adapter federated for a few rounds with plain averaging, and what the program makes of the export."""

import json
import subprocess

import numpy
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file
from study import LANGUAGES
from transformers import LlamaConfig, LlamaForCausalLM

# Kind and parameters; the trainer's learning rate; does it fold into the weights?
KINDS = {
    "ia3": ("", 0.1, True),
    "prompt_tuning": ("tokens = 4", 0.1, False),
    "prefix_tuning": ("tokens = 4", 0.1, False),
    "bitfit": ("", 0.05, True),
    "bottleneck": ("width = 4", 0.02, False),
    "vera": ("r = 8", 0.1, True),
    "layers": ('outside = ["model.norm"]', 0.01, True),
}


def with_weights(fed):
    """A base with biases and weights on disk, so that an adapter can be looked at alone."""
    base = fed.folder / "base"
    config = json.loads((base / "config.json").read_text()) | {"attention_bias": True, "mlp_bias": True}
    (base / "config.json").write_text(json.dumps(config))
    torch.manual_seed(2)
    weights = LlamaForCausalLM(LlamaConfig(**config)).state_dict()
    save_file({name: tensor for name, tensor in weights.items() if name != "lm_head.weight"}, base / "model.safetensors")
    for file in (fed.config, fed.simulation):
        file.write_text(file.read_text().replace("initialise = true\n", ""))
    return base


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_adapter_is_federated_exported_and_used(kind, study, tmp_path):
    params, rate, folds = KINDS[kind]
    fed = study(rounds=2, adapter=f'use = "{kind}"\n{params}',
                trainer=f'use = "sft"\nsteps = 6\nbatch = 4\nlearning_rate = {rate}')
    base = with_weights(fed)
    run = fed.run(config=fed.simulation)
    loss = json.loads((run / "summary.json").read_text())["loss"]
    assert all(loss["federated"][silo] < loss["base"][silo] for silo in LANGUAGES), loss
    adapter = run / "adapter"

    def logits(model, *extra):
        ids = tmp_path / "ids.json"
        ids.write_text(json.dumps([[1, 40, 99, 7], [3, 3, 250, 12]]))
        fed.hansa("inspect", "logits", "--model", model, *extra, "--tokens", ids, "--out", tmp_path / "out.safetensors")
        return load_file(tmp_path / "out.safetensors")["logits"]

    plain, adapted = logits(base), logits(base, "--adapter", adapter)
    assert numpy.abs(adapted - plain).max() > 1e-3
    text = fed.folder / "de-heldout.txt"
    measured = [json.loads(fed.hansa("eval", "--model", base, *extra, "--data", text, "--json"))["loss"]
                for extra in ((), ("--adapter", adapter))]
    assert measured[1] < measured[0]
    fed.hansa("generate", "--model", base, "--adapter", adapter, "--prompt", "der Hund", "--max-tokens", "5")
    merged = fed.folder / "merged"
    if folds:
        fed.hansa("export", "--run", run, "--merged", "--out", merged)
        assert numpy.abs(logits(merged) - adapted).max() < 1e-4
    else:
        done = subprocess.run([fed.program, "export", "--run", run, "--merged", "--out", merged], capture_output=True, text=True,
                              timeout=300)
        assert done.returncode != 0 and "cannot be merged" in done.stderr

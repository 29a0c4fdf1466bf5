"""Federations of the hollow test plugins: tensors of any size, no computing."""

import json
from pathlib import Path


def hollow_config(folder, build_dir, rounds=4, nodes=2, tensors=60, elements=1000, trainer='use = "constant"', extra="",
                  aggregator='use = "fedavg"'):
    folder = Path(folder)
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text(json.dumps({"model_type": "hollow"}))
    (folder / "silo.txt").write_text("nothing\n")
    names = [f"node-{i:02}" for i in range(nodes)]
    config = folder / "hollow.toml"
    config.write_text(f"""
plugin_path = ["{Path(build_dir) / "test_plugins"}"]
[run]
rounds = {rounds}
[model]
use = "hollow"
path = "model"
initialise = true
[adapter]
use = "flat_tensors"
tensors = {tensors}
elements = {elements}
[trainer]
{trainer}
[data]
use = "nothing"
[aggregator]
{aggregator}
weighting = "uniform"
[train]
threads = 1
{extra}
""" + "".join(f'[[node]]\nname = "{name}"\ndata = "silo.txt"\n' for name in names))
    return config

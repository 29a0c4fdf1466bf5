"""A run from end to end: over processes, in simulation, and that both are the same."""

import csv
import json

import pytest
from federation import NOISE, events, journal, last_version, tensor_bytes


def test_two_runs_over_processes_and_a_simulation_give_the_same_bits(federation, hansa):
    fed = federation()
    fed.run("first")
    fed.run("second")
    fed.run("simulated", config=fed.simulation)
    first = tensor_bytes(hansa.program, last_version(fed.run_dir("first")))
    assert first == tensor_bytes(hansa.program, last_version(fed.run_dir("second")))
    assert first == tensor_bytes(hansa.program, last_version(fed.run_dir("simulated")))


@pytest.mark.parametrize("setting", ["model.compute=bf16", "adapter.dropout=0.1"])
def test_processes_and_simulation_agree_also_with(federation, hansa, setting):
    fed = federation(rounds=2)
    fed.run("processes", "--set", setting)
    fed.run("simulated", "--set", setting, config=fed.simulation)
    fed.run("plain", config=fed.simulation)
    processes = tensor_bytes(hansa.program, last_version(fed.run_dir("processes")))
    assert processes == tensor_bytes(hansa.program, last_version(fed.run_dir("simulated")))
    assert processes != tensor_bytes(hansa.program, last_version(fed.run_dir("plain")))


def test_the_run_directory_is_whole(federation):
    fed = federation()
    fed.run("whole")
    directory = fed.run_dir("whole")
    for name in ("config.toml", "run.json", "events.jsonl", "metrics.csv", "summary.json", "report.txt", "loss.svg", "manifest.json"):
        assert (directory / name).stat().st_size > 0, name
    summary = json.loads((directory / "summary.json").read_text())
    assert set(summary["loss"]) == {"base", "federated"}
    assert set(summary["loss"]["base"]) == {"de", "it", "pl"}
    assert summary["epsilon"] is None and summary["bytes_up"] > 0 and summary["bytes_down"] > 0 and summary["seconds"] > 0
    assert all(summary["loss"]["federated"][silo] < summary["loss"]["base"][silo] for silo in ("de", "it", "pl"))
    events = [json.loads(line)["event"] for line in (directory / "events.jsonl").read_text().splitlines()]
    assert events.count("round_released") == 4 and events.count("run_finished") == 1
    rows = list(csv.DictReader((directory / "metrics.csv").open()))
    assert {row["node"] for row in rows if row["metric"] == "loss"} == {"de", "it", "pl"}
    plugins = json.loads((directory / "run.json").read_text())["plugins"]
    assert all(len(plugin["sha256"]) == 64 for plugin in plugins)
    assert {plugin["id"].removeprefix("org_hansa_") for plugin in plugins if plugin["used"]} == {
        "llama", "lora", "sft", "text", "int8", "zstd", "clip", "fedavg", "sgd", "everyone", "sync", "perplexity"}
    assert (directory / "journal").stat().st_mode & 0o077 == 0


def test_the_adapter_loads_in_peft(federation, hansa, tmp_path):
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM
    fed = federation(rounds=1)
    fed.run("run")
    merged = tmp_path / "merged"
    assert hansa("export", "--run", fed.run_dir("run"), "--merged", "--out", merged).returncode == 0
    ids = [[1, 40, 99, 7], [3, 3, 250, 12]]
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    done = hansa("inspect", "logits", "--model", merged, "--tokens", tmp_path / "ids.json", "--out", tmp_path / "logits.safetensors")
    assert done.returncode == 0, done.stderr
    ours = load_file(tmp_path / "logits.safetensors")["logits"]
    model = AutoModelForCausalLM.from_pretrained(merged)
    assert torch.allclose(ours, model(torch.tensor(ids)).logits, atol=1e-4)

    # The adapter alone, on the base without it: the merged model with the adapter taken out again.
    adapter = fed.run_dir("run") / "adapter"
    lora = load_file(adapter / "adapter_model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            key = "base_model.model." + name.removesuffix(".weight")
            if key + ".lora_A.weight" in lora:
                parameter -= scale * lora[key + ".lora_B.weight"] @ lora[key + ".lora_A.weight"]
    with_adapter = PeftModel.from_pretrained(model, adapter)
    assert torch.allclose(ours, with_adapter(torch.tensor(ids)).logits, atol=1e-4)


def test_local_only_baselines_are_trained_and_measured(federation):
    fed = federation(rounds=2, extra="[report]\nlocal_only = true\nsample_prompt = \"der\"\nsample_tokens = 5\n")
    done = fed.run("run")
    summary = json.loads((fed.run_dir("run") / "summary.json").read_text())
    assert set(summary["loss"]) == {"base", "federated", "local-de", "local-it", "local-pl"}
    for silo in ("de", "it", "pl"):  # a silo's own baseline learns its own text
        assert summary["loss"][f"local-{silo}"][silo] < summary["loss"]["base"][silo]
    assert "sample after:" in done.stdout


def test_a_local_only_baseline_trains_the_rounds_that_its_node_was_part_of(federation, hansa):
    fed = federation(rounds=3, extra='[report]\nlocal_only = true\n[selector]\nuse = "uniform"\ncohort = 1\n')
    fed.run("run")
    directory = fed.run_dir("run")
    accepted = [event["node"] for event in events(directory) if event["event"] == "upload_accepted"]
    assert len(accepted) == 3
    summary = json.loads((directory / "summary.json").read_text())
    for silo in ("de", "it", "pl"):
        log = (directory / "logs" / f"local-{silo}.log").read_text()
        assert f"{silo} trains alone in the {accepted.count(silo)} of 3 rounds" in log
        learnt = summary["loss"][f"local-{silo}"][silo] != summary["loss"]["base"][silo]
        assert learnt == (silo in accepted)


@pytest.mark.parametrize("mode", ["processes", "simulation"])
def test_private_runs_write_nothing_about_single_nodes(federation, mode):
    fed = federation(rounds=2, privacy=NOISE, extra='[selector]\nuse = "poisson"\nrate = 0.7\n')
    fed.run("run", config=fed.simulation if mode == "simulation" else fed.config)
    directory = fed.run_dir("run")
    for secret in ("journal", "ledger", "secrets", "spool", "secrets/tokens"):
        assert (directory / secret).stat().st_mode & 0o077 == 0, secret
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["epsilon"] > 0
    exported = [path.relative_to(directory) for path in (directory / "adapter").iterdir() if path.suffix == ".json"]
    assert "adjacency: add or remove one node" in (directory / "report.txt").read_text()
    for name in ("events.jsonl", "metrics.csv", "manifest.json", "summary.json", *exported):
        text = (directory / name).read_text()
        for silo in ("de", "it", "pl"):
            assert f'"{silo}"' not in text and f",{silo}," not in text, name


@pytest.mark.parametrize("mode", ["processes", "simulation"])
def test_a_budget_stops_the_run_before_the_release_and_a_resumed_one_again(federation, hansa, mode):
    fed = federation(rounds=50, privacy=NOISE + "epsilon_budget = 6.0\n")
    done = fed.run("run", config=fed.simulation if mode == "simulation" else fed.config)
    assert "beyond the budget of 6" in done.stdout + done.stderr
    ledger = journal(fed.run_dir("run"), "ledger")
    summary = json.loads((fed.run_dir("run") / "summary.json").read_text())
    assert summary["epsilon"] <= 6.0 and 0 < summary["epochs_released"] < 50
    done = fed.resume("run")
    assert "beyond the budget of 6" in done.stdout + done.stderr
    assert journal(fed.run_dir("run"), "ledger") == ledger  # nothing was charged, nothing released
    again = json.loads((fed.run_dir("run") / "summary.json").read_text())
    assert (again["epsilon"], again["epochs_released"]) == (summary["epsilon"], summary["epochs_released"])
    one_more = hansa("privacy", "epsilon", "--noise-multiplier", 2, "--sampling-rate", 1, "--steps", summary["epochs_released"] + 1,
                     "--delta", 1e-5)
    assert float(one_more.stdout) > 6.0

"""The contract's hardest users, each end to end over processes: what the paper promises is looked up in the files of the run."""

import csv
import json
import re

import numpy
import pytest
from federation import events, journal
from study import KSEED, LANGUAGES, SFT, newest
from uploads import uploads_of


def summary(run):
    return json.loads((run / "summary.json").read_text())


def learnt(run):
    loss = summary(run)["loss"]
    return all(loss["federated"][silo] < loss["base"][silo] for silo in loss["base"])


def logits_of(study, adapter, out, model=None):
    ids = study.folder / "ids.json"
    ids.write_text(json.dumps([[1, 40, 99, 7], [3, 3, 250, 12]]))
    extra = ["--adapter", adapter] if adapter else []
    study.hansa("inspect", "logits", "--model", model or study.folder / "weights", *extra, "--tokens", ids, "--out", out)
    from safetensors.numpy import load_file
    return load_file(out)["logits"]


def with_weights(study, run):
    """The base as a checkpoint with weights: adapters need one to be looked at alone."""
    study.hansa("export", "--run", run, "--merged", "--out", study.folder / "merged")
    return study.folder / "merged"


def test_exact_averaging_sends_residuals_down_and_exports_the_rank_that_it_needs(study, tmp_path):
    fed = study(aggregator='use = "fedex_lora"\nweighting = "uniform"', rounds=3)
    run = fed.both()
    assert learnt(run)
    logs = sorted((run / "versions").glob("*.log"))
    assert len(logs) == 3
    for name, row in fed.layout(logs[0]).items():  # factors only: (K - 1) r wide, never as wide as the weight
        assert name.endswith((".residual_A", ".residual_B"))
        assert row["shape"][0 if name.endswith("A") else 1] <= 2 * 4
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert config["r"] > 4
    merged = with_weights(fed, run)

    import torch
    from transformers import AutoModelForCausalLM
    ours = logits_of(fed, None, tmp_path / "merged.safetensors", model=merged)
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(merged)(torch.tensor([[1, 40, 99, 7], [3, 3, 250, 12]])).logits.numpy()
    assert numpy.abs(ours - theirs).max() < 1e-4 * numpy.abs(theirs).max()


def test_local_only_baselines_know_nothing_of_what_the_federation_appended(study):
    report = "local_only = true"
    plain = summary(study(rounds=2, report=report).run("plain"))["loss"]
    exact = summary(study(rounds=2, report=report, aggregator='use = "fedex_lora"\nweighting = "uniform"').run("exact"))["loss"]
    for language in LANGUAGES:
        assert exact[f"local-{language}"] == plain[f"local-{language}"]


def test_a_long_log_is_compacted_and_says_the_same(study):
    fed = study(aggregator='use = "fedex_lora"\nweighting = "uniform"', rounds=7)
    plain = fed.run("plain", config=fed.simulation)
    short = fed.run("short", "--set", "run.compact_log_after=2", config=fed.simulation)
    over_processes = fed.run("processes", "--set", "run.compact_log_after=2")
    assert len(list((plain / "versions").glob("*.log"))) == 7
    for run in (short, over_processes):
        assert len(list((run / "versions").glob("*.snapshot"))) == 1
        assert len(list((run / "versions").glob("*.log"))) < 2
        for silo, loss in summary(plain)["loss"]["federated"].items():
            assert summary(run)["loss"]["federated"][silo] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("method", ["fedex_lora", "fedkseed", "rolora"])
@pytest.mark.parametrize("compact_after", [1000, 2])
def test_a_node_that_was_away_for_three_rounds_catches_up(study, method, compact_after):
    """In simulation every node reads the whole state; over processes it fetches what it lacks. Both must compute the same."""
    cohort = 2 if method == "fedex_lora" else 1  # one node's update leaves no residual
    sections = {"aggregator": f'use = "{method}"\nweighting = "uniform"', "selector": f'use = "uniform"\ncohort = {cohort}'}
    if method == "fedkseed":
        sections |= {"adapter": 'use = "full"', "trainer": KSEED, "aggregator": sections["aggregator"] + "\nseeds = 64"}
    run = study(rounds=9, **sections).both("--set", f"run.compact_log_after={compact_after}")
    worked = {}
    for record in journal(run):
        for node in record["plan"]["cohort"] if record["type"] == "opened" else []:
            worked.setdefault(node["node"], []).append(record["plan"]["round"])
    assert max(later - earlier for rounds in worked.values() for earlier, later in zip(rounds, rounds[1:])) > 3  # with this seed
    assert bool(list((run / "versions").glob("*.snapshot"))) == (compact_after == 2 and method != "rolora")


def test_another_server_optimiser_than_plain_averaging_is_refused_for_an_exact_rule(study, hansa):
    fed = study(aggregator='use = "fedex_lora"', server_optimizer='use = "sgd"\nlearning_rate = 0.5')
    done = hansa("check", fed.config)
    assert done.returncode == 1 and "[rule 22]" in done.stdout


def test_nodes_of_three_ranks_share_one_model(study):
    ranks = (4, 8, 16)
    fed = study(aggregator='use = "flexlora"\nweighting = "uniform"', ranks=ranks, rounds=3)
    run = fed.both()
    assert learnt(run)
    last = newest(run).name.split(".")[0]
    for rank, node in zip(ranks, LANGUAGES):
        version = fed.tensors(run / "versions" / f"{last}.rank{rank}.hansa")
        assert {values.shape[0] for name, values in version.items() if name.endswith("lora_A")} == {rank}
        exported = exported_by(fed, run, node, rank)
        assert exported.keys() == version.keys()
        assert all(numpy.array_equal(exported[name], version[name]) for name in version)


def exported_by(fed, run, node, rank=None):
    """The tensors of a node's export, under the names that a version has for them."""
    from safetensors.numpy import load_file
    out = fed.folder / f"adapter-{node}"
    fed.hansa("export", "--run", run, "--node", node, "--out", out)
    assert rank is None or json.loads((out / "adapter_config.json").read_text())["r"] == rank
    return {name.removeprefix("base_model.model.").removesuffix(".weight"): values
            for name, values in load_file(out / "adapter_model.safetensors").items()}


def test_ranks_that_differ_are_refused_where_a_rule_takes_one(study, hansa):
    done = hansa("check", study(ranks=[2, 4, 8]).config)
    assert done.returncode == 1 and "[rule 12]" in done.stdout and "flexlora" in done.stdout


def test_alternating_halves_halve_the_bytes(study):
    whole = summary(study(rounds=4).run("whole"))
    fed = study(aggregator='use = "rolora"\nweighting = "uniform"', rounds=4)
    run = fed.both()
    half = summary(run)
    assert learnt(run)
    index = 3 * 4 * 4096  # names and offsets in each packet
    assert half["bytes_up"] < whole["bytes_up"] / 2 + index
    assert half["bytes_down"] < whole["bytes_down"] * (1 / 5 + 4 / 5 / 2) + 2 * index  # the first version is whole


def test_a_resting_half_is_not_in_the_uploads(study):
    fed = study(aggregator='use = "rolora"\nweighting = "uniform"', rounds=60)
    run = fed.folder / "run"
    rounds = uploads_of(fed, run, [lambda number: number % 2 == 1, lambda number: number % 2 == 0])
    whole = set(fed.layout(newest(run)))
    for half, (number, uploads) in zip(("lora_B", "lora_A"), rounds):  # B in odd rounds
        for upload in uploads:
            sent = fed.tensors(upload)
            assert set(sent) == {name for name in whole if name.endswith(half)}, f"round {number}"
            assert all(numpy.abs(values).max() > 0 for values in sent.values())


def test_the_personal_half_stays_on_its_node_and_is_exported_from_there(study):
    fed = study(aggregator='use = "fedsa_lora"\nweighting = "uniform"', rounds=3,
                trainer=SFT.replace("steps = 2", "steps = 6"))
    fed.put_weights()
    run = fed.both()
    assert all(name.endswith("lora_A") for name in fed.layout(newest(run)))
    exported = {language: exported_by(fed, run, language) for language in LANGUAGES}
    first, second = exported["de"], exported["pl"]
    for name in first:
        same = numpy.array_equal(first[name], second[name])
        assert same == ("lora_A" in name), name
        assert "lora_A" in name or numpy.abs(first[name]).max() > 0
    with open(run / "metrics.csv", newline="") as file:
        told = {row["node"]: float(row["value"]) for row in csv.DictReader(file) if row["metric"] == "heldout_nats_per_byte"}

    def measured(adapter, language):
        text = fed.folder / f"{language}-heldout.txt"
        return json.loads(fed.hansa("eval", "--model", fed.folder / "base", "--adapter", adapter, "--data", text, "--json"))["nats_per_byte"]

    for language in LANGUAGES:  # the last row of each node is of the last version
        assert told[language] == pytest.approx(measured(fed.folder / f"adapter-{language}", language), rel=1e-5)
        assert abs(told[language] - measured(run / "adapter", language)) > 1e-3 * told[language], "with the shared half alone"


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_control_variates_travel_both_ways(study, optimizer):
    rate = 0.1 if optimizer == "sgd" else 0.01
    fed = study(trainer=f'use = "scaffold"\nsteps = 3\nbatch = 2\noptimizer = "{optimizer}"\nlearning_rate = {rate}')
    run = fed.both()
    assert learnt(run)
    control = [row for row in json.loads(fed.hansa("inspect", "layout", newest(run), "--json")) if row["channel"] == "control"]
    assert len(control) == len(fed.layout(newest(run)))


def test_seeds_and_scalars_are_all_that_travels(study):
    fed = study(adapter='use = "full"', trainer=KSEED,
                aggregator='use = "fedkseed"\nweighting = "uniform"\nseeds = 64', rounds=3)
    run = fed.both()
    assert not fed.layout(newest(run))  # a version holds no tensor
    assert len(list((run / "versions").glob("*.log"))) == 3
    told = summary(run)
    assert (told["bytes_up"] + told["bytes_down"]) / (3 * 3) < 10_000


def test_full_rounds_of_seeds_cost_ten_kilobytes_a_node(study):
    """4,096 candidates and 200 steps, whatever the model's size: seeds up, half-precision accumulators down."""
    rounds = 2
    fed = study(adapter='use = "full"', trainer='use = "fedkseed"\nsteps = 200\nbatch = 1\nseeds = 4096\nlearning_rate = 1e-4',
                aggregator='use = "fedkseed"\nweighting = "uniform"\nseeds = 4096', rounds=rounds)
    told = summary(fed.run())
    assert told["bytes_up"] > rounds * len(LANGUAGES) * 200  # a byte of each step's scalar at least
    assert (told["bytes_up"] + told["bytes_down"]) / (rounds * len(LANGUAGES)) <= 10_000


def test_the_time_to_rebuild_is_told_before_the_run_and_grows_with_seeds_and_parameters(study):
    def told(seeds, width):
        fed = study(adapter='use = "full"', trainer=KSEED.replace("64", str(seeds)),
                    aggregator=f'use = "fedkseed"\nweighting = "uniform"\nseeds = {seeds}')
        config = json.loads((fed.folder / "base" / "config.json").read_text())
        (fed.folder / "base" / "config.json").write_text(json.dumps(config | {"hidden_size": width, "intermediate_size": 2 * width}))
        remark, = json.loads(fed.hansa("check", "--explain", "--json", fed.config))["cost"]["remarks"]
        seconds, said_seeds, parameters = re.search(r"in about ([0-9.e-]+) s .*: (\d+) seeds x (\d+) parameters", remark).groups()
        assert int(said_seeds) == seeds
        return float(seconds), int(parameters)

    small, few = told(64, 32)
    seeds, same = told(4096, 32)
    wide, many = told(64, 256)
    assert same == few and many > 20 * few
    assert seeds > 8 * small and wide > many / few / 8 * small  # each is measured anew, beside whatever else runs


TOPK = '[[codec]]\nuse = "topk"\nfraction = 0.05\n[[codec]]\nuse = "zstd"\n'


def test_what_a_sparse_codec_leaves_out_is_sent_later(study):
    def average(run):
        return numpy.mean(list(summary(run)["loss"]["federated"].values()))

    without = average(study(rounds=6, extra=TOPK).run("without"))
    run = study(rounds=6, extra=TOPK + "[error_feedback]\n").both()
    assert learnt(run) and average(run) < without


def test_a_chain_of_privacy_codecs_and_optimiser_runs_with_a_lossy_downlink(study):
    fed = study(rounds=4, privacy='use = "clip"\nclipping_norm = 0.5', server_optimizer='use = "adam"\nlearning_rate = 0.01',
                extra='[[codec]]\nuse = "int8"\n[[codec]]\nuse = "zstd"\n[[downlink]]\nuse = "bf16"\n')
    run = fed.both()
    assert learnt(run)
    served = max((run / "versions").glob("*.served"))
    assert served.stat().st_size < 0.7 * newest(run).stat().st_size


def test_a_node_that_does_not_train_changes_nothing_over_a_lossy_downlink(study):
    """Deltas are taken against the model as decoded: against the version itself they would hold the rounding error."""
    fed = study(rounds=2, trainer=SFT.replace("0.01", "0"), extra='[[downlink]]\nuse = "int8"\n')
    run = fed.run("run", "--set", "run.keep_versions=9")
    first, last = fed.tensors(run / "versions" / "epoch-000000.hansa"), fed.tensors(newest(run))
    assert all(numpy.array_equal(first[name], last[name]) for name in first | last)


@pytest.mark.parametrize("rule", ['use = "median"', 'use = "krum"\nf = 0\nm = 2',
                                  'use = "bucketing"\nsize = 2\ninner = { use = "median" }',
                                  'use = "bucketing"\nsize = 2\ninner = { use = "krum", f = 0 }'])
def test_rules_that_look_at_single_updates_run_over_processes(study, rule):
    run = study(aggregator=rule, rounds=2, silos=6 if "bucketing" in rule else 3).both()  # krum takes three buckets and more
    assert learnt(run)
    assert [event["event"] for event in events(run)].count("round_released") == 2
    used = {plugin["id"].removeprefix("org_hansa_") for plugin in json.loads((run / "run.json").read_text())["plugins"] if plugin["used"]}
    assert set(re.findall('use = "([a-z]+)"', rule)) <= used  # the one inside too

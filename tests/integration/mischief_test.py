"""Plugins that misbehave while a run goes on: what is said, what ends, what is left, and how to go on."""

import re

import pytest
from federation import WORDS, events, wait_for
from study import newest


def mischievous(study, build_dir, what, rounds=3, **options):
    body = f'use = "mischief"\nwhat = "{what}"\nweighting = "uniform"'
    fed = study(rounds=rounds, aggregator=body, **options)
    for config in (fed.config, fed.simulation):
        config.write_text(f'plugin_path = ["{build_dir / "test_plugins"}"]\n' + config.read_text())
    return fed


def run_to_its_end(fed, *arguments, resume=False):
    runner = fed.start("run", *arguments, resume=resume)
    output, _ = runner.communicate(timeout=120)
    return runner.returncode, output


@pytest.mark.parametrize("what, sentence", [
    ("throw", "the moon is full"), ("throw_number", "not a std::exception"), ("not_finite", "is not finite"),
    ("shape", "not fp32 of its shape"), ("dtype", "not fp32 of its shape"), ("forget", "put nothing for")])
def test_a_rule_that_fails_is_named_and_another_goes_on_from_the_last_round(study, build_dir, what, sentence):
    fed = mischievous(study, build_dir, what)
    code, output = run_to_its_end(fed)
    assert code == 1
    told = re.search(r"error: round 2 is given up: .*", output).group()
    assert sentence in told and ("mischief 0.1.0" in told or "aggregat" in told) and "model.layers.0" in told, told
    run = fed.folder / "run"
    assert newest(run).name == "epoch-000001.hansa"
    code, output = run_to_its_end(fed, "--set", "aggregator.what=nothing", resume=True)
    assert code == 0, output
    told = [event["event"] for event in events(run)]
    assert told.count("round_released") == 3 and told.count("changed") == told.count("run_finished") == 1


def test_a_crash_ends_the_process_with_its_name_and_the_run_goes_on_with_another_plugin(study, build_dir):
    fed = mischievous(study, build_dir, "crash")
    code, output = run_to_its_end(fed)
    assert code == 70 and "a bad memory access in aggregator mischief 0.1.0, reduce, round 2, tensor model.layers.0" in output, output
    assert "--set aggregator.use=" in output and "--without-node" in output
    code, output = run_to_its_end(fed, "--set", "aggregator.use=fedavg", resume=True)
    assert code == 1 and "unknown key `what`" in output, output  # what is left of the old one is named before anything runs
    config = fed.folder / "run" / "config.toml"
    config.write_text(re.sub(r'(?m)^(what|round) = .*\n', "", config.read_text()))
    code, output = run_to_its_end(fed, "--set", "aggregator.use=fedavg", resume=True)
    assert code == 0, output
    assert newest(fed.folder / "run").name == "epoch-000003.hansa"
    assert (fed.folder / "run" / "config.before.toml").exists()


def test_a_call_without_end_is_asked_to_stop_and_then_ends_the_process(study, build_dir):
    fed = mischievous(study, build_dir, "hang")
    limits = ["--set", "run.call_limit_seconds=0.5", "--set", "run.call_grace_seconds=0.5"]
    code, output = run_to_its_end(fed, *limits)
    assert code == 71 and "mischief 0.1.0 in reduce, round 2" in output and "has not come back" in output, output
    code, output = run_to_its_end(fed, "--set", "aggregator.what=nothing", resume=True)
    assert code == 0, output


def test_a_long_call_that_listens_is_only_a_failed_attempt(study, build_dir):
    fed = mischievous(study, build_dir, "linger")
    code, output = run_to_its_end(fed, "--set", "run.call_limit_seconds=0.3", "--set", "run.call_grace_seconds=60")
    assert code == 1 and "cancelled, as I was asked" in output, output


def test_a_run_goes_on_without_a_node(study, build_dir):
    fed = mischievous(study, build_dir, "throw")
    code, _ = run_to_its_end(fed)
    assert code == 1
    code, output = run_to_its_end(fed, "--without-node", "nobody", resume=True)
    assert code == 1 and "has no node 'nobody'" in output
    code, output = run_to_its_end(fed, "--without-node", "pl", "--set", "aggregator.what=nothing", resume=True)
    assert code == 0, output
    run = fed.folder / "run"
    rows = (run / "metrics.csv").read_text().splitlines()
    assert [row for row in rows if row.startswith("1,pl,")] and not [row for row in rows if row.startswith("3,pl,")]
    assert set(WORDS) - {"pl"} == {row.split(",")[1] for row in rows if row.startswith("3,") and row.split(",")[1] in WORDS}


def test_the_other_pipeline_is_refused_where_nobody_asked_for_it(study, hansa):
    fed = study(rounds=2)
    fed.run("run")
    config = fed.folder / "run" / "config.toml"
    config.write_text(config.read_text().replace("steps = 2", "steps = 3"))
    done = hansa("coordinator", config, "--run-dir", fed.folder / "run", "--resume")
    assert done.returncode == 1 and "--changed" in done.stderr


def test_another_adapter_cannot_go_on_from_what_stands(study):
    fed = study(rounds=2)
    run = fed.run("run")
    code, output = run_to_its_end(fed, "--set", "adapter.r=8", resume=True)
    assert code == 1 and "cannot go on from" in output and "shape" in output, output
    assert newest(run).name == "epoch-000002.hansa"

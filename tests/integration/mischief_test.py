"""Plugins that misbehave while a run goes on: what is said, what ends, what is left, and how to go on."""

import re
import subprocess

import pytest
from federation import WORDS, events, tensor_bytes
from study import newest


def with_plugins(fed, build_dir):
    for config in (fed.config, fed.simulation):
        config.write_text(f'plugin_path = ["{build_dir / "test_plugins"}"]\n' + config.read_text())
    return fed


def mischievous(study, build_dir, what, rounds=3, rule="", **options):
    body = f'use = "mischief"\nwhat = "{what}"\nweighting = "uniform"\n{rule}'
    return with_plugins(study(rounds=rounds, aggregator=body, **options), build_dir)


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
    assert "aggregator mischief 0.1.0 failed in reduce, round 2, tensor model.layers.0" in told and sentence in told, told
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
    config.write_text(re.sub(r'(?m)^(what|round|attempts|personal) = .*\n', "", config.read_text()))
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


# ---- on a node: its contribution is dropped, and the others go on

QUORUM = 'use = "sync"\nmin_cohort = 2\nmin_fraction = 0'
WHO = r", node [0-9a-f]{16}"


def sick(study, build_dir, rounds=3, **sections):
    return with_plugins(study(rounds=rounds, round_policy=QUORUM, **sections), build_dir)


def sick_codec(study, build_dir, what, node="pl", **sections):
    return sick(study, build_dir, extra=f'[[codec]]\nuse = "mischief"\nwhat = "{what}"\nnode = "{node}"\n', **sections)


def sick_trainer(study, build_dir, what):
    return sick(study, build_dir, trainer=f'use = "mischief"\nwhat = "{what}"\nnode = "pl"\nround = 2')


def cohorts(run):
    """How many updates each round was folded from."""
    rows = [row.split(",") for row in (run / "metrics.csv").read_text().splitlines()]
    return [float(row[3]) for row in rows if row[1] == "" and row[2] == "cohort"]


@pytest.mark.parametrize("what, sentence", [
    ("throw", "the moon is full"), ("throw_number", "not a std::exception"), ("shape", r"a part is f32 \[1, 7\] where f32 \[")])
def test_a_codec_that_fails_on_one_node_costs_that_nodes_contribution_only(study, build_dir, what, sentence):
    fed = sick_codec(study, build_dir, what)
    code, output = run_to_its_end(fed)
    assert code == 0, output
    run = fed.folder / "run"
    told = r"compressor mischief 0\.1\.0 failed in encode, round 2" + WHO + r", tensor model\.layers\.0\S*: .*" + sentence
    assert re.search(r"pl gives up its work in round 2: " + told, output), output
    assert re.search(told, (run / "logs" / "pl.log").read_text())
    assert cohorts(run) == [2, 2, 2]
    reasons = [event["reason"] for event in events(run) if event["event"] == "work_abandoned"]
    assert len(reasons) == 3 and "round 3" in reasons[2]


@pytest.mark.parametrize("what, sentence, tensor", [
    ("throw", "the moon is full", ""), ("throw_number", "not a std::exception", ""),
    ("not_finite", "not finite", r", tensor model\.layers\.0"),
    ("shape", "does not have the layout of the round", ", tensor pulse"),
    ("dtype", "does not have the layout of the round", ", tensor pulse")])
def test_a_trainer_that_fails_in_one_round_is_left_out_of_that_round_only(study, build_dir, what, sentence, tensor):
    fed = sick_trainer(study, build_dir, what)
    code, output = run_to_its_end(fed)
    assert code == 0, output
    told = r"pl gives up its work in round 2: trainer mischief 0\.1\.0 failed in train, round 2" + WHO + tensor
    assert re.search(told + r".*" + sentence, output), output
    assert cohorts(fed.folder / "run") == [3, 2, 3]


def test_what_fails_in_a_private_run_is_told_by_the_node_alone(study, build_dir):
    fed = sick_codec(study, build_dir, "throw", privacy='use = "gaussian"\nclipping_norm = 0.5\nnoise_multiplier = 2.0')
    code, output = run_to_its_end(fed)
    assert code == 0, output
    run = fed.folder / "run"
    assert "a node gives up its work in round 2; its own log says why" in output and "the moon" not in output, output
    assert "the moon is full" in (run / "logs" / "pl.log").read_text()
    assert "the moon" not in (run / "events.jsonl").read_text()


@pytest.mark.parametrize("kind, place", [
    ("codec", r"compressor mischief 0\.1\.0, encode, round 1" + WHO + r", tensor model\.layers\.0"),
    ("trainer", r"trainer mischief 0\.1\.0, train, round 2" + WHO)], ids=["codec", "trainer"])
def test_a_crash_on_a_node_ends_the_run_with_its_code_and_it_goes_on_without_that_node(study, build_dir, kind, place):
    fed = sick_codec(study, build_dir, "crash") if kind == "codec" else sick_trainer(study, build_dir, "crash")
    code, output = run_to_its_end(fed)
    assert code == 70 and re.search(r"node 'pl' ended with code 70, a bad memory access in " + place, output), output
    assert "--without-node" in output
    code, output = run_to_its_end(fed, "--without-node", "pl", resume=True)
    assert code == 0, output
    assert newest(fed.folder / "run").name == "epoch-000003.hansa"


NODE_LIMITS = ["--set", "run.node_call_limit_seconds=0.5", "--set", "run.node_call_grace_seconds=0.5"]


@pytest.mark.parametrize("kind, place", [
    ("codec", r"compressor mischief 0\.1\.0 in encode, round 1" + WHO + r", tensor model\.layers\.0"),
    ("trainer", r"trainer mischief 0\.1\.0 in train, round 2" + WHO)], ids=["codec", "trainer"])
def test_a_call_without_end_on_a_node_ends_its_process_and_the_run_with_the_code_that_says_so(study, build_dir, kind, place):
    fed = sick_codec(study, build_dir, "hang") if kind == "codec" else sick_trainer(study, build_dir, "hang")
    code, output = run_to_its_end(fed, *NODE_LIMITS)
    assert code == 71 and re.search(r"node 'pl' ended with code 71, " + place + r"\S* has not come back", output), output
    code, output = run_to_its_end(fed, "--set", "run.node_call_limit_seconds=600", "--without-node", "pl", resume=True)
    assert code == 0, output


def test_a_trainer_that_listens_gives_its_work_up_in_time_and_the_round_goes_on(study, build_dir):
    fed = sick_trainer(study, build_dir, "linger")
    code, output = run_to_its_end(fed, *NODE_LIMITS[:2], "--set", "run.node_call_grace_seconds=60")
    assert code == 0 and "cancelled, as I was asked" in output, output
    assert cohorts(fed.folder / "run") == [3, 2, 3]


def test_a_call_without_end_in_a_simulation_ends_it_too(study, build_dir):
    fed = sick_codec(study, build_dir, "hang", node="")
    done = subprocess.run([fed.program, "run", str(fed.simulation), "--run-dir", str(fed.folder / "simulated"), *NODE_LIMITS],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 71 and "compressor mischief 0.1.0 in encode, round 1" in done.stderr, done.stderr


# ---- on the coordinator, outside the fold

@pytest.mark.parametrize("sections, place", [
    ({"selector": 'use = "mischief"\nwhat = "throw"'}, "selector mischief 0.1.0 failed in choose, round 2"),
    ({"privacy": 'use = "mischief"\nwhen = "clip_bound"'}, "privacy mischief 0.1.0 failed in name its clip bound, round 2"),
    ({"privacy": 'use = "mischief"\nwhen = "event"'}, "privacy mischief 0.1.0 failed in event, round 2"),
    ({"privacy": 'use = "mischief"\nwhen = "begin_release"'}, "privacy mischief 0.1.0 failed in begin, round 2"),
    ({"aggregator": 'use = "mischief"\nwhat = "exchange"\nweighting = "uniform"'}, "aggregator mischief 0.1.0 failed in exchange, round 2")],
    ids=["choose", "clip_bound", "event", "begin", "exchange"])
def test_what_fails_before_a_round_is_open_costs_attempts_and_then_the_run_which_goes_on_when_it_is_mended(
        study, build_dir, sections, place):
    fed = with_plugins(study(rounds=3, **sections), build_dir)
    code, output = run_to_its_end(fed)
    run = fed.folder / "run"
    assert code == 1 and output.count(f"error: round 2 is given up: {place}: the moon is full") == 3, output
    assert "the run cannot go on: round 2 failed 3 times" in output and "resume" in output
    assert [event["attempt"] for event in events(run) if event["event"] == "round_aborted"] == [1, 2, 3]
    assert newest(run).name == "epoch-000001.hansa"
    kind = next(iter(sections))
    mended = f"{kind}.when=never" if kind == "privacy" else f"{kind}.what=nothing"
    code, output = run_to_its_end(fed, "--set", mended, resume=True)
    assert code == 0, output
    assert newest(run).name == "epoch-000003.hansa"
    released = [event for event in events(run) if event["event"] == "round_released"]
    assert [(event["round"], event["attempt"]) for event in released] == [(1, 1), (2, 4), (3, 1)]


def test_a_round_policy_that_fails_gives_the_attempt_up(study, build_dir):
    fed = with_plugins(study(rounds=2, round_policy='use = "mischief"\nwhat = "throw"'), build_dir)
    code, output = run_to_its_end(fed)
    assert code == 1 and output.count("error: round 1 is given up: round_policy mischief 0.1.0 failed in decide, round 1") == 3, output
    code, output = run_to_its_end(fed, "--set", "round_policy.what=nothing", resume=True)
    assert code == 0, output


# ---- what nodes keep between rounds, when an attempt is given up

KEEPERS = {
    "topk": dict(extra='[[codec]]\nuse = "topk"\nfraction = 0.1\n[error_feedback]\ndecay = 0.9\n'),
    "personal part": dict(rule="personal = true"),
    "scaffold": dict(trainer='use = "scaffold"\nsteps = 2\nbatch = 2\nlearning_rate = 0.01\noptimizer = "sgd"'),
}


@pytest.mark.parametrize("keeper", KEEPERS)
@pytest.mark.parametrize("how", ["goes_on", "resumes"])
def test_what_nodes_keep_of_an_attempt_that_is_given_up_is_discarded_with_it(study, build_dir, keeper, how):
    options = KEEPERS[keeper]
    undisturbed = mischievous(study, build_dir, "nothing", **options)
    run = undisturbed.run("run")
    expected = {path.name: tensor_bytes(undisturbed.program, path) for path in (run / "versions").glob("*.hansa")}
    kept = {path.parent.name: path.read_bytes() for path in (run / "nodes").glob("*/state")}
    assert len(kept) == 3 and all(kept.values())

    fed = mischievous(study, build_dir, "throw", **options)
    if how == "goes_on":  # the same processes
        code, output = run_to_its_end(fed, "--set", "aggregator.attempts=1")
        assert code == 0 and output.count("the moon is full") == 1, output
    else:
        code, output = run_to_its_end(fed)
        assert code == 1 and list((fed.folder / "run" / "nodes").glob("*/pending-*")), output
        code, output = run_to_its_end(fed, "--set", "aggregator.what=nothing", resume=True)
        assert code == 0, output
    run = fed.folder / "run"
    found = {path.name: tensor_bytes(fed.program, path) for path in (run / "versions").glob("*.hansa")}
    assert found == expected
    assert {path.parent.name: path.read_bytes() for path in (run / "nodes").glob("*/state")} == kept


def test_a_set_of_the_coordinators_own_that_cannot_be_evaluated_is_missing_and_training_goes_on(study):
    fed = study(rounds=2, extra='[[evaluation.set]]\nname = "empty"\ndata = "empty.txt"\n[[evaluation.set]]\nname = "whole"\ndata = "de-heldout.txt"\n')
    (fed.folder / "empty.txt").write_text("")
    code, output = run_to_its_end(fed)
    assert re.search(r"evaluation set 'empty' after round 2 is not measured: data_source text \S+ failed in open: .*no text", output), output
    run = fed.folder / "run"
    assert "run_finished" in [event["event"] for event in events(run)] and newest(run).name == "epoch-000002.hansa"
    assert code == 1 and output.rstrip().endswith("no text in it"), output  # the report cannot measure it either, and says so
    assert [event["set"] for event in events(run) if event["event"] == "evaluation_failed"] == ["empty"]
    metrics = (run / "metrics.csv").read_text()
    assert "heldout_nats_per_byte.whole" in metrics and ".empty" not in metrics

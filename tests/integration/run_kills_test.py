"""SIGKILL of `hansa run` itself: of a simulation, of the parent of coordinator and nodes, of the end of a run. Whoever it started
ends with it, and --resume gives the bits of an undisturbed run."""

import json
import os
import random
import signal
import subprocess

import pytest
from federation import children, last_version, tensor_bytes, wait_for
from killing import CoordinatorKills, is_over, kill_after_stage, kill_if, until

REPORT = '[report]\nlocal_only = true\nsample_prompt = "der"\nsample_tokens = 5\n'


def test_a_simulation_killed_in_any_stage_goes_on_with_the_same_bits(federation, hansa):
    fed = federation(rounds=6)
    fed.run("undisturbed", config=fed.simulation)
    expected = tensor_bytes(hansa.program, last_version(fed.run_dir("undisturbed")))
    killer = CoordinatorKills(fed, "killed", random.Random(21), stages=["opened", "received", "closed", "evaluation"], process="run",
                              config=fed.simulation)
    for run_dir in killer.finished(8):
        assert tensor_bytes(hansa.program, last_version(run_dir)) == expected
    assert killer.kills >= 8


def test_coordinator_and_nodes_end_with_the_run_that_was_killed_and_it_goes_on_with_the_same_bits(federation, hansa):
    fed = federation(rounds=6)
    fed.run("undisturbed")
    expected = tensor_bytes(hansa.program, last_version(fed.run_dir("undisturbed")))
    dice, run_dir = random.Random(22), fed.run_dir("killed")
    for life, stage in enumerate(["opened", "closed", "evaluated"]):
        runner = fed.start("killed", resume=life > 0)
        started = []

        def the_run():
            started.extend(pid for pids in children(runner.pid).values() for pid in pids)
            return [runner.pid]

        assert kill_after_stage(runner, run_dir, stage, the_run, dice)
        runner.wait()
        assert len(started) == 4
        wait_for(lambda: all(is_over(pid) for pid in started), 20)
    fed.resume("killed")
    assert tensor_bytes(hansa.program, last_version(run_dir)) == expected


def is_training_alone(run_dir, runner):
    return bool(children(runner.pid).get("train-alone")) and not list((run_dir / "local").glob("*.hansa"))


def is_measuring(run_dir, runner):
    return len(list((run_dir / "local").glob("*.hansa"))) == 3 and not (run_dir / "summary.json").exists()


def is_exporting(run_dir, runner):
    return (run_dir / "adapter").exists() and not (run_dir / "summary.json").exists()


def is_plotting(run_dir, runner):
    return (run_dir / "summary.json").exists()


def test_the_end_of_a_run_killed_in_any_part_is_done_again(federation):
    fed = federation(rounds=2, extra=REPORT)
    fed.run("undisturbed")
    expected = json.loads((fed.run_dir("undisturbed") / "summary.json").read_text())
    run_dir = fed.run_dir("killed")
    for life, part in enumerate([is_training_alone, is_measuring, is_exporting, is_plotting]):
        runner = fed.start("killed", resume=life > 0)
        assert until(runner, lambda: part(run_dir, runner)), part.__name__
        baselines = children(runner.pid).get("train-alone", [])
        assert kill_if(runner.pid, lambda: True)
        runner.wait()
        wait_for(lambda: all(is_over(pid) for pid in baselines), 20)
    fed.resume("killed")
    found = json.loads((run_dir / "summary.json").read_text())
    for model, losses in expected["loss"].items():
        assert found["loss"][model] == pytest.approx(losses, rel=1e-6), model
    adapter = "adapter/adapter_model.safetensors"
    assert (run_dir / adapter).read_bytes() == (fed.run_dir("undisturbed") / adapter).read_bytes()
    assert (run_dir / "loss.svg").exists() and (run_dir / "report.txt").exists()


@pytest.mark.parametrize("command", ["coordinator", "initial-version"])
def test_a_child_whose_parent_died_before_it_could_ask_ends_at_once(federation, hansa, tmp_path, command):
    fed = federation(rounds=1)
    where = ["--run-dir", tmp_path / "run"] if command == "coordinator" else ["--out", tmp_path / "out.hansa"]
    done = subprocess.run([str(word) for word in (hansa.program, command, fed.config, *where, "--die-with-parent", 1 << 30)], timeout=60)
    assert done.returncode == -signal.SIGTERM
    assert os.listdir(tmp_path) == ["fed"]

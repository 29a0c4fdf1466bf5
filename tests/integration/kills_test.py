"""SIGKILL in every stage, at seeded moments: nothing is lost, nothing is done twice, the bits are those of an undisturbed run."""

import csv
import hashlib
import random

from federation import NOISE, a_moment, children, events, journal, kill, last_version, tensor_bytes, wait_for
from hollow import hollow_config

# Kinds of journal records: a stage is what follows one.
STAGES = ["opened", "received", "closed", "released", "evaluation", "evaluated", "evaluation_closed"]


def wait_for_stage(runner, run_dir, stage, dice, seen):
    """Until the journal has another record of that kind, and a random moment longer; False when the run ended before."""
    if wait_for(lambda: runner.poll() is not None or stage in [r["type"] for r in journal(run_dir)[seen:]]):
        a_moment(dice.choice([0, 0.001, 0.005, 0.02]) * dice.random())
    return runner.poll() is None


def resume_under_kills(federation, name, kills, dice, process="coordinator", check=lambda run_dir: None):
    """Kills the process once in each life of a run; yields the stages hit and the run directories that were finished."""
    hit, run_dir, runs = [], None, 0
    stages = dice.sample(STAGES * (1 + kills // len(STAGES)), k=len(STAGES) * (1 + kills // len(STAGES)))
    while len(hit) < kills or run_dir:
        resume = run_dir is not None
        if not resume:
            runs += 1
            run_dir = federation.run_dir(f"{name}-{runs}")
        seen = len(journal(run_dir))
        runner = federation.start(run_dir.name, resume=resume)
        stage = stages[len(hit) % len(stages)]
        killed = False
        if len(hit) < kills and wait_for_stage(runner, run_dir, stage, dice, seen):
            victims = children(runner.pid).get(process, [])
            killed = bool(victims) and kill(dice.choice(victims))
        output, _ = runner.communicate(timeout=120)
        check(run_dir)
        if killed and (runner.returncode != 0 or process == "node"):
            hit.append(stage)
        elif not killed and len(hit) < kills and runner.returncode == 0:  # it ended before this stage: another run, another stage
            stages.append(stages.pop(len(hit) % len(stages)))
        if runner.returncode == 0:
            yield stage, run_dir
            run_dir = None
        else:
            assert killed and "hansa run --resume" in output, output


def assert_written_once(run_dir):
    """Logs say each thing once, however often the round was begun again."""
    told = events(run_dir)
    assert [event["round"] for event in told if event["event"] == "round_released"] == [1, 2, 3, 4, 5, 6]
    assert [event["epoch"] for event in told if event["event"] == "evaluated"] == [0, 2, 4, 6]
    assert [event["event"] for event in told].count("run_finished") == 1
    with open(run_dir / "metrics.csv") as file:
        rows = [(row["round"], row["node"], row["metric"]) for row in csv.DictReader(file)]
    assert len(rows) == len(set(rows)), [row for row in rows if rows.count(row) > 1]


def test_a_coordinator_killed_in_any_stage_goes_on_with_the_same_bits(federation, hansa):
    fed = federation(rounds=6)
    fed.run("undisturbed")
    expected = tensor_bytes(hansa.program, last_version(fed.run_dir("undisturbed")))
    finished = list(resume_under_kills(fed, "killed", 16, random.Random(11)))
    assert finished
    for _, run_dir in finished:
        assert tensor_bytes(hansa.program, last_version(run_dir)) == expected
        assert_written_once(run_dir)


def test_nodes_killed_in_any_stage_are_started_again_and_give_the_same_bits(federation, hansa):
    fed = federation(rounds=6)
    fed.run("undisturbed")
    expected = tensor_bytes(hansa.program, last_version(fed.run_dir("undisturbed")))
    dice, kills, runs = random.Random(12), 0, 0
    while kills < 12:
        runs += 1
        run_dir = fed.run_dir(f"killed-{runs}")
        runner = fed.start(run_dir.name)
        for stage in dice.sample(STAGES, k=5):  # no more than the number of restarts that a node is allowed
            if wait_for_stage(runner, run_dir, stage, dice, len(journal(run_dir))):
                victims = children(runner.pid).get("node", [])
                kills += bool(victims) and kill(dice.choice(victims))
        output, _ = runner.communicate(timeout=120)
        assert runner.returncode == 0, output
        assert tensor_bytes(hansa.program, last_version(run_dir)) == expected


def test_no_kill_leads_to_a_second_release_that_was_not_charged_nor_to_another_draw(federation):
    poisson = '[selector]\nuse = "poisson"\nrate = 0.7\n'
    fed = federation(rounds=6, privacy=NOISE, extra=poisson)
    seen = {}

    def look(run_dir):  # every version that ever stood under its final name
        for version in (run_dir / "versions").glob("*.hansa"):
            seen.setdefault((run_dir.name, version.name), set()).add(hashlib.sha256(version.read_bytes()).hexdigest())

    finished = list(resume_under_kills(fed, "private", 8, random.Random(13), check=look))
    assert finished
    assert all(len(digests) == 1 for digests in seen.values()), seen
    for _, run_dir in finished:
        ledger = journal(run_dir, "ledger")
        assert [r["round"] for r in ledger if r["type"] == "charged"] == [1, 2, 3, 4, 5, 6]
        assert [r["round"] for r in ledger if r["type"] == "released"] == [1, 2, 3, 4, 5, 6]
        opened = [r["plan"]["round"] for r in journal(run_dir) if r["type"] == "opened"]
        assert opened == [1, 2, 3, 4, 5, 6]  # the cohort of a round is drawn once, whatever happens


def test_a_trainer_that_keeps_state_counts_each_applied_round_once(federation, hansa, build_dir, tmp_path):
    config = hollow_config(tmp_path / "counting", build_dir, rounds=6, trainer='use = "counting"', elements=20000)
    undisturbed = tmp_path / "undisturbed"
    assert hansa("run", config, "--run-dir", undisturbed).returncode == 0
    expected = tensor_bytes(hansa.program, last_version(undisturbed))
    fed = federation()
    fed.config = config
    stages = ["opened", "received", "closed", "released"]
    dice = random.Random(14)
    for turn in range(3):
        run_dir = fed.run_dir(f"counting-{turn}")
        for life in range(4):
            process = dice.choice(["coordinator", "node"])
            seen = len(journal(run_dir))
            runner = fed.start(run_dir.name, resume=life > 0)
            if life < 3 and wait_for_stage(runner, run_dir, dice.choice(stages), dice, seen):
                kill(dice.choice(children(runner.pid).get(process, [0]) or [0]))
            output, _ = runner.communicate(timeout=120)
            if runner.returncode == 0:
                break
        assert runner.returncode == 0, output
        assert tensor_bytes(hansa.program, last_version(run_dir)) == expected

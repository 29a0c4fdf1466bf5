"""SIGKILL at seeded moments of every stage: nothing is lost, nothing is done twice, the bits are those of an undisturbed run."""

import hashlib
import random
import time

from federation import CLIP, NOISE, children, kill, last_version, records, tensor_bytes, wait_for

STAGES = ("opened", "received", "closed", "released", "evaluation", "evaluated", "evaluation_closed")


def count(run_dir):
    return len(records(run_dir / "journal"))


def kinds(run_dir):
    return [next(iter(record.values())) if "kind" not in record else record["kind"] for record in records(run_dir / "journal")]


def kill_during(federation, name, process, dice, resume):
    """Starts or resumes the run and kills one process a random moment after the journal has grown a random bit."""
    run_dir = federation.run_dir(name)
    runner = federation.start(name, resume=resume)
    before = count(run_dir)
    grow = dice.randint(0, 9)
    wait_for(lambda: runner.poll() is not None or count(run_dir) >= before + grow and children(runner.pid).get(process))
    time.sleep(dice.random() * 0.08)  # anywhere in the stage, also inside a write
    victims = children(runner.pid).get(process, [])
    killed = bool(victims) and kill(dice.choice(victims))
    return runner, killed


def test_a_coordinator_killed_at_any_moment_goes_on_with_the_same_bits(federation, hansa):
    fed = federation(rounds=6)
    fed.run("undisturbed")
    expected = tensor_bytes(hansa.program, last_version(fed.run_dir("undisturbed")))
    dice = random.Random(11)
    kills, name, finished = 0, None, 0
    while kills < 16:
        resume = name is not None
        if not resume:
            name = f"killed-{kills}"
        runner, killed = kill_during(fed, name, "coordinator", dice, resume)
        output, _ = runner.communicate(timeout=120)
        if killed and runner.returncode != 0:
            kills += 1
            assert "hansa run --resume" in output
        elif runner.returncode == 0:  # the run ended first: check it and begin another
            assert tensor_bytes(hansa.program, last_version(fed.run_dir(name))) == expected
            name, finished = None, finished + 1
        else:
            raise AssertionError(output)
    if name:
        fed.resume(name)
        assert tensor_bytes(hansa.program, last_version(fed.run_dir(name))) == expected
        finished += 1
    assert finished > 0


def test_nodes_killed_at_any_moment_are_started_again_and_give_the_same_bits(federation, hansa):
    fed = federation(rounds=6)
    fed.run("undisturbed")
    expected = tensor_bytes(hansa.program, last_version(fed.run_dir("undisturbed")))
    dice = random.Random(12)
    kills, attempt = 0, 0
    while kills < 16:
        attempt += 1
        runner = fed.start(f"killed-{attempt}")
        run_dir = fed.run_dir(f"killed-{attempt}")
        for _ in range(4):  # fewer than the number of restarts that a node is allowed
            before, grow = count(run_dir), dice.randint(1, 6)
            wait_for(lambda: runner.poll() is not None or count(run_dir) >= before + grow)
            time.sleep(dice.random() * 0.08)
            victims = children(runner.pid).get("node", [])
            kills += bool(victims) and kill(dice.choice(victims))
        output, _ = runner.communicate(timeout=120)
        assert runner.returncode == 0, output
        assert tensor_bytes(hansa.program, last_version(run_dir)) == expected


def test_no_kill_leads_to_a_second_release_that_was_not_charged(federation):
    fed = federation(rounds=6, privacy=NOISE)
    dice = random.Random(13)
    run_dir = fed.run_dir("private")
    seen = {}

    def look():  # every version that ever stood under its final name
        for version in (run_dir / "versions").glob("*.hansa"):
            try:
                seen.setdefault(version.name, set()).add(hashlib.sha256(version.read_bytes()).hexdigest())
            except FileNotFoundError:
                pass  # superseded meanwhile

    kills = 0
    while True:
        runner, killed = kill_during(fed, "private", "coordinator", dice, resume=kills > 0 or run_dir.exists())
        output, _ = runner.communicate(timeout=120)
        look()
        kills += killed and runner.returncode != 0
        if runner.returncode == 0:
            break
        assert killed, output
    charged = [record for record in records(run_dir / "ledger") if "mechanism" in str(record)]
    assert kills > 0
    assert all(len(digests) == 1 for digests in seen.values()), seen
    assert len(charged) == 6  # one for each round: a repeated attempt of an unreleased round costs nothing more


def test_a_trainer_that_keeps_state_counts_each_applied_round_once(federation, hansa, build_dir, tmp_path):
    from hollow import hollow_config
    config = hollow_config(tmp_path / "counting", build_dir, rounds=6, trainer='use = "counting"', elements=100)
    undisturbed = tmp_path / "undisturbed"
    assert hansa("run", config, "--run-dir", undisturbed).returncode == 0
    fed = federation()
    fed.config = config
    dice = random.Random(14)
    name, kills = None, 0
    for turn in range(12):
        resume = name is not None
        name = name or f"counting-{turn}"
        runner, killed = kill_during(fed, name, dice.choice(["coordinator", "node"]), dice, resume)
        output, _ = runner.communicate(timeout=120)
        kills += killed
        if runner.returncode == 0:
            assert tensor_bytes(hansa.program, last_version(fed.run_dir(name))) == tensor_bytes(hansa.program, last_version(undisturbed))
            name = None
    assert kills > 3

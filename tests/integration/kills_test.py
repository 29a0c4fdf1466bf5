"""SIGKILL in every stage, at seeded moments: nothing is lost, nothing is done twice, the bits are those of an undisturbed run."""

import csv
import os
import random
from collections import Counter

from federation import children, events, last_version, tensor_bytes
from hollow import hollow_config
from killing import STAGES, CoordinatorKills, kill_after_stage, kill_if, until

COORDINATOR_KILLS, NODE_KILLS, NODE_STAGE_KILLS = 20, 12, 12  # with those of private_kills_test.py at least 30 of each


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
    killer = CoordinatorKills(fed, "killed", random.Random(11))
    for run_dir in killer.finished(COORDINATOR_KILLS):
        assert tensor_bytes(hansa.program, last_version(run_dir)) == expected
        assert_written_once(run_dir)
    assert killer.kills >= COORDINATOR_KILLS and set(killer.hit) == set(STAGES)


def test_nodes_killed_in_any_stage_are_started_again_and_give_the_same_bits(federation, hansa):
    fed = federation(rounds=12)
    fed.run("undisturbed")
    expected = tensor_bytes(hansa.program, last_version(fed.run_dir("undisturbed")))
    dice, stages, runs, kills = random.Random(12), [], 0, 0
    while kills < NODE_KILLS:
        runs += 1
        run_dir = fed.run_dir(f"killed-{runs}")
        runner, struck = fed.start(run_dir.name), True
        for _ in range(5):  # no more than the number of restarts that a node is allowed
            stages = stages or dice.sample(STAGES[:-1], k=len(STAGES) - 1)
            if struck := struck and kill_after_stage(runner, run_dir, stages[-1], lambda: some_of(runner, dice), dice):
                kills, _ = kills + 1, stages.pop()
        output, _ = runner.communicate(timeout=120)
        assert runner.returncode == 0, output
        assert tensor_bytes(hansa.program, last_version(run_dir)) == expected
    assert kills >= NODE_KILLS


def some_of(runner, dice):
    nodes = children(runner.pid).get("node", [])
    return [dice.choice(nodes)] if nodes else []


# ---- a node's own stages

class Whereabouts:
    """Where the one node of a run is, by what lies on the disk: its own version file, its mark, its spool file."""

    def __init__(self, run_dir, marks, upload_bytes):
        self.run_dir, self.marks, self.upload_bytes = run_dir, marks, upload_bytes

    def stage(self, pid):
        path = self.marks / str(pid)
        mark = path.read_text() if path.exists() else ""
        if mark in ("train", "encode"):
            return mark
        if mark == "encoded" and self.is_sending():
            return "upload"
        return "download" if mark != "trained" and self.is_receiving() else None

    def is_sending(self):
        return any(0 < size < self.upload_bytes for size in sizes_in(self.run_dir / "spool"))

    def is_receiving(self):
        """The newest version's beginning is there, but not its end."""
        held, newest = self.run_dir / "nodes" / "node-00" / "version.hansa", last_version(self.run_dir)
        if not held.exists() or held.stat().st_size == 0:
            return False
        with open(held, "rb") as ours, open(newest, "rb") as theirs:
            begun = ours.read(4096) == theirs.read(4096)
            theirs.seek(-4096, os.SEEK_END)
            ours.seek(theirs.tell())
            return begun and ours.read() != theirs.read()


def sizes_in(folder):
    for path in folder.glob("*"):
        try:
            yield path.stat().st_size
        except FileNotFoundError:
            pass


def test_a_node_killed_while_it_downloads_trains_encodes_and_uploads_gives_the_same_bits(build_dir, federation, hansa, tmp_path):
    marks, elements = tmp_path / "marks", 2_000_000
    trainer = f'use = "marked"\nmarks = "{marks}"'
    codec = f'[[codec]]\nuse = "marked_codec"\nmarks = "{marks}"\ntakes = "10ms"\n'
    config = hollow_config(tmp_path / "marked", build_dir, rounds=12, nodes=1, tensors=4, elements=elements, trainer=trainer, extra=codec)
    fed, undisturbed = federation(), tmp_path / "undisturbed"
    done = hansa("run", config, "--run-dir", undisturbed)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = tensor_bytes(hansa.program, last_version(undisturbed))

    wanted = ["download", "train", "encode", "upload"] * (NODE_STAGE_KILLS // 4)
    random.Random(15).shuffle(wanted)
    hits, runs = Counter(), 0
    while wanted and runs < 8:
        runs += 1
        run_dir = fed.run_dir(f"staged-{runs}")
        runner = fed.start(run_dir.name, config=config)
        where, node = Whereabouts(run_dir, marks, 4 * 4 * elements), lambda: (children(runner.pid).get("node") or [0])[0]  # noqa: E731
        for _ in range(5):  # no more than the number of restarts that a node is allowed
            if not wanted or not until(runner, lambda: (pid := node()) and where.stage(pid) == wanted[-1]):
                break
            pid = node()
            if kill_if(pid, lambda: where.stage(pid) == wanted[-1]):
                hits[wanted.pop()] += 1
        output, _ = runner.communicate(timeout=120)
        assert runner.returncode == 0, output
        assert tensor_bytes(hansa.program, last_version(run_dir)) == expected
    assert set(hits) == {"download", "train", "encode", "upload"} and sum(hits.values()) >= NODE_STAGE_KILLS, hits


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
            runner = fed.start(run_dir.name, resume=life > 0)
            if life < 3:
                kill_after_stage(runner, run_dir, dice.choice(stages),
                                 lambda: children(runner.pid).get(process, [])[:1], dice)
            output, _ = runner.communicate(timeout=120)
            if runner.returncode == 0:
                break
        assert runner.returncode == 0, output
        assert tensor_bytes(hansa.program, last_version(run_dir)) == expected

"""SIGKILL with noise on: no second release that was not charged, no second draw of a cohort, whoever is killed and whenever."""

import hashlib
import random

from federation import NOISE, children, journal, last_version
from killing import STAGES, CoordinatorKills, kill_after_stage

POISSON = '[selector]\nuse = "poisson"\nrate = 0.7\n'
ROUNDS = list(range(1, 7))
COORDINATOR_KILLS, NODE_KILLS, SIMULATION_KILLS = 10, 6, 8


class Versions:
    """Remembers every version that ever stood under its final name: there may be one of each."""

    def __init__(self):
        self.seen = {}

    def __call__(self, run_dir):
        for version in (run_dir / "versions").glob("*.hansa"):
            digests = self.seen.setdefault((run_dir.name, version.name), set())
            digests.add(hashlib.sha256(version.read_bytes()).hexdigest())
            assert len(digests) == 1, version


def assert_charged_once(run_dir):
    ledger = journal(run_dir, "ledger")
    assert [r["round"] for r in ledger if r["type"] == "charged"] == ROUNDS
    assert [r["round"] for r in ledger if r["type"] == "released"] == ROUNDS
    opened = [r["plan"]["round"] for r in journal(run_dir) if r["type"] == "opened"]
    assert opened == ROUNDS  # the cohort of a round is drawn once, whatever happens


def test_no_kill_of_a_coordinator_leads_to_an_uncharged_release_or_another_draw(federation):
    fed = federation(rounds=6, privacy=NOISE, extra=POISSON)
    stages = ["charged", "opened", "received", "closed"]
    killer = CoordinatorKills(fed, "private", random.Random(13), stages=stages, look=Versions())
    for run_dir in killer.finished(COORDINATOR_KILLS):
        assert_charged_once(run_dir)
    assert killer.kills >= COORDINATOR_KILLS and set(killer.hit) == set(stages)


def test_no_kill_of_a_simulation_leads_to_an_uncharged_release_or_another_draw(federation):
    fed = federation(rounds=6, privacy=NOISE, extra=POISSON)
    killer = CoordinatorKills(fed, "private", random.Random(16), stages=["charged", "opened", "closed"], process="run",
                              config=fed.simulation, look=Versions())
    for run_dir in killer.finished(SIMULATION_KILLS):
        assert_charged_once(run_dir)
    assert killer.kills >= SIMULATION_KILLS


def test_no_kill_of_a_node_leads_to_an_uncharged_release_or_another_draw(federation):
    fed, dice, look, kills, runs = federation(rounds=6, privacy=NOISE, extra=POISSON), random.Random(17), Versions(), 0, 0
    while kills < NODE_KILLS:
        runs += 1
        run_dir = fed.run_dir(f"nodes-{runs}")
        runner, struck = fed.start(run_dir.name), True
        for _ in range(5):
            nodes = lambda: children(runner.pid).get("node", [])[:1]  # noqa: E731
            struck = struck and kill_after_stage(runner, run_dir, dice.choice(STAGES[:-1]), nodes, dice)
            kills += struck
            look(run_dir)
        output, _ = runner.communicate(timeout=120)
        assert runner.returncode == 0, output
        look(run_dir)
        assert_charged_once(run_dir)
        assert last_version(run_dir).name == "epoch-000006.hansa"

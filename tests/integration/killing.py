"""SIGKILL where a test wants it: a process is stopped first, looked at, and killed only if it is still there. Stages are named by
the journal's records, and by the ledger's where a charge is not yet a release."""

import os
import signal
import time
from pathlib import Path

from federation import a_moment, children, journal, kill, wait_for

STAGES = ["opened", "received", "closed", "released", "evaluation", "evaluated", "evaluation_closed", "finished"]
PASSING = ["released", "evaluation_closed"]  # the next record follows in less than a millisecond, before any node can answer


def standing_at(run_dir):
    """What a coordinator is in the middle of, and how many records there are."""
    records, ledger = journal(run_dir), journal(run_dir, "ledger")
    stages = {record["type"] for record in records[-1:]} | {record["type"] for record in records[-2:-1]} & set(PASSING)
    if ledger and ledger[-1]["type"] == "charged" and "released" not in stages:
        stages = {"charged"}
    return stages, len(records) + len(ledger)


def state_of(pid):
    """One letter of proc(5), or None: gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return None


def is_over(pid):
    return state_of(pid) in (None, "Z", "X")


def kill_if(pid, there):
    """Kills the process if it is `there` once it stands still; else it goes on."""
    if pid <= 1 or is_over(pid):
        return False
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: state_of(pid) in (None, "T", "Z", "X"))
    if there():
        return kill(pid)
    os.kill(pid, signal.SIGCONT)
    return False


def until(runner, condition):
    """Polls closely, for moments that pass quickly; False when the runner ended before."""
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        if runner.poll() is not None:
            return False
        time.sleep(0.0002)
    return True


def processes_of(runner, process):
    return children(runner.pid).get(process, [])


class Grew:
    """Whether journal or ledger were written to since it was last asked: two calls of stat, cheap enough for close polling."""

    def __init__(self, run_dir):
        self.paths, self.last = [run_dir / "journal", run_dir / "ledger"], None

    def __call__(self):
        sizes = [path.stat().st_size if path.exists() else 0 for path in self.paths]
        grew, self.last = sizes != self.last, sizes
        return grew


def kill_in_stage(runner, run_dir, stage, victims):
    """Kills one of the processes that `victims()` gives, right after the coordinator entered the stage once more; False when the run
    ended before."""
    _, seen = standing_at(run_dir)
    grew = Grew(run_dir)

    def there():
        stages, records = standing_at(run_dir)
        return stage in stages and records > seen

    while until(runner, lambda: grew() and there()):
        if any(kill_if(pid, there) for pid in victims()):
            return True
    return False


def kill_after_stage(runner, run_dir, stage, victims, dice):
    """Kills at a random moment after the stage was entered once more."""
    seen = len(journal(run_dir)), len(journal(run_dir, "ledger"))

    def entered():
        return stage in [r["type"] for r in journal(run_dir)[seen[0]:] + journal(run_dir, "ledger")[seen[1]:]]

    if not wait_for(lambda: runner.poll() is not None or entered()) or runner.poll() is not None:
        return False
    a_moment(dice.choice([0, 0.001, 0.005, 0.02]) * dice.random())
    return any(kill(pid) for pid in victims())


class CoordinatorKills:
    """Runs that are killed once in each life and resumed, until enough kills are done and every stage was hit exactly once or
    more. finished(): the run directories that came to their end."""

    def __init__(self, federation, name, dice, stages=STAGES, process="coordinator", config=None, look=lambda run_dir: None):
        self.federation, self.name, self.dice, self.stages, self.process = federation, name, dice, stages, process
        self.config, self.look, self.kills, self.hit = config, look, 0, []

    def victims(self, runner):
        return [runner.pid] if self.process == "run" else processes_of(runner, self.process)

    def strike(self, runner, run_dir):
        missing = [stage for stage in self.stages if stage not in self.hit]
        if missing and self.kills % 2 == 0:
            stage = self.dice.choice(missing)
            struck = kill_in_stage(runner, run_dir, stage, lambda: self.victims(runner))
            self.hit += [stage] if struck else []
        else:
            struck = kill_after_stage(runner, run_dir, self.dice.choice(self.stages), lambda: self.victims(runner), self.dice)
        return struck

    def finished(self, kills):
        runs, most = 0, 3 * (kills + len(self.stages))
        while self.kills < kills or set(self.hit) != set(self.stages):
            runs += 1
            run_dir, returned = self.federation.run_dir(f"{self.name}-{runs}"), None
            while returned != 0:
                runner = self.federation.start(run_dir.name, resume=returned is not None, config=self.config)
                done = self.kills >= kills and set(self.hit) == set(self.stages)
                struck = not done and self.strike(runner, run_dir)
                self.kills += struck
                output, _ = runner.communicate(timeout=120)
                self.look(run_dir)
                returned = runner.returncode
                assert returned == 0 or struck, output
                assert self.process == "run" or returned == 0 or "hansa run --resume" in output, output
                most -= 1
                assert most > 0, f"not every stage was hit: {sorted(set(self.stages) - set(self.hit))}"
            yield run_dir

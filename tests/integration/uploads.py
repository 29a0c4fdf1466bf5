"""What nodes really sent. An upload goes when its round is released, so one node is stopped and the round waits for it."""

import os
import shutil
import signal

from federation import children, journal, wait_for


def uploads_of(fed, run, wanted, nodes=3):
    """For each of `wanted` a round for which it is true, and copies of all its uploads but one: [(round, [files])]. These rounds
    are released; then the run is killed."""
    runner = fed.start(run.name, "--set", "run.keep_versions=99")
    found = []
    try:
        wait_for(lambda: _rounds(run, "released") or runner.poll() is not None)  # all have joined
        for want in wanted:
            while True:
                number, copies = _with_one_held(fed, run, runner, nodes)
                wait_for(lambda: number in _rounds(run, "released") or runner.poll() is not None)
                assert runner.poll() is None, runner.communicate()[0]
                if want(number):
                    break
            found.append((number, copies))
    finally:
        os.killpg(runner.pid, signal.SIGKILL)  # start() made it a group of its own
        runner.communicate()
    return found


def _rounds(run, kind):
    return [record["round"] for record in journal(run) if record["type"] == kind]


def _with_one_held(fed, run, runner, nodes):
    processes = wait_for(lambda: children(runner.pid).get("node"))
    os.kill(processes[-1], signal.SIGSTOP)
    try:
        return wait_for(lambda: runner.poll() is not None or _copies(fed, run, nodes - 1))
    finally:
        os.kill(processes[-1], signal.SIGCONT)


def _copies(fed, run, count):
    """Those of the open round, once there are `count`; nothing when it went on meanwhile."""
    opened = [record["plan"]["round"] for record in journal(run) if record["type"] == "opened"]
    number = opened[-1] if opened else 0
    if _rounds(run, "received").count(number) != count:
        return None
    copies = []
    try:
        for i, file in enumerate(sorted((run / "spool").iterdir())):
            if file.stat().st_size:  # the stopped node may have begun one
                copies.append(fed.folder / f"round-{number}-upload-{i}")
                shutil.copy(file, copies[-1])
    except FileNotFoundError:
        return None
    return None if number in _rounds(run, "closed") or len(copies) != count else (number, copies)

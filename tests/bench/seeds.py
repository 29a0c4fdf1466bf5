"""What fedkseed's rebuild takes beside what `hansa check --explain` says of it: 2 M parameters, 512 candidate seeds, one core.

An export rebuilds the weights from the run's log; the same of a run of a single step, with nearly no seed to replay, is taken off.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS / "support"))
sys.path.insert(0, str(TESTS / "integration"))
from bench_results import PROGRAM, finish  # noqa: E402
from study import Study, newest  # noqa: E402

SEEDS, STEPS, WIDTH = 512, 600, 288


def study_of(folder, steps):
    folder.mkdir()
    fed = Study(folder, PROGRAM, rounds=1, adapter='use = "full"',
                trainer=f'use = "fedkseed"\nsteps = {steps}\nbatch = 1\nseeds = {SEEDS}\nlearning_rate = 1e-5',
                aggregator=f'use = "fedkseed"\nweighting = "uniform"\nseeds = {SEEDS}')
    config = folder / "base" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_size": WIDTH, "intermediate_size": 3 * WIDTH}))
    return fed


def export_seconds(fed):
    run, times = fed.run("run", config=fed.simulation), []
    for attempt in range(3):
        start = time.perf_counter()
        subprocess.run([fed.program, "export", "--run", run, "--merged", "--out", fed.folder / f"out-{attempt}"], check=True,
                       capture_output=True)
        times.append(time.perf_counter() - start)
    return run, min(times)


def main():
    folder = Path(tempfile.mkdtemp(prefix="hansa-bench-"))
    try:
        fed = study_of(folder / "many", STEPS)
        remark, = json.loads(fed.hansa("check", "--explain", "--json", fed.config))["cost"]["remarks"]
        seconds, parameters = re.search(r"in about ([0-9.e-]+) s .*: \d+ seeds x (\d+) parameters", remark).groups()
        run, many = export_seconds(fed)
        _, one = export_seconds(study_of(folder / "one", 1))
        log = newest(run, ".log").read_bytes()[-2 * SEEDS:]  # half-precision accumulators
        used = sum(log[2 * i:2 * i + 2] != b"\0\0" for i in range(SEEDS)) / SEEDS
        real = (many - one) / used
        finish("seeds", {"parameters": int(parameters), "seeds_used": used, "rebuild_s": real, "told_s": float(seconds),
                         "told_over_real": float(seconds) / real},
               {"told_over_real": {"at_least": 1 / 3, "at_most": 3}})
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

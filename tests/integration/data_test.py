"""`hansa data`: a collection is dealt to silos in every way, and what the silos are like is told as text, JSON and a plot."""

import json
import xml.etree.ElementTree as ElementTree

import pytest
from study import Study

TOPICS = ("bees", "law", "sea")


@pytest.fixture
def collection(tmp_path):
    lines = [{"id": i, "topic": TOPICS[i % 3 if i % 5 else 0], "user": f"u{i % 7}", "text": f"{TOPICS[i % 3]} word{i} " * (1 + i % 4)}
             for i in range(210)]
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def ids(folder):
    return [json.loads(line)["id"] for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def largest_share(node):
    return max(node["labels"].values()) / sum(node["labels"].values())


WAYS = {
    "iid": ["--by", "iid", "--nodes", "6", "--field", "topic"],
    "dirichlet": ["--by", "dirichlet", "--field", "topic", "--alpha", "0.1", "--nodes", "6"],
    "quantity": ["--by", "quantity", "--alpha", "0.3", "--nodes", "6"],
    "field": ["--by", "field", "--field", "user"],
    "shards": ["--by", "shards", "--field", "topic", "--shards", "1", "--nodes", "6"],
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_deals_every_record_once_and_keeps_its_promise(collection, hansa, tmp_path, way):
    def deal(out, seed="1"):
        done = hansa("data", "partition", collection, *WAYS[way], "--heldout", "0.2", "--seed", seed, "--out", out, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["nodes"]

    nodes = deal(tmp_path / "a")
    assert sorted(ids(tmp_path / "a" / "silos") + ids(tmp_path / "a" / "heldout")) == list(range(210))
    held_out = sum(node["heldout"] for node in nodes)
    assert 20 < held_out < 64
    sizes = [node["records"] + node["heldout"] for node in nodes]
    if way == "iid":
        assert sizes == [35] * 6 and max(map(largest_share, nodes)) < 0.7
    if way == "dirichlet":
        assert max(map(largest_share, nodes)) > 0.85
    if way == "quantity":
        assert max(sizes) > 2 * min(sizes)
    if way == "field":
        assert sorted(node["name"] for node in nodes) == [f"u{i}" for i in range(7)] and sizes == [30] * 7
    if way == "shards":
        assert sizes == [35] * 6 and all(len(node["labels"]) <= 2 for node in nodes)
    assert deal(tmp_path / "b") == nodes
    assert ids(tmp_path / "a" / "silos") == ids(tmp_path / "b" / "silos")
    if way != "field":
        deal(tmp_path / "c", seed="2")
        assert ids(tmp_path / "c" / "silos") != ids(tmp_path / "a" / "silos")


def test_silos_are_told_as_text_json_and_a_plot(collection, hansa, tmp_path):
    hansa("data", "partition", collection, *WAYS["dirichlet"], "--out", tmp_path / "study")
    silos, picture = tmp_path / "study" / "silos", tmp_path / "silos.svg"
    done = hansa("data", "inspect", silos, "--field", "topic", "--json")
    told = json.loads(done.stdout)
    assert told["unit"] == "words" and len(told["silos"]) == 6 and 0 < told["size_gini"] < 1
    for silo in told["silos"]:
        texts = [json.loads(line) for line in (silos / f"{silo['name']}.jsonl").read_text().splitlines()]
        lengths = sorted(len(text["text"].split()) + len(text["topic"].split()) + 1 for text in texts)
        assert silo["records"] == len(texts) and silo["words"] == sum(lengths) and silo["length"]["longest"] == lengths[-1]
        assert silo["labels"] == {topic: count for topic in TOPICS if (count := sum(t["topic"] == topic for t in texts))}
        assert 0 <= silo["divergence"] <= 1 and 0 <= silo["label_distance"] <= 1
    done = hansa("data", "inspect", silos, "--field", "topic", "--plot", picture)
    assert done.returncode == 0 and "label skew" in done.stdout and done.stdout.count("node") == 6, done.stdout
    drawn = " ".join(ElementTree.parse(picture).getroot().itertext())
    assert all(title in drawn for title in ("Sizes", "Lengths", "Skew of words", "Skew of labels", "node5")), drawn


def test_a_pipeline_s_silos_are_told_in_the_tokens_that_its_model_sees(tmp_path, hansa):
    (tmp_path / "study").mkdir()
    fed = Study(tmp_path / "study", hansa.program)
    told = json.loads(hansa("data", "inspect", fed.config, "--json").stdout)
    assert told["unit"] == "tokens" and [silo["name"] for silo in told["silos"]] == ["de", "it", "pl"]
    assert all(silo["records"] == 12 and silo["length"]["longest"] <= 32 for silo in told["silos"])


@pytest.mark.parametrize(("arguments", "words"), [
    (["--by", "dirichlet", "--nodes", "3"], "--field"),
    (["--by", "iid"], "--nodes"),
    (["--by", "dirichlet", "--field", "colour", "--nodes", "3"], "all.jsonl:1: there is no field \"colour\""),
    (["--by", "iid", "--nodes", "300"], "210 records"),
])
def test_a_partition_that_cannot_be_is_refused(collection, hansa, tmp_path, arguments, words):
    done = hansa("data", "partition", collection, *arguments, "--out", tmp_path / "out")
    assert done.returncode == 1 and words in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()

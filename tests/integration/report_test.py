"""What the report says at the end of a run: the table, the totals, privacy in plain words, samples, and the plot."""

import json
import re
import xml.etree.ElementTree as ElementTree
from math import log
from types import SimpleNamespace

import pytest
from federation import Federation

SILOS = ["de", "it", "pl"]
MODELS = ["base", "local-de", "local-it", "local-pl", "federated"]
REPORT = '[report]\nlocal_only = true\nsample_prompt = "der"\nsample_tokens = 5\n'


@pytest.fixture(scope="module")
def finished(hansa, tmp_path_factory):
    fed = Federation(tmp_path_factory.mktemp("report") / "fed", hansa.program, rounds=2, privacy='[privacy]\nuse = "clip"\nclipping_norm = 0.5\n',
                     extra=REPORT)
    shown = fed.run("run", config=fed.simulation).stdout
    directory = fed.run_dir("run")
    return SimpleNamespace(directory=directory, shown=shown, report=(directory / "report.txt").read_text(),
                           summary=json.loads((directory / "summary.json").read_text()))


def cells_of(line):
    """ "de  5.123 (7.391)  …": the row's name, and of each column nats and bits."""
    name, *_ = line.split()
    return name, [(float(nats), float(bits)) for nats, bits in re.findall(r"(\d+\.\d{3}) \((\d+\.\d{3})\)", line)]


def test_the_report_is_what_the_terminal_shows(finished):
    assert finished.report in finished.shown


def test_the_table_has_a_row_per_silo_and_a_column_per_model_in_nats_and_bits(finished):
    lines = finished.report.splitlines()
    header = next(line for line in lines if line.startswith("held-out loss"))
    assert header.split() == ["held-out", "loss", *MODELS]
    rows = dict(cells_of(line) for line in lines if re.search(r"\d\.\d{3} \(", line))
    assert list(rows) == [*SILOS, "average"]
    for silo in SILOS:
        assert [nats for nats, _ in rows[silo]] == [pytest.approx(finished.summary["loss"][model][silo], abs=5e-4) for model in MODELS]
    means = [sum(finished.summary["loss"][model].values()) / 3 for model in MODELS]
    assert [nats for nats, _ in rows["average"]] == [pytest.approx(mean, abs=5e-4) for mean in means]
    for row in rows.values():
        assert all(bits == pytest.approx(nats / log(2), abs=2e-3) for nats, bits in row)
    assert "nats per byte (bits per byte), lower is better" in lines


def test_the_totals_are_those_of_the_summary(finished):
    sent = re.search(r"^sent: +up ([\d.]+) (\w+), down ([\d.]+) (\w+) in all$", finished.report, re.MULTILINE)
    unit = {"B": 1, "KB": 1e3, "kB": 1e3, "MB": 1e6, "KiB": 1024, "MiB": 1024**2}
    for number, word, key in ((sent[1], sent[2], "bytes_up"), (sent[3], sent[4], "bytes_down")):
        assert float(number) * unit[word] == pytest.approx(finished.summary[key], rel=0.06)
    assert re.search(r"^time: +\S+.* in 2 rounds$", finished.report, re.MULTILINE)
    assert finished.summary["seconds"] > 0


def test_a_clip_without_noise_is_called_no_guarantee(finished):
    assert re.search(r"^privacy: +no guarantee: 'clip' bounds each silo's influence and adds no noise \(3 silos are too few", finished.report,
                     re.MULTILINE)
    assert finished.summary["privacy"].startswith("no guarantee") and finished.summary["epsilon"] is None


def test_the_report_shows_a_sample_before_and_after(finished):
    before, after = (re.search(rf"^sample {when}: +der\|(.*)$", finished.report, re.MULTILINE)[1] for when in ("before", "after"))
    assert before and after and before != after


def test_the_plot_is_a_picture_with_every_series(finished):
    root = ElementTree.parse(finished.directory / "loss.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = ["".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert set(SILOS) <= set(words) and "round" in words and "nats per byte" in words
    plots = [element for element in root.iter("{http://www.w3.org/2000/svg}g") if element.get("id", "").startswith("gnuplot_plot_")]
    assert len(plots) == 3 * len(SILOS)  # of each silo the federated loss over rounds, the base, the silo alone
    assert all(list(plot.iter("{http://www.w3.org/2000/svg}path")) for plot in plots)

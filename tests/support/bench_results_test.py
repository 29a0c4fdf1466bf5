"""Benchmarks must show a fall: no number is a miss, and results are this run's or none."""

import json
import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from bench_results import begin, finish  # noqa: E402


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("HANSA_BENCH_JSON", str(tmp_path / "bench" / "some.json"))
    return tmp_path / "bench" / "some.json"


def test_targets_are_missed_by_what_is_beyond_them_and_by_what_is_no_number(results):
    figures = {"fast": 1.0, "slow": 3.0, "few": 1.0, "none": math.nan, "nothing": math.nan, "endless": math.inf}
    targets = {"fast": {"at_most": 2}, "slow": {"at_most": 2}, "few": {"at_least": 2}, "none": {"at_most": 2},
               "nothing": {"at_least": 2}, "endless": {"at_least": 2}}
    assert finish("some", figures, targets) == ["few", "none", "nothing", "slow"]
    written = json.loads(results.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert written["figures"] == {"fast": 1.0, "slow": 3.0, "few": 1.0, "none": None, "nothing": None, "endless": None}
    assert written["missed"] == ["few", "none", "nothing", "slow"]


def test_a_benchmark_that_dies_leaves_no_results_of_an_earlier_run(results):
    begin("some")  # nothing is there yet
    finish("some", {"fast": 1.0}, {})
    assert results.exists()
    begin("some")  # and here it dies
    assert not results.exists()

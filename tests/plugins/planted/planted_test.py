"""The power of `hansa plugins check`: every plugin with a planted bug is caught by the check that should, right ones by none."""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

EXPECTED = json.loads(Path(__file__).with_name("expected.json").read_text())


@pytest.fixture(scope="session")
def found(hansa, build_dir):
    """The broken promises of each planted component: {"aggregator/leaks": {"growth": {...}}}."""
    files = sorted((build_dir / "planted").glob("*.so"))
    plugins = build_dir / "lib" / "hansa" / "plugins"

    def check(file):
        finished = hansa("plugins", "check", file, "--json", "--plugin-path", plugins, timeout=600)
        assert finished.returncode == 1, finished.stderr  # each file has bugs
        return json.loads(finished.stdout)["components"]

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        components = [component for of_file in pool.map(check, files) for component in of_file]
    return {component["component"]: {check["check"]: check for check in component["checks"] if check["outcome"] == "broken"}
            for component in components}


def test_every_planted_plugin_has_its_line_and_there_are_enough(found):
    assert set(found) == set(EXPECTED)
    assert sum(check is not None for check in EXPECTED.values()) >= 24
    assert {name.split("/")[0] for name, check in EXPECTED.items() if check is None} == {
        "adapter", "aggregator", "compressor", "data_source", "evaluator", "model", "privacy", "round_policy", "selector",
        "server_optimizer", "trainer"}


@pytest.mark.parametrize("component", [name for name, check in EXPECTED.items() if check is None])
def test_a_right_component_breaks_no_promise(found, component):
    assert found[component] == {}


@pytest.mark.parametrize("component", [name for name, check in EXPECTED.items() if check])
def test_a_planted_bug_is_caught_by_the_check_that_should(found, component):
    caught = found[component]
    assert EXPECTED[component] in caught, f"caught by {sorted(caught) or 'nothing'}"
    for check in caught.values():
        assert check["why"] and "seed" in check and check["input"], check


def test_the_smallest_input_that_shows_it_is_told_with_its_seed(found):
    assert found["adapter/changes_the_base"]["base"]["input"].startswith("the module ")
    assert found["model/wrong_slope"]["gradients"]["input"].startswith("a batch of ")
    assert found["trainer/moves_frozen"]["roles"]["input"].startswith("a silo of 1 document(s)")
    assert found["data_source/bytes_of_whole_lines"]["bytes"]["input"].endswith(", 1 document(s)")
    assert found["evaluator/evaluates_the_base"]["model"]["input"] == "a silo of 1 document(s)"
    assert found["privacy/flatters_the_rate"]["event"]["input"].endswith("a population of 100, sampling rate 0.05")
    nan = found["aggregator/returns_nan"]["finite"]
    assert nan["seed"] == 1 and nan["input"] == "1 client, tensors [3]"
    order = found["aggregator/depends_on_order"]["order"]
    assert order["input"].startswith("2 clients") and "off by" in order["why"]


def test_a_crash_costs_one_check_and_names_it(found):
    died = found["aggregator/dies_half_way"]["half-way"]
    assert "the process ended with code" in died["why"]
    assert died["seed"] == 1 and died["input"].startswith("1 client"), "what it was tried with when it died"
    assert "order" not in found["aggregator/dies_half_way"], "the checks after the crash were run"


def test_one_check_that_ends_its_process_is_told_once(hansa, build_dir):
    file = build_dir / "planted" / "hansa_planted_aggregators.so"
    finished = hansa("plugins", "check", file, "--component", "dies_half_way", "--only", "half-way")
    assert finished.returncode == 1 and finished.stdout.endswith("0 hold, 1 broken, 0 not concerned\n")


def test_one_check_of_one_component_for_people(hansa, build_dir):
    file = build_dir / "planted" / "hansa_planted_aggregators.so"
    finished = hansa("plugins", "check", file, "--component", "returns_nan", "--only", "finite")
    assert finished.returncode == 1
    assert "BROKEN  finite" in finished.stdout and "seed 1, 1 client, tensors [3]" in finished.stdout
    assert finished.stdout.endswith("0 hold, 1 broken, 0 not concerned\n")


def test_wrong_usage_says_what_to_do(hansa, build_dir):
    file = build_dir / "planted" / "hansa_planted_aggregators.so"
    unknown = hansa("plugins", "check", file, "--component", "nobody")
    assert unknown.returncode == 2 and "no component is named 'nobody'" in unknown.stderr
    setting = hansa("plugins", "check", file, "--component", "fails_at_the_edge", "--set", "shar=0.5")
    assert setting.returncode == 1 and "did you mean `share`" in setting.stdout
    partner = hansa("plugins", "check", file, "--with", "adapter")
    assert partner.returncode == 2 and "--with kind=name" in partner.stderr


def test_a_folder_stands_for_the_plugins_in_it(hansa, build_dir, tmp_path):
    for part in ("aggregators", "rounds"):
        (tmp_path / f"{part}.so").symlink_to(build_dir / "planted" / f"hansa_planted_{part}.so")
    finished = hansa("plugins", "check", tmp_path, "--component", "right_mean", "--only", "order", "--json")
    report = json.loads(finished.stdout)
    assert finished.returncode == 0 and report["held"] == 1
    assert [component["component"] for component in report["components"]] == ["aggregator/right_mean"]
    (tmp_path / "empty").mkdir()
    assert "there is no plugin" in hansa("plugins", "check", tmp_path / "empty").stderr


def test_a_file_that_is_refused_is_not_checked(hansa, tmp_path):
    (tmp_path / "hansa_text.so").write_text("no library")
    finished = subprocess.run([hansa.program, "plugins", "check", tmp_path / "hansa_text.so"], capture_output=True, text=True)
    assert finished.returncode == 1 and "hansa_text.so" in finished.stderr

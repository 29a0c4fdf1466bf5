"""A plugin built from the frozen copy of version 1 alone is loaded by today's host, and trains with the others."""

import json
import subprocess
from pathlib import Path

import pytest
from federation import events, tensor_bytes
from study import Study, newest

SOURCE = Path(__file__).parent / "v1"
TAKEN_OVER = ("CMAKE_CXX_COMPILER", "CMAKE_CXX_COMPILER_LAUNCHER", "CMAKE_CXX_FLAGS", "CMAKE_BUILD_TYPE", "HANSA_LIBTORCH")
WHAT_TO_DO = """
today's host refuses or cannot build a plugin of version 1. An interface changed: undo that, or make a new revision and an adapter
for the old one. Only while version 1 is unreleased: tests/compatibility/refresh.py (see the README beside it)."""


@pytest.fixture(scope="module")
def plugins(build_dir, tmp_path_factory):
    """The folder with the plugin."""
    lines = (build_dir / "CMakeCache.txt").read_text().splitlines()
    cache = {line.split(":")[0]: line.split("=", 1)[1] for line in lines if "=" in line}
    build = tmp_path_factory.mktemp("v1")
    options = [f"-D{name}={cache[name]}" for name in TAKEN_OVER if cache.get(name)]
    for command in (["cmake", "-S", SOURCE, "-B", build, "-G", "Ninja", *options], ["cmake", "--build", build]):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr + WHAT_TO_DO
    return build / "lib" / "hansa" / "plugins"


def test_the_host_loads_a_plugin_built_from_the_headers_of_version_1(hansa, plugins):
    listed = json.loads(hansa("plugins", "list", "--json", "--plugin-path", plugins).stdout)
    file = next(file for file in listed["files"] if file["file"].startswith(str(plugins)))
    assert file["outcome"] == "loaded", file["why"] + WHAT_TO_DO
    assert sorted(file["components"]) == ["aggregator/old_sum", "compressor/old_turn"]
    described = hansa("plugins", "describe", "aggregator/old_sum", "--plugin-path", plugins).stdout
    assert "share: number, default 1.0, 0 to 1, in fraction" in described


def test_a_plugin_of_version_1_trains_with_todays_over_processes_and_in_simulation(hansa, plugins, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old = Study(tmp_path / "old", hansa.program, rounds=2, aggregator='use = "old_sum"\nweighting = "uniform"',
                extra='[[codec]]\nuse = "old_turn"\n[[codec]]\nuse = "zstd"\n')
    for config in (old.config, old.simulation):
        config.write_text(f'plugin_path = ["{plugins}"]\n' + config.read_text())
    run = old.both()
    assert [event["event"] for event in events(run)].count("round_released") == 2
    new = Study(tmp_path / "new", hansa.program, rounds=2).run("run")
    assert newest(run).name == newest(new).name
    assert tensor_bytes(hansa.program, newest(run)) == tensor_bytes(hansa.program, newest(new))

"""What a plugin author does: Hansa installed, a project generated for every kind, built with no source tree in sight, tested,
loaded, and used in a run."""

import json
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from federation import make_base, text_of
from installed import clean_environment

ROOT = Path(__file__).resolve().parent.parent.parent
KINDS = ["model", "adapter", "data_source", "trainer", "compressor", "privacy", "aggregator", "server_optimizer", "selector",
         "round_policy", "evaluator"]
MOST_CPU_SECONDS = 25  # to compile and link a generated plugin


def run(*command, **options):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600, env=clean_environment(), **options)


def fine(*command, **options):
    done = run(*command, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cpu_seconds(*command):
    """Of a command and all its children; its output where it fails."""
    child = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             env={**clean_environment(), "CCACHE_DISABLE": "1"})
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, output
    return usage.ru_utime + usage.ru_stime


@dataclass
class Project:
    folder: Path
    seconds: float = 0
    failure: str = ""

    @property
    def plugins(self):
        return self.folder / "build" / "lib" / "hansa" / "plugins"


def made(prefix, folder, kind):
    project = Project(folder)
    try:
        fine(prefix / "bin" / "hansa", "plugins", "new", kind, f"try_{kind}", "--dir", folder)
        fine("cmake", "-S", folder, "-B", folder / "build", "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}")
        project.seconds = cpu_seconds("cmake", "--build", folder / "build", "-j1", "--target", f"plugin_try_{kind}")
        cpu_seconds("cmake", "--build", folder / "build", "-j1")
    except AssertionError as failure:
        project.failure = str(failure)
    return project


@pytest.fixture(scope="module")
def projects(prefix, tmp_path_factory):
    folder = tmp_path_factory.mktemp("projects")
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return dict(zip(KINDS, pool.map(lambda kind: made(prefix, folder / kind, kind), KINDS)))


def test_the_kinds_are_these_and_their_templates_are_installed(prefix):
    kinds = json.loads(fine(prefix / "bin" / "hansa", "plugins", "kinds", "--json"))
    assert [kind["kind"] for kind in kinds] == KINDS
    for kind in kinds:
        assert Path(kind["template"]).is_relative_to(prefix) and Path(kind["template"], "CMakeLists.txt").exists()
        assert (prefix / "include" / kind["header"]).exists()
        assert kind["components"], f"no {kind['kind']} is installed"


@pytest.mark.parametrize("kind", KINDS)
def test_a_generated_plugin_builds_quickly_passes_its_tests_and_loads(prefix, projects, kind):
    project = projects[kind]
    assert not project.failure, project.failure
    assert project.seconds <= MOST_CPU_SECONDS
    fine("ctest", "--test-dir", project.folder / "build", "--output-on-failure")
    build = (project.folder / "build" / "build.ninja").read_text()
    for folder in ("sdk", "core", "cmake", "build"):
        assert f"{ROOT}/{folder}/" not in build, "the project reaches into the source tree"
    listed = json.loads(fine(prefix / "bin" / "hansa", "plugins", "list", "--json", "--plugin-path", project.plugins))
    mine = [file for file in listed["files"] if Path(file["file"]).is_relative_to(project.folder)]
    assert [file["outcome"] for file in mine] == ["loaded"]
    assert mine[0]["components"] == [f"{kind}/try_{kind}"]


def federation_of(folder, projects, kinds, sections):
    """A pipeline in which every section of `kinds` uses the generated plugin."""
    for language in ("de", "it", "pl"):
        (folder / "silos" / language).parent.mkdir(exist_ok=True)
        (folder / "silos" / f"{language}.txt").write_text(text_of(language, 12).replace("%\n", ""))
    names = {"data_source": "[data]", "compressor": "[[codec]]"}
    text = "plugin_path = " + json.dumps([str(projects[kind].plugins) for kind in kinds]) + "\n"
    text += "[run]\nrounds = 3\nseed = 5\n[simulation]\nnodes_from = \"silos\"\n[train]\nthreads = 1\n" + sections
    for kind in kinds:
        if kind != "model":
            text += f"{names.get(kind, f'[{kind}]')}\nuse = \"try_{kind}\"\n"
    (folder / "pipeline.toml").write_text(text)
    return folder / "pipeline.toml"



def test_the_generated_plugins_train_a_model_together(prefix, projects, tmp_path):
    make_base(tmp_path / "base")
    (tmp_path / "base" / "config.json").write_text(json.dumps({"model_type": "try_model", "vocab_size": 300}))
    kinds = [kind for kind in KINDS if kind not in ("adapter", "privacy")]
    config = federation_of(tmp_path, projects, kinds,
                           '[model]\nuse = "try_model"\npath = "base"\ninitialise = true\n[adapter]\nuse = "full"\n')
    fine(prefix / "bin" / "hansa", "run", config, "--run-dir", tmp_path / "run")


def test_a_generated_adapter_and_privacy_mechanism_run_with_the_built_in_plugins(prefix, projects, tmp_path):
    make_base(tmp_path / "base")
    (tmp_path / "base" / "config.json").write_text(json.dumps({
        "model_type": "gpt2", "vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}))
    config = federation_of(tmp_path, projects, ["adapter", "privacy"],
                           '[model]\nuse = "gpt2"\npath = "base"\ninitialise = true\n[trainer]\nuse = "sft"\nsteps = 2\nbatch = 2\n'
                           '[data]\nuse = "text"\nlength = 32\n[aggregator]\nuse = "fedavg"\nweighting = "uniform"\n'
                           '[selector]\nuse = "everyone"\n')
    fine(prefix / "bin" / "hansa", "run", config, "--run-dir", tmp_path / "run")


def test_a_missing_libtorch_is_said_with_what_to_do(prefix, projects, tmp_path):
    folder = projects["selector"].folder
    done = run("cmake", "-S", folder, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}", "-DHANSA_LIBTORCH=/nowhere")
    assert done.returncode != 0
    assert "HANSA_LIBTORCH='/nowhere' holds no LibTorch" in " ".join(done.stderr.split())


def test_a_component_that_does_not_exist_is_refused(prefix, projects, tmp_path):
    shutil.copytree(projects["selector"].folder, tmp_path / "project", ignore=shutil.ignore_patterns("build"))
    lists = tmp_path / "project" / "CMakeLists.txt"
    lists.write_text(lists.read_text().replace("CONFIG REQUIRED", "CONFIG REQUIRED COMPONENTS teleport"))
    done = run("cmake", "-S", tmp_path / "project", "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    assert done.returncode != 0 and "Hansa has no component 'teleport'" in " ".join(done.stderr.split())

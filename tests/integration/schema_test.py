"""`hansa schema` against taplo, the checker that editors use: what we ship is right by it, and what is broken is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.toml")) + sorted((ROOT / "tests" / "golden" / "rules").glob("*.toml"))


@pytest.fixture(scope="module")
def lint(hansa, build_dir, tmp_path_factory):
    schema = tmp_path_factory.mktemp("schema") / "pipeline.schema.json"
    made = hansa("schema", "--plugin-path", build_dir / "test_plugins")
    assert made.returncode == 0, made.stderr
    schema.write_text(made.stdout)

    def run(path):
        taplo = Path(sys.executable).parent / "taplo"
        return subprocess.run([taplo, "lint", "--no-auto-config", "--schema", f"file://{schema}", path], capture_output=True, text=True)

    return run


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_what_we_ship_is_right_by_the_schema(lint, path):
    done = lint(path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("setting, why", [
    ("[run]\nround = 3", "round"), ("[run]\nrounds = 0", "minimum"), ("[run]\nrounds = \"three\"", "three"),
    ("[plugins]\nrequire_signed = 1", ""), ("[plugins]\nkeys = \"release.pub\"", ""), ("[plugins]\ndigest = []", "digest"),
    ("[agregator]\nuse = \"fedavg\"", "agregator"), ("[privacy]\nuse = \"gausian\"", "gausian"),
    ("[server_optimizer]\nuse = \"sgd\"\nmomentum = 2", ""), ("[[codec]]\nuse = \"int8\"\nrounding = \"up\"", ""),
    ("[selector]\nuse = \"uniform\"\ncohort = 0", ""), ("[[node]]\nname = \"a\"", "data")])
def test_what_is_broken_is_refused_by_the_schema(lint, tmp_path, setting, why):
    sound = (ROOT / "tests" / "golden" / "rules" / "parts" / "ranks.toml").read_text()
    section = setting.split("]")[0].lstrip("[")
    head = "\n".join(part for part in sound.split("\n\n") if f"[{section}]" not in part or section == "node")
    broken = tmp_path / "broken.toml"
    broken.write_text(head + "\n" + setting + "\n")
    done = lint(broken)
    assert done.returncode != 0 and why in done.stderr, done.stderr

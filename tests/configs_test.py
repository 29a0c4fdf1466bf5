"""Every pipeline in configs/ is one that `hansa check` accepts once the files that it names are there."""

import re
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "apps" / "quickstart"))
import prepare  # noqa: E402
import topics  # noqa: E402

CONFIGS = sorted((ROOT / "configs").glob("*.toml"))


def topics_place(folder):
    """What topics.py prepares, with one text in each file."""
    for part in ("silos", "heldout"):
        (folder / part).mkdir(parents=True)
        for silo in range(topics.SILOS):
            (folder / part / f"node{silo}.jsonl").write_text('{"text": "A bee.", "topic": "science"}\n')
    (folder / "encoder").symlink_to(topics.encoder(), target_is_directory=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder laid out like the repository, with the quickstart's data and checkpoints without weights."""
    root = tmp_path_factory.mktemp("place")
    quickstart = root / ".hansa" / "quickstart"
    prepare.prepare(quickstart)
    for checkpoint in (quickstart / "base", root / "models" / "SmolLM2-135M"):
        shutil.copytree(quickstart / "base-config", checkpoint)
    topics_place(root / ".hansa" / "topics")
    (root / "my_data").mkdir()
    for name in ("first", "first_heldout", "second", "second_heldout"):
        (root / "my_data" / f"{name}.txt").write_text("One document.\n%\nAnother.\n")
    shutil.copytree(ROOT / "configs", root / "configs")
    return root


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_the_check_finds_nothing_wrong(config, place, hansa):
    checked = hansa("check", place / "configs" / config.name)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_missing_checkpoint_is_named_with_its_place(config, tmp_path, hansa):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    checked = hansa("check", tmp_path / "configs" / config.name)
    assert checked.returncode == 1
    if included := re.search('^include = "(.+)"', config.read_text(), re.MULTILINE):
        config = config.with_name(included[1])
    lines = config.read_text().split("\n")
    line = next(number for number, text in enumerate(lines, 1) if text.startswith("path = "))
    assert f"{config.name}:{line}:" in checked.stdout + checked.stderr

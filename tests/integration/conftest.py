import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # this folder's own modules, under importlib's mode too
from federation import CLIP, Federation  # noqa: E402
from installed import install  # noqa: E402
from processes import Operator  # noqa: E402
from study import Study  # noqa: E402


@pytest.fixture
def federation(tmp_path, hansa):
    def make(**options):
        return Federation(tmp_path / "fed", hansa.program, **{"privacy": CLIP, **options})

    return make


@pytest.fixture
def operator(tmp_path, hansa):
    made = Operator(hansa.program, tmp_path / "operator")
    yield made
    made.end()


@pytest.fixture(scope="session")
def prefix(build_dir, tmp_path_factory):
    """Where Hansa is installed, once for all who look at the installation."""
    return install(build_dir, tmp_path_factory.mktemp("install") / "hansa")


@pytest.fixture
def rogue(build_dir):
    return build_dir / "tests" / "integration" / "hansa_rogue"


@pytest.fixture(autouse=True)
def test_plugins(build_dir, monkeypatch):
    monkeypatch.setenv("HANSA_TEST_PLUGINS", str(build_dir / "test_plugins"))


@pytest.fixture
def study(tmp_path, hansa):
    def make(**options):
        folder = tmp_path / "study"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return Study(folder, hansa.program, **options)

    return make

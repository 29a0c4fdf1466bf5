import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # this folder's own modules, under importlib's mode too
from federation import CLIP, Federation  # noqa: E402


@pytest.fixture
def federation(tmp_path, hansa):
    def make(**options):
        return Federation(tmp_path / "fed", hansa.program, **{"privacy": CLIP, **options})

    return make

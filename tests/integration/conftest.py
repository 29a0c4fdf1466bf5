import pytest
from federation import CLIP, Federation


@pytest.fixture
def federation(tmp_path, hansa):
    def make(**options):
        return Federation(tmp_path / "fed", hansa.program, **{"privacy": CLIP, **options})

    return make

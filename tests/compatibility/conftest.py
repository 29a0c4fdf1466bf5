import sys
from pathlib import Path

# This folder's modules, and the small federations of the integration tests.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "integration")]

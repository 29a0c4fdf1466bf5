"""What every benchmark in tests/bench ends with: the figures on the terminal and in build/bench/NAME.json.

A target is a bound on one figure: {"check_s": {"at_most": 0.3}} or {"at_least": …}. Missing a target is no error of the
benchmark: `missed` names it, so that a fall is seen.
"""

import json
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("HANSA_BUILD_DIR", ROOT / "build" / "release"))
PROGRAM = BUILD / "apps" / "hansa" / "hansa"


def misses(value, bound):
    return value > bound.get("at_most", value) or value < bound.get("at_least", value)


def finish(name, figures, targets):
    """figures: {name: number}; targets: {name of a figure: bound}. Prints and writes them, returns the missed ones."""
    missed = sorted(figure for figure, bound in targets.items() if misses(figures[figure], bound))
    width = max(map(len, figures))
    for figure, value in figures.items():
        bound = "  ".join(f"{word.replace('_', ' ')} {limit:g}" for word, limit in targets.get(figure, {}).items())
        print(f"{figure:{width}}  {value:10.4g}  {bound}{'  MISSED' if figure in missed else ''}")
    default = ROOT / "build" / "bench" / f"{name}.json"
    out = Path(os.environ.get("HANSA_BENCH_JSON", default))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"figures": figures, "targets": targets, "missed": missed}, indent=2) + "\n")
    print(f"written: {out}")
    return missed

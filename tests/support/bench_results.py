"""What every benchmark in tests/bench begins and ends with: the figures on the terminal and in build/bench/NAME.json.

A target is a bound on one figure: {"check_s": {"at_most": 0.3}} or {"at_least": …}. Missing a target is no error of the
benchmark: `missed` names it, so that a fall is seen. A figure that is no number misses every target.
"""

import json
import math
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("HANSA_BUILD_DIR", ROOT / "build" / "release"))
PROGRAM = BUILD / "apps" / "hansa" / "hansa"


def misses(value, bound):
    return not (value <= bound.get("at_most", math.inf) and value >= bound.get("at_least", -math.inf))


def results_of(name):
    return Path(os.environ.get("HANSA_BENCH_JSON", ROOT / "build" / "bench" / f"{name}.json"))


def begin(name):
    """The last run's results go: a benchmark that dies must not leave them as its own."""
    results_of(name).unlink(missing_ok=True)


def finish(name, figures, targets):
    """figures: {name: number}; targets: {name of a figure: bound}. Prints and writes them, returns the missed ones."""
    missed = sorted(figure for figure, bound in targets.items() if misses(figures[figure], bound))
    width = max(map(len, figures))
    for figure, value in figures.items():
        bound = "  ".join(f"{word.replace('_', ' ')} {limit:g}" for word, limit in targets.get(figure, {}).items())
        print(f"{figure:{width}}  {value:10.4g}  {bound}{'  MISSED' if figure in missed else ''}")
    numbers = {figure: value if math.isfinite(value) else None for figure, value in figures.items()}  # JSON has no NaN
    out = results_of(name)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"figures": numbers, "targets": targets, "missed": missed}, indent=2) + "\n")
    print(f"written: {out}")
    return missed

"""How long commands take that do no work: `hansa check` and `hansa plugins list`, beyond LibTorch's own loading.

LibTorch's share is the time of a program that does nothing, with its library preloaded.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from bench_results import PROGRAM, ROOT, begin, finish  # noqa: E402

REPEATS = 9
# A pipeline whose every file is in the repository or in the quickstart's prepared data.
CONFIG = ROOT / "configs" / "quickstart_base.toml"


def seconds(*command, **environment):
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL, check=True,
                       env={**os.environ, **environment})
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    begin("start")
    subprocess.run([sys.executable, ROOT / "apps" / "quickstart" / "prepare.py", "--out", ROOT / ".hansa" / "quickstart"],
                   check=True, stdout=subprocess.DEVNULL)
    library = Path(os.environ["HANSA_LIBTORCH"]) / "lib" / "libtorch_cpu.so"
    libtorch = seconds("/bin/true", LD_PRELOAD=str(library)) - seconds("/bin/true")
    check = seconds(PROGRAM, "check", CONFIG)
    plugins = seconds(PROGRAM, "plugins", "list")
    finish("start", {"libtorch_s": libtorch, "check_beyond_libtorch_s": check - libtorch,
                     "plugins_list_beyond_libtorch_s": plugins - libtorch},
           {"check_beyond_libtorch_s": {"at_most": 0.3}, "plugins_list_beyond_libtorch_s": {"at_most": 0.3}})


if __name__ == "__main__":
    main()

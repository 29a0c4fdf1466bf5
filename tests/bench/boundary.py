"""What the plugin boundary costs: a guarded call, reading the notes of 100 plugins, loading all built-in ones."""
# needs: hansa_boundary_bench

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from bench_results import BUILD, begin, finish  # noqa: E402


def main():
    begin("boundary")
    program = BUILD / "core" / "plugin_host" / "hansa_boundary_bench"
    text = subprocess.run([program, BUILD / "lib" / "hansa" / "plugins", "fedavg"], check=True, capture_output=True, text=True).stdout
    figures = {name: float(value) for name, value in (line.split() for line in text.splitlines())}
    figures["call_overhead_us"] = figures["guarded_call_us"] - figures["direct_call_us"]
    finish("boundary", figures, {"call_overhead_us": {"at_most": 1}, "notes_of_100_s": {"at_most": 0.030},
                                 "load_all_s": {"at_most": 0.100}})


if __name__ == "__main__":
    main()

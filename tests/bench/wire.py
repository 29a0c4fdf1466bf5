"""The wire alone: two clients pull and push 537 MB each over loopback; the floor of a round."""
# needs: hansa_wire_bench

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
from bench_results import BUILD, begin, finish  # noqa: E402


def main():
    begin("wire")
    program = BUILD / "core" / "wire" / "hansa_wire_bench"
    text = subprocess.run([program, *sys.argv[1:]], check=True, capture_output=True, text=True).stdout
    print(text, end="")
    found = re.search(r"down ([\d.]+) s .* up ([\d.]+) s .* server \+([\d.]+) MiB, longest heartbeat gap (\d+) ms", text)
    down, up, memory, gap = map(float, found.groups())
    # The coordinator's memory bound of the round benchmark holds for its transport alone all the more.
    finish("wire", {"down_s": down, "up_s": up, "server_mib": memory, "heartbeat_gap_ms": gap},
           {"server_mib": {"at_most": 143}})


if __name__ == "__main__":
    main()

"""What a round costs beside training: two nodes add a constant to 60 fp32 tensors of 5, 67 and 537 MB, over real processes.

No codec, durability "process", the new version served to the nodes each round, loopback TCP. Per size: the median time from
one round's opening to the next, the share of each stage, and each process's peak memory (anonymous + shared) above itself
before it has work (node 0 is seen idle; the others are taken to be as large then). Then 16 nodes with 67 MB, for the
coordinator's memory. Arguments: the sizes to run (5 67 537 16x67).
"""
# needs: plugin_hollow

import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))
from bench_results import BUILD, PROGRAM, begin, finish  # noqa: E402
from hollow import hollow_config  # noqa: E402

TENSORS = 60
WARM_UP = 2
ROUNDS = {5: 30, 67: 10, 537: 6}
TARGETS = {"5_mb_round_s": 0.030, "67_mb_round_s": 0.3, "537_mb_round_s": 2.5}
MEMORY_MB = 150
STAGES = ("download", "train", "encode", "upload", "screen", "fold")
# Of the same task, same kind of machine; from the measurement that set this benchmark's targets.
PEERS = "peers (measured elsewhere, same kind of machine): Flower 1.41 8.3, 8.2 and 30 s, server 6.2 GB at 537 MB; " \
        "FLARE 2.9 2.5, 5.5 and 12 s, server 5.3 GB"


def status_kb(pid):
    """Anonymous + shared memory, now."""
    fields = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        fields[name] = value
    return int(fields["RssAnon"].split()[0]) + int(fields["RssShmem"].split()[0])


class Watched:
    """A process whose memory is looked at every few milliseconds."""

    def __init__(self, command, log):
        self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self.idle_kb = self.peak_kb = 0
        self.idle_cpu_s = self.cpu_s = (0.0, 0.0)

    def look(self):
        try:
            self.peak_kb = max(self.peak_kb, status_kb(self.process.pid))
            stat = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            tick = os.sysconf("SC_CLK_TCK")
            self.cpu_s = (int(stat[11]) / tick, int(stat[12]) / tick)  # user, system
        except (OSError, KeyError, IndexError):
            pass  # it has ended

    def rest(self):
        """Waits until its memory stands still, and takes that as idle."""
        same, last = 0, None
        while same < 5:
            assert self.process.poll() is None, "it ended before it had work"
            now = status_kb(self.process.pid)
            same, last = (same + 1 if now == last else 0), now
            time.sleep(0.05)
        self.look()
        self.idle_kb = self.peak_kb = last
        self.idle_cpu_s = self.cpu_s

    def above_idle_mb(self):
        return (self.peak_kb - self.idle_kb) / 1000

    def idle_like(self, other):
        """For one that was never seen idle: it runs the same program on the same pipeline."""
        self.idle_kb = self.idle_kb or other.idle_kb

    def working_cpu_s(self):
        return tuple(now - idle for now, idle in zip(self.cpu_s, self.idle_cpu_s))


def wait_for_file(path, process):
    while not path.exists():
        assert process.poll() is None, "the coordinator ended before it listened"
        time.sleep(0.01)
    return path.read_text().strip()


def federate(folder, nodes, megabytes, rounds, **options):
    """One federation; returns its run directory and the processes, coordinator first."""
    config = hollow_config(folder, BUILD, rounds=rounds, nodes=nodes, tensors=TENSORS,
                           elements=int(megabytes * 1e6 / 4 / TENSORS), trainer='use = "constant"\nvalue = 0.001', **options)
    run_dir = folder / "run"
    with open(folder / "log.txt", "w") as log:
        coordinator = Watched([PROGRAM, "coordinator", config, "--run-dir", run_dir], log)
        address = wait_for_file(run_dir / "address", coordinator.process)
        coordinator.rest()
        processes = [coordinator]
        for i in range(nodes):
            name = f"node-{i:02}"
            processes.append(Watched([PROGRAM, "node", "--connect", address, "--name", name, "--data", folder / "silo.txt", "--model",
                                      folder / "model", "--state", folder / "state" / name, "--plugin-path", BUILD / "test_plugins"], log))
            if i == 0:
                processes[-1].rest()  # it has joined and waits for the others
        ended = threading.Event()

        def look():
            while not ended.wait(0.005):
                for process in processes:
                    process.look()

        watcher = threading.Thread(target=look)
        watcher.start()
        codes = [process.process.wait() for process in processes]
        ended.set()
        watcher.join()
    assert codes == [0] * len(codes), (folder / "log.txt").read_text()
    for node in processes[2:]:
        node.idle_like(processes[1])
    return run_dir, processes


def names_of(processes):
    return ["coordinator", *(f"node {i}" for i in range(len(processes) - 1))]


def print_memory(processes):
    for process, name in zip(processes, names_of(processes)):
        print(f"  {name}: idle {process.idle_kb / 1000:.0f} MB, peak {process.above_idle_mb():.0f} MB above")


def opened_at(run_dir):
    """When each round was opened and the last one released."""
    times = []
    for line in (run_dir / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] in ("round_opened", "run_finished"):
            times.append(datetime.fromisoformat(event["time"].replace("Z", "+00:00")).timestamp())
    return times


def stage_seconds(run_dir, first_round):
    """Median seconds per stage; where nodes work side by side, the slowest counts."""
    slowest = {}
    with open(run_dir / "metrics.csv", newline="") as file:
        for row in csv.DictReader(file):
            stage = row["metric"].removeprefix("seconds_")
            if stage in STAGES and row["metric"] != stage and int(row["round"]) >= first_round:
                key = stage, int(row["round"])
                slowest[key] = max(slowest.get(key, 0.0), float(row["value"]))
    return {stage: statistics.median([value for (name, _), value in slowest.items() if name == stage] or [0.0]) for stage in STAGES}


def measure(megabytes):
    folder = Path(tempfile.mkdtemp(prefix="hansa-bench-"))
    try:
        rounds = WARM_UP + ROUNDS[megabytes]
        run_dir, processes = federate(folder / "fed", 2, megabytes, rounds)
        times = opened_at(run_dir)
        spans = [after - before for before, after in zip(times[WARM_UP:], times[WARM_UP + 1:])]
        median = statistics.median(spans)
        stages = stage_seconds(run_dir, WARM_UP + 1)
    finally:
        shutil.rmtree(folder)
    stages["rest"] = max(0.0, median - sum(stages.values()))
    print(f"{megabytes} MB, 2 nodes: round {median:.4f} s (of {len(spans)}: {min(spans):.4f} to {max(spans):.4f}); " +
          ", ".join(f"{stage} {seconds:.4f} s ({100 * seconds / median:.0f} %)" for stage, seconds in stages.items()))
    for process, name in zip(processes[:2], names_of(processes)):  # node 1 did not stand idle
        user, system = (seconds / rounds for seconds in process.working_cpu_s())
        print(f"  {name}: CPU {user:.4f} s user + {system:.4f} s system a round")
    print_memory(processes)
    name = f"{megabytes}_mb"
    figures = {f"{name}_round_s": median, f"{name}_coordinator_mb": processes[0].above_idle_mb(),
               f"{name}_node_mb": max(node.above_idle_mb() for node in processes[1:])}
    coordinator, node = (sum(process.working_cpu_s()) / rounds for process in processes[:2])
    figures[f"{name}_cpu_s"] = coordinator + 2 * node  # of all processes in one round: what the time would be on one core
    figures.update({f"{name}_{stage}_s": seconds for stage, seconds in stages.items()})
    return figures


def measure_many():
    folder = Path(tempfile.mkdtemp(prefix="hansa-bench-"))
    try:
        _, processes = federate(folder / "fed", 16, 67, 3)
    finally:
        shutil.rmtree(folder)
    print("67 MB, 16 nodes")
    print_memory(processes)
    return {"16_nodes_67_mb_coordinator_mb": processes[0].above_idle_mb()}


def main():
    begin("round")
    wanted = sys.argv[1:] or ["5", "67", "537", "16x67"]
    figures = {}
    for size in wanted:
        figures.update(measure_many() if size == "16x67" else measure(int(size)))
    print(PEERS)
    print(f"machine: {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} (other work makes the times longer, the CPU seconds less so)")
    targets = {**{name: {"at_most": bound} for name, bound in TARGETS.items()},
               **{name: {"at_most": MEMORY_MB} for name in figures if name.endswith("coordinator_mb")}}
    finish("round", figures, {name: bound for name, bound in targets.items() if name in figures})


if __name__ == "__main__":
    main()

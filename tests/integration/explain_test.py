"""What `hansa check --explain` says a run will need, held against what the run took."""

import json
import threading
from pathlib import Path

import pytest
from federation import events, wait_for
from processes import address_of

# 11 million numbers, most of them in the blocks: more than activations and a process's own needs.
MODEL = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4, "vocab_size": 4000}
GENEROUS = 3  # no figure is larger than so many times what was taken
IDLE = 110 << 20  # a process that has LibTorch and has done nothing


def memory_of(process):
    """Anonymous and shared memory of a process, in bytes; 0 when it has ended."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        return 1024 * sum(int(lines[name].split()[0]) for name in ("RssAnon", "RssShmem"))
    except (OSError, KeyError):
        return 0


def bytes_in(folder):
    total = 0
    for path in Path(folder).rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # it went while we looked
            pass
    return total


class Watch:
    """The most that things took, looked at every few milliseconds."""

    def __init__(self, **looks):
        self.looks, self.most, self.ended = looks, dict.fromkeys(looks, 0), threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self):
        while not self.ended.wait(0.005):
            for name, look in self.looks.items():
                self.most[name] = max(self.most[name], look())

    def __enter__(self):
        self.thread.start()
        return self.most

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        for name, look in self.looks.items():  # what stands at the end, whatever was missed
            self.most[name] = max(self.most[name], look())


def explain(hansa, config, *arguments):
    done = hansa("check", "--explain", "--json", config, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)["cost"]


def larger(fed):
    path = fed.folder / "base" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **MODEL}))
    return fed


def settled(pid):
    """Memory of a process once it has stood still for a while."""
    seen = []

    def still():
        seen.append(memory_of(pid))
        return len(seen) > 200 and len(set(seen[-200:])) == 1

    wait_for(still)
    return seen[-1]


ERROR_MEMORY = '[error_feedback]\n[[downlink]]\nuse = "bf16"\n'
METHODS = {"codecs": ("fedavg", ""), "error memory and a lossy downlink": ("fedavg", ERROR_MEMORY), "halves in turn": ("rolora", ""),
           "a part that stays": ("fedsa_lora", "")}


@pytest.mark.parametrize("method", METHODS)
def test_uploads_downloads_and_disk_are_within_what_is_explained(federation, hansa, method):
    rule, extra = METHODS[method]
    fed = federation(rounds=4, extra="[report]\nlocal_only = true\n" + extra)
    # No momentum: there may be none after an exact rule.
    arguments = ["--set", f"aggregator.use={rule}", "--set", "server_optimizer.momentum=0.0", "--set", "adapter.r=16"]
    cost = explain(hansa, fed.config, *arguments)
    run = fed.run_dir("run")
    beside = ("nodes", "local", "adapter", "logs")
    with Watch(run=lambda: bytes_in(run), node=lambda: bytes_in(run / "nodes" / "de"),
               coordinator=lambda: bytes_in(run) - sum(bytes_in(run / folder) for folder in beside)) as disk:
        fed.run("run", *arguments)
    uploads = [event["bytes"] for event in events(run) if event["event"] == "upload_accepted"]
    assert len(uploads) == 12
    assert max(uploads) <= cost["up"][-1]["most_bytes"] <= GENEROUS * max(uploads)
    whole = max(path.stat().st_size for path in (run / "versions").iterdir() if path.suffix == (".served" if extra else ".hansa"))
    assert whole <= cost["down_most_bytes"] <= whole + 256
    assert 0 < disk["node"] <= cost["node_disk_bytes"] <= GENEROUS * disk["node"]
    assert 0 < disk["coordinator"] <= cost["coordinator_disk_bytes"] <= GENEROUS * disk["coordinator"]
    assert 0 < disk["run"] <= cost["run_disk_bytes"] <= GENEROUS * disk["run"]


OPENINGS = {"half precision": {"model.compute": "bf16"}, "four bits": {"model.base_dtype": "nf4", "adapter.r": 64}}


@pytest.mark.parametrize("opening", OPENINGS)
def test_coordinator_and_nodes_take_the_memory_that_is_explained(federation, hansa, operator, opening):
    fed = larger(federation(rounds=2))
    values = {**OPENINGS[opening], "trainer.batch": 1, "data.length": 16}  # activations are no part of the figures
    settings = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    cost = explain(hansa, fed.config, *settings)
    run = operator.folder / "run"
    coordinator = operator.coordinator(fed.config, run, *settings)
    address = address_of(run)

    def node(name):
        return operator.node(name, address, data=fed.folder / f"{name}.txt", model=fed.folder / "base").popen

    first = node("de")
    wait_for(lambda: any(event["event"] == "node_joined" for event in events(run)))  # and it waits for the others
    idle = {"coordinator": settled(coordinator.popen.pid), "node": settled(first.pid)}
    with Watch(coordinator=lambda: memory_of(coordinator.popen.pid), node=lambda: memory_of(first.pid)) as peak:
        others = [node("it"), node("pl")]
        assert [process.wait(timeout=300) for process in (coordinator.popen, first, *others)] == [0] * 4
    taken = {name: peak[name] - idle[name] for name in idle}
    assert taken["coordinator"] <= cost["coordinator_memory_bytes"]
    assert taken["node"] <= cost["node_memory_bytes"] <= GENEROUS * taken["node"]


def test_a_simulation_takes_the_memory_and_disk_that_are_explained(federation, hansa):
    fed = larger(federation(rounds=2))
    settings = ["--set", "trainer.batch=1", "--set", "data.length=16"]
    cost = explain(hansa, fed.simulation, *settings)
    assert cost["run_processes"] == 1
    run = fed.run_dir("run")
    process = fed.start("run", *settings, config=fed.simulation)
    with Watch(memory=lambda: memory_of(process.pid), disk=lambda: bytes_in(run)) as most:
        said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert 0 < most["disk"] <= cost["run_disk_bytes"] <= GENEROUS * most["disk"]
    assert 0 < most["memory"] <= cost["run_memory_bytes"] + IDLE

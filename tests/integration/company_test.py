"""A node of several processes, started by torchrun and by hand: the same adapter as of one, and nobody left hanging."""

import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from federation import make_base, tensor_bytes, text_of, wait_for
from processes import address_of

TORCHRUN = Path(sys.executable).with_name("torchrun")
PIPELINE = """
[run]
seed = 5
rounds = {rounds}
[model]
use = "llama"
path = "base"
initialise = true
[adapter]
use = "lora"
r = 4
[trainer]
use = "{trainer}"
steps = {steps}
batch = 3
accumulation = 2
learning_rate = 0.01
{more}
[data]
use = "text"
separator = "%"
length = 32
[aggregator]
use = "fedavg"
[server_optimizer]
use = "sgd"
[train]
threads = 1
[network]
lease_seconds = 60
heartbeat_seconds = 0.5
[[node]]
name = "de"
data = "de.txt"
heldout = "held_out.txt"
"""


class Silo:
    """One node's files and what is done with them."""

    def __init__(self, folder, operator, trainer="sft", rounds=2, steps=4, more="", extra=""):
        folder.mkdir()
        make_base(folder / "base")
        (folder / "de.txt").write_text(text_of("de", 40))
        (folder / "held_out.txt").write_text(text_of("de", 3))
        self.config = folder / "pipeline.toml"
        self.config.write_text(PIPELINE.format(trainer=trainer, rounds=rounds, steps=steps, more=more) + extra)
        self.folder, self.operator = folder, operator

    def coordinator(self, name):
        process = self.operator.coordinator(self.config, self.folder / name, name=f"{name}-coordinator")
        return process, address_of(self.folder / name)

    def words(self, name, address):
        return [self.operator.program, "node", "--connect", address, "--name", "de", "--data", self.folder / "de.txt", "--model",
                self.folder / "base", "--heldout", self.folder / "held_out.txt", "--state", self.folder / f"{name}-state"]

    def by_torchrun(self, name, processes):
        coordinator, address = self.coordinator(name)
        node = self.operator.start(f"{name}-node", TORCHRUN, "--standalone", "--nproc-per-node", processes, "--no-python",
                                   *self.words(name, address))
        assert (coordinator.ends(), node.ends()) == (0, 0), coordinator.text + node.text
        return self.folder / name

    def alone(self, name="alone"):
        coordinator, address = self.coordinator(name)
        node = self.operator.start(f"{name}-node", *self.words(name, address))
        assert (coordinator.ends(), node.ends()) == (0, 0), coordinator.text + node.text
        return self.folder / name

    def by_hand(self, name, address, size=2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        return [self.operator.start(f"{name}-node-{rank}", "env", f"RANK={rank}", f"WORLD_SIZE={size}", "MASTER_ADDR=127.0.0.1",
                                    f"MASTER_PORT={port}", *self.words(name, address)) for rank in range(size)]


@pytest.fixture
def silo(tmp_path, operator):
    return lambda **options: Silo(tmp_path / "silo", operator, **options)


def values(operator, run_dir):
    _, content = tensor_bytes(operator.program, max((run_dir / "versions").glob("*.hansa")))
    return np.frombuffer(content, dtype=np.float32).astype(np.float64)


def apart(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize(("trainer", "more"), [("sft", ""), ("scaffold", ""), ("fedprox", "mu = 0.1\nheld_out = 0.2\ncheck_every = 2")])
def test_two_processes_by_torchrun_train_the_adapter_that_one_trains(silo, operator, trainer, more):
    made = silo(trainer=trainer, more=more)
    one, two = values(operator, made.alone()), values(operator, made.by_torchrun("two", 2))
    assert apart(two, one) < 1e-5, apart(two, one)


def test_three_processes_with_fewer_rows_than_processes(silo, operator):
    made = silo(more="max_grad_norm = 0.5", rounds=1)
    made.config.write_text(made.config.read_text().replace("batch = 3", "batch = 2"))
    one, three = values(operator, made.alone()), values(operator, made.by_torchrun("three", 3))
    assert apart(three, one) < 1e-5, apart(three, one)


@pytest.mark.parametrize("killed", [0, 1])
def test_when_a_process_is_killed_the_others_end_and_a_new_start_ends_as_if_nothing_had_been(silo, operator, killed):
    made = silo(rounds=2, steps=60)
    expected = values(operator, made.alone())
    coordinator, address = made.coordinator("two")
    processes = made.by_hand("two", address)
    wait_for(lambda: list((made.folder / "two-state" / "process-1").glob("copy-*.hansa")))
    processes[killed].kill()
    left = processes[1 - killed]
    assert left.ends() == 72, left.text
    assert "lost the others" in left.text and "Start all processes of this node again" in left.text, left.text
    again = made.by_hand("again", address)
    assert [coordinator.ends(), *(process.ends() for process in again)] == [0, 0, 0], coordinator.text + again[0].text
    assert apart(values(operator, made.folder / "two"), expected) < 1e-5


def test_a_trainer_that_works_alone_is_refused_by_name_in_several_processes(silo, operator):
    made = silo(trainer="fedkseed", steps=2)
    text = made.config.read_text().replace('use = "lora"\nr = 4', 'use = "full"').replace('use = "fedavg"', 'use = "fedkseed"')
    text = text.replace("accumulation = 2\n", "")
    made.config.write_text(text)
    _, address = made.coordinator("two")
    processes = made.by_hand("two", address)
    assert [process.ends() for process in processes] == [1, 1], processes[0].text
    for process in processes:
        assert "trainer 'fedkseed' trains in one process" in process.text, process.text


def test_a_process_that_reads_other_text_is_found_out(silo, operator):
    made = silo(rounds=1)
    _, address = made.coordinator("two")
    other = made.folder / "other.txt"
    other.write_text(text_of("it", 40))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    processes = []
    for rank, text in enumerate([made.folder / "de.txt", other]):
        line = [text if word == made.folder / "de.txt" else word for word in made.words("two", address)]
        processes.append(operator.start(f"two-node-{rank}", "env", f"RANK={rank}", "WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1",
                                        f"MASTER_PORT={port}", *line))
    processes[0].says("read different text")

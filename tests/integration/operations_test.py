"""What operators do to a run, and links to each other: Ctrl-C, restarts, sockets, broken connections. The bits never change."""

import json
import os
import signal

import pytest
from federation import children, journal, last_version, tensor_bytes, wait_for
from hollow import hollow_config
from processes import Proxy, address_of
from study import LANGUAGES


def released(run_dir):
    return sum(record["type"] == "released" for record in journal(run_dir))


def version_of(hansa, run_dir):
    return tensor_bytes(hansa.program, last_version(run_dir))


def alive(pid):
    return os.path.exists(f"/proc/{pid}") and "Z" not in open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]


@pytest.mark.parametrize("to", ["the group", "the leader"])
def test_ctrl_c_stops_cleanly_and_resume_ends_with_the_same_bits(federation, hansa, build_dir, tmp_path, to):
    fed = federation()
    fed.config = hollow_config(tmp_path / "hollow", build_dir, rounds=6, trainer='use = "constant"\ntakes = "200ms"')
    fed.run("undisturbed")
    runner = fed.start("stopped")
    run_dir = fed.run_dir("stopped")
    wait_for(lambda: released(run_dir) >= 2 or runner.poll() is not None)
    started = sum(children(runner.pid).values(), [])
    if to == "the group":
        os.killpg(runner.pid, signal.SIGINT)
    else:
        runner.send_signal(signal.SIGINT)
    output, _ = runner.communicate(timeout=60)
    assert runner.returncode == 3 and f"hansa run --resume {run_dir}" in output, output
    assert len(started) == 3
    wait_for(lambda: not any(alive(pid) for pid in started), seconds=5)
    fed.resume("stopped")
    assert version_of(hansa, run_dir) == version_of(hansa, fed.run_dir("undisturbed"))


def test_ctrl_c_stops_a_simulation_too(federation, hansa):
    fed = federation(rounds=40)
    runner = fed.start("stopped", config=fed.simulation)
    run_dir = fed.run_dir("stopped")
    wait_for(lambda: released(run_dir) >= 1 or runner.poll() is not None)
    runner.send_signal(signal.SIGINT)
    output, _ = runner.communicate(timeout=60)
    assert runner.returncode == 3 and "--resume" in output, output
    fed.resume("stopped")
    fed.run("undisturbed", config=fed.simulation)
    assert version_of(hansa, run_dir) == version_of(hansa, fed.run_dir("undisturbed"))


@pytest.fixture
def hollow(hansa, build_dir, tmp_path, operator):
    """Two nodes with uploads of 4 MB, started by hand; an undisturbed run to compare with."""

    class Hollow:
        rounds, size = 3, 4 * 4 * 250_000
        config = hollow_config(tmp_path / "hollow", build_dir, rounds=3, tensors=4, elements=250_000, trainer='use = "counting"')
        run_dir = tmp_path / "run"

        def node(self, name, address):
            return operator.node(name, address, "--plugin-path", build_dir / "test_plugins", data=tmp_path / "hollow" / "silo.txt",
                                 model=tmp_path / "hollow" / "model")

        def same_bits(self):
            assert hansa("run", self.config, "--run-dir", tmp_path / "undisturbed").returncode == 0
            return version_of(hansa, self.run_dir) == version_of(hansa, tmp_path / "undisturbed")

    return Hollow()


def test_nodes_find_a_restarted_coordinator_on_its_unix_socket(hollow, operator, tmp_path):
    listen = f"unix:{tmp_path}/hansa.sock"
    first = operator.coordinator(hollow.config, hollow.run_dir, "--listen", listen)
    assert address_of(hollow.run_dir) == listen
    nodes = [hollow.node(name, listen) for name in ("node-00", "node-01")]
    wait_for(lambda: released(hollow.run_dir) >= 1)
    first.kill()
    again = operator.coordinator(hollow.run_dir / "config.toml", hollow.run_dir, "--resume", "--listen", listen, name="again")
    assert again.ends() == 0, again.text
    assert [node.ends() for node in nodes] == [0, 0]
    assert hollow.same_bits()


@pytest.mark.parametrize("fault", [{"cut_up_at": 2_500_000}, {"flip_up_at": 2_500_000}], ids=["cut", "turned bit"])
def test_an_upload_goes_on_where_a_broken_link_left_it(hollow, operator, fault):
    coordinator = operator.coordinator(hollow.config, hollow.run_dir)
    address = address_of(hollow.run_dir)
    proxy = Proxy(address, **fault)
    nodes = [hollow.node("node-00", proxy.address), hollow.node("node-01", address)]
    assert coordinator.ends() == 0, coordinator.text
    assert [node.ends() for node in nodes] == [0, 0]
    proxy.close()
    assert proxy.cut_up_at is None and proxy.flip_up_at is None  # it did happen
    sent = int(json.loads((hollow.run_dir / "manifest.json").read_text())["manifest"]["notes"]["bytes_up"])
    once = hollow.rounds * 2 * hollow.size
    assert once <= sent < once + 2**20  # at most a chunk came twice
    assert hollow.same_bits()


def test_nodes_that_outlive_the_coordinator_follow_it_to_a_changed_pipeline(study, operator, tmp_path):
    """What they hold was encoded for the old downlink, so it is fetched anew."""
    fed = study(rounds=8, extra='[[downlink]]\nuse = "bf16"\n')
    run_dir = fed.folder / "run"
    address = f"unix:{tmp_path / 'socket'}"
    first = operator.coordinator(fed.config, run_dir, "--listen", address)
    address_of(run_dir)
    nodes = [operator.node(name, address, "--heldout", fed.folder / f"{name}-heldout.txt", data=fed.folder / f"{name}.txt",
                           model=fed.folder / "base") for name in LANGUAGES]
    wait_for(lambda: released(run_dir) >= 2)
    first.kill()
    assert released(run_dir) < 8
    fed.config.write_text(fed.config.read_text().replace('use = "bf16"', 'use = "int8"'))
    second = operator.coordinator(fed.config, run_dir, "--listen", address, "--resume", "--changed", name="changed")
    assert second.ends() == 0, second.text
    assert [node.ends() for node in nodes] == [0, 0, 0], nodes[0].text
    assert released(run_dir) == 8

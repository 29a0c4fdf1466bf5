"""Without TLS coordinator and node speak on this machine only, unless somebody insists."""

import pytest
from federation import wait_for
from processes import address_of

SENTENCE = "is not on this machine, and the connection is not encrypted"
EVERYWHERE = "0.0.0.0"  # listened on: all addresses; connected to: this machine, but the program cannot count on it


def node(operator, fed, address, *arguments):
    return operator.node("de", address, *arguments, data=fed.folder / "de.txt", model=fed.folder / "base")


@pytest.fixture
def alone(federation):
    """A federation of one node."""
    fed = federation(rounds=1)
    text = fed.config.read_text()
    fed.config.write_text(text[:text.index('[[node]]\nname = "it"')])
    return fed


def test_a_coordinator_refuses_to_listen_beyond_this_machine(alone, operator):
    coordinator = operator.coordinator(alone.config, alone.run_dir("run"), "--listen", f"{EVERYWHERE}:0")
    assert coordinator.ends() == 1
    assert f"The address '{EVERYWHERE}:0' {SENTENCE}" in coordinator.text and "--insecure-plaintext" in coordinator.text


def test_so_it_does_when_the_pipeline_asks_for_it(alone, operator):
    alone.config.write_text(alone.config.read_text().replace("[network]\n", f'[network]\nlisten = "{EVERYWHERE}:0"\n'))
    coordinator = operator.coordinator(alone.config, alone.run_dir("run"))
    assert coordinator.ends() == 1 and SENTENCE in coordinator.text


@pytest.mark.parametrize("address", [f"{EVERYWHERE}:4711", "192.0.2.1:4711"])
def test_a_node_refuses_to_connect_beyond_this_machine(alone, operator, address):
    refused = node(operator, alone, address)
    assert refused.ends() == 1
    assert f"The address '{address}' {SENTENCE}" in refused.text and "--insecure-plaintext" in refused.text


def test_who_insists_federates_in_plain_text(alone, operator):
    run_dir = alone.run_dir("run")
    coordinator = operator.coordinator(alone.config, run_dir, "--listen", f"{EVERYWHERE}:0", "--insecure-plaintext")
    port = address_of(run_dir).rsplit(":", 1)[1]
    working = node(operator, alone, f"{EVERYWHERE}:{port}", "--insecure-plaintext")
    wait_for(lambda: coordinator.popen.poll() is not None)
    assert coordinator.ends() == 0 and working.ends() == 0, coordinator.text + working.text
    assert (run_dir / "versions" / "epoch-000001.hansa").exists()

"""Nodes that send what they must not, or nothing, or are not who they should be: refused with a sentence, and nothing is lost."""

import hashlib
import socket
import struct

import pytest
from federation import events, journal, last_version, tensor_bytes, wait_for
from hollow import hollow_config
from processes import address_of, hello

TENSORS, ELEMENTS = 2, 64


def values(hansa, run_dir):
    _, data = tensor_bytes(hansa.program, last_version(run_dir))
    return set(struct.unpack(f"<{len(data) // 4}f", data))


@pytest.fixture
def field(hansa, build_dir, tmp_path, operator):
    """A coordinator with two honest nodes and the seat of a third, which each test fills."""

    class Field:
        def start(self, rounds, extra="", takes="0s", value=0.001):
            self.config = hollow_config(tmp_path / "field", build_dir, rounds=rounds, nodes=3, tensors=TENSORS, elements=ELEMENTS, extra=extra,
                                        trainer=f'use = "constant"\ntakes = "{takes}"\nvalue = {value}')
            self.model = tmp_path / "field" / "model"
            self.base = hashlib.sha256((self.model / "config.json").read_bytes()).hexdigest()
            self.run_dir = tmp_path / "run"
            self.coordinator = operator.coordinator(self.config, self.run_dir)
            self.address = address_of(self.run_dir)
            return self

        def honest(self, *names):
            return [operator.node(name, self.address, "--plugin-path", build_dir / "test_plugins", data=tmp_path / "field" / "silo.txt",
                                  model=self.model) for name in names]

    return Field()


def test_each_mischief_is_refused_by_name_and_the_run_goes_on_without_it(field, operator, rogue, hansa, tmp_path):
    mischief = ["nan", "layout", "names", "garbage", "past", "cut", "truncated", "checksum", "large", "twice"]
    field.start(rounds=len(mischief), takes="300ms")  # so that the round is open while the rogue speaks
    card = hello(hansa, tmp_path, "node-02", field.base)
    bad = operator.start("rogue", rogue, field.address, card, ",".join(mischief))
    field.honest("node-00", "node-01")
    assert field.coordinator.ends() == 0, field.coordinator.text
    assert bad.ends() == 0, bad.text
    said = dict(line.split(": ", 1) for line in bad.text.splitlines())
    assert "not finite" in said["nan"] and said["nan"].startswith("refused")
    assert said["layout"].startswith("refused") and "tensor.1" in said["layout"]
    assert said["names"].startswith("refused") and "another" in said["names"]
    assert said["garbage"].startswith("refused") and said["cut"].startswith("refused")
    assert "fault 5" in said["truncated"] and said["truncated, then whole"].startswith("accepted")
    assert "fault 4" in said["checksum"] and said["checksum, then right"].startswith("accepted")
    assert "fault 13" in said["large"] and said["large, then right"].startswith("accepted")
    assert "fault 3" in said["past"] and "fault 3" in said["past resume"] and "fault 12" in said["forged resume"]
    assert said["past, then right"].startswith("accepted")
    assert said["twice"].startswith("accepted") and said["twice again"].startswith("accepted")
    assert said["twice another"].startswith("accepted")  # the first receipt again
    refused = [event for event in events(field.run_dir) if event["event"] == "upload_refused"]
    assert [event["round"] for event in refused] == [1, 2, 3, 4, 6] and {event["node"] for event in refused} == {"node-02"}
    # Nine rounds of a mean of 0.001; the last with (0.001 + 0.001 + 0.004) / 3, so the second sending counted for nothing.
    (value,) = values(hansa, field.run_dir)
    assert value == pytest.approx(9 * 0.001 + 0.002, rel=1e-5)
    cohorts = [len(record["cohort"]) for record in journal(field.run_dir) if record["type"] == "closed"]
    assert cohorts == [2] * 4 + [3, 2] + [3] * 4


LEASE = "[network]\nlease_seconds = 1\nheartbeat_seconds = 0.2\n"
DEADLINE = '[round_policy]\nuse = "sync"\ndeadline = "1500ms"\nmin_cohort = 2\n'


@pytest.mark.parametrize("limit", [LEASE, DEADLINE], ids=["lease", "deadline"])
def test_a_node_that_joins_and_says_nothing_is_not_waited_for(field, operator, rogue, hansa, tmp_path, limit):
    field.start(rounds=2, extra=limit)
    quiet = operator.start("rogue", rogue, field.address, hello(hansa, tmp_path, "node-02", field.base), "silent")
    field.honest("node-00", "node-01")
    quiet.says("silent")
    wait_for(lambda: [record for record in journal(field.run_dir) if record["type"] == "released"])
    quiet.popen.stdin.write(b"go on\n")
    quiet.popen.stdin.flush()
    quiet.says("silent, then late: fault 3")  # a stale round: the late upload changes nothing
    assert field.coordinator.ends() == 0, field.coordinator.text
    cohorts = [len(record["cohort"]) for record in journal(field.run_dir) if record["type"] == "closed"]
    assert cohorts[0] == 2 and len(cohorts) == 2


def test_too_small_a_cohort_fails_with_a_sentence_and_resumes_when_the_node_is_back(field, operator, rogue, hansa, tmp_path):
    field.start(rounds=1, extra=LEASE + '[round_policy]\nuse = "sync"\nmin_cohort = 3\n')
    quiet = operator.start("rogue", rogue, field.address, hello(hansa, tmp_path, "node-02", field.base), "silent,silent,silent")
    field.honest("node-00", "node-01")
    assert field.coordinator.ends() == 1
    assert "round 1 failed 3 times" in field.coordinator.text and "2 of 3 nodes delivered" in field.coordinator.text
    quiet.kill()
    again = operator.coordinator(field.run_dir / "config.toml", field.run_dir, "--resume", "--listen", field.address, name="again")
    field.honest("node-02")
    assert again.ends() == 0, again.text


def test_a_connection_that_never_speaks_is_closed_and_disturbs_nobody(field):
    field.start(rounds=1)
    host, port = field.address.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as mute, socket.create_connection((host, int(port))) as noisy:
        noisy.sendall(bytes(range(256)) * 64)
        mute.settimeout(30)
        assert mute.recv(1) == b""
    field.honest("node-00", "node-01", "node-02")
    assert field.coordinator.ends() == 0, field.coordinator.text


def test_central_dp_divides_by_the_planned_cohort_not_by_who_came(field, operator, rogue, hansa, tmp_path):
    noise = '[privacy]\nuse = "gaussian"\nclipping_norm = 2.0\nnoise_multiplier = 0.001\n'
    field.start(rounds=1, extra=noise + LEASE, value=0.1)  # so the noise is far smaller than what is looked for
    quiet = operator.start("rogue", rogue, field.address, hello(hansa, tmp_path, "node-02", field.base), "silent")
    field.honest("node-00", "node-01")
    quiet.says("silent")
    assert field.coordinator.ends() == 0, field.coordinator.text
    all_values = values(hansa, field.run_dir)
    assert len(all_values) > TENSORS * ELEMENTS - 4  # noise on each; now and then two are the same number in fp32
    assert sum(all_values) / len(all_values) == pytest.approx(0.1 * 2 / 3, abs=0.001)


@pytest.mark.parametrize(("change", "sentence"), [
    ({"node": "stranger"}, "is not part of this run"),
    ({"base": "0" * 64}, "has another base model"),
    ({"tokenizer": "0" * 64}, "has another tokenizer"),
    ({"major": 9}, "protocol"),
], ids=["name", "base", "tokenizer", "protocol"])
def test_a_node_with_the_wrong_papers_is_refused_at_the_door(field, operator, rogue, hansa, tmp_path, change, sentence):
    field.start(rounds=1)
    papers = {"node": "node-02", "base": field.base, **change}
    bad = operator.start("rogue", rogue, field.address, hello(hansa, tmp_path, **papers), "good")
    assert bad.ends() == 1 and sentence in bad.text, bad.text
    field.honest("node-00", "node-01", "node-02")  # the run is none the worse
    assert field.coordinator.ends() == 0, field.coordinator.text


def test_another_version_of_a_plugin_is_refused_at_the_door(field, operator, rogue, hansa, tmp_path):
    field.start(rounds=1)
    card = hello(hansa, tmp_path, "node-02", field.base)
    card.write_text(card.read_text().replace('"org_hansa_test_hollow": "0.1.0"', '"org_hansa_test_hollow": "0.0.9"'))
    bad = operator.start("rogue", rogue, field.address, card, "good")
    assert bad.ends() == 1 and "org_hansa_test_hollow" in bad.text and "0.0.9" in bad.text, bad.text


def test_a_node_without_the_runs_base_model_is_told_so(field, operator, build_dir, tmp_path):
    field.start(rounds=1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "hollow", "more": 1}')
    node = operator.node("node-00", field.address, "--plugin-path", build_dir / "test_plugins", data=tmp_path / "field" / "silo.txt", model=other)
    assert node.ends() == 1 and "another base model" in node.text, node.text

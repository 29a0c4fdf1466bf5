"""Plugins that were signed, and plugins that were not, as operators meet them: real processes, real files."""

import base64
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import threading

import pytest
from federation import wait_for
from study import SFT, newest


class Store:
    """A folder with all built-in plugins, signed with one key."""

    def __init__(self, folder, hansa, build_dir):
        self.hansa, self.plugins, self.key = hansa, folder / "plugins", folder / "release"
        self.plugins.mkdir(parents=True)
        for file in (build_dir / "lib" / "hansa" / "plugins").glob("*.so"):
            shutil.copy(file, self.plugins)
        for file in self.plugins.iterdir():
            file.chmod(0o644)
        self.plugins.chmod(0o755)
        self.done("keygen", "--out", self.key)
        self.done("sign", self.plugins, "--key", self.key)
        self.public = f"{self.key}.pub"

    def done(self, *arguments):
        finished = self.hansa("plugins", *arguments)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout

    def file(self, name):
        return self.plugins / f"hansa_{name}.so"

    def section(self):
        return f'plugin_path = ["{self.plugins}"]\n[plugins]\nrequire_signed = true\nkeys = ["{self.public}"]\n'

    def asked(self):
        return "--require-signed", "--plugin-key", self.public, "--plugin-path", self.plugins


@pytest.fixture
def store(tmp_path, hansa, build_dir):
    return Store(tmp_path / "store", hansa, build_dir)


@pytest.fixture
def trusting(study, store):
    """A study whose pipeline requires signatures."""
    fed = study(rounds=2, trainer=SFT)
    for config in (fed.config, fed.simulation):
        config.write_text(store.section() + config.read_text())
    return fed


def flip(path, seed=1):
    data = bytearray(path.read_bytes())
    at = random.Random(seed).randrange(len(data))
    data[at] ^= 1 << random.Random(seed + 1).randrange(8)
    path.write_bytes(data)


def test_a_run_with_signed_plugins_and_none_after_a_flipped_byte(trusting, store, hansa):
    assert hansa("check", trusting.config).returncode == 0
    run = trusting.run("run")
    recorded = {row["id"]: row for row in json.loads((run / "run.json").read_text())["plugins"]}
    fedavg = recorded["org_hansa_fedavg"]
    assert fedavg["sha256"] == hashlib.sha256(store.file("fedavg").read_bytes()).hexdigest()
    assert all(row["vouched_by"].endswith("(release.pub)") for row in recorded.values())
    assert f'keys = ["{store.public}"]' in (run / "config.toml").read_text()

    for seed, damaged in enumerate([store.file("fedavg"), store.plugins / "hansa_fedavg.so.sig"]):
        whole = damaged.read_bytes()
        flip(damaged, seed)
        for command in (["check", trusting.config], ["run", trusting.config, "--run-dir", trusting.folder / "never"],
                        ["run", "--resume", run]):
            refused = hansa(*command)
            told = refused.stdout + refused.stderr
            assert refused.returncode == 1 and "there is no aggregator `fedavg`" in told, told
            assert re.search(r"hansa_fedavg\.so (was changed after it was signed|has a (damaged|signature))", told), told
        assert not (trusting.folder / "never").exists()
        damaged.write_bytes(whole)
    assert hansa("check", trusting.config).returncode == 0


def test_processes_and_a_simulation_agree_under_require_signed(trusting):
    trusting.both()


def test_what_the_command_line_required_stays_required(study, store, hansa):
    fed = study(rounds=1)
    run = fed.run("run", *map(str, store.asked()))
    assert "require_signed = true" in (run / "config.toml").read_text()
    assert newest(run).name == "epoch-000001.hansa"
    for file in store.plugins.glob("*.sig"):
        file.unlink()
    out = fed.folder / "adapter"
    refused = hansa("export", "--run", run, "--out", out, "--plugin-path", store.plugins)
    assert refused.returncode == 1 and "is not signed" in refused.stderr and not out.exists(), refused.stderr


def test_the_command_lines_keys_count_instead_of_the_files(trusting, store, hansa, tmp_path):
    assert hansa("plugins", "keygen", "--out", tmp_path / "other").returncode == 0
    refused = hansa("check", trusting.config, "--plugin-key", tmp_path / "other.pub")
    assert refused.returncode == 1 and "which is not listed" in refused.stdout
    digests = [argument for file in store.plugins.glob("*.so")
               for argument in ("--plugin-digest", "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest())]
    assert hansa("check", trusting.config, *digests).returncode == 0
    nobody = hansa("plugins", "list", "--require-signed")
    assert nobody.returncode == 1 and "add --plugin-key PUB" in nobody.stderr
    toothless = hansa("plugins", "list", "--plugin-key", store.public)
    assert toothless.returncode == 1 and "add --require-signed" in toothless.stderr


def test_a_list_that_refuses_nobody_is_warned_of(trusting, hansa):
    for config in (trusting.config, trusting.simulation):
        config.write_text(config.read_text().replace("require_signed = true", "require_signed = false"))
    told = hansa("check", trusting.config)
    assert told.returncode == 0 and "warning: [plugins] lists who is trusted, but others' plugins are loaded as well" in told.stdout
    trusting.run("run")


def test_a_node_trusts_whom_its_own_machine_trusts(study, store, hansa, tmp_path):
    assert hansa("plugins", "keygen", "--out", tmp_path / "other").returncode == 0
    fed = study(rounds=1)
    run = fed.folder / "run"
    coordinator = subprocess.Popen([hansa.program, "coordinator", fed.config, "--run-dir", run], start_new_session=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: (run / "address").exists())
        refused = hansa("node", "--connect", (run / "address").read_text().strip(), "--name", "de", "--data", fed.folder / "de.txt",
                        "--model", fed.folder / "base", "--state", tmp_path / "state", "--plugin-path", store.plugins,
                        "--require-signed", "--plugin-key", tmp_path / "other.pub")
        assert refused.returncode == 1, refused.stderr
        assert re.search(r"hansa_lora\.so is signed by key [0-9a-f]{16}, which is not listed", refused.stderr), refused.stderr
    finally:
        coordinator.terminate()
        coordinator.wait()


@pytest.mark.parametrize("line, told", [
    ('keys = ["release"]', r"study.toml:4:9: error: `plugins.keys.0`: \S+/release is a private key"),
    ('keys = ["gone.pub"]', r"study.toml:4:9: error: `plugins.keys.0`: .* does not exist"),
    ('keys = ["study.toml"]', r"study.toml:4:9: error: `plugins.keys.0`: .* is no public key"),
    ('digests = ["sha256:12"]', r'study.toml:4:12: error: `plugins.digests.0`: "sha256:12" is no digest'),
    ("", r"study.toml:3:18: error: `plugins.require_signed` is true, but no key and no digest is listed")])
def test_a_section_that_cannot_be_followed_loads_nothing(study, store, hansa, line, told):
    fed = study()
    shutil.copy(store.key, fed.folder / "release")
    (fed.folder / "release").chmod(0o600)
    fed.config.write_text(f'plugin_path = ["{store.plugins}"]\n[plugins]\nrequire_signed = true\n{line}\n' + fed.config.read_text())
    refused = hansa("check", fed.config)
    assert refused.returncode == 1 and re.search(told, refused.stdout), refused.stdout
    assert "there is no" not in refused.stdout  # no plugin was looked for


def test_the_list_shows_who_signed_and_why_not(store, hansa, tmp_path):
    (store.plugins / "hansa_fedavg.so.sig").unlink()
    listed = hansa("plugins", "list", "--all", *store.asked())
    assert listed.returncode == 1
    assert re.search(r"loaded .*key [0-9a-f]{16} \(release\.pub\).*hansa_lora\.so", listed.stdout), listed.stdout
    assert re.search(r"refused .*hansa_fedavg\.so: is not signed", listed.stdout), listed.stdout
    store.plugins.chmod(0o777)
    listed = json.loads(hansa("plugins", "list", "--json", *store.asked()).stdout)
    row = next(row for row in listed["files"] if row["file"] == str(store.plugins))
    assert row["outcome"] == "refused" and "everybody may write to (mode 0777)" in row["why"]
    assert not listed["components"]
    assert hansa("plugins", "list", "--plugin-path", store.plugins).returncode == 0  # where nobody asked


def test_a_file_that_is_swapped_all_the_time_is_loaded_as_signed_or_not_at_all(store, hansa, build_dir):
    victim = store.file("fedavg")
    good = victim.read_bytes()
    planted = next((build_dir / "test_plugins").glob("*mischief.so")).read_bytes()
    stop = threading.Event()

    def swap():
        turn = 0
        while not stop.is_set():
            content = (good, planted)[turn % 2]
            if turn % 4 < 2:
                victim.write_bytes(content)
            else:
                beside = victim.with_suffix(".new")
                beside.write_bytes(content)
                os.replace(beside, victim)
            turn += 1

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        outcomes = set()
        for _ in range(12):
            finished = hansa("plugins", "list", "--json", *store.asked())
            assert finished.returncode in (0, 1), finished.stderr
            listed = json.loads(finished.stdout)
            row = next(row for row in listed["files"] if row["file"] == str(victim))
            outcomes.add(row["outcome"])
            if row["outcome"] == "loaded":
                assert row["plugin"] == "org_hansa_fedavg" and row["sha256"] == hashlib.sha256(good).hexdigest()
            assert not [one for one in listed["components"] if one["id"] == "mischief"]
    finally:
        stop.set()
        thread.join()
    assert outcomes <= {"loaded", "refused"}


def test_openssl_agrees_with_a_signature_and_its_keys_sign_here(store, hansa, tmp_path):
    """What docs say of the format, followed by another program."""
    text = (store.plugins / "hansa_fedavg.so.sig").read_bytes()
    message, signature = text[:text.rindex(b"signature ")], text[text.rindex(b"signature "):].split()[1]
    (tmp_path / "message").write_bytes(message)
    (tmp_path / "raw").write_bytes(base64.b64decode(signature))
    check = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", store.public, "-rawin", "-in", tmp_path / "message",
             "-sigfile", tmp_path / "raw"]
    assert subprocess.run(check, capture_output=True).returncode == 0
    (tmp_path / "message").write_bytes(message + b" ")
    assert subprocess.run(check, capture_output=True).returncode != 0

    mine = tmp_path / "mine"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", mine], check=True)
    mine.chmod(0o600)
    subprocess.run(["openssl", "pkey", "-in", mine, "-pubout", "-out", f"{mine}.pub"], check=True)
    store.done("sign", store.plugins, "--key", mine)
    rows = json.loads(store.done("verify", "--json", store.plugins, "--key", f"{mine}.pub"))
    assert len(rows) == len(list(store.plugins.glob("*.so"))) and all(row["trusted"] for row in rows)

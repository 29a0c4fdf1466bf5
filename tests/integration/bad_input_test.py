"""What people do wrong, and what machines do to them: a clear sentence, a non-zero exit code, and nothing lost."""

import socket
import subprocess
from pathlib import Path

import pytest
from federation import events, journal, last_version, tensor_bytes, text_of, wait_for
from hollow import hollow_config

BAD_UTF8 = b"der Hund \xff\xfe\n%\n"
NUL = b"der\0Hund\n%\n"


def in_one_process(fed, name, silo=None, *arguments, check=False):
    if silo is not None:
        (fed.folder / "de.txt").write_bytes(silo)
    return fed.run(name, *arguments, config=fed.simulation, check=check)


# ---- devices

NOT_THERE = ("cuda:99 is not there", "\"cpu\"", "\"auto\"")


def test_a_device_that_is_not_there_is_refused_where_it_is_written(federation, hansa):
    fed = federation(rounds=1)
    for setting in ("model.device=cuda:99", "node.1.device=cuda:99"):
        done = hansa("check", fed.config, "--set", setting)
        assert done.returncode == 1, done.stdout
        assert all(words in done.stdout for words in (*NOT_THERE, setting.split("=")[0])), done.stdout
    done = hansa("check", fed.config, "--set", "model.device=gpu")
    assert done.returncode == 1 and "'gpu' is no device" in done.stdout, done.stdout
    done = fed.run("run", "--device", "cuda:99", check=False)
    assert done.returncode == 1 and all(words in done.stderr for words in NOT_THERE), done.stderr


def test_a_device_that_is_not_there_is_refused_by_each_command_that_computes(federation, hansa):
    fed = federation(rounds=1)
    base = ("--model", fed.folder / "base", "--device", "cuda:99")
    tokens = fed.folder / "tokens.json"
    tokens.write_text("[[1, 2]]")
    out = ("--out", fed.folder / "out.safetensors")
    for command in (("generate", *base, "--prompt", "der"), ("eval", *base, "--data", fed.folder / "de.txt"),
                    ("inspect", "logits", *base, "--tokens", tokens, *out), ("inspect", "embeddings", *base, "--text", "der"),
                    ("node", *base, "--connect", "127.0.0.1:1", "--name", "de", "--data", fed.folder / "de.txt", "--state",
                     fed.folder / "state")):
        done = hansa(*command)
        assert done.returncode == 1 and all(words in done.stderr for words in NOT_THERE), done.stderr


# ---- silos

@pytest.mark.parametrize(("silo", "sentence"), [(b"", "de.txt"), (BAD_UTF8, "UTF-8"), (NUL, "NUL")], ids=["empty", "utf8", "nul"])
def test_a_silo_that_cannot_be_read_is_named(federation, silo, sentence):
    done = in_one_process(federation(rounds=1), "run", silo)
    assert done.returncode == 1
    assert sentence in done.stderr and "de.txt" in done.stderr, done.stderr


@pytest.mark.parametrize("bad", [BAD_UTF8, NUL], ids=["utf8", "nul"])
def test_bad_documents_can_be_left_out_with_a_warning(federation, bad):
    done = in_one_process(federation(rounds=1), "run", bad + text_of("de", 5).encode(), "--set", "data.on_bad=skip", check=True)
    assert "1 of 6 records left out" in done.stderr, done.stderr


@pytest.mark.parametrize("silo", [b"d", b"der Hund und die Katze " * 450_000], ids=["one byte", "a line of 10 MB"])
def test_strange_silos_work(federation, silo):
    in_one_process(federation(rounds=1), "run", silo, check=True)


def test_an_empty_silo_ends_the_run_with_its_name_and_a_mended_one_resumes_it(federation):
    fed = federation(rounds=2)
    whole = (fed.folder / "it.txt").read_text()
    for name in ("de", "it", "pl"):
        (fed.folder / f"{name}.txt").write_text("")
    done = fed.run("run", check=False)
    assert done.returncode == 1
    assert "round 1 failed 3 times" in done.stderr and ".txt" in done.stderr and "resume" in done.stderr, done.stderr
    for name in ("de", "it", "pl"):
        (fed.folder / f"{name}.txt").write_text(whole)
    fed.resume("run")


# ---- places in use

def test_a_port_in_use_is_said(federation):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = federation(rounds=1).run("run", "--set", f'network.listen="127.0.0.1:{port}"', check=False)
    assert done.returncode == 1 and f"127.0.0.1:{port}" in done.stderr and "in use" in done.stderr, done.stderr


def test_a_run_directory_belongs_to_one_coordinator_and_one_run(federation, build_dir, tmp_path, hansa):
    fed = federation()
    fed.config = hollow_config(tmp_path / "hollow", build_dir, rounds=3, trainer='use = "constant"\ntakes = "2s"')
    first = fed.start("run")
    run_dir = fed.run_dir("run")
    wait_for(lambda: journal(run_dir))
    owner = (run_dir / "lock").read_text().strip()
    for second in (fed.run("run", check=False), fed.resume("run", check=False)):
        assert second.returncode == 1 and f"in use by process {owner}" in second.stderr, second.stderr
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 0, output
    again = fed.run("run", check=False)
    assert again.returncode == 1 and "holds a run already" in again.stderr and "--resume" in again.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    nothing = hansa("run", "--resume", empty)
    assert nothing.returncode == 1 and "holds no run" in nothing.stderr


def test_plain_text_does_not_leave_the_machine_unless_told_to(federation):
    done = federation(rounds=1).run("run", "--set", 'network.listen="0.0.0.0:0"', check=False)
    assert done.returncode == 1 and "--insecure-plaintext" in done.stderr, done.stderr


# ---- plugins

def test_a_missing_plugin_is_named(federation):
    done = federation(rounds=1).run("run", "--set", "trainer.use=fedprocks", check=False)
    assert done.returncode == 1 and "fedprocks" in done.stderr, done.stderr


def test_a_plugin_that_is_no_library_is_named(federation, tmp_path, hansa):
    (tmp_path / "broken.so").write_text("not a library")
    done = hansa("plugins", "list", "--all", "--plugin-path", tmp_path)
    assert "broken.so" in done.stdout and "refused" in done.stdout, done.stdout


def test_a_constructor_that_throws_ends_the_run_with_its_words(build_dir, tmp_path, hansa):
    config = hollow_config(tmp_path / "hollow", build_dir, rounds=1, trainer='use = "sick"\nat_birth = true')
    done = hansa("run", config, "--run-dir", tmp_path / "run")
    assert done.returncode == 1 and "no licence file" in done.stderr and "sick" in done.stderr, done.stderr
    simulated = hollow_config(tmp_path / "simulated", build_dir, rounds=1, trainer='use = "sick"\nat_birth = true', extra="[simulation]\n")
    done = hansa("run", simulated, "--run-dir", tmp_path / "run2")
    assert done.returncode == 1 and "no licence file" in done.stderr and "sick" in done.stderr, done.stderr


def test_training_that_makes_nan_is_never_sent(build_dir, tmp_path, hansa):
    config = hollow_config(tmp_path / "hollow", build_dir, rounds=1, trainer='use = "sick"')
    done = hansa("run", config, "--run-dir", tmp_path / "run")
    assert done.returncode == 1 and "not finite" in done.stderr and "tensor.0" in done.stderr, done.stderr


# ---- a full disk

@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"mounting a tmpfs needs root: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(place):
    with open(place / "filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            return Path(filler.name)


def test_a_full_disk_is_said_loses_nothing_and_the_run_goes_on_when_there_is_room(build_dir, tmp_path, hansa, small_disk):
    config = hollow_config(tmp_path / "hollow", build_dir, rounds=8, tensors=4, elements=25000, trainer='use = "counting"',
                           extra='[server_optimizer]\nuse = "sgd"\nmomentum = 0.5\n')
    undisturbed = tmp_path / "undisturbed"
    assert hansa("run", config, "--run-dir", undisturbed).returncode == 0
    run_dir, log = small_disk / "run", tmp_path / "log"
    with open(log, "w") as out:
        runner = subprocess.Popen([hansa.program, "run", config, "--run-dir", run_dir], stdout=out, stderr=subprocess.STDOUT)
        wait_for(lambda: [record for record in journal(run_dir) if record["type"] == "released"] or runner.poll() is not None)
        filler = fill(small_disk)
        wait_for(lambda: "No space left" in log.read_text() or runner.poll() is not None)
        assert runner.poll() is None, log.read_text()
        before = journal(run_dir)
        filler.unlink()
        assert runner.wait(timeout=120) == 0, log.read_text()
    assert journal(run_dir)[:len(before)] == before
    assert tensor_bytes(hansa.program, last_version(run_dir)) == tensor_bytes(hansa.program, last_version(undisturbed))
    released = [event["round"] for event in events(run_dir) if event["event"] == "round_released"]
    assert released == list(range(1, 9))


def test_a_disk_that_stays_full_stops_by_ctrl_c_and_resumes_later(build_dir, tmp_path, hansa, small_disk):
    config = hollow_config(tmp_path / "hollow", build_dir, rounds=4, tensors=4, elements=25000)
    undisturbed = tmp_path / "undisturbed"
    assert hansa("run", config, "--run-dir", undisturbed).returncode == 0
    run_dir, log = small_disk / "run", tmp_path / "log"
    with open(log, "w") as out:
        runner = subprocess.Popen([hansa.program, "run", config, "--run-dir", run_dir], stdout=out, stderr=subprocess.STDOUT)
        wait_for(lambda: journal(run_dir) or runner.poll() is not None)
        filler = fill(small_disk)
        wait_for(lambda: "No space left" in log.read_text() or runner.poll() is not None)
        runner.send_signal(2)
        assert runner.wait(timeout=120) == 3, log.read_text()
    filler.unlink()
    assert hansa("run", "--resume", run_dir).returncode == 0
    assert tensor_bytes(hansa.program, last_version(run_dir)) == tensor_bytes(hansa.program, last_version(undisturbed))

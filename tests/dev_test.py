"""./dev as a newcomer meets it: on another distribution, without rights, with a LibTorch of one's own. Its surroundings are made up:
a copy of the script in a folder of its own, its own /etc/os-release, and a PATH with little on it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEBIAN, OTHER = 'ID=debian\nVERSION_ID="12"\n', "ID=fedora\nVERSION_ID=40\n"
COREUTILS = ["bash", "sh", "env", "cat", "comm", "sed", "sort", "sha256sum", "dirname", "basename", "readlink", "mkdir", "uname", "grep",
             "awk", "nproc", "tr", "touch"]


class Machine:
    def __init__(self, folder, distribution, user):
        self.root, self.bin, release = folder / "hansa", folder / "bin", folder / "os-release"
        (self.root / "tests").mkdir(parents=True)
        self.bin.mkdir()
        release.write_text(distribution)
        self.script = self.root / "dev"
        self.script.write_text((ROOT / "dev").read_text().replace("/etc/os-release", str(release)))
        self.script.chmod(0o755)
        for file in ("tests/requirements.txt", "CMakePresets.json"):
            shutil.copy(ROOT / file, self.root / file)
        for tool in COREUTILS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.command("id", f"echo {user}")

    def command(self, name, script="exit 0"):
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def has_packages(self, without=()):
        """dpkg-query of a machine with every package that ./dev names, but for some."""
        names = re.search(r"^packages=\((.*?)^\)", self.script.read_text(), re.DOTALL | re.MULTILINE)[1].split()
        installed = [name.split(":")[0] for name in names]
        assert len(installed) > 20 and set(without) <= set(installed)
        self.command("dpkg-query", "\n".join(f"echo installed {name}" for name in installed if name not in without))

    def is_set_up(self):
        """Everything but a LibTorch that CMake could find."""
        self.has_packages()
        for tool in ("g++", "cmake", "ninja", "capnp", "gnuplot"):
            self.command(tool)
        python = self.root / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text("#!/bin/sh\nexit 0\n")
        python.chmod(0o755)
        self.wheel = self.root / ".venv" / "lib" / "python3.11" / "site-packages" / "torch"
        (self.wheel / "lib").mkdir(parents=True)
        (self.wheel / "lib" / "libtorch_cpu.so").touch()
        return self

    def dev(self, *arguments, **environment):
        return subprocess.run([self.script, *arguments], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
                              env={"PATH": str(self.bin), "HOME": str(self.root), **environment})


@pytest.fixture
def machine(tmp_path):
    return lambda distribution=DEBIAN, user=1000: Machine(tmp_path, distribution, user)


def libtorch(folder):
    config = folder / "share" / "cmake" / "Torch" / "TorchConfig.cmake"
    config.parent.mkdir(parents=True)
    config.touch()
    return folder


def test_dev_alone_lists_every_verb(machine):
    done = machine().dev()
    verbs = re.findall(r"^verb_(\w+)\(\)", (ROOT / "dev").read_text(), re.MULTILINE)
    assert done.returncode == 0 and len(verbs) >= 9
    assert [verb for verb in verbs if not re.search(rf"^\./dev {verb}\b", done.stdout, re.MULTILINE)] == []


def test_an_unknown_verb_is_refused_with_the_list(machine):
    done = machine().dev("biuld")
    assert done.returncode == 1 and "unknown verb 'biuld'" in done.stderr and "./dev build" in done.stderr


def test_another_distribution_is_told_what_is_missing(machine):
    other = machine(OTHER)
    for tool in ("cmake", "ninja", "g++"):
        other.command(tool)
    done = other.dev("setup")
    assert done.returncode == 1 and "this is not Debian 12" in done.stderr, done.stderr
    missing = re.search(r"Missing, by their Debian names: (.*)\. Install", done.stderr.replace("\n", " "))[1].split()
    assert {"capnproto", "gnuplot-nox", "clang-format"} <= set(missing)
    assert not {"cmake", "ninja-build", "build-essential"} & set(missing)


@pytest.mark.parametrize("sudo", [None, "exit 1"], ids=["no sudo", "sudo asks for a password"])
def test_who_may_not_install_is_told_the_command(machine, sudo):
    debian = machine()
    debian.has_packages(without=["capnproto", "libzstd-dev"])
    if sudo:
        debian.command("sudo", sudo)
    done = debian.dev("setup")
    assert done.returncode == 1 and "no rights to install Debian packages" in done.stderr, done.stderr
    assert "apt-get install --no-install-recommends capnproto libzstd-dev\n" in done.stderr


def test_root_installs_what_is_missing_and_nothing_else(machine):
    debian = machine(user=0).is_set_up()
    debian.has_packages(without=["capnproto"])
    libtorch(debian.wheel)
    debian.command("apt-get", f'echo "$@" >> {debian.root}/apt')
    done = debian.dev("setup")
    assert done.returncode == 0, done.stderr
    update, install = (debian.root / "apt").read_text().splitlines()
    assert update.endswith(" update") and install.endswith("install -y --no-install-recommends capnproto")


def test_a_second_setup_does_nothing(machine):
    debian = machine().is_set_up()
    libtorch(debian.wheel)
    assert "setup is complete" in debian.dev("setup").stderr
    debian.command("dpkg-query", "exit 1")
    done = debian.dev("setup")
    assert done.returncode == 0 and done.stderr == ""


def test_another_libtorch_is_what_the_build_gets(machine, tmp_path):
    debian = machine().is_set_up()
    given = libtorch(tmp_path / "mine")
    debian.command("cmake", f'echo "$HANSA_LIBTORCH" > {debian.root}/libtorch; mkdir -p {debian.root}/build/release; '
                            f"touch {debian.root}/build/release/build.ninja")
    done = debian.dev("build", HANSA_LIBTORCH=f"{tmp_path}/x/../mine")
    assert done.returncode == 0, done.stderr
    assert (debian.root / "libtorch").read_text().strip() == str(given)


@pytest.mark.parametrize("named", [True, False])
def test_a_folder_that_holds_no_libtorch_is_refused(machine, tmp_path, named):
    debian = machine().is_set_up()
    done = debian.dev("setup", **({"HANSA_LIBTORCH": str(tmp_path / "empty")} if named else {}))
    assert done.returncode == 1
    place = tmp_path / "empty" if named else debian.wheel
    assert f"{place} holds no LibTorch (share/cmake/Torch/TorchConfig.cmake is missing)" in done.stderr
    assert ("HANSA_LIBTORCH names it" in done.stderr) == named

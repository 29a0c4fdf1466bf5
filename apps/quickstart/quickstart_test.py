"""What the quickstart does around the program: the base is trained when something it hangs on changed, and the verdict is honest."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import quickstart  # noqa: E402

# Stands for the program: notes its arguments, and leaves what each of its commands would.
PROGRAM = """#!{python}
import json, sys
from pathlib import Path
words = sys.argv[1:]
with open({calls!r}, "a") as calls:
    calls.write(json.dumps(words) + "\\n")
if Path({fails!r}).exists() and Path({fails!r}).read_text() == words[0]:
    sys.exit(1)
out = Path(words[words.index("--out" if words[0] == "export" else "--run-dir") + 1])
out.mkdir(parents=True)
(out / "summary.json").write_text(json.dumps({{"loss": {loss!r}}}))
"""
LOSS = {"base": {"de": 1.5, "it": 1.4}, "local-de": {"de": 1.2, "it": 1.6}, "local-it": {"de": 1.7, "it": 1.1},
        "federated": {"de": 1.25, "it": 1.15}}


class Place:
    """A quickstart whose files lie in a folder of their own, with data and without a program."""

    def __init__(self, folder, monkeypatch):
        self.state, self.calls_file, self.fails, self.loss = folder / ".hansa" / "quickstart", folder / "calls", folder / "fails", LOSS
        self.program, self.base_config, self.folder = folder / "program", folder / "quickstart_base.toml", folder
        (self.state / "data" / "en").mkdir(parents=True)
        (self.state / "data" / "de").mkdir()
        (self.state / "base-config").mkdir()
        for name in ("data/en/train.txt", "data/de/train.txt", "base-config/config.json", "base-config/tokenizer.json"):
            (self.state / name).write_text(name)
        self.base_config.write_text("[run]\n")
        for name, value in {"ROOT": folder, "STATE": self.state, "BASE_CONFIG": self.base_config, "CONFIG": folder / "quickstart.toml"}.items():
            monkeypatch.setattr(quickstart, name, value)
        monkeypatch.setattr(quickstart.prepare, "prepare", lambda out: False)

    def write_program(self):
        self.program.write_text(PROGRAM.format(python=sys.executable, calls=str(self.calls_file), fails=str(self.fails), loss=self.loss))
        self.program.chmod(0o755)

    def ensure_base(self):
        """The commands that it took."""
        self.write_program()
        self.calls_file.write_text("")
        quickstart.ensure_base(self.program)
        return [json.loads(line)[0] for line in self.calls_file.read_text().splitlines()]

    def main(self, monkeypatch):
        self.write_program()
        monkeypatch.setattr(sys, "argv", ["quickstart.py", "--program", str(self.program), "--run-dir", str(self.folder / "run")])
        quickstart.main()


@pytest.fixture
def place(tmp_path, monkeypatch):
    return Place(tmp_path, monkeypatch)


def test_the_base_is_trained_once(place):
    assert place.ensure_base() == ["run", "export"]
    assert place.ensure_base() == []


@pytest.mark.parametrize("changed", ["data/en/train.txt", "base-config/config.json", "base-config/tokenizer.json", "base.toml"])
def test_the_base_is_trained_again_when_what_it_hangs_on_changed(place, changed):
    place.ensure_base()
    (place.base_config if changed == "base.toml" else place.state / changed).write_text("other\n")
    assert place.ensure_base() == ["run", "export"]
    assert place.ensure_base() == []


def test_the_base_knows_nothing_of_the_silos(place):
    place.ensure_base()
    (place.state / "data" / "de" / "train.txt").write_text("other\n")
    assert place.ensure_base() == []


@pytest.mark.parametrize("step", ["run", "export"])
def test_an_interrupted_base_is_made_anew(place, step):
    place.fails.write_text(step)
    with pytest.raises(SystemExit, match=r"base model failed \(exit code 1\)"):
        place.ensure_base()
    place.fails.unlink()
    assert place.ensure_base() == ["run", "export"]


def test_a_lost_base_is_made_anew(place):
    place.ensure_base()
    for file in (place.state / "base").iterdir():
        file.unlink()
    (place.state / "base").rmdir()
    assert place.ensure_base() == ["run", "export"]


def test_the_whole_says_by_how_much_federating_pays_off(place, monkeypatch, capsys):
    place.main(monkeypatch)
    out = capsys.readouterr().out
    assert "beats the base on every silo, by at least 0.250 nats per byte" in out
    assert "every silo's own adapter on the average, by at least 0.200" in out and "WARNING" not in out


@pytest.mark.parametrize("loss, told", [
    ({"de": 1.5, "it": 1.0}, "WARNING: the federated adapter is no better than the base on de: 1.500 against 1.500"),
    ({"de": 1.45, "it": 1.36}, "WARNING: the federated adapter is no better on the average than local-it: 1.405 against 1.400")])
def test_the_whole_says_where_federating_does_not_pay_off(place, monkeypatch, capsys, loss, told):
    place.loss = {**LOSS, "federated": loss}
    place.main(monkeypatch)
    out = capsys.readouterr().out
    assert told in out and "beats" not in out

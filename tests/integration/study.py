"""A small federation whose pipeline a test puts together section by section, to look at one method."""

import json
import subprocess

import numpy
from federation import WORDS, make_base, text_of

LANGUAGES = list(WORDS)


class Study:
    """A pipeline without codecs or clip, whose sections a test gives by name: adapter="use = ..."."""

    def __init__(self, folder, program, ranks=None, rounds=3, extra="", silos=len(LANGUAGES), **sections):
        self.folder, self.program = folder, str(program)
        make_base(folder / "base")
        chosen = {"adapter": 'use = "lora"\nr = 4', "trainer": SFT, "aggregator": 'use = "fedavg"\nweighting = "uniform"',
                  **sections}
        text = f'[run]\nseed = 5\nrounds = {rounds}\n[model]\nuse = "llama"\npath = "base"\ninitialise = true\n'
        text += '[data]\nuse = "text"\nseparator = "%"\nlength = 32\n[train]\nthreads = 1\n'
        text += "[network]\nlease_seconds = 60\nheartbeat_seconds = 0.5\n"
        text += "".join(f"[{name}]\n{body}\n" for name, body in chosen.items()) + extra
        for i in range(silos):
            language = LANGUAGES[i % len(LANGUAGES)] + "2" * (i // len(LANGUAGES))
            (folder / f"{language}.txt").write_text(text_of(language[:2], 12 + i // len(LANGUAGES)))
            (folder / f"{language}-heldout.txt").write_text(text_of(language[:2], 3))
            text += f'[[node]]\nname = "{language}"\ndata = "{language}.txt"\nheldout = "{language}-heldout.txt"\n'
            text += f"rank = {ranks[i]}\n" if ranks else ""
        self.config = folder / "study.toml"
        self.config.write_text(text)
        self.simulation = folder / "simulation.toml"
        self.simulation.write_text(text + "[simulation]\n")

    def put_weights(self):
        """The base becomes a checkpoint of random bf16 weights, as Transformers writes it."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM
        base = self.folder / "base"
        torch.manual_seed(3)
        AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base)).bfloat16().save_pretrained(base)
        for config in (self.config, self.simulation):
            config.write_text(config.read_text().replace("initialise = true\n", ""))

    def run(self, name="run", *arguments, config=None):
        done = subprocess.run([self.program, "run", str(config or self.config), "--run-dir", str(self.folder / name), *arguments],
                              capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.folder / name

    def start(self, name, *arguments, resume=False):
        """In a process group of its own."""
        command = [self.program, "run"]
        command += ["--resume", str(self.folder / name)] if resume else [str(self.config), "--run-dir", str(self.folder / name)]
        command += arguments
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)

    def both(self, *arguments):
        """Over processes and in simulation; the versions and logs must be the same to the last bit."""
        run, simulated = self.run("run", *arguments), self.run("simulated", *arguments, config=self.simulation)
        expected, found = state_files(run), state_files(simulated)
        assert found.keys() == expected.keys()
        for name, held in expected.items():
            assert found[name] == held, name
        return run

    def hansa(self, *arguments):
        done = subprocess.run([self.program, *map(str, arguments)], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def layout(self, file):
        return {row["name"]: row for row in json.loads(self.hansa("inspect", "layout", file, "--json"))}

    def tensors(self, file):
        """Those of a packet without codecs: raw fp32 in the layout's order, each at a multiple of 64 bytes, up to the end."""
        rows = json.loads(self.hansa("inspect", "layout", file, "--json"))
        assert all(row["dtype"] == "f32" for row in rows)
        sizes = [4 * int(numpy.prod(row["shape"])) for row in rows]
        at = file.stat().st_size - sum(-(-size // 64) * 64 for size in sizes[:-1]) - sum(sizes[-1:])
        data, found = file.read_bytes(), {}
        for row, size in zip(rows, sizes):
            assert at > 0 and at % 64 == 0
            name = f"{row['channel']}: {row['name']}" if row["name"] in found else row["name"]  # a channel may use the adapter's names
            found[name] = numpy.frombuffer(data, numpy.float32, size // 4, at).reshape(row["shape"])
            at += -(-size // 64) * 64
        return found


KSEED = 'use = "fedkseed"\nsteps = 20\nbatch = 2\nseeds = 64\nlearning_rate = 1e-3'
SFT = 'use = "sft"\nsteps = 2\nbatch = 2\nlearning_rate = 0.01'


def newest(run, suffix=".hansa"):
    return max(path for path in (run / "versions").iterdir() if path.name.endswith(suffix) and path.name.count(".") == 1)


def state_files(run):
    """What a run stands on, byte for byte: versions and logs, and what each node keeps."""
    kept = sorted(path for path in (run / "versions").iterdir() if path.suffix in (".hansa", ".log", ".snapshot"))
    kept += sorted((run / "nodes").glob("*/state"))
    return {str(path.relative_to(run)): path.read_bytes() for path in kept}

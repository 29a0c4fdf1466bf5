"""A small federation on disk: checkpoint config, tokenizer, silos, pipeline file; and what to do with it."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

WORDS = {"de": "der Hund und die Katze laufen durch den Wald", "it": "il gatto dorme sotto il sole del mattino",
         "pl": "kot siedzi na oknie i patrzy w dal"}


def text_of(language, documents):
    words = WORDS[language].split()
    return "\n%\n".join(" ".join(words[(i * 7 + j * (i + 3)) % len(words)] for j in range(9)) for i in range(documents)) + "\n"


def make_base(folder):
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(WORDS.values(), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}))
    (folder / "config.json").write_text(json.dumps({
        "model_type": "llama", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True, "hidden_act": "silu", "initializer_range": 0.05, "rope_theta": 10000.0}))


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
use = "sft"
steps = 2
batch = 2
learning_rate = 0.01
[data]
use = "text"
separator = "%"
length = 32
[[codec]]
use = "int8"
rounding = "stochastic"
[[codec]]
use = "zstd"
{privacy}
[aggregator]
use = "fedavg"
weighting = "uniform"
[server_optimizer]
use = "sgd"
momentum = 0.5
[train]
threads = 1
[network]
lease_seconds = 60
heartbeat_seconds = 0.5
[evaluation]
every = 2
"""
CLIP = '[privacy]\nuse = "clip"\nclipping_norm = 0.5\n'
NOISE = '[privacy]\nuse = "gaussian"\nclipping_norm = 0.5\nnoise_multiplier = 2.0\n'


class Federation:
    """Files under one folder. `mode` "processes" or "simulation" differ in one section of the pipeline."""

    def __init__(self, folder, program, rounds=4, privacy=CLIP, extra=""):
        self.folder, self.program = Path(folder), str(program)
        make_base(self.folder / "base")
        nodes = ""
        for language in WORDS:
            (self.folder / f"{language}.txt").write_text(text_of(language, 12))
            (self.folder / f"{language}-heldout.txt").write_text(text_of(language, 3))
            nodes += f'[[node]]\nname = "{language}"\ndata = "{language}.txt"\nheldout = "{language}-heldout.txt"\n'
        text = PIPELINE.format(rounds=rounds, privacy=privacy) + extra
        self.config = self.folder / "processes.toml"
        self.config.write_text(text + nodes)
        self.simulation = self.folder / "simulation.toml"
        self.simulation.write_text(text + "[simulation]\n" + nodes)

    def run_dir(self, name):
        return self.folder / "runs" / name

    def run(self, name, *arguments, config=None, check=True):
        """To the end; returns the finished process."""
        command = [self.program, "run", str(config or self.config), "--run-dir", str(self.run_dir(name)), *arguments]
        return self._finish(command, check)

    def resume(self, name, check=True):
        return self._finish([self.program, "run", "--resume", str(self.run_dir(name))], check)

    def start(self, name, *arguments, resume=False, config=None):
        """In a process group of its own."""
        command = [self.program, "run"]
        command += ["--resume", str(self.run_dir(name))] if resume else [str(config or self.config), "--run-dir", str(self.run_dir(name))]
        command += arguments
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)

    @staticmethod
    def _finish(command, check):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done


def last_version(run_dir):
    return max((run_dir / "versions").glob("*.hansa"))


def tensor_bytes(program, version):
    """The layout and every tensor byte of a version; its header may name another attempt."""
    layout = subprocess.run([str(program), "inspect", "layout", str(version)], capture_output=True, text=True, check=True).stdout
    size = 4 * sum(_elements(json.loads(line[line.index("["):])) for line in layout.splitlines())
    assert size > 0
    return layout, version.read_bytes()[-_padded(size, layout):]


def _elements(shape):
    count = 1
    for extent in shape:
        count *= extent
    return count


def _padded(size, layout):
    """Leaves begin at multiples of 64 bytes; the last one has no padding after it."""
    sizes = [4 * _elements(json.loads(line[line.index("["):])) for line in layout.splitlines()]
    return sum((one + 63) // 64 * 64 for one in sizes[:-1]) + sizes[-1]


def children(pid):
    """Process ids by the command that they run: {"coordinator": [..], "node": [..]}."""
    found = {}
    for child in child_ids(pid):
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if len(words) > 1:
            found.setdefault(words[1].decode(), []).append(child)
    return found


def child_ids(pid):
    """As the kernel lists them, thread by thread."""
    try:
        return [int(child) for tasks in Path(f"/proc/{pid}/task").glob("*/children") for child in tasks.read_text().split()]
    except OSError:  # it ended meanwhile
        return []


def kill(pid):
    if pid <= 1:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
        return True
    except ProcessLookupError:  # it ended by itself
        return False


def wait_for(condition, seconds=120):
    """Polls, because what is waited for happens in another process; fails loudly."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)
    return value


def a_moment(seconds):
    """For kills at random moments, not for waiting: what must have happened is polled by wait_for."""
    time.sleep(seconds)


def journal(run_dir, name="journal"):
    """The whole records of a run's journal or ledger so far."""
    try:
        lines = (run_dir / name).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line.split(b" ", 1)[1]) for line in lines]


def events(run_dir):
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]

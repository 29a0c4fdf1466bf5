"""Rules about the source that no compiler checks: who may include what, and that the core knows no algorithm."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Algorithms named like everyday words, number types or distributions, which the core may use for other things: as words, not as the
# name of a plugin. A name in quotes is one, but for these: a type of numbers, how clients are weighted, a mechanism of the accountant,
# a check, a key of JSON.
EVERYDAY = {"bf16", "clip", "everyone", "full", "gaussian", "sync", "text", "uniform"}
QUOTED = {
    "bf16": {"core/config/sections.cpp", "core/node/worker.cpp", "core/pipeline/estimate.cpp", "apps/conformance/model_checks.cpp",
             "apps/hansa/export_command.cpp", "apps/hansa/model_commands.cpp"},
    "uniform": {"core/config/sections.cpp", "core/coordinator/release.cpp", "core/pipeline/rules.cpp"},
    "gaussian": {"apps/conformance/privacy_checks.cpp", "apps/hansa/privacy_command.cpp"},
    "everyone": {"apps/conformance/round_checks.cpp"},
    "perplexity": {"apps/hansa/model_commands.cpp"},
    "text": {"apps/hansa/data_partition.cpp"},
}


def sources(*folders):
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*"))]
    found = {str(path.relative_to(ROOT)): path.read_text() for path in paths
             if path.suffix in (".cpp", ".hpp", ".h", ".capnp")}
    assert found
    return found


def includes(text):
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', text, re.MULTILINE)


def offenders(forbidden, *folders):
    return [f"{name}: {included}" for name, text in sources(*folders).items() for included in includes(text)
            if re.match(forbidden, included)]


def test_the_round_sees_neither_torch_nor_sockets():
    assert offenders(r"(ATen|c10|torch|capnp|kj|sys/socket|netinet|arpa)\b|wire/|tensor/", "core/round") == []


def test_the_wire_sees_no_tensor():
    assert offenders(r"(ATen|c10|torch)/|tensor/|config/", "core/wire") == []


def test_nobody_includes_the_headers_that_cost_ten_seconds_a_file():
    costly = r"torch/torch\.h|ATen/ATen\.h|torch/nn|torch/extension\.h"
    assert offenders(costly, "core", "sdk", "plugins", "apps", "tests") == []


def test_the_models_make_no_tensor_on_the_cpu_by_oversight():
    """A factory without options makes its tensor on the CPU, wherever the model computes. Not looked at: what reads files and
    tables there on purpose, and the passes that run on the CPU alone."""
    on_the_cpu = {"sdk/nn/causal_model.cpp", "sdk/nn/rope.cpp"}
    made = re.compile(r"at::(?:empty|zeros|ones|full|arange|tensor|scalar_tensor|eye|linspace)\(([^;]*);")
    strays = [f"{name}: {call[0]}" for name, text in sources("sdk/nn").items()
              if not name.endswith("_test.cpp") and "/fast/" not in name and name not in on_the_cpu
              for call in made.finditer(without_comments(text)) if not re.search(r"options|\bids\b|\.device\(", call[1])]
    assert strays == []


def without_comments(text):
    """Keeps string literals, in which // may stand."""
    pattern = r'("(?:\\.|[^"\\\n])*")|//[^\n]*|/\*.*?\*/'
    blank = lambda match: match[1] or "\n" * match[0].count("\n")  # line numbers stay
    return re.sub(pattern, blank, text, flags=re.DOTALL)


def algorithms():
    found = {path.name for path in (ROOT / "plugins").glob("*/*") if path.is_dir()}
    assert "fedavg" in found and EVERYDAY | set(QUOTED) <= found
    return found


def lines_naming(names, folder, pattern):
    named = re.compile(pattern % "|".join(map(re.escape, sorted(names))))
    for name, text in sources(folder).items():
        if name.endswith("_test.cpp") or "fixtures/" in name or "fake" in name:
            continue
        code = re.sub("#[^\n]*", "", text) if name.endswith(".capnp") else without_comments(text)
        for number, line in enumerate(code.split("\n"), 1):
            if "model_type" in line or line.lstrip().startswith("#include"):  # model_type: of a checkpoint, whatever reads it
                continue
            for hit in named.finditer(line):
                yield name, hit[1], f"{name}:{number}: {hit[1]}: {line.strip()}"


def quoted_names(folder):
    return [line for file, name, line in lines_naming(algorithms(), folder, r'"(%s)"') if file not in QUOTED.get(name, ())]


def test_the_core_contains_no_algorithms_name():
    assert [line for *_, line in lines_naming(algorithms() - EVERYDAY, "core", r"\b(%s)\b")] == []
    assert quoted_names("core") == []


def test_the_program_asks_for_no_algorithm_by_name():
    assert quoted_names("apps") == []  # in the text of its help they may be examples


def test_every_exemption_is_needed():
    used = {(name, file) for folder in ("core", "apps") for file, name, _ in lines_naming(set(QUOTED), folder, r'"(%s)"')}
    assert {(name, file) for name, files in QUOTED.items() for file in files} - used == set()

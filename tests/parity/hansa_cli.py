"""How the tests run our models and adapters: the one place that knows the command."""
import json
import os
import subprocess
from pathlib import Path

from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM_VERBS = {"logits": ["inspect", "logits"], "embeddings": ["inspect", "embeddings"]}  # the others need what no user asks for: gradients, noisy adapters


def _run(verb, *arguments):
    build = Path(os.environ.get("HANSA_BUILD_DIR", ROOT / "build" / "release"))
    if verb in PROGRAM_VERBS:
        command = [build / "apps" / "hansa" / "hansa", *PROGRAM_VERBS[verb]]
    else:
        command = [build / "tests" / "parity" / "model_tool", verb, "--plugins", build / "lib" / "hansa" / "plugins"]
    command = [str(word) for word in (*command, *arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=False)


def _checked(verb, *arguments):
    done = _run(verb, *arguments)
    assert done.returncode == 0, done.stderr


def _with_tokens(verb, model, ids, out, options):
    out = Path(out)
    tokens = out.with_suffix(".json")
    tokens.write_text(json.dumps(ids.tolist()))
    _checked(verb, "--model", model, "--tokens", tokens, "--out", out, *options)
    return load_file(out)


def logits(model, ids, out, adapter=None, compute="f32"):
    """Batch x length x vocabulary, fp32."""
    options = ["--compute", compute] + (["--adapter", adapter] if adapter else [])
    return _with_tokens("logits", model, ids, out, options)["logits"]


def embeddings(model, texts, out):
    """Texts x width, fp32."""
    _checked("embeddings", "--model", model, *(word for text in texts for word in ("--text", text)), "--out", out)
    return load_file(out)["embeddings"]


def gradients(model, ids, out, adapter, classes=None):
    """The summed loss under "loss", and the gradient of every parameter of the adapter by its name."""
    options = ["--classes", json.dumps(classes)] if classes else []
    return _with_tokens("gradients", model, ids, out, ["--adapter", adapter, *options])


def export_adapter(model, out, kind="lora", residual=None, **params):
    """A fresh adapter with noise on every parameter, exported; residual: columns that a rule added, by ends of modules."""
    _checked("export-adapter", "--model", model, "--kind", kind, "--params", json.dumps(params), "--out", out,
             *(["--residual", json.dumps(residual)] if residual else []))
    return out


def run_jobs(jobs):
    """See model_tool.cpp; each job says itself where its answer goes."""
    _checked("jobs", "--jobs", jobs)


def merge(model, adapter, out):
    _checked("merge", "--model", model, "--adapter", adapter, "--out", out)
    return out


def initialise(config_directory, out):
    _checked("initialise", "--model", config_directory, "--out", out)
    return out


def refusal(model, ids_file, adapter=None):
    """What is said about a model, or an adapter, that cannot be opened."""
    extra = ["--adapter", adapter] if adapter else []
    done = _run("logits", "--model", model, *extra, "--tokens", ids_file, "--out", "/dev/null")
    assert done.returncode == 1, f"accepted: {adapter or model}"
    return done.stderr

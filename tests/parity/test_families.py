"""Every family of decoders computes what Transformers (eager attention) computes: logits unpadded, padded, packed and through
the cache, loss, gradients of low-rank pairs; config.json in every spelling. One run of the tool answers for all of them.
"""
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

import hansa_cli
from families import SHAPES, SPELLINGS, make, mistral

LENGTH, FIRST = 30, 13  # of a row, and of the first of two documents packed into it
SCALE = 2.0
KERNELS = ["fast", "plain"]


def ids(vocabulary, rows=2):
    return torch.randint(3, vocabulary, (rows, LENGTH), generator=torch.Generator().manual_seed(1))


def logits_of(model, tokens, **options):
    with torch.no_grad():
        return model(tokens, **options).logits.float()


def pairs_for(model):
    """A and B of rank 2 for every linear module of the blocks, none of them zero."""
    generator = torch.Generator().manual_seed(2)
    found = {}
    for name, module in model.named_modules():
        if not isinstance(module, (torch.nn.Linear, Conv1D)) or module is model.get_output_embeddings():
            continue
        out, inner = module.weight.shape if isinstance(module, torch.nn.Linear) else reversed(module.weight.shape)
        found[name + ".A"] = torch.randn(2, inner, generator=generator) * 0.1
        found[name + ".B"] = torch.randn(out, 2, generator=generator) * 0.1
    return found


def with_pairs(model, pairs, tokens):
    """Logits, summed loss of each token foretelling its next, and the gradients of the pairs."""
    parameters = {name: tensor.clone().requires_grad_(True) for name, tensor in pairs.items()}

    def hook(name):
        def add(_, inputs, output):
            return output + SCALE * (inputs[0] @ parameters[name + ".A"].T) @ parameters[name + ".B"].T
        return add

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()
               if name + ".A" in parameters]
    logits = model(tokens[:, :-1]).logits.float()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
    loss.backward()
    for handle in handles:
        handle.remove()
    return {"logits": logits.detach(), "loss": loss.detach().reshape(1),
            **{name: parameter.grad for name, parameter in parameters.items()}}


class Answers:
    """The jobs of all tests, and what the tool said to each."""

    def __init__(self, folder):
        self.folder, self.jobs, self.expected = folder, [], {}

    def ask(self, key, model, tokens, expected, **more):
        lists = {name: value.tolist() if torch.is_tensor(value) else value for name, value in more.items()}
        self.jobs.append({"model": str(model), "tokens": tokens.tolist(), "out": str(self.path(key)), **lists})
        self.expected[key] = expected

    def path(self, key):
        return self.folder / ("_".join(map(str, key)).replace(" ", "-").replace(",", "") + ".out")

    def run(self):
        path = self.folder / "jobs.json"
        path.write_text(json.dumps(self.jobs))
        hansa_cli.run_jobs(path)

    def of(self, key):
        refusal = self.path(key).with_suffix(".out.txt")
        assert not refusal.exists(), refusal.read_text()
        return load_file(self.path(key)), self.expected[key]


def padded_logits(model, shape, tokens, kept):
    if "dynamic, beyond" not in shape:
        return logits_of(model, tokens, attention_mask=kept)
    # There Transformers turns a batch by its longest row, and remembers; we turn each row by its own length.
    rows = torch.zeros(*tokens.shape, model.config.vocab_size)
    for row, length in enumerate(kept.sum(1).tolist()):
        rows[row, :length] = logits_of(make(shape), tokens[row:row + 1, :length])
    return rows


def ask_about_shape(answers, shape):
    model = make(shape)
    folder = answers.folder / shape.replace(" ", "-").replace(",", "")
    model.save_pretrained(folder)
    tokens = ids(model.config.vocab_size)
    plain = logits_of(model, tokens)
    # A cache cannot go on where every further token turns all others anew.
    steps = [] if shape == "llama dynamic, beyond" else [LENGTH - 6, 2] + [1] * 4
    both = KERNELS if shape.startswith(("llama", "mistral")) else KERNELS[:1]
    for kernels in both:
        answers.ask((shape, "whole", kernels), folder, tokens, {"logits": plain, "cached": plain}, kernels=kernels,
                    **({"steps": steps} if steps else {}))
    pairs = pairs_for(model)
    save_file(pairs, folder / "pairs.st")
    taught = with_pairs(make(shape), pairs, tokens)
    for kernels in KERNELS:
        answers.ask((shape, kernels), folder, tokens[:, :-1], taught, labels=tokens[:, 1:], pairs=str(folder / "pairs.st"),
                    kernels=kernels)
    # Right padding in the second row.
    kept = torch.ones_like(tokens)
    kept[1, -8:] = 0
    padded = padded_logits(model, shape, tokens, kept)
    for kernels in both:
        answers.ask((shape, "padded", kernels), folder, tokens, padded, segments=torch.where(kept == 1, 0, -1), kernels=kernels)
    # Two documents in a row, which Transformers sees apart.
    apart = torch.cat([logits_of(make(shape), part) for part in (tokens[:, :FIRST], tokens[:, FIRST:])], dim=1)
    places = torch.cat([torch.arange(FIRST), torch.arange(LENGTH - FIRST)]).expand(2, -1)
    for kernels in both:
        answers.ask((shape, "packed", kernels), folder, tokens, apart, positions=places, kernels=kernels,
                    segments=(torch.arange(LENGTH) >= FIRST).long().expand(2, -1))
    # Random weights of ours, with the pairs folded in.
    answers.ask((shape, "merged"), folder, tokens, folder / "merged", pairs=str(folder / "pairs.st"),
                merged=str(folder / "merged"))


def ask_about_spelling(answers, number, shape, change):
    model = make(shape)
    folder = answers.folder / f"spelling{number}"
    model.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    reread = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    tokens = ids(model.config.vocab_size)
    answers.ask(("spelling", number), folder, tokens, (logits_of(reread, tokens), logits_of(make(shape), tokens)))


INERT = {  # extra tensors that files hold and nobody needs, by family
    "llama grouped heads": ["model.layers.0.self_attn.rotary_emb.inv_freq"], "smollm3": ["model.rotary_emb.inv_freq"],
    "mistral window": ["model.layers.1.self_attn.rotary_emb.inv_freq"], "qwen2": ["model.layers.0.self_attn.rotary_emb.inv_freq"],
    "qwen3": ["model.rotary_emb.inv_freq"], "gemma2": ["model.rotary_emb.inv_freq", "lm_head.weight"],
    "gemma3": ["model.rotary_emb.inv_freq", "lm_head.weight"], "phi3": ["model.layers.2.self_attn.rotary_emb.inv_freq"],
    "gpt2": ["transformer.h.0.attn.bias", "transformer.h.1.attn.masked_bias", "lm_head.weight"],
    "gpt_neox": ["gpt_neox.layers.0.attention.bias", "gpt_neox.layers.1.attention.masked_bias",
                 "gpt_neox.layers.2.attention.rotary_emb.inv_freq"],
    "opt": ["lm_head.weight"],
    "llama tied, biases, other theta and eps": ["lm_head.weight"],
}
PREFIXES = {"gpt2": "transformer.", "gpt_neox": "gpt_neox.", "opt": "model."}  # others: "model."


def ask_about_tensors(answers, shape):
    """With extra tensors, and with names that lack what the family's begin with, the same is read."""
    model = make(shape)
    folder = answers.folder / ("tensors-" + shape.replace(" ", "-").replace(",", ""))
    model.save_pretrained(folder)
    tokens = ids(model.config.vocab_size)
    plain = logits_of(model, tokens)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tied = next((tensors[name] for name in tensors if name.endswith(("embed_tokens.weight", "wte.weight"))), None)
    extra = {name: tied.clone() if name == "lm_head.weight" else torch.ones(3) for name in INERT[shape]}
    save_file(tensors | extra, path, metadata={"format": "pt"})
    answers.ask(("extra", shape), folder, tokens, plain)
    bare = folder / "bare"
    model.config.save_pretrained(bare)
    prefix = PREFIXES.get(shape, "model.")
    save_file({name.removeprefix(prefix): tensor for name, tensor in tensors.items()}, bare / "model.safetensors",
              metadata={"format": "pt"})
    answers.ask(("bare", shape), bare, tokens, plain)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    found = Answers(tmp_path_factory.mktemp("families"))
    torch.set_num_threads(1)
    for shape in SHAPES:
        ask_about_shape(found, shape)
    for number, (shape, change) in enumerate(SPELLINGS):
        ask_about_spelling(found, number, shape, change)
    for shape in INERT:
        ask_about_tensors(found, shape)
    found.run()
    return found


def close(ours, theirs, of=None):
    """To 1e-4 of the largest logit."""
    largest = theirs.abs().max()
    off = (ours - theirs).abs()
    off = (off[of] if of is not None else off).max() / largest
    assert off < 1e-4, f"{off:.1e} of the largest"


IN_BOTH_FORMS = [(shape, kernels) for shape in SHAPES for kernels in KERNELS
                 if kernels == "fast" or shape.startswith(("llama", "mistral"))]


@pytest.mark.parametrize("shape,kernels", IN_BOTH_FORMS)
def test_logits_are_equal_and_through_the_cache_too(shape, kernels, answers):
    ours, theirs = answers.of((shape, "whole", kernels))
    close(ours["logits"], theirs["logits"])
    if "cached" in ours:
        close(ours["cached"], theirs["logits"])


@pytest.mark.parametrize("shape,kernels", IN_BOTH_FORMS)
def test_padding_and_packing_change_nothing(shape, kernels, answers):
    ours, theirs = answers.of((shape, "padded", kernels))
    kept = torch.ones(2, LENGTH, dtype=torch.bool)
    kept[1, -8:] = False
    close(ours["logits"], theirs, of=kept)
    ours, theirs = answers.of((shape, "packed", kernels))
    close(ours["logits"], theirs)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_of_pairs_are_equal(shape, kernels, answers):
    ours, theirs = answers.of((shape, kernels))
    assert ours.keys() == theirs.keys()
    close(ours["logits"], theirs["logits"])
    torch.testing.assert_close(ours["loss"], theirs["loss"], rtol=1e-5, atol=0)
    names = [name for name in theirs if name.endswith((".A", ".B"))]
    whole = torch.cat([theirs[name].flatten() for name in names])
    off = torch.cat([(ours[name] - theirs[name]).flatten() for name in names])
    assert off.norm() / whole.norm() < 1e-4


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_reads_what_we_initialise_and_merge(shape, answers):
    ours, folder = answers.of((shape, "merged"))
    model, info = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32,
                                                       output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    close(ours["logits"], logits_of(model.eval(), ids(model.config.vocab_size)))


@pytest.mark.parametrize("number", range(len(SPELLINGS)), ids=[shape for shape, _ in SPELLINGS])
def test_other_spellings_of_the_config_read_the_same(number, answers):
    ours, (reread, original) = answers.of(("spelling", number))
    close(ours["logits"], reread)
    close(ours["logits"], original)


@pytest.mark.parametrize("shape", INERT)
def test_tensors_that_nobody_needs_and_names_without_their_beginning_read_the_same(shape, answers):
    for key in ("extra", "bare"):
        ours, theirs = answers.of((key, shape))
        close(ours["logits"], theirs)


def test_mistral_sees_4096_tokens_where_its_config_is_silent_and_all_where_it_says_null(tmp_path):
    torch.manual_seed(5)
    model = mistral(num_hidden_layers=1, max_position_embeddings=8192)
    with torch.no_grad():
        for projection in ("q_proj", "k_proj"):  # few keys matter much: what lies beyond the window is missed
            getattr(model.model.layers[0].self_attn, projection).weight.mul_(40)
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["sliding_window"]
    tokens, last = torch.randint(3, model.config.vocab_size, (1, 4400), generator=torch.Generator().manual_seed(1)), {}
    for name, window in (("silent", {}), ("null", {"sliding_window": None})):
        path.write_text(json.dumps({**config, **window}))
        ours = hansa_cli.logits(tmp_path, tokens, tmp_path / f"{name}.out")
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager", dtype=torch.float32).eval()
        last[name] = logits_of(theirs, tokens)
        close(ours, last[name])
    assert (last["silent"] - last["null"])[:, 4096:].abs().max() > 10 * 1e-4 * last["null"].abs().max()

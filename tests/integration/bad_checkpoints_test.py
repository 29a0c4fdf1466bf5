"""Checkpoints, tokenizers, adapters and silos that do not fit: the program says what and where, and ends with an error."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from study import SFT, Study

LLAMA = {"model_type": "llama", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
COMMON = {key: value for key, value in LLAMA.items() if key != "model_type"}
WITHOUT_GROUPS = {key: value for key, value in COMMON.items() if key != "num_key_value_heads"}
FAMILIES = {
    "llama": LLAMA,
    "smollm3": {**COMMON, "model_type": "smollm3"},
    "mistral": {**COMMON, "model_type": "mistral"},
    "qwen2": {**COMMON, "model_type": "qwen2"},
    "qwen3": {**COMMON, "model_type": "qwen3", "head_dim": 8},
    "gemma2": {**COMMON, "model_type": "gemma2", "head_dim": 8},
    "gemma3": {**COMMON, "model_type": "gemma3_text", "head_dim": 8},
    "phi3": {**COMMON, "model_type": "phi3", "original_max_position_embeddings": 64},
    "gpt2": {"model_type": "gpt2", "vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neox": {**WITHOUT_GROUPS, "model_type": "gpt_neox"},
    "opt": {"model_type": "opt", "vocab_size": 300, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 64, "word_embed_proj_dim": 32},
    "bert": {**WITHOUT_GROUPS, "model_type": "bert"},
    "roberta": {**WITHOUT_GROUPS, "model_type": "roberta"},
    "distilbert": {"model_type": "distilbert", "vocab_size": 300, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4,
                   "max_position_embeddings": 64},
}
PROPORTIONAL = {"rope_parameters": {"rope_type": "proportional", "rope_theta": 1e4}}
UNSUPPORTED = [  # family, keys of config.json, what the message has to say
    *((family, {"a_new_feature": 1}, "a_new_feature") for family in FAMILIES),
    *((family, {"quantization_config": {"quant_method": "gptq"}}, "quantization_config") for family in FAMILIES),
    *((family, PROPORTIONAL, "proportional") for family in ("llama", "mistral", "qwen2", "qwen3", "smollm3", "phi3", "gpt_neox")),
    ("llama", {"hidden_act": "relu"}, "hidden_act"),
    ("llama", {"sliding_window": 16}, "sliding_window"),
    ("llama", {"rope_interleaved": True}, "rope_interleaved"),
    ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 2}}, "low_freq_factor"),
    ("smollm3", {"layer_types": ["full_attention", "chunked_attention"]}, "layer_types"),
    ("mistral", {"attention_bias": True}, "attention_bias"),
    ("qwen2", {"use_mrope": True}, "use_mrope"),
    ("qwen3", {"num_experts": 4}, "num_experts"),
    ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("phi3", {"lm_head_bias": True}, "lm_head_bias"),
    ("phi3", {"attention_bias": True}, "attention_bias"),
    ("phi3", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "linear"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
    ("gpt_neox", {"hidden_act": "gelu_new"}, "hidden_act"),
    ("opt", {"layerdrop": 0.1}, "layerdrop"),
    ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
    ("bert", {"problem_type": "multi_label_classification"}, "problem_type"),
    ("roberta", {"is_decoder": True}, "is_decoder"),
    ("distilbert", {"activation": "tanh"}, "activation"),
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory, hansa):
    """A study whose checkpoint is rewritten by each test that asks for `hansa check` only."""
    return Study(tmp_path_factory.mktemp("plain"), hansa.program)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_small_configs_are_good_ones(plain, hansa, family):
    (plain.folder / "base" / "config.json").write_text(json.dumps(FAMILIES[family]))
    done = hansa("check", plain.config, "--set", f"model.use={family}")
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize(("family", "keys", "words"), UNSUPPORTED, ids=lambda part: part if isinstance(part, str) else "")
def test_a_feature_that_is_not_computed_is_refused_by_name(plain, hansa, family, keys, words):
    (plain.folder / "base" / "config.json").write_text(json.dumps({**FAMILIES[family], **keys}))
    done = hansa("check", plain.config, "--set", f"model.use={family}")
    assert done.returncode == 1 and words in done.stdout and "study.toml" in done.stdout, done.stderr + done.stdout


# ---- tensors

@pytest.fixture
def with_weights(study):
    """A study on a checkpoint with weights; `change` rewrites its tensors."""
    fed = study(rounds=1)
    config = json.loads((fed.folder / "base" / "config.json").read_text())
    weights = fed.folder / "base" / "model.safetensors"
    save_file(llama_tensors(config), weights, metadata={"format": "pt"})
    fed.simulation.write_text(fed.simulation.read_text().replace("initialise = true\n", ""))

    def change(edit):
        tensors = load_file(weights)
        edit(tensors)
        save_file(tensors, weights, metadata={"format": "pt"})
        return fed

    return change


def llama_tensors(config):
    wide, inner = config["hidden_size"], config["intermediate_size"]
    keys = wide // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], wide), "model.norm.weight": (wide,)}
    for block in range(config["num_hidden_layers"]):
        shapes |= {f"model.layers.{block}.{name}.weight": shape for name, shape in {
            "input_layernorm": (wide,), "post_attention_layernorm": (wide,), "self_attn.q_proj": (wide, wide),
            "self_attn.k_proj": (keys, wide), "self_attn.v_proj": (keys, wide), "self_attn.o_proj": (wide, wide),
            "mlp.gate_proj": (inner, wide), "mlp.up_proj": (inner, wide), "mlp.down_proj": (wide, inner)}.items()}
    torch.manual_seed(1)
    return {name: torch.randn(shape) * 0.05 for name, shape in shapes.items()}


def run(hansa, fed, *arguments):
    return hansa("run", fed.simulation, "--run-dir", fed.folder / "run", *arguments)


def test_a_checkpoint_with_the_right_tensors_is_run(with_weights, hansa):
    done = run(hansa, with_weights(lambda tensors: None))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("edit", "words"), [
    (lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"), "model.layers.1.mlp.up_proj.weight"),
    (lambda tensors: tensors.update({"model.layers.1.mlp.new_proj.weight": torch.ones(3)}), "model.layers.1.mlp.new_proj.weight"),
    (lambda tensors: tensors.update({"model.layers.2.mlp.up_proj.weight": torch.ones(48, 32)}), "model.layers.2"),
    (lambda tensors: tensors.update({"model.norm.weight": torch.ones(33)}), "model.norm.weight"),
], ids=["missing", "extra", "a block too many", "another shape"])
def test_tensors_that_miss_or_exceed_the_config_are_named(with_weights, hansa, edit, words):
    done = run(hansa, with_weights(edit))
    assert done.returncode == 1 and words in done.stderr, done.stderr


def test_a_head_that_is_not_tied_must_be_there(with_weights, hansa):
    fed = with_weights(lambda tensors: None)
    path = fed.folder / "base" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": False}))
    done = run(hansa, fed)
    assert done.returncode == 1 and "lm_head.weight" in done.stderr, done.stderr


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """A small checkpoint of each family of encoders."""
    from transformers import AutoConfig, AutoModelForSequenceClassification
    folders = {}
    for family in ("bert", "roberta", "distilbert"):
        folders[family] = tmp_path_factory.mktemp(family)
        keys = {key: value for key, value in FAMILIES[family].items() if key != "model_type"}
        AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **keys)).save_pretrained(folders[family])
    return folders


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_an_encoder_whose_tensors_miss_or_exceed_the_config_is_refused_by_name(encoders, hansa, tmp_path, family):
    (tmp_path / "ids.json").write_text("[[5, 6, 7]]")

    def said(edit):
        tensors = load_file(encoders[family] / "model.safetensors")
        edit(tensors)
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / "config.json").write_text((encoders[family] / "config.json").read_text())
        return hansa("inspect", "logits", "--model", tmp_path, "--tokens", tmp_path / "ids.json", "--out", tmp_path / "out")

    assert said(lambda tensors: None).returncode == 0
    missing = next(name for name in load_file(encoders[family] / "model.safetensors") if "layer.1." in name and "weight" in name)
    done = said(lambda tensors: tensors.pop(missing))
    assert done.returncode == 1 and missing in done.stderr, done.stderr
    strange = missing.replace("layer.1.", "layer.2.")
    done = said(lambda tensors: tensors.update({strange: torch.ones(3)}))
    assert done.returncode == 1 and strange in done.stderr, done.stderr


def test_tensors_that_nobody_needs_are_skipped_and_counted(with_weights, hansa):
    fed = with_weights(lambda tensors: tensors.update({
        f"model.layers.{block}.self_attn.rotary_emb.inv_freq": torch.ones(4) for block in range(2)}))
    done = run(hansa, fed)
    assert done.returncode == 0 and "2 tensor(s) skipped" in done.stderr and "inv_freq" in done.stderr, done.stderr


def test_weights_as_pickles_get_the_command_that_converts_them(with_weights, hansa):
    fed = with_weights(lambda tensors: None)
    (fed.folder / "base" / "model.safetensors").rename(fed.folder / "base" / "pytorch_model.bin")
    done = run(hansa, fed)
    assert done.returncode == 1 and "pytorch_model.bin" in done.stderr and "save_pretrained" in done.stderr, done.stderr


def test_a_tokenizer_with_ids_beyond_the_embeddings_is_refused_with_the_token(study, hansa):
    fed = study(rounds=1)
    path = fed.folder / "base" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["added_tokens"].append({"id": 300, "content": "<one more>", "special": True, "normalized": False, "lstrip": False,
                                      "rstrip": False, "single_word": False})
    path.write_text(json.dumps(tokenizer))
    done = run(hansa, fed)
    assert done.returncode == 1 and "<one more>" in done.stderr and "300" in done.stderr, done.stderr


# ---- safetensors files

def rewritten(weights, change):
    """`change` gets the header as a table and the data, and gives both back."""
    raw = weights.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header, data = change(json.loads(raw[8:8 + size]), raw[8 + size:])
    text = json.dumps(header).encode()
    weights.write_bytes(len(text).to_bytes(8, "little") + text + data)


def overlap(header, data):
    first, second = (entry for entry in list(header.values())[-2:])
    second["data_offsets"] = [offset - 4 for offset in second["data_offsets"]]
    return header, data


def of_dtype(name):
    def change(header, data):
        header["model.norm.weight"]["dtype"] = name
        return header, data
    return change


def beyond(header, data):
    header["model.norm.weight"]["data_offsets"] = [len(data), len(data) + 128]
    return header, data


NORM = "tensor 'model.norm.weight'"
BROKEN_FILES = {
    "missing": (lambda file: file.unlink(), "model.safetensors"),
    "empty": (lambda file: file.write_bytes(b""), "has 0 bytes, too few for a safetensors file"),
    "cut off in its header": (lambda file: file.write_bytes(file.read_bytes()[:100]), "is cut off: its header of"),
    "cut off in its data": (lambda file: file.write_bytes(file.read_bytes()[:-1000]), "the file is cut off; fetch it again"),
    "a header as long as no file": (lambda file: file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:]), "its header would have"),
    "no JSON": (lambda file: file.write_bytes((20).to_bytes(8, "little") + b"no header, really..." + bytes(99)), "is not a JSON object"),
    "broken JSON": (lambda file: file.write_bytes((8).to_bytes(8, "little") + b'{"a": {,' + bytes(99)), "the header"),
    "overlapping": (lambda file: rewritten(file, overlap), "overlapping what is before"),
    "offsets beyond the file": (lambda file: rewritten(file, beyond), f"{NORM} ends at byte"),
    "an unknown type": (lambda file: rewritten(file, of_dtype("F99")), f"{NORM}: dtype 'F99' is not known; known:"),
    "a type that does not fit its bytes": (lambda file: rewritten(file, of_dtype("F16")), f"{NORM}: its shape and dtype F16 need"),
    "whole numbers": (lambda file: rewritten(file, of_dtype("I32")), "'model.norm.weight' is stored as I32, whole numbers"),
}


@pytest.mark.parametrize("broken", BROKEN_FILES)
def test_a_broken_safetensors_file_ends_the_program_with_what_is_wrong(with_weights, hansa, broken):
    damage, words = BROKEN_FILES[broken]
    fed = with_weights(lambda tensors: None)
    damage(fed.folder / "base" / "model.safetensors")
    done = hansa("generate", "--model", fed.folder / "base", "--prompt", "der")
    assert done.returncode == 1 and words in done.stderr, done.stderr
    assert "model.safetensors" in done.stderr or "'model.norm.weight'" in done.stderr, done.stderr


def test_a_run_on_a_checkpoint_that_is_cut_off_ends_before_it_begins(with_weights, hansa):
    fed = with_weights(lambda tensors: None)
    damage, words = BROKEN_FILES["cut off in its data"]
    damage(fed.folder / "base" / "model.safetensors")
    done = run(hansa, fed)
    assert done.returncode == 1 and words in done.stderr, done.stdout + done.stderr


# ---- adapters and silos

def test_targets_that_match_nothing_are_told_what_exists(study, hansa):
    done = hansa("check", study(adapter='use = "lora"\ntargets = ["qkv_proj"]').config)
    assert done.returncode == 1, done.stdout
    assert "'qkv_proj' matches no module" in done.stdout and "down_proj" in done.stdout, done.stdout


@pytest.mark.parametrize("kind", ["lora", "dora", "ffa_lora"])
def test_a_rank_beyond_a_side_is_refused_with_the_module(study, hansa, kind):
    done = hansa("check", study(adapter=f'use = "{kind}"\nr = 33').config)
    assert done.returncode == 1 and "r = 33 is more than" in done.stdout and "_proj" in done.stdout, done.stdout


def test_a_row_longer_than_the_model_allows_is_refused_with_its_longest(study, hansa):
    done = run(hansa, study(rounds=1), "--set", "data.length=65")
    assert done.returncode == 1 and "length = 65" in done.stderr and "64 tokens" in done.stderr, done.stderr


def test_a_silo_smaller_than_one_batch_is_told_and_trained_on(study, hansa):
    fed = study(rounds=1)
    (fed.folder / "de.txt").write_text("ein Satz\n")
    done = run(hansa, fed, "--set", "trainer.batch=8")
    assert done.returncode == 0, done.stderr
    assert "de.txt: its 1 records fill less than one batch of 8 rows" in done.stderr, done.stderr

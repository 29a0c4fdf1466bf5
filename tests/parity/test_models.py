"""Our logits are those of Transformers, whatever the files hold and however long the rows; test_families.py has the shapes.

hansa_cli.py knows the program.
"""
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import hansa_cli
from checkpoints import gpt2, llama, make, some_ids


def expected(model, ids):
    with torch.no_grad():
        return model(ids).logits.float()


def same_logits(model, directory, tmp_path, tolerance=1e-4):
    ids = some_ids(model)
    ours = hansa_cli.logits(directory, ids, tmp_path / "out.safetensors")
    torch.testing.assert_close(ours, expected(model, ids), atol=tolerance, rtol=0)


def edit_config(directory, change):
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", ["llama grouped heads", "gpt2"])
def test_weights_of_any_type_and_in_shards_are_read(shape, dtype, tmp_path):
    model = make(shape).to(dtype)
    model.save_pretrained(tmp_path / "m", max_shard_size="30KB")
    assert (tmp_path / "m" / "model.safetensors.index.json").exists()
    # Read again: casting a live model would round its rotary frequencies too.
    same_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32).eval(), tmp_path / "m", tmp_path)


def test_compute_in_bf16_is_as_near_as_that_of_transformers(tmp_path):
    for shape in ["llama llama3 scaling", "gpt2"]:
        model = make(shape)
        model.save_pretrained(tmp_path / "m")
        ids = some_ids(model)
        exact = expected(model, ids)
        ours = hansa_cli.logits(tmp_path / "m", ids, tmp_path / "out.safetensors", compute="bf16")
        theirs = expected(AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.bfloat16).eval(), ids)
        assert (ours - exact).abs().mean() < 1.5 * (theirs - exact).abs().mean()
        shutil.rmtree(tmp_path / "m")


def test_gpt2_of_the_hub_has_no_prefix_and_stores_its_mask(tmp_path):
    model = make("gpt2")
    model.save_pretrained(tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 80, 80).tril()
    tensors["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(tensors, path, metadata={"format": "pt"})
    same_logits(model, tmp_path / "m", tmp_path)


def test_long_rows_beyond_the_flash_threshold_agree(tmp_path):
    for model in [llama(max_position_embeddings=1300), gpt2(n_positions=1300)]:
        model.eval().save_pretrained(tmp_path / "m")
        ids = some_ids(model, rows=1, length=1200)
        ours = hansa_cli.logits(tmp_path / "m", ids, tmp_path / "out.safetensors")
        torch.testing.assert_close(ours, expected(model, ids), atol=1e-4, rtol=0)
        shutil.rmtree(tmp_path / "m")


def test_what_we_initialise_and_merge_is_loaded_by_transformers(tmp_path):
    for shape in ["llama llama3 scaling", "llama full heads, tied", "gpt2", "gpt2 n_inner, untied"]:
        make(shape).save_pretrained(tmp_path / "m")
        hansa_cli.initialise(tmp_path / "m", tmp_path / "fresh")
        adapter = hansa_cli.export_adapter(tmp_path / "fresh", tmp_path / "adapter", r=4)
        hansa_cli.merge(tmp_path / "fresh", adapter, tmp_path / "merged")
        model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", output_loading_info=True, dtype=torch.float32)
        assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], (shape, info)
        same_logits(model.eval(), tmp_path / "merged", tmp_path)
        ids = some_ids(model)
        with_adapter = hansa_cli.logits(tmp_path / "fresh", ids, tmp_path / "out.safetensors", adapter=adapter)
        torch.testing.assert_close(with_adapter, expected(model, ids), atol=1e-4, rtol=0)
        for name in ["m", "fresh", "adapter", "merged"]:
            shutil.rmtree(tmp_path / name)


@pytest.mark.parametrize("change,words", [
    (lambda c: c.update(num_attention_heads=0), "num_attention_heads"),
    (lambda c: c.update(vocab_size=1000), "vocab_size"),
    (lambda c: c.update(hidden_act="relu"), "hidden_act"),
    (lambda c: c.update(rope_parameters={"rope_type": "proportional", "rope_theta": 1e4}), "proportional"),
    (lambda c: c.update(quantization_config={"quant_method": "gptq"}), "quantization_config"),
    (lambda c: c.update(num_hidden_layers=4), "model.layers.3"),
    (lambda c: c.update(num_hidden_layers=2), "model.layers.2"),
    (lambda c: c.update(tie_word_embeddings="yes"), "tie_word_embeddings"),
    (lambda c: c.update(some_new_key=1), "some_new_key"),
    (lambda c: c.update(model_type="llama9"), "no model plugin accepts"),
])
def test_what_does_not_fit_is_refused_by_name(change, words, tmp_path):
    model = make("llama grouped heads")
    model.save_pretrained(tmp_path / "m")
    (tmp_path / "ids.json").write_text("[[1, 2]]")
    edit_config(tmp_path / "m", change)
    assert words in hansa_cli.refusal(tmp_path / "m", tmp_path / "ids.json")

"""What we export PEFT loads with the same logits and keys, what PEFT saves we load, and gradients agree.

hansa_cli.py knows the program.
"""
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import hansa_cli
from checkpoints import make, some_ids

CASES = [
    ("llama grouped heads", dict(targets=["all-linear"], r=4, alpha=8.0)),
    ("llama full heads, tied", dict(targets=["q_proj", "v_proj"], r=2, alpha=3.0, rslora=True)),
    ("llama odd sizes", dict(targets=["mlp.down_proj", "lm_head"], r=5, alpha=16.0)),
    ("llama biases", dict(targets=["all-linear"], r=1, alpha=1.0, dropout=0.3)),
    ("gpt2", dict(targets=["all-linear"], r=4, alpha=8.0)),
    ("gpt2 n_inner, untied", dict(targets=["attn.c_proj", "c_attn"], r=3, alpha=4.5)),
    ("llama grouped heads", dict(kind="dora", targets=["all-linear"], r=4, alpha=8.0)),
    ("gpt2", dict(kind="dora", targets=["all-linear"], r=3, alpha=4.0)),
]


def saved(shape, tmp_path):
    model = make(shape)
    model.save_pretrained(tmp_path / "m")
    return model, tmp_path / "m"


def expected(model, ids):
    with torch.no_grad():
        return model(ids).logits.float()


@pytest.mark.parametrize("shape,params", CASES)
def test_peft_loads_what_we_export_with_the_same_logits(shape, params, tmp_path):
    model, directory = saved(shape, tmp_path)
    ids = some_ids(model)
    plain = expected(model, ids)
    adapter = hansa_cli.export_adapter(directory, tmp_path / "adapter", **params)
    ours = hansa_cli.logits(directory, ids, tmp_path / "out.safetensors", adapter=adapter)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(missing|unexpected|keys).*")  # PEFT only warns
        loaded = PeftModel.from_pretrained(model, adapter).eval()
    stored = set(load_file(adapter / "adapter_model.safetensors"))
    wanted = {name.replace(".default", "").replace("magnitude_vector.weight", "magnitude_vector")
              for name in loaded.state_dict() if "lora_" in name}
    assert stored == wanted
    assert (ours - plain).abs().max() > 1e-2
    torch.testing.assert_close(ours, expected(loaded, ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape,residual", [
    ("llama grouped heads", {"_proj": 3}), ("llama odd sizes", {"q_proj": 5, "layers.1.mlp.up_proj": 2}),
    ("gpt2", {"attn.c_proj": 40, "h.1.mlp.c_fc": 1})])
def test_peft_loads_an_export_with_residuals_whose_ranks_differ(shape, residual, tmp_path):
    model, directory = saved(shape, tmp_path)
    ids = some_ids(model)
    plain = hansa_cli.logits(directory, ids, tmp_path / "out.safetensors",
                             adapter=hansa_cli.export_adapter(directory, tmp_path / "plain", targets=["all-linear"], r=2))
    adapter = hansa_cli.export_adapter(directory, tmp_path / "adapter", residual=residual, targets=["all-linear"], r=2)
    ours = hansa_cli.logits(directory, ids, tmp_path / "out.safetensors", adapter=adapter)
    assert (ours - plain).abs().max() > 1e-2
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(missing|unexpected|keys).*")  # PEFT only warns
        loaded = PeftModel.from_pretrained(model, adapter).eval()
    ranks = {len(p) for name, p in loaded.named_parameters() if "lora_A" in name}
    assert len(ranks) == len(set(residual.values())) + (residual != {"_proj": 3})
    torch.testing.assert_close(ours, expected(loaded, ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape,target_modules", [
    ("llama grouped heads", "all-linear"), ("llama biases", ["k_proj", "up_proj"]), ("gpt2", ["attn.c_proj", "c_fc"])])
def test_we_load_what_peft_saves_with_the_same_logits(shape, target_modules, tmp_path):
    model, directory = saved(shape, tmp_path)
    config = LoraConfig(r=3, lora_alpha=7, target_modules=target_modules, task_type="CAUSAL_LM",
                        fan_in_fan_out=shape.startswith("gpt2"), use_rslora=True)
    peft = get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
    peft.save_pretrained(tmp_path / "adapter")
    ids = some_ids(model)
    ours = hansa_cli.logits(directory, ids, tmp_path / "out.safetensors", adapter=tmp_path / "adapter")
    torch.testing.assert_close(ours, expected(peft, ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape,params", [c for c in CASES if "dropout" not in c[1]])
def test_gradients_of_the_adapter_are_those_of_torch(shape, params, tmp_path):
    model, directory = saved(shape, tmp_path)
    adapter = hansa_cli.export_adapter(directory, tmp_path / "adapter", **params)
    ids = some_ids(model)
    ours = hansa_cli.gradients(directory, ids, tmp_path / "out.safetensors", adapter)
    peft = PeftModel.from_pretrained(model, adapter, is_trainable=True).eval()
    logits = peft(ids).logits[:, :-1].float()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
    loss.backward()
    torch.testing.assert_close(ours.pop("loss")[0], loss.detach(), rtol=1e-5, atol=0)
    theirs = {name.removeprefix("base_model.model.").replace(".default.weight", ""): parameter.grad
              for name, parameter in peft.named_parameters() if "lora_" in name}
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-3 * gradient.abs().max().item(), msg=name)


@pytest.mark.parametrize("shape", ["llama full heads, tied", "gpt2"])
def test_a_full_export_is_a_transformers_checkpoint(shape, tmp_path):
    model, directory = saved(shape, tmp_path)
    out = hansa_cli.export_adapter(directory, tmp_path / "full", kind="full")
    loaded, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    ids = some_ids(model)
    ours = hansa_cli.logits(directory, ids, tmp_path / "out.safetensors", adapter=out)
    torch.testing.assert_close(ours, expected(loaded.eval(), ids), atol=1e-4, rtol=0)
    torch.testing.assert_close(hansa_cli.logits(out, ids, tmp_path / "out.safetensors"), ours, atol=1e-5, rtol=0)

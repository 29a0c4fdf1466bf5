"""Each kind of adapter that PEFT knows, on families whose names differ: what we export PEFT loads with the same logits, and would
save with the same tensors and no other warning; what PEFT saves we load. Kinds that PEFT does not know, against Transformers.

hansa_cli.py knows the program.
"""
import json
import warnings

import pytest
import torch
from peft import (IA3Config, LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, VeraConfig,
                  get_peft_model)
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

import families
import hansa_cli
import test_encoders as encoders

PROMPT, PREFIX = dict(kind="prompt_tuning", tokens=5), dict(kind="prefix_tuning", tokens=5)
LORA = dict(targets=["all-linear"], r=2)
CASES = [
    *((shape, dict(kind="ia3")) for shape in ("llama tied, biases, other theta and eps", "gpt2", "opt", "phi3", "bert")),
    ("llama grouped heads", dict(kind="ia3", targets=["q_proj", "gate_proj"], feedforward=["o_proj", "up_proj"])),
    ("gpt2", dict(kind="ia3", targets=[], feedforward=["c_proj"], blocks=[0, -1])),
    *((shape, PROMPT) for shape in ("llama grouped heads", "gpt2", "opt norms last, narrow embedding", "gemma2 layer_types",
                                    "mistral window", "gpt_neox", "bert", "roberta")),
    *((shape, PREFIX) for shape in ("llama grouped heads", "llama llama3", "gpt2", "opt", "gpt_neox", "mistral window",
                                    "gemma2 layer_types", "qwen3", "phi3")),
    *((shape, dict(kind="vera", r=6)) for shape in ("llama odd sizes", "gpt2 n_inner, untied", "roberta")),
    ("gpt2", dict(kind="vera", r=7, targets=["attn.c_proj", "c_fc"], d_initial=0.5, projection_key=11)),
    # LoRA's own spellings.
    ("bert", dict(**LORA, modules_to_save=["classifier"])),
    ("roberta", LORA),
    ("distilbert", dict(targets=["q_lin", "lin2"], r=2, modules_to_save=["pre_classifier", "classifier"])),
    ("llama odd sizes", dict(targets=["q_proj", "mlp.down_proj"], r=3, init="pissa")),
    ("gpt2", dict(targets=["all-linear"], r=3, alpha=5.0, init="pissa", rslora=True)),
    ("llama odd sizes", dict(targets=["q_proj", "mlp.down_proj"], r=4, init="orthogonal")),
    ("gpt2", dict(targets=["all-linear"], r=4, patterns=[{"target": "mlp.c_proj", "r": 2}, {"target": "c_fc", "alpha": 3.0}])),
    ("llama grouped heads", dict(targets=["q_proj"], r=2, modules_to_save=["lm_head", "layers.1.mlp.up_proj"])),
    ("llama grouped heads", dict(kind="dora", targets=["all-linear"], r=2, modules_to_save=["lm_head"])),
    ("llama grouped heads", dict(kind="ffa_lora", targets=["all-linear"], r=2)),
]


def make(shape):
    return (encoders if shape in encoders.SHAPES else families).make(shape)


def saved(shape, tmp_path):
    model = make(shape)
    model.save_pretrained(tmp_path / "m")
    return model, tmp_path / "m"


def some_ids(model, rows=2, length=20):
    return torch.randint(3, model.config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(1))


def logits_of(model, ids, grad=False):
    """On the text: a soft prompt's own are left out."""
    with torch.set_grad_enabled(grad):
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
    return logits if logits.dim() == 2 else logits[:, -ids.shape[1]:]


def loaded(model, adapter, **more):
    """The adapter in the model, and what PEFT says to it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        peft = PeftModel.from_pretrained(model, adapter, **more).eval()
    return peft, {str(one.message).replace(str(adapter), "it") for one in said}


def tensors(adapter):
    return {name: tensor.shape for name, tensor in load_file(adapter / "adapter_model.safetensors").items()}


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-4 * theirs.abs().max().item(), rtol=0)


@pytest.mark.parametrize("shape,params", CASES)
def test_peft_loads_what_we_export_and_would_save_the_same(shape, params, tmp_path):
    model, directory = saved(shape, tmp_path)
    ids = some_ids(model)
    plain = logits_of(model, ids)
    adapter = hansa_cli.export_adapter(directory, tmp_path / "adapter", **params)
    ours = hansa_cli.logits(directory, ids, tmp_path / "out.safetensors", adapter=adapter)
    peft, said = loaded(model, adapter)
    assert (ours - plain).abs().max() > 1e-3
    close(ours, logits_of(peft, ids))
    peft.save_pretrained(tmp_path / "again")
    assert tensors(adapter) == tensors(tmp_path / "again")
    _, usual = loaded(make(shape), tmp_path / "again")
    assert said <= usual
    if params.get("init") == "pissa":
        assert json.loads((adapter / "adapter_config.json").read_text())["r"] == 2 * params["r"]


FROM_PEFT = [
    ("llama grouped heads", IA3Config(task_type="CAUSAL_LM")),
    ("gpt2", IA3Config(task_type="CAUSAL_LM", fan_in_fan_out=True)),
    ("bert", IA3Config(task_type="SEQ_CLS")),
    ("llama grouped heads", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)),
    ("gpt2", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, prompt_tuning_init="SAMPLE_VOCAB")),
    ("bert", PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4)),
    ("llama grouped heads", PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)),
    ("gpt2", PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, prefix_projection=True, encoder_hidden_size=9)),
    ("llama grouped heads", PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, prefix_projection=True,
                                               encoder_hidden_size=9)),
    ("llama odd sizes", VeraConfig(task_type="CAUSAL_LM", r=6, target_modules="all-linear")),
    ("gpt2", VeraConfig(task_type="CAUSAL_LM", r=6, target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True,
                        projection_prng_key=5, save_projection=False)),
    ("bert", LoraConfig(task_type="SEQ_CLS", r=3, target_modules=["query", "output.dense"])),
    ("distilbert", LoraConfig(task_type="SEQ_CLS", r=3, target_modules=["q_lin", "lin2"], modules_to_save=["pre_classifier"])),
    ("llama grouped heads", LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["q_proj", "down_proj"], use_dora=True,
                                       modules_to_save=["lm_head"])),
    ("llama odd sizes", LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], init_lora_weights="orthogonal")),
    ("gpt2", LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", fan_in_fan_out=True,
                        rank_pattern={"mlp.c_proj": 2, "h.1.attn.c_proj": 3}, alpha_pattern={"c_fc": 5})),
]


@pytest.mark.filterwarnings("ignore:Specified to not")  # PEFT's words on projections that are not saved
@pytest.mark.parametrize("shape,config", FROM_PEFT)
def test_we_load_what_peft_saves(shape, config, tmp_path):
    model, directory = saved(shape, tmp_path)
    ids = some_ids(model)
    plain = logits_of(model, ids)
    peft = get_peft_model(model, config).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in peft.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    peft.save_pretrained(tmp_path / "adapter")
    ours = hansa_cli.logits(directory, ids, tmp_path / "out.safetensors", adapter=tmp_path / "adapter")
    assert (ours - plain).abs().max() > 1e-3
    close(ours, logits_of(peft, ids))


def bottleneck(own, name, act):
    """A hook behind a module of Transformers."""
    down, down_bias, up, up_bias = (own[f"{name}.bottleneck_{end}"] for end in ("down", "down_bias", "up", "up_bias"))
    return lambda _, inputs, y: y + act(y @ down.T + down_bias) @ up.T + up_bias


THREE = ("llama grouped heads", "gpt2", "bert")
GRADIENTS = [
    *((shape, LORA) for shape in THREE), *((shape, dict(**LORA, kind="ffa_lora")) for shape in THREE),
    *((shape, dict(**LORA, kind="dora")) for shape in THREE), *((shape, dict(kind="ia3")) for shape in THREE),
    *((shape, dict(kind="vera", r=6)) for shape in THREE), *((shape, PROMPT) for shape in THREE),
    *((shape, PREFIX) for shape in ("llama grouped heads", "gpt2", "gpt_neox")),
    *((shape, dict(kind="bottleneck", width=5, activation="gelu")) for shape in THREE),
    *((shape, dict(kind="bitfit")) for shape in ("llama tied, biases, other theta and eps", "gpt2", "bert")),
    ("llama grouped heads", dict(kind="layers", targets=["mlp.up_proj"], blocks=[0, -1], outside=["lm_head"])),
    ("gpt2", dict(kind="layers", outside=["ln_f", "wte"])), ("bert", dict(kind="layers", blocks=[-1])),
    *((shape, dict(kind="full")) for shape in THREE),
]


def parameters_in_peft(model, adapter, kind):
    front = kind in ("prompt_tuning", "prefix_tuning")  # PEFT loads these as they are used only
    peft, _ = loaded(model, adapter, is_trainable=not front)
    if front:
        peft.prompt_encoder.requires_grad_(True)
    found = {}
    for name, parameter in peft.named_parameters():
        if "modules_to_save" in name:
            parameter.requires_grad_(True)
        if not parameter.requires_grad:
            continue
        name = name.removeprefix("base_model.model.").removeprefix("base_model.").replace(".default", "").replace("ia3_l", "ia3")
        name = name.replace(".modules_to_save", "")
        found[name.removesuffix(".weight") if "lora_" in name else name] = parameter
    if kind == "ffa_lora":
        found = {name: parameter for name, parameter in found.items() if not name.endswith("lora_A")}
    return peft, found


def parameters_in_transformers(model, directory, adapter, kind, tmp_path):
    """Of kinds that PEFT does not know: what they change in a model of Transformers, or add to it by hooks."""
    if kind == "bottleneck":
        own = {name: tensor.requires_grad_(True) for name, tensor in load_file(adapter / "adapter_model.safetensors").items()}
        for name, module in model.named_modules():
            if f"{name}.bottleneck_down" in own:
                module.register_forward_hook(bottleneck(own, name, torch.nn.functional.gelu))
        return model, own
    path = adapter if kind == "full" else hansa_cli.merge(directory, adapter, tmp_path / "merged")
    changed = type(model).from_pretrained(path, attn_implementation="eager", dtype=torch.float32).eval()
    own = None if kind == "full" else load_file(adapter / "adapter_model.safetensors")
    return changed, {name: parameter for name, parameter in changed.named_parameters() if own is None or name in own}


@pytest.mark.parametrize("shape,params", GRADIENTS)
def test_gradients_are_those_of_torch(shape, params, tmp_path):
    """The error is at most 1e-4 of the norm of the whole gradient; every value of the adapter is other than zero."""
    model, directory = saved(shape, tmp_path)
    kind = params.get("kind", "lora")
    adapter = hansa_cli.export_adapter(directory, tmp_path / "adapter", **params)
    ids = some_ids(model)
    classes = [1, 0] if shape in encoders.SHAPES else None
    ours = hansa_cli.gradients(directory, ids, tmp_path / "out.safetensors", adapter, classes)
    if kind in ("bottleneck", "bitfit", "layers", "full"):
        reference, parameters = parameters_in_transformers(model, directory, adapter, kind, tmp_path)
    else:
        reference, parameters = parameters_in_peft(model, adapter, kind)
    logits = logits_of(reference, ids if classes else ids[:, :-1], grad=True)
    labels = torch.tensor(classes) if classes else ids[:, 1:].flatten()
    loss = torch.nn.functional.cross_entropy(logits.reshape(len(labels), -1), labels, reduction="sum")
    loss.backward()
    torch.testing.assert_close(ours.pop("loss")[0], loss.detach(), rtol=1e-5, atol=0)
    theirs = {name: parameter.grad for name, parameter in parameters.items()}
    if kind == "prefix_tuning":  # one table of all layers
        ours = {"all": torch.stack([ours[name] for name in sorted(ours)], 1).flatten(1)}  # h.0 keys, h.0 values, h.1 …
    if kind in ("prompt_tuning", "prefix_tuning"):
        own, peft_own = next(iter(ours)), next(name for name in theirs if name.startswith("prompt_encoder"))
        theirs[own] = theirs.pop(peft_own)
    ours = {name.replace("ia3_input", "ia3").replace("ia3_output", "ia3"): gradient for name, gradient in ours.items()}
    assert set(ours) == set(theirs)
    names = sorted(theirs)
    turned = {f"{name}.weight" for name, module in reference.named_modules() if isinstance(module, Conv1D)}
    for name in names:
        theirs[name] = theirs[name].T if name in turned else theirs[name]
        assert kind == "ia3" or ours[name].shape == theirs[name].shape, name
    whole = torch.cat([theirs[name].flatten() for name in names])
    off = torch.cat([ours[name].flatten() for name in names]) - whole
    assert whole.norm() > 0 and off.norm() / whole.norm() < 1e-4, f"{off.norm() / whole.norm():.1e}"


@pytest.mark.parametrize("shape,params", [
    ("gpt2", dict(kind="bitfit")), ("opt", dict(kind="bitfit", targets=["fc1", "final_layer_norm"], blocks=[0])),
    ("gpt2", dict(kind="layers", outside=["ln_f", "wte"])), ("llama grouped heads", dict(kind="layers", targets=["mlp.up_proj"],
                                                                                        blocks=[0, -1], outside=["lm_head"])),
    ("llama grouped heads", dict(kind="ia3")), ("gpt2", dict(kind="vera", r=6))])
def test_a_merged_checkpoint_is_transformers_own_with_the_change(shape, params, tmp_path):
    model, directory = saved(shape, tmp_path)
    ids = some_ids(model)
    plain = logits_of(model, ids)
    adapter = hansa_cli.export_adapter(directory, tmp_path / "adapter", **params)
    ours = hansa_cli.logits(directory, ids, tmp_path / "out.safetensors", adapter=adapter)
    merged = hansa_cli.merge(directory, adapter, tmp_path / "merged")
    theirs, info = AutoModelForCausalLM.from_pretrained(merged, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    assert (ours - plain).abs().max() > 1e-3
    close(ours, logits_of(theirs.eval(), ids))
    if params["kind"] in ("bitfit", "layers"):  # the directory holds the parameters themselves, and no others change
        own = load_file(adapter / "adapter_model.safetensors")
        for name, parameter in theirs.named_parameters():
            before = dict(model.named_parameters())[name]
            assert torch.equal(parameter, before) == (name not in own), name


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_bottlenecks_compute_what_hooks_in_transformers_do(activation, tmp_path):
    model, directory = saved("gpt2", tmp_path)
    ids = some_ids(model)
    plain = logits_of(model, ids)
    adapter = hansa_cli.export_adapter(directory, tmp_path / "adapter", kind="bottleneck", width=5, activation=activation)
    ours = hansa_cli.logits(directory, ids, tmp_path / "out.safetensors", adapter=adapter)
    own = load_file(adapter / "adapter_model.safetensors")
    for name, module in model.named_modules():
        if name.endswith("c_proj"):
            module.register_forward_hook(bottleneck(own, name, getattr(torch.nn.functional, activation)))
    assert (ours - plain).abs().max() > 1e-3
    close(ours, logits_of(model, ids))


REFUSED = {
    "LORA": [("layer_replication", [[0, 2]]), ("target_parameters", ["w"]), ("trainable_token_indices", [1]),
             ("alora_invocation_tokens", [1]), ("use_qalora", True), ("use_bdlora", True), ("lora_bias", True),
             ("eva_config", {"rho": 2.0}), ("corda_config", {"a": 1}), ("arrow_config", {"a": 1}), ("megatron_config", {"a": 1}),
             ("loftq_config", {"bits": 4})],
    "IA3": [("layers_to_transform", [0]), ("mystery_config", {"a": 1})],
    "VERA": [("bias", "all"), ("mystery_config", {"a": 1})],
    "PROMPT_TUNING": [("num_transformer_submodules", 2), ("cpt_token_ids", [1])],
    "PREFIX_TUNING": [("num_transformer_submodules", 2), ("mystery_config", {"a": 1})],
}


def test_keys_of_peft_that_are_not_computed_are_refused_by_name(tmp_path):
    model, directory = saved("llama grouped heads", tmp_path)
    (tmp_path / "ids.json").write_text(json.dumps(some_ids(model).tolist()))
    for kind, params in [("LORA", dict(r=2)), ("IA3", dict(kind="ia3")), ("VERA", dict(kind="vera", r=6)),
                         ("PROMPT_TUNING", PROMPT), ("PREFIX_TUNING", PREFIX)]:
        adapter = hansa_cli.export_adapter(directory, tmp_path / kind, **params)
        config = json.loads((adapter / "adapter_config.json").read_text())
        assert config["peft_type"] == kind
        for key, value in REFUSED[kind]:
            (adapter / "adapter_config.json").write_text(json.dumps({**config, key: value}))
            said = hansa_cli.refusal(directory, tmp_path / "ids.json", adapter)
            assert key in said, (kind, key, said)

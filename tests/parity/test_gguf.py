"""GGUF files that `hansa export` writes: tensors are those of Transformers and PEFT, metadata those of config.json, and
llama.cpp goes on with the same tokens.

Names of tensors are looked up in the tables of the `gguf` package, which llama.cpp's own scripts use.
"""
import json
import os
import subprocess
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from peft import PeftModel
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM

import families
import hansa_cli
from llama_cpp import LlamaCpp

ROOT = Path(__file__).resolve().parent.parent.parent
ROWS = 330  # of the embedding: more than the tokenizer has
ODD = {**families.ODD, "vocab_size": ROWS}


def sized(make, **changes):
    return lambda: make(**{"vocab_size": ROWS, **changes})


# The shape's name begins with that of the architecture in GGUF.
SHAPES = {
    "llama": sized(families.llama),
    "llama tied, biases": sized(families.llama, num_key_value_heads=4, tie_word_embeddings=True, attention_bias=True,
                                mlp_bias=True, rms_norm_eps=1e-3,
                                rope_parameters={"rope_type": "default", "rope_theta": 777.0}),
    "llama odd sizes": sized(families.llama, **ODD),
    "llama linear": sized(families.llama, rope_parameters=families.LINEAR),
    "llama llama3": sized(families.llama, rope_parameters=families.LLAMA3),
    "llama yarn": sized(families.llama, rope_parameters=families.YARN),
    "llama from mistral": sized(families.mistral, sliding_window=None),
    "llama from mistral, window": sized(families.mistral, sliding_window=40),
    "smollm3": sized(families.smollm3),
    "qwen2": sized(families.qwen2),
    "qwen2 yarn, tied": sized(families.qwen2, rope_parameters=families.YARN, tie_word_embeddings=True),
    "qwen3": sized(families.qwen3),
    "gemma2": sized(families.gemma2, query_pre_attn_scalar=14, attn_logit_softcapping=1.5, final_logit_softcapping=20.0),
    "gemma3": sized(families.gemma3, query_pre_attn_scalar=14),
    "gemma3 global layers, scaled": sized(families.gemma3, query_pre_attn_scalar=14, num_hidden_layers=7, rope_parameters={
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}),
    "gemma3 every other layer": sized(families.gemma3, query_pre_attn_scalar=14, layer_types=[
        "sliding_attention", "full_attention", "sliding_attention"]),
    "phi3": sized(families.phi3),
    "phi3 longrope": sized(families.phi3, original_max_position_embeddings=16, rope_parameters=families.longrope(
        6, partial_rotary_factor=0.75)),
    "gpt2": sized(families.gpt2),
    "gpt2 n_inner, untied": sized(families.gpt2, n_inner=50, tie_word_embeddings=False),
}
BYTE_EXPRESSIONS = {
    "gpt-2": None,
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
                 r"\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
TEXTS = ["Hello, world! It's 12345 o'clock.", "  two  spaces\n\n\tand a tab ", "Übergrößenträger naïve 東京 🙂",
         "def f(x):\n    return x**2  # 3.14159", TEXT[:700]]


def byte_level(directory, expression=None, ignore_merges=False, digits=False, size=320):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    steps = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    if expression:
        steps.append(pre_tokenizers.Split(Regex(expression), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not expression))
    tokenizer.pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([TEXT], trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<|begin|>", "<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.add_tokens(["<extra>"])
    tokenizer.post_processor = processors.TemplateProcessing("<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|end|>",
        "chat_template": "{{ messages[0]['content'] }}"}))
    return tokenizer


def byte_fallback(directory, prepend):
    """As Transformers writes a SentencePiece model of byte pairs: every pair that makes a token, token by token."""
    words = ["▁t", "he", "▁the", "in", "er", "an", "▁a", "on", "re", "▁an", "at", "en", "▁in", "or", "st", "▁s", "ing", "▁re"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + words
    tokens += sorted({letter for word in words for letter in word} | set("▁lcdubfgmpvwy"))
    merges = [(word[:i], word[i:]) for word in words for i in range(1, len(word)) if {word[:i], word[i:]} <= set(tokens)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges, unk_token="<unk>", fuse_unk=True,
                                     byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁")] * prepend + [normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}))
    return tokenizer


def export(*arguments, refused=False):
    program = Path(os.environ.get("HANSA_BUILD_DIR", ROOT / "build" / "release")) / "apps" / "hansa" / "hansa"
    done = subprocess.run([program, "export", *map(str, arguments)], capture_output=True, encoding="utf-8", timeout=300,
                          check=False)
    assert (done.returncode != 0) == refused, done.stderr
    return done.stderr


def saved(shape, directory):
    """The model is sharp, so that the likeliest token leads clearly: what computes in another order says the same."""
    torch.manual_seed(sum(map(ord, shape)))
    model = SHAPES[shape]()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.eval().save_pretrained(directory)
    byte_level(directory)
    return model


def unpermuted(rows, heads):
    """Back from neighbours that turn together to halves."""
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def tensors_of(path):
    reader = gguf.GGUFReader(path)
    found = {}
    for tensor in reader.tensors:
        assert tensor.data_offset % 32 == 0
        data = gguf.dequantize(tensor.data, tensor.tensor_type)
        found[tensor.name] = torch.from_numpy(data.reshape(tuple(reversed(tensor.shape.tolist()))).copy())
    return reader, found


def field(reader, key):
    return reader.get_field(key).contents()


class Expected:
    """A module's tensor as GGUF has it, by the tables of the gguf package."""

    def __init__(self, config):
        self.config = config
        self.arch = {"mistral": "llama", "gemma3_text": "gemma3"}.get(config.model_type, config.model_type)
        number = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == self.arch)
        self.names = gguf.get_tensor_name_map(number, config.num_hidden_layers)

    def name(self, name):
        return self.names.get_name(name, try_suffixes=(".weight", ".bias"))

    def undone(self, name, values):
        """The checkpoint's rows again; of a low-rank pair's B too."""
        if self.arch in ("llama", "smollm3"):
            if ".q_proj." in name:
                return unpermuted(values, self.config.num_attention_heads)
            if ".k_proj." in name:
                return unpermuted(values, self.config.num_key_value_heads)
        if self.arch.startswith("gemma") and "norm" in name:
            return values - 1
        return values


def merged_by_peft(directory, adapter):
    base = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager")
    return PeftModel.from_pretrained(base, adapter).merge_and_unload().eval()


def follow(model, rows, count):
    """Greedy continuations of rows of ids, and by how much the closest call of each was decided."""
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        out = model.generate(rows, max_new_tokens=count, do_sample=False, output_logits=True, return_dict_in_generate=True,
                             pad_token_id=0)
    best = torch.stack(out.logits, 1).float().topk(2).values
    return out.sequences[:, rows.shape[1]:], (best[..., 0] - best[..., 1]).min(1).values


def clear_prompt(model, count, other=None):
    """A prompt and its continuation, which is never a close call, ends nowhere, and which `other` does not give."""
    rows = torch.randint(5, 300, (64, 20), generator=torch.Generator().manual_seed(3))
    tokens, leads = follow(model, rows, count)
    for i in leads.argsort(descending=True).tolist():
        found = tokens[i].tolist()
        if leads[i] > 0.05 and min(found) > 2 and len(set(found)) > 3:
            if not other or follow(other, rows[i:i + 1], count)[0][0].tolist() != found:
                return rows[i].tolist(), found
    raise AssertionError("no prompt has a clear continuation: sharpen the model")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_merged_model(shape, tmp_path):
    saved(shape, tmp_path)
    adapter = hansa_cli.export_adapter(tmp_path, tmp_path / "adapter", targets=["all-linear"], r=3, alpha=5.0)
    path = tmp_path / "m.gguf"
    notes = export("--model", tmp_path, "--adapter", adapter, "--merged", "--gguf", path, "--type", "f32")
    model = merged_by_peft(tmp_path, adapter)
    config = model.config
    expected = Expected(config)
    reader, tensors = tensors_of(path)

    assert field(reader, "general.architecture") == expected.arch == shape.split(" ")[0].rstrip(",")
    numbers = {"block_count": config.num_hidden_layers, "embedding_length": config.hidden_size, "vocab_size": ROWS,
               "attention.head_count": config.num_attention_heads,
               "context_length": 40 if shape.endswith("window") else config.max_position_embeddings}
    for key, value in numbers.items():
        assert field(reader, f"{expected.arch}.{key}") == value, key
    assert ("window of 40 tokens" in notes) == shape.endswith("window")

    left = set(tensors) - {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}
    for name, values in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        ours = tensors[expected.name(name)]
        left.remove(expected.name(name))
        if expected.arch == "gpt2" and values.dim() == 2 and ".h." in name:
            ours = ours.T
        torch.testing.assert_close(expected.undone(name, ours), values, atol=1e-6, rtol=1e-5, msg=name)
    assert not left

    ids, tokens = clear_prompt(model, 16)
    assert LlamaCpp(path).follow(ids, 16) == tokens


@pytest.mark.parametrize("shape", [one for one in SHAPES if "tied" not in one or "untied" in one])
def test_an_adapter_on_its_base(shape, tmp_path):
    base = saved(shape, tmp_path)
    head = [] if base.config.tie_word_embeddings else ["lm_head"]
    adapter = hansa_cli.export_adapter(tmp_path, tmp_path / "adapter", targets=["all-linear", *head], r=3, alpha=5.0)
    path, base_path = tmp_path / "a.gguf", tmp_path / "b.gguf"
    export("--model", tmp_path, "--adapter", adapter, "--gguf", path)
    export("--model", tmp_path, "--merged", "--gguf", base_path, "--type", "f32")
    expected = Expected(base.config)
    reader, tensors = tensors_of(path)
    assert field(reader, "general.type") == "adapter" and field(reader, "adapter.type") == "lora"
    assert field(reader, "general.architecture") == expected.arch
    assert field(reader, "adapter.lora.alpha") == 5.0

    peft = PeftModel.from_pretrained(base, adapter)
    left = set(tensors)
    for name, values in peft.state_dict().items():
        if "lora_" not in name:
            continue
        module = name.removeprefix("base_model.model.").split(".lora_")[0] + ".weight"
        ours = f"{expected.name(module)}.lora_{'a' if 'lora_A' in name else 'b'}"
        left.remove(ours)
        got = tensors[ours] if ours.endswith("a") else expected.undone(module, tensors[ours])
        torch.testing.assert_close(got, values, atol=0, rtol=0, msg=name)
    assert not left

    alone = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids, tokens = clear_prompt(peft.merge_and_unload().eval(), 16, alone)
    assert LlamaCpp(base_path, [path]).follow(ids, 16) == tokens


def test_an_adapter_with_ranks_and_scales_of_its_own(tmp_path):
    """Residuals of a rule: several pairs of a module, ranks that differ. llama.cpp knows one alpha."""
    base = saved("llama", tmp_path)
    adapter = hansa_cli.export_adapter(tmp_path, tmp_path / "adapter", residual={"q_proj": 5, "layers.1.mlp.up_proj": 2},
                                       targets=["all-linear"], r=2, alpha=7.0)
    export("--model", tmp_path, "--adapter", adapter, "--gguf", tmp_path / "a.gguf")
    reader, tensors = tensors_of(tmp_path / "a.gguf")
    alpha = field(reader, "adapter.lora.alpha")
    expected = Expected(base.config)
    for name, module in PeftModel.from_pretrained(base, adapter).named_modules():
        if not hasattr(module, "lora_A") or not module.lora_A:
            continue
        name = name.removeprefix("base_model.model.") + ".weight"
        A, B = (tensors[f"{expected.name(name)}.lora_{side}"] for side in "ab")
        change = expected.undone(name, B @ A) * alpha / A.shape[0]
        torch.testing.assert_close(change, module.get_delta_weight("default").detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("number,dtype", [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_matrices_in_a_smaller_type(number, dtype, tmp_path):
    model = saved("qwen2", tmp_path)
    export("--model", tmp_path, "--merged", "--gguf", tmp_path / "m.gguf", "--type", number)
    reader, tensors = tensors_of(tmp_path / "m.gguf")
    assert field(reader, "general.file_type") == {"f16": 1, "bf16": 32}[number]
    expected = Expected(model.config)
    for name, values in model.state_dict().items():
        wanted = values.to(dtype).float() if values.dim() > 1 else values
        assert torch.equal(tensors[expected.name(name)], wanted), name
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(parameter.to(dtype))
    ids, tokens = clear_prompt(model, 8)
    assert LlamaCpp(tmp_path / "m.gguf").follow(ids, 8) == tokens


@pytest.mark.parametrize("pre,options", [
    ("gpt-2", {}), ("smollm", dict(digits=True)), ("llama-bpe", dict(ignore_merges=True)), ("smaug-bpe", {}), ("qwen2", {})])
def test_a_byte_level_tokenizer(pre, options, tmp_path):
    saved("llama", tmp_path)
    expression = BYTE_EXPRESSIONS.get({"smaug-bpe": "llama-bpe"}.get(pre, pre))
    tokenizer = byte_level(tmp_path, expression, **options)
    export("--model", tmp_path, "--merged", "--gguf", tmp_path / "m.gguf")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    assert field(reader, "tokenizer.ggml.pre") == pre
    tokens, types = field(reader, "tokenizer.ggml.tokens"), field(reader, "tokenizer.ggml.token_type")
    assert len(tokens) == len(types) == ROWS
    assert tokens[:321] == [tokenizer.id_to_token(i) for i in range(321)] and tokens[321] == "[PAD321]"
    assert [types[i] for i in (0, 1, 2, 320, 321)] == [3, 3, 1, 4, 5]
    for key, value in {"bos_token_id": 0, "eos_token_id": 1, "padding_token_id": 1, "add_bos_token": True,
                       "add_eos_token": False}.items():
        assert field(reader, f"tokenizer.ggml.{key}") == value, key
    assert field(reader, "tokenizer.chat_template") == "{{ messages[0]['content'] }}"
    llama = LlamaCpp(tmp_path / "m.gguf")
    for text in [*TEXTS, "<|begin|>one<extra>two<|end|>"]:
        assert llama.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids, text
        assert llama.encode(text, special=True) == tokenizer.encode(text).ids, text
        assert llama.decode(tokenizer.encode(text, add_special_tokens=False).ids) == tokenizer.decode(
            tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False), text


@pytest.mark.parametrize("prepend", [True, False])
def test_a_tokenizer_with_byte_fallback(prepend, tmp_path):
    saved("llama", tmp_path)
    tokenizer = byte_fallback(tmp_path, prepend)
    export("--model", tmp_path, "--merged", "--gguf", tmp_path / "m.gguf")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    assert field(reader, "tokenizer.ggml.model") == "llama"
    assert field(reader, "tokenizer.ggml.add_space_prefix") == prepend
    types = field(reader, "tokenizer.ggml.token_type")
    assert [types[i] for i in (0, 1, 2, 3, 258, 259)] == [2, 3, 3, 6, 6, 1]
    llama = LlamaCpp(tmp_path / "m.gguf")
    for text in TEXTS:
        assert llama.encode(text) == tokenizer.encode(text, add_special_tokens=False).ids, text


def test_a_sentencepiece_model(tmp_path):
    import sentencepiece

    saved("llama", tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "text").write_text(TEXT)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(tmp_path / "tokenizer"), model_type="bpe", vocab_size=325,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.98,
        minloglevel=2)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True, "legacy": True}))
    export("--model", tmp_path, "--merged", "--gguf", tmp_path / "m.gguf")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    assert field(reader, "tokenizer.ggml.tokens")[:325] == [pieces.id_to_piece(i) for i in range(325)]
    np.testing.assert_array_equal(np.float32(field(reader, "tokenizer.ggml.scores")[3:325]),
                                  np.float32([pieces.get_score(i) for i in range(3, 325)]))
    llama = LlamaCpp(tmp_path / "m.gguf")
    for text in TEXTS:
        assert llama.encode(text) == pieces.encode(text), text
        assert llama.encode(text, special=True) == [1, *pieces.encode(text)], text


def test_refusals_say_what_and_what_to_do(tmp_path):
    model = saved("llama tied, biases", tmp_path)
    path = tmp_path / "x.gguf"
    dora = hansa_cli.export_adapter(tmp_path, tmp_path / "dora", kind="dora", targets=["q_proj"], r=2)
    assert "--merged" in export("--model", tmp_path, "--adapter", dora, "--gguf", path, refused=True)
    assert "--out DIR, --gguf FILE" in export("--model", tmp_path, "--merged", refused=True)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["add_prefix_space"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "no pre-tokenizer" in export("--model", tmp_path, "--merged", "--gguf", path, refused=True)
    (tmp_path / "tokenizer.json").unlink()
    assert "no tokenizer" in export("--model", tmp_path, "--merged", "--gguf", path, refused=True)
    opt = families.opt()
    opt.save_pretrained(tmp_path / "opt")
    assert "model_type 'opt'" in export("--model", tmp_path / "opt", "--merged", "--gguf", path, refused=True)
    byte_level(tmp_path)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 1e5
    model.save_pretrained(tmp_path)
    assert "choose bf16 or f32" in export("--model", tmp_path, "--merged", "--gguf", path, refused=True)
    assert not path.exists() and not list(tmp_path.glob("x.gguf*"))
    path.write_text("mine")
    assert "exists already" in export("--model", tmp_path, "--merged", "--gguf", path, refused=True)

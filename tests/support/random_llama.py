"""A Llama checkpoint of random bf16 weights, written tensor by tensor: of any size, in little memory."""

import json
import struct
from pathlib import Path

import torch


def _tensors(config):
    """Name and shape of each, as the files of the hub have them."""
    width, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    head = config.get("head_dim") or width // config["num_attention_heads"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    yield "model.embed_tokens.weight", (vocabulary, width)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for name, shape in {"self_attn.q_proj": (queries, width), "self_attn.k_proj": (keys, width),
                            "self_attn.v_proj": (keys, width), "self_attn.o_proj": (width, queries),
                            "mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width), "mlp.down_proj": (width, inner),
                            "input_layernorm": (width,), "post_attention_layernorm": (width,)}.items():
            yield f"{layer}.{name}.weight", shape
    yield "model.norm.weight", (width,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (vocabulary, width)


def write_llama(folder, config, seed=0):
    """config.json and model.safetensors; `folder` is made."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    header, offset = {}, 0
    for name, shape in _tensors(config):
        end = offset + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = torch.Generator().manual_seed(seed)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape in _tensors(config):
            values = torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=generator) * 0.02
            file.write(values.bfloat16().view(torch.int16).numpy().data)

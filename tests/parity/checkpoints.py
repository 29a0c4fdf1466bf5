"""Random-weight checkpoints of several shapes, as Transformers writes them. Nothing stays at its initial value."""
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}


def llama(**changes):
    base = dict(vocab_size=73, hidden_size=48, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=96, tie_word_embeddings=False)
    return LlamaForCausalLM(LlamaConfig(**{**base, **changes}))


def gpt2(**changes):
    base = dict(vocab_size=61, n_positions=80, n_embd=36, n_layer=3, n_head=3)
    return GPT2LMHeadModel(GPT2Config(**{**base, **changes}))


SHAPES = {
    "llama grouped heads": lambda: llama(),
    "llama one key head": lambda: llama(num_key_value_heads=1),
    "llama full heads, tied": lambda: llama(num_key_value_heads=4, tie_word_embeddings=True),
    "llama odd sizes": lambda: llama(vocab_size=101, hidden_size=45, intermediate_size=67, num_attention_heads=3,
                                     num_key_value_heads=3, head_dim=10),
    "llama wide heads": lambda: llama(head_dim=32),
    "llama biases": lambda: llama(attention_bias=True, mlp_bias=True),
    "llama llama3 scaling": lambda: llama(rope_parameters=LLAMA3),
    "llama other theta, eps": lambda: llama(rope_parameters={"rope_type": "default", "rope_theta": 777.0}, rms_norm_eps=1e-3),
    "gpt2": lambda: gpt2(),
    "gpt2 n_inner, untied": lambda: gpt2(n_inner=50, tie_word_embeddings=False),
    "gpt2 inverse layer": lambda: gpt2(scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True),
    "gpt2 unscaled": lambda: gpt2(scale_attn_weights=False, layer_norm_epsilon=1e-3),
}


def make(shape):
    torch.manual_seed(sum(map(ord, shape)))
    model = SHAPES[shape]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def some_ids(model, rows=2, length=40):
    return torch.randint(0, model.config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(1))

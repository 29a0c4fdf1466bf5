"""Small models of every family of decoders, as Transformers writes them, and their config.json in older and sparser spellings.

SHAPES: name -> model, of at least three shapes a family. SPELLINGS: (shape, change of config.json) that read the same.
"""
import torch
from transformers import (
    Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel, GPTNeoXConfig,
    GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, OPTConfig, OPTForCausalLM,
    Phi3Config, Phi3ForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM, SmolLM3Config,
    SmolLM3ForCausalLM)

# Odd sizes, grouped heads, texts shorter than most limits and longer than the windows.
SIZES = dict(vocab_size=73, hidden_size=48, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=96, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2,
             pad_token_id=0)
ODD = dict(vocab_size=101, hidden_size=45, intermediate_size=67, num_attention_heads=3, num_key_value_heads=3, head_dim=10)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 24}
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}


def of(config, model, **base):
    return lambda **changes: model(config(**{**SIZES, **base, **changes}))


llama = of(LlamaConfig, LlamaForCausalLM)
smollm3 = of(SmolLM3Config, SmolLM3ForCausalLM, num_hidden_layers=4)
mistral = of(MistralConfig, MistralForCausalLM, sliding_window=7)
qwen2 = of(Qwen2Config, Qwen2ForCausalLM)
qwen3 = of(Qwen3Config, Qwen3ForCausalLM, head_dim=14)
gemma2 = of(Gemma2Config, Gemma2ForCausalLM, head_dim=14, sliding_window=6, query_pre_attn_scalar=10,
            tie_word_embeddings=True)
gemma3 = of(Gemma3TextConfig, Gemma3ForCausalLM, head_dim=14, sliding_window=6, query_pre_attn_scalar=10,
            tie_word_embeddings=True)
phi3 = of(Phi3Config, Phi3ForCausalLM, hidden_size=64, original_max_position_embeddings=96)


def longrope(pairs, **more):
    return {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0 + 0.1 * i for i in range(pairs)],
            "long_factor": [2.0 + 0.7 * i for i in range(pairs)], **more}


def gpt2(**changes):
    return GPT2LMHeadModel(GPT2Config(**{**dict(vocab_size=61, n_positions=80, n_embd=36, n_layer=3, n_head=3), **changes}))


def neox(**changes):
    sizes = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**{**sizes, "hidden_size": 64, **changes}))


def opt(**changes):
    base = dict(vocab_size=73, hidden_size=48, ffn_dim=56, num_hidden_layers=3, num_attention_heads=4,
                max_position_embeddings=96, pad_token_id=1, word_embed_proj_dim=48)
    return OPTForCausalLM(OPTConfig(**{**base, **changes}))


SHAPES = {
    "llama grouped heads": lambda: llama(),
    "llama tied, biases, other theta and eps": lambda: llama(
        num_key_value_heads=4, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-3,
        rope_parameters={"rope_type": "default", "rope_theta": 777.0}),
    "llama odd sizes": lambda: llama(**ODD),
    "llama one key head, linear": lambda: llama(num_key_value_heads=1, rope_parameters=LINEAR),
    "llama llama3": lambda: llama(rope_parameters=LLAMA3),
    "llama dynamic, within": lambda: llama(rope_parameters=DYNAMIC),
    "llama dynamic, beyond": lambda: llama(rope_parameters=DYNAMIC, max_position_embeddings=16),
    "llama yarn": lambda: llama(rope_parameters=YARN),
    "llama yarn, all keys": lambda: llama(rope_parameters={
        **YARN, "beta_fast": 20.0, "beta_slow": 2.0, "mscale": 0.7, "mscale_all_dim": 0.3, "truncate": False}, head_dim=32),
    "smollm3": lambda: smollm3(),
    "smollm3 tied, biases": lambda: smollm3(tie_word_embeddings=True, attention_bias=True, mlp_bias=True,
                                            no_rope_layer_interval=2),
    "smollm3 default base": lambda: smollm3(rope_parameters={"rope_type": "default", "rope_theta": 2e6}),
    "smollm3 no_rope_layers": lambda: smollm3(no_rope_layers=[0, 1, 1, 0], num_key_value_heads=1),
    "smollm3 odd sizes": lambda: smollm3(**ODD),
    "mistral window": lambda: mistral(),
    "mistral no window, odd": lambda: mistral(sliding_window=None, **ODD),
    "mistral wide heads, tied": lambda: mistral(head_dim=20, num_key_value_heads=4, tie_word_embeddings=True),
    "qwen2": lambda: qwen2(),
    "qwen2 windows from a layer on, tied": lambda: qwen2(use_sliding_window=True, sliding_window=5, max_window_layers=1,
                                                         tie_word_embeddings=True),
    "qwen2 yarn": lambda: qwen2(num_key_value_heads=1, rope_parameters=YARN),
    "qwen2 odd sizes": lambda: qwen2(**{**ODD, "num_key_value_heads": 1}),
    "qwen3": lambda: qwen3(),
    "qwen3 odd sizes": lambda: qwen3(**ODD),
    "qwen3 biases, tied": lambda: qwen3(attention_bias=True, tie_word_embeddings=True, num_key_value_heads=1),
    "qwen3 layer_types": lambda: qwen3(use_sliding_window=True, sliding_window=5, layer_types=[
        "sliding_attention", "full_attention", "sliding_attention"]),
    "gemma2": lambda: gemma2(attn_logit_softcapping=1.5, final_logit_softcapping=2.0),
    "gemma2 no caps, untied": lambda: gemma2(attn_logit_softcapping=None, final_logit_softcapping=None,
                                             tie_word_embeddings=False, attention_bias=True),
    "gemma2 layer_types": lambda: gemma2(num_key_value_heads=1, layer_types=["full_attention", "full_attention",
                                                                              "sliding_attention"]),
    "gemma2 odd sizes": lambda: gemma2(**ODD),
    "gemma3": lambda: gemma3(),
    "gemma3 odd sizes": lambda: gemma3(**ODD),
    "gemma3 scaled global layers": lambda: gemma3(num_hidden_layers=7, rope_parameters={
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}),
    "gemma3 cap, untied, biases": lambda: gemma3(final_logit_softcapping=2.0, attention_bias=True, tie_word_embeddings=False,
                                                  num_key_value_heads=1, layer_types=[
                                                      "full_attention", "sliding_attention", "full_attention"]),
    "phi3": lambda: phi3(),
    "phi3 longrope, short, window, tied": lambda: phi3(
        sliding_window=9, tie_word_embeddings=True, original_max_position_embeddings=48, rope_parameters=longrope(8)),
    "phi3 longrope, long, part of a head": lambda: phi3(
        original_max_position_embeddings=16, rope_parameters=longrope(6, partial_rotary_factor=0.75)),
    "phi3 odd sizes": lambda: phi3(vocab_size=101, hidden_size=42, intermediate_size=67, num_attention_heads=3,
                                   num_key_value_heads=1),
    "gpt2": lambda: gpt2(),
    "gpt2 n_inner, untied": lambda: gpt2(n_inner=50, tie_word_embeddings=False),
    "gpt2 inverse layer": lambda: gpt2(scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True),
    "gpt2 unscaled": lambda: gpt2(scale_attn_weights=False, layer_norm_epsilon=1e-3),
    "gpt_neox": lambda: neox(),
    "gpt_neox one after the other, no biases": lambda: neox(use_parallel_residual=False, attention_bias=False),
    "gpt_neox all of a head, tied, odd": lambda: neox(
        vocab_size=101, hidden_size=42, intermediate_size=67, num_attention_heads=3, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0}),
    "opt": lambda: opt(),
    "opt norms last, narrow embedding": lambda: opt(do_layer_norm_before=False, word_embed_proj_dim=20),
    "opt bare norms, no biases, untied, gelu": lambda: opt(enable_bias=False, layer_norm_elementwise_affine=False,
                                                           activation_function="gelu", tie_word_embeddings=False),
    "opt odd sizes": lambda: opt(vocab_size=101, hidden_size=45, ffn_dim=67, num_attention_heads=3, word_embed_proj_dim=45),
    "opt no final norm": lambda: opt(_remove_final_layer_norm=True),
}


def make(shape):
    """Nothing stays at its initial value: norms and biases too."""
    torch.manual_seed(sum(map(ord, shape)))
    model = SHAPES[shape]()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.08)
    return model.eval()


def older_rope(config):
    """rope_theta and rope_scaling instead of rope_parameters, torch_dtype instead of dtype."""
    table = config.pop("rope_parameters", None) or {}
    config["rope_theta"] = table.pop("rope_theta", 10000.0)
    if "partial_rotary_factor" in table:
        config["partial_rotary_factor"] = table.pop("partial_rotary_factor")
    if table.get("rope_type", "default") != "default":
        table["type"] = table.pop("rope_type")
        config["rope_scaling"] = table
    config["torch_dtype"] = config.pop("dtype", "float32")


def older_neox(config):
    table = config.pop("rope_parameters")
    config.update(rotary_emb_base=table["rope_theta"], rotary_pct=table["partial_rotary_factor"], rope_scaling=None)


def older_gemma3(config):
    tables = config.pop("rope_parameters")
    config.update(rope_theta=tables["full_attention"]["rope_theta"], sliding_window_pattern=6,
                  rope_local_base_freq=tables["sliding_attention"]["rope_theta"],
                  rope_scaling={"rope_type": "linear", "factor": 8.0})
    config.pop("layer_types")


def su(config):
    older_rope(config)
    config["rope_scaling"]["type"] = "su"


def without(*keys):
    return lambda config: [config.pop(key, None) for key in keys]


def null(*keys):
    return lambda config: config.update(dict.fromkeys(keys))


def beaten(key, value):
    """Another key says otherwise, and the one that is there counts more."""
    return lambda config: config.update({key: value})


def both_ropes(config):
    """rope_scaling, as it was written before, beside a newer table that would turn otherwise."""
    older_rope(config)
    config["rope_parameters"] = {"rope_type": "linear", "rope_theta": config["rope_theta"], "factor": 17.0}


COMMON = ("attention_dropout", "rms_norm_eps", "initializer_range", "use_cache")
SPELLINGS = [
    *((shape, older_rope) for shape in (
        "llama one key head, linear", "llama llama3", "llama dynamic, beyond", "llama yarn", "smollm3", "mistral window",
        "qwen2 yarn", "qwen3", "gemma2", "phi3 longrope, short, window, tied", "phi3 longrope, long, part of a head")),
    ("phi3 longrope, long, part of a head", su),
    ("gpt_neox", older_neox),
    ("gemma3 scaled global layers", older_gemma3),
    ("llama grouped heads", without("head_dim", "attention_bias", "mlp_bias", "hidden_act", "rope_parameters",
                                    "tie_word_embeddings", *COMMON)),
    ("llama grouped heads", null("head_dim", "rope_parameters")),
    ("llama tied, biases, other theta and eps", without("num_key_value_heads")),
    ("llama tied, biases, other theta and eps", null("num_key_value_heads")),
    ("smollm3 tied, biases", without("tie_word_embeddings", "no_rope_layers", "layer_types", "use_sliding_window", *COMMON)),
    ("smollm3", null("no_rope_layers", "layer_types", "sliding_window")),
    ("mistral no window, odd", null("sliding_window")),
    ("mistral window", without("hidden_act", "tie_word_embeddings", *COMMON)),
    ("qwen2", without("layer_types", "use_sliding_window", "sliding_window", "max_window_layers", *COMMON)),
    ("qwen2 windows from a layer on, tied", null("layer_types")),
    ("qwen3", without("layer_types", "attention_bias", *COMMON)),
    ("gemma2", without("layer_types", "tie_word_embeddings", "hidden_activation", *COMMON)),
    ("gemma2 no caps, untied", null("attn_logit_softcapping", "final_logit_softcapping", "layer_types")),
    ("gemma3", without("layer_types", "rope_parameters", "tie_word_embeddings", "attention_bias", *COMMON)),
    ("gemma3", null("layer_types", "rope_parameters", "attn_logit_softcapping", "final_logit_softcapping")),
    ("phi3", without("resid_pdrop", "embd_pdrop", "sliding_window", "tie_word_embeddings", *COMMON[:1], *COMMON[2:])),
    ("phi3", null("rope_parameters", "sliding_window")),
    ("gpt2", without("n_inner", "activation_function", "scale_attn_weights", "layer_norm_epsilon", "resid_pdrop",
                     "tie_word_embeddings", "scale_attn_by_inverse_layer_idx")),
    ("gpt2", null("n_inner")),
    ("gpt_neox", without("rope_parameters", "attention_bias", "use_parallel_residual", "hidden_dropout", "layer_norm_eps",
                         "tie_word_embeddings")),
    ("opt", without("enable_bias", "layer_norm_elementwise_affine", "do_layer_norm_before", "_remove_final_layer_norm",
                    "word_embed_proj_dim", "tie_word_embeddings", "activation_function", "layerdrop")),
    ("opt", null("word_embed_proj_dim")),
    # What is null counts as absent.
    ("qwen3", null("rope_scaling", "layer_types", "sliding_window")),
    ("mistral no window, odd", null("rope_scaling")),
    ("gpt_neox", null("rope_scaling")),
    # Neither rope_parameters nor rope_theta: each family's own base.
    *((shape, without("rope_parameters", "rope_theta")) for shape in (
        "mistral window", "qwen2", "qwen3", "gemma2", "phi3", "smollm3 default base")),
    # An absent window is one of 4096 tokens, not none: these texts are shorter.
    ("mistral no window, odd", without("sliding_window")),
    ("llama yarn", both_ropes), ("llama llama3", both_ropes),
    # layer_types count more than the keys that say a pattern.
    ("qwen3 layer_types", beaten("max_window_layers", 0)),
    ("gemma3 cap, untied, biases", beaten("sliding_window_pattern", 2)),
    ("smollm3 no_rope_layers", beaten("no_rope_layer_interval", 2)),
]

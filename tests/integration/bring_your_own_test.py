"""configs/bring_your_own.toml as a user follows it: a checkpoint from Transformers, text files of one's own."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from federation import WORDS, make_base, text_of
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[2]
MODELS = {"llama": lambda: LlamaForCausalLM(LlamaConfig(vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                                        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
                                                        bos_token_id=0, eos_token_id=0)),
          "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=512, bos_token_id=0,
                                                     eos_token_id=0))}


@pytest.mark.parametrize("kind", MODELS)
def test_the_pipeline_for_ones_own_checkpoint_runs_as_it_is(hansa, tmp_path, kind):
    (tmp_path / "configs").mkdir()
    config = shutil.copy(ROOT / "configs" / "bring_your_own.toml", tmp_path / "configs")
    base = tmp_path / "models" / "SmolLM2-135M"
    make_base(base)  # for its tokenizer
    torch.manual_seed(1)
    MODELS[kind]().save_pretrained(base)
    (tmp_path / "my_data").mkdir()
    for name, language in zip(("first", "second"), WORDS):
        (tmp_path / "my_data" / f"{name}.txt").write_text(text_of(language, 40))
        (tmp_path / "my_data" / f"{name}_heldout.txt").write_text(text_of(language, 4))

    fewer = ["--set", "run.rounds=2", "--set", "trainer.steps=3", "--set", "trainer.learning_rate=0.003", "--set", "trainer.warmup_steps=1"]
    done = hansa("run", config, "--run-dir", tmp_path / "run", "--set", f"model.use={kind}", *fewer)
    assert done.returncode == 0, done.stdout + done.stderr
    loss = json.loads((tmp_path / "run" / "summary.json").read_text())["loss"]
    assert set(loss) == {"base", "local-first", "local-second", "federated"}
    assert all(loss["federated"][silo] < loss["base"][silo] for silo in ("first", "second"))

    # What comes out is theirs again: PEFT's adapter on their base.
    from peft import PeftModel
    adapter = tmp_path / "run" / "adapter"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    ids = [[1, 40, 99, 7], [3, 3, 250, 12]]
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    done = hansa("inspect", "logits", "--model", base, "--adapter", adapter, "--tokens", tmp_path / "ids.json", "--out",
                 tmp_path / "logits.safetensors")
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(load_file(tmp_path / "logits.safetensors")["logits"], model(torch.tensor(ids)).logits, atol=1e-4, rtol=0)

"""`hansa eval` and `hansa generate` beside Transformers, on tiny checkpoints that Transformers wrote; and what sampling does."""

import json
import math
from collections import Counter

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from checkpoints import gpt2, llama

TEXTS = ["der Hund und die Katze laufen durch den Wald", "il gatto dorme sotto il sole del mattino\ne poi mangia",
         "kot siedzi na oknie i patrzy w dal: żółć", "x", "ein sehr langer Satz, " * 30 + "endlich aus"]
VOCABULARY, LENGTH = 300, 96


def save_tokenizer(folder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"], show_progress=False,
                                                             initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>",
                                   clean_up_tokenization_spaces=False)
    fast.save_pretrained(folder)
    return fast


def checkpoint(folder, kind):
    torch.manual_seed(7)
    sizes = {"llama": lambda: llama(vocab_size=VOCABULARY, max_position_embeddings=LENGTH, bos_token_id=0, eos_token_id=0),
             "gpt2": lambda: gpt2(vocab_size=VOCABULARY, n_positions=LENGTH, bos_token_id=0, eos_token_id=0)}
    model = sizes[kind]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        model.get_output_embeddings().weight[0] = 0  # the end of a text is never the likeliest token
    model.save_pretrained(folder)
    return model, save_tokenizer(folder)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_loss_perplexity_and_bits_per_byte_are_those_of_transformers(kind, hansa, tmp_path):
    model, tokenizer = checkpoint(tmp_path / "m", kind)
    (tmp_path / "text.txt").write_text("\n%\n".join(TEXTS) + "\n")
    done = hansa("eval", "--model", tmp_path / "m", "--data", tmp_path / "text.txt", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)

    nats, counted, size = 0.0, 0, 0
    for text in TEXTS:  # each alone: start, its tokens, end; a longer one in windows that share one token
        ids = [0, *tokenizer.encode(text, add_special_tokens=False), 0]
        for begin in range(0, len(ids) - 1, LENGTH):
            window = torch.tensor([ids[begin:begin + LENGTH + 1]])
            with torch.no_grad():
                scores = torch.log_softmax(model(window[:, :-1]).logits.double(), -1)
            nats -= scores.gather(-1, window[:, 1:, None]).sum().item()
        counted += len(ids) - 1
        size += len(text.encode())
    assert (found["tokens"], found["bytes"]) == (counted, size)
    assert found["loss"] == pytest.approx(nats / counted, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(nats / counted), rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(nats / size / math.log(2), rel=1e-5)
    words = hansa("eval", "--model", tmp_path / "m", "--data", tmp_path / "text.txt").stdout
    assert f"perplexity     {found['perplexity']:.4f}" in words and f"bits per byte  {found['bits_per_byte']:.6f}" in words


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_greedy_text_is_that_of_transformers(kind, hansa, tmp_path):
    model, tokenizer = checkpoint(tmp_path / "m", kind)
    for prompt in ("der Hund", "kot siedzi"):
        ids = [0, *tokenizer.encode(prompt, add_special_tokens=False)]
        made = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=30, pad_token_id=0)[0, len(ids):]
        expected = tokenizer.decode(made, skip_special_tokens=True)
        done = hansa("generate", "--model", tmp_path / "m", "--prompt", prompt, "--max-tokens", 30, "--temperature", 0, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        assert len(expected) > 5 and done.stdout == prompt + expected + "\n"


# ---- sampling: a model that says the same of every next token, so that what is drawn can be counted

LETTERS = {"a": 2.0, "b": 1.5, "c": 1.0, "d": 0.0}


@pytest.fixture(scope="module")
def dice(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dice")
    tokenizer = save_tokenizer(folder)
    model = llama(vocab_size=VOCABULARY, hidden_size=16, intermediate_size=16, num_hidden_layers=1, max_position_embeddings=1200)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # every token looks the same, and no layer adds to it
            parameter.fill_(1.0 if "embed" in name or "norm" in name else 0.0)
        model.lm_head.weight.fill_(-2.0)
        for letter, score in LETTERS.items():
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(letter)] = score / 16
    LlamaForCausalLM.save_pretrained(model, folder)
    return folder


@pytest.fixture(scope="module")
def sample(hansa, dice):
    def run(tokens=900, **options):
        words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
        done = hansa("generate", "--model", dice, "--prompt", "a", "--max-tokens", tokens, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout[1:-1]
    return run


@pytest.mark.parametrize("temperature, top_p, kept", [(1.0, 1.0, "abcd"), (0.5, 1.0, "abcd"), (1.0, 0.75, "ab"), (1.0, 0.9, "abc")])
def test_tokens_are_drawn_as_temperature_and_top_p_say(sample, temperature, top_p, kept):
    text = sample(temperature=temperature, top_p=top_p, seed=3)
    weights = {letter: math.exp(LETTERS[letter] / temperature) for letter in kept}
    counts = Counter(text)
    assert set(counts) <= set(kept) and len(text) == 900
    for letter, weight in weights.items():
        share = weight / sum(weights.values())
        assert abs(counts[letter] - 900 * share) < 4 * math.sqrt(900 * share * (1 - share)), counts


def test_the_same_seed_gives_the_same_text_and_another_one_another(sample):
    options = {"tokens": 60, "temperature": 1, "top_p": 1}
    assert sample(seed=1, **options) == sample(seed=1, **options) != sample(seed=2, **options)


def test_no_temperature_and_hardly_any_probability_give_the_likeliest(sample):
    assert sample(tokens=20, temperature=0) == sample(tokens=20, temperature=1, top_p=1e-6, seed=9) == "a" * 20

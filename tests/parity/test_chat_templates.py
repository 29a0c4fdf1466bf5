"""Our chat formats write what Transformers writes with our Jinja texts: text, token ids, and what the assistant says."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parent.parent.parent
TEMPLATES = {path.stem: path.read_text() for path in (ROOT / "tests" / "golden" / "templates").glob("*.jinja")}
sys.path.insert(0, str(ROOT / "tests" / "golden" / "templates"))
import digests  # noqa: E402

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
           "<start_of_turn>", "<end_of_turn>", "<|end|>", "[INST]"]


def turns(*contents, system=None):
    messages = [{"role": "system", "content": system}] if system is not None else []
    return messages + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


DIALOGUES = {
    "plain": turns("What is a bee?", "An insect."),
    "system": turns("Why?", "Because.", system="Answer in one word."),
    "long": turns("One?", "1.", "And two?", "2, of course.", "Three?", "That is 3.", system=" Count well.\n"),
    "unicode": turns("Wie heißt 日本 auf Koreanisch? 👍🏽", "일본 — e\u0301, \u00e9!", "Спасибо", "不客气 \u2028…"),
    "spaces": turns("\n  say\tit \u3000", "  \n\n well \u00a0\n", " ", "\tno.\n \n", "x  y", "  ", system="  \u00a0"),
}
PROMPTS = {name: messages[:-1] for name, messages in DIALOGUES.items()}
NO_SYSTEM = {"gemma"}


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([m["content"] for d in DIALOGUES.values() for m in d] * 3 + ["\n\n ### Response:\n  well"] * 9,
                                  trainer)
    return tokenizer


def byte_fallback():
    """Llama 2's form: a space before the text, spaces as U+2581, no pre-tokenizer: tokens reach over borders."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>"] + [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False, limit_alphabet=60)
    tokenizer.train_from_iterator(["\n well", "\n  say", "Response:\n An", " 1.", "   2", "\n\n\n "] * 5, trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = data["added_tokens"][:1]
    data["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    return Tokenizer.from_str(json.dumps(data))


@pytest.fixture(params=[byte_level, byte_fallback], ids=lambda made: made.__name__, scope="module")
def checkpoint(request, tmp_path_factory):
    tokenizer = request.param()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    directory = tmp_path_factory.mktemp(request.param.__name__)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return fast, directory


def render(directory, conversations, template, *options):
    build = Path(os.environ.get("HANSA_BUILD_DIR", ROOT / "build" / "release"))
    command = [str(build / "apps" / "hansa" / "hansa"), "data", "render", "--model", str(directory), "--template", template]
    text = "".join(json.dumps(one) + "\n" for one in conversations)
    done = subprocess.run([*command, *options], input=text, capture_output=True, encoding="utf-8", check=False)
    return [json.loads(line) for line in done.stdout.split("\n") if line], done.stderr


def compare(checkpoint, name, conversations, prompt):
    fast, directory = checkpoint
    ours, error = render(directory, conversations, name, *(["--open"] if prompt else []))
    assert len(ours) == len(conversations), error
    for messages, got in zip(conversations, ours):
        options = {"chat_template": TEMPLATES[name], "add_generation_prompt": prompt}
        assert got["text"] == fast.apply_chat_template(messages, tokenize=False, **options)
        want = fast.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **options)
        assert got["ids"] == want["input_ids"]
        if not prompt:
            assert got["learnt"] == want["assistant_masks"], got["text"]


def usable(name, dialogues):
    return [messages for messages in dialogues.values() if name not in NO_SYSTEM or messages[0]["role"] != "system"]


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_text_ids_and_masks_equal_the_reference(checkpoint, name):
    assert len(TEMPLATES) == 12
    compare(checkpoint, name, usable(name, DIALOGUES), prompt=False)
    compare(checkpoint, name, usable(name, PROMPTS), prompt=True)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_a_checkpoint_with_this_template_gets_its_name(checkpoint, name, tmp_path):
    _, directory = checkpoint
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").write_text(TEMPLATES[name].replace("\n", "\n\n ") + "\n")
    messages = [DIALOGUES["plain"]]
    assert render(tmp_path, messages, "auto")[0] == render(directory, messages, name)[0]


def test_other_templates_and_roles_are_refused_in_words(checkpoint, tmp_path):
    _, directory = checkpoint
    assert "no chat template of its own" in render(directory, [DIALOGUES["plain"]], "auto")[1]
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": "{{ messages }}"}))
    error = render(tmp_path, [DIALOGUES["plain"]], "auto")[1]
    assert "none that is known here" in error and "qwen2.5" in error
    assert "line 1: the chat template gemma has no system role" in render(directory, [DIALOGUES["system"]], "gemma")[1]


def test_the_table_of_digests_holds_our_own_texts():
    table = (ROOT / "sdk" / "data" / "known_templates.inc").read_text()
    for name, text in TEMPLATES.items():
        assert f'{{"{digests.digest(text)}", "{name}"}},' in table

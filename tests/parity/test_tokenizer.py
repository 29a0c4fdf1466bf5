"""Our tokenizer gives the ids and the text of the `tokenizers` package.

hansa_tokens.py knows the program.
"""
import json

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import hansa_tokens
from tokenizer_texts import TEXTS, every_code_point, random_texts

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = "|".join([
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
DEEPSEEK = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"

SPECIAL = [AddedToken("<|endoftext|>", special=True, normalized=False), AddedToken("<|im_start|>", special=True),
           AddedToken("<|im_end|>", special=True)]


def byte_level(pre_tokenizer, normalizer=None, ignore_merges=False, added=()):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 3 + random_texts(300, 1), trainer)
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens(list(added))
    return tokenizer


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert=invert)


def bytes_only():
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def sequence(*members):
    return pre_tokenizers.Sequence(list(members))


def gpt2():
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))


def gpt2_with_prefix_space():
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True),
                      added=[AddedToken("<mask>", lstrip=True, normalized=False), AddedToken("<tool>", rstrip=True)])


def llama3():
    return byte_level(sequence(split(LLAMA3), bytes_only()), ignore_merges=True)


def ignore_merges_of_unmergeable_words():
    """Whole words are in the vocabulary, but no merges lead to them."""
    data = json.loads(llama3().to_str())
    data["model"]["merges"] = data["model"]["merges"][:100]
    return Tokenizer.from_str(json.dumps(data))


def qwen2():
    return byte_level(sequence(split(QWEN2), bytes_only()), normalizers.NFC(),
                      added=[AddedToken("word", single_word=True), AddedToken("NORM\u00e9", normalized=True),
                             AddedToken("e\u0301", normalized=False)])


def o200k():
    return byte_level(sequence(split(O200K), bytes_only()))


def deepseek():
    return byte_level(sequence(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK), bytes_only()))


def smollm():
    return byte_level(sequence(pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)))


def digits_in_runs():
    return byte_level(sequence(pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=True)))


def behaviors():
    return byte_level(sequence(split(r"\s+", "merged_with_next"), split(r"[.,;]", "merged_with_previous"),
                               split(r"\p{Han}|\p{Lu}", "contiguous"), split(r"\t|\p{Cc}", "removed"),
                               split(r"[^\p{M}]+", "isolated", invert=True), bytes_only()))


def literal_split():
    return byte_level(sequence(pre_tokenizers.Split(" ", "merged_with_next"), pre_tokenizers.Split("日本", "isolated"),
                               pre_tokenizers.Split(".*", "removed"), bytes_only()))


def many_added_tokens():
    added = [AddedToken(text, lstrip=i % 3 == 0, rstrip=i % 4 == 0, single_word=i % 5 == 0, normalized=i % 2 == 0)
             for i, text in enumerate(["the", "the ", " the", "word", "wordy", "<|", "世界", "\n\n", "a", "👍", "1", "Ё", "<mask>"])]
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC(), added=added)


def no_alphabet():
    """Bytes that have no token vanish."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(["plain english text only"] * 5, trainers.BpeTrainer(vocab_size=60, show_progress=False))
    return tokenizer


def no_pre_tokenizer():
    """Whole lines as one piece."""
    return byte_level(bytes_only())


def with_byte_fallback(fuse_unk, missing=()):
    """Llama 2's form: spaces become U+2581, what has no token falls back to bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=fuse_unk))
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256) if b not in missing]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False, limit_alphabet=80)
    tokenizer.train_from_iterator(TEXTS, trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = data["added_tokens"][:3]  # byte tokens are the model's alone
    data["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    return Tokenizer.from_str(json.dumps(data))


def llama2():
    return with_byte_fallback(fuse_unk=True)


def bytes_missing_and_fused():
    return with_byte_fallback(fuse_unk=True, missing={0xD0, 0xE4, 0xF0})


def bytes_missing():
    return with_byte_fallback(fuse_unk=False, missing={0xD0, 0xE4, 0xF0})


def replaced_by_expression():
    return byte_level(bytes_only(), normalizers.Sequence([normalizers.Replace(Regex(r"\s+"), " "), normalizers.NFC(),
                                                          normalizers.Replace(Regex(r"\d{2}$|^#"), "§")]))


def strings_of_merges():
    """Older files write merges as "a b" and have no type."""
    data = json.loads(gpt2().to_str())
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    del data["model"]["type"]
    data["decoder"] = None
    return data


KINDS = [gpt2, gpt2_with_prefix_space, llama3, ignore_merges_of_unmergeable_words, qwen2, o200k, deepseek, smollm, digits_in_runs,
         behaviors, literal_split, many_added_tokens, no_alphabet, no_pre_tokenizer, llama2, bytes_missing_and_fused,
         bytes_missing, replaced_by_expression, strings_of_merges]


@pytest.fixture(params=KINDS, ids=[kind.__name__ for kind in KINDS], scope="module")
def pair(request, tmp_path_factory):
    """The reference and the directory that holds the same tokenizer."""
    made = request.param()
    text = made if isinstance(made, str) else json.dumps(made) if isinstance(made, dict) else made.to_str()
    directory = tmp_path_factory.mktemp(request.param.__name__)
    (directory / "tokenizer.json").write_text(text, encoding="utf-8")
    return Tokenizer.from_file(str(directory / "tokenizer.json")), directory


def compare(pair, texts):
    reference, directory = pair
    expected = [reference.encode(text, add_special_tokens=False).ids for text in texts]
    given = hansa_tokens.encode(directory, texts)
    assert len(given) == len(texts)
    for text, want, got in zip(texts, expected, given):
        assert got == want, f"{text!r}: {[reference.id_to_token(i) for i in want]} {[reference.id_to_token(i) for i in got]}"
    decoded = hansa_tokens.decode(directory, expected)
    for ids, got in zip(expected, decoded):
        assert got == reference.decode(ids, skip_special_tokens=True), f"{ids}"


def test_ids_and_text_equal_the_reference_on_chosen_texts(pair):
    compare(pair, TEXTS)


def test_ids_and_text_equal_the_reference_on_random_unicode(pair):
    compare(pair, random_texts(2000, 2))


DIFFERENT_CLASSES = [gpt2, llama3, qwen2, o200k, deepseek, smollm, behaviors, many_added_tokens, llama2]


@pytest.mark.parametrize("pair", DIFFERENT_CLASSES, ids=[kind.__name__ for kind in DIFFERENT_CLASSES], indirect=True)
def test_every_code_point_is_in_the_class_that_the_reference_has_it_in(pair):
    compare(pair, every_code_point())


def test_any_ids_give_the_text_that_the_reference_gives(pair):
    import random
    reference, directory = pair
    generator = random.Random(3)
    most = reference.get_vocab_size() + 5  # a model's rows may exceed the ids
    lists = [[generator.randrange(most) for _ in range(generator.randint(0, 12))] for _ in range(2000)]
    for ids, text in zip(lists, hansa_tokens.decode(directory, lists)):
        assert text == reference.decode(ids, skip_special_tokens=True), f"{ids}"


@pytest.mark.parametrize("pair", [gpt2], ids=["gpt2"], indirect=True)
def test_the_command_gives_what_the_library_gives(pair):
    _, directory = pair
    texts = [text for text in TEXTS if len(text) < 200]
    ids = hansa_tokens.by_command(directory, texts)
    assert ids == hansa_tokens.encode(directory, texts)
    assert hansa_tokens.by_command(directory, ids, "--decode") == hansa_tokens.decode(directory, ids)


@pytest.mark.parametrize("part, value, named", [
    ("normalizer", {"type": "Twist"}, "Twist"),
    ("pre_tokenizer", {"type": "UnicodeScripts"}, "UnicodeScripts"),
    ("decoder", {"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": True}, "CTC"),
    ("model", {"type": "Twist"}, "Twist"),
])
def test_what_is_not_supported_is_refused_by_name(tmp_path, part, value, named):
    data = json.loads(no_alphabet().to_str())
    data[part] = value
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    assert f"'{named}' is not supported" in hansa_tokens.error_of(tmp_path)

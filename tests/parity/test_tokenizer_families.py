"""Ids and text of 100,000 generated strings for each family's form of tokenizer, equal to the reference's."""
import itertools
import random

import pytest
import sentencepiece

import hansa_tokens
from tokenizer_families import FAMILIES, Library, trained_model, unigram_of
from tokenizer_texts import TEXTS, every_code_point, many_texts

COUNT = 100_000


@pytest.fixture(params=FAMILIES, ids=[family.__name__ for family in FAMILIES], scope="module")
def pair(request, tmp_path_factory):
    """The reference and the directory that holds the same tokenizer."""
    directory = tmp_path_factory.mktemp(request.param.__name__)
    return request.param(directory), directory


@pytest.fixture(scope="module")
def texts():
    made = TEXTS + many_texts(COUNT, 5)
    return made, hansa_tokens.pack_texts(made)


def compare(reference, directory, texts, packed):
    expected = reference.encode(texts)
    want = hansa_tokens.pack_ids(expected)
    got, _ = hansa_tokens.run("encode", directory, packed)
    tied = 0
    if got != want:
        for text, ids, ours in zip(texts, expected, hansa_tokens.pieces(got, 4), strict=True):
            if hansa_tokens.ids_of(ours) != ids:
                assert reference.tied(hansa_tokens.ids_of(ours), ids), repr(text)
                tied += 1
    assert tied <= len(texts) // 10_000 + 1
    text_of_ids, _ = hansa_tokens.run("decode", directory, want)
    decoded = reference.decode(expected)
    if text_of_ids != hansa_tokens.pack_texts(decoded):
        for ids, text, ours in zip(expected, decoded, hansa_tokens.pieces(text_of_ids, 1), strict=True):
            assert ours.decode() == text, ids


def test_ids_and_text_equal_the_reference(pair, texts):
    compare(*pair, *texts)


NEW_TABLES = {"bert_uncased", "bert_cased", "unigram_with_charsmap", "unigram_without_accents", "sentencepiece_unigram"}


@pytest.mark.parametrize("pair", [f for f in FAMILIES if f.__name__ in NEW_TABLES], ids=lambda f: f.__name__, indirect=True)
def test_every_code_point_is_treated_as_the_reference_treats_it(pair):
    texts = every_code_point()
    compare(*pair, texts, hansa_tokens.pack_texts(texts))


def test_scores_are_read_as_the_reference_reads_them(tmp_path):
    """Of two orders of the same tokens the last place of a score decides, and the reference's reader of JSON rounds in its own way."""
    chance = random.Random(3)
    tokens = ["".join(word) for size in (1, 2, 3) for word in itertools.product("abc", repeat=size)]
    scores = [-chance.uniform(1, 4 * len(token)) * 10 ** chance.choice([0, 0, 0, -7]) for token in tokens]
    reference = unigram_of(tmp_path, [("<unk>", 0.0), ("<s>", 0.0), *zip(tokens, scores, strict=True)])
    texts = ["".join(chance.choices("abc", k=chance.randint(1, 40))) for _ in range(20_000)]
    compare(reference, tmp_path, texts, hansa_tokens.pack_texts(texts))


ANY_IDS = [f for f in FAMILIES if f.__name__ not in {"gpt2", "llama3", "qwen2", "smollm", "vocabulary_and_merges"}]


@pytest.mark.parametrize("pair", ANY_IDS, ids=lambda f: f.__name__, indirect=True)
def test_any_ids_give_the_text_that_the_reference_gives(pair):
    reference, directory = pair
    generator, size = random.Random(3), reference.size()
    lists = [[generator.randrange(size) if generator.random() < 0.7 else generator.randrange(min(size, 262))
              for _ in range(generator.randint(0, 12))] for _ in range(5000)]
    for ids, ours, text in zip(lists, hansa_tokens.decode(directory, lists), reference.decode(lists), strict=True):
        assert ours == text, ids


WITH_SPECIAL = {"roberta", "bert_uncased", "bert_cased"}


@pytest.mark.parametrize("pair", [f for f in FAMILIES if f.__name__ in WITH_SPECIAL], ids=lambda f: f.__name__,
                         indirect=True)
def test_encoders_get_what_stands_around_a_text(pair):
    reference, directory = pair
    assert hansa_tokens.encode(directory, TEXTS, "special") == reference.encode(TEXTS, special=True)


@pytest.mark.parametrize("legacy", [True, False])
def test_what_is_added_to_a_tokenizer_model_is_found_in_texts_first(tmp_path, legacy):
    """Each stretch between added tokens is a text of its own; not `legacy`: only the first gets a space before it."""
    model = trained_model(vocab_size=1500, model_type="bpe", byte_fallback=True, normalization_rule_name="identity")
    tokens = {"1": {"content": "<s>", "special": True}, "2": {"content": "</s>", "special": True},
              "1500": {"content": "<pad>", "special": True}, "1501": {"content": "<tool>", "special": False}}
    first = Library(tmp_path, model, {"added_tokens_decoder": tokens, "legacy": legacy, "pad_token": "<pad>"}).processor
    assert first.get_piece_size() == 1500
    without_space = model if legacy else model + b"\x1a\x02\x18\x00"
    later = sentencepiece.SentencePieceProcessor(model_proto=without_space)
    given = hansa_tokens.encode(tmp_path, ["the word<s>and 1234 <pad><tool>word", "<s>word"])
    assert given[0] == first.encode("the word") + [1] + later.encode("and 1234 ") + [1500, 1501] + later.encode("word")
    assert given[1] == [1] + later.encode("word")
    assert hansa_tokens.decode(tmp_path, [[1500] + first.encode("the word") + [1501, 2]]) == ["the word<tool>"]

"""Small tokenizers of the form that each family's checkpoints have, trained here; each function writes a directory and
returns the reference: encode(texts) and decode(lists of ids).
"""
import io
import json
import os

import sentencepiece
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)

from tokenizer_texts import TEXTS, random_texts

CORPUS, LINES, SIZE = TEXTS * 3 + random_texts(300, 1), TEXTS * 10, 1500  # the benchmark sets others
THREADS = int(os.environ.get("RAYON_NUM_THREADS", "2"))  # as the other library
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


class Reference:
    """The `tokenizers` package on the file itself."""

    def __init__(self, directory, tokenizer, file=None):
        if not isinstance(tokenizer, Tokenizer):
            tokenizer = Tokenizer.from_str(json.dumps(tokenizer))
        text = tokenizer.to_str() if file is None else file
        (directory / "tokenizer.json").write_text(text, encoding="utf-8")
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))

    def encode(self, texts, special=False):
        return [one.ids for one in self.tokenizer.encode_batch_fast(texts, add_special_tokens=special)]

    def size(self):
        return self.tokenizer.get_vocab_size()

    def tied(self, ids, others):
        return False

    def decode(self, lists):
        return self.tokenizer.decode_batch(lists, skip_special_tokens=True)


def byte_level(pre_tokenizer, normalizer=None, special=tuple(SPECIAL), **model):
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=SIZE, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=list(special),
        show_progress=False))
    return tokenizer


def plain_bytes(use_regex=False, add_prefix_space=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)


def by_expression(expression):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), "isolated"), plain_bytes()])


WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def gpt2(directory):
    return Reference(directory, byte_level(plain_bytes(use_regex=True)))


def pythia(directory):
    tokenizer = byte_level(plain_bytes(use_regex=True), normalizers.NFC(), special=["<|endoftext|>", "<|padding|>"])
    tokenizer.add_tokens([AddedToken(" " * i, normalized=True) for i in range(24, 1, -1)])
    return Reference(directory, tokenizer)


def llama3(directory):
    tokenizer = byte_level(by_expression(WORDS.replace("DIGITS", r"\p{N}{1,3}")), ignore_merges=True)
    return Reference(directory, tokenizer)


def qwen2(directory):
    return Reference(directory, byte_level(by_expression(WORDS.replace("DIGITS", r"\p{N}")), normalizers.NFC()))


def smollm(directory):
    digits = pre_tokenizers.Digits(individual_digits=True)
    return Reference(directory, byte_level(pre_tokenizers.Sequence([digits, plain_bytes(use_regex=True)])))


def roberta(directory):
    tokenizer = byte_level(plain_bytes(use_regex=True), special=["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return Reference(directory, tokenizer)


def with_byte_fallback(normalizer, pre_tokenizer, steps, metaspace_words=True):
    """Byte tokens are the model's alone; spaces are U+2581 to it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    if metaspace_words:  # as SentencePiece splits while it trains
        trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=SIZE, special_tokens=special, limit_alphabet=150,
                                                           show_progress=False))
    data = json.loads(trained.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    tokenizer.decoder = decoders.Sequence(steps)
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    rest = json.loads(tokenizer.to_str())
    return {**data, **{key: rest[key] for key in ("normalizer", "pre_tokenizer", "decoder")}}


def from_marks():
    return [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def llama2(directory):
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return Reference(directory, with_byte_fallback(normalizer, None, from_marks() + [decoders.Strip(" ", 1, 0)]))


def mistral(directory):
    """Newer conversions: Metaspace at the beginning of the text only, not splitting."""
    metaspace = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return Reference(directory, with_byte_fallback(None, metaspace, from_marks() + [decoders.Strip(" ", 1, 0)]))


def gemma(directory):
    split = pre_tokenizers.Split(" ", "merged_with_previous")
    data = with_byte_fallback(normalizers.Replace(" ", "▁"), split, from_marks())
    first = max(data["model"]["vocab"].values()) + 1
    data["added_tokens"] += [{"id": first + i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                              "normalized": False, "special": i < 2}
                             for i, text in enumerate(["<start_of_turn>", "<end_of_turn>", "\n\n", "▁▁", "<mask>"])]
    return Reference(directory, data)


def word_piece(lowercase):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(
        vocab_size=SIZE, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer


def bert_uncased(directory):
    return Reference(directory, word_piece(True))


def bert_cased(directory):
    return Reference(directory, word_piece(False))


# ---- SentencePiece


def trained_model(**options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in LINES for line in text.replace("\0", "").split("\n") if line]),
        model_writer=model, minloglevel=2, hard_vocab_limit=False, num_threads=1, **options)
    return model.getvalue()


def protobuf_fields(data):
    """(number, value) of each field: numbers, and bytes of what has a length."""
    def varint(at):
        value = shift = 0
        while True:
            value |= (data[at] & 0x7F) << shift
            shift += 7
            at += 1
            if data[at - 1] < 0x80:
                return value, at

    at = 0
    while at < len(data):
        key, at = varint(at)
        if key & 7 == 0:
            value, at = varint(at)
        else:
            size, at = varint(at) if key & 7 == 2 else (4, at)
            value, at = data[at:at + size], at + size
        yield key >> 3, value


def charsmap_of(model):
    normalizer = next(value for number, value in protobuf_fields(model) if number == 3)
    return next(value for number, value in protobuf_fields(normalizer) if number == 2)


def unigram(directory, normalizer, metaspace):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = metaspace
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(LINES, trainers.UnigramTrainer(
        vocab_size=SIZE, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], unk_token="<unk>",
        show_progress=False))
    return Reference(directory, tokenizer)


def unigram_of(directory, scores):
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return Reference(directory, tokenizer)


def unigram_with_charsmap(directory):
    charsmap = charsmap_of(trained_model(vocab_size=SIZE, model_type="unigram", normalization_rule_name="nmt_nfkc"))
    steps = [normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " ")]
    splits = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    return unigram(directory, normalizers.Sequence(steps), pre_tokenizers.Sequence(splits))


def unigram_without_accents(directory):
    steps = [normalizers.Replace("``", '"'), normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(),
             normalizers.Strip()]
    return unigram(directory, normalizers.Sequence(steps), pre_tokenizers.Metaspace())


class Library:
    """The `sentencepiece` package. Of two ways through a text with the same score, versions of the library take either."""

    def __init__(self, directory, model, config=None):
        (directory / "tokenizer.model").write_bytes(model)
        if config:
            (directory / "tokenizer_config.json").write_text(json.dumps(config))
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    def encode(self, texts, special=False):
        return self.processor.encode(texts, num_threads=THREADS)

    def size(self):
        return self.processor.get_piece_size()

    def tied(self, ids, others):
        return sorted(ids) == sorted(others)

    def decode(self, lists):
        return [self.processor.decode(ids) for ids in lists]


def sentencepiece_pairs(directory):
    return Library(directory, trained_model(vocab_size=SIZE, model_type="bpe", byte_fallback=True, split_digits=True,
                                            normalization_rule_name="identity", remove_extra_whitespaces=False,
                                            user_defined_symbols=["<mask>", "  "]))


def sentencepiece_unigram(directory):
    return Library(directory, trained_model(vocab_size=SIZE, model_type="unigram", normalization_rule_name="nmt_nfkc"))


# ---- vocab.json and merges.txt


def vocabulary_and_merges(directory):
    """As OPT has it: the tokens that are special have a name in tokenizer_config.json."""
    tokenizer = byte_level(plain_bytes(use_regex=True), special=["<s>", "<pad>", "</s>", "<unk>"])
    data = json.loads(tokenizer.to_str())
    with open(directory / "vocab.json", "w", encoding="utf-8") as file:
        json.dump(data["model"]["vocab"], file, ensure_ascii=False)
    merges = "".join(f"{a} {b}\n" for a, b in data["model"]["merges"])
    (directory / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
    named = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": {"content": "<unk>", "__type": "AddedToken"},
             "pad_token": "<pad>", "add_bos_token": True, "additional_special_tokens": ["<s>"]}
    (directory / "tokenizer_config.json").write_text(json.dumps(named))
    reference = Tokenizer(models.BPE.from_file(str(directory / "vocab.json"), str(directory / "merges.txt")))
    reference.pre_tokenizer, reference.decoder = plain_bytes(use_regex=True), decoders.ByteLevel()
    reference.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    elsewhere = directory / "reference"
    elsewhere.mkdir()
    return Reference(elsewhere, reference)


FAMILIES = [gpt2, pythia, llama3, qwen2, smollm, roberta, llama2, mistral, gemma, bert_uncased, bert_cased,
            unigram_with_charsmap, unigram_without_accents, sentencepiece_pairs, sentencepiece_unigram,
            vocabulary_and_merges]

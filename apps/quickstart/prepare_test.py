"""Checks of the quickstart's data: the cleaning rules one by one, then the real thing once."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import fortunes  # noqa: E402
import prepare  # noqa: E402


def test_terminal_effects_and_indentation_go():
    assert fortunes.clean("\x1b[1mBold\x1b[0m _\x08w\x08word\r\n\t\t-- A  B\n\n\n\nend\x07 ") == "Bold word\n-- A B\n\nend"


def test_text_in_an_old_encoding_is_read_as_its_language_wrote_it():
    assert fortunes.decode("źdźbło".encode("iso-8859-2"), "pl") == "źdźbło"
    assert fortunes.decode("Übermut".encode("iso-8859-15"), "de") == "Übermut"
    assert fortunes.decode("Übermut".encode(), "de") == "Übermut"


def test_drawings_and_chat_logs_are_no_prose():
    assert fortunes.is_prose("A sentence of ordinary length, with words in it.")
    assert not fortunes.is_prose("  /\\_/\\\n ( o.o )\n  > ^ <   ---------------- \n")
    assert not fortunes.is_prose("<anna> are you there, my friend?\n<otto> no, I am out for lunch")


def test_a_text_counts_for_the_language_whose_common_words_it_uses():
    assert fortunes.speaks("Wer nicht fragt, der bleibt auch in dem Alter dumm, wie man sagt.", "de")
    assert not fortunes.speaks("The early bird gets the worm, and that is all there is to it.", "de")


def test_a_fingerprint_ignores_author_case_and_punctuation():
    assert fortunes.fingerprint("To be, or not!\n-- Hamlet") == fortunes.fingerprint("to be\nor not")


def documents(path):
    return [part.strip("\n") for part in path.read_text().split("\n%\n") if part.strip()]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    out = tmp_path_factory.mktemp("quickstart")
    prepare.prepare(out)
    return out


def test_nothing_is_shared_between_silos_or_between_training_and_held_out_text(quickstart):
    seen = {}
    for language in fortunes.LANGUAGES:
        for part in ("train", "heldout"):
            for text in documents(quickstart / "data" / language / f"{part}.txt"):
                key = fortunes.fingerprint(text)
                assert key not in seen, f"{language}/{part} repeats {seen[key]}: {text}"
                seen[key] = f"{language}/{part}"


def test_virtual_clients_hold_training_text_of_one_language_each_text_once(quickstart):
    folder = quickstart / "data"
    training = {language: set(documents(folder / language / "train.txt")) for language in prepare.SILOS}
    clients = sorted((folder / "clients").iterdir())
    assert len(clients) >= 1000
    dealt = []
    for client in clients:
        texts = documents(client)
        assert texts and training[client.name[:2]].issuperset(texts)
        dealt += texts
    assert len(dealt) == len(set(dealt))


def test_a_second_call_finds_nothing_to_do_and_a_repeated_one_the_same_bytes(quickstart, tmp_path):
    assert not prepare.prepare(quickstart)
    prepare.prepare(tmp_path)
    manifests = [json.loads((out / "data" / "manifest.json").read_text()) for out in (quickstart, tmp_path)]
    assert manifests[0] == manifests[1]
    tokenizers = [(out / "base-config" / "tokenizer.json").read_bytes() for out in (quickstart, tmp_path)]
    assert tokenizers[0] == tokenizers[1]


def test_the_tokenizer_returns_any_text_unchanged(quickstart):
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(quickstart / "base-config")
    text = "Żółw, größer — ¿qué?\t\x01 漢字 🙂"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert tokenizer.eos_token_id == 0 and len(tokenizer) == prepare.VOCABULARY

"""Makes the quickstart's data: `prepare.py --out .hansa/quickstart` writes

  data/<language>/{train,heldout}.txt   documents between lines "%"; English is the public text, the others are the silos
  data/clients/<language>-NNNN.txt      the silos' training text dealt out to many virtual clients, a few documents each
  data/manifest.json                    sizes, counts, digests, and the key by which a second call finds nothing to do
  base-config/                          a Llama configuration and a tokenizer trained on the public text alone

Deterministic: every choice hangs on the text itself and on SEED.
"""

import argparse
import hashlib
import json
import shutil
import sys
import time
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import fortunes

SEED = "hansa quickstart 1"
HELDOUT_SHARE, HELDOUT_BYTES = 0.05, 40_000  # of each language; the cap keeps evaluation quick
CLIENTS_PER_SILO, CLIENT_BYTES = 300, 600  # virtual clients; each takes documents until it has this much
VOCABULARY = 2048
END_OF_TEXT = "<|endoftext|>"  # the first special token: id 0
PUBLIC, *SILOS = fortunes.LANGUAGES

MODEL_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "initializer_range": 0.02,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "torch_dtype": "float32",
}


def say(text):
    print(f"prepare: {text}", flush=True)


def rank(text, purpose):
    """A fixed pseudo-random order of documents, a different one for each purpose."""
    return hashlib.sha256(f"{SEED}\0{purpose}\0{text}".encode()).digest()


def size(documents):
    return sum(len(text.encode()) + 3 for text in documents)  # 3: the separating line and the line break before it


def split(documents):
    """(train, heldout): documents in their fixed random order, the first few held out."""
    ordered = sorted(documents, key=lambda text: rank(text, "heldout"))
    limit = min(HELDOUT_BYTES, HELDOUT_SHARE * size(documents))
    count, total = 0, 0
    while total + size(ordered[count:count + 1]) <= limit:
        total += size(ordered[count:count + 1])
        count += 1
    return ordered[count:], ordered[:count]


def deal(documents):
    """Up to CLIENTS_PER_SILO lists of documents; what is left over when all have enough stays out."""
    clients, held = [], []
    for text in sorted(documents, key=lambda text: rank(text, "clients")):
        held.append(text)
        if size(held) >= CLIENT_BYTES:
            clients.append(held)
            held = []
        if len(clients) == CLIENTS_PER_SILO:
            break
    return clients


def write_documents(path, documents):
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = "".join(f"{text}\n%\n" for text in documents).encode()
    path.write_bytes(raw)
    return {"bytes": len(raw), "documents": len(documents), "sha256": hashlib.sha256(raw).hexdigest()}


def write_base_config(folder, public_text):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(public_text, trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END_OF_TEXT], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if tokenizer.get_vocab_size() != VOCABULARY or tokenizer.token_to_id(END_OF_TEXT) != 0:
        raise SystemExit("prepare: the tokenizer did not come out as the model's configuration says")
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MODEL_CONFIG["max_position_embeddings"],
         "clean_up_tokenization_spaces": False, **special}, indent=2) + "\n")
    (folder / "config.json").write_text(json.dumps(MODEL_CONFIG, indent=2) + "\n")
    return tokenizer


def input_key():
    """Changes when the fortunes, these scripts or the tokenizer library do."""
    digest = hashlib.sha256(tokenizers.__version__.encode())
    for script in ("prepare.py", "fortunes.py"):
        digest.update((Path(__file__).parent / script).read_bytes())
    for language in fortunes.LANGUAGES:
        for path in fortunes.source_files(language):
            digest.update(f"{path} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def is_current(out, key):
    try:
        manifest = json.loads((out / "data" / "manifest.json").read_text())
        if manifest["key"] != key or not (out / "base-config" / "tokenizer.json").is_file():
            return False
        return all((out / "data" / name).stat().st_size == entry["bytes"] for name, entry in manifest["files"].items())
    except (OSError, ValueError, KeyError):
        return False


def prepare(out):
    key = input_key()
    if is_current(out, key):
        return False
    start = time.monotonic()
    # The manifest is written last, so an interrupted call is repeated as a whole.
    for stale in (out / "data", out / "base-config"):
        shutil.rmtree(stale, ignore_errors=True)
    say("reading and cleaning the fortunes packages")
    texts = fortunes.read_all()
    files, training, clients = {}, {}, {}
    for language in fortunes.LANGUAGES:
        training[language], heldout = split(texts[language])
        files[f"{language}/train.txt"] = write_documents(out / "data" / language / "train.txt", training[language])
        files[f"{language}/heldout.txt"] = write_documents(out / "data" / language / "heldout.txt", heldout)
    for language in SILOS:
        clients[language] = deal(training[language])
        for number, documents in enumerate(clients[language], 1):
            name = f"clients/{language}-{number:04}.txt"
            files[name] = write_documents(out / "data" / name, documents)
    say(f"training a tokenizer of {VOCABULARY} tokens on the public text")
    tokenizer = write_base_config(out / "base-config", training[PUBLIC])
    print(f"\n{'silo':6}{'documents':>11}{'train kB':>10}{'held-out kB':>13}{'clients':>9}{'bytes/token':>13}")
    for language in fortunes.LANGUAGES:
        train, heldout = files[f"{language}/train.txt"], files[f"{language}/heldout.txt"]
        sample = (out / "data" / language / "heldout.txt").read_text()
        ratio = len(sample.encode()) / len(tokenizer.encode(sample).ids)
        print(f"{language:6}{train['documents'] + heldout['documents']:>11}{train['bytes'] / 1000:>10.0f}"
              f"{heldout['bytes'] / 1000:>13.1f}{len(clients.get(language, [])) or '-':>9}{ratio:>13.2f}")
    print()
    manifest = {"key": key, "public": PUBLIC, "silos": SILOS, "files": files}
    (out / "data" / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    say(f"data is ready in {out} ({time.monotonic() - start:.1f} s)")
    return True


def main():
    parser = argparse.ArgumentParser(description="Make the quickstart's data from the Debian fortunes packages.")
    parser.add_argument("--out", type=Path, default=Path(".hansa/quickstart"))
    if not prepare(parser.parse_args().out):
        say("data is up to date")


if __name__ == "__main__":
    sys.exit(main())

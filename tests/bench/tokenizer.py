"""Texts to ids and back, for each family's form of tokenizer: CPU seconds of one core, the reference's over ours."""
# needs: hf_tokens

import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import statistics  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / folder) for folder in ("support", "parity")]
import hansa_tokens  # noqa: E402
import tokenizer_families as families  # noqa: E402
from bench_results import begin, finish  # noqa: E402

FORTUNES = Path("/usr/share/games/fortunes")
REPEAT = 3


def paragraphs():
    """Real text in six languages."""
    files = [FORTUNES / "literature", FORTUNES / "science"]
    for language in ("de", "es", "it", "pl"):
        files += sorted(file for file in (FORTUNES / language).iterdir() if file.is_file() and not file.suffix)[:6]
    texts = [text.strip() for file in files for text in file.read_text("utf-8", "ignore").split("\n%\n")]
    return [text for text in texts if text]


def cpu_seconds(work):
    times = []
    for _ in range(REPEAT):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main():
    begin("tokenizer")
    texts = paragraphs()
    families.CORPUS = families.LINES = texts
    families.SIZE = 8000
    packed = hansa_tokens.pack_texts(texts)
    chosen = [family for family in families.FAMILIES if not sys.argv[1:] or family.__name__ in sys.argv[1:]]
    print(f"{len(texts)} texts, {len(packed) / 1e6:.1f} MB; MB/s of one core: reference, ours, ratio")
    figures, targets = {}, {}
    for family in chosen:
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder)
            reference = family(directory)
            ids = reference.encode(texts)
            packed_ids = hansa_tokens.pack_ids(ids)
            for verb, theirs, given in (("encode", lambda: reference.encode(texts), packed),
                                        ("decode", lambda: reference.decode(ids), packed_ids)):
                ours = statistics.median(hansa_tokens.seconds(verb, directory, given, 2) for _ in range(REPEAT))
                other = cpu_seconds(theirs)
                name = f"{family.__name__}_{verb}"
                figures[name], targets[name] = other / ours, {"at_least": 1}
                print(f"{name:32} {len(packed) / 1e6 / other:8.1f} {len(packed) / 1e6 / ours:8.1f} {other / ours:6.2f}",
                      flush=True)
    finish("tokenizer", figures, targets)


if __name__ == "__main__":
    main()

"""Prints the lines of sdk/data/known_templates.inc that stand for our own texts."""
import hashlib
import re
from pathlib import Path


def digest(jinja):
    plain = re.sub(r"\{#.*?#\}", "", jinja, flags=re.DOTALL)
    return hashlib.sha256(" ".join(re.split(r"[ \t\r\n]+", plain)).strip(" ").encode()).hexdigest()


if __name__ == "__main__":
    for path in sorted(Path(__file__).parent.glob("*.jinja")):
        print(f'{{"{digest(path.read_text())}", "{path.stem}"}},')

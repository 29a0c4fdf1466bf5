"""Prints the lines of sdk/data/known_templates.inc that stand for our own texts, or for the files that are named."""
import hashlib
import re
import sys
from pathlib import Path

QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
TAG = re.compile(rf"""\{{\#.*?\#\}}|\{{%(?:{QUOTED}|[^'"])*?%\}}|\{{\{{(?:{QUOTED}|[^'"])*?\}}\}}""", re.DOTALL)
WHITE = " \t\r\n"


def digest(jinja):
    jinja = jinja.removesuffix("\n")
    plain, at, trims = "", 0, False
    for tag in [*TAG.finditer(jinja), None]:
        text = jinja[at:tag.start() if tag else len(jinja)]
        words = tag[0] if tag else ""
        text = text.lstrip(WHITE) if trims else text
        plain += text.rstrip(WHITE) if words[2:3] == "-" else text
        trims, at = words[-3:-2] == "-", tag.end() if tag else at
        if not words.startswith("{#"):
            plain += "".join(part if i % 2 else re.sub(f"[{WHITE}]+", " ", part)
                             for i, part in enumerate(re.split(f"({QUOTED})", words, flags=re.DOTALL)))
    return hashlib.sha256(plain.encode()).hexdigest()


if __name__ == "__main__":
    for path in [Path(name) for name in sys.argv[1:]] or sorted(Path(__file__).parent.glob("*.jinja")):
        print(f'{{"{digest(path.read_text())}", "{path.stem}"}},')

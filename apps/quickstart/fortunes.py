"""Reads the Debian fortunes packages and cleans them: plain paragraphs, one language each, nothing twice.

Called by prepare.py. Pure functions but for read_language; a file that is neither UTF-8 nor in its language's old
encoding cannot occur, because every byte string decodes as the latter.
"""

import re
import subprocess
import unicodedata
from pathlib import Path

LANGUAGES = ("en", "de", "it", "es", "pl")
PACKAGES = {"en": ("fortunes", "fortunes-min"), "de": ("fortunes-de",), "it": ("fortunes-it",), "es": ("fortunes-es",),
            "pl": ("fortunes-pl",)}
OLD_ENCODING = {"pl": "iso-8859-2"}  # where a file is not UTF-8; the others used ISO 8859-15
# Drawings, texts in two languages, chat logs and jokes at the expense of groups.
EXCLUDED = {
    "en": {"translate-me", "ascii-art", "ethnic", "men-women"},
    "de": {"asciiart", "translations", "channel-debian.fortunes"},
    "it": set(),
    "es": {"varios.fortunes-pre"},
    "pl": {"bajki", "cows", "debian.pl", "dowcipy-szowinistyczne", "gra_polslowek", "imiona", "irc", "linuxpl", "pld",
           "pldhelp", "radio_maryja"},
}
COMMON_WORDS = {
    "en": "the of and to in a is that it for you was with on as be are not have this but by at his from they we i if",
    "de": "der die das und ist nicht ein eine zu in den mit sich auf für von dem es im wenn er sie ich wie man auch als",
    "it": "il la di che e un è non per in una sono i si con del della ma le come se più lo gli da al mi ha chi",
    "es": "el la de que y en un no los se una por con las es del al lo para más como si su quien ni mal todo",
    "pl": "w i nie na się z do to jest że a jak o co ale po tak od za sie ma gdy kto czy tylko jest być dla już",
}
COMMON_WORDS = {language: frozenset(words.split()) for language, words in COMMON_WORDS.items()}

SHORTEST, LONGEST = 30, 2000  # characters of a document
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_OVERSTRIKE = re.compile(r"[^\n\x08]\x08")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffd]")
_CHAT_LINE = re.compile(r"\s*(<[^>\n]{1,20}>|\[?\d\d:\d\d|>|\*\*\*|[A-Z][a-z]{2} \d\d \d\d:|(From|Subject|Date|To):)")
_ATTRIBUTION = re.compile(r"\n\s*(--|\[|―|—).*\Z", re.DOTALL)


def decode(raw, language):
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode(OLD_ENCODING.get(language, "iso-8859-15"))


def clean(text):
    """One document without terminal effects, indentation and double blanks; line breaks stay."""
    text = _ESCAPE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    while _OVERSTRIKE.search(text):  # "a^Ha" prints a bold a, "_^Ha" an underlined one
        text = _OVERSTRIKE.sub("", text)
    text = unicodedata.normalize("NFC", _CONTROL.sub("", text))
    lines = [" ".join(line.split()) for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def is_prose(text):
    """Not a drawing, a table, a chat log or a mail thread."""
    visible = [c for c in text if not c.isspace()]
    if not SHORTEST <= len(text) <= LONGEST or sum(c.isalpha() for c in visible) < 0.75 * len(visible):
        return False
    lines = text.split("\n")
    return sum(bool(_CHAT_LINE.match(line)) for line in lines) < 0.25 * len(lines)


def speaks(text, language):
    """Roughly: no other language's common words are more frequent in it than its own."""
    words = re.findall(r"[^\W\d_]+", _ATTRIBUTION.sub("", text).lower())
    hits = {other: sum(word in common for word in words) for other, common in COMMON_WORDS.items()}
    return hits[language] == max(hits.values()) and (hits[language] > 0 or len(words) < 8)


def without_author(text):
    return _ATTRIBUTION.sub("", text).strip()


def fingerprint(text):
    """Equal for texts that differ in case, punctuation, line breaks or the name of the author only."""
    letters = "".join(c for c in _ATTRIBUTION.sub("", text).lower() if c.isalnum())
    return letters[:80]


def source_files(language, folder=Path("/usr/share/games/fortunes")):
    """The packages' own text files: no indices, links, offensive folders, or files that somebody else put there."""
    try:
        listed = subprocess.run(["dpkg-query", "-L", *PACKAGES[language]], capture_output=True, text=True, check=True)
        candidates = [Path(line) for line in listed.stdout.splitlines() if line.startswith(f"{folder}/")]
    except (FileNotFoundError, subprocess.CalledProcessError):
        candidates = list(folder.glob("*") if language == "en" else (folder / language).glob("*"))
    files = sorted(path for path in candidates if path.is_file() and not path.is_symlink() and path.suffix != ".dat"
                   and "off" not in path.parts and path.name not in EXCLUDED[language])
    if not files:
        raise SystemExit(f"quickstart: no fortunes in {folder} for language '{language}': install the Debian package "
                         f"{PACKAGES[language][-1]} (./dev setup does)")
    return files


def read_language(language):
    """All usable documents of a language in a fixed order, each once."""
    documents = {}
    for path in source_files(language):
        for part in re.split(r"^%\s*$", decode(path.read_bytes(), language), flags=re.MULTILINE):
            text = clean(part)
            if is_prose(text) and speaks(text, language):
                documents.setdefault(fingerprint(text), text)
    return documents


def read_all():
    """{language: [documents]}; what occurs in two languages is left out of both."""
    found = {language: read_language(language) for language in LANGUAGES}
    seen = {}
    for documents in found.values():
        for key in documents:
            seen[key] = seen.get(key, 0) + 1
    return {language: [text for key, text in documents.items() if seen[key] == 1]
            for language, documents in found.items()}

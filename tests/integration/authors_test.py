"""docs/authors.md does what it says: a plugin author with an installed Hansa follows it word by word."""

import os
from pathlib import Path

import pytest
from installed import clean_environment
from walkthrough import Wrong, follow

ROOT = Path(__file__).resolve().parents[2]
MOST_SECONDS = 400  # on two cores it takes about 80


def test_the_tutorial_for_plugin_authors_works_as_written(prefix, tmp_path):
    environment = clean_environment()
    environment["PATH"] = f"{prefix / 'bin'}{os.pathsep}{environment['PATH']}"
    follow(ROOT / "docs" / "authors.md", tmp_path, environment, MOST_SECONDS)


def told(tmp_path, text):
    """The complaint about a document, without its name."""
    document = tmp_path / "told.md"
    document.write_text(text)
    with pytest.raises(Wrong) as wrong:
        follow(document, tmp_path, dict(os.environ), 20)
    return str(wrong.value).removeprefix(f"{document}:")


def test_a_tutorial_is_followed_block_by_block(tmp_path):
    document = tmp_path / "told.md"
    document.write_text("Put this into `a/b.txt`:\n\n```\none 2 three\n```\n\n```console\nfalse\n```\n\n```sh\ncd a\nX=4\n```\n"
                        "```sh\ncat b.txt\necho $X five\nfalse || echo \"exit code $?\"\n```\n\n```text\none … three\n4   fi\nexit code 1\n```\n")
    follow(document, tmp_path, dict(os.environ), 20)
    assert (tmp_path / "a" / "b.txt").read_text() == "one 2 three\n"


def test_what_a_tutorial_gets_wrong_is_told_with_the_line(tmp_path):
    assert told(tmp_path, "A\n```sh\necho a\necho b\n```\n```text\nb\na\n```\n").startswith("8: 'a' is not in the output of the commands at line 3")
    assert told(tmp_path, "A\n```sh\necho a\nfalse\necho b\n```\n").startswith("3: these commands fail")
    assert told(tmp_path, "A\n\n```cpp\nint a;\n```\n").startswith("4: a block that is neither a file")
    assert told(tmp_path, "A\n```text\nb\n```\n").startswith("3: output without commands")
    assert told(tmp_path, "A\n```sh\necho a\n").startswith("2: this block does not end")

"""What the docs say is so: promises name tests that exist, and the plugin reference is up to date."""

import importlib.util
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_that_the_contract_names_exists():
    promised = re.findall(r"\[(C|py): ([^]]+)\]", (ROOT / "docs" / "contract.md").read_text())
    assert len(promised) > 20
    folders = ("apps", "core", "plugins", "sdk", "tests")
    cases = "\n".join(re.sub(r'"\s+"', "", path.read_text()) for folder in folders for path in (ROOT / folder).rglob("*_test.cpp"))
    functions = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*_test.py"))
    for language, name in promised:
        found = f'TEST_CASE("{name}"' in re.sub(r"TEST_CASE\(\s+", "TEST_CASE(", cases) if language == "C" else f"def {name}(" in functions
        assert found, f"docs/contract.md promises what no test holds: {name}"


def test_no_promise_of_the_contract_is_without_what_holds_it():
    """Rows of tables and points of lists; what a sentence between them says is told by one of these."""
    text = (ROOT / "docs" / "contract.md").read_text()
    promises = re.findall(r"^- .*(?:\n  .*)*", text, re.M)
    promises += [row for table in re.findall(r"(?:^\|.*\n)+", text, re.M) for row in table.splitlines()[2:]]
    assert len(promises) > 40
    bare = [promise for promise in promises if not re.search(r"\[(C|py|kit): ", promise)]
    assert not bare, bare


def test_every_check_that_the_contract_names_catches_a_planted_bug():
    named = set(re.findall(r"\[kit: ([^]]+)\]", (ROOT / "docs" / "contract.md").read_text()))
    assert len(named) > 20
    assert named <= set(json.loads((ROOT / "tests" / "plugins" / "planted" / "expected.json").read_text()).values())


def test_the_plugin_reference_is_what_the_plugins_say(hansa):
    folder = ROOT / "docs" / "plugins"
    spec = importlib.util.spec_from_file_location("generate", folder / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    pages = generate.pages(hansa.program)
    assert {path.name for path in folder.glob("*.md")} == set(pages)
    stale = [name for name, text in pages.items() if (folder / name).read_text() != text]
    assert not stale, f"run ./dev docs: {stale}"

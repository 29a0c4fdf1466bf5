"""The sum that `./dev test` ends with must not hide a failure."""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from run_tests import tally_ctest_case  # noqa: E402


def tally(status, output, **skipped):
    case = ElementTree.Element("testcase", name="wire", status=status)
    ElementTree.SubElement(case, "system-out").text = output
    if skipped:
        ElementTree.SubElement(case, "skipped", **skipped)
    found = tally_ctest_case(case)
    return found.passed, found.failed, found.skipped


def test_a_catch2_program_counts_with_its_test_cases():
    assert tally("run", "===\nAll tests passed (100 assertions in 17 test cases)\n\n") == (17, 0, 0)
    assert tally("run", "===\nAll tests passed (1 assertion in 1 test case)\n\n") == (1, 0, 0)
    assert tally("fail", "test cases:  5 |  4 passed | 1 failed\nassertions: 9 | 8 passed | 1 failed\n") == (4, 1, 0)
    assert tally("fail", "test cases: 2 | 2 failed\nassertions: 2 | 2 failed\n") == (0, 2, 0)


def test_any_other_program_counts_as_one():
    assert tally("run", "fine") == (1, 0, 0)
    assert tally("fail", "") == (0, 1, 0)


def test_a_program_that_dies_after_its_summary_has_failed():
    assert tally("fail", "All tests passed (2 assertions in 2 test cases)\n==1==ERROR: LeakSanitizer: ") == (2, 1, 0)


def test_a_skipped_program_is_told_from_one_that_is_not_there():
    assert tally("notrun", "", message="SKIP_RETURN_CODE=77") == (0, 0, 1)
    assert tally("notrun", "", message="Unable to find executable") == (0, 1, 0)

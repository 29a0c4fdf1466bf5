"""Runs every test of one build and sums up: CTest (the Catch2 programs), then pytest, then one last line
"N passed, N failed, N skipped". Called by ./dev test, which has built everything before.

A Catch2 program counts with its test cases, any other CTest entry as one. Failed tests are shown in full.
"""

import argparse
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2  # test programs at a time; each loads LibTorch and may start processes of its own


@dataclass
class Tally:
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    failures: list = field(default_factory=list)

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.failures += other.failures


def catch2_counts(output):
    """(passed, failed) test cases by the last lines of Catch2's console reporter, or None: not a Catch2 program."""
    tail = output[-2000:]
    if found := re.search(r"All tests passed \(\d+ assertions? in (\d+) test cases?\)", tail):
        return int(found[1]), 0
    if found := re.search(r"test cases: *(\d+)([^\n]*)", tail):
        part = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed)", found[2])}
        return part.get("passed", 0), part.get("failed", 0)
    return None


def tally_ctest_case(case):
    name, status = case.get("name"), case.get("status")
    if status in ("notrun", "disabled"):
        # "notrun" with the reason SKIP_RETURN_CODE is a skip; a program that is not there is a failure.
        skipped = case.find("skipped")
        reason = skipped.get("message", "") if skipped is not None else ""
        if "SKIP" in reason or status == "disabled":
            return Tally(skipped=1)
        return Tally(failed=1, failures=[f"{name}: could not be run: {reason}"])
    passed, failed = catch2_counts(case.findtext("system-out") or "") or ((1, 0) if status == "run" else (0, 1))
    if status == "fail" and failed == 0:  # a crash, a sanitizer's report or a time-out
        failed = 1
    return Tally(passed, failed, failures=[name] if failed else [])


def run_ctest(build, only_unit, name_filter):
    report = build / "ctest.xml"
    report.unlink(missing_ok=True)
    command = ["ctest", "--test-dir", str(build), "-j", str(WORKERS), "--timeout", "600", "--output-on-failure",
               "--no-tests=ignore", "--output-junit", str(report.resolve()),
               "--test-output-size-passed", "1000000", "--test-output-size-failed", "10000000"]
    command += ["-L", "unit"] if only_unit else []
    command += ["-R", re.escape(name_filter)] if name_filter else []
    # Programs run side by side, one to a core: LibTorch's threads would wait for each other in busy loops.
    finished = subprocess.run(command, env={"OMP_NUM_THREADS": "1", **environment(build)})
    if not report.exists():
        return Tally(failed=finished.returncode != 0, failures=["ctest itself failed"] if finished.returncode else [])
    total = Tally()
    for case in ElementTree.parse(report).iter("testcase"):
        total.add(tally_ctest_case(case))
    if finished.returncode and not total.failed:
        total.add(Tally(failed=1, failures=["ctest itself failed"]))
    return total


def run_pytest(build, name_filter):
    report = build / "pytest.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-c", "tests/pytest.ini", "--rootdir", str(ROOT),
               "-n", str(WORKERS), "--dist", "loadfile",  # a file's tests share what its fixtures made
               "--junitxml", str(report.resolve())]
    command += ["-k", name_filter] if name_filter else []
    # The threads of many processes share two cores: who waits must not hold one in a busy loop.
    finished = subprocess.run(command, cwd=ROOT, env={"OMP_WAIT_POLICY": "passive", **environment(build)})
    if finished.returncode == 5:  # nothing matched, or there are no Python tests
        return Tally()
    total = Tally()
    if report.exists():
        for case in ElementTree.parse(report).iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                total.add(Tally(failed=1, failures=[f"{case.get('classname')}::{case.get('name')}"]))
            elif case.find("skipped") is not None:
                total.skipped += 1
            else:
                total.passed += 1
    if finished.returncode and not total.failed:
        total.add(Tally(failed=1, failures=[f"pytest ended with exit code {finished.returncode}"]))
    return total


def environment(build):
    """What tests may rely on: HANSA_BUILD_DIR, and sanitizers that end a program at the first finding."""
    suppressions = ROOT / "tests" / "support" / "sanitizers"
    # intercept_tls_get_addr=0: up to GCC 13 that interceptor takes a thread-local block of a loaded library that happens
    # to lie 16 bytes after a page for one of glibc before 2.25, reads a length before it that nobody wrote, and the leak
    # check then ends with "Tracer caught signal 11" (google/sanitizers 1353).
    defaults = {
        "HANSA_BUILD_DIR": str(build.resolve()),
        "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1:intercept_tls_get_addr=0",
        "LSAN_OPTIONS": f"suppressions={suppressions}/leaks.txt:print_suppressions=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "TSAN_OPTIONS": f"suppressions={suppressions}/races.txt:halt_on_error=1",
    }
    return {**os.environ, **{name: os.environ.get(name, value) for name, value in defaults.items()},
            "HANSA_BUILD_DIR": defaults["HANSA_BUILD_DIR"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--only-unit", action="store_true")
    parser.add_argument("name_filter", nargs="?")
    arguments = parser.parse_args()

    start = time.monotonic()
    total = run_ctest(arguments.build, arguments.only_unit, arguments.name_filter)
    if not arguments.only_unit:
        total.add(run_pytest(arguments.build, arguments.name_filter))
    print(f"\nThe tests took {time.monotonic() - start:.0f} s.")
    for failure in total.failures:
        print(f"failed: {failure}")
    ran = total.passed + total.failed
    if not ran:
        print("No test ran" + (f": none has '{arguments.name_filter}' in its name." if arguments.name_filter else "."))
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped", flush=True)
    return 0 if ran and not total.failed else 1


if __name__ == "__main__":
    sys.exit(main())

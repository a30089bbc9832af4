"""Runs the tests one after the other, in namespaces of their own; the summary is the last line."""

import argparse
import fnmatch
import importlib
import os
import pathlib
import subprocess
import time
import unittest

from harness.isolation import IsolationError, run_isolated
from harness.runner import Report, Result, short_name

from . import roots

SUITE = ("texts", "deb", "service", "boot", "tarball", "flash", "card")
# The exit status that tells Tests/run-all that this machine cannot do it.
SKIPPED = 77


def tests(suite: unittest.TestSuite) -> list[unittest.TestCase]:
    found = []
    for item in suite:
        found += tests(item) if isinstance(item, unittest.TestSuite) else [item]
    return found


def find_tests(pattern: str | None) -> list[unittest.TestCase]:
    loader, found = unittest.TestLoader(), []
    for name in SUITE:
        found += tests(loader.loadTestsFromModule(importlib.import_module(f"packages.test_{name}")))
    return [each for each in found if pattern is None or fnmatch.fnmatch(short_name(each), pattern)]


def run_tests(chosen: list[unittest.TestCase]) -> int:
    report = Report()
    roots.prepare()
    for test in chosen:
        result, start = Result(), time.monotonic()
        test.run(result)
        report.add(test, result, time.monotonic() - start)
    return report.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", metavar="PATTERN", help="those whose name matches, with * and ?")
    options = parser.parse_args()
    chosen = find_tests(options.k)
    if not chosen:
        parser.error("no test of this name")
    if os.geteuid() != 0:
        print("packages cannot be tested here: roots and namespaces need root")
        return SKIPPED
    # The network is away later on.
    for architecture in roots.ARCHITECTURES:
        if roots.missing(architecture) is None:
            made = subprocess.run([pathlib.Path(__file__).parents[1] / "make-root", architecture])
            if made.returncode != 0:
                return 1
    try:
        return run_isolated(lambda: run_tests(chosen))
    except IsolationError as error:
        print(f"packages cannot be tested here: {error}")
        return SKIPPED

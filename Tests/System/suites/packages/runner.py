"""Runs the tests of packages one after the other, in namespaces of their own."""

import argparse
import os

from harness.isolation import IsolationError, run_isolated
from harness.report import Report
from harness.runner import SKIPPED, add_options, chosen, load_tests, run_one
from suites.packages import roots

# In the order that finds mistakes earliest.
MODULES = ("texts", "deb", "service", "boot", "tarball", "flash")


def run_tests(tests: list) -> int:
    roots.prepare()
    report = Report(len(tests))
    for test in tests:
        run_one(test, report)
    return report.close()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Packages and flashed cards.")
    add_options(parser)
    options = parser.parse_args(arguments)
    found = [test for name in MODULES for test in load_tests(f"suites.packages.tests.{name}")]
    tests = chosen(parser, options, found)
    if os.geteuid() != 0:
        print("skipped: chroots and namespaces need root")
        return SKIPPED
    # Now, because the network namespace of the tests cannot reach a mirror.
    for architecture in roots.ARCHITECTURES:
        if roots.missing(architecture) is None:
            try:
                roots.make(architecture)
            except roots.RootError as error:
                print(error)
                return 1
    try:
        return run_isolated(lambda: run_tests(tests))
    except IsolationError as error:
        print(f"skipped: {error}")
        return SKIPPED

"""Runs the interoperability tests: a program under test against a peer, in network namespaces."""

import argparse

from harness.isolation import IsolationError, run_isolated
from harness.runner import SKIPPED, add_options, chosen, find_tests, has_trait, run_all
from harness.settings import CULVERT, NEWEST, Program, Settings, check_programs, missing_tools


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Interoperability tests in network namespaces.")
    add_options(parser)
    parser.add_argument("-j", dest="jobs", type=int, default=8, help="tests at a time")
    parser.add_argument("--program", default=CULVERT, help="the program under test")
    parser.add_argument("--peer", default=str(NEWEST), help="the program at the other end")
    parser.add_argument("--quick", action="store_true", help="only a short subset")
    parser.add_argument(
        "--alone",
        choices=("with", "without", "only"),
        default="with",
        help="what to do with tests that need the machine for themselves",
    )
    parser.add_argument("--strict", action="store_true", help="no exceptions for other programs")
    options = parser.parse_args(arguments)
    tests = find_tests("interop")
    if options.quick:
        tests = [test for test in tests if has_trait(test, "quick")]
    apart = [test for test in tests if has_trait(test, "alone")]
    if options.alone == "only":
        tests = apart
    elif options.alone == "without":
        tests = [test for test in tests if not has_trait(test, "alone")]
        print(f"left to make test-rest: {len(apart)} tests that need the machine for themselves")
    tests = chosen(parser, options, tests)
    check_programs(parser, options.program, options.peer)

    def body() -> int:
        settings = Settings(Program(options.program), Program(options.peer), options.strict)
        return run_all(tests, settings, options.jobs)

    try:
        if reason := missing_tools():
            raise IsolationError(reason)
        return run_isolated(body)
    except IsolationError as error:
        print(f"skipped: {error}")
        return SKIPPED

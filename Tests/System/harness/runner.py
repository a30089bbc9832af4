"""Finds tests and runs them side by side."""

import argparse
import fnmatch
import importlib
import os
import pathlib
import queue
import threading
import time
import unittest
from collections.abc import Callable

from harness.case import InteropCase
from harness.report import Report, Result, short_name
from harness.settings import Settings

SUITES = pathlib.Path(__file__).resolve().parents[1] / "suites"
# Exit status of a suite that this machine cannot run.
SKIPPED = 77


def load_tests(module: str) -> list[unittest.TestCase]:
    cases = unittest.TestLoader().loadTestsFromModule(importlib.import_module(module))
    return [test for case in cases for test in case]


def find_tests(folder: str) -> list[unittest.TestCase]:
    """All tests in the modules below a folder of `suites`."""
    found = []
    for path in sorted((SUITES / folder).rglob("*.py")):
        module = ".".join(path.relative_to(SUITES.parent).with_suffix("").parts)
        found += load_tests(module)
    return found


def matching(tests: list, pattern: str | None) -> list:
    """The tests whose name contains the pattern; * and ? are wildcards."""
    if not pattern:
        return tests
    return [test for test in tests if fnmatch.fnmatch(short_name(test), f"*{pattern}*")]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that all suites of test cases have."""
    parser.add_argument("-k", dest="pattern", help="only tests whose name matches (*, ?)")
    parser.add_argument("--list", action="store_true", help="print the names only")


def chosen(
    parser: argparse.ArgumentParser, options: argparse.Namespace, tests: list
) -> list[unittest.TestCase]:
    """The tests that the options select; none is an error. With --list, print them and exit."""
    found = matching(tests, options.pattern)
    if not found:
        parser.error(f"no test matches '{options.pattern or 'these options'}'")
    if options.list:
        print("\n".join(map(short_name, found)))
        parser.exit()
    return found


def has_trait(test: unittest.TestCase, name: str) -> bool:
    return getattr(getattr(type(test), test._testMethodName), name, False)


def skip_reason(test: InteropCase, settings: Settings) -> str | None:
    if has_trait(test, "culvert_only") and not settings.program.is_culvert:
        return None if settings.strict else f"{settings.program.name} is not Culvert"
    return settings.program.lacks.get(getattr(test.method, "needs", ""))


def run_one(test: unittest.TestCase, report: Report, reason: str | None = None) -> None:
    result, start = Result(), time.monotonic()
    if reason:
        result.addSkip(test, reason)
    else:
        test.run(result)
    report.add(test, result, time.monotonic() - start)


def run_all(tests: list[InteropCase], settings: Settings, jobs: int) -> int:
    """Run the tests on `jobs` threads; the exit status.

    Tests that wait for long timers start first, because they determine when the run ends. One heavy
    test runs at a time beside the others; when those are done, one for each processor. Those that
    must be alone follow, one at a time.
    """
    InteropCase.settings = settings
    report = Report(len(tests))
    light, heavy, alone = (queue.SimpleQueue() for _ in range(3))
    for test in sorted(tests, key=lambda test: not has_trait(test, "long")):
        if has_trait(test, "alone"):
            alone.put(test)
        else:
            (heavy if has_trait(test, "heavy") else light).put(test)

    def work(*queues: queue.SimpleQueue) -> None:
        for source in queues:
            while True:
                try:
                    test = source.get_nowait()
                except queue.Empty:
                    break
                run_one(test, report, skip_reason(test, settings))

    helpers = min(jobs, os.cpu_count() or 1) - 1
    plans = [(heavy, light)] + [(light, heavy)] * helpers
    run_threads(work, plans + [(light,)] * (jobs - len(plans)))
    work(alone)
    return report.close()


def run_threads(work: Callable, plans: list[tuple]) -> None:
    threads = [threading.Thread(target=work, args=plan) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

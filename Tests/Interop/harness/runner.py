"""Runs tests side by side, a line for each, the summary last."""

import argparse
import fnmatch
import importlib
import pathlib
import queue
import threading
import time
import unittest

from .case import InteropCase
from .isolation import IsolationError, run_isolated
from .program import Program
from .settings import CULVERT, NEWEST, Settings, check_programs, missing_tools

SUITE = pathlib.Path(__file__).resolve().parents[1] / "suite"
HEAVY_AT_ONCE = 1


class Result(unittest.TestResult):
    """Collects the outcome of one test, and the ends' logs while the lab still stands."""

    def __init__(self) -> None:
        super().__init__()
        self.logs = ""

    def addError(self, test, err) -> None:
        self.logs = self.logs or collected_logs(test)
        super().addError(test, err)

    def addFailure(self, test, err) -> None:
        self.logs = self.logs or collected_logs(test)
        super().addFailure(test, err)


def collected_logs(test: unittest.TestCase) -> str:
    lab = getattr(test, "lab", None)
    return lab.logs() if lab else ""


class Report:
    """Prints as tests end and counts; one lock, for many threads report."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.passed = self.failed = self.skipped = 0
        self.start = time.monotonic()

    def add(self, test: unittest.TestCase, result: Result, seconds: float) -> None:
        problems = result.errors + result.failures
        name = short_name(test)
        with self.lock:
            if problems:
                self.failed += 1
                print(f"FAIL {seconds:6.1f} s  {name}", flush=True)
                print("\n".join(text for _, text in problems) + result.logs, flush=True)
            elif result.skipped:
                self.skipped += 1
                print(f"skip           {name}: {result.skipped[0][1]}", flush=True)
            else:
                self.passed += 1
                print(f"ok   {seconds:6.1f} s  {name}", flush=True)

    def close(self) -> int:
        """The closing lines and the exit status."""
        total = self.passed + self.failed + self.skipped
        verdicts = [("failures", self.failed), ("skipped", self.skipped)]
        details = ", ".join(f"{word}={count}" for word, count in verdicts if count)
        print(f"\nRan {total} tests in {time.monotonic() - self.start:.1f}s\n")
        print(("FAILED" if self.failed else "OK") + (f" ({details})" if details else ""))
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped", flush=True)
        return 1 if self.failed else 0


def short_name(test: unittest.TestCase) -> str:
    return ".".join(test.id().split(".")[-3:])


def load_tests(module: str) -> list[InteropCase]:
    cases = unittest.TestLoader().loadTestsFromModule(importlib.import_module(module))
    return [test for case in cases for test in case]


def find_tests(pattern: str | None, quick: bool) -> list[InteropCase]:
    """All tests of the suite's modules that match, those that mostly wait first."""
    found = []
    for path in sorted(SUITE.glob("*.py")):
        if path.stem != "__init__":
            found += load_tests(f"suite.{path.stem}")
    if quick:
        found = [test for test in found if getattr(test.method, "quick", False)]
    if pattern:
        found = [test for test in found if fnmatch.fnmatch(short_name(test), f"*{pattern}*")]
    return sorted(found, key=lambda test: not getattr(test.method, "long", False))


def skip_reason(test: InteropCase, settings: Settings) -> str | None:
    if getattr(test.method, "culvert_only", False) and not settings.program.is_culvert:
        return None if settings.strict else f"{settings.program.name} is not Culvert"
    return settings.program.lacks.get(getattr(test.method, "needs", ""))


def run_one(test: InteropCase, report: Report, settings: Settings) -> None:
    result, start = Result(), time.monotonic()
    if reason := skip_reason(test, settings):
        result.addSkip(test, reason)
    else:
        test.run(result)
    report.add(test, result, time.monotonic() - start)


def run_all(tests: list[InteropCase], settings: Settings, jobs: int) -> int:
    """Run the tests on `jobs` threads, heavy ones one at a time; the exit status."""
    InteropCase.settings = settings
    report = Report()
    light, heavy = queue.SimpleQueue(), queue.SimpleQueue()
    for test in tests:
        (heavy if getattr(test.method, "heavy", False) else light).put(test)

    def work(*queues: queue.SimpleQueue) -> None:
        for source in queues:
            while True:
                try:
                    run_one(source.get_nowait(), report, settings)
                except queue.Empty:
                    break

    # One thread for the heavy tests, which then helps with the others.
    plans = [(heavy, light)] * HEAVY_AT_ONCE + [(light,)] * max(1, jobs - HEAVY_AT_ONCE)
    threads = [threading.Thread(target=work, args=plan) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return report.close()


def skip_all(tests: list[InteropCase], reason: str) -> int:
    """Name every test that could not run, with the reason."""
    report = Report()
    for test in tests:
        result = Result()
        result.addSkip(test, reason)
        report.add(test, result, 0)
    return report.close()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Interoperability tests in network namespaces.")
    parser.add_argument("--program", default=CULVERT, help="the program under test")
    parser.add_argument("--peer", default=str(NEWEST), help="the program at the other end")
    parser.add_argument("--quick", action="store_true", help="only the short subset")
    parser.add_argument("--strict", action="store_true", help="no exceptions for other programs")
    parser.add_argument("-k", dest="pattern", help="only tests whose name matches")
    parser.add_argument("-j", dest="jobs", type=int, default=6, help="tests at a time")
    parser.add_argument("--list", action="store_true", help="print the names only")
    options = parser.parse_args(arguments)
    tests = find_tests(options.pattern, options.quick)
    if options.list:
        print("\n".join(map(short_name, tests)))
        return 0
    check_programs(parser, options.program, options.peer)

    def body() -> int:
        settings = Settings(Program(options.program), Program(options.peer), options.strict)
        return run_all(tests, settings, options.jobs)

    try:
        if reason := missing_tools():
            raise IsolationError(reason)
        return run_isolated(body)
    except IsolationError as error:
        return skip_all(tests, str(error))

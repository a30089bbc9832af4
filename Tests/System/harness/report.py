"""One line for each test that ends, and the counts at the end."""

import threading
import time
import unittest


class Result(unittest.TestResult):
    """The outcome of one test, and the logs of its programs, read before the lab is closed."""

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
    """Prints and counts tests as they end; many threads report, so it has a lock."""

    def __init__(self, count: int) -> None:
        self.lock = threading.Lock()
        self.passed = self.failed = self.skipped = 0
        self.start = time.monotonic()
        print(f"running {count} tests", flush=True)

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
        """Print the counts; the exit status."""
        seconds = time.monotonic() - self.start
        counts = f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"
        print(f"{counts} in {seconds:.1f} s", flush=True)
        return 1 if self.failed else 0


def short_name(test: unittest.TestCase) -> str:
    """The test's name without that of its suite, e.g. tunnels.timers.RetryTests.test_R17_..."""
    return ".".join(test.id().split(".")[2:])

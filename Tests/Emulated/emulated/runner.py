"""Runs every board's tests in a process and namespaces of its own, some boards at a time."""

import argparse
import collections
import os
import re
import signal
import subprocess
import sys
import threading
import time

from harness import isolation
from harness.case import InteropCase
from harness.isolation import IsolationError, run_isolated
from harness.program import Program
from harness.runner import run_all, short_name
from harness.settings import NEWEST, Settings, missing_tools

from .boards import BOARDS, NATIVE
from .selection import FULL_BOARDS, tests_of, tests_of_pairs

SKIPPED = 77  # exit status: the machine cannot run this
PAIRS = "pairs"  # stands for a board where each is tested against each
AT_ONCE = 2
COUNTS = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped")
# What a part prints at its end, which is said once for all of them.
CLOSING = re.compile(r"Ran \d+ tests in|OK\b|FAILED\b")


def main() -> int:
    parser = argparse.ArgumentParser(description="The boards' programs under qemu-user.")
    parser.add_argument(
        "--boards", default=",".join(BOARDS), help="some of %(default)s, with commas"
    )
    parser.add_argument("-k", dest="pattern", default="", help="only tests with this in their name")
    parser.add_argument("-j", dest="jobs", type=int, default=5, help="tests of a board at a time")
    parser.add_argument("--list", action="store_true", help="print the names only")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # of the processes that this one starts
    options = parser.parse_args()
    boards = [name for name in options.boards.split(",") if name]
    for name in boards:
        if name not in BOARDS:
            parser.error(f"no board {name}; there are {', '.join(BOARDS)}")
    if options.part:
        return run_part(options.part, boards, options)
    names = [
        f"{part} {short_name(test)}"
        for part in parts_of(boards)
        for test in chosen(part, boards, options.pattern)
    ]
    if not names:
        parser.error(f"no test has {options.pattern} in its name")
    if options.list:
        print("\n".join(names))
        return 0
    for path in (NATIVE, NEWEST, *(BOARDS[name].path for name in boards)):
        if not os.access(path, os.X_OK):
            parser.error(f"no program at {path}; make boards peers makes it")
    if reason := cannot_run(boards):
        print(reason)
        return SKIPPED
    for name in boards:
        BOARDS[name].write_scripts()
    return run_parts(parts_of(boards))


def parts_of(boards: list[str]) -> list[str]:
    """The longest first."""
    ordered = sorted(boards, key=lambda name: name not in FULL_BOARDS)
    return [*ordered, *([PAIRS] if len(boards) > 1 else [])]


def cannot_run(boards: list[str]) -> str:
    """What is missing on this machine; empty when nothing is."""
    reasons = [missing_tools(), *(BOARDS[name].missing for name in boards)]
    return "; ".join(dict.fromkeys(filter(None, [*reasons, missing_rights()])))


def missing_rights() -> str:
    """Tried in a process of its own, for each can have namespaces of its own only once."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(run_isolated(lambda: 0))
        except IsolationError as error:
            print(error)
            os._exit(1)
    return "" if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 else "no namespaces"


# One part, in its own process


def chosen(part: str, boards: list[str], pattern: str) -> list[InteropCase]:
    tests = tests_of_pairs(boards) if part == PAIRS else tests_of(part)
    return [test for test in tests if pattern in short_name(test)]


def run_part(part: str, boards: list[str], options: argparse.Namespace) -> int:
    # However the run ends, its parts end with it.
    isolation.libc.prctl(isolation.PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    tests = chosen(part, boards, options.pattern)
    if not tests:
        print("0 passed, 0 failed, 0 skipped")
        return 0

    def body() -> int:
        # In the namespaces, for it makes an interface.
        from checks.lacking import find_lacks

        board = BOARDS[boards[0] if part == PAIRS else part]
        program = board.program(find_lacks(board.program()))
        return run_all(tests, Settings(program, Program(NEWEST)), options.jobs)

    return run_isolated(body)


# All of them


class Parts:
    """The parts that wait, and what those that ended have told."""

    def __init__(self, names: list[str]):
        self.names = collections.deque(names)
        self.lock = threading.Lock()
        self.counts = [0, 0, 0]
        self.statuses: list[int] = []

    def work(self) -> None:
        while True:
            with self.lock:
                if not self.names:
                    return
                name = self.names.popleft()
            self.run(name)

    def run(self, name: str) -> None:
        start, seen = time.monotonic(), False
        command = [sys.executable, "-B", *sys.argv, "--part", name]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:  # fmt: skip
            for line in process.stdout:
                if counts := COUNTS.fullmatch(line.strip()):
                    seen = True
                    self.add(counts)
                elif line.strip() and not CLOSING.match(line):
                    self.tell(f"{name:8} {line.rstrip()}")
        with self.lock:
            # Without counts it ended in the middle.
            self.statuses.append(process.returncode if seen else process.returncode or 1)
        self.tell(f"{name:8} ended after {time.monotonic() - start:.0f} s")

    def add(self, counts: re.Match) -> None:
        with self.lock:
            self.counts = [total + int(more) for total, more in zip(self.counts, counts.groups())]

    def tell(self, line: str) -> None:
        with self.lock:
            print(line, flush=True)


def run_parts(names: list[str]) -> int:
    parts, start = Parts(names), time.monotonic()
    threads = [threading.Thread(target=parts.work) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed, failed, skipped = parts.counts
    print(f"\n{passed + failed + skipped} tests in {time.monotonic() - start:.0f} s")
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or any(parts.statuses) else 0

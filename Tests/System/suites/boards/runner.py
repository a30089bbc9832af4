"""Runs each board's tests in a separate process with its own namespaces, some in parallel."""

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
from harness.report import short_name
from harness.runner import SKIPPED, SUITES, add_options, matching, run_all
from harness.settings import NEWEST, Program, Settings, missing_tools
from suites.boards.boards import BOARDS, NATIVE
from suites.boards.selection import FULL_BOARDS, digest_tests, tests_of, tests_of_pairs
from suites.boards.tunnels import find_lacks

PAIRS = "pairs"  # instead of a board: the part that tests each board against each other
AT_ONCE = 2
COUNTS = re.compile(r"(\d+) passed, (\d+) failed, (\d+) skipped in .*")
STARTED = re.compile(r"running \d+ tests")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="The boards' programs under qemu-user.")
    add_options(parser)
    parser.add_argument("-j", dest="jobs", type=int, default=5, help="tests of a board at a time")
    parser.add_argument(
        "--boards", default=",".join(BOARDS), help="some of %(default)s, with commas"
    )
    parser.add_argument(
        "--digests", action="store_true", help="only compare what `culvert selftest` prints"
    )
    parser.add_argument("--part", help=argparse.SUPPRESS)  # of the processes that this one starts
    options = parser.parse_args(arguments)
    boards = [name for name in options.boards.split(",") if name]
    for name in boards:
        if name not in BOARDS:
            parser.error(f"no board {name}; there are {', '.join(BOARDS)}")
    if options.part:
        return run_part(options.part, boards, options)
    names = [
        f"{part} {short_name(test)}"
        for part in parts_of(boards)
        for test in chosen(part, boards, options)
    ]
    if not names:
        parser.error(f"no test matches '{options.pattern}'")
    if options.list:
        print("\n".join(names))
        return 0
    for path in (NATIVE, NEWEST, *(BOARDS[name].path for name in boards)):
        if not os.access(path, os.X_OK):
            parser.error(f"no program at {path}; `make boards peers` makes it")
    if reason := cannot_run(boards):
        print(f"skipped: {reason}")
        return SKIPPED
    for name in boards:
        BOARDS[name].write_scripts()
    print(f"running {len(names)} tests", flush=True)
    return run_parts(parts_of(boards), arguments)


def parts_of(boards: list[str]) -> list[str]:
    """The longest first."""
    ordered = sorted(boards, key=lambda name: name not in FULL_BOARDS)
    return [*ordered, *([PAIRS] if len(boards) > 1 else [])]


def cannot_run(boards: list[str]) -> str:
    """What this machine lacks; empty if nothing is missing."""
    reasons = [missing_tools(), *(BOARDS[name].missing for name in boards)]
    return "; ".join(dict.fromkeys(filter(None, [*reasons, missing_rights()])))


def missing_rights() -> str:
    """Tried in a child, because a process can enter private namespaces only once."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(run_isolated(lambda: 0))
        except IsolationError as error:
            print(error)
            os._exit(1)
    return "" if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 else "no namespaces"


# One part, in its own process


def chosen(part: str, boards: list[str], options: argparse.Namespace) -> list[InteropCase]:
    if options.digests:
        tests = [] if part == PAIRS else digest_tests()
    else:
        tests = tests_of_pairs(boards) if part == PAIRS else tests_of(part)
    return matching(tests, options.pattern)


def run_part(part: str, boards: list[str], options: argparse.Namespace) -> int:
    # The parts end with the run, for whatever reason it ends.
    isolation.libc.prctl(isolation.PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    tests = chosen(part, boards, options)
    if not tests:
        print("0 passed, 0 failed, 0 skipped in 0 s")
        return 0

    def body() -> int:
        # In the namespaces, because find_lacks creates an interface.
        board = BOARDS[boards[0] if part == PAIRS else part]
        lacks = {} if options.digests else find_lacks(board.program())
        settings = Settings(board.program(lacks), Program(NEWEST))
        return run_all(tests, settings, options.jobs)

    return run_isolated(body)


# All of them


class Parts:
    """The parts that have not started, and the results of those that ended."""

    def __init__(self, names: list[str], arguments: list[str]):
        self.names = collections.deque(names)
        self.arguments = arguments
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
        script = SUITES.parent / "run"
        command = [sys.executable, "-B", script, "boards", *self.arguments, "--part", name]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:  # fmt: skip
            for line in process.stdout:
                if counts := COUNTS.fullmatch(line.strip()):
                    seen = True
                    self.add(counts)
                elif line.strip() and not STARTED.fullmatch(line.strip()):
                    self.print_line(labelled(line.rstrip(), name))
        with self.lock:
            # Without counts, it ended before its tests did.
            self.statuses.append(process.returncode if seen else process.returncode or 1)
        self.print_line(f"{name} ended after {time.monotonic() - start:.0f} s")

    def add(self, counts: re.Match) -> None:
        with self.lock:
            self.counts = [total + int(more) for total, more in zip(self.counts, counts.groups())]

    def print_line(self, line: str) -> None:
        with self.lock:
            print(line, flush=True)


def labelled(line: str, name: str) -> str:
    """The line with the board's name after the verdict, so that all lines start alike."""
    head, body = line[:15], line[15:]
    if line.startswith(("ok ", "skip ", "FAIL ")):
        return f"{head}{name} {body}"
    return f"{name}: {line}"


def run_parts(names: list[str], arguments: list[str]) -> int:
    parts, start = Parts(names, arguments), time.monotonic()
    threads = [threading.Thread(target=parts.work) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed, failed, skipped = parts.counts
    seconds = time.monotonic() - start
    print(f"{passed} passed, {failed} failed, {skipped} skipped in {seconds:.1f} s", flush=True)
    return 1 if failed or any(parts.statuses) else 0

"""Runs parts in parallel, in an order that their needs allow, and prints the progress."""

import contextlib
import dataclasses
import enum
import os
import re
import signal
import subprocess
import sys
import time

from harness import isolation
from harness.runner import SKIPPED
from harness.settings import REPOSITORY

LOGS = REPOSITORY / "build" / "tests"
SILENCE = 15.0  # seconds after which a line names the running parts
SHOWN = 200  # lines of a failed part
TOTAL = re.compile(r"running (\d+) tests")
ENDED = re.compile(r"(?:ok|skip|FAIL) ")


class Lane(enum.Enum):
    """Decides which parts may run at the same time."""

    # Needed by the others: starts at once, at normal priority.
    FIRST = enum.auto()
    # Only computes: runs at the lowest priority.
    COMPUTE = enum.auto()
    # Uses network namespaces, and waits for timers most of the time.
    NETWORK = enum.auto()
    # Measures time or processor use: nothing else runs meanwhile.
    ALONE = enum.auto()


# How many parts of a lane run at a time.
ROOM = {Lane.FIRST: 1, Lane.COMPUTE: os.cpu_count() or 1, Lane.NETWORK: 2}


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    command: tuple[str, ...]
    lane: Lane = Lane.COMPUTE
    # Parts that have to pass first.
    needs: tuple[str, ...] = ()
    # How much of its lane it takes.
    width: int = 1


class Running:
    """A part whose process has been started; its output goes to a file."""

    def __init__(self, part: Part):
        self.part, self.start = part, time.monotonic()
        self.processor = 0.0  # seconds, when it has ended
        self.log = LOGS / (re.sub(r"[^a-z0-9]+", "-", part.name.lower()) + ".log")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                part.command,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: prepare(part.lane),
            )

    def has_ended(self) -> bool:
        """Whether the process has exited; sets its status and processor time."""
        pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        if pid == 0:
            return False
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.processor = usage.ru_utime + usage.ru_stime
        return True

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def progress(self) -> str:
        """Progress: the number of tests that have ended if known, else the time."""
        text = self.text
        total = TOTAL.search(text)
        if not total:
            return f"{self.part.name} ({self.seconds:.0f} s)"
        ended = sum(1 for line in text.splitlines() if ENDED.match(line))
        return f"{self.part.name} ({ended} of {total[1]} tests)"

    @property
    def is_skipped(self) -> bool:
        """Whether the machine cannot run it; make(1) exits with 2 and prints the status."""
        status = self.process.returncode
        return status == SKIPPED or status == 2 and f"Error {SKIPPED}" in self.last_line

    @property
    def last_line(self) -> str:
        lines = [line for line in self.text.splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""

    @property
    def summary(self) -> str:
        """The last line that the part itself has printed."""
        lines = [line for line in self.text.splitlines() if line.strip()]
        lines = [line for line in lines if not line.startswith("make: ***")]
        return lines[-1].strip()[:90] if lines else ""

    def stop(self) -> None:
        """End the part and all processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()


def prepare(lane: Lane) -> None:
    """In the child: exit with the parent; a part that only computes yields to all others."""
    isolation.libc.prctl(isolation.PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if lane is Lane.COMPUTE:
        os.nice(19)
        # A container may forbid this.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def end_by_signal(number: int, _frame: object) -> None:
    """Unwind, so that the running parts are stopped."""
    sys.exit(128 + number)


class Schedule:
    """Starts each part as soon as its needs have passed and its lane has room."""

    def __init__(self, name: str, parts: list[Part]):
        self.name = name
        self.waiting = list(parts)
        self.running: list[Running] = []
        self.results: dict[str, str] = {}  # passed, failed or skipped, by name
        self.rows: list[str] = []
        self.start = self.last_line = time.monotonic()

    def run(self) -> int:
        """Run all parts; the exit status."""
        LOGS.mkdir(parents=True, exist_ok=True)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, end_by_signal)
        try:
            while self.waiting or self.running:
                self.drop_unreachable()
                self.start_parts()
                self.collect()
                if time.monotonic() - self.last_line > SILENCE and self.running:
                    self.say("...    " + ", ".join(it.progress for it in self.running))
                time.sleep(0.1)
        finally:
            for running in self.running:
                running.stop()
        return self.close()

    def say(self, text: str) -> None:
        self.last_line = time.monotonic()
        print(f"[{self.last_line - self.start:4.0f} s] {text}", flush=True)

    # Starting

    def start_parts(self) -> None:
        for part in list(self.waiting):
            is_ready = all(self.results.get(name) == "passed" for name in part.needs)
            if is_ready and self.has_room(part):
                self.waiting.remove(part)
                self.say(f"start  {part.name}")
                self.running.append(Running(part))

    def has_room(self, part: Part) -> bool:
        lanes = [it.part.lane for it in self.running for _ in range(it.part.width)]
        if part.lane is Lane.ALONE:
            # Parts that can run beside others start first.
            return not lanes and not any(it.lane is not Lane.ALONE for it in self.waiting)
        if Lane.ALONE in lanes:
            return False
        room = ROOM[part.lane]
        if part.lane is Lane.COMPUTE:
            # A part of the first lane occupies a processor.
            room -= lanes.count(Lane.FIRST)
        return lanes.count(part.lane) + part.width <= room

    def drop_unreachable(self) -> None:
        """Skip the parts that need one that did not pass."""
        for part in list(self.waiting):
            for name in part.needs:
                if self.results.get(name, "passed") != "passed":
                    self.waiting.remove(part)
                    self.add(part.name, "skipped", f"needs '{name}'")
                    break

    # Ending

    def collect(self) -> None:
        for it in list(self.running):
            if not it.has_ended():
                continue
            self.running.remove(it)
            status = it.process.returncode
            result = "passed" if status == 0 else "skipped" if it.is_skipped else "failed"
            self.add(it.part.name, result, it.summary, it.seconds, it.processor)
            if result == "failed":
                self.show(it, status)

    def add(
        self, name: str, result: str, summary: str, seconds: float = 0, processor: float = 0
    ) -> None:
        self.results[name] = result
        verdict = {"passed": "ok", "failed": "FAILED", "skipped": "skip"}[result]
        self.say(f"{verdict:<6} {name}, {seconds:.0f} s: {summary}")
        times = f"{seconds:5.0f} s ({processor:.0f} s CPU)"
        self.rows.append(f"{verdict:<6} {times}  {name}: {summary}")

    def show(self, it: Running, status: int) -> None:
        """The output of a failed part, without the tests that passed."""
        lines = [line for line in it.text.splitlines() if not line.startswith(("ok ", "skip "))]
        print(f"--- {it.part.name}: exit status {status}; all of its output: {it.log}")
        print("\n".join(lines[-SHOWN:]))
        print("---", flush=True)

    def close(self) -> int:
        """Print all results; the exit status."""
        results = list(self.results.values())
        counts = {name: results.count(name) for name in ("passed", "failed", "skipped")}
        print("\n" + "\n".join(self.rows))
        verdicts = ", ".join(f"{count} {result}" for result, count in counts.items())
        summary = f"make {self.name}: parts: {verdicts} in {time.monotonic() - self.start:.0f} s"
        print(summary)
        # Read by .ci/run, which runs two of these.
        (LOGS / f"{self.name}.summary").write_text("\n".join([*self.rows, summary]) + "\n")
        # A part that was dropped needs one that failed, or one that was skipped.
        return 1 if counts["failed"] else 0

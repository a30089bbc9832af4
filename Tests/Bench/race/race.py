"""Rounds in which the programs take turns, so that other load on the machine affects all of them.

In each round every program has a tunnel, and all programs take turns at a step before the next
step begins. The program that is first changes from round to round.
"""

import argparse
import sys
import time
from collections.abc import Callable

from harness.lab.lab import Lab
from harness.lab.pair import Pair, build_pair
from harness.settings import Program
from race import steps
from race.machine import busy_percent
from race.measures import BY_KEY, SIZES
from race.nests import ARRANGEMENTS, NestedRun
from race.results import Results
from race.steps import handshakes, peers, quiet_pair, start, wake_ups

STARTS = 3  # of each program in a round
WATCHED = 10  # seconds of idleness
LISTENED = 0.5  # seconds before a round in which the load by other work is measured
Step = tuple[str, Callable[[Pair], steps.Figures]]


class Race:
    """The whole benchmark; `run` returns the results."""

    def __init__(self, programs: list[Program], options: argparse.Namespace):
        self.programs, self.options = programs, options
        self.results = Results([it.name for it in programs])
        self.start = time.monotonic()

    def run(self) -> Results:
        for number in range(self.options.rounds):
            self.run_round(number)
            self.run_starts(number)
            if "nested" in self.options.groups:
                self.run_nested(number)
        if "peers" in self.options.groups:
            self.run_peers()
        if "idle" in self.options.groups:
            self.tell("idle", f"all programs at once, {WATCHED} s")
            self.run_idle()
        return self.results

    def plan(self) -> list[Step]:
        """The steps of a round, in order."""
        seconds, found = self.options.seconds, []
        if "ping" in self.options.groups:
            found.append(("ping, idle", steps.ping_idle))
        if "tcp" in self.options.groups:
            for flows in (1, 4):
                for way in ("up", "down"):
                    found.append(
                        (
                            f"TCP {flows} {way}",
                            lambda pair, flows=flows, way=way: steps.tcp(pair, seconds, flows, way),
                        )
                    )
        if "udp" in self.options.groups:
            for size in SIZES:
                found.append(
                    (
                        f"UDP {size}",
                        lambda pair, size=size: steps.udp(pair, seconds, size),
                    )
                )
        if "ping" in self.options.groups:
            found.append(("ping, load", lambda pair: steps.ping_load(pair, seconds)))
        if "start" in self.options.groups:
            found.append(("handshakes", handshakes))
        if found:
            found.append(("memory", steps.memory))
        return found

    def run_round(self, number: int) -> None:
        """All steps; the programs take turns at each."""
        labs: dict[Program, Lab] = {}
        pairs: dict[Program, Pair] = {}
        order, label = self.order(number), self.label(number)
        try:
            for program in order if (planned := self.plan()) else ():
                labs[program] = Lab()
                self.attempt(program, "set up", lambda: self.build(labs, pairs, program))
            self.results.busy.append(busy_percent(LISTENED))
            for name, step in planned:
                for program in [it for it in order if it in pairs]:
                    figures = self.attempt(program, name, lambda: step(pairs[program]))
                    self.record(program, f"{label}, {name}", figures)
                    if not figures and not self.is_alive(program, pairs[program]):
                        del pairs[program]  # until the next round
        finally:
            for program, lab in labs.items():
                for complaint in lab.close():
                    self.results.note(program.name, complaint)

    def run_starts(self, number: int) -> None:
        """Each program started a few times, in turn."""
        for _ in range(STARTS if "start" in self.options.groups else 0):
            for program in self.order(number):
                figures = self.attempt(program, "start", lambda: start(program))
                self.record(program, f"{self.label(number)}, start", figures)

    def run_nested(self, number: int) -> None:
        """Each arrangement of the program under test and of the reference, in turn."""
        wanted = self.programs[0].name, self.options.reference
        runs = [NestedRun(it) for it in self.order(number) if it.is_culvert or it.name in wanted]
        # Here the order alternates as well.
        names = [*ARRANGEMENTS] if number % 2 == 0 else [*reversed(ARRANGEMENTS)]
        turns = [(run, it) for it in names for run in runs if it in run.possible]
        seconds = self.options.seconds
        try:
            for run, name in turns:
                self.attempt(run.program, f"set up {name}", lambda: run.build(name))
            for run, name in [(run, it) for run, it in turns if it in run.nests]:
                step = f"{self.label(number)}, {name}"
                figures = self.attempt(run.program, step, lambda: run.tcp(name, seconds))
                self.record(run.program, step, figures)
            for run in runs:
                self.record(run.program, self.label(number), run.shares())
        finally:
            for run in runs:
                for complaint in run.lab.close():
                    self.results.note(run.program.name, complaint)

    def run_peers(self) -> None:
        """Each number of peers in every second round, with half of the usual time of traffic."""
        seconds = max(1, self.options.seconds / 2)
        for number in range(max(1, self.options.rounds // 2)):
            for count in self.options.peer_counts:
                for program in self.order(number):
                    name = f"{count} peers"
                    figures = self.attempt(program, name, lambda: peers(program, count, seconds))
                    self.record(program, name, figures)

    def order(self, number: int) -> list[Program]:
        first = number % len(self.programs)
        return self.programs[first:] + self.programs[:first]

    def label(self, number: int) -> str:
        return f"round {number + 1} of {self.options.rounds}"

    def build(self, labs: dict[Program, Lab], pairs: dict[Program, Pair], program: Program) -> None:
        pair = build_pair(labs[program], program, program, level="error", peer_level="error")
        pair.handshake(20)
        pairs[program] = pair

    def is_alive(self, program: Program, pair: Pair) -> bool:
        """Whether a tunnel still answers after a step that failed."""
        if not all(node.is_running for node in pair.nodes):
            return False
        return self.attempt(program, "afterwards", lambda: pair.handshake(10) or True) is True

    def attempt(self, program: Program, name: str, action: Callable):
        """The result of the action; a failure is recorded, and the other programs continue."""
        try:
            return action()
        except (AssertionError, OSError, ValueError, KeyError) as error:
            line = str(error).strip().partition("\n")[0] or type(error).__name__
            self.results.note(program.name, f"{name}: {line}")
            self.tell(program.name, f"{name} failed: {line}")
            return None

    def record(self, program: Program, label: str, figures: steps.Figures | None) -> None:
        if figures:
            self.results.add(program.name, figures)
            self.tell(label, f"{program.name}: {told(figures)}")

    def run_idle(self) -> None:
        """All programs at the same time, without traffic."""
        labs = {program: Lab() for program in self.programs}
        try:
            pairs = {
                program: pair
                for program, lab in labs.items()
                if (pair := self.attempt(program, "idle", lambda: quiet_pair(lab, program)))
            }
            for program, count in wake_ups(pairs, WATCHED).items():
                if all(node.is_running for node in pairs[program].nodes):
                    self.record(program, "idle", {"wakeups": count})
                else:
                    self.results.note(program.name, "idle: it ended")
        finally:
            for lab in labs.values():
                lab.close()

    def tell(self, what: str, text: str) -> None:
        elapsed = time.monotonic() - self.start
        print(f"[{elapsed:4.0f} s] {what}: {text}", file=sys.stderr, flush=True)


def told(figures: steps.Figures) -> str:
    """A short text of the figures."""
    words = []
    for key, value in figures.items():
        measure = BY_KEY[key]
        words.append(f"{key} {value:.{measure.digits}f} {measure.unit}".strip())
    return ", ".join(words)

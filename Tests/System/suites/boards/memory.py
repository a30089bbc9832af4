"""Nothing is allocated after startup: R12 on the boards, where no function can be interposed."""

import pathlib
import re
import subprocess

from harness.case import InteropCase, heavy
from harness.lab.node import LOGS
from harness.settings import Program
from suites.allocation.tunnel import Scenario
from suites.boards.boards import BOARDS, Board
from suites.boards.guest import MEMORY_CALL, Account, resident

TRACED_PACKETS, PACKETS = 2_000, 10_000
# Memory beyond the file and the arena: stack, zeroed variables, heap allocated at startup.
REST = 128 << 10
LEAST = 200 << 10  # the program, and the tables that are written at startup


class MemoryTests(InteropCase):
    """Handshakes, packets, every kind of reconfiguration, noise, link down and up."""

    @property
    def board(self) -> Board:
        return BOARDS[self.settings.program.path.parents[1].name]

    def start(self, program: Program, packets: int) -> Scenario:
        return Scenario(self.lab, program, self.settings.peer, None, packets)

    def check_day(self, scenario: Scenario) -> None:
        """The heap's counters and the mappings are the same after each part of the run."""
        before = self.account(scenario)
        self.assertGreater(before.heap.calls, 0, "the heap did not count the startup")
        parts = (
            scenario.begin,
            lambda: scenario.send(scenario.packets),
            scenario.reconfigure,
            scenario.disturb,
            lambda: scenario.send(scenario.packets),
        )
        for part in parts:
            part()
            self.assertEqual(self.account(scenario), before)

    def account(self, scenario: Scenario) -> Account:
        return Account.of(scenario.ours.pid, self.board.path, self.board.word_size)

    @heavy
    def test_R12_no_system_call_takes_memory(self) -> None:
        """With every system call logged."""
        trace = LOGS / f"{self.board.name}.trace"
        scenario = self.start(self.traced(trace), TRACED_PACKETS)
        start = trace.stat().st_size
        self.assertRegex(trace.read_bytes(), MEMORY_CALL, "no call logged at startup")
        self.check_day(scenario)
        self.assertEqual(memory_calls(trace, start), [])
        self.assertEqual(scenario.ours.stop(), 0)
        self.assertNotEqual(memory_calls(trace, start), [], "no call logged at the end")

    def traced(self, trace: pathlib.Path) -> Program:
        script = LOGS / f"traced-{self.board.name}"
        script.write_text(f'#!/bin/sh\nTRACE={trace} exec {self.board.folder}/traced "$@"\n')
        script.chmod(0o755)
        return Program(script, lacks=self.settings.program.lacks)

    @heavy
    def test_R12_what_is_resident_was_taken_at_start(self) -> None:
        """With more packets, only program, stack and at most the budget are resident."""
        scenario = self.start(self.settings.program, PACKETS)
        self.check_day(scenario)
        used = resident(scenario.ours.pid, self.board.path)
        self.assertGreater(used, LEAST)
        self.assertLess(used, self.board.path.stat().st_size + self.budget() + REST)

    def budget(self) -> int:
        """Bytes of the arena, as `culvert budget` prints them."""
        command = [str(self.settings.program.path), "budget"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return int(re.search(r"(\d+) +total of the arena", printed)[1])


def memory_calls(trace: pathlib.Path, start: int) -> list[bytes]:
    with trace.open("rb") as file:
        file.seek(start)
        return [line for line in file if MEMORY_CALL.search(line)]

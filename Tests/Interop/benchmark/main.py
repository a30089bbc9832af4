"""From the command line to the written report."""

import argparse
import sys

from harness.isolation import IsolationError, run_isolated
from harness.settings import missing_tools

from . import limits, options, plots, report
from .machine import Machine
from .race import Race
from .results import Results


def run(chosen: argparse.Namespace) -> int:
    """The race and all that is told of it; the exit status."""
    reference = chosen.reference
    results = Race(chosen.programs, chosen).run()
    machine = Machine(chosen, results)
    print(f"\n{machine.sentences()}\n\n{report.table(results, reference)}\n")
    for name, text in results.notes:
        print(f"{name}: {text}")
    drawn, complaint = plots.draw(chosen.output, results)
    report.write(chosen.output, results, machine, reference, drawn)
    print(f"Ratios are to {reference}. Written to {chosen.output}/latest.md, .json and plots.")
    if complaint:
        print(complaint)
    return verdict(chosen, results, chosen.programs[0].name, reference)


def verdict(chosen: argparse.Namespace, results: Results, subject: str, reference: str) -> int:
    """1 when the program under test failed somewhere, or with --check below a limit."""
    has_failed = any(name == subject for name, _ in results.notes)
    if chosen.check:
        print()
        judged = limits.check(results, subject, reference)
        for is_kept, line in judged:
            print(f"{'pass' if is_kept else 'FAIL'}  {line}")
            has_failed |= not is_kept
        if not judged:
            print("No limit is set for what was measured.")
    return 1 if has_failed else 0


def main(description: str) -> int:
    chosen = options.parse(description)
    try:
        if reason := missing_tools():
            raise IsolationError(reason)
        return run_isolated(lambda: run(chosen))
    except IsolationError as error:
        print(f"The benchmark cannot run here: {error}.", file=sys.stderr)
        return 1

"""The benchmark: the race, its report and its limits."""

import argparse
import pathlib
import statistics
import sys

from harness.isolation import IsolationError, run_isolated
from harness.settings import missing_tools
from race import limits, options, plots, report
from race.machine import Machine
from race.race import Race
from race.results import Results

BUSY = 15  # percent of the processors; more load by other work is reported


def run(chosen: argparse.Namespace) -> int:
    """Run the race and print its report; the exit status."""
    reference = chosen.reference
    results = Race(chosen.programs, chosen).run()
    machine = Machine.look(chosen, results)
    print(f"\n{machine.sentences()}\n\n{report.table(results, reference)}\n")
    for name, text in results.notes:
        print(f"{name}: {text}")
    print(f"Ratios are to {reference}.")
    write(chosen.output, results, machine, reference)
    if statistics.median(results.busy or [0]) > BUSY:
        print("The machine was busy with other work: judge throughput again on a quiet one.")
    return verdict(chosen, results, chosen.programs[0].name, reference)


def write(folder: pathlib.Path, results: Results, machine: Machine, reference: str) -> None:
    """Write tables and plots."""
    drawn, complaint = plots.draw(folder, results)
    report.write(folder, results, machine, reference, drawn)
    print(complaint or f"Written to {folder}: latest.md, latest.json, {', '.join(drawn)}.")


def verdict(chosen: argparse.Namespace, results: Results, subject: str, reference: str) -> int:
    """1 if the program under test failed a step or, with --check, a limit."""
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
    if chosen.again:
        write(chosen.again, *report.read(chosen.again))
        return 0
    try:
        if reason := missing_tools():
            raise IsolationError(reason)
        return run_isolated(lambda: run(chosen))
    except IsolationError as error:
        print(f"The benchmark cannot run here: {error}.", file=sys.stderr)
        return 1

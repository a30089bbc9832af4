"""Runs commands whose output matters only if they fail, and checks that consist of these."""

import argparse
import fnmatch
import os
import pathlib
import subprocess
import time
from collections.abc import Callable

from harness.runner import SKIPPED
from harness.settings import REPOSITORY


class CheckError(Exception):
    """A step failed; the text says why."""


class SkipError(Exception):
    """This machine cannot run the step; the text says what it lacks."""


def output_of(
    *command: str | pathlib.Path, cwd: pathlib.Path = REPOSITORY, **environment: str
) -> str:
    """The output of a command, standard and error; if it fails, a CheckError contains it."""
    result = attempt(*command, cwd=cwd, **environment)
    if result.returncode != 0:
        words = " ".join(str(word) for word in command[:4])
        raise CheckError(f"{words} ... gave status {result.returncode}:\n{result.stdout}")
    return result.stdout


def attempt(
    *command: str | pathlib.Path, cwd: pathlib.Path = REPOSITORY, **environment: str
) -> subprocess.CompletedProcess:
    """Run a command that may be expected to fail."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def run_checks(arguments: list[str], description: str, checks: dict[str, Callable[[], str]]) -> int:
    """Run a suite of checks, each of which returns a remark; the exit status."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("-k", dest="pattern", help="only checks whose name matches (*, ?)")
    parser.add_argument("--list", action="store_true", help="print the names only")
    options = parser.parse_args(arguments)
    names = [name for name in checks if fnmatch.fnmatch(name, f"*{options.pattern or ''}*")]
    if not names:
        parser.error(f"no check matches '{options.pattern}'; there are {', '.join(checks)}")
    if options.list:
        print("\n".join(names))
        return 0
    print(f"running {len(names)} tests", flush=True)
    counts, start = {"ok": 0, "FAIL": 0, "skip": 0}, time.monotonic()
    for name in names:
        verdict, text, seconds = outcome(checks[name])
        counts[verdict] += 1
        print(f"{verdict:<4} {seconds:6.1f} s  {name}{': ' if text else ''}{text}", flush=True)
    print(
        f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped "
        f"in {time.monotonic() - start:.1f} s"
    )
    if counts["FAIL"]:
        return 1
    return SKIPPED if not counts["ok"] else 0


def outcome(check: Callable[[], str]) -> tuple[str, str, float]:
    start = time.monotonic()
    try:
        verdict, text = "ok", check()
    except CheckError as error:
        verdict, text = "FAIL", str(error)
    except SkipError as error:
        verdict, text = "skip", str(error)
    return verdict, text, time.monotonic() - start

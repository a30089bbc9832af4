"""Counts allocations of Culvert after startup; there must be none.

Eight views, each of which can be run alone with --only:

  proof     the Embedded compiler, with -no-allocations, rejects code in the core that allocates
  door      a million bad datagrams and a million configuration lines, in process
  ordinary  the ordinary build in a real tunnel, with malloc(3) and the like interposed
  static    the static build, its allocators wrapped by the same counter in the linker
  shipped   the shipped binary itself: its address space does not grow by a page
  nested-ordinary, nested-static, nested-shipped: each with a tunnel inside its tunnel

In a tunnel: a million packets, a hundred reconfigurations, handshakes, errors, signals. In nested
tunnels: fragments both ways, a flood of fragments, changes at each hop.
"""

import argparse
import collections
import fnmatch
import functools
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from harness import isolation
from harness.lab.lab import Lab
from harness.runner import SKIPPED
from harness.settings import CULVERT, NEWEST, Program, check_programs, missing_tools
from suites.allocation import build
from suites.allocation.nested import NestedScenario
from suites.allocation.tunnel import Scenario


def count_R12_in_a_tunnel(
    path: pathlib.Path, interposer: str | None, is_nested: bool, options: argparse.Namespace
) -> int:
    """Run the scenario; 0 if nothing was allocated. Without interposer, only the kernel counts."""
    lab = Lab()
    kind = NestedScenario if is_nested else functools.partial(Scenario, packets=options.packets)
    try:
        scenario = kind(lab, Program(path), Program(options.peer), interposer)
        if interposer is not None:
            print(f"  at startup: {scenario.start.allocations} allocations")
        results = scenario.run()
        print(f"  {scenario.changes} reconfigurations, {scenario.handshakes} handshakes requested")
    except BaseException:
        print(lab.logs(), file=sys.stderr)
        raise
    finally:
        complaints = lab.close()
    for name, memory in results:
        counted = f"{memory.allocations} allocations, {memory.frees} frees, "
        kernel = f"{memory.mapped:+d} KiB mapped, {memory.resident:+d} KiB resident"
        print(f"  {name}: {counted if interposer is not None else ''}{kernel}")
    if complaints:
        print("\n".join(complaints))
        return 1
    return 1 if results[-1][1].problem else 0


def isolated(
    path: pathlib.Path, interposer: str | None, is_nested: bool, options: argparse.Namespace
) -> int:
    """Run in a new process, because a process can enter private namespaces only once."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    isolation.libc.prctl(isolation.PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    try:
        if reason := missing_tools():
            raise isolation.IsolationError(reason)
        status = isolation.run_isolated(
            lambda: count_R12_in_a_tunnel(path, interposer, is_nested, options)
        )
    except isolation.IsolationError as error:
        print(f"  {error}")
        status = SKIPPED
    sys.stdout.flush()
    os._exit(status)


def prove_R12_for_the_core() -> int:
    build.static_proof()
    return 0


def count_R12_at_the_door(options: argparse.Namespace) -> int:
    result = subprocess.run(
        [build.door_program(), str(options.datagrams)], stdout=subprocess.PIPE, text=True
    )
    print(f"  {result.stdout.strip()}")
    return result.returncode


def views(options: argparse.Namespace) -> dict[str, Callable[[], int]]:
    board = options.program.resolve().parent.name
    found = {
        "proof": prove_R12_for_the_core,
        "door": lambda: count_R12_at_the_door(options),
    }
    # Programs that two views use are built once.
    preload, static = functools.cache(build.preload), functools.cache(build.counted_static)
    for prefix, is_nested in (("", False), ("nested-", True)):
        run = functools.partial(isolated, is_nested=is_nested, options=options)
        found[f"{prefix}ordinary"] = lambda run=run: run(options.ordinary, str(preload()))
        found[f"{prefix}static"] = lambda run=run: run(static(board), "")
        found[f"{prefix}shipped"] = lambda run=run: run(options.program, None)
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-k", dest="pattern", help="only views whose name matches (*, ?)")
    parser.add_argument("--list", action="store_true", help="print the names only")
    parser.add_argument("--only", action="append", help="one of the views; may be repeated")
    parser.add_argument("--program", type=pathlib.Path, default=build.ROOT / "build/x86_64/culvert")
    parser.add_argument("--ordinary", type=pathlib.Path, default=pathlib.Path(CULVERT))
    parser.add_argument("--peer", default=str(NEWEST))
    parser.add_argument("--packets", type=int, default=1_000_000, help="in a tunnel")
    parser.add_argument("--datagrams", type=int, default=1_000_000, help="at the door")
    options = parser.parse_args(arguments)
    known = views(options)
    names = options.only or [
        name for name in known if fnmatch.fnmatch(name, f"*{options.pattern or ''}*")
    ]
    if not names or set(names) - known.keys():
        parser.error(f"no such view; there are {', '.join(known)}")
    if options.list:
        print("\n".join(names))
        return 0
    needed = [options.program, options.peer]
    if any(name.endswith("ordinary") for name in names):
        needed.append(options.ordinary)
    check_programs(parser, *needed)
    return run_views({name: known[name] for name in names})


def run_views(chosen: dict[str, Callable[[], int]]) -> int:
    print(f"running {len(chosen)} tests", flush=True)
    counts, start = collections.Counter(), time.monotonic()
    for name, view in chosen.items():
        begin = time.monotonic()
        print(f"{name}:", flush=True)
        try:
            status = view()
        except build.BuildError as error:
            print(error)
            status = 1
        verdict = {0: "ok", SKIPPED: "skip"}.get(status, "FAIL")
        counts[verdict] += 1
        print(f"{verdict:<4} {time.monotonic() - begin:6.1f} s  {name}", flush=True)
    print(
        f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped "
        f"in {time.monotonic() - start:.1f} s"
    )
    if counts["FAIL"]:
        return 1
    return SKIPPED if counts["skip"] and not counts["ok"] else 0

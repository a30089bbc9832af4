"""The benchmark's command line, and the programs that take part."""

import argparse
import os
import pathlib
import re
import shlex

from harness.settings import CULVERT, DEBIAN12, NEWEST, REPOSITORY, Program, check_programs
from race.measures import GROUPS, PEER_COUNTS

LATEST = REPOSITORY / "docs" / "benchmarks"  # written by a whole run
SCRATCH = REPOSITORY / "build" / "benchmarks"  # written by a part of a run
QUICK = {"rounds": 2, "seconds": 2.0}
FULL = {"rounds": 4, "seconds": 5.0}


def build_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--program",
        action="append",
        metavar="[NAME=]COMMAND",
        help="a program to measure, again for more; the first is the one that --check judges",
    )
    parser.add_argument(
        "--peers",
        default="",
        metavar="NAME=COMMAND;...",
        help="others to measure it against, beside both wireguard-go",
    )
    parser.add_argument("--no-peers", action="store_true", help="without wireguard-go")
    parser.add_argument("--rounds", type=int, help="4 by default")
    parser.add_argument("--seconds", type=float, help="of each run of traffic, 5 by default")
    parser.add_argument("--only", default="", help=f"some of {','.join(GROUPS)}")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 2 s")
    parser.add_argument("--check", action="store_true", help="exit with 1 below the limits")
    parser.add_argument("--reference", metavar="NAME", help="what ratios refer to")
    parser.add_argument("--output", type=pathlib.Path, help="a folder to write to")
    parser.add_argument(
        "--again", type=pathlib.Path, help="measure nothing; table and plots of a folder's JSON"
    )
    return parser


def parse(description: str) -> argparse.Namespace:
    """The options, with `programs`, `groups`, `peer_counts` and `reference` derived from them.

    A mistake ends the process.
    """
    parser = build_parser(description)
    options = parser.parse_args()
    if options.again:
        return options
    defaults = QUICK if options.quick else FULL
    options.rounds = options.rounds or defaults["rounds"]
    options.seconds = options.seconds or defaults["seconds"]
    options.groups = tuple(filter(None, options.only.replace(" ", ",").split(","))) or GROUPS
    options.peer_counts = PEER_COUNTS[:: len(PEER_COUNTS) - 1] if options.quick else PEER_COUNTS
    if wrong := set(options.groups) - set(GROUPS):
        parser.error(f"{', '.join(sorted(wrong))}: the choice is {', '.join(GROUPS)}")
    is_whole = not (options.quick or options.only or options.no_peers)
    options.output = options.output or (LATEST if is_whole else SCRATCH)
    options.programs = find_programs(parser, options)
    options.reference = find_reference(parser, options)
    return options


def find_reference(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str:
    """The given one, else the newest wireguard-go, else the first program."""
    names = [it.name for it in options.programs]
    if options.reference and options.reference not in names:
        parser.error(f"--reference: no program is called {options.reference}")
    newest = REFERENCE
    return options.reference or (newest if newest in names else names[0])


def find_programs(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Program]:
    """All programs. Exits if one is missing or two have the same name."""
    if not options.no_peers:
        check_programs(parser, DEBIAN12, NEWEST)
    try:
        programs = [parse_program(it) for it in options.program or [CULVERT]]
        programs += [] if options.no_peers else fetched()
        programs += parse_list(options.peers)
        check_names(programs)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return programs


# Programs given by name and command line, and the two versions of wireguard-go.

NAMED = re.compile(r"([\w.+-]+)=(.+)", re.DOTALL)
REFERENCE = "wireguard-go newest"  # what ratios refer to


def parse_program(text: str) -> Program:
    """`[NAME=]COMMAND`; `-f` and the interface's name are appended, or the name replaces {}.

    Raises FileNotFoundError if the command's first word is not a program.
    """
    found = NAMED.fullmatch(text.strip())
    name, command = found.groups() if found else ("", text.strip())
    path, *arguments = shlex.split(command)
    return Program(os.path.expanduser(path), tuple(arguments), name)


def parse_list(text: str) -> list[Program]:
    """Several programs, separated by `;` or newlines."""
    return [parse_program(part) for part in re.split(r"[;\n]", text) if part.strip()]


def fetched() -> list[Program]:
    """wireguard-go of Debian 12 and the newest, under different names."""
    return [Program(DEBIAN12, name="wireguard-go Debian 12"), Program(NEWEST, name=REFERENCE)]


def version(program: Program) -> str:
    """The program's own version line; for a fetched program the version of its package."""
    note = pathlib.Path(f"{program.path}.version")
    return f"package {note.read_text().strip()}" if note.is_file() else program.version


def check_names(programs: list[Program]) -> None:
    """Raise ValueError if two have the same name."""
    names = [it.name for it in programs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two programs are called {', '.join(sorted(twice))}; give NAME=COMMAND")

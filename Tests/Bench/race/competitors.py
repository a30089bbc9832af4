"""Who takes part: programs given by name and command line, and the wireguard-go fetched."""

import os
import pathlib
import re
import shlex

from harness.settings import DEBIAN12, NEWEST, Program

NAMED = re.compile(r"([\w.+-]+)=(.+)", re.DOTALL)
REFERENCE = "wireguard-go newest"  # what ratios refer to


def parse(text: str) -> Program:
    """`[NAME=]COMMAND`; the interface's name comes last, after -f, or where the command has {}.

    Raises FileNotFoundError when the command's first word is no program.
    """
    found = NAMED.fullmatch(text.strip())
    name, command = found.groups() if found else ("", text.strip())
    path, *arguments = shlex.split(command)
    return Program(os.path.expanduser(path), tuple(arguments), name)


def parse_list(text: str) -> list[Program]:
    """Several of them, with `;` or line ends between."""
    return [parse(part) for part in re.split(r"[;\n]", text) if part.strip()]


def fetched() -> list[Program]:
    """wireguard-go of Debian 12 and the newest, under names that tell them apart."""
    return [Program(DEBIAN12, name="wireguard-go Debian 12"), Program(NEWEST, name=REFERENCE)]


def version(program: Program) -> str:
    """What the program says of itself; of a fetched one the package's version."""
    note = pathlib.Path(f"{program.path}.version")
    return f"package {note.read_text().strip()}" if note.is_file() else program.version


def check_names(programs: list[Program]) -> None:
    """Raises ValueError when two have one name."""
    names = [it.name for it in programs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two programs are called {', '.join(sorted(twice))}; give NAME=COMMAND")

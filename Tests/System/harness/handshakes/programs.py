"""The programs of this folder, in C, built when the first test needs one."""

import pathlib
import subprocess
import threading

from harness.lab.faults import compiler
from harness.lab.node import LOGS

HERE = pathlib.Path(__file__).parent
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")
building = threading.Lock()


def program(name: str, *libraries: str) -> str:
    """The path of the program `name`, made from name.c and these libraries."""
    path = LOGS / name
    with building:
        if not path.exists():
            fresh = path.with_suffix(".new")
            command = [compiler(), *FLAGS, str(HERE / f"{name}.c"), "-o", str(fresh), *libraries]
            subprocess.run(command, check=True)
            fresh.rename(path)
    return str(path)

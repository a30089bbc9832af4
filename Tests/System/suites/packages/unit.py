"""The systemd unit's settings, read from its file so that no test repeats them."""

import subprocess

from suites.packages.case import PACKAGE

FILE = PACKAGE / "systemd" / "culvert@.service"


def values(key: str, file=FILE) -> list[str]:
    """Every value of a key, in the order of the file."""
    lines = file.read_text().splitlines()
    return [line.partition("=")[2] for line in lines if line.partition("=")[0] == key]


def words(key: str) -> list[str]:
    return " ".join(values(key)).split()


def command(name: str) -> list[str]:
    """The command that it runs for a tunnel, without the administrator's options."""
    (start,) = values("ExecStart")
    return [word.replace("%i", name) for word in start.split() if not word.startswith("$")]


def environment() -> dict[str, str]:
    return dict(value.split("=", 1) for value in values("Environment"))


def system_calls(name: str) -> set[str]:
    """The system calls of a group, as systemd lists them."""
    if not name.startswith("@"):
        return {name}
    text = subprocess.check_output(["systemd-analyze", "syscall-filter", name], text=True)
    found = set()
    for line in text.splitlines()[1:]:
        if line.strip() and not line.strip().startswith("#"):
            found |= system_calls(line.strip())
    return found


def allowed_system_calls() -> set[str]:
    allowed = system_calls("@default")
    for value in values("SystemCallFilter"):
        group = set().union(*(system_calls(word) for word in value.lstrip("~").split()))
        allowed = allowed - group if value.startswith("~") else allowed | group
    return allowed

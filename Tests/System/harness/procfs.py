"""State of a process, from /proc."""

import os
import pathlib


def status_field(pid: int, name: str, task: int | None = None) -> int:
    """A number from /proc/PID/status (or of one thread): VmHWM in KiB, context switches."""
    folder = f"/proc/{pid}" if task is None else f"/proc/{pid}/task/{task}"
    for line in pathlib.Path(folder, "status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise KeyError(name)


def name(pid: int) -> str:
    """The process's name; empty if it has ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def peak_memory(pid: int) -> int:
    """The greatest resident memory so far, in bytes."""
    return status_field(pid, "VmHWM") * 1024


def anonymous_memory(pid: int) -> int:
    """Resident memory without mapped files, in bytes."""
    return status_field(pid, "RssAnon") * 1024


def private_memory(pid: int) -> int:
    """Resident memory that no other process shares, in bytes."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(it.split()[1]) for it in lines if it.startswith("Private_"))


def wake_ups(pid: int) -> int:
    """Voluntary context switches of all threads of the process so far."""
    tasks = [int(task) for task in os.listdir(f"/proc/{pid}/task")]
    return sum(status_field(pid, "voluntary_ctxt_switches", task) for task in tasks)


def cpu_seconds(pid: int) -> float:
    """User and system time so far."""
    # The name in parentheses may hold spaces; the fields are counted after it.
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """The process and all of its running descendants."""
    found = [pid]
    for member in found:  # grows in the loop
        for listing in pathlib.Path(f"/proc/{member}/task").glob("*/children"):
            found += [int(child) for child in listing.read_text().split()]
    return found


def descriptors(pid: int) -> dict[int, str]:
    """The open descriptors and their targets, e.g. 5: "socket:[1234]"."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            pass  # closed between listing and reading
    return found


def udp_sockets(pid: int) -> set[str]:
    """The inodes of the process's UDP sockets, both families."""
    bound = set()
    for table in ("udp", "udp6"):
        for line in pathlib.Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            bound.add(line.split()[9])
    owned = {target[8:-1] for target in descriptors(pid).values() if target.startswith("socket:[")}
    return owned & bound


def is_listening(pid: int, port: int) -> bool:
    """Whether somebody listens on the TCP port in the process's namespace."""
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                return True
    return False


def is_running(pid: int) -> bool:
    """Whether any thread of the process exists and is not a zombie.

    The first thread of an ending process is a zombie while the others still hold its descriptors.
    """
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        states = [
            pathlib.Path(f"/proc/{pid}/task/{task}/stat").read_text().rpartition(")")[2].split()[0]
            for task in tasks
        ]
    except (FileNotFoundError, ProcessLookupError):
        return os.path.exists(f"/proc/{pid}/stat")  # a thread ended while we looked, or the process
    return any(state not in "ZX" for state in states)

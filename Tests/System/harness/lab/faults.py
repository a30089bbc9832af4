"""System calls that fail on purpose (see faults.c), and the kernel's counters of errors."""

import dataclasses
import itertools
import pathlib
import shutil
import struct
import subprocess
import threading

from harness.lab.namespace import Namespace
from harness.lab.node import LOGS

SOURCE = pathlib.Path(__file__).with_name("faults.c")
LIBRARY = LOGS / "faults.so"
# In the order of `enum call`.
CALLS = ("sendmsg", "segments", "sendmmsg", "recvmsg", "recvmmsg", "set-gro", "set-segment",
         "vnet", "offload", "uso", "writev")  # fmt: skip
RECORD = struct.Struct("=QQQ")
building = threading.Lock()
numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Count:
    """Calls of one kind; the packets are those in calls that failed."""

    calls: int
    failures: int
    packets: int


class Faults:
    """Rules for one program, "CALL[@PORT]:ERROR:WHEN" each, and their counts."""

    def __init__(self, *rules: str):
        self.rules = rules
        self.report = LOGS / f"faults-{next(numbers)}"
        with building:
            if not LIBRARY.exists():
                build()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(LIBRARY),
            "CULVERT_FAULTS": ";".join(self.rules),
            "CULVERT_FAULTS_REPORT": str(self.report),
        }

    def __getitem__(self, call: str) -> Count:
        return self.count_at(CALLS.index(call))

    def segments_to(self, port: int) -> Count:
        """The calls of sendmsg with UDP_SEGMENT to one port."""
        return self.count_at(len(CALLS) + port)

    def count_at(self, place: int) -> Count:
        with self.report.open("rb") as file:
            file.seek(place * RECORD.size)
            return Count(*RECORD.unpack(file.read(RECORD.size)))


def compiler() -> str:
    """Any C compiler; Swift brings one."""
    for name in ("cc", "clang"):
        if found := shutil.which(name):
            return found
    return str(pathlib.Path(shutil.which("swiftc") or "swiftc").resolve().parent / "clang")


def build() -> None:
    fresh = LIBRARY.with_suffix(".new")
    command = [compiler(), "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([*command, str(SOURCE), "-o", str(fresh), "-ldl"], check=True)
    fresh.rename(LIBRARY)


# Counters of the kernel in a namespace: wrong checksums, retransmitted segments.

WRONG = ("Ip.InHdrErrors", "Tcp.InCsumErrors", "Udp.InCsumErrors", "Icmp.InCsumErrors",
         "Udp6InCsumErrors", "Icmp6InCsumErrors", "Ip6InHdrErrors")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Counters:
    """The values at one moment, by names like "Tcp.RetransSegs" and "Udp6InCsumErrors"."""

    values: dict[str, int]

    @classmethod
    def of(cls, namespace: Namespace) -> "Counters":
        values: dict[str, int] = {}
        with namespace.entered():
            # /proc/net is that of the process's first thread.
            folder = pathlib.Path("/proc/thread-self/net")
            for table in ("snmp", "netstat"):
                lines = folder.joinpath(table).read_text().splitlines()
                for names, numbers in zip(lines[::2], lines[1::2]):
                    group = names.partition(":")[0]
                    for name, number in zip(names.split()[1:], numbers.split()[1:]):
                        values[f"{group}.{name}"] = int(number)
            for line in folder.joinpath("snmp6").read_text().splitlines():
                name, number = line.split()
                values[name] = int(number)
        return cls(values)

    def __getitem__(self, name: str) -> int:
        return self.values[name]

    def since(self, earlier: "Counters") -> "Counters":
        # Some lines of the kernel appear only when they are first counted.
        return Counters(
            {name: value - earlier.values.get(name, 0) for name, value in self.values.items()}
        )

    @property
    def wrong(self) -> dict[str, int]:
        """The counters of wrong headers and checksums that are not 0."""
        return {name: self[name] for name in WRONG if self[name] != 0}

    @property
    def retransmitted_share(self) -> float:
        """The share of TCP segments that were retransmitted."""
        return self["Tcp.RetransSegs"] / max(1, self["Tcp.OutSegs"])

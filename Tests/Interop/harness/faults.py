"""System calls of a program that fail on purpose: see Tests/Interop/faults.c."""

import dataclasses
import itertools
import pathlib
import shutil
import struct
import subprocess
import threading

from .node import LOGS
from .settings import REPOSITORY

SOURCE = REPOSITORY / "Tests" / "Interop" / "faults.c"
LIBRARY = LOGS / "faults.so"
# In the order of `enum call`.
CALLS = ("sendmsg", "segments", "sendmmsg", "recvmsg", "recvmmsg", "set-gro", "set-segment",
         "vnet", "offload", "uso", "writev")  # fmt: skip
RECORD = struct.Struct("=QQQ")
building = threading.Lock()
numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Count:
    """Calls of one kind; packets are those that the failed ones carried."""

    calls: int
    failures: int
    packets: int


class Faults:
    """Rules for one program, "CALL[@PORT]:ERROR:WHEN" each, and what became of them."""

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

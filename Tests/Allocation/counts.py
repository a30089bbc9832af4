"""What the interposer counts, and what the kernel knows of a program's memory."""

import dataclasses
import mmap
import pathlib
import struct

from harness import procfs

MAGIC = 0x53434F4C4C41
# epoll_wait, epoll_pwait and epoll_pwait2 on x86-64; epoll_pwait elsewhere.
EPOLL_CALLS = {"232", "281", "441", "22"}


class CountPage:
    """The interposer's shared page."""

    def __init__(self, path: pathlib.Path):
        path.write_bytes(bytes(4096))
        self.path = path
        with path.open("r+b") as file:
            self.page = mmap.mmap(file.fileno(), 4096)

    @property
    def words(self) -> tuple[int, ...]:
        return struct.unpack("<6Q", self.page[:48])

    @property
    def is_counting(self) -> bool:
        return self.words[0] == MAGIC


@dataclasses.dataclass(frozen=True)
class Memory:
    """A program's memory at one moment. Without an interposer the counts are 0."""

    allocations: int
    frees: int
    # KiB of address space, of private writable memory, and of what is resident.
    mapped: int
    data: int
    resident: int

    @classmethod
    def of(cls, pid: int, page: CountPage | None) -> "Memory":
        words = page.words if page else (0,) * 6
        fields = (procfs.status_field(pid, name) for name in ("VmSize", "VmData", "VmRSS"))
        return cls(words[1], words[2], *fields)

    def since(self, earlier: "Memory") -> "Memory":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(earlier))
        return Memory(*(late - early for late, early in pairs))

    @property
    def problem(self) -> str:
        """What of this difference is memory taken; residence may grow within what is mapped."""
        names = ("allocations", "frees", "mapped", "data")
        taken = [f"{name} {getattr(self, name):+d}" for name in names if getattr(self, name)]
        return ", ".join(taken)


def waits_for_work(pid: int) -> bool:
    """Whether the program has come to its loop, and so the arena is sealed.

    One of its workers sleeps in epoll then, not always the first.
    """
    calls = [path.read_text() for path in pathlib.Path(f"/proc/{pid}/task").glob("*/syscall")]
    return any(call.split(" ", 1)[0].strip() in EPOLL_CALLS for call in calls)

"""The mappings and the heap of an emulated program, read from outside.

The program is static and stripped, so posix_memalign cannot be interposed. However, its heap
(Sources/CLinux/memory.c) counts each call that allocates or frees memory, and keeps the counter
and its bounds behind a marker in the program's data. Larger blocks are allocated by system calls.
The counter and the system calls together therefore reveal any allocation.
"""

import dataclasses
import pathlib
import re
import struct
import typing

# qemu-user maps a guest around its program, far from the emulator's own memory.
BELOW, ABOVE = 1 << 30, 1 << 31
# System calls that allocate or free memory.
MEMORY_CALL = re.compile(rb"\b(?:brk|mmap2?|munmap|mremap|madvise)\(")


@dataclasses.dataclass(frozen=True)
class Mapping:
    start: int
    end: int
    access: str
    path: str


@dataclasses.dataclass(frozen=True)
class Heap:
    """The heap's counters: calls, the bounds of free memory, the newest block."""

    calls: int
    mark: int
    end: int
    newest: int

    NAME: typing.ClassVar = b"markheap"

    @classmethod
    def of(cls, pid: int, data: list[Mapping], word_size: int) -> "Heap":
        words = struct.Struct("<4I" if word_size == 4 else "<4Q")
        found = []
        with open(f"/proc/{pid}/mem", "rb") as memory:
            for mapping in data:
                memory.seek(mapping.start)
                content = memory.read(mapping.end - mapping.start)
                for match in re.finditer(cls.NAME, content):
                    found.append(cls(*words.unpack_from(content, match.end())))
        assert len(found) == 1, f"{len(found)} heaps in the program's data"
        return found[0]


@dataclasses.dataclass(frozen=True)
class Account:
    """An emulated program's memory at one moment."""

    writable: tuple[tuple[int, int], ...]  # from, to
    heap: Heap

    @classmethod
    def of(cls, pid: int, program: pathlib.Path, word_size: int) -> "Account":
        mappings = guest_mappings(pid, program)
        data = [it for it in mappings if it.path == str(program) and "w" in it.access]
        return cls(joined(mappings), Heap.of(pid, data, word_size))


def guest_mappings(pid: int, program: pathlib.Path) -> list[Mapping]:
    found = []
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        start, end = (int(number, 16) for number in fields[0].split("-"))
        found.append(Mapping(start, end, fields[1], fields[5] if len(fields) > 5 else ""))
    base = min(it.start for it in found if it.path == str(program))
    return [it for it in found if base - BELOW <= it.start and it.end <= base + ABOVE]


def joined(mappings: list[Mapping]) -> tuple[tuple[int, int], ...]:
    """Writable memory, with adjacent ranges joined: mlock(2) splits and joins them."""
    ranges: list[tuple[int, int]] = []
    for it in mappings:
        if "w" not in it.access:
            continue
        if ranges and ranges[-1][1] == it.start:
            ranges[-1] = ranges[-1][0], it.end
        else:
            ranges.append((it.start, it.end))
    return tuple(ranges)


def resident(pid: int, program: pathlib.Path) -> int:
    """Resident bytes of the guest: its program, its stack and its heap."""
    starts = {it.start for it in guest_mappings(pid, program) if it.access[:3] != "---"}
    total, counts = 0, False
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if header := re.match(r"([0-9a-f]+)-[0-9a-f]+ ", line):
            counts = int(header[1], 16) in starts
        elif counts and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total

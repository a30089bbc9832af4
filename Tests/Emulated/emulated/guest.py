"""What an emulated program has mapped, and the heap of its C library, seen from outside.

The program is static and stripped, so nothing can be put in front of malloc. But musl (1.2.3,
src/malloc/mallocng) keeps an account of every group of slots outside of them: which are free, and
which have been given back. Each call that takes or gives memory changes that account, or maps and
unmaps a group. So the account and the system calls together tell whether there was any.
"""

import dataclasses
import pathlib
import re
import struct

PAGE = 4096
# Where qemu-user puts a guest: around its program, far from the emulator's own memory.
BELOW, ABOVE = 1 << 30, 1 << 31
# System calls that give a program memory or take it back; munmap ends with "munmap".
MEMORY_CALL = re.compile(rb"\b(?:brk|mmap2?|munmap|mremap|madvise)\(")


@dataclasses.dataclass(frozen=True)
class Mapping:
    start: int
    end: int
    access: str
    path: str


@dataclasses.dataclass(frozen=True)
class Group:
    """An entry of musl's account: where the slots are, and the masks of those that are free."""

    address: int
    available: int
    freed: int
    form: int


@dataclasses.dataclass(frozen=True)
class Account:
    """An emulated program's memory at one moment."""

    writable: tuple[tuple[int, int], ...]  # from, to
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, pid: int, program: pathlib.Path, word_size: int) -> "Account":
        mappings = guest_mappings(pid, program)
        return cls(joined(mappings), read_groups(pid, heap_page(mappings, program), word_size))


def guest_mappings(pid: int, program: pathlib.Path) -> list[Mapping]:
    found = []
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        start, end = (int(number, 16) for number in fields[0].split("-"))
        found.append(Mapping(start, end, fields[1], fields[5] if len(fields) > 5 else ""))
    base = min(it.start for it in found if it.path == str(program))
    return [it for it in found if base - BELOW <= it.start and it.end <= base + ABOVE]


def joined(mappings: list[Mapping]) -> tuple[tuple[int, int], ...]:
    """The writable memory; the kernel's boundaries within it change with mlock(2)."""
    ranges: list[tuple[int, int]] = []
    for it in mappings:
        if "w" not in it.access:
            continue
        if ranges and ranges[-1][1] == it.start:
            ranges[-1] = ranges[-1][0], it.end
        else:
            ranges.append((it.start, it.end))
    return tuple(ranges)


def heap_page(mappings: list[Mapping], program: pathlib.Path) -> int:
    """musl's account stands behind the program, after a page that nobody may touch."""
    last = max(number for number, it in enumerate(mappings) if it.path == str(program))
    rest = mappings[last + 1 :]
    guard = next(number for number, it in enumerate(rest) if it.access.startswith("---"))
    page = rest[guard + 1]
    assert page.access.startswith("rw-") and page.start == rest[guard].end, rest[: guard + 2]
    return page.start


def read_groups(pid: int, address: int, word_size: int) -> tuple[Group, ...]:
    """The groups in use, by address.

    struct meta_area: a check of 8 bytes, a pointer, the number of entries as int; then of each
    entry, struct meta, three pointers (two of a list, then the slots), two masks, and a word.
    """
    with open(f"/proc/{pid}/mem", "rb") as memory:
        memory.seek(address)
        page = memory.read(PAGE)
    word = "I" if word_size == 4 else "Q"
    entry = struct.Struct(f"<{word * 3}II{word}")
    start = 16 if word_size == 4 else 24
    (count,) = struct.unpack_from("<i", page, 8 + word_size)
    assert count == (PAGE - start) // entry.size and any(page[:8]), "that is not musl's account"
    found = []
    for number in range(count):
        _, _, slots, available, freed, form = entry.unpack_from(page, start + number * entry.size)
        if slots:
            found.append(Group(slots, available, freed, form))
    return tuple(sorted(found, key=lambda group: group.address))


def resident(pid: int, program: pathlib.Path) -> int:
    """Bytes of the guest that are in RAM: its program, its stack and what it has taken."""
    starts = {it.start for it in guest_mappings(pid, program) if it.access[:3] != "---"}
    total, counts = 0, False
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if header := re.match(r"([0-9a-f]+)-[0-9a-f]+ ", line):
            counts = int(header[1], 16) in starts
        elif counts and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total

"""Root file systems with only those parts of a device that `flash` examines."""

import pathlib
import struct

from suites.packages import roots
from suites.packages.case import BOARDS, elf

HARD, SOFT = 0x05000400, 0x05000200
KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
CONFIG = f"[Interface]\nPrivateKey = {KEY}\nAddress = 10.9.0.1/24\n"


def arm(flags: int, architecture: int | None = None) -> bytes:
    """An ARM program, with the attribute of its architecture (6: v6, 10: v7) or without any."""
    head = elf(0x28, 1, flags)
    if architecture is None:
        return head
    # "A", then: length, "aeabi", then: 1 (the file), length, Tag_CPU_arch (6) and its value.
    inner = bytes((6, architecture))
    inner = b"\x01" + struct.pack("<I", len(inner) + 5) + inner
    inner = b"aeabi\0" + inner
    attributes = b"A" + struct.pack("<I", len(inner) + 4) + inner
    names = b"\0.ARM.attributes\0.shstrtab\0"
    start = 52 + len(attributes) + len(names)
    program = bytearray(head[:52]) + attributes + names
    # Offset of the section headers, size of one, their number, the index of the names.
    struct.pack_into("<I", program, 32, start)
    struct.pack_into("<HHHHHH", program, 40, 52, 0, 0, 40, 3, 2)
    program += bytes(40)
    program += struct.pack("<10I", 1, 0x70000003, 0, 0, 52, len(attributes), 0, 0, 1, 0)
    program += struct.pack("<10I", 17, 3, 0, 0, 52 + len(attributes), len(names), 0, 0, 1, 0)
    return bytes(program)


PROGRAMS = {
    board: arm(HARD) if bits == 1 else elf(machine, bits)
    for board, (_, _, machine, bits) in BOARDS.items()
}


def card(shell: bytes, system: str = "systemd", release: str = "ID=debian") -> pathlib.Path:
    """A root file system with this shell, laid out as merged-/usr Debian is."""
    path = roots.folder("card")
    for name in ("etc", "usr/bin", "usr/lib", "usr/sbin", "var"):
        (path / name).mkdir(parents=True)
    for name in ("bin", "lib", "sbin"):
        (path / name).symlink_to(f"usr/{name}")
    (path / "usr/bin/dash").write_bytes(shell)
    # As on a device: an absolute link.
    (path / "usr/bin/sh").symlink_to("/bin/dash")
    (path / "usr/lib/os-release").write_text(f'{release}\nNAME="Some"\n')
    (path / "etc/os-release").symlink_to("../usr/lib/os-release")
    marks = {
        "systemd": "usr/lib/systemd/systemd",
        "openrc": "usr/sbin/openrc-run",
        "openwrt": "etc/openwrt_release",
    }
    mark = path / marks[system]
    mark.parent.mkdir(exist_ok=True)
    mark.touch()
    return path


def snapshot(path: pathlib.Path) -> dict[str, tuple]:
    """The state of every file, to detect any write."""
    found = {}
    for file in sorted(path.rglob("*")):
        status = file.lstat()
        if file.is_symlink():
            content = str(file.readlink())
        else:
            content = file.read_bytes() if file.is_file() else None
        found[str(file.relative_to(path))] = (
            *(status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_ino),
            content,
        )
    return found

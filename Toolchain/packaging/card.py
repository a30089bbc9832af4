"""A mounted card: its processor, and its files, with links resolved as on the device."""

import os
import pathlib
import shutil
import stat
import subprocess
from collections.abc import Callable

from contents import PackagingError

MAXIMUM_LINKS = 40
# Every card has one of these files. It shows the processor, which is all that a static program
# depends on.
SHELLS = (
    *("bin/sh", "usr/bin/sh", "bin/busybox"),
    *("lib/ld-linux-armhf.so.3", "lib/ld-linux-aarch64.so.1", "lib64/ld-linux-x86-64.so.2"),
)
MACHINES = {
    (2, 0xB7): "aarch64",
    (2, 0xF3): "riscv64",
    (2, 0x3E): "x86_64",
    (1, 0x03): "i386",
    (1, 0xF3): "riscv32",
}
# In ELF files of 32 or 64 bits.
OLD_MACHINES = {0x08: "mips", 0x14: "powerpc", 0x15: "powerpc"}
EF_ARM_ABI_FLOAT_HARD = 0x400


def processor(path: pathlib.Path) -> str | None:
    """The processor of a program, as Linux distributions call it; None for other files."""
    try:
        with path.open("rb") as file:
            head = file.read(52)
    except OSError:
        return None
    if len(head) < 52 or head[:4] != b"\x7fELF":
        return None
    if head[5] != 1:
        return "big-endian"
    bits, machine = head[4], int.from_bytes(head[18:20], "little")
    if (bits, machine) == (1, 0x28):
        flags = int.from_bytes(head[36:40], "little")
        return "armhf" if flags & EF_ARM_ABI_FLOAT_HARD else "armel"
    name = MACHINES.get((bits, machine)) or OLD_MACHINES.get(machine)
    return name or f"ELF-machine-0x{machine:04x}"


def arm_architecture(path: pathlib.Path) -> str:
    """Tag_CPU_arch of an ARM program, or nothing if there is none or readelf is missing."""
    try:
        result = subprocess.run(["readelf", "-A", path], capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    _, _, rest = result.stdout.partition("Tag_CPU_arch: ")
    return rest.split("\n")[0].strip()


class Card:
    """Paths of the card are given and returned as the device sees them."""

    def __init__(self, root: pathlib.Path):
        self.root = root

    def resolve(self, path: str) -> str:
        """The same path without links, none of which leads out of the card."""
        ahead = path.split("/")[::-1]
        resolved: list[str] = []
        links = 0
        while ahead:
            part = ahead.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del resolved[-1:]
                continue
            place = self.root.joinpath(*resolved, part)
            if not place.is_symlink():
                resolved.append(part)
                continue
            links += 1
            if links > MAXIMUM_LINKS:
                raise PackagingError(f"links on the card lead in a circle: {path}")
            to = os.readlink(place)
            if to.startswith("/"):
                resolved.clear()
            ahead += to.split("/")[::-1]
        return "".join(f"/{part}" for part in resolved)

    def at(self, path: str) -> pathlib.Path:
        """The path on this machine."""
        return self.root / self.resolve(path).lstrip("/")

    def has(self, path: str) -> bool:
        return self.at(path).exists()

    def value(self, path: str, key: str) -> str:
        """The value of a key in a file of assignments, or an empty string."""
        if not self.has(path):
            return ""
        for line in self.at(path).read_text(errors="replace").splitlines():
            if line.startswith(f"{key}="):
                return line.partition("=")[2].replace('"', "").replace("'", "")
        return ""

    def check_is_root_file_system(self) -> None:
        if self.has("/etc") and (self.has("/bin/sh") or self.has("/usr/bin/sh")):
            return
        for name in ("cmdline.txt", "config.txt", "uEnv.txt"):
            if (self.root / name).is_file():
                raise PackagingError(
                    f"{self.root} is a boot partition; mount the root file system beside it"
                )
        raise PackagingError(
            f"{self.root} is no root file system: there is no /etc, or no /bin/sh"
        )

    def system(self) -> str:
        """Its init system."""
        marks = {
            "openwrt": ("/etc/openwrt_release",),
            "openrc": ("/sbin/openrc-run", "/usr/sbin/openrc-run"),
            "systemd": ("/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/etc/systemd/system"),
        }
        for system, paths in marks.items():
            if any(self.has(path) for path in paths):
                return system
        raise PackagingError(
            f"{self.root} has neither systemd nor OpenRC nor OpenWrt, "
            "so nothing would start the tunnel"
        )

    def shell(self) -> tuple[pathlib.Path, str] | None:
        """A program of the card, and its processor."""
        for path in SHELLS:
            if self.has(path) and (found := processor(self.at(path))):
                return self.at(path), found
        return None

    def has_tun(self) -> bool:
        """Whether the card's kernel has the module tun; true if that cannot be determined."""
        modules = self.at("/lib/modules")
        if not modules.is_dir() or any(modules.rglob("tun.ko*")):
            return True
        return any(
            line.endswith("/tun.ko")
            for path in modules.rglob("modules.builtin")
            for line in path.read_text(errors="replace").splitlines()
        )


class Writer:
    """Writes files, folders and links of a card; a dry run only prints them."""

    def __init__(self, card: Card, is_dry: bool, say: Callable[[str, str], None]):
        self.card = card
        self.is_dry = is_dry
        self.say = say

    def folder(self, path: str, mode: int = 0o755) -> pathlib.Path:
        """A folder of the card, made if it is missing.

        A link whose target is not on the card may lead to another partition of the device, so
        nothing is created there.
        """
        steps = path.strip("/").split("/")
        parent = self.card.root
        for index, step in enumerate(steps):
            prefix = "/" + "/".join(steps[: index + 1])
            place = self.card.at(prefix)
            if not place.is_dir():
                if (parent / step).is_symlink():
                    raise PackagingError(
                        f"{prefix} on the card leads to {self.card.resolve(prefix)}, "
                        "which is not there"
                    )
                if place.exists():
                    raise PackagingError(f"{prefix} on the card is no folder")
                if not self.is_dry:
                    place.mkdir()
                    place.chmod(mode if index + 1 == len(steps) else 0o755)
                    os.chown(place, 0, 0)
            parent = place
        return parent

    def put(self, mode: int, path: str, content: bytes | None) -> None:
        """A file of the card. None is content that a dry run does not have yet.

        It is written beside the target and renamed, so the target is never incomplete, and a link
        in its place is replaced, not followed.
        """
        folder, _, name = path.rpartition("/")
        target = self.folder(folder) / name
        if not target.is_symlink():
            if target.is_dir():
                raise PackagingError(f"{path} on the card is a folder")
            if content is not None and self.is_same(target, mode, content):
                self.say("unchanged", path)
                return
        if not self.is_dry:
            new = target.with_name(f".{name}.new")
            new.unlink(missing_ok=True)
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
                    file.write(content or b"")
                os.chown(new, 0, 0)
                new.chmod(mode)
                new.replace(target)
            finally:
                new.unlink(missing_ok=True)
        self.say("install", f"{path} ({mode:04o})")

    @staticmethod
    def is_same(path: pathlib.Path, mode: int, content: bytes) -> bool:
        if not path.is_file():
            return False
        status = path.stat()
        rights = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        return rights == (mode, 0, 0) and path.read_bytes() == content

    def link(self, to: str, path: str) -> None:
        """A symbolic link of the card."""
        folder, _, name = path.rpartition("/")
        target = self.folder(folder) / name
        if target.is_symlink():
            if os.readlink(target) == to:
                self.say("unchanged", path)
                return
        elif target.exists():
            raise PackagingError(f"{path} on the card is no link")
        if not self.is_dry:
            target.unlink(missing_ok=True)
            target.symlink_to(to)
        self.say("enable", f"{path} -> {to}")

    def finish(self) -> None:
        """Waits until everything has been written to the card."""
        if shutil.which("sync"):
            subprocess.run(["sync", "-f", self.card.root], check=False)
        else:
            os.sync()

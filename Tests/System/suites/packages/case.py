"""The base of the tests of packages."""

import os
import pathlib
import shutil
import subprocess
import unittest

from harness.settings import REPOSITORY
from suites.packages import roots

TOOLCHAIN = REPOSITORY / "Toolchain"
PACKAGE = TOOLCHAIN / "packaging/package"
# Board, Debian's name, suffix of the version, and the processor's number and class in ELF.
BOARDS = {
    "aarch64": ("arm64", "", 0xB7, 2),
    "armv7": ("armhf", "", 0x28, 1),
    "armv6": ("armhf", "+armv6", 0x28, 1),
    "riscv64": ("riscv64", "", 0xF3, 2),
    "x86_64": ("amd64", "", 0x3E, 2),
}
EPOCH = "1700000000"


def elf(machine: int, bits: int, flags: int = 0, order: int = 1) -> bytes:
    """An ELF header: enough to identify the processor, too little to run."""
    endian = "little" if order == 1 else "big"
    head = bytearray(64)
    head[:7] = b"\x7fELF" + bytes((bits, order, 1))
    head[16:18] = (2).to_bytes(2, endian)
    head[18:20] = machine.to_bytes(2, endian)
    offset = 36 if bits == 1 else 48
    head[offset : offset + 4] = flags.to_bytes(4, endian)
    return bytes(head)


def program(board: str) -> pathlib.Path:
    """The binary of a board; skips the test if it has not been built."""
    path = REPOSITORY / "build" / board / "culvert"
    if not path.exists():
        raise unittest.SkipTest(f"build/{board}/culvert is missing; make {board}")
    return path


def need(tool: str, package: str | None = None) -> None:
    if shutil.which(tool) is None:
        raise unittest.SkipTest(f"{package or tool} is not installed")


def checkout(boards: dict[str, bytes]) -> pathlib.Path:
    """A copy of the files that make packages, with these programs."""
    path = roots.folder("checkout")
    shutil.copytree(TOOLCHAIN, path / "Toolchain", symlinks=True)
    for name in ("Sources/culvert/Help.swift", "CHANGELOG.md", "LICENSE"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, path / name)
    for board, content in boards.items():
        (path / "build" / board).mkdir(parents=True)
        (path / "build" / board / "culvert").write_bytes(content)
        (path / "build" / board / "culvert").chmod(0o755)
    return path


def built(board: str) -> pathlib.Path:
    """A checkout with the board's real program."""
    return checkout({board: program(board).read_bytes()})


class PackageCase(unittest.TestCase):
    maxDiff = None

    def output(self, *command: str, status: int = 0, **options) -> str:
        """What a command prints, standard and error output; it has to exit with this status."""
        environment = os.environ | options.pop("env", {})
        result = subprocess.run(
            [str(word) for word in command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            **options,
        )
        self.assertEqual(result.returncode, status, f"{command}:\n{result.stdout}")
        return result.stdout

    def make(
        self, kind: str, board: str, root: pathlib.Path | None = None, **env: str
    ) -> pathlib.Path:
        """Run Toolchain/packaging/make-KIND in a copy of the repository; the package."""
        root = root or built(board)
        made = {"SOURCE_DATE_EPOCH": EPOCH, "MAINTAINER": "Nobody <nobody@example.org>"} | env
        line = self.output(root / "Toolchain/packaging" / f"make-{kind}", board, env=made)
        return root / line.splitlines()[-1]

    def assert_enabled(self, root: pathlib.Path) -> None:
        """systemd reports the tunnel's unit as enabled; skipped without systemd."""
        need("systemctl", "systemd")
        said = self.output("systemctl", f"--root={root}", "is-enabled", "culvert@wg0")
        self.assertEqual(said.strip(), "enabled")

    def inside(self, chroot: roots.Chroot, *command: str, status: int = 0, **options) -> str:
        result = chroot.run(*command, **options)
        self.assertEqual(result.returncode, status, f"{command}:\n{result.stdout}")
        return result.stdout

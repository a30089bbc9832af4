"""Same inputs, same bytes: SDK and binary of each board, built twice from scratch.

Everything that must not affect the result differs between the two builds: the path and its length,
the temporary folder, the home folder, the time zone, the permissions of new files, and the number
of parallel compilers. The sources are those of this checkout, committed or not. Downloads are
shared, because make-sdk verifies the checksum of each.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile

from harness.command import CheckError, run_checks
from harness.settings import REPOSITORY

BOARDS = ("aarch64", "armv7", "armv6", "riscv64", "x86_64")
SHARED = ("Package.swift", "Sources", "Tests", "Toolchain")
# The files that differ are copied here.
KEPT = REPOSITORY / "build" / "reproducible"
SHOWN = 48  # bytes of a difference


@dataclasses.dataclass(frozen=True)
class Checkout:
    """A copy of this checkout, and the conditions of its build."""

    path: pathlib.Path
    jobs: int
    zone: str
    mask: int

    def fill(self) -> None:
        listed = subprocess.check_output(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *SHARED],
            cwd=REPOSITORY,
        )
        for name in filter(None, listed.decode().split("\0")):
            source, target = REPOSITORY / name, self.path / name
            if os.path.lexists(source):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target, follow_symlinks=False)
        for folder in (self.beside("tmp"), self.beside("home"), self.path / "build"):
            folder.mkdir()
        downloads = REPOSITORY / "build" / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        (self.path / "build" / "downloads").symlink_to(downloads)

    def beside(self, name: str) -> pathlib.Path:
        return self.path.with_name(f"{self.path.name}.{name}")

    def build(self, board: str) -> None:
        environment = os.environ | {
            "JOBS": str(self.jobs),
            "TZ": self.zone,
            "HOME": str(self.beside("home")),
            "TMPDIR": str(self.beside("tmp")),
        }
        result = subprocess.run(
            ["Toolchain/build-static", board, "-j", str(self.jobs)],
            cwd=self.path,
            env=environment,
            umask=self.mask,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if result.returncode != 0:
            raise CheckError(f"does not build:\n{result.stdout}")

    def sdk(self, board: str) -> pathlib.Path:
        return self.path / "build" / "sdk" / "culvert.artifactbundle" / board

    def binary(self, board: str) -> pathlib.Path:
        return self.path / "build" / board / "culvert"


def listing(folder: pathlib.Path) -> dict[str, tuple[int, str]]:
    """Each path in it with its mode, and the hash of its content or the target of a link."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            content = ""
        found[str(path.relative_to(folder))] = (path.lstat().st_mode, content)
    return found


def difference(board: str, first: pathlib.Path, second: pathlib.Path) -> str:
    """A description of where two files differ; both files are kept."""
    one, other = first.read_bytes(), second.read_bytes()
    offset = next((at for at, pair in enumerate(zip(one, other)) if pair[0] != pair[1]), None)
    folder = KEPT / board
    folder.mkdir(parents=True, exist_ok=True)
    for path, name in ((first, "first"), (second, "second")):
        shutil.copy(path, folder / f"{path.name}.{name}")
    if offset is None:
        return f"the longer one begins with the other: {len(one)} and {len(other)} bytes"
    return (
        f"from byte {offset} on:\n  {one[offset : offset + SHOWN]!r}\n"
        f"  {other[offset : offset + SHOWN]!r}\nboth are in {folder}"
    )


def reproducible(checkouts: tuple[Checkout, Checkout], board: str) -> str:
    for checkout in checkouts:
        if not checkout.path.exists():
            checkout.path.mkdir(parents=True)
            checkout.fill()
        checkout.build(board)
    first, second = checkouts
    lists = [listing(it.sdk(board)) for it in checkouts]
    for name in sorted(lists[0].keys() | lists[1].keys()):
        entries = [files.get(name) for files in lists]
        if entries[0] != entries[1]:
            paths = [it.sdk(board) / name for it in checkouts]
            text = difference(board, *paths) if all(it.is_file() for it in paths) else ""
            raise CheckError(f"the SDKs differ, first in {name}: {entries}\n{text}")
    if first.binary(board).read_bytes() != second.binary(board).read_bytes():
        text = difference(board, first.binary(board), second.binary(board))
        raise CheckError(f"the binaries differ, {text}")
    sum_of_binary = hashlib.sha256(first.binary(board).read_bytes()).hexdigest()
    return f"SDK ({len(lists[0])} files) and binary ({sum_of_binary[:16]}...) are the same twice"


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as name:
        # Paths with different lengths and nothing in common below the first folder.
        scratch = pathlib.Path(name)
        checkouts = (
            Checkout(scratch / "a", 1, "UTC", 0o022),
            Checkout(
                scratch / "another" / "checkout-with-a-longer-path" / "culvert",
                os.cpu_count() or 1,
                "Asia/Kathmandu",
                0o077,
            ),
        )
        checks = {board: functools.partial(reproducible, checkouts, board) for board in BOARDS}
        return run_checks(arguments, __doc__.splitlines()[0], checks)

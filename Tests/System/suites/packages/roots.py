"""Temporary root file systems: each test has an in-memory overlay over a common one."""

import fcntl
import functools
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from apt_sources import AptError, archives
from harness.settings import REPOSITORY

ROOTS = REPOSITORY / "build" / "roots"
ARCHITECTURES = ("amd64", "arm64")
SUITE = "bookworm"
# Packages beyond the minimum: to start the services, and to test that they work.
EXTRA = "systemd,systemd-sysv,iproute2,iputils-ping"
# On the private /run in memory, which disappears with the namespaces of the run.
SCRATCH = pathlib.Path("/run/packages")


class RootError(Exception):
    """A root could not be made; the text is the end of debootstrap's output."""


def is_native(architecture: str) -> bool:
    printed = subprocess.check_output(["dpkg", "--print-architecture"], text=True)
    return architecture == printed.strip()


def make(architecture: str) -> None:
    """Make build/roots/ARCHITECTURE.tar, a small Debian 12, from the archive that apt uses.

    For this machine's architecture it is complete, with systemd; others are only unpacked
    (debootstrap --foreign), like the files of a card. An existing one is kept.
    """
    ROOTS.mkdir(parents=True, exist_ok=True)
    with (ROOTS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tarball, stamp = ROOTS / f"{architecture}.tar", ROOTS / f"{architecture}.tar.stamp"
        kind = [f"--include={EXTRA}"] if is_native(architecture) else ["--foreign"]
        command = ["debootstrap", "--variant=minbase", f"--arch={architecture}", *kind, SUITE]
        wanted = hashlib.sha256(" ".join(command).encode()).hexdigest()
        if tarball.exists() and stamp.exists() and stamp.read_text() == wanted:
            return
        with tempfile.TemporaryDirectory(dir=ROOTS) as work:
            unpack(command, pathlib.Path(work, "root"))
            pack(pathlib.Path(work, "root"), tarball)
        stamp.write_text(wanted)


def unpack(command: list[str], work: pathlib.Path) -> None:
    """Run debootstrap with the first of apt's archives that has what it needs."""
    try:
        addresses = archives()
    except AptError as error:
        raise RootError(str(error)) from error
    printed = "apt has no archive of Debian"
    for address in addresses:
        print(f"unpacking Debian 12 from {address}", flush=True)
        shutil.rmtree(work, ignore_errors=True)
        result = subprocess.run(
            [*command, work, address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            umask=0o022,
            env=os.environ | {"LC_ALL": "C"},
        )
        if result.returncode == 0:
            return
        printed = result.stdout
    raise RootError("\n".join(["debootstrap failed:", *printed.splitlines()[-10:]]))


def pack(work: pathlib.Path, tarball: pathlib.Path) -> None:
    """Make the tarball, without package files and lists, as no more packages are installed."""
    for pattern in ("var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_*"):
        for path in work.glob(pattern):
            path.unlink()
    work.chmod(0o755)
    fresh = tarball.with_suffix(".new")
    subprocess.run(
        ["tar", "-C", work, "--numeric-owner", "--xattrs", "-cf", fresh, "."], check=True
    )
    fresh.rename(tarball)


def prepare() -> None:
    SCRATCH.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=75%", "packages", SCRATCH], check=True)


def folder(name: str) -> pathlib.Path:
    """A new folder that disappears with the run."""
    return pathlib.Path(tempfile.mkdtemp(prefix=f"{name}.", dir=SCRATCH))


def missing(architecture: str) -> str | None:
    """What this machine lacks for such a root."""
    if shutil.which("debootstrap") is None:
        return "debootstrap is not installed"
    if architecture == "amd64" and not is_native(architecture):
        return "this machine is not amd64"
    return None


@functools.cache
def unpacked(architecture: str) -> pathlib.Path:
    path = folder(architecture)
    path.chmod(0o755)
    subprocess.run(["tar", "-C", path, "-xpf", ROOTS / f"{architecture}.tar"], check=True)
    return path


def root(architecture: str) -> pathlib.Path:
    """A Debian 12 that may be changed; skips the test if this machine cannot have one."""
    if reason := missing(architecture):
        raise unittest.SkipTest(reason)
    upper, work, target = (folder(name) for name in ("upper", "work", "root"))
    layers = f"lowerdir={unpacked(architecture)},upperdir={upper},workdir={work}"
    upper.chmod(0o755)
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", target], check=True)
    return target


class Chroot:
    """A root to run programs in, with /proc, /dev, and its own /run and /tmp."""

    def __init__(self, architecture: str):
        self.path = root(architecture)
        for kind, place in (("proc", "proc"), ("tmpfs", "run"), ("tmpfs", "tmp")):
            subprocess.run(["mount", "-t", kind, kind, self.path / place], check=True)
        subprocess.run(["mount", "--rbind", "/dev", self.path / "dev"], check=True)

    def run(self, *command: str, **options) -> subprocess.CompletedProcess:
        """Run a command; standard and error output are one text."""
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND": "noninteractive",
            "LC_ALL": "C.UTF-8",
        }
        return subprocess.run(
            ["chroot", self.path, *command],
            env=environment | options.pop("env", {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            **options,
        )

    def files(self) -> dict[str, str]:
        """Kind, mode, owner and link target of every file on the root's own file system."""
        found = subprocess.check_output(
            ["find", ".", "-xdev", "-printf", r"%P\t%y %m %U:%G %l\n"], cwd=self.path, text=True
        )
        return dict(line.split("\t", 1) for line in found.splitlines())

    def close(self) -> None:
        subprocess.run(["umount", "-R", self.path], check=True)

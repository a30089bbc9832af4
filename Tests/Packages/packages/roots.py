"""Root file systems to throw away: each test has one of its own, above a common one in memory."""

import functools
import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOTS = pathlib.Path(__file__).resolve().parents[3] / "build" / "roots"
ARCHITECTURES = ("amd64", "arm64")
# A private /run, in memory; it goes with the namespaces of the run.
SCRATCH = pathlib.Path("/run/packages")


def prepare() -> None:
    SCRATCH.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=75%", "packages", SCRATCH], check=True)


def folder(name: str) -> pathlib.Path:
    """A new folder that goes with the run."""
    return pathlib.Path(tempfile.mkdtemp(prefix=f"{name}.", dir=SCRATCH))


def missing(architecture: str) -> str | None:
    """What this machine lacks for such a root."""
    if shutil.which("debootstrap") is None:
        return "debootstrap is not installed"
    native = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    if architecture == "amd64" and native != architecture:
        return f"this machine is {native}"
    return None


@functools.cache
def unpacked(architecture: str) -> pathlib.Path:
    path = folder(architecture)
    path.chmod(0o755)
    subprocess.run(["tar", "-C", path, "-xpf", ROOTS / f"{architecture}.tar"], check=True)
    return path


def root(architecture: str) -> pathlib.Path:
    """A Debian 12 that may be changed; skips the test where there can be none."""
    if reason := missing(architecture):
        raise unittest.SkipTest(reason)
    upper, work, target = (folder(name) for name in ("upper", "work", "root"))
    layers = f"lowerdir={unpacked(architecture)},upperdir={upper},workdir={work}"
    upper.chmod(0o755)
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", target], check=True)
    return target


class Chroot:
    """A root to run programs in, with /proc, /dev and a /run of its own."""

    def __init__(self, architecture: str):
        self.path = root(architecture)
        for kind, place in (("proc", "proc"), ("tmpfs", "run"), ("tmpfs", "tmp")):
            subprocess.run(["mount", "-t", kind, kind, self.path / place], check=True)
        subprocess.run(["mount", "--rbind", "/dev", self.path / "dev"], check=True)

    def run(self, *command: str, **options) -> subprocess.CompletedProcess:
        """Run a command; its output, of both kinds, is text."""
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
        """Every file's kind, mode, owner and, of links, target; not of what lies in memory."""
        found = subprocess.check_output(
            ["find", ".", "-xdev", "-printf", r"%P\t%y %m %U:%G %l\n"], cwd=self.path, text=True
        )
        return dict(line.split("\t", 1) for line in found.splitlines())

    def close(self) -> None:
        subprocess.run(["umount", "-R", self.path], check=True)

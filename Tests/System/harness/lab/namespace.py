"""A network namespace: commands, processes and sockets inside it."""

import contextlib
import itertools
import os
import pathlib
import signal
import socket
import subprocess
from collections.abc import Iterator

from harness import isolation, procfs

CLONE_NEWNET = isolation.CLONE_NEWNET
numbers = itertools.count(1)


class CommandError(AssertionError):
    """A command inside a namespace failed; carries its status and output."""

    def __init__(self, command: tuple[str, ...], status: int, output: str):
        super().__init__(f"`{' '.join(command)}` gave status {status}: {output.strip()}")
        self.status, self.output = status, output


class Namespace:
    """A network namespace with loopback up and duplicate address detection off."""

    def __init__(self, role: str):
        self.name = f"{role}-{next(numbers)}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.descriptor = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        self.processes: list[subprocess.Popen] = []
        self.has_ipv6 = True
        # Addresses are then usable at once; no other host could have them.
        for scope in ("all", "default"):
            self.set_sysctl(f"net/ipv6/conf/{scope}/accept_dad", "0")
        self.run("ip", "link", "set", "lo", "up")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Put this thread, and everything that it opens or starts, into the namespace."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            isolation.check(isolation.libc.setns(self.descriptor, CLONE_NEWNET), "setns")
            yield
        finally:
            isolation.check(isolation.libc.setns(home, CLONE_NEWNET), "setns")
            os.close(home)

    def run(self, *command: str, seconds: float = 30, text: str | None = None) -> str:
        """The standard output of a command run inside; CommandError unless it succeeds."""
        result = self.attempt(*command, seconds=seconds, text=text)
        if result.returncode != 0:
            raise CommandError(command, result.returncode, result.stdout + result.stderr)
        return result.stdout

    def attempt(
        self, *command: str, seconds: float = 30, text: str | None = None, **options
    ) -> subprocess.CompletedProcess:
        """Run a command inside that may be expected to fail."""
        with self.entered():
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                **options,
            )
        try:
            output, complaint = process.communicate(text, timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            output, complaint = process.communicate()
            raise CommandError(command, -1, f"no end after {seconds:g} s: {output}{complaint}")
        return subprocess.CompletedProcess(command, process.returncode, output, complaint)

    def start(self, *command: str, **options) -> subprocess.Popen:
        """Start a process inside; close() ends it if nothing else does."""
        options.setdefault("stdin", subprocess.DEVNULL)
        with self.entered():
            process = subprocess.Popen(command, **options)
        self.processes.append(process)
        return process

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this namespace, usable from anywhere."""
        with self.entered():
            return socket.socket(family, kind, protocol)

    def ip(self, *lines: str) -> None:
        """Several `ip` commands in one process, e.g. "link set lo up"."""
        self.run("ip", "-batch", "-", text="\n".join(lines) + "\n")

    def nft(self, rules: str) -> None:
        """Add rules in the language of nft(8)."""
        self.run("nft", "-f", "-", text=rules)

    def set_sysctl(self, path: str, value: str) -> None:
        with self.entered():
            pathlib.Path("/proc/sys", path).write_text(value)

    def disable_ipv6(self) -> None:
        """Turn IPv6 off for all present and future interfaces."""
        self.has_ipv6 = False
        for scope in ("all", "default"):
            self.set_sysctl(f"net/ipv6/conf/{scope}/disable_ipv6", "1")

    def interfaces(self) -> set[str]:
        with self.entered():
            return {name for _, name in socket.if_nameindex()}

    def pids(self) -> list[int]:
        """The processes that live in this namespace, without Culvert's helper processes."""
        return [pid for pid in self.all_pids() if procfs.name(pid) != "culvert-helper"]

    def all_pids(self) -> list[int]:
        """The processes that live in this namespace."""
        # `ip` runs outside, so that it is not among them.
        command = ["ip", "netns", "pids", self.name]
        listed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        return [int(pid) for pid in listed.split()]

    def close(self) -> None:
        """End every process inside, then the namespace with its interfaces."""
        for pid in self.all_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()
        os.close(self.descriptor)
        subprocess.run(["ip", "netns", "delete", self.name], check=True)


def join(
    left: Namespace, right: Namespace, left_interface: str, right_interface: str, mtu: int = 1500
) -> None:
    """Connect two namespaces by a veth pair, up, without addresses."""
    left.ip(
        f"link add {left_interface} mtu {mtu} type veth peer name {right_interface} mtu {mtu} "
        f"netns {right.name}",
        f"link set {left_interface} up",
    )
    right.ip(f"link set {right_interface} up")

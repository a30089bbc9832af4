"""A node: a namespace, a WireGuard program in it, its interface and its keys."""

import base64
import dataclasses
import itertools
import os
import pathlib
import re
import signal
import socket
import stat
import subprocess

from harness import procfs
from harness.lab.namespace import Namespace
from harness.settings import Program
from harness.waiting import wait_until


def wg(*arguments: str, text: str | None = None) -> str:
    result = subprocess.run(
        ["wg", *arguments], input=text, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


@dataclasses.dataclass(frozen=True)
class KeyPair:
    """A private and its public key, in base64 as wg(8) writes them."""

    private: str
    public: str

    @classmethod
    def generate(cls) -> "KeyPair":
        private = wg("genkey")
        return cls(private, wg("pubkey", text=private))


def preshared_key() -> str:
    return wg("genpsk")


def hexadecimal(key: str) -> str:
    """A base64 key as the UAPI writes it."""
    return base64.b64decode(key).hex()


SOCKETS = pathlib.Path("/var/run/wireguard")
LOGS = pathlib.Path("/run/interop")
numbers = itertools.count(1)
# "wg0-1 sent 17"; with one tunnel the name of the interface is left out.
COUNTER_LINE = re.compile(r"(?:(\S+) )?([a-z0-9-]+) (\d+)")
QUIET = 0.15  # seconds without another line


class Node:
    """A program with one interface; its name is unique in the run, as all share one /run."""

    def __init__(self, namespace: Namespace, program: Program, role: str):
        number = next(numbers)
        self.namespace, self.program, self.role = namespace, program, role
        self.interface = f"cv{role[:4]}{number}"
        self.keys = KeyPair.generate()
        self.log_path = LOGS / f"{role}-{number}.log"
        self.process: subprocess.Popen | None = None
        self.outer4 = self.outer6 = self.inner4 = self.inner6 = ""
        self.port = 0

    # Starting and ending

    @property
    def socket_path(self) -> pathlib.Path:
        return SOCKETS / f"{self.interface}.sock"

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.role} was not started"
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(
        self,
        profile: str = "",
        level: str = "verbose",
        options: tuple[str, ...] = (),
        interval: float = 0.02,
        **popen,
    ) -> None:
        """Start the program in the foreground and wait until interface and socket exist.

        `interval` is the polling interval in seconds.
        """
        environment = dict(os.environ, LOG_LEVEL=level, **popen.pop("environment", {}))
        environment.update(self.program.environment)
        command = self.program.command(self.interface, profile=profile)
        with self.log_path.open("ab") as log:
            self.process = self.namespace.start(
                *command[:1],
                *options,
                *command[1:],
                env=environment,
                stdout=log,
                stderr=log,
                **popen,
            )
        wait_until(
            lambda: self.is_ready or not self.is_running, f"{self.role} ready", interval=interval
        )
        if not self.is_running:
            raise AssertionError(f"{self.role} ended with {self.process.returncode}:\n{self.log}")

    @property
    def is_ready(self) -> bool:
        return self.interface in self.namespace.interfaces() and self.answers

    @property
    def answers(self) -> bool:
        """Whether the program accepts connections at the UAPI socket."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(self.socket_path))
            return True
        except OSError:
            return False

    def stop(self, number: int = signal.SIGTERM, seconds: float = 15) -> int:
        """End the program by a signal; its exit status."""
        if self.is_running:
            self.process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds: float = 15) -> int:
        """Wait for a program that ends by itself; its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.role} still runs after {seconds:g} s") from None

    def leftovers(self) -> list[str]:
        """What the program should have removed when it ended."""
        found = []
        if os.path.lexists(self.socket_path) and stat.S_ISSOCK(self.socket_path.lstat().st_mode):
            found.append(str(self.socket_path))
        if self.interface in self.namespace.interfaces():
            found.append(f"interface {self.interface}")
        return found

    # Configuration

    def wg(self, *arguments: str, text: str | None = None, seconds: float = 30) -> str:
        """Run wg(8) in the namespace; its output."""
        return self.namespace.run("wg", *arguments, text=text, seconds=seconds)

    def set(self, *arguments: str, secrets: dict[str, str] | None = None) -> None:
        """`wg set INTERFACE ...`; each of `secrets` (option to key) is passed in a file."""
        words = list(arguments)
        for option, key in (secrets or {}).items():
            path = LOGS / f"{self.interface}.{option}"
            path.touch(0o600)
            path.write_text(key + "\n")
            words += [option, str(path)]
        self.wg("set", self.interface, *words)

    def set_private_key(self, key: str) -> None:
        self.set(secrets={"private-key": key})

    def add_peer(
        self,
        other: "Node",
        endpoint: str | None = None,
        allowed: str | None = None,
        preshared: str | None = None,
        *options: str,
    ) -> None:
        """Add `other` with its inner addresses, or with the allowed IPs given."""
        words = ["peer", other.keys.public, "allowed-ips", allowed or other.allowed_ips]
        words += ["endpoint", endpoint] if endpoint else []
        words += options
        self.set(*words, secrets={"preshared-key": preshared} if preshared else None)

    @property
    def allowed_ips(self) -> str:
        return ",".join(
            f"{address}/{length}"
            for address, length in ((self.inner4, 32), (self.inner6, 128))
            if address
        )

    def bring_up(self, mtu: int | None = None) -> None:
        """Give the interface its addresses and set it up."""
        lines = [f"link set {self.interface} mtu {mtu}"] if mtu else []
        lines.append(f"addr add {self.inner4}/24 dev {self.interface}")
        lines.append(f"link set {self.interface} up")
        if self.inner6:
            lines.append(f"addr add {self.inner6}/64 dev {self.interface} nodad")
        self.namespace.ip(*lines)
        if self.inner6:
            # On a busy machine the kernel may add the local route late.
            wait_until(
                lambda: self.namespace.run(
                    "ip", "-6", "route", "show", "table", "local", self.inner6
                ).strip(),
                f"{self.inner6} in use",
            )

    def endpoint(self, outer: int = 4) -> str:
        """The endpoint by which others reach this node."""
        return f"{self.outer4}:{self.port}" if outer == 4 else f"[{self.outer6}]:{self.port}"

    # State from wg(8)

    def show(self, field: str) -> dict[str, str]:
        """A per-peer field of `wg show`, by public key."""
        lines = self.wg("show", self.interface, field).splitlines()
        return dict(line.partition("\t")[::2] for line in lines)

    def latest_handshake(self, other: "Node") -> int:
        """Seconds since the epoch, 0 if there was none."""
        return int(self.show("latest-handshakes").get(other.keys.public, "0"))

    def endpoint_of(self, other: "Node") -> str:
        return self.show("endpoints").get(other.keys.public, "")

    @property
    def peak_memory(self) -> int:
        return procfs.peak_memory(self.pid)

    def counters(self) -> dict[tuple[str, str], int]:
        """The counters that SIGUSR1 prints, by interface ("wg0", "wg0-1") and name."""
        start = self.log_path.stat().st_size
        os.kill(self.pid, signal.SIGUSR1)
        size = start

        def is_told() -> bool:
            nonlocal size
            before, size = size, self.log_path.stat().st_size
            return start < size == before

        wait_until(is_told, "counters on standard error", interval=QUIET)
        with self.log_path.open("rb") as log:
            log.seek(start)
            lines = log.read().decode(errors="replace").splitlines()
        found = [match.groups() for line in lines if (match := COUNTER_LINE.fullmatch(line))]
        return {(owner or self.interface, name): int(count) for owner, name, count in found}


# One process with nested tunnels, and a node for each hop.


class NestedNode(Node):
    """The end of the innermost tunnel, the only one that has an interface.

    `hops[0]` is the end of the next outer tunnel, as in `wg show IFNAME-1`, and so on outward.
    """

    def __init__(self, namespace, program, role):
        super().__init__(namespace, program, role)
        self.hops: list[Node] = []

    def add_hop(self) -> Node:
        hop = Node(self.namespace, self.program, f"{self.role}-{len(self.hops) + 1}")
        hop.interface = f"{self.interface}-{len(self.hops) + 1}"
        self.hops.append(hop)
        return hop

    @property
    def answers(self) -> bool:
        return super().answers and all(hop.answers for hop in self.hops)

    def leftovers(self) -> list[str]:
        outward = sorted(map(str, SOCKETS.glob(f"{self.interface}-*.sock")))
        return super().leftovers() + outward

    def count(self, name: str, hop: int = 0) -> int:
        """One counter, of the innermost tunnel or of the tunnel that is `hop` hops further out."""
        owner = self.hops[hop - 1].interface if hop else self.interface
        return self.counters().get((owner, name), 0)

"""`culvert forward`: a program without an interface, run by an unprivileged user."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

from harness import procfs
from harness.lab.lab import Lab
from harness.lab.namespace import Namespace, join
from harness.lab.node import LOGS, KeyPair, Node
from harness.settings import Program
from harness.waiting import wait_until

NOBODY = 65534
WITHOUT_RIGHTS = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
                  "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")  # fmt: skip
WITH_RAW_SOCKETS = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
                    "--bounding-set=-all,+net_raw", "--inh-caps=-all,+net_raw",
                    "--ambient-caps=-all,+net_raw")  # fmt: skip
OUR_PORT, THEIR_PORT, AROUND_PORT = 51001, 51002, 51003
LISTEN = {4: "127.0.0.1", 6: "::1"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
numbers = itertools.count(1)
PATIENCE = 10.0  # seconds for one answer; the first one waits for a handshake


def at(address: str, port: int) -> str:
    """An address and a port as written on the command line."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@dataclasses.dataclass(frozen=True)
class Mapping:
    """The value of one `--udp`."""

    local: str
    local_port: int
    target: str
    target_port: int

    def __str__(self) -> str:
        return f"{at(self.local, self.local_port)}={at(self.target, self.target_port)}"


class Forward:
    """The program in a namespace; the lab treats it like a Node, but it has no interface."""

    def __init__(self, namespace: Namespace, program: Program):
        self.namespace, self.program, self.role = namespace, program, "forward"
        # Unique in the run, because all share one /var/lib.
        self.name = f"fwd{next(numbers)}"
        self.interface = ""
        self.inner4, self.inner6 = "10.7.0.1", "fd07::1"
        self.keys = KeyPair.generate()
        # The keys of the outer tunnel, if any.
        self.around_keys = KeyPair.generate()
        self.log_path = LOGS / f"{self.name}.log"
        self.rights = WITHOUT_RIGHTS
        self.state = pathlib.Path("/var/lib", self.name)
        self.state.mkdir()
        os.chown(self.state, NOBODY, NOBODY)
        self.process: subprocess.Popen | None = None

    def write_config(self, name: str, text: str) -> pathlib.Path:
        """A file that only the program's user can read."""
        path = self.state / name
        path.touch(0o600)
        path.write_text(text)
        os.chown(path, NOBODY, NOBODY)
        return path

    def command(self, *options: str) -> list[str]:
        path = str(self.program.path)
        state = ("--state-dir", str(self.state / "stamps"))
        return [*self.rights, path, "forward", *state, *options]

    def start(
        self, mappings: list[Mapping], *options: str, level: str = "verbose", around: bool = False
    ) -> None:
        """Start the program and wait until it listens."""
        words = ["--config", str(self.state / f"{self.name}.conf")]
        if around:
            words += ["--through", str(self.state / f"{self.name}-around.conf")]
        for mapping in mappings:
            words += ["--udp", str(mapping)]
        with self.log_path.open("ab") as log:
            self.process = self.namespace.start(
                *self.command(*words, *options),
                env=dict(os.environ, LOG_LEVEL=level),
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: self.listens(mappings) or not self.is_running, "sockets that listen")
        if not self.is_running:
            raise AssertionError(f"{self.role} ended with {self.process.returncode}:\n{self.log}")

    def listens(self, mappings: list[Mapping]) -> bool:
        """Whether the program has a socket for each mapping."""
        with contextlib.suppress(OSError):
            ports = [port for table in ("udp", "udp6") for port in self.own_ports(table)]
            return all(mapping.local_port in ports for mapping in mappings)
        return False

    def dropped_by_kernel(self, port: int) -> int:
        """Datagrams to a local IPv4 port that were dropped because its socket was full."""
        lines = pathlib.Path(f"/proc/{self.pid}/net/udp").read_text().splitlines()[1:]
        rows = [line.split() for line in lines]
        return sum(int(row[-1]) for row in rows if row[1].endswith(f":{port:04X}"))

    def own_ports(self, table: str) -> list[int]:
        """The ports of the program's sockets of one family."""
        own = procfs.udp_sockets(self.pid)
        lines = pathlib.Path(f"/proc/{self.pid}/net/{table}").read_text().splitlines()[1:]
        fields = [line.split() for line in lines]
        return [int(row[1].rpartition(":")[2], 16) for row in fields if row[9] in own]

    @property
    def pid(self) -> int:
        assert self.process is not None, "it was not started"
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def stop(self, number: int = signal.SIGTERM, seconds: float = 15) -> int:
        if self.is_running:
            self.process.send_signal(number)
        return self.process.wait(seconds)

    def leftovers(self) -> list[str]:
        return []

    def counters(self) -> dict[str, int]:
        """The counters that SIGUSR1 prints, by name."""
        before = len(self.log)
        self.process.send_signal(signal.SIGUSR1)
        # The lines are written one by one.
        wait_until(lambda: len(self.log) > before, "counters")
        size = -1
        while size != len(self.log):
            size = len(self.log)
            time.sleep(0.05)
        return counters_in(self.log[before:])

    def wait_for_counter(self, name: str, least: int = 1, seconds: float = 10) -> dict[str, int]:
        """The counters, once `name` has reached `least`."""
        found: dict[str, int] = {}

        def has_come() -> bool:
            found.update(self.counters())
            return found.get(name, 0) >= least

        wait_until(has_come, f"{name} {least}", seconds, interval=0.2)
        return found


def counters_in(text: str) -> dict[str, int]:
    """Counters from lines of a name and a number; those of the innermost tunnel."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) in (2, 3) and words[-1].isdigit():
            found.setdefault(words[-2], int(words[-1]))
    return found


@dataclasses.dataclass
class ForwardLab:
    """A forward and the host behind its tunnel."""

    forward: Forward
    theirs: Node

    def mapping(
        self, local_port: int, target_port: int, listen: int = 4, inner: int = 4
    ) -> Mapping:
        target = self.theirs.inner4 if inner == 4 else self.theirs.inner6
        return Mapping(LISTEN[listen], local_port, target, target_port)


def build_forward(lab: Lab, ours: Program, theirs: Program, outer: int = 4) -> ForwardLab:
    """A forward with its configuration, not started, and a peer, started."""
    near, far = lab.namespace("near"), lab.namespace("far")
    lab.connect(near, far)
    node = start_peer(lab, far, theirs, THEIR_PORT)
    node.outer4, node.outer6 = "198.51.100.2", "2001:db8::2"
    forward = add_forward(lab, near, ours)
    introduce(forward, node, node.endpoint(outer))
    return ForwardLab(forward, node)


def build_nested(lab: Lab, ours: Program, theirs: Program) -> ForwardLab:
    """The same inside a second tunnel, which is the only path to the peer."""
    near, middle, far = lab.namespace("near"), lab.namespace("middle"), lab.namespace("far")
    lab.connect(near, middle)
    join(middle, far, "back", "back")
    middle.ip("addr add 203.0.113.1/24 dev back")
    far.ip("addr add 203.0.113.2/24 dev back", "route add 10.8.0.0/24 via 203.0.113.1")
    middle.set_sysctl("net/ipv4/ip_forward", "1")
    around = lab.node(middle, theirs, "around")
    around.inner4, around.port = "10.8.0.2", AROUND_PORT
    around.start()
    around.set("listen-port", str(AROUND_PORT), secrets={"private-key": around.keys.private})
    around.bring_up()
    # An MTU that fits into the outer tunnel; otherwise path MTU discovery would cost the first
    # large datagram.
    node = start_peer(lab, far, theirs, THEIR_PORT, mtu=1360)
    node.outer4 = "203.0.113.2"
    forward = add_forward(lab, near, ours)
    around.set("peer", forward.around_keys.public, "allowed-ips", "10.8.0.1/32")
    introduce(forward, node, node.endpoint())
    forward.write_config(
        f"{forward.name}-around.conf",
        f"""
[Interface]
PrivateKey = {forward.around_keys.private}
Address = 10.8.0.1/24

[Peer]
PublicKey = {around.keys.public}
Endpoint = 198.51.100.2:{AROUND_PORT}
AllowedIPs = 203.0.113.0/24
""",
    )
    return ForwardLab(forward, node)


def add_forward(lab: Lab, namespace: Namespace, program: Program) -> Forward:
    forward = Forward(namespace, program)
    lab.nodes.append(forward)
    return forward


def start_peer(
    lab: Lab, namespace: Namespace, program: Program, port: int, mtu: int | None = None
) -> Node:
    node = lab.node(namespace, program, "theirs")
    node.inner4, node.inner6, node.port = "10.7.0.2", "fd07::2", port
    node.start()
    node.set("listen-port", str(port), secrets={"private-key": node.keys.private})
    node.bring_up(mtu)
    return node


def introduce(forward: Forward, node: Node, endpoint: str) -> None:
    allowed = f"{forward.inner4}/32,{forward.inner6}/128"
    node.set("peer", forward.keys.public, "allowed-ips", allowed)
    forward.write_config(
        f"{forward.name}.conf",
        f"""
[Interface]
PrivateKey = {forward.keys.private}
Address = {forward.inner4}/24, {forward.inner6}/64
ListenPort = {OUR_PORT}

[Peer]
PublicKey = {node.keys.public}
Endpoint = {endpoint}
AllowedIPs = {node.inner4}/32, {node.inner6}/128
""",
    )


class EchoServer:
    """Answers every datagram with itself, and remembers the senders."""

    def __init__(self, node: Node, port: int, family: int = 4):
        self.socket = node.namespace.socket(FAMILY[family], socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind((node.inner4 if family == 4 else node.inner6, port))
        self.socket.settimeout(0.1)
        self.askers: list[tuple] = []
        # Replaced by tests that send something else, or from another socket.
        self.answer = lambda data, asker: self.socket.sendto(data, asker)
        self.is_running = True
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> "EchoServer":
        self.thread.start()
        return self

    def __exit__(self, *_error) -> None:
        self.is_running = False
        self.thread.join()
        self.socket.close()

    def run(self) -> None:
        while self.is_running:
            with contextlib.suppress(OSError):
                data, asker = self.socket.recvfrom(1 << 16)
                self.askers.append(asker)
                self.answer(data, asker)


class Client:
    """A local program with a UDP socket."""

    def __init__(self, forward: Forward, mapping: Mapping, port: int = 0):
        family = 6 if ":" in mapping.local else 4
        self.target = (mapping.local, mapping.local_port)
        self.socket = forward.namespace.socket(FAMILY[family], socket.SOCK_DGRAM)
        self.socket.bind((LISTEN[family], port))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_error) -> None:
        self.socket.close()

    def send(self, data: bytes, to: str = "") -> None:
        self.socket.sendto(data, (to, self.target[1]) if to else self.target)

    def receive(self, seconds: float = PATIENCE) -> tuple[bytes, tuple] | None:
        """The next datagram and its sender, if one arrives in time."""
        self.socket.settimeout(seconds)
        try:
            return self.socket.recvfrom(1 << 17)
        except TimeoutError:
            return None

    def ask(self, data: bytes, seconds: float = PATIENCE) -> bytes | None:
        """The answer to a datagram."""
        self.send(data)
        answer = self.receive(seconds)
        return answer[0] if answer else None

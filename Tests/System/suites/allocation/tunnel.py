"""Memory of a program, from the interposer and the kernel, and a stress run of a tunnel."""

import dataclasses
import itertools
import json
import mmap
import os
import pathlib
import signal
import socket
import struct
import time
from collections.abc import Callable

from harness import procfs
from harness.lab.control import UAPIConnection
from harness.lab.lab import Lab
from harness.lab.node import LOGS, KeyPair, Node, preshared_key
from harness.lab.pair import introduce, place
from harness.settings import Program
from harness.traffic.ping import ping
from harness.traffic.streams import iperf
from harness.waiting import wait_until

MAGIC = 0x53434F4C4C41
# epoll_wait, epoll_pwait and epoll_pwait2 on x86-64; epoll_pwait elsewhere.
EPOLL_CALLS = {"232", "281", "441", "22"}


class CountPage:
    """The page that the interposer shares."""

    def __init__(self, path: pathlib.Path):
        path.write_bytes(bytes(4096))
        self.path = path
        with path.open("r+b") as file:
            self.page = mmap.mmap(file.fileno(), 4096)

    @property
    def words(self) -> tuple[int, ...]:
        return struct.unpack("<6Q", self.page[:48])

    @property
    def is_counting(self) -> bool:
        return self.words[0] == MAGIC


@dataclasses.dataclass(frozen=True)
class Memory:
    """A program's memory at one moment. Without an interposer the counts are 0."""

    allocations: int
    frees: int
    # In KiB: address space, private writable memory, resident memory.
    mapped: int
    data: int
    resident: int

    @classmethod
    def of(cls, pid: int, page: CountPage | None) -> "Memory":
        words = page.words if page else (0,) * 6
        fields = (procfs.status_field(pid, name) for name in ("VmSize", "VmData", "VmRSS"))
        return cls(words[1], words[2], *fields)

    def since(self, earlier: "Memory") -> "Memory":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(earlier))
        return Memory(*(late - early for late, early in pairs))

    @property
    def problem(self) -> str:
        """The allocations in this difference; resident memory may grow within existing mappings."""
        names = ("allocations", "frees", "mapped", "data")
        taken = [f"{name} {getattr(self, name):+d}" for name in names if getattr(self, name)]
        return ", ".join(taken)


def memory_of_parts(
    parts: list[tuple[str, Callable[[], None]]], pid: int, page: CountPage | None, start: Memory
) -> list[tuple[str, Memory]]:
    """Run the parts; what the program has allocated in each, and in all since `start`."""
    results, before = [], start
    for name, part in parts:
        part()
        now = Memory.of(pid, page)
        results.append((name, now.since(before)))
        before = now
    return [*results, ("in all", before.since(start))]


def waits_for_work(pid: int) -> bool:
    """Whether the program has reached its event loop; the arena is then sealed.

    At that point one of its workers, not always the first, waits in epoll.
    """
    calls = [path.read_text() for path in pathlib.Path(f"/proc/{pid}/task").glob("*/syscall")]
    return any(call.split(" ", 1)[0].strip() in EPOLL_CALLS for call in calls)


# A stress run of a tunnel: a million packets, handshakes, a hundred reconfigurations.

RECONFIGURATIONS = 100
PATIENCE = 400  # seconds for the packets, on the slowest machine


class CountedNode(Node):
    """A node that receives nothing before its memory has been read."""

    @property
    def is_ready(self) -> bool:
        return self.interface in self.namespace.interfaces() and waits_for_work(self.pid)


class Scenario:
    """One program under test against one peer."""

    def __init__(
        self, lab: Lab, program: Program, peer: Program, interposer: str | None, packets: int
    ):
        self.packets = packets
        left, right = lab.namespace("ours"), lab.namespace("theirs")
        lab.connect(left, right)
        self.ours = CountedNode(left, program, "ours")
        lab.nodes.append(self.ours)
        self.theirs = lab.node(right, peer, "theirs")
        self.page: CountPage | None = None
        environment = {}
        if interposer is not None:
            self.page = CountPage(LOGS / "counts")
            environment["ALLOCATION_COUNTS"] = str(self.page.path)
            if interposer:
                environment["LD_PRELOAD"] = interposer
        place(self.ours, self.theirs)
        self.ours.start(environment=environment)
        if self.page and not self.page.is_counting:
            raise AssertionError("the interposer was not loaded")
        self.start = Memory.of(self.ours.pid, self.page)
        self.theirs.start()
        self.handshakes = self.changes = 0

    # The run

    def run(self) -> list[tuple[str, Memory]]:
        """The memory that each part has allocated, in order."""
        packets = self.packets
        parts = [
            ("configuration and first handshake", self.begin),
            (f"{packets} packets", lambda: self.send(packets)),
            (f"{RECONFIGURATIONS} reconfigurations", self.reconfigure),
            ("errors, signals, link down and up", self.disturb),
            ("packets after all that", lambda: self.send(packets // 20)),
        ]
        return memory_of_parts(parts, self.ours.pid, self.page, self.start)

    def begin(self) -> None:
        introduce(self.ours, self.theirs, 4, preshared_key())
        for node in (self.ours, self.theirs):
            node.bring_up()
        self.handshake()

    def handshake(self) -> None:
        """Ping until there is an answer through the tunnel."""
        wait_until(
            lambda: ping(self.ours, self.theirs.inner4, count=1).received == 1,
            "an answer through the tunnel",
            20,
        )
        self.handshakes += 1

    # Packets

    def counted_packets(self) -> tuple[int, int]:
        """Packets that the interface has received and sent, by the kernel's counters."""
        text = self.ours.namespace.run("ip", "-s", "-j", "link", "show", self.ours.interface)
        stats = json.loads(text)[0]["stats64"]
        return stats["rx"]["packets"], stats["tx"]["packets"]

    def send(self, packets: int) -> None:
        """Send small datagrams until half of the packets have passed in each direction."""
        end = time.monotonic() + PATIENCE
        start = self.counted_packets()
        for number in itertools.count():
            gone = [now - then for now, then in zip(self.counted_packets(), start)]
            if min(gone) >= packets // 2:
                return
            if time.monotonic() > end:
                raise AssertionError(f"only {gone} packets in {PATIENCE} s")
            incoming = gone[0] < gone[1]
            iperf(
                self.ours,
                self.theirs,
                self.theirs.inner4,
                seconds=2,
                udp_rate="60M",
                length=64,
                reverse=incoming,
            )

    # Configuration

    def reconfigure(self) -> None:
        """Every kind of change, repeatedly."""
        stranger = KeyPair.generate()
        kinds = (
            lambda: self.ours.set(
                *("peer", stranger.public, "allowed-ips", "10.9.0.0/16,fd09::/32"),
                *("endpoint", "198.51.100.77:51820", "persistent-keepalive", "25"),
                secrets={"preshared-key": preshared_key()},
            ),
            lambda: self.ours.set("peer", stranger.public, "allowed-ips", "10.9.1.0/24,fd10::/64"),
            lambda: self.ours.wg("show", self.ours.interface, "dump"),
            lambda: self.ours.set("peer", stranger.public, "remove"),
            self.change_port,
            self.change_preshared_key,
            *self.mark_changes(),
            self.synchronise,
            self.add_many,
            self.replace_peer,
            self.change_private_key,
        )
        for kind in itertools.islice(itertools.cycle(kinds), RECONFIGURATIONS):
            kind()
            self.changes += 1
        self.handshake()

    def mark_changes(self) -> tuple:
        if "fwmark" in self.ours.program.lacks:
            return ()
        return tuple(lambda mark=mark: self.ours.set("fwmark", mark) for mark in ("0x77", "0"))

    def change_port(self) -> None:
        self.ours.port += 1
        self.ours.set("listen-port", str(self.ours.port))
        self.theirs.set("peer", self.ours.keys.public, "endpoint", self.ours.endpoint())

    def change_preshared_key(self) -> None:
        key = preshared_key()
        for node, other in ((self.ours, self.theirs), (self.theirs, self.ours)):
            node.set("peer", other.keys.public, secrets={"preshared-key": key})

    def synchronise(self) -> None:
        """The whole configuration by `wg syncconf`, with one more allowed IP."""
        text = self.ours.wg("showconf", self.ours.interface)
        path = pathlib.Path(LOGS, "synchronised.conf")
        path.touch(0o600)
        path.write_text(text.replace("AllowedIPs = ", "AllowedIPs = 10.11.0.0/16, ", 1))
        self.ours.wg("syncconf", self.ours.interface, str(path))

    def add_many(self) -> None:
        """Two peers of 200 allowed IPs each in one request, shown and removed again."""
        peers = [KeyPair.generate().public for _ in range(2)]
        words = []
        for number, peer in enumerate(peers):
            prefixes = ",".join(f"10.{20 + number}.{index}.0/24" for index in range(200))
            words += ["peer", peer, "allowed-ips", prefixes]
        self.ours.set(*words)
        self.ours.wg("show", self.ours.interface, "dump")
        self.ours.set(*(word for peer in peers for word in ("peer", peer, "remove")))

    def replace_peer(self) -> None:
        """Remove and add the peer: a new handshake."""
        self.ours.set("peer", self.theirs.keys.public, "remove")
        key = preshared_key()
        self.ours.add_peer(self.theirs, self.theirs.endpoint(), None, key)
        self.theirs.set("peer", self.ours.keys.public, secrets={"preshared-key": key})
        self.handshake()

    def change_private_key(self) -> None:
        old, self.ours.keys = self.ours.keys, KeyPair.generate()
        self.ours.set_private_key(self.ours.keys.private)
        self.theirs.set("peer", old.public, "remove")
        key = preshared_key()
        self.ours.set("peer", self.theirs.keys.public, secrets={"preshared-key": key})
        self.theirs.add_peer(self.ours, self.ours.endpoint(), None, key)
        self.handshake()

    # Disturbances

    def disturb(self) -> None:
        """Malformed input and rare events."""
        for text in ("set=1\nlisten_port=x\n\n", "get=2\n\n", "set=1\npublic_key=1\n\n"):
            with UAPIConnection(self.ours.socket_path) as connection:
                connection.command(text)
        with UAPIConnection(self.ours.socket_path) as connection:
            connection.send("x" * 100_000 + "\n\n")
            connection.reply()
        self.send_noise()
        os.kill(self.ours.pid, signal.SIGUSR1)
        for state in ("down", "up"):
            self.ours.namespace.ip(f"link set {self.ours.interface} {state}")
        self.ours.namespace.ip(f"link set {self.ours.interface} mtu 1280")
        self.ours.namespace.attempt("ping", "-c", "3", "-i", "0.02", "-W", "1", "10.7.0.9")
        self.handshake()

    def send_noise(self) -> None:
        """Send datagrams that are not messages to the outer port."""
        with self.theirs.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(20_000):
                head = bytes([number % 6, 0, 0, 0])
                body = os.urandom(number % 160)
                sender.sendto(head + body, (self.ours.outer4, self.ours.port))

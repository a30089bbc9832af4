"""A stress run of nested tunnels: fragments both ways, changes at each hop, a flood."""

import contextlib
import itertools
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from harness import procfs
from harness.lab.chain import Chain, Shape
from harness.lab.control import UAPIConnection, wg_file
from harness.lab.lab import Lab
from harness.lab.namespace import join
from harness.lab.node import LOGS, KeyPair, NestedNode, Node, preshared_key
from harness.settings import Program
from harness.traffic import fragment_flood
from harness.traffic.datagrams import send_datagrams
from harness.traffic.ping import ping
from harness.traffic.streams import stream
from harness.waiting import wait_until
from suites.allocation.tunnel import CountPage, Memory, memory_of_parts, waits_for_work

# This leg fragments the exit's datagrams; those of the client exceed the outer tunnel's MTU.
LEG_MTU, INNER_MTU = 576, 2000
LARGE = 1900  # bytes of a ping that needs fragments both ways
RECONFIGURATIONS = 30  # of each hop
FLOOD_SECONDS = 3.0
STRANGER = "203.0.113.2"
# Slots of the reassembler, and in bytes: the largest datagram, and the data of a fragment.
SLOTS, LARGEST, FRAGMENT = 64, 65_000, 1400
# Memory of the program outside its arena: stack and static data.
BESIDES = 256 << 10
TOTAL = re.compile(r"(\d+)  total of the arena")


class CountedNestedNode(NestedNode):
    """A nested node that receives nothing before its memory has been read."""

    @property
    def is_ready(self) -> bool:
        return self.interface in self.namespace.interfaces() and waits_for_work(self.pid)


class CountedChain(Chain):
    """A chain of two servers; the client's allocations are counted."""

    def make_ends(self) -> None:
        inner = CountedNestedNode(self.home, self.program, "client")
        self.lab.nodes.append(inner)
        self.ends = [inner.add_hop(), inner]
        for number, end in enumerate(self.ends):
            end.inner4, end.inner6 = self.inner_addresses(number, 1)
        inner.outer4, inner.outer6 = self.ends[0].inner4, self.ends[0].inner6


class NestedScenario:
    """One program under test with two nested tunnels to servers of another program."""

    def __init__(self, lab: Lab, program: Program, peer: Program, interposer: str | None):
        self.chain = CountedChain(lab, program, peer, Shape((4, 4), mtus=(1500, LEG_MTU)))
        self.lab, self.client, self.exit = lab, self.chain.client, self.chain.exit
        self.hops = list(zip(self.chain.ends, self.chain.servers))
        self.page: CountPage | None = None
        environment = {}
        if interposer is not None:
            self.page = CountPage(LOGS / "counts")
            environment["ALLOCATION_COUNTS"] = str(self.page.path)
            if interposer:
                environment["LD_PRELOAD"] = interposer
        self.client.start(options=self.options(), environment=environment)
        if self.page and not self.page.is_counting:
            raise AssertionError("the interposer was not loaded")
        self.start = Memory.of(self.client.pid, self.page)
        self.anonymous = procfs.anonymous_memory(self.client.pid)
        self.handshakes = self.changes = 0

    def options(self) -> tuple[str, ...]:
        """A file for each hop, the entry's first."""
        lines = ((), (f"MTU = {INNER_MTU}",))
        paths = [
            wg_file(end, server, self.chain.endpoint(number), self.chain.preshared[number],
                    interface=lines[number])
            for number, (end, server) in enumerate(self.hops)
        ]  # fmt: skip
        return tuple(self.chain.words(paths))

    # The run

    def run(self) -> list[tuple[str, Memory]]:
        """The memory that each part has allocated, in order."""
        parts = [
            ("first handshakes", self.handshake),
            ("packets, in fragments both ways", self.send),
            (f"{RECONFIGURATIONS} reconfigurations of each hop", self.reconfigure),
            ("renewed sessions", self.renew),
            ("errors, signals, link down and up", self.disturb),
            (f"a flood of fragments, {FLOOD_SECONDS:g} s", self.flood),
            ("packets after all that", self.send),
        ]
        return memory_of_parts(parts, self.client.pid, self.page, self.start)

    def handshake(self) -> None:
        self.chain.handshake(20)
        self.handshakes += 1

    # Packets

    def send(self) -> None:
        """All sizes, both directions and families; many have to be fragmented and reassembled."""
        before = self.client.counters()
        for source, target in ((self.client, self.exit), (self.exit, self.client)):
            for address in (target.inner4, target.inner6):
                wait_until(
                    lambda: ping(source, address, size=LARGE, wait=0.5).received == 3,
                    f"three answers of {LARGE} bytes",
                )
                stream(source, target, address, 1 << 20)
            arrivals = send_datagrams(source, target, target.inner4, 3000, (64, 1390), rate=3000)
            if arrivals.changed or arrivals.received < 1500:
                raise AssertionError(f"datagrams to {target.role}: {arrivals}")
        after = self.client.counters()
        for name in ("fragment-reassembled", "datagram-sent-in-fragments"):
            key = (self.client.interface, name)
            gained = after.get(key, 0) - before.get(key, 0)
            if gained < 1000:
                raise AssertionError(f"{name}: only {gained}")

    # Configuration

    def reconfigure(self) -> None:
        """Every kind of change, at each hop, repeatedly."""
        kinds = (
            self.add_stranger,
            self.change_stranger,
            lambda end, _: end.wg("show", end.interface, "dump"),
            self.remove_stranger,
            lambda end, _: end.set("listen-port", str(41000 + self.changes)),
            self.change_preshared_key,
            lambda end, _: end.set("fwmark", "0x77"),
            lambda end, _: end.set("fwmark", "0"),
            self.synchronise,
            lambda end, server: end.set("peer", server.keys.public, "persistent-keepalive", "7"),
        )
        self.stranger = KeyPair.generate().public
        for kind in itertools.islice(itertools.cycle(kinds), RECONFIGURATIONS):
            for end, server in self.hops:
                kind(end, server)
                self.changes += 1
        self.handshake()

    def add_stranger(self, end: Node, _server: Node) -> None:
        end.set(
            *("peer", self.stranger, "allowed-ips", "10.9.0.0/16,fd09::/32"),
            *("endpoint", "198.51.100.77:51820", "persistent-keepalive", "25"),
            secrets={"preshared-key": preshared_key()},
        )

    def change_stranger(self, end: Node, _server: Node) -> None:
        end.set("peer", self.stranger, "allowed-ips", "10.9.1.0/24,fd10::/64")

    def remove_stranger(self, end: Node, _server: Node) -> None:
        end.set("peer", self.stranger, "remove")

    def change_preshared_key(self, end: Node, server: Node) -> None:
        key = preshared_key()
        for node, other in ((end, server), (server, end)):
            node.set("peer", other.keys.public, secrets={"preshared-key": key})

    def synchronise(self, end: Node, _server: Node) -> None:
        """The whole configuration by `wg syncconf`, with one more allowed IP."""
        text = end.wg("showconf", end.interface)
        path = pathlib.Path(LOGS, "synchronised.conf")
        path.touch(0o600)
        path.write_text(text.replace("AllowedIPs = ", "AllowedIPs = 10.11.0.0/16, ", 1))
        end.wg("syncconf", end.interface, str(path))

    def renew(self) -> None:
        """Remove and add the peer of each hop, then give each hop a new key."""
        for number, (end, server) in enumerate(self.hops):
            key = preshared_key()
            end.set("peer", server.keys.public, "remove")
            server.set("peer", end.keys.public, secrets={"preshared-key": key})
            end.add_peer(server, self.chain.endpoint(number), "0.0.0.0/0,::/0", key)
            self.handshake()
        for end, server in self.hops:
            key = preshared_key()
            old, end.keys = end.keys, KeyPair.generate()
            server.set("peer", old.public, "remove")
            server.add_peer(end, preshared=key)
            end.set_private_key(end.keys.private)
            end.set("peer", server.keys.public, secrets={"preshared-key": key})
            self.handshake()

    # Disturbances

    def disturb(self) -> None:
        """Malformed input and rare events."""
        for end in self.chain.ends:
            for text in ("set=1\nlisten_port=x\n\n", "get=2\n\n", "set=1\npublic_key=1\n\n"):
                with UAPIConnection(end.socket_path) as connection:
                    connection.command(text)
        os.kill(self.client.pid, signal.SIGUSR1)
        for source, end in ((self.chain.entry, self.chain.ends[0]), (self.exit, self.client)):
            self.send_noise(source, end)
        for state in ("down", "up"):
            self.chain.home.ip(f"link set {self.client.interface} {state}")
        # Linux removes the IPv6 address when a link is set down.
        address = f"{self.client.inner6}/64 dev {self.client.interface} nodad"
        self.chain.home.ip(f"addr replace {address}")
        self.chain.home.ip(f"link set {self.client.interface} mtu 1280")
        self.handshake()
        self.chain.home.ip(f"link set {self.client.interface} mtu {INNER_MTU}")

    def send_noise(self, source: Node, end: Node) -> None:
        """Send datagrams that are not messages to a hop's port; large ones are fragmented."""
        port = int(end.wg("show", end.interface, "listen-port"))
        outer = "198.51.101.1" if end is self.chain.ends[0] else end.outer4
        with source.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(2000):
                head = bytes([number % 6, 0, 0, 0])
                sender.sendto(head + os.urandom(number), (outer, port))

    def flood(self) -> None:
        """Fragments of incomplete datagrams beside complete ones; memory stays in its limits."""
        with self.flooding() as running:
            while running.poll() is None:
                ping(self.exit, self.client.inner4, size=LARGE, wait=0.2)
            told, _ = running.communicate(timeout=60)
            evicted = self.client.count("fragment-evicted")
            if int(told) < 10_000 or evicted < 1000:
                raise AssertionError(f"{told} fragments sent, {evicted} datagrams evicted")
        self.fill()
        self.check_resident()
        self.handshake()

    def fill(self) -> None:
        """Fill every slot with a datagram of the largest size of which one fragment is missing."""
        before = procfs.anonymous_memory(self.client.pid)
        addresses = [socket.inet_aton(it) for it in (STRANGER, self.client.outer4)]
        kind = socket.IPPROTO_UDP
        with self.stranger_space.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            for number in range(SLOTS):
                for offset in range(0, LARGEST - FRAGMENT, FRAGMENT):
                    field = offset // 8 | fragment_flood.MORE_IPV4
                    header = fragment_flood.IPV4.pack(
                        *(0x45, 0, 20 + FRAGMENT, 1 + number, field, 64, kind, 0), *addresses
                    )
                    raw.sendto(header + bytes(FRAGMENT), (self.client.outer4, 0))
                time.sleep(0.005)  # so that no queue on the path overflows
        wait_until(
            lambda: procfs.anonymous_memory(self.client.pid) - before > SLOTS * LARGEST // 2,
            "slots that are full",
        )

    @contextlib.contextmanager
    def flooding(self) -> Iterator[subprocess.Popen]:
        """Flood the client's address in the outer tunnel, from a host beside the entry."""
        entry, self.stranger_space = self.chain.entry.namespace, self.lab.namespace("stranger")
        join(entry, self.stranger_space, "stranger", "outer")
        entry.ip("addr add 203.0.113.1/24 dev stranger")
        self.stranger_space.ip(
            f"addr add {STRANGER}/24 dev outer", "route add default via 203.0.113.1"
        )
        words = (self.client.outer4, STRANGER, str(FLOOD_SECONDS), "0")
        running = self.stranger_space.start(
            *(sys.executable, "-B", fragment_flood.__file__, *words),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield running
        finally:
            running.kill()
            running.wait()
            running.stdout.close()

    def check_resident(self) -> None:
        """Resident memory is at most what `culvert budget` prints for this number of hops."""
        program, pid = self.client.program, self.client.pid
        command = [str(program.path), "budget", "--through", "x"]
        ledger = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        budget = int(TOTAL.search(ledger)[1])
        if program.is_static:
            resident = procfs.status_field(pid, "VmRSS") << 10
            allowed = budget + program.path.stat().st_size + BESIDES
        else:
            # With Swift's runtime in shared libraries, only the process's own memory counts.
            resident, allowed = procfs.anonymous_memory(pid), budget + self.anonymous
        print(f"  resident under the flood: {resident >> 10} KiB of {allowed >> 10}")
        if resident > allowed:
            raise AssertionError(f"{resident} bytes resident, {allowed} allowed")

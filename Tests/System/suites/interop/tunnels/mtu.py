"""Packets pass exactly up to the MTU; ECN and DSCP of the outer headers."""

import contextlib
import socket
import time
from collections.abc import Iterator

from harness.case import FAMILIES, ROLES, InteropCase, culvert_only, each
from harness.lab.node import Node
from harness.lab.pair import Pair
from harness.traffic.capture import DATA, INITIATION, RESPONSE, Capture, Packet
from harness.traffic.ping import ping
from harness.traffic.streams import transfer
from harness.waiting import wait_until

IPV4_AND_ICMP, IPV6_AND_ICMP = 28, 48
IPV6_MINIMUM = 1280
BULK_SECONDS = 3  # for 1 MiB; it takes ten if batches are lost


class MTUTests(InteropCase):
    @each(mtu=(576, 1280, 1420, 9000, 65000), role=ROLES)
    def test_packets_of_the_mtu(self, mtu: int, role: str) -> None:
        """Pings as large as the MTU, without fragmentation, and TCP, in both directions."""
        outer_mtu = 1500 if mtu <= 1420 else 65535
        self.check_sizes(self.pair(role, mtu=mtu, outer_mtu=outer_mtu), mtu)

    @each(outer=(4, 6), role=ROLES)
    def test_outer_packets_larger_than_the_link_are_fragmented(self, outer: int, role: str) -> None:
        """A tunnel MTU of 9000 over a link of 1500: pings of all sizes pass both ways."""
        self.check_pings(self.pair(role, mtu=9000, outer=outer), 9000)

    @culvert_only
    @each(outer=(4, 6))
    def test_bulk_over_a_link_that_fragments(self, outer: int) -> None:
        """A batch of segments that the kernel refuses is sent datagram by datagram.

        wireguard-go loses such batches, hence one direction only.
        """
        pair = self.pair(mtu=9000, outer=outer)
        pair.handshake()
        for _ in range(3):  # one in time is enough, as the machine may pause during another
            start = time.monotonic()
            transfer(pair.ours, pair.theirs, pair.theirs.inner4, 1 << 20)
            seconds = time.monotonic() - start
            if seconds < BULK_SECONDS:
                break
        self.assertLess(seconds, BULK_SECONDS)

    def test_an_mtu_changed_while_running(self) -> None:
        """The next packet may already have the new size."""
        pair = self.pair(outer_mtu=9100)
        pair.handshake()
        for mtu in (1300, 9000, 1420):
            for node in pair.nodes:
                node.namespace.ip(f"link set {node.interface} mtu {mtu}")
            self.check_sizes(pair, mtu)

    def test_R24_R33_extreme_mtus_never_trap(self) -> None:
        """The smallest and the largest MTU that the interface accepts; some may be refused."""
        pair = self.pair()
        pair.handshake()
        for mtu in (68, 1279, 65535, 1420):
            command = ["ip", "link", "set", pair.ours.interface, "mtu", str(mtu)]
            pair.ours.namespace.attempt(*command)
            ping(pair.ours, pair.theirs.inner4, count=2, wait=0.2)
            self.assertTrue(pair.ours.is_running, f"MTU {mtu}")
        pair.handshake()

    def check_sizes(self, pair: Pair, mtu: int) -> None:
        self.check_pings(pair, mtu)
        for source, target in (pair.nodes, pair.nodes[::-1]):
            for address, _ in self.addresses(target, mtu):
                transfer(source, target, address, 1 << 20)

    def check_pings(self, pair: Pair, mtu: int) -> None:
        """Pings of the MTU and of one byte less pass; one byte more does not."""
        pair.handshake()
        for source, target in (pair.nodes, pair.nodes[::-1]):
            for address, overhead in self.addresses(target, mtu):
                for size in (100, mtu - overhead - 1, mtu - overhead):
                    result = ping(source, address, count=3, size=size, dont_fragment=True)
                    self.assertEqual(result.received, 3, f"{size}: {result}")
                too_large = ping(source, address, 1, mtu - overhead + 1, True, wait=0.2)
                self.assertEqual(too_large.received, 0, f"{mtu} + 1 bytes passed")

    def addresses(self, target: Node, mtu: int) -> list[tuple[str, int]]:
        found = [(target.inner4, IPV4_AND_ICMP)]
        if mtu >= IPV6_MINIMUM and target.inner6:
            found.append((target.inner6, IPV6_AND_ICMP))
        return found


# The outer headers: congestion notification, and the priority of handshakes.

NOT_ECT, ECT1, ECT0, CE = 0, 1, 2, 3
HANDSHAKE_CLASS = 0x88  # AF41, as the kernel's WireGuard marks handshakes
PORT = 5501


class ECNTests(InteropCase):
    @culvert_only
    @each(inner=FAMILIES, outer=FAMILIES)
    def test_encapsulation_copies_the_ecn_field(self, inner: int, outer: int) -> None:
        """RFC 6040 4.1: the inner ECN is the outer one; the inner DSCP stays private."""
        pair = self.pair(outer=outer)
        pair.handshake()
        for ecn in (NOT_ECT, ECT1, ECT0, CE):
            with Capture(pair.theirs.namespace, "outer") as wire:
                self.send(pair, inner, 0xB8 | ecn)
                sender = pair.ours.outer4 if outer == 4 else pair.ours.outer6
                wait_until(lambda: wire.messages(DATA, sender), "a packet on the wire")
            self.assertEqual({it.traffic_class for it in wire.messages(DATA, sender)}, {ecn})

    @culvert_only
    @each(inner=FAMILIES, outer=FAMILIES)
    def test_decapsulation_keeps_a_congestion_mark(self, inner: int, outer: int) -> None:
        """RFC 6040 4.2: CE outside becomes CE inside when the inner packet is ECN-capable."""
        pair = self.pair("responder", outer=outer)
        pair.handshake()
        self.mark_congestion(pair, outer)
        for ecn in (ECT0, ECT1):
            received = self.deliver(pair, inner, 0xB8 | ecn)
            self.assertEqual([it.traffic_class for it in received], [0xB8 | CE])
        # RFC 6040 drops this; the kernel's WireGuard passes it (R68).
        received = self.deliver(pair, inner, 0xB8 | NOT_ECT)
        self.assertEqual([it.traffic_class for it in received], [0xB8 | NOT_ECT])

    def deliver(self, pair: Pair, inner: int, traffic_class: int) -> list[Packet]:
        """Send from theirs; the packets that our interface delivers."""
        ours, theirs = pair.nodes
        with Capture(ours.namespace, ours.interface, has_ethernet=False) as inside:
            reverse = Pair(theirs, ours, theirs, ours)
            self.send(reverse, inner, traffic_class)
            with contextlib.suppress(AssertionError):
                wait_until(lambda: list(datagrams(inside)), "a packet inside", 4)
        return list(datagrams(inside))

    def send(self, pair: Pair, inner: int, traffic_class: int) -> None:
        """One UDP datagram through the tunnel with that traffic class."""
        family = socket.AF_INET if inner == 4 else socket.AF_INET6
        with pair.ours.namespace.socket(family, socket.SOCK_DGRAM) as sender:
            if inner == 4:
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, traffic_class)
            else:
                sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, traffic_class)
            target = pair.theirs.inner4 if inner == 4 else pair.theirs.inner6
            sender.sendto(b"marked", (target, PORT))

    def mark_congestion(self, pair: Pair, outer: int) -> None:
        """A congested router on the path: everything from theirs to ours arrives as CE."""
        field = "ip" if outer == 4 else "ip6"
        pair.ours.namespace.nft(f"""
            table inet congestion {{
                chain input {{
                    type filter hook prerouting priority -300;
                    iifname outer udp dport {pair.ours.port} {field} ecn set ce
                }}
            }}
        """)


class HandshakeClassTests(InteropCase):
    @culvert_only
    @each(role=ROLES, outer=FAMILIES)
    def test_handshakes_carry_dscp_af41(self, role: str, outer: int) -> None:
        """0x88 on the handshake messages that we send, nothing on data."""
        pair = self.pair(role, outer=outer)
        sender = pair.ours.outer4 if outer == 4 else pair.ours.outer6
        with Capture(pair.theirs.namespace, "outer") as wire:
            pair.handshake()
            wait_until(lambda: wire.messages(DATA, sender), "data on the wire")
        kind = INITIATION if role == "initiator" else RESPONSE
        handshakes = wire.messages(kind, sender)
        self.assertTrue(handshakes)
        self.assertEqual({it.traffic_class for it in handshakes}, {HANDSHAKE_CLASS})
        self.assertEqual({it.traffic_class for it in wire.messages(DATA, sender)}, {0})


def datagrams(capture: Capture) -> Iterator[Packet]:
    return (it for it in list(capture.packets) if it.is_udp and it.ports[1] == PORT)

"""What the outer headers tell: congestion notification, and the priority of handshakes."""

import contextlib
import socket
from collections.abc import Iterator

from harness.capture import DATA, INITIATION, RESPONSE, Capture, Packet
from harness.case import FAMILIES, ROLES, InteropCase, culvert_only, each
from harness.deadline import wait_until
from harness.pair import Pair

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
        for packet in self.deliver(pair, inner, 0xB8 | NOT_ECT):  # RFC 6040: better dropped
            self.assertEqual(packet.traffic_class, 0xB8 | NOT_ECT)

    def deliver(self, pair: Pair, inner: int, traffic_class: int) -> list[Packet]:
        """Send from theirs; what comes out of our interface."""
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
        """A congested router on the way: everything from theirs to ours arrives as CE."""
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

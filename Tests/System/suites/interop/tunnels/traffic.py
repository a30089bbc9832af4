"""The tunnel carries packets, in both roles, over both families."""

import base64

from harness.case import FAMILIES, ROLES, InteropCase, each, heavy, quick
from harness.lab.pair import build_pair
from harness.traffic.capture import DATA, Capture
from harness.traffic.ping import ping
from harness.traffic.streams import paced_udp, tcp, transfer
from harness.waiting import wait_until


class PingTests(InteropCase):
    @quick
    @each(role=ROLES, outer=FAMILIES, psk=(False, True))
    def test_ping(self, role: str, outer: int, psk: bool) -> None:
        """IPv4 and IPv6 pass in both directions, whichever end initiated."""
        pair = self.pair(role, outer=outer, psk=psk)
        pair.handshake()
        for source, target in (pair.nodes, pair.nodes[::-1]):
            for address in (target.inner4, target.inner6):
                result = ping(source, address, count=5)
                self.assertEqual(result.received, 5, result)
        handshakes = [pair.ours.latest_handshake(pair.theirs)]
        handshakes.append(pair.theirs.latest_handshake(pair.ours))
        self.assertTrue(all(handshakes), "both ends know of a handshake")

    @quick
    @each(role=ROLES)
    def test_a_wrong_preshared_key_keeps_packets_out(self, role: str) -> None:
        """With different keys nothing passes, and both programs continue."""
        pair = self.pair(role, psk=True)
        pair.handshake()
        pair.ours.set("peer", pair.theirs.keys.public, "remove")
        pair.ours.add_peer(pair.theirs, endpoint=pair.theirs.endpoint())
        self.assertEqual(ping(pair.ours, pair.theirs.inner4, count=2).received, 0)
        self.assertTrue(pair.ours.is_running)


# iperf3 through the tunnel: TCP and UDP, both families inside and outside.

MOST_LOST = 3  # percent
FLOOR = 10  # Mbit/s of TCP


class ThroughputTests(InteropCase):
    @quick
    @heavy
    @each(role=ROLES, outer=FAMILIES)
    def test_tcp_and_udp(self, role: str, outer: int) -> None:
        """TCP passes both ways; UDP at a low rate loses almost nothing."""
        pair = self.pair(role, outer=outer, psk=outer == 6)
        pair.handshake()
        for address in (pair.responder.inner4, pair.responder.inner6):
            for reverse in (False, True):
                megabits = tcp(pair.initiator, pair.responder, address, FLOOR, reverse)
                self.assertGreater(megabits, FLOOR, f"TCP to {address}, reverse {reverse}")
            udp = paced_udp(pair.initiator, pair.responder, address)
            self.assertGreater(udp.megabits, 3, f"UDP to {address}")
            self.assertLess(udp.lost_percent, MOST_LOST, f"UDP to {address}")


# The program under test at both ends.


class TwinTests(InteropCase):
    @quick
    @heavy
    @each(outer=FAMILIES)
    def test_both_ends_alike(self, outer: int) -> None:
        """Ping, TCP and UDP, with a preshared key."""
        program = self.settings.program
        pair = build_pair(self.lab, program, program, outer=outer, psk=True)
        pair.handshake()
        for source, target in (pair.nodes, pair.nodes[::-1]):
            for address in (target.inner4, target.inner6):
                self.assertEqual(ping(source, address).received, 3)
                transfer(source, target, address, 4 << 20)
            self.assertGreater(tcp(source, target, target.inner4, 10), 10)
            udp = paced_udp(source, target, target.inner6)
            self.assertLess(udp.lost_percent, 3)


# Rules for single packets: sources, padding, options, invalid keys.

UDP_HEADER, DATA_HEADER, TAG = 8, 16, 16
# Points of small order on Curve25519: with them every private key gives the same secret.
LOW_ORDER = (
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
)


class DataPathTests(InteropCase):
    @quick
    @each(role=ROLES)
    def test_R2_an_inner_source_of_another_peer_is_dropped(self, role: str) -> None:
        """The peer may send from its allowed IPs and from no other address."""
        pair = self.pair(role)
        pair.handshake()
        ours, theirs = pair.nodes
        theirs.namespace.ip(f"addr add 10.7.0.66/24 dev {theirs.interface}")
        forged = ("ping", "-n", "-c", "3", "-i", "0.02", "-W", "0.3", "-I", "10.7.0.66")
        with Capture(ours.namespace, ours.interface, has_ethernet=False) as inside:
            theirs.namespace.attempt(*forged, ours.inner4)
            self.assertEqual(ping(theirs, ours.inner4).received, 3)
            wait_until(lambda: inside.packets, "captured packets")
        self.assertNotIn("10.7.0.66", {packet.source for packet in inside.packets})

    @quick
    def test_R7_padding_to_sixteen_bytes_but_not_beyond_the_mtu(self) -> None:
        """Lengths on the wire are multiples of 16, except that the MTU is the maximum."""
        pair = self.pair(mtu=1420)  # not a multiple of 16
        pair.handshake()
        expected = {0: 32, 1: 32, 5: 48, 56: 96, 1391: 1420, 1392: 1420}
        for size, padded in expected.items():
            with Capture(pair.theirs.namespace, "outer") as wire:
                self.assertEqual(ping(pair.ours, pair.theirs.inner4, 1, size).received, 1)
                wait_until(lambda: wire.messages(DATA, pair.ours.outer4), "a packet")
            lengths = {len(it.payload) for it in wire.messages(DATA, pair.ours.outer4)}
            overhead = UDP_HEADER + DATA_HEADER + TAG
            self.assertEqual(lengths, {padded + overhead}, f"{size} bytes of ping")

    @quick
    def test_R38_a_packet_with_ipv4_options_is_routed(self) -> None:
        """`ping -R` writes a record-route option into both packets."""
        pair = self.pair()
        pair.handshake()
        for source, target in (pair.nodes, pair.nodes[::-1]):
            command = ("ping", "-n", "-R", "-c", "3", "-i", "0.02", "-W", "3", target.inner4)

            def output() -> str:
                """What ping(8) prints; on a busy machine it may give up too early."""
                text = source.namespace.attempt(*command).stdout
                return text if " 3 received" in text else ""

            self.assertIn("RR:", wait_until(output, f"three answers of {target.role}"))

    @quick
    def test_R31_nothing_is_sent_to_a_low_order_public_key(self) -> None:
        """Such a peer can be configured, but nothing is sent to it."""
        pair = self.pair()
        ours = pair.ours
        for number, key in enumerate(LOW_ORDER):
            text = base64.b64encode(key).decode()
            endpoint = f"{pair.theirs.outer4}:{40000 + number}"
            address = f"10.66.0.{number + 1}"
            ours.set("peer", text, "endpoint", endpoint, "allowed-ips", f"{address}/32")
            ours.namespace.ip(f"route add {address} dev {ours.interface}")
        with Capture(pair.theirs.namespace, "outer") as wire:
            for number in range(len(LOW_ORDER)):
                ping(ours, f"10.66.0.{number + 1}", 1, wait=0.3)
            pair.handshake()
            wait_until(lambda: wire.messages(DATA), "the good peer's packets")
        told = {it.ports[1] for it in wire.packets if it.is_udp}
        self.assertFalse(told & set(range(40000, 40000 + len(LOW_ORDER))), told)

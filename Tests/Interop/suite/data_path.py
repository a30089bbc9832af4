"""Rules for single packets: sources, padding, options, keys that are none."""

import base64

from harness.capture import DATA, Capture
from harness.case import ROLES, InteropCase, each, quick
from harness.deadline import wait_until
from harness.echo import ping

UDP_HEADER, DATA_HEADER, TAG = 8, 16, 16
# Points of small order on Curve25519: every private key makes the same secret with them.
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
        """Lengths on the wire: multiples of 16, and the MTU itself at the top."""
        pair = self.pair(mtu=1420)  # no multiple of 16
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
                """What ping(8) prints; it gives up early, on a busy machine too early."""
                text = source.namespace.attempt(*command).stdout
                return text if " 3 received" in text else ""

            self.assertIn("RR:", wait_until(output, f"three answers of {target.role}"))

    @quick
    def test_R31_nothing_is_sent_to_a_low_order_public_key(self) -> None:
        """Such a peer can be configured, and stays without a word."""
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

"""The tunnel carries packets, in both roles, over both families."""

from harness.case import FAMILIES, ROLES, InteropCase, each, quick
from harness.echo import ping


class PingTests(InteropCase):
    @quick
    @each(role=ROLES, outer=FAMILIES, psk=(False, True))
    def test_ping(self, role: str, outer: int, psk: bool) -> None:
        """IPv4 and IPv6 pass in both directions, whoever shook hands first."""
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
        """What does not share the key does not get through, and nothing breaks."""
        pair = self.pair(role, psk=True)
        pair.handshake()
        pair.ours.set("peer", pair.theirs.keys.public, "remove")
        pair.ours.add_peer(pair.theirs, endpoint=pair.theirs.endpoint())
        self.assertEqual(ping(pair.ours, pair.theirs.inner4, count=2).received, 0)
        self.assertTrue(pair.ours.is_running)

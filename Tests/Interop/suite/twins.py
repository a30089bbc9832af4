"""Two of the program under test against each other."""

from harness.case import FAMILIES, InteropCase, each, heavy, quick
from harness.echo import ping
from harness.pair import build_pair
from harness.traffic import paced_udp, tcp, transfer


class TwinTests(InteropCase):
    @quick
    @heavy
    @each(outer=FAMILIES)
    def test_both_ends_alike(self, outer: int) -> None:
        """Ping, TCP and UDP between two of them, with a preshared key."""
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

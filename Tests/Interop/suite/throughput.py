"""iperf3 through the tunnel: TCP and UDP, both families inside and outside."""

from harness.case import FAMILIES, ROLES, InteropCase, each, heavy, quick
from harness.traffic import paced_udp, tcp

MOST_LOST = 3  # percent
FLOOR = 10  # Mbit/s of TCP


class ThroughputTests(InteropCase):
    @quick
    @heavy
    @each(role=ROLES, outer=FAMILIES)
    def test_tcp_and_udp(self, role: str, outer: int) -> None:
        """TCP moves data both ways; UDP at a modest rate loses next to nothing."""
        pair = self.pair(role, outer=outer, psk=outer == 6)
        pair.handshake()
        for address in (pair.responder.inner4, pair.responder.inner6):
            for reverse in (False, True):
                megabits = tcp(pair.initiator, pair.responder, address, FLOOR, reverse)
                self.assertGreater(megabits, FLOOR, f"TCP to {address}, reverse {reverse}")
            udp = paced_udp(pair.initiator, pair.responder, address)
            self.assertGreater(udp.megabits, 3, f"UDP to {address}")
            self.assertLess(udp.lost_percent, MOST_LOST, f"UDP to {address}")

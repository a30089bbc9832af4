"""Sessions are renewed under traffic."""

from harness.case import ROLES, InteropCase, each, long
from harness.deadline import wait_until
from harness.flow import Flow

REKEY_AFTER_SECONDS = 120  # whitepaper 6.2


class RekeyTests(InteropCase):
    @long
    @each(role=ROLES)
    def test_a_rekey_loses_nothing(self, role: str) -> None:
        """After 120 s the initiator shakes hands again; every datagram arrives, both ways."""
        pair = self.pair(role, psk=True)
        pair.handshake()
        first = pair.ours.latest_handshake(pair.theirs)
        with Flow(*pair.nodes, 0.03) as there, Flow(*pair.nodes[::-1], 0.03, port=5402) as back:
            wait_until(
                lambda: pair.ours.latest_handshake(pair.theirs) >= first + REKEY_AFTER_SECONDS - 5,
                "a second handshake",
                REKEY_AFTER_SECONDS + 30,
                interval=1,
            )
            there.await_progress(30)
            back.await_progress(30)
        for node, other in (pair.nodes, pair.nodes[::-1]):
            self.assertGreater(node.latest_handshake(other), first)
        self.assertEqual((there.lost, back.lost), ([], []))
        self.assertEqual((there.duplicates, back.duplicates), (0, 0))

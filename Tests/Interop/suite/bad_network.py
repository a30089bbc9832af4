"""Datagrams late, lost, doubled and out of order."""

from harness.case import ROLES, InteropCase, each, long
from harness.deadline import wait_until
from harness.echo import ping
from harness.flow import Flow
from harness.pair import Pair
from harness.relay import PORT, Relay
from harness.traffic import transfer


class BadNetworkTests(InteropCase):
    @each(role=ROLES)
    def test_R18_a_late_handshake_response_is_accepted(self, role: str) -> None:
        """Four tenths of a second each way."""
        pair = self.pair(role)
        with self.relay(pair, delay=0.4):
            pair.handshake(20)
            result = ping(pair.initiator, pair.responder.inner4, count=3, wait=5)
            self.assertEqual(result.received, 3, result)
            self.assertGreater(result.average_milliseconds, 800)

    @each(role=ROLES)
    def test_doubled_and_reordered_datagrams(self, role: str) -> None:
        """Each arrives once: the replay window lets late ones in and copies out."""
        pair = self.pair(role)
        # What a second brings, 250 datagrams, fits into every queue on the way.
        with self.relay(pair, jitter=0.2, duplicate=0.5):
            pair.handshake()
            with Flow(*pair.nodes, 0.004) as there, Flow(*pair.nodes[::-1], 0.004, 5402) as back:
                there.await_progress(500, 30)
                back.await_progress(500, 30)
            for flow in (there, back):
                self.assertEqual((flow.lost, flow.duplicates), ([], 0))

    @long
    @each(role=ROLES)
    def test_handshakes_succeed_in_spite_of_loss(self, role: str) -> None:
        """A third of everything is lost; a session comes up all the same, and carries TCP."""
        pair = self.pair(role)
        with self.relay(pair, loss=0.33, seed=5) as relay:
            wait_until(
                lambda: ping(pair.initiator, pair.responder.inner4, 1, wait=0.3).received,
                "an answer",
                90,
            )
            relay.loss = 0.02
            transfer(pair.ours, pair.theirs, pair.theirs.inner4, 100_000)

    def relay(self, pair: Pair, **options) -> Relay:
        """A relay beside the responder, whom the initiator knows by the relay's port only."""
        target = pair.responder.outer4, pair.responder.port
        endpoint = f"{pair.responder.outer4}:{PORT}"
        pair.initiator.set("peer", pair.responder.keys.public, "endpoint", endpoint)
        return Relay(pair.responder.namespace, target, **options)

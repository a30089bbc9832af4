"""The interface moved into another namespace: the classic way to confine a program."""

from harness.case import ROLES, InteropCase, each, long
from harness.deadline import wait_until
from harness.echo import ping
from harness.namespace import Namespace
from harness.pair import Pair
from harness.traffic import transfer


class NamespaceMoveTests(InteropCase):
    @long
    @each(role=ROLES)
    def test_the_outer_socket_stays_in_the_birth_namespace(self, role: str) -> None:
        """The confined namespace has the tunnel alone, and wg(8) works from both."""
        pair = self.pair(role)
        pair.handshake()
        birth, confined = self.move(pair)
        self.assertEqual(confined.interfaces(), {"lo", pair.ours.interface})
        # Our end was down for a moment and may have forgotten the session; the peer, when it
        # initiates, notices after 15 s without an answer (whitepaper 6.5).
        pair.handshake(40)
        for source, target in (pair.nodes, pair.nodes[::-1]):
            # The first packet of a family may find its routes still being made.
            wait_until(lambda: ping(source, target.inner6, 1).received, "an answer over IPv6")
            self.assertEqual(ping(source, target.inner6).received, 3)
            transfer(source, target, target.inner4)
        for namespace in (birth, confined):
            shown = namespace.run("wg", "show", pair.ours.interface, "latest-handshakes")
            self.assertIn(pair.theirs.keys.public, shown)
        pair.ours.set("listen-port", "51222")
        self.assertEqual(ping(pair.ours, pair.theirs.inner4).received, 3)
        self.assertEqual(pair.theirs.endpoint_of(pair.ours), f"{pair.ours.outer4}:51222")

    def test_R25_deleted_where_it_was_moved_to(self) -> None:
        """The process ends though the interface was in another namespace."""
        pair = self.pair()
        _, confined = self.move(pair)
        confined.ip(f"link del {pair.ours.interface}")
        self.assertEqual(pair.ours.wait(), 0)
        self.assertEqual(pair.ours.leftovers(), [])

    def move(self, pair: Pair) -> tuple[Namespace, Namespace]:
        """(birth, confined) namespace, with our interface up in the latter."""
        birth, confined = pair.ours.namespace, self.lab.namespace("confined")
        birth.ip(f"link set {pair.ours.interface} netns {confined.name}")
        pair.ours.namespace = confined
        pair.ours.bring_up()
        return birth, confined

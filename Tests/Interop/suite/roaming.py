"""A node that changes its address or port is followed."""

from harness.case import InteropCase, each, quick
from harness.deadline import wait_until
from harness.echo import ping
from harness.flow import Flow
from harness.node import Node
from harness.pair import Pair

ROAMERS = ("ours", "theirs")


class RoamingTests(InteropCase):
    @quick
    @each(roamer=ROAMERS)
    def test_a_new_address_and_port_mid_traffic(self, roamer: str) -> None:
        """The other end learns both from the first packet it verifies, and answers there."""
        pair, roaming, other = self.roles(roamer)
        with Flow(roaming, other) as there, Flow(other, roaming, port=5402) as back:
            there.await_progress()
            roaming.namespace.ip(
                f"addr del {roaming.outer4}/24 dev outer", "addr add 198.51.100.77/24 dev outer"
            )
            roaming.set("listen-port", "51077")
            there.await_progress()
            back.await_progress()
        self.assertEqual(other.endpoint_of(roaming), "198.51.100.77:51077")
        self.check_alive(pair)

    @each(roamer=ROAMERS)
    def test_from_ipv4_to_ipv6_and_back(self, roamer: str) -> None:
        """The family may change as well, with the session kept."""
        pair, roaming, other = self.roles(roamer)
        handshake = roaming.latest_handshake(other)
        with Flow(roaming, other) as flow:
            for outer, address in ((6, roaming.outer6), (4, roaming.outer4)):
                roaming.set("peer", other.keys.public, "endpoint", other.endpoint(outer))
                flow.await_progress()
                wait_until(lambda: address in other.endpoint_of(roaming), f"endpoint {address}")
        # Neighbour discovery and what is under way may cost a few, a handshake would cost more.
        self.assertLess(len(flow.lost), 10)
        self.assertEqual(roaming.latest_handshake(other), handshake, "no new handshake was needed")
        self.check_alive(pair)

    def roles(self, roamer: str) -> tuple[Pair, Node, Node]:
        pair = self.pair()
        pair.handshake()
        roaming, other = pair.nodes if roamer == "ours" else pair.nodes[::-1]
        return pair, roaming, other

    def check_alive(self, pair: Pair) -> None:
        for source, target in (pair.nodes, pair.nodes[::-1]):
            self.assertEqual(ping(source, target.inner4).received, 3)

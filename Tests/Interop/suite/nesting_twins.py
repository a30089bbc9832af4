"""Two of the program under test, both with a tunnel inside a tunnel, and no server between them."""

from harness.case import FAMILIES, culvert_only, each, heavy, quick
from harness.echo import ping
from harness.keys import preshared_key
from harness.nested_node import NestedNode
from harness.nesting_case import NestingCase
from harness.node import Node
from harness.pair import Pair
from harness.stream import stream
from harness.wg_file import wg_file


class TwinTests(NestingCase):
    @quick
    @culvert_only
    @heavy
    @each(outer=FAMILIES, inner=FAMILIES)
    def test_both_ends_nested(self, outer: int, inner: int) -> None:
        """The inner datagrams go from channel to channel."""
        self.check_both(self.twins(outer, inner))

    @culvert_only
    @heavy
    @each(inner=FAMILIES)
    def test_both_ends_cut_and_put_together(self, inner: int) -> None:
        """An inner MTU larger than the outer tunnel's: the channels make the fragments."""
        pair = self.twins(4, inner, "MTU = 2000")
        self.check_both(pair, size=1900)
        for node in pair.nodes:
            self.assertGreater(node.count("fragment-reassembled"), 100, node.role)

    def check_both(self, pair: Pair, size: int = 56) -> None:
        for source, target in (pair.nodes, pair.nodes[::-1]):
            for address in (target.inner4, target.inner6):
                self.assertEqual(ping(source, address, size=size).received, 3)
                stream(source, target, address, 2 << 20)

    def twins(self, outer: int, inner: int, *lines: str) -> Pair:
        """Both know where to find each other; either tunnel's number is in its addresses."""
        left, right = self.lab.namespace("left"), self.lab.namespace("right")
        self.lab.connect(left, right)
        nodes = [self.nested(it, role) for it, role in ((left, "left"), (right, "right"))]
        for number, node in enumerate(nodes, 1):
            (hop,) = node.hops
            hop.outer4, hop.outer6 = f"198.51.100.{number}", f"2001:db8::{number}"
            self.place(hop, 71, number)
            node.outer4, node.outer6 = hop.inner4, hop.inner6
            self.place(node, 72, number)
        keys = preshared_key(), preshared_key()
        for node, other in (nodes, nodes[::-1]):
            hop, other_hop = node.hops[0], other.hops[0]
            # Not for everything: Linux asks for routers at once, and before both have started the
            # handshakes that this makes fail.
            inward = wg_file(
                node, other, other.endpoint(inner), keys[0], other.allowed_ips, port=True,
                interface=lines)  # fmt: skip
            outward = wg_file(hop, other_hop, other_hop.endpoint(outer), keys[1], port=True)
            node.start(options=("--config", inward, "--through", outward))
        pair = Pair(*nodes, *nodes)
        pair.handshake()
        return pair

    def nested(self, namespace, role: str) -> NestedNode:
        node = NestedNode(namespace, self.settings.program, role)
        self.lab.nodes.append(node)
        node.add_hop()
        return node

    def place(self, node: Node, tunnel: int, number: int) -> None:
        node.inner4, node.inner6 = f"10.{tunnel}.0.{number}", f"fd{tunnel}::{number}"
        node.port = 51800 + tunnel

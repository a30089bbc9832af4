"""Nested tunnels carry traffic, over both families, through two to four hops."""

from harness.case import FAMILIES, NestingCase, culvert_only, each, heavy, long, quick
from harness.lab.chain import Chain, Shape
from harness.lab.control import wg_file
from harness.lab.node import NestedNode, Node, preshared_key
from harness.lab.pair import Pair
from harness.traffic.ping import ping
from harness.traffic.streams import Throughput, iperf, stream
from harness.waiting import wait_until

SLOWEST = 5  # Mbit/s of TCP on any machine
BULK, PACED = 4 << 20, 1 << 19  # bytes
SERVERS = ("peer", "program")
FAMILIES_OF_HOPS = {2: (4, 6), 3: (6, 4, 4), 4: (4, 4, 4, 4)}


class TrafficTests(NestingCase):
    @heavy
    @each(entry=FAMILIES, exit=FAMILIES)
    def test_ping_tcp_and_udp(self, entry: int, exit: int) -> None:
        """Both families inside and outside, in both directions."""
        chain = self.chain(entry, exit)
        self.check_answers(chain)
        for address in self.addresses(chain.exit):
            for reverse in (False, True):
                self.check_iperf(chain, address, reverse)

    @quick
    def test_bytes_arrive_unchanged(self) -> None:
        """By SHA-256, some megabytes each way."""
        self.check_bytes(self.chain(), 3 << 20)

    @each(exit=FAMILIES)
    def test_ours_as_servers(self, exit: int) -> None:
        """Culvert at all ends."""
        chain = self.chain(4, exit, server=self.settings.program)
        self.check_answers(chain)
        self.check_bytes(chain)

    @each(hops=(3, 4))
    def test_more_hops(self, hops: int) -> None:
        """One process with several tunnels."""
        chain = self.chain(*FAMILIES_OF_HOPS[hops])
        self.assertEqual(len(chain.servers), hops)
        self.check_answers(chain)
        self.check_bytes(chain)
        for end, server in zip(chain.ends, chain.servers):
            self.assertGreater(end.latest_handshake(server), 0, server.role)

    @culvert_only
    @heavy
    @each(workers=(1, 2, 4))
    def test_workers(self, workers: int) -> None:
        """With any number of them, datagrams arrive unchanged and in order."""
        chain = self.chain(options=("--workers", str(workers)))
        for source, target in self.ways(chain):
            self.check_arrivals(self.send(source, target, 2000, (64, 1300)))
        self.check_bytes(chain)

    @culvert_only
    @each(profile=("tiny", "gateway"))
    def test_profiles(self, profile: str) -> None:
        chain = self.chain(options=("--profile", profile))
        self.check_answers(chain)
        self.check_bytes(chain)

    def check_iperf(self, chain: Chain, address: str, reverse: bool) -> None:
        def run(**options) -> Throughput:
            return iperf(chain.client, chain.exit, address, reverse=reverse, **options)

        where = f"{address}, reverse: {reverse}"
        self.assertGreater(run(byte_count=BULK).megabits, SLOWEST, where)
        # A busy machine sometimes loses some.
        lost = 100.0
        for _ in range(4):
            paced = run(udp_rate="10M", length=1200, byte_count=PACED)
            lost = min(lost, paced.lost_percent)
            if lost < 1:
                break
        self.assertLess(lost, 1, where)


# The program under test at both ends, with nested tunnels and no server between them.


class TwinTests(NestingCase):
    @quick
    @culvert_only
    @heavy
    @each(outer=FAMILIES, inner=FAMILIES)
    def test_both_ends_nested(self, outer: int, inner: int) -> None:
        """Inner datagrams are sent and received by channels."""
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
        """Both ends have each other's endpoints; the addresses contain the tunnel's number."""
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
            # Not all addresses: Linux sends router solicitations at once, and the handshakes for
            # them would fail until both ends have started.
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


# Packets are lost, delayed and doubled on one leg or the other, single fragments as well.

LEGS = {"entry": 0, "exit": 1}
BAD = {"loss": 0.01, "jitter": 0.003, "double": 0.01}
SMALLEST_LINK = {4: 576, 6: 1280}
DATAGRAMS, SIZES = 1000, (64, 1200)


class BadNetworkTests(NestingCase):
    @heavy
    @each(leg=tuple(LEGS), exit=FAMILIES)
    def test_loss_and_reordering(self, leg: str, exit: int) -> None:
        """TCP arrives unchanged; of single datagrams most arrive, once each."""
        chain = self.chain(4, exit, mtus=(1500, SMALLEST_LINK[exit]), bad=(LEGS[leg],))
        for ends in self.ways(chain):
            self.await_large(*ends, SIZES[1])
        link, before = chain.bad_links[LEGS[leg]], chain.reassembled
        link.worsen(**BAD)
        for source, target in self.ways(chain):
            arrivals = self.send(source, target, DATAGRAMS, SIZES)
            self.assertEqual((arrivals.changed, arrivals.doubled), (0, 0), arrivals)
            # Each of three fragments may be lost.
            self.assertGreater(arrivals.received, 0.85 * DATAGRAMS, arrivals)
        self.check_bytes(chain, 1 << 18)
        self.assertGreater(chain.reassembled, before)
        passage = link.finish()
        self.assertGreater(min(passage.lost, passage.late, passage.doubled), 10, passage)

    @long
    def test_handshakes_succeed_in_spite_of_loss(self) -> None:
        """Both legs lose one packet in seven; sessions are established nevertheless."""
        chain = Chain(
            self.lab, self.settings.program, self.settings.peer, Shape((4, 6), bad=(0, 1))
        )
        for link in chain.bad_links.values():
            link.worsen(loss=0.15)
        chain.start_client()
        client, address = chain.client, chain.exit.inner4
        wait_until(lambda: ping(client, address, 1, wait=0.5).received, "an answer", 90)
        for link in chain.bad_links.values():
            link.worsen(loss=0.01)
        self.check_bytes(chain, 50_000)
        for link in chain.bad_links.values():
            self.assertGreater(link.finish().lost, 0)

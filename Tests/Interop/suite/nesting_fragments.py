"""A tunnel's datagrams that come out of the tunnel around them in fragments are put together."""

from harness.capture import Capture, Packet
from harness.case import FAMILIES, culvert_only, each
from harness.chain import REASSEMBLED, Chain
from harness.deadline import wait_until
from harness.nesting_case import IPV4_AND_ICMP, IPV6_AND_ICMP, NestingCase

SERVERS_MTU = 1420  # what the servers' own interfaces have
FULL = SERVERS_MTU - IPV4_AND_ICMP
DATAGRAMS, SIZES = 600, (1340, FULL)  # each too large for 1420 bytes, once it is sealed
SMALL_LINKS = {"ipv4_576": (4, 576), "ipv4_1280": (4, 1280), "ipv6_1280": (6, 1280)}


class FragmentCase(NestingCase):
    def check_put_together(self, chain: Chain) -> None:
        """Large datagrams of the exit arrive, and each had to be put together."""
        self.await_large(chain.exit, chain.client, FULL)
        before = chain.reassembled
        self.check_arrivals(self.send(chain.exit, chain.client, DATAGRAMS, SIZES))
        self.assertGreaterEqual(chain.reassembled - before, DATAGRAMS)

    def fragments(self, wire: Capture, source: str) -> list[Packet]:
        return [it for it in list(wire.packets) if it.is_fragment and it.source == source]


class LinkTests(FragmentCase):
    @each(link=tuple(SMALL_LINKS), server=("peer", "program"))
    def test_a_link_too_small_for_the_datagrams(self, link: str, server: str) -> None:
        """Between the servers: both ends get fragments.

        Over IPv4 the entry cuts what the client sends, over IPv6 it tells the client to do so.
        """
        family, mtu = SMALL_LINKS[link]
        program = getattr(self.settings, server)
        chain = self.chain(4, family, mtus=(1500, mtu), server=program)
        largest = chain.shape.tunnel_mtus[-1] - IPV6_AND_ICMP
        with Capture(chain.exit.namespace, "outer") as leg:
            self.check_put_together(chain)
            self.await_large(chain.client, chain.exit, largest)
            self.check_arrivals(self.send(chain.client, chain.exit, DATAGRAMS, (1200, largest)))
        for node in (chain.exit, chain.client):
            address = node.outer4 if family == 4 else node.outer6
            self.assertGreater(len(self.fragments(leg, address)), DATAGRAMS, node.role)
        before = chain.reassembled
        self.check_bytes(chain)
        self.assertGreater(chain.reassembled, before)

    @each(exit=FAMILIES)
    def test_packets_larger_than_the_tunnel_before(self, exit: int) -> None:
        """With ordinary links as well, where the exit sends as much as its own MTU allows."""
        chain = self.chain(4, exit, large=True)
        self.check_put_together(chain)
        self.check_bytes(chain)

    @each(mtu=(1280, 576))
    def test_fragments_that_a_router_makes(self, mtu: int) -> None:
        """The entry cuts what it sends into its tunnel; the exit does not forbid it."""
        chain = self.chain(large=True)
        chain.exit.namespace.set_sysctl("net/ipv4/ip_no_pmtu_disc", "1")
        chain.exit.set("listen-port", "0")  # sockets take the setting over when they are made
        chain.exit.set("listen-port", str(chain.exit.port))
        chain.entry.namespace.ip(f"link set {chain.entry.interface} mtu {mtu}")
        with Capture(chain.exit.namespace, "outer") as leg:
            self.check_put_together(chain)
        self.assertEqual(self.fragments(leg, chain.exit.outer4), [])
        self.check_bytes(chain)


class DeepTests(FragmentCase):
    @culvert_only
    def test_each_hop_puts_together_its_own(self) -> None:
        """Large packets of the exit are cut for the second tunnel, and its datagrams for a link."""
        chain = self.chain(4, 4, 4, mtus=(1500, 1280, 1500))
        self.check_put_together(chain)
        counters = chain.client.counters()
        counts = [counters.get((end.interface, REASSEMBLED), 0) for end in chain.ends]
        # The outermost tunnel's datagrams come from the kernel, which puts together its own.
        self.assertEqual(counts[0], 0)
        self.assertGreaterEqual(min(counts[1:]), DATAGRAMS)

    def test_ipv6_through_four_hops(self) -> None:
        """Its packets are larger than what fits there: all that is large goes in fragments."""
        chain = self.chain(4, 4, 4, 4, large=True, ipv6=True)
        self.await_large(chain.client, chain.exit, 1280 - IPV6_AND_ICMP)
        self.await_large(chain.exit, chain.client, 1280 - IPV6_AND_ICMP)
        before = chain.reassembled
        self.check_bytes(chain)
        self.assertGreater(chain.reassembled, before)

    def test_nothing_is_put_together_where_all_fits(self) -> None:
        """With the MTU that follows from the hops no datagram is cut."""
        chain = self.chain()
        self.check_bytes(chain)
        wait_until(lambda: chain.client.latest_handshake(chain.exit), "a handshake")
        self.assertEqual(chain.reassembled, 0)

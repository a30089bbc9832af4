"""Every size of packet passes, and exactly up to the MTU."""

import time

from harness.case import ROLES, InteropCase, culvert_only, each
from harness.echo import ping
from harness.node import Node
from harness.pair import Pair
from harness.traffic import transfer

IPV4_AND_ICMP, IPV6_AND_ICMP = 28, 48
IPV6_MINIMUM = 1280
BULK_SECONDS = 3  # for 1 MiB; where batches are lost it takes ten


class MTUTests(InteropCase):
    @each(mtu=(576, 1280, 1420, 9000, 65000), role=ROLES)
    def test_packets_of_the_mtu(self, mtu: int, role: str) -> None:
        """Pings as large as the MTU, without fragmentation, and TCP, in both directions."""
        outer_mtu = 1500 if mtu <= 1420 else 65535
        self.check_sizes(self.pair(role, mtu=mtu, outer_mtu=outer_mtu), mtu)

    @each(outer=(4, 6), role=ROLES)
    def test_outer_packets_larger_than_the_link_are_fragmented(self, outer: int, role: str) -> None:
        """A tunnel MTU of 9000 over a link of 1500: pings of all sizes pass both ways."""
        self.check_pings(self.pair(role, mtu=9000, outer=outer), 9000)

    @culvert_only
    @each(outer=(4, 6))
    def test_bulk_over_a_link_that_fragments(self, outer: int) -> None:
        """What the kernel refuses to send as one batch of segments goes out one by one.

        wireguard-go loses such batches, hence one direction only.
        """
        pair = self.pair(mtu=9000, outer=outer)
        pair.handshake()
        for _ in range(3):  # the first that is quick enough: the machine may pause during one
            start = time.monotonic()
            transfer(pair.ours, pair.theirs, pair.theirs.inner4, 1 << 20)
            seconds = time.monotonic() - start
            if seconds < BULK_SECONDS:
                break
        self.assertLess(seconds, BULK_SECONDS)

    def test_an_mtu_changed_while_running(self) -> None:
        """The next packet already may use the new size."""
        pair = self.pair(outer_mtu=9100)
        pair.handshake()
        for mtu in (1300, 9000, 1420):
            for node in pair.nodes:
                node.namespace.ip(f"link set {node.interface} mtu {mtu}")
            self.check_sizes(pair, mtu)

    def test_R24_R33_extreme_mtus_never_trap(self) -> None:
        """The smallest and the largest that the interface takes; some may be refused by name."""
        pair = self.pair()
        pair.handshake()
        for mtu in (68, 1279, 65535, 1420):
            command = ["ip", "link", "set", pair.ours.interface, "mtu", str(mtu)]
            pair.ours.namespace.attempt(*command)
            ping(pair.ours, pair.theirs.inner4, count=2, wait=0.2)
            self.assertTrue(pair.ours.is_running, f"MTU {mtu}")
        pair.handshake()

    def check_sizes(self, pair: Pair, mtu: int) -> None:
        self.check_pings(pair, mtu)
        for source, target in (pair.nodes, pair.nodes[::-1]):
            for address, _ in self.addresses(target, mtu):
                transfer(source, target, address, 1 << 20)

    def check_pings(self, pair: Pair, mtu: int) -> None:
        """One byte less than the MTU, the MTU itself, and not one byte more."""
        pair.handshake()
        for source, target in (pair.nodes, pair.nodes[::-1]):
            for address, overhead in self.addresses(target, mtu):
                for size in (100, mtu - overhead - 1, mtu - overhead):
                    result = ping(source, address, count=3, size=size, dont_fragment=True)
                    self.assertEqual(result.received, 3, f"{size}: {result}")
                too_large = ping(source, address, 1, mtu - overhead + 1, True, wait=0.2)
                self.assertEqual(too_large.received, 0, f"{mtu} + 1 bytes passed")

    def addresses(self, target: Node, mtu: int) -> list[tuple[str, int]]:
        found = [(target.inner4, IPV4_AND_ICMP)]
        if mtu >= IPV6_MINIMUM and target.inner6:
            found.append((target.inner6, IPV6_AND_ICMP))
        return found

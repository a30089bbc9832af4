"""The innermost tunnel's MTU is derived from the hops; packets up to it pass unfragmented."""

import json
import time

from harness.case import (
    FAMILIES,
    IPV4_AND_ICMP,
    IPV6_AND_ICMP,
    NestingCase,
    culvert_only,
    each,
    needs,
    quick,
)
from harness.lab.chain import OVERHEAD, Chain, Shape
from harness.lab.control import wg_file
from harness.traffic.ping import ping
from harness.waiting import wait_until


class MTUTests(NestingCase):
    @quick
    @culvert_only
    @each(entry=FAMILIES, exit=FAMILIES)
    def test_an_mtu_that_follows_from_the_hops(self, entry: int, exit: int) -> None:
        """Packets of that size pass unfragmented, both ways, and not a byte more."""
        chain = self.chain(entry, exit)
        mtu = self.mtu(chain)
        self.assertEqual(mtu, chain.shape.tunnel_mtus[-1])
        for address, overhead in (
            (chain.exit.inner4, IPV4_AND_ICMP),
            (chain.exit.inner6, IPV6_AND_ICMP),
        ):
            result = ping(chain.client, address, size=mtu - overhead, dont_fragment=True)
            self.assertEqual(result.received, 3, result)
            larger = ping(chain.client, address, 1, mtu - overhead + 1, True, wait=0.2)
            self.assertEqual(larger.received, 0, f"{mtu} + 1 bytes passed")
        self.assertEqual(chain.reassembled, 0)

    @culvert_only
    @each(hops=(3, 4))
    def test_more_hops(self, hops: int) -> None:
        chain = self.chain(*(4,) * hops)
        self.assertEqual(self.mtu(chain), chain.shape.tunnel_mtus[-1])

    @culvert_only
    def test_ipv6_keeps_what_it_needs(self) -> None:
        """An interface with an IPv6 address has an MTU of at least 1280, even through four hops."""
        chain = self.chain(4, 4, 4, 4, ipv6=True)
        self.assertEqual(self.mtu(chain), 1280)

    @culvert_only
    @each(entry=FAMILIES)
    def test_a_small_first_link(self, entry: int) -> None:
        chain = self.chain(entry, 4, mtus=(1400, 1500))
        self.assertEqual(self.mtu(chain), chain.shape.tunnel_mtus[-1])

    @culvert_only
    def test_a_large_first_link(self) -> None:
        """Links after the first are assumed to have an MTU of at most 1500."""
        chain = self.chain(mtus=(9000, 1500))
        self.assertEqual(self.mtu(chain), chain.shape.tunnel_mtus[-1])

    @quick
    @culvert_only
    @each(way=("file", "option"))
    def test_an_mtu_that_is_told(self, way: str) -> None:
        """By the file of the innermost tunnel, or on the command line."""
        told = {"file": {"lines": {"interface": ("MTU = 1290",)}},
                "option": {"options": ("--mtu", "1290")}}  # fmt: skip
        chain = self.chain(**told[way])
        self.assertEqual(self.mtu(chain), 1290)
        self.check_answers(chain, 1290 - IPV6_AND_ICMP)

    @culvert_only
    def test_an_mtu_that_the_outer_file_tells(self) -> None:
        """The MTUs of the inner tunnels are then derived from it."""
        chain = Chain(self.lab, self.settings.program, self.settings.peer, Shape())
        outward = wg_file(
            chain.ends[0], chain.entry, chain.endpoint(0), chain.preshared[0],
            interface=("MTU = 1380",))  # fmt: skip
        inward = wg_file(chain.client, chain.exit, chain.endpoint(1), chain.preshared[1])
        chain.client.start(options=chain.words([outward, inward]))
        chain.handshake()
        self.assertEqual(self.mtu(chain), 1380 - OVERHEAD[4] - (1380 - OVERHEAD[4]) % 16)

    @quick
    @culvert_only
    @each(hop=("entry", "exit"))
    def test_an_endpoint_that_changes_its_family(self, hop: str) -> None:
        """In both directions; the interface has the new MTU at once, for the first link's 1460."""
        chain = self.chain(4, 4, mtus=(1460, 1500))
        number = 0 if hop == "entry" else 1
        end, server = chain.ends[number], chain.servers[number]
        for family in (6, 4):
            families = (family, 4) if hop == "entry" else (4, family)
            expected = Shape(families, (1460, 1500)).tunnel_mtus[-1]
            end.set("peer", server.keys.public, "endpoint", server.endpoint(family))
            wait_until(lambda: self.mtu(chain) == expected, f"an MTU of {expected}", 5)
        self.check_answers(chain)

    @culvert_only
    def test_a_first_link_that_changes(self) -> None:
        """The tunnel follows its MTU: smaller, and larger again."""
        chain = self.chain()
        for first in (1400, 1500):
            for namespace, name in ((chain.home, "onward"), (chain.entry.namespace, "outer")):
                namespace.ip(f"link set {name} mtu {first}")
            expected = Shape((4, 4), (first, 1500)).tunnel_mtus[-1]
            wait_until(lambda: self.mtu(chain) == expected, f"an MTU of {expected}", 5)
        self.check_answers(chain)

    @culvert_only
    def test_an_mtu_set_by_hand_stays(self) -> None:
        """After it is set with ip(8), changes of the path no longer affect it."""
        chain = self.chain(4, 4, mtus=(1460, 1500))
        chain.home.ip(f"link set {chain.client.interface} mtu 1290")
        public = chain.exit.keys.public
        for family in (6, 4):
            chain.client.set("peer", public, "endpoint", chain.exit.endpoint(family))
            # wireguard-go sends its first datagram of the other family to a wrong address.
            self.await_large(chain.client, chain.exit, 1290 - IPV6_AND_ICMP)
            self.assertEqual(self.mtu(chain), 1290)

    @culvert_only
    @needs("fwmark")
    def test_a_default_route_through_itself(self) -> None:
        """As with wg-quick(8): the sockets have the mark of the innermost tunnel, so a route lookup
        for the entry does not find the tunnel itself."""
        chain = self.chain()
        before = self.mtu(chain)
        chain.client.set("fwmark", "51820")
        chain.home.ip(f"route add default dev {chain.client.interface} table 51820")
        chain.home.ip("rule add not fwmark 51820 table 51820")
        for mtu in (65000, 64000, 63000):
            chain.home.ip(f"link set lo mtu {mtu}")  # an event of another link
            time.sleep(1.2)  # the route is looked up at most once per second
        self.assertEqual(self.mtu(chain), before)
        self.check_answers(chain)

    @culvert_only
    def test_R66_a_route_to_the_entry_through_the_tunnel(self) -> None:
        """The outermost tunnel's datagrams come back out of the TUN of the innermost."""
        chain = self.chain()
        interface = chain.client.interface
        chain.client.set("peer", chain.exit.keys.public, "allowed-ips", "0.0.0.0/0,::/0")
        chain.home.ip(f"route add {chain.entry.outer4}/32 dev {interface}")
        for _ in range(3):
            ping(chain.client, chain.exit.inner4, count=1, wait=0.5)
        line = "routed back into the tunnel"
        wait_until(lambda: line in chain.client.log, "a line in the log")
        self.assertEqual(chain.client.log.count(line), 1)
        link = json.loads(chain.home.run("ip", "-s", "-j", "link", "show", interface))
        self.assertLess(link[0]["stats64"]["tx"]["packets"], 100)
        chain.home.ip(f"route del {chain.entry.outer4}/32 dev {interface}")
        self.check_answers(chain)

    def mtu(self, chain: Chain) -> int:
        shown = chain.home.run("ip", "-j", "link", "show", chain.client.interface)
        return json.loads(shown)[0]["mtu"]

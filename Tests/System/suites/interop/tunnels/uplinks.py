"""A host with two uplinks, whose routers drop datagrams with the other uplink's source address."""

import threading

from harness.case import FAMILIES, ROLES, InteropCase, culvert_only, each
from harness.lab.namespace import Namespace, join
from harness.lab.node import Node
from harness.traffic.ping import PingResult, ping
from harness.waiting import wait_until

INTERVAL = 0.05  # seconds between two pings
PINGS = 50
GAP = 1.0  # seconds that a move may cost

FOREIGN = """
    table inet uplinks {
        chain prerouting {
            type filter hook prerouting priority 0;
            iifname up1 ip saddr != 192.168.1.0/24 drop
            iifname up2 ip saddr != 192.168.2.0/24 drop
            iifname up1 ip6 saddr 2001:db8:2::/64 drop
            iifname up2 ip6 saddr 2001:db8:1::/64 drop
        }
    }
"""


class UplinkTests(InteropCase):
    @culvert_only
    @each(role=ROLES, outer=FAMILIES, dies=(False, True))
    def test_R40_a_route_that_moves_is_followed(self, role: str, outer: int, dies: bool) -> None:
        """The default route moves to the other uplink and back, and the old link stays or dies."""
        ours, theirs = self.build(role, outer)
        # If the link dies, the other end cannot know the new address before we send.
        source, target = (ours, theirs) if dies or role == "initiator" else (theirs, ours)
        for link in (2, 1):
            result = self.ping_during(source, target.inner4, lambda: self.move(link, outer, dies))
            self.assertGreaterEqual(result.received, PINGS - GAP / INTERVAL, result)
            self.assertTrue(theirs.endpoint_of(ours).startswith(self.address(link, outer)))

    def ping_during(self, source: Node, target: str, move) -> PingResult:
        timer = threading.Timer(5 * INTERVAL, move)
        timer.start()
        try:
            return ping(source, target, PINGS, interval=INTERVAL, wait=0.5)
        finally:
            timer.join()

    def address(self, link: int, outer: int) -> str:
        return f"192.168.{link}.2:" if outer == 4 else f"[2001:db8:{link}::2]:"

    def move(self, link: int, outer: int, dies: bool) -> None:
        host, other = self.host, 3 - link
        if dies:
            host.ip(f"link set up{link} up")
            if outer == 6:
                host.ip(f"addr replace 2001:db8:{link}::2/64 dev up{link} nodad")
            host.ip(f"link set up{other} down")
        self.route(host, link)

    def route(self, host: Namespace, link: int) -> None:
        host.run("ip", "-4", *f"route replace default via 192.168.{link}.1 dev up{link}".split())
        for _ in range(2):
            host.attempt("ip", "-6", "route", "del", "default")
        host.run("ip", "-6", *f"route add default via 2001:db8:{link}::1 dev up{link}".split())

    def build(self, role: str, outer: int) -> tuple[Node, Node]:
        """(ours behind the uplinks, theirs), with a session by way of the first uplink."""
        self.host, router, far = (self.lab.namespace(it) for it in ("host", "router", "far"))
        for link in (1, 2):
            join(self.host, router, f"up{link}", f"up{link}")
            for number, namespace in ((2, self.host), (1, router)):
                namespace.ip(
                    f"addr add 192.168.{link}.{number}/24 dev up{link}",
                    f"addr add 2001:db8:{link}::{number}/64 dev up{link} nodad",
                )
        join(far, router, "outer", "far")
        for number, namespace, name in ((2, far, "outer"), (1, router, "far")):
            namespace.ip(
                f"addr add 203.0.113.{number}/24 dev {name}",
                f"addr add 2001:db8:3::{number}/64 dev {name} nodad",
            )
        far.ip("route add default via 203.0.113.1")
        far.run("ip", "-6", *"route add default via 2001:db8:3::1".split())
        router.set_sysctl("net/ipv4/ip_forward", "1")
        router.set_sysctl("net/ipv6/conf/all/forwarding", "1")
        router.nft(FOREIGN)
        self.host.set_sysctl("net/ipv4/conf/all/rp_filter", "0")
        self.route(self.host, 1)
        return self.start(role, outer, far)

    def start(self, role: str, outer: int, far: Namespace) -> tuple[Node, Node]:
        ours = self.lab.node(self.host, self.settings.program, "ours")
        theirs = self.lab.node(far, self.settings.peer, "theirs")
        ours.outer4, ours.outer6 = "192.168.1.2", "2001:db8:1::2"
        theirs.outer4, theirs.outer6 = "203.0.113.2", "2001:db8:3::2"
        for number, node in ((1, ours), (2, theirs)):
            node.inner4, node.inner6, node.port = f"10.7.0.{number}", f"fd07::{number}", 51820
            node.start()
            node.set("listen-port", "51820", secrets={"private-key": node.keys.private})
        initiator, responder = (ours, theirs)[:: 1 if role == "initiator" else -1]
        initiator.add_peer(responder, responder.endpoint(outer))
        responder.add_peer(initiator)
        for node in (ours, theirs):
            node.bring_up()
        wait_until(lambda: ping(initiator, responder.inner4, 1).received, "a session")
        return ours, theirs

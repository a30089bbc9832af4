"""Networks that lose, delay and reorder, translate addresses, or change."""

import errno
import json
import os
import signal
import socket
import time

from harness.case import ROLES, InteropCase, culvert_only, each, long, quick
from harness.lab.namespace import join
from harness.lab.node import Node
from harness.lab.pair import Pair
from harness.traffic.flow import Flow
from harness.traffic.ping import ping
from harness.traffic.relay import PORT, Relay
from harness.traffic.streams import transfer
from harness.waiting import wait_until


class BadNetworkTests(InteropCase):
    @each(role=ROLES)
    def test_R18_a_late_handshake_response_is_accepted(self, role: str) -> None:
        """A delay of 0.4 s each way."""
        pair = self.pair(role)
        with self.relay(pair, delay=0.4):
            pair.handshake(20)
            result = ping(pair.initiator, pair.responder.inner4, count=3, wait=5)
            self.assertEqual(result.received, 3, result)
            self.assertGreater(result.average_milliseconds, 800)

    @each(role=ROLES)
    def test_doubled_and_reordered_datagrams(self, role: str) -> None:
        """Each datagram arrives once: the replay window accepts late ones and drops copies."""
        pair = self.pair(role)
        # The 250 datagrams of a second fit into every queue on the path.
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
        """With a third of all datagrams lost, a session is established and carries TCP."""
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
        """A relay beside the responder; the initiator knows only the relay's port."""
        target = pair.responder.outer4, pair.responder.port
        endpoint = f"{pair.responder.outer4}:{PORT}"
        pair.initiator.set("peer", pair.responder.keys.public, "endpoint", endpoint)
        return Relay(pair.responder.namespace, target, **options)


# A node behind network address translation stays reachable.

# Seconds after which the NAT forgets: short, but some keepalives may be late.
TRANSLATION_TIMEOUT = 4
AS_60000 = "meta l4proto udp masquerade to :60000-60100"


class NATTests(InteropCase):
    @long
    @each(inside=("ours", "theirs"))
    def test_persistent_keepalive_keeps_the_way_in(self, inside: str) -> None:
        """The public end learns the translated endpoint, and reaches the inside after idling."""
        private, public = self.build(inside)
        public.add_peer(private)
        # The first keepalive is sent at once, so the public end has to be ready by then.
        for node in (public, private):
            node.bring_up()
        private.add_peer(public, public.endpoint(), None, None, "persistent-keepalive", "1")
        wait_until(lambda: public.latest_handshake(private), "a handshake without any traffic")
        self.assertTrue(public.endpoint_of(private).startswith("203.0.113.1:"))
        time.sleep(3 * TRANSLATION_TIMEOUT)
        self.assertEqual(ping(public, private.inner4, count=1).received, 1)
        transfer(public, private, private.inner6)

    @long
    def test_a_changed_translation_is_followed(self) -> None:
        """When the NAT forgets and assigns another port, the next packet reveals it."""
        private, public = self.build("ours")
        private.add_peer(public, public.endpoint())
        public.add_peer(private)
        for node in (private, public):
            node.bring_up()
        self.assertTrue(wait_until(lambda: ping(private, public.inner4, 1).received, "an answer"))
        before = public.endpoint_of(private)
        self.router.run("nft", *"add rule ip nat post oifname public".split(), *AS_60000.split())
        self.router.run("nft", *f"delete rule ip nat post handle {self.first_rule()}".split())
        # Nothing may pass for a while, or the old translation stays. A passive keepalive is
        # due 10 s after the last packet received.
        time.sleep(14 + TRANSLATION_TIMEOUT)
        wait_until(lambda: ping(private, public.inner4, 1).received, "an answer")
        self.assertNotEqual(public.endpoint_of(private), before)
        self.assertEqual(ping(public, private.inner4, count=1).received, 1)

    def build(self, inside: str) -> tuple[Node, Node]:
        """(private, public), configured except for their peers, with the router between them."""
        left, self.router, right = (self.lab.namespace(it) for it in ("private", "nat", "public"))
        join(left, self.router, "outer", "private")
        join(self.router, right, "public", "outer")
        left.ip("addr add 192.168.5.2/24 dev outer", "route add default via 192.168.5.1")
        self.router.ip("addr add 192.168.5.1/24 dev private", "addr add 203.0.113.1/24 dev public")
        right.ip("addr add 203.0.113.2/24 dev outer")
        self.translate()
        settings = self.settings
        programs = (settings.program, settings.peer)[:: 1 if inside == "ours" else -1]
        private = self.lab.node(left, programs[0], "private")
        public = self.lab.node(right, programs[1], "public")
        private.outer4, public.outer4 = "192.168.5.2", "203.0.113.2"
        for number, node in ((1, private), (2, public)):
            node.inner4, node.inner6, node.port = f"10.7.0.{number}", f"fd07::{number}", 51820
            node.start()
            node.set("listen-port", "51820", secrets={"private-key": node.keys.private})
        return private, public

    def translate(self) -> None:
        self.router.set_sysctl("net/ipv4/ip_forward", "1")
        self.router.nft("""
            table ip nat {
                chain post {
                    type nat hook postrouting priority 100;
                    oifname public meta l4proto udp masquerade to :40000-40100
                }
            }
        """)
        for name in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
            self.router.set_sysctl(f"net/netfilter/{name}", str(TRANSLATION_TIMEOUT))

    def first_rule(self) -> str:
        rules = self.router.run("nft", "-a", "list", "chain", "ip", "nat", "post").splitlines()
        return next(line for line in rules if "40000" in line).rpartition(" ")[2]


# A node that changes its address or port is followed.

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
        # Neighbour discovery and datagrams in flight may cost a few; a handshake would cost more.
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


# Programs get an error at once if there is no route, instead of waiting.

QUICK = 0.9  # seconds; the second SYN is sent after one
STRANGERS = ("10.7.0.99", "fd07::99")


class RoutingLoopTests(InteropCase):
    @culvert_only
    def test_R66_a_route_to_the_endpoint_through_the_tunnel(self) -> None:
        """Without an exception for the endpoint, our datagrams come back out of the TUN."""
        pair = self.pair(level="error")
        ours, theirs = pair.nodes
        pair.handshake()
        ours.set("peer", theirs.keys.public, "allowed-ips", "0.0.0.0/0")
        # More specific than the connected network, like the halves of a /0 beside a default route.
        ours.namespace.run("ip", "route", "add", f"{theirs.outer4}/32", "dev", ours.interface)
        for _ in range(3):
            ping(ours, theirs.inner4, count=1, wait=0.5)
        wait_until(lambda: "routed back into the tunnel" in ours.log, "a line in the log")
        self.assertEqual(ours.log.count("routed back into the tunnel"), 1)
        # Each datagram comes back once, and is not sent again.
        link = json.loads(ours.namespace.run("ip", "-s", "-j", "link", "show", ours.interface))
        self.assertLess(link[0]["stats64"]["tx"]["packets"], 100)
        os.kill(ours.pid, signal.SIGUSR1)
        wait_until(lambda: "routing-loop" in ours.log, "the counter")
        ours.namespace.run("ip", "route", "del", f"{theirs.outer4}/32", "dev", ours.interface)
        pair.handshake()


class UnreachableTests(InteropCase):
    @culvert_only
    @each(family=(4, 6))
    def test_an_address_without_a_peer(self, family: int) -> None:
        """ICMP host unreachable, or ICMPv6 address unreachable, as the kernel's WireGuard."""
        pair = self.pair()
        self.check_unreachable(pair.ours, STRANGERS[family == 6])

    @culvert_only
    @each(family=(4, 6))
    def test_a_peer_without_an_endpoint(self, family: int) -> None:
        """The same answer as for an address without a peer."""
        pair = self.pair("responder")  # has no endpoint, and received no handshake
        self.check_unreachable(pair.ours, self.target(pair, family))

    def target(self, pair: Pair, family: int) -> str:
        return pair.theirs.inner4 if family == 4 else pair.theirs.inner6

    def check_unreachable(self, node: Node, address: str) -> None:
        output = node.namespace.attempt("ping", "-n", "-c", "1", "-W", "5", address).stdout
        self.assertRegex(output, "Destination (Host|unreachable).*(Unreachable|unreachable)")
        # One of three in time is enough, as the machine may pause during another.
        for _ in range(3):
            seconds = self.refusal(node, address)
            if seconds < QUICK:
                break
        self.assertLess(seconds, QUICK)

    def refusal(self, node: Node, address: str) -> float:
        """Seconds until a TCP connection is refused as unreachable."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with node.namespace.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(10)
            start = time.monotonic()
            number = connection.connect_ex((address, 80))
            seconds = time.monotonic() - start
        self.assertEqual(number, errno.EHOSTUNREACH)
        return seconds

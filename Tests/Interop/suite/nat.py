"""A node behind network address translation stays reachable."""

import time

from harness.case import InteropCase, each, long
from harness.deadline import wait_until
from harness.echo import ping
from harness.namespace import join
from harness.node import Node
from harness.traffic import transfer

# Seconds; a short-lived NAT, so that the test need not be long, and some keepalives may be late.
TRANSLATION_TIMEOUT = 4
AS_60000 = "meta l4proto udp masquerade to :60000-60100"


class NATTests(InteropCase):
    @long
    @each(inside=("ours", "theirs"))
    def test_persistent_keepalive_keeps_the_way_in(self, inside: str) -> None:
        """The public end learns the translated endpoint, and reaches the inside after idling."""
        private, public = self.build(inside)
        public.add_peer(private)
        # The first keepalive goes out at once, so the public end has to be ready by then.
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
        """When the NAT forgets and gives another port, the next packet tells the new one."""
        private, public = self.build("ours")
        private.add_peer(public, public.endpoint())
        public.add_peer(private)
        for node in (private, public):
            node.bring_up()
        self.assertTrue(wait_until(lambda: ping(private, public.inner4, 1).received, "an answer"))
        before = public.endpoint_of(private)
        self.router.run("nft", *"add rule ip nat post oifname public".split(), *AS_60000.split())
        self.router.run("nft", *f"delete rule ip nat post handle {self.first_rule()}".split())
        # Nothing may pass for a while, or the old translation lives on; a passive keepalive
        # is due 10 s after the last packet received.
        time.sleep(14 + TRANSLATION_TIMEOUT)
        wait_until(lambda: ping(private, public.inner4, 1).received, "an answer")
        self.assertNotEqual(public.endpoint_of(private), before)
        self.assertEqual(ping(public, private.inner4, count=1).received, 1)

    def build(self, inside: str) -> tuple[Node, Node]:
        """(private, public), configured but for their peers, with the router between."""
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

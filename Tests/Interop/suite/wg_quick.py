"""wg-quick(8) brings the tunnel up and down, with everything routed through it."""

import os
import re

from harness import procfs
from harness.capture import DATA, Capture
from harness.case import FAMILIES, InteropCase, each, quick
from harness.deadline import wait_until
from harness.echo import ping
from harness.node import LOGS, Node
from harness.pair import place
from harness.traffic import tcp

FAR4, FAR6 = "192.0.2.77", "2001:db8:77::1"  # reached through the tunnel alone


class WgQuickTests(InteropCase):
    @quick
    @each(outer=FAMILIES)
    def test_up_and_down_with_everything_routed(self, outer: int) -> None:
        """0.0.0.0/0 and ::/0 go through the tunnel, the outer packets go round it."""
        ours, theirs = self.build()
        before = routing(ours)
        path = self.write_configuration(ours, theirs, outer)
        self.wg_quick(ours, "up", path)
        if not (pids := ours.namespace.pids()):
            self.skipTest("the kernel's own WireGuard serves wg-quick here")
        with Capture(ours.namespace, "outer") as outside:
            for address in (FAR4, FAR6):
                wait_until(lambda: ping(ours, address, 1).received, f"answer of {address}")
            for address in (FAR4, FAR6, theirs.inner4, theirs.inner6):
                self.assertEqual(ping(ours, address).received, 3, address)
            self.assertGreater(tcp(ours, theirs, FAR4, 5), 5)
        self.check_outside(outside, ours, theirs, outer)
        self.wg_quick(ours, "down", path)
        wait_until(lambda: not any(map(procfs.is_running, pids)), "the process gone")
        self.assertEqual(ours.leftovers(), [])
        self.assertEqual(routing(ours), before)

    def test_up_twice_is_refused_and_harms_nothing(self) -> None:
        ours, theirs = self.build()
        path = self.write_configuration(ours, theirs, 4)
        self.wg_quick(ours, "up", path)
        self.assertNotEqual(self.attempt(ours, "up", path).returncode, 0)
        wait_until(lambda: ping(ours, FAR4, 1).received, "an answer")
        self.wg_quick(ours, "down", path)

    def test_save_and_strip_tell_the_configuration(self) -> None:
        """`wg-quick save` writes what showconf tells; `strip` is fit for syncconf."""
        ours, theirs = self.build()
        path = self.write_configuration(ours, theirs, 4)
        self.wg_quick(ours, "up", path)
        ours.set("peer", theirs.keys.public, "persistent-keepalive", "21")
        self.wg_quick(ours, "save", path)
        with open(path) as saved:
            self.assertIn("PersistentKeepalive = 21", saved.read())
        stripped = self.wg_quick(ours, "strip", path)
        ours.wg("syncconf", ours.interface, "/dev/stdin", text=stripped)
        self.assertEqual(set(ours.show("peers")), {theirs.keys.public})
        self.wg_quick(ours, "down", path)

    def build(self) -> tuple[Node, Node]:
        """Our end unstarted with default routes outside; theirs running with far addresses."""
        left, right = self.lab.namespace("ours"), self.lab.namespace("theirs")
        self.lab.connect(left, right)
        ours = self.lab.node(left, self.settings.program, "ours")
        theirs = self.lab.node(right, self.settings.peer, "theirs")
        place(ours, theirs)
        left.ip("route add default via 198.51.100.2", "route add default via 2001:db8::2")
        theirs.start()
        theirs.set("listen-port", str(theirs.port), secrets={"private-key": theirs.keys.private})
        theirs.add_peer(ours)
        theirs.bring_up()
        right.ip(f"addr add {FAR4}/32 dev lo", f"addr add {FAR6}/128 dev lo")
        # The far addresses answer through the tunnel only: a loop-hole would show.
        right.nft(f"""
            table inet guard {{
                chain input {{
                    type filter hook input priority 0;
                    iifname outer ip daddr {FAR4} drop
                    iifname outer ip6 daddr {FAR6} drop
                }}
            }}
        """)
        return ours, theirs

    def write_configuration(self, ours: Node, theirs: Node, outer: int) -> str:
        path = LOGS / f"{ours.interface}.conf"
        path.touch(0o600)
        path.write_text(f"""[Interface]
Address = {ours.inner4}/24, {ours.inner6}/64
PrivateKey = {ours.keys.private}

[Peer]
PublicKey = {theirs.keys.public}
AllowedIPs = {self.everything}
Endpoint = {theirs.endpoint(outer)}
""")
        return str(path)

    @property
    def everything(self) -> str:
        """In halves where there are no marks: wg-quick(8) would mark for a default route."""
        marks = self.firewall_mark(1)
        return "0.0.0.0/0, ::/0" if marks else "0.0.0.0/1, 128.0.0.0/1, ::/1, 8000::/1"

    def wg_quick(self, node: Node, verb: str, path: str) -> str:
        result = self.attempt(node, verb, path)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result.stdout

    def attempt(self, node: Node, verb: str, path: str):
        program = str(self.settings.program.path)
        environment = dict(os.environ, WG_QUICK_USERSPACE_IMPLEMENTATION=program)
        return node.namespace.attempt("wg-quick", verb, path, env=environment, seconds=60)

    def check_outside(self, outside: Capture, ours: Node, theirs: Node, outer: int) -> None:
        """On the wire there is only UDP between the two ends, and no packet within a packet."""
        ends = {ours.outer4, theirs.outer4} if outer == 4 else {ours.outer6, theirs.outer6}
        self.assertTrue(outside.messages(DATA))
        for packet in outside.packets:
            self.assertFalse({packet.source, packet.target} & {FAR4, FAR6}, packet)
            if packet.is_udp:
                self.assertEqual({packet.source, packet.target}, ends)


def routing(node: Node) -> str:
    """Rules and routes of both families, without what the kernel lets expire."""
    listings = []
    for family in ("-4", "-6"):
        for what in (("rule",), ("route", "show", "table", "all")):
            listings.append(node.namespace.run("ip", family, *what))
    listings.append(node.namespace.run("nft", "list", "ruleset"))
    # The order of IPv6 routes in a table is not fixed.
    return "\n".join(sorted(re.sub(r" expires \d+sec", "", "".join(listings)).splitlines()))

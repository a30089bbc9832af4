"""wg(8), every subcommand and field, and wg-quick(8)."""

import os
import re

from harness import procfs
from harness.case import FAMILIES, InteropCase, each, quick
from harness.lab.node import LOGS, KeyPair, Node, preshared_key
from harness.lab.pair import Pair, place
from harness.traffic.capture import DATA, Capture
from harness.traffic.flow import Flow
from harness.traffic.ping import ping
from harness.traffic.streams import tcp
from harness.waiting import wait_until


class WgToolTests(InteropCase):
    @quick
    def test_show_tells_every_field(self) -> None:
        """Each field on its own, and all in `dump`."""
        pair = self.configured()
        ours, theirs = pair.nodes
        interface = ours.interface
        single = {
            "public-key": ours.keys.public,
            "private-key": ours.keys.private,
            "listen-port": str(ours.port),
            "fwmark": self.shown_mark,
            "peers": theirs.keys.public,
        }
        for field, value in single.items():
            self.assertEqual(ours.wg("show", interface, field).strip(), value, field)
        peer = {
            "preshared-keys": self.key,
            "endpoints": theirs.endpoint(),
            "persistent-keepalive": "25",
        }
        for field, value in peer.items():
            self.assertEqual(ours.show(field)[theirs.keys.public], value, field)
        self.assertEqual(
            set(ours.show("allowed-ips")[theirs.keys.public].split()),
            {f"{theirs.inner4}/32", f"{theirs.inner6}/128", "10.9.0.0/16"},
        )
        self.assertGreater(ours.latest_handshake(theirs), 0)
        received, sent = map(int, ours.show("transfer")[theirs.keys.public].split())
        self.assertGreaterEqual(min(received, sent), 92 + 128, "R36: whole messages are counted")
        dump = ours.wg("show", interface, "dump").splitlines()
        device, *peers = (line.split("\t") for line in dump)
        own = [ours.keys.private, ours.keys.public, str(ours.port), self.shown_mark]
        self.assertEqual(device, own)
        self.assertEqual(peers[0][:3], [theirs.keys.public, self.key, theirs.endpoint()])
        self.assertEqual(peers[0][7], "25")

    def test_R36_counters_agree_between_the_ends(self) -> None:
        """What one end has sent, the other has received, to the byte."""
        pair = self.pair()
        pair.handshake()
        ours, theirs = pair.nodes
        with Flow(ours, theirs) as there, Flow(theirs, ours, port=5402) as back:
            there.await_progress(30)
            back.await_progress(30)

        def counted(node: Node, other: Node) -> list[int]:
            return list(map(int, node.show("transfer")[other.keys.public].split()))

        # A keepalive may be in flight between the two queries.
        wait_until(
            lambda: counted(ours, theirs) == counted(theirs, ours)[::-1],
            "equal counts at both ends",
            4,
        )

    def test_show_for_people(self) -> None:
        """`wg`, `wg show` and `wg show all` find the interface and name the peer."""
        pair = self.configured()
        for arguments in ((), ("show",), ("show", "all"), ("show", pair.ours.interface)):
            shown = pair.ours.wg(*arguments)
            self.assertIn(f"interface: {pair.ours.interface}", shown)
            self.assertIn(f"peer: {pair.theirs.keys.public}", shown)
            self.assertIn("latest handshake: ", shown)
        self.assertIn(pair.ours.interface, pair.ours.wg("show", "interfaces").split())

    @quick
    def test_showconf_feeds_setconf(self) -> None:
        """What showconf prints gives another interface an equal configuration."""
        pair = self.configured()
        text = pair.ours.wg("showconf", pair.ours.interface)
        other = self.node("other")
        other.start()
        self.use(other, "setconf", text)
        again = other.wg("showconf", other.interface)
        self.assertEqual(sorted(again.split()), sorted(text.split()))

    @quick
    def test_setconf_replaces_and_addconf_adds(self) -> None:
        node = self.node()
        node.start()
        first, second, third = (KeyPair.generate().public for _ in range(3))
        own = KeyPair.generate().private
        self.use(node, "setconf", f"[Interface]\nPrivateKey={own}\n" + peer_section(first, 1))
        self.use(node, "addconf", peer_section(second, 2))
        self.assertEqual(set(node.show("peers")), {first, second})
        self.use(node, "setconf", "[Interface]\nListenPort=40444\n" + peer_section(third, 3))
        self.assertEqual(node.show("allowed-ips"), {third: "10.3.0.0/16"})
        self.assertEqual(node.wg("show", node.interface, "listen-port").strip(), "40444")

    @quick
    def test_syncconf_keeps_sessions(self) -> None:
        """One peer is removed, one is added, and the one that stays loses no datagram."""
        pair = self.configured()
        ours, theirs = pair.nodes
        leaving, coming = KeyPair.generate().public, KeyPair.generate().public
        self.use(ours, "addconf", peer_section(leaving, 3))
        text = pair.ours.wg("showconf", ours.interface)
        self.assertIn(theirs.keys.public, text)
        sections = [part for part in text.split("[Peer]") if leaving not in part]
        kept = "[Peer]".join(sections) + "\n" + peer_section(coming, 4)
        handshake = ours.latest_handshake(theirs)
        with Flow(theirs, ours) as flow:
            self.use(ours, "syncconf", kept)
            flow.await_progress(30)
        self.assertEqual(flow.lost, [])
        self.assertEqual(set(ours.show("peers")), {theirs.keys.public, coming})
        self.assertEqual(ours.latest_handshake(theirs), handshake)

    def test_set_takes_back_what_it_set(self) -> None:
        """Zero, off and empty unset."""
        pair = self.configured()
        ours, theirs = pair.nodes
        ours.set("fwmark", "0", "peer", theirs.keys.public, "persistent-keepalive", "off")
        ours.set("peer", theirs.keys.public, "preshared-key", "/dev/null", "allowed-ips", "")
        self.assertEqual(ours.wg("show", ours.interface, "fwmark").strip(), "off")
        self.assertEqual(ours.show("persistent-keepalive")[theirs.keys.public], "off")
        self.assertEqual(ours.show("preshared-keys")[theirs.keys.public], "(none)")
        self.assertEqual(ours.show("allowed-ips")[theirs.keys.public], "(none)")
        ours.set("private-key", "/dev/null")
        self.assertEqual(ours.wg("show", ours.interface, "private-key").strip(), "(none)")

    @property
    def shown_mark(self) -> str:
        """The mark as wg(8) shows it."""
        mark = self.firewall_mark(0x1234)
        return f"{mark:#x}" if mark else "off"

    def configured(self) -> Pair:
        """A pair with a session; our end has a value in every field."""
        pair = self.pair()
        ours, theirs = pair.nodes
        self.key = preshared_key()
        theirs.set("peer", ours.keys.public, secrets={"preshared-key": self.key})
        ours.set("fwmark", self.shown_mark)
        allowed = f"{theirs.allowed_ips},10.9.0.0/16"
        ours.add_peer(theirs, None, allowed, self.key, "persistent-keepalive", "25")
        pair.handshake(25)
        return pair

    def use(self, node: Node, verb: str, text: str) -> None:
        path = LOGS / f"{node.interface}.{verb}"
        path.touch(0o600)
        path.write_text(text)
        node.wg(verb, node.interface, str(path))


def peer_section(key: str, number: int) -> str:
    return f"[Peer]\nPublicKey={key}\nAllowedIPs=10.{number}.0.0/16\n"


# wg-quick(8) brings the tunnel up and down, with everything routed through it.

FAR4, FAR6 = "192.0.2.77", "2001:db8:77::1"  # reached only through the tunnel


class WgQuickTests(InteropCase):
    @quick
    @each(outer=FAMILIES)
    def test_up_and_down_with_everything_routed(self, outer: int) -> None:
        """0.0.0.0/0 and ::/0 are routed through the tunnel, the outer packets around it."""
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
        """`wg-quick save` writes what showconf prints; syncconf accepts what `strip` prints."""
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
        """Our end, not started, with default routes; their end, running, with far addresses."""
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
        # The far addresses answer only through the tunnel; a leak is therefore detected.
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
        """Two halves if the system has no marks, which wg-quick(8) needs for a default route."""
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
    """Rules and routes of both families, without those that expire."""
    listings = []
    for family in ("-4", "-6"):
        for what in (("rule",), ("route", "show", "table", "all")):
            listings.append(node.namespace.run("ip", family, *what))
    listings.append(node.namespace.run("nft", "list", "ruleset"))
    # The order of IPv6 routes in a table is not fixed.
    return "\n".join(sorted(re.sub(r" expires \d+sec", "", "".join(listings)).splitlines()))

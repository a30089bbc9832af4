"""wg(8): every subcommand, every field."""

from harness.case import InteropCase, quick
from harness.deadline import wait_until
from harness.flow import Flow
from harness.keys import KeyPair, preshared_key
from harness.node import LOGS, Node
from harness.pair import Pair


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
        """What one end says it sent, the other says it received, to the byte."""
        pair = self.pair()
        pair.handshake()
        ours, theirs = pair.nodes
        with Flow(ours, theirs) as there, Flow(theirs, ours, port=5402) as back:
            there.await_progress(30)
            back.await_progress(30)

        def counted(node: Node, other: Node) -> list[int]:
            return list(map(int, node.show("transfer")[other.keys.public].split()))

        # A keepalive may be under way while they are asked.
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
        """What showconf writes makes an equal configuration of another."""
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
        """One peer goes, one comes, and the one that stays loses no datagram."""
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
        """What wg(8) shows of the mark that is set."""
        mark = self.firewall_mark(0x1234)
        return f"{mark:#x}" if mark else "off"

    def configured(self) -> Pair:
        """A pair with a session, our end having a value in every field."""
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

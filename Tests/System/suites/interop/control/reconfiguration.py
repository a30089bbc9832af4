"""Changes of a running tunnel lose no more than they must."""

from harness import procfs
from harness.case import ROLES, InteropCase, culvert_only, each, long, quick
from harness.lab.control import UAPIConnection
from harness.lab.node import KeyPair, Node, hexadecimal, preshared_key
from harness.traffic.flow import Flow
from harness.traffic.ping import ping
from harness.waiting import wait_until

ENDS = ("ours", "theirs")


class KeyChangeTests(InteropCase):
    @quick
    @each(changer=ENDS)
    def test_a_private_key_replaced(self, changer: str) -> None:
        """Once the other end knows the new public key, traffic passes again."""
        pair = self.pair()
        pair.handshake()
        node, other = pair.nodes if changer == "ours" else pair.nodes[::-1]
        old, node.keys = node.keys, KeyPair.generate()
        node.set_private_key(node.keys.private)
        self.assertEqual(node.wg("show", node.interface, "public-key").strip(), node.keys.public)
        other.set("peer", old.public, "remove")
        other.add_peer(node, endpoint=node.endpoint())
        for source, target in ((other, node), (node, other)):
            wait_until(lambda: ping(source, target.inner4, 1).received, "an answer", 25)

    @long
    @each(role=ROLES)
    def test_R26_a_preshared_key_replaced(self, role: str) -> None:
        """The session stays; the next handshake uses the new key."""
        pair = self.pair(role, psk=True)
        pair.handshake()
        ours, theirs = pair.nodes
        before = ours.latest_handshake(theirs)
        key = preshared_key()
        with Flow(theirs, ours) as flow:
            flow.await_progress()
            for node, other in (pair.nodes, pair.nodes[::-1]):
                node.set("peer", other.keys.public, secrets={"preshared-key": key})
            flow.await_progress(50)
        self.assertEqual(flow.lost, [])
        self.assertEqual(ours.latest_handshake(theirs), before)
        # The peer forgets its session; only the new key allows another one.
        theirs.set("peer", ours.keys.public, "remove")
        theirs.add_peer(ours, ours.endpoint() if role == "responder" else None, None, key)
        # If our end initiates, it notices after 15 s without an answer (whitepaper 6.5).
        source, target = pair.initiator, pair.responder
        wait_until(lambda: ping(source, target.inner4, 1).received, "an answer", 40)


class PeerTests(InteropCase):
    @quick
    @each(role=ROLES)
    def test_a_peer_removed_while_traffic_flows(self, role: str) -> None:
        """Traffic stops at once, the program continues, and the peer can be added again."""
        pair = self.pair(role)
        pair.handshake()
        ours, theirs = pair.nodes
        with Flow(ours, theirs, 0.002) as there, Flow(theirs, ours, 0.002, port=5402) as back:
            back.await_progress()
            ours.set("peer", theirs.keys.public, "remove")
            self.await_silence(there, back)
            self.assertEqual(ours.show("peers"), {})
            ours.add_peer(theirs, endpoint=theirs.endpoint())
            there.await_progress()
            back.await_progress()

    def await_silence(self, *flows: Flow) -> None:
        """Wait until each flow has sent a hundred more datagrams and none has arrived."""

        def is_silent() -> bool:
            received, sent = ([len(it.received) for it in flows], [it.sent for it in flows])
            for it, mark in zip(flows, sent):
                wait_until(lambda: it.sent >= mark + 100, "a hundred datagrams sent")
            return received == [len(it.received) for it in flows]

        wait_until(is_silent, "silence after the peer was removed", 3)

    @quick
    def test_setting_an_existing_peer_keeps_its_session(self) -> None:
        """Session, counters and last handshake stay; no datagram is lost."""
        pair = self.pair()
        pair.handshake()
        ours, theirs = pair.nodes
        handshake, bytes_before = ours.latest_handshake(theirs), self.received_bytes(ours, theirs)
        with Flow(theirs, ours) as flow:
            for seconds in range(10):
                ours.add_peer(theirs, theirs.endpoint(), None, None, "persistent-keepalive", "60")
                ours.add_peer(theirs, None, f"{theirs.allowed_ips},10.8.{seconds}.0/24")
            flow.await_progress()
        self.assertEqual(flow.lost, [])
        self.assertEqual(ours.latest_handshake(theirs), handshake)
        self.assertGreater(self.received_bytes(ours, theirs), bytes_before)

    def received_bytes(self, node: Node, other: Node) -> int:
        return int(node.show("transfer")[other.keys.public].split()[0])


class PortTests(InteropCase):
    @quick
    @each(role=ROLES)
    def test_the_listen_port_changed_live(self, role: str) -> None:
        """Traffic continues from the new port, which the other end learns."""
        pair = self.pair(role)
        pair.handshake()
        ours, theirs = pair.nodes
        with Flow(ours, theirs) as flow:
            for port in (51101, 51102, 51103):
                ours.set("listen-port", str(port))
                flow.await_progress()
                endpoint = f"{ours.outer4}:{port}"
                wait_until(lambda: theirs.endpoint_of(ours) == endpoint, "the new endpoint")
        self.assertEqual(ping(theirs, ours.inner4).received, 3)

    @culvert_only
    def test_R39_the_same_listen_port_recreates_nothing(self) -> None:
        """The same sockets, by inode, and nothing lost."""
        pair = self.pair()
        pair.handshake()
        before = procfs.udp_sockets(pair.ours.pid)
        self.assertTrue(before)
        with Flow(pair.theirs, pair.ours, 0.004) as flow:
            for _ in range(20):
                pair.ours.set("listen-port", str(pair.ours.port))
            flow.await_progress()
        self.assertEqual(procfs.udp_sockets(pair.ours.pid), before)
        self.assertEqual(flow.lost, [])

    @quick
    def test_the_interface_down_and_up(self) -> None:
        """The configuration survives, the port stays the same, and traffic resumes."""
        pair = self.pair()
        pair.handshake()
        ours, theirs = pair.nodes
        ours.namespace.ip(f"link set {ours.interface} down")
        ours.namespace.ip(f"link set {ours.interface} up")
        self.assertEqual(ours.wg("show", ours.interface, "listen-port").strip(), str(ours.port))
        wait_until(lambda: ping(ours, theirs.inner4, 1).received, "an answer", 25)

    @culvert_only
    def test_a_downed_interface_closes_its_port(self) -> None:
        """As the kernel's WireGuard does: others may use the port meanwhile."""
        pair = self.pair()
        pair.handshake()
        ours = pair.ours
        ours.namespace.ip(f"link set {ours.interface} down")
        wait_until(lambda: not procfs.udp_sockets(ours.pid), "the port closed")
        ours.namespace.ip(f"link set {ours.interface} up")
        wait_until(lambda: procfs.udp_sockets(ours.pid), "the port open")


class DescriptorTests(InteropCase):
    def test_R27_a_thousand_reconfigurations_leak_no_descriptor(self) -> None:
        """Ports, marks, keys and peers, on one connection and on many."""
        node = self.node()
        node.start()
        node.bring_up()
        wait_until(lambda: procfs.udp_sockets(node.pid), "open sockets")
        node.set("listen-port", "41000")
        peers = [hexadecimal(KeyPair.generate().public) for _ in range(4)]
        private = hexadecimal(KeyPair.generate().private)
        self.reconfigure(node, peers, private, range(10))
        before = procfs.descriptors(node.pid)
        self.reconfigure(node, peers, private, range(1000))
        wait_until(
            lambda: len(procfs.descriptors(node.pid)) <= len(before),
            f"as few descriptors as before, {before} and now {procfs.descriptors(node.pid)}",
        )

    def reconfigure(self, node: Node, peers: list[str], private: str, numbers: range) -> None:
        connection = UAPIConnection(node.socket_path)
        for number in numbers:
            if number % 10 == 0:
                connection.socket.close()
                connection = UAPIConnection(node.socket_path)
            lines = [f"private_key={private}", f"listen_port={41000 + number % 50}"]
            lines += [f"fwmark={self.firewall_mark(number % 3)}", "replace_peers=true"]
            lines += [f"public_key={peers[number % 4]}", f"allowed_ip=10.{number % 200}.0.0/16"]
            self.assertEqual(connection.set(*lines), 0)
        connection.socket.close()

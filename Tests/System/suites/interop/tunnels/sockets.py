"""The UDP sockets: ports, families, source addresses, marks, failing sends, namespaces."""

import errno
import socket
import time

from harness import procfs
from harness.case import FAMILIES, ROLES, InteropCase, culvert_only, each, long, needs, quick
from harness.lab.control import UAPIConnection
from harness.lab.namespace import Namespace
from harness.lab.node import Node
from harness.lab.pair import Pair
from harness.traffic.capture import DATA, RESPONSE, Capture
from harness.traffic.flow import Flow
from harness.traffic.ping import ping
from harness.traffic.streams import transfer
from harness.waiting import wait_until

FLOOD_LINES = 20  # more log lines than this in two seconds is a flood
LOW, HIGH = 40000, 40009


class PortTests(InteropCase):
    def test_R22_a_port_free_in_one_family_only_is_not_taken(self) -> None:
        """Five of ten ports are in use in IPv6; the program always finds one that is free in both.

        Without another try, each of the eight choices would fail half of the time.
        """
        node = self.node()
        node.namespace.set_sysctl("net/ipv4/ip_local_port_range", f"{LOW} {HIGH}")
        taken = [node.namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(5)]
        for port, blocker in zip(range(LOW, HIGH, 2), taken):
            self.addCleanup(blocker.close)
            blocker.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            blocker.bind(("::", port))
        node.start()
        node.bring_up()
        wait_until(lambda: procfs.udp_sockets(node.pid), "open sockets")
        with UAPIConnection(node.socket_path) as uapi:
            for _ in range(8):
                self.assertEqual(uapi.set("listen_port=0"), 0)
                port = int(dict(uapi.get())["listen_port"])
                self.assertIn(port, range(LOW + 1, HIGH + 1, 2))
                self.assertEqual(len(procfs.udp_sockets(node.pid)), 2)

    def test_a_port_in_use_is_told_and_the_program_goes_on(self) -> None:
        """`wg set` fails with the reason; after another port is set, traffic passes."""
        pair = self.pair()
        pair.handshake()
        with pair.ours.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("0.0.0.0", 40100))
            command = ["wg", "set", pair.ours.interface, "listen-port", "40100"]
            result = pair.ours.namespace.attempt(*command)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("Address already in use", result.stderr)
        self.assertTrue(pair.ours.is_running)
        pair.ours.set("listen-port", "40101")
        pair.handshake(25)

    @culvert_only
    def test_a_refused_port_leaves_the_old_one_working(self) -> None:
        """The tunnel continues unchanged."""
        pair = self.pair()
        pair.handshake()
        with pair.ours.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("0.0.0.0", 40100))
            command = ["wg", "set", pair.ours.interface, "listen-port", "40100"]
            self.assertNotEqual(pair.ours.namespace.attempt(*command).returncode, 0)
            self.assertEqual(ping(pair.ours, pair.theirs.inner4).received, 3)
            port = pair.ours.wg("show", pair.ours.interface, "listen-port").strip()
            self.assertEqual(port, str(pair.ours.port))


class FamilyTests(InteropCase):
    @quick
    @each(role=ROLES)
    def test_R23_a_host_with_ipv6_disabled(self, role: str) -> None:
        """IPv4 works if IPv6 is disabled on all interfaces."""
        pair = self.pair(role, host_ipv6=False)
        pair.handshake()
        self.assertEqual(ping(pair.ours, pair.theirs.inner4).received, 3)
        pair.ours.set("listen-port", "51333")
        self.assertEqual(ping(pair.ours, pair.theirs.inner4).received, 3)


class SendErrorTests(InteropCase):
    @each(error=("ENETUNREACH", "EPERM", "EHOSTUNREACH"))
    def test_R20_failing_sends_are_survived(self, error: str) -> None:
        """All sends fail for two seconds; afterwards traffic passes as before."""
        pair = self.pair()
        pair.handshake()
        self.make_sends_fail(pair, error)
        ping(pair.ours, pair.theirs.inner4, count=100, wait=0.1)
        self.assertTrue(pair.ours.is_running)
        self.make_sends_work(pair, error)
        pair.handshake(25)

    @culvert_only
    @each(error=("ENETUNREACH", "EPERM", "EHOSTUNREACH"))
    def test_R20_failing_sends_are_no_log_flood(self, error: str) -> None:
        """Thousands of failing sends log only a few lines at the level of errors."""
        pair = self.pair(level="error")
        pair.handshake()
        lines = len(pair.ours.log.splitlines())
        self.make_sends_fail(pair, error)
        with Flow(pair.ours, pair.theirs, interval=0.001) as flow:
            time.sleep(2)
            wait_until(lambda: flow.sent > 10 * FLOOD_LINES, "enough sends to be a flood")
        self.assertLess(len(pair.ours.log.splitlines()) - lines, FLOOD_LINES)

    def make_sends_fail(self, pair: Pair, error: str) -> None:
        namespace = pair.ours.namespace
        if error == "ENETUNREACH":
            namespace.ip("route del 198.51.100.0/24")
        elif error == "EHOSTUNREACH":
            namespace.ip("route add unreachable 198.51.100.2/32")
        else:
            namespace.nft("""
                table inet f {
                    chain out {
                        type filter hook output priority 0;
                        oifname outer udp sport 51001 drop
                    }
                }
            """)

    def make_sends_work(self, pair: Pair, error: str) -> None:
        namespace = pair.ours.namespace
        if error == "ENETUNREACH":
            namespace.ip("route add 198.51.100.0/24 dev outer")
        elif error == "EHOSTUNREACH":
            namespace.ip("route del unreachable 198.51.100.2/32")
        else:
            namespace.run("nft", "delete", "table", "inet", "f")


class SourceAddressTests(InteropCase):
    @quick
    @culvert_only
    @each(outer=FAMILIES)
    def test_answers_come_from_the_address_addressed(self, outer: int) -> None:
        """A host with two addresses answers from the one that the initiator used.

        wireguard-go of 2022 does so, but that of 2025 does not over IPv4.
        """
        pair = self.pair("responder", outer=outer)
        ours, theirs = pair.nodes
        second = "198.51.100.99" if outer == 4 else "2001:db8::99"
        length = 24 if outer == 4 else "64 nodad"
        first = ours.outer4 if outer == 4 else ours.outer6
        # By default the kernel would choose a source address other than the one addressed.
        ours.namespace.ip(f"addr add {second}/{length} dev outer")
        self.prefer(ours, first, outer)
        endpoint = f"{second}:{ours.port}" if outer == 4 else f"[{second}]:{ours.port}"
        theirs.set("peer", ours.keys.public, "endpoint", endpoint)
        with Capture(theirs.namespace, "outer") as wire:
            pair.handshake()
            self.assertEqual(ping(ours, theirs.inner4).received, 3)
            self.assertEqual(ping(theirs, ours.inner6).received, 3)
            wait_until(lambda: wire.messages(DATA, second), "captured packets")
        self.assertTrue(wire.messages(RESPONSE, second))
        self.assertEqual(wire.messages(RESPONSE, first) + wire.messages(DATA, first), [])
        self.assertEqual(theirs.endpoint_of(ours), endpoint)

    def test_the_source_address_taken_away(self) -> None:
        """If the remembered source address is removed, another one is used."""
        pair = self.pair("responder")
        ours, theirs = pair.nodes
        ours.namespace.ip("addr add 198.51.100.99/24 dev outer")
        theirs.set("peer", ours.keys.public, "endpoint", f"198.51.100.99:{ours.port}")
        pair.handshake()
        ours.namespace.ip("addr del 198.51.100.99/24 dev outer")
        wait_until(lambda: ping(ours, theirs.inner4, 1).received, "an answer", 14)
        self.assertEqual(theirs.endpoint_of(ours), f"{ours.outer4}:{ours.port}")

    def prefer(self, node: Node, address: str, outer: int) -> None:
        prefix = "198.51.100.0/24" if outer == 4 else "2001:db8::/64"
        node.namespace.ip(f"route replace {prefix} dev outer src {address}")


class MarkTests(InteropCase):
    @quick
    @each(outer=FAMILIES)
    @needs("fwmark")
    def test_the_fwmark_chooses_the_route(self, outer: int) -> None:
        """Only marked packets have a route."""
        pair = self.pair(outer=outer)
        ours = pair.ours
        prefix = "198.51.100.0/24" if outer == 4 else "2001:db8::/64"
        family = f"-{outer}"
        ours.namespace.run("ip", family, "rule", "add", "fwmark", "77", "table", "77")
        ours.namespace.run("ip", family, "route", "add", prefix, "dev", "outer", "table", "77")
        ours.namespace.run("ip", family, "route", "del", prefix, "dev", "outer")
        self.assertEqual(ping(ours, pair.theirs.inner4, count=1, wait=0.5).received, 0)
        ours.set("fwmark", "77")
        pair.handshake(25)
        ours.set("listen-port", "51444")  # new sockets get the mark as well
        self.assertEqual(ping(ours, pair.theirs.inner4).received, 3)
        ours.set("fwmark", "0")
        self.assertEqual(ping(ours, pair.theirs.inner4, count=2, wait=0.5).received, 0)


class HostileTests(InteropCase):
    @quick
    def test_R37_rubbish_does_not_end_reception(self) -> None:
        """Datagrams of all lengths and types, and ICMP errors, then traffic as before."""
        pair = self.pair()
        pair.handshake()
        with pair.theirs.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as rubbish:
            target = (pair.ours.outer4, pair.ours.port)
            for length in (0, 1, 3, 4, 15, 16, 31, 32, 64, 92, 148, 149, 1400, 9000, 65000):
                for kind in range(6):
                    payload = bytes([kind, 0, 0, kind % 2])[:length].ljust(length, b"\xa5")
                    try:
                        rubbish.sendto(payload, target)
                    except OSError as error:
                        self.assertEqual(error.errno, errno.EMSGSIZE)
        # The peer's port is closed: our sends cause ICMP errors on our socket.
        pair.theirs.namespace.ip(f"link set {pair.theirs.interface} down")
        ping(pair.ours, pair.theirs.inner4, count=5, wait=0.1)
        pair.theirs.namespace.ip(f"link set {pair.theirs.interface} up")
        pair.handshake(25)


# The interface is moved into another namespace, which confines the programs there.


class NamespaceMoveTests(InteropCase):
    @long
    @each(role=ROLES)
    def test_the_outer_socket_stays_in_the_birth_namespace(self, role: str) -> None:
        """The other namespace contains only the tunnel, and wg(8) works from both."""
        pair = self.pair(role)
        pair.handshake()
        birth, confined = self.move(pair)
        self.assertEqual(confined.interfaces(), {"lo", pair.ours.interface})
        # Our end was down for a moment and may have forgotten the session. If the peer initiates,
        # it notices after 15 s without an answer (whitepaper 6.5).
        pair.handshake(40)
        for source, target in (pair.nodes, pair.nodes[::-1]):
            # The first packet of a family may be sent before its routes are complete.
            wait_until(lambda: ping(source, target.inner6, 1).received, "an answer over IPv6")
            self.assertEqual(ping(source, target.inner6).received, 3)
            transfer(source, target, target.inner4)
        for namespace in (birth, confined):
            shown = namespace.run("wg", "show", pair.ours.interface, "latest-handshakes")
            self.assertIn(pair.theirs.keys.public, shown)
        pair.ours.set("listen-port", "51222")
        self.assertEqual(ping(pair.ours, pair.theirs.inner4).received, 3)
        self.assertEqual(pair.theirs.endpoint_of(pair.ours), f"{pair.ours.outer4}:51222")

    def test_R25_deleted_where_it_was_moved_to(self) -> None:
        """The process ends although the interface is in another namespace."""
        pair = self.pair()
        _, confined = self.move(pair)
        confined.ip(f"link del {pair.ours.interface}")
        self.assertEqual(pair.ours.wait(), 0)
        self.assertEqual(pair.ours.leftovers(), [])

    def move(self, pair: Pair) -> tuple[Namespace, Namespace]:
        """(birth, confined) namespace, with our interface up in the latter."""
        birth, confined = pair.ours.namespace, self.lab.namespace("confined")
        birth.ip(f"link set {pair.ours.interface} netns {confined.name}")
        pair.ours.namespace = confined
        pair.ours.bring_up()
        return birth, confined

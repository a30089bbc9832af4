"""`culvert forward`: datagrams through a tunnel."""

import re
import subprocess

from harness.case import FAMILIES, culvert_only, each, quick
from harness.lab.forward import (
    Client,
    EchoServer,
    Forward,
    build_forward,
    build_nested,
)
from harness.lab.node import Node
from harness.waiting import wait_until
from suites.interop.forwarding.case import DNS, ECHO, ForwardCase

# The largest payload for the MTU of 1420, and one byte more.
WHOLE, IN_TWO = 1392, 1393
SIZES = (0, 1, 8, 1372, 1373, WHOLE, IN_TWO, 4000, 8000, 60_000)
LARGEST = 65_507


class NameServerTests(ForwardCase):
    """A real name server, dnsmasq, behind the tunnel, and dig in front of it."""

    def serve(self, node: Node) -> None:
        strings = ",".join(chr(ord("a") + number) * 250 for number in range(16))
        node.namespace.start(
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv",
            "--no-hosts", "--bind-interfaces", f"--listen-address={node.inner4},{node.inner6}",
            "--host-record=host.test,192.0.2.77,2001:db8::77", f"--txt-record=big.test,{strings}",
            "--edns-packet-max=4096", "--user=root", "--pid-file=", "--no-daemon",
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        wait_until(lambda: b":0035 " in self.udp_table(node), "a name server that listens")

    def udp_table(self, node: Node) -> bytes:
        return node.namespace.run("cat", "/proc/net/udp").encode()

    def dig(self, forward: Forward, listen: int, port: int, *words: str) -> str:
        server = "@127.0.0.1" if listen == 4 else "@::1"
        return forward.namespace.run(
            "dig", server, "-p", str(port), "+notcp", "+ignore", "+tries=3", "+time=5", *words
        )

    @quick
    @culvert_only
    @each(listen=FAMILIES, inner=FAMILIES)
    def test_dig_is_answered(self, listen: int, inner: int) -> None:
        """Over both families, and from one family to the other."""
        lab = self.lab_with((5353, DNS, listen, inner))
        self.serve(lab.theirs)
        answer = self.dig(lab.forward, listen, 5353, "+short", "host.test", "A")
        self.assertEqual(answer.strip(), "192.0.2.77")
        answer = self.dig(lab.forward, listen, 5353, "+short", "host.test", "AAAA")
        self.assertEqual(answer.strip(), "2001:db8::77")

    @quick
    @culvert_only
    @each(inner=FAMILIES)
    def test_dig_gets_4_KB(self, inner: int) -> None:
        """An answer that arrives in fragments."""
        lab = self.lab_with((5353, DNS, 4, inner))
        self.serve(lab.theirs)
        answer = self.dig(lab.forward, 4, 5353, "+bufsize=4096", "big.test", "TXT")
        self.assertNotIn(" tc", answer)
        size = int(re.search(r"MSG SIZE\s+rcvd: (\d+)", answer).group(1))
        self.assertGreater(size, 4000)
        for number in range(16):
            self.assertIn(chr(ord("a") + number) * 250, answer)
        self.assertEqual(lab.forward.counters()["forward-fragment-reassembled"], 1)

    @culvert_only
    def test_dig_through_two_tunnels(self) -> None:
        """A forward inside another tunnel (--through)."""
        lab = build_nested(self.lab, self.settings.program, self.settings.peer)
        lab.forward.start([lab.mapping(5353, DNS)], around=True)
        self.serve(lab.theirs)
        answer = self.dig(lab.forward, 4, 5353, "+short", "host.test", "A")
        self.assertEqual(answer.strip(), "192.0.2.77")
        answer = self.dig(lab.forward, 4, 5353, "+bufsize=4096", "big.test", "TXT")
        self.assertIn("p" * 250, answer)
        # Only the outer tunnel has a route to the peer.
        self.assertEqual(lab.theirs.endpoint_of(lab.forward).split(":")[0], "10.8.0.1")


class DatagramTests(ForwardCase):
    @quick
    @culvert_only
    @each(inner=FAMILIES)
    def test_all_sizes_both_ways(self, inner: int) -> None:
        """Whole up to the MTU of 1420, and in fragments above."""
        lab = self.lab_with((7000, ECHO, 4, inner))
        mapping = lab.mapping(7000, ECHO)
        with EchoServer(lab.theirs, ECHO, inner), Client(lab.forward, mapping) as client:
            for size in SIZES:
                self.check_echo(client, size)
            counters = lab.forward.counters()
        # The IPv6 header is 20 bytes larger, so two more sizes need fragments.
        large = 4 if inner == 4 else 6
        self.assertGreaterEqual(counters["forward-datagram-sent-in-fragments"], large)
        self.assertEqual(counters["forward-sent"], counters["forward-answered"])
        self.assertEqual(counters["flow-opened"], 1)

    @culvert_only
    def test_the_largest_datagram(self) -> None:
        lab = self.lab_with((7000, ECHO))
        with EchoServer(lab.theirs, ECHO), Client(lab.forward, lab.mapping(7000, 0)) as client:
            self.check_echo(client, LARGEST)

    @culvert_only
    def test_through_two_tunnels(self) -> None:
        lab = build_nested(self.lab, self.settings.program, self.settings.peer)
        lab.forward.start([lab.mapping(7000, ECHO)], around=True)
        with EchoServer(lab.theirs, ECHO), Client(lab.forward, lab.mapping(7000, 0)) as client:
            for size in (8, 1300, 4000, 60_000):
                self.check_echo(client, size)

    @culvert_only
    def test_beyond_the_slots_of_the_smallest_profile(self) -> None:
        """Answers larger than 2048 bytes are dropped and counted; the others pass."""
        lab = self.lab_with((7000, ECHO), options=("--profile", "tiny"))
        with EchoServer(lab.theirs, ECHO), Client(lab.forward, lab.mapping(7000, 0)) as client:
            self.check_echo(client, 2048 - 28)
            self.assertIsNone(client.ask(bytes(2048 - 27), seconds=1))
            self.check_echo(client, 100)
            counters = lab.forward.counters()
        self.assertEqual(counters["forward-sent"], 3)
        self.assertEqual(counters["forward-answered"], 2)

    @culvert_only
    def test_the_mtu_of_the_file_counts(self) -> None:
        lab = build_forward(self.lab, self.settings.program, self.settings.peer)
        forward = lab.forward
        path = forward.state / f"{forward.name}.conf"
        path.write_text(path.read_text().replace("[Peer]", "MTU = 1280\n\n[Peer]"))
        forward.start([lab.mapping(7000, ECHO)])
        with EchoServer(lab.theirs, ECHO), Client(forward, lab.mapping(7000, 0)) as client:
            self.check_echo(client, 1252)
            self.assertNotIn("forward-datagram-sent-in-fragments", forward.counters())
            self.check_echo(client, 1253)
            self.assertIn("forward-datagram-sent-in-fragments", forward.counters())

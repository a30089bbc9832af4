"""With any offloads at either end, data arrives unchanged, and the kernel counts no error.

The combinations are pairwise: some row contains any two choices. Each row transfers
INTEROP_MEGABYTES (default 16) by TCP; with 21, all rows together transfer a gigabyte.
"""

import os
import pathlib
import sys

from harness.case import InteropCase, culvert_only, each
from harness.lab.faults import Counters
from harness.lab.node import Node
from harness.lab.pair import End, Pair, build_tunnel
from harness.traffic import every_checksum
from harness.traffic.datagrams import datagrams, send_datagrams
from harness.traffic.offloads import pairwise
from harness.traffic.streams import stream

EVERY_CHECKSUM = pathlib.Path(every_checksum.__file__)
MEGABYTES = int(os.environ.get("INTEROP_MEGABYTES", "16"))
TUN = ("", "checksum", "checksum,tso", "checksum,tso,uso")
UDP = ("", "mmsg", "gso", "gro", "gso,gro")
MTUS, FAMILIES = (1280, 1420, 8920), (4, 6)
STYLES = ("mss88", "mss536", "writes")
COMMON = {"mtu": MTUS, "outer": FAMILIES, "inner": FAMILIES, "style": STYLES,
          "timestamps": (0, 1), "ecn": (0, 1), "segments": (False, True)}  # fmt: skip
BETWEEN_OURS = pairwise(tun=TUN, udp=UDP, their_tun=TUN, their_udp=UDP, **COMMON)
WITH_OTHERS = pairwise(tun=TUN, udp=UDP, **COMMON)
DATAGRAMS, DATAGRAM_RATE = 4000, 10_000
# TCP finds its speed by loss in the tunnel's queues; a larger share means loss in the tunnel.
MOST_RETRANSMITTED = 0.1
# With a smaller MSS wireguard-go drops large packets of the kernel: it has room for 128 segments.
PEERS_LEAST_MSS = 536
# One in a hundred of the datagrams with transport data.
LOSS = """
table inet loss {
  chain in {
    type filter hook input priority 0;
    udp dport 51001-51002 udp length > 200 numgen random mod 100 == 0 drop
  }
}
"""


def words(*lists: str) -> tuple[str, ...]:
    """Options for exactly these offloads."""
    wanted = ",".join(filter(None, lists))
    return ("--offload", wanted) if wanted else ("--no-offload",)


class ExactnessTests(InteropCase):
    @culvert_only
    @each(row=tuple(range(len(BETWEEN_OURS))))
    def test_bytes_between_two_of_ours(self, row: int) -> None:
        """Both ends with the offloads of the row."""
        choice = BETWEEN_OURS[row]
        theirs = words(choice["their_tun"], choice["their_udp"])
        self.check(choice, End(self.settings.program, theirs))

    @culvert_only
    @each(row=tuple(range(len(WITH_OTHERS))))
    def test_bytes_with_the_peer(self, row: int) -> None:
        """The other end is started as usual."""
        self.check(WITH_OTHERS[row], End(self.settings.peer))

    def check(self, choice: dict, theirs: End) -> None:
        ours = End(self.settings.program, words(choice["tun"], choice["udp"]))
        mtu = choice["mtu"]
        pair = build_tunnel(
            self.lab, ours, theirs, choice["outer"], mtu, outer_mtu=mtu + 80, psk=True
        )
        with self.subTest(**choice):
            for node in pair.nodes:
                node.namespace.set_sysctl("net/ipv4/tcp_timestamps", str(choice["timestamps"]))
                node.namespace.set_sysctl("net/ipv4/tcp_ecn", str(choice["ecn"]))
            before = [Counters.of(node.namespace) for node in pair.nodes]
            for source, target in (pair.nodes, pair.nodes[::-1]):
                self.check_streams(source, target, choice)
                self.check_datagrams(source, target, choice)
            self.check_counters(pair, before)

    def check_streams(self, source: Node, target: Node, choice: dict) -> None:
        address = target.inner4 if choice["inner"] == 4 else target.inner6
        stream(source, target, address, MEGABYTES << 19)
        style = choice["style"]
        if not source.program.is_culvert and style == "mss88":
            style = f"mss{PEERS_LEAST_MSS}"
        if style == "writes":
            stream(source, target, address, 1 << 20, write_up_to=3000, port=5302)
        else:
            stream(source, target, address, 1 << 20, int(style[3:]), port=5302)

    def check_datagrams(self, source: Node, target: Node, choice: dict) -> None:
        """Datagrams of all sizes up to the MTU; segmented sends have up to 64 KB."""
        address = target.inner4 if choice["inner"] == 4 else target.inner6
        largest = choice["mtu"] - (28 if choice["inner"] == 4 else 48)
        arrivals = send_datagrams(
            source, target, address, DATAGRAMS, sizes=(16, largest), rate=DATAGRAM_RATE,
            segments=choice["segments"], gro=choice["segments"])  # fmt: skip
        self.assertEqual((arrivals.changed, arrivals.doubled), (0, 0), arrivals)
        self.assertGreater(arrivals.received, DATAGRAMS / 2, arrivals)

    @culvert_only
    @each(inner=FAMILIES)
    def test_bytes_over_a_link_that_loses(self, inner: int) -> None:
        """Segments with a gap between them are not joined; TCP retransmits what is missing.

        Without gso, because the link would lose all datagrams of one call.
        """
        end = End(self.settings.program, words("checksum,tso,uso", "mmsg"))
        pair = build_tunnel(self.lab, end, end)
        for node in pair.nodes:
            node.namespace.nft(LOSS)
        for source, target in (pair.nodes, pair.nodes[::-1]):
            before = Counters.of(source.namespace)
            stream(source, target, target.inner4 if inner == 4 else target.inner6, 4 << 20)
            counted = Counters.of(source.namespace).since(before)
            self.assertGreater(counted["Tcp.RetransSegs"], 10)
            self.assertEqual(counted.wrong, {})

    @culvert_only
    def test_packets_with_ip_options_between_others(self) -> None:
        """They are neither split nor joined, and other packets do not change."""
        end = End(self.settings.program)
        pair = build_tunnel(self.lab, end, end)
        before = [Counters.of(node.namespace) for node in pair.nodes]
        for source, target in (pair.nodes, pair.nodes[::-1]):
            with datagrams(
                source, target, target.inner4, DATAGRAMS, (16, 1372), DATAGRAM_RATE, ip_options=True
            ) as running:
                stream(source, target, target.inner4, 8 << 20)
                arrivals = running.finish()
            self.assertEqual((arrivals.changed, arrivals.doubled), (0, 0), arrivals)
            self.assertGreater(arrivals.received, DATAGRAMS / 2, arrivals)
        self.check_counters(pair, before)

    @each(outer=FAMILIES)
    def test_a_checksum_of_zero_is_written_as_its_other_form(self, outer: int) -> None:
        """Over IPv6 a UDP checksum of zero is an error (RFC 8200 section 8.1)."""
        end = End(self.settings.program)
        pair = build_tunnel(self.lab, end, end, outer)
        for source, target in (pair.nodes, pair.nodes[::-1]):
            before = Counters.of(target.namespace)
            source.namespace.run(sys.executable, "-B", str(EVERY_CHECKSUM), target.inner6, "9999")
            counted = Counters.of(target.namespace).since(before)
            self.assertEqual(counted.wrong, {})

    def check_counters(self, pair: Pair, before: list[Counters]) -> None:
        for node, other, earlier in zip(pair.nodes, pair.nodes[::-1], before):
            counted = Counters.of(node.namespace).since(earlier)
            wrong = counted.wrong
            # One UDP checksum in 65,536 is computed as zero. wireguard-go leaves it so when it
            # splits segments, which IPv6 forbids.
            if not other.program.is_culvert and wrong.get("Udp6InCsumErrors", 0) <= 3:
                wrong.pop("Udp6InCsumErrors", None)
            self.assertEqual(wrong, {}, f"{node.role}: packets that were wrong")
            self.assertLess(counted.retransmitted_share, MOST_RETRANSMITTED, node.role)

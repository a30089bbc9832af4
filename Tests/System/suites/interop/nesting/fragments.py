"""Fragmented datagrams of an inner tunnel are reassembled, even during a flood."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

from harness import procfs
from harness.case import (
    FAMILIES,
    IPV4_AND_ICMP,
    IPV6_AND_ICMP,
    NestingCase,
    culvert_only,
    each,
    heavy,
)
from harness.lab.chain import REASSEMBLED, Chain
from harness.lab.namespace import join
from harness.traffic import fragment_flood
from harness.traffic.capture import Capture, Packet
from harness.traffic.datagrams import datagrams
from harness.waiting import wait_until

SERVERS_MTU = 1420  # of the servers' own interfaces
FULL = SERVERS_MTU - IPV4_AND_ICMP
DATAGRAMS, SIZES = 600, (1340, FULL)  # too large for 1420 bytes when sealed
SMALL_LINKS = {"ipv4_576": (4, 576), "ipv4_1280": (4, 1280), "ipv6_1280": (6, 1280)}


class FragmentCase(NestingCase):
    def check_put_together(self, chain: Chain) -> None:
        """Large datagrams of the exit arrive, and each had to be reassembled."""
        self.await_large(chain.exit, chain.client, FULL)
        before = chain.reassembled
        self.check_arrivals(self.send(chain.exit, chain.client, DATAGRAMS, SIZES))
        self.assertGreaterEqual(chain.reassembled - before, DATAGRAMS)

    def fragments(self, wire: Capture, source: str) -> list[Packet]:
        return [it for it in list(wire.packets) if it.is_fragment and it.source == source]


class LinkTests(FragmentCase):
    @each(link=tuple(SMALL_LINKS), server=("peer", "program"))
    def test_a_link_too_small_for_the_datagrams(self, link: str, server: str) -> None:
        """Between the servers: both ends receive fragments.

        Over IPv4 the entry fragments the client's datagrams, over IPv6 the client has to.
        """
        family, mtu = SMALL_LINKS[link]
        program = getattr(self.settings, server)
        chain = self.chain(4, family, mtus=(1500, mtu), server=program)
        largest = chain.shape.tunnel_mtus[-1] - IPV6_AND_ICMP
        with Capture(chain.exit.namespace, "outer") as leg:
            self.check_put_together(chain)
            self.await_large(chain.client, chain.exit, largest)
            self.check_arrivals(self.send(chain.client, chain.exit, DATAGRAMS, (1200, largest)))
        for node in (chain.exit, chain.client):
            address = node.outer4 if family == 4 else node.outer6
            self.assertGreater(len(self.fragments(leg, address)), DATAGRAMS, node.role)
        before = chain.reassembled
        self.check_bytes(chain)
        self.assertGreater(chain.reassembled, before)

    @each(exit=FAMILIES)
    def test_packets_larger_than_the_tunnel_before(self, exit: int) -> None:
        """Even with ordinary links, if the exit sends packets of its own MTU."""
        chain = self.chain(4, exit, large=True)
        self.check_put_together(chain)
        self.check_bytes(chain)

    @each(mtu=(1280, 576))
    def test_fragments_that_a_router_makes(self, mtu: int) -> None:
        """The entry fragments the packets that it sends into its tunnel, as the exit allows."""
        chain = self.chain(large=True)
        chain.exit.namespace.set_sysctl("net/ipv4/ip_no_pmtu_disc", "1")
        chain.exit.set("listen-port", "0")  # new sockets use the setting
        chain.exit.set("listen-port", str(chain.exit.port))
        chain.entry.namespace.ip(f"link set {chain.entry.interface} mtu {mtu}")
        with Capture(chain.exit.namespace, "outer") as leg:
            self.check_put_together(chain)
        self.assertEqual(self.fragments(leg, chain.exit.outer4), [])
        self.check_bytes(chain)


class DeepTests(FragmentCase):
    @culvert_only
    def test_each_hop_puts_together_its_own(self) -> None:
        """Large packets are fragmented for the second tunnel, and its datagrams for a link."""
        chain = self.chain(4, 4, 4, mtus=(1500, 1280, 1500))
        self.check_put_together(chain)
        counters = chain.client.counters()
        counts = [counters.get((end.interface, REASSEMBLED), 0) for end in chain.ends]
        # The kernel itself reassembles the outermost tunnel's datagrams.
        self.assertEqual(counts[0], 0)
        self.assertGreaterEqual(min(counts[1:]), DATAGRAMS)

    def test_ipv6_through_four_hops(self) -> None:
        """Its packets are larger than the outer MTU: all large ones are fragmented."""
        chain = self.chain(4, 4, 4, 4, large=True, ipv6=True)
        self.await_large(chain.client, chain.exit, 1280 - IPV6_AND_ICMP)
        self.await_large(chain.exit, chain.client, 1280 - IPV6_AND_ICMP)
        before = chain.reassembled
        self.check_bytes(chain)
        self.assertGreater(chain.reassembled, before)

    def test_nothing_is_put_together_where_all_fits(self) -> None:
        """With the MTU that is derived from the hops no datagram is fragmented."""
        chain = self.chain()
        self.check_bytes(chain)
        wait_until(lambda: chain.client.latest_handshake(chain.exit), "a handshake")
        self.assertEqual(chain.reassembled, 0)


# A flood of fragments of incomplete datagrams, from behind the entry (F1, F4).
#
# INTEROP_FLOOD_SECONDS sets its duration (default 10).

PROGRAM = pathlib.Path(fragment_flood.__file__)
SECONDS = float(os.environ.get("INTEROP_FLOOD_SECONDS", "10"))
SMALLEST_LINK = {4: 576, 6: 1280}
FLOOD_SIZES = (1200, 1300)  # of datagrams that arrive in fragments over either family
# Datagrams per second that the rest of the path forwards without loss; the kernel's own reassembly
# is the limit.
PACED = 5000
SLOW = 300  # datagrams a second beside a flood at full speed
FRAGMENT_TIMEOUT = 30  # seconds, RFC 791
MEMORY_NOISE = 64 << 10  # bytes; a few pages that are touched for the first time
# The entry sends packets of the exit first, because its queues are not under test.
EXIT_FIRST = """
table inet flood {
  chain forward {
    type filter hook forward priority 0
    iifname onward meta priority set 0:6
  }
}
"""


class FloodTests(NestingCase):
    @heavy
    @culvert_only
    def test_F1_F4_a_flood_takes_no_memory_and_starves_nobody(self) -> None:
        """At full speed many of the exit's datagrams still arrive; afterwards all do, immediately.

        At a fifth of that rate, Linux itself no longer reassembles anything.
        """
        chain = self.fragmented(4)
        pid, count = chain.client.pid, int(SLOW * SECONDS)
        ends = chain.exit, chain.client, chain.client.inner4
        with self.flood(chain, "stranger", SECONDS + 1) as running:
            time.sleep(1)
            memory = procfs.anonymous_memory(pid)
            with datagrams(*ends, count, FLOOD_SIZES, SLOW) as legitimate:
                told, _ = running.communicate(timeout=SECONDS + 60)
                self.assertLess(procfs.anonymous_memory(pid) - memory, MEMORY_NOISE)
                arrivals = legitimate.finish()
        self.assertGreater(int(told), 2000 * SECONDS, "fragments in the flood")
        self.check_evicted(chain, int(told) // 20)
        self.assertEqual((arrivals.changed, arrivals.doubled), (0, 0), arrivals)
        self.assertGreater(arrivals.received, 0.2 * count, arrivals)
        longest = max((lost for _, lost in arrivals.lost), default=0)
        self.assertLess(longest, FRAGMENT_TIMEOUT * SLOW, arrivals)
        self.await_after(chain)

    @heavy
    @culvert_only
    @each(exit=FAMILIES, source=("stranger", "exit", "random"))
    def test_F4_a_flood_beside_a_transfer(self, exit: int, source: str) -> None:
        """From one address, from the exit's address, forged, and from random addresses."""
        chain = self.fragmented(exit)
        before = chain.reassembled
        with self.flood(chain, source, 30, PACED) as running:
            time.sleep(0.5)
            self.check_share(chain, 1000, 0.8)
            self.check_bytes(chain, 1 << 18)
            self.assertIsNone(running.poll(), "the flood went on meanwhile")
        self.assertGreater(chain.reassembled - before, 800)
        self.check_evicted(chain, PACED // 2)
        self.await_after(chain)

    def fragmented(self, exit: int) -> Chain:
        """A chain in which the exit's datagrams arrive in fragments."""
        chain = self.chain(4, exit, mtus=(1500, SMALLEST_LINK[exit]))
        self.await_large(chain.exit, chain.client, FLOOD_SIZES[1])
        self.check_bytes(chain, 1 << 18)
        return chain

    def check_share(self, chain: Chain, count: int, least: float) -> None:
        """At least this share arrives; the best of three, because a busy machine loses some."""
        best = 0
        for _ in range(3):
            arrivals = self.send(chain.exit, chain.client, count, FLOOD_SIZES)
            self.assertEqual((arrivals.changed, arrivals.doubled), (0, 0), arrivals)
            best = max(best, arrivals.received)
            if best > least * count:
                break
        self.assertGreater(best, least * count, "datagrams that arrived")

    def await_after(self, chain: Chain) -> None:
        """Fragments that the flood left in the slots cause no loss.

        The exception is one identification in a thousand, if the flood had the exit's own address.
        """
        for source, target in self.ways(chain):
            self.await_large(source, target, FLOOD_SIZES[1])

    def check_evicted(self, chain: Chain, least: int) -> None:
        """The flood has reached the reassembler."""
        self.assertGreater(chain.client.count("fragment-evicted"), least)

    @contextlib.contextmanager
    def flood(
        self, chain: Chain, source: str, seconds: float, rate: float = 0
    ) -> Iterator[subprocess.Popen]:
        """Fragments to the client's address in the outer tunnel, from a host beside the entry.

        `source` is their source address; `rate` is in datagrams per second, 0 is unlimited.
        """
        entry, stranger = chain.entry.namespace, self.lab.namespace("stranger")
        join(entry, stranger, "stranger", "outer")
        for namespace, side, name in ((entry, 1, "stranger"), (stranger, 2, "outer")):
            namespace.ip(
                f"addr add 203.0.113.{side}/24 dev {name}",
                f"addr add 2001:db8:203::{side}/64 dev {name} nodad",
            )
        stranger.ip("route add default via 203.0.113.1", "route add default via 2001:db8:203::1")
        entry.nft(EXIT_FIRST)
        is_ipv4 = chain.shape.families[-1] == 4
        target = chain.client.outer4 if is_ipv4 else chain.client.outer6
        senders = {
            "stranger": "203.0.113.2" if is_ipv4 else "2001:db8:203::2",
            "exit": chain.exit.outer4 if is_ipv4 else chain.exit.outer6,
            "random": "random",
        }
        words = (str(PROGRAM), target, senders[source], str(seconds), str(rate))
        running = stranger.start(
            sys.executable, "-B", *words, stdout=subprocess.PIPE, text=True)  # fmt: skip
        try:
            yield running
        finally:
            running.kill()
            running.wait()
            running.stdout.close()

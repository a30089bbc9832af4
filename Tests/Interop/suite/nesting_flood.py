"""A flood of fragments that never make a datagram, from behind the entry (F1, F4).

INTEROP_FLOOD_SECONDS (10) says how long it lasts.
"""

import contextlib
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

from harness import fragment_flood, procfs
from harness.case import FAMILIES, culvert_only, each, heavy
from harness.chain import Chain
from harness.datagrams import datagrams
from harness.namespace import join
from harness.nesting_case import NestingCase

PROGRAM = pathlib.Path(fragment_flood.__file__)
SECONDS = float(os.environ.get("INTEROP_FLOOD_SECONDS", "10"))
SMALLEST_LINK = {4: 576, 6: 1280}
SIZES = (1200, 1300)  # of datagrams that come in fragments over either
# Datagrams a second that the rest of the way carries without loss; the kernel's own reassembly
# stops at as many.
PACED = 5000
SLOW = 300  # datagrams a second beside a flood that takes what it can
FRAGMENT_TIMEOUT = 30  # seconds, RFC 791
MEMORY_NOISE = 64 << 10  # bytes; a few pages that are touched for the first time
# What the entry forwards from the exit goes first, so that its queues are not what is tested.
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
        """As many as go: of the exit's datagrams still many arrive, and at the end all at once.

        Linux itself puts nothing together any more at a fifth of that rate.
        """
        chain = self.fragmented(4)
        pid, count = chain.client.pid, int(SLOW * SECONDS)
        ends = chain.exit, chain.client, chain.client.inner4
        with self.flood(chain, "stranger", SECONDS + 1) as running:
            time.sleep(1)
            memory = procfs.anonymous_memory(pid)
            with datagrams(*ends, count, SIZES, SLOW) as legitimate:
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
        """From one address, from the exit's own, forged, and from another with each datagram."""
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
        """A chain where what the exit sends comes in fragments."""
        chain = self.chain(4, exit, mtus=(1500, SMALLEST_LINK[exit]))
        self.await_large(chain.exit, chain.client, SIZES[1])
        self.check_bytes(chain, 1 << 18)
        return chain

    def check_share(self, chain: Chain, count: int, least: float) -> None:
        """Of large datagrams so many arrive; the best of three, for a busy machine loses some."""
        best = 0
        for _ in range(3):
            arrivals = self.send(chain.exit, chain.client, count, SIZES)
            self.assertEqual((arrivals.changed, arrivals.doubled), (0, 0), arrivals)
            best = max(best, arrivals.received)
            if best > least * count:
                break
        self.assertGreater(best, least * count, "datagrams that arrived")

    def await_after(self, chain: Chain) -> None:
        """What the flood has left in the slots stands in nobody's way.

        But for one identification in a thousand, where it carried the exit's own address.
        """
        for source, target in self.ways(chain):
            self.await_large(source, target, SIZES[1])

    def check_evicted(self, chain: Chain, least: int) -> None:
        """The flood did reach the reassembler."""
        self.assertGreater(chain.client.count("fragment-evicted"), least)

    @contextlib.contextmanager
    def flood(
        self, chain: Chain, source: str, seconds: float, rate: float = 0
    ) -> Iterator[subprocess.Popen]:
        """Fragments to the client's address in the outer tunnel, from a host beside the entry.

        `source` says which address they carry; `rate` is datagrams a second, 0 as many as go.
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

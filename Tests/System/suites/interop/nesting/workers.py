"""Several workers carry packets through all hops as correctly as one, despite changes at each hop.

See also tunnels/workers.py.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable

from harness import procfs
from harness.case import NestingCase, culvert_only, each, heavy
from harness.lab.chain import Chain
from harness.lab.control import EVERYTHING
from harness.lab.node import KeyPair, NestedNode, preshared_key
from harness.traffic.datagrams import datagrams
from harness.traffic.streams import stream

WORKERS = ("--workers", "4")
ALLOWED = EVERYTHING.replace(" ", "")
# With "fragments", a small leg fragments the exit's datagrams, and the client fragments its own.
LEG_MTU, INNER_MTU = 576, 2000
DATAGRAMS, SIZES, RATE = 30_000, (64, 1390), 4000
LATE = DATAGRAMS // 1000
RECONFIGURED = 5.0  # seconds
PAUSE = 0.05


class NestedWorkersTests(NestingCase):
    @culvert_only
    @heavy
    @each(size=("whole", "fragments"))
    def test_a_flow_stays_in_order(self, size: str) -> None:
        """In both directions at once, beside TCP."""
        chain = self.with_workers(size)
        with self.traffic(chain) as flows:
            for running in flows:
                arrivals = running.finish()
                self.assertEqual((arrivals.changed, arrivals.doubled), (0, 0), arrivals)
                # Each of two CPUs has its own forwarding queue, so a few may be late; without
                # ordering, thousands would be.
                self.assertLess(arrivals.late, LATE, arrivals)
                self.assertGreater(arrivals.received, DATAGRAMS // 20, arrivals)

    @culvert_only
    @heavy
    @each(size=("whole", "fragments"))
    def test_changes_of_each_hop_while_traffic_flows(self, size: str) -> None:
        """Peers, allowed IPs, keys and ports every 50 ms, and `wg show` beside them."""
        chain = self.with_workers(size)
        before = len(procfs.descriptors(chain.client.pid))
        with self.traffic(chain) as flows:
            self.during(RECONFIGURED, self.changes(chain))
            for running in flows:
                arrivals = running.finish()
                self.assertEqual((arrivals.changed, arrivals.doubled), (0, 0), arrivals)
                self.assertGreater(arrivals.received, DATAGRAMS // 50, arrivals)
        chain.handshake()
        self.check_answers(chain)
        self.assertLessEqual(len(procfs.descriptors(chain.client.pid)), before)

    @culvert_only
    @heavy
    def test_sessions_that_are_made_anew_while_traffic_flows(self) -> None:
        """The peer of each hop is removed, with its fragments, and added again."""
        chain = self.with_workers("fragments")
        with self.traffic(chain) as flows:
            self.during(RECONFIGURED, self.renewals(chain), pause=0.3)
            for running in flows:
                arrivals = running.finish()
                self.assertEqual((arrivals.changed, arrivals.doubled), (0, 0), arrivals)
        chain.handshake()
        self.check_answers(chain)

    @culvert_only
    @heavy
    def test_the_end_comes_while_traffic_flows(self) -> None:
        chain = self.with_workers("fragments")
        with self.traffic(chain, least_bytes=0):
            time.sleep(1)
            self.assertEqual(chain.client.stop(), 0)
            self.assertEqual(chain.client.leftovers(), [])

    def with_workers(self, size: str) -> Chain:
        """A client with four workers."""
        if size == "whole":
            return self.chain(options=WORKERS)
        lines = {"interface": (f"MTU = {INNER_MTU}",)}
        chain = self.chain(options=WORKERS, mtus=(1500, LEG_MTU), lines=lines)
        for source, target in self.ways(chain):
            self.await_large(source, target, INNER_MTU - 100)
        return chain

    @contextlib.contextmanager
    def traffic(self, chain: Chain, least_bytes: int = 1 << 20):
        """Datagrams both ways, beside TCP of both families; yields the two flows of datagrams."""
        failures, threads = [], []

        def run(source, target) -> None:
            try:
                stream(source, target, target.inner6, least_bytes)
            except Exception as error:
                failures.append(error)

        if least_bytes:
            threads = [threading.Thread(target=run, args=way) for way in self.ways(chain)[:1]]
        client, exit = chain.client, chain.exit
        there = datagrams(client, exit, exit.inner4, DATAGRAMS, SIZES, RATE)
        back = datagrams(exit, client, client.inner4, DATAGRAMS, SIZES, RATE)
        with there as first, back as second:
            for thread in threads:
                thread.start()
            try:
                yield first, second
            finally:
                for thread in threads:
                    thread.join()
        self.assertEqual(failures, [])

    # Changes

    def during(self, seconds: float, changes, pause: float = PAUSE) -> None:
        end = time.monotonic() + seconds
        for change in changes:
            change()
            time.sleep(pause)
            if time.monotonic() > end:
                break

    def changes(self, chain: Chain):
        """Changes one after the other, at alternating hops."""
        stranger = KeyPair.generate().public
        for number in itertools.count():
            for end, server in zip(chain.ends, chain.servers):
                known = ("peer", server.keys.public)
                allowed = f"{ALLOWED},10.66.{number % 250}.0/24"
                yield self.setting(end, "peer", stranger, "allowed-ips", "10.77.0.0/16")
                yield self.setting(end, *known, "allowed-ips", allowed)
                yield self.setting(end, *known, "persistent-keepalive", str(1 + number % 60))
                yield lambda end=end: end.wg("show", end.interface, "dump")
                yield self.setting(end, "peer", stranger, "remove")
                yield lambda end=end, server=server: self.change_preshared_key(end, server)
                yield self.setting(end, "listen-port", str(41000 + number % 1000))
            yield chain.client.counters

    def renewals(self, chain: Chain):
        for number in itertools.cycle(range(len(chain.servers))):
            end, server = chain.ends[number], chain.servers[number]
            yield lambda number=number, end=end, server=server: self.renew(
                chain, number, end, server
            )

    def renew(self, chain: Chain, number: int, end: NestedNode, server) -> None:
        """A single change, so that the last one does not leave the hop without its peer."""
        end.set("peer", server.keys.public, "remove")
        time.sleep(0.3)
        end.add_peer(server, chain.endpoint(number), ALLOWED, chain.preshared[number])

    def setting(self, end: NestedNode, *words: str) -> Callable[[], None]:
        return lambda: end.set(*words)

    def change_preshared_key(self, end, server) -> None:
        key = preshared_key()
        for node, other in ((end, server), (server, end)):
            node.set("peer", other.keys.public, secrets={"preshared-key": key})

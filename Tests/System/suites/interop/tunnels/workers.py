"""Several workers carry packets as correctly as one: in order, during changes, to a clean end.

`Tests/System/run sanitize` runs this file with a program under the thread sanitizer. After a
finding the program exits with status 66, which fails the test.
"""

import contextlib
import itertools
import threading
import time

from harness import procfs
from harness.case import InteropCase, culvert_only, each, heavy
from harness.lab.node import KeyPair, Node
from harness.lab.pair import End, Pair, build_tunnel
from harness.traffic.datagrams import Arrivals, datagrams
from harness.traffic.ping import ping
from harness.traffic.streams import stream
from harness.waiting import wait_until

WORKERS = ("--workers", "4")
# Which of our ends a datagram passes.
ROUTES = ("both", "sending", "receiving")
WAYS = {"all": (), "plain": ("--no-offload",), "mmsg": ("--offload", "mmsg")}
DATAGRAMS, SIZES = 50_000, (64, 1392)
RECONFIGURED = 4.0  # seconds
PAUSE = 0.05


class WorkersCase(InteropCase):
    def tunnel(self, route: str = "both", way: str = "all") -> Pair:
        """Our ends with four workers; `route` names the ends that are ours."""
        ours = End(self.settings.program, (*WORKERS, *WAYS[way]))
        theirs = ours if route == "both" else End(self.settings.peer)
        return build_tunnel(self.lab, ours, theirs)

    @contextlib.contextmanager
    def streaming(self, source: Node, target: Node, megabytes: int = 16):
        """A TCP flow while the block runs; it must arrive unchanged."""
        failures = []

        def run() -> None:
            try:
                stream(source, target, target.inner6, megabytes << 20)
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            thread.join()
        self.assertEqual(failures, [])

    def check_order(self, arrivals: Arrivals, least: int) -> None:
        """Datagrams may be lost, but not changed, doubled or late."""
        wrong = arrivals.changed, arrivals.doubled, arrivals.late
        self.assertEqual(wrong, (0, 0, 0), f"changed, doubled, late: {arrivals}")
        self.assertGreater(arrivals.received, least, arrivals)


class OrderTests(WorkersCase):
    @culvert_only
    @heavy
    @each(route=ROUTES, way=tuple(WAYS))
    def test_a_flow_stays_in_order(self, route: str, way: str) -> None:
        """As much UDP as possible, of all sizes, in both directions, beside TCP."""
        pair = self.tunnel(route, way)
        ends = pair.nodes[::-1] if route == "receiving" else pair.nodes
        with self.streaming(*ends), datagrams(*ends, ends[1].inner4, DATAGRAMS, SIZES) as there:
            self.check_order(there.finish(), DATAGRAMS // 20)
        if route == "both":
            with datagrams(*ends[::-1], ends[0].inner6, DATAGRAMS, SIZES) as back:
                self.check_order(back.finish(), DATAGRAMS // 20)

    @culvert_only
    @heavy
    @each(route=ROUTES)
    def test_segments_stay_in_order(self, route: str) -> None:
        """Segments as an application sends them, and receives them joined."""
        pair = self.tunnel(route)
        ends = pair.nodes[::-1] if route == "receiving" else pair.nodes
        with datagrams(
            *ends, ends[1].inner4, DATAGRAMS, (64, 1372), segments=True, gro=True
        ) as there:
            self.check_order(there.finish(), DATAGRAMS // 20)


class ChangeTests(WorkersCase):
    @culvert_only
    @heavy
    def test_changes_while_traffic_flows(self) -> None:
        """Peers, allowed IPs and keepalives every 50 ms, alternately at both ends."""
        pair = self.tunnel()
        before = [self.descriptors(node) for node in pair.nodes]
        with datagrams(*pair.nodes, pair.theirs.inner4, 60_000, SIZES, rate=15_000) as there:
            with datagrams(*pair.nodes[::-1], pair.ours.inner6, 60_000, SIZES, 15_000) as back:
                with self.streaming(*pair.nodes, megabytes=16):
                    self.change(pair, self.peer_changes(pair))
                self.check_order(there.finish(), 6_000)
                self.check_order(back.finish(), 6_000)
        self.check_after(pair, before)

    @culvert_only
    @heavy
    def test_ports_that_change_while_traffic_flows(self) -> None:
        """The sockets are replaced every 50 ms; afterwards everything works as before."""
        pair = self.tunnel()
        before = [self.descriptors(node) for node in pair.nodes]
        with datagrams(*pair.nodes, pair.theirs.inner4, 60_000, SIZES, rate=15_000) as there:
            with datagrams(*pair.nodes[::-1], pair.ours.inner6, 60_000, SIZES, 15_000) as back:
                self.change(pair, self.port_changes(pair))
                for running in (there, back):
                    arrivals = running.finish()
                    self.assertEqual((arrivals.changed, arrivals.doubled), (0, 0), arrivals)
                    self.assertGreater(arrivals.received, 3_000, arrivals)
        self.check_after(pair, before)

    @culvert_only
    @heavy
    def test_sessions_that_are_made_anew_while_traffic_flows(self) -> None:
        """A peer that is removed and added again establishes a new session."""
        pair = self.tunnel()
        with datagrams(*pair.nodes, pair.theirs.inner4, 60_000, SIZES, rate=15_000) as there:
            for _ in range(10):
                pair.ours.set("peer", pair.theirs.keys.public, "remove")
                pair.ours.add_peer(pair.theirs, pair.theirs.endpoint())
                time.sleep(0.3)
            arrivals = there.finish()
            self.assertEqual((arrivals.changed, arrivals.doubled), (0, 0), arrivals)
            self.assertGreater(arrivals.received, 3_000, arrivals)
        pair.handshake()

    @culvert_only
    def test_the_end_comes_while_traffic_flows(self) -> None:
        """SIGTERM under full traffic: status 0, nothing left behind."""
        pair = self.tunnel()
        with datagrams(*pair.nodes, pair.theirs.inner4, 10**6, SIZES):
            with datagrams(*pair.nodes[::-1], pair.ours.inner6, 10**6, SIZES):
                time.sleep(1)
                for node in pair.nodes:
                    self.assertEqual(node.stop(), 0)
                    self.assertEqual(node.leftovers(), [])

    def change(self, pair: Pair, changes) -> None:
        end = time.monotonic() + RECONFIGURED
        for node, words in changes:
            node.set(*words)
            time.sleep(PAUSE)
            if time.monotonic() > end:
                break

    def peer_changes(self, pair: Pair):
        """A stranger is added and removed, and the other end's addresses are set repeatedly."""
        stranger = KeyPair.generate().public
        for number in itertools.count():
            node, other = pair.nodes if number % 2 else pair.nodes[::-1]
            known = ("peer", other.keys.public)
            allowed = f"{other.allowed_ips},10.66.{number % 250}.0/24"
            yield node, ("peer", stranger, "allowed-ips", "10.77.0.0/16")
            yield node, (*known, "allowed-ips", allowed)
            yield node, (*known, "persistent-keepalive", str(1 + number % 60))
            yield node, ("peer", stranger, "remove")

    def port_changes(self, pair: Pair):
        for number in itertools.count():
            yield pair.ours, ("listen-port", str(51100 + number % 20))
            # Set explicitly: both ends may change at once, and then neither could find the other.
            endpoint = f"{pair.ours.outer4}:{51100 + number % 20}"
            yield pair.theirs, ("peer", pair.ours.keys.public, "endpoint", endpoint)

    def descriptors(self, node: Node) -> int:
        return len(procfs.descriptors(node.pid))

    def check_after(self, pair: Pair, before: list[int]) -> None:
        for node, count in zip(pair.nodes, before):
            wait_until(lambda: self.descriptors(node) <= count, "as few descriptors as before")
        for source, target in (pair.nodes, pair.nodes[::-1]):
            wait_until(lambda: ping(source, target.inner4).received == 3, "three answers")

"""Hubs: thousands of peers, floods of handshakes, and what other peers notice of them."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator

from harness.case import InteropCase, culvert_only, heavy
from harness.handshakes.initiation_flood import InitiationFlood
from harness.handshakes.initiator import COOKIE_REPLY, RESPONSE, Initiator, await_answer
from harness.lab.control import UAPIConnection
from harness.lab.pair import Pair
from harness.traffic.ping import PingResult, ping
from harness.traffic.streams import iperf

ATTEMPTS = 3  # another program may take the machine's processors away at any moment
SILENT, SILENT_NETWORK = 2000, "203.0.113"
P99, WORST = 5, 50  # milliseconds
FLOOD = 100_000  # messages per second
ENOUGH = 0.9  # of the initiations of a client with a cookie
KEPT = 0.6  # of the throughput beside the same flood to a closed port


class SlowMachineError(Exception):
    """The machine was too busy to send a flood, so that nothing was measured."""


class HubCase(InteropCase):
    def on_a_quiet_machine(self, measure: Callable[[], None]) -> None:
        """Run a measurement that asserts, again if it fails."""
        for attempt in range(ATTEMPTS):
            try:
                return measure()
            except (AssertionError, SlowMachineError) as error:
                if attempt == ATTEMPTS - 1:
                    if isinstance(error, SlowMachineError):
                        self.skipTest(str(error))
                    raise
                print(f"{self._testMethodName}: again after {error}", flush=True)

    def hub(self, **options) -> Pair:
        """A hub in the gateway profile, and one live peer."""
        pair = self.pair("responder", profile="gateway", level="error", **options)
        pair.handshake()
        return pair

    def check_times(self, result: PingResult, what: str) -> None:
        times = sorted(1000 * it for it in result.times)
        p99, worst = times[int(len(times) * 0.99) - 1], times[-1]
        print(f"{what}: p99 {p99:.2f} ms, max {worst:.1f} ms, {len(times)} of {result.sent}")
        self.assertEqual(result.received, result.sent, what)
        self.assertLess(p99, P99, what)
        self.assertLess(worst, WORST, what)


class SilentPeersTests(HubCase):
    @culvert_only
    @heavy
    def test_R47_silent_peers_do_not_delay_others(self) -> None:
        """2,000 peers that never answer are swept by timers; a ping through another peer."""
        pair = self.hub()
        hub = pair.ours
        hub.namespace.ip(
            "tuntap add silence mode tun",
            f"addr add {SILENT_NETWORK}.1/24 dev silence",
            "link set silence up",
        )
        with UAPIConnection(hub.socket_path) as connection:
            lines = []
            for number in range(SILENT):
                lines += [
                    f"public_key={os.urandom(31).hex()}40",
                    f"endpoint={SILENT_NETWORK}.{2 + number % 250}:51820",
                    "persistent_keepalive_interval=1",
                ]
            self.assertEqual(connection.set(*lines), 0)

        def measure() -> None:
            # Attempts are five seconds apart, so this contains at least two of all peers.
            result = ping(pair.theirs, hub.inner4, count=2400, interval=0.005)
            self.check_times(result, f"ping beside {SILENT} silent peers")

        self.on_a_quiet_machine(measure)


class FloodTests(HubCase):
    @contextlib.contextmanager
    def flooded(self, pair: Pair, seconds: float, port: int | None = None) -> Iterator[None]:
        hub = pair.ours
        flood = InitiationFlood(
            pair.theirs.namespace, hub.outer4, port or hub.port, hub.keys.public, FLOOD, seconds
        )
        time.sleep(0.5)
        yield
        rate = flood.finish()
        print(f"flood of {rate:.0f} per second to port {port or hub.port}")
        if rate < 0.9 * FLOOD:
            raise SlowMachineError(f"a flood of {rate:.0f} messages per second only")

    def client(self, pair: Pair) -> tuple[Initiator, socket.socket]:
        """A client that the hub knows, and its socket."""
        hub = pair.ours
        client = Initiator(hub.keys.public)
        hub.set("peer", client.public_text, "allowed-ips", "10.7.9.1/32")
        connection = pair.theirs.namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(connection.close)
        connection.connect((hub.outer4, hub.port))
        return client, connection

    def fetch_cookie(self, client: Initiator, connection: socket.socket) -> None:
        for _ in range(100):
            connection.send(client.initiation())
            if await_answer(connection, client, 0.1) == COOKIE_REPLY:
                return
        self.fail("no cookie reply")

    def count_answers(self, client: Initiator, connection: socket.socket, count: int) -> int:
        answered = 0
        for _ in range(count):
            start = time.monotonic()
            connection.send(client.initiation())
            answered += await_answer(connection, client, 0.2) == RESPONSE
            time.sleep(max(0, 0.2 - (time.monotonic() - start)))
        return answered

    @culvert_only
    @heavy
    def test_R50_a_flood_does_not_shut_out_a_client_with_a_cookie(self) -> None:
        """100,000 initiations per second; nine of ten of the client's are answered."""
        pair = self.hub()
        client, connection = self.client(pair)

        def measure() -> None:
            with self.flooded(pair, 10):
                self.fetch_cookie(client, connection)
                answered = self.count_answers(client, connection, 40)
                print(f"{answered} of 40 initiations with a cookie answered")
                self.assertGreaterEqual(answered, ENOUGH * 40)

        self.on_a_quiet_machine(measure)

    @culvert_only
    @heavy
    def test_R50_a_flood_leaves_traffic_and_rekeys(self) -> None:
        """Throughput compared with the same flood to a closed port, and a handshake beside it."""
        pair = self.hub()
        client, connection = self.client(pair)

        def measure() -> None:
            with self.flooded(pair, 6, port=9):
                aside = iperf(pair.theirs, pair.ours, pair.ours.inner4, seconds=4).megabits
            with self.flooded(pair, 6):
                beside = iperf(pair.theirs, pair.ours, pair.ours.inner4, seconds=4).megabits
            print(f"{beside:.0f} Mbit/s beside the flood, {aside:.0f} with a closed port")
            self.assertGreater(beside, KEPT * aside)
            with self.flooded(pair, 10):
                self.fetch_cookie(client, connection)
                answered = self.count_answers(client, connection, 25)
                self.assertGreaterEqual(answered, ENOUGH * 25)

        self.on_a_quiet_machine(measure)

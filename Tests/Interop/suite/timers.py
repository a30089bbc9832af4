"""Timers seen from the wire: keepalives and handshake retries."""

import time

from harness.capture import DATA, INITIATION, Capture
from harness.case import ROLES, InteropCase, each, long
from harness.echo import ping
from harness.flow import Flow

EMPTY = 8 + 16 + 16  # UDP header, data header, tag: a keepalive
KEEPALIVE_TIMEOUT, REKEY_TIMEOUT = 10, 5  # seconds, whitepaper 6.1
JITTER = 0.334
TRIES = range(18, 21)  # the kernel sends 20 within 90 s and some, R17 speaks of 18


class KeepaliveTests(InteropCase):
    @long
    @each(role=ROLES)
    def test_R16_a_keepalive_triggers_no_keepalive(self, role: str) -> None:
        """The initiator, which got the last data, sends a few keepalives; none is answered."""
        pair = self.pair(role)
        with Capture(pair.theirs.namespace, "outer") as wire:
            pair.handshake()
            time.sleep(0.5)
            before = len(wire.messages(DATA))
            time.sleep(2.5 * KEEPALIVE_TIMEOUT)
            later = wire.messages(DATA)[before:]
        self.assertEqual({len(it.payload) for it in later}, {EMPTY})
        ours = [it for it in later if it.source == pair.ours.outer4]
        # Two answers received close to each other are worth two keepalives (whitepaper 6.5), and
        # a peer that shakes hands once more gets another.
        self.assertIn(len(ours), range(1, 4) if role == "initiator" else (0,))

    @long
    def test_R16_the_passive_timer_runs_from_the_first_received_data(self) -> None:
        """Data arriving all the time is answered every ten seconds, not put off for ever."""
        pair = self.pair()
        pair.handshake()
        ours, theirs = pair.nodes
        time.sleep(0.5)
        with Capture(theirs.namespace, "outer") as wire:
            with Flow(theirs, ours, interval=0.5):
                time.sleep(2.3 * KEEPALIVE_TIMEOUT)
        sent = [it for it in wire.messages(DATA, ours.outer4) if len(it.payload) == EMPTY]
        self.assertEqual(len(sent), 2)


class RetryTests(InteropCase):
    @long
    def test_R17_retries_are_jittered_and_end(self) -> None:
        """Every five seconds and up to a third more, some 18 tries, then nothing until traffic."""
        pair = self.pair()
        ours, theirs = pair.nodes
        ours.set("peer", theirs.keys.public, "endpoint", f"{theirs.outer4}:9")  # nobody there
        # A port that answers with ICMP errors could cut a try short; a silent one is what we want.
        theirs.namespace.nft("""
            table inet silence {
                chain input {
                    type filter hook input priority 0;
                    udp dport 9 drop
                }
            }
        """)
        with Capture(theirs.namespace, "outer") as wire:
            ping(ours, theirs.inner4, 1, wait=0.1)
            times, end = [], time.monotonic() + TRIES[-1] * (REKEY_TIMEOUT + JITTER) + 9
            while time.monotonic() < end:
                time.sleep(0.02)
                if len(wire.messages(INITIATION)) > len(times):
                    times.append(time.monotonic())
            self.assertIn(len(times), TRIES)
            self.assertGreater(end - times[-1], REKEY_TIMEOUT + 2 * JITTER, "it has given up")
            ping(ours, theirs.inner4, 1, wait=0.5)
            self.assertEqual(len(wire.messages(INITIATION)), len(times) + 1)
        gaps = [later - earlier for earlier, later in zip(times, times[1:])]
        self.assertGreater(min(gaps), REKEY_TIMEOUT - 0.1)
        self.assertLess(max(gaps), REKEY_TIMEOUT + JITTER + 0.3)  # and what a busy machine adds
        self.assertGreater(max(gaps) - min(gaps), 0.05, "no jitter")

"""How often an idle tunnel wakes."""

import time

from harness import procfs
from harness.lab import Lab
from harness.pair import Pair, build_pair
from harness.program import Program

# Seconds after the last packet until the protocol itself has nothing left to do: the passive
# keepalive comes after 10 s, the timer for a peer that has gone silent after 15.3 s.
SETTLE = 28


def quiet_pair(lab: Lab, program: Program) -> Pair:
    """A tunnel with a session, without IPv6 on the hosts, which multicasts of its own accord."""
    pair = build_pair(
        lab, program, program, level="error", peer_level="error", host_ipv6=False
    )
    pair.handshake(20)
    return pair


def wake_ups(pairs: dict[Program, Pair], seconds: float) -> dict[Program, int]:
    """Of both ends in that time without traffic, once the session's timers have run out."""
    time.sleep(SETTLE)
    before = {program: count(pair) for program, pair in pairs.items()}
    time.sleep(seconds)
    return {program: count(pair) - before[program] for program, pair in pairs.items()}


def count(pair: Pair) -> int:
    """So far."""
    pids = [pid for node in pair.nodes for pid in procfs.family(node.pid)]
    return sum(procfs.wake_ups(pid) for pid in pids)

"""How often an idle tunnel wakes."""

import time

from harness import procfs
from harness.lab import Lab
from harness.pair import Pair, build_pair
from harness.program import Program

# Seconds after the last packet until the protocol itself has nothing left to do: the passive
# keepalive comes after 10 s, the timer for a peer that has gone silent after 15.3 s.
SETTLE = 28


def idle_wake_ups(programs: list[Program], seconds: float) -> dict[Program, int]:
    """Wake-ups of both ends in that time, with a session and no traffic; all programs at once."""
    labs = {program: Lab() for program in programs}
    try:
        pairs = {}
        for program, lab in labs.items():
            # Without IPv6 on the hosts, which multicasts of its own accord.
            quiet = {"level": "error", "peer_level": "error", "host_ipv6": False}
            pairs[program] = build_pair(lab, program, program, **quiet)
            pairs[program].handshake(20)
        time.sleep(SETTLE)
        before = {program: wake_ups(pair) for program, pair in pairs.items()}
        time.sleep(seconds)
        return {program: wake_ups(pair) - before[program] for program, pair in pairs.items()}
    finally:
        for lab in labs.values():
            lab.close()


def wake_ups(pair: Pair) -> int:
    return sum(procfs.wake_ups(node.pid) for node in pair.nodes)

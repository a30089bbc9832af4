"""How long a handshake takes, seen by the packet that waits for it."""

import statistics
import time

from harness.echo import ping
from harness.keys import hexadecimal
from harness.pair import Pair
from harness.uapi import UAPIConnection

from .steps import Figures

COUNT = 40
# Seconds between two; responders refuse more than 50 a second of one peer.
SPACE = 0.05


def handshakes(pair: Pair) -> Figures:
    """The initiator forgets its peer and is told it again; the next echo request brings a session.

    Milliseconds from the request to its answer, the median of those that needed no second try.
    """
    lines = peer_lines(pair)
    remove = [lines[0], "remove=true"]
    times = []
    with UAPIConnection(pair.ours.socket_path) as uapi:
        for _ in range(COUNT):
            if uapi.set(*remove) != 0 or uapi.set(*lines) != 0:
                raise AssertionError("the peer was refused")
            times += ping(pair.ours, pair.theirs.inner4, 1, wait=1).times
            time.sleep(SPACE)
    if len(times) < COUNT / 2:
        raise AssertionError(f"{len(times)} of {COUNT} handshakes in time")
    return {"handshake": 1000 * statistics.median(times)}


def peer_lines(pair: Pair) -> list[str]:
    """What makes the other end our peer."""
    theirs = pair.theirs
    lines = [f"public_key={hexadecimal(theirs.keys.public)}", f"endpoint={theirs.endpoint()}"]
    return lines + [f"allowed_ip={it}" for it in theirs.allowed_ips.split(",")]

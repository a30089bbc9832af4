"""Limits of the program under test, most of them relative to the newest wireguard-go."""

import dataclasses

from race.measures import WAYS
from race.results import Results

RETRANSMIT_FLOOR = 50  # per GB; fewer are always allowed
RSS_MAX = 8.0  # MB


@dataclasses.dataclass(frozen=True)
class Ratio:
    """The program's median is at least, or at most, so many times the reference's."""

    key: str
    words: str
    bound: float
    is_least: bool


RATIOS = (
    Ratio("tcp1_up", "TCP, 1 flow, from the initiator", 1.3, True),
    Ratio("tcp1_down", "TCP, 1 flow, to the initiator", 1.3, True),
    Ratio("cpu_both", "processor time per GB, both ends", 0.7, False),
    Ratio("udp200_rate", "UDP 200 B, packets/s", 1.3, True),
    Ratio("ping_idle_median", "ping, idle, median", 1.15, False),
)

# Throughput of two hops relative to a single tunnel, all ends on this machine. There is no limit
# for the client with two servers: three processes share the processors, and the kernel forwards.
SHARE_MIN = 0.55


def check(results: Results, subject: str, reference: str) -> list[tuple[bool, str]]:
    """Whether each limit is kept, with a line that reports it; only of measured figures."""
    found = []
    for limit in RATIOS:
        ratio = results.ratio(subject, reference, limit.key)
        if ratio is not None and subject != reference:
            is_kept = ratio >= limit.bound if limit.is_least else ratio <= limit.bound
            side = "at least" if limit.is_least else "at most"
            line = f"{limit.words}: {ratio:.2f} times {reference}, limit: {side} {limit.bound:g}"
            found.append((is_kept, line))
    for way, words in WAYS.items():
        if spread := results.spread(subject, f"nested_twins_{way}_share"):
            line = f"two hops, both ends nested, {words}: {spread.median:.2f} of one tunnel, "
            found.append((spread.median >= SHARE_MIN, f"{line}limit: at least {SHARE_MIN:g}"))
    if spread := results.spread(subject, "rss"):
        line = f"peak resident memory: {spread.greatest:.1f} MB, limit {RSS_MAX:g}"
        found.append((spread.greatest <= RSS_MAX, line))
    own, other = (results.spread(it, "retransmits1") for it in (subject, reference))
    if own and other and subject != reference:
        most = max(2 * other.median, RETRANSMIT_FLOOR)
        line = f"TCP retransmits, 1 flow: {own.median:.0f} per GB, limit {most:.0f}"
        found.append((own.median <= most, line))
    return found

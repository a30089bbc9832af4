"""The figures: their names, units and direction."""

import dataclasses

PEER_COUNTS = (1, 10, 100, 1000)
OFFERED = 250_000  # packets per second that iperf3 sends in the UDP steps: an overload
SIZES = (1200, 200)  # bytes of UDP payload


@dataclasses.dataclass(frozen=True)
class Measure:
    """One figure. ONLY= selects by `group`; `digits` is the number of decimals."""

    key: str
    group: str
    title: str
    unit: str
    digits: int
    more_is_better: bool = False
    is_share: bool = False  # the figure itself is a ratio


WAYS = {"up": "from the initiator", "down": "to the initiator"}


def throughput() -> list[Measure]:
    found = []
    for flows in (1, 4):
        for direction, words in WAYS.items():
            title = f"TCP, {flows} flow{'s' * (flows > 1)}, {words}"
            found.append(Measure(f"tcp{flows}_{direction}", "tcp", title, "Mbit/s", 0, True))
    return found


TCP = throughput() + [
    Measure("cpu_send", "tcp", "processor time, sending end (TCP, 1 flow)", "s/GB", 2),
    Measure("cpu_receive", "tcp", "processor time, receiving end (TCP, 1 flow)", "s/GB", 2),
    Measure("cpu_both", "tcp", "processor time, both ends (TCP, 1 flow)", "s/GB", 2),
    Measure("retransmits1", "tcp", "TCP retransmits, 1 flow", "per GB", 0),
    Measure("retransmits4", "tcp", "TCP retransmits, 4 flows", "per GB", 0),
]
UDP = [
    measure
    for size in SIZES
    for measure in (
        Measure(f"udp{size}_rate", "udp", f"UDP {size} B, received", "packets/s", 0, True),
        Measure(f"udp{size}_loss", "udp", f"UDP {size} B, lost of those offered", "%", 1),
    )
]
PING = [
    Measure("ping_idle_median", "ping", "ping, idle, median", "ms", 3),
    Measure("ping_idle_p99", "ping", "ping, idle, 99th percentile", "ms", 3),
    Measure("ping_load_median", "ping", "ping beside a TCP flow, median", "ms", 2),
    Measure("ping_load_p99", "ping", "ping beside a TCP flow, 99th percentile", "ms", 2),
]
START = [
    Measure("start_ready", "start", "from start to ready for configuration", "ms", 1),
    Measure("handshake", "start", "handshake and first round trip, median of 40", "ms", 3),
    Measure("start_first", "start", "from start to the first answer through the tunnel", "ms", 1),
]
MEMORY = [Measure("rss", "memory", "peak resident memory, larger end", "MB", 1)]
IDLE = [Measure("wakeups", "idle", "wake-ups in 10 s of idleness, both ends", "", 0)]
PEERS = [
    measure
    for count in PEER_COUNTS
    for told in (f"{count:,} peer{'s' * (count > 1)}",)
    for measure in (
        Measure(f"peers{count}_setconf", "peers", f"{told}: `wg setconf`", "ms", 1),
        Measure(f"peers{count}_tcp", "peers", f"{told}: TCP, 1 flow", "Mbit/s", 0, True),
        Measure(f"peers{count}_ping", "peers", f"{told}: ping, idle, median", "ms", 3),
        Measure(f"peers{count}_rss", "peers", f"{told}: peak resident memory", "MB", 1),
    )
]
ARRANGED = {
    "single": "one tunnel",
    "twins": "two hops, both ends nested",
    "chain": "two hops, client nested, two servers",
}
NESTED = [
    Measure(f"nested_{name}_{way}", "nested", f"{told}: TCP, 1 flow, {words}", "Mbit/s", 0, True)
    for name, told in ARRANGED.items()
    for way, words in WAYS.items()
]
NESTED += [
    Measure(f"nested_{name}_cpu", "nested", f"{told}: processor time, all ends", "s/GB", 2)
    for name, told in ARRANGED.items()
]
NESTED += [
    Measure(
        f"nested_{name}_{way}_share", "nested", f"{told}, {words}", "of one tunnel", 2, True, True
    )
    for name, told in ARRANGED.items()
    if name != "single"
    for way, words in WAYS.items()
]
ALL = [*TCP, *UDP, *PING, *START, *MEMORY, *IDLE, *PEERS, *NESTED]
BY_KEY = {it.key: it for it in ALL}
# The groups for ONLY=; memory is measured in every step with traffic.
GROUPS = tuple(dict.fromkeys(it.group for it in ALL if it not in MEMORY))

"""What is done with a tunnel whose ends both run one program, and the figures it gives."""

import re
import threading

from harness import procfs
from harness.node import Node
from harness.pair import Pair
from harness.traffic import Throughput, iperf

from .measures import OFFERED
from .results import percentile

IDLE_PINGS, IDLE_INTERVAL, LOAD_INTERVAL = 400, 0.005, 0.01  # seconds between requests
MARGIN = 0.7  # seconds of a TCP flow before the pings beside it begin, and after they end
GIGABYTE = 1e9

Figures = dict[str, float]


def tcp(pair: Pair, seconds: float, flows: int, direction: str) -> Figures:
    """A run of TCP between the ends, and what it cost them."""
    before = [cpu_seconds(node) for node in pair.nodes]
    run = run_tcp(pair, seconds, flows, direction == "down")
    spent = [cpu_seconds(node) - it for node, it in zip(pair.nodes, before)]
    gigabytes = run.bytes / GIGABYTE
    figures = {
        f"tcp{flows}_{direction}": run.megabits,
        f"retransmits{flows}": run.retransmits / gigabytes,
    }
    if flows == 1:
        sender, receiver = spent if direction == "up" else spent[::-1]
        figures["cpu_send"] = sender / gigabytes
        figures["cpu_receive"] = receiver / gigabytes
        figures["cpu_both"] = (sender + receiver) / gigabytes
    return figures


def cpu_seconds(node: Node) -> float:
    """Of the program, and of what it started should it be a script."""
    return sum(procfs.cpu_seconds(pid) for pid in procfs.family(node.pid))


def peak_memory(node: Node) -> float:
    """In MB."""
    return sum(procfs.peak_memory(pid) for pid in procfs.family(node.pid)) / 1e6


def run_tcp(pair: Pair, seconds: float, flows: int = 1, reverse: bool = False) -> Throughput:
    address = pair.theirs.inner4
    run = iperf(pair.ours, pair.theirs, address, seconds, reverse=reverse, streams=flows)
    if not run.bytes:
        raise AssertionError("no byte arrived")
    return run


def udp(pair: Pair, seconds: float, size: int) -> Figures:
    """More packets than can pass; what arrives is counted at the far end."""
    rate = f"{OFFERED * size * 8}"
    run = iperf(pair.ours, pair.theirs, pair.theirs.inner4, seconds, rate, size)
    return {f"udp{size}_rate": run.packets_per_second, f"udp{size}_loss": run.lost_percent}


def ping_idle(pair: Pair) -> Figures:
    times = ping_times(pair, IDLE_PINGS, IDLE_INTERVAL)
    return {"ping_idle_median": percentile(times, 0.5), "ping_idle_p99": percentile(times, 0.99)}


def ping_load(pair: Pair, seconds: float) -> Figures:
    """Echo requests beside a TCP flow in the same direction."""
    failures: list[Exception] = []

    def load() -> None:
        try:
            run_tcp(pair, seconds + 2 * MARGIN)
        except Exception as error:  # raised again below, in the thread that is listened to
            failures.append(error)

    flow = threading.Thread(target=load)
    flow.start()
    try:
        threading.Event().wait(MARGIN)
        times = ping_times(pair, round(seconds / LOAD_INTERVAL), LOAD_INTERVAL)
    finally:
        flow.join()
    if failures:
        raise failures[0]
    return {"ping_load_median": percentile(times, 0.5), "ping_load_p99": percentile(times, 0.99)}


def ping_times(pair: Pair, count: int, interval: float) -> list[float]:
    """Milliseconds of each answered request, by ping(8), which has the kernel's time stamps."""
    command = ["ping", "-n", "-c", str(count), "-i", str(interval), "-W", "1"]
    output = pair.ours.namespace.attempt(*command, pair.theirs.inner4, seconds=60).stdout
    times = [float(it) for it in re.findall(r"time=([\d.]+) ms", output)]
    if len(times) < count / 2:
        raise AssertionError(f"{len(times)} of {count} pings answered")
    return times


def memory(pair: Pair) -> Figures:
    """The larger end's peak so far, in MB."""
    return {"rss": max(map(peak_memory, pair.nodes))}

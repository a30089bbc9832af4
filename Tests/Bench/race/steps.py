"""The steps with a tunnel whose ends both run one program, and their figures."""

import base64
import os
import re
import statistics
import threading
import time

from harness import procfs
from harness.lab.control import UAPIConnection
from harness.lab.lab import Lab
from harness.lab.node import LOGS, Node, hexadecimal
from harness.lab.pair import Pair, build_pair, place
from harness.settings import Program
from harness.traffic.ping import ping
from harness.traffic.streams import Throughput, iperf
from race.measures import OFFERED
from race.results import percentile

IDLE_PINGS, IDLE_INTERVAL, LOAD_INTERVAL = 400, 0.005, 0.01  # seconds between requests
MARGIN = 0.7  # seconds of a TCP flow before the pings beside it begin, and after they end
GIGABYTE = 1e9

Figures = dict[str, float]


def tcp(pair: Pair, seconds: float, flows: int, direction: str) -> Figures:
    """A run of TCP between the ends, and its processor time."""
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
    """CPU time of the program, and of its children if it is a script."""
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
    """An overload of packets; the far end counts those that arrive."""
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
        except Exception as error:  # raised again below, in the calling thread
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
    """Milliseconds of each answered request, by ping(8), which uses the kernel's timestamps."""
    command = ["ping", "-n", "-c", str(count), "-i", str(interval), "-W", "1"]
    output = pair.ours.namespace.attempt(*command, pair.theirs.inner4, seconds=60).stdout
    times = [float(it) for it in re.findall(r"time=([\d.]+) ms", output)]
    if len(times) < count / 2:
        raise AssertionError(f"{len(times)} of {count} pings answered")
    return times


def memory(pair: Pair) -> Figures:
    """The peak of the end that uses more, in MB."""
    return {"rss": max(map(peak_memory, pair.nodes))}


# The time from the start of the process to the first answer through the tunnel.

READY_INTERVAL = 0.001  # seconds between checks whether the program accepts configuration


def start(program: Program) -> Figures:
    """Start one end while the other end waits for it; milliseconds.

    This includes the configuration by wg(8) and ip(8), which takes the same time for all programs.
    """
    lab = Lab()
    try:
        ours, theirs = waiting_end(lab, program)
        path = configuration(ours, theirs)
        begin = time.monotonic()
        ours.start(level="error", interval=READY_INTERVAL)
        ready = time.monotonic()
        ours.wg("setconf", ours.interface, path)
        ours.bring_up()
        answered = ping(ours, theirs.inner4, 1, wait=10).received
        end = time.monotonic()
    finally:
        lab.close()
    if not answered:
        raise AssertionError("no answer through the tunnel within 10 s of its start")
    return {"start_ready": 1000 * (ready - begin), "start_first": 1000 * (end - begin)}


def waiting_end(lab: Lab, program: Program) -> tuple[Node, Node]:
    """(ours, theirs): theirs runs with ours as its peer; ours is not started."""
    left, right = lab.namespace("ours"), lab.namespace("theirs")
    lab.connect(left, right)
    ours, theirs = lab.node(left, program, "ours"), lab.node(right, program, "theirs")
    place(ours, theirs)
    theirs.start(level="error")
    theirs.set("listen-port", str(theirs.port), secrets={"private-key": theirs.keys.private})
    theirs.add_peer(ours)
    theirs.bring_up()
    # Address resolution outside the tunnel is not measured.
    ping(ours, theirs.outer4, 1)
    return ours, theirs


def configuration(ours: Node, theirs: Node) -> str:
    """The path of a file for `wg setconf`."""
    path = LOGS / f"{ours.interface}.conf"
    path.touch(0o600)
    path.write_text(f"""[Interface]
PrivateKey = {ours.keys.private}
ListenPort = {ours.port}
[Peer]
PublicKey = {theirs.keys.public}
AllowedIPs = {theirs.allowed_ips}
Endpoint = {theirs.endpoint()}
""")
    return str(path)


# The time for which a packet waits for a handshake.

COUNT = 40
# Seconds between two handshakes; responders refuse more than 50 per second from one peer.
SPACE = 0.05


def handshakes(pair: Pair) -> Figures:
    """The initiator removes its peer and adds it again; the next echo request starts a handshake.

    Milliseconds from the request to its answer: the median of those that needed no retry.
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
    """The UAPI lines that make the other end our peer."""
    theirs = pair.theirs
    lines = [f"public_key={hexadecimal(theirs.keys.public)}", f"endpoint={theirs.endpoint()}"]
    return lines + [f"allowed_ip={it}" for it in theirs.allowed_ips.split(",")]


# How often an idle tunnel wakes up.

# Seconds after the last packet until the protocol itself has nothing left to do: the passive
# keepalive is sent after 10 s, and the timer for a silent peer fires after 15.3 s.
SETTLE = 28


def quiet_pair(lab: Lab, program: Program) -> Pair:
    """A tunnel with a session; the hosts have no IPv6, which would send multicasts by itself."""
    pair = build_pair(lab, program, program, level="error", peer_level="error", host_ipv6=False)
    pair.handshake(20)
    return pair


def wake_ups(pairs: dict[Program, Pair], seconds: float) -> dict[Program, int]:
    """Wake-ups of both ends in that time without traffic, after the session's timers expired."""
    time.sleep(SETTLE)
    before = {program: count(pair) for program, pair in pairs.items()}
    time.sleep(seconds)
    return {program: count(pair) - before[program] for program, pair in pairs.items()}


def count(pair: Pair) -> int:
    """Wake-ups so far."""
    pids = [pid for node in pair.nodes for pid in procfs.family(node.pid)]
    return sum(procfs.wake_ups(pid) for pid in pids)


# The effect of many configured peers on the speed of the one that is used.

PINGS = 200
STANDARD_PEERS = 256  # the most that Culvert allows without a larger profile


def peers(program: Program, count: int, seconds: float) -> Figures:
    """One end with `count` peers, of which only the last exists: the other end."""
    lab = Lab()
    try:
        profile = "gateway" if count > STANDARD_PEERS else ""
        quiet = {"level": "error", "peer_level": "error"}
        pair = build_pair(lab, program, program, profile=profile, **quiet)
        path = configuration_file(pair, count)
        begin = time.monotonic()
        pair.ours.wg("setconf", pair.ours.interface, path)
        configured = time.monotonic() - begin
        pair.handshake(20)
        idle = percentile(ping_times(pair, PINGS, IDLE_INTERVAL), 0.5)
        run = run_tcp(pair, seconds)
        peak = peak_memory(pair.ours)
    finally:
        lab.close()
    figures = {"setconf": 1000 * configured, "tcp": run.megabits, "ping": idle, "rss": peak}
    return {f"peers{count}_{name}": value for name, value in figures.items()}


def configuration_file(pair: Pair, count: int) -> str:
    """The path of a file for `wg setconf`; each peer has its own address in 10.128.0.0/9."""
    ours, theirs = pair.nodes
    lines = ["[Interface]", f"PrivateKey = {ours.keys.private}", f"ListenPort = {ours.port}"]
    for number in range(count - 1):
        key = base64.b64encode(os.urandom(32)).decode()
        address = f"10.128.{number >> 8}.{number & 255}/32"
        lines += ["[Peer]", f"PublicKey = {key}", f"AllowedIPs = {address}"]
    lines += ["[Peer]", f"PublicKey = {theirs.keys.public}", f"Endpoint = {theirs.endpoint()}"]
    lines.append(f"AllowedIPs = {theirs.allowed_ips}")
    path = LOGS / f"{ours.interface}.conf"
    path.touch(0o600)
    path.write_text("\n".join(lines) + "\n")
    return str(path)

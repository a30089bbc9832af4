"""Bulk traffic through a tunnel: iperf3, and transfers with checksums."""

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import threading

from harness import procfs
from harness.lab.node import Node
from harness.waiting import wait_until

IPERF_PORT, TRANSFER_PORT = 5201, 5301


@dataclasses.dataclass
class Throughput:
    """The figures of the receiving end of an iperf3 run."""

    bits_per_second: float
    bytes: int
    lost_percent: float
    packets_per_second: float
    retransmits: int = 0

    @property
    def megabits(self) -> float:
        return self.bits_per_second / 1e6


def iperf(
    client: Node,
    server: Node,
    address: str,
    seconds: float = 1,
    udp_rate: str | None = None,
    length: int | None = None,
    reverse: bool = False,
    streams: int = 1,
    byte_count: int = 0,
) -> Throughput:
    """A run of iperf3 between two namespaces; UDP at `udp_rate` (as iperf3 writes it), else TCP.

    With `byte_count` it ends after that many bytes instead of some seconds.
    """
    listener = server.namespace.start(
        "iperf3", "-s", "-1", "-p", str(IPERF_PORT), stdout=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: procfs.is_listening(listener.pid, IPERF_PORT), "iperf3 listening")
        command = ["iperf3", "-J", "-c", address, "-p", str(IPERF_PORT)]
        command += ["-n", str(byte_count)] if byte_count else ["-t", str(seconds)]
        command += ["-u", "-b", udp_rate] if udp_rate else []
        command += ["-l", str(length)] if length else []
        command += ["-R"] if reverse else []
        command += ["-P", str(streams)] if streams > 1 else []
        result = client.namespace.attempt(*command, seconds=seconds + 60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            listener.send_signal(signal.SIGKILL)
        listener.wait()
    report = json.loads(result.stdout)
    if "error" in report:
        raise AssertionError(f"iperf3: {report['error']}")
    return read_report(report["end"], bool(udp_rate))


def paced_udp(client: Node, server: Node, address: str) -> Throughput:
    """4 Mbit/s of UDP for a second; the best of five runs, because a busy machine loses some.

    These are 417 packets: after a pause of the machine iperf3 sends all overdue packets at once,
    and these must fit into the interface's queue of 500.
    """

    def rank(run: Throughput) -> tuple[bool, float]:
        return run.megabits < 3.5, run.lost_percent

    runs = []
    for _ in range(5):
        runs.append(iperf(client, server, address, udp_rate="4M", length=1200))
        if rank(runs[-1]) < (False, 1):
            break
    return min(runs, key=rank)


def tcp(client: Node, server: Node, address: str, floor: float, reverse: bool = False) -> float:
    """Mbit/s of TCP in a second; the first of three runs above the floor, else the best."""
    best = 0.0
    for _ in range(3):
        best = max(best, iperf(client, server, address, reverse=reverse).megabits)
        if best > floor:
            break
    return best


def read_report(end: dict, udp: bool) -> Throughput:
    if not udp:
        received = end["sum_received"]
        again = end["sum_sent"].get("retransmits", 0)
        return Throughput(received["bits_per_second"], received["bytes"], 0.0, 0.0, again)
    total = end["sum"]
    arrived = total["packets"] - total["lost_packets"]
    share = arrived / max(1, total["packets"])
    return Throughput(
        total["bits_per_second"] * share,
        int(total["bytes"] * share),
        100.0 * (1 - share),
        arrived / max(0.001, total["seconds"]),
    )


def transfer(source: Node, target: Node, address: str, byte_count: int = 1 << 20) -> None:
    """Send random bytes by TCP and compare SHA-256 at both ends."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    received = hashlib.sha256()
    listener = target.namespace.socket(family, socket.SOCK_STREAM)
    sender = source.namespace.socket(family, socket.SOCK_STREAM)
    with listener, sender:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, TRANSFER_PORT))
        listener.listen(1)
        listener.settimeout(30)

        def collect() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(30)
                    while chunk := connection.recv(1 << 18):
                        received.update(chunk)

        collector = threading.Thread(target=collect, daemon=True)
        collector.start()
        content = os.urandom(byte_count)
        sender.settimeout(30)
        sender.connect((address, TRANSFER_PORT))
        sender.sendall(content)
        sender.shutdown(socket.SHUT_WR)
        collector.join(60)
    if received.digest() != hashlib.sha256(content).digest():
        raise AssertionError(f"{byte_count} bytes to {address} arrived changed or not at all")


# TCP transfers of random bytes, compared by SHA-256, with options of the connection.

PORT = 5301
CHUNK = 1 << 20  # bytes made and sent at a time
PATIENCE = 60.0  # seconds within which there must be progress


def stream(
    source: Node,
    target: Node,
    address: str,
    byte_count: int,
    max_segment: int = 0,
    write_up_to: int = 0,
    port: int = PORT,
) -> None:
    """Send random bytes and compare; AssertionError if they differ.

    `max_segment` is the MSS of both ends (0: the kernel's). With `write_up_to` each write has a
    random size up to that, and is sent at once.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    received, arrived = hashlib.sha256(), [0]
    listener = target.namespace.socket(family, socket.SOCK_STREAM)
    sender = source.namespace.socket(family, socket.SOCK_STREAM)
    with listener, sender:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if max_segment:
            for end in (listener, sender):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, max_segment)
        listener.bind((address, port))
        listener.listen(1)
        listener.settimeout(PATIENCE)
        collector = threading.Thread(target=collect, args=(listener, received, arrived))
        collector.daemon = True
        collector.start()
        sender.settimeout(PATIENCE)
        sender.connect((address, port))
        expected = send(sender, byte_count, write_up_to)
        sender.shutdown(socket.SHUT_WR)
        collector.join(2 * PATIENCE)
    if arrived[0] != byte_count:
        raise AssertionError(f"{arrived[0]} of {byte_count} bytes arrived at {address}")
    if received.digest() != expected:
        raise AssertionError(f"{byte_count} bytes to {address} arrived changed")


def collect(listener: socket.socket, received, arrived: list[int]) -> None:
    """Hash and count the bytes of the first connection."""
    with contextlib.suppress(OSError):
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(PATIENCE)
            while chunk := connection.recv(CHUNK):
                received.update(chunk)
                arrived[0] += len(chunk)


def send(sender: socket.socket, byte_count: int, write_up_to: int) -> bytes:
    """Send random bytes; their digest."""
    digest, chance = hashlib.sha256(), random.Random(byte_count)
    if write_up_to:
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while byte_count > 0:
        chunk = os.urandom(min(CHUNK, byte_count))
        byte_count -= len(chunk)
        digest.update(chunk)
        if not write_up_to:
            sender.sendall(chunk)
        while write_up_to and chunk:
            size = chance.randint(1, write_up_to)
            sender.sendall(chunk[:size])
            chunk = chunk[size:]
    return digest.digest()

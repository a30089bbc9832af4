"""Echo requests through a tunnel, counted one by one.

ping(8) ends two round trips after the last request, so on a busy machine it counts late answers as
lost. `ping` waits for each answer until its timeout, and not longer. But other tests run beside it
in the same process, so what measures times uses ping(8): `Pinger`.
"""

import dataclasses
import errno
import itertools
import os
import re
import select
import socket
import statistics
import subprocess
import time

from harness.lab.node import Node

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_WANT, PMTUDISC_DO = 10, 23, 1, 2
PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
identifiers = itertools.cycle(range(1, 65536))


@dataclasses.dataclass
class PingResult:
    """How many requests were sent and how many returned unchanged, each counted once."""

    sent: int
    times: list[float]
    error: OSError | None  # of the last request that could not be sent
    answered: set[int] = dataclasses.field(default_factory=set)  # numbers of requests

    @property
    def received(self) -> int:
        return len(self.times)

    def longest_gap(self, count: int) -> int:
        """The most of `count` requests in a row without an answer.

        Unlike a pause between two answers, it does not grow if the machine pauses.
        """
        longest = current = 0
        for number in range(count):
            current = 0 if number in self.answered else current + 1
            longest = max(longest, current)
        return longest

    @property
    def average_milliseconds(self) -> float:
        return 1000 * statistics.mean(self.times)


def ping(
    source: Node,
    target: str,
    count: int = 3,
    size: int = 56,
    dont_fragment: bool = False,
    interval: float = 0.02,
    wait: float = 3.0,
) -> PingResult:
    """Ping from inside a node's namespace. `size` is the payload after the ICMP header."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    identifier = next(identifiers)
    requests = [request(family, identifier, number, size) for number in range(count)]
    result, sent_at = PingResult(0, [], None), {}
    with source.namespace.socket(family, socket.SOCK_RAW, PROTOCOL[family]) as echo:
        set_fragmentation(echo, dont_fragment)
        echo.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        for number, packet in enumerate(requests):
            try:
                echo.sendto(packet, (target, 0))
                result.sent += 1
                sent_at[number] = time.monotonic()
            except OSError as error:
                result.error = error
            last = number == count - 1
            collect(echo, requests, sent_at, result, wait if last else interval, last)
    return result


def request(family: socket.AddressFamily, identifier: int, number: int, size: int) -> bytes:
    """An echo request with random payload; for IPv6 the kernel writes the checksum."""
    head = identifier.to_bytes(2, "big") + number.to_bytes(2, "big")
    body = head + os.urandom(size)
    total = checksum(bytes([REQUEST[family], 0, 0, 0]) + body)
    return bytes([REQUEST[family], 0]) + total.to_bytes(2, "big") + body


def checksum(data: bytes) -> int:
    """RFC 1071; sums with and without end-around carries are equal modulo 65535."""
    padded = data + bytes(len(data) % 2)
    total = int.from_bytes(padded, "big") % 65535
    return 65535 - total


def set_fragmentation(echo: socket.socket, dont_fragment: bool) -> None:
    value = PMTUDISC_DO if dont_fragment else PMTUDISC_WANT
    if echo.family == socket.AF_INET:
        echo.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, value)
    else:
        echo.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, value)


def collect(
    echo: socket.socket,
    requests: list[bytes],
    sent_at: dict[int, float],
    result: PingResult,
    seconds: float,
    is_last: bool,
) -> None:
    """Receive answers for some seconds; after the last request only until all have arrived."""
    end = time.monotonic() + seconds
    while not (is_last and not sent_at):
        remaining = end - time.monotonic()
        if remaining <= 0 or not select.select([echo], [], [], remaining)[0]:
            return
        try:
            packet = echo.recv(1 << 16)
        except OSError as error:
            if error.errno not in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNREFUSED):
                raise
            continue  # an ICMP error; the request counts as lost
        if echo.family == socket.AF_INET:
            packet = packet[(packet[0] & 15) * 4 :]
        number = int.from_bytes(packet[6:8], "big")
        is_ours = packet[0] == REPLY[echo.family] and number in sent_at
        if is_ours and packet[4:] == requests[number][4:]:
            result.answered.add(number)
            result.times.append(time.monotonic() - sent_at.pop(number))


ANSWER = re.compile(r"icmp_seq=(\d+) .*time=([\d.]+) ms")


class Pinger:
    """ping(8) beside something else: `count` requests, one each `interval` seconds.

    Let the last ones be sent when nothing else happens, because ping(8) does not wait for them.
    """

    def __init__(self, source: Node, target: str, count: int, interval: float):
        self.count = count
        command = ["ping", "-n", "-c", str(count), "-i", f"{interval:g}", "-W", "2", target]
        self.process = source.namespace.start(*command, stdout=subprocess.PIPE, text=True)
        self.seconds = count * interval

    def finish(self) -> PingResult:
        """Each answered request once, with the kernel's timestamps."""
        output, _ = self.process.communicate(timeout=self.seconds + 30)
        times = {number: float(time) / 1000 for number, time in ANSWER.findall(output)}
        return PingResult(self.count, sorted(times.values()), None)

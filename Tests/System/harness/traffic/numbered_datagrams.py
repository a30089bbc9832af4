#!/usr/bin/python3
"""One end of a numbered stream of UDP datagrams, in a separate process for speed.

    numbered_datagrams.py receive ADDRESS PORT gro|plain
    numbered_datagrams.py send ADDRESS PORT segments|options|plain SIZE-SIZE COUNT RATE

"options" is plain, with a record route in each IPv4 header.

The receiver prints "ready". When its standard input has been closed and nothing has arrived for a
while, it prints its counts as a line of JSON; so does the sender at its end. See datagrams.py.
"""

import json
import random
import select
import socket
import struct
import sys
import time
import zlib

UDP_SEGMENT, UDP_GRO = 103, 104
SO_SNDBUFFORCE, SO_RCVBUFFORCE, BUFFER = 32, 33, 64 << 20
HEADER = struct.Struct(">QHI")  # number, length, checksum of both and of the payload
MOST = 1 << 16
SILENCE = 0.5  # seconds
SEGMENTS, SEGMENT_BYTES = 64, 60_000  # the most that one send accepts
RECORD_ROUTE = bytes([7, 11, 4]) + bytes(9)  # room for two addresses, and the end of the options
CONTENT = random.Random(7).randbytes(1 << 17)


def make_datagram(number: int, size: int) -> bytes:
    payload = CONTENT[number % 60_000 :][: size - HEADER.size]
    return HEADER.pack(number, size, checksum(number, size, payload)) + payload


def checksum(number: int, size: int, payload: bytes) -> int:
    return zlib.crc32(payload, number * 65537 + size & 0xFFFFFFFF)


class Receiver:
    """Counts what arrives."""

    def __init__(self, address: str, port: int, gro: bool):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        if gro:
            self.socket.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        self.socket.bind((address, port))
        self.socket.setblocking(False)
        self.seen = bytearray(1 << 20)
        self.highest = -1
        self.received = self.changed = self.late = self.doubled = self.joined = 0
        self.latest: list[tuple[int, int]] = []

    def run(self) -> None:
        """Run until standard input is closed and nothing arrives any more."""
        inputs = [self.socket, sys.stdin]
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select(inputs, [], [], SILENCE)
            if not ready and len(inputs) == 1:
                break
            if sys.stdin in ready and not sys.stdin.readline():
                inputs.remove(sys.stdin)
            if self.socket in ready:
                self.drain()
        print(json.dumps(self.report()), flush=True)

    def drain(self) -> None:
        while True:
            try:
                data, ancillary, flags, _ = self.socket.recvmsg(MOST, 64)
            except BlockingIOError:
                return
            size = len(data)
            for level, kind, value in ancillary:
                if (level, kind) == (socket.IPPROTO_UDP, UDP_GRO):
                    size = int.from_bytes(value[:4], sys.byteorder)
            if flags & socket.MSG_TRUNC or not data:
                self.changed += 1
            elif size >= len(data):
                self.take(data)
            else:
                self.joined += 1
                for start in range(0, len(data), size):
                    self.take(data[start : start + size])

    def take(self, data: bytes) -> None:
        if len(data) < HEADER.size:
            self.changed += 1
            return
        number, size, wanted = HEADER.unpack_from(data)
        if size != len(data) or checksum(number, size, data[HEADER.size :]) != wanted:
            self.changed += 1
            return
        while number >= len(self.seen):
            self.seen.extend(bytes(len(self.seen)))
        self.doubled += self.seen[number]
        self.seen[number] = 1
        self.received += 1
        if number < self.highest:
            self.late += 1
            self.latest.append((number, self.highest))
        else:
            self.highest = number

    def report(self) -> dict:
        names = ("received", "changed", "late", "doubled", "joined", "highest")
        return {**{name: getattr(self, name) for name in names}, "lost": self.gaps(),
                "latest": self.latest[:20]}  # fmt: skip

    def gaps(self) -> list[tuple[int, int]]:
        """The first thousand runs of numbers below the highest that are missing: first, count."""
        found, place = [], 0
        while len(found) < 1000:
            first = self.seen.find(0, place, max(0, self.highest))
            if first < 0:
                break
            place = self.seen.find(1, first)
            found.append((first, place - first))
        return found


class Sender:
    def __init__(self, address: str, port: int, way: str, sizes: tuple[int, int]):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER)
        if way == "options":
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, RECORD_ROUTE)
        self.socket.connect((address, port))
        self.segments, self.sizes = way == "segments", sizes
        self.random = random.Random(11)
        self.sent = self.refused = 0

    def run(self, count: int, rate: float) -> None:
        """Send `count` datagrams, `rate` per second; 0 is as fast as possible."""
        start = time.monotonic()
        while self.sent < count:
            if rate:
                ahead = self.sent / rate - (time.monotonic() - start)
                if ahead > 0:
                    time.sleep(ahead)
            try:
                if self.segments:
                    self.send_segments(count)
                else:
                    size = self.random.randint(*self.sizes)
                    self.sent += 1
                    self.socket.send(make_datagram(self.sent - 1, size))
            except OSError:
                self.refused += 1  # counts as lost
        print(json.dumps({"sent": self.sent, "refused": self.refused}), flush=True)

    def send_segments(self, count: int) -> None:
        """Send several datagrams of one size, and a last one that may be shorter, in one call."""
        size = self.random.randint(*self.sizes)
        most = min(SEGMENTS, SEGMENT_BYTES // size, count - self.sent)
        total = self.random.randint(1, max(1, most))
        last = self.random.randint(self.sizes[0], size)
        lengths = [size] * (total - 1) + [last if total > 1 else size]
        data = b"".join(make_datagram(self.sent + it, length) for it, length in enumerate(lengths))
        self.sent += total
        segment = struct.pack("=H", size)
        self.socket.sendmsg([data], [(socket.IPPROTO_UDP, UDP_SEGMENT, segment)])


def main(words: list[str]) -> None:
    role, address, port, way = words[:4]
    if role == "receive":
        Receiver(address, int(port), way == "gro").run()
    else:
        low, _, high = words[4].partition("-")
        Sender(address, int(port), way, (int(low), int(high))).run(int(words[5]), float(words[6]))


if __name__ == "__main__":
    main(sys.argv[1:])

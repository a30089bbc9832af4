#!/usr/bin/python3
"""bad_bridge.py LEFT RIGHT: forwards packets between two interfaces; may lose, delay, double them.

Each line on standard input, "LOSS JITTER DOUBLE", sets the share of packets that is lost, the
maximum delay of the others in seconds, and the share that is sent twice. When standard input is
closed, it prints its counts as a line of JSON. It is a separate process for speed.
"""

import heapq
import itertools
import json
import os
import random
import select
import socket
import sys
import time

ETH_P_ALL = 0x0003
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_IGNORE_OUTGOING = 263, 1, 23
PACKET_MR_PROMISC = 1
SO_RCVBUFFORCE, BUFFER = 33, 32 << 20
MOST_AT_ONCE = 64


class Bridge:
    def __init__(self, *interfaces: str):
        self.ends = [open_end(name) for name in interfaces]
        self.others = dict(zip(self.ends, reversed(self.ends)))
        self.loss = self.jitter = self.double = 0.0
        self.random = random.Random(5)
        self.queue: list = []
        self.numbers = itertools.count()
        self.passed = self.lost = self.late = self.doubled = 0
        self.highest = dict.fromkeys(self.ends, -1)

    def run(self) -> None:
        """Run until standard input is closed."""
        print("ready", flush=True)
        inputs = [*self.ends, sys.stdin]
        while True:
            wait = max(0.0, self.queue[0][0] - time.monotonic()) if self.queue else None
            ready, _, _ = select.select(inputs, [], [], wait)
            if sys.stdin in ready:
                lines = os.read(sys.stdin.fileno(), 1 << 12).decode().splitlines()
                if not lines:
                    break
                self.loss, self.jitter, self.double = map(float, lines[-1].split())
            for end in self.ends:
                if end in ready:
                    self.take(end)
            self.send_due()
        counts = {name: getattr(self, name) for name in ("passed", "lost", "late", "doubled")}
        print(json.dumps(counts), flush=True)

    def take(self, end: socket.socket) -> None:
        for _ in range(MOST_AT_ONCE):
            try:
                packet = end.recv(1 << 16)
            except BlockingIOError:
                return
            if self.random.random() < self.loss:
                self.lost += 1
                continue
            copies = 1 + (self.random.random() < self.double)
            self.doubled += copies - 1
            for _ in range(copies):
                due = time.monotonic() + self.random.random() * self.jitter
                heapq.heappush(self.queue, (due, next(self.numbers), self.others[end], packet))

    def send_due(self) -> None:
        now = time.monotonic()
        while self.queue and self.queue[0][0] <= now:
            _, number, end, packet = heapq.heappop(self.queue)
            try:
                end.send(packet)
            except OSError:
                self.lost += 1  # the queue is full, or the interface is down
                continue
            self.passed += 1
            self.late += number < self.highest[end]
            self.highest[end] = max(number, self.highest[end])


def open_end(interface: str) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    end.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    end.bind((interface, ETH_P_ALL))
    index = socket.if_nametoindex(interface)
    # struct packet_mreq: the packets are addressed to the interfaces at the far ends.
    request = index.to_bytes(4, sys.byteorder) + PACKET_MR_PROMISC.to_bytes(2, sys.byteorder)
    end.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, request + bytes(10))
    end.setblocking(False)
    return end


if __name__ == "__main__":
    Bridge(*sys.argv[1:3]).run()

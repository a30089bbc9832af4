"""A bad network: a relay that delays, loses, doubles and reorders datagrams."""

import heapq
import itertools
import random
import select
import socket
import threading
import time

from harness.lab.namespace import Namespace

PORT = 51900
SO_RCVBUFFORCE, BUFFER = 33, 8 << 20  # bytes; enough while this process does not run


class Relay:
    """Relays between an initiator, which is given the relay's address, and a responder.

    Runs in a thread, with its sockets in the given namespace. `seed` makes the loss repeatable.
    """

    def __init__(
        self,
        namespace: Namespace,
        responder: tuple[str, int],
        delay: float = 0.0,
        loss: float = 0.0,
        duplicate: float = 0.0,
        jitter: float = 0.0,
        seed: int = 1,
    ):
        self.responder, self.delay, self.jitter = responder, delay, jitter
        self.loss, self.duplicate = loss, duplicate
        self.random = random.Random(seed)
        self.front = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.back = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for end in (self.front, self.back):
            end.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self.front.bind(("0.0.0.0", PORT))
        self.back.bind(("0.0.0.0", PORT + 1))
        self.initiator: tuple[str, int] | None = None
        self.queue: list = []
        self.order = itertools.count()  # heap entries never compare beyond this
        self.running = True
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> "Relay":
        self.thread.start()
        return self

    def __exit__(self, *_error) -> None:
        self.running = False
        self.thread.join()
        self.front.close()
        self.back.close()

    def run(self) -> None:
        while self.running:
            wait = 0.05
            if self.queue:
                wait = min(wait, max(0.0, self.queue[0][0] - time.monotonic()))
            readable, _, _ = select.select([self.front, self.back], [], [], wait)
            for end in readable:
                self.receive(end)
            while self.queue and self.queue[0][0] <= time.monotonic():
                _, _, out, target, datagram = heapq.heappop(self.queue)
                try:
                    out.sendto(datagram, target)
                except OSError:
                    pass  # the receiving end was closed

    def receive(self, end: socket.socket) -> None:
        try:
            datagram, source = end.recvfrom(1 << 16)
        except OSError:
            return  # an ICMP error of an earlier send
        if end is self.front:
            self.initiator = source
            out, target = self.back, self.responder
        else:
            out, target = self.front, self.initiator
        if target is None or self.random.random() < self.loss:
            return
        for _ in range(1 + (self.random.random() < self.duplicate)):
            due = time.monotonic() + self.delay + self.random.random() * self.jitter
            heapq.heappush(self.queue, (due, next(self.order), out, target, datagram))
